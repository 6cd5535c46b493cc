/* The scheduler: gives pending tasks a node.
 *
 * It follows the store (scheduler_event) and keeps, for each node, what is reserved on it and how many tasks
 * of which service it carries. Tasks of one template are placed as a group: the filters see each node once,
 * then a heap hands the nodes out, fewest tasks of the service first, then fewest tasks. A group that fits
 * nowhere says why, and is tried again only when something changed that may help. What was decided but is not
 * committed yet counts as done; scheduler_retry takes it back. Pure: no clock, no I/O. */
#ifndef MANAGER_SCHEDULER_SCHEDULER_H
#define MANAGER_SCHEDULER_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "manager/store/store.h"

struct scheduler;
/* Takes in what the store holds now; feed it every event from then on. The store outlives it. */
struct scheduler *scheduler_new(const struct store *s);
void scheduler_free(struct scheduler *s);                                /* NULL is fine */
void scheduler_event(struct scheduler *s, const struct store_event *ev); /* of any kind */

/* What is to become of one task. Pointers are borrowed for the call. */
struct sched_decision {
	const Pb__Task *task; /* as it is in the store */
	const char *node_id;  /* NULL: it fits nowhere, and `err` says why */
	const char *message, *err;
	Pb__GenericResource *const *generic;
	size_t n_generic;
	Pb__PortConfig *const *host_ports;
	size_t n_host_ports;
};
typedef void (*scheduler_cb)(void *data, const struct sched_decision *d);
/* The task with the decision written into it, on the heap, for txn_update. */
Pb__Task *sched_decision_task(const struct sched_decision *d, int64_t now);

/* Decides about at most `max` tasks. Returns how many decisions were handed to cb; as long as it returns
 * `max` there may be more. *next is lowered to when to run again though nothing changed (unix ns). */
size_t scheduler_run(
    struct scheduler *s, int64_t now, size_t max, scheduler_cb cb, void *data, int64_t *next);
/* The decision about this task was not committed: looks at the task anew. */
void scheduler_retry(struct scheduler *s, const char *task_id);
/* Tasks that wait for a node. */
size_t scheduler_waiting(const struct scheduler *s);

/* Whether a spread descriptor ("node.labels.rack") is one that has an effect; for the API. */
bool scheduler_spread_valid(const char *descriptor);

#endif
