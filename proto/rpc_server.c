/* The serving side: a table of methods by path, and the connections that were handed over.
 *
 * A call to a path that is not in the table, without the certificate or without the role that the method asks
 * for ends with a status before any code of the method runs. Closing ends all calls and connections and
 * reports when the last is gone. */
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/rpc_private.h"

#define ANON_IDLE_MS   10000
#define ANON_CONNS_MAX 1024 /* of LIMIT_RPC_CONNECTIONS: strangers shall not take the places of nodes */

struct rpc_server {
	uv_loop_t *loop;
	struct strmap methods;
	struct rpc_conn *conns;
	size_t n_conns, n_anon;
	unsigned interval_ms, timeout_ms;
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
};

struct rpc_server *rpc_server_new(uv_loop_t *loop)
{
	struct rpc_server *s = NEW(struct rpc_server);
	s->loop = loop;
	s->interval_ms = 3000;
	s->timeout_ms = 6000;
	return s;
}

void rpc_server_add(struct rpc_server *s, const struct rpc_method *methods, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		ASSERT(methods[i].begin && methods[i].request && methods[i].response);
		void *old = strmap_put(&s->methods, methods[i].path, (void *)(uintptr_t)&methods[i]);
		ASSERT(!old);
	}
}

void rpc_server_set_keepalive(struct rpc_server *s, unsigned interval_ms, unsigned timeout_ms)
{
	s->interval_ms = interval_ms;
	s->timeout_ms = timeout_ms;
}

static void on_request(void *owner, struct rpc_stream *st, const char *path)
{
	struct rpc_server *s = owner;
	const struct rpc_method *m = strmap_get(&s->methods, path);
	const struct tls_peer *peer = &st->conn->peer;
	if (s->closing)
		rpc_stream_refuse(st, ERR_UNAVAILABLE, "this node is stopping");
	else if (!m)
		rpc_stream_refuse(st, ERR_NOT_IMPLEMENTED, "this node does not know that call");
	else if ((m->need_node || m->need_manager) && !peer->verified)
		rpc_stream_refuse(st, ERR_UNAUTHORIZED, "this call needs a node's certificate");
	else if (m->need_manager && !tls_peer_is_manager(peer))
		rpc_stream_refuse(st, ERR_FORBIDDEN, "this call needs a manager's certificate");
	else
		rpc_stream_dispatch(st, m);
}

static void on_draining(void *owner, struct rpc_conn *c)
{
	(void)owner;
	(void)c;
}

static void finish_close(void *data)
{
	struct rpc_server *s = data;
	void (*closed)(void *) = s->closed;
	void *closed_data = s->closed_data;
	strmap_done(&s->methods);
	free(s);
	if (closed)
		closed(closed_data);
}

static void on_ended(void *owner, struct rpc_conn *c, const struct err *why)
{
	(void)why;
	struct rpc_server *s = owner;
	if (c->prev)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	s->n_anon -= !c->peer.verified;
	if (--s->n_conns == 0 && s->closing)
		finish_close(s);
}

static const struct rpc_owner OWNER = {on_request, on_draining, on_ended};

struct rpc_conn *rpc_server_attach(
    struct rpc_server *s, const struct rpc_io *io, void *io_data, const struct tls_peer *peer)
{
	struct rpc_conn_opts o = {
	    .loop = s->loop,
	    .server = true,
	    .owner = &OWNER,
	    .owner_data = s,
	    .io = io,
	    .io_data = io_data,
	    .interval_ms = s->interval_ms,
	    .timeout_ms = s->timeout_ms,
	    .idle_ms = peer->verified ? 0 : ANON_IDLE_MS,
	};
	struct rpc_conn *c = rpc_conn_new(&o);
	c->next = s->conns;
	if (c->next)
		c->next->prev = c;
	s->conns = c;
	s->n_conns++;
	s->n_anon += !peer->verified;
	rpc_conn_open(c, peer);
	if (s->closing || s->n_anon > ANON_CONNS_MAX)
		rpc_conn_close(c, NULL);
	return c;
}

void rpc_server_serve(struct rpc_server *s, struct tls_conn *tls, const struct tls_peer *peer)
{
	tls_conn_set_ops(tls, &rpc_tls_ops, rpc_server_attach(s, &rpc_io_tls, tls, peer));
}

void rpc_server_drop(struct rpc_server *s, const char *node_id)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_UNAVAILABLE, "the connection was ended");
	for (struct rpc_conn *c = s->conns; c; c = c->next)
		if (!node_id || str_eq(c->peer.node_id, node_id))
			rpc_conn_close(c, &e);
}

void rpc_server_close(struct rpc_server *s, void (*closed)(void *data), void *data)
{
	ASSERT(!s->closing);
	s->closing = true;
	s->closed = closed;
	s->closed_data = data;
	struct err e = ERR_INIT;
	err_set(&e, ERR_UNAVAILABLE, "this node is stopping");
	for (struct rpc_conn *c = s->conns; c; c = c->next)
		rpc_conn_close(c, &e);
	if (!s->conns)
		loop_defer(s->loop, finish_close, s);
}
