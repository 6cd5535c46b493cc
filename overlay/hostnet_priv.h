/* What the files behind hostnet.h share. Everything in struct hostnet is protected by its lock, which the
 * public functions take; functions named here expect it held. endpoint_build is the exception: it takes long,
 * so it is protected by build_lock, has a socket of its own, and reads only what does not change. */
#ifndef OVERLAY_HOSTNET_PRIV_H
#define OVERLAY_HOSTNET_PRIV_H

#include <pthread.h>
#include <uv.h>

#include "base/map.h"
#include "base/str.h"
#include "overlay/hostnet.h"
#include "overlay/ipam.h"
#include "overlay/netns.h"
#include "overlay/nft.h"
#include "overlay/nl.h"
#include "overlay/reap.h"
#include "overlay/rtnl.h"

/* One listening address of the host: protocol, address (0: every one), port. Ingress-mode and host-mode ports
 * are both fronts; the key makes conflicts visible and names the chain. */
struct net_front {
	char key[40];   /* "tcp/8000", "udp/10.0.0.1:53" */
	char chain[48]; /* "tcp-8000", "udp-10.0.0.1-53" */
	bool udp;
	uint32_t ip;
	uint16_t port, target;
	char owner[160]; /* "service ID", "container ID" */
	uint32_t *addrs; /* backends, ascending */
	size_t n;
	int hold; /* a bound socket that keeps the host's programs off the port; -1: none */
};
/* --- front.c */
struct net_front *front_new(
    bool udp, uint32_t ip, uint16_t port, uint16_t target, const char *owner_kind, const char *owner_id);
void front_free(struct net_front *f);
bool front_same(const struct net_front *a, const struct net_front *b); /* target and backends */
void front_add_backend(struct net_front *f, uint32_t addr);            /* keeps the order, ignores doubles */

/* old NULL: new front; next NULL: it goes. Both: replaced. Takes `next` when it succeeds. */
struct front_change {
	struct net_front *old, *next;
};
int fronts_change(struct hostnet *n, struct front_change *c, size_t count, struct err *e);
/* The front that has the port, by the same or a wider key; NULL: free among ours. */
const struct net_front *front_rival(struct hostnet *n, const struct net_front *f);
/* ERR_CONFLICT when another front covers the same port, or (new fronts only) a socket of the host has it;
 * else the port is held. */
int front_claim(struct hostnet *n, struct net_front *f, struct err *e);

struct net_container {
	char *id;
	uint32_t addr;
	struct hostnet_port *ports; /* host-mode; host_ip owned */
	size_t n_ports;
	bool building; /* endpoint_build is under way on some thread */
};
void net_container_free(struct net_container *c);

struct net_service {
	char *id;
	struct hostnet_ingress_port *ports;
	size_t n_ports;
	struct strlist backends; /* container ids */
	bool fresh;              /* published since hostnet_open */
};
void net_service_free(struct net_service *s);

struct hostnet {
	uv_loop_t *loop;
	pthread_mutex_t lock;
	pthread_mutex_t build_lock; /* taken without lock, or after it */
	char tag[8];
	char bridge[16]; /* holds the gateway's address; has no ports */
	char links[16];  /* "shTAG-*": the containers' links */
	char table[24];
	char *state_dir, *run_dir, *netns_dir;
	struct nl rt, nf;
	struct nl build_rt; /* of endpoint_build */
	struct netns_worker *worker;
	struct reaper *reaper;
	struct ipam ipam;
	uint32_t cursor_saved; /* the next-fit cursor on disk is at or beyond ours */
	struct strmap containers, services, fronts;
	struct u64map hairpins; /* address -> how many fronts have it as a backend */
	uint64_t table_handle;
	uint32_t relay; /* the host's loopback resolver that the gateway's port 53 leads to, 0: none */
	uint16_t next_host_port;
	bool warned_legacy;
	bool opened;
	struct hostnet_monitor *monitor;
};

/* --- fw.c: our table ------------------------------------------------------------------------------- */
/* Replaces the whole table by what is declared, in one transaction: live connections are not disturbed. */
int fw_rebuild(struct hostnet *n, struct err *e);
/* Whether the table that fw_rebuild made is still there. */
bool fw_is_intact(struct hostnet *n);
int fw_remove(struct hostnet *n, struct err *e);
void fw_put_front(struct nft_tx *t, const struct net_front *f, bool exists);
void fw_put_front_del(struct nft_tx *t, const struct net_front *f);
void fw_put_hairpin(struct nft_tx *t, uint32_t addr, bool add);
/* The rules that lead the gateway's port 53 to n->relay. */
void fw_put_relay(struct hostnet *n, struct nft_tx *t, bool exists);

/* --- forward.c: other people's tables --------------------------------------------------------------- */
/* Where another base chain of the forward hook drops what nobody accepted, adds two marked rules for our
 * links. */
int forward_ensure(struct hostnet *n, struct err *e);
void forward_remove(struct hostnet *n);

/* --- state.c: what survives a restart of the daemon -------------------------------------------------- */
/* Loads what this boot left; damaged files are dropped with a log line. ret_net/prefix: 0 when there is no
 * pool yet. */
int state_load(struct hostnet *n, uint32_t *ret_net, int *ret_prefix, uint32_t *ret_next, struct err *e);
int state_save_pool(struct hostnet *n, struct err *e);
int state_save_cursor(struct hostnet *n, struct err *e);
int state_save_container(struct hostnet *n, const struct net_container *c, struct err *e);
int state_save_service(struct hostnet *n, const struct net_service *s, struct err *e);
void state_drop_container(struct hostnet *n, const char *id);
void state_drop_service(struct hostnet *n, const char *id);
/* Ids become file names and comments: letters, digits, '_', '-', '.', at most 128, not starting with '.'. */
int state_check_id(const char *what, const char *id, struct err *e);

/* --- conntrack.c ------------------------------------------------------------------------------------- */
/* Forgets UDP flows to the port that do not lead to one of the addresses, so that their next packet is
 * balanced anew. */
int conntrack_flush_udp(
    struct hostnet *n, uint32_t ip, uint16_t port, const uint32_t *addrs, size_t count, struct err *e);

/* --- gateway.c --------------------------------------------------------------------------------------- */
/* wanted NULL: the saved one (saved_prefix 0: none) or the first that is free. */
int gateway_choose_pool(struct hostnet *n, const char *wanted, uint32_t saved, int saved_prefix,
    uint32_t *ret_net, int *ret_prefix, struct err *e);
/* Makes or repairs the gateway's link, address and route, and turns forwarding on. */
int gateway_ensure(struct hostnet *n, struct err *e);

/* --- endpoint.c -------------------------------------------------------------------------------------- */
void endpoint_link(const struct hostnet *n, uint32_t addr, char out[16]);
/* The address that a link of ours stands for; 0 when the link is not ours. */
uint32_t endpoint_address(const struct hostnet *n, const char *link);
void endpoint_netns(const struct hostnet *n, const char *id, char out[256]);
void endpoint_mac(uint32_t addr, uint8_t mac[6]);
void endpoint_fill(struct hostnet *n, const struct net_container *c, struct hostnet_endpoint *ret);
/* Without the lock. */
int endpoint_build(struct hostnet *n, const struct net_container *c, struct err *e);
bool endpoint_is_built(struct hostnet *n, const struct net_container *c);
/* Settings, neighbour and route of the host's end; idempotent. */
void endpoint_put_host_end(
    struct hostnet *n, struct nl_batch *b, const struct net_container *c, const char *link, int index);
void endpoint_delete_link(struct hostnet *n, const char *link);
/* Link, address, record; the namespace is the caller's. */
void endpoint_tear_down(struct hostnet *n, struct net_container *c);

/* --- repair.c ---------------------------------------------------------------------------------------- */
/* Deals with links of ours that no record explains: adopts them by their alias, or removes them. */
void repair_links(struct hostnet *n, bool adopt);
/* The host's side of all that is attached. */
int repair_routes(struct hostnet *n, struct err *e);

/* --- ingress.c, hostnet.c ---------------------------------------------------------------------------- */
int ingress_set_ports(
    struct hostnet *n, struct net_container *c, struct hostnet_port *ports, size_t n_ports, struct err *e);
/* Ports, link, namespace, record, and the container itself. */
void hostnet_detach_locked(struct hostnet *n, struct net_container *c);
/* Takes the container out of every front; its own fronts go. */
void ingress_forget_container(struct hostnet *n, struct net_container *c);
/* After state_load: makes the fronts that the records stand for. */
void ingress_restore(struct hostnet *n);
/* Services nobody published since the daemon started and that have no live backend. */
void ingress_drop_stale(struct hostnet *n);

/* --- resolv.c ---------------------------------------------------------------------------------------- */
/* The loopback resolver to relay to, or 0, by the host's resolv.conf as it is now. */
uint32_t resolv_relay_target(void);

/* --- monitor.c --------------------------------------------------------------------------------------- */
/* Watches for changes of others to nftables and repairs. */
int monitor_start(struct hostnet *n, struct err *e);
void monitor_stop(struct hostnet *n);

#endif
