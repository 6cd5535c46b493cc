/* Fronts: the listening addresses of the host that lead to containers.
 *
 * Happy path: front_claim binds a socket, which keeps the host's own programs off the port; fronts_change
 * puts any number of additions, replacements and removals into one nftables transaction, together with the
 * set of containers that may reach themselves.
 *
 * Failure: a claim or a transaction that fails leaves everything as it was. When the table is missing,
 * because somebody flushed the ruleset, it is built anew with the change in it. */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/mem.h"

struct net_front *front_new(
    bool udp, uint32_t ip, uint16_t port, uint16_t target, const char *owner_kind, const char *owner_id)
{
	struct net_front *f = NEW(struct net_front);
	f->udp = udp;
	f->ip = ip;
	f->port = port;
	f->target = target;
	f->hold = -1;
	char a[16];
	ipam_format(ip, a);
	const char *proto = udp ? "udp" : "tcp";
	if (ip) {
		snprintf(f->key, sizeof(f->key), "%s/%s:%u", proto, a, port);
		snprintf(f->chain, sizeof(f->chain), "%s-%s-%u", proto, a, port);
	} else {
		snprintf(f->key, sizeof(f->key), "%s/%u", proto, port);
		snprintf(f->chain, sizeof(f->chain), "%s-%u", proto, port);
	}
	snprintf(f->owner, sizeof(f->owner), "%s %s", owner_kind, owner_id);
	return f;
}

void front_free(struct net_front *f)
{
	if (!f)
		return;
	if (f->hold >= 0)
		close(f->hold);
	free(f->addrs);
	free(f);
}

void front_add_backend(struct net_front *f, uint32_t addr)
{
	size_t at = 0;
	while (at < f->n && f->addrs[at] < addr)
		at++;
	if (at < f->n && f->addrs[at] == addr)
		return;
	f->addrs = xreallocarray(f->addrs, f->n + 1, sizeof(*f->addrs));
	memmove(f->addrs + at + 1, f->addrs + at, (f->n - at) * sizeof(*f->addrs));
	f->addrs[at] = addr;
	f->n++;
}

bool front_same(const struct net_front *a, const struct net_front *b)
{
	return a->target == b->target && a->n == b->n &&
	       (a->n == 0 || memcmp(a->addrs, b->addrs, a->n * sizeof(*a->addrs)) == 0);
}

/* --- claiming a port --------------------------------------------------------------------------------- */

/* A bound socket that never listens: other programs get "address in use", and outgoing connections of the
 * host do not pick the port. */
static int bind_port(bool udp, uint32_t ip, uint16_t port)
{
	int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int on = 1, off = 0;
	/* TCP: connections of a former listener that linger in TIME_WAIT are no obstacle; a listener still
	 * is. */
	if (!udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	else {
		int small = 1;
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	}
	struct sockaddr_in sa = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip)};
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int errnum = errno;
		close(fd);
		return -errnum;
	}
	if (!udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));
	return fd;
}

const struct net_front *front_rival(struct hostnet *n, const struct net_front *f)
{
	struct net_front *x = strmap_get(&n->fronts, f->key);
	if (x)
		return x;
	void *v;
	/* Only an address can clash with "every address" under another key. */
	if (f->ip) {
		char key[40];
		snprintf(key, sizeof(key), "%s/%u", f->udp ? "udp" : "tcp", f->port);
		return strmap_get(&n->fronts, key);
	}
	for (size_t it = 0; strmap_next(&n->fronts, &it, NULL, &v);) {
		x = v;
		if (x->ip && x->udp == f->udp && x->port == f->port)
			return x;
	}
	return NULL;
}

int front_claim(struct hostnet *n, struct net_front *f, struct err *e)
{
	const char *proto = f->udp ? "udp" : "tcp";
	const struct net_front *x = front_rival(n, f);
	if (x)
		return err_set(
		    e, ERR_CONFLICT, "port %u/%s is already in use by %s", f->port, proto, x->owner);
	int fd = bind_port(f->udp, f->ip, f->port);
	if (fd == -EADDRINUSE)
		return err_set(e, ERR_CONFLICT,
		    "port %u/%s is already in use by another program on this host", f->port, proto);
	if (fd == -EADDRNOTAVAIL) {
		char a[16];
		ipam_format(f->ip, a);
		return err_set(e, ERR_INVALID,
		    "cannot publish on %s:%u: this host does not have that address", a, f->port);
	}
	if (fd < 0)
		return err_errno(e, -fd, "claim port %u/%s", f->port, proto);
	f->hold = fd;
	return 0;
}

/* --- changing fronts --------------------------------------------------------------------------------- */

static void count_hairpins(struct u64map *delta, const struct net_front *f, intptr_t by)
{
	for (size_t i = 0; f && i < f->n; i++) {
		intptr_t d = (intptr_t)u64map_get(delta, f->addrs[i]) + by;
		u64map_put(delta, f->addrs[i], (void *)d);
	}
}

static void put_hairpins(struct hostnet *n, struct nft_tx *t, const struct u64map *delta)
{
	uint64_t addr;
	void *v;
	for (size_t it = 0; u64map_next(delta, &it, &addr, &v);) {
		intptr_t before = (intptr_t)u64map_get(&n->hairpins, addr);
		intptr_t after = before + (intptr_t)v;
		if ((before > 0) != (after > 0))
			fw_put_hairpin(t, (uint32_t)addr, after > 0);
	}
}

static void apply_hairpins(struct hostnet *n, const struct u64map *delta, intptr_t sign)
{
	uint64_t addr;
	void *v;
	for (size_t it = 0; u64map_next(delta, &it, &addr, &v);) {
		intptr_t after = (intptr_t)u64map_get(&n->hairpins, addr) + sign * (intptr_t)v;
		if (after > 0)
			u64map_put(&n->hairpins, addr, (void *)after);
		else
			u64map_remove(&n->hairpins, addr);
	}
}

static void forget_udp_flows(
    struct hostnet *n, const struct net_front *f, const uint32_t *addrs, size_t count)
{
	struct err e = ERR_INIT;
	if (conntrack_flush_udp(n, f->ip, f->port, addrs, count, &e) < 0)
		log_warn("network: UDP clients of port %u may wait for their flow to time out: %s", f->port,
		    e.text);
}

static void swap_front(struct hostnet *n, struct net_front *old, struct net_front *next)
{
	if (old && next) {
		next->hold = old->hold;
		old->hold = -1;
	}
	if (old)
		strmap_remove(&n->fronts, old->key);
	if (next)
		strmap_put(&n->fronts, next->key, next);
}

int fronts_change(struct hostnet *n, struct front_change *c, size_t count, struct err *e)
{
	struct nft_tx t CLEANUP_NFT_TX;
	struct u64map delta = U64MAP_INIT;
	nft_tx_init(&t, NFPROTO_IPV4, n->table);
	/* Removals first: a claim of this change may re-use what another part of it gives up. */
	for (size_t i = 0; i < count; i++) {
		count_hairpins(&delta, c[i].old, -1);
		count_hairpins(&delta, c[i].next, 1);
		if (c[i].old && !c[i].next)
			fw_put_front_del(&t, c[i].old);
	}
	for (size_t i = 0; i < count; i++)
		if (c[i].next)
			fw_put_front(&t, c[i].next, c[i].old != NULL);
	put_hairpins(n, &t, &delta);
	int errnum = 0;
	int r = nft_commit(&n->nf, &t, &errnum, e);
	bool gone = r < 0 && (errnum == ENOENT || !fw_is_intact(n));
	if (r < 0 && !gone)
		goto out;
	for (size_t i = 0; i < count; i++)
		swap_front(n, c[i].old, c[i].next);
	apply_hairpins(n, &delta, 1);
	if (gone) {
		log_warn(
		    "network: nftables table %s is missing or was changed by somebody else; building it anew",
		    n->table);
		r = fw_rebuild(n, e);
		if (r < 0) {
			for (size_t i = 0; i < count; i++)
				swap_front(n, c[i].next, c[i].old);
			apply_hairpins(n, &delta, -1);
			goto out;
		}
	}
	r = 0;
	for (size_t i = 0; i < count; i++) {
		struct net_front *f = c[i].next ? c[i].next : c[i].old;
		ASSERT(f);
		if (f->udp)
			forget_udp_flows(n, f, f->addrs, c[i].next ? f->n : 0);
		front_free(c[i].old);
	}
out:
	u64map_done(&delta);
	return r;
}
