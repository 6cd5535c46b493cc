/* Log subscriptions of a manager: for each task that it names, a reader of the container's log; lines go out
 * in batches.
 *
 * While more than OUT_HIGH bytes wait on the session, readers are paused, and those of a subscription while
 * the manager says so: a slow reader at the far end never makes memory grow. When every reader has ended
 * (never, while following a running container), the end is told. */
#include "agent/agent_private.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"

#define BATCH_LINES       256
#define BATCH_BYTES       (64u * 1024)
#define OUT_HIGH          (1024u * 1024)
#define SUBSCRIPTIONS_MAX 1024
#define READERS_MAX       1024

struct reader {
	struct subscription *sub;
	char *task_id;
	struct log_reader *r; /* NULL once ended */
};
struct subscription {
	struct task_logs *logs;
	char *id;
	struct reader *readers;
	size_t n_readers, running;
	Pb__LogBatch batch;
	size_t batch_bytes;
	bool flush_queued, dead, paused;
	struct log_reader_opts opts;
};
struct task_logs {
	struct agent *agent;
	struct strmap subs;
	bool paused;
};

struct task_logs *task_logs_new(struct agent *a)
{
	struct task_logs *l = NEW(struct task_logs);
	l->agent = a;
	return l;
}

static void clear_batch(struct subscription *s)
{
	for (size_t i = 0; i < s->batch.n_lines; i++)
		pb_free(s->batch.lines[i]);
	free(s->batch.lines);
	pb__log_batch__init(&s->batch);
	s->batch_bytes = 0;
}

static void sub_release(struct subscription *s)
{
	if (s->flush_queued)
		return; /* the flush that is under way frees it */
	clear_batch(s);
	free(s->readers);
	free(s->id);
	free(s);
}

static void sub_end(struct subscription *s)
{
	for (size_t i = 0; i < s->n_readers; i++) {
		if (s->readers[i].r)
			log_reader_close(s->readers[i].r);
		free(s->readers[i].task_id);
	}
	s->n_readers = 0;
	s->dead = true;
	strmap_remove(&s->logs->subs, s->id);
	sub_release(s);
}

/* Readers rest while either the session or the one who asked does not keep up. */
static void apply_pause(struct subscription *s)
{
	for (size_t i = 0; i < s->n_readers; i++)
		if (s->readers[i].r)
			log_reader_pause(s->readers[i].r, s->paused || s->logs->paused);
}

static void pause_all(struct task_logs *l, bool paused)
{
	void *v;
	l->paused = paused;
	for (size_t it = 0; strmap_next(&l->subs, &it, NULL, &v);)
		apply_pause(v);
}

static void send_batch(struct subscription *s, bool end)
{
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	s->batch.subscription_id = s->id;
	s->batch.has_end = s->batch.end = end;
	m.logs = &s->batch;
	size_t waiting = session_send(s->logs->agent->session, &m);
	clear_batch(s);
	if (waiting > OUT_HIGH && !s->logs->paused)
		pause_all(s->logs, true);
}

static void flush(void *data)
{
	struct subscription *s = data;
	s->flush_queued = false;
	if (s->dead) {
		sub_release(s);
		return;
	}
	bool end = s->running == 0;
	if (s->batch.n_lines || end)
		send_batch(s, end);
	if (end)
		sub_end(s);
}

static void flush_soon(struct subscription *s)
{
	if (s->flush_queued)
		return;
	s->flush_queued = true;
	loop_defer(s->logs->agent->loop, flush, s);
}

static void on_line(void *data, int64_t time_ns, int stream, const uint8_t *p, size_t n)
{
	struct reader *r = data;
	struct subscription *s = r->sub;
	Pb__LogLine *line = PB_NEW(Pb__LogLine, pb__log_line);
	line->task_id = xstrdup(r->task_id);
	line->timestamp = time_ns;
	line->stream = (uint32_t)stream;
	line->data.data = xmemdup(p, n);
	line->data.len = n;
	pb_add_msg(&s->batch.lines, &s->batch.n_lines, line);
	s->batch_bytes += n + 64;
	if (s->batch.n_lines >= BATCH_LINES || s->batch_bytes >= BATCH_BYTES)
		send_batch(s, false);
	else
		flush_soon(s);
}

static void on_end(void *data, const struct err *e)
{
	struct reader *r = data;
	struct subscription *s = r->sub;
	if (e->code)
		log_warn("the log of task %s could not be read to its end: %s", r->task_id, e->text);
	log_reader_close(r->r);
	r->r = NULL;
	s->running--;
	flush_soon(s);
}

static void start_readers(struct subscription *s, const Pb__LogSubscribe *q)
{
	struct agent *a = s->logs->agent;
	s->readers = xcalloc(q->n_task_ids ? q->n_task_ids : 1, sizeof(*s->readers));
	for (size_t i = 0; i < q->n_task_ids && i < READERS_MAX; i++) {
		const struct task *t = strmap_get(&a->tasks, q->task_ids[i]);
		if (!t || !t->container_id)
			continue;
		struct reader *r = &s->readers[s->n_readers];
		struct err e = ERR_INIT;
		r->sub = s;
		r->task_id = xstrdup(t->id);
		if (log_reader_start(a->engine, t->container_id, &s->opts, on_line, on_end, r, &r->r, &e) !=
		    0) {
			log_warn("the log of task %s cannot be read: %s", t->id, e.text);
			free(r->task_id);
			continue;
		}
		s->n_readers++;
		s->running++;
		if (s->logs->paused)
			log_reader_pause(r->r, true);
	}
}

void task_logs_request(struct task_logs *l, const Pb__LogSubscribe *q)
{
	struct subscription *s = strmap_get(&l->subs, q->subscription_id);
	if (q->has_cancel && q->cancel) {
		if (s)
			sub_end(s);
		return;
	}
	if (q->has_pause) {
		if (s) {
			s->paused = q->pause;
			apply_pause(s);
		}
		return;
	}
	if (s || strmap_len(&l->subs) >= SUBSCRIPTIONS_MAX)
		return;
	s = NEW(struct subscription);
	s->logs = l;
	s->id = xstrdup(q->subscription_id);
	pb__log_batch__init(&s->batch);
	s->opts = (struct log_reader_opts){
	    .follow = q->has_follow && q->follow,
	    .want_stdout = q->has_want_stdout && q->want_stdout,
	    .want_stderr = q->has_want_stderr && q->want_stderr,
	    .tail = q->has_tail ? q->tail : -1,
	    .since_ns = q->has_since ? q->since : 0,
	};
	strmap_put(&l->subs, s->id, s);
	start_readers(s, q);
	flush_soon(s);
}

void task_logs_drained(struct task_logs *l)
{
	if (l->paused)
		pause_all(l, false);
}

void task_logs_reset(struct task_logs *l)
{
	struct strlist ids = STRLIST_INIT;
	const char *id;
	for (size_t it = 0; strmap_next(&l->subs, &it, &id, NULL);)
		strlist_add(&ids, id);
	for (size_t i = 0; i < ids.n; i++)
		sub_end(strmap_get(&l->subs, ids.v[i]));
	strlist_done(&ids);
	l->paused = false;
}

void task_logs_free(struct task_logs *l)
{
	if (!l)
		return;
	task_logs_reset(l);
	strmap_done(&l->subs);
	free(l);
}
