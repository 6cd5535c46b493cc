/* Published ports: services' ingress ports and containers' host-mode ports, both kept as fronts (front.c).
 *
 * Happy path: the wanted fronts are computed from the declaration and compared with the present ones; new
 * ports are claimed and all differences go to the kernel in one transaction. What is unchanged is not
 * touched, so that declaring the same again costs nothing and disturbs nothing.
 *
 * Failure: a port that is taken (ERR_CONFLICT) or a transaction that fails leaves everything as it was. */
#include "overlay/hostnet_priv.h"

#include <string.h>
#include <arpa/inet.h>

#include "base/log.h"
#include "base/mem.h"

#define PORTS_MAX    1024
#define BACKENDS_MAX 4096

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

void hostnet_unpublish_others(struct hostnet *n, const char *const *service_ids, size_t count)
{
	struct strmap keep = STRMAP_INIT;
	const char *id;
	void *v;
	for (size_t i = 0; i < count; i++)
		strmap_put(&keep, service_ids[i], n);
	pthread_mutex_lock(&n->lock);
	for (size_t it = 0; strmap_next(&n->services, &it, &id, &v);)
		if (!strmap_has(&keep, id))
			drop_service(n, v);
	pthread_mutex_unlock(&n->lock);
	strmap_done(&keep);
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
	const struct net_front *x = front_rival(n, f);
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
