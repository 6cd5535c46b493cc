/* The Engine API with a store of its own behind it: transactions are applied on the next turn of the loop.
 * Requests go through the real HTTP server over a socketpair, in one thread. */
#ifndef API_FAKE_H
#define API_FAKE_H

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/timer.h"
#include "node/api/api.h"
#include "proto/pb.h"

#define FAKE_NODE "node1node1node1node1node1"

struct fake {
	uv_loop_t loop;
	struct store *store;
	struct events *events;
	struct api *api;
	struct http_server *server;
	int fd;            /* the client's end */
	const char *state; /* of the swarm */
	int fail_with;     /* the next proposal ends so */
	int64_t now;
	struct rng_seeded seed;
	bool closed;
	/* the log that was opened last */
	struct api_log_query log;
	bool log_is_open, log_paused;
	struct api_swarm_init init; /* numbers of the last init; strings are gone */
	bool left;
};

struct reply {
	int status;
	char *head, *text;
	json_t *json; /* NULL when the body is none */
};

struct fake_commit {
	struct fake *f;
	struct buf packed;
	manager_cb cb;
	void *data;
};

static void fake_state(void *data, struct api_node_state *ret)
{
	struct fake *f = data;
	bool active = strcmp(f->state, "active") == 0;

	*ret =
	    (struct api_node_state){active ? FAKE_NODE : "", active ? "10.9.8.7" : "", f->state, "", active};
}

static struct store *fake_store(void *data, struct err *e)
{
	struct fake *f = data;

	if (strcmp(f->state, "active") == 0)
		return f->store;
	err_set(e, ERR_UNAVAILABLE, "This node is not a swarm manager. Use \"docker swarm init\"");
	return NULL;
}

static void fake_apply(void *data)
{
	struct fake_commit *c = data;
	struct err e = ERR_INIT;
	int status = c->f->fail_with;

	c->f->fail_with = 0;
	if (status)
		err_set(&e, status, "made to fail");
	else
		status = store_apply(c->f->store, (const uint8_t *)c->packed.data, c->packed.len, &e);
	c->cb(c->data, status, &e);
	buf_done(&c->packed);
	free(c);
}

static int fake_propose(void *data, const struct txn *t, manager_cb cb, void *cb_data, struct err *e)
{
	struct fake *f = data;
	struct fake_commit *c = NEW(struct fake_commit);

	(void)e;
	c->f = f;
	c->cb = cb;
	c->data = cb_data;
	txn_pack(t, f->now += NS_PER_SEC, &c->packed);
	loop_defer(&f->loop, fake_apply, c);
	return 0;
}

static void fake_done(void *data)
{
	struct fake_commit *c = data;

	c->cb(c->data, 0, NULL);
	free(c);
}

static void fake_later(struct fake *f, manager_cb cb, void *cb_data)
{
	struct fake_commit *c = NEW(struct fake_commit);

	c->cb = cb;
	c->data = cb_data;
	loop_defer(&f->loop, fake_done, c);
}

static int fake_init(void *data, const struct api_swarm_init *q, manager_cb cb, void *cb_data, struct err *e)
{
	struct fake *f = data;

	if (strcmp(f->state, "active") == 0)
		return err_set(e, ERR_UNAVAILABLE, "This node is already part of a swarm");
	f->init = *q;
	f->state = "active";
	fake_later(f, cb, cb_data);
	return 0;
}

static int fake_leave(void *data, bool force, manager_cb cb, void *cb_data, struct err *e)
{
	struct fake *f = data;

	if (strcmp(f->state, "active") != 0)
		return err_set(e, ERR_UNAVAILABLE, "This node is not part of a swarm");
	if (!force)
		return err_set(e, ERR_UNAVAILABLE, "this is the last manager");
	f->left = true;
	f->state = "inactive";
	fake_later(f, cb, cb_data);
	return 0;
}

static char *fake_token(void *data, const Pb__Cluster *c)
{
	(void)data;
	(void)c;
	return xstrdup("SWMTKN-1-new");
}

static int fake_log_open(void *data, const struct api_log_query *q, struct api_log **ret, struct err *e)
{
	struct fake *f = data;

	(void)e;
	f->log = *q;
	f->log_is_open = true;
	*ret = (struct api_log *)f;
	return 0;
}

static void fake_log_pause(void *data, struct api_log *l, bool paused)
{
	(void)l;
	((struct fake *)data)->log_paused = paused;
}

static void fake_log_close(void *data, struct api_log *l)
{
	(void)l;
	((struct fake *)data)->log_is_open = false;
}

static int64_t fake_unix(void *data)
{
	return ((struct fake *)data)->now;
}

static inline struct fake *fake_new(void)
{
	struct fake *f = NEW(struct fake);
	int fd[2];

	uv_loop_init(&f->loop);
	f->store = store_new();
	f->events = events_new();
	f->state = "active";
	f->now = INT64_C(1800000000) * NS_PER_SEC;
	struct api_deps d = {.loop = &f->loop,
	    .clock = {fake_unix, fake_unix, f},
	    .rng = rng_from_seed(&f->seed, 3),
	    .events = f->events,
	    .hostname = "testhost",
	    .data_root = "/nonexistent",
	    .manager = {.data = f,
		.state = fake_state,
		.store = fake_store,
		.propose = fake_propose,
		.swarm_init = fake_init,
		.swarm_leave = fake_leave,
		.join_token_new = fake_token,
		.log_open = fake_log_open,
		.log_pause = fake_log_pause,
		.log_close = fake_log_close}};
	f->api = api_new(&d);
	struct http_server_opts o = api_http_opts(f->api);
	f->server = http_server_new(&f->loop, &o);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(http_server_adopt(f->server, fd[0], NULL), 0);
	f->fd = fd[1];
	return f;
}

static void fake_closed(void *data)
{
	*(bool *)data = true;
}

static inline void fake_free(struct fake *f)
{
	http_server_close(f->server, 0, fake_closed, &f->closed);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	api_free(f->api);
	events_free(f->events);
	store_free(f->store);
	close(f->fd);
	free(f);
}

/* Another connection. */
static inline int fake_dial(struct fake *f)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(http_server_adopt(f->server, fd[0], NULL), 0);
	return fd[1];
}

static bool fake_whole(const struct buf *b)
{
	const char *end = b->len ? strstr(b->data, "\r\n\r\n") : NULL, *p;

	if (!end)
		return false;
	end += 4;
	p = strstr(b->data, "Content-Length: ");
	if (p && p < end)
		return b->len - (size_t)(end - b->data) >= strtoul(p + 16, NULL, 10);
	p = strstr(b->data, "Transfer-Encoding: chunked");
	/* Frames have NULs: no string functions beyond the head. */
	return p && p < end ? memcmp(b->data + b->len - 5, "0\r\n\r\n", 5) == 0 : true;
}

/* Runs the loop until `done` says so of what was read from fd; fails after 10 s. */
static inline void fake_read(struct fake *f, int fd, struct buf *b, bool (*done)(const struct buf *b))
{
	char chunk[65536];
	uint64_t until = uv_hrtime() + 10000000000u;

	while (!done(b)) {
		if (uv_hrtime() > until)
			fail_msg("no answer: %s", b->data ? b->data : "(nothing)");
		uv_run(&f->loop, UV_RUN_NOWAIT);
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n > 0)
			buf_append(b, chunk, (size_t)n);
		else if (n == 0)
			break;
	}
}

static inline void fake_send(
    struct fake *f, int fd, const char *method, const char *path, const char *headers, const char *body)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	size_t n = body ? strlen(body) : 0;

	buf_printf(&b, "%s %s HTTP/1.1\r\nHost: h\r\n%s", method, path, headers ? headers : "");
	if (n)
		buf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", n);
	buf_puts(&b, "\r\n");
	buf_puts(&b, body ? body : "");
	for (size_t at = 0; at < b.len;) {
		ssize_t w = write(fd, b.data + at, b.len - at);
		if (w > 0)
			at += (size_t)w;
		else
			uv_run(&f->loop, UV_RUN_NOWAIT);
	}
}

static inline struct reply fake_call_with(
    struct fake *f, const char *method, const char *path, const char *headers, const char *body)
{
	struct buf b = BUF_INIT;
	struct reply r = {0};

	fake_send(f, f->fd, method, path, headers, body);
	fake_read(f, f->fd, &b, fake_whole);
	assert_non_null(b.data);
	char *end = strstr(b.data, "\r\n\r\n");
	assert_non_null(end);
	r.status = atoi(b.data + 9);
	r.text = xstrdup(end + 4);
	end[2] = '\0';
	r.head = xstrdup(b.data);
	r.json = json_loads(r.text, JSON_DECODE_ANY, NULL);
	buf_done(&b);
	return r;
}

static inline struct reply fake_call(struct fake *f, const char *method, const char *path, const char *body)
{
	return fake_call_with(f, method, path, NULL, body);
}

static inline void reply_done(struct reply *r)
{
	json_decref(r->json);
	free(r->head);
	free(r->text);
}

/* Calls and expects a status, and that the body contains `needle` (NULL: anything). */
static inline void fake_expect(
    struct fake *f, const char *method, const char *path, const char *body, int status, const char *needle)
{
	struct reply r = fake_call(f, method, path, body);
	const char *message = json_string_value(json_object_get(r.json, "message"));

	if (r.status != status || (needle && !strstr(message ? message : r.text, needle)))
		fail_msg("%s %s: %d %s (wanted %d %s)", method, path, r.status, r.text, status,
		    needle ? needle : "");
	if (status >= 400) {
		assert_non_null(strstr(r.head, "Content-Type: application/json\r\n"));
		assert_true(json_string_length(json_object_get(r.json, "message")) > 0);
	}
	reply_done(&r);
}

/* Calls, expects a status, and gives the JSON (new reference). */
static inline json_t *fake_json(
    struct fake *f, const char *method, const char *path, const char *body, int status)
{
	struct reply r = fake_call(f, method, path, body);

	if (r.status != status)
		fail_msg("%s %s: %d %s (wanted %d)", method, path, r.status, r.text, status);
	json_t *j = json_incref(r.json);
	reply_done(&r);
	return j;
}

/* "a.b.0.c" in JSON, borrowed; NULL when there is no such thing. */
static inline json_t *at(const json_t *j, const char *path)
{
	struct strlist parts CLEANUP_STRLIST = STRLIST_INIT;
	const json_t *v = j;

	strlist_split(&parts, path, '.');
	for (size_t i = 0; i < parts.n && v; i++)
		v = json_is_array(v) ? json_array_get(v, strtoul(parts.v[i], NULL, 10))
				     : json_object_get(v, parts.v[i]);
	return (json_t *)v;
}

static inline const char *text_at(const json_t *j, const char *path)
{
	const json_t *v = at(j, path);

	return json_is_string(v) ? json_string_value(v) : "(none)";
}

static inline long long int_at(const json_t *j, const char *path)
{
	const json_t *v = at(j, path);

	return json_is_integer(v) ? (long long)json_integer_value(v) : -99999;
}

/* Applies a transaction at once, past the API. */
static inline void fake_commit(struct fake *f, struct txn *t)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	struct err e = ERR_INIT;

	txn_pack(t, f->now += NS_PER_SEC, &b);
	if (store_apply(f->store, (const uint8_t *)b.data, b.len, &e) != 0)
		fail_msg("%s", e.text);
	txn_free(t);
}

/* A cluster and one node, the manager itself. */
static inline void fake_swarm(struct fake *f)
{
	struct txn *t = txn_new();
	Pb__Cluster *c = PB_NEW(Pb__Cluster, pb__cluster);
	Pb__Node *n = PB_NEW(Pb__Node, pb__node);

	c->id = xstrdup("clusterclusterclustercluu");
	c->spec = PB_NEW(Pb__ClusterSpec, pb__cluster_spec);
	pb_set_str(&c->spec->name, "default");
	c->join_tokens = PB_NEW(Pb__JoinTokens, pb__join_tokens);
	pb_set_str(&c->join_tokens->worker, "SWMTKN-1-w");
	pb_set_str(&c->join_tokens->manager, "SWMTKN-1-m");
	txn_create(t, OBJ(CLUSTER), c);
	n->id = xstrdup(FAKE_NODE);
	n->spec = PB_NEW(Pb__NodeSpec, pb__node_spec);
	n->spec->has_role = n->spec->has_availability = true;
	n->spec->role = PB__NODE_ROLE__E__MANAGER;
	n->description = PB_NEW(Pb__NodeDescription, pb__node_description);
	pb_set_str(&n->description->hostname, "testhost");
	n->status = PB_NEW(Pb__NodeStatus, pb__node_status);
	n->status->has_state = true;
	n->status->state = PB__NODE_STATE__E__READY;
	n->manager_status = PB_NEW(Pb__ManagerStatus, pb__manager_status);
	n->manager_status->has_leader = n->manager_status->leader = true;
	n->has_role = true;
	n->role = PB__NODE_ROLE__E__MANAGER;
	txn_create(t, OBJ(NODE), n);
	fake_commit(f, t);
}

/* A task of a service's current template. */
static inline void fake_task(struct fake *f, const char *id, const char *service, uint64_t slot,
    Pb__TaskState__E state, Pb__TaskState__E desired)
{
	const struct object *s;
	struct txn *t = txn_new();
	Pb__Task *k = PB_NEW(Pb__Task, pb__task);

	assert_int_equal(store_find(f->store, OBJ(SERVICE), service, &s, NULL), 0);
	k->id = xstrdup(id);
	pb_set_str(&k->service_id, s->service->id);
	pb_set_str(&k->service_name, s->service->spec->name);
	pb_set_str(&k->node_id, FAKE_NODE);
	k->has_slot = slot != 0;
	k->slot = slot;
	k->status = PB_NEW(Pb__TaskStatus, pb__task_status);
	k->status->timestamp = f->now;
	k->status->state = state;
	k->desired_state = desired;
	k->template_id = xstrdup(s->service->template_id);
	txn_create(t, OBJ(TASK), k);
	fake_commit(f, t);
}

static inline int fake_setup(void **state)
{
	struct fake *f = fake_new();

	fake_swarm(f);
	*state = f;
	return 0;
}

static inline int fake_teardown(void **state)
{
	fake_free(*state);
	return 0;
}
#define WITH_API(t) cmocka_unit_test_setup_teardown(t, fake_setup, fake_teardown)

#endif
