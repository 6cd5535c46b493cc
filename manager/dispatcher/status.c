/* What agents report: the observed state of their tasks, into the store in few transactions.
 *
 * Reports gather per task, the newest wins; once a turn of the loop they are committed in chunks. A chunk
 * that lost a race with another writer of one of its tasks (ERR_STALE) goes back and is tried again, with
 * smaller chunks, against what is there then. States only move forward: an older one is dropped. A batch is
 * acknowledged when nothing of it is left to commit. */
#include "manager/dispatcher/internal.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/pb.h"

struct chunk {
	struct dispatcher *d;
	struct strlist tasks;
};

static void commit_soon(struct dispatcher *d);

static void batch_less(struct dispatcher *d, struct status_batch *b)
{
	if (--b->left)
		return;
	const struct member *m = strmap_get(&d->members, b->node_id);
	if (m && m->session && strcmp(m->session->id, b->session_id) == 0) {
		Pb__ManagerMessage msg = PB__MANAGER_MESSAGE__INIT;
		Pb__StatusAck ack = PB__STATUS_ACK__INIT;
		ack.sequence = b->sequence;
		msg.ack = &ack;
		rpc_stream_send(m->session->stream, &msg);
	}
	free(b->node_id);
	free(b);
}

static void pending_free(struct dispatcher *d, struct pending_status *p)
{
	if (!p)
		return;
	pending_free(d, p->newer);
	pb_free(p->status);
	batch_less(d, p->batch);
	free(p);
}

static void put_pending(struct dispatcher *d, const char *task_id, struct pending_status *fresh)
{
	struct pending_status *p = strmap_get(&d->statuses, task_id);
	if (p && p->in_flight) {
		pending_free(d, p->newer);
		p->newer = fresh;
		return;
	}
	strmap_put(&d->statuses, task_id, fresh);
	pending_free(d, p);
}

void status_take(struct session *s, const Pb__TaskStatusBatch *b)
{
	struct dispatcher *d = s->d;
	struct status_batch *batch = NEW(struct status_batch);
	batch->node_id = xstrdup(s->member->node_id);
	memcpy(batch->session_id, s->id, sizeof(batch->session_id));
	batch->sequence = b->sequence;
	batch->left = 1; /* ours, until all are taken */
	for (size_t i = 0; i < b->n_updates; i++) {
		const Pb__TaskStatusUpdate *u = b->updates[i];
		const struct object *o = store_get(d->o.store, OBJ(TASK), u->task_id);
		/* A node speaks for its own tasks only. */
		if (!o || !u->status || !str_eq(o->task->node_id, s->member->node_id))
			continue;
		struct pending_status *p = NEW(struct pending_status);
		p->status = pb_clone(u->status);
		pb_set_str(&p->status->applied_by, s->member->node_id);
		p->batch = batch;
		batch->left++;
		put_pending(d, u->task_id, p);
	}
	batch_less(d, batch);
	commit_soon(d);
}

static void chunk_free(struct chunk *c)
{
	struct dispatcher *d = c->d;
	strlist_done(&c->tasks);
	free(c);
	dispatcher_release(d);
}

static void committed(void *data, int status, const struct err *e)
{
	struct chunk *c = data;
	struct dispatcher *d = c->d;
	bool again = status == ERR_STALE || status == ERR_NOT_FOUND;
	if (again)
		d->chunk = d->chunk > 1 ? d->chunk / 2 : 1;
	else if (status == 0)
		d->chunk = d->chunk * 2 > STATUS_CHUNK_MAX ? STATUS_CHUNK_MAX : d->chunk * 2;
	else if (status != ERR_UNAVAILABLE)
		log_error("the states of %zu tasks could not be stored: %s", c->tasks.n, e->text);
	for (size_t i = 0; i < c->tasks.n && d->running; i++) {
		struct pending_status *p = strmap_get(&d->statuses, c->tasks.v[i]);
		if (!p || !p->in_flight)
			continue;
		p->in_flight = false;
		if (again && !p->newer)
			continue;
		struct pending_status *newer = TAKE_PTR(p->newer);
		if (newer)
			strmap_put(&d->statuses, c->tasks.v[i], newer);
		else
			strmap_remove(&d->statuses, c->tasks.v[i]);
		pending_free(d, p);
	}
	if (d->running && strmap_len(&d->statuses))
		commit_soon(d);
	chunk_free(c);
}

/* The task as it becomes, or NULL when the report says nothing new. */
static Pb__Task *merge(const Pb__Task *t, const Pb__TaskStatus *st)
{
	if (st->state < t->status->state ||
	    (st->state == t->status->state && st->timestamp <= t->status->timestamp))
		return NULL;
	Pb__Task *n = pb_clone(t);
	Pb__PortStatus *ports = n->status->port_status;
	n->status->port_status = NULL;
	pb_free(n->status);
	n->status = pb_clone(st);
	if (!n->status->port_status)
		n->status->port_status = ports;
	else
		pb_free(ports);
	if (st->state == PB__TASK_STATE__E__RUNNING && !n->has_running_at) {
		n->has_running_at = true;
		n->running_at = st->timestamp;
	}
	return n;
}

/* One transaction; false when nothing is left to propose. */
static bool commit_chunk(struct dispatcher *d)
{
	struct chunk *c = NEW(struct chunk);
	struct txn *t = txn_new();
	struct strlist done = STRLIST_INIT;
	const char *id;
	void *v;
	struct err e = ERR_INIT;
	c->d = d;
	d->in_flight++;
	for (size_t it = 0; c->tasks.n < d->chunk && strmap_next(&d->statuses, &it, &id, &v);) {
		struct pending_status *p = v;
		if (p->in_flight)
			continue;
		const struct object *o = store_get(d->o.store, OBJ(TASK), id);
		Pb__Task *n = o ? merge(o->task, p->status) : NULL;
		if (!n) {
			strlist_add(&done, id);
			continue;
		}
		p->in_flight = true;
		txn_update(t, OBJ(TASK), n);
		strlist_add(&c->tasks, id);
	}
	for (size_t i = 0; i < done.n; i++)
		pending_free(d, strmap_remove(&d->statuses, done.v[i]));
	strlist_done(&done);
	bool proposed = c->tasks.n > 0;
	if (!proposed)
		chunk_free(c);
	else if (d->o.propose(d->o.data, t, committed, c, &e) != 0)
		committed(c, e.code, &e);
	txn_free(t);
	return proposed && !e.code;
}

static void commit(void *data)
{
	struct dispatcher *d = data;
	d->commit_queued = false;
	while (d->running && commit_chunk(d))
		;
	dispatcher_release(d);
}

static void commit_soon(struct dispatcher *d)
{
	if (d->commit_queued || !d->running || strmap_len(&d->statuses) == 0)
		return;
	d->commit_queued = true;
	d->in_flight++;
	loop_defer(d->o.loop, commit, d);
}

void status_reset(struct dispatcher *d)
{
	struct strmap m = d->statuses;
	void *v;
	d->statuses = (struct strmap)STRMAP_INIT;
	for (size_t it = 0; strmap_next(&m, &it, NULL, &v);)
		pending_free(d, v);
	strmap_done(&m);
}
