/* Links, addresses and routes through rtnetlink: messages put into a batch, and reads. All names and
 * addresses are the caller's; IPv4 addresses are in host byte order. */
#ifndef OVERLAY_RTNL_H
#define OVERLAY_RTNL_H

#include <stdbool.h>
#include <stdint.h>

#include "overlay/nl.h"

struct rtnl_stats {
	uint64_t rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped;
};
struct rtnl_link {
	int index;
	int master; /* index, 0: none */
	unsigned flags;
	unsigned mtu;
	char name[16];
	char kind[16]; /* "bridge", "veth", ""... */
	char alias[80];
	uint8_t mac[6];
	struct rtnl_stats stats;
};
/* ERR_NOT_FOUND when there is no such link. */
int rtnl_link_get(struct nl *s, const char *name, struct rtnl_link *ret, struct err *e);
int rtnl_link_each(
    struct nl *s, void (*fn)(void *data, const struct rtnl_link *l), void *data, struct err *e);
/* IPv4 addresses of the host and the destinations of all its routes but the default ones. index: the link. */
struct rtnl_net {
	uint32_t addr;
	int prefix;
	int index;
	bool is_address; /* else a route's destination */
};
int rtnl_net_each(
    struct nl *s, void (*fn)(void *data, const struct rtnl_net *net), void *data, struct err *e);
/* The index of a link in the socket's namespace by one ioctl; 0 when there is none. */
int rtnl_link_index(const struct nl *s, const char *name);

/* A bridge without multicast snooping. */
void rtnl_put_bridge(struct nl_batch *b, const char *name);
/* A veth pair, both ends down: `name` here; `peer` in the namespace of peer_ns. */
void rtnl_put_veth(struct nl_batch *b, const char *name, const uint8_t mac[6], const char *peer,
    const uint8_t peer_mac[6], int peer_ns);
/* An interface's IPv4 settings without /proc: IPV4_DEVCONF_* numbers and values; and what `ip link` shows as
 * alias. */
struct rtnl_conf {
	uint16_t key;
	uint32_t value;
};
void rtnl_put_conf(
    struct nl_batch *b, const char *name, const char *alias, const struct rtnl_conf *conf, size_t count);
/* No IPv6 link-local address (and so no duplicate address detection) on the link. */
void rtnl_put_no_ipv6_auto(struct nl_batch *b, const char *name);
void rtnl_put_up(struct nl_batch *b, const char *name);
void rtnl_put_link_del(struct nl_batch *b, const char *name); /* a missing link is fine */
/* Puts a link into a group (a missing link is fine), and deletes all links of a group. */
void rtnl_put_group(struct nl_batch *b, const char *name, uint32_t group);
void rtnl_put_group_del(struct nl_batch *b, uint32_t group);
void rtnl_put_address(struct nl_batch *b, int index, uint32_t addr, int prefix);
void rtnl_put_address_del(struct nl_batch *b, int index, uint32_t addr, int prefix);
/* A permanent neighbour entry: no address resolution ever. */
void rtnl_put_neighbour(struct nl_batch *b, int index, uint32_t addr, const uint8_t mac[6]);
/* A route by the link to what is directly there. src 0: the kernel chooses. Replaces what was there. */
void rtnl_put_link_route(struct nl_batch *b, int index, uint32_t dst, int prefix, uint32_t src);
/* The subnet is ours: what no better route knows is answered with "host unreachable". */
void rtnl_put_unreachable(struct nl_batch *b, uint32_t dst, int prefix);
void rtnl_put_unreachable_del(struct nl_batch *b, uint32_t dst, int prefix);
void rtnl_put_default_route(struct nl_batch *b, int index, uint32_t gateway);

#endif
