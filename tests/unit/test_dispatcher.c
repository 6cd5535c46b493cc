/* Agent sessions over loopback TLS against a store that commits later: liveness, assignments, statuses, the
 * table of published ports, logs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>

#include "base/str.h"
#include "base/map.h"
#include "manager/dispatcher/dispatcher.h"
#include "manager/logbroker/logbroker.h"
#include "test_cluster.h"
#include "test_loop.h"

struct fixture {
	uv_loop_t loop;
	struct test_cluster c;
	struct tls_listener *l;
	struct rpc_server *server;
	struct dispatcher *d;
	struct logbroker *logs;
	struct store_watch *watch;
	bool closed[3];
};

/* An agent as far as the wire goes. */
struct agent {
	struct fixture *f;
	struct rpc_client *client;
	struct rpc_stream *s;
	bool started, closed, client_closed, left;
	struct err why;
	char session_id[64];
	int64_t period;
	char *node_addr;
	unsigned node_messages;
	size_t messages, assignments, fulls;
	uint64_t sequence, acked;
	/* what it knows */
	struct strmap tasks;     /* id -> desired state + 1 */
	struct strmap templates; /* id -> 1 */
	struct strmap published; /* service id -> backends + 1 */
	struct strmap secrets, configs;
	size_t templates_sent, secrets_sent, configs_sent;
	char subscription[64];
	bool sub_cancelled, sub_paused;
	unsigned subscribed;
	bool pause;
};

static void *num(size_t n)
{
	return (void *)(uintptr_t)n;
}

static void take(struct agent *a, const Pb__Assignments *as)
{
	a->assignments++;
	assert_int_equal(as->sequence, a->sequence + 1);
	a->sequence = as->sequence;
	if (as->full) {
		a->fulls++;
		strmap_done(&a->tasks);
		strmap_done(&a->templates);
		strmap_done(&a->published);
		a->tasks = a->templates = a->published = (struct strmap)STRMAP_INIT;
	}
	for (size_t i = 0; i < as->n_templates; i++) {
		strmap_put(&a->templates, as->templates[i]->id, num(1));
		a->templates_sent++;
	}
	for (size_t i = 0; i < as->n_secrets; i++) {
		assert_string_equal((char *)as->secrets[i]->spec->data.data, "hush");
		strmap_put(&a->secrets, as->secrets[i]->id, num(1));
		a->secrets_sent++;
	}
	for (size_t i = 0; i < as->n_configs; i++) {
		strmap_put(&a->configs, as->configs[i]->id, num(1));
		a->configs_sent++;
	}
	for (size_t i = 0; i < as->n_tasks; i++) {
		assert_true(strmap_has(&a->templates, as->tasks[i]->template_id));
		strmap_put(&a->tasks, as->tasks[i]->id, num((size_t)as->tasks[i]->desired_state + 1));
	}
	for (size_t i = 0; i < as->n_removed_tasks; i++)
		strmap_remove(&a->tasks, as->removed_tasks[i]);
	for (size_t i = 0; i < as->n_removed_templates; i++)
		strmap_remove(&a->templates, as->removed_templates[i]);
	for (size_t i = 0; i < as->n_removed_secrets; i++)
		strmap_remove(&a->secrets, as->removed_secrets[i]);
	for (size_t i = 0; i < as->n_removed_configs; i++)
		strmap_remove(&a->configs, as->removed_configs[i]);
	for (size_t i = 0; i < as->n_published; i++)
		strmap_put(
		    &a->published, as->published[i]->service_id, num(as->published[i]->n_backends + 1));
	for (size_t i = 0; i < as->n_removed_published; i++)
		strmap_remove(&a->published, as->removed_published[i]);
}

static void on_message(void *data, const ProtobufCMessage *msg)
{
	struct agent *a = data;
	const Pb__ManagerMessage *m = (const Pb__ManagerMessage *)msg;
	a->messages++;
	if (m->start) {
		a->started = true;
		snprintf(a->session_id, sizeof(a->session_id), "%s", m->start->session_id);
		a->period = m->start->heartbeat_period;
	} else if (m->assignments) {
		take(a, m->assignments);
	} else if (m->ack) {
		a->acked = m->ack->sequence;
	} else if (m->node) {
		a->node_messages++;
	} else if (m->logs) {
		if (m->logs->has_cancel && m->logs->cancel)
			a->sub_cancelled = true;
		else if (m->logs->has_pause)
			a->sub_paused = m->logs->pause;
		else if (++a->subscribed)
			snprintf(a->subscription, sizeof(a->subscription), "%s", m->logs->subscription_id);
	} else if (m->has_leave) {
		a->left = true;
	}
	if (a->pause)
		rpc_stream_pause(a->s, true);
}

static void on_closed(void *data, const struct err *why)
{
	struct agent *a = data;
	assert_false(a->closed);
	a->closed = true;
	a->why = *why;
	a->s = NULL;
}

static void agent_connect(struct fixture *f, struct agent *a, const char *node_id)
{
	a->f = f;
	struct tls_ctx *ctx = test_ctx_node(&f->c.ca, node_id, PKI_ROLE_WORKER, false);
	a->client = rpc_client_new(&f->loop, ctx, "127.0.0.1", tls_listener_port(f->l));
	tls_ctx_unref(ctx);
	static const struct rpc_stream_ops ops = {.message = on_message, .closed = on_closed};
	struct err e = ERR_INIT;
	assert_int_equal(rpc_call(a->client, "/shoal.Dispatcher/Session", &pb__manager_message__descriptor, 0,
			     &ops, a, &a->s, &e),
	    0);
}

static void agent_hello(struct agent *a)
{
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	Pb__AgentHello h = PB__AGENT_HELLO__INIT;
	Pb__NodeDescription d = PB__NODE_DESCRIPTION__INIT;
	d.hostname = (char *)"host";
	h.description = &d;
	h.advertise_addr = a->node_addr;
	m.hello = &h;
	rpc_stream_send(a->s, &m);
}

static void agent_status(
    struct agent *a, uint64_t sequence, const char *first, size_t n, Pb__TaskState__E state, int64_t ts)
{
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	Pb__TaskStatusBatch b = PB__TASK_STATUS_BATCH__INIT;
	Pb__TaskStatusUpdate *u = xcalloc(n, sizeof(*u)), **v = xcalloc(n, sizeof(*v));
	Pb__TaskStatus st = PB__TASK_STATUS__INIT;
	st.state = state;
	st.timestamp = ts;
	for (size_t i = 0; i < n; i++) {
		pb__task_status_update__init(&u[i]);
		u[i].task_id = n == 1 ? xstrdup(first) : xasprintf("%s%zu", first, i);
		u[i].status = &st;
		v[i] = &u[i];
	}
	b.updates = v;
	b.n_updates = n;
	b.sequence = sequence;
	m.status = &b;
	rpc_stream_send(a->s, &m);
	for (size_t i = 0; i < n; i++)
		free(u[i].task_id);
	free(u);
	free(v);
}

static void set_flag(void *data)
{
	*(bool *)data = true;
}

static void agent_done(struct agent *a)
{
	rpc_client_close(a->client, set_flag, &a->client_closed);
	assert_true(test_loop_until(&a->f->loop, test_loop_flag, &a->client_closed, 5000));
	strmap_done(&a->tasks);
	strmap_done(&a->templates);
	strmap_done(&a->published);
	strmap_done(&a->secrets);
	strmap_done(&a->configs);
}

/* --- the cluster's objects */

static void add_template(struct fixture *f, const char *id)
{
	Pb__Template *t = PB_NEW(Pb__Template, pb__template);
	t->id = xstrdup(id);
	t->service_id = xstrdup("svc");
	t->service_name = xstrdup("web");
	t->spec = PB_NEW(Pb__TaskSpec, pb__task_spec);
	test_create(&f->c, OBJ(TEMPLATE), t);
}

static Pb__Task *new_task(const char *id, const char *node, const char *tmpl, Pb__TaskState__E state)
{
	Pb__Task *t = PB_NEW(Pb__Task, pb__task);
	t->id = xstrdup(id);
	t->service_id = xstrdup("svc");
	t->node_id = xstrdup(node);
	t->template_id = xstrdup(tmpl);
	t->desired_state = PB__TASK_STATE__E__RUNNING;
	t->status = PB_NEW(Pb__TaskStatus, pb__task_status);
	t->status->state = state;
	t->status->timestamp = 1;
	return t;
}

static void add_task(struct fixture *f, const char *id, const char *node, const char *tmpl)
{
	test_create(&f->c, OBJ(TASK), new_task(id, node, tmpl, PB__TASK_STATE__E__ASSIGNED));
}

static const Pb__Task *task(struct fixture *f, const char *id)
{
	const struct object *o = store_get(f->c.store, OBJ(TASK), id);
	return o ? o->task : NULL;
}

static void desire(struct fixture *f, const char *id, Pb__TaskState__E state)
{
	Pb__Task *t = pb_clone(task(f, id));
	t->desired_state = state;
	test_update(&f->c, OBJ(TASK), t);
}

static const Pb__NodeStatus *node_status(struct fixture *f, const char *id)
{
	const struct object *o = store_get(f->c.store, OBJ(NODE), id);
	return o ? o->node->status : NULL;
}

static void add_service(struct fixture *f, const char *id, uint32_t port)
{
	Pb__Service *s = PB_NEW(Pb__Service, pb__service);
	s->id = xstrdup(id);
	s->template_id = xstrdup("t1");
	s->spec = PB_NEW(Pb__ServiceSpec, pb__service_spec);
	s->spec->name = xasprintf("name-%s", id);
	s->endpoint = PB_NEW(Pb__Endpoint, pb__endpoint);
	Pb__PortConfig *p = PB_NEW(Pb__PortConfig, pb__port_config);
	p->has_published_port = p->has_target_port = true;
	p->published_port = port;
	p->target_port = 80;
	pb_add_msg(&s->endpoint->ports, &s->endpoint->n_ports, p);
	test_create(&f->c, OBJ(SERVICE), s);
}

/* --- fixture */

static int on_accept(void *data, struct tls_conn *c, const struct tls_peer *peer)
{
	rpc_server_serve(((struct fixture *)data)->server, c, peer);
	return 0;
}
static void on_logs(void *data, const char *node_id, const Pb__LogBatch *b)
{
	logbroker_batch(((struct fixture *)data)->logs, node_id, b);
}
static void on_session(void *data, const char *node_id, int up)
{
	logbroker_session(((struct fixture *)data)->logs, node_id, up);
}
static int logs_send(void *data, const char *node_id, const Pb__ManagerMessage *m, struct err *e)
{
	return dispatcher_send(((struct fixture *)data)->d, node_id, m, e);
}
static void on_event(void *data, const struct store_event *ev)
{
	logbroker_event(((struct fixture *)data)->logs, ev);
}

static int propose(void *data, const struct txn *t, dispatcher_commit_cb cb, void *cb_data, struct err *e)
{
	return test_propose(&((struct fixture *)data)->c, t, cb, cb_data, e);
}

static struct fixture *make(int64_t heartbeat_ns)
{
	struct fixture *f = NEW(struct fixture);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_OFF);
	uv_loop_init(&f->loop);
	test_cluster_init(&f->c, &f->loop, heartbeat_ns);
	f->d = dispatcher_new(&(struct dispatcher_opts){.loop = &f->loop,
	    .store = f->c.store,
	    .clock = clock_system(),
	    .rng = rng_system(),
	    .propose = propose,
	    .logs = on_logs,
	    .session = on_session,
	    .data = f});
	f->logs = logbroker_new(&(struct logbroker_opts){
	    .loop = &f->loop, .store = f->c.store, .rng = rng_system(), .send = logs_send, .data = f});
	f->watch = store_watch_new(f->c.store, on_event, f);
	f->server = rpc_server_new(&f->loop);
	size_t n;
	const struct rpc_method *m = dispatcher_methods(f->d, &n);
	rpc_server_add(f->server, m, n);
	struct tls_ctx *ctx = test_ctx_node(&f->c.ca, "manager1", PKI_ROLE_MANAGER, true);
	struct err e = ERR_INIT;
	assert_int_equal(tls_listen(&f->loop, ctx, "127.0.0.1", 0, on_accept, f, &f->l, &e), 0);
	tls_ctx_unref(ctx);
	test_add_node(&f->c, "node1");
	test_add_node(&f->c, "node2");
	dispatcher_start(f->d);
	return f;
}

static int setup(void **state)
{
	*state = make(5 * NS_PER_SEC);
	return 0;
}

static int setup_fast(void **state)
{
	*state = make(100 * NS_PER_MSEC);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	tls_listener_close(f->l, set_flag, &f->closed[0]);
	rpc_server_close(f->server, set_flag, &f->closed[1]);
	dispatcher_close(f->d, set_flag, &f->closed[2]);
	assert_false(f->closed[2]);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->closed[2], 5000));
	logbroker_free(f->logs);
	store_watch_free(f->watch);
	assert_true(test_loop_end(&f->loop));
	assert_true(f->closed[0] && f->closed[1] && f->closed[2]);
	test_cluster_done(&f->c);
	free(f);
	return 0;
}

#define WAIT(f, flag) assert_true(test_loop_until(&(f)->loop, test_loop_flag, flag, 10000))
#define UNTIL(f, cond)                                                                                       \
	do {                                                                                                 \
		uint64_t until_ = uv_hrtime() + 10000000000ull;                                              \
		while (!(cond)) {                                                                            \
			if (uv_hrtime() > until_)                                                            \
				fail_msg("never: %s", #cond);                                                \
			bool never_ = false;                                                                 \
			test_loop_until(&(f)->loop, test_loop_flag, &never_, 1);                             \
		}                                                                                            \
	} while (0)

/* --- tests */

static void test_hello(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.node_addr = (char *)"192.0.2.7"};
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.started && a.fulls == 1);
	assert_int_equal(strlen(a.session_id), ID_LEN);
	assert_int_equal(a.period, 5 * NS_PER_SEC);
	UNTIL(f, node_status(f, "node1") && node_status(f, "node1")->state == PB__NODE_STATE__E__READY);
	assert_string_equal(node_status(f, "node1")->addr, "192.0.2.7");
	assert_string_equal(store_get(f->c.store, OBJ(NODE), "node1")->node->description->hostname, "host");

	/* again: nothing new to store, another session id; the first session is ended */
	size_t before = f->c.proposals;
	struct agent b = {.node_addr = (char *)"192.0.2.7"};
	agent_connect(f, &b, "node1");
	agent_hello(&b);
	WAIT(f, &a.closed);
	assert_int_equal(a.why.code, ERR_CONFLICT);
	UNTIL(f, b.started);
	assert_string_not_equal(a.session_id, b.session_id);
	assert_int_equal(f->c.proposals, before);

	/* no address of its own: where it comes from */
	struct agent c = {.node_addr = NULL};
	agent_connect(f, &c, "node2");
	agent_hello(&c);
	UNTIL(f, node_status(f, "node2") && node_status(f, "node2")->addr);
	assert_string_equal(node_status(f, "node2")->addr, "127.0.0.1");
	agent_done(&a);
	agent_done(&b);
	agent_done(&c);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL}, b = {.f = NULL}, c = {.f = NULL};
	agent_connect(f, &a, "stranger");
	agent_hello(&a);
	WAIT(f, &a.closed);
	assert_int_equal(a.why.code, ERR_FORBIDDEN);

	agent_connect(f, &b, "node1");
	agent_status(&b, 1, "t", 1, PB__TASK_STATE__E__RUNNING, 5); /* no hello */
	WAIT(f, &b.closed);
	assert_int_equal(b.why.code, ERR_INVALID);

	dispatcher_stop(f->d);
	agent_connect(f, &c, "node1");
	agent_hello(&c);
	WAIT(f, &c.closed);
	assert_int_equal(c.why.code, ERR_UNAVAILABLE);
	agent_done(&a);
	agent_done(&b);
	agent_done(&c);
}

static void test_assignments(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	add_template(f, "t1");
	add_template(f, "t2");
	add_task(f, "x1", "node1", "t1");
	add_task(f, "other", "node2", "t2");
	test_create(&f->c, OBJ(TASK), new_task("early", "node1", "t1", PB__TASK_STATE__E__PENDING));
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.fulls == 1);
	assert_int_equal(strmap_len(&a.tasks), 1);
	assert_int_equal(a.templates_sent, 1);

	/* the template goes once, however many use it; one message for what changes in one turn */
	size_t before = a.assignments;
	char id[16];
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof(id), "y%d", i);
		add_task(f, id, "node1", "t1");
	}
	UNTIL(f, strmap_len(&a.tasks) == 101);
	assert_int_equal(a.assignments, before + 1);
	assert_int_equal(a.templates_sent, 1);

	/* another template; what the other node has never comes */
	add_task(f, "z", "node1", "t2");
	UNTIL(f, strmap_has(&a.tasks, "z"));
	assert_int_equal(a.templates_sent, 2);
	assert_false(strmap_has(&a.tasks, "other"));

	desire(f, "z", PB__TASK_STATE__E__SHUTDOWN);
	UNTIL(f, strmap_get(&a.tasks, "z") == num(PB__TASK_STATE__E__SHUTDOWN + 1));
	test_delete(&f->c, OBJ(TASK), "z");
	UNTIL(f, !strmap_has(&a.tasks, "z"));
	assert_false(strmap_has(&a.templates, "t2"));
	assert_true(strmap_has(&a.templates, "t1"));

	/* gone and back within a turn: nothing is missing afterwards */
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof(id), "y%d", i);
		test_delete(&f->c, OBJ(TASK), id);
	}
	test_delete(&f->c, OBJ(TASK), "x1");
	add_task(f, "w", "node1", "t1");
	UNTIL(f, strmap_has(&a.tasks, "w") && strmap_len(&a.tasks) == 1);
	assert_true(strmap_has(&a.templates, "t1"));
	assert_int_equal(a.fulls, 1);
	agent_done(&a);
}

/* --- secrets and configs go with the templates that name them */

static void add_secret(struct fixture *f, const char *id)
{
	Pb__Secret *x = PB_NEW(Pb__Secret, pb__secret);
	x->id = xstrdup(id);
	x->spec = PB_NEW(Pb__SecretSpec, pb__secret_spec);
	x->spec->name = xasprintf("name-%s", id);
	x->spec->has_data = true;
	x->spec->data.data = (uint8_t *)xstrdup("hush");
	x->spec->data.len = 5;
	test_create(&f->c, OBJ(SECRET), x);
}

static void add_config(struct fixture *f, const char *id)
{
	Pb__Config *x = PB_NEW(Pb__Config, pb__config);
	x->id = xstrdup(id);
	x->spec = PB_NEW(Pb__ConfigSpec, pb__config_spec);
	x->spec->name = xasprintf("name-%s", id);
	test_create(&f->c, OBJ(CONFIG), x);
}

static void add_template_with(struct fixture *f, const char *id, const char *secret, const char *config)
{
	Pb__Template *t = PB_NEW(Pb__Template, pb__template);
	t->id = xstrdup(id);
	t->service_id = xstrdup("svc");
	t->service_name = xstrdup("web");
	t->spec = PB_NEW(Pb__TaskSpec, pb__task_spec);
	t->spec->container_spec = PB_NEW(Pb__ContainerSpec, pb__container_spec);
	Pb__SecretReference *r = PB_NEW(Pb__SecretReference, pb__secret_reference);
	r->secret_id = xstrdup(secret);
	pb_add_msg(&t->spec->container_spec->secrets, &t->spec->container_spec->n_secrets, r);
	Pb__ConfigReference *c = PB_NEW(Pb__ConfigReference, pb__config_reference);
	c->config_id = xstrdup(config);
	pb_add_msg(&t->spec->container_spec->configs, &t->spec->container_spec->n_configs, c);
	test_create(&f->c, OBJ(TEMPLATE), t);
}

static void test_secrets(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	add_secret(f, "s1");
	add_secret(f, "s2");
	add_config(f, "c1");
	add_template_with(f, "t1", "s1", "c1");
	add_template_with(f, "t2", "s1", "gone");
	add_template_with(f, "t3", "s2", "c1");
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.fulls == 1);
	assert_int_equal(a.secrets_sent, 0);
	add_task(f, "x1", "node1", "t1");
	add_task(f, "other", "node2", "t3"); /* its secret stays away from here */
	UNTIL(f, strmap_has(&a.tasks, "x1"));
	assert_true(strmap_has(&a.secrets, "s1") && strmap_has(&a.configs, "c1"));
	add_task(f, "x2", "node1", "t2");
	UNTIL(f, strmap_has(&a.tasks, "x2"));
	assert_int_equal(a.secrets_sent, 1); /* two templates name it, once is enough */
	test_delete(&f->c, OBJ(TASK), "x1");
	UNTIL(f, !strmap_has(&a.tasks, "x1"));
	assert_true(strmap_has(&a.secrets, "s1"));
	assert_false(strmap_has(&a.configs, "c1"));
	test_delete(&f->c, OBJ(TASK), "x2");
	UNTIL(f, !strmap_has(&a.tasks, "x2"));
	assert_false(strmap_has(&a.secrets, "s1"));
	assert_int_equal(a.secrets_sent, 1);
	agent_done(&a);
}

static void test_statuses(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	add_template(f, "t1");
	char id[16];
	for (int i = 0; i < 600; i++) {
		snprintf(id, sizeof(id), "x%d", i);
		add_task(f, id, "node1", "t1");
	}
	add_task(f, "foreign", "node2", "t1");
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.fulls == 1 && f->c.in_flight == 0);
	size_t before = f->c.proposals, messages = a.assignments;
	agent_status(&a, 1, "x", 600, PB__TASK_STATE__E__RUNNING, 10);
	UNTIL(f, a.acked == 1);
	assert_true(f->c.proposals - before <= 3);
	assert_int_equal(task(f, "x599")->status->state, PB__TASK_STATE__E__RUNNING);
	assert_string_equal(task(f, "x0")->status->applied_by, "node1");
	assert_true(task(f, "x0")->running_at > 10); /* by the manager's clock */
	assert_int_equal(task(f, "x0")->running_at, task(f, "x0")->status->applied_at);
	assert_int_equal(a.assignments, messages); /* it is not told what it said */

	/* not backwards, not after the end, not of others, not of what does not exist, not nonsense */
	agent_status(&a, 2, "x1", 1, PB__TASK_STATE__E__STARTING, 11);
	agent_status(&a, 3, "x2", 1, PB__TASK_STATE__E__FAILED, 12);
	agent_status(&a, 4, "x2", 1, PB__TASK_STATE__E__REMOVE, 13);
	agent_status(&a, 5, "foreign", 1, PB__TASK_STATE__E__RUNNING, 14);
	agent_status(&a, 6, "nothing", 1, PB__TASK_STATE__E__RUNNING, 15);
	agent_status(&a, 7, "x3", 1, (Pb__TaskState__E)777, 16);
	UNTIL(f, a.acked == 7);
	UNTIL(f, f->c.in_flight == 0);
	assert_int_equal(task(f, "x1")->status->state, PB__TASK_STATE__E__RUNNING);
	assert_true(task(f, "x2")->status->state == PB__TASK_STATE__E__FAILED ||
		    task(f, "x2")->status->state == PB__TASK_STATE__E__REMOVE);
	assert_int_equal(task(f, "x3")->status->state, PB__TASK_STATE__E__RUNNING);
	assert_int_equal(task(f, "foreign")->status->state, PB__TASK_STATE__E__ASSIGNED);
	agent_done(&a);
}

/* Somebody else writes the same tasks before each commit: reports still get in, once the others pause. */
static struct fixture *racing;
static int races;
static void race(struct test_cluster *c)
{
	(void)c;
	if (races-- <= 0)
		return;
	char id[16];
	snprintf(id, sizeof(id), "x%d", races % 50);
	if (task(racing, id))
		desire(racing, id, PB__TASK_STATE__E__SHUTDOWN);
}

static void test_status_races(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	add_template(f, "t1");
	char id[16];
	for (int i = 0; i < 50; i++) {
		snprintf(id, sizeof(id), "x%d", i);
		add_task(f, id, "node1", "t1");
	}
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.fulls == 1 && f->c.in_flight == 0);
	racing = f;
	races = 20;
	f->c.meanwhile = race;
	agent_status(&a, 1, "x", 50, PB__TASK_STATE__E__RUNNING, 10);
	agent_status(&a, 2, "x", 50, PB__TASK_STATE__E__COMPLETE, 11);
	UNTIL(f, a.acked == 2);
	assert_true(f->c.stale > 0);
	for (int i = 0; i < 50; i++) {
		snprintf(id, sizeof(id), "x%d", i);
		assert_int_equal(task(f, id)->status->state, PB__TASK_STATE__E__COMPLETE);
	}
	agent_done(&a);
}

/* What could not be stored is not acknowledged: the session ends, the agent will say it again. */
static void test_status_not_stored(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL}, b = {.f = NULL};
	add_template(f, "t1");
	add_task(f, "x", "node1", "t1");
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.fulls == 1 && f->c.in_flight == 0);
	f->c.fail_with = ERR_UNAVAILABLE;
	agent_status(&a, 1, "x", 1, PB__TASK_STATE__E__RUNNING, 10);
	WAIT(f, &a.closed);
	assert_int_equal(a.why.code, ERR_UNAVAILABLE);
	assert_int_equal(a.acked, 0);
	f->c.fail_with = 0;
	agent_connect(f, &b, "node1");
	agent_hello(&b);
	UNTIL(f, b.fulls == 1);
	agent_status(&b, 1, "x", 1, PB__TASK_STATE__E__RUNNING, 10);
	UNTIL(f, b.acked == 1);
	assert_int_equal(task(f, "x")->status->state, PB__TASK_STATE__E__RUNNING);
	agent_done(&a);
	agent_done(&b);
}

static void test_published(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL}, b = {.f = NULL};
	add_template(f, "t1");
	add_service(f, "svc", 8080);
	add_task(f, "x1", "node1", "t1");
	add_task(f, "x2", "node1", "t1");
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	agent_connect(f, &b, "node2");
	agent_hello(&b);
	UNTIL(f, a.fulls == 1 && b.fulls == 1);
	assert_int_equal((uintptr_t)strmap_get(&b.published, "svc"), 0 + 1);
	agent_status(&a, 1, "x1", 1, PB__TASK_STATE__E__RUNNING, 10);
	agent_status(&a, 2, "x2", 1, PB__TASK_STATE__E__RUNNING, 10);
	/* every node learns of it */
	UNTIL(f, strmap_get(&a.published, "svc") == num(3) && strmap_get(&b.published, "svc") == num(3));
	/* it leaves when it is to stop, before it has stopped */
	desire(f, "x1", PB__TASK_STATE__E__SHUTDOWN);
	UNTIL(f, strmap_get(&b.published, "svc") == num(2));
	assert_int_equal(task(f, "x1")->status->state, PB__TASK_STATE__E__RUNNING);
	agent_status(&a, 3, "x2", 1, PB__TASK_STATE__E__FAILED, 20);
	UNTIL(f, strmap_get(&b.published, "svc") == num(1));
	test_delete(&f->c, OBJ(SERVICE), "svc");
	UNTIL(f, !strmap_has(&b.published, "svc") && !strmap_has(&a.published, "svc"));
	agent_done(&a);
	agent_done(&b);
}

static void test_heartbeats(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL}, b = {.f = NULL};
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.started);
	/* heard for a second: ten periods */
	uint64_t t0 = uv_hrtime();
	while (uv_hrtime() - t0 < 1000000000ull) {
		Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
		Pb__AgentHeartbeat hb = PB__AGENT_HEARTBEAT__INIT;
		m.heartbeat = &hb;
		rpc_stream_send(a.s, &m);
		bool never = false;
		test_loop_until(&f->loop, test_loop_flag, &never, 50);
		assert_int_equal(node_status(f, "node1")->state, PB__NODE_STATE__E__READY);
	}
	/* then not any more */
	WAIT(f, &a.closed);
	assert_int_equal(a.why.code, ERR_TIMEOUT);
	UNTIL(f, node_status(f, "node1")->state == PB__NODE_STATE__E__DOWN);
	assert_string_equal(node_status(f, "node1")->message, "heartbeat failure");
	assert_true(store_get(f->c.store, OBJ(NODE), "node1")->node->has_down_since);
	/* a node that never came is down too */
	UNTIL(f, node_status(f, "node2") && node_status(f, "node2")->state == PB__NODE_STATE__E__DOWN);

	agent_connect(f, &b, "node1");
	agent_hello(&b);
	UNTIL(f, node_status(f, "node1")->state == PB__NODE_STATE__E__READY);
	assert_true(str_empty(node_status(f, "node1")->message));
	assert_false(store_get(f->c.store, OBJ(NODE), "node1")->node->has_down_since);
	/* the connection breaks: the same */
	rpc_stream_cancel(b.s);
	UNTIL(f, node_status(f, "node1")->state == PB__NODE_STATE__E__DOWN);
	agent_done(&a);
	agent_done(&b);
}

static void test_node_changes(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.started && f->c.in_flight == 0);
	Pb__Node *n = pb_clone(store_get(f->c.store, OBJ(NODE), "node1")->node);
	n->spec->has_availability = true;
	n->spec->availability = PB__NODE_AVAILABILITY__E__DRAIN;
	test_update(&f->c, OBJ(NODE), n);
	UNTIL(f, a.node_messages == 1);
	test_delete(&f->c, OBJ(NODE), "node1");
	WAIT(f, &a.closed);
	assert_true(a.left);
	assert_int_equal(a.why.code, ERR_FORBIDDEN);
	agent_done(&a);
}

/* With a commit of the old leadership under way. */
static void lose_and_win(struct test_cluster *c)
{
	c->meanwhile = NULL;
	dispatcher_stop(racing->d);
	dispatcher_start(racing->d);
}

static void test_leadership_lost(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL}, b = {.f = NULL}, mute = {.f = NULL};
	add_template(f, "t1");
	add_task(f, "x", "node1", "t1");
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	agent_connect(f, &mute, "node2"); /* no hello yet */
	UNTIL(f, a.fulls == 1 && f->c.in_flight == 0);
	agent_status(&a, 1, "x", 1, PB__TASK_STATE__E__RUNNING, 10);
	racing = f;
	f->c.meanwhile = lose_and_win;
	WAIT(f, &a.closed);
	assert_null(f->c.meanwhile);
	assert_int_equal(a.why.code, ERR_UNAVAILABLE);
	agent_connect(f, &b, "node1");
	agent_hello(&b);
	UNTIL(f, b.fulls == 1);
	agent_status(&b, 1, "x", 1, PB__TASK_STATE__E__COMPLETE, 11);
	UNTIL(f, b.acked == 1);
	assert_int_equal(task(f, "x")->status->state, PB__TASK_STATE__E__COMPLETE);
	agent_done(&a);
	agent_done(&b);
	agent_done(&mute);
}

/* An agent that does not read: what changes gathers, and in the end it knows everything. */
static void test_slow_agent(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	add_template(f, "t1");
	add_service(f, "svc", 8080);
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.fulls == 1);
	rpc_stream_pause(a.s, true);
	size_t known = a.messages;
	char id[16];
	for (int round = 0; round < 120; round++) {
		struct txn *t = txn_new();
		for (int i = 0; i < 1000; i++) {
			snprintf(id, sizeof(id), "x%d-%d", round, i);
			txn_create(t, OBJ(TASK), new_task(id, "node1", "t1", PB__TASK_STATE__E__ASSIGNED));
		}
		test_apply(&f->c, t);
		for (int i = 0; i < 5; i++)
			uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	add_service(f, "svc2", 8081);
	for (int i = 0; i < 20; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(a.messages, known);
	rpc_stream_pause(a.s, false);
	UNTIL(f, strmap_len(&a.tasks) == 120000 && strmap_has(&a.published, "svc2"));
	assert_true(a.assignments < 120); /* not one for each round */
	agent_done(&a);
}

/* --- logs */

struct reader {
	size_t lines;
	bool ended;
	int status;
	char text[64];
};
static void on_line(void *data, const char *service_id, const char *node_id, const Pb__LogLine *l)
{
	struct reader *r = data;
	assert_string_equal(service_id, "svc");
	assert_true(str_has_prefix(node_id, "node"));
	r->lines++;
	snprintf(r->text, sizeof(r->text), "%.*s", (int)l->data.len, l->data.data);
}
static void on_end(void *data, int status, const struct err *e)
{
	struct reader *r = data;
	assert_false(r->ended);
	r->ended = true;
	r->status = status;
	(void)e;
}

static void agent_log(struct agent *a, const char *text, bool end)
{
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	Pb__LogBatch b = PB__LOG_BATCH__INIT;
	Pb__LogLine l = PB__LOG_LINE__INIT, *lines = &l;
	b.subscription_id = a->subscription;
	l.task_id = (char *)"x";
	l.stream = 1;
	l.data.data = (uint8_t *)(uintptr_t)text;
	l.data.len = strlen(text);
	b.lines = &lines;
	b.n_lines = 1;
	b.has_end = b.end = end;
	m.logs = &b;
	rpc_stream_send(a->s, &m);
}

static void test_logs(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL};
	struct reader r = {0}, gone = {0}, left = {0};
	struct err e = ERR_INIT;
	struct log_subscription *s;
	add_template(f, "t1");
	add_service(f, "svc", 8080);
	test_create(&f->c, OBJ(TASK), new_task("x", "node1", "t1", PB__TASK_STATE__E__RUNNING));
	struct log_subscribe_opts o = {.service_id = "nothing",
	    .want_stdout = true,
	    .tail = -1,
	    .line = on_line,
	    .end = on_end,
	    .data = &r};
	assert_int_equal(logbroker_subscribe(f->logs, &o, &s, &e), ERR_NOT_FOUND);
	o.service_id = "svc";
	o.data = &gone; /* its node has no session */
	assert_int_equal(logbroker_subscribe(f->logs, &o, &s, &e), 0);
	assert_false(gone.ended);
	WAIT(f, &gone.ended);
	assert_int_equal(gone.status, ERR_UNAVAILABLE);

	agent_connect(f, &a, "node1");
	agent_hello(&a);
	UNTIL(f, a.started);
	o.data = &r;
	assert_int_equal(logbroker_subscribe(f->logs, &o, &s, &e), 0);
	UNTIL(f, a.subscription[0]);
	agent_log(&a, "one", false);
	agent_log(&a, "two", true);
	WAIT(f, &r.ended);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.lines, 2);
	assert_string_equal(r.text, "two");
	agent_log(&a, "late", true); /* ignored */

	/* following: ends when the reader leaves (the agent is told), or the node does */
	a.subscription[0] = 0;
	o.follow = true;
	o.data = &left;
	assert_int_equal(logbroker_subscribe(f->logs, &o, &s, &e), 0);
	UNTIL(f, a.subscription[0]);
	agent_log(&a, "three", false);
	UNTIL(f, left.lines == 1);
	logbroker_pause(s, true);
	UNTIL(f, a.sub_paused);
	logbroker_pause(s, false);
	UNTIL(f, !a.sub_paused);
	logbroker_unsubscribe(s);
	UNTIL(f, a.sub_cancelled);
	assert_false(left.ended);
	agent_done(&a);
}

/* A reader that follows a service: tasks that come later are asked for, a node that is lost is not the end,
 * the service's removal is. */
static void test_logs_follow(void **state)
{
	struct fixture *f = *state;
	struct agent a = {.f = NULL}, b = {.f = NULL};
	struct reader r = {0};
	struct err e = ERR_INIT;
	struct log_subscription *s;
	add_template(f, "t1");
	add_service(f, "svc", 8080);
	test_create(&f->c, OBJ(TASK), new_task("x", "node1", "t1", PB__TASK_STATE__E__RUNNING));
	agent_connect(f, &a, "node1");
	agent_hello(&a);
	agent_connect(f, &b, "node2");
	agent_hello(&b);
	UNTIL(f, a.started && b.started);
	struct log_subscribe_opts o = {.service_id = "svc",
	    .want_stdout = true,
	    .follow = true,
	    .tail = -1,
	    .line = on_line,
	    .end = on_end,
	    .data = &r};
	assert_int_equal(logbroker_subscribe(f->logs, &o, &s, &e), 0);
	UNTIL(f, a.subscribed == 1);
	logbroker_pause(s, true);
	add_task(f, "y", "node2", "t1");
	UNTIL(f, strmap_has(&b.tasks, "y"));
	assert_int_equal(b.subscribed, 0); /* it has no log yet */
	agent_status(&b, 1, "y", 1, PB__TASK_STATE__E__RUNNING, 10);
	UNTIL(f, b.subscribed == 1 && b.sub_paused); /* paused as the rest is */
	logbroker_pause(s, false);
	agent_log(&a, "one", false);
	agent_log(&b, "two", false);
	UNTIL(f, r.lines == 2);
	/* lines under another's subscription are nobody's */
	memcpy(b.subscription, a.subscription, sizeof(b.subscription));
	agent_log(&b, "forged", true);
	agent_done(&a);
	agent_log(&b, "forged", true);
	assert_false(r.ended);
	assert_int_equal(r.lines, 2);
	agent_done(&b);
	UNTIL(f, a.closed && b.closed);
	test_delete(&f->c, OBJ(SERVICE), "svc");
	WAIT(f, &r.ended);
	assert_int_equal(r.status, ERR_UNAVAILABLE);
	assert_int_equal(r.lines, 2);
}

int main(void)
{
#define T(t)      cmocka_unit_test_setup_teardown(t, setup, teardown)
#define T_FAST(t) cmocka_unit_test_setup_teardown(t, setup_fast, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_hello),
	    T(test_refused),
	    T(test_assignments),
	    T(test_statuses),
	    T(test_secrets),
	    T(test_status_races),
	    T(test_status_not_stored),
	    T(test_published),
	    T(test_logs_follow),
	    T_FAST(test_heartbeats),
	    T(test_node_changes),
	    T(test_leadership_lost),
	    T(test_slow_agent),
	    T(test_logs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
