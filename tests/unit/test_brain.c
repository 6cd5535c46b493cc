/* The driver of the manager's decisions: what it does when proposals fail, are late, or outlive it. */
#include "world.h"

struct held {
	brain_done_cb cb;
	void *data;
	struct buf bytes;
};
struct hand { /* an owner that commits by hand */
	struct store *store;
	struct brain *brain;
	struct rng_seeded seed;
	struct held v[64];
	size_t n, wakes, refused;
	int refuse; /* propose fails with this */
};

static int propose(void *data, const struct txn *t, brain_done_cb cb, void *cb_data, struct err *e)
{
	struct hand *h = data;

	if (h->refuse != 0) {
		h->refused++;
		return err_set(e, h->refuse, "no");
	}
	assert_true(h->n < ARRAY_LEN(h->v));
	h->v[h->n] = (struct held){.cb = cb, .data = cb_data};
	txn_pack(t, W_SEC, &h->v[h->n++].bytes);
	return 0;
}

static void wake(void *data)
{
	((struct hand *)data)->wakes++;
}

static void apply(struct hand *h, struct txn *t)
{
	CLEANUP_BUF struct buf b = BUF_INIT;

	txn_pack(t, W_SEC, &b);
	txn_free(t);
	assert_int_equal(store_apply(h->store, (uint8_t *)b.data, b.len, NULL), 0);
}

/* Answers all that is held, in order: applied, or with `status` not. */
static void answer(struct hand *h, int status)
{
	size_t n = h->n;
	struct held v[ARRAY_LEN(h->v)];

	memcpy(v, h->v, sizeof(v));
	h->n = 0;
	for (size_t i = 0; i < n; i++) {
		int rc = status;

		if (rc == 0)
			rc = store_apply(h->store, (uint8_t *)v[i].bytes.data, v[i].bytes.len, NULL);
		v[i].cb(v[i].data, rc, NULL);
		buf_done(&v[i].bytes);
	}
}

static int make(void **state)
{
	struct hand *h = NEW(struct hand);
	struct world w = {.serial = 0};
	Pb__Service *s = w_service(&w, "web", "ok", 3);
	struct txn *t = txn_new();

	h->store = store_new();
	h->brain = brain_new(&(struct brain_opts){.store = h->store,
	    .rng = rng_from_seed(&h->seed, 5),
	    .data = h,
	    .propose = propose,
	    .wake = wake});
	txn_create(t, OBJ(NODE), w_node_msg("n1"));
	txn_create(t, OBJ(TEMPLATE), w_template(s));
	txn_create(t, OBJ(SERVICE), s);
	apply(h, t);
	*state = h;
	return 0;
}

static int done(void **state)
{
	struct hand *h = *state;

	answer(h, ERR_UNAVAILABLE); /* after brain_free in some tests: must be harmless */
	brain_free(h->brain);
	store_free(h->store);
	free(h);
	return 0;
}

static void test_happy(void **state)
{
	struct hand *h = *state;
	struct brain_stats st;

	assert_int_equal(brain_tick(h->brain, W_SEC), INT64_MAX); /* not started */
	assert_int_equal(h->n, 0);
	brain_start(h->brain);
	brain_start(h->brain);
	assert_int_equal(h->wakes, 1);
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 1);
	/* The service has something in flight: more ticks do not repeat it. */
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 1);
	assert_false(brain_idle(h->brain));
	answer(h, 0);
	assert_int_equal(store_count(h->store, OBJ(TASK)), 3);
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 1); /* the assignments, in one transaction */
	answer(h, 0);
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 0);
	assert_true(brain_idle(h->brain));
	brain_stats(h->brain, &st);
	assert_int_equal(st.proposed, 2);
	assert_int_equal(st.scheduled, 3);
	assert_int_equal(st.stale + st.failed + st.in_flight + st.unplaced, 0);
}

/* A lost race is tried again at once. */
static void test_stale(void **state)
{
	struct hand *h = *state;
	size_t wakes;

	brain_start(h->brain);
	brain_tick(h->brain, W_SEC);
	wakes = h->wakes;
	answer(h, ERR_STALE);
	assert_true(h->wakes > wakes);
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 1);
	answer(h, 0);
	brain_tick(h->brain, W_SEC);
	answer(h, ERR_STALE); /* the scheduler's */
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 1);
	answer(h, 0);
	assert_int_equal(store_index_count(h->store, STORE_TASK_BY_NODE, "n1"), 3);
}

/* One that loses every time slows down instead of spinning. */
static void test_always_stale(void **state)
{
	struct hand *h = *state;
	int64_t now = W_SEC;
	size_t tries = 0;

	brain_start(h->brain);
	for (int i = 0; i < 3000; i++, now += W_MS) {
		brain_tick(h->brain, now);
		tries += h->n;
		answer(h, ERR_STALE);
	}
	assert_true(tries >= 10 && tries < 30);
	now += W_SEC;
	brain_tick(h->brain, now);
	answer(h, 0);
	assert_int_equal(store_count(h->store, OBJ(TASK)), 3);
}

/* Nothing can be committed: a pause, then again. */
static void test_unavailable(void **state)
{
	struct hand *h = *state;
	int64_t next;

	h->refuse = ERR_UNAVAILABLE;
	brain_start(h->brain);
	next = brain_tick(h->brain, W_SEC);
	assert_int_equal(h->refused, 1);
	assert_true(next > W_SEC && next <= W_SEC + 200 * W_MS);
	for (int i = 0; i < 100; i++)
		brain_tick(h->brain, W_SEC);
	assert_int_equal(h->refused, 1);
	h->refuse = 0;
	brain_tick(h->brain, next);
	brain_tick(h->brain, next + W_SEC);
	assert_int_equal(h->n, 1);
	answer(h, ERR_UNAVAILABLE);
	assert_int_equal(brain_tick(h->brain, next + W_SEC) > next + W_SEC, 1);
	assert_int_equal(h->n, 0);
	brain_tick(h->brain, next + 3 * W_SEC);
	assert_int_equal(h->n, 1);
	answer(h, 0);
	assert_int_equal(store_count(h->store, OBJ(TASK)), 3);
}

/* Leadership lost and won with a proposal under way; it commits after all. */
static void test_stop_in_flight(void **state)
{
	struct hand *h = *state;

	brain_start(h->brain);
	brain_tick(h->brain, W_SEC);
	brain_stop(h->brain);
	brain_stop(h->brain);
	assert_false(brain_running(h->brain));
	answer(h, 0);
	assert_int_equal(store_count(h->store, OBJ(TASK)), 3);
	brain_start(h->brain);
	brain_tick(h->brain, W_SEC);
	answer(h, 0);
	brain_tick(h->brain, W_SEC);
	assert_int_equal(store_count(h->store, OBJ(TASK)), 3);
	assert_int_equal(store_index_count(h->store, STORE_TASK_BY_NODE, "n1"), 3);
	assert_int_equal(h->n, 0);
}

/* Two leaders in a row made the same tasks: the ones too many go. */
static void test_double(void **state)
{
	struct hand *h = *state;
	int64_t now = W_SEC;

	brain_start(h->brain);
	brain_tick(h->brain, now);
	brain_stop(h->brain);
	brain_start(h->brain);
	brain_tick(h->brain, now);
	assert_int_equal(h->n, 2);
	answer(h, 0);
	assert_int_equal(store_count(h->store, OBJ(TASK)), 6);
	for (int i = 0; i < 20; i++) {
		brain_tick(h->brain, now += W_SEC);
		answer(h, 0);
	}
	assert_true(brain_idle(h->brain));
	{
		const struct object *o;
		struct store_iter it;
		size_t wanted = 0;

		store_iter_init(&it, h->store, OBJ(TASK), STORE_ALL, NULL);
		while ((o = store_iter_next(&it)) != NULL)
			wanted += o->task->desired_state == ST(RUNNING);
		assert_int_equal(wanted, 3);
	}
}

static void test_free_in_flight(void **state)
{
	struct hand *h = *state;

	brain_start(h->brain);
	brain_tick(h->brain, W_SEC);
	assert_int_equal(h->n, 1);
	brain_free(TAKE_PTR(h->brain));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_happy, make, done),
	    cmocka_unit_test_setup_teardown(test_stale, make, done),
	    cmocka_unit_test_setup_teardown(test_always_stale, make, done),
	    cmocka_unit_test_setup_teardown(test_unavailable, make, done),
	    cmocka_unit_test_setup_teardown(test_stop_in_flight, make, done),
	    cmocka_unit_test_setup_teardown(test_double, make, done),
	    cmocka_unit_test_setup_teardown(test_free_in_flight, make, done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
