/* nf_tables transactions with libnftnl.
 *
 * Happy path: nft_put_* append netlink messages to a batch; nft_commit wraps them in a begin and an end
 * marker and sends the whole at once. The kernel swaps to the new generation atomically: a packet sees all of
 * it or nothing.
 *
 * Failure: any bad message aborts the batch; the kernel keeps the old generation, and the error names the
 * message. */
#include "overlay/nft.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>

#include "base/log.h"
#include "base/mem.h"

/* The second 32-bit slot of the 16-byte register 1, which is where nft(8) puts the second half of a
 * concatenation. */
#define REG_SECOND NFT_REG32_01
/* nft(8)'s numbers for the byte order of integers, kept in a set's user data. */
#define HOST_ENDIAN 1
#define BIG_ENDIAN_ 2

static void *must(void *p)
{
	ASSERT(p); /* libnftnl returns NULL only when memory is out */
	return p;
}

static struct nfgenmsg *put_nfgen(struct nlmsghdr *nlh, uint16_t family, uint16_t res_id)
{
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(nlh, sizeof(*g));
	g->nfgen_family = (uint8_t)family;
	g->version = NFNETLINK_V0;
	g->res_id = htons(res_id);
	return g;
}

static struct nlmsghdr *begin(
    struct nft_tx *t, uint16_t type, uint16_t flags, const char *kind, const char *name)
{
	struct nlmsghdr *nlh = nl_begin(&t->b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags,
	    "nftables %s %s %s", t->table, kind, name);
	put_nfgen(nlh, t->family, 0);
	return nlh;
}

static void put_mark(struct nft_tx *t, uint16_t type)
{
	struct nlmsghdr *nlh = nl_begin(&t->b, type, 0, "nftables transaction on %s", t->table);
	put_nfgen(nlh, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
	nl_end(&t->b);
}

void nft_tx_init(struct nft_tx *t, uint16_t family, const char *table)
{
	*t = (struct nft_tx){.b = NL_BATCH_INIT, .table = table, .family = family};
	put_mark(t, NFNL_MSG_BATCH_BEGIN);
}

void nft_tx_done(struct nft_tx *t)
{
	nl_batch_done(&t->b);
}

int nft_commit(struct nl *s, struct nft_tx *t, int *ret_errno, struct err *e)
{
	int r = 0;
	if (t->b.n > 1) {
		put_mark(t, NFNL_MSG_BATCH_END);
		r = nl_send(s, &t->b, ret_errno, e);
	}
	nl_batch_reset(&t->b);
	t->last_set_id = 0;
	put_mark(t, NFNL_MSG_BATCH_BEGIN);
	return r;
}

/* --- tables and chains ------------------------------------------------------------------------------ */

static void put_table(struct nft_tx *t, uint16_t type, uint16_t flags)
{
	struct nftnl_table *x = must(nftnl_table_alloc());
	nftnl_table_set_str(x, NFTNL_TABLE_NAME, t->table);
	struct nlmsghdr *nlh = begin(t, type, flags, "table", "");
	nftnl_table_nlmsg_build_payload(nlh, x);
	nl_end(&t->b);
	nftnl_table_free(x);
}

void nft_put_table(struct nft_tx *t)
{
	put_table(t, NFT_MSG_NEWTABLE, NLM_F_CREATE);
}

void nft_put_table_del(struct nft_tx *t)
{
	put_table(t, NFT_MSG_DELTABLE, 0);
}

static void put_chain(struct nft_tx *t, uint16_t type, uint16_t flags, const char *name,
    const char *base_type, uint32_t hook, int32_t prio)
{
	struct nftnl_chain *c = must(nftnl_chain_alloc());
	nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, t->table);
	nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
	if (base_type) {
		nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, base_type);
		nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook);
		nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, prio);
		nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	}
	struct nlmsghdr *nlh = begin(t, type, flags, "chain", name);
	nftnl_chain_nlmsg_build_payload(nlh, c);
	nl_end(&t->b);
	nftnl_chain_free(c);
}

void nft_put_chain(struct nft_tx *t, const char *name)
{
	put_chain(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE, name, NULL, 0, 0);
}

void nft_put_base_chain(struct nft_tx *t, const char *name, const char *type, uint32_t hook, int32_t prio)
{
	put_chain(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE, name, type, hook, prio);
}

void nft_put_chain_del(struct nft_tx *t, const char *name)
{
	put_chain(t, NFT_MSG_DELCHAIN, 0, name, NULL, 0, 0);
}

static void put_rule_del(struct nft_tx *t, const char *chain, uint64_t handle)
{
	struct nftnl_rule *r = must(nftnl_rule_alloc());
	nftnl_rule_set_str(r, NFTNL_RULE_TABLE, t->table);
	nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
	if (handle)
		nftnl_rule_set_u64(r, NFTNL_RULE_HANDLE, handle);
	struct nlmsghdr *nlh = begin(t, NFT_MSG_DELRULE, 0, "rules of chain", chain);
	nftnl_rule_nlmsg_build_payload(nlh, r);
	nl_end(&t->b);
	nftnl_rule_free(r);
}

void nft_put_chain_flush(struct nft_tx *t, const char *name)
{
	put_rule_del(t, name, 0);
}

void nft_put_rule_del(struct nft_tx *t, const char *chain, uint64_t handle)
{
	put_rule_del(t, chain, handle);
}

/* --- sets and maps ---------------------------------------------------------------------------------- */

static uint32_t key_len(enum nft_type k)
{
	switch (k) {
	case NFT_TYPE_PORT:
		return 2;
	case NFT_TYPE_IPV4:
		return 4;
	case NFT_TYPE_IPV4_PORT:
	case NFT_TYPE_IPV4_IPV4:
		return 8; /* each part of a concatenation fills 32 bits */
	}
	ASSERT(false);
	return 0;
}

static void put_set(struct nft_tx *t, struct nftnl_set *s, const char *name)
{
	nftnl_set_set_str(s, NFTNL_SET_TABLE, t->table);
	nftnl_set_set_str(s, NFTNL_SET_NAME, name);
	nftnl_set_set_u32(s, NFTNL_SET_FAMILY, t->family);
	struct nlmsghdr *nlh = begin(t, NFT_MSG_NEWSET, NLM_F_CREATE, "set", name);
	nftnl_set_nlmsg_build_payload(nlh, s);
	nl_end(&t->b);
}

void nft_put_set(struct nft_tx *t, const char *name, enum nft_type key)
{
	struct nftnl_set *s = must(nftnl_set_alloc());
	nftnl_set_set_u32(s, NFTNL_SET_ID, ++t->last_set_id);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, key);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, key_len(key));
	put_set(t, s, name);
	nftnl_set_free(s);
}

void nft_put_vmap(struct nft_tx *t, const char *name, enum nft_type key)
{
	struct nftnl_set *s = must(nftnl_set_alloc());
	nftnl_set_set_u32(s, NFTNL_SET_ID, ++t->last_set_id);
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, NFT_SET_MAP);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, key);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, key_len(key));
	nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
	nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, 16);
	put_set(t, s, name);
	nftnl_set_free(s);
}

struct nft_key nft_key_port(uint16_t port)
{
	struct nft_key k = {.len = 2};
	uint16_t be = htons(port);
	memcpy(k.bytes, &be, 2);
	return k;
}

struct nft_key nft_key_ipv4_port(uint32_t addr, uint16_t port)
{
	struct nft_key k = {.len = 8};
	uint32_t a = htonl(addr);
	uint16_t p = htons(port);
	memcpy(k.bytes, &a, 4);
	memcpy(k.bytes + 4, &p, 2);
	return k;
}

struct nft_key nft_key_ipv4_ipv4(uint32_t a, uint32_t b)
{
	struct nft_key k = {.len = 8};
	uint32_t x = htonl(a), y = htonl(b);
	memcpy(k.bytes, &x, 4);
	memcpy(k.bytes + 4, &y, 4);
	return k;
}

static void put_one_elem(
    struct nft_tx *t, uint16_t type, uint16_t flags, const char *set, struct nft_key key, const char *chain)
{
	struct nftnl_set *s = must(nftnl_set_alloc());
	nftnl_set_set_str(s, NFTNL_SET_TABLE, t->table);
	nftnl_set_set_str(s, NFTNL_SET_NAME, set);
	struct nftnl_set_elem *x = must(nftnl_set_elem_alloc());
	nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY, key.bytes, key.len);
	if (chain) {
		nftnl_set_elem_set_u32(x, NFTNL_SET_ELEM_VERDICT, (uint32_t)NFT_GOTO);
		nftnl_set_elem_set_str(x, NFTNL_SET_ELEM_CHAIN, chain);
	}
	nftnl_set_elem_add(s, x);
	struct nlmsghdr *nlh = begin(t, type, flags, "element of", set);
	nftnl_set_elems_nlmsg_build_payload(nlh, s);
	nl_end(&t->b);
	nftnl_set_free(s);
}

void nft_put_elem(struct nft_tx *t, const char *set, struct nft_key key)
{
	put_one_elem(t, NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, key, NULL);
}

void nft_put_elem_goto(struct nft_tx *t, const char *map, struct nft_key key, const char *chain)
{
	put_one_elem(t, NFT_MSG_NEWSETELEM, NLM_F_CREATE, map, key, chain);
}

void nft_put_elem_del(struct nft_tx *t, const char *set, struct nft_key key)
{
	put_one_elem(t, NFT_MSG_DELSETELEM, 0, set, key, NULL);
}

/* An anonymous constant map 0..n-1 -> address; the rule that looks into it owns it. */
static uint32_t put_address_map(struct nft_tx *t, const uint32_t *addrs, uint32_t n)
{
	uint32_t id = ++t->last_set_id;
	struct nftnl_set *s = must(nftnl_set_alloc());
	nftnl_set_set_u32(s, NFTNL_SET_ID, id);
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_MAP);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, 4); /* integer */
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, 4);
	nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, NFT_TYPE_IPV4);
	nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, 4);
	nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, n);
	struct nftnl_udata_buf *u = must(nftnl_udata_buf_alloc(64));
	nftnl_udata_put_u32(u, NFTNL_UDATA_SET_KEYBYTEORDER, HOST_ENDIAN);
	nftnl_udata_put_u32(u, NFTNL_UDATA_SET_DATABYTEORDER, BIG_ENDIAN_);
	nftnl_set_set_data(s, NFTNL_SET_USERDATA, nftnl_udata_buf_data(u), nftnl_udata_buf_len(u));
	nftnl_udata_buf_free(u);
	put_set(t, s, "__map%d");
	nftnl_set_free(s);

	const uint32_t chunk = 500; /* about 50 bytes an element, far below a nested attribute's 64 KiB */
	for (uint32_t at = 0; at < n; at += chunk) {
		struct nftnl_set *p = must(nftnl_set_alloc());
		nftnl_set_set_str(p, NFTNL_SET_TABLE, t->table);
		nftnl_set_set_str(p, NFTNL_SET_NAME, "__map%d");
		nftnl_set_set_u32(p, NFTNL_SET_ID, id);
		for (uint32_t i = at; i < n && i < at + chunk; i++) {
			uint32_t be = htonl(addrs[i]);
			struct nftnl_set_elem *x = must(nftnl_set_elem_alloc());
			nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY, &i, 4);
			nftnl_set_elem_set(x, NFTNL_SET_ELEM_DATA, &be, 4);
			nftnl_set_elem_add(p, x);
		}
		struct nlmsghdr *nlh = begin(t, NFT_MSG_NEWSETELEM, NLM_F_CREATE, "element of", "backends");
		nftnl_set_elems_nlmsg_build_payload(nlh, p);
		nl_end(&t->b);
		nftnl_set_free(p);
	}
	return id;
}

/* --- rules ------------------------------------------------------------------------------------------ */

void nft_rule_begin(struct nft_rule *r, struct nft_tx *t, const char *chain, const char *comment)
{
	*r = (struct nft_rule){.t = t, .r = must(nftnl_rule_alloc())};
	nftnl_rule_set_str(r->r, NFTNL_RULE_TABLE, t->table);
	nftnl_rule_set_str(r->r, NFTNL_RULE_CHAIN, chain);
	nftnl_rule_set_u32(r->r, NFTNL_RULE_FAMILY, t->family);
	if (comment) {
		char text[NFTNL_UDATA_COMMENT_MAXLEN];
		snprintf(text, sizeof(text), "%s", comment);
		struct nftnl_udata_buf *u = must(nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN));
		nftnl_udata_put_strz(u, NFTNL_UDATA_RULE_COMMENT, text);
		nftnl_rule_set_data(
		    r->r, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(u), nftnl_udata_buf_len(u));
		nftnl_udata_buf_free(u);
	}
}

void nft_rule_end(struct nft_rule *r)
{
	uint16_t flags = NLM_F_CREATE;
	if (r->before)
		nftnl_rule_set_u64(r->r, NFTNL_RULE_POSITION, r->before);
	else
		flags |= NLM_F_APPEND;
	struct nlmsghdr *nlh =
	    begin(r->t, NFT_MSG_NEWRULE, flags, "rule in chain", nftnl_rule_get_str(r->r, NFTNL_RULE_CHAIN));
	nftnl_rule_nlmsg_build_payload(nlh, r->r);
	nl_end(&r->t->b);
	nftnl_rule_free(r->r);
	r->r = NULL;
}

static struct nftnl_expr *expr(struct nft_rule *r, const char *name)
{
	struct nftnl_expr *x = must(nftnl_expr_alloc(name));
	nftnl_rule_add_expr(r->r, x);
	return x;
}

static void cmp(struct nft_rule *r, uint32_t op, const void *data, uint32_t len)
{
	struct nftnl_expr *x = expr(r, "cmp");
	nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, len);
}

static void payload(struct nft_rule *r, uint32_t base, uint32_t off, uint32_t len, uint32_t reg)
{
	struct nftnl_expr *x = expr(r, "payload");
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, off);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, len);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, reg);
}

static void meta(struct nft_rule *r, uint32_t key)
{
	struct nftnl_expr *x = expr(r, "meta");
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, NFT_REG_1);
}

static void and_mask(struct nft_rule *r, uint32_t mask)
{
	uint32_t zero = 0;
	struct nftnl_expr *x = expr(r, "bitwise");
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, 4);
	nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, &mask, 4);
	nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, &zero, 4);
}

static void ifname(struct nft_rule *r, uint32_t key, const char *name, bool equal)
{
	char padded[16] = {0};
	snprintf(padded, sizeof(padded), "%s", name);
	meta(r, key);
	/* With its NUL it is a whole name, without it a prefix: so do nft(8) and iptables-nft, and both read
	 * it back. */
	uint32_t len = (uint32_t)strlen(padded);
	cmp(r, equal ? NFT_CMP_EQ : NFT_CMP_NEQ, padded, padded[len - 1] == '*' ? len - 1 : len + 1);
}

void nft_x_iifname(struct nft_rule *r, const char *name, bool equal)
{
	ifname(r, NFT_META_IIFNAME, name, equal);
}

void nft_x_oifname(struct nft_rule *r, const char *name, bool equal)
{
	ifname(r, NFT_META_OIFNAME, name, equal);
}

void nft_x_l4proto(struct nft_rule *r, uint8_t proto)
{
	meta(r, NFT_META_L4PROTO);
	cmp(r, NFT_CMP_EQ, &proto, 1);
}

static void address(struct nft_rule *r, uint32_t off, uint32_t net, int prefix, bool equal)
{
	uint32_t be = htonl(net);
	payload(r, NFT_PAYLOAD_NETWORK_HEADER, off, 4, NFT_REG_1);
	if (prefix < 32)
		and_mask(r, htonl(~(UINT32_MAX >> prefix)));
	cmp(r, equal ? NFT_CMP_EQ : NFT_CMP_NEQ, &be, 4);
}

void nft_x_saddr(struct nft_rule *r, uint32_t net, int prefix, bool equal)
{
	address(r, 12, net, prefix, equal);
}

void nft_x_daddr(struct nft_rule *r, uint32_t net, int prefix, bool equal)
{
	address(r, 16, net, prefix, equal);
}

void nft_x_dport(struct nft_rule *r, uint16_t port)
{
	uint16_t be = htons(port);
	payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
	cmp(r, NFT_CMP_EQ, &be, 2);
}

void nft_x_icmp_type(struct nft_rule *r, uint8_t type)
{
	nft_x_l4proto(r, IPPROTO_ICMP);
	payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
	cmp(r, NFT_CMP_EQ, &type, 1);
}

void nft_x_daddr_is_local(struct nft_rule *r)
{
	uint32_t local = 2; /* RTN_LOCAL */
	struct nftnl_expr *x = expr(r, "fib");
	nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
	nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
	nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
	cmp(r, NFT_CMP_EQ, &local, 4);
}

static void ct_any(struct nft_rule *r, uint32_t key, uint32_t mask)
{
	uint32_t zero = 0;
	struct nftnl_expr *x = expr(r, "ct");
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, NFT_REG_1);
	and_mask(r, mask);
	cmp(r, NFT_CMP_NEQ, &zero, 4);
}

void nft_x_ct_state(struct nft_rule *r, uint32_t mask)
{
	ct_any(r, NFT_CT_STATE, mask);
}

void nft_x_ct_status(struct nft_rule *r, uint32_t mask)
{
	ct_any(r, NFT_CT_STATUS, mask);
}

static void lookup(struct nft_rule *r, const char *set, uint32_t id, int dreg)
{
	struct nftnl_expr *x = expr(r, "lookup");
	nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	if (dreg >= 0)
		nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_DREG, (uint32_t)dreg);
	nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, set);
	if (id)
		nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SET_ID, id);
}

void nft_x_dport_vmap(struct nft_rule *r, const char *map)
{
	payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
	lookup(r, map, 0, NFT_REG_VERDICT);
}

void nft_x_daddr_dport_vmap(struct nft_rule *r, const char *map)
{
	payload(r, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, NFT_REG_1);
	payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, REG_SECOND);
	lookup(r, map, 0, NFT_REG_VERDICT);
}

void nft_x_saddr_daddr_in(struct nft_rule *r, const char *set)
{
	payload(r, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, NFT_REG_1);
	payload(r, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, REG_SECOND);
	lookup(r, set, 0, -1);
}

static void immediate(struct nft_rule *r, uint32_t reg, const void *data, uint32_t len)
{
	struct nftnl_expr *x = expr(r, "immediate");
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, reg);
	nftnl_expr_set(x, NFTNL_EXPR_IMM_DATA, data, len);
}

static void nat(struct nft_rule *r, uint32_t type, bool port)
{
	struct nftnl_expr *x = expr(r, "nat");
	nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_TYPE, type);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_FAMILY, NFPROTO_IPV4);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG_1);
	if (port)
		nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_PROTO_MIN, NFT_REG_2);
}

void nft_x_dnat_spread(struct nft_rule *r, const uint32_t *addrs, uint32_t n, uint16_t port)
{
	ASSERT(n > 0);
	uint16_t be = htons(port);
	uint32_t id = put_address_map(r->t, addrs, n);
	struct nftnl_expr *x = expr(r, "numgen");
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_DREG, NFT_REG_1);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_MODULUS, n);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_TYPE, NFT_NG_INCREMENTAL);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_OFFSET, 0);
	lookup(r, "__map%d", id, NFT_REG_1);
	immediate(r, NFT_REG_2, &be, 2);
	nat(r, NFT_NAT_DNAT, true);
}

void nft_x_dnat(struct nft_rule *r, uint32_t addr)
{
	uint32_t be = htonl(addr);
	immediate(r, NFT_REG_1, &be, 4);
	nat(r, NFT_NAT_DNAT, false);
}

void nft_x_snat(struct nft_rule *r, uint32_t addr)
{
	uint32_t be = htonl(addr);
	immediate(r, NFT_REG_1, &be, 4);
	nat(r, NFT_NAT_SNAT, false);
}

void nft_x_masquerade(struct nft_rule *r)
{
	expr(r, "masq");
}

void nft_x_counter(struct nft_rule *r)
{
	expr(r, "counter");
}

void nft_x_reject(struct nft_rule *r, bool tcp_reset)
{
	struct nftnl_expr *x = expr(r, "reject");
	nftnl_expr_set_u32(
	    x, NFTNL_EXPR_REJECT_TYPE, tcp_reset ? NFT_REJECT_TCP_RST : NFT_REJECT_ICMP_UNREACH);
	nftnl_expr_set_u8(x, NFTNL_EXPR_REJECT_CODE, tcp_reset ? 0 : 3); /* 3: port unreachable */
}

void nft_x_verdict(struct nft_rule *r, int verdict, const char *chain)
{
	struct nftnl_expr *x = expr(r, "immediate");
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (chain)
		nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, chain);
}
