/* A store with a cluster object and a propose function that commits on a later turn of the loop, as Raft
 * would. */
#ifndef TEST_CLUSTER_H
#define TEST_CLUSTER_H

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/timer.h"
#include "manager/store/store.h"
#include "proto/pb.h"
#include "test_pki.h"

struct test_cluster {
	uv_loop_t *loop;
	struct store *store;
	struct test_ca ca;
	size_t proposals, stale;
	int fail_with; /* proposals end so, when not 0 */
	bool refuse;   /* proposals are refused at once */
	size_t in_flight;
	void (*meanwhile)(struct test_cluster *c); /* before each commit */
};

typedef void (*test_commit_cb)(void *data, int status, const struct err *e);
struct test_commit {
	struct test_cluster *c;
	struct buf b;
	test_commit_cb cb;
	void *data;
};

static inline void test_commit_now(void *data)
{
	struct test_commit *p = data;
	struct err e = ERR_INIT;
	struct test_cluster *c = p->c;
	if (c->meanwhile)
		c->meanwhile(c);
	int r = c->fail_with ? err_set(&e, c->fail_with, "injected")
			     : store_apply(c->store, (uint8_t *)p->b.data, p->b.len, &e);
	c->stale += r == ERR_STALE;
	c->in_flight--;
	p->cb(p->data, r, &e);
	buf_done(&p->b);
	free(p);
}

/* Signature of dispatcher_opts.propose and ca_opts.propose; data is the test_cluster. */
static inline int test_propose(
    void *data, const struct txn *t, test_commit_cb cb, void *cb_data, struct err *e)
{
	struct test_cluster *c = data;
	if (c->refuse)
		return err_set(e, ERR_UNAVAILABLE, "no leader");
	struct test_commit *p = NEW(struct test_commit);
	p->c = c;
	p->cb = cb;
	p->data = cb_data;
	txn_pack(t, clock_unix_ns(clock_system()), &p->b);
	c->proposals++;
	c->in_flight++;
	loop_defer(c->loop, test_commit_now, p);
	return 0;
}

/* Commits at once; takes t. */
static inline void test_apply(struct test_cluster *c, struct txn *t)
{
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	txn_pack(t, clock_unix_ns(clock_system()), &b);
	int r = store_apply(c->store, (uint8_t *)b.data, b.len, &e);
	if (r)
		log_error("test transaction: %s", e.text);
	ASSERT(r == 0);
	buf_done(&b);
	txn_free(t);
}

static inline void test_create(struct test_cluster *c, obj_kind kind, void *msg)
{
	struct txn *t = txn_new();
	txn_create(t, kind, msg);
	test_apply(c, t);
}

static inline void test_update(struct test_cluster *c, obj_kind kind, void *msg)
{
	struct txn *t = txn_new();
	txn_update(t, kind, msg);
	test_apply(c, t);
}

static inline void test_delete(struct test_cluster *c, obj_kind kind, const char *id)
{
	struct txn *t = txn_new();
	txn_delete(t, kind, id, 0);
	test_apply(c, t);
}

static inline void test_add_node(struct test_cluster *c, const char *id)
{
	Pb__Node *n = PB_NEW(Pb__Node, pb__node);
	n->id = xstrdup(id);
	n->spec = PB_NEW(Pb__NodeSpec, pb__node_spec);
	n->spec->has_role = true;
	n->spec->role = PB__NODE_ROLE__E__WORKER;
	test_create(c, OBJ(NODE), n);
}

static inline void test_cluster_init(struct test_cluster *c, uv_loop_t *loop, int64_t heartbeat_ns)
{
	c->loop = loop;
	c->store = store_new();
	c->ca = test_ca_new();
	Pb__Cluster *cl = PB_NEW(Pb__Cluster, pb__cluster);
	cl->id = xstrdup("cluster1");
	cl->spec = PB_NEW(Pb__ClusterSpec, pb__cluster_spec);
	cl->spec->name = xstrdup("default");
	cl->spec->dispatcher = PB_NEW(Pb__DispatcherConfig, pb__dispatcher_config);
	cl->spec->dispatcher->has_heartbeat_period = true;
	cl->spec->dispatcher->heartbeat_period = heartbeat_ns;
	test_create(c, OBJ(CLUSTER), cl);
}

static inline void test_cluster_done(struct test_cluster *c)
{
	ASSERT(c->in_flight == 0);
	store_free(c->store);
	test_ca_done(&c->ca);
}

#endif
