/* One life of a libraft instance on a directory.
 *
 * The happy path: open, be driven by the loop, close when nothing is being written.
 *
 * The disk fails: raft_uv 0.15 notes an error but goes on writing behind it, which after a failed write puts
 * the next entry at the wrong place in its segment; and it forgets a write that failed to start while still
 * holding its request. So every append passes through a guard here. After the first that fails, none goes
 * through any more, and all that is left to do with the instance is to close it and to open
 * another one, which reads back what is really on disk (consensus.c does).
 *
 * Its automatic recovery is off: it renames damaged segments away and starts with a shorter log, that
 * is, without writes that were acknowledged. A log that is torn at its end by a crash is not damage in this
 * sense and is always accepted.
 *
 * Closing while a write is under way is marked as broken in libraft's own tests, hence: refuse, drain, close.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "raft/internal.h"

/* Stands between libraft's append request and raft_uv's. */
struct guard {
	struct raft_io_append req;
	struct raft_io_append *theirs;
	struct engine *en;
	bool stuck; /* it failed to start: libraft has freed its part */
	struct guard *next;
};

int rengine_error(struct err *e, int rv, const char *what, const char *dir, const char *detail)
{
	const char *sep = detail != NULL && detail[0] != '\0' ? ": " : "";
	const char *more = *sep ? detail : "";
	const char *why = raft_strerror(rv);
	int code;

	switch (rv) {
	case RAFT_CORRUPT:
	case RAFT_MALFORMED:
		code = ERR_CORRUPT;
		break;
	case RAFT_NOTLEADER:
	case RAFT_LEADERSHIPLOST:
	case RAFT_SHUTDOWN:
	case RAFT_CANCELED:
	case RAFT_NOCONNECTION:
		code = ERR_UNAVAILABLE;
		break;
	case RAFT_CANTBOOTSTRAP:
		code = ERR_CONFLICT;
		break;
	case RAFT_NAMETOOLONG:
		code = ERR_INVALID;
		break;
	case RAFT_NOSPACE:
		why = "no space left on the disk"; /* libraft has no word for it */
		code = ERR_IO;
		break;
	default:
		code = ERR_IO;
	}
	return err_set(e, code, "%s %s: %s%s%s", what, dir, why, sep, more);
}

void rengine_fail(struct engine *en, int code, const char *text)
{
	if (en->failed)
		return;
	en->failed = true;
	err_set(&en->err, code, "%s", text);
}

static void fail_write(struct engine *en, int rv)
{
	struct err e = ERR_INIT;

	/* Cancelled by our own closing. */
	if (en->closing && rv == RAFT_CANCELED)
		return;
	rengine_error(&e, rv, "writing the log in", en->c->dir, en->io.errmsg);
	rengine_fail(en, e.code, e.text);
}

static void append_done(struct raft_io_append *req, int status)
{
	struct guard *g = CONTAINER_OF(req, struct guard, req);
	struct raft_io_append *theirs = g->theirs;

	if (g->stuck)
		return; /* freed with the engine */
	g->en->appends--;
	if (status != 0)
		fail_write(g->en, status);
	free(g);
	theirs->cb(theirs, status);
}

static int guarded_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
    unsigned n, raft_io_append_cb cb)
{
	struct engine *en = CONTAINER_OF(io, struct engine, io);
	struct guard *g;
	int rv;

	if (en->failed || en->closing)
		return RAFT_SHUTDOWN;
	g = NEW(struct guard);
	g->en = en;
	g->theirs = req;
	req->cb = cb;
	en->appends++;
	rv = en->append(io, &g->req, entries, n, append_done);
	if (rv != 0) {
		en->appends--;
		g->stuck = true;
		g->next = en->stuck;
		en->stuck = g;
		fail_write(en, rv);
	}
	return rv;
}

static int bootstrap(struct engine *en, struct err *e)
{
	struct raft_configuration conf;
	int rv;

	raft_configuration_init(&conf);
	rv = raft_configuration_add(&conf, en->c->id, en->c->address, RAFT_VOTER);
	if (rv == 0)
		rv = raft_bootstrap(&en->raft, &conf);
	raft_configuration_close(&conf);
	if (rv != 0)
		return rengine_error(e, rv, "making a new log in", en->c->dir, en->io.errmsg);
	return 0;
}

/* A cluster of one whose log is shorter than what it has applied has lost its disk under it. */
static int check_not_shorter(struct engine *en, struct err *e)
{
	unsigned voters = 0;

	for (unsigned i = 0; i < en->raft.configuration.n; i++)
		voters += en->raft.configuration.servers[i].role == RAFT_VOTER;
	if (voters > 1 || raft_last_index(&en->raft) >= en->c->applied)
		return 0;
	return err_set(e, ERR_CORRUPT, "the log in %s ends at %llu, but %llu was applied: was it replaced?",
	    en->c->dir, raft_last_index(&en->raft), en->c->applied);
}

int rengine_open(struct consensus *c, bool boot, struct engine **ret_en, struct err *e)
{
	struct engine *en = NEW(struct engine);
	int rv;

	en->c = c;
	transport_init(&en->transport, c->loop);
	fsm_init(&en->fsm);
	rv = raft_uv_init(&en->io, c->loop, c->dir, &en->transport.uv);
	if (rv != 0) {
		rv = rengine_error(e, rv, "opening", c->dir, en->io.errmsg);
		free(en);
		return rv;
	}
	/* It has async_work, but says that it has not. */
	en->io.version = 2;
	en->append = en->io.append;
	en->io.append = guarded_append;
	raft_uv_set_auto_recovery(&en->io, false);
	raft_uv_set_snapshot_compression(&en->io, false); /* sealed bytes do not shrink */
	rv = raft_init(&en->raft, &en->io, &en->fsm, c->id, c->address);
	if (rv != 0) {
		rv = rengine_error(e, rv, "opening", c->dir, en->io.errmsg);
		raft_uv_close(&en->io);
		free(en);
		return rv;
	}
	en->fsm.data = en;
	*ret_en = en; /* has handles on the loop from here on */
	raft_set_election_timeout(&en->raft, c->election_ms);
	raft_set_heartbeat_timeout(&en->raft, c->heartbeat_ms);
	raft_set_snapshot_threshold(&en->raft, c->threshold);
	raft_set_snapshot_trailing(&en->raft, c->trailing);
	raft_set_pre_vote(&en->raft, true);
	if (boot) {
		int r = bootstrap(en, e);

		if (r < 0)
			return r;
	}
	rv = raft_start(&en->raft);
	if (en->failed) /* what an entry or a snapshot had to say is better than libraft's code */
		return err_copy(e, &en->err);
	if (rv != 0)
		return rengine_error(e, rv, "loading the log in", c->dir, en->io.errmsg);
	return check_not_shorter(en, e);
}

static void on_raft_closed(struct raft *r)
{
	struct engine *en = CONTAINER_OF(r, struct engine, raft);

	en->closed(en);
}

void rengine_close(struct engine *en, void (*closed)(struct engine *en))
{
	ASSERT(!en->closing);
	en->closing = true;
	en->closed = closed;
}

void rengine_turn(struct engine *en)
{
	if (!en->closing || en->raft_closed || en->appends > 0)
		return;
	if (en->raft.snapshot.pending.term != 0 || en->raft.snapshot.put.data != NULL)
		return;
	en->raft_closed = true;
	raft_close(&en->raft, on_raft_closed);
}

void rengine_free(struct engine *en)
{
	for (struct guard *g = en->stuck, *next; g != NULL; g = next) {
		next = g->next;
		free(g);
	}
	raft_uv_close(&en->io);
	free(en);
}
