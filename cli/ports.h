/* Published ports: docker's syntax to PortConfig objects, and back to the words of tables. */
#ifndef CLI_PORTS_H
#define CLI_PORTS_H

#include <jansson.h>

#include "base/err.h"

/* Appends to a list of PortConfig: "80:8000", "8000", "8080-8081:80-81/udp",
 * "published=80,target=8000,protocol=tcp,mode=host". */
int ports_parse(const char *s, json_t *list, struct err *e);
/* Removes from a list what --publish-rm names: a target port ("8000", "8000/udp") or what --publish would
 * take. ERR_NOT_FOUND when nothing fits. */
int ports_remove(json_t *list, const char *s, struct err *e);
/* "*:8000-8001->80-81/tcp, *:53->53/udp" of the ports of one publish mode; heap. */
char *ports_list(const json_t *ports, const char *mode);
/* Fields of a container's "Ports": "0.0.0.0:80->8000/tcp, 9000/udp"; heap. */
char *ports_of_container(const json_t *ports);

#endif
