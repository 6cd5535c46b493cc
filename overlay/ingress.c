/* Published ports: services' ingress ports and containers' host-mode ports, both kept as fronts.
 *
 * Happy path: the wanted fronts are computed from the declaration, compared with the present ones, new ports
 * are claimed (a bound socket keeps the host's own programs off them), and all changes go to the kernel in
 * one transaction. What is unchanged is not touched, so that declaring the same again costs nothing and
 * disturbs nothing.
 *
 * Failure: a claim that fails (ERR_CONFLICT) or a transaction that fails leaves everything as it was. When
 * the table is missing, because somebody flushed the ruleset, it is built anew with the change in it. */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/mem.h"

#define PORTS_MAX    1024
#define BACKENDS_MAX 4096

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

static bool front_same(const struct net_front *a, const struct net_front *b)
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

static const struct net_front *rival(struct hostnet *n, const struct net_front *f)
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
	const struct net_front *x = rival(n, f);
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
		if (f->udp)
			forget_udp_flows(n, f, f->addrs, c[i].next ? f->n : 0);
		front_free(c[i].old);
	}
out:
	u64map_done(&delta);
	return r;
}

/* --- services --------------------------------------------------------------------------------------- */

void net_service_free(struct net_service *s)
{
	if (!s)
		return;
	free(s->id);
	free(s->ports);
	strlist_done(&s->backends);
	free(s);
}

static struct net_front *service_front(
    struct hostnet *n, const struct net_service *s, const struct hostnet_ingress_port *p)
{
	struct net_front *f = front_new(p->udp, 0, p->published, p->target, "service", s->id);
	for (size_t i = 0; i < s->backends.n; i++) {
		const struct net_container *c = strmap_get(&n->containers, s->backends.v[i]);
		if (c)
			front_add_backend(f, c->addr);
	}
	return f;
}

static struct net_front *present_front(struct hostnet *n, const struct net_front *f)
{
	struct net_front *x = strmap_get(&n->fronts, f->key);
	return x && str_eq(x->owner, f->owner) ? x : NULL;
}

/* Makes the kernel agree with `s`, which replaces `old` (NULL: a new service). s NULL: the service goes. */
static int change_service(
    struct hostnet *n, const struct net_service *old, const struct net_service *s, struct err *e)
{
	size_t cap = (old ? old->n_ports : 0) + (s ? s->n_ports : 0), count = 0;
	struct front_change *c = xcalloc(cap + 1, sizeof(*c));
	int r = 0;
	for (size_t i = 0; s && i < s->n_ports && r == 0; i++) {
		struct net_front *f = service_front(n, s, &s->ports[i]);
		struct net_front *was = present_front(n, f);
		if (was && front_same(was, f)) {
			front_free(f);
			continue;
		}
		if (!was)
			r = front_claim(n, f, e);
		c[count++] = (struct front_change){was, f};
	}
	for (size_t i = 0; old && i < old->n_ports; i++) {
		bool stays = false;
		for (size_t k = 0; s && k < s->n_ports; k++)
			stays = stays || (s->ports[k].published == old->ports[i].published &&
					     s->ports[k].udp == old->ports[i].udp);
		if (stays)
			continue;
		struct net_front *f = service_front(n, old, &old->ports[i]);
		struct net_front *was = present_front(n, f);
		front_free(f);
		if (was)
			c[count++] = (struct front_change){was, NULL};
	}
	if (r == 0)
		r = fronts_change(n, c, count, e);
	if (r < 0)
		for (size_t i = 0; i < count; i++)
			front_free(c[i].next);
	free(c);
	return r;
}

static int check_publish(const char *id, const struct hostnet_ingress_port *ports, size_t n_ports,
    size_t n_backends, struct err *e)
{
	int r = state_check_id("service", id, e);
	if (r < 0)
		return r;
	if (n_ports > PORTS_MAX || n_backends > BACKENDS_MAX)
		return err_set(e, ERR_TOO_LARGE, "service %s: at most %d ports and %d backends on a node", id,
		    PORTS_MAX, BACKENDS_MAX);
	for (size_t i = 0; i < n_ports; i++) {
		if (!ports[i].published || !ports[i].target)
			return err_set(e, ERR_INVALID, "service %s: port 0 cannot be published", id);
		for (size_t k = 0; k < i; k++)
			if (ports[k].published == ports[i].published && ports[k].udp == ports[i].udp)
				return err_set(e, ERR_INVALID, "service %s publishes port %u/%s twice", id,
				    ports[i].published, ports[i].udp ? "udp" : "tcp");
	}
	return 0;
}

int hostnet_publish(struct hostnet *n, const char *service_id, const struct hostnet_ingress_port *ports,
    size_t n_ports, const struct hostnet_backend *backends, size_t n_backends, struct err *e)
{
	int r = check_publish(service_id, ports, n_ports, n_backends, e);
	if (r < 0)
		return r;
	struct net_service *s = NEW(struct net_service);
	s->id = xstrdup(service_id);
	s->fresh = true;
	s->ports = n_ports ? xmemdup(ports, n_ports * sizeof(*ports)) : NULL;
	s->n_ports = n_ports;
	pthread_mutex_lock(&n->lock);
	for (size_t i = 0; i < n_backends; i++) {
		/* A container that went away meanwhile cannot be balanced to; its detach told the caller. */
		if (strmap_has(&n->containers, backends[i].container_id))
			strlist_add(&s->backends, backends[i].container_id);
		else
			log_debug("network: service %s: backend %s has no endpoint here", service_id,
			    backends[i].container_id);
	}
	struct net_service *old = strmap_get(&n->services, service_id);
	r = change_service(n, old, s, e);
	if (r == 0) {
		strmap_put(&n->services, s->id, s);
		net_service_free(old);
		struct err se = ERR_INIT;
		if (state_save_service(n, s, &se) < 0)
			log_warn(
			    "network: service %s: a restart of the daemon will not remember its ports: %s",
			    s->id, se.text);
	} else
		net_service_free(s);
	pthread_mutex_unlock(&n->lock);
	return r;
}

static void drop_service(struct hostnet *n, struct net_service *s)
{
	struct err e = ERR_INIT;
	if (change_service(n, s, NULL, &e) < 0)
		log_warn("network: remove the ports of service %s: %s", s->id, e.text);
	strmap_remove(&n->services, s->id);
	state_drop_service(n, s->id);
	net_service_free(s);
}

void hostnet_unpublish(struct hostnet *n, const char *service_id)
{
	pthread_mutex_lock(&n->lock);
	struct net_service *s = strmap_get(&n->services, service_id);
	if (s)
		drop_service(n, s);
	pthread_mutex_unlock(&n->lock);
}

void ingress_drop_stale(struct hostnet *n)
{
	void *v;
	for (size_t it = 0; strmap_next(&n->services, &it, NULL, &v);) {
		struct net_service *s = v;
		bool live = s->fresh;
		for (size_t i = 0; i < s->backends.n && !live; i++)
			live = strmap_has(&n->containers, s->backends.v[i]);
		if (!live)
			drop_service(n, s);
	}
}

/* --- containers ------------------------------------------------------------------------------------- */

static struct net_front *container_front(const struct net_container *c, const struct hostnet_port *p)
{
	struct in_addr in = {0};
	if (p->host_ip)
		inet_pton(AF_INET, p->host_ip, &in);
	struct net_front *f =
	    front_new(p->udp, ntohl(in.s_addr), p->host_port, p->container_port, "container", c->id);
	front_add_backend(f, c->addr);
	return f;
}

static int claim_any_port(struct hostnet *n, const struct net_container *c, struct hostnet_port *p,
    struct net_front **ret, struct err *e)
{
	const uint16_t first = 32768, last = 60999;
	for (uint32_t tried = 0; tried <= (uint32_t)(last - first); tried++) {
		if (n->next_host_port < first || n->next_host_port > last)
			n->next_host_port = first;
		p->host_port = n->next_host_port++;
		struct net_front *f = container_front(c, p);
		if (front_claim(n, f, NULL) == 0) {
			*ret = f;
			return 0;
		}
		front_free(f);
	}
	p->host_port = 0;
	return err_set(e, ERR_CONFLICT, "no free host port between %u and %u is left", first, last);
}

/* Within one request the fronts are not in the map yet, so doubles are seen here. */
static int check_double(struct front_change *c, size_t count, const struct net_front *f, struct err *e)
{
	for (size_t i = 0; i < count; i++) {
		const struct net_front *x = c[i].next;
		if (x->udp == f->udp && x->port == f->port && (x->ip == f->ip || !x->ip || !f->ip))
			return err_set(
			    e, ERR_INVALID, "port %u/%s is published twice", f->port, f->udp ? "udp" : "tcp");
	}
	return 0;
}

int ingress_set_ports(
    struct hostnet *n, struct net_container *c, struct hostnet_port *ports, size_t n_ports, struct err *e)
{
	if (n_ports == 0)
		return 0;
	if (n_ports > PORTS_MAX)
		return err_set(e, ERR_TOO_LARGE, "at most %d published ports a container", PORTS_MAX);
	struct front_change *ch = xcalloc(n_ports, sizeof(*ch));
	size_t count = 0;
	int r = 0;
	c->ports = xcalloc(n_ports, sizeof(*c->ports));
	for (size_t i = 0; i < n_ports && r == 0; i++) {
		struct hostnet_port *p = &c->ports[c->n_ports];
		*p = ports[i];
		struct in_addr in = {0};
		p->host_ip = NULL;
		if (!p->container_port)
			r = err_set(e, ERR_INVALID, "container port 0 cannot be published");
		else if (ports[i].host_ip && inet_pton(AF_INET, ports[i].host_ip, &in) != 1)
			r = err_set(e, ERR_INVALID, "cannot publish on \"%.64s\": not an IPv4 address",
			    ports[i].host_ip);
		if (r < 0)
			break;
		if (in.s_addr)
			p->host_ip = xstrdup(ports[i].host_ip);
		c->n_ports++;
		struct net_front *f = NULL;
		if (p->host_port) {
			f = container_front(c, p);
			r = check_double(ch, count, f, e);
			if (r == 0)
				r = front_claim(n, f, e);
		} else
			r = claim_any_port(n, c, p, &f, e);
		if (f)
			ch[count++].next = f;
	}
	if (r == 0)
		r = fronts_change(n, ch, count, e);
	if (r == 0) {
		for (size_t i = 0; i < n_ports; i++)
			ports[i].host_port = c->ports[i].host_port;
	} else
		for (size_t i = 0; i < count; i++)
			front_free(ch[i].next);
	free(ch);
	return r;
}

void ingress_forget_container(struct hostnet *n, struct net_container *c)
{
	char owner[160];
	snprintf(owner, sizeof(owner), "container %s", c->id);
	struct front_change *ch = NULL;
	size_t count = 0;
	void *v;
	for (size_t it = 0; strmap_next(&n->fronts, &it, NULL, &v);) {
		struct net_front *f = v;
		bool own = str_eq(f->owner, owner), backend = false;
		for (size_t i = 0; i < f->n && !backend; i++)
			backend = f->addrs[i] == c->addr;
		if (!own && !backend)
			continue;
		struct net_front *next = NULL;
		if (!own) {
			const char *space = strchr(f->owner, ' ');
			next = front_new(f->udp, f->ip, f->port, f->target, "service", space + 1);
			for (size_t i = 0; i < f->n; i++)
				if (f->addrs[i] != c->addr)
					front_add_backend(next, f->addrs[i]);
		}
		ch = xreallocarray(ch, count + 1, sizeof(*ch));
		ch[count++] = (struct front_change){f, next};
	}
	struct err e = ERR_INIT;
	if (count && fronts_change(n, ch, count, &e) < 0) {
		log_warn("network: take container %s out of published ports: %s", c->id, e.text);
		for (size_t i = 0; i < count; i++)
			front_free(ch[i].next);
	}
	free(ch);
}

static void restore_front(struct hostnet *n, struct net_front *f)
{
	const struct net_front *x = rival(n, f);
	if (x) {
		log_warn("network: port %u/%s of %s is used by %s", f->port, f->udp ? "udp" : "tcp", f->owner,
		    x->owner);
		front_free(f);
		return;
	}
	/* A program that took the port while the daemon was down keeps its socket; traffic goes on to the
	 * containers. */
	struct err e = ERR_INIT;
	if (front_claim(n, f, &e) < 0)
		log_warn("network: %s: %s", f->owner, e.text);
	strmap_put(&n->fronts, f->key, f);
	for (size_t i = 0; i < f->n; i++) {
		intptr_t k = (intptr_t)u64map_get(&n->hairpins, f->addrs[i]);
		u64map_put(&n->hairpins, f->addrs[i], (void *)(k + 1));
	}
}

void ingress_restore(struct hostnet *n)
{
	void *v;
	for (size_t it = 0; strmap_next(&n->containers, &it, NULL, &v);) {
		const struct net_container *c = v;
		for (size_t i = 0; i < c->n_ports; i++)
			restore_front(n, container_front(c, &c->ports[i]));
	}
	for (size_t it = 0; strmap_next(&n->services, &it, NULL, &v);) {
		const struct net_service *s = v;
		for (size_t i = 0; i < s->n_ports; i++)
			restore_front(n, service_front(n, s, &s->ports[i]));
	}
}
