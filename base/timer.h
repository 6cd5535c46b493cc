/* A one-shot timer on the loop that frees itself safely: start, restart, stop, free at any time,
 * its own callback included. */
#ifndef BASE_TIMER_H
#define BASE_TIMER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct timer;
typedef void (*timer_cb)(void *data);

struct timer *timer_new(uv_loop_t *loop, timer_cb cb, void *data);
void timer_start(struct timer *t, uint64_t ms); /* restarts when armed; 0 fires on the next turn */
void timer_stop(struct timer *t);
bool timer_armed(const struct timer *t);
void timer_free(struct timer *t); /* NULL is fine; no callback after */

/* Calls cb once on a later turn of the loop. Cannot be cancelled. */
void loop_defer(uv_loop_t *loop, timer_cb cb, void *data);
/* Runs `work` on the thread pool, then `done` on the loop. done(data) comes exactly once. */
void loop_work(uv_loop_t *loop, void (*work)(void *data), void (*done)(void *data), void *data);

#endif
