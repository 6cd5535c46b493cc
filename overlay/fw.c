/* The nftables table of this instance: `table ip shoal_TAG`.
 *
 *   guard   prerouting, raw     what may not come in from containers: loopback destinations, foreign sources
 *   pre     prerouting, dstnat  }  new connections to an address of this host: look the port up in a map that
 *   out     output, dstnat      }  jumps to the front's chain, which translates to one of its backends
 *   in      input, srcnat       only for the DNS relay: the loopback resolver sees a loopback client
 *   post    postrouting, srcnat masquerade to the outside; the gateway's address for loopback sources and for
 * a container that reached itself forward forward, filter     to containers only what we translated, what
 * answers, and containers among themselves output  output, filter      no ICMP redirects towards containers:
 * they must keep sending through the host
 *
 * Happy path: a service's change is one chain and a few map elements. The packet path does one map lookup a
 * new connection, whatever the number of services.
 *
 * Failure: each change is one transaction; when it does not commit, nothing changed. When the table itself is
 * gone (somebody flushed the ruleset), fw_rebuild makes it anew from what is declared. */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <libnftnl/table.h>

#include "base/log.h"

#define LOOPBACK_NET   0x7f000000u
#define CT_STATE(x)    (1u << ((x) % IP_CT_IS_REPLY + 1)) /* nft's NF_CT_STATE_BIT */
#define CT_INVALID     1u
#define CT_ESTABLISHED CT_STATE(IP_CT_ESTABLISHED)
#define CT_RELATED     CT_STATE(IP_CT_RELATED)
#define PRIO_RAW       (-300)
#define PRIO_DSTNAT    (-100)
#define PRIO_FILTER    0
#define PRIO_SRCNAT    100
#define ICMP_REDIRECT_ 5

static const char *map_of(const struct net_front *f)
{
	if (f->ip)
		return f->udp ? "udp_addr_ports" : "tcp_addr_ports";
	return f->udp ? "udp_ports" : "tcp_ports";
}

static struct nft_key key_of(const struct net_front *f)
{
	return f->ip ? nft_key_ipv4_port(f->ip, f->port) : nft_key_port(f->port);
}

void fw_put_front(struct nft_tx *t, const struct net_front *f, bool exists)
{
	struct nft_rule r;
	uint8_t proto = f->udp ? IPPROTO_UDP : IPPROTO_TCP;
	if (exists)
		nft_put_chain_flush(t, f->chain);
	else
		nft_put_chain(t, f->chain);
	nft_rule_begin(&r, t, f->chain, f->owner);
	nft_x_l4proto(&r, proto);
	if (f->n > 0)
		nft_x_dnat_spread(&r, f->addrs, (uint32_t)f->n, f->target);
	else
		nft_x_reject(&r, !f->udp);
	nft_rule_end(&r);
	if (!exists)
		nft_put_elem_goto(t, map_of(f), key_of(f), f->chain);
}

void fw_put_front_del(struct nft_tx *t, const struct net_front *f)
{
	nft_put_elem_del(t, map_of(f), key_of(f));
	nft_put_chain_flush(t, f->chain);
	nft_put_chain_del(t, f->chain);
}

void fw_put_hairpin(struct nft_tx *t, uint32_t addr, bool add)
{
	if (add)
		nft_put_elem(t, "hairpin", nft_key_ipv4_ipv4(addr, addr));
	else
		nft_put_elem_del(t, "hairpin", nft_key_ipv4_ipv4(addr, addr));
}

void fw_put_relay(struct hostnet *n, struct nft_tx *t, bool exists)
{
	static const uint8_t protos[] = {IPPROTO_UDP, IPPROTO_TCP};
	struct nft_rule r;
	if (exists) {
		nft_put_chain_flush(t, "dns");
		nft_put_chain_flush(t, "in");
	}
	if (!n->relay)
		return;
	for (size_t i = 0; i < 2; i++) {
		nft_rule_begin(&r, t, "dns", "the host's resolver listens on loopback only");
		nft_x_daddr(&r, ipam_gateway(&n->ipam), 32, true);
		nft_x_l4proto(&r, protos[i]);
		nft_x_dport(&r, 53);
		nft_x_dnat(&r, n->relay);
		nft_rule_end(&r);
		nft_rule_begin(&r, t, "in", NULL);
		nft_x_iifname(&r, n->links, true);
		nft_x_daddr(&r, n->relay, 32, true);
		nft_x_l4proto(&r, protos[i]);
		nft_x_dport(&r, 53);
		nft_x_snat(&r, LOOPBACK_NET | 1);
		nft_rule_end(&r);
	}
}

static void put_guard(struct hostnet *n, struct nft_tx *t)
{
	struct nft_rule r;
	nft_put_base_chain(t, "guard", "filter", NF_INET_PRE_ROUTING, PRIO_RAW);
	/* route_localnet on the links lets loopback addresses be routed there; nobody may use that from
	 * outside. */
	nft_rule_begin(&r, t, "guard", "loopback addresses never come from containers");
	nft_x_iifname(&r, n->links, true);
	nft_x_daddr(&r, LOOPBACK_NET, 8, true);
	nft_x_verdict(&r, NF_DROP, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "guard", "containers use their own addresses");
	nft_x_iifname(&r, n->links, true);
	nft_x_saddr(&r, n->ipam.net, n->ipam.prefix, false);
	nft_x_verdict(&r, NF_DROP, NULL);
	nft_rule_end(&r);
}

static void put_ports(struct hostnet *n, struct nft_tx *t)
{
	static const struct {
		uint8_t proto;
		const char *ports, *addr_ports;
	} maps[] = {
	    {IPPROTO_TCP, "tcp_ports", "tcp_addr_ports"}, {IPPROTO_UDP, "udp_ports", "udp_addr_ports"}};
	struct nft_rule r;
	nft_put_chain(t, "ports");
	nft_put_chain(t, "dns");
	for (size_t i = 0; i < 2; i++) {
		nft_put_vmap(t, maps[i].ports, NFT_TYPE_PORT);
		nft_put_vmap(t, maps[i].addr_ports, NFT_TYPE_IPV4_PORT);
		nft_rule_begin(&r, t, "ports", NULL);
		nft_x_l4proto(&r, maps[i].proto);
		nft_x_dport_vmap(&r, maps[i].ports);
		nft_rule_end(&r);
		nft_rule_begin(&r, t, "ports", NULL);
		nft_x_l4proto(&r, maps[i].proto);
		nft_x_daddr_dport_vmap(&r, maps[i].addr_ports);
		nft_rule_end(&r);
	}
	nft_put_base_chain(t, "pre", "nat", NF_INET_PRE_ROUTING, PRIO_DSTNAT);
	/* A packet from the wire to 127.x would be refused as a martian after this chain; translated it would
	 * get through. */
	nft_rule_begin(&r, t, "pre", NULL);
	nft_x_daddr(&r, LOOPBACK_NET, 8, true);
	nft_x_verdict(&r, NFT_RETURN, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "pre", NULL);
	nft_x_iifname(&r, n->links, true);
	nft_x_verdict(&r, NFT_JUMP, "dns");
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "pre", NULL);
	nft_x_daddr_is_local(&r);
	nft_x_verdict(&r, NFT_JUMP, "ports");
	nft_rule_end(&r);
	nft_put_base_chain(t, "out", "nat", NF_INET_LOCAL_OUT, PRIO_DSTNAT);
	nft_rule_begin(&r, t, "out", NULL);
	nft_x_daddr_is_local(&r);
	nft_x_verdict(&r, NFT_JUMP, "ports");
	nft_rule_end(&r);
	nft_put_base_chain(t, "in", "nat", NF_INET_LOCAL_IN, PRIO_SRCNAT);
	fw_put_relay(n, t, false);
}

static void put_post(struct hostnet *n, struct nft_tx *t)
{
	struct nft_rule r;
	nft_put_set(t, "hairpin", NFT_TYPE_IPV4_IPV4);
	nft_put_base_chain(t, "post", "nat", NF_INET_POST_ROUTING, PRIO_SRCNAT);
	nft_rule_begin(&r, t, "post", "to the outside");
	nft_x_saddr(&r, n->ipam.net, n->ipam.prefix, true);
	nft_x_oifname(&r, n->links, false);
	nft_x_oifname(&r, "lo", false);
	nft_x_masquerade(&r);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "post", "127.0.0.1 cannot be answered from a container");
	nft_x_oifname(&r, n->links, true);
	nft_x_saddr(&r, LOOPBACK_NET, 8, true);
	nft_x_snat(&r, ipam_gateway(&n->ipam));
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "post", "a container that reached itself by a published port");
	nft_x_oifname(&r, n->links, true);
	nft_x_ct_status(&r, IPS_DST_NAT);
	nft_x_saddr_daddr_in(&r, "hairpin");
	nft_x_snat(&r, ipam_gateway(&n->ipam));
	nft_rule_end(&r);
}

static void put_filter(struct hostnet *n, struct nft_tx *t)
{
	struct nft_rule r;
	nft_put_base_chain(t, "forward", "filter", NF_INET_FORWARD, PRIO_FILTER);
	/* What conntrack cannot place would leave with an untranslated address, and the peer would reset its
	 * connection. */
	nft_rule_begin(&r, t, "forward", NULL);
	nft_x_iifname(&r, n->links, true);
	nft_x_ct_state(&r, CT_INVALID);
	nft_x_verdict(&r, NF_DROP, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "forward", NULL);
	nft_x_oifname(&r, n->links, false);
	nft_x_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "forward", NULL);
	nft_x_ct_state(&r, CT_ESTABLISHED | CT_RELATED);
	nft_x_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "forward", NULL);
	nft_x_ct_status(&r, IPS_DST_NAT);
	nft_x_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "forward", NULL);
	nft_x_iifname(&r, n->links, true);
	nft_x_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_end(&r);
	nft_rule_begin(&r, t, "forward", "containers are reached by published ports only");
	nft_x_counter(&r);
	nft_x_verdict(&r, NF_DROP, NULL);
	nft_rule_end(&r);

	nft_put_base_chain(t, "output", "filter", NF_INET_LOCAL_OUT, PRIO_FILTER);
	nft_rule_begin(&r, t, "output", NULL);
	nft_x_oifname(&r, n->links, true);
	nft_x_icmp_type(&r, ICMP_REDIRECT_);
	nft_x_verdict(&r, NF_DROP, NULL);
	nft_rule_end(&r);
}

struct handle_get {
	const char *name;
	uint64_t handle;
};

static bool on_table(const struct nlmsghdr *nlh, void *data)
{
	struct handle_get *g = data;
	struct nftnl_table *t = nftnl_table_alloc();
	if (t && nftnl_table_nlmsg_parse(nlh, t) == 0 &&
	    str_eq(nftnl_table_get_str(t, NFTNL_TABLE_NAME), g->name))
		g->handle = nftnl_table_get_u64(t, NFTNL_TABLE_HANDLE);
	nftnl_table_free(t);
	return true;
}

static uint64_t table_handle(struct hostnet *n)
{
	char raw[512];
	struct nlmsghdr *nlh = nftnl_nlmsg_build_hdr(raw, NFT_MSG_GETTABLE, NFPROTO_IPV4, 0, 0);
	struct nftnl_table *t = nftnl_table_alloc();
	ASSERT(t);
	nftnl_table_set_str(t, NFTNL_TABLE_NAME, n->table);
	nftnl_table_nlmsg_build_payload(nlh, t);
	nftnl_table_free(t);
	struct handle_get g = {.name = n->table};
	nl_dump(&n->nf, nlh, on_table, &g, n->table, NULL, NULL);
	return g.handle;
}

int fw_rebuild(struct hostnet *n, struct err *e)
{
	struct nft_tx t CLEANUP_NFT_TX;
	nft_tx_init(&t, NFPROTO_IPV4, n->table);
	/* Create, delete, create: the delete always finds one, and the whole is one step to the kernel. */
	nft_put_table(&t);
	nft_put_table_del(&t);
	nft_put_table(&t);
	put_guard(n, &t);
	put_ports(n, &t);
	put_post(n, &t);
	put_filter(n, &t);
	void *v;
	for (size_t it = 0; strmap_next(&n->fronts, &it, NULL, &v);)
		fw_put_front(&t, v, false);
	uint64_t addr;
	for (size_t it = 0; u64map_next(&n->hairpins, &it, &addr, NULL);)
		fw_put_hairpin(&t, (uint32_t)addr, true);
	int errnum = 0;
	int r = nft_commit(&n->nf, &t, &errnum, e);
	if (r < 0)
		return r;
	n->table_handle = table_handle(n);
	return 0;
}

bool fw_is_intact(struct hostnet *n)
{
	uint64_t h = table_handle(n);
	return h != 0 && h == n->table_handle;
}

int fw_remove(struct hostnet *n, struct err *e)
{
	struct nft_tx t CLEANUP_NFT_TX;
	nft_tx_init(&t, NFPROTO_IPV4, n->table);
	nft_put_table(&t);
	nft_put_table_del(&t);
	return nft_commit(&n->nf, &t, NULL, e);
}
