/* One container's connection: a namespace, a veth pair, addresses and routes on both ends.
 *
 * Happy path: endpoint_build makes the namespace and the pair, configures the inside (loopback, /32 address,
 * gateway, default route) and then the host's end (settings, neighbour entry, /32 route) by one netlink batch
 * each.
 *
 * Failure: what was made is removed again. Leftovers of a crash under the same name are replaced. */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/ip.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define CONTAINER_IFNAME "eth0"

void endpoint_link(const struct hostnet *n, uint32_t addr, char out[16])
{
	snprintf(out, 16, "sh%.6s-%06x", n->tag, (addr - n->ipam.net) & 0xffffff);
}

/* The address that a link of ours stands for; 0 when the link is not ours. */
uint32_t endpoint_address(const struct hostnet *n, const char *name)
{
	char prefix[16], again[16];
	snprintf(prefix, sizeof(prefix), "sh%s-", n->tag);
	if (!str_has_prefix(name, prefix))
		return 0;
	uint32_t addr = n->ipam.net + (uint32_t)strtoul(name + strlen(prefix), NULL, 16);
	endpoint_link(n, addr, again);
	return str_eq(again, name) ? addr : 0;
}

void endpoint_mac(uint32_t addr, uint8_t mac[6])
{
	uint32_t be = htonl(addr);
	mac[0] = 0x02; /* locally administered */
	mac[1] = 0x42;
	memcpy(mac + 2, &be, 4);
}

void endpoint_netns(const struct hostnet *n, const char *id, char out[256])
{
	snprintf(out, 256, "%s/%s", n->netns_dir, id);
}

void endpoint_fill(struct hostnet *n, const struct net_container *c, struct hostnet_endpoint *ret)
{
	char a[16];
	uint8_t m[6];
	memset(ret, 0, sizeof(*ret));
	endpoint_netns(n, c->id, ret->netns_path);
	ipam_format(c->addr, a);
	snprintf(ret->address, sizeof(ret->address), "%s/%d", a, n->ipam.prefix);
	ipam_format(ipam_gateway(&n->ipam), ret->gateway);
	endpoint_mac(c->addr, m);
	snprintf(
	    ret->mac, sizeof(ret->mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	endpoint_link(n, c->addr, ret->ifname);
}

/* The host's end has the same MAC address on every link: the gateway's. */
void endpoint_put_host_end(
    struct hostnet *n, struct nl_batch *b, const struct net_container *c, const char *link, int index)
{
	static const struct rtnl_conf conf[] = {
	    {IPV4_DEVCONF_FORWARDING, 1},
	    {IPV4_DEVCONF_RP_FILTER, 1},
	    /* What came from 127.0.0.1 by a published port goes back there. */
	    {IPV4_DEVCONF_ROUTE_LOCALNET, 1},
	};
	uint8_t mac[6];
	endpoint_mac(c->addr, mac);
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
	endpoint_mac(c->addr, mac);
	endpoint_mac(ipam_gateway(&n->ipam), gw_mac);
	rtnl_put_veth(&b, link, gw_mac, CONTAINER_IFNAME, mac, ns);
	return nl_send(&n->build_rt, &b, ret_errno, e);
}

static int raise_host_end(struct hostnet *n, const struct net_container *c, const char *link, struct err *e)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	endpoint_put_host_end(n, &b, c, link, rtnl_link_index(&n->build_rt, link));
	return nl_send(&n->build_rt, &b, NULL, e);
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
	endpoint_mac(gateway, gw_mac);
	rtnl_put_up(&b, "lo");
	rtnl_put_no_ipv6_auto(&b, CONTAINER_IFNAME);
	rtnl_put_up(&b, CONTAINER_IFNAME);
	rtnl_put_address(&b, index, c->addr, 32);
	rtnl_put_neighbour(&b, index, gateway, gw_mac);
	rtnl_put_link_route(&b, index, gateway, 32, 0);
	rtnl_put_default_route(&b, index, gateway);
	return nl_send(inside, &b, NULL, e);
}

static void delete_link(struct nl *nl, const char *link)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	struct err e = ERR_INIT;
	rtnl_put_link_del(&b, link);
	if (nl_send(nl, &b, NULL, &e) < 0)
		log_warn("network: %s", e.text);
}

void endpoint_delete_link(struct hostnet *n, const char *link)
{
	delete_link(&n->rt, link);
}

int endpoint_build(struct hostnet *n, const struct net_container *c, struct err *e)
{
	char path[256], link[16];
	struct nl inside;
	int ns = -1, errnum = 0;
	endpoint_netns(n, c->id, path);
	endpoint_link(n, c->addr, link);
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
		delete_link(&n->build_rt, link);
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
		delete_link(&n->build_rt, link);
		netns_remove(path);
	}
	return r;
}

void endpoint_tear_down(struct hostnet *n, struct net_container *c)
{
	char link[16];
	endpoint_link(n, c->addr, link);
	reaper_add(n->reaper, link);
	ipam_release(&n->ipam, c->addr);
	state_drop_container(n, c->id);
}

bool endpoint_is_built(struct hostnet *n, const struct net_container *c)
{
	char path[256], link[16];
	endpoint_netns(n, c->id, path);
	endpoint_link(n, c->addr, link);
	return rtnl_link_index(&n->rt, link) != 0 && fs_exists(path);
}
