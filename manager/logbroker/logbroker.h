/* Log streams of tasks: a subscription goes to the nodes that the tasks are on, their lines come back in one
 * stream. */
#ifndef MANAGER_LOGBROKER_LOGBROKER_H
#define MANAGER_LOGBROKER_LOGBROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/store/store.h"
#include "proto/control.pb-c.h"

struct logbroker;
struct logbroker_opts {
	uv_loop_t *loop;
	struct store *store;
	struct rng rng;
	/* dispatcher_send */
	int (*send)(void *data, const char *node_id, const Pb__ManagerMessage *m, struct err *e);
	void *data;
};
struct logbroker *logbroker_new(const struct logbroker_opts *o);
void logbroker_free(struct logbroker *b); /* ends every subscription with ERR_UNAVAILABLE */

struct log_subscription;
struct log_subscribe_opts {
	const char
	    *service_id;     /* all tasks of a service, also those that come later when following; or ... */
	const char *task_id; /* ... one task */
	bool follow, want_stdout, want_stderr;
	int64_t tail; /* -1: all */
	int64_t since_ns;
	void (*line)(void *data, const char *service_id, const char *node_id, const Pb__LogLine *l);
	/* Last: everything came (0), or what went wrong (a node that has gone: its lines are missing, the
	 * others' came). */
	void (*end)(void *data, int status, const struct err *e);
	void *data;
};
int logbroker_subscribe(
    struct logbroker *b, const struct log_subscribe_opts *o, struct log_subscription **ret, struct err *e);
/* The reader is slow: asks the nodes to stop sending, or to go on. What is under way still comes. */
void logbroker_pause(struct log_subscription *s, bool paused);
/* No callback after. */
void logbroker_unsubscribe(struct log_subscription *s);
/* From the dispatcher. */
void logbroker_batch(struct logbroker *b, const char *node_id, const Pb__LogBatch *batch);
void logbroker_session(struct logbroker *b, const char *node_id, bool up);
/* A task was assigned to a node (following services). Called from the store's watch. */
void logbroker_event(struct logbroker *b, const struct store_event *ev);

#endif
