/* The network of one node's containers: a gateway with NAT to the outside, a network namespace and a routed
 * veth pair for each container, host-mode and ingress-mode published ports through nftables. All of it is
 * declared state: what should be is known here, hostnet_open compares with what the kernel has and repairs
 * it. Only objects of this instance are touched: links with its prefix, its own nftables table, its own named
 * namespaces. docs/networking.md has the whole picture.
 *
 * Several daemons can run on one machine, each in a network namespace of its own or in the same one; `tag`
 * keeps them apart.
 *
 * Threads: hostnet_open, _close and _destroy on the loop's thread; all others from any thread. Attaching and
 * detaching make and remove namespaces, which the kernel takes its time for: they belong on the thread pool,
 * and hold nobody else up there. Calls for one container come one after the other. */
#ifndef OVERLAY_HOSTNET_H
#define OVERLAY_HOSTNET_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/str.h"

struct hostnet;
struct hostnet_opts {
	const char *tag;       /* short (<= 6 chars), unique on the host: names links, table and namespaces */
	const char *state_dir; /* <data_root>/net: the subnet, which stays over a reboot */
	const char *run_dir;   /* <exec_root>/net, memory: addresses, ports; NULL: in state_dir, too */
	const char *netns_dir; /* where namespaces are bound: <exec_root>/netns */
	const char *pool; /* NULL: the first free of 172.18.0.0/16 ... that no route of the host covers */
};
/* loop NULL: foreign changes to nftables are not watched (repaired by reconcile and at the next change). */
int hostnet_open(uv_loop_t *loop, const struct hostnet_opts *o, struct hostnet **ret, struct err *e);
/* Leaves the kernel's state when there are containers: they go on. Without any, the host is left as it was.
 */
void hostnet_close(struct hostnet *n);
void hostnet_destroy(struct hostnet *n); /* removes bridge, table, namespaces (leave, tests) and closes */

struct hostnet_port {
	uint16_t container_port;
	uint16_t host_port; /* 0: chosen from 32768-60999; the answer is written back */
	bool udp;
	const char *host_ip; /* NULL: every address */
};
struct hostnet_endpoint {
	char netns_path[256]; /* for the OCI spec */
	char address[64];     /* "172.18.0.2/16" */
	char gateway[64];
	char mac[24];
	char ifname[16]; /* host side, for counters */
};
/* Makes the namespace, the veth pair, the address (next-fit: one that was just released is not handed out
 * again), default route, lo up. Fast: well under 5 ms. ports may be NULL: host-mode ports bound for this
 * container; ERR_CONFLICT "port N is already in use" when another container or a socket of the host has it.
 * Idempotent for the same id. */
int hostnet_attach(struct hostnet *n, const char *container_id, struct hostnet_port *ports, size_t n_ports,
    struct hostnet_endpoint *ret, struct err *e);
void hostnet_detach(struct hostnet *n, const char *container_id);
/* A container that has ended leaves the published ports and gives up its own, at once; the rest of it goes
 * with hostnet_detach. */
void hostnet_withdraw(struct hostnet *n, const char *container_id);
/* Containers that live: everything else of ours is removed (after a restart): endpoints, links, namespaces,
 * and services that nobody published since hostnet_open and that have no live backend. Repairs gateway,
 * routes, rules. */
void hostnet_reconcile(struct hostnet *n, const char *const *container_ids, size_t count);
int hostnet_endpoint_of(
    struct hostnet *n, const char *container_id, struct hostnet_endpoint *ret, struct err *e);
struct hostnet_counters {
	uint64_t rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped;
};
int hostnet_counters(
    struct hostnet *n, const char *container_id, struct hostnet_counters *ret, struct err *e);

/* Ingress-mode ports: published on every address of the host (127.0.0.1 too), from outside, from the host
 * itself and from containers, balanced over the backends, the client's address kept (no source NAT except
 * where a hairpin or loopback source makes it unavoidable). Replaces what the service had; one nftables
 * transaction. Zero backends: connections are refused (reject), not black-holed. What is published already
 * and unchanged costs nothing. ERR_CONFLICT "port N/tcp is already in use by service X | container X |
 * another program on this host": nothing has changed then. Backends without an endpoint here are left out. */
struct hostnet_backend {
	const char *container_id;
};
struct hostnet_ingress_port {
	uint16_t published, target;
	bool udp;
};
int hostnet_publish(struct hostnet *n, const char *service_id, const struct hostnet_ingress_port *ports,
    size_t n_ports, const struct hostnet_backend *backends, size_t n_backends, struct err *e);
void hostnet_unpublish(struct hostnet *n, const char *service_id);
/* Unpublishes every service that is not named: those of an earlier run of the daemon, too. */
void hostnet_unpublish_others(struct hostnet *n, const char *const *service_ids, size_t count);
/* The host's resolvers for a container's resolv.conf: loopback ones replaced by what the host's stub uses, or
 * by the gateway relay. Text, heap. */
char *hostnet_resolv_conf(struct hostnet *n, const struct strlist *servers, const struct strlist *search,
    const struct strlist *options);

#endif
