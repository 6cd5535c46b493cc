/* Addresses that a swarm is told: "0.0.0.0:2377", "192.0.2.7", "eth0", "eth0:2377", "[fd00::1]:2377". */
#ifndef NODE_ADDR_H
#define NODE_ADDR_H

#include <stdint.h>

#include "base/err.h"

#define SWARM_PORT 2377

/* Splits; a missing port becomes SWARM_PORT. host is at most 255 characters. ERR_INVALID names the address.
 */
int addr_split(const char *s, char host[256], uint16_t *ret_port, struct err *e);
/* Joins, with brackets around IPv6; heap. */
char *addr_join(const char *host, uint16_t port);
/* The address to listen on: an IP, or the one address of an interface. */
int addr_resolve_listen(const char *s, char host[256], uint16_t *ret_port, struct err *e);
/* The address to advertise: what was said (an IP or an interface), else the listen address when it is a real
 * one, else the system's only one. Swarm's errors when there is none ("could not find the system's IP address
 * ...") or more than one ("could not choose an IP address to advertise ..."). */
int addr_resolve_advertise(const char *s, const char *listen_host, uint16_t listen_port, char host[256],
    uint16_t *ret_port, struct err *e);

#endif
