/* The scheduler by itself: filters and their words, spread, preferences, resources, retries; and constraints.
 */
#include "world.h"

#include "manager/scheduler/constraint.h"
#include "manager/scheduler/scheduler.h"

struct bench {
	struct world *w; /* a store and a way to write to it; its brain is not started */
	struct scheduler *s;
	struct store_watch *watch;
	size_t n_tasks;
	struct strmap placed; /* task id -> heap node id; NULL-less */
	size_t decisions, unplaced;
	char last_err[512];
	bool commit; /* decisions are written to the store */
	struct txn *out;
};

static void on_event(void *data, const struct store_event *ev)
{
	scheduler_event(((struct bench *)data)->s, ev);
}

static int make(void **state)
{
	struct bench *b = NEW(struct bench);

	b->w = w_new(1);
	b->s = scheduler_new(b->w->store);
	b->watch = store_watch_new(b->w->store, on_event, b);
	b->commit = true;
	*state = b;
	return 0;
}

static int done(void **state)
{
	struct bench *b = *state;

	store_watch_free(b->watch);
	scheduler_free(b->s);
	w_free(b->w);
	strmap_done_free(&b->placed, free);
	free(b);
	return 0;
}

static void add_task(struct txn *t, const Pb__Service *s, const char *id, const char *node)
{
	Pb__Task *k = xmalloc(sizeof(*k));

	pb__task__init(k);
	k->id = xstrdup(id);
	k->service_id = xstrdup(s->id);
	k->template_id = xstrdup(s->template_id);
	k->node_id = xstrdup(node);
	k->desired_state = ST(RUNNING);
	k->status = xmalloc(sizeof(*k->status));
	pb__task_status__init(k->status);
	k->status->state = ST(PENDING);
	k->status->message = xstrdup("pending task scheduling");
	txn_create(t, OBJ(TASK), k);
}

/* Stores the service's template (the service itself is of no interest here) and `n` pending tasks. Takes s.
 */
static void tasks(struct bench *b, Pb__Service *s, size_t n)
{
	struct txn *t = txn_new();

	if (store_template(b->w->store, s->template_id) == NULL)
		txn_create(t, OBJ(TEMPLATE), w_template(s));
	for (size_t i = 0; i < n; i++) {
		char id[32];

		snprintf(id, sizeof(id), "t%zu", b->n_tasks++);
		add_task(t, s, id, NULL);
	}
	assert_int_equal(w_apply(b->w, t), 0);
	protobuf_c_message_free_unpacked(&s->base, NULL);
}

static void on_decision(void *data, const struct sched_decision *d)
{
	struct bench *b = data;

	b->decisions++;
	if (d->node_id != NULL) {
		free(strmap_put(&b->placed, d->task->id, xstrdup(d->node_id)));
	} else {
		b->unplaced++;
		snprintf(b->last_err, sizeof(b->last_err), "%s", d->err);
	}
	txn_update(b->out, OBJ(TASK), sched_decision_task(d, b->w->now));
}

static size_t run(struct bench *b)
{
	int64_t next = INT64_MAX;
	size_t n;

	b->out = txn_new();
	b->decisions = b->unplaced = 0;
	n = scheduler_run(b->s, b->w->now, 1000000, on_decision, b, &next);
	assert_int_equal(n, b->decisions);
	if (b->commit)
		assert_int_equal(w_apply(b->w, TAKE_PTR(b->out)), 0);
	else
		txn_free(b->out);
	return n;
}

static size_t on(struct bench *b, const char *node)
{
	size_t n = 0;
	void *v;

	for (size_t it = 0; strmap_next(&b->placed, &it, NULL, &v);)
		n += str_eq(v, node);
	return n;
}

static void nodes(struct bench *b, int n)
{
	for (int i = 1; i <= n; i++) {
		char id[16];

		snprintf(id, sizeof(id), "n%d", i);
		w_node(b->w, id);
	}
}

static void reserve(Pb__Service *s, int64_t cpu, int64_t mem)
{
	Pb__TaskSpec *ts = s->spec->task_template;

	ts->resources = xmalloc(sizeof(*ts->resources));
	pb__resource_requirements__init(ts->resources);
	ts->resources->reservations = xmalloc(sizeof(Pb__Resources));
	pb__resources__init(ts->resources->reservations);
	ts->resources->reservations->has_nano_cpus = ts->resources->reservations->has_memory_bytes = true;
	ts->resources->reservations->nano_cpus = cpu;
	ts->resources->reservations->memory_bytes = mem;
}

static void end_task(struct bench *b, const char *id, Pb__TaskState__E state)
{
	struct txn *t = txn_new();
	Pb__Task *k = msg_clone(store_get(b->w->store, OBJ(TASK), id)->task);

	k->status->state = state;
	k->status->timestamp = b->w->now;
	txn_update(t, OBJ(TASK), k);
	assert_int_equal(w_apply(b->w, t), 0);
}

static void test_spread(void **state)
{
	struct bench *b = *state;

	nodes(b, 3);
	tasks(b, w_service(b->w, "a", "ok", 1), 4);
	assert_int_equal(run(b), 4);
	/* Fewest of the service first, then fewest at all: the node with two is left alone. */
	tasks(b, w_service(b->w, "b", "ok", 1), 2);
	assert_int_equal(run(b), 2);
	assert_int_equal(on(b, "n1") + on(b, "n2") + on(b, "n3"), 6);
	assert_int_equal(on(b, "n1"), 2);
	assert_int_equal(on(b, "n2"), 2);
	assert_int_equal(on(b, "n3"), 2);
	assert_int_equal(scheduler_waiting(b->s), 0);
	assert_int_equal(run(b), 0);
	assert_string_equal(store_get(b->w->store, OBJ(TASK), "t0")->task->status->message,
	    "scheduler assigned task to node");
}

static void test_resources(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);

	nodes(b, 2);
	reserve(s, INT64_C(1500000000), 0);
	tasks(b, s, 5);
	run(b);
	assert_int_equal(on(b, "n1"), 2);
	assert_int_equal(on(b, "n2"), 2);
	assert_int_equal(b->unplaced, 1);
	assert_string_equal(b->last_err, "no suitable node (insufficient resources on 2 nodes)");
	/* Nothing changed: nothing is tried. */
	assert_int_equal(run(b), 0);
	/* A task that only is to stop still holds what it has; one that ended does not. */
	end_task(b, "t0", ST(COMPLETE));
	assert_int_equal(run(b), 1);
	assert_int_equal(b->unplaced, 0);
	assert_int_equal(scheduler_waiting(b->s), 0);
}

static void test_reasons(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);
	Pb__Node *n;

	tasks(b, w_service(b->w, "none", "ok", 1), 1);
	run(b);
	assert_string_equal(b->last_err, "no suitable node");
	nodes(b, 6);
	w_node_availability(b->w, "n1", PB__NODE_AVAILABILITY__E__PAUSE);
	w_node_up(b->w, "n2", false);
	n = w_node_edit(b->w, "n3");
	n->description->platform->architecture[0] = 'y';
	w_node_save(b->w, n);
	w_node_label(b->w, "n4", "bad", "1");
	w_node_label(b->w, "n5", "bad", "1");
	w_node_label(b->w, "n6", "bad", "1");
	w_constraint(s, "node.labels.bad != 1");
	w_placement(s)->platforms = xcalloc(1, sizeof(Pb__Platform *));
	w_placement(s)->platforms[0] = xmalloc(sizeof(Pb__Platform));
	pb__platform__init(w_placement(s)->platforms[0]);
	w_placement(s)->platforms[0]->architecture = xstrdup("amd64");
	w_placement(s)->n_platforms = 1;
	tasks(b, s, 1);
	run(b);
	assert_string_equal(b->last_err,
	    "no suitable node (scheduling constraints not satisfied on 3 nodes; "
	    "2 nodes not available for new tasks; unsupported platform on 1 node)");
	w_node_label(b->w, "n5", "bad", "0");
	assert_int_equal(run(b), 1);
	assert_string_equal(strmap_get(&b->placed, "t1"), "n5");
}

static void test_max_replicas(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);

	nodes(b, 2);
	w_placement(s)->has_max_replicas = true;
	w_placement(s)->max_replicas = 1;
	tasks(b, s, 3);
	run(b);
	assert_int_equal(on(b, "n1"), 1);
	assert_int_equal(on(b, "n2"), 1);
	assert_string_equal(b->last_err, "no suitable node (max replicas per node limit exceed)");
}

static void preference(Pb__Service *s, const char *descriptor)
{
	Pb__Placement *p = w_placement(s);
	Pb__PlacementPreference *x = xmalloc(sizeof(*x));

	pb__placement_preference__init(x);
	x->spread = xmalloc(sizeof(*x->spread));
	pb__spread_over__init(x->spread);
	x->spread->spread_descriptor = xstrdup(descriptor);
	p->preferences = xreallocarray(p->preferences, p->n_preferences + 1, sizeof(*p->preferences));
	p->preferences[p->n_preferences++] = x;
}

static void test_preferences(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);

	/* Three nodes in zone a (racks 1, 1, 2), one in b, one without a zone. */
	nodes(b, 5);
	for (int i = 1; i <= 3; i++) {
		char id[16];

		snprintf(id, sizeof(id), "n%d", i);
		w_node_label(b->w, id, "zone", "a");
		w_node_label(b->w, id, "rack", i < 3 ? "1" : "2");
	}
	w_node_label(b->w, "n4", "zone", "b");
	preference(s, "node.labels.zone");
	preference(s, "node.labels.rack");
	tasks(b, s, 12);
	assert_int_equal(run(b), 12);
	assert_int_equal(on(b, "n1") + on(b, "n2") + on(b, "n3"), 4);
	assert_int_equal(on(b, "n3"), 2);
	assert_int_equal(on(b, "n1"), 1);
	assert_int_equal(on(b, "n4"), 4);
	assert_int_equal(on(b, "n5"), 4);
	assert_true(scheduler_spread_valid("engine.labels.x"));
	assert_false(scheduler_spread_valid("node.id"));
}

static Pb__GenericResource *resource(const char *kind, const char *name, int64_t value)
{
	Pb__GenericResource *r = xmalloc(sizeof(*r));

	pb__generic_resource__init(r);
	if (name != NULL) {
		r->named_resource_spec = xmalloc(sizeof(*r->named_resource_spec));
		pb__named_generic_resource__init(r->named_resource_spec);
		r->named_resource_spec->kind = xstrdup(kind);
		r->named_resource_spec->value = xstrdup(name);
	} else {
		r->discrete_resource_spec = xmalloc(sizeof(*r->discrete_resource_spec));
		pb__discrete_generic_resource__init(r->discrete_resource_spec);
		r->discrete_resource_spec->kind = xstrdup(kind);
		r->discrete_resource_spec->has_value = true;
		r->discrete_resource_spec->value = value;
	}
	return r;
}

static void test_generic(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);
	Pb__Node *n;
	Pb__Resources *r;
	const Pb__Task *t0, *t1;

	nodes(b, 2);
	n = w_node_edit(b->w, "n1");
	r = n->description->resources;
	r->generic_resources = xcalloc(4, sizeof(*r->generic_resources));
	r->generic_resources[r->n_generic_resources++] = resource("gpu", "G1", 0);
	r->generic_resources[r->n_generic_resources++] = resource("gpu", "G2", 0);
	r->generic_resources[r->n_generic_resources++] = resource("gpu", "G3", 0);
	r->generic_resources[r->n_generic_resources++] = resource("seat", NULL, 3);
	w_node_save(b->w, n);
	reserve(s, 0, 0);
	r = s->spec->task_template->resources->reservations;
	r->generic_resources = xcalloc(2, sizeof(*r->generic_resources));
	r->generic_resources[r->n_generic_resources++] = resource("gpu", NULL, 1);
	r->generic_resources[r->n_generic_resources++] = resource("seat", NULL, 1);
	tasks(b, s, 4);
	run(b);
	assert_int_equal(on(b, "n1"), 3);
	assert_int_equal(b->unplaced, 1);
	t0 = store_get(b->w->store, OBJ(TASK), "t0")->task;
	t1 = store_get(b->w->store, OBJ(TASK), "t1")->task;
	assert_int_equal(t0->n_generic_resources, 2);
	assert_string_not_equal(t0->generic_resources[0]->named_resource_spec->value,
	    t1->generic_resources[0]->named_resource_spec->value);
	assert_int_equal(t0->generic_resources[1]->discrete_resource_spec->value, 1);
	/* The name of the one that ends goes to the one that waits. */
	end_task(b, "t1", ST(FAILED));
	assert_int_equal(run(b), 1);
	assert_string_equal(
	    store_get(b->w->store, OBJ(TASK), "t3")->task->generic_resources[0]->named_resource_spec->value,
	    "G2");
}

/* What a node failed to run five times goes elsewhere, though that is fuller. */
static void test_failures(void **state)
{
	struct bench *b = *state;
	size_t at = 0;

	nodes(b, 2);
	tasks(b, w_service(b->w, "other", "ok", 1), 1);
	run(b);
	assert_string_equal(strmap_get(&b->placed, "t0"), "n1");
	for (int i = 0; i < 5; i++) {
		char id[16];
		Pb__Service *s = w_service(b->w, "a", "ok", 1);

		free(s->template_id);
		s->template_id = xstrdup("a.1");
		at = b->n_tasks;
		tasks(b, s, 1);
		run(b);
		snprintf(id, sizeof(id), "t%zu", at);
		assert_string_equal(strmap_get(&b->placed, id), "n2");
		end_task(b, id, ST(FAILED));
	}
	for (int i = 0; i < 2; i++) {
		char id[16];
		Pb__Service *s = w_service(b->w, "a", "ok", 1);

		free(s->template_id);
		s->template_id = xstrdup("a.1");
		at = b->n_tasks;
		tasks(b, s, 1);
		run(b);
		snprintf(id, sizeof(id), "t%zu", at);
		/* Six minutes later it is forgiven. */
		assert_string_equal(strmap_get(&b->placed, id), i == 0 ? "n1" : "n2");
		b->w->now += 360 * W_SEC;
	}
}

/* A decision that was not committed is taken back. */
static void test_retry(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);

	nodes(b, 1);
	reserve(s, INT64_C(4000000000), 0);
	tasks(b, s, 1);
	b->commit = false;
	assert_int_equal(run(b), 1);
	assert_int_equal(run(b), 0);
	scheduler_retry(b->s, "t0");
	b->commit = true;
	assert_int_equal(run(b), 1);
	assert_int_equal(b->unplaced, 0);
	scheduler_retry(b->s, "t0");
	scheduler_retry(b->s, "unknown");
	assert_int_equal(run(b), 0);
}

/* Tasks of global services have their node; the scheduler only looks whether they may run there. */
static void test_preassigned(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);
	struct txn *t = txn_new();

	nodes(b, 2);
	reserve(s, INT64_C(3000000000), 0);
	txn_create(t, OBJ(TEMPLATE), w_template(s));
	add_task(t, s, "g1", "n1");
	add_task(t, s, "g2", "n1");
	add_task(t, s, "g3", "n9");
	assert_int_equal(w_apply(b->w, t), 0);
	protobuf_c_message_free_unpacked(&s->base, NULL);
	assert_int_equal(run(b), 3);
	assert_int_equal(on(b, "n1"), 1);
	assert_int_equal(b->unplaced, 2);
	if (store_get(b->w->store, OBJ(TASK), "g1")->task->status->state == ST(ASSIGNED))
		assert_string_equal(store_get(b->w->store, OBJ(TASK), "g2")->task->status->err,
		    "no suitable node (insufficient resources on 1 node)");
	assert_string_equal(store_get(b->w->store, OBJ(TASK), "g3")->task->status->err,
	    "no suitable node (1 node not available for new tasks)");
}

/* The reasons' numbers change often in a large cluster; the tasks hear of it once a second. */
static void test_explained_slowly(void **state)
{
	struct bench *b = *state;
	Pb__Service *s = w_service(b->w, "a", "ok", 1);

	nodes(b, 1);
	w_constraint(s, "node.id == x");
	tasks(b, s, 2);
	assert_int_equal(run(b), 2);
	w_node(b->w, "n2");
	b->w->now += W_MS;
	assert_int_equal(run(b), 0);
	b->w->now += W_SEC;
	assert_int_equal(run(b), 2);
	assert_string_equal(
	    b->last_err, "no suitable node (scheduling constraints not satisfied on 2 nodes)");
}

/* --- constraints */

static bool match(const char *expr, const Pb__Node *n)
{
	char *e[] = {(char *)(uintptr_t)expr};
	struct constraints c = CONSTRAINTS_INIT;
	bool ok;

	assert_int_equal(constraints_parse(e, 1, &c, NULL), 0);
	ok = constraints_match(&c, n);
	constraints_done(&c);
	return ok;
}

static void test_constraints(void **state)
{
	Pb__Node *n = w_node_msg("AbC");

	(void)state;
	n->spec->labels = xcalloc(1, sizeof(Pb__KV *));
	n->spec->labels[n->spec->n_labels++] = w_kv("Rack.One", "R-1");
	n->has_role = true;
	n->role = PB__NODE_ROLE__E__MANAGER;
	assert_true(match("node.id==abc", n));
	assert_false(match("node.id==ab", n));
	assert_false(match("node.id == a*", n));
	assert_true(match(" NODE.ID  ==  aBc ", n));
	assert_true(match("node.hostname != host-x", n));
	assert_true(match("node.hostname == HOST-abc", n));
	assert_true(match("node.role==manager", n));
	assert_false(match("node.role!=manager", n));
	assert_true(match("node.labels.Rack.One==r-1", n));
	assert_false(match("node.labels.rack.one==r-1", n)); /* keys of labels count their case */
	assert_false(match("node.labels.none==x", n));
	assert_true(match("node.labels.none!=x", n));
	assert_false(match("engine.labels.os==linux", n));
	assert_true(match("engine.labels.os!=linux", n));
	assert_true(match("node.platform.os==linux", n));
	assert_true(match("node.platform.arch==x86_64", n));
	assert_false(match("node.platform.arch==amd64", n));
	assert_true(match("node.ip==10.1.2.3", n));
	assert_true(match("node.ip==10.0.0.0/8", n));
	assert_true(match("node.ip==10.1.2.2/31", n));
	assert_false(match("node.ip==10.1.2.4/31", n));
	assert_true(match("node.ip!=10.1.2.4/31", n));
	assert_false(match("node.ip==10.1.2.3/33", n));
	assert_false(match("node.ip!=nonsense", n));
	assert_true(match("node.ip==0.0.0.0/0", n));
	assert_false(match("node.ip==::1", n));
	assert_false(match("node.what==x", n));
	assert_false(match("node.what!=x", n));
	protobuf_c_message_free_unpacked(&n->base, NULL);
}

static void test_constraints_refused(void **state)
{
	static const char *const bad[] = {"", "node.id", "node.id=x", "==x", "node.id==", "no de==x", "1a==x",
	    "a==x", "node.id== ", "node.id==x;y", "node.id~x", "node.id==\"x\""};
	struct constraints c = CONSTRAINTS_INIT;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char *v[] = {(char *)(uintptr_t)bad[i]};

		assert_int_equal(constraints_parse(v, 1, &c, &e), ERR_INTERNAL);
		assert_true(e.text[0] != '\0');
		assert_null(c.v);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_spread, make, done),
	    cmocka_unit_test_setup_teardown(test_resources, make, done),
	    cmocka_unit_test_setup_teardown(test_reasons, make, done),
	    cmocka_unit_test_setup_teardown(test_max_replicas, make, done),
	    cmocka_unit_test_setup_teardown(test_preferences, make, done),
	    cmocka_unit_test_setup_teardown(test_generic, make, done),
	    cmocka_unit_test_setup_teardown(test_failures, make, done),
	    cmocka_unit_test_setup_teardown(test_retry, make, done),
	    cmocka_unit_test_setup_teardown(test_preassigned, make, done),
	    cmocka_unit_test_setup_teardown(test_explained_slowly, make, done),
	    cmocka_unit_test(test_constraints),
	    cmocka_unit_test(test_constraints_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
