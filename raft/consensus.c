/* The interface to consensus, and the life around the engine.
 *
 * The happy path of a proposal: it joins the last waiting batch; on the next turn of the loop, or when the
 * batch before is through, its batch is sealed and goes to libraft as one entry; libraft writes it, commits
 * it and calls fsm.c, which applies it; then every proposer is called back, in order.
 *
 * At most one entry is under way. That is what gathers proposals into batches, and it is what keeps a failed
 * write simple: libraft 0.15 truncates its log at the entry that failed, which is right only for the last.
 *
 * What can go wrong:
 * - Leadership is lost: the entry under way and all that wait fail with ERR_UNAVAILABLE. Whether the one
 * under way takes effect is unknown; those that wait do not.
 * - The disk fails or is full: likewise with ERR_IO. The engine is closed and a new one opened, at once the
 * first time and then every few seconds, until one can write: it commits a barrier before anybody hears of
 * leadership. Nothing that was acknowledged can be lost by that, since it is acknowledged only after the
 * synchronous write of its entry; the entry whose write failed may be found on disk, and is then applied like
 * any other. The owner's state is kept: entries that it has are skipped. The process never exits over it.
 * - The log does not open after that: the same, with the reason in every refusal. */
#include <string.h>

#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "raft/internal.h"

#define BATCH_MAX  ((size_t)1024 * 1024)
#define QUEUE_MAX  ((size_t)64 * 1024 * 1024)
#define CLOSE_MS   5000
#define REOPEN_MIN 1000
#define REOPEN_MAX 10000

static void maybe_finish_close(struct consensus *c);
static void on_flush(uv_idle_t *h);

/* --- proposing ----------------------------------------------------------------------------------------- */

int consensus_propose(
    struct consensus *c, const void *p, size_t n, consensus_cb cb, void *data, struct err *e)
{
	if (c->closing)
		return err_set(e, ERR_UNAVAILABLE, "this node is shutting down");
	if (!c->leader) {
		if (c->last_err.code != 0)
			return err_set(
			    e, ERR_UNAVAILABLE, "the cluster state cannot be changed: %s", c->last_err.text);
		return err_set(e, ERR_UNAVAILABLE, "this node is not the leader of the cluster");
	}
	if (n > CONSENSUS_PAYLOAD_MAX)
		return err_set(e, ERR_TOO_LARGE, "a change of %zu bytes is over the limit of %u", n,
		    CONSENSUS_PAYLOAD_MAX);
	if (c->queued + n > QUEUE_MAX)
		return err_set(e, ERR_UNAVAILABLE, "too many changes are waiting to be written");
	if (c->tail == NULL || c->tail->plain.len + n > BATCH_MAX) {
		struct batch *b = batch_new(c);

		*(c->tail != NULL ? &c->tail->next : &c->head) = b;
		c->tail = b;
	}
	batch_add(c->tail, p, n, cb, data);
	c->queued += n;
	uv_idle_start(&c->flush, on_flush);
	return 0;
}

static void fail_waiting(struct consensus *c, const struct err *e)
{
	struct batch *b = c->head;

	c->head = c->tail = NULL;
	c->queued = 0;
	for (struct batch *next; b != NULL; b = next) {
		next = b->next;
		batch_finish(b, e->code, e);
	}
}

/* Which error the proposers of an entry see that libraft gave up on. */
static void describe(struct consensus *c, int rv, struct err *e)
{
	if (c->engine != NULL && c->engine->failed)
		err_set(e, c->engine->err.code == ERR_CORRUPT ? ERR_CORRUPT : ERR_IO,
		    "%s; the change may or may not have been made", c->engine->err.text);
	else if (rv == RAFT_LEADERSHIPLOST || rv == RAFT_NOTLEADER)
		err_set(e, ERR_UNAVAILABLE,
		    "leadership was lost while the change was under way; it may or may not have been made");
	else
		rengine_error(e, rv, "writing the log in", c->dir, NULL);
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
	struct batch *b = req->data;
	struct consensus *c = b->c;
	struct err e = ERR_INIT;

	(void)result;
	ASSERT(c->in_flight == b);
	c->in_flight = NULL;
	if (c->head != NULL)
		uv_idle_start(&c->flush, on_flush);
	if (status != 0)
		describe(c, status, &e);
	batch_finish(b, e.code, &e);
}

static void submit(struct consensus *c)
{
	struct batch *b = c->head;
	struct raft_buffer buf;
	struct err e = ERR_INIT;
	int rv;

	c->head = b->next;
	if (c->head == NULL)
		c->tail = NULL;
	b->next = NULL;
	c->queued -= b->bytes;
	rv = batch_seal(b, c->sealer, &buf);
	if (rv == 0) {
		c->in_flight = b;
		rv = raft_apply(&c->engine->raft, &b->req, &buf, 1, on_applied);
		if (rv != 0) {
			c->in_flight = NULL;
			raft_free(buf.base);
		}
	}
	if (rv != 0) {
		describe(c, rv, &e);
		batch_finish(b, e.code, &e);
	}
}

/* An idle handle rather than a deferred call: while it is active the loop does not sleep, and a turn that had
 * nothing to propose does nothing for it. */
static void on_flush(uv_idle_t *h)
{
	struct consensus *c = h->data;

	uv_idle_stop(h);
	if (c->head != NULL && c->in_flight == NULL && c->leader && c->engine != NULL && !c->engine->failed)
		submit(c);
}

/* --- who leads ----------------------------------------------------------------------------------------- */

static void on_barrier(struct raft_barrier *req, int status)
{
	struct consensus *c = req->data;

	c->barrier_busy = false;
	if (status != 0) {
		c->elected = false; /* looked at again on the next turn */
		return;
	}
	c->leader = true;
	c->reopen_ms = 0;
	if (c->last_err.code != 0)
		log_info("raft: %s takes writes again", c->dir);
	memset(&c->last_err, 0, sizeof(c->last_err));
	c->fsm.leader_changed(c->fsm.data, true);
}

static void follow_leadership(struct consensus *c)
{
	struct engine *en = c->engine;
	/* What waits may still go out while closing. */
	bool is = en != NULL && !en->closing && !en->failed && raft_state(&en->raft) == RAFT_LEADER;
	struct err e = ERR_INIT;

	if (is && !c->elected && !c->barrier_busy) {
		c->elected = true;
		c->barrier_busy = true;
		c->barrier.data = c;
		if (raft_barrier(&en->raft, &c->barrier, on_barrier) != 0) {
			c->barrier_busy = false;
			c->elected = false;
		}
	} else if (!is && (c->elected || c->leader)) {
		bool led = c->leader;

		c->elected = false;
		c->leader = false;
		err_set(&e, ERR_UNAVAILABLE, "leadership was lost before the change was written");
		if (en != NULL && en->failed)
			err_set(&e, ERR_IO, "%s", en->err.text);
		fail_waiting(c, &e);
		if (led)
			c->fsm.leader_changed(c->fsm.data, false);
	}
}

/* --- when the disk fails ---------------------------------------------------------------------------------
 */

static void note_disk(struct consensus *c, const struct err *e)
{
	if (strcmp(c->last_err.text, e->text) != 0)
		log_error(
		    "raft: %s; no change of the cluster state is accepted until this is mended", e->text);
	err_copy(&c->last_err, e);
}

static void schedule_reopen(struct consensus *c)
{
	timer_start(c->reopen, c->reopen_ms);
	c->reopen_ms = c->reopen_ms == 0 ? REOPEN_MIN : c->reopen_ms * 2;
	if (c->reopen_ms > REOPEN_MAX)
		c->reopen_ms = REOPEN_MAX;
}

static void on_engine_closed(struct engine *en)
{
	struct consensus *c = en->c;

	ASSERT(c->engine == en);
	c->engine = NULL;
	rengine_free(en);
	if (!c->closing)
		schedule_reopen(c);
}

static void on_reopen(void *data)
{
	struct consensus *c = data;
	struct err e = ERR_INIT;

	if (c->closing)
		return;
	if (rengine_open(c, false, &c->engine, &e) < 0) {
		note_disk(c, &e);
		if (c->engine != NULL)
			rengine_close(c->engine, on_engine_closed);
		else
			schedule_reopen(c);
	}
}

/* --- every turn of the loop --------------------------------------------------------------------------------
 */

static void on_turn(uv_prepare_t *h)
{
	struct consensus *c = h->data;
	struct engine *en = c->engine;

	follow_leadership(c);
	if (en != NULL && en->failed && !en->closing) {
		note_disk(c, &en->err);
		rengine_close(en, on_engine_closed);
	}
	if (c->closing && en != NULL && !en->closing) {
		bool busy = c->in_flight != NULL || c->head != NULL || c->barrier_busy;

		if (!busy || c->give_up)
			rengine_close(en, on_engine_closed);
	}
	if (en != NULL)
		rengine_turn(en);
	maybe_finish_close(c);
}

/* --- starting and closing --------------------------------------------------------------------------------
 */

static void on_handle_closed(uv_handle_t *h)
{
	struct consensus *c = h->data;

	if (--c->handles > 0)
		return;
	sealer_free(c->sealer);
	mem_wipe(c->key, sizeof(c->key));
	free(c->dir);
	free(c->address);
	if (c->closed != NULL)
		c->closed(c->closed_data);
	free(c);
}

static void maybe_finish_close(struct consensus *c)
{
	if (!c->closing || c->engine != NULL || c->closed_handles)
		return;
	ASSERT(c->head == NULL && c->in_flight == NULL);
	c->closed_handles = true;
	timer_free(c->reopen);
	timer_free(c->deadline);
	uv_close((uv_handle_t *)&c->flush, on_handle_closed);
	uv_close((uv_handle_t *)&c->turn, on_handle_closed);
}

static void on_deadline(void *data)
{
	struct consensus *c = data;

	c->give_up = true;
}

void consensus_close(struct consensus *c, void (*closed)(void *data), void *data)
{
	if (c->closing)
		return;
	c->closing = true;
	c->closed = closed;
	c->closed_data = data;
	timer_stop(c->reopen);
	/* Also makes the loop turn. */
	timer_start(c->deadline, CLOSE_MS);
	uv_idle_start(&c->flush, on_flush);
}

static int check_opts(const struct consensus_opts *o, struct err *e)
{
	struct uv_dirent_s ent;
	uv_fs_t req;
	int n;

	if (o->id == 0 || o->key == NULL || o->address == NULL)
		return err_set(e, ERR_INVALID, "a manager needs an id, an address and a data key");
	n = fs_mkdir_p(o->dir, 0700, e);
	if (n < 0)
		return n;
	if (!o->bootstrap)
		return 0;
	n = uv_fs_scandir(NULL, &req, o->dir, 0, NULL);
	if (n < 0)
		return err_uv(e, n, "reading %s", o->dir);
	n = uv_fs_scandir_next(&req, &ent);
	uv_fs_req_cleanup(&req);
	if (n != UV_EOF)
		return err_set(
		    e, ERR_CONFLICT, "cannot make a new cluster in %s: the directory is not empty", o->dir);
	return 0;
}

int consensus_start(uv_loop_t *loop, const struct consensus_opts *o, const struct consensus_fsm *fsm,
    struct consensus **ret, struct err *e)
{
	struct consensus *c;
	int r = check_opts(o, e);

	if (r < 0)
		return r;
	c = NEW(struct consensus);
	c->loop = loop;
	c->dir = xstrdup(o->dir);
	c->address = xstrdup(o->address);
	c->id = o->id;
	memcpy(c->key, o->key, SEAL_KEY_LEN);
	c->sealer = sealer_new(o->key);
	c->fsm = *fsm;
	c->threshold = o->snapshot_threshold ? o->snapshot_threshold : 10000;
	c->trailing = o->snapshot_trailing ? o->snapshot_trailing : 500;
	c->election_ms = o->election_ms ? o->election_ms : 1000;
	c->heartbeat_ms = o->heartbeat_ms ? o->heartbeat_ms : 100;
	c->reopen = timer_new(loop, on_reopen, c);
	c->deadline = timer_new(loop, on_deadline, c);
	c->flush.data = c->turn.data = c;
	c->handles = 2;
	r = uv_idle_init(loop, &c->flush);
	ASSERT(r == 0);
	uv_idle_start(&c->flush, on_flush); /* the first turn comes at once */
	r = uv_prepare_init(loop, &c->turn);
	ASSERT(r == 0);
	uv_prepare_start(&c->turn, on_turn);

	r = rengine_open(c, o->bootstrap, &c->engine, e);
	if (r < 0) {
		c->closing = true;
		if (c->engine != NULL)
			rengine_close(c->engine, on_engine_closed);
		return r;
	}
	*ret = c;
	return 0;
}

bool consensus_is_leader(const struct consensus *c)
{
	return c->leader;
}

uint64_t consensus_applied(const struct consensus *c)
{
	return c->applied;
}
