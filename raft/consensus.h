/* Agreement on a log: libraft with raft_uv behind an interface of our own (so that another engine can
 * take its place), sealed payloads, group commit.
 *
 * consensus_propose may be called as often as wanted: while an append is under way, further payloads
 * gather and go out as one entry, up to LIMIT_RAFT_ENTRY. Callbacks come in the order of proposals, after the
 * payload was applied here. */
#ifndef RAFT_CONSENSUS_H
#define RAFT_CONSENSUS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"

struct consensus;

/* What is agreed on. apply gets one payload as it was proposed (unsealed) and returns its outcome, which
 * the proposer's callback sees; it must be deterministic. */
struct consensus_fsm {
	void *data;
	int (*apply)(void *data, uint64_t index, const uint8_t *p, size_t n, struct err *e);
	/* A snapshot in three steps: freeze (on the loop, quick), pack (on a worker thread, beside further
	 * applies; reads only what freeze returned), release (on the loop). store_freeze and its like. */
	void *(*freeze)(void *data);
	void (*pack)(void *frozen, struct buf *out);
	void (*release)(void *frozen);
	int (*restore)(void *data, const uint8_t *p, size_t n, struct err *e);
	/* Leadership was won (true; everything committed before is applied) or lost. */
	void (*leader_changed)(void *data, bool is_leader);
};

struct consensus_opts {
	const char *dir;             /* made 0700 when missing */
	uint64_t id;                 /* this server's Raft id, not 0 */
	const char *address;         /* host:port that others reach it by */
	const uint8_t *key;          /* 32 bytes: the data key that seals entries and snapshots; copied */
	unsigned snapshot_threshold; /* entries between snapshots; 0: 10000 */
	unsigned snapshot_trailing;  /* entries kept after one; 0: 500 */
	unsigned election_ms, heartbeat_ms; /* 0: 1000, 100 */
	bool bootstrap;                     /* dir is new: become a cluster of one voter */
};

/* Inside callbacks (this, and those of consensus_fsm) consensus_propose and consensus_close may be called. */
typedef void (*consensus_cb)(void *data, int status, const struct err *e);

/* Loads snapshot and log (restore and apply are called before it returns), starts; a cluster of one elects
 * itself within the first turns of the loop, and says so by leader_changed. Errors: ERR_CORRUPT names what
 * does not decode or was sealed with another key; ERR_CONFLICT: bootstrap in a directory that is not empty;
 * ERR_INVALID; ERR_IO. After an error the loop must still turn a few times to free everything. */
int consensus_start(uv_loop_t *loop, const struct consensus_opts *o, const struct consensus_fsm *fsm,
    struct consensus **ret, struct err *e);
/* Copies p, at most CONSENSUS_PAYLOAD_MAX bytes (ERR_TOO_LARGE). ERR_UNAVAILABLE at once: not the leader,
 * closing, or too much is waiting already. Calls back exactly once: 0, the apply's error; ERR_UNAVAILABLE
 * when leadership was lost or closing took too long, ERR_IO when the disk failed: the outcome is then
 * unknown.
 *
 * After a disk error nothing is written any more and leader_changed(false) is called; the log is opened again
 * every few seconds until the disk takes writes again, and leader_changed(true) follows. */
int consensus_propose(
    struct consensus *c, const void *p, size_t n, consensus_cb cb, void *data, struct err *e);
bool consensus_is_leader(const struct consensus *c);
uint64_t consensus_applied(const struct consensus *c);
/* Stops proposing, lets what is in flight finish (5 s at most), closes; closed(data) comes once, and nothing
 * after it. A second call does nothing. */
void consensus_close(struct consensus *c, void (*closed)(void *data), void *data);

#define CONSENSUS_PAYLOAD_MAX (LIMIT_RAFT_ENTRY - 256u)

#endif
