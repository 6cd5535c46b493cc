/* For tests and benches: a store behind consensus on a loop of its own, and changes to feed it. */
#ifndef TESTS_RAFTNODE_H
#define TESTS_RAFTNODE_H

#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/store/store.h"
#include "raft/consensus.h"

struct raftnode {
	uv_loop_t loop;
	struct store *store;
	struct consensus *consensus;
	bool leader, closed;
	unsigned changes; /* of leadership */
	unsigned applies, restores, freezes;
};

static inline int raftnode_apply(void *data, uint64_t index, const uint8_t *p, size_t n, struct err *e)
{
	struct raftnode *r = data;

	(void)index;
	r->applies++;
	return store_apply(r->store, p, n, e);
}
static inline void *raftnode_freeze(void *data)
{
	struct raftnode *r = data;

	r->freezes++;
	return store_freeze(r->store);
}
static inline void raftnode_pack(void *frozen, struct buf *out)
{
	store_frozen_pack(frozen, out);
}
static inline void raftnode_release(void *frozen)
{
	store_frozen_free(frozen);
}
static inline int raftnode_restore(void *data, const uint8_t *p, size_t n, struct err *e)
{
	struct raftnode *r = data;

	r->restores++;
	return store_restore(r->store, p, n, e);
}
static inline void raftnode_leader(void *data, bool is_leader)
{
	struct raftnode *r = data;

	r->leader = is_leader;
	r->changes++;
}

static inline const uint8_t *raftnode_key(void)
{
	static const uint8_t key[32] = "a data key for tests, 32 bytes.";

	return key;
}

static inline int raftnode_start(struct raftnode *r, const char *dir, bool bootstrap, unsigned threshold,
    const uint8_t *key, struct err *e)
{
	const struct consensus_fsm fsm = {r, raftnode_apply, raftnode_freeze, raftnode_pack, raftnode_release,
	    raftnode_restore, raftnode_leader};
	const struct consensus_opts o = {.dir = dir,
	    .id = 1,
	    .address = "127.0.0.1:2377",
	    .key = key != NULL ? key : raftnode_key(),
	    .snapshot_threshold = threshold,
	    .snapshot_trailing = threshold ? threshold / 2 + 1 : 0,
	    .bootstrap = bootstrap};

	memset(r, 0, sizeof(*r));
	uv_loop_init(&r->loop);
	r->store = store_new();
	return consensus_start(&r->loop, &o, &fsm, &r->consensus, e);
}

static inline void raftnode_tick(uv_timer_t *t)
{
	(void)t;
}
/* Turns the loop until *flag, 10 s at most. */
static inline bool raftnode_until(struct raftnode *r, const bool *flag)
{
	uint64_t end = uv_hrtime() + UINT64_C(10000000000);
	uv_timer_t tick;

	uv_timer_init(&r->loop, &tick);
	uv_timer_start(&tick, raftnode_tick, 20, 20); /* so that the deadline is seen */
	while (!*flag && uv_hrtime() < end)
		uv_run(&r->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&r->loop, UV_RUN_NOWAIT);
	return *flag;
}

static inline void raftnode_on_closed(void *data)
{
	((struct raftnode *)data)->closed = true;
}
/* After an error of raftnode_start too. Returns false when a handle was left open. */
static inline bool raftnode_stop(struct raftnode *r)
{
	if (r->consensus != NULL) {
		consensus_close(r->consensus, raftnode_on_closed, r);
		if (!raftnode_until(r, &r->closed))
			return false;
	}
	uv_run(&r->loop, UV_RUN_DEFAULT);
	store_free(r->store);
	return uv_loop_close(&r->loop) == 0;
}

static inline void raftnode_pack_config(struct buf *out, const char *id, const char *data)
{
	Pb__Config *c = NEW(Pb__Config);
	struct txn *t = txn_new();

	pb__config__init(c);
	c->id = xstrdup(id);
	c->spec = NEW(Pb__ConfigSpec);
	pb__config_spec__init(c->spec);
	c->spec->name = xasprintf("config-%s", id);
	c->spec->has_data = 1;
	c->spec->data.data = xmemdup(data, strlen(data) + 1);
	c->spec->data.len = strlen(data);
	txn_create(t, OBJ(CONFIG), c);
	txn_pack(t, 1, out);
	txn_free(t);
}

static inline int raftnode_propose_config(
    struct raftnode *r, const char *id, const char *data, consensus_cb cb, void *cb_data, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;

	raftnode_pack_config(&b, id, data);
	return consensus_propose(r->consensus, b.data, b.len, cb, cb_data, e);
}

/* A fresh directory below $TMPDIR; remove it with fs_remove_tree and free. */
static inline char *raftnode_tmpdir(void)
{
	char *dir = xasprintf("%s/shoal-raft-%d-XXXXXX", str_or(getenv("TMPDIR"), "/tmp"), (int)getpid());

	if (mkdtemp(dir) == NULL) {
		perror(dir);
		abort();
	}
	return dir;
}

#endif
