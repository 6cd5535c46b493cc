/* What agents report: the observed state of their tasks, into the store in few transactions.
 *
 * Reports gather per task, the newest wins; once a turn of the loop they are committed in chunks. A chunk
 * that lost a race with another writer of one of its tasks (ERR_STALE) goes back and is tried again, with
 * smaller chunks, against what is there then. States only move forward, and an end is final: anything else is
 * dropped. A batch is acknowledged when nothing of it, and of those before it, is left to commit; when
 * something of it could not be committed the session is ended instead, and the agent reports again in the
 * next. */
#include "manager/dispatcher/internal.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"

/* One status batch of a session, until nothing is left of it. */
struct status_batch {
	struct session *session;   /* NULL: ended */
	struct status_batch *next; /* of the session, in order */
	uint64_t sequence;
	size_t left;
	bool failed;
};

/* The newest report of a task. Queued, or in a chunk that is being committed; then what comes meanwhile waits
 * in newer_*. */
struct report {
	char *task_id;
	Pb__TaskStatus *status, *newer_status;
	struct status_batch *batch, *newer_batch;
	bool in_flight;
	struct report *next; /* in the queue */
};

struct statuses {
	struct strmap reports; /* task id -> struct report */
	struct report *first, **tail;
	size_t chunk;   /* reports a transaction */
	unsigned epoch; /* chunks of an earlier leadership are strangers */
	bool commit_queued;
};

struct chunk {
	struct dispatcher *d;
	unsigned epoch;
	size_t n;
	struct report *v[STATUS_CHUNK_MAX];
};

static void commit_soon(struct dispatcher *d);

struct statuses *statuses_new(void)
{
	struct statuses *ss = NEW(struct statuses);
	ss->tail = &ss->first;
	ss->chunk = STATUS_CHUNK_MAX;
	return ss;
}

void statuses_free(struct statuses *ss)
{
	strmap_done(&ss->reports);
	free(ss);
}

/* --- batches */

/* Acknowledges what is complete, in order: the agent takes a number as "up to here". */
static void acknowledge(struct session *s)
{
	uint64_t upto = 0;
	bool any = false;
	while (s->batches && s->batches->left == 0 && !s->doomed) {
		struct status_batch *b = s->batches;
		s->batches = b->next;
		upto = b->sequence;
		any = true;
		free(b);
	}
	if (!any)
		return;
	Pb__ManagerMessage msg = PB__MANAGER_MESSAGE__INIT;
	Pb__StatusAck ack = PB__STATUS_ACK__INIT;
	ack.sequence = upto;
	msg.ack = &ack;
	rpc_stream_send(s->stream, &msg);
}

static void batch_less(struct status_batch *b)
{
	struct session *s = b->session;
	b->left--;
	if (!s && b->left == 0) {
		free(b);
	} else if (s && b->failed) {
		s->doomed = true;
		assign_mark(s);
	} else if (s && b->left == 0) {
		acknowledge(s);
	}
}

void status_session_done(struct session *s)
{
	struct status_batch *next;
	for (struct status_batch *b = s->batches; b; b = next) {
		next = b->next;
		b->session = NULL;
		b->next = NULL;
		if (b->left == 0)
			free(b);
	}
	s->batches = NULL;
}

/* --- reports */

static void enqueue(struct statuses *ss, struct report *r)
{
	r->next = NULL;
	*ss->tail = r;
	ss->tail = &r->next;
}

static struct report *dequeue(struct statuses *ss)
{
	struct report *r = ss->first;
	ss->first = r->next;
	if (!ss->first)
		ss->tail = &ss->first;
	return r;
}

static void report_free(struct dispatcher *d, struct report *r)
{
	strmap_remove(&d->statuses->reports, r->task_id);
	if (r->newer_batch)
		batch_less(r->newer_batch);
	batch_less(r->batch);
	pb_free(r->status);
	pb_free(r->newer_status);
	free(r->task_id);
	free(r);
}

/* Takes the status. */
static void put(struct dispatcher *d, const char *task_id, Pb__TaskStatus *st, struct status_batch *b)
{
	struct statuses *ss = d->statuses;
	struct report *r = strmap_get(&ss->reports, task_id);
	b->left++;
	if (!r) {
		r = NEW(struct report);
		r->task_id = xstrdup(task_id);
		r->status = st;
		r->batch = b;
		strmap_put(&ss->reports, task_id, r);
		enqueue(ss, r);
		return;
	}
	Pb__TaskStatus **status = r->in_flight ? &r->newer_status : &r->status;
	struct status_batch **batch = r->in_flight ? &r->newer_batch : &r->batch;
	struct status_batch *old = *batch;
	pb_free(*status);
	*status = st;
	*batch = b;
	if (old)
		batch_less(old);
}

static void clip(char **s, size_t max)
{
	if (*s && strlen(*s) > max)
		(*s)[max] = 0;
}

/* A copy that fits into the log whatever the agent sent; NULL when it makes no sense. */
static Pb__TaskStatus *checked(const Pb__TaskStatus *st, const char *node_id, int64_t now)
{
	if (!protobuf_c_enum_descriptor_get_value(&pb__task_state__e__descriptor, (int)st->state))
		return NULL;
	Pb__TaskStatus *n = pb_clone(st);
	pb_set_str(&n->applied_by, node_id);
	n->has_applied_at = true;
	n->applied_at = now;
	if (protobuf_c_message_get_packed_size(&n->base) > STATUS_MAX) {
		clip(&n->message, 1024);
		clip(&n->err, 4096);
		pb_free(TAKE_PTR(n->port_status));
		if (n->container_status)
			clip(&n->container_status->container_id, 128);
	}
	return n;
}

void status_take(struct session *s, const Pb__TaskStatusBatch *b)
{
	struct dispatcher *d = s->d;
	struct status_batch *batch = NEW(struct status_batch), **p = &s->batches;
	batch->session = s;
	batch->sequence = b->sequence;
	batch->left = 1; /* ours, until all are taken */
	while (*p)       /* a few: agents wait for acknowledgements */
		p = &(*p)->next;
	*p = batch;
	int64_t now = clock_unix_ns(d->o.clock);
	for (size_t i = 0; i < b->n_updates; i++) {
		const Pb__TaskStatusUpdate *u = b->updates[i];
		const struct object *o = store_get(d->o.store, OBJ(TASK), u->task_id);
		/* A node speaks for its own tasks only. */
		if (!o || !str_eq(o->task->node_id, s->member->node_id))
			continue;
		Pb__TaskStatus *st = checked(u->status, s->member->node_id, now);
		if (st)
			put(d, u->task_id, st, batch);
	}
	batch_less(batch);
	commit_soon(d);
}

/* --- committing */

/* The task as it becomes, or NULL when the report says nothing new. */
static Pb__Task *merge(const Pb__Task *t, const Pb__TaskStatus *st)
{
	const Pb__TaskStatus *was = t->status;
	if (st->state < was->state || was->state >= PB__TASK_STATE__E__COMPLETE ||
	    (st->state == was->state && st->timestamp <= was->timestamp))
		return NULL;
	Pb__Task *n = pb_clone(t);
	Pb__PortStatus *ports = TAKE_PTR(n->status->port_status);
	pb_free(n->status);
	n->status = pb_clone(st);
	if (!n->status->port_status)
		n->status->port_status = ports;
	else
		pb_free(ports);
	if (st->state == PB__TASK_STATE__E__RUNNING && !n->has_running_at) {
		n->has_running_at = true;
		n->running_at = st->applied_at;
	}
	return n;
}

/* One report's commit has an outcome. */
static void settle(struct dispatcher *d, struct report *r, bool again, bool failed)
{
	r->in_flight = false;
	if (r->newer_status) {
		struct status_batch *old = r->batch;
		pb_free(r->status);
		r->status = TAKE_PTR(r->newer_status);
		r->batch = TAKE_PTR(r->newer_batch);
		enqueue(d->statuses, r);
		old->failed = old->failed || failed;
		batch_less(old);
	} else if (again) {
		enqueue(d->statuses, r);
	} else {
		r->batch->failed = r->batch->failed || failed;
		report_free(d, r);
	}
}

static void on_committed(void *data, int status, const struct err *e)
{
	struct chunk *c = data;
	struct dispatcher *d = c->d;
	struct statuses *ss = d->statuses;
	if (c->epoch == ss->epoch) {
		bool again = status == ERR_STALE || status == ERR_NOT_FOUND;
		if (again)
			ss->chunk = c->n > 1 ? c->n / 2 : 1;
		else if (status == 0)
			ss->chunk = ss->chunk * 2 > STATUS_CHUNK_MAX ? STATUS_CHUNK_MAX : ss->chunk * 2;
		else
			log_warn("the states of %zu tasks could not be stored: %s", c->n, e->text);
		for (size_t i = 0; i < c->n && c->epoch == ss->epoch; i++)
			settle(d, c->v[i], again, status != 0 && !again);
		commit_soon(d);
	}
	free(c);
	dispatcher_release(d);
}

static void commit_chunk(struct dispatcher *d)
{
	struct statuses *ss = d->statuses;
	struct chunk *c = NEW(struct chunk);
	struct txn *t = txn_new();
	c->d = d;
	c->epoch = ss->epoch;
	while (ss->first && c->n < ss->chunk) {
		struct report *r = dequeue(ss);
		const struct object *o = store_get(d->o.store, OBJ(TASK), r->task_id);
		Pb__Task *n = o ? merge(o->task, r->status) : NULL;
		if (!n) {
			report_free(d, r);
			continue;
		}
		r->in_flight = true;
		txn_update(t, OBJ(TASK), n);
		c->v[c->n++] = r;
	}
	struct err e = ERR_INIT;
	d->in_flight++;
	int r = c->n ? d->o.propose(d->o.data, t, on_committed, c, &e) : 0;
	txn_free(t);
	if (r) {
		on_committed(c, r == ERR_STALE || r == ERR_NOT_FOUND ? ERR_INTERNAL : r, &e);
	} else if (c->n == 0) {
		free(c);
		dispatcher_release(d);
	}
}

static void commit(void *data)
{
	struct dispatcher *d = data;
	d->statuses->commit_queued = false;
	while (d->running && d->statuses->first)
		commit_chunk(d);
	dispatcher_release(d);
}

static void commit_soon(struct dispatcher *d)
{
	struct statuses *ss = d->statuses;
	if (ss->commit_queued || !d->running || !ss->first)
		return;
	ss->commit_queued = true;
	d->in_flight++;
	loop_defer(d->o.loop, commit, d);
}

void status_reset(struct dispatcher *d)
{
	struct statuses *ss = d->statuses;
	void *v;
	ss->epoch++;
	ss->first = NULL;
	ss->tail = &ss->first;
	for (size_t it = 0; strmap_next(&ss->reports, &it, NULL, &v);)
		report_free(d, v);
}
