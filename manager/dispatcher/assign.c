/* What goes to agents: tasks of their node, the templates, secrets and configs that those need (each once a
 * session), and the table of published ports.
 *
 * The store's watch only marks: a task for its node's session, a service for the table. The flush, at most
 * one a turn of the loop, looks at what is marked and sends each session one message. So the cost follows the
 * changes, and however often something changed in a turn, the agent sees where it ended up. Status reports of
 * agents mark nothing: what an agent knows is not sent to it again. An agent that does not keep up gets
 * nothing more until its stream has drained; what changes meanwhile stays marked. */
#include "manager/dispatcher/internal.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/pb.h"

/* Assignment lists are borrowed from the store while they are packed. */
struct out {
	Pb__Assignments m;
	Pb__AssignedTask *tasks;
	size_t cap;
};

static bool is_assigned(const Pb__Task *t)
{
	return !str_empty(t->node_id) && t->status->state >= PB__TASK_STATE__E__ASSIGNED;
}

static bool is_serving(const Pb__Task *t)
{
	return t->status->state == PB__TASK_STATE__E__RUNNING &&
	       t->desired_state <= PB__TASK_STATE__E__RUNNING &&
	       !(t->status->has_healthy && !t->status->healthy);
}

static bool publishes(const Pb__Service *s)
{
	if (!s->endpoint)
		return false;
	for (size_t i = 0; i < s->endpoint->n_ports; i++)
		if (!s->endpoint->ports[i]->has_publish_mode ||
		    s->endpoint->ports[i]->publish_mode == PB__PUBLISH_MODE__E__INGRESS)
			return true;
	return false;
}

void assign_mark(struct session *s)
{
	struct dispatcher *d = s->d;
	if (!s->on_dirty) {
		s->on_dirty = true;
		s->next_dirty = d->dirty;
		if (s->next_dirty)
			s->next_dirty->prev_dirty = s;
		d->dirty = s;
	}
	dispatcher_flush_soon(d);
}

static void unmark(struct session *s)
{
	if (!s->on_dirty)
		return;
	if (s->prev_dirty)
		s->prev_dirty->next_dirty = s->next_dirty;
	else
		s->d->dirty = s->next_dirty;
	if (s->next_dirty)
		s->next_dirty->prev_dirty = s->prev_dirty;
	s->prev_dirty = s->next_dirty = NULL;
	s->on_dirty = false;
}

static void mark_task(struct dispatcher *d, const Pb__Task *t)
{
	const struct member *m = str_empty(t->node_id) ? NULL : strmap_get(&d->members, t->node_id);
	if (!m || !m->session)
		return;
	strmap_put(&m->session->dirty, t->id, d);
	assign_mark(m->session);
}

static void mark_service(struct dispatcher *d, const char *service_id)
{
	strmap_put(&d->services, service_id, d);
	dispatcher_flush_soon(d);
}

static bool same_for_agent(const Pb__Task *a, const Pb__Task *b)
{
	return a->desired_state == b->desired_state && is_assigned(a) == is_assigned(b) &&
	       str_eq(a->node_id, b->node_id) && str_eq(a->template_id, b->template_id);
}

void assign_event(struct dispatcher *d, const struct store_event *ev)
{
	if (ev->kind == OBJ(SERVICE)) {
		const Pb__Service *was = ev->old ? ev->old->service : NULL,
				  *is = ev->cur ? ev->cur->service : NULL;
		if ((was && publishes(was)) || (is && publishes(is)))
			if (!was || !is || !msg_equal(was->endpoint, is->endpoint))
				mark_service(d, was ? was->id : is->id);
		return;
	}
	if (ev->kind != OBJ(TASK))
		return;
	const Pb__Task *was = ev->old ? ev->old->task : NULL, *is = ev->cur ? ev->cur->task : NULL;
	if (was && is ? !same_for_agent(was, is) : true) {
		if (was && (!is || !str_eq(was->node_id, is->node_id)))
			mark_task(d, was);
		if (is)
			mark_task(d, is);
	}
	const char *service_id = is ? is->service_id : was ? was->service_id : NULL;
	if (!str_empty(service_id) && (was && is_serving(was)) != (is && is_serving(is))) {
		const struct object *s = store_get(d->o.store, OBJ(SERVICE), service_id);
		if (s && publishes(s->service))
			mark_service(d, service_id);
	}
}

/* --- one session's message */

/* One of the message's three kinds of shared objects: where they are listed, and where the session remembers.
 */
struct shared {
	obj_kind kind;
	struct strmap *sent;
	void *added; /* array of messages, borrowed from the store */
	size_t *n_added;
	char ***removed;
	size_t *n_removed;
};

static struct shared shared_of(struct session *s, struct out *o, obj_kind kind)
{
	Pb__Assignments *m = &o->m;
	switch (kind) {
	case OBJ(SECRET):
		return (struct shared){kind, &s->secrets, &m->secrets, &m->n_secrets, &m->removed_secrets,
		    &m->n_removed_secrets};
	case OBJ(CONFIG):
		return (struct shared){kind, &s->configs, &m->configs, &m->n_configs, &m->removed_configs,
		    &m->n_removed_configs};
	default:
		return (struct shared){kind, &s->templates, &m->templates, &m->n_templates,
		    &m->removed_templates, &m->n_removed_templates};
	}
}

static void used_free(void *data)
{
	struct used *u = data;
	strlist_done(&u->secrets);
	strlist_done(&u->configs);
	free(u);
}

static void forget(struct session *s, struct out *o, obj_kind kind, struct used *u)
{
	struct shared sh = shared_of(s, o, kind);
	if (--u->users)
		return;
	for (size_t i = 0; i < u->secrets.n; i++)
		forget(s, o, OBJ(SECRET), strmap_get(&s->secrets, u->secrets.v[i]));
	for (size_t i = 0; i < u->configs.n; i++)
		forget(s, o, OBJ(CONFIG), strmap_get(&s->configs, u->configs.v[i]));
	pb_add_str(sh.removed, sh.n_removed, u->id);
	strmap_remove(sh.sent, u->id);
	used_free(u);
}

static struct used *use(struct session *s, struct out *o, const struct object *obj)
{
	struct shared sh = shared_of(s, o, obj->kind);
	const char *id = obj->head->id;
	struct used *u = strmap_get(sh.sent, id);
	if (u) {
		u->users++;
		return u;
	}
	size_t n = strlen(id) + 1;
	u = xcalloc(1, sizeof(*u) + n);
	memcpy(u->id, id, n);
	u->users = 1;
	strmap_put(sh.sent, id, u);
	pb_add_msg(sh.added, sh.n_added, obj->msg);
	/* Removed and used again within one message: the agent takes removals last. */
	for (size_t i = 0; i < *sh.n_removed; i++) {
		if (strcmp((*sh.removed)[i], id) == 0) {
			free((*sh.removed)[i]);
			(*sh.removed)[i] = (*sh.removed)[--*sh.n_removed];
		}
	}
	return u;
}

/* With the template go the secrets and configs that it names, and no others. */
static struct used *use_template(struct session *s, struct out *o, const struct object *tmpl)
{
	const struct store *st = s->d->o.store;
	const Pb__ContainerSpec *c = tmpl->tmpl->spec->container_spec;
	struct used *u = use(s, o, tmpl);
	const struct object *obj;
	if (u->users > 1 || !c)
		return u;
	for (size_t i = 0; i < c->n_secrets; i++) {
		obj = c->secrets[i]->secret_id ? store_get(st, OBJ(SECRET), c->secrets[i]->secret_id) : NULL;
		if (obj) {
			use(s, o, obj);
			strlist_add(&u->secrets, obj->head->id);
		}
	}
	for (size_t i = 0; i < c->n_configs; i++) {
		obj = c->configs[i]->config_id ? store_get(st, OBJ(CONFIG), c->configs[i]->config_id) : NULL;
		if (obj) {
			use(s, o, obj);
			strlist_add(&u->configs, obj->head->id);
		}
	}
	return u;
}

static void put_task(struct session *s, struct out *o, const Pb__Task *t)
{
	const struct object *tmpl = store_get(s->d->o.store, OBJ(TEMPLATE), t->template_id);
	if (!tmpl)
		return; /* the brain deletes templates last: such a task is about to go */
	struct used *known = strmap_get(&s->tasks, t->id);
	if (!known || strcmp(known->id, t->template_id) != 0) {
		strmap_put(&s->tasks, t->id, use_template(s, o, tmpl));
		if (known)
			forget(s, o, OBJ(TEMPLATE), known);
	}
	if (o->m.n_tasks == o->cap) {
		o->cap = o->cap ? o->cap * 2 : 16;
		o->tasks = xreallocarray(o->tasks, o->cap, sizeof(*o->tasks));
	}
	Pb__AssignedTask *a = &o->tasks[o->m.n_tasks++];
	pb__assigned_task__init(a);
	a->id = t->id;
	a->template_id = t->template_id;
	a->service_id = t->service_id;
	a->service_name = t->service_name;
	a->has_slot = t->has_slot;
	a->slot = t->slot;
	a->desired_state = t->desired_state;
	a->observed_state = t->status->state;
	a->networks = t->networks_attachments;
	a->n_networks = t->n_networks_attachments;
	a->generic_resources = t->generic_resources;
	a->n_generic_resources = t->n_generic_resources;
	a->host_ports = t->host_ports;
	a->n_host_ports = t->n_host_ports;
}

static void put_gone(struct session *s, struct out *o, const char *task_id)
{
	struct used *known = strmap_remove(&s->tasks, task_id);
	if (!known)
		return;
	pb_add_str(&o->m.removed_tasks, &o->m.n_removed_tasks, task_id);
	forget(s, o, OBJ(TEMPLATE), known);
}

static Pb__PublishedService *published_of(const struct dispatcher *d, const Pb__Service *s)
{
	Pb__PublishedService *p = PB_NEW(Pb__PublishedService, pb__published_service);
	p->service_id = xstrdup(s->id);
	p->name = xstrdup(str_or(s->spec->name, s->id));
	for (size_t i = 0; i < s->endpoint->n_ports; i++) {
		const Pb__PortConfig *c = s->endpoint->ports[i];
		if (!c->has_publish_mode || c->publish_mode == PB__PUBLISH_MODE__E__INGRESS)
			pb_add_msg(&p->ports, &p->n_ports, pb_clone(c));
	}
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, d->o.store, OBJ(TASK), STORE_TASK_BY_SERVICE, s->id);
	while ((o = store_iter_next(&it))) {
		const Pb__Task *t = o->task;
		if (!is_serving(t) || str_empty(t->node_id))
			continue;
		Pb__EndpointBackend *b = PB_NEW(Pb__EndpointBackend, pb__endpoint_backend);
		b->task_id = xstrdup(t->id);
		b->node_id = xstrdup(t->node_id);
		for (size_t i = 0; i < t->n_networks_attachments; i++)
			for (size_t k = 0; k < t->networks_attachments[i]->n_addresses; k++)
				pb_add_str(
				    &b->addresses, &b->n_addresses, t->networks_attachments[i]->addresses[k]);
		pb_add_msg(&p->backends, &p->n_backends, b);
	}
	return p;
}

static void free_strings(char **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i]);
	free(v);
}

static void send_out(struct session *s, struct out *o)
{
	Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
	Pb__AssignedTask **ptrs = xcalloc(o->m.n_tasks ? o->m.n_tasks : 1, sizeof(Pb__AssignedTask *));
	for (size_t i = 0; i < o->m.n_tasks; i++)
		ptrs[i] = &o->tasks[i];
	o->m.tasks = ptrs;
	o->m.sequence = ++s->sequence;
	o->m.full = s->full;
	m.assignments = &o->m;
	s->blocked = rpc_stream_send(s->stream, &m) > SESSION_OUT_HIGH;
	s->full = false;
	free(ptrs);
}

static void out_done(struct out *o)
{
	free(o->tasks);
	free(o->m.templates); /* the lists; what they name is the store's */
	free(o->m.secrets);
	free(o->m.configs);
	free_strings(o->m.removed_tasks, o->m.n_removed_tasks);
	free_strings(o->m.removed_templates, o->m.n_removed_templates);
	free_strings(o->m.removed_secrets, o->m.n_removed_secrets);
	free_strings(o->m.removed_configs, o->m.n_removed_configs);
}

static void forget_sent(struct session *s)
{
	strmap_done(&s->tasks);
	strmap_done_free(&s->templates, used_free);
	strmap_done_free(&s->secrets, used_free);
	strmap_done_free(&s->configs, used_free);
	s->tasks = s->templates = s->secrets = s->configs = (struct strmap)STRMAP_INIT;
}

static void flush_session(
    struct session *s, Pb__PublishedService **published, size_t n_published, char **removed, size_t n_removed)
{
	struct dispatcher *d = s->d;
	struct out o = {.tasks = NULL};
	pb__assignments__init(&o.m);
	if (s->node_changed) {
		const struct object *node = store_get(d->o.store, OBJ(NODE), s->member->node_id);
		Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
		m.node = node ? node->node : NULL;
		if (node)
			rpc_stream_send(s->stream, &m);
		s->node_changed = false;
	}
	const struct object *t;
	if (s->full) {
		struct store_iter it;
		forget_sent(s);
		store_iter_init(&it, d->o.store, OBJ(TASK), STORE_TASK_BY_NODE, s->member->node_id);
		while ((t = store_iter_next(&it)))
			if (is_assigned(t->task))
				put_task(s, &o, t->task);
	} else {
		const char *id;
		for (size_t it = 0; strmap_next(&s->dirty, &it, &id, NULL);) {
			t = store_get(d->o.store, OBJ(TASK), id);
			if (t && is_assigned(t->task) && str_eq(t->task->node_id, s->member->node_id))
				put_task(s, &o, t->task);
			else
				put_gone(s, &o, id);
		}
	}
	strmap_done(&s->dirty);
	s->dirty = (struct strmap)STRMAP_INIT;
	o.m.published = published;
	o.m.n_published = n_published;
	o.m.removed_published = removed;
	o.m.n_removed_published = n_removed;
	if (s->full || o.m.n_tasks || o.m.n_removed_tasks || o.m.n_templates || o.m.n_removed_templates ||
	    n_published || n_removed)
		send_out(s, &o);
	out_done(&o);
}

struct table {
	Pb__PublishedService **v;
	size_t n;
};

static void table_done(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		pb_free(t->v[i]);
	free(t->v);
}

/* What each of the sessions with a full set to send needs; made once a flush. */
static void whole_table(const struct dispatcher *d, struct table *all)
{
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, d->o.store, OBJ(SERVICE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)))
		if (publishes(o->service))
			pb_add_msg(&all->v, &all->n, published_of(d, o->service));
}

/* Changes of the table concern every session. */
static void mark_all(struct dispatcher *d)
{
	for (struct session *s = d->sessions; s; s = s->next)
		if (s->member)
			assign_mark(s);
}

void assign_flush(struct dispatcher *d)
{
	struct table changed = {NULL, 0}, all = {NULL, 0};
	char **removed = NULL;
	size_t n_removed = 0;
	bool have_all = false;
	const char *id;
	for (size_t it = 0; strmap_next(&d->services, &it, &id, NULL);) {
		const struct object *s = store_get(d->o.store, OBJ(SERVICE), id);
		if (s && publishes(s->service))
			pb_add_msg(&changed.v, &changed.n, published_of(d, s->service));
		else
			pb_add_str(&removed, &n_removed, id);
	}
	strmap_done(&d->services);
	d->services = (struct strmap)STRMAP_INIT;
	if (changed.n || n_removed)
		mark_all(d);
	while (d->dirty) {
		struct session *s = d->dirty;
		unmark(s);
		if (s->doomed) {
			dispatcher_end_session(s, ERR_UNAVAILABLE, "the tasks' states could not be stored");
			continue;
		}
		if (s->blocked) {
			/* What changed meanwhile stays marked; the table would be missed, so then everything.
			 */
			s->full = s->full || changed.n || n_removed;
			continue;
		}
		if (s->full && !have_all) {
			whole_table(d, &all);
			have_all = true;
		}
		if (s->full)
			flush_session(s, all.v, all.n, NULL, 0);
		else
			flush_session(s, changed.v, changed.n, removed, n_removed);
	}
	table_done(&changed);
	table_done(&all);
	free_strings(removed, n_removed);
}

void assign_session_done(struct session *s)
{
	unmark(s);
	strmap_done(&s->dirty);
	forget_sent(s);
}
