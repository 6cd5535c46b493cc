/* The leader's decisions, driven; see brain.h.
 *
 * A store event marks services and nodes as dirty. A tick takes the dirty ones that have nothing in flight,
 * lets the pure functions plan, and proposes what they planned, one transaction after the other without
 * waiting; then the scheduler does the same for the tasks that wait for a node. When all proposals of a
 * service are back it is looked at again, until nothing comes out any more.
 *
 * A proposal that lost a race (ERR_STALE) makes its service dirty again at once; one that keeps failing is
 * tried again later, and later. When nothing can be committed at all (ERR_UNAVAILABLE) everything pauses for
 * a moment; usually leadership is gone then and brain_stop follows. */
#include "manager/brain.h"

#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/allocator/allocator.h"
#include "manager/orchestrator/orchestrator.h"
#include "manager/scheduler/scheduler.h"

#define MAX_IN_FLIGHT  50000 /* actions; beyond, a tick proposes nothing more */
#define SCHEDULE_BATCH 500   /* assignments in one transaction */
#define PAUSE          (100 * NS_PER_MSEC)
#define RETRY_MIN      NS_PER_MSEC
#define RETRY_MAX      NS_PER_SEC

/* A service or a node that may need work. */
struct subject {
	char *id;
	bool is_node;
	bool dirty, queued, blocked;
	unsigned in_flight; /* proposals */
	unsigned failures;  /* in a row */
	int64_t next;       /* look again then; INT64_MAX: no timer */
	struct subject *next_queued;
	struct subject *timer_next, *timer_prev;
};

/* A proposal under way. */
struct request {
	struct brain *b;      /* NULL: stopped meanwhile */
	struct subject *who;  /* NULL: the scheduler's */
	struct strlist tasks; /* the scheduler's: whom it decided about */
	size_t actions;
	struct request *next, *prev;
};

struct brain {
	struct brain_opts o;
	bool running, woken;
	struct store_watch *watch;
	struct allocator *allocator;
	struct scheduler *scheduler;
	struct strmap services, nodes; /* id -> struct subject */
	struct subject *first, *last;  /* dirty, in the order they became so */
	struct subject *timers;
	struct request *requests;
	size_t actions_in_flight;
	int64_t now; /* of the last tick */
	int64_t paused_until;
	struct brain_stats stats;
	/* The transaction that the scheduler is filling. */
	struct txn *batch;
	struct strlist batch_tasks;
};

static void wake(struct brain *b)
{
	if (b->woken)
		return;
	b->woken = true;
	b->o.wake(b->o.data);
}

/* --- subjects */

static void set_timer(struct brain *b, struct subject *x, int64_t when)
{
	if (x->next != INT64_MAX) {
		*(x->timer_prev != NULL ? &x->timer_prev->timer_next : &b->timers) = x->timer_next;
		if (x->timer_next != NULL)
			x->timer_next->timer_prev = x->timer_prev;
	}
	x->next = when;
	if (when == INT64_MAX)
		return;
	x->timer_prev = NULL;
	x->timer_next = b->timers;
	if (b->timers != NULL)
		b->timers->timer_prev = x;
	b->timers = x;
}

static void subject_free(struct brain *b, struct subject *x)
{
	set_timer(b, x, INT64_MAX);
	free(x->id);
	free(x);
}

static void mark_subject(struct brain *b, struct subject *x)
{
	x->dirty = true;
	if (x->in_flight > 0)
		return; /* taken up when they are back */
	if (!x->queued) {
		x->queued = true;
		x->next_queued = NULL;
		if (b->last != NULL)
			b->last->next_queued = x;
		else
			b->first = x;
		b->last = x;
	}
	wake(b);
}

static void mark(struct brain *b, struct strmap *m, const char *id)
{
	struct subject *x;

	if (str_empty(id))
		return;
	x = strmap_get(m, id);
	if (x == NULL) {
		x = NEW(struct subject);
		x->id = xstrdup(id);
		x->is_node = m == &b->nodes;
		x->next = INT64_MAX;
		strmap_put(m, id, x);
	}
	mark_subject(b, x);
}

static void mark_all(struct brain *b)
{
	const struct object *o;
	struct store_iter it;

	for (store_iter_init(&it, b->o.store, OBJ(SERVICE), STORE_ALL, NULL);
	     (o = store_iter_next(&it)) != NULL;)
		mark(b, &b->services, o->head->id);
	for (store_iter_init(&it, b->o.store, OBJ(NODE), STORE_ALL, NULL);
	     (o = store_iter_next(&it)) != NULL;)
		mark(b, &b->nodes, o->head->id);
	/* What is left of services and nodes that are gone. */
	for (store_iter_init(&it, b->o.store, OBJ(TASK), STORE_ALL, NULL);
	     (o = store_iter_next(&it)) != NULL;) {
		const Pb__Task *t = o->task;

		if (!str_empty(t->service_id) && !strmap_has(&b->services, t->service_id))
			mark(b, &b->services, t->service_id);
		if (!str_empty(t->node_id) && !strmap_has(&b->nodes, t->node_id))
			mark(b, &b->nodes, t->node_id);
	}
	for (store_iter_init(&it, b->o.store, OBJ(TEMPLATE), STORE_ALL, NULL);
	     (o = store_iter_next(&it)) != NULL;) {
		if (!strmap_has(&b->services, o->tmpl->service_id))
			mark(b, &b->services, o->tmpl->service_id);
	}
}

/* --- events: who may need work because of this */

static void service_changed(struct brain *b, const struct store_event *ev)
{
	void *x;

	mark(b, &b->services, ev->cur != NULL ? ev->cur->head->id : ev->old->head->id);
	if (ev->old == NULL)
		return;
	for (size_t it = 0; strmap_next(&b->services, &it, NULL, &x);) {
		if (((struct subject *)x)->blocked)
			mark_subject(b, x);
	}
}

/* Most of a task's way up needs nobody but its agent. */
static void task_changed(struct brain *b, const struct store_event *ev)
{
	const Pb__Task *old = ev->old != NULL ? ev->old->task : NULL,
		       *cur = ev->cur != NULL ? ev->cur->task : NULL;
	Pb__TaskState__E was, is;
	const struct object *o;

	if (old == NULL || cur == NULL || str_empty(cur->service_id))
		return;
	was = old->status->state;
	is = cur->status->state;
	if (was == is)
		return;
	if (is > PB__TASK_STATE__E__RUNNING) {
		mark(b, &b->services, cur->service_id);
	} else if (is == PB__TASK_STATE__E__RUNNING) {
		/* An update goes by what runs. */
		o = store_get(b->o.store, OBJ(SERVICE), cur->service_id);
		if (o != NULL && o->service->update_status != NULL)
			mark(b, &b->services, cur->service_id);
	}
}

static const char *addr_of(const Pb__Node *n)
{
	return n->status != NULL ? n->status->addr : NULL;
}

static bool node_same(const Pb__Node *a, const Pb__Node *b)
{
	return (a->status != NULL ? a->status->state : PB__NODE_STATE__E__UNKNOWN) ==
		   (b->status != NULL ? b->status->state : PB__NODE_STATE__E__UNKNOWN) &&
	       str_eq(addr_of(a), addr_of(b)) && a->role == b->role && msg_equal(a->spec, b->spec) &&
	       msg_equal(a->description, b->description);
}

static void node_changed(struct brain *b, const struct store_event *ev)
{
	const char *id = ev->cur != NULL ? ev->cur->head->id : ev->old->head->id;
	const struct object *o;
	struct store_iter it;

	if (ev->old != NULL && ev->cur != NULL && node_same(ev->old->node, ev->cur->node))
		return;
	mark(b, &b->nodes, id);
	store_iter_init(&it, b->o.store, OBJ(TASK), STORE_TASK_BY_NODE, id);
	while ((o = store_iter_next(&it)) != NULL)
		mark(b, &b->services, o->task->service_id);
	store_iter_init(&it, b->o.store, OBJ(SERVICE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL) {
		const Pb__ServiceMode *m = o->service->spec->mode;

		if (m != NULL && (m->global != NULL || m->global_job != NULL))
			mark(b, &b->services, o->head->id);
	}
}

static void on_event(void *data, const struct store_event *ev)
{
	struct brain *b = data;

	scheduler_event(b->scheduler, ev);
	switch (ev->kind) {
	case OBJ(SERVICE):
		allocator_event(b->allocator, ev);
		service_changed(b, ev);
		break;
	case OBJ(TASK):
		task_changed(b, ev);
		break;
	case OBJ(NODE):
		node_changed(b, ev);
		break;
	case OBJ(CLUSTER):
		if (ev->old == NULL || ev->cur == NULL ||
		    !msg_equal(ev->old->cluster->spec->orchestration, ev->cur->cluster->spec->orchestration))
			mark_all(b);
		break;
	default:
		break;
	}
	if (scheduler_waiting(b->scheduler) > 0)
		wake(b);
}

/* --- proposals */

static void request_unlink(struct brain *b, struct request *r)
{
	*(r->prev != NULL ? &r->prev->next : &b->requests) = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	b->actions_in_flight -= r->actions;
	b->stats.in_flight--;
}

static bool lost_race(int status)
{
	return status == ERR_STALE || status == ERR_NOT_FOUND || status == ERR_CONFLICT;
}

static void subject_back(struct brain *b, struct subject *x, int status)
{
	x->in_flight--;
	if (status == 0) {
		x->failures = 0;
		x->dirty = true;
	} else {
		const struct object *o = x->is_node ? NULL : store_get(b->o.store, OBJ(SERVICE), x->id);

		if (!x->is_node)
			allocator_forget(b->allocator, x->id, o != NULL ? o->service : NULL);
		x->failures++;
		if (lost_race(status) && x->failures < 10) {
			x->dirty = true;
		} else {
			unsigned shift = x->failures < 10 ? x->failures : 10;
			int64_t after = RETRY_MIN << shift;

			set_timer(b, x, b->now + (after < RETRY_MAX ? after : RETRY_MAX));
			wake(b); /* so that the owner learns of the timer */
		}
	}
	if (x->in_flight == 0 && x->dirty)
		mark_subject(b, x);
}

static void finish(struct brain *b, struct request *r, int status)
{
	request_unlink(b, r);
	if (status == ERR_STALE)
		b->stats.stale++;
	else if (status < 0)
		b->stats.failed++;
	if (status < 0 && !lost_race(status))
		b->paused_until = b->now + PAUSE;
	if (r->who != NULL)
		subject_back(b, r->who, status);
	for (size_t i = 0; i < r->tasks.n && status < 0; i++)
		scheduler_retry(b->scheduler, r->tasks.v[i]);
	/* What there was no room for. */
	if (status < 0 || b->first != NULL || scheduler_waiting(b->scheduler) > 0)
		wake(b);
}

static void request_free(struct request *r)
{
	strlist_done(&r->tasks);
	free(r);
}

static void on_done(void *cb_data, int status, const struct err *e)
{
	struct request *r = cb_data;

	(void)e;
	if (r->b != NULL)
		finish(r->b, r, status);
	request_free(r);
}

/* tasks is moved from. */
static void send_txn(struct brain *b, const struct txn *t, struct subject *who, struct strlist *tasks)
{
	struct request *r;
	int rc;

	if (txn_count(t) == 0)
		return;
	r = NEW(struct request);
	r->b = b;
	r->who = who;
	if (tasks != NULL) {
		r->tasks = *tasks;
		*tasks = (struct strlist)STRLIST_INIT;
	}
	r->actions = txn_count(t);
	r->next = b->requests;
	if (b->requests != NULL)
		b->requests->prev = r;
	b->requests = r;
	b->actions_in_flight += r->actions;
	b->stats.in_flight++;
	b->stats.proposed++;
	if (who != NULL)
		who->in_flight++;
	rc = b->o.propose(b->o.data, t, on_done, r, NULL);
	if (rc < 0) {
		finish(b, r, rc);
		request_free(r);
	}
}

/* --- the pass */

static void work_on(struct brain *b, struct subject *x)
{
	struct plan plan = PLAN_INIT;
	struct reconcile_ctx c = {
	    .store = b->o.store,
	    .now = b->now,
	    .rng = b->o.rng,
	    .allocator = b->allocator,
	    .out = &plan,
	    .next = INT64_MAX,
	};

	x->dirty = false;
	if (x->is_node)
		enforce_node(&c, x->id);
	else
		reconcile_service(&c, x->id);
	b->stats.reconciled++;
	x->blocked = c.blocked;
	set_timer(b, x, c.next);
	for (size_t i = 0; i < plan.n; i++)
		send_txn(b, plan.v[i], x, NULL);
	plan_done(&plan);
	/* Nothing left of it, and nothing to come. */
	if (x->in_flight == 0 && !x->dirty && x->next == INT64_MAX &&
	    (x->is_node || store_get(b->o.store, OBJ(SERVICE), x->id) == NULL)) {
		strmap_remove(x->is_node ? &b->nodes : &b->services, x->id);
		subject_free(b, x);
	}
}

static void flush_batch(struct brain *b)
{
	if (b->batch == NULL)
		return;
	send_txn(b, b->batch, NULL, &b->batch_tasks);
	txn_free(TAKE_PTR(b->batch));
}

static void on_decision(void *data, const struct sched_decision *d)
{
	struct brain *b = data;

	if (b->batch == NULL)
		b->batch = txn_new();
	txn_update(b->batch, OBJ(TASK), sched_decision_task(d, b->now));
	strlist_add(&b->batch_tasks, d->task->id);
	b->stats.scheduled++;
	if (txn_count(b->batch) >= SCHEDULE_BATCH)
		flush_batch(b);
}

static bool room(const struct brain *b)
{
	return b->actions_in_flight < MAX_IN_FLIGHT && b->paused_until <= b->now;
}

int64_t brain_tick(struct brain *b, int64_t now)
{
	int64_t next = INT64_MAX;
	struct subject *x, *after;

	b->woken = false;
	if (!b->running)
		return INT64_MAX;
	b->now = now;
	b->stats.ticks++;
	for (x = b->timers; x != NULL; x = after) {
		after = x->timer_next;
		if (x->next <= now) {
			set_timer(b, x, INT64_MAX);
			mark_subject(b, x);
		}
	}
	while (b->first != NULL && room(b)) {
		x = b->first;
		b->first = x->next_queued;
		if (b->first == NULL)
			b->last = NULL;
		x->queued = false;
		if (x->in_flight == 0)
			work_on(b, x);
	}
	if (room(b)) {
		scheduler_run(b->scheduler, now, MAX_IN_FLIGHT - b->actions_in_flight, on_decision, b, &next);
		flush_batch(b);
	}
	b->woken = false;
	for (x = b->timers; x != NULL; x = x->timer_next) {
		if (x->next < next)
			next = x->next;
	}
	if (b->paused_until > now && b->paused_until < next)
		next = b->paused_until;
	return next;
}

/* --- life */

struct brain *brain_new(const struct brain_opts *o)
{
	struct brain *b = NEW(struct brain);

	b->o = *o;
	return b;
}

void brain_start(struct brain *b)
{
	if (b->running)
		return;
	b->running = true;
	b->watch = store_watch_new(b->o.store, on_event, b);
	b->allocator = allocator_new(b->o.store);
	b->scheduler = scheduler_new(b->o.store);
	mark_all(b);
	wake(b);
}

static void drop_subjects(struct brain *b, struct strmap *m)
{
	void *x;

	for (size_t it = 0; strmap_next(m, &it, NULL, &x);)
		subject_free(b, x);
	strmap_done(m);
}

void brain_stop(struct brain *b)
{
	if (!b->running)
		return;
	b->running = false;
	store_watch_free(TAKE_PTR(b->watch));
	while (b->requests != NULL) {
		struct request *r = b->requests;

		request_unlink(b, r);
		r->b = NULL;
	}
	drop_subjects(b, &b->services);
	drop_subjects(b, &b->nodes);
	b->first = b->last = NULL;
	allocator_free(TAKE_PTR(b->allocator));
	scheduler_free(TAKE_PTR(b->scheduler));
	b->paused_until = 0;
	b->woken = false;
}

void brain_free(struct brain *b)
{
	if (b == NULL)
		return;
	brain_stop(b);
	free(b);
}

bool brain_running(const struct brain *b)
{
	return b->running;
}

bool brain_idle(const struct brain *b)
{
	return b->first == NULL && b->requests == NULL;
}

void brain_stats(const struct brain *b, struct brain_stats *ret)
{
	*ret = b->stats;
	ret->services_dirty = 0;
	for (const struct subject *x = b->first; x != NULL; x = x->next_queued)
		ret->services_dirty++;
	ret->unplaced = b->scheduler != NULL ? scheduler_waiting(b->scheduler) : 0;
}
