/* Published ports of services: the manager's table, narrowed to the tasks that serve here, given to the
 * network.
 *
 * A full assignment first unpublishes all that it does not name, also what an earlier run of this daemon left
 * in the kernel: a service that was removed while nobody ran here would else keep its port. The ports of the
 * others go on leading where they led until the tasks have found their containers.
 *
 * A port that another program has is refused by the network; the service's tasks here say so, and it is tried
 * again every few seconds, and whenever its backends change. Within one assignment ports may move from one
 * service to another: those that were refused are tried once more when all have been set. */
#include "agent/agent_private.h"

#include "base/log.h"
#include "base/mem.h"
#include "overlay/hostnet.h"
#include "proto/pb.h"

#define RETRY_MS 3000

static int publish(struct agent *a, const Pb__PublishedService *p, struct err *e)
{
	struct hostnet_ingress_port *ports = xcalloc(p->n_ports ? p->n_ports : 1, sizeof(*ports));
	struct hostnet_backend *backends = xcalloc(p->n_backends ? p->n_backends : 1, sizeof(*backends));
	size_t n_ports = 0, n_backends = 0;
	for (size_t i = 0; i < p->n_ports; i++) {
		const Pb__PortConfig *c = p->ports[i];
		ports[n_ports++] = (struct hostnet_ingress_port){
		    .published = (uint16_t)c->published_port,
		    .target = (uint16_t)c->target_port,
		    .udp = c->has_protocol && c->protocol == PB__PORT_PROTOCOL__E__UDP,
		};
	}
	for (size_t i = 0; i < p->n_backends; i++) {
		const struct task *t = strmap_get(&a->tasks, p->backends[i]->task_id);
		if (t && t->container_id && task_is_serving(t))
			backends[n_backends++] = (struct hostnet_backend){.container_id = t->container_id};
	}
	int r = hostnet_publish(a->net, p->service_id, ports, n_ports, backends, n_backends, e);
	free(ports);
	free(backends);
	return r;
}

/* The service's tasks here show why nobody reaches them by the port. */
static void warn_tasks(struct agent *a, const char *service_id, const char *err)
{
	void *v;
	for (size_t it = 0; strmap_next(&a->tasks, &it, NULL, &v);) {
		struct task *t = v;
		if (str_eq(t->assigned->service_id, service_id))
			task_warn(t, err);
	}
}

/* Logs when the reason is a new one. */
static void publish_and_note(struct agent *a, const Pb__PublishedService *p)
{
	struct err e = ERR_INIT;
	char *before = strmap_remove(&a->refused, p->service_id);
	if (publish(a, p, &e) == 0) {
		if (before) {
			log_info("service %s: its ports are published now", p->service_id);
			warn_tasks(a, p->service_id, NULL);
		}
		free(before);
		return;
	}
	if (!before || !str_eq(before, e.text))
		log_error("service %s: its ports could not be published: %s", p->service_id, e.text);
	warn_tasks(a, p->service_id, e.text);
	free(before);
	strmap_put(&a->refused, p->service_id, xstrdup(e.text));
	if (!timer_armed(a->publish_retry))
		timer_start(a->publish_retry, RETRY_MS);
}

static void retry_refused(struct agent *a)
{
	struct strlist ids = STRLIST_INIT;
	const char *id;
	for (size_t it = 0; strmap_next(&a->refused, &it, &id, NULL);)
		strlist_add(&ids, id);
	for (size_t i = 0; i < ids.n; i++) {
		const Pb__PublishedService *p = strmap_get(&a->published, ids.v[i]);
		if (p)
			publish_and_note(a, p);
	}
	strlist_done(&ids);
}

static void on_retry(void *data)
{
	struct agent *a = data;
	if (!a->closing)
		retry_refused(a);
}

void publish_init(struct agent *a)
{
	a->publish_retry = timer_new(a->loop, on_retry, a);
}

static void forget(struct agent *a, const char *service_id)
{
	free(strmap_remove(&a->refused, service_id));
	pb_free(strmap_remove(&a->published, service_id)); /* last: the id may be its key */
}

static void drop_unnamed(struct agent *a, const Pb__Assignments *as)
{
	const char **ids = xcalloc(as->n_published + 1, sizeof(*ids));
	struct strmap named = STRMAP_INIT;
	const char *id;
	for (size_t i = 0; i < as->n_published; i++) {
		ids[i] = as->published[i]->service_id;
		strmap_put(&named, ids[i], a);
	}
	hostnet_unpublish_others(a->net, ids, as->n_published);
	for (size_t it = 0; strmap_next(&a->published, &it, &id, NULL);)
		if (!strmap_has(&named, id))
			forget(a, id);
	strmap_done(&named);
	free(ids);
}

void publish_take(struct agent *a, const Pb__Assignments *as)
{
	if (as->full)
		drop_unnamed(a, as);
	for (size_t i = 0; i < as->n_removed_published; i++) {
		hostnet_unpublish(a->net, as->removed_published[i]);
		forget(a, as->removed_published[i]);
	}
	for (size_t i = 0; i < as->n_published; i++) {
		const Pb__PublishedService *p = as->published[i];
		pb_free(strmap_put(&a->published, p->service_id, pb_clone(p)));
	}
	if (as->full)
		return;
	for (size_t i = 0; i < as->n_published; i++)
		publish_and_note(a, as->published[i]);
	retry_refused(a);
}

void publish_all(struct agent *a)
{
	void *p;
	for (size_t it = 0; strmap_next(&a->published, &it, NULL, &p);)
		publish_and_note(a, p);
	retry_refused(a);
}

void publish_of(struct agent *a, const struct task *t)
{
	const Pb__PublishedService *p =
	    t->assigned->service_id ? strmap_get(&a->published, t->assigned->service_id) : NULL;
	if (p)
		publish_and_note(a, p);
}

void publish_none(struct agent *a)
{
	hostnet_unpublish_others(a->net, NULL, 0);
	strmap_done_free(&a->published, pb_free);
	strmap_done_free(&a->refused, free);
	a->published = (struct strmap)STRMAP_INIT;
	a->refused = (struct strmap)STRMAP_INIT;
	timer_stop(a->publish_retry);
}

void publish_done(struct agent *a)
{
	timer_free(a->publish_retry);
	strmap_done_free(&a->published, pb_free);
	strmap_done_free(&a->refused, free);
}
