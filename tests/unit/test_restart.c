/* The restart supervisor: condition, delay, attempts, window; on a simulated cluster. */
#include "world.h"

static int make(void **state)
{
	struct world *w = w_new(7);

	w_node(w, "n1");
	w_node(w, "n2");
	brain_start(w->brain);
	*state = w;
	return 0;
}

static int done(void **state)
{
	w_free(*state);
	return 0;
}

static void policy(
    Pb__Service *s, Pb__RestartCondition__E condition, int64_t delay, uint64_t attempts, int64_t window)
{
	Pb__RestartPolicy *p = w_restart(s);

	p->has_condition = p->has_delay = p->has_max_attempts = p->has_window = true;
	p->condition = condition;
	p->delay = delay;
	p->max_attempts = attempts;
	p->window = window;
}

static const Pb__Task *oldest(struct world *w, const char *service)
{
	const Pb__Task *best = NULL;
	const struct object *o;
	struct store_iter it;

	store_iter_init(&it, w->store, OBJ(TASK), STORE_TASK_BY_SERVICE, service);
	while ((o = store_iter_next(&it)) != NULL) {
		if (best == NULL || o->task->created_at < best->created_at)
			best = o->task;
	}
	return best;
}

/* Without a policy: any end is followed by a restart, 5 s later; the replacement is there meanwhile, wanted
 * READY. */
static void test_default(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "done:1000", 1));
	w_run(w, 3 * W_SEC);
	assert_int_equal(w_slot_tasks(w, "web", 1), 2);
	assert_int_equal(oldest(w, "web")->status->state, ST(COMPLETE));
	assert_int_equal(oldest(w, "web")->desired_state, ST(SHUTDOWN));
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(READY));
	assert_int_equal(w_task(w, "web", 1)->status->state, ST(READY)); /* prepared */
	w_run(w, 3500 * W_MS);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(RUNNING));
	assert_int_equal(w_task(w, "web", 1)->restarts, 1);
	assert_true(w_task(w, "web", 1)->running_at - oldest(w, "web")->status->timestamp >= 5 * W_SEC);
}

static void test_on_failure(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "good", "done:100", 2);

	policy(s, PB__RESTART_CONDITION__E__ON_FAILURE, 0, 0, 0);
	w_create(w, s);
	s = w_service(w, "bad", "crash:1000", 1);
	policy(s, PB__RESTART_CONDITION__E__ON_FAILURE, 0, 0, 0);
	w_create(w, s);
	w_run(w, 5 * W_SEC);
	assert_int_equal(store_index_count(w->store, STORE_TASK_BY_SERVICE, "good"), 2);
	assert_int_equal(w_count(w, "good", ST(COMPLETE)), 2);
	assert_true(store_index_count(w->store, STORE_TASK_BY_SERVICE, "bad") >= 4);
	/* Slots that are done stay done when the service grows. */
	w_scale(w, "good", 3);
	w_run(w, 5 * W_SEC);
	assert_int_equal(w_count(w, "good", ST(COMPLETE)), 3);
}

static void test_none(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "crash:100", 1);

	policy(s, PB__RESTART_CONDITION__E__NONE, 0, 0, 0);
	w_create(w, s);
	w_run(w, 20 * W_SEC);
	assert_int_equal(w->seen.created, 1);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(SHUTDOWN));
	assert_int_equal(w_task(w, "web", 1)->status->state, ST(FAILED));
	/* An update revives it. */
	w_image(w, "web", "ok");
	w_run(w, 20 * W_SEC);
	assert_int_equal(w_good(w, "web"), 1);
}

/* Two attempts: three tasks. Then nothing more until the spec changes. */
static void test_max_attempts(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "crash:100", 1);

	policy(s, PB__RESTART_CONDITION__E__ANY, 100 * W_MS, 2, 0);
	w_create(w, s);
	w_run(w, 60 * W_SEC);
	assert_int_equal(w->seen.created, 3);
	assert_int_equal(w_slot_tasks(w, "web", 1), 3);
	assert_int_equal(w_count(w, "web", ST(FAILED)), 3);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(SHUTDOWN));
	/* A leader that starts afterwards leaves it at that. */
	brain_stop(w->brain);
	brain_start(w->brain);
	w_run(w, 10 * W_SEC);
	assert_int_equal(w->seen.created, 3);
	w_image(w, "web", "crash:150");
	w_run(w, 60 * W_SEC);
	assert_int_equal(w->seen.created, 6);
}

/* Attempts count within the window only: what fails rarely is restarted for ever. */
static void test_window(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "rare", "crash:4000", 1);

	policy(s, PB__RESTART_CONDITION__E__ANY, 0, 2, 5 * W_SEC);
	w_create(w, s);
	s = w_service(w, "often", "crash:1000", 1);
	policy(s, PB__RESTART_CONDITION__E__ANY, 0, 2, 5 * W_SEC);
	w_create(w, s);
	w_run(w, 100 * W_SEC);
	assert_int_equal(w_task(w, "rare", 1)->desired_state, ST(RUNNING));
	assert_true(w_task(w, "rare", 1)->restarts > 15);
	assert_int_equal(w_slot_tasks(w, "often", 1), 3);
	assert_int_equal(w_task(w, "often", 1)->desired_state, ST(SHUTDOWN));
}

/* Being moved off a node is no attempt. */
static void test_drain_is_no_attempt(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 1);

	policy(s, PB__RESTART_CONDITION__E__ANY, 0, 1, 0);
	w_create(w, s);
	w_run(w, W_SEC);
	for (int i = 0; i < 6; i++) {
		const char *from = i % 2 == 0 ? "n1" : "n2", *to = i % 2 == 0 ? "n2" : "n1";

		w_node_availability(w, from, PB__NODE_AVAILABILITY__E__DRAIN);
		w_node_availability(w, to, PB__NODE_AVAILABILITY__E__ACTIVE);
		w_run(w, W_SEC);
		assert_int_equal(w_good(w, "web"), 1);
	}
	assert_int_equal(w_task(w, "web", 1)->restarts, 0);
}

static void test_rejected(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "reject", 1);

	policy(s, PB__RESTART_CONDITION__E__ON_FAILURE, W_SEC, 0, 0);
	w_create(w, s);
	w_run(w, 10 * W_SEC);
	assert_int_equal(w_slot_tasks(w, "web", 1), 5);
	assert_true(w_count(w, "web", ST(REJECTED)) >= 4);
	assert_true(w->seen.created >= 9 && w->seen.created <= 12);
}

/* What was wanted READY when the leader died is started by the next one. */
static void test_leader_change(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "done:1000", 1));
	w_run(w, 3 * W_SEC);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(READY));
	brain_stop(w->brain);
	w_run(w, 60 * W_SEC);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(READY));
	brain_start(w->brain);
	w_run(w, 500 * W_MS);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(RUNNING));
}

/* A replacement is prepared while the old one stops, and starts when it has; or when it takes too long. */
static void test_waits_for_the_old_one(void **state)
{
	struct world *w = *state;
	const Pb__Task *t;

	w_create(w, w_service(w, "web", "ok", 1));
	w_run(w, W_SEC);
	w->agent_max = 10 * W_SEC;
	w_node_availability(w, w_task(w, "web", 1)->node_id, PB__NODE_AVAILABILITY__E__DRAIN);
	w_run(w, 100 * W_MS);
	t = w_task(w, "web", 1);
	assert_int_equal(t->desired_state, ST(READY));
	assert_false(t->has_start_after);
	w_run(w, 60 * W_SEC);
	assert_int_equal(w_good(w, "web"), 1);
	/* The agent does not answer although its node counts as ready. */
	strmap_put(&w->silent, w_task(w, "web", 1)->node_id, (void *)(uintptr_t)1);
	w_node_availability(
	    w, str_eq(w_task(w, "web", 1)->node_id, "n1") ? "n2" : "n1", PB__NODE_AVAILABILITY__E__ACTIVE);
	w_node_availability(w, w_task(w, "web", 1)->node_id, PB__NODE_AVAILABILITY__E__DRAIN);
	w->agent_max = 20 * W_MS;
	w_run(w, 59 * W_SEC);
	assert_int_equal(w_task(w, "web", 1)->desired_state, ST(READY));
	w_run(w, 2 * W_SEC);
	assert_int_equal(w_task(w, "web", 1)->status->state, ST(RUNNING));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_default, make, done),
	    cmocka_unit_test_setup_teardown(test_on_failure, make, done),
	    cmocka_unit_test_setup_teardown(test_none, make, done),
	    cmocka_unit_test_setup_teardown(test_max_attempts, make, done),
	    cmocka_unit_test_setup_teardown(test_window, make, done),
	    cmocka_unit_test_setup_teardown(test_drain_is_no_attempt, make, done),
	    cmocka_unit_test_setup_teardown(test_rejected, make, done),
	    cmocka_unit_test_setup_teardown(test_leader_change, make, done),
	    cmocka_unit_test_setup_teardown(test_waits_for_the_old_one, make, done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
