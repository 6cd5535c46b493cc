/* Transactions on nf_tables: tables, chains, sets, maps and rules of one IPv4 table, built with libnftnl and
 * committed all or nothing. Registers follow what nft(8) itself emits, so that `nft list` shows readable
 * rules. */
#ifndef OVERLAY_NFT_H
#define OVERLAY_NFT_H

#include <stdbool.h>
#include <stdint.h>
#include <netinet/in.h> /* before linux/netfilter.h, which has its own copy of in.h */
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "overlay/nl.h"

struct nftnl_rule;
struct nft_tx {
	struct nl_batch b;
	const char *table; /* borrowed */
	uint16_t family;   /* NFPROTO_IPV4, NFPROTO_INET */
	uint32_t last_set_id;
};
#define CLEANUP_NFT_TX __attribute__((cleanup(nft_tx_done)))
/* An empty transaction on a table of the family. */
void nft_tx_init(struct nft_tx *t, uint16_t family, const char *table);
void nft_tx_done(struct nft_tx *t);
/* Commits; an empty transaction is success. ret_errno as in nl_send. */
int nft_commit(struct nl *s, struct nft_tx *t, int *ret_errno, struct err *e);

void nft_put_table(struct nft_tx *t); /* makes it if it is missing */
void nft_put_table_del(struct nft_tx *t);
void nft_put_chain(struct nft_tx *t, const char *name);
void nft_put_base_chain(struct nft_tx *t, const char *name, const char *type, uint32_t hook, int32_t prio);
void nft_put_chain_flush(struct nft_tx *t, const char *name);
void nft_put_chain_del(struct nft_tx *t, const char *name); /* rules must be flushed before */

/* Key and data types as nft(8) numbers them, so that it can print elements. */
enum nft_type {
	NFT_TYPE_IPV4 = 7,
	NFT_TYPE_PORT = 13,
	NFT_TYPE_IPV4_PORT = 7 << 6 | 13,
	NFT_TYPE_IPV4_IPV4 = 7 << 6 | 7
};
void nft_put_set(struct nft_tx *t, const char *name, enum nft_type key);
void nft_put_vmap(struct nft_tx *t, const char *name, enum nft_type key); /* to verdicts */
struct nft_key {
	uint8_t bytes[8];
	uint32_t len;
};
struct nft_key nft_key_port(uint16_t port);
struct nft_key nft_key_ipv4_port(uint32_t addr, uint16_t port);
struct nft_key nft_key_ipv4_ipv4(uint32_t a, uint32_t b);
void nft_put_elem(struct nft_tx *t, const char *set, struct nft_key key);
void nft_put_elem_goto(struct nft_tx *t, const char *map, struct nft_key key, const char *chain);
void nft_put_elem_del(struct nft_tx *t, const char *set, struct nft_key key);

/* One rule: begin, expressions in order, end (appends to the chain, or goes before the rule with the handle
 * `before`). */
struct nft_rule {
	struct nft_tx *t;
	struct nftnl_rule *r;
	uint64_t before;
};
void nft_rule_begin(struct nft_rule *r, struct nft_tx *t, const char *chain, const char *comment);
void nft_rule_end(struct nft_rule *r);
void nft_put_rule_del(struct nft_tx *t, const char *chain, uint64_t handle);

/* A name that ends in '*' stands for all that begin with it. */
void nft_x_iifname(struct nft_rule *r, const char *name, bool equal);
void nft_x_oifname(struct nft_rule *r, const char *name, bool equal);
void nft_x_l4proto(struct nft_rule *r, uint8_t proto);
void nft_x_saddr(struct nft_rule *r, uint32_t net, int prefix, bool equal);
void nft_x_daddr(struct nft_rule *r, uint32_t net, int prefix, bool equal);
void nft_x_dport(struct nft_rule *r, uint16_t port);
void nft_x_icmp_type(struct nft_rule *r, uint8_t type);
void nft_x_daddr_is_local(struct nft_rule *r); /* fib daddr type local */
void nft_x_ct_state(struct nft_rule *r, uint32_t mask);
void nft_x_ct_status(struct nft_rule *r, uint32_t mask);
void nft_x_dport_vmap(struct nft_rule *r, const char *map);
void nft_x_daddr_dport_vmap(struct nft_rule *r, const char *map);
void nft_x_saddr_daddr_in(struct nft_rule *r, const char *set);
/* dnat to one of the addresses in turn, and to the port. Uses an anonymous map, which goes with the rule. */
void nft_x_dnat_spread(struct nft_rule *r, const uint32_t *addrs, uint32_t n, uint16_t port);
void nft_x_dnat(struct nft_rule *r, uint32_t addr);
void nft_x_snat(struct nft_rule *r, uint32_t addr);
void nft_x_masquerade(struct nft_rule *r);
void nft_x_counter(struct nft_rule *r);
void nft_x_reject(struct nft_rule *r, bool tcp_reset);                  /* else ICMP port unreachable */
void nft_x_verdict(struct nft_rule *r, int verdict, const char *chain); /* NF_ACCEPT, NF_DROP, NFT_JUMP ... */

#endif
