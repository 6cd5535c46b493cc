/* What the files of raft/ share. Nothing outside includes this.
 *
 *   consensus.c  the interface: queue of proposals, who is leader, what happens when the disk fails
 *   batch.c      proposals that go out as one entry, and their outcomes
 *   engine.c     one life of a libraft instance on a directory: open, guard its writes, close
 *   fsm.c        what libraft calls to apply an entry and to take and restore a snapshot */
#ifndef RAFT_INTERNAL_H
#define RAFT_INTERNAL_H

#include <raft.h>
#include <raft/uv.h>

#include "raft/consensus.h"
#include "raft/seal.h"
#include "raft/transport.h"

/* --- batch.c */
struct waiter {
	consensus_cb cb;
	void *data;
	int status;
	struct err *err; /* heap, when status is not 0 */
};
struct batch {
	struct batch *next;
	struct consensus *c;
	struct raft_apply req;
	struct buf plain; /* a Pb__Entry */
	size_t bytes;     /* of payloads */
	struct waiter *v;
	size_t n, cap;
};
struct batch *batch_new(struct consensus *c);
void batch_free(struct batch *b);
void batch_add(struct batch *b, const void *p, size_t n, consensus_cb cb, void *data);
/* The entry sealed for disk, in raft_malloc'ed memory. */
int batch_seal(const struct batch *b, struct sealer *s, struct raft_buffer *ret_buf);
/* Calls everybody back and frees. With a status, everybody gets that; else each its own. */
void batch_finish(struct batch *b, int status, const struct err *e);
/* Opens an entry as it is on disk; the plain Pb__Entry is appended to out. */
int entry_unseal(struct sealer *s, const struct raft_buffer *buf, struct buf *out, struct err *e);
/* Calls `each` for every payload of a plain entry; ERR_CORRUPT when it is not one. */
int entry_each(const uint8_t *p, size_t n, void (*each)(void *data, size_t i, const uint8_t *p, size_t n),
    void *data, struct err *e);

/* --- fsm.c: a snapshot on its way to disk */
struct snapshot_job {
	void *frozen;
	raft_index index;
	struct sealer *sealer;
	struct buf plain; /* sealed in place */
	struct seal_frame *frames;
	uint8_t *lengths; /* four bytes a chunk */
	uint8_t head[16];
	uint64_t started_ns;
};
void fsm_init(struct raft_fsm *f); /* data is set by the engine */

/* --- engine.c */
struct guard;
struct engine {
	struct consensus *c;
	struct raft raft;
	struct raft_io io;
	struct raft_fsm fsm;
	struct transport transport;
	int (*append)(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
	    unsigned n, raft_io_append_cb cb);
	unsigned appends;    /* writes under way */
	struct guard *stuck; /* of writes that failed to start */
	bool failed;         /* no write goes through any more; why is in err */
	bool closing, raft_closed;
	struct err err;
	struct snapshot_job job;
	void (*closed)(struct engine *en);
};
/* Opens the directory and starts libraft. On error *ret_en may be set nevertheless: it then is to be closed.
 */
int rengine_open(struct consensus *c, bool bootstrap, struct engine **ret_en, struct err *e);
void rengine_fail(struct engine *en, int code, const char *text);
/* Lets writes and snapshots under way finish, closes, calls back on a later turn. rengine_turn drives it. */
void rengine_close(struct engine *en, void (*closed)(struct engine *en));
void rengine_turn(struct engine *en);
void rengine_free(struct engine *en); /* after closed */
/* An error text of ours for one of libraft's codes. */
int rengine_error(struct err *e, int rv, const char *what, const char *dir, const char *detail);

/* --- consensus.c */
struct consensus {
	uv_loop_t *loop;
	char *dir, *address;
	uint64_t id;
	uint8_t key[SEAL_KEY_LEN];
	struct sealer *sealer;
	struct consensus_fsm fsm;
	unsigned threshold, trailing, election_ms, heartbeat_ms;

	struct engine *engine; /* NULL while the disk is away */
	struct timer *reopen;
	uint64_t reopen_ms;
	struct err last_err; /* why writes are refused */

	bool elected; /* libraft says leader */
	bool leader;  /* and our barrier came through */
	bool barrier_busy;
	struct raft_barrier barrier;

	struct batch *head, *tail; /* waiting */
	struct batch *in_flight;   /* at most one: see consensus.c */
	size_t queued;             /* bytes in waiting batches */
	raft_index applied;

	size_t log_bytes; /* applied since the last snapshot */
	size_t log_entries;
	size_t snapshot_bytes; /* of the last one */
	uint64_t snapshot_not_before_ns;

	uv_idle_t flush;
	uv_prepare_t turn;
	struct timer *deadline; /* while closing */
	unsigned handles;       /* still open */
	bool closing, give_up, closed_handles;
	void (*closed)(void *data);
	void *closed_data;
};

#endif
