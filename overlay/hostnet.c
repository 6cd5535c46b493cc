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

#include <string.h>
#include <linux/netlink.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

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

/* --- attaching --------------------------------------------------------------------------------------- */

void hostnet_detach_locked(struct hostnet *n, struct net_container *c)
{
	char path[256];
	endpoint_netns(n, c->id, path);
	ingress_forget_container(n, c);
	strmap_remove(&n->containers, c->id);
	endpoint_tear_down(n, c);
	netns_remove(path);
	net_container_free(c);
}

/* What can be refused is: address, ports. ret NULL: it is connected already. */
static int reserve(struct hostnet *n, const char *id, struct hostnet_port *ports, size_t n_ports,
    struct net_container **ret, struct err *e)
{
	struct net_container *c = strmap_get(&n->containers, id);
	*ret = NULL;
	if (c && c->building)
		return err_set(e, ERR_CONFLICT, "it is being connected already");
	if (c && endpoint_is_built(n, c)) {
		for (size_t i = 0; i < n_ports && i < c->n_ports; i++)
			ports[i].host_port = c->ports[i].host_port;
		return 0;
	}
	if (c)
		hostnet_detach_locked(n, c);
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
	if (r < 0) {
		ingress_forget_container(n, c);
		ipam_release(&n->ipam, addr);
		state_drop_container(n, id);
		net_container_free(c);
		return r;
	}
	strmap_put(&n->containers, c->id, c);
	c->building = true;
	*ret = c;
	return 0;
}

static void built(struct hostnet *n, struct net_container *c, int r)
{
	c->building = false;
	if (r == 0)
		return;
	ingress_forget_container(n, c);
	strmap_remove(&n->containers, c->id);
	ipam_release(&n->ipam, c->addr);
	state_drop_container(n, c->id);
	net_container_free(c);
}

int hostnet_attach(struct hostnet *n, const char *container_id, struct hostnet_port *ports, size_t n_ports,
    struct hostnet_endpoint *ret, struct err *e)
{
	struct net_container *c = NULL;
	int r = state_check_id("container", container_id, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&n->lock);
	r = reserve(n, container_id, ports, n_ports, &c, e);
	if (c) {
		pthread_mutex_unlock(&n->lock);
		pthread_mutex_lock(&n->build_lock);
		r = endpoint_build(n, c, e);
		pthread_mutex_unlock(&n->build_lock);
		pthread_mutex_lock(&n->lock);
		built(n, c, r);
	}
	if (r == 0)
		endpoint_fill(n, strmap_get(&n->containers, container_id), ret);
	pthread_mutex_unlock(&n->lock);
	return r < 0 ? err_wrap(e, "network of container %.12s", container_id) : 0;
}

void hostnet_withdraw(struct hostnet *n, const char *container_id)
{
	pthread_mutex_lock(&n->lock);
	struct net_container *c = strmap_get(&n->containers, container_id);
	if (c)
		ingress_forget_container(n, c);
	pthread_mutex_unlock(&n->lock);
}

void hostnet_detach(struct hostnet *n, const char *container_id)
{
	char path[256];
	pthread_mutex_lock(&n->lock);
	struct net_container *c = strmap_get(&n->containers, container_id);
	if (c) {
		endpoint_netns(n, c->id, path);
		ingress_forget_container(n, c);
		strmap_remove(&n->containers, c->id);
		endpoint_tear_down(n, c);
		net_container_free(c);
	}
	pthread_mutex_unlock(&n->lock);
	if (c) /* the kernel waits here for all processors: nobody else has to */
		netns_remove(path);
}

/* --- looking ----------------------------------------------------------------------------------------- */

int hostnet_endpoint_of(
    struct hostnet *n, const char *container_id, struct hostnet_endpoint *ret, struct err *e)
{
	pthread_mutex_lock(&n->lock);
	const struct net_container *c = strmap_get(&n->containers, container_id);
	if (c)
		endpoint_fill(n, c, ret);
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
		endpoint_link(n, c->addr, link);
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
		r = nl_open(&n->build_rt, NETLINK_ROUTE, e);
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
		r = gateway_choose_pool(n, o->pool, saved, saved_prefix, &net, &prefix, e);
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
		r = state_save_cursor(n, e);
	if (r == 0)
		r = gateway_ensure(n, e);
	if (r < 0)
		return r;
	repair_links(n, true);
	r = repair_routes(n, e);
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
	pthread_mutex_init(&n->build_lock, NULL);
	snprintf(n->tag, sizeof(n->tag), "%s", o->tag);
	snprintf(n->bridge, sizeof(n->bridge), "sh%s0", n->tag);
	snprintf(n->links, sizeof(n->links), "sh%s-*", n->tag);
	snprintf(n->table, sizeof(n->table), "shoal_%s", n->tag);
	n->state_dir = xstrdup(o->state_dir);
	n->run_dir = xstrdup(o->run_dir ? o->run_dir : o->state_dir);
	n->netns_dir = xstrdup(o->netns_dir);
	r = open_steps(n, o, e);
	if (r < 0) {
		hostnet_close(n);
		return err_wrap(e, "container network");
	}
	n->opened = true;
	*ret = n;
	return 0;
}

/* Everything of ours in the kernel, and the namespaces' directory. */
static void remove_all(struct hostnet *n)
{
	struct err e = ERR_INIT;
	if (fw_remove(n, &e) < 0)
		log_warn("network: %s", e.text);
	forward_remove(n);
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&n->containers, &it, &id, &v);) {
		char link[16], path[256];
		endpoint_link(n, ((struct net_container *)v)->addr, link);
		endpoint_netns(n, id, path);
		reaper_add(n->reaper, link);
		netns_remove(path);
	}
	reaper_stop(TAKE_PTR(n->reaper));
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	rtnl_put_unreachable_del(&b, n->ipam.net, n->ipam.prefix);
	rtnl_put_link_del(&b, n->bridge);
	e = (struct err)ERR_INIT;
	if (nl_send(&n->rt, &b, NULL, &e) < 0)
		log_warn("network: %s", e.text);
	netns_release_dir(n->netns_dir);
}

void hostnet_close(struct hostnet *n)
{
	if (!n)
		return;
	monitor_stop(n);
	if (n->opened && strmap_len(&n->containers) == 0)
		remove_all(n);
	netns_worker_stop(n->worker);
	reaper_stop(n->reaper);
	nl_close(&n->rt);
	nl_close(&n->build_rt);
	nl_close(&n->nf);
	strmap_done_free(&n->fronts, free_front);
	strmap_done_free(&n->services, free_service);
	strmap_done_free(&n->containers, free_container);
	u64map_done(&n->hairpins);
	ipam_done(&n->ipam);
	free(n->state_dir);
	free(n->run_dir);
	free(n->netns_dir);
	pthread_mutex_destroy(&n->lock);
	pthread_mutex_destroy(&n->build_lock);
	free(n);
}

void hostnet_destroy(struct hostnet *n)
{
	if (!n)
		return;
	struct err e = ERR_INIT;
	monitor_stop(n);
	repair_links(n, false);
	remove_all(n);
	if (fs_remove_tree(n->state_dir, &e) < 0 || fs_remove_tree(n->run_dir, &e) < 0)
		log_warn("network: %s", e.text);
	n->opened = false;
	hostnet_close(n);
}
