/* TLS streams over loopback: who gets in, what is said when not, flow, ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/str.h"
#include "test_loop.h"
#include "test_pki.h"

struct end {
	struct tls_conn *c;
	struct tls_peer peer;
	struct err why;
	struct buf got;
	size_t n_got, drained;
	bool ready, closed, keep;
};

struct fixture {
	uv_loop_t loop;
	struct test_ca ca, other;
	struct test_id server_id;
	struct tls_listener *l;
	struct end server, client;
	int refuse;
	bool listener_closed;
};

static void on_ready(void *data, const struct tls_peer *peer)
{
	struct end *e = data;
	assert_false(e->ready);
	e->ready = true;
	e->peer = *peer;
}
static void on_read(void *data, const uint8_t *p, size_t n)
{
	struct end *e = data;
	e->n_got += n;
	if (e->keep)
		buf_append(&e->got, p, n);
}
static void on_closed(void *data, const struct err *why)
{
	struct end *e = data;
	assert_false(e->closed);
	e->closed = true;
	e->why = *why;
	e->c = NULL;
}
static void on_drained(void *data)
{
	((struct end *)data)->drained++;
}
static const struct tls_conn_ops OPS = {on_ready, on_read, on_closed, on_drained};

static int on_accept(void *data, struct tls_conn *c, const struct tls_peer *peer)
{
	struct fixture *f = data;
	if (f->refuse)
		return f->refuse;
	f->server.c = c;
	tls_conn_set_ops(c, &OPS, &f->server);
	on_ready(&f->server, peer);
	return 0;
}

static void set_closed(void *data)
{
	*(bool *)data = true;
}

static void listen_with(struct fixture *f, bool require)
{
	struct err e = ERR_INIT;
	struct tls_ctx *ctx = test_ctx_new(&f->ca, &f->server_id, true, require);
	assert_int_equal(tls_listen(&f->loop, ctx, "127.0.0.1", 0, on_accept, f, &f->l, &e), 0);
	tls_ctx_unref(ctx);
}

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	uv_loop_init(&f->loop);
	f->ca = test_ca_new();
	f->other = test_ca_new();
	f->server_id = test_id_new(&f->ca, "server1", PKI_ROLE_MANAGER, 3600);
	f->server.keep = f->client.keep = true;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	if (f->client.c)
		tls_close(f->client.c);
	if (f->server.c)
		tls_close(f->server.c);
	if (f->l)
		tls_listener_close(f->l, set_closed, &f->listener_closed);
	assert_true(test_loop_end(&f->loop));
	assert_true(f->listener_closed || !f->l);
	buf_done(&f->server.got);
	buf_done(&f->client.got);
	test_id_done(&f->server_id);
	test_ca_done(&f->ca);
	test_ca_done(&f->other);
	free(f);
	return 0;
}

static void connect_with(struct fixture *f, struct tls_ctx *ctx)
{
	struct err e = ERR_INIT;
	assert_int_equal(tls_connect(&f->loop, ctx, "127.0.0.1", tls_listener_port(f->l), 5000, &OPS,
			     &f->client, &f->client.c, &e),
	    0);
	tls_ctx_unref(ctx);
}

static bool both_ready(void *data)
{
	struct fixture *f = data;
	return (f->client.ready && f->server.ready) || f->client.closed;
}

static void open_pair(struct fixture *f)
{
	listen_with(f, true);
	struct test_id id = test_id_new(&f->ca, "worker7", PKI_ROLE_WORKER, 3600);
	connect_with(f, test_ctx_new(&f->ca, &id, false, false));
	test_id_done(&id);
	assert_true(test_loop_until(&f->loop, both_ready, f, 5000));
	assert_true(f->client.ready && f->server.ready);
}

static void test_roles(void **state)
{
	struct fixture *f = *state;
	open_pair(f);
	assert_true(f->server.peer.verified && f->client.peer.verified);
	assert_string_equal(f->server.peer.node_id, "worker7");
	assert_string_equal(f->server.peer.role, PKI_ROLE_WORKER);
	assert_string_equal(f->server.peer.org, "cluster1");
	assert_string_equal(f->server.peer.alpn, "h2");
	assert_string_equal(f->client.peer.node_id, "server1");
	assert_true(tls_peer_is_manager(&f->client.peer));
	assert_false(tls_peer_is_manager(&f->server.peer));
	assert_true(str_has_prefix(f->server.peer.addr, "127.0.0.1:"));

	tls_write(f->client.c, "hello ", 6);
	tls_write(f->client.c, "there", 5);
	assert_int_equal(f->server.n_got, 0);
	tls_close(f->client.c); /* what waits is sent first */
	tls_close(f->client.c);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->server.closed, 5000));
	assert_string_equal(f->server.got.data, "hello there");
	assert_int_equal(f->server.why.code, 0);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 5000));
	assert_int_equal(f->client.why.code, 0);
}

/* Who is refused, and with which words on each side. */
static void refused(struct fixture *f, struct tls_ctx *ctx, const char *client_says)
{
	connect_with(f, ctx);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 5000));
	assert_false(f->server.ready);
	assert_int_equal(f->client.why.code, ERR_UNAUTHORIZED);
	if (!strstr(f->client.why.text, client_says))
		fail_msg("\"%s\" does not say \"%s\"", f->client.why.text, client_says);
	assert_int_equal(tls_listener_connections(f->l) <= 1, 1);
}

static void test_refuse_anonymous(void **state)
{
	struct fixture *f = *state;
	listen_with(f, true);
	refused(f, test_ctx_new(&f->ca, NULL, false, false), "certificate required");
}

static void test_refuse_other_ca(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	struct test_id id = test_id_new(&f->other, "worker7", PKI_ROLE_WORKER, 3600);
	refused(f, test_ctx_new(&f->ca, &id, false, false), "unknown ca");
	test_id_done(&id);
}

static void test_refuse_expired(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	struct test_id id = test_id_new(&f->ca, "worker7", PKI_ROLE_WORKER, -5);
	refused(f, test_ctx_new(&f->ca, &id, false, false), "expired");
	test_id_done(&id);
}

static void test_refuse_server_of_other_ca(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	refused(f, test_ctx_new(&f->other, NULL, false, false), "127.0.0.1");
}

static void test_anonymous(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	connect_with(f, test_ctx_new(NULL, NULL, false, false));
	assert_true(test_loop_until(&f->loop, both_ready, f, 5000));
	assert_true(f->server.ready);
	assert_false(f->server.peer.verified);
	assert_string_equal(f->server.peer.node_id, "");
	assert_false(f->client.peer.verified);
	assert_false(tls_peer_is_manager(&f->client.peer));
}

static void test_no_alpn(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	struct tls_ctx_opts o = {.ca_pem = f->ca.cert};
	struct tls_ctx *ctx;
	assert_int_equal(tls_ctx_new(&o, &ctx, NULL), 0);
	connect_with(f, ctx);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 5000));
	assert_false(f->server.ready);
}

static void test_accept_refuses(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	f->refuse = 1;
	connect_with(f, test_ctx_new(&f->ca, NULL, false, false));
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 5000));
	assert_false(f->server.ready);
}

static void test_bad_options(void **state)
{
	struct fixture *f = *state;
	struct tls_ctx *c;
	struct err e = ERR_INIT;
	struct tls_ctx_opts o = {.cert_pem = f->server_id.cert};
	assert_int_equal(tls_ctx_new(&o, &c, &e), ERR_INVALID);
	o.key_pem = "rubbish";
	assert_int_equal(tls_ctx_new(&o, &c, &e), ERR_INVALID);
	struct test_id id = test_id_new(&f->ca, "x", PKI_ROLE_WORKER, 10);
	o.key_pem = id.key;
	assert_int_equal(tls_ctx_new(&o, &c, &e), ERR_INVALID);
	test_id_done(&id);
	o.key_pem = f->server_id.key;
	o.ca_pem = "rubbish";
	assert_int_equal(tls_ctx_new(&o, &c, &e), ERR_INVALID);
	struct tls_conn *conn;
	struct tls_ctx *anon = test_ctx_new(NULL, NULL, false, false);
	assert_int_equal(tls_connect(&f->loop, anon, "127.0.0.1", 0, 0, &OPS, NULL, &conn, &e), ERR_INVALID);
	struct tls_listener *l;
	struct tls_ctx *s = test_ctx_new(&f->ca, &f->server_id, true, false);
	assert_int_equal(tls_listen(&f->loop, s, "not-an-address", 0, on_accept, f, &l, &e), ERR_INVALID);
	listen_with(f, false);
	assert_int_not_equal(
	    tls_listen(&f->loop, s, "127.0.0.1", tls_listener_port(f->l), on_accept, f, &l, &e), 0);
	assert_non_null(strstr(e.text, "in use"));
	tls_ctx_unref(s);
	tls_ctx_unref(anon);
}

static void test_connect_fails(void **state)
{
	struct fixture *f = *state;
	listen_with(f, false);
	uint16_t port = tls_listener_port(f->l);
	tls_listener_close(f->l, NULL, NULL);
	f->l = NULL;
	struct err e = ERR_INIT;
	uv_run(&f->loop, UV_RUN_NOWAIT);
	struct tls_ctx *ctx = test_ctx_new(&f->ca, NULL, false, false);
	assert_int_equal(
	    tls_connect(&f->loop, ctx, "localhost", port, 5000, &OPS, &f->client, &f->client.c, &e), 0);
	assert_false(f->client.closed);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 6000));
	assert_int_equal(f->client.why.code, ERR_UNAVAILABLE);
	tls_ctx_unref(ctx);
}

static void ignore_connection(uv_stream_t *s, int status)
{
	(void)s;
	(void)status;
}

/* A peer that accepts the TCP connection and then says nothing. */
static void test_handshake_timeout(void **state)
{
	struct fixture *f = *state;
	uv_tcp_t mute;
	struct sockaddr_in a;
	int n = sizeof(a);
	uv_tcp_init(&f->loop, &mute);
	uv_ip4_addr("127.0.0.1", 0, &a);
	uv_tcp_bind(&mute, (struct sockaddr *)&a, 0);
	assert_int_equal(uv_listen((uv_stream_t *)&mute, 1, ignore_connection), 0);
	uv_tcp_getsockname(&mute, (struct sockaddr *)&a, &n);
	struct err e = ERR_INIT;
	struct tls_ctx *ctx = test_ctx_new(&f->ca, NULL, false, false);
	assert_int_equal(tls_connect(&f->loop, ctx, "127.0.0.1", ntohs(a.sin_port), 100, &OPS, &f->client,
			     &f->client.c, &e),
	    0);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 5000));
	assert_int_equal(f->client.why.code, ERR_TIMEOUT);
	tls_ctx_unref(ctx);
	uv_close((uv_handle_t *)&mute, NULL);
}

#define BULK (8u * 1024 * 1024)
static bool all_there(void *data)
{
	return ((struct end *)data)->n_got == BULK;
}

static void test_bulk_and_pause(void **state)
{
	struct fixture *f = *state;
	open_pair(f);
	f->server.keep = false;
	char *p = xmalloc(BULK);
	memset(p, 'x', BULK);
	tls_pause(f->server.c, true);
	assert_int_equal(tls_write(f->client.c, p, BULK), BULK);
	free(p);
	for (int i = 0; i < 200; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->server.n_got, 0);
	assert_true(tls_waiting(f->client.c) > 0); /* the socket's buffers do not hold all of it */
	assert_int_equal(f->client.drained, 0);
	tls_pause(f->server.c, false);
	assert_int_equal(f->server.n_got, 0); /* never from inside the call */
	assert_true(test_loop_until(&f->loop, all_there, &f->server, 20000));
	assert_int_equal(tls_waiting(f->client.c), 0);
	assert_int_equal(f->client.drained, 1);
}

static void test_queue_bound(void **state)
{
	struct fixture *f = *state;
	open_pair(f);
	tls_pause(f->server.c, true);
	char *p = xcalloc(1, BULK);
	for (unsigned i = 0; i < TLS_QUEUE_MAX / BULK + 2 && f->client.c; i++)
		tls_write(f->client.c, p, BULK);
	free(p);
	assert_false(f->client.closed);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->client.closed, 5000));
	assert_int_equal(f->client.why.code, ERR_TOO_LARGE);
}

static void test_cut(void **state)
{
	struct fixture *f = *state;
	open_pair(f);
	struct err e = ERR_INIT;
	err_set(&e, ERR_TIMEOUT, "gone");
	tls_abort(f->client.c, &e);
	assert_false(f->client.closed);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->server.closed, 5000));
	assert_int_equal(f->server.why.code, ERR_UNAVAILABLE); /* no goodbye: not a clean end */
	assert_true(f->client.closed);
	assert_int_equal(f->client.why.code, ERR_TIMEOUT);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_roles),
	    T(test_refuse_anonymous),
	    T(test_refuse_other_ca),
	    T(test_refuse_expired),
	    T(test_refuse_server_of_other_ca),
	    T(test_anonymous),
	    T(test_no_alpn),
	    T(test_accept_refuses),
	    T(test_bad_options),
	    T(test_connect_fails),
	    T(test_handshake_timeout),
	    T(test_bulk_and_pause),
	    T(test_queue_bound),
	    T(test_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
