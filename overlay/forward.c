/* Living beside other people's forward policies.
 *
 * In nftables an accept ends one base chain only; a later chain of the same hook may still drop. Docker's
 * engine sets the policy of iptables' FORWARD to drop, firewalls do likewise, and routed traffic of our
 * containers would die there. So for each base chain of the forward hook that is not ours and that drops what
 * nobody accepted (its policy, or a final rule without a condition), two rules are added at the end (before
 * that final rule): what comes from our links and what goes to them is accepted. Rules that the administrator
 * put before still win, since ours come last; what may go to a container at all is decided by the chain
 * `forward` of our own table. The rules carry a comment with our tag; forward_remove takes out exactly those.
 *
 * The rules consist of what iptables-nft itself would write, so that iptables-save goes on to read its table.
 *
 * Failure: a table that its owner has locked (firewalld can) answers EPERM: the caller logs it with the fix.
 */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

struct foreign_chain {
	uint16_t family;
	char *table, *name;
	bool drops;
};
struct chain_list {
	struct foreign_chain *v;
	size_t n;
};

static bool on_chain(const struct nlmsghdr *nlh, void *data)
{
	struct chain_list *l = data;
	struct nftnl_chain *c = nftnl_chain_alloc();
	ASSERT(c);
	if (nftnl_chain_nlmsg_parse(nlh, c) == 0 && nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) &&
	    nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) == NF_INET_FORWARD &&
	    str_eq(nftnl_chain_get_str(c, NFTNL_CHAIN_TYPE), "filter")) {
		uint32_t family = nftnl_chain_get_u32(c, NFTNL_CHAIN_FAMILY);
		const char *table = nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE);
		if ((family == NFPROTO_IPV4 || family == NFPROTO_INET) && !str_has_prefix(table, "shoal_")) {
			l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
			l->v[l->n++] = (struct foreign_chain){.family = (uint16_t)family,
			    .table = xstrdup(table),
			    .name = xstrdup(nftnl_chain_get_str(c, NFTNL_CHAIN_NAME)),
			    .drops = nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_DROP};
		}
	}
	nftnl_chain_free(c);
	return true;
}

static int list_chains(struct hostnet *n, struct chain_list *l, struct err *e)
{
	char raw[256];
	struct nlmsghdr *nlh = nftnl_nlmsg_build_hdr(raw, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, 0);
	int errnum = 0;
	int r = nl_dump(&n->nf, nlh, on_chain, l, "list of nftables chains", &errnum, e);
	return errnum == EINTR ? 0 : r;
}

static void chain_list_done(struct chain_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].table);
		free(l->v[i].name);
	}
	free(l->v);
}

struct rule_scan {
	const char *chain;
	char marks[2][64];    /* comments of our two rules */
	uint64_t handles[2];  /* 0: not there */
	uint64_t last_handle; /* of the last rule */
	bool last_final;      /* it has no condition, and drops or rejects */
};

static int find_comment(const struct nftnl_udata *attr, void *data)
{
	const char **out = data;
	if (nftnl_udata_type(attr) == NFTNL_UDATA_RULE_COMMENT) {
		const char *s = nftnl_udata_get(attr);
		uint8_t len = nftnl_udata_len(attr);
		if (len > 0 && s[len - 1] == 0)
			*out = s;
	}
	return 0;
}

static const char *comment_of(struct nftnl_rule *r)
{
	uint32_t len = 0;
	const void *p = nftnl_rule_get_data(r, NFTNL_RULE_USERDATA, &len);
	const char *comment = NULL;
	if (p)
		nftnl_udata_parse(p, len, find_comment, &comment);
	return comment;
}

static bool is_final(struct nftnl_rule *r)
{
	bool final = false;
	struct nftnl_expr_iter *it = nftnl_expr_iter_create(r);
	ASSERT(it);
	for (struct nftnl_expr *x; (x = nftnl_expr_iter_next(it));) {
		const char *name = nftnl_expr_get_str(x, NFTNL_EXPR_NAME);
		if (str_eq(name, "counter") || str_eq(name, "log"))
			continue;
		if (str_eq(name, "reject"))
			final = true;
		else if (str_eq(name, "immediate") && nftnl_expr_is_set(x, NFTNL_EXPR_IMM_VERDICT))
			final = nftnl_expr_get_u32(x, NFTNL_EXPR_IMM_VERDICT) == NF_DROP;
		else if (str_eq(name, "target"))
			final = str_eq(nftnl_expr_get_str(x, NFTNL_EXPR_TG_NAME), "REJECT");
		else {
			final = false; /* a condition */
			break;
		}
	}
	nftnl_expr_iter_destroy(it);
	return final;
}

static bool on_rule(const struct nlmsghdr *nlh, void *data)
{
	struct rule_scan *s = data;
	struct nftnl_rule *r = nftnl_rule_alloc();
	ASSERT(r);
	if (nftnl_rule_nlmsg_parse(nlh, r) == 0 &&
	    str_eq(nftnl_rule_get_str(r, NFTNL_RULE_CHAIN), s->chain)) {
		const char *comment = comment_of(r);
		uint64_t handle = nftnl_rule_get_u64(r, NFTNL_RULE_HANDLE);
		for (size_t i = 0; i < 2 && comment; i++)
			if (str_eq(comment, s->marks[i]))
				s->handles[i] = handle;
		s->last_handle = handle;
		s->last_final = is_final(r);
	}
	nftnl_rule_free(r);
	return true;
}

static int scan_rules(struct hostnet *n, const struct foreign_chain *c, struct rule_scan *s, struct err *e)
{
	*s = (struct rule_scan){.chain = c->name};
	snprintf(s->marks[0], sizeof(s->marks[0]), "shoal %s: from containers", n->tag);
	snprintf(s->marks[1], sizeof(s->marks[1]), "shoal %s: to containers", n->tag);
	char raw[1024];
	struct nlmsghdr *nlh = nftnl_nlmsg_build_hdr(raw, NFT_MSG_GETRULE, c->family, NLM_F_DUMP, 0);
	struct nftnl_rule *r = nftnl_rule_alloc();
	ASSERT(r);
	nftnl_rule_set_str(r, NFTNL_RULE_TABLE, c->table);
	nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, c->name);
	nftnl_rule_nlmsg_build_payload(nlh, r);
	nftnl_rule_free(r);
	int errnum = 0;
	int res = nl_dump(&n->nf, nlh, on_rule, s, "list of nftables rules", &errnum, e);
	return errnum == EINTR ? 0 : res;
}

static int ensure_in(struct hostnet *n, const struct foreign_chain *c, struct err *e)
{
	struct rule_scan s;
	int r = scan_rules(n, c, &s, e);
	if (r < 0 || (s.handles[0] && s.handles[1]) || (!c->drops && !s.last_final))
		return r;
	struct nft_tx t CLEANUP_NFT_TX;
	nft_tx_init(&t, c->family, c->table);
	for (size_t i = 0; i < 2; i++) {
		if (s.handles[i])
			continue;
		struct nft_rule x;
		nft_rule_begin(&x, &t, c->name, s.marks[i]);
		if (s.last_final)
			x.before = s.last_handle;
		if (i == 0)
			nft_x_iifname(&x, n->links, true);
		else
			nft_x_oifname(&x, n->links, true);
		nft_x_counter(&x);
		nft_x_verdict(&x, NF_ACCEPT, NULL);
		nft_rule_end(&x);
	}
	r = nft_commit(&n->nf, &t, NULL, e);
	if (r == 0)
		log_info("network: chain %s of table %s drops forwarded packets; added rules for %s", c->name,
		    c->table, n->links);
	return r;
}

/* The older interface of iptables keeps its rules outside nftables, where libnftnl does not reach. */
static void warn_legacy(struct hostnet *n)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	if (n->warned_legacy || fs_read("/proc/net/ip_tables_names", 4096, &b, NULL) < 0 || !b.data ||
	    !strstr(b.data, "filter\n"))
		return;
	n->warned_legacy = true;
	log_warn("network: iptables-legacy has a filter table on this host; if its FORWARD chain drops, "
		 "containers are "
		 "cut off until you run: iptables-legacy -A FORWARD -i sh%s-+ -j ACCEPT; iptables-legacy -A "
		 "FORWARD "
		 "-o sh%s-+ -j ACCEPT",
	    n->tag, n->tag);
}

int forward_ensure(struct hostnet *n, struct err *e)
{
	warn_legacy(n);
	struct chain_list l = {.n = 0};
	int r = list_chains(n, &l, e);
	for (size_t i = 0; i < l.n && r == 0; i++) {
		r = ensure_in(n, &l.v[i], e);
		if (r < 0)
			err_wrap(e, "let containers' traffic pass chain %s of table %s", l.v[i].name,
			    l.v[i].table);
	}
	chain_list_done(&l);
	return r;
}

void forward_remove(struct hostnet *n)
{
	struct chain_list l = {.n = 0};
	list_chains(n, &l, NULL);
	for (size_t i = 0; i < l.n; i++) {
		struct rule_scan s;
		if (scan_rules(n, &l.v[i], &s, NULL) < 0)
			continue;
		struct nft_tx t CLEANUP_NFT_TX;
		nft_tx_init(&t, l.v[i].family, l.v[i].table);
		for (size_t k = 0; k < 2; k++)
			if (s.handles[k])
				nft_put_rule_del(&t, l.v[i].name, s.handles[k]);
		struct err e = ERR_INIT;
		if (nft_commit(&n->nf, &t, NULL, &e) < 0)
			log_warn("network: %s", e.text);
	}
	chain_list_done(&l);
}
