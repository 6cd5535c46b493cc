/* The network of one node's containers: gateway, namespaces, addresses.
 *
 * Happy path: hostnet_open finds or makes `shTAG0`, which holds the gateway's address, turns routing on, and
 * rebuilds the nftables table from the records. hostnet_attach takes an address, makes a namespace and a veth
 * pair, and configures both ends by one netlink batch each: a /32 address and a default route inside, a /32
 * route outside, permanent neighbour entries on both.
 *
 * Every link is routed on its own; nothing is bridged. On a bridge, whether frames between two containers
 * pass the host's NAT depends on br_netfilter, which other engines turn on and off for the whole host;
 * routed, they always do. So a container reaches another one by a published port with its own address kept,
 * no address resolution is ever needed, a container cannot pose as another one (reverse path filter), and
 * there is no limit of 1,023 ports.
 *
 * Failure: what hostnet_attach had made is removed again. After a crash the records say what should be there:
 * hostnet_open repairs gateway, routes and table, hostnet_reconcile removes what belongs to no live
 * container. */
#include "overlay/hostnet_priv.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/ip.h>
#include <linux/netlink.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define CONTAINER_IFNAME "eth0"

/* --- names and addresses ----------------------------------------------------------------------------- */

static void link_name(const struct hostnet *n, uint32_t addr, char out[16])
{
	snprintf(out, 16, "sh%.6s-%06x", n->tag, (addr - n->ipam.net) & 0xffffff);
}

/* The address that a link of ours stands for; 0 when the link is not ours. */
static uint32_t link_address(const struct hostnet *n, const char *name)
{
	char prefix[16], again[16];
	snprintf(prefix, sizeof(prefix), "sh%s-", n->tag);
	if (!str_has_prefix(name, prefix))
		return 0;
	uint32_t addr = n->ipam.net + (uint32_t)strtoul(name + strlen(prefix), NULL, 16);
	link_name(n, addr, again);
	return str_eq(again, name) ? addr : 0;
}

static void mac_of(uint32_t addr, uint8_t mac[6])
{
	uint32_t be = htonl(addr);
	mac[0] = 0x02; /* locally administered */
	mac[1] = 0x42;
	memcpy(mac + 2, &be, 4);
}

static void netns_path(const struct hostnet *n, const char *id, char out[256])
{
	snprintf(out, 256, "%s/%s", n->netns_dir, id);
}

void net_container_free(struct net_container *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_ports; i++)
		free((char *)(uintptr_t)c->ports[i].host_ip);
	free(c->ports);
	free(c->id);
	free(c);
}

/* --- the gateway ------------------------------------------------------------------------------------- */

struct pool_search {
	struct u64map own; /* indices of our links */
	uint32_t net;
	int prefix;
	bool clash;
	struct hostnet *n;
};

static void on_link(void *data, const struct rtnl_link *l)
{
	struct pool_search *s = data;
	char prefix[16];
	snprintf(prefix, sizeof(prefix), "sh%.6s-", s->n->tag);
	if (str_eq(l->name, s->n->bridge) || str_has_prefix(l->name, prefix))
		u64map_put(&s->own, (uint64_t)l->index, s);
}

static void on_net(void *data, const struct rtnl_net *x)
{
	struct pool_search *s = data;
	/* The same subnet without a link is our own unreachable route. */
	if (!x->is_address && !x->index && x->addr == s->net && x->prefix == s->prefix)
		return;
	if (!u64map_get(&s->own, (uint64_t)x->index) && ipam_overlap(s->net, s->prefix, x->addr, x->prefix))
		s->clash = true;
}

static int pool_clashes(struct hostnet *n, uint32_t net, int prefix, bool *ret, struct err *e)
{
	struct pool_search s = {.own = U64MAP_INIT, .net = net, .prefix = prefix, .n = n};
	int r = rtnl_link_each(&n->rt, on_link, &s, e);
	if (r == 0)
		r = rtnl_net_each(&n->rt, on_net, &s, e);
	u64map_done(&s.own);
	*ret = s.clash;
	return r;
}

static int choose_pool(struct hostnet *n, const char *wanted, uint32_t saved, int saved_prefix,
    uint32_t *ret_net, int *ret_prefix, struct err *e)
{
	bool clash;
	int r;
	if (wanted) {
		r = ipam_parse(wanted, ret_net, ret_prefix, e);
		if (r == 0)
			r = pool_clashes(n, *ret_net, *ret_prefix, &clash, e);
		if (r == 0 && clash)
			return err_set(
			    e, ERR_CONFLICT, "subnet %s overlaps an address or a route of this host", wanted);
		return r;
	}
	/* 172.18.0.0/16 ... 172.31.0.0/16, then 192.168.0.0/20 ... 192.168.240.0/20; what was used before
	 * comes first. */
	for (int i = saved_prefix ? -1 : 0; i < 14 + 16; i++) {
		uint32_t net = i < 0    ? saved
			       : i < 14 ? 0xac120000u + ((uint32_t)i << 16)
					: 0xc0a80000u + ((uint32_t)(i - 14) << 12);
		int prefix = i < 0 ? saved_prefix : i < 14 ? 16 : 20;
		r = pool_clashes(n, net, prefix, &clash, e);
		if (r < 0)
			return r;
		if (!clash) {
			*ret_net = net;
			*ret_prefix = prefix;
			return 0;
		}
	}
	return err_set(
	    e, ERR_UNAVAILABLE, "no private subnet is free on this host; choose one for containers");
}

static int ensure_forwarding(struct err *e)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	static const char path[] = "/proc/sys/net/ipv4/ip_forward";
	int r = fs_read(path, 16, &b, e);
	if (r < 0 || (b.len && b.data[0] == '1'))
		return r;
	r = fs_write_existing(path, "1", e);
	if (r == 0)
		log_info("network: turned on IPv4 forwarding (net.ipv4.ip_forward)");
	return r;
}

struct addr_cleanup {
	int index;
	uint32_t keep;
	int keep_prefix;
	struct nl_batch *b;
};

static void on_gateway_addr(void *data, const struct rtnl_net *x)
{
	struct addr_cleanup *c = data;
	if (x->is_address && x->index == c->index && (x->addr != c->keep || x->prefix != c->keep_prefix))
		rtnl_put_address_del(c->b, x->index, x->addr, x->prefix);
}

static int ensure_gateway(struct hostnet *n, struct err *e)
{
	struct rtnl_link l;
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	int r = rtnl_link_get(&n->rt, n->bridge, &l, e);
	if (r == 0 && !str_eq(l.kind, "bridge"))
		return err_set(e, ERR_CONFLICT, "link %s exists and is not a bridge", n->bridge);
	if (r < 0 && r != ERR_NOT_FOUND)
		return r;
	rtnl_put_bridge(&b, n->bridge);
	rtnl_put_no_ipv6_auto(&b, n->bridge);
	rtnl_put_up(&b, n->bridge);
	r = nl_send(&n->rt, &b, NULL, e);
	if (r < 0)
		return r;
	int index = rtnl_link_index(&n->rt, n->bridge);
	struct addr_cleanup c = {index, ipam_gateway(&n->ipam), 32, &b};
	r = rtnl_net_each(&n->rt, on_gateway_addr, &c, e);
	if (r < 0)
		return r;
	rtnl_put_address(&b, index, ipam_gateway(&n->ipam), 32);
	/* Also tells other programs that look for a free subnet that this one is taken. */
	rtnl_put_unreachable(&b, n->ipam.net, n->ipam.prefix);
	r = nl_send(&n->rt, &b, NULL, e);
	return r < 0 ? r : ensure_forwarding(e);
}

/* --- attaching --------------------------------------------------------------------------------------- */

static void fill_endpoint(struct hostnet *n, const struct net_container *c, struct hostnet_endpoint *ret)
{
	char a[16];
	uint8_t m[6];
	memset(ret, 0, sizeof(*ret));
	netns_path(n, c->id, ret->netns_path);
	ipam_format(c->addr, a);
	snprintf(ret->address, sizeof(ret->address), "%s/%d", a, n->ipam.prefix);
	ipam_format(ipam_gateway(&n->ipam), ret->gateway);
	mac_of(c->addr, m);
	snprintf(
	    ret->mac, sizeof(ret->mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	link_name(n, c->addr, ret->ifname);
}

/* The host's end has the same MAC address on every link: the gateway's. */
static void put_host_end(
    struct hostnet *n, struct nl_batch *b, const struct net_container *c, const char *link, int index)
{
	static const struct rtnl_conf conf[] = {
	    {IPV4_DEVCONF_FORWARDING, 1},
	    {IPV4_DEVCONF_RP_FILTER, 1},
	    /* What came from 127.0.0.1 by a published port goes back there. */
	    {IPV4_DEVCONF_ROUTE_LOCALNET, 1},
	};
	uint8_t mac[6];
	mac_of(c->addr, mac);
	rtnl_put_conf(b, link, c->id, conf, ARRAY_LEN(conf));
	rtnl_put_no_ipv6_auto(b, link);
	rtnl_put_up(b, link);
	rtnl_put_neighbour(b, index, c->addr, mac);
	rtnl_put_link_route(b, index, c->addr, 32, ipam_gateway(&n->ipam));
}

static int make_link(
    struct hostnet *n, const struct net_container *c, const char *link, int ns, int *ret_errno, struct err *e)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	uint8_t mac[6], gw_mac[6];
	mac_of(c->addr, mac);
	mac_of(ipam_gateway(&n->ipam), gw_mac);
	rtnl_put_veth(&b, link, gw_mac, CONTAINER_IFNAME, mac, ns);
	return nl_send(&n->rt, &b, ret_errno, e);
}

static int raise_host_end(struct hostnet *n, const struct net_container *c, const char *link, struct err *e)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	put_host_end(n, &b, c, link, rtnl_link_index(&n->rt, link));
	return nl_send(&n->rt, &b, NULL, e);
}

static int configure_inside(
    struct hostnet *n, const struct net_container *c, struct nl *inside, struct err *e)
{
	int index = rtnl_link_index(inside, CONTAINER_IFNAME);
	if (!index)
		return err_set(
		    e, ERR_INTERNAL, "link %s did not arrive in the container's namespace", CONTAINER_IFNAME);
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	uint32_t gateway = ipam_gateway(&n->ipam);
	uint8_t gw_mac[6];
	mac_of(gateway, gw_mac);
	rtnl_put_up(&b, "lo");
	rtnl_put_no_ipv6_auto(&b, CONTAINER_IFNAME);
	rtnl_put_up(&b, CONTAINER_IFNAME);
	rtnl_put_address(&b, index, c->addr, 32);
	rtnl_put_neighbour(&b, index, gateway, gw_mac);
	rtnl_put_link_route(&b, index, gateway, 32, 0);
	rtnl_put_default_route(&b, index, gateway);
	return nl_send(inside, &b, NULL, e);
}

static void delete_link(struct hostnet *n, const char *link)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	struct err e = ERR_INIT;
	rtnl_put_link_del(&b, link);
	if (nl_send(&n->rt, &b, NULL, &e) < 0)
		log_warn("network: %s", e.text);
}

static int build_endpoint(struct hostnet *n, const struct net_container *c, struct err *e)
{
	char path[256], link[16];
	struct nl inside;
	int ns = -1, errnum = 0;
	netns_path(n, c->id, path);
	link_name(n, c->addr, link);
	/* Only where the subnet is so full that an address comes back at once. */
	reaper_wait(n->reaper, link);
	int r = netns_create(n->worker, path, &ns, &inside, e);
	if (r == ERR_CONFLICT) {
		/* Left over from a crash between the namespace and the record's removal. */
		netns_remove(path);
		r = netns_create(n->worker, path, &ns, &inside, e);
	}
	if (r < 0)
		return r;
	r = make_link(n, c, link, ns, &errnum, e);
	if (r < 0 && errnum == EEXIST) {
		delete_link(n, link);
		r = make_link(n, c, link, ns, NULL, e);
	}
	if (r == 0)
		r = configure_inside(n, c, &inside, e);
	/* Last: the end that goes up second can send at once, the other one only after the kernel's link
	 * watch has run, and what it sends until then is dropped. The container's process is not there yet to
	 * be hurt by that. */
	if (r == 0)
		r = raise_host_end(n, c, link, e);
	nl_close(&inside);
	close(ns);
	if (r < 0) {
		delete_link(n, link);
		netns_remove(path);
	}
	return r;
}

static void tear_down(struct hostnet *n, struct net_container *c)
{
	char path[256], link[16];
	netns_path(n, c->id, path);
	link_name(n, c->addr, link);
	reaper_add(n->reaper, link);
	netns_remove(path);
	ipam_release(&n->ipam, c->addr);
	state_drop_container(n, c->id);
}

static void detach(struct hostnet *n, struct net_container *c)
{
	ingress_forget_container(n, c);
	strmap_remove(&n->containers, c->id);
	tear_down(n, c);
	net_container_free(c);
}

static bool is_built(struct hostnet *n, const struct net_container *c)
{
	char path[256], link[16];
	netns_path(n, c->id, path);
	link_name(n, c->addr, link);
	return rtnl_link_index(&n->rt, link) != 0 && fs_exists(path);
}

static int attach(struct hostnet *n, const char *id, struct hostnet_port *ports, size_t n_ports,
    struct hostnet_endpoint *ret, struct err *e)
{
	struct net_container *c = strmap_get(&n->containers, id);
	if (c && is_built(n, c)) {
		for (size_t i = 0; i < n_ports && i < c->n_ports; i++)
			ports[i].host_port = c->ports[i].host_port;
		fill_endpoint(n, c, ret);
		return 0;
	}
	if (c)
		detach(n, c);
	uint32_t addr;
	int r = ipam_alloc(&n->ipam, &addr, e);
	if (r < 0)
		return r;
	c = NEW(struct net_container);
	c->id = xstrdup(id);
	c->addr = addr;
	/* Ports first: they fail often, and cheaply. Nothing answers there until the link is up. */
	r = ingress_set_ports(n, c, ports, n_ports, e);
	if (r == 0)
		r = state_save_container(n, c, e);
	if (r == 0)
		r = build_endpoint(n, c, e);
	if (r < 0) {
		ingress_forget_container(n, c);
		ipam_release(&n->ipam, addr);
		state_drop_container(n, id);
		net_container_free(c);
		return r;
	}
	strmap_put(&n->containers, c->id, c);
	fill_endpoint(n, c, ret);
	return 0;
}

int hostnet_attach(struct hostnet *n, const char *container_id, struct hostnet_port *ports, size_t n_ports,
    struct hostnet_endpoint *ret, struct err *e)
{
	int r = state_check_id("container", container_id, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&n->lock);
	r = attach(n, container_id, ports, n_ports, ret, e);
	pthread_mutex_unlock(&n->lock);
	return r < 0 ? err_wrap(e, "network of container %.12s", container_id) : 0;
}

void hostnet_detach(struct hostnet *n, const char *container_id)
{
	pthread_mutex_lock(&n->lock);
	struct net_container *c = strmap_get(&n->containers, container_id);
	if (c)
		detach(n, c);
	pthread_mutex_unlock(&n->lock);
}

/* --- looking ----------------------------------------------------------------------------------------- */

int hostnet_endpoint_of(
    struct hostnet *n, const char *container_id, struct hostnet_endpoint *ret, struct err *e)
{
	pthread_mutex_lock(&n->lock);
	const struct net_container *c = strmap_get(&n->containers, container_id);
	if (c)
		fill_endpoint(n, c, ret);
	pthread_mutex_unlock(&n->lock);
	return c ? 0 : err_set(e, ERR_NOT_FOUND, "container %.12s has no network endpoint", container_id);
}

int hostnet_counters(struct hostnet *n, const char *container_id, struct hostnet_counters *ret, struct err *e)
{
	struct rtnl_link l;
	char link[16];
	int r;
	pthread_mutex_lock(&n->lock);
	const struct net_container *c = strmap_get(&n->containers, container_id);
	if (c) {
		link_name(n, c->addr, link);
		r = rtnl_link_get(&n->rt, link, &l, e);
	} else
		r = err_set(e, ERR_NOT_FOUND, "container %.12s has no network endpoint", container_id);
	pthread_mutex_unlock(&n->lock);
	if (r < 0)
		return r;
	/* What our end sends is what the container receives. */
	*ret = (struct hostnet_counters){l.stats.tx_bytes, l.stats.tx_packets, l.stats.tx_errors,
	    l.stats.tx_dropped, l.stats.rx_bytes, l.stats.rx_packets, l.stats.rx_errors, l.stats.rx_dropped};
	return 0;
}

/* --- repairing --------------------------------------------------------------------------------------- */

struct adopt {
	struct hostnet *n;
	struct strlist strays; /* links of ours that no record explains */
	bool adopt;
};

static void on_own_link(void *data, const struct rtnl_link *l)
{
	struct adopt *a = data;
	struct hostnet *n = a->n;
	uint32_t addr = link_address(n, l->name);
	if (!addr)
		return;
	const struct net_container *c = strmap_get(&n->containers, l->alias);
	if (c && c->addr == addr)
		return;
	char path[256];
	netns_path(n, l->alias, path);
	/* The records were lost, but the link says whose it is. */
	if (a->adopt && !c && fs_exists(path) && state_check_id("container", l->alias, NULL) == 0 &&
	    ipam_take(&n->ipam, addr, NULL) == 0) {
		struct net_container *x = NEW(struct net_container);
		x->id = xstrdup(l->alias);
		x->addr = addr;
		strmap_put(&n->containers, x->id, x);
		state_save_container(n, x, NULL);
		return;
	}
	strlist_add(&a->strays, l->name);
}

static void sweep_links(struct hostnet *n, bool adopt)
{
	struct adopt a = {.n = n, .adopt = adopt};
	struct err e = ERR_INIT;
	if (rtnl_link_each(&n->rt, on_own_link, &a, &e) < 0)
		log_warn("network: %s", e.text);
	for (size_t i = 0; i < a.strays.n; i++) {
		log_info("network: removed link %s of no container", a.strays.v[i]);
		delete_link(n, a.strays.v[i]);
	}
	strlist_done(&a.strays);
}

static void sweep_namespaces(struct hostnet *n)
{
	DIR *d = opendir(n->netns_dir);
	if (!d)
		return;
	for (struct dirent *x; (x = readdir(d));) {
		if (x->d_name[0] == '.' || strmap_has(&n->containers, x->d_name))
			continue;
		char *path CLEANUP_FREE = fs_path(n->netns_dir, x->d_name);
		netns_remove(path);
	}
	closedir(d);
}

/* The host's side of what is attached: routes go, for example, when somebody takes the gateway's address
 * away. */
static int ensure_routes(struct hostnet *n, struct err *e)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	void *v;
	int r = 0;
	for (size_t it = 0; r == 0 && strmap_next(&n->containers, &it, NULL, &v);) {
		const struct net_container *c = v;
		char link[16];
		link_name(n, c->addr, link);
		int index = rtnl_link_index(&n->rt, link);
		if (!index)
			continue; /* its namespace is gone; reconcile or detach will say so */
		put_host_end(n, &b, c, link, index);
		if (b.n > 256)
			r = nl_send(&n->rt, &b, NULL, e);
	}
	return r < 0 ? r : nl_send(&n->rt, &b, NULL, e);
}

void hostnet_reconcile(struct hostnet *n, const char *const *container_ids, size_t count)
{
	struct strmap keep = STRMAP_INIT;
	for (size_t i = 0; i < count; i++)
		strmap_put(&keep, container_ids[i], n);
	pthread_mutex_lock(&n->lock);
	struct strlist gone = STRLIST_INIT;
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&n->containers, &it, &id, NULL);)
		if (!strmap_has(&keep, id))
			strlist_add(&gone, id);
	for (size_t i = 0; i < gone.n; i++) {
		v = strmap_get(&n->containers, gone.v[i]);
		detach(n, v);
	}
	strlist_done(&gone);
	ingress_drop_stale(n);
	sweep_links(n, false);
	sweep_namespaces(n);
	struct err e = ERR_INIT;
	if (ensure_gateway(n, &e) < 0 || ensure_routes(n, &e) < 0 ||
	    (!fw_is_intact(n) && fw_rebuild(n, &e) < 0) || forward_ensure(n, &e) < 0)
		log_warn("network: repair: %s", e.text);
	pthread_mutex_unlock(&n->lock);
	strmap_done(&keep);
}

/* --- opening and closing ----------------------------------------------------------------------------- */

static int check_tag(const char *tag, struct err *e)
{
	size_t len = tag ? strlen(tag) : 0;
	if (len < 1 || len > 6 || strspn(tag, "abcdefghijklmnopqrstuvwxyz0123456789") != len)
		return err_set(
		    e, ERR_INVALID, "network tag \"%.16s\": expected 1 to 6 of a-z and 0-9", tag ? tag : "");
	return 0;
}

static void free_container(void *p)
{
	net_container_free(p);
}

static void free_service(void *p)
{
	net_service_free(p);
}

static void free_front(void *p)
{
	front_free(p);
}

static int open_steps(struct hostnet *n, const struct hostnet_opts *o, struct err *e)
{
	uint32_t saved = 0, next = 0, net = 0;
	int saved_prefix = 0, prefix = 0;
	int r = nl_open(&n->rt, NETLINK_ROUTE, e);
	if (r == 0)
		r = nl_open(&n->nf, NETLINK_NETFILTER, e);
	if (r == 0)
		r = netns_worker_start(&n->worker, e);
	if (r == 0)
		r = reaper_start(&n->reaper, e);
	if (r == 0)
		r = netns_prepare_dir(n->netns_dir, e);
	if (r == 0)
		r = state_load(n, &saved, &saved_prefix, &next, e);
	if (r == 0)
		r = choose_pool(n, o->pool, saved, saved_prefix, &net, &prefix, e);
	if (r < 0)
		return r;
	if (saved_prefix && (saved != net || saved_prefix != prefix)) {
		struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
		rtnl_put_unreachable_del(&b, saved, saved_prefix);
		nl_send(&n->rt, &b, NULL, NULL);
	}
	ipam_init(&n->ipam, net, prefix);
	if (net == saved && prefix == saved_prefix && next < n->ipam.size)
		n->ipam.next = next;
	r = state_load(n, NULL, NULL, NULL, e);
	if (r == 0)
		r = state_save_pool(n, e);
	if (r == 0)
		r = ensure_gateway(n, e);
	if (r < 0)
		return r;
	sweep_links(n, true);
	r = ensure_routes(n, e);
	if (r < 0)
		return r;
	ingress_restore(n);
	n->relay = resolv_relay_target();
	r = fw_rebuild(n, e);
	if (r < 0)
		return r;
	struct err fe = ERR_INIT;
	if (forward_ensure(n, &fe) < 0)
		log_warn("network: containers may not reach the outside: %s", fe.text);
	return n->loop ? monitor_start(n, e) : 0;
}

int hostnet_open(uv_loop_t *loop, const struct hostnet_opts *o, struct hostnet **ret, struct err *e)
{
	int r = check_tag(o->tag, e);
	if (r < 0)
		return r;
	struct hostnet *n = NEW(struct hostnet);
	n->loop = loop;
	pthread_mutex_init(&n->lock, NULL);
	snprintf(n->tag, sizeof(n->tag), "%s", o->tag);
	snprintf(n->bridge, sizeof(n->bridge), "sh%s0", n->tag);
	snprintf(n->links, sizeof(n->links), "sh%s-*", n->tag);
	snprintf(n->table, sizeof(n->table), "shoal_%s", n->tag);
	n->state_dir = xstrdup(o->state_dir);
	n->netns_dir = xstrdup(o->netns_dir);
	r = open_steps(n, o, e);
	if (r < 0) {
		hostnet_close(n);
		return err_wrap(e, "container network");
	}
	*ret = n;
	return 0;
}

void hostnet_close(struct hostnet *n)
{
	if (!n)
		return;
	monitor_stop(n);
	netns_worker_stop(n->worker);
	reaper_stop(n->reaper);
	nl_close(&n->rt);
	nl_close(&n->nf);
	strmap_done_free(&n->fronts, free_front);
	strmap_done_free(&n->services, free_service);
	strmap_done_free(&n->containers, free_container);
	u64map_done(&n->hairpins);
	ipam_done(&n->ipam);
	free(n->state_dir);
	free(n->netns_dir);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

void hostnet_destroy(struct hostnet *n)
{
	if (!n)
		return;
	struct err e = ERR_INIT;
	pthread_mutex_lock(&n->lock);
	monitor_stop(n);
	if (fw_remove(n, &e) < 0)
		log_warn("network: %s", e.text);
	forward_remove(n);
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&n->containers, &it, &id, &v);) {
		char link[16], path[256];
		link_name(n, ((struct net_container *)v)->addr, link);
		netns_path(n, id, path);
		reaper_add(n->reaper, link);
		netns_remove(path);
	}
	reaper_stop(TAKE_PTR(n->reaper));
	sweep_links(n, false);
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	rtnl_put_unreachable_del(&b, n->ipam.net, n->ipam.prefix);
	rtnl_put_link_del(&b, n->bridge);
	e = (struct err)ERR_INIT;
	if (nl_send(&n->rt, &b, NULL, &e) < 0)
		log_warn("network: %s", e.text);
	netns_release_dir(n->netns_dir);
	e = (struct err)ERR_INIT;
	if (fs_remove_tree(n->state_dir, &e) < 0)
		log_warn("network: %s", e.text);
	pthread_mutex_unlock(&n->lock);
	hostnet_close(n);
}
