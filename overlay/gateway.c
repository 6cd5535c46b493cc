/* The containers' subnet and its gateway address.
 *
 * Happy path: the subnet of last time is taken again, or the first private one that overlaps nothing on this
 * host; the link `shTAG0` holds its first address, an unreachable route covers the rest, and the host
 * forwards.
 *
 * Failure: a subnet that was asked for and overlaps is ERR_CONFLICT; a link of that name that is no bridge is
 * left alone. */
#include "overlay/hostnet_priv.h"

#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

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

int gateway_choose_pool(struct hostnet *n, const char *wanted, uint32_t saved, int saved_prefix,
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

int gateway_ensure(struct hostnet *n, struct err *e)
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
