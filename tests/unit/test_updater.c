/* Rolling updates and rollbacks on a simulated cluster. */
#include "world.h"

#define UP(state) PB__UPDATE_STATE__E__##state

static int make(void **state)
{
	struct world *w = w_new(11);

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

static Pb__Service *service(struct world *w, int replicas, uint64_t parallelism, int64_t delay)
{
	Pb__Service *s = w_service(w, "web", "ok", replicas);
	Pb__UpdateConfig *u = w_update_config(s);

	u->parallelism = parallelism;
	u->has_delay = true;
	u->delay = delay;
	return s;
}

static const char *message(struct world *w)
{
	return w_get(w, "web")->update_status->message;
}

static size_t running(struct world *w)
{
	return w_count(w, "web", ST(RUNNING));
}

/* One at a time, each after the one before has run and the delay has passed; then the monitoring time. */
static void test_rolling(void **state)
{
	struct world *w = *state;
	size_t least = 4;
	int64_t began;

	w_create(w, service(w, 4, 1, 2 * W_SEC));
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 4);
	assert_null(w_get(w, "web")->update_status);
	began = w->now;
	w_image(w, "web", "ok2");
	w_run(w, 100 * W_MS);
	assert_int_equal(w_update_state(w, "web"), UP(UPDATING));
	assert_string_equal(message(w), "update in progress");
	for (int i = 0; i < 300 && w_update_state(w, "web") == UP(UPDATING); i++) {
		w_run(w, 100 * W_MS);
		if (running(w) < least)
			least = running(w);
	}
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
	assert_string_equal(message(w), "update completed");
	assert_true(w_get(w, "web")->update_status->has_completed_at);
	assert_int_equal(w_good(w, "web"), 4);
	assert_true(least >= 3);
	/* Three delays between four slots, five seconds of watching. */
	assert_true(w->now - began >= 11 * W_SEC && w->now - began <= 13 * W_SEC);
	for (uint64_t i = 1; i <= 4; i++)
		assert_int_equal(w_slot_tasks(w, "web", i), 2);
}

static void test_all_at_once(void **state)
{
	struct world *w = *state;

	w_create(w, service(w, 6, 0, 0));
	w_run(w, W_SEC);
	w_image(w, "web", "ok2");
	w_run(w, 500 * W_MS);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(w_update_state(w, "web"), UP(UPDATING));
	w_run(w, 6 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
}

/* start-first: never fewer than before. */
static void test_start_first(void **state)
{
	struct world *w = *state;
	Pb__Service *s = service(w, 3, 1, 0);
	size_t least = 3, most = 3;

	s->spec->update_config->has_order = true;
	s->spec->update_config->order = PB__UPDATE_ORDER__E__START_FIRST;
	w_create(w, s);
	w_run(w, W_SEC);
	w->overlap = true;
	w_image(w, "web", "ok2");
	for (int i = 0; i < 2000 && w_good(w, "web") < 3; i++) {
		w_run(w, W_MS);
		least = running(w) < least ? running(w) : least;
		most = running(w) > most ? running(w) : most;
	}
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 3);
	assert_int_equal(running(w), 3);
	assert_int_equal(least, 3);
	assert_int_equal(most, 4);
}

/* Labels, scale, update settings, registry credentials: nothing to update, no status. */
static void test_nothing_dirty(void **state)
{
	struct world *w = *state;
	Pb__Service *s;

	w_create(w, service(w, 3, 1, 0));
	w_run(w, W_SEC);
	s = w_edit(w, "web");
	s->spec->labels = xcalloc(1, sizeof(Pb__KV *));
	s->spec->labels[s->spec->n_labels++] = w_kv("a", "b");
	s->spec->task_template->container_spec->registry_auth = xstrdup("secret");
	s->spec->mode->replicated->replicas = 4;
	w_save(w, s);
	w_run(w, 10 * W_SEC);
	assert_int_equal(w->seen.created, 4);
	assert_null(w_get(w, "web")->update_status);
	assert_int_equal(w_good(w, "web"), 4);                     /* and all carry the new template */
	assert_int_equal(store_count(w->store, OBJ(TEMPLATE)), 2); /* this one and the previous spec's */
}

/* Only the placement changes: tasks that stand well stay. */
static void test_placement_only(void **state)
{
	struct world *w = *state;
	Pb__Service *s;

	w_create(w, service(w, 4, 1, 0));
	w_run(w, W_SEC);
	assert_int_equal(w_on_node(w, "n1"), 2);
	w_node_label(w, "n1", "zone", "a");
	s = w_edit(w, "web");
	w_constraint(s, "node.labels.zone == a");
	w_save(w, s);
	w_run(w, 15 * W_SEC);
	assert_int_equal(w->seen.created, 6);
	assert_int_equal(w_on_node(w, "n1"), 4);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
}

static void test_pause(void **state)
{
	struct world *w = *state;
	Pb__Service *s;

	w_create(w, service(w, 4, 1, 0));
	w_run(w, W_SEC);
	w_image(w, "web", "reject");
	w_run(w, 30 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(PAUSED));
	assert_true(str_has_prefix(message(w), "update paused due to failure or early termination of task "));
	/* The other three were not touched. */
	assert_int_equal(w_count(w, "web", ST(RUNNING)), 3);
	/* Whatever the user does next goes on from there. */
	s = w_edit(w, "web");
	free(s->spec->task_template->container_spec->image);
	s->spec->task_template->container_spec->image = xstrdup("ok3");
	w_save(w, s);
	w_run(w, 15 * W_SEC);
	assert_int_equal(w_good(w, "web"), 4);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
}

/* One failure in four is within a ratio of a quarter, two are not. */
static void test_failure_ratio(void **state)
{
	struct world *w = *state;
	Pb__Service *s = service(w, 4, 1, 0);

	s->spec->update_config->has_max_failure_ratio = true;
	s->spec->update_config->max_failure_ratio = 0.3f;
	w_create(w, s);
	w_run(w, W_SEC);
	w_image(w, "web", "reject");
	w_run(w, 30 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(PAUSED));
	assert_int_equal(running(w), 2);
}

static void test_continue(void **state)
{
	struct world *w = *state;
	Pb__Service *s = service(w, 3, 1, 0);

	s->spec->update_config->has_failure_action = true;
	s->spec->update_config->failure_action = PB__UPDATE_FAILURE_ACTION__E__CONTINUE;
	w_create(w, s);
	w_run(w, W_SEC);
	w_image(w, "web", "reject");
	w_run(w, 30 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
	assert_int_equal(w_good(w, "web"), 0);
}

static void test_rollback(void **state)
{
	struct world *w = *state;
	Pb__Service *s = service(w, 4, 2, 0);
	char first[64];

	s->spec->update_config->has_failure_action = true;
	s->spec->update_config->failure_action = PB__UPDATE_FAILURE_ACTION__E__ROLLBACK;
	w_create(w, s);
	w_run(w, W_SEC);
	snprintf(first, sizeof(first), "%s", w_get(w, "web")->template_id);
	w_image(w, "web", "crash:100");
	w_run(w, W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(ROLLBACK_STARTED));
	assert_true(
	    str_has_prefix(message(w), "update rolled back due to failure or early termination of task "));
	w_run(w, 30 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(ROLLBACK_COMPLETED));
	assert_string_equal(message(w), "rollback completed");
	assert_string_equal(w_get(w, "web")->template_id, first);
	assert_null(w_get(w, "web")->previous_spec);
	assert_null(w_get(w, "web")->previous_template_id);
	assert_string_equal(w_get(w, "web")->spec->task_template->container_spec->image, "ok");
	assert_int_equal(w_good(w, "web"), 4);
}

/* The spec that the rollback returns to fails as well. */
static void test_rollback_fails(void **state)
{
	struct world *w = *state;
	Pb__Service *s = service(w, 2, 1, 0);

	s->spec->update_config->has_failure_action = true;
	s->spec->update_config->failure_action = PB__UPDATE_FAILURE_ACTION__E__ROLLBACK;
	free(s->spec->task_template->container_spec->image);
	s->spec->task_template->container_spec->image = xstrdup("crash:2000");
	w_restart_delay(s, 0);
	w_create(w, s);
	w_run(w, W_SEC);
	w_image(w, "web", "reject");
	w_run(w, 30 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(ROLLBACK_PAUSED));
	assert_true(str_has_prefix(message(w), "update paused due to failure"));
	assert_int_equal(w->seen.created > 4, true);
}

/* As the API does it: specs swapped, status set. */
static void test_manual_rollback(void **state)
{
	struct world *w = *state;
	Pb__Service *s;
	struct txn *t = txn_new();
	char *id;
	Pb__ServiceSpec *spec;

	w_create(w, service(w, 2, 1, 0));
	w_run(w, W_SEC);
	w_image(w, "web", "ok2");
	w_run(w, 15 * W_SEC);
	s = msg_clone(w_get(w, "web"));
	spec = s->spec;
	s->spec = s->previous_spec;
	s->previous_spec = spec;
	id = s->template_id;
	s->template_id = s->previous_template_id;
	s->previous_template_id = id;
	protobuf_c_message_free_unpacked(&s->update_status->base, NULL);
	s->update_status = xmalloc(sizeof(*s->update_status));
	pb__update_status__init(s->update_status);
	s->update_status->has_state = true;
	s->update_status->state = UP(ROLLBACK_STARTED);
	s->update_status->message = xstrdup("manually requested rollback");
	txn_update(t, OBJ(SERVICE), s);
	assert_int_equal(w_apply(w, t), 0);
	w_run(w, 100 * W_MS);
	assert_int_equal(w_update_state(w, "web"), UP(ROLLBACK_STARTED));
	assert_string_equal(message(w), "manually requested rollback");
	w_run(w, 15 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(ROLLBACK_COMPLETED));
	assert_int_equal(w_good(w, "web"), 2);
	assert_string_equal(w_get(w, "web")->spec->task_template->container_spec->image, "ok");
}

/* A rollback that changes no task still comes to its end. */
static void test_rollback_of_scale(void **state)
{
	struct world *w = *state;
	Pb__Service *s;
	struct txn *t = txn_new();

	w_create(w, service(w, 2, 1, 0));
	w_run(w, W_SEC);
	s = msg_clone(w_get(w, "web"));
	s->spec->mode->replicated->replicas = 3;
	s->update_status = xmalloc(sizeof(*s->update_status));
	pb__update_status__init(s->update_status);
	s->update_status->has_state = true;
	s->update_status->state = UP(ROLLBACK_STARTED);
	txn_update(t, OBJ(SERVICE), s);
	assert_int_equal(w_apply(w, t), 0);
	w_run(w, W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(ROLLBACK_COMPLETED));
	assert_int_equal(w_good(w, "web"), 3);
}

/* A second update overtakes the first one in the middle. */
static void test_superseded(void **state)
{
	struct world *w = *state;

	w_create(w, service(w, 6, 1, W_SEC));
	w_run(w, W_SEC);
	w_image(w, "web", "ok2");
	w_run(w, 2500 * W_MS);
	w_image(w, "web", "ok3");
	w_run(w, 20 * W_SEC);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(running(w), 6);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
}

/* The leader dies in the middle of it. */
static void test_leader_change(void **state)
{
	struct world *w = *state;

	w_create(w, service(w, 6, 1, W_SEC));
	w_run(w, W_SEC);
	w_image(w, "web", "ok2");
	for (int i = 0; i < 20; i++) {
		w_run(w, 700 * W_MS);
		brain_stop(w->brain);
		w_run(w, 100 * W_MS);
		brain_start(w->brain);
	}
	w_run(w, 10 * W_SEC);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
	assert_int_equal(w->seen.created, 12);
}

/* A service that crashed all the time is repaired at once: nobody waits for restart delays. */
static void test_repair(void **state)
{
	struct world *w = *state;
	Pb__Service *s = service(w, 2, 1, 0);

	free(s->spec->task_template->container_spec->image);
	s->spec->task_template->container_spec->image = xstrdup("crash:10");
	w_restart_delay(s, 3600 * W_SEC);
	w_create(w, s);
	w_run(w, 2 * W_SEC);
	assert_int_equal(running(w), 0);
	w_image(w, "web", "ok");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 2);
}

static void test_global(void **state)
{
	struct world *w = *state;

	w_node(w, "n3");
	w_create(w, service(w, -1, 1, 0));
	w_run(w, W_SEC);
	w_node_availability(w, "n3", PB__NODE_AVAILABILITY__E__PAUSE);
	w_image(w, "web", "ok2");
	w_run(w, 10 * W_SEC);
	assert_int_equal(w_update_state(w, "web"), UP(COMPLETED));
	assert_int_equal(w_good(w, "web"), 2); /* not on the paused node */
	assert_int_equal(running(w), 3);
	w_node_availability(w, "n3", PB__NODE_AVAILABILITY__E__ACTIVE);
	w_run(w, 10 * W_SEC);
	assert_int_equal(w_good(w, "web"), 3);
	assert_int_equal(running(w), 3);
}

static void test_removed_meanwhile(void **state)
{
	struct world *w = *state;

	w_create(w, service(w, 4, 1, W_SEC));
	w_run(w, W_SEC);
	w_image(w, "web", "ok2");
	w_run(w, 1500 * W_MS);
	w_remove(w, OBJ(SERVICE), "web");
	w_run(w, W_SEC);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 0);
	assert_int_equal(store_count(w->store, OBJ(TEMPLATE)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_rolling, make, done),
	    cmocka_unit_test_setup_teardown(test_all_at_once, make, done),
	    cmocka_unit_test_setup_teardown(test_start_first, make, done),
	    cmocka_unit_test_setup_teardown(test_nothing_dirty, make, done),
	    cmocka_unit_test_setup_teardown(test_placement_only, make, done),
	    cmocka_unit_test_setup_teardown(test_pause, make, done),
	    cmocka_unit_test_setup_teardown(test_failure_ratio, make, done),
	    cmocka_unit_test_setup_teardown(test_continue, make, done),
	    cmocka_unit_test_setup_teardown(test_rollback, make, done),
	    cmocka_unit_test_setup_teardown(test_rollback_fails, make, done),
	    cmocka_unit_test_setup_teardown(test_manual_rollback, make, done),
	    cmocka_unit_test_setup_teardown(test_rollback_of_scale, make, done),
	    cmocka_unit_test_setup_teardown(test_superseded, make, done),
	    cmocka_unit_test_setup_teardown(test_leader_change, make, done),
	    cmocka_unit_test_setup_teardown(test_repair, make, done),
	    cmocka_unit_test_setup_teardown(test_global, make, done),
	    cmocka_unit_test_setup_teardown(test_removed_meanwhile, make, done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
