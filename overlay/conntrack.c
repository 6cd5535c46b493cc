/* Forgetting UDP flows whose way has changed.
 *
 * Connection tracking pins a UDP client (address and port) to the backend that its first packet was given to,
 * and every further packet renews that for half a minute or more. When a backend goes or the first one comes,
 * such flows would stay with a dead address. So entries to the port are listed, and those that lead elsewhere
 * than to a present backend are deleted.
 *
 * Happy path: one dump, filtered by the kernel (5.8 and later) to the port, and one batch of deletions by
 * tuple and id. Failure: without the kernel's filter the same is sorted out here, only slower. An entry that
 * ended meanwhile is success. */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include "base/log.h"

struct flush {
	uint32_t ip;
	uint16_t port;
	const uint32_t *addrs;
	size_t count;
	struct nl_batch batch;
};

struct tuple {
	uint32_t src, dst;
	uint16_t sport, dport;
	uint8_t proto;
};

static void parse_tuple(const struct nlattr *nest, struct tuple *t)
{
	const struct nlattr *a, *k;
	NL_FOR_NESTED (a, nest) {
		if (mnl_attr_get_type(a) == CTA_TUPLE_IP) {
			NL_FOR_NESTED (k, a) {
				if (mnl_attr_get_payload_len(k) != 4)
					continue;
				if (mnl_attr_get_type(k) == CTA_IP_V4_SRC)
					t->src = ntohl(mnl_attr_get_u32(k));
				else if (mnl_attr_get_type(k) == CTA_IP_V4_DST)
					t->dst = ntohl(mnl_attr_get_u32(k));
			}
		} else if (mnl_attr_get_type(a) == CTA_TUPLE_PROTO) {
			NL_FOR_NESTED (k, a) {
				if (mnl_attr_get_type(k) == CTA_PROTO_NUM)
					t->proto = mnl_attr_get_u8(k);
				else if (mnl_attr_get_type(k) == CTA_PROTO_SRC_PORT)
					t->sport = ntohs(mnl_attr_get_u16(k));
				else if (mnl_attr_get_type(k) == CTA_PROTO_DST_PORT)
					t->dport = ntohs(mnl_attr_get_u16(k));
			}
		}
	}
}

static void put_delete(struct flush *f, const struct nlattr *orig, const struct nlattr *id)
{
	struct nlmsghdr *nlh = nl_begin(&f->batch, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, 0,
	    "forget a UDP flow to port %u", f->port);
	nl_ignore(&f->batch, ENOENT);
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(nlh, sizeof(*g));
	*g = (struct nfgenmsg){.nfgen_family = AF_INET, .version = NFNETLINK_V0};
	mnl_attr_put(
	    nlh, NLA_F_NESTED | CTA_TUPLE_ORIG, mnl_attr_get_payload_len(orig), mnl_attr_get_payload(orig));
	if (id)
		mnl_attr_put(nlh, CTA_ID, mnl_attr_get_payload_len(id), mnl_attr_get_payload(id));
	nl_end(&f->batch);
}

static bool on_entry(const struct nlmsghdr *nlh, void *data)
{
	struct flush *f = data;
	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nfgenmsg))
		return true;
	struct tuple orig = {0}, reply = {0};
	const struct nlattr *a, *orig_attr = NULL, *id = NULL;
	NL_FOR_ATTR (a, nlh, sizeof(struct nfgenmsg)) {
		switch (mnl_attr_get_type(a)) {
		case CTA_TUPLE_ORIG:
			orig_attr = a;
			parse_tuple(a, &orig);
			break;
		case CTA_TUPLE_REPLY:
			parse_tuple(a, &reply);
			break;
		case CTA_ID:
			id = a;
			break;
		default:
			break;
		}
	}
	if (!orig_attr || orig.proto != IPPROTO_UDP || orig.dport != f->port || (f->ip && orig.dst != f->ip))
		return true;
	for (size_t i = 0; i < f->count; i++)
		if (f->addrs[i] == reply.src)
			return true;
	put_delete(f, orig_attr, id);
	return true;
}

static int dump(struct hostnet *n, struct flush *f, bool filter, int *ret_errno, struct err *e)
{
	char raw[512];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(raw);
	nlh->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	nlh->nlmsg_flags = NLM_F_DUMP;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(nlh, sizeof(*g));
	*g = (struct nfgenmsg){.nfgen_family = AF_INET, .version = NFNETLINK_V0};
	if (filter) {
		struct nlattr *t = mnl_attr_nest_start(nlh, CTA_TUPLE_ORIG);
		struct nlattr *p = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
		mnl_attr_put_u8(nlh, CTA_PROTO_NUM, IPPROTO_UDP);
		mnl_attr_put_u16(nlh, CTA_PROTO_DST_PORT, htons(f->port));
		mnl_attr_nest_end(nlh, p);
		mnl_attr_nest_end(nlh, t);
		struct nlattr *fl = mnl_attr_nest_start(nlh, CTA_FILTER);
		/* ctnetlink's CTA_FILTER_F_CTA_PROTO_NUM and ..._PROTO_DST_PORT, which its uapi header does
		 * not name. */
		mnl_attr_put_u32(nlh, CTA_FILTER_ORIG_FLAGS, 1u << 3 | 1u << 5);
		mnl_attr_put_u32(nlh, CTA_FILTER_REPLY_FLAGS, 0);
		mnl_attr_nest_end(nlh, fl);
	}
	return nl_dump(&n->nf, nlh, on_entry, f, "list of UDP flows", ret_errno, e);
}

int conntrack_flush_udp(
    struct hostnet *n, uint32_t ip, uint16_t port, const uint32_t *addrs, size_t count, struct err *e)
{
	struct flush f = {.ip = ip, .port = port, .addrs = addrs, .count = count, .batch = NL_BATCH_INIT};
	int errnum = 0;
	int r = dump(n, &f, true, &errnum, e);
	if (r < 0 && (errnum == EOPNOTSUPP || errnum == EINVAL)) {
		nl_batch_reset(&f.batch);
		errnum = 0;
		r = dump(n, &f, false, &errnum, e);
	}
	if (errnum == EINTR)
		r = 0;
	if (r == 0)
		r = nl_send(&n->nf, &f.batch, NULL, e);
	nl_batch_done(&f.batch);
	return r;
}
