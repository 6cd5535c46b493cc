/* Bookkeeping and the run loop of the scheduler; see scheduler.h.
 *
 * A task is tracked from its first event until it ended. Where it stands decides what it counts for: PENDING
 * and wanted, it waits in its group's list; ASSIGNED or later, it holds its reservations on its node until it
 * is observed to have ended, and counts as active as long as it is wanted. Every event first takes back all
 * that the task counted for and then adds it anew, so an event that confirms a decision changes nothing, and
 * one that contradicts it corrects the books. */
#include "manager/scheduler/scheduler.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "manager/scheduler/internal.h"

/* --- services and groups */

static struct service_info *service_get(struct scheduler *s, const char *id)
{
	struct service_info *v = strmap_get(&s->services, id);

	if (v == NULL) {
		v = NEW(struct service_info);
		v->id = xstrdup(id);
		strmap_put(&s->services, id, v);
	}
	v->refs++;
	return v;
}

static void service_put(struct scheduler *s, struct service_info *v)
{
	if (--v->refs > 0)
		return;
	strmap_remove(&s->services, v->id);
	u64map_done(&v->on_node);
	free(v->id);
	free(v);
}

static void group_forget_template(struct group *g)
{
	constraints_done(&g->constraints);
	for (size_t i = 0; i < g->n_prefs; i++)
		free(g->prefs[i].key);
	free(g->prefs);
	free(g->host_ports);
	g->prefs = NULL;
	g->host_ports = NULL;
	g->n_prefs = g->n_host_ports = 0;
	object_unref(TAKE_PTR(g->tmpl));
}

static void group_load_template(struct scheduler *s, struct group *g)
{
	const struct object *o = store_get(s->store, OBJ(TEMPLATE), g->template_id);
	const Pb__Placement *pl;
	const Pb__EndpointSpec *ep;
	const Pb__ResourceRequirements *r;

	if (o == NULL)
		return;
	g->tmpl = object_ref(o);
	pl = o->tmpl->spec->placement;
	ep = o->tmpl->endpoint;
	r = o->tmpl->spec->resources;
	g->constraints_ok =
	    pl == NULL || constraints_parse(pl->constraints, pl->n_constraints, &g->constraints, NULL) == 0;
	g->max_replicas = pl != NULL ? pl->max_replicas : 0;
	preferences_parse(pl, &g->prefs, &g->n_prefs);
	if (r != NULL && r->reservations != NULL) {
		g->cpu = r->reservations->nano_cpus;
		g->mem = r->reservations->memory_bytes;
	}
	g->host_ports = xcalloc(ep != NULL ? ep->n_ports + 1 : 1, sizeof(Pb__PortConfig *));
	for (size_t i = 0; ep != NULL && i < ep->n_ports; i++) {
		if (ep->ports[i]->publish_mode == PB__PUBLISH_MODE__E__HOST)
			g->host_ports[g->n_host_ports++] = ep->ports[i];
	}
}

static struct group *group_get(struct scheduler *s, const Pb__Task *t)
{
	struct group *g = strmap_get(&s->groups, t->template_id);

	if (g == NULL) {
		g = NEW(struct group);
		g->template_id = xstrdup(t->template_id);
		g->service = service_get(s, str_or(t->service_id, ""));
		strmap_put(&s->groups, t->template_id, g);
	}
	if (g->tmpl == NULL)
		group_load_template(s, g);
	g->refs++;
	return g;
}

static void group_free(struct scheduler *s, struct group *g)
{
	uint64_t key;
	void *f;

	strmap_remove(&s->groups, g->template_id);
	group_forget_template(g);
	service_put(s, g->service);
	for (size_t it = 0; u64map_next(&g->failures, &it, &key, &f);)
		free(f);
	u64map_done(&g->failures);
	free(g->template_id);
	free(g);
}

static void group_put(struct scheduler *s, struct group *g)
{
	/* A group on which something failed stays, to remember where, for as long as its template. */
	if (--g->refs == 0 && u64map_len(&g->failures) == 0)
		group_free(s, g);
}

/* --- nodes */

struct node_info *node_info_get(struct scheduler *s, const char *id)
{
	struct node_info *n = strmap_get(&s->nodes, id);
	size_t i = 0;

	if (n != NULL)
		return n;
	n = NEW(struct node_info);
	n->id = xstrdup(id);
	strmap_put(&s->nodes, id, n);
	while (i < s->n_index && s->by_index[i] != NULL)
		i++;
	if (i == s->cap_index) {
		s->cap_index = s->cap_index == 0 ? 16 : s->cap_index * 2;
		s->by_index = xreallocarray(s->by_index, s->cap_index, sizeof(struct node_info *));
	}
	if (i == s->n_index)
		s->n_index++;
	s->by_index[i] = n;
	n->index = (uint32_t)i;
	return n;
}

static void forget_failures(struct scheduler *s, uint32_t index)
{
	void *g;

	for (size_t it = 0; strmap_next(&s->groups, &it, NULL, &g);)
		free(u64map_remove(&((struct group *)g)->failures, index));
}

static void node_info_put(struct scheduler *s, struct node_info *n)
{
	if (n->obj != NULL || n->refs > 0)
		return;
	forget_failures(s, n->index);
	strmap_remove(&s->nodes, n->id);
	s->by_index[n->index] = NULL;
	generic_clear(n);
	u64map_done(&n->ports);
	free(n->id);
	free(n);
}

static bool same_generic(const Pb__Node *a, const Pb__Node *b)
{
	return msg_equal(a != NULL && a->description != NULL ? a->description->resources : NULL,
	    b != NULL && b->description != NULL ? b->description->resources : NULL);
}

static void node_event(struct scheduler *s, const struct object *old, const struct object *cur)
{
	struct node_info *n = node_info_get(s, cur != NULL ? cur->head->id : old->head->id);
	void *v;

	object_unref(n->obj);
	n->obj = cur != NULL ? object_ref(cur) : NULL;
	s->nodes_gen++;
	if (n->generic == NULL || cur == NULL || old == NULL || !same_generic(old->node, cur->node)) {
		generic_load(n);
		for (size_t it = 0;
		     n->n_generic > 0 && n->refs > 0 && strmap_next(&s->tasks, &it, NULL, &v);) {
			struct stask *st = v;

			if (st->node == n && st->reserved)
				generic_mark(n, st->generic, st->n_generic, true);
		}
	}
	node_info_put(s, n);
}

/* --- what a task counts for */

static void add_to_service(struct service_info *v, uint32_t node, bool more)
{
	uintptr_t n = (uintptr_t)u64map_get(&v->on_node, node);

	n = more ? n + 1 : n - 1;
	if (n == 0)
		u64map_remove(&v->on_node, node);
	else
		u64map_put(&v->on_node, node, (void *)n);
}

static void add_ports(const struct group *g, struct node_info *n, bool more)
{
	for (size_t i = 0; i < g->n_host_ports; i++) {
		uint64_t key = port_key(g->host_ports[i]);
		uintptr_t count;

		if (g->host_ports[i]->published_port == 0)
			continue;
		count = (uintptr_t)u64map_get(&n->ports, key);
		count = more ? count + 1 : count - 1;
		if (count == 0)
			u64map_remove(&n->ports, key);
		else
			u64map_put(&n->ports, key, (void *)count);
	}
}

void stask_reserve(struct scheduler *s, struct stask *st, struct node_info *n)
{
	(void)s;
	st->node = n;
	n->refs++;
	n->cpu_used += st->group->cpu;
	n->mem_used += st->group->mem;
	add_ports(st->group, n, true);
	st->reserved = true;
	if (st->obj->task->desired_state <= TASK(COMPLETE)) {
		st->active = true;
		n->active++;
		add_to_service(st->group->service, n->index, true);
	}
}

void stask_release(struct scheduler *s, struct stask *st)
{
	struct node_info *n = st->node;

	if (!st->reserved)
		return;
	st->reserved = false;
	n->cpu_used -= st->group->cpu;
	n->mem_used -= st->group->mem;
	add_ports(st->group, n, false);
	generic_mark(n, st->generic, st->n_generic, false);
	generic_free(st->generic, st->n_generic);
	st->generic = NULL;
	st->n_generic = 0;
	if (st->active) {
		st->active = false;
		n->active--;
		add_to_service(st->group->service, n->index, false);
	}
	s->freed_gen++;
	st->node = NULL;
	n->refs--;
	node_info_put(s, n);
}

static void wait_begin(struct scheduler *s, struct stask *st)
{
	struct group *g = st->group;

	st->waiting = true;
	st->next = NULL;
	st->prev = g->last;
	if (g->last != NULL)
		g->last->next = st;
	else
		g->first = st;
	g->last = st;
	s->n_waiting++;
	/* Nobody has told this one yet why it waits. */
	if (str_empty(st->obj->task->status->err))
		g->stuck = false;
	if (g->n_waiting++ > 0)
		return;
	g->next = NULL;
	g->prev = s->last;
	if (s->last != NULL)
		s->last->next = g;
	else
		s->first = g;
	s->last = g;
}

void stask_wait_end(struct scheduler *s, struct stask *st)
{
	struct group *g = st->group;

	if (!st->waiting)
		return;
	st->waiting = false;
	*(st->prev != NULL ? &st->prev->next : &g->first) = st->next;
	*(st->next != NULL ? &st->next->prev : &g->last) = st->prev;
	s->n_waiting--;
	if (--g->n_waiting > 0)
		return;
	*(g->prev != NULL ? &g->prev->next : &s->first) = g->next;
	*(g->next != NULL ? &g->next->prev : &s->last) = g->prev;
}

static void stask_free(struct scheduler *s, struct stask *st)
{
	stask_wait_end(s, st);
	stask_release(s, st);
	strmap_remove(&s->tasks, st->obj->head->id);
	group_put(s, st->group);
	object_unref(st->obj);
	free(st);
}

static void copy_generic(struct stask *st, const Pb__Task *t)
{
	if (t->n_generic_resources == 0)
		return;
	st->generic = xcalloc(t->n_generic_resources, sizeof(*st->generic));
	for (; st->n_generic < t->n_generic_resources; st->n_generic++)
		st->generic[st->n_generic] = msg_clone(t->generic_resources[st->n_generic]);
	generic_mark(st->node, st->generic, st->n_generic, true);
}

static void stask_place(struct scheduler *s, struct stask *st)
{
	const Pb__Task *t = st->obj->task;

	if (t->status->state >= TASK(ASSIGNED)) {
		if (str_empty(t->node_id))
			return;
		stask_reserve(s, st, node_info_get(s, t->node_id));
		copy_generic(st, t);
	} else if (t->status->state == TASK(PENDING) && t->desired_state <= TASK(COMPLETE)) {
		wait_begin(s, st);
	}
}

static void track(struct scheduler *s, const struct object *cur)
{
	struct stask *st = strmap_get(&s->tasks, cur->head->id);
	struct group *old = NULL;
	struct object *old_obj = NULL;

	if (cur->task->status->state > TASK(RUNNING)) {
		if (st != NULL)
			stask_free(s, st);
		return;
	}
	if (st == NULL) {
		st = NEW(struct stask);
		strmap_put(&s->tasks, cur->head->id, st);
	} else {
		stask_wait_end(s, st);
		stask_release(s, st);
		old = st->group;
		old_obj = st->obj;
	}
	st->in_flight = false;
	st->obj = object_ref(cur);
	st->group = group_get(s, cur->task);
	if (old != NULL)
		group_put(s, old);
	object_unref(old_obj);
	stask_place(s, st);
}

static void note_failure(struct scheduler *s, const struct object *old, const Pb__Task *t)
{
	struct group *g = strmap_get(&s->groups, t->template_id);
	struct node_info *n = str_empty(t->node_id) ? NULL : strmap_get(&s->nodes, t->node_id);
	struct failures *f;

	if (t->status->state != TASK(FAILED) && t->status->state != TASK(REJECTED))
		return;
	if (g == NULL || n == NULL || (old != NULL && old->task->status->state > TASK(RUNNING)))
		return;
	f = u64map_get(&g->failures, n->index);
	if (f == NULL) {
		f = NEW(struct failures);
		u64map_put(&g->failures, n->index, f);
	}
	f->at[f->n++ % FAILURES_MAX] =
	    t->status->has_applied_at ? t->status->applied_at : t->status->timestamp;
}

void scheduler_event(struct scheduler *s, const struct store_event *ev)
{
	if (ev->kind == OBJ(NODE)) {
		node_event(s, ev->old, ev->cur);
	} else if (ev->kind == OBJ(TASK)) {
		struct stask *st;

		if (ev->cur != NULL) {
			note_failure(s, ev->old, ev->cur->task);
			track(s, ev->cur);
			return;
		}
		st = strmap_get(&s->tasks, ev->old->head->id);
		if (st != NULL)
			stask_free(s, st);
	} else if (ev->kind == OBJ(TEMPLATE)) {
		struct group *g =
		    strmap_get(&s->groups, ev->cur != NULL ? ev->cur->head->id : ev->old->head->id);

		if (g != NULL && ev->cur == NULL && g->refs == 0)
			group_free(s, g);
		else if (g != NULL && ev->cur != NULL && g->tmpl == NULL)
			group_load_template(s, g);
	}
}

void scheduler_retry(struct scheduler *s, const char *task_id)
{
	const struct object *o = store_get(s->store, OBJ(TASK), task_id);
	struct stask *st = strmap_get(&s->tasks, task_id);

	if (o != NULL)
		track(s, o);
	else if (st != NULL)
		stask_free(s, st);
}

struct scheduler *scheduler_new(const struct store *store)
{
	struct scheduler *s = NEW(struct scheduler);
	const struct object *o;
	struct store_iter it;

	s->store = store;
	for (store_iter_init(&it, store, OBJ(NODE), STORE_ALL, NULL); (o = store_iter_next(&it)) != NULL;)
		node_event(s, NULL, o);
	for (store_iter_init(&it, store, OBJ(TASK), STORE_ALL, NULL); (o = store_iter_next(&it)) != NULL;)
		track(s, o);
	for (store_iter_init(&it, store, OBJ(TASK), STORE_ALL, NULL); (o = store_iter_next(&it)) != NULL;)
		note_failure(s, NULL, o->task);
	return s;
}

void scheduler_free(struct scheduler *s)
{
	void *v;

	if (s == NULL)
		return;
	for (size_t it = 0; strmap_next(&s->tasks, &it, NULL, &v);)
		stask_free(s, v);
	for (size_t it = 0; strmap_next(&s->groups, &it, NULL, &v);)
		group_free(s, v);
	for (size_t i = 0; i < s->n_index; i++) {
		if (s->by_index[i] != NULL) {
			object_unref(TAKE_PTR(s->by_index[i]->obj));
			node_info_put(s, s->by_index[i]);
		}
	}
	strmap_done(&s->nodes);
	strmap_done(&s->services);
	strmap_done(&s->groups);
	strmap_done(&s->tasks);
	free(s->by_index);
	free(s);
}

size_t scheduler_waiting(const struct scheduler *s)
{
	return s->n_waiting;
}
