/* A cluster to which all kinds of things happen at random: services come, change, scale and go, nodes die,
 * return, are drained and removed, leaders change, commits are slow and lose races. World.h checks after
 * every commit what must always hold. In the end everything is made well again, and then reality must become
 * what was asked for, and stay so.
 *
 * SEED=n runs one seed, SEEDS=n that many. */
#include "world.h"

#define STEPS    60
#define SERVICES 5
#define NODES    5

static const char *const images[] = {"ok", "ok2", "crash:300", "crash:7000", "done:1000", "reject", "never"};

struct chaos {
	struct world *w;
	int nodes; /* made so far */
	char node[NODES][16];
	char service[SERVICES][16];
	int services; /* made so far */
};

static uint64_t below(struct chaos *c, uint64_t n)
{
	return rng_below(c->w->rng, n);
}

static void add_node(struct chaos *c, int i)
{
	snprintf(c->node[i], sizeof(c->node[i]), "n%d", ++c->nodes);
	w_node(c->w, c->node[i]);
	w_node_label(c->w, c->node[i], "zone", below(c, 2) == 0 ? "a" : "b");
}

static void randomize(struct chaos *c, Pb__Service *s)
{
	Pb__UpdateConfig *u = w_update_config(s);

	w_restart_delay(s, (int64_t)below(c, 3) * W_SEC);
	w_restart(s)->has_condition = true;
	w_restart(s)->condition =
	    below(c, 4) == 0 ? PB__RESTART_CONDITION__E__ON_FAILURE : PB__RESTART_CONDITION__E__ANY;
	w_restart(s)->has_max_attempts = true;
	w_restart(s)->max_attempts = below(c, 4) == 0 ? 2 : 0;
	u->parallelism = below(c, 3);
	u->has_delay = true;
	u->delay = (int64_t)below(c, 2) * W_SEC;
	u->has_failure_action = true;
	u->failure_action = (Pb__UpdateFailureAction__E)below(c, 3);
	/* Every third seed; there the world does not look for two that run in a slot. */
	u->has_order = c->w->overlap && below(c, 2) == 0;
	u->order = u->has_order ? PB__UPDATE_ORDER__E__START_FIRST : PB__UPDATE_ORDER__E__STOP_FIRST;
	if (below(c, 4) == 0)
		w_constraint(s, below(c, 2) == 0 ? "node.labels.zone==a" : "node.labels.zone!=a");
}

static void change_service(struct chaos *c, int i)
{
	Pb__Service *s;
	Pb__ContainerSpec *cs;

	if (w_get(c->w, c->service[i]) == NULL) {
		snprintf(c->service[i], sizeof(c->service[i]), "s%d", ++c->services);
		s = w_service(c->w, c->service[i], "ok", below(c, 4) == 0 ? -1 : (int)below(c, 8));
		randomize(c, s);
		if (below(c, 3) == 0)
			w_port(s, 80, 0, below(c, 2) == 0);
		w_create(c->w, s);
		return;
	}
	switch (below(c, 6)) {
	case 0:
		w_remove(c->w, OBJ(SERVICE), c->service[i]);
		return;
	case 1:
	case 2:
		s = w_edit(c->w, c->service[i]);
		if (s->spec->mode->replicated != NULL)
			s->spec->mode->replicated->replicas = below(c, 10);
		w_save(c->w, s);
		return;
	default:
		s = w_edit(c->w, c->service[i]);
		cs = s->spec->task_template->container_spec;
		free(cs->image);
		cs->image = xstrdup(images[below(c, ARRAY_LEN(images))]);
		randomize(c, s);
		w_save(c->w, s);
	}
}

static void change_node(struct chaos *c, int i)
{
	bool down =
	    store_get(c->w->store, OBJ(NODE), c->node[i])->node->status->state == PB__NODE_STATE__E__DOWN;

	switch (below(c, 6)) {
	case 0:
	case 1:
		w_node_up(c->w, c->node[i], down);
		break;
	case 2:
	case 3:
		w_node_availability(c->w, c->node[i], (Pb__NodeAvailability__E)below(c, 3));
		break;
	case 4:
		w_node_label(c->w, c->node[i], "zone", below(c, 2) == 0 ? "a" : "b");
		break;
	default:
		strmap_put(&c->w->silent, c->node[i], (void *)(uintptr_t)1);
		w_remove(c->w, OBJ(NODE), c->node[i]);
		add_node(c, i);
	}
}

static void heal(struct chaos *c)
{
	for (int i = 0; i < NODES; i++) {
		w_node_up(c->w, c->node[i], true);
		w_node_availability(c->w, c->node[i], PB__NODE_AVAILABILITY__E__ACTIVE);
	}
	for (int i = 0; i < SERVICES; i++) {
		Pb__Service *s;

		if (w_get(c->w, c->service[i]) == NULL)
			continue;
		s = w_edit(c->w, c->service[i]);
		free(s->spec->task_template->container_spec->image);
		s->spec->task_template->container_spec->image = xstrdup("ok3");
		if (s->spec->task_template->placement != NULL) {
			protobuf_c_message_free_unpacked(&s->spec->task_template->placement->base, NULL);
			s->spec->task_template->placement = NULL;
		}
		if (s->spec->endpoint_spec != NULL) { /* host ports may not fit */
			protobuf_c_message_free_unpacked(&s->spec->endpoint_spec->base, NULL);
			s->spec->endpoint_spec = NULL;
		}
		w_save(c->w, s);
	}
}

static void check(struct chaos *c)
{
	struct world *w = c->w;
	const struct object *o;
	struct store_iter it;
	uint64_t version;

	for (int i = 0; i < SERVICES; i++) {
		const Pb__Service *s = w_get(w, c->service[i]);
		size_t want;

		if (s == NULL)
			continue;
		want = s->spec->mode->global != NULL ? NODES : (size_t)s->spec->mode->replicated->replicas;
		assert_int_equal(w_good(w, s->id), want);
		assert_int_equal(w_count(w, s->id, ST(RUNNING)), want);
		assert_true(w_update_state(w, s->id) == PB__UPDATE_STATE__E__UNKNOWN ||
			    w_update_state(w, s->id) == PB__UPDATE_STATE__E__COMPLETED);
	}
	store_iter_init(&it, w->store, OBJ(TASK), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL) {
		assert_non_null(w_get(w, o->task->service_id));
		assert_non_null(store_template(w->store, o->task->template_id));
	}
	store_iter_init(&it, w->store, OBJ(TEMPLATE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL)
		assert_non_null(w_get(w, o->tmpl->service_id));
	version = store_version(w->store);
	brain_stop(w->brain);
	brain_start(w->brain);
	w_run(w, 5 * W_SEC);
	assert_int_equal(store_version(w->store), version);
	assert_true(brain_idle(w->brain));
}

static void one(uint64_t seed)
{
	struct chaos c = {.w = w_new(seed)};

	c.w->overlap = seed % 3 == 0;
	c.w->commit_max = (int64_t)below(&c, 60) * W_MS;
	c.w->agent_max = (int64_t)(1 + below(&c, 500)) * W_MS;
	for (int i = 0; i < NODES; i++)
		add_node(&c, i);
	brain_start(c.w->brain);
	for (int i = 0; i < STEPS; i++) {
		switch (below(&c, 8)) {
		case 0:
			brain_stop(c.w->brain);
			w_run(c.w, (int64_t)below(&c, 2000) * W_MS);
			brain_start(c.w->brain);
			break;
		case 1:
		case 2:
			change_node(&c, (int)below(&c, NODES));
			break;
		default:
			change_service(&c, (int)below(&c, SERVICES));
		}
		w_run(c.w, (int64_t)below(&c, below(&c, 3) == 0 ? 10000 : 500) * W_MS);
	}
	heal(&c);
	w_run(c.w, 400 * W_SEC);
	check(&c);
	w_free(c.w);
}

static void test_random(void **state)
{
	const char *only = getenv("SEED"), *many = getenv("SEEDS");
	uint64_t n = many != NULL ? strtoull(many, NULL, 10) : 40;

	(void)state;
	if (only != NULL) {
		one(strtoull(only, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= n; seed++) {
		fprintf(stderr, "seed %" PRIu64 "\n", seed);
		one(seed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
