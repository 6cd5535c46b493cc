/* The agent's tables: tasks, templates, published ports; what assignments do to them; what goes back. See
 * agent.h.
 *
 * A full assignment replaces everything: tasks that it does not name are stopped and removed, and so are
 * containers that carry a task's id but belong to no task. Deltas add, change and remove. Published ports
 * (publish.c) are taken before tasks, so that a task that is to stop has left the load balancer before it
 * gets its signal.
 *
 * Statuses go back in batches: one a turn of the loop at most, and only the latest state of each task. A
 * batch that was not acknowledged is part of the next session's first one. */
#include "agent/agent_private.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"

#define STATUS_BATCH_MAX 512

struct agent *agent_start(const struct agent_opts *o)
{
	struct agent *a = NEW(struct agent);
	a->loop = o->loop;
	a->clock = o->clock;
	a->rng = o->rng;
	a->images = o->images;
	a->engine = o->engine;
	a->net = o->net;
	a->node_id = xstrdup(o->node_id);
	a->advertise_addr = xstrdup(o->advertise_addr);
	a->description = pb_clone(o->description);
	a->tls = tls_ctx_ref(o->tls);
	for (size_t i = 0; i < o->managers->n; i++)
		strlist_add(&a->managers, o->managers->v[i]);
	a->manager_at = o->manager_at;
	a->managers_changed = o->managers_changed;
	a->node_changed = o->node_changed;
	a->removed = o->removed;
	a->data = o->data;
	publish_init(a);
	a->session = session_start(a);
	return a;
}

void agent_set_tls(struct agent *a, struct tls_ctx *tls)
{
	struct tls_ctx *old = a->tls;
	a->tls = tls_ctx_ref(tls);
	tls_ctx_unref(old);
}

void agent_set_node(struct agent *a, const Pb__Node *n)
{
	pb_free(a->node);
	a->node = pb_clone(n);
	if (a->node_changed)
		a->node_changed(a->data, a->node);
}

/* --- assignments */

static void take_templates(struct agent *a, const Pb__Assignments *as)
{
	if (as->full) {
		strmap_done_free(&a->templates, pb_free);
		a->templates = (struct strmap)STRMAP_INIT;
	}
	for (size_t i = 0; i < as->n_templates; i++)
		pb_free(strmap_put(&a->templates, as->templates[i]->id, pb_clone(as->templates[i])));
	for (size_t i = 0; i < as->n_removed_templates; i++)
		pb_free(strmap_remove(&a->templates, as->removed_templates[i]));
}

struct adopt {
	struct task *task;
	struct agent *agent;
	struct strlist orphans;
};

static void find_of_task(void *data, const Pb__Container *c)
{
	struct adopt *ad = data;
	if (str_eq(c->task_id, ad->task->id) && !ad->task->container_id)
		task_adopt(ad->task, c);
}

static void take_task(struct agent *a, const Pb__AssignedTask *at, bool look_for_container)
{
	struct task *t = strmap_get(&a->tasks, at->id);
	if (t) {
		task_update(t, at);
		return;
	}
	const Pb__Template *tmpl = strmap_get(&a->templates, at->template_id);
	if (!tmpl || !tmpl->spec || !tmpl->spec->container_spec) {
		log_error("task %s: the manager sent no template %s for it", at->id, at->template_id);
		return;
	}
	t = task_new(a, at, tmpl);
	strmap_put(&a->tasks, at->id, t);
	if (look_for_container) {
		struct adopt ad = {.task = t};
		engine_each(a->engine, find_of_task, &ad);
	}
	task_drive(t);
}

static void note_orphan(void *data, const Pb__Container *c)
{
	struct adopt *ad = data;
	if (!str_empty(c->task_id) && !strmap_has(&ad->agent->tasks, c->task_id))
		strlist_add(&ad->orphans, c->id);
}

static void maybe_finish_leave(struct agent *a);

static void orphan_removed(void *data, const struct err *e)
{
	struct agent *a = data;
	a->refs--;
	if (a->dead) {
		agent_unref(a);
		return;
	}
	if (e->code && e->code != ERR_NOT_FOUND)
		log_error("a container whose task is gone could not be removed: %s", e->text);
	a->orphans--;
	maybe_finish_leave(a);
}

struct orphan {
	struct agent *agent;
	char *id;
};

static void orphan_stopped(void *data, const struct err *e)
{
	struct orphan *o = data;
	struct agent *a = o->agent;
	struct err re = ERR_INIT;
	(void)e; /* it is removed by force in any case */
	if (a->dead)
		orphan_removed(a, &re);
	else if (engine_remove(a->engine, o->id, true, orphan_removed, a, &re) != 0)
		orphan_removed(a, &re);
	free(o->id);
	free(o);
}

static void remove_orphans(struct agent *a)
{
	struct adopt ad = {.agent = a};
	engine_each(a->engine, note_orphan, &ad);
	for (size_t i = 0; i < ad.orphans.n; i++) {
		log_info("container %.12s belongs to a task that is gone: stopping it", ad.orphans.v[i]);
		struct orphan *o = NEW(struct orphan);
		o->agent = a;
		o->id = xstrdup(ad.orphans.v[i]);
		a->orphans++;
		a->refs++;
		struct err e = ERR_INIT;
		if (engine_stop(a->engine, o->id, NULL, -1, orphan_stopped, o, &e) != 0)
			orphan_stopped(o, &e);
	}
	strlist_done(&ad.orphans);
}

static void remove_unnamed(struct agent *a, const Pb__Assignments *as)
{
	struct strmap named = STRMAP_INIT;
	struct strlist gone = STRLIST_INIT;
	for (size_t i = 0; i < as->n_tasks; i++)
		strmap_put(&named, as->tasks[i]->id, a);
	const char *id;
	for (size_t it = 0; strmap_next(&a->tasks, &it, &id, NULL);)
		if (!strmap_has(&named, id))
			strlist_add(&gone, id);
	for (size_t i = 0; i < gone.n; i++) {
		struct task *t = strmap_get(&a->tasks, gone.v[i]);
		if (t)
			task_remove(t);
	}
	strlist_done(&gone);
	strmap_done(&named);
}

void agent_assign(struct agent *a, const Pb__Assignments *as)
{
	if (a->closing || a->leaving)
		return;
	take_templates(a, as);
	publish_take(a, as);
	if (as->full)
		remove_unnamed(a, as);
	for (size_t i = 0; i < as->n_tasks; i++)
		take_task(a, as->tasks[i], as->full);
	for (size_t i = 0; i < as->n_removed_tasks; i++) {
		struct task *t = strmap_get(&a->tasks, as->removed_tasks[i]);
		if (t)
			task_remove(t);
	}
	a->sequence = as->sequence;
	if (as->full) {
		remove_orphans(a);
		/* Not before the containers were found: until then the ports lead where they led. */
		publish_all(a);
		/* What changed before the session was there, and what the manager may have missed. */
		void *v;
		for (size_t it = 0; strmap_next(&a->tasks, &it, NULL, &v);)
			agent_task_changed(a, v);
	}
}

void agent_container_changed(struct agent *a, const Pb__Container *c)
{
	struct task *t = str_empty(c->task_id) ? NULL : strmap_get(&a->tasks, c->task_id);
	if (t && str_eq(t->container_id, c->id))
		task_container_changed(t, c);
}

/* --- statuses */

static void flush_later(void *data)
{
	struct agent *a = data;
	a->flush_queued = false;
	if (!a->closing)
		agent_flush(a);
}

void agent_task_changed(struct agent *a, struct task *t)
{
	if (t->state.state >= 1 && (t->stopping || t->status->state >= PB__TASK_STATE__E__COMPLETE))
		publish_of(a, t);
	strmap_put(&a->dirty, t->id, t);
	if (!a->flush_queued && !a->closing) {
		a->flush_queued = true;
		loop_defer(a->loop, flush_later, a);
	}
}

void agent_flush(struct agent *a)
{
	Pb__TaskStatusUpdate updates[STATUS_BATCH_MAX], *ptrs[STATUS_BATCH_MAX];
	while (strmap_len(&a->dirty) > 0 && session_ready(a->session)) {
		Pb__TaskStatusBatch batch = PB__TASK_STATUS_BATCH__INIT;
		struct strlist sent = STRLIST_INIT;
		const char *id;
		void *v;
		for (size_t it = 0;
		     batch.n_updates < STATUS_BATCH_MAX && strmap_next(&a->dirty, &it, &id, &v);) {
			struct task *t = v;
			pb__task_status_update__init(&updates[batch.n_updates]);
			updates[batch.n_updates].task_id = t->id;
			updates[batch.n_updates].status = t->status;
			ptrs[batch.n_updates] = &updates[batch.n_updates];
			batch.n_updates++;
			strlist_add(&sent, id);
		}
		batch.updates = ptrs;
		bool ok = session_send_status(a->session, &batch);
		for (size_t i = 0; ok && i < sent.n; i++)
			strmap_remove(&a->dirty, sent.v[i]);
		strlist_done(&sent);
		if (!ok)
			return;
	}
}

void agent_task_gone(struct agent *a, struct task *t)
{
	strmap_remove(&a->tasks, t->id);
	strmap_remove(&a->dirty, t->id);
	task_free(t);
	maybe_finish_leave(a);
}

/* --- ending */

void agent_unref(struct agent *a)
{
	if (a->dead && a->refs == 0)
		free(a);
}

/* Steps that are under way in the engine end after this, and then free their tasks. */
static void agent_free(struct agent *a)
{
	void *v;
	for (size_t it = 0; strmap_next(&a->tasks, &it, NULL, &v);)
		if (!((struct task *)v)->busy)
			task_free(v);
	strmap_done(&a->tasks);
	strmap_done(&a->dirty);
	strmap_done_free(&a->templates, pb_free);
	publish_done(a);
	strlist_done(&a->managers);
	pb_free(a->description);
	pb_free(a->node);
	tls_ctx_unref(a->tls);
	free(a->node_id);
	free(a->advertise_addr);
	a->dead = true;
	agent_unref(a);
}

static void finish_close(void *data)
{
	struct agent *a = data;
	void (*closed)(void *) = a->closed;
	void *closed_data = a->closed_data;
	agent_free(a);
	closed(closed_data);
}

static void session_closed(void *data)
{
	struct agent *a = data;
	a->session = NULL;
	/* A deferred flush may still be queued on the loop: it comes before this. */
	loop_defer(a->loop, finish_close, a);
}

void agent_close(struct agent *a, void (*closed)(void *data), void *data)
{
	ASSERT(!a->closing);
	a->closing = true;
	a->closed = closed;
	a->closed_data = data;
	session_close(a->session, session_closed, a);
}

static void maybe_finish_leave(struct agent *a)
{
	if (a->leaving && !a->closing && strmap_len(&a->tasks) == 0 && a->orphans == 0)
		agent_close(a, a->closed, a->closed_data);
}

void agent_leave(struct agent *a, void (*closed)(void *data), void *data)
{
	ASSERT(!a->closing && !a->leaving);
	a->leaving = true;
	a->closed = closed;
	a->closed_data = data;
	publish_none(a);
	struct strlist ids = STRLIST_INIT;
	const char *id;
	for (size_t it = 0; strmap_next(&a->tasks, &it, &id, NULL);)
		strlist_add(&ids, id);
	a->orphans++; /* keeps the end away until everything was started */
	for (size_t i = 0; i < ids.n; i++) {
		struct task *t = strmap_get(&a->tasks, ids.v[i]);
		if (t)
			task_remove(t);
	}
	remove_orphans(a);
	strlist_done(&ids);
	a->orphans--;
	maybe_finish_leave(a);
}
