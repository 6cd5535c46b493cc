/* The store: reading, indexes, versions, conflicts, atomicity, watches, snapshots, bytes that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "manager/store/store.h"

static struct store *S;

static int setup(void **state)
{
	(void)state;
	S = store_new();
	return 0;
}
static int teardown(void **state)
{
	(void)state;
	store_free(S);
	S = NULL;
	return 0;
}

/* --- making things ------------------------------------------------------------------------------------- */

static Pb__Service *new_service(const char *id, const char *name)
{
	Pb__Service *s = xmalloc(sizeof(*s));

	pb__service__init(s);
	s->id = xstrdup(id);
	s->template_id = xasprintf("%s.1", id);
	s->spec = xmalloc(sizeof(*s->spec));
	pb__service_spec__init(s->spec);
	s->spec->name = xstrdup(name);
	return s;
}

static void service_use(Pb__Service *s, const char *secret, const char *config, const char *network)
{
	Pb__TaskSpec *t = xmalloc(sizeof(*t));
	Pb__ContainerSpec *c = xmalloc(sizeof(*c));

	pb__task_spec__init(t);
	pb__container_spec__init(c);
	s->spec->task_template = t;
	t->container_spec = c;
	if (secret != NULL) {
		c->n_secrets = 2; /* twice the same */
		c->secrets = xcalloc(2, sizeof(*c->secrets));
		for (int i = 0; i < 2; i++) {
			c->secrets[i] = xmalloc(sizeof(*c->secrets[i]));
			pb__secret_reference__init(c->secrets[i]);
			c->secrets[i]->secret_id = xstrdup(secret);
		}
	}
	if (config != NULL) {
		c->n_configs = 1;
		c->configs = xcalloc(1, sizeof(*c->configs));
		c->configs[0] = xmalloc(sizeof(*c->configs[0]));
		pb__config_reference__init(c->configs[0]);
		c->configs[0]->config_id = xstrdup(config);
	}
	if (network != NULL) {
		t->n_networks = 1;
		t->networks = xcalloc(1, sizeof(*t->networks));
		t->networks[0] = xmalloc(sizeof(*t->networks[0]));
		pb__network_attachment_config__init(t->networks[0]);
		t->networks[0]->target = xstrdup(network);
	}
}

static Pb__Task *new_task(const char *id, const char *service, const char *node)
{
	Pb__Task *t = xmalloc(sizeof(*t));

	pb__task__init(t);
	t->id = xstrdup(id);
	t->service_id = xstrdup(service);
	t->node_id = xstrdup(node);
	t->template_id = xasprintf("%s.1", service);
	t->service_name = xstrdup("web");
	t->desired_state = PB__TASK_STATE__E__RUNNING;
	t->status = xmalloc(sizeof(*t->status));
	pb__task_status__init(t->status);
	t->status->state = PB__TASK_STATE__E__NEW;
	t->status->message = xstrdup("created");
	t->n_networks_attachments = 1;
	t->networks_attachments = xcalloc(1, sizeof(*t->networks_attachments));
	t->networks_attachments[0] = xmalloc(sizeof(*t->networks_attachments[0]));
	pb__network_attachment__init(t->networks_attachments[0]);
	t->networks_attachments[0]->network_id = xstrdup("net");
	t->networks_attachments[0]->n_addresses = 1;
	t->networks_attachments[0]->addresses = xcalloc(1, sizeof(char *));
	t->networks_attachments[0]->addresses[0] = xstrdup("10.0.0.5/24");
	t->networks_attachments[0]->n_aliases = 2;
	t->networks_attachments[0]->aliases = xcalloc(2, sizeof(char *));
	t->networks_attachments[0]->aliases[0] = xstrdup("web");
	t->networks_attachments[0]->aliases[1] = xstrdup("");
	return t;
}

static Pb__Config *new_config(const char *id, const char *name, const char *data)
{
	Pb__Config *c = xmalloc(sizeof(*c));

	pb__config__init(c);
	c->id = xstrdup(id);
	c->spec = xmalloc(sizeof(*c->spec));
	pb__config_spec__init(c->spec);
	c->spec->name = xstrdup(name);
	c->spec->has_data = 1;
	c->spec->data.data = xmemdup(data, strlen(data));
	c->spec->data.len = strlen(data);
	return c;
}

static Pb__Secret *new_secret(const char *id, const char *name)
{
	Pb__Secret *c = xmalloc(sizeof(*c));

	pb__secret__init(c);
	c->id = xstrdup(id);
	c->spec = xmalloc(sizeof(*c->spec));
	pb__secret_spec__init(c->spec);
	c->spec->name = xstrdup(name);
	return c;
}

static Pb__Network *new_network(const char *id, const char *name)
{
	Pb__Network *c = xmalloc(sizeof(*c));

	pb__network__init(c);
	c->id = xstrdup(id);
	c->spec = xmalloc(sizeof(*c->spec));
	pb__network_spec__init(c->spec);
	c->spec->name = xstrdup(name);
	return c;
}

static Pb__Node *new_node(const char *id, const char *hostname)
{
	Pb__Node *c = xmalloc(sizeof(*c));

	pb__node__init(c);
	c->id = xstrdup(id);
	c->spec = xmalloc(sizeof(*c->spec));
	pb__node_spec__init(c->spec);
	c->description = xmalloc(sizeof(*c->description));
	pb__node_description__init(c->description);
	c->description->hostname = xstrdup(hostname);
	return c;
}

/* Applies and frees. */
static int commit_at(struct txn *t, int64_t now, struct err *e)
{
	struct buf b = BUF_INIT;
	int r;

	txn_pack(t, now, &b);
	r = store_apply(S, (const uint8_t *)b.data, b.len, e);
	buf_done(&b);
	txn_free(t);
	return r;
}
static int commit(struct txn *t, struct err *e)
{
	return commit_at(t, 1000, e);
}
static int create(obj_kind kind, void *msg, struct err *e)
{
	struct txn *t = txn_new();

	txn_create(t, kind, msg);
	return commit(t, e);
}
static int update(obj_kind kind, void *msg, struct err *e)
{
	struct txn *t = txn_new();

	txn_update(t, kind, msg);
	return commit(t, e);
}
static int delete (obj_kind kind, const char *id, uint64_t based_on, struct err *e)
{
	struct txn *t = txn_new();

	txn_delete(t, kind, id, based_on);
	return commit(t, e);
}

#define OK(expr)                                                                                             \
	do {                                                                                                 \
		struct err e_ = ERR_INIT;                                                                    \
		(void)e_;                                                                                    \
		int r_ = (expr);                                                                             \
		if (r_ != 0)                                                                                 \
			fail_msg("%s: %d", #expr, r_);                                                       \
	} while (0)

/* --- tests --------------------------------------------------------------------------------------------- */

static void test_packed_by_hand_reads_back(void **state)
{
	struct txn *t = txn_new();
	struct buf b = BUF_INIT;
	Pb__Txn *p;

	(void)state;
	txn_create(t, OBJ(CONFIG), new_config("c1", "one", "data"));
	txn_delete(t, OBJ(SECRET), "s1", 77);
	assert_int_equal(txn_count(t), 2);
	txn_pack(t, -5, &b);
	p = pb__txn__unpack(NULL, b.len, (const uint8_t *)b.data);
	assert_non_null(p);
	assert_int_equal(p->time, -5);
	assert_int_equal(p->n_actions, 2);
	assert_int_equal(p->actions[0]->type, PB__ACTION_TYPE__E__CREATE);
	assert_int_equal(p->actions[0]->kind, OBJ(CONFIG));
	assert_int_equal(p->actions[1]->type, PB__ACTION_TYPE__E__DELETE);
	assert_string_equal(p->actions[1]->id, "s1");
	assert_int_equal(p->actions[1]->based_on, 77);
	pb__txn__free_unpacked(p, NULL);
	buf_done(&b);
	txn_free(t);
}

static void test_versions(void **state)
{
	struct err e = ERR_INIT;
	Pb__Config *c;
	const struct object *held;

	(void)state;
	assert_int_equal(store_version(S), 0);
	OK(create(OBJ(CONFIG), new_config("c1", "one", "abc"), &e));
	OK(create(OBJ(CONFIG), new_config("c2", "two", "def"), &e));
	assert_int_equal(store_version(S), 2);
	held = object_ref(store_get(S, OBJ(CONFIG), "c1"));
	assert_int_equal(held->config->version, 1);
	assert_int_equal(held->config->created_at, 1000);
	assert_int_equal(held->config->updated_at, 1000);

	c = msg_clone(held->msg);
	free(c->spec->name);
	c->spec->name = xstrdup("uno");
	{
		struct txn *t = txn_new();
		txn_update(t, OBJ(CONFIG), c);
		OK(commit_at(t, 2000, &e));
	}
	assert_string_equal(held->config->spec->name, "one"); /* immutable */
	assert_memory_equal(held->config->spec->data.data, "abc", 3);
	assert_string_equal(store_get(S, OBJ(CONFIG), "c1")->config->spec->name, "uno");
	assert_int_equal(store_get(S, OBJ(CONFIG), "c1")->config->version, 3);
	assert_int_equal(store_get(S, OBJ(CONFIG), "c1")->config->created_at, 1000);
	assert_int_equal(store_get(S, OBJ(CONFIG), "c1")->config->updated_at, 2000);
	assert_null(store_get_by_name(S, OBJ(CONFIG), "one"));
	assert_non_null(store_get_by_name(S, OBJ(CONFIG), "UNO"));

	/* Lost the race. */
	assert_int_equal(update(OBJ(CONFIG), msg_clone(held->msg), &e), ERR_STALE);
	assert_string_equal(e.text, "update out of sequence");
	assert_int_equal(delete (OBJ(CONFIG), "c1", 1, &e), ERR_STALE);
	assert_int_equal(store_version(S), 3);
	object_unref((struct object *)(uintptr_t)held);

	OK(delete (OBJ(CONFIG), "c1", 3, &e));
	OK(delete (OBJ(CONFIG), "c2", 0, &e));
	assert_int_equal(delete (OBJ(CONFIG), "c2", 0, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "config c2 not found");
	assert_int_equal(update(OBJ(CONFIG), new_config("c2", "two", "x"), &e), ERR_NOT_FOUND);
	assert_int_equal(store_count(S, OBJ(CONFIG)), 0);
}

static void test_conflicts(void **state)
{
	struct err e = ERR_INIT;
	Pb__Service *moved;

	(void)state;
	OK(create(OBJ(SERVICE), new_service("s1", "Web"), &e));
	OK(create(OBJ(SERVICE), new_service("s2", "db"), &e));
	OK(create(OBJ(SECRET), new_secret("x1", "web"), &e)); /* other kinds do not meet */
	OK(create(OBJ(CONFIG), new_config("x1", "web", ""), &e));
	OK(create(OBJ(NETWORK), new_network("x1", "web"), &e));
	assert_int_equal(create(OBJ(SERVICE), new_service("s3", "wEB"), &e), ERR_CONFLICT);
	assert_string_equal(e.text, "name conflicts with an existing object: service wEB already exists");
	assert_int_equal(create(OBJ(SECRET), new_secret("x2", "WEB"), &e), ERR_CONFLICT);
	assert_string_equal(e.text, "secret WEB already exists");
	assert_int_equal(create(OBJ(CONFIG), new_config("x2", "WEB", ""), &e), ERR_CONFLICT);
	assert_string_equal(e.text, "config WEB already exists");
	assert_int_equal(create(OBJ(NETWORK), new_network("x2", "web"), &e), ERR_CONFLICT);
	assert_string_equal(e.text, "network with name web already exists");
	assert_int_equal(create(OBJ(SERVICE), new_service("s1", "other"), &e), ERR_CONFLICT);
	assert_int_equal(store_count(S, OBJ(SERVICE)), 2);
	assert_int_equal(store_version(S), 5);

	/* A rename meets them too, but not itself. */
	moved = msg_clone(store_get(S, OBJ(SERVICE), "s2")->msg);
	free(moved->spec->name);
	moved->spec->name = xstrdup("WEB");
	assert_int_equal(update(OBJ(SERVICE), moved, &e), ERR_CONFLICT);
	moved = msg_clone(store_get(S, OBJ(SERVICE), "s1")->msg);
	free(moved->spec->name);
	moved->spec->name = xstrdup("WEB");
	OK(update(OBJ(SERVICE), moved, &e));
	assert_string_equal(store_get_by_name(S, OBJ(SERVICE), "web")->service->spec->name, "WEB");
}

static void test_find(void **state)
{
	struct err e = ERR_INIT;
	const struct object *o = NULL;

	(void)state;
	OK(create(OBJ(SERVICE), new_service("abc123", "web"), &e));
	OK(create(OBJ(SERVICE), new_service("abd456", "abc"), &e));
	OK(create(OBJ(NODE), new_node("n1", "host"), &e));
	OK(create(OBJ(NODE), new_node("n2", "HOST"), &e));
	OK(create(OBJ(NODE), new_node("n3", "other"), &e));

	OK(store_find(S, OBJ(SERVICE), "abc123", &o, &e));
	assert_string_equal(o->head->id, "abc123");
	OK(store_find(S, OBJ(SERVICE), "abc", &o, &e)); /* the name wins over the prefix */
	assert_string_equal(o->head->id, "abd456");
	OK(store_find(S, OBJ(SERVICE), "abc1", &o, &e));
	assert_string_equal(o->head->id, "abc123");
	o = NULL;
	assert_int_equal(store_find(S, OBJ(SERVICE), "ab", &o, &e), ERR_INVALID);
	assert_string_equal(e.text, "service ab is ambiguous (2 matches found)");
	assert_int_equal(store_find(S, OBJ(SERVICE), "zz", &o, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "service zz not found");
	assert_int_equal(store_find(S, OBJ(SERVICE), "", &o, &e), ERR_NOT_FOUND);
	assert_int_equal(store_find(S, OBJ(TASK), "zz", &o, NULL), ERR_NOT_FOUND);
	assert_null(o);

	assert_null(store_get_by_name(S, OBJ(NODE), "host"));
	assert_int_equal(store_find(S, OBJ(NODE), "host", &o, &e), ERR_INVALID);
	assert_string_equal(e.text, "node host is ambiguous (2 matches found)");
	assert_non_null(store_get_by_name(S, OBJ(NODE), "other"));
	OK(delete (OBJ(NODE), "n1", 0, &e));
	assert_string_equal(store_get_by_name(S, OBJ(NODE), "host")->head->id, "n2");
	OK(delete (OBJ(NODE), "n2", 0, &e));
	assert_null(store_get_by_name(S, OBJ(NODE), "host"));
}

static size_t walk(obj_kind kind, enum store_index index, const char *key)
{
	struct store_iter it;
	size_t n = 0;

	store_iter_init(&it, S, kind, index, key);
	for (const struct object *o; (o = store_iter_next(&it)) != NULL;) {
		assert_int_equal(o->kind, kind);
		if (index == STORE_TASK_BY_NODE)
			assert_string_equal(str_or(o->task->node_id, ""), key);
		if (index == STORE_TASK_BY_SERVICE)
			assert_string_equal(o->task->service_id, key);
		n++;
	}
	if (index != STORE_ALL)
		assert_int_equal(n, store_index_count(S, index, key));
	return n;
}

static void test_indexes(void **state)
{
	struct err e = ERR_INIT;
	Pb__Service *s;
	Pb__Template *tm;
	Pb__Task *t;

	(void)state;
	OK(create(OBJ(TASK), new_task("t1", "s1", "n1"), &e));
	OK(create(OBJ(TASK), new_task("t2", "s1", "n2"), &e));
	OK(create(OBJ(TASK), new_task("t3", "s2", "n1"), &e));
	t = new_task("t4", "s2", "x");
	free(t->node_id);
	t->node_id = NULL;
	OK(create(OBJ(TASK), t, &e));
	assert_int_equal(walk(OBJ(TASK), STORE_ALL, NULL), 4);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_SERVICE, "s1"), 2);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_SERVICE, "s3"), 0);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, "n1"), 2);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, ""), 1);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_TEMPLATE, "s1.1"), 2);

	t = msg_clone(store_get(S, OBJ(TASK), "t4")->msg);
	t->node_id = xstrdup("n1");
	OK(update(OBJ(TASK), t, &e));
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, ""), 0);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, "n1"), 3);
	OK(delete (OBJ(TASK), "t1", 0, &e));
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, "n1"), 2);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_SERVICE, "s1"), 1);

	tm = xmalloc(sizeof(*tm));
	pb__template__init(tm);
	tm->id = xstrdup("s1.1");
	tm->service_id = xstrdup("s1");
	tm->service_name = xstrdup("web");
	tm->spec = xmalloc(sizeof(*tm->spec));
	pb__task_spec__init(tm->spec);
	OK(create(OBJ(TEMPLATE), tm, &e));
	assert_int_equal(walk(OBJ(TEMPLATE), STORE_TEMPLATE_BY_SERVICE, "s1"), 1);
	assert_non_null(store_template(S, "s1.1"));
	assert_null(store_template(S, "s1.2"));
	assert_null(store_template(S, NULL));

	s = new_service("s1", "web");
	service_use(s, "sec", "conf", "net");
	OK(create(OBJ(SERVICE), s, &e));
	s = new_service("s2", "db");
	service_use(s, "sec", NULL, NULL);
	OK(create(OBJ(SERVICE), s, &e));
	assert_int_equal(walk(OBJ(SERVICE), STORE_SERVICE_BY_SECRET, "sec"), 2);
	assert_int_equal(walk(OBJ(SERVICE), STORE_SERVICE_BY_CONFIG, "conf"), 1);
	assert_int_equal(walk(OBJ(SERVICE), STORE_SERVICE_BY_NETWORK, "net"), 1);
	s = new_service("s1", "web");
	OK(update(OBJ(SERVICE), s, &e)); /* version 0: whatever is there */
	assert_int_equal(walk(OBJ(SERVICE), STORE_SERVICE_BY_SECRET, "sec"), 1);
	assert_int_equal(walk(OBJ(SERVICE), STORE_SERVICE_BY_CONFIG, "conf"), 0);
	OK(delete (OBJ(SERVICE), "s2", 0, &e));
	assert_int_equal(walk(OBJ(SERVICE), STORE_SERVICE_BY_SECRET, "sec"), 0);
	assert_null(store_cluster(S));
}

static void test_atomic(void **state)
{
	struct err e = ERR_INIT;
	struct txn *t;
	struct buf before = BUF_INIT, after = BUF_INIT;

	(void)state;
	OK(create(OBJ(CONFIG), new_config("c1", "one", "1"), &e));
	OK(create(OBJ(TASK), new_task("t1", "s1", "n1"), &e));
	store_snapshot(S, &before);

	t = txn_new();
	txn_create(t, OBJ(CONFIG), new_config("c2", "two", "2"));
	txn_update(t, OBJ(CONFIG), new_config("c1", "uno", "x"));
	txn_delete(t, OBJ(TASK), "t1", 0);
	txn_create(t, OBJ(TASK), new_task("t1", "s9", "n9"));
	txn_create(t, OBJ(CONFIG), new_config("c3", "UNO", "")); /* meets the rename within */
	assert_int_equal(commit(t, &e), ERR_CONFLICT);
	store_snapshot(S, &after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, "n1"), 1);
	assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, "n9"), 0);
	assert_non_null(store_get_by_name(S, OBJ(CONFIG), "one"));
	assert_null(store_get_by_name(S, OBJ(CONFIG), "uno"));
	assert_null(store_get_by_name(S, OBJ(CONFIG), "two"));
	buf_done(&before);
	buf_done(&after);

	/* Several writes of one object in one transaction; a name freed and taken within it. */
	t = txn_new();
	txn_create(t, OBJ(CONFIG), new_config("c2", "two", "2"));
	txn_update(t, OBJ(CONFIG), new_config("c2", "zwei", "3"));
	txn_delete(t, OBJ(CONFIG), "c1", 1);
	txn_create(t, OBJ(CONFIG), new_config("c3", "One", "4"));
	OK(commit(t, &e));
	assert_string_equal(store_get_by_name(S, OBJ(CONFIG), "one")->head->id, "c3");
	assert_string_equal(store_get(S, OBJ(CONFIG), "c2")->config->spec->name, "zwei");
	assert_int_equal(store_get(S, OBJ(CONFIG), "c2")->config->version, 3);
	t = txn_new();
	OK(commit(t, &e)); /* empty */
	assert_int_equal(store_version(S), 4);
}

struct seen {
	char log[512];
	struct store_watch *self, *other;
};
static void on_event(void *data, const struct store_event *ev)
{
	struct seen *s = data;
	size_t n = strlen(s->log);
	const struct object *o = ev->cur != NULL ? ev->cur : ev->old;

	/* The whole transaction is in when the first event comes. */
	if (ev->cur != NULL && ev->kind == OBJ(CONFIG) && strcmp(o->head->id, "c1") == 0 &&
	    o->head->version == 1)
		assert_non_null(store_get(S, OBJ(CONFIG), "c2"));
	snprintf(s->log + n, sizeof(s->log) - n, "%c%s ",
	    ev->old == NULL   ? '+'
	    : ev->cur == NULL ? '-'
			      : '=',
	    o->head->id);
}
static void on_event_free(void *data, const struct store_event *ev)
{
	struct seen *s = data;

	on_event(data, ev);
	store_watch_free(s->self);
	store_watch_free(s->other);
	s->other = NULL;
}

static void test_watch(void **state)
{
	struct seen a = {.log = ""}, b = {.log = ""}, c = {.log = ""};
	struct err e = ERR_INIT;
	struct store_watch *w = store_watch_new(S, on_event, &a);
	struct txn *t = txn_new();

	(void)state;
	b.self = store_watch_new(S, on_event_free, &b);
	b.other = store_watch_new(S, on_event, &c);
	txn_create(t, OBJ(CONFIG), new_config("c1", "one", "1"));
	txn_create(t, OBJ(CONFIG), new_config("c2", "two", "1"));
	OK(commit(t, &e));
	assert_string_equal(a.log, "+c1 +c2 ");
	assert_string_equal(b.log, "+c1 ");
	assert_string_equal(c.log, "");
	OK(update(OBJ(CONFIG), new_config("c1", "uno", "1"), &e));
	OK(delete (OBJ(CONFIG), "c1", 0, &e));
	assert_string_equal(a.log, "+c1 +c2 =c1 -c1 ");
	assert_int_equal(create(OBJ(CONFIG), new_config("c2", "two", "1"), &e), ERR_CONFLICT);
	assert_string_equal(a.log, "+c1 +c2 =c1 -c1 ");
	store_watch_free(w);
	w = store_watch_new(S, on_event, &a);
	store_free(S);
	store_watch_free(w); /* outlives the store */
	S = store_new();
}

static void fill(unsigned seed, unsigned steps)
{
	struct rng_seeded mem;
	struct rng r = rng_from_seed(&mem, seed);
	char id[32], a[32], b[32];

	for (unsigned i = 0; i < steps; i++) {
		snprintf(id, sizeof(id), "t%u", (unsigned)rng_below(r, 200));
		snprintf(a, sizeof(a), "s%u", (unsigned)rng_below(r, 7));
		snprintf(b, sizeof(b), "n%u", (unsigned)rng_below(r, 11));
		switch (rng_below(r, 5)) {
		case 0:
			delete (OBJ(TASK), id, 0, NULL);
			break;
		case 1:
			update(OBJ(TASK), new_task(id, a, b), NULL);
			break;
		case 2:
			create(OBJ(CONFIG), new_config(id, a, "x"), NULL);
			break;
		case 3:
			create(OBJ(NODE), new_node(id, b), NULL);
			break;
		default:
			create(OBJ(TASK), new_task(id, a, b), NULL);
		}
	}
}

/* Every index says what a walk over all objects says. */
static void check_indexes(void)
{
	size_t by_node[11] = {0}, by_service[7] = {0};
	struct store_iter it;
	char key[32];

	store_iter_init(&it, S, OBJ(TASK), STORE_ALL, NULL);
	for (const struct object *o; (o = store_iter_next(&it)) != NULL;) {
		by_node[atoi(o->task->node_id + 1)]++;
		by_service[atoi(o->task->service_id + 1)]++;
		assert_ptr_equal(store_get(S, OBJ(TASK), o->head->id), o);
	}
	for (unsigned i = 0; i < 11; i++) {
		snprintf(key, sizeof(key), "n%u", i);
		assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_NODE, key), by_node[i]);
	}
	for (unsigned i = 0; i < 7; i++) {
		snprintf(key, sizeof(key), "s%u", i);
		assert_int_equal(walk(OBJ(TASK), STORE_TASK_BY_SERVICE, key), by_service[i]);
	}
}

static void test_random_walk(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	uint64_t version;

	(void)state;
	for (unsigned seed = 0; seed < 20; seed++) {
		fill(seed, 500);
		check_indexes();
		version = store_version(S);
		buf_reset(&b);
		store_snapshot(S, &b);
		fill(seed + 1000, 50);
		OK(store_restore(S, (const uint8_t *)b.data, b.len, &e));
		assert_int_equal(store_version(S), version);
		check_indexes();
	}
	buf_done(&b);
}

static void test_snapshot(void **state)
{
	struct buf b = BUF_INIT, c = BUF_INIT;
	struct err e = ERR_INIT;
	struct seen a = {.log = ""};
	struct store_frozen *f;
	struct store_watch *w;

	(void)state;
	OK(create(OBJ(CONFIG), new_config("c1", "one", "hello"), &e));
	OK(create(OBJ(CONFIG), new_config("c2", "two", ""), &e));
	OK(create(OBJ(TASK), new_task("t1", "s1", "n1"), &e));
	f = store_freeze(S);
	OK(update(OBJ(CONFIG), new_config("c1", "changed", "bye"), &e));
	OK(delete (OBJ(TASK), "t1", 0, &e));
	OK(create(OBJ(CONFIG), new_config("c3", "one", ""), &e));
	store_frozen_pack(f, &b);
	store_frozen_free(f);

	w = store_watch_new(S, on_event, &a);
	OK(store_restore(S, (const uint8_t *)b.data, b.len, &e));
	store_watch_free(w);
	assert_int_equal(strlen(a.log), 6 * 4); /* three went, three came */
	assert_int_equal(store_version(S), 3);
	assert_int_equal(store_count(S, OBJ(CONFIG)), 2);
	assert_string_equal(store_get_by_name(S, OBJ(CONFIG), "one")->head->id, "c1");
	assert_memory_equal(store_get(S, OBJ(CONFIG), "c1")->config->spec->data.data, "hello", 5);
	assert_int_equal(store_get(S, OBJ(CONFIG), "c1")->head->created_at, 1000);
	assert_string_equal(
	    store_get(S, OBJ(TASK), "t1")->task->networks_attachments[0]->addresses[0], "10.0.0.5/24");
	assert_string_equal(store_get(S, OBJ(TASK), "t1")->task->networks_attachments[0]->aliases[1], "");

	/* Any truncation and any trailing byte is refused, and the store is as it was. */
	for (size_t n = 0; n < b.len; n++) {
		uint8_t *cut = xmemdup(b.data, n ? n : 1);

		assert_int_equal(store_restore(S, cut, n, &e), ERR_CORRUPT);
		free(cut);
	}
	buf_append(&b, "x", 1);
	assert_int_equal(store_restore(S, (const uint8_t *)b.data, b.len, &e), ERR_CORRUPT);
	store_snapshot(S, &c);
	assert_int_equal(c.len + 1, b.len);
	/* Flipped bits never crash it; most are noticed. */
	for (size_t i = 0; i < c.len; i++) {
		uint8_t *p = xmemdup(c.data, c.len);

		p[i] ^= 0x41;
		store_restore(S, p, c.len, NULL);
		free(p);
	}
	buf_done(&b);
	buf_done(&c);
}

static void test_corrupt_txn(void **state)
{
	struct txn *t = txn_new();
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	txn_create(t, OBJ(TASK), new_task("t1", "s1", "n1"));
	txn_create(t, OBJ(CONFIG), new_config("c1", "one", "abc"));
	txn_delete(t, OBJ(CONFIG), "c1", 0);
	txn_pack(t, 5, &b);
	txn_free(t);
	/* Cut between two actions it is a shorter transaction, so only cuts elsewhere are refused. */
	for (size_t n = 0; n < b.len; n++) {
		uint8_t *cut = xmemdup(b.data, n ? n : 1);
		int r = store_apply(S, cut, n, &e);

		if (r == 0 && store_get(S, OBJ(TASK), "t1") != NULL)
			OK(delete (OBJ(TASK), "t1", 0, &e));
		if (store_get(S, OBJ(CONFIG), "c1") != NULL)
			OK(delete (OBJ(CONFIG), "c1", 0, &e));
		assert_true(r == 0 || r == ERR_CORRUPT);
		free(cut);
	}
	for (size_t i = 0; i < b.len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			uint8_t *p = xmemdup(b.data, b.len);

			p[i] ^= (uint8_t)(1 << bit);
			store_apply(S, p, b.len, &e);
			free(p);
		}
	}
	assert_int_equal(store_apply(S, (const uint8_t *)"", 0, &e), ERR_CORRUPT);
	buf_done(&b);
}

/* Fields of a newer version survive a round through this one. */
static void test_unknown_fields(void **state)
{
	static const uint8_t extra[] = {0xc2, 0x3e, 3, 'n', 'e', 'w'}; /* field 1000, bytes */
	Pb__Config *c = new_config("c1", "one", "x");
	CLEANUP_BUF struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	c->base.n_unknown_fields = 1;
	c->base.unknown_fields = xcalloc(1, sizeof(*c->base.unknown_fields));
	c->base.unknown_fields[0].tag = 1000;
	c->base.unknown_fields[0].wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
	c->base.unknown_fields[0].len = 4;
	c->base.unknown_fields[0].data = xmemdup(extra + 2, 4);
	OK(create(OBJ(CONFIG), c, &e));
	store_snapshot(S, &b);
	assert_non_null(memmem(b.data, b.len, extra, sizeof(extra)));
}

static void test_messages(void **state)
{
	Pb__Task *a = new_task("t1", "s1", "n1"), *b;

	(void)state;
	b = msg_clone(a);
	assert_true(msg_equal(a, b));
	assert_true(msg_equal(NULL, NULL));
	assert_false(msg_equal(a, NULL));
	assert_false(msg_equal(a, a->status));
	b->slot = 4;
	b->has_slot = 1;
	assert_false(msg_equal(a, b));
	pb__task__free_unpacked(a, NULL);
	pb__task__free_unpacked(b, NULL);
	assert_string_equal(object_kind_name(OBJ(SERVICE)), "service");
	assert_ptr_equal(object_descriptor(OBJ(VOLUME)), &pb__volume__descriptor);
}

/* An object that is held outlives its store. */
static void test_outlives(void **state)
{
	struct err e = ERR_INIT;
	struct object *o;

	(void)state;
	OK(create(OBJ(TASK), new_task("t1", "s1", "n1"), &e));
	o = object_ref(store_get(S, OBJ(TASK), "t1"));
	store_free(S);
	S = store_new();
	assert_string_equal(o->task->service_id, "s1");
	object_unref(o);
	object_unref(NULL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_packed_by_hand_reads_back),
	    T(test_versions),
	    T(test_conflicts),
	    T(test_find),
	    T(test_indexes),
	    T(test_atomic),
	    T(test_watch),
	    T(test_random_walk),
	    T(test_snapshot),
	    T(test_corrupt_txn),
	    T(test_unknown_fields),
	    T(test_messages),
	    T(test_outlives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
