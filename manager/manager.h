/* A manager: store, Raft, the leader's decisions, the dispatcher and the log broker, tied together.
 *
 * Started with a node's Raft directory; with `bootstrap` it makes a cluster of one voter and, as its leader,
 * commits the cluster and node objects that it was given (also when an earlier start died before it could).
 */
#ifndef MANAGER_MANAGER_H
#define MANAGER_MANAGER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/logbroker/logbroker.h"
#include "manager/store/store.h"
#include "proto/rpc.h"

struct manager;

struct manager_opts {
	uv_loop_t *loop;
	struct clock clock;
	struct rng rng;
	const char *dir; /* of the Raft log */
	uint64_t raft_id;
	const char *address;     /* host:port of this manager */
	const uint8_t *data_key; /* 32 bytes, copied */
	bool bootstrap;
	const Pb__Cluster *initial_cluster; /* copied; NULL when not bootstrapping */
	const Pb__Node *initial_node;
	/* This manager leads and the cluster object is there: the API and the dispatcher work. Again after
	 * each election that it wins. */
	void (*ready)(void *data);
	/* It leads no more. */
	void (*lost)(void *data);
	/* The cluster could not be brought up (the initial objects were refused ...). */
	void (*failed)(void *data, const struct err *e);
	/* A change of the store, for events and for renewing. */
	void (*event)(void *data, const struct store_event *ev);
	void *data;
};
int manager_start(const struct manager_opts *o, struct manager **ret, struct err *e);
bool manager_ready(const struct manager *m);
struct store *manager_store(struct manager *m);
struct logbroker *manager_logbroker(struct manager *m);
/* Adds the manager's RPC methods to a server. */
void manager_serve(struct manager *m, struct rpc_server *s);
typedef void (*manager_commit_cb)(void *data, int status, const struct err *e);
/* Does not keep t. On 0 cb comes once, after it was applied here or refused. */
int manager_propose(struct manager *m, const struct txn *t, manager_commit_cb cb, void *data, struct err *e);
/* Stops deciding, ends sessions, lets proposals finish, closes the log; closed(data) comes once. */
void manager_close(struct manager *m, void (*closed)(void *data), void *data);

#endif
