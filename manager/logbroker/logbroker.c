/* See logbroker.h. A subscription is made of parts: one request to one node each, with an id of its own. It
 * ends when every part has ended and none can come: not following, or following a task that is over, or a
 * service that is gone. */
#include "manager/logbroker/logbroker.h"

#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"
#include "proto/pb.h"

#define SUBSCRIPTIONS_MAX 1024

struct part {
	struct log_subscription *sub;
	char id[ID_LEN + 1];
	char *node_id;
};
struct log_subscription {
	struct logbroker *b;
	struct log_subscribe_opts o;
	char *service_id, *task_id;
	struct strmap tasks; /* asked for already */
	size_t n_parts;
	bool check_queued, dead, paused;
	struct err trouble; /* a node that could not be asked */
};
struct logbroker {
	struct logbroker_opts o;
	struct strmap parts; /* part id -> struct part */
	struct strmap subs;  /* address as text -> struct log_subscription */
};

static char *sub_key(const struct log_subscription *s)
{
	return xasprintf("%p", (const void *)s);
}

struct logbroker *logbroker_new(const struct logbroker_opts *o)
{
	struct logbroker *b = NEW(struct logbroker);
	b->o = *o;
	return b;
}

static void part_free(struct part *p)
{
	strmap_remove(&p->sub->b->parts, p->id);
	p->sub->n_parts--;
	free(p->node_id);
	free(p);
}

/* Ends what nodes still send. */
static void cancel_parts(struct log_subscription *s)
{
	struct logbroker *b = s->b;
	struct strlist ids = STRLIST_INIT;
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&b->parts, &it, &id, &v);)
		if (((struct part *)v)->sub == s)
			strlist_add(&ids, id);
	for (size_t i = 0; i < ids.n; i++) {
		struct part *p = strmap_get(&b->parts, ids.v[i]);
		Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
		Pb__LogSubscribe q = PB__LOG_SUBSCRIBE__INIT;
		q.subscription_id = p->id;
		q.has_cancel = q.cancel = true;
		m.logs = &q;
		b->o.send(b->o.data, p->node_id, &m, NULL); /* without a session there is nothing to cancel */
		part_free(p);
	}
	strlist_done(&ids);
}

static void send_pause(const struct part *p)
{
	struct logbroker *b = p->sub->b;
	Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
	Pb__LogSubscribe q = PB__LOG_SUBSCRIBE__INIT;
	q.subscription_id = (char *)(uintptr_t)p->id;
	q.has_pause = true;
	q.pause = p->sub->paused;
	m.logs = &q;
	b->o.send(b->o.data, p->node_id, &m, NULL); /* without a session nothing comes */
}

void logbroker_pause(struct log_subscription *s, bool paused)
{
	void *v;
	if (s->paused == paused)
		return;
	s->paused = paused;
	for (size_t it = 0; strmap_next(&s->b->parts, &it, NULL, &v);)
		if (((struct part *)v)->sub == s)
			send_pause(v);
}

static void sub_free(struct log_subscription *s)
{
	strmap_done(&s->tasks);
	free(s->service_id);
	free(s->task_id);
	free(s);
}

static void detach(struct log_subscription *s)
{
	CLEANUP_FREE char *key = sub_key(s);
	cancel_parts(s);
	strmap_remove(&s->b->subs, key);
	s->dead = true;
}

void logbroker_unsubscribe(struct log_subscription *s)
{
	detach(s);
	if (!s->check_queued)
		sub_free(s);
}

static bool may_go_on(const struct log_subscription *s)
{
	const struct store *st = s->b->o.store;
	if (!s->o.follow)
		return false;
	if (s->service_id)
		return store_get(st, OBJ(SERVICE), s->service_id) != NULL;
	const struct object *t = store_get(st, OBJ(TASK), s->task_id);
	return t && t->task->status->state < PB__TASK_STATE__E__COMPLETE &&
	       !strmap_has(&s->tasks, s->task_id);
}

static void check_end(void *data)
{
	struct log_subscription *s = data;
	s->check_queued = false;
	if (s->dead) {
		sub_free(s);
		return;
	}
	if (s->n_parts || may_go_on(s))
		return;
	struct log_subscribe_opts o = s->o;
	struct err e = s->trouble;
	detach(s);
	sub_free(s);
	o.end(o.data, e.code, &e);
}

static void check_soon(struct log_subscription *s)
{
	if (s->check_queued || s->dead)
		return;
	s->check_queued = true;
	loop_defer(s->b->o.loop, check_end, s);
}

/* Asks one node for some tasks of it. */
static void ask(struct log_subscription *s, const char *node_id, char **task_ids, size_t n)
{
	struct logbroker *b = s->b;
	struct part *p = NEW(struct part);
	p->sub = s;
	id_new(b->o.rng, p->id);
	p->node_id = xstrdup(node_id);
	Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
	Pb__LogSubscribe q = PB__LOG_SUBSCRIBE__INIT;
	q.subscription_id = p->id;
	q.task_ids = task_ids;
	q.n_task_ids = n;
	q.has_follow = q.has_want_stdout = q.has_want_stderr = q.has_tail = true;
	q.follow = s->o.follow;
	q.want_stdout = s->o.want_stdout;
	q.want_stderr = s->o.want_stderr;
	q.tail = s->o.tail;
	q.has_since = s->o.since_ns != 0;
	q.since = s->o.since_ns;
	m.logs = &q;
	struct err e = ERR_INIT;
	s->n_parts++;
	strmap_put(&b->parts, p->id, p);
	if (b->o.send(b->o.data, node_id, &m, &e) != 0) {
		err_set(&s->trouble, ERR_UNAVAILABLE, "incomplete log stream: node %s cannot be reached",
		    node_id);
		part_free(p);
		check_soon(s);
	} else if (s->paused) {
		send_pause(p);
	}
}

/* From STARTING on there can be lines. */
static bool has_log(const Pb__Task *t)
{
	return !str_empty(t->node_id) && t->status->state >= PB__TASK_STATE__E__STARTING &&
	       t->status->state != PB__TASK_STATE__E__REJECTED;
}

static void ask_for_service(struct log_subscription *s)
{
	struct strmap nodes = STRMAP_INIT; /* node id -> struct strlist of tasks */
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, s->b->o.store, OBJ(TASK), STORE_TASK_BY_SERVICE, s->service_id);
	while ((o = store_iter_next(&it))) {
		if (!has_log(o->task) || strmap_has(&s->tasks, o->task->id))
			continue;
		struct strlist *l = strmap_get(&nodes, o->task->node_id);
		if (!l) {
			l = NEW(struct strlist);
			strmap_put(&nodes, o->task->node_id, l);
		}
		strlist_add(l, o->task->id);
		strmap_put(&s->tasks, o->task->id, s);
	}
	const char *node_id;
	void *v;
	for (size_t i = 0; strmap_next(&nodes, &i, &node_id, &v);) {
		struct strlist *l = v;
		ask(s, node_id, l->v, l->n);
		strlist_done(l);
		free(l);
	}
	strmap_done(&nodes);
}

static void ask_for_task(struct log_subscription *s, const Pb__Task *t)
{
	if (!has_log(t) || strmap_has(&s->tasks, t->id))
		return;
	char *ids[1] = {t->id};
	strmap_put(&s->tasks, t->id, s);
	ask(s, t->node_id, ids, 1);
}

int logbroker_subscribe(
    struct logbroker *b, const struct log_subscribe_opts *o, struct log_subscription **ret, struct err *e)
{
	if (strmap_len(&b->subs) >= SUBSCRIPTIONS_MAX)
		return err_set(e, ERR_UNAVAILABLE, "%d log streams are open already: end some of them",
		    SUBSCRIPTIONS_MAX);
	const struct object *t = NULL;
	if (o->service_id ? !store_get(b->o.store, OBJ(SERVICE), o->service_id)
			  : !(t = store_get(b->o.store, OBJ(TASK), o->task_id)))
		return err_set(e, ERR_NOT_FOUND, "%s %s not found", o->service_id ? "service" : "task",
		    o->service_id ? o->service_id : o->task_id);
	struct log_subscription *s = NEW(struct log_subscription);
	CLEANUP_FREE char *key = sub_key(s);
	s->b = b;
	s->o = *o;
	s->service_id = xstrdup(o->service_id);
	s->task_id = o->service_id ? NULL : xstrdup(o->task_id);
	strmap_put(&b->subs, key, s);
	if (t)
		ask_for_task(s, t->task);
	else
		ask_for_service(s);
	check_soon(s);
	*ret = s;
	return 0;
}

void logbroker_batch(struct logbroker *b, const char *node_id, const Pb__LogBatch *batch)
{
	struct part *p = strmap_get(&b->parts, batch->subscription_id);
	if (!p || strcmp(p->node_id, node_id) != 0)
		return; /* cancelled meanwhile, or not this node's to answer */
	struct log_subscription *s = p->sub;
	CLEANUP_FREE char *key = sub_key(s);
	for (size_t i = 0; i < batch->n_lines; i++) {
		const struct object *t = store_get(b->o.store, OBJ(TASK), batch->lines[i]->task_id);
		const char *service = s->service_id ? s->service_id
				      : t           ? str_or(t->task->service_id, "")
						    : "";
		s->o.line(s->o.data, service, node_id, batch->lines[i]);
		if (!strmap_has(&b->subs, key))
			return; /* unsubscribed from inside */
	}
	if (batch->has_end && batch->end) {
		part_free(p);
		check_soon(s);
	}
}

void logbroker_session(struct logbroker *b, const char *node_id, bool up)
{
	if (up)
		return;
	struct strlist ids = STRLIST_INIT;
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&b->parts, &it, &id, &v);)
		if (strcmp(((struct part *)v)->node_id, node_id) == 0)
			strlist_add(&ids, id);
	for (size_t i = 0; i < ids.n; i++) {
		struct part *p = strmap_get(&b->parts, ids.v[i]);
		struct log_subscription *s = p->sub;
		err_set(&s->trouble, ERR_UNAVAILABLE,
		    "incomplete log stream: the connection to node %s was lost", node_id);
		part_free(p);
		check_soon(s);
	}
	strlist_done(&ids);
}

void logbroker_event(struct logbroker *b, const struct store_event *ev)
{
	const char *key;
	void *v;
	if (strmap_len(&b->subs) == 0 || (ev->kind != OBJ(TASK) && ev->kind != OBJ(SERVICE)))
		return;
	for (size_t it = 0; strmap_next(&b->subs, &it, &key, &v);) {
		struct log_subscription *s = v;
		if (!s->o.follow)
			continue;
		if (ev->kind == OBJ(SERVICE)) {
			if (!ev->cur && str_eq(s->service_id, ev->old->head->id))
				check_soon(s);
		} else if (ev->cur && (s->service_id ? str_eq(s->service_id, ev->cur->task->service_id)
						     : str_eq(s->task_id, ev->cur->task->id))) {
			ask_for_task(s, ev->cur->task);
		}
	}
}

void logbroker_free(struct logbroker *b)
{
	if (!b)
		return;
	struct strlist keys = STRLIST_INIT;
	const char *key;
	for (size_t it = 0; strmap_next(&b->subs, &it, &key, NULL);)
		strlist_add(&keys, key);
	for (size_t i = 0; i < keys.n; i++) {
		struct log_subscription *s = strmap_get(&b->subs, keys.v[i]);
		if (!s)
			continue;
		struct log_subscribe_opts o = s->o;
		struct err e = ERR_INIT;
		err_set(&e, ERR_UNAVAILABLE, "this manager is shutting down");
		logbroker_unsubscribe(s);
		o.end(o.data, e.code, &e);
	}
	strlist_done(&keys);
	strmap_done(&b->subs);
	strmap_done(&b->parts);
	free(b);
}
