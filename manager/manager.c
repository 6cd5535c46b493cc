/* See manager.h. What happens when:
 *
 * Start: the log is read, the store rebuilt. Won an election: if the store has no cluster, the initial
 * objects are proposed first; then the brain and the dispatcher start, and `ready` is told. Lost: both stop;
 * proposals in flight end with ERR_UNAVAILABLE. A store change wakes the brain, whose passes run on later
 * turns of the loop, one for any number of changes. */
#include "manager/manager.h"

#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "manager/brain.h"
#include "manager/ca/ca.h"
#include "manager/dispatcher/dispatcher.h"
#include "proto/pb.h"
#include "raft/consensus.h"

struct manager {
	uv_loop_t *loop;
	struct clock clock;
	struct rng rng;
	struct store *store;
	struct store_watch *watch;
	struct consensus *consensus;
	struct brain *brain;
	struct dispatcher *dispatcher;
	struct logbroker *logbroker;
	struct ca *ca;
	struct timer *tick;
	bool tick_now;
	bool leader, ready, closing;
	Pb__Cluster *initial_cluster;
	Pb__Node *initial_node;
	void (*on_ready)(void *data);
	void (*on_lost)(void *data);
	void (*on_failed)(void *data, const struct err *e);
	void (*on_event)(void *data, const struct store_event *ev);
	void *data;
	void (*closed)(void *data);
	void *closed_data;
};

/* --- committing */

int manager_propose(struct manager *m, const struct txn *t, manager_commit_cb cb, void *data, struct err *e)
{
	if (m->closing)
		return err_set(e, ERR_UNAVAILABLE, "this manager is shutting down");
	CLEANUP_BUF struct buf b = BUF_INIT;
	txn_pack(t, clock_unix_ns(m->clock), &b);
	return consensus_propose(m->consensus, b.data, b.len, cb, data, e);
}

static int propose(void *data, const struct txn *t, manager_commit_cb cb, void *cb_data, struct err *e)
{
	return manager_propose(data, t, cb, cb_data, e);
}

static int fsm_apply(void *data, uint64_t index, const uint8_t *p, size_t n, struct err *e)
{
	struct manager *m = data;
	(void)index;
	return store_apply(m->store, p, n, e);
}

static void *fsm_freeze(void *data)
{
	return store_freeze(((struct manager *)data)->store);
}

static void fsm_pack(void *frozen, struct buf *out)
{
	store_frozen_pack(frozen, out);
}

static void fsm_release(void *frozen)
{
	store_frozen_free(frozen);
}

static int fsm_restore(void *data, const uint8_t *p, size_t n, struct err *e)
{
	return store_restore(((struct manager *)data)->store, p, n, e);
}

/* --- the brain's passes */

static void on_tick(void *data)
{
	struct manager *m = data;
	m->tick_now = false;
	if (!m->ready || m->closing)
		return;
	int64_t now = clock_unix_ns(m->clock);
	int64_t next = brain_tick(m->brain, now);
	if (m->tick_now || next == INT64_MAX)
		return; /* woken again meanwhile, or nothing to wait for */
	int64_t ms = next <= now ? 1 : (next - now) / NS_PER_MSEC + 1;
	timer_start(m->tick, (uint64_t)(ms > 3600000 ? 3600000 : ms));
}

static void brain_wake(void *data)
{
	struct manager *m = data;
	if (m->tick_now || m->closing)
		return;
	m->tick_now = true;
	timer_start(m->tick, 0);
}

/* --- leading */

static void lead(struct manager *m)
{
	if (m->ready || !m->leader || m->closing)
		return;
	m->ready = true;
	brain_start(m->brain);
	dispatcher_start(m->dispatcher);
	m->on_ready(m->data);
}

static void initial_done(void *data, int status, const struct err *e)
{
	struct manager *m = data;
	if (m->closing)
		return;
	if (status == 0)
		lead(m);
	else if (m->on_failed)
		m->on_failed(m->data, e);
}

static void fsm_leader_changed(void *data, bool is_leader)
{
	struct manager *m = data;
	m->leader = is_leader;
	if (!is_leader) {
		if (m->ready) {
			m->ready = false;
			brain_stop(m->brain);
			dispatcher_stop(m->dispatcher);
			m->on_lost(m->data);
		}
		return;
	}
	log_info("this manager leads the cluster");
	if (store_cluster(m->store)) {
		lead(m);
		return;
	}
	struct err e = ERR_INIT;
	if (!m->initial_cluster) {
		err_set(&e, ERR_CORRUPT, "the Raft log holds no cluster and none is to be made");
		if (m->on_failed)
			m->on_failed(m->data, &e);
		return;
	}
	struct txn *t = txn_new();
	txn_create(t, OBJ(CLUSTER), pb_clone(m->initial_cluster));
	txn_create(t, OBJ(NODE), pb_clone(m->initial_node));
	if (manager_propose(m, t, initial_done, m, &e) != 0 && m->on_failed)
		m->on_failed(m->data, &e);
	txn_free(t);
}

/* --- watching */

static void on_store_event(void *data, const struct store_event *ev)
{
	struct manager *m = data;
	logbroker_event(m->logbroker, ev);
	if (m->on_event)
		m->on_event(m->data, ev);
}

static int logs_send(void *data, const char *node_id, const Pb__ManagerMessage *msg, struct err *e)
{
	return dispatcher_send(((struct manager *)data)->dispatcher, node_id, msg, e);
}

static void on_logs(void *data, const char *node_id, const Pb__LogBatch *batch)
{
	logbroker_batch(((struct manager *)data)->logbroker, node_id, batch);
}

static void on_session(void *data, const char *node_id, int up)
{
	logbroker_session(((struct manager *)data)->logbroker, node_id, up != 0);
}

/* --- life */

static void manager_free(struct manager *m)
{
	brain_free(m->brain);
	logbroker_free(m->logbroker);
	ca_free(m->ca);
	store_watch_free(m->watch);
	store_free(m->store);
	timer_free(m->tick);
	pb_free(m->initial_cluster);
	pb_free(m->initial_node);
	free(m);
}

static void dispatcher_unused(void *data)
{
	(void)data;
}

int manager_start(const struct manager_opts *o, struct manager **ret, struct err *e)
{
	struct manager *m = NEW(struct manager);
	m->loop = o->loop;
	m->clock = o->clock;
	m->rng = o->rng;
	m->on_ready = o->ready;
	m->on_lost = o->lost;
	m->on_failed = o->failed;
	m->on_event = o->event;
	m->data = o->data;
	m->initial_cluster = pb_clone(o->initial_cluster);
	m->initial_node = pb_clone(o->initial_node);
	m->store = store_new();
	m->tick = timer_new(m->loop, on_tick, m);
	m->brain = brain_new(&(struct brain_opts){
	    .store = m->store, .rng = m->rng, .data = m, .propose = propose, .wake = brain_wake});
	m->dispatcher = dispatcher_new(&(struct dispatcher_opts){.loop = m->loop,
	    .store = m->store,
	    .clock = m->clock,
	    .rng = m->rng,
	    .propose = propose,
	    .logs = on_logs,
	    .session = on_session,
	    .data = m});
	m->logbroker = logbroker_new(&(struct logbroker_opts){
	    .loop = m->loop, .store = m->store, .rng = m->rng, .send = logs_send, .data = m});
	m->ca = ca_new(&(struct ca_opts){
	    .store = m->store, .clock = m->clock, .rng = m->rng, .propose = propose, .data = m});
	m->watch = store_watch_new(m->store, on_store_event, m);
	const struct consensus_fsm fsm = {
	    .data = m,
	    .apply = fsm_apply,
	    .freeze = fsm_freeze,
	    .pack = fsm_pack,
	    .release = fsm_release,
	    .restore = fsm_restore,
	    .leader_changed = fsm_leader_changed,
	};
	const struct consensus_opts co = {
	    .dir = o->dir,
	    .id = o->raft_id,
	    .address = o->address,
	    .key = o->data_key,
	    .bootstrap = o->bootstrap,
	};
	int rc = consensus_start(m->loop, &co, &fsm, &m->consensus, e);
	if (rc != 0) {
		dispatcher_close(m->dispatcher, dispatcher_unused, NULL);
		manager_free(m);
		return rc;
	}
	*ret = m;
	return 0;
}

bool manager_ready(const struct manager *m)
{
	return m && m->ready && !m->closing;
}

struct store *manager_store(struct manager *m)
{
	return m->store;
}

struct logbroker *manager_logbroker(struct manager *m)
{
	return m->logbroker;
}

void manager_serve(struct manager *m, struct rpc_server *s)
{
	size_t n;
	const struct rpc_method *methods = dispatcher_methods(m->dispatcher, &n);
	rpc_server_add(s, methods, n);
	methods = ca_methods(m->ca, &n);
	rpc_server_add(s, methods, n);
}

static void on_consensus_closed(void *data)
{
	struct manager *m = data;
	void (*closed)(void *) = m->closed;
	void *closed_data = m->closed_data;
	manager_free(m);
	closed(closed_data);
}

static void on_dispatcher_closed(void *data)
{
	struct manager *m = data;
	m->dispatcher = NULL;
	consensus_close(m->consensus, on_consensus_closed, m);
}

void manager_close(struct manager *m, void (*closed)(void *data), void *data)
{
	ASSERT(!m->closing);
	m->closing = true;
	m->ready = false;
	m->closed = closed;
	m->closed_data = data;
	brain_stop(m->brain);
	timer_stop(m->tick);
	dispatcher_close(m->dispatcher, on_dispatcher_closed, m);
}
