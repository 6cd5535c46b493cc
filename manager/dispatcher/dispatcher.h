/* The manager's end of agent sessions (/shoal.Dispatcher/Session): who is alive, what each node is to run,
 * what the tasks became. One bidirectional stream a node; see proto/control.proto.
 *
 * Works only between dispatcher_start (this manager leads) and dispatcher_stop; otherwise calls are refused
 * with ERR_UNAVAILABLE. Everything that it decides goes through `propose`. */
#ifndef MANAGER_DISPATCHER_DISPATCHER_H
#define MANAGER_DISPATCHER_DISPATCHER_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/store/store.h"
#include "proto/control.pb-c.h"
#include "proto/rpc.h"

struct dispatcher;
typedef void (*dispatcher_commit_cb)(void *data, int status, const struct err *e);

struct dispatcher_opts {
	uv_loop_t *loop;
	struct store *store;
	struct clock clock;
	struct rng rng;
	/* Commits; does not keep t. On 0 cb comes once, later. */
	int (*propose)(
	    void *data, const struct txn *t, dispatcher_commit_cb cb, void *cb_data, struct err *e);
	/* Log lines from a node's agent, for the log broker. */
	void (*logs)(void *data, const char *node_id, const Pb__LogBatch *batch);
	/* A node's session ended (its subscriptions end too) or began. */
	void (*session)(void *data, const char *node_id, int up);
	void *data;
};
struct dispatcher *dispatcher_new(const struct dispatcher_opts *o);
/* For rpc_server_add; borrowed, lives as long as the dispatcher. */
const struct rpc_method *dispatcher_methods(struct dispatcher *d, size_t *ret_n);
/* Leadership won: every node gets twice the usual grace to be heard, then it is DOWN. */
void dispatcher_start(struct dispatcher *d);
void dispatcher_stop(struct dispatcher *d);
/* Sends to a node's session; ERR_NOT_FOUND when it has none. */
int dispatcher_send(struct dispatcher *d, const char *node_id, const Pb__ManagerMessage *m, struct err *e);
/* Ends sessions and timers, then closed(data). */
void dispatcher_close(struct dispatcher *d, void (*closed)(void *data), void *data);

#endif
