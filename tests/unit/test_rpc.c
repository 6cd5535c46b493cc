/* gRPC over loopback TLS: calls of each kind, their bounds, and everything that may end them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>

#include "base/limits.h"
#include "base/str.h"
#include "base/timer.h"
#include "proto/control.pb-c.h"
#include "proto/rpc.h"
#include "test_loop.h"
#include "test_pki.h"

/* One call as a test sees it, on either side. */
struct call {
	struct rpc_stream *s;
	struct fixture *f;
	size_t messages, bytes, drained;
	bool half_closed, closed;
	struct err why;
	bool pause; /* stop after each message */
	size_t to_send, size;
	struct call *next;
};

struct fixture {
	uv_loop_t loop;
	struct test_ca ca;
	struct tls_listener *l;
	struct rpc_server *server;
	struct rpc_client *client;
	struct call c;      /* the client's */
	struct call *calls; /* the server's, newest first */
	size_t n_begun, n_server_closed;
	struct tls_peer peer;
	bool server_closed, client_closed, listener_closed, client_gone;
	int up, down;
	struct err down_why;
};

/* --- server */

static size_t send_bytes(struct rpc_stream *s, size_t n)
{
	Pb__LogBatch b = PB__LOG_BATCH__INIT;
	Pb__LogLine l = PB__LOG_LINE__INIT, *lines = &l;
	b.subscription_id = (char *)"x";
	b.lines = &lines;
	b.n_lines = 1;
	l.task_id = (char *)"t";
	l.data.len = n;
	l.data.data = xcalloc(1, n + 1);
	size_t waits = rpc_stream_send(s, &b);
	free(l.data.data);
	return waits;
}

static size_t bytes_of(const ProtobufCMessage *m)
{
	const Pb__LogBatch *b = (const Pb__LogBatch *)m;
	return b->n_lines ? b->lines[0]->data.len : 0;
}

static void srv_closed(void *data, const struct err *why)
{
	struct call *c = data;
	assert_false(c->closed);
	c->closed = true;
	c->why = *why;
	c->s = NULL;
	c->f->n_server_closed++;
}

static struct call *srv_begin(
    void *data, struct rpc_stream *s, const struct tls_peer *peer, const struct rpc_stream_ops *ops)
{
	struct fixture *f = data;
	struct call *c = NEW(struct call);
	c->s = s;
	c->f = f;
	c->next = f->calls;
	f->calls = c;
	f->n_begun++;
	f->peer = *peer;
	rpc_stream_set_ops(s, ops, c);
	return c;
}

static void unary_message(void *data, const ProtobufCMessage *m)
{
	struct call *c = data;
	struct err e = ERR_INIT;
	c->messages++;
	size_t n = bytes_of(m);
	if (n == 1)
		err_set(&e, ERR_STALE, "update out of sequence: 100 %% of \"it\", naïvely\n");
	else
		send_bytes(c->s, n);
	rpc_stream_finish(c->s, &e);
	c->s = NULL;
}
static void begin_unary(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = unary_message, .closed = srv_closed};
	srv_begin(data, s, peer, &ops);
}

/* Answers `bytes` messages of 1000 bytes, minding what waits. */
static void produce(struct call *c)
{
	while (c->to_send > 0) {
		c->to_send--;
		if (send_bytes(c->s, c->size) > 100000)
			return;
	}
	rpc_stream_finish(c->s, NULL);
	c->s = NULL;
}
static void stream_drained(void *data)
{
	struct call *c = data;
	c->drained++;
	if (c->s)
		produce(c);
}
static void stream_message(void *data, const ProtobufCMessage *m)
{
	struct call *c = data;
	c->to_send = bytes_of(m);
	c->size = 1000;
	produce(c);
}
static void begin_stream(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {
	    .message = stream_message, .closed = srv_closed, .drained = stream_drained};
	srv_begin(data, s, peer, &ops);
}

static void echo_message(void *data, const ProtobufCMessage *m)
{
	struct call *c = data;
	c->messages++;
	c->bytes += bytes_of(m);
	rpc_stream_send(c->s, m);
	if (c->pause)
		rpc_stream_pause(c->s, true);
}
static void echo_half_closed(void *data)
{
	struct call *c = data;
	c->half_closed = true;
	rpc_stream_finish(c->s, NULL);
	c->s = NULL;
}
static void begin_echo(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {
	    .message = echo_message, .half_closed = echo_half_closed, .closed = srv_closed};
	srv_begin(data, s, peer, &ops);
}

/* Takes, says nothing. */
static void sink_message(void *data, const ProtobufCMessage *m)
{
	struct call *c = data;
	c->messages++;
	c->bytes += bytes_of(m);
}
static void begin_sink(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = sink_message, .closed = srv_closed};
	srv_begin(data, s, peer, &ops);
}
static void begin_paused(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = sink_message, .closed = srv_closed};
	rpc_stream_pause(srv_begin(data, s, peer, &ops)->s, true);
}
static void begin_refuse(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	(void)data;
	(void)peer;
	struct err e = ERR_INIT;
	err_set(&e, ERR_PRECONDITION, "not today");
	rpc_stream_finish(s, &e);
}

#define M(p, b, ...)                                                                                         \
	{                                                                                                    \
		.path = "/test.T/" p, .request = &pb__log_batch__descriptor,                                 \
		.response = &pb__log_batch__descriptor, .begin = b, __VA_ARGS__                              \
	}
static struct rpc_method METHODS[] = {
    M("Unary", begin_unary, .unary = true),
    M("Stream", begin_stream, .unary = true),
    M("Echo", begin_echo, .unary = false),
    M("Sink", begin_sink, .unary = false),
    M("Paused", begin_paused, .unary = false),
    M("Refuse", begin_refuse, .unary = true),
    M("Node", begin_unary, .unary = true, .need_node = true),
    M("Manager", begin_unary, .unary = true, .need_manager = true),
};

static int on_accept(void *data, struct tls_conn *c, const struct tls_peer *peer)
{
	rpc_server_serve(((struct fixture *)data)->server, c, peer);
	return 0;
}

/* --- client */

static void cl_message(void *data, const ProtobufCMessage *m)
{
	struct call *c = data;
	c->messages++;
	c->bytes += bytes_of(m);
	if (c->pause)
		rpc_stream_pause(c->s, true);
}
static void cl_closed(void *data, const struct err *why)
{
	struct call *c = data;
	assert_false(c->closed);
	c->closed = true;
	c->why = *why;
	c->s = NULL;
}
static void cl_drained(void *data)
{
	((struct call *)data)->drained++;
}
static const struct rpc_stream_ops CLIENT_OPS = {
    .message = cl_message, .closed = cl_closed, .drained = cl_drained};

static void on_state(void *data, bool up, const struct err *why)
{
	struct fixture *f = data;
	if (up) {
		f->up++;
	} else {
		f->down++;
		f->down_why = *why;
	}
}

static void call(struct fixture *f, struct call *c, const char *path, unsigned deadline_ms)
{
	struct err e = ERR_INIT;
	c->f = f;
	assert_int_equal(
	    rpc_call(f->client, path, &pb__log_batch__descriptor, deadline_ms, &CLIENT_OPS, c, &c->s, &e), 0);
	assert_false(c->closed);
}

static void wait_flag(struct fixture *f, bool *flag)
{
	assert_true(test_loop_until(&f->loop, test_loop_flag, flag, 20000));
}

/* --- fixture */

static void set_flag(void *data)
{
	*(bool *)data = true;
}

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&f->loop);
	f->ca = test_ca_new();
	f->server = rpc_server_new(&f->loop);
	for (size_t i = 0; i < ARRAY_LEN(METHODS); i++)
		METHODS[i].data = f;
	rpc_server_add(f->server, METHODS, ARRAY_LEN(METHODS));
	struct tls_ctx *ctx = test_ctx_node(&f->ca, "m1", PKI_ROLE_MANAGER, true);
	struct err e = ERR_INIT;
	assert_int_equal(tls_listen(&f->loop, ctx, "127.0.0.1", 0, on_accept, f, &f->l, &e), 0);
	tls_ctx_unref(ctx);
	ctx = test_ctx_node(&f->ca, "w1", PKI_ROLE_WORKER, false);
	f->client = rpc_client_new(&f->loop, ctx, "127.0.0.1", tls_listener_port(f->l));
	rpc_client_on_state(f->client, on_state, f);
	tls_ctx_unref(ctx);
	*state = f;
	return 0;
}

static void use_client(struct fixture *f, struct tls_ctx *ctx)
{
	rpc_client_set_ctx(f->client, ctx);
	tls_ctx_unref(ctx);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	tls_listener_close(f->l, set_flag, &f->listener_closed);
	if (!f->client_gone)
		rpc_client_close(f->client, set_flag, &f->client_closed);
	if (f->server)
		rpc_server_close(f->server, set_flag, &f->server_closed);
	assert_false(f->client_closed && !f->client_gone);
	assert_true(test_loop_end(&f->loop));
	assert_true(f->client_closed && f->server_closed && f->listener_closed);
	for (struct call *c = f->calls, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	test_ca_done(&f->ca);
	free(f);
	return 0;
}

/* --- tests */

struct answer {
	size_t n;
	int called;
	bool done;
	struct err e;
};
static void on_answer(void *data, const ProtobufCMessage *m, const struct err *e)
{
	struct answer *a = data;
	a->called++;
	a->done = true;
	a->n = m ? bytes_of(m) : 0;
	a->e = *e;
	assert_true(!m == (e->code != 0));
}
static void ask(struct fixture *f, const char *path, size_t n, struct answer *a)
{
	Pb__LogBatch b = PB__LOG_BATCH__INIT;
	Pb__LogLine l = PB__LOG_LINE__INIT, *lines = &l;
	struct err e = ERR_INIT;
	b.subscription_id = (char *)"x";
	b.lines = &lines;
	b.n_lines = 1;
	l.task_id = (char *)"t";
	l.data.len = n;
	l.data.data = xcalloc(1, n + 1);
	assert_int_equal(
	    rpc_unary(f->client, path, &b, &pb__log_batch__descriptor, 20000, on_answer, a, &e), 0);
	assert_false(a->done);
	free(l.data.data);
}

static void test_unary(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0}, b = {0}, c = {0}, d = {0};
	ask(f, "/test.T/Unary", 5, &a);
	ask(f, "/test.T/Unary", 1, &b);
	ask(f, "/test.T/Unary", 3000000, &c);
	ask(f, "/test.T/Nothing", 5, &d);
	wait_flag(f, &a.done);
	wait_flag(f, &b.done);
	wait_flag(f, &c.done);
	wait_flag(f, &d.done);
	assert_int_equal(a.e.code, 0);
	assert_int_equal(a.n, 5);
	assert_int_equal(b.e.code, ERR_STALE); /* our own codes survive */
	assert_string_equal(b.e.text, "update out of sequence: 100 % of \"it\", naïvely\n");
	assert_int_equal(c.n, 3000000);
	assert_int_equal(d.e.code, ERR_NOT_IMPLEMENTED);
	assert_int_equal(f->up, 1); /* one connection for all */
	assert_string_equal(f->peer.node_id, "w1");
	struct answer r = {0};
	ask(f, "/test.T/Refuse", 5, &r);
	wait_flag(f, &r.done);
	assert_int_equal(r.e.code, ERR_PRECONDITION);
	assert_string_equal(r.e.text, "not today");
}

static void test_codes(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Unary", 0);
	rpc_stream_finish(f->c.s, NULL); /* a unary call without a request */
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.why.code, ERR_INVALID);
	struct call two = {0};
	call(f, &two, "/test.T/Unary", 0);
	send_bytes(two.s, 7);
	send_bytes(two.s, 8);
	wait_flag(f, &two.closed); /* answered after the first; the second cannot change that */
	assert_int_equal(two.messages, 1);
}

static void test_server_stream(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Stream", 0);
	send_bytes(f->c.s, 5000);
	rpc_stream_finish(f->c.s, NULL);
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.why.code, 0);
	assert_int_equal(f->c.messages, 5000);
	assert_int_equal(f->c.bytes, 5000000);
	assert_true(f->calls->drained > 5);
	assert_int_equal(f->n_server_closed, 0); /* finished by the server itself */
}

static bool five_back(void *data)
{
	return ((struct call *)data)->messages >= 5;
}

static void test_bidi(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Echo", 0);
	for (int i = 0; i < 5; i++)
		send_bytes(f->c.s, 100);
	assert_true(test_loop_until(&f->loop, five_back, &f->c, 5000));
	assert_true(f->c.drained >= 1);
	assert_false(f->c.closed);
	send_bytes(f->c.s, 70000);
	rpc_stream_finish(f->c.s, NULL);
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.messages, 6);
	assert_int_equal(f->c.bytes, 70500);
	assert_int_equal(f->c.why.code, 0);
	assert_true(f->calls->half_closed);
}

static bool server_heard_end(void *data)
{
	return ((struct fixture *)data)->n_server_closed > 0;
}

static void test_deadline(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Sink", 300);
	send_bytes(f->c.s, 10);
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.why.code, ERR_TIMEOUT);
	assert_true(test_loop_until(&f->loop, server_heard_end, f, 5000));
	assert_true(f->calls->why.code == ERR_TIMEOUT || f->calls->why.code == ERR_CANCELLED);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Echo", 0);
	send_bytes(f->c.s, 10);
	for (int i = 0; i < 5; i++)
		send_bytes(f->c.s, 100);
	assert_true(test_loop_until(&f->loop, five_back, &f->c, 5000));
	rpc_stream_cancel(f->c.s);
	assert_true(test_loop_until(&f->loop, server_heard_end, f, 5000));
	assert_int_equal(f->calls->why.code, ERR_CANCELLED);
	assert_false(f->c.closed);
	/* before the connection is there */
	struct call *c = NEW(struct call);
	call(f, c, "/test.T/Echo", 0);
	send_bytes(c->s, 10);
	rpc_stream_cancel(c->s);
	struct answer a = {0};
	ask(f, "/test.T/Unary", 5, &a);
	wait_flag(f, &a.done);
	assert_false(c->closed);
	free(c);
}

static void test_too_large(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Echo", 0);
	send_bytes(f->c.s, LIMIT_RPC_MESSAGE);
	assert_false(f->c.closed);
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.why.code, ERR_TOO_LARGE);
	assert_non_null(strstr(f->c.why.text, "over the limit"));
	/* the largest that fits goes through */
	struct answer a = {0};
	ask(f, "/test.T/Unary", LIMIT_RPC_MESSAGE - 64, &a);
	wait_flag(f, &a.done);
	assert_int_equal(a.n, LIMIT_RPC_MESSAGE - 64);
}

/* Without a certificate: only what is open to everybody, and only small messages. */
static void test_anonymous(void **state)
{
	struct fixture *f = *state;
	use_client(f, test_ctx_new(&f->ca, NULL, false, false));
	struct answer a = {0}, b = {0}, c = {0}, d = {0};
	ask(f, "/test.T/Unary", 50000, &a);
	ask(f, "/test.T/Node", 5, &b);
	ask(f, "/test.T/Manager", 5, &c);
	ask(f, "/test.T/Unary", 70000, &d);
	wait_flag(f, &a.done);
	wait_flag(f, &b.done);
	wait_flag(f, &c.done);
	wait_flag(f, &d.done);
	assert_int_equal(a.n, 50000);
	assert_int_equal(b.e.code, ERR_UNAUTHORIZED);
	assert_int_equal(c.e.code, ERR_UNAUTHORIZED);
	assert_int_equal(d.e.code, ERR_TOO_LARGE);
	assert_non_null(strstr(d.e.text, "65536"));
}

static void test_worker_is_no_manager(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0}, b = {0};
	ask(f, "/test.T/Node", 5, &a);
	ask(f, "/test.T/Manager", 5, &b);
	wait_flag(f, &a.done);
	wait_flag(f, &b.done);
	assert_int_equal(a.e.code, 0);
	assert_int_equal(b.e.code, ERR_FORBIDDEN);
	size_t begun = f->n_begun;
	assert_int_equal(begun, 1);
}

static void test_manager(void **state)
{
	struct fixture *f = *state;
	use_client(f, test_ctx_node(&f->ca, "m2", PKI_ROLE_MANAGER, false));
	struct answer a = {0};
	ask(f, "/test.T/Manager", 5, &a);
	wait_flag(f, &a.done);
	assert_int_equal(a.e.code, 0);
	assert_true(tls_peer_is_manager(&f->peer));
}

/* A worker's certificate does not make a manager, however it got the address. */
static void test_server_must_be_manager(void **state)
{
	struct fixture *f = *state;
	struct tls_ctx *ctx = test_ctx_node(&f->ca, "w9", PKI_ROLE_WORKER, true);
	tls_listener_set_ctx(f->l, ctx);
	tls_ctx_unref(ctx);
	struct answer a = {0};
	ask(f, "/test.T/Unary", 5, &a);
	wait_flag(f, &a.done);
	assert_int_equal(a.e.code, ERR_UNAUTHORIZED);
	assert_int_equal(f->n_begun, 0);
}

static void test_wrong_ca(void **state)
{
	struct fixture *f = *state;
	struct test_ca other = test_ca_new();
	use_client(f, test_ctx_node(&other, "w1", PKI_ROLE_WORKER, false));
	test_ca_done(&other);
	struct answer a = {0};
	ask(f, "/test.T/Unary", 5, &a);
	wait_flag(f, &a.done);
	assert_int_equal(a.e.code, ERR_UNAUTHORIZED);
	assert_int_equal(f->down, 1);
}

static void test_nobody_there(void **state)
{
	struct fixture *f = *state;
	rpc_client_close(f->client, set_flag, &f->client_closed);
	wait_flag(f, &f->client_closed);
	f->client_closed = false;
	uv_tcp_t t; /* a port that is taken but not listened on */
	struct sockaddr_in sa;
	int n = sizeof(sa);
	uv_tcp_init(&f->loop, &t);
	uv_ip4_addr("127.0.0.1", 0, &sa);
	uv_tcp_bind(&t, (struct sockaddr *)&sa, 0);
	uv_tcp_getsockname(&t, (struct sockaddr *)&sa, &n);
	struct tls_ctx *ctx = test_ctx_new(&f->ca, NULL, false, false);
	f->client = rpc_client_new(&f->loop, ctx, "127.0.0.1", ntohs(sa.sin_port));
	tls_ctx_unref(ctx);
	struct answer a = {0}, b = {0};
	ask(f, "/test.T/Unary", 5, &a);
	ask(f, "/test.T/Unary", 5, &b);
	wait_flag(f, &a.done);
	wait_flag(f, &b.done);
	assert_int_equal(a.e.code, ERR_UNAVAILABLE);
	assert_int_equal(b.e.code, ERR_UNAVAILABLE);
	assert_int_equal(a.called, 1);
	uv_close((uv_handle_t *)&t, NULL);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

/* The reader is slow: what waits stays bounded on both sides, and everything comes when it reads on. */
struct slow {
	struct call *c;
	size_t want;
};
static bool slow_done(void *data)
{
	struct slow *s = data;
	return s->c->bytes >= s->want;
}
static void test_slow_reader(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Paused", 0);
	size_t waits = 0, sent = 0;
	for (int i = 0; i < 400; i++) {
		if (waits < 200000 && sent < 8000000) {
			waits = send_bytes(f->c.s, 50000);
			sent += 50000;
		}
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	/* the window, and what the sender keeps: nothing like 8 MB */
	assert_true(sent < 512 * 1024 + 400000);
	assert_int_equal(f->calls->messages, 0);
	/* other calls on the connection are not held up */
	struct answer a = {0};
	ask(f, "/test.T/Unary", 3000000, &a);
	wait_flag(f, &a.done);
	assert_int_equal(a.n, 3000000);
	rpc_stream_pause(f->calls->next ? f->calls->next->s : f->calls->s, false);
	struct slow s = {f->calls->next ? f->calls->next : f->calls, sent};
	assert_true(test_loop_until(&f->loop, slow_done, &s, 5000));
	assert_int_equal(s.c->bytes, sent);
}

static void test_pause_client(void **state)
{
	struct fixture *f = *state;
	f->c.pause = true;
	call(f, &f->c, "/test.T/Stream", 0);
	send_bytes(f->c.s, 20);
	rpc_stream_finish(f->c.s, NULL);
	for (size_t i = 1; i <= 20; i++) {
		while (f->c.messages < i)
			uv_run(&f->loop, UV_RUN_ONCE);
		for (int j = 0; j < 3; j++)
			uv_run(&f->loop, UV_RUN_NOWAIT);
		assert_int_equal(f->c.messages, i);
		assert_false(f->c.closed); /* the status waits behind the messages */
		rpc_stream_pause(f->c.s, false);
		assert_int_equal(f->c.messages, i); /* never from inside */
	}
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.why.code, 0);
}

/* More calls at once than the peer allows: the rest wait for their turn. */
#define MANY 3000
static void test_many_streams(void **state)
{
	struct fixture *f = *state;
	struct call *c = xcalloc(MANY, sizeof(*c));
	for (size_t i = 0; i < MANY; i++) {
		call(f, &c[i], "/test.T/Echo", 0);
		send_bytes(c[i].s, 10);
		rpc_stream_finish(c[i].s, NULL);
	}
	for (size_t i = 0; i < MANY; i++) {
		wait_flag(f, &c[i].closed);
		assert_int_equal(c[i].why.code, 0);
		assert_int_equal(c[i].messages, 1);
	}
	assert_int_equal(f->n_begun, MANY);
	assert_int_equal(f->up, 1);
	free(c);
}

static bool begun(void *data)
{
	struct fixture *f = data;
	return f->n_begun > 0 && f->calls->messages > 0;
}

static void test_server_closes(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Sink", 0);
	send_bytes(f->c.s, 10);
	assert_true(test_loop_until(&f->loop, begun, f, 5000));
	rpc_server_close(f->server, set_flag, &f->server_closed);
	f->server = NULL;
	assert_int_equal(f->n_server_closed, 0);
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->calls->why.code, ERR_UNAVAILABLE);
	assert_int_equal(f->c.why.code, ERR_UNAVAILABLE);
	assert_string_equal(f->c.why.text, "this node is stopping"); /* the status came, not only the end */
	wait_flag(f, &f->server_closed);
}

static void test_server_drops(void **state)
{
	struct fixture *f = *state;
	call(f, &f->c, "/test.T/Sink", 0);
	send_bytes(f->c.s, 10);
	assert_true(test_loop_until(&f->loop, begun, f, 5000));
	rpc_server_drop(f->server, "somebody-else");
	for (int i = 0; i < 20; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_false(f->c.closed);
	rpc_server_drop(f->server, "w1");
	wait_flag(f, &f->c.closed);
	assert_int_equal(f->c.why.code, ERR_UNAVAILABLE);
	struct answer a = {0};
	ask(f, "/test.T/Unary", 5, &a); /* a new connection */
	wait_flag(f, &a.done);
	assert_int_equal(a.e.code, 0);
	assert_int_equal(f->up, 2);
}

static void test_client_closes(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	call(f, &f->c, "/test.T/Sink", 0);
	send_bytes(f->c.s, 10);
	assert_true(test_loop_until(&f->loop, begun, f, 5000));
	ask(f, "/test.T/Unary", 5000000, &a);
	rpc_client_close(f->client, set_flag, &f->client_closed);
	assert_false(f->c.closed || a.done || f->client_closed);
	f->client_gone = true;
	wait_flag(f, &f->client_closed);
	assert_int_equal(f->c.why.code, ERR_CANCELLED);
	assert_int_equal(a.e.code, ERR_CANCELLED);
	assert_int_equal(a.called, 1);
	assert_true(test_loop_until(&f->loop, server_heard_end, f, 5000));
}

static void test_close_while_connecting(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	ask(f, "/test.T/Unary", 5, &a);
	rpc_client_close(f->client, set_flag, &f->client_closed);
	f->client_gone = true;
	wait_flag(f, &f->client_closed);
	assert_int_equal(a.e.code, ERR_CANCELLED);
}

/* A relay between client and server that can go silent, as a machine does that lost its power. */
struct relay {
	uv_tcp_t listen, a, b;
	uv_connect_t connect;
	bool silent;
	uint16_t to;
};
static void relay_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
	(void)h;
	*b = uv_buf_init(xmalloc(n), (unsigned)n);
}
static void relay_wrote(uv_write_t *w, int status)
{
	(void)status;
	free(w->data);
	free(w);
}
static void relay_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct relay *r = s->data;
	if (n > 0 && !r->silent) {
		uv_write_t *w = NEW(uv_write_t);
		w->data = b->base;
		uv_buf_t out = uv_buf_init(b->base, (unsigned)n);
		uv_write(w, s == (uv_stream_t *)&r->a ? (uv_stream_t *)&r->b : (uv_stream_t *)&r->a, &out, 1,
		    relay_wrote);
		return;
	}
	free(b->base);
}
static void relay_connected(uv_connect_t *c, int status)
{
	struct relay *r = c->data;
	assert_int_equal(status, 0);
	uv_read_start((uv_stream_t *)&r->a, relay_alloc, relay_read);
	uv_read_start((uv_stream_t *)&r->b, relay_alloc, relay_read);
}
static void relay_accept(uv_stream_t *s, int status)
{
	struct relay *r = s->data;
	struct sockaddr_in sa;
	assert_int_equal(status, 0);
	uv_tcp_init(s->loop, &r->a);
	uv_tcp_init(s->loop, &r->b);
	r->a.data = r->b.data = r->connect.data = r;
	uv_accept(s, (uv_stream_t *)&r->a);
	uv_ip4_addr("127.0.0.1", r->to, &sa);
	uv_tcp_connect(&r->connect, &r->b, (struct sockaddr *)&sa, relay_connected);
}

static void test_peer_vanishes(void **state)
{
	struct fixture *f = *state;
	struct relay r = {.to = tls_listener_port(f->l)};
	struct sockaddr_in sa;
	int n = sizeof(sa);
	uv_tcp_init(&f->loop, &r.listen);
	r.listen.data = &r;
	uv_ip4_addr("127.0.0.1", 0, &sa);
	uv_tcp_bind(&r.listen, (struct sockaddr *)&sa, 0);
	uv_listen((uv_stream_t *)&r.listen, 1, relay_accept);
	uv_tcp_getsockname(&r.listen, (struct sockaddr *)&sa, &n);
	rpc_client_close(f->client, set_flag, &f->client_closed);
	wait_flag(f, &f->client_closed);
	f->client_closed = false;
	struct tls_ctx *ctx = test_ctx_node(&f->ca, "w1", PKI_ROLE_WORKER, false);
	f->client = rpc_client_new(&f->loop, ctx, "127.0.0.1", ntohs(sa.sin_port));
	tls_ctx_unref(ctx);
	rpc_client_set_keepalive(f->client, 200, 600);
	rpc_server_set_keepalive(f->server, 300, 900);

	call(f, &f->c, "/test.T/Sink", 0);
	send_bytes(f->c.s, 10);
	assert_true(test_loop_until(&f->loop, begun, f, 5000));
	/* nothing is said for a while, yet pings keep it */
	uint64_t t0 = uv_hrtime();
	while (uv_hrtime() - t0 < 1500 * 1000000ull) {
		bool never = false;
		test_loop_until(&f->loop, test_loop_flag, &never, 100);
	}
	assert_false(f->c.closed);
	r.silent = true;
	t0 = uv_hrtime();
	wait_flag(f, &f->c.closed);
	assert_true(uv_hrtime() - t0 < 3000 * 1000000ull);
	assert_int_equal(f->c.why.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(f->c.why.text, "did not answer"));
	assert_true(test_loop_until(&f->loop, server_heard_end, f, 5000));
	assert_int_equal(f->calls->why.code, ERR_UNAVAILABLE);
	uv_close((uv_handle_t *)&r.listen, NULL);
	uv_close((uv_handle_t *)&r.a, NULL);
	uv_close((uv_handle_t *)&r.b, NULL);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_unary),
	    T(test_codes),
	    T(test_server_stream),
	    T(test_bidi),
	    T(test_deadline),
	    T(test_cancel),
	    T(test_too_large),
	    T(test_anonymous),
	    T(test_worker_is_no_manager),
	    T(test_manager),
	    T(test_server_must_be_manager),
	    T(test_wrong_ca),
	    T(test_nobody_there),
	    T(test_slow_reader),
	    T(test_pause_client),
	    T(test_many_streams),
	    T(test_server_closes),
	    T(test_server_drops),
	    T(test_client_closes),
	    T(test_close_while_connecting),
	    T(test_peer_vanishes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
