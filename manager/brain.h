/* What a leading manager decides by itself: services become tasks, tasks get nodes, failures are
 * replaced, ports are handed out, history is cleared away.
 *
 * The brain watches the store, keeps sets of what may need work, and turns them into transactions by calling
 * the pure functions of orchestrator/, allocator/ and scheduler/. Everything it knows follows from the store,
 * so a leader that starts (or starts again after a crash) loses nothing. It has no clock, no timer and no
 * socket: the owner calls brain_tick with the time and commits what `propose` is handed. manager.c drives it
 * with libuv, the simulator with a virtual clock.
 *
 * Single-threaded, on the thread of the store. */
#ifndef MANAGER_BRAIN_H
#define MANAGER_BRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/store/store.h"

/* The outcome of one proposal, after it was applied here: 0, ERR_STALE, ERR_UNAVAILABLE ... */
typedef void (*brain_done_cb)(void *cb_data, int status, const struct err *e);

struct brain_opts {
	struct store *store; /* outlives the brain */
	struct rng rng;      /* for new ids */
	void *data;          /* first argument of the functions below */
	/* Commits `t` without keeping it. 0: cb comes exactly once, and never before this has returned (also
	 * when leadership is lost or the brain was stopped or freed meanwhile). Otherwise an error and no cb.
	 */
	int (*propose)(void *data, const struct txn *t, brain_done_cb cb, void *cb_data, struct err *e);
	/* There is work: call brain_tick on a later turn of the loop (once is enough however often this is
	 * called). May come from inside store_apply, so it must not call brain_tick itself. */
	void (*wake)(void *data);
};

struct brain;
/* Idle until brain_start. */
struct brain *brain_new(const struct brain_opts *o);
/* Stops first. Callbacks of proposals may still come afterwards; they are harmless. */
void brain_free(struct brain *b); /* NULL is fine */

/* This manager leads now, and everything committed before is applied: looks at all there is on the next tick
 * (calls wake). Twice is harmless. */
void brain_start(struct brain *b);
/* Leads no more: forgets everything; brain_tick does nothing until the next start. Twice is harmless. */
void brain_stop(struct brain *b);
bool brain_running(const struct brain *b);

/* One pass. now: unix ns (the wall clock: it is compared with times in the store). Proposes what is to be
 * done and returns when to call again at the latest, unix ns; INT64_MAX: not before the next wake. */
int64_t brain_tick(struct brain *b, int64_t now);

/* Nothing to do, nothing in flight. For tests and the simulator. */
bool brain_idle(const struct brain *b);

struct brain_stats {
	uint64_t ticks, reconciled, scheduled, proposed, stale, failed;
	uint64_t services_dirty, in_flight, unplaced; /* now */
};
void brain_stats(const struct brain *b, struct brain_stats *ret);

#endif
