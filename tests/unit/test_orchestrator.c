/* The reconcilers on a simulated cluster: creating, scaling, history, removal, nodes, global services, jobs.
 */
#include "world.h"

static int make(void **state)
{
	struct world *w = w_new(42);

	w_node(w, "n1");
	w_node(w, "n2");
	w_node(w, "n3");
	brain_start(w->brain);
	*state = w;
	return 0;
}

static int done(void **state)
{
	w_free(*state);
	return 0;
}

/* When everything has settled, another look must not change anything. */
static void assert_settled(struct world *w)
{
	uint64_t v = store_version(w->store);

	brain_stop(w->brain);
	brain_start(w->brain);
	w_run(w, W_SEC);
	assert_int_equal(store_version(w->store), v);
	assert_true(brain_idle(w->brain));
}

static void test_create(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "ok", 5));
	w_run(w, 300 * W_MS);
	assert_int_equal(w_good(w, "web"), 5);
	assert_int_equal(w->seen.created, 5);
	for (uint64_t i = 1; i <= 5; i++)
		assert_int_equal(w_slot_tasks(w, "web", i), 1);
	assert_true(w_on_node(w, "n1") >= 1 && w_on_node(w, "n2") >= 1 && w_on_node(w, "n3") >= 1);
	assert_settled(w);
}

/* One commit makes the tasks and one assigns them. */
static void test_few_commits(void **state)
{
	struct world *w = *state;

	w->commit_max = 0;
	w->agent_max = 3600 * W_SEC;
	w_create(w, w_service(w, "web", "ok", 50));
	w_run(w, W_SEC);
	assert_int_equal(w_count(w, "web", ST(ASSIGNED)) + w_count(w, "web", ST(PREPARING)), 50);
	assert_true(w->commits <= 3);
}

static void test_scale(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "ok", 2));
	w_run(w, W_SEC);
	w_scale(w, "web", 6);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(w->seen.created, 6); /* nothing was replaced */
	w_scale(w, "web", 3);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 3);
	/* One left on each node, and nothing left of the others. */
	assert_int_equal(w_on_node(w, "n1"), 1);
	assert_int_equal(w_on_node(w, "n2"), 1);
	assert_int_equal(w_on_node(w, "n3"), 1);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 3);
	w_scale(w, "web", 0);
	w_run(w, W_SEC);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 0);
	w_scale(w, "web", 1);
	w_run(w, W_SEC);
	assert_int_equal(w_task(w, "web", 1)->status->state, ST(RUNNING));
	assert_settled(w);
}

/* A number that is free again is used again, but not before its last task has stopped. */
static void test_slot_reuse(void **state)
{
	struct world *w = *state;

	w->agent_max = 500 * W_MS;
	w_create(w, w_service(w, "web", "ok", 3));
	w_run(w, 10 * W_SEC);
	w_scale(w, "web", 1);
	w_run(w, 10 * W_MS);
	w_scale(w, "web", 3);
	w_run(w, 10 * W_SEC); /* world.h checks that no two run in a slot */
	assert_int_equal(w_good(w, "web"), 3);
	for (uint64_t i = 1; i <= 3; i++)
		assert_non_null(w_task(w, "web", i));
}

static void test_remove(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "ok", 3));
	w_run(w, W_SEC);
	w_node_up(w, "n2", false);
	w_remove(w, OBJ(SERVICE), "web");
	w_run(w, W_SEC);
	/* The one on the dead node cannot be known to be gone. */
	assert_true(store_count(w->store, OBJ(TASK)) >= 1);
	w_node_up(w, "n2", true);
	w_run(w, W_SEC);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 0);
	assert_int_equal(store_count(w->store, OBJ(TEMPLATE)), 0);
	assert_settled(w);
}

static void test_remove_unplaced(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 3);

	w_constraint(s, "node.labels.there == no");
	w_create(w, s);
	w_run(w, W_SEC);
	assert_int_equal(w_count(w, "web", ST(PENDING)), 3);
	assert_string_equal(w_task(w, "web", 1)->status->err,
	    "no suitable node (scheduling constraints not satisfied on 3 nodes)");
	w_remove(w, OBJ(SERVICE), "web");
	w_run(w, W_SEC);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 0);
}

static void test_history(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "crash:100", 1);

	w_restart_delay(s, 100 * W_MS);
	w_create(w, s);
	w_run(w, 20 * W_SEC);
	assert_true(w->seen.created > 20);
	assert_int_equal(w_slot_tasks(w, "web", 1), 5);
}

static void test_node_down(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 6);

	w_restart_delay(s, 0);
	w_create(w, s);
	w_run(w, W_SEC);
	assert_int_equal(w_on_node(w, "n1"), 2);
	w_node_up(w, "n1", false);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(w_on_node(w, "n1"), 0);
	/* Back: what it still runs is stopped, and nothing moves there by itself. */
	w_node_up(w, "n1", true);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(w_on_node(w, "n1"), 0);
	assert_int_equal(w_count(w, "web", ST(RUNNING)), 6);
	assert_settled(w);
}

static void test_drain(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "ok", 6)); /* the delay of 5 s does not apply */
	w_run(w, W_SEC);
	w_node_availability(w, "n1", PB__NODE_AVAILABILITY__E__DRAIN);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 6);
	assert_int_equal(w_on_node(w, "n1"), 0);
	w_node_availability(w, "n2", PB__NODE_AVAILABILITY__E__DRAIN);
	w_node_availability(w, "n3", PB__NODE_AVAILABILITY__E__DRAIN);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 0);
	assert_int_equal(w_count(w, "web", ST(PENDING)), 6);
	assert_string_equal(
	    w_task(w, "web", 1)->status->err, "no suitable node (3 nodes not available for new tasks)");
	w_node_availability(w, "n2", PB__NODE_AVAILABILITY__E__ACTIVE);
	w_run(w, W_SEC);
	assert_int_equal(w_on_node(w, "n2"), 6);
	assert_settled(w);
}

static void test_node_removed(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 3);

	w_restart_delay(s, 0);
	w_create(w, s);
	w_run(w, W_SEC);
	strmap_put(&w->silent, "n1", (void *)(uintptr_t)1);
	w_remove(w, OBJ(NODE), "n1");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 3);
	assert_int_equal(w_count(w, "web", ST(ORPHANED)), 1);
	assert_settled(w);
}

static void test_orphan_after_a_day(void **state)
{
	struct world *w = *state;

	w_create(w, w_service(w, "web", "ok", 3));
	w_run(w, W_SEC);
	w_node_up(w, "n1", false);
	w_run(w, 3600 * W_SEC);
	assert_int_equal(w_count(w, "web", ST(ORPHANED)), 0);
	w_run(w, 24 * 3600 * W_SEC);
	assert_int_equal(w_count(w, "web", ST(ORPHANED)), 1);
}

static void test_constraint_enforced(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 2);

	w_restart_delay(s, 0);
	w_constraint(s, "node.labels.disk==ssd");
	w_node_label(w, "n1", "disk", "ssd");
	w_create(w, s);
	w_run(w, W_SEC);
	assert_int_equal(w_on_node(w, "n1"), 2);
	w_node_label(w, "n2", "disk", "ssd");
	w_node_label(w, "n1", "disk", "hdd");
	w->overlap = true; /* a rejected task counts as ended at once */
	w_run(w, W_SEC);
	assert_int_equal(w_on_node(w, "n2"), 2);
	assert_int_equal(w_on_node(w, "n1"), 0);
	assert_int_equal(w_count(w, "web", ST(REJECTED)), 2);
}

static void test_resources_shrunk(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 3);
	Pb__TaskSpec *ts = s->spec->task_template;
	Pb__Node *n;

	w_restart_delay(s, 0);
	ts->resources = xmalloc(sizeof(*ts->resources));
	pb__resource_requirements__init(ts->resources);
	ts->resources->reservations = xmalloc(sizeof(Pb__Resources));
	pb__resources__init(ts->resources->reservations);
	ts->resources->reservations->has_memory_bytes = true;
	ts->resources->reservations->memory_bytes = INT64_C(3) << 30;
	w_create(w, s);
	w_run(w, W_SEC);
	n = w_node_edit(w, "n1");
	n->description->resources->memory_bytes = INT64_C(2) << 30;
	w->overlap = true;
	w_node_save(w, n);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 3);
	assert_int_equal(w_on_node(w, "n1"), 0);
}

static void test_global(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "agent", "ok", -1);

	w_constraint(s, "node.labels.skip != yes");
	w_create(w, s);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "agent"), 3);
	w_node(w, "n4");
	w_run(w, W_SEC);
	assert_int_equal(w_on_node(w, "n4"), 1);
	w_node_availability(w, "n2", PB__NODE_AVAILABILITY__E__DRAIN);
	w_node_up(w, "n3", false);
	w_node_label(w, "n4", "skip", "yes");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "agent"), 1);
	w_node_availability(w, "n2", PB__NODE_AVAILABILITY__E__ACTIVE);
	w_node_up(w, "n3", true);
	w_node_label(w, "n4", "skip", "no");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "agent"), 4);
	for (int i = 1; i <= 4; i++) {
		char id[8];

		snprintf(id, sizeof(id), "n%d", i);
		assert_int_equal(w_on_node(w, id), 1);
	}
	/* A paused node keeps its task and gets none. */
	w_node_availability(w, "n1", PB__NODE_AVAILABILITY__E__PAUSE);
	w_node(w, "n5");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "agent"), 5);
	w_remove(w, OBJ(SERVICE), "agent");
	w_run(w, W_SEC);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 0);
}

static void test_ports(void **state)
{
	struct world *w = *state;
	Pb__Service *a = w_service(w, "a", "ok", 1), *b = w_service(w, "b", "ok", 1);

	w_port(a, 80, 8080, false);
	w_port(a, 81, 0, false);
	w_port(b, 80, 8080, false);
	w_create(w, a);
	w_create(w, b); /* at the same time: the API could not see it */
	w_run(w, W_SEC);
	assert_int_equal(w_get(w, "a")->endpoint->n_ports, 2);
	assert_int_equal(w_get(w, "a")->endpoint->ports[0]->published_port, 8080);
	assert_int_equal(w_get(w, "a")->endpoint->ports[1]->published_port, 30000);
	assert_int_equal(w_get(w, "a")->spec->endpoint_spec->ports[1]->published_port, 0);
	assert_int_equal(w_good(w, "a"), 1);
	assert_int_equal(w_task(w, "b", 1)->status->state, ST(NEW));
	assert_string_equal(
	    w_task(w, "b", 1)->status->err, "port '8080' is already in use by service a as an ingress port");
	w_remove(w, OBJ(SERVICE), "a");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "b"), 1);
	assert_null(w_task(w, "b", 1)->status->err);
	assert_settled(w);
}

static void test_host_ports(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 4);

	w_port(s, 80, 8080, true);
	w_create(w, s);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 3);
	assert_int_equal(w_count(w, "web", ST(PENDING)), 1);
	for (uint64_t i = 1; i <= 4; i++) {
		if (w_task(w, "web", i)->status->state == ST(PENDING))
			assert_string_equal(w_task(w, "web", i)->status->err,
			    "no suitable node (host-mode port already in use on 3 nodes)");
		else
			assert_int_equal(w_task(w, "web", i)->host_ports[0]->published_port, 8080);
	}
	w_node(w, "n4");
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 4);
}

static Pb__Service *job(
    struct world *w, const char *id, const char *image, uint64_t concurrent, uint64_t total)
{
	Pb__Service *s = w_service(w, id, image, 1);
	Pb__ReplicatedJob *j = xmalloc(sizeof(*j));

	protobuf_c_message_free_unpacked(&s->spec->mode->replicated->base, NULL);
	s->spec->mode->replicated = NULL;
	pb__replicated_job__init(j);
	j->has_max_concurrent = j->has_total_completions = true;
	j->max_concurrent = concurrent;
	j->total_completions = total;
	s->spec->mode->replicated_job = j;
	s->job_status = xmalloc(sizeof(*s->job_status));
	pb__job_status__init(s->job_status);
	s->job_status->job_iteration = xmalloc(sizeof(Pb__Version));
	pb__version__init(s->job_status->job_iteration);
	s->job_status->job_iteration->has_index = true;
	return s;
}

static void test_job(void **state)
{
	struct world *w = *state;
	Pb__Service *s;

	w_create(w, job(w, "batch", "done:500", 2, 5));
	w_run(w, 400 * W_MS);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 2);
	w_run(w, 5 * W_SEC);
	assert_int_equal(w_count(w, "batch", ST(COMPLETE)), 5);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 5);
	for (uint64_t i = 0; i < 5; i++)
		assert_int_equal(w_slot_tasks(w, "batch", i), 1);
	assert_settled(w);
	/* Again. */
	s = w_edit(w, "batch");
	s->job_status->job_iteration->index = 1;
	w_save(w, s);
	w_run(w, 5 * W_SEC);
	assert_int_equal(w_count(w, "batch", ST(COMPLETE)), 5);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 5);
	assert_int_equal(w_task(w, "batch", 3)->job_iteration->index, 1);
}

static void test_job_fails(void **state)
{
	struct world *w = *state;
	Pb__Service *s = job(w, "batch", "crash:50", 1, 1);

	w_restart_delay(s, 100 * W_MS);
	w_restart(s)->has_max_attempts = true;
	w_restart(s)->max_attempts = 2;
	w_create(w, s);
	w_run(w, 10 * W_SEC);
	assert_int_equal(w_count(w, "batch", ST(FAILED)), 3);
	assert_int_equal(w->seen.created, 3);
	assert_settled(w);
}

static void test_global_job(void **state)
{
	struct world *w = *state;
	Pb__Service *s = job(w, "once", "done:100", 1, 1);

	protobuf_c_message_free_unpacked(&s->spec->mode->replicated_job->base, NULL);
	s->spec->mode->replicated_job = NULL;
	s->spec->mode->global_job = xmalloc(sizeof(Pb__GlobalJob));
	pb__global_job__init(s->spec->mode->global_job);
	w_create(w, s);
	w_run(w, 2 * W_SEC);
	assert_int_equal(w_count(w, "once", ST(COMPLETE)), 3);
	w_node(w, "n4");
	w_run(w, 2 * W_SEC);
	assert_int_equal(w_count(w, "once", ST(COMPLETE)), 4);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 4);
	assert_settled(w);
}

/* A task whose template got lost does not stop the service for ever. */
static void test_template_lost(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 2);
	struct txn *t = txn_new();

	txn_create(t, OBJ(SERVICE), s);
	assert_int_equal(w_apply(w, t), 0);
	w_run(w, W_SEC);
	assert_int_equal(w_good(w, "web"), 2);
}

/* A service larger than one pass. */
static void test_large(void **state)
{
	struct world *w = *state;
	Pb__Service *s = w_service(w, "web", "ok", 12000);
	const struct object *o;
	struct store_iter it;
	size_t kept = 0;

	w->no_agents = true;
	w->overlap = true; /* too many to look at after each commit */
	w_create(w, s);
	w_run(w, 50 * W_MS);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 12000);
	assert_int_equal(w_count(w, "web", ST(ASSIGNED)), 12000);
	w_scale(w, "web", 10);
	w_run(w, 200 * W_MS);
	assert_int_equal(store_count(w->store, OBJ(TASK)), 12000);
	store_iter_init(&it, w->store, OBJ(TASK), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL)
		kept += o->task->desired_state == ST(RUNNING);
	assert_int_equal(kept, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_create, make, done),
	    cmocka_unit_test_setup_teardown(test_few_commits, make, done),
	    cmocka_unit_test_setup_teardown(test_scale, make, done),
	    cmocka_unit_test_setup_teardown(test_slot_reuse, make, done),
	    cmocka_unit_test_setup_teardown(test_remove, make, done),
	    cmocka_unit_test_setup_teardown(test_remove_unplaced, make, done),
	    cmocka_unit_test_setup_teardown(test_history, make, done),
	    cmocka_unit_test_setup_teardown(test_node_down, make, done),
	    cmocka_unit_test_setup_teardown(test_drain, make, done),
	    cmocka_unit_test_setup_teardown(test_node_removed, make, done),
	    cmocka_unit_test_setup_teardown(test_orphan_after_a_day, make, done),
	    cmocka_unit_test_setup_teardown(test_constraint_enforced, make, done),
	    cmocka_unit_test_setup_teardown(test_resources_shrunk, make, done),
	    cmocka_unit_test_setup_teardown(test_global, make, done),
	    cmocka_unit_test_setup_teardown(test_ports, make, done),
	    cmocka_unit_test_setup_teardown(test_host_ports, make, done),
	    cmocka_unit_test_setup_teardown(test_job, make, done),
	    cmocka_unit_test_setup_teardown(test_job_fails, make, done),
	    cmocka_unit_test_setup_teardown(test_global_job, make, done),
	    cmocka_unit_test_setup_teardown(test_template_lost, make, done),
	    cmocka_unit_test_setup_teardown(test_large, make, done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
