/* rtnetlink messages for links, addresses and routes.
 *
 * Happy path: rtnl_put_* append to a batch that nl_send carries out in order. Objects that exist already are
 * not an error where that is harmless (EEXIST is ignored), so that the same batch repairs what is half there.
 *
 * Failure: nl_send names the object of the message that failed; the caller undoes what it had built. */
#include "overlay/rtnl.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include "base/str.h"

static struct ifinfomsg *begin_link(
    struct nl_batch *b, struct nlmsghdr **ret, uint16_t type, uint16_t flags, const char *name)
{
	struct nlmsghdr *nlh = nl_begin(b, type, flags, "link %s", name);
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(nlh, sizeof(*i));
	memset(i, 0, sizeof(*i));
	i->ifi_family = AF_UNSPEC;
	*ret = nlh;
	return i;
}

void rtnl_put_bridge(struct nl_batch *b, const char *name)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name);
	nl_ignore(b, EEXIST);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	struct nlattr *info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "bridge");
	struct nlattr *data = mnl_attr_nest_start(nlh, IFLA_INFO_DATA);
	mnl_attr_put_u8(nlh, IFLA_BR_MCAST_SNOOPING, 0);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, info);
	nl_end(b);
}

static void put_link_body(struct nlmsghdr *nlh, const char *name, const uint8_t mac[6])
{
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	mnl_attr_put(nlh, IFLA_ADDRESS, 6, mac);
	mnl_attr_put_u32(nlh, IFLA_NUM_TX_QUEUES, 1);
	mnl_attr_put_u32(nlh, IFLA_NUM_RX_QUEUES, 1);
}

void rtnl_put_veth(struct nl_batch *b, const char *name, const uint8_t mac[6], const char *peer,
    const uint8_t peer_mac[6], int peer_ns)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name);
	put_link_body(nlh, name, mac);
	struct nlattr *info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "veth");
	struct nlattr *data = mnl_attr_nest_start(nlh, IFLA_INFO_DATA);
	struct nlattr *p = mnl_attr_nest_start(nlh, VETH_INFO_PEER);
	struct ifinfomsg *pi = mnl_nlmsg_put_extra_header(nlh, sizeof(*pi));
	memset(pi, 0, sizeof(*pi));
	put_link_body(nlh, peer, peer_mac);
	mnl_attr_put_u32(nlh, IFLA_NET_NS_FD, (uint32_t)peer_ns);
	mnl_attr_nest_end(nlh, p);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, info);
	nl_end(b);
}

void rtnl_put_conf(
    struct nl_batch *b, const char *name, const char *alias, const struct rtnl_conf *conf, size_t count)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_NEWLINK, 0, name);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	mnl_attr_put_strz(nlh, IFLA_IFALIAS, alias);
	struct nlattr *spec = mnl_attr_nest_start(nlh, IFLA_AF_SPEC);
	struct nlattr *four = mnl_attr_nest_start(nlh, AF_INET);
	struct nlattr *list = mnl_attr_nest_start(nlh, IFLA_INET_CONF);
	for (size_t i = 0; i < count; i++)
		mnl_attr_put_u32(nlh, conf[i].key, conf[i].value);
	mnl_attr_nest_end(nlh, list);
	mnl_attr_nest_end(nlh, four);
	mnl_attr_nest_end(nlh, spec);
	nl_end(b);
}

void rtnl_put_no_ipv6_auto(struct nl_batch *b, const char *name)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_NEWLINK, 0, name);
	/* A kernel without IPv6 has nothing to turn off. */
	nl_ignore(b, EAFNOSUPPORT);
	nl_ignore(b, EOPNOTSUPP);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	struct nlattr *spec = mnl_attr_nest_start(nlh, IFLA_AF_SPEC);
	struct nlattr *six = mnl_attr_nest_start(nlh, AF_INET6);
	mnl_attr_put_u8(nlh, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(nlh, six);
	mnl_attr_nest_end(nlh, spec);
	nl_end(b);
}

void rtnl_put_up(struct nl_batch *b, const char *name)
{
	struct nlmsghdr *nlh;
	struct ifinfomsg *i = begin_link(b, &nlh, RTM_NEWLINK, 0, name);
	i->ifi_flags = IFF_UP;
	i->ifi_change = IFF_UP;
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	nl_end(b);
}

void rtnl_put_link_del(struct nl_batch *b, const char *name)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_DELLINK, 0, name);
	nl_ignore(b, ENODEV);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	nl_end(b);
}

void rtnl_put_group(struct nl_batch *b, const char *name, uint32_t group)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_SETLINK, 0, name);
	nl_ignore(b, ENODEV);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	mnl_attr_put_u32(nlh, IFLA_GROUP, group);
	nl_end(b);
}

void rtnl_put_group_del(struct nl_batch *b, uint32_t group)
{
	struct nlmsghdr *nlh;
	begin_link(b, &nlh, RTM_DELLINK, 0, "group to delete");
	nl_ignore(b, ENODEV);
	mnl_attr_put_u32(nlh, IFLA_GROUP, group);
	nl_end(b);
}

static void put_address(
    struct nl_batch *b, uint16_t type, uint16_t flags, int ignore, int index, uint32_t addr, int prefix)
{
	struct nlmsghdr *nlh = nl_begin(b, type, flags, "address %u.%u.%u.%u/%d", addr >> 24,
	    addr >> 16 & 255, addr >> 8 & 255, addr & 255, prefix);
	nl_ignore(b, ignore);
	struct ifaddrmsg *a = mnl_nlmsg_put_extra_header(nlh, sizeof(*a));
	memset(a, 0, sizeof(*a));
	a->ifa_family = AF_INET;
	a->ifa_prefixlen = (uint8_t)prefix;
	a->ifa_scope = RT_SCOPE_UNIVERSE;
	a->ifa_index = (uint32_t)index;
	mnl_attr_put_u32(nlh, IFA_LOCAL, htonl(addr));
	mnl_attr_put_u32(nlh, IFA_ADDRESS, htonl(addr));
	if (prefix < 31)
		mnl_attr_put_u32(nlh, IFA_BROADCAST, htonl(addr | (UINT32_MAX >> prefix)));
	nl_end(b);
}

void rtnl_put_address(struct nl_batch *b, int index, uint32_t addr, int prefix)
{
	put_address(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, EEXIST, index, addr, prefix);
}

void rtnl_put_address_del(struct nl_batch *b, int index, uint32_t addr, int prefix)
{
	put_address(b, RTM_DELADDR, 0, EADDRNOTAVAIL, index, addr, prefix);
}

void rtnl_put_neighbour(struct nl_batch *b, int index, uint32_t addr, const uint8_t mac[6])
{
	struct nlmsghdr *nlh = nl_begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
	    "neighbour %u.%u.%u.%u", addr >> 24, addr >> 16 & 255, addr >> 8 & 255, addr & 255);
	struct ndmsg *d = mnl_nlmsg_put_extra_header(nlh, sizeof(*d));
	memset(d, 0, sizeof(*d));
	d->ndm_family = AF_INET;
	d->ndm_ifindex = index;
	d->ndm_state = NUD_PERMANENT;
	mnl_attr_put_u32(nlh, NDA_DST, htonl(addr));
	mnl_attr_put(nlh, NDA_LLADDR, 6, mac);
	nl_end(b);
}

struct route {
	uint8_t type, scope;
	uint32_t dst;
	int prefix;
	uint32_t gateway, src; /* 0: none */
	int index;             /* 0: none */
	uint32_t metric;
};

static void put_route(struct nl_batch *b, uint16_t type, uint16_t flags, const struct route *r)
{
	struct nlmsghdr *nlh = nl_begin(b, type, flags, "route to %u.%u.%u.%u/%d", r->dst >> 24,
	    r->dst >> 16 & 255, r->dst >> 8 & 255, r->dst & 255, r->prefix);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(nlh, sizeof(*m));
	memset(m, 0, sizeof(*m));
	m->rtm_family = AF_INET;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = r->scope;
	m->rtm_type = r->type;
	m->rtm_dst_len = (uint8_t)r->prefix;
	if (r->prefix)
		mnl_attr_put_u32(nlh, RTA_DST, htonl(r->dst));
	if (r->gateway)
		mnl_attr_put_u32(nlh, RTA_GATEWAY, htonl(r->gateway));
	if (r->src)
		mnl_attr_put_u32(nlh, RTA_PREFSRC, htonl(r->src));
	if (r->index)
		mnl_attr_put_u32(nlh, RTA_OIF, (uint32_t)r->index);
	if (r->metric)
		mnl_attr_put_u32(nlh, RTA_PRIORITY, r->metric);
}

void rtnl_put_link_route(struct nl_batch *b, int index, uint32_t dst, int prefix, uint32_t src)
{
	struct route r = {.type = RTN_UNICAST,
	    .scope = RT_SCOPE_LINK,
	    .dst = dst,
	    .prefix = prefix,
	    .src = src,
	    .index = index};
	put_route(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &r);
	nl_end(b);
}

/* The metric keeps it behind every route that an administrator adds for the same subnet. */
#define UNREACHABLE_METRIC 65535

void rtnl_put_unreachable(struct nl_batch *b, uint32_t dst, int prefix)
{
	struct route r = {
	    .type = RTN_UNREACHABLE, .dst = dst, .prefix = prefix, .metric = UNREACHABLE_METRIC};
	put_route(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &r);
	nl_end(b);
}

void rtnl_put_unreachable_del(struct nl_batch *b, uint32_t dst, int prefix)
{
	struct route r = {
	    .type = RTN_UNREACHABLE, .dst = dst, .prefix = prefix, .metric = UNREACHABLE_METRIC};
	put_route(b, RTM_DELROUTE, 0, &r);
	nl_ignore(b, ESRCH);
	nl_end(b);
}

void rtnl_put_default_route(struct nl_batch *b, int index, uint32_t gateway)
{
	struct route r = {.type = RTN_UNICAST, .gateway = gateway, .index = index};
	put_route(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &r);
	nl_end(b);
}

int rtnl_link_index(const struct nl *s, const char *name)
{
	struct ifreq r;
	memset(&r, 0, sizeof(r));
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(nl_fd(s), SIOCGIFINDEX, &r) < 0)
		return 0;
	return r.ifr_ifindex;
}

static void copy_str(const struct nlattr *a, char *out, size_t cap)
{
	size_t n = mnl_attr_get_payload_len(a);
	if (n >= cap)
		n = cap - 1;
	memcpy(out, mnl_attr_get_payload(a), n);
	out[n] = 0;
}

static bool parse_link(const struct nlmsghdr *nlh, struct rtnl_link *l)
{
	if (nlh->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(nlh) < sizeof(struct ifinfomsg))
		return false;
	const struct ifinfomsg *i = mnl_nlmsg_get_payload(nlh);
	memset(l, 0, sizeof(*l));
	l->index = i->ifi_index;
	l->flags = i->ifi_flags;
	const struct nlattr *a, *k;
	NL_FOR_ATTR (a, nlh, sizeof(*i)) {
		switch (mnl_attr_get_type(a)) {
		case IFLA_IFNAME:
			copy_str(a, l->name, sizeof(l->name));
			break;
		case IFLA_IFALIAS:
			copy_str(a, l->alias, sizeof(l->alias));
			break;
		case IFLA_MASTER:
			if (mnl_attr_get_payload_len(a) == 4)
				l->master = (int)mnl_attr_get_u32(a);
			break;
		case IFLA_MTU:
			if (mnl_attr_get_payload_len(a) == 4)
				l->mtu = mnl_attr_get_u32(a);
			break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(a) == 6)
				memcpy(l->mac, mnl_attr_get_payload(a), 6);
			break;
		case IFLA_LINKINFO:
			NL_FOR_NESTED (k, a)
				if (mnl_attr_get_type(k) == IFLA_INFO_KIND)
					copy_str(k, l->kind, sizeof(l->kind));
			break;
		case IFLA_STATS64: {
			struct rtnl_link_stats64 st;
			memset(&st, 0, sizeof(st));
			size_t n = mnl_attr_get_payload_len(a);
			memcpy(&st, mnl_attr_get_payload(a), n < sizeof(st) ? n : sizeof(st));
			l->stats = (struct rtnl_stats){st.rx_bytes, st.rx_packets, st.rx_errors,
			    st.rx_dropped, st.tx_bytes, st.tx_packets, st.tx_errors, st.tx_dropped};
			break;
		}
		default:
			break;
		}
	}
	return true;
}

struct link_get {
	struct rtnl_link l;
	bool found;
};

static bool on_link_get(const struct nlmsghdr *nlh, void *data)
{
	struct link_get *g = data;
	if (parse_link(nlh, &g->l))
		g->found = true;
	return true;
}

int rtnl_link_get(struct nl *s, const char *name, struct rtnl_link *ret, struct err *e)
{
	char raw[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(raw);
	nlh->nlmsg_type = RTM_GETLINK;
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(nlh, sizeof(*i));
	memset(i, 0, sizeof(*i));
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	struct link_get g = {.found = false};
	int errnum = 0;
	int r = nl_dump(s, nlh, on_link_get, &g, name, &errnum, NULL);
	if (errnum == ENODEV || (r == 0 && !g.found))
		return err_set(e, ERR_NOT_FOUND, "link %s does not exist", name);
	if (r < 0)
		return err_errno(e, errnum, "link %s", name);
	*ret = g.l;
	return 0;
}

struct link_each {
	void (*fn)(void *data, const struct rtnl_link *l);
	void *data;
};

static bool on_link_each(const struct nlmsghdr *nlh, void *data)
{
	struct link_each *c = data;
	struct rtnl_link l;
	if (parse_link(nlh, &l))
		c->fn(c->data, &l);
	return true;
}

int rtnl_link_each(struct nl *s, void (*fn)(void *data, const struct rtnl_link *l), void *data, struct err *e)
{
	char raw[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(raw);
	nlh->nlmsg_type = RTM_GETLINK;
	nlh->nlmsg_flags = NLM_F_DUMP;
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(nlh, sizeof(*i));
	memset(i, 0, sizeof(*i));
	struct link_each c = {fn, data};
	int errnum = 0;
	int r = nl_dump(s, nlh, on_link_each, &c, "list of links", &errnum, e);
	/* EINTR: links came or went meanwhile; what was listed is enough for a best-effort walk. */
	return errnum == EINTR ? 0 : r;
}

struct net_each {
	void (*fn)(void *data, const struct rtnl_net *net);
	void *data;
};

static bool on_net_each(const struct nlmsghdr *nlh, void *data)
{
	struct net_each *c = data;
	struct rtnl_net net = {0};
	const struct nlattr *a;
	if (nlh->nlmsg_type == RTM_NEWADDR && mnl_nlmsg_get_payload_len(nlh) >= sizeof(struct ifaddrmsg)) {
		const struct ifaddrmsg *m = mnl_nlmsg_get_payload(nlh);
		if (m->ifa_family != AF_INET)
			return true;
		net.prefix = m->ifa_prefixlen;
		net.index = (int)m->ifa_index;
		net.is_address = true;
		NL_FOR_ATTR (a, nlh, sizeof(*m))
			if (mnl_attr_get_type(a) == IFA_LOCAL && mnl_attr_get_payload_len(a) == 4)
				net.addr = ntohl(mnl_attr_get_u32(a));
		c->fn(c->data, &net);
	} else if (nlh->nlmsg_type == RTM_NEWROUTE &&
		   mnl_nlmsg_get_payload_len(nlh) >= sizeof(struct rtmsg)) {
		const struct rtmsg *m = mnl_nlmsg_get_payload(nlh);
		if (m->rtm_family != AF_INET || m->rtm_dst_len == 0 || m->rtm_table == RT_TABLE_LOCAL)
			return true;
		net.prefix = m->rtm_dst_len;
		NL_FOR_ATTR (a, nlh, sizeof(*m)) {
			if (mnl_attr_get_payload_len(a) != 4)
				continue;
			if (mnl_attr_get_type(a) == RTA_DST)
				net.addr = ntohl(mnl_attr_get_u32(a));
			else if (mnl_attr_get_type(a) == RTA_OIF)
				net.index = (int)mnl_attr_get_u32(a);
		}
		c->fn(c->data, &net);
	}
	return true;
}

int rtnl_net_each(struct nl *s, void (*fn)(void *data, const struct rtnl_net *net), void *data, struct err *e)
{
	struct net_each c = {fn, data};
	static const uint16_t types[] = {RTM_GETADDR, RTM_GETROUTE};
	for (size_t k = 0; k < 2; k++) {
		char raw[256];
		struct nlmsghdr *nlh = mnl_nlmsg_put_header(raw);
		nlh->nlmsg_type = types[k];
		nlh->nlmsg_flags = NLM_F_DUMP;
		struct rtmsg *m = mnl_nlmsg_put_extra_header(nlh, sizeof(*m));
		memset(m, 0, sizeof(*m));
		m->rtm_family = AF_INET; /* the family is the first byte of ifaddrmsg too */
		int errnum = 0;
		int r = nl_dump(s, nlh, on_net_each, &c, "addresses and routes", &errnum, e);
		if (r < 0 && errnum != EINTR)
			return r;
	}
	return 0;
}
