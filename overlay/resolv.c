/* resolv.conf of containers, and the relay to a resolver that listens on the host's loopback only.
 *
 * Happy path: the host's name servers are copied. A loopback one (systemd-resolved's stub) means nothing
 * inside a container; systemd-resolved lists its real servers in a second file, which is used instead. Any
 * other local resolver (dnsmasq, unbound) is reached through the gateway address: nftables leads its port 53
 * to the loopback address, and the resolver sees a client on loopback, as it is used to.
 *
 * Failure: a host without resolv.conf is treated as the C library does: a resolver on 127.0.0.1. IPv6 servers
 * are left out, containers have no IPv6 route. */
#include "overlay/hostnet_priv.h"

#include <ctype.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define RESOLV_MAX (64u * 1024)

struct resolv {
	struct strlist servers; /* IPv4, not loopback */
	struct strlist search, options;
	uint32_t loopback; /* the first 127.x server, 0: none */
	bool any;          /* some server was named */
};

static void resolv_done(struct resolv *r)
{
	strlist_done(&r->servers);
	strlist_done(&r->search);
	strlist_done(&r->options);
}

static void add_server(struct resolv *r, const char *text)
{
	struct in_addr in;
	r->any = true;
	if (inet_pton(AF_INET, text, &in) != 1)
		return;
	uint32_t a = ntohl(in.s_addr);
	if (a >> 24 == 127)
		r->loopback = r->loopback ? r->loopback : a;
	else if (a != 0 && !strlist_has(&r->servers, text))
		strlist_add(&r->servers, text);
}

static void parse_line(struct resolv *r, char *line)
{
	line[strcspn(line, "#;")] = 0;
	char *save = NULL;
	char *word = strtok_r(line, " \t\r", &save);
	if (!word)
		return;
	struct strlist *list = NULL;
	if (str_eq(word, "nameserver")) {
		char *server = strtok_r(NULL, " \t\r", &save);
		if (server)
			add_server(r, server);
		return;
	}
	if (str_eq(word, "search") || str_eq(word, "domain")) {
		strlist_done(&r->search); /* the last one counts */
		list = &r->search;
	} else if (str_eq(word, "options"))
		list = &r->options;
	else
		return;
	for (char *w; (w = strtok_r(NULL, " \t\r", &save));)
		strlist_add(list, w);
}

static bool read_resolv(const char *path, struct resolv *r)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	if (fs_read(path, RESOLV_MAX, &b, NULL) < 0)
		return false;
	char *save = NULL;
	for (char *line = b.data ? strtok_r(b.data, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		parse_line(r, line);
	return true;
}

/* The host's configuration as containers may use it. loopback != 0 only when there is nothing else. */
static void host_resolv(struct resolv *r)
{
	read_resolv("/etc/resolv.conf", r);
	if (!r->any)
		r->loopback = 0x7f000001u;
	if (r->servers.n == 0 && r->loopback) {
		struct resolv real = {.any = false};
		if (read_resolv("/run/systemd/resolve/resolv.conf", &real))
			for (size_t i = 0; i < real.servers.n; i++)
				strlist_add(&r->servers, real.servers.v[i]);
		resolv_done(&real);
	}
	if (r->servers.n)
		r->loopback = 0;
}

uint32_t resolv_relay_target(void)
{
	struct resolv r = {.any = false};
	host_resolv(&r);
	uint32_t a = r.loopback;
	resolv_done(&r);
	return a;
}

static void ensure_relay(struct hostnet *n, uint32_t target)
{
	if (n->relay == target)
		return;
	uint32_t old = n->relay;
	struct err e = ERR_INIT;
	struct nft_tx t CLEANUP_NFT_TX;
	nft_tx_init(&t, NFPROTO_IPV4, n->table);
	n->relay = target;
	fw_put_relay(n, &t, true);
	if (nft_commit(&n->nf, &t, NULL, &e) < 0) {
		n->relay = old;
		log_warn("network: containers cannot reach the host's resolver: %s", e.text);
	}
}

static void put_list(struct buf *b, const char *word, const struct strlist *l)
{
	if (!l->n)
		return;
	buf_puts(b, word);
	for (size_t i = 0; i < l->n; i++)
		buf_printf(b, " %s", l->v[i]);
	buf_putc(b, '\n');
}

char *hostnet_resolv_conf(struct hostnet *n, const struct strlist *servers, const struct strlist *search,
    const struct strlist *options)
{
	struct resolv r = {.any = false};
	struct buf b = BUF_INIT;
	host_resolv(&r);
	if (servers && servers->n) {
		for (size_t i = 0; i < servers->n; i++)
			buf_printf(&b, "nameserver %s\n", servers->v[i]);
	} else {
		pthread_mutex_lock(&n->lock);
		ensure_relay(n, r.loopback);
		if (r.loopback) {
			char gw[16];
			ipam_format(ipam_gateway(&n->ipam), gw);
			buf_printf(&b, "nameserver %s\n", gw);
		}
		pthread_mutex_unlock(&n->lock);
		for (size_t i = 0; i < r.servers.n; i++)
			buf_printf(&b, "nameserver %s\n", r.servers.v[i]);
	}
	const struct strlist *s = search && search->n ? search : &r.search;
	/* "." alone asks for no search list at all. */
	if (!(s->n == 1 && str_eq(s->v[0], ".")))
		put_list(&b, "search", s);
	put_list(&b, "options", options && options->n ? options : &r.options);
	resolv_done(&r);
	return buf_take(&b, NULL);
}
