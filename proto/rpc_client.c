/* The calling side: at most one current connection to one peer, made when a call needs it.
 *
 * Calls that start while the connection is being made are queued in its HTTP/2 session, and nothing of it is
 * sent before the peer has proved to be a manager. When the peer says goodbye (or the connection fails) the
 * next call makes a new one; the old one ends with its last call. There is no retry and no pause here:
 * callers know what may be repeated. */
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/rpc_private.h"

#define CONNECT_MS 10000
#define IDLE_MS    30000

struct rpc_client {
	uv_loop_t *loop;
	struct tls_ctx *ctx;
	char *host;
	uint16_t port;
	struct rpc_conn *current; /* takes new calls; NULL: none */
	struct rpc_conn *conns;   /* all, those included that only finish their calls */
	unsigned interval_ms, timeout_ms;
	void (*state)(void *data, bool up, const struct err *why);
	void *state_data;
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
};

struct rpc_client *rpc_client_new(uv_loop_t *loop, struct tls_ctx *ctx, const char *host, uint16_t port)
{
	struct rpc_client *c = NEW(struct rpc_client);
	c->loop = loop;
	c->ctx = tls_ctx_ref(ctx);
	c->host = xstrdup(host);
	c->port = port;
	c->interval_ms = 2000;
	c->timeout_ms = 5000;
	return c;
}

void rpc_client_set_ctx(struct rpc_client *c, struct tls_ctx *ctx)
{
	tls_ctx_ref(ctx);
	tls_ctx_unref(c->ctx);
	c->ctx = ctx;
}

void rpc_client_set_keepalive(struct rpc_client *c, unsigned interval_ms, unsigned timeout_ms)
{
	c->interval_ms = interval_ms;
	c->timeout_ms = timeout_ms;
}

void rpc_client_on_state(
    struct rpc_client *c, void (*state)(void *data, bool up, const struct err *why), void *data)
{
	c->state = state;
	c->state_data = data;
}

static void finish_close(void *data)
{
	struct rpc_client *c = data;
	void (*closed)(void *) = c->closed;
	void *closed_data = c->closed_data;
	tls_ctx_unref(c->ctx);
	free(c->host);
	free(c);
	if (closed)
		closed(closed_data);
}

static void on_draining(void *owner, struct rpc_conn *conn)
{
	struct rpc_client *c = owner;
	if (c->current == conn)
		c->current = NULL;
	/* The peer's goodbye: what is under way may finish, then this connection has no use. */
	conn->idle_ms = 1;
}

static void on_ended(void *owner, struct rpc_conn *conn, const struct err *why)
{
	struct rpc_client *c = owner;
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		c->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	if (!c->closing && c->state)
		c->state(c->state_data, false, why);
	if (!c->conns && c->closing)
		finish_close(c);
}

static const struct rpc_owner OWNER = {NULL, on_draining, on_ended};

static void on_ready(void *data, const struct tls_peer *peer)
{
	struct rpc_conn *conn = data;
	struct rpc_client *c = conn->owner_data;
	if (peer->verified && !tls_peer_is_manager(peer)) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_UNAUTHORIZED, "%s is not a manager of this cluster", peer->addr);
		rpc_conn_close(conn, &e);
		return;
	}
	rpc_conn_open(conn, peer);
	if (!c->closing && c->state)
		c->state(c->state_data, true, NULL);
}

struct rpc_conn *rpc_client_attach(struct rpc_client *c, const struct rpc_io *io, void *io_data)
{
	struct rpc_conn_opts o = {
	    .loop = c->loop,
	    .owner = &OWNER,
	    .owner_data = c,
	    .io = io,
	    .io_data = io_data,
	    .interval_ms = c->interval_ms,
	    .timeout_ms = c->timeout_ms,
	    .idle_ms = IDLE_MS,
	};
	struct rpc_conn *conn = rpc_conn_new(&o);
	conn->next = c->conns;
	if (conn->next)
		conn->next->prev = conn;
	c->conns = conn;
	c->current = conn;
	return conn;
}

static int connect_now(struct rpc_client *c, struct err *e)
{
	struct tls_conn_ops ops = rpc_tls_ops;
	ops.ready = on_ready;
	struct tls_conn *tls;
	int r = tls_connect(c->loop, c->ctx, c->host, c->port, CONNECT_MS, &ops, NULL, &tls, e);
	if (r)
		return r;
	tls_conn_set_ops(tls, &ops, rpc_client_attach(c, &rpc_io_tls, tls));
	return 0;
}

static int start(struct rpc_client *c, const char *path, const ProtobufCMessageDescriptor *response,
    unsigned deadline_ms, const struct rpc_stream_ops *ops, void *data, struct rpc_stream **ret,
    struct err *e)
{
	if (c->closing)
		return err_set(e, ERR_UNAVAILABLE, "the connection to %s:%u is closing", c->host, c->port);
	for (int attempt = 0;; attempt++) {
		int r = c->current ? 0 : connect_now(c, e);
		if (r)
			return r;
		struct rpc_stream *s =
		    rpc_stream_start(c->current, path, response, deadline_ms, ops, data, e);
		if (s) {
			*ret = s;
			return 0;
		}
		if (attempt > 0)
			return ERR_UNAVAILABLE;
		on_draining(c, c->current); /* out of stream ids: take a fresh connection */
	}
}

int rpc_call(struct rpc_client *c, const char *path, const ProtobufCMessageDescriptor *response,
    unsigned deadline_ms, const struct rpc_stream_ops *ops, void *data, struct rpc_stream **ret,
    struct err *e)
{
	return start(c, path, response, deadline_ms, ops, data, ret, e);
}

/* --- unary */

struct unary {
	struct rpc_stream *s;
	rpc_unary_cb cb;
	void *data;
};

static void unary_closed(void *data, const struct err *why)
{
	struct unary *u = data;
	struct err e = *why;
	const ProtobufCMessage *m = u->s->kept;
	if (e.code == 0 && !m)
		err_set(&e, ERR_CORRUPT, "the answer has no message");
	rpc_unary_cb cb = u->cb;
	void *cb_data = u->data;
	free(u);
	cb(cb_data, e.code ? NULL : m, &e);
}

int rpc_unary(struct rpc_client *c, const char *path, const void *request,
    const ProtobufCMessageDescriptor *response, unsigned deadline_ms, rpc_unary_cb cb, void *data,
    struct err *e)
{
	static const struct rpc_stream_ops ops = {.closed = unary_closed};
	struct unary *u = NEW(struct unary);
	u->cb = cb;
	u->data = data;
	int r = start(c, path, response, deadline_ms, &ops, u, &u->s, e);
	if (r) {
		free(u);
		return r;
	}
	u->s->unary = u->s->keep = true;
	rpc_stream_send(u->s, request);
	rpc_stream_finish(u->s, NULL);
	return 0;
}

void rpc_client_close(struct rpc_client *c, void (*closed)(void *data), void *data)
{
	ASSERT(!c->closing);
	c->closing = true;
	c->closed = closed;
	c->closed_data = data;
	struct err e = ERR_INIT;
	err_set(&e, ERR_CANCELLED, "the connection to %s:%u is closing", c->host, c->port);
	c->current = NULL;
	for (struct rpc_conn *conn = c->conns; conn; conn = conn->next)
		rpc_conn_close(conn, &e);
	if (!c->conns)
		loop_defer(c->loop, finish_close, c);
}
