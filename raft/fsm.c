/* What libraft calls back for: applying entries, taking and restoring snapshots.
 *
 * Applying: an entry is opened, and each of its payloads goes to the owner. Outcomes of an entry that was
 * proposed here go to its proposers; that the owner refuses a payload is an outcome, not a failure. What does
 * not open (another key, damage) is a failure: this engine stops, and consensus.c says why.
 *
 * Entries and snapshots at or before consensus.applied are skipped: an engine that was opened again after
 * a disk error replays what the owner has already.
 *
 * A snapshot is frozen on the loop, packed and sealed in place on a worker thread, written by raft_uv on
 * another. One is taken after so many entries (raft's threshold), or when the log since the last has grown
 * past the larger of LOG_BYTES and the last snapshot; never sooner after the last attempt than five times
 * what that one took, so that a large state or a full disk does not keep us busy with nothing else. */
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "raft/internal.h"

#define LOG_BYTES   ((size_t)8 * 1024 * 1024) /* libraft holds them in memory, too */
#define CHUNK       ((size_t)4 * 1024 * 1024)
#define MAGIC       "SHOALSN1"
#define HEAD_LEN    16
#define PAUSE_MIN   NS_PER_SEC
#define PAUSE_TIMES 5

struct chunk_aad {
	char what[16];
	uint8_t index[8];
	uint8_t number[4];
	uint8_t last;
};

static void put_be(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static uint64_t get_be(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

/* A chunk is bound to its snapshot, its place in it, and whether it is the last. */
static struct chunk_aad chunk_aad(uint64_t index, size_t number, bool last)
{
	struct chunk_aad a = {.what = "shoal snapshot"};

	put_be(a.index, 8, index);
	put_be(a.number, 4, number);
	a.last = last;
	return a;
}

/* --- applying ------------------------------------------------------------------------------------------ */

struct applying {
	struct consensus *c;
	struct batch *mine;
	uint64_t index;
};

static void apply_payload(void *data, size_t i, const uint8_t *p, size_t n)
{
	struct applying *a = data;
	struct err e = ERR_INIT;
	int status = a->c->fsm.apply(a->c->fsm.data, a->index, p, n, &e);

	if (a->mine == NULL)
		return;
	ASSERT(i < a->mine->n);
	a->mine->v[i].status = status;
	if (status != 0)
		a->mine->v[i].err = xmemdup(&e, sizeof(e));
}

static int stop(struct engine *en, struct err *e, const char *what, uint64_t index)
{
	err_wrap(e, "%s: %s %llu", en->c->dir, what, (unsigned long long)index);
	rengine_fail(en, e->code, e->text);
	return RAFT_CORRUPT;
}

static void note_log_growth(struct engine *en, size_t bytes)
{
	struct consensus *c = en->c;
	size_t limit = c->snapshot_bytes > LOG_BYTES ? c->snapshot_bytes : LOG_BYTES;

	c->log_bytes += bytes;
	c->log_entries++;
	if (c->log_bytes > limit)
		raft_set_snapshot_threshold(&en->raft, 1);
}

static int on_apply(struct raft_fsm *f, const struct raft_buffer *buf, void **result)
{
	struct engine *en = f->data;
	struct consensus *c = en->c;
	/* libraft 0.15 does not say which entry this is, but moves last_applied right after. */
	struct applying a = {c, NULL, raft_last_applied(&en->raft) + 1};
	CLEANUP_BUF struct buf plain = BUF_INIT;
	const struct buf *entry = &plain;
	struct err e = ERR_INIT;
	int r = 0;

	*result = NULL;
	note_log_growth(en, buf->len);
	if (a.index <= c->applied)
		return 0;
	if (c->in_flight != NULL && c->in_flight->req.index == a.index &&
	    raft_state(&en->raft) == RAFT_LEADER) {
		a.mine = c->in_flight;
		entry = &a.mine->plain;
	} else {
		r = entry_unseal(c->sealer, buf, &plain, &e);
	}
	if (r == 0)
		r = entry_each((const uint8_t *)entry->data, entry->len, apply_payload, &a, &e);
	if (plain.data != NULL)
		mem_wipe(plain.data, plain.len);
	if (r < 0)
		return stop(en, &e, "log entry", a.index);
	c->applied = a.index;
	return 0;
}

/* --- taking a snapshot --------------------------------------------------------------------------------- */

static int on_snapshot(struct raft_fsm *f, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct engine *en = f->data;
	struct consensus *c = en->c;
	struct snapshot_job *j = &en->job;
	uint64_t keep = c->trailing;

	if (en->failed || en->closing || uv_hrtime() < c->snapshot_not_before_ns)
		return RAFT_BUSY;
	/* The entries that stay behind the snapshot are bounded in bytes too. */
	if (c->log_entries > 0 && c->log_bytes / c->log_entries > 0 &&
	    keep > LOG_BYTES / (c->log_bytes / c->log_entries))
		keep = LOG_BYTES / (c->log_bytes / c->log_entries);
	raft_set_snapshot_trailing(&en->raft, keep > 0 ? (unsigned)keep : 1);
	raft_set_snapshot_threshold(&en->raft, c->threshold);
	c->log_bytes = c->log_entries = 0;

	memset(j, 0, sizeof(*j));
	j->started_ns = uv_hrtime();
	j->index = raft_last_applied(&en->raft);
	j->sealer = sealer_new(c->key);
	j->frozen = c->fsm.freeze(c->fsm.data);
	*bufs = NULL;
	*n_bufs = 0;
	return 0;
}

/* On a worker thread: touches the job only. */
static int on_snapshot_async(struct raft_fsm *f, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct engine *en = f->data;
	struct snapshot_job *j = &en->job;
	struct raft_buffer *v;
	size_t chunks;

	en->c->fsm.pack(j->frozen, &j->plain);
	if (j->plain.len > LIMIT_RAFT_SNAPSHOT)
		return RAFT_TOOBIG;
	chunks = j->plain.len / CHUNK + 1; /* the last may be empty */
	j->frames = xcalloc(chunks, sizeof(*j->frames));
	j->lengths = xcalloc(chunks, 4);
	v = xcalloc(1 + 4 * chunks, sizeof(*v));
	memcpy(j->head, MAGIC, 8);
	put_be(j->head + 8, 8, j->index);
	v[0] = (struct raft_buffer){j->head, HEAD_LEN};
	for (size_t i = 0; i < chunks; i++) {
		struct chunk_aad aad = chunk_aad(j->index, i, i + 1 == chunks);
		uint8_t *p = (uint8_t *)j->plain.data + i * CHUNK;
		size_t n = i + 1 < chunks ? CHUNK : j->plain.len - i * CHUNK;
		struct seal_frame *fr = &j->frames[i];
		struct raft_buffer *b = &v[1 + 4 * i];

		seal(j->sealer, &aad, sizeof(aad), p, n, p, fr);
		put_be(j->lengths + 4 * i, 4, fr->head_len + n + SEAL_TAG_LEN);
		b[0] = (struct raft_buffer){j->lengths + 4 * i, 4};
		b[1] = (struct raft_buffer){fr->head, fr->head_len};
		b[2] = (struct raft_buffer){p, n};
		b[3] = (struct raft_buffer){fr->tag, SEAL_TAG_LEN};
	}
	*bufs = v;
	*n_bufs = (unsigned)(1 + 4 * chunks);
	return 0;
}

static int on_snapshot_finalize(struct raft_fsm *f, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct engine *en = f->data;
	struct consensus *c = en->c;
	struct snapshot_job *j = &en->job;
	uint64_t now = uv_hrtime(), pause = (now - j->started_ns) * PAUSE_TIMES;

	c->snapshot_bytes = j->plain.len;
	c->snapshot_not_before_ns = now + (pause > PAUSE_MIN ? pause : PAUSE_MIN);
	c->fsm.release(j->frozen);
	sealer_free(j->sealer);
	buf_done(&j->plain);
	free(j->frames);
	free(j->lengths);
	free(*bufs);
	memset(j, 0, sizeof(*j));
	*bufs = NULL;
	*n_bufs = 0;
	return 0;
}

/* --- restoring one -------------------------------------------------------------------------------------- */

static int open_chunks(
    struct sealer *s, const uint8_t *p, size_t n, uint64_t index, struct buf *out, struct err *e)
{
	for (size_t i = 0; n > 0; i++) {
		struct chunk_aad aad;
		size_t len;
		int r;

		if (n < 4 || (len = get_be(p, 4)) > n - 4)
			return err_set(e, ERR_CORRUPT, "the file is cut short");
		aad = chunk_aad(index, i, len == n - 4);
		r = unseal(s, &aad, sizeof(aad), p + 4, len, out, e);
		if (r < 0)
			return r;
		p += 4 + len;
		n -= 4 + len;
	}
	return 0;
}

static int on_restore(struct raft_fsm *f, struct raft_buffer *buf)
{
	struct engine *en = f->data;
	struct consensus *c = en->c;
	const uint8_t *p = buf->base;
	struct buf plain = BUF_INIT;
	struct err e = ERR_INIT;
	uint64_t index = 0;
	int r;

	if (buf->len <= HEAD_LEN || memcmp(p, MAGIC, 8) != 0) {
		r = err_set(&e, ERR_CORRUPT, "not a snapshot");
	} else {
		index = get_be(p + 8, 8);
		r = 0;
	}
	if (r == 0 && index > c->applied) {
		r = open_chunks(c->sealer, p + HEAD_LEN, buf->len - HEAD_LEN, index, &plain, &e);
		if (r == 0)
			r = c->fsm.restore(c->fsm.data, (const uint8_t *)plain.data, plain.len, &e);
		if (plain.data != NULL)
			mem_wipe(plain.data, plain.len);
		buf_done(&plain);
	}
	if (r < 0)
		return stop(en, &e, "snapshot at", index);
	if (index > c->applied)
		c->applied = index;
	c->snapshot_bytes = buf->len;
	raft_free(buf->base); /* ours on success, libraft's otherwise */
	return 0;
}

void fsm_init(struct raft_fsm *f)
{
	memset(f, 0, sizeof(*f));
	f->version = 3;
	f->apply = on_apply;
	f->snapshot = on_snapshot;
	f->snapshot_async = on_snapshot_async;
	f->snapshot_finalize = on_snapshot_finalize;
	f->restore = on_restore;
}
