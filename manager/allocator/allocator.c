/* The table of published ports; see allocator.h.
 *
 * One entry for each (protocol, ingress port): the id of the service that holds it. An event of a service
 * replaces all its entries by what its endpoint says now. Automatic ports are handed out next-fit, so that a
 * port that was just given back is not used again at once. */
#include "manager/allocator/allocator.h"

#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"

struct holding { /* of one service */
	char *service_id;
	uint64_t *keys;
	size_t n;
};

struct allocator {
	struct u64map ports;      /* key -> struct holding */
	struct strmap by_service; /* id -> struct holding */
	uint32_t cursor;
};

static bool is_ingress(const Pb__PortConfig *p)
{
	return !p->has_publish_mode || p->publish_mode == PB__PUBLISH_MODE__E__INGRESS;
}

static uint64_t port_key(const Pb__PortConfig *p, uint32_t port)
{
	return ((uint64_t)p->protocol << 32) | port;
}

static void holding_free(void *p)
{
	struct holding *h = p;

	free(h->service_id);
	free(h->keys);
	free(h);
}

static void release(struct allocator *a, const char *service_id)
{
	struct holding *h = strmap_remove(&a->by_service, service_id);

	if (h == NULL)
		return;
	for (size_t i = 0; i < h->n; i++) {
		if (u64map_get(&a->ports, h->keys[i]) == h)
			u64map_remove(&a->ports, h->keys[i]);
	}
	holding_free(h);
}

static void hold(struct allocator *a, const char *service_id, Pb__PortConfig *const *ports, size_t n)
{
	struct holding *h;

	release(a, service_id);
	if (n == 0)
		return;
	h = NEW(struct holding);
	h->service_id = xstrdup(service_id);
	h->keys = xcalloc(n, sizeof(*h->keys));
	for (size_t i = 0; i < n; i++) {
		uint64_t key = port_key(ports[i], ports[i]->published_port);

		if (!is_ingress(ports[i]) || ports[i]->published_port == 0)
			continue;
		/* Who came first keeps it. */
		if (u64map_get(&a->ports, key) == NULL) {
			u64map_put(&a->ports, key, h);
			h->keys[h->n++] = key;
		}
	}
	strmap_put(&a->by_service, service_id, h);
}

void allocator_forget(struct allocator *a, const char *service_id, const Pb__Service *cur)
{
	release(a, service_id);
	if (cur != NULL && cur->endpoint != NULL)
		hold(a, service_id, cur->endpoint->ports, cur->endpoint->n_ports);
}

struct allocator *allocator_new(const struct store *s)
{
	struct allocator *a = NEW(struct allocator);
	const struct object *o;
	struct store_iter it;

	a->cursor = ALLOCATOR_PORT_FIRST;
	for (store_iter_init(&it, s, OBJ(SERVICE), STORE_ALL, NULL); (o = store_iter_next(&it)) != NULL;)
		allocator_forget(a, o->head->id, o->service);
	return a;
}

void allocator_free(struct allocator *a)
{
	if (a == NULL)
		return;
	u64map_done(&a->ports);
	strmap_done_free(&a->by_service, holding_free);
	free(a);
}

void allocator_event(struct allocator *a, const struct store_event *ev)
{
	if (ev->kind != OBJ(SERVICE))
		return;
	allocator_forget(a, ev->cur != NULL ? ev->cur->head->id : ev->old->head->id,
	    ev->cur != NULL ? ev->cur->service : NULL);
}

bool allocator_needs(const Pb__Service *s)
{
	const Pb__EndpointSpec *want = s->spec->endpoint_spec;

	if (want == NULL || want->n_ports == 0)
		return s->endpoint != NULL && s->endpoint->n_ports > 0;
	return s->endpoint == NULL || !msg_equal(s->endpoint->spec, want);
}

/* The automatic port that the service had for the same target, unless used already in `taken`. */
static uint32_t sticky_port(const Pb__Service *s, const Pb__PortConfig *want, bool *taken)
{
	if (s->endpoint == NULL)
		return 0;
	for (size_t i = 0; i < s->endpoint->n_ports; i++) {
		const Pb__PortConfig *p = s->endpoint->ports[i];

		if (taken[i] || !is_ingress(p) || p->protocol != want->protocol ||
		    p->target_port != want->target_port || !str_eq(p->name, want->name) ||
		    p->published_port < ALLOCATOR_PORT_FIRST || p->published_port > ALLOCATOR_PORT_LAST)
			continue;
		taken[i] = true;
		return p->published_port;
	}
	return 0;
}

static const struct holding *holder(const struct allocator *a, const char *service_id, uint64_t key)
{
	const struct holding *h = u64map_get(&a->ports, key);

	return h != NULL && strcmp(h->service_id, service_id) != 0 ? h : NULL;
}

static bool in_use(const struct allocator *a, const Pb__Service *s, const Pb__Endpoint *ep,
    const Pb__PortConfig *p, uint32_t port)
{
	if (holder(a, s->id, port_key(p, port)) != NULL)
		return true;
	for (size_t i = 0; i < ep->n_ports; i++) {
		if (ep->ports[i] != p && is_ingress(ep->ports[i]) && ep->ports[i]->protocol == p->protocol &&
		    ep->ports[i]->published_port == port)
			return true;
	}
	return false;
}

static int assign_one(struct allocator *a, const Pb__Service *s, const Pb__Endpoint *ep, Pb__PortConfig *p,
    bool *taken, struct err *e)
{
	const uint32_t span = ALLOCATOR_PORT_LAST - ALLOCATOR_PORT_FIRST + 1;
	uint32_t port;

	if (!is_ingress(p))
		return 0;
	if (p->published_port != 0) {
		const struct holding *h = holder(a, s->id, port_key(p, p->published_port));

		if (h != NULL)
			return err_set(e, ERR_PRECONDITION,
			    "port '%u' is already in use by service %s as an ingress port", p->published_port,
			    h->service_id);
		return 0;
	}
	port = sticky_port(s, p, taken);
	for (uint32_t i = 0; i < span && (port == 0 || in_use(a, s, ep, p, port)); i++) {
		port = a->cursor;
		a->cursor = port == ALLOCATOR_PORT_LAST ? ALLOCATOR_PORT_FIRST : port + 1;
	}
	if (in_use(a, s, ep, p, port))
		return err_set(
		    e, ERR_PRECONDITION, "no free port in %d-%d", ALLOCATOR_PORT_FIRST, ALLOCATOR_PORT_LAST);
	p->published_port = port;
	p->has_published_port = true;
	return 0;
}

int allocator_assign(struct allocator *a, const Pb__Service *s, Pb__Endpoint **ret_endpoint, struct err *e)
{
	const Pb__EndpointSpec *want = s->spec->endpoint_spec;
	CLEANUP_FREE bool *taken =
	    xcalloc(s->endpoint != NULL ? s->endpoint->n_ports + 1 : 1, sizeof(*taken));
	Pb__Endpoint *ep;
	int rc;

	if (want == NULL || want->n_ports == 0) {
		release(a, s->id);
		*ret_endpoint = NULL;
		return 0;
	}
	ep = xmalloc(sizeof(*ep));
	pb__endpoint__init(ep);
	ep->spec = msg_clone(want);
	ep->ports = xcalloc(want->n_ports, sizeof(*ep->ports));
	for (; ep->n_ports < want->n_ports; ep->n_ports++)
		ep->ports[ep->n_ports] = msg_clone(want->ports[ep->n_ports]);
	for (size_t i = 0; i < ep->n_ports; i++) {
		rc = assign_one(a, s, ep, ep->ports[i], taken, e);
		if (rc < 0) {
			protobuf_c_message_free_unpacked(&ep->base, NULL);
			return rc;
		}
	}
	hold(a, s->id, ep->ports, ep->n_ports);
	*ret_endpoint = ep;
	return 0;
}

/* Whether `p`, published by another service, keeps `want` from being published. */
static bool conflicts(const Pb__PortConfig *want, const Pb__PortConfig *p)
{
	return p->published_port != 0 && p->published_port == want->published_port &&
	       p->protocol == want->protocol && (is_ingress(want) || is_ingress(p));
}

static int check_against(const Pb__EndpointSpec *spec, const Pb__Service *other, Pb__PortConfig *const *ports,
    size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < spec->n_ports; j++) {
			if (conflicts(spec->ports[j], ports[i]))
				return err_set(e, ERR_INVALID,
				    "port '%u' is already in use by service '%s' (%s) as %s",
				    ports[i]->published_port, str_or(other->spec->name, ""), other->id,
				    is_ingress(ports[i]) ? "an ingress port" : "a host-published port");
		}
	}
	return 0;
}

int allocator_check_ports(
    const struct store *s, const char *service_id, const Pb__EndpointSpec *spec, struct err *e)
{
	const struct object *o;
	struct store_iter it;
	int rc;

	if (spec == NULL || spec->n_ports == 0)
		return 0;
	for (store_iter_init(&it, s, OBJ(SERVICE), STORE_ALL, NULL); (o = store_iter_next(&it)) != NULL;) {
		const Pb__Service *other = o->service;

		if (service_id != NULL && strcmp(other->id, service_id) == 0)
			continue;
		if (other->spec->endpoint_spec != NULL) {
			rc = check_against(spec, other, other->spec->endpoint_spec->ports,
			    other->spec->endpoint_spec->n_ports, e);
			if (rc < 0)
				return rc;
		}
		if (other->endpoint != NULL) {
			rc = check_against(spec, other, other->endpoint->ports, other->endpoint->n_ports, e);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}
