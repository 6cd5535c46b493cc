/* Credentials for registries, from docker's configuration file. */
#ifndef CLI_AUTH_H
#define CLI_AUTH_H

#include "base/err.h"

/* What X-Registry-Auth says for the registry of an image: base64url of JSON, heap; "e30=" ({}) when there are
 * no credentials. ERR_NOT_IMPLEMENTED when a credential helper is configured for that registry. */
int auth_header(const char *image, char **ret, struct err *e);
/* The registry of an image reference: "docker.io" when it names none; heap. */
char *auth_registry(const char *image);

#endif
