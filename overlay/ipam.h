/* Addresses of one IPv4 subnet, handed out next-fit: the search goes on from the last one given, so that an
 * address that was just released comes back as late as possible (stale neighbour entries and half-dead
 * connections then meet nobody). Pure memory; the owner persists what it needs. Addresses are in host byte
 * order. At most 65,536 addresses of a larger subnet are used. */
#ifndef OVERLAY_IPAM_H
#define OVERLAY_IPAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct ipam {
	uint32_t net;   /* first address of the subnet */
	int prefix;     /* 8..29 */
	uint32_t size;  /* addresses in use by us, the network address included */
	uint32_t next;  /* offset at which the next search starts */
	uint32_t taken; /* how many, gateway not counted */
	uint64_t *bits;
};
/* "172.18.0.0/16": ERR_INVALID names what is wrong. Host bits must be zero. */
int ipam_parse(const char *cidr, uint32_t *ret_net, int *ret_prefix, struct err *e);
void ipam_init(struct ipam *p, uint32_t net, int prefix);
void ipam_done(struct ipam *p);
uint32_t ipam_gateway(const struct ipam *p); /* the first host address; never handed out */
bool ipam_contains(const struct ipam *p, uint32_t addr);
/* Marks one as used; ERR_CONFLICT when it is, ERR_INVALID outside the subnet. */
int ipam_take(struct ipam *p, uint32_t addr, struct err *e);
/* ERR_UNAVAILABLE when all are used. */
int ipam_alloc(struct ipam *p, uint32_t *ret_addr, struct err *e);
void ipam_release(struct ipam *p, uint32_t addr);
/* Writes "a.b.c.d". */
void ipam_format(uint32_t addr, char out[16]);
bool ipam_overlap(uint32_t a, int a_prefix, uint32_t b, int b_prefix);

#endif
