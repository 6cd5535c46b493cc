/* gRPC over HTTP/2 (nghttp2) over TLS: unary calls, server streams and bidirectional streams, deadlines, flow
 * control, bounded messages. ALPN "h2". Messages are protobuf-c.
 *
 * Everything is a stream: a unary call is one message each way. Callbacks come from the loop, never from
 * inside a call of this header. A message beyond LIMIT_RPC_MESSAGE (64 KiB from peers without a certificate)
 * ends its call with ERR_TOO_LARGE; such peers have at most 8 calls of 30 s at a time. A peer that is silent
 * for the keepalive's timeout, pings included, is given up and its calls end with ERR_UNAVAILABLE. */
#ifndef PROTO_RPC_H
#define PROTO_RPC_H

#include <stdbool.h>
#include <protobuf-c/protobuf-c.h>
#include <uv.h>

#include "base/err.h"
#include "proto/tls.h"

/* --- server */
struct rpc_server;
struct rpc_stream; /* one call, on either side */

struct rpc_method {
	const char *path; /* "/shoal.Dispatcher/Session" */
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *response;
	bool need_node;    /* refuse (UNAUTHENTICATED) peers without a verified certificate */
	bool need_manager; /* refuse (PERMISSION_DENIED) peers that are not managers */
	/* The call has begun; sets the stream's ops with rpc_stream_set_ops. */
	void (*begin)(void *data, struct rpc_stream *s, const struct tls_peer *peer);
	void *data;
	/* Optional: exactly one request. The call is refused with ERR_INVALID before `message` when a second
	 * one comes, and instead of `half_closed` when none came. */
	bool unary;
};
struct rpc_stream_ops {
	void (*message)(void *data, const ProtobufCMessage *m); /* borrowed during the call */
	void (*half_closed)(void *data);                        /* the peer will send no more (may be NULL) */
	void (*closed)(
	    void *data, const struct err *why); /* exactly once, last; code 0: the peer's OK / normal end */
	void (*drained)(void *data);            /* what was queued is out (may be NULL) */
};
struct rpc_server *rpc_server_new(uv_loop_t *loop);
/* The table is borrowed and must outlive the server. Deny by default: unknown paths are UNIMPLEMENTED. */
void rpc_server_add(struct rpc_server *s, const struct rpc_method *methods, size_t n);
/* Takes over an accepted TLS connection whose ALPN is h2. */
void rpc_server_serve(struct rpc_server *s, struct tls_conn *c, const struct tls_peer *peer);
/* Ends the connections of a node (NULL: all). */
void rpc_server_drop(struct rpc_server *s, const char *node_id);
/* Pings a peer that was silent for interval_ms and gives it up after timeout_ms; defaults 3000, 6000. For
 * connections that come later. */
void rpc_server_set_keepalive(struct rpc_server *s, unsigned interval_ms, unsigned timeout_ms);
/* Ends all calls, on both sides with ERR_UNAVAILABLE, and the connections; then closed(data). */
void rpc_server_close(struct rpc_server *s, void (*closed)(void *data), void *data);

/* --- both sides */
void rpc_stream_set_ops(struct rpc_stream *s, const struct rpc_stream_ops *ops, void *data);
/* Packs and queues; returns bytes that wait, so that producers can pause. Nothing happens after the end. */
size_t rpc_stream_send(struct rpc_stream *s, const void *msg);
/* While paused no message is delivered, and once the stream's window is used up (512 KiB) the peer stops
 * sending. */
void rpc_stream_pause(struct rpc_stream *s, bool paused);
/* Server: ends the call with a status (e NULL or code 0: OK). Client: half-closes. The handle is dead for the
 * caller after rpc_stream_finish on the server; closed is not called then. */
void rpc_stream_finish(struct rpc_stream *s, const struct err *e);
/* Resets the stream; closed is not called, the handle is dead. */
void rpc_stream_cancel(struct rpc_stream *s);

/* --- client: one connection to one peer, made on demand, kept while there are calls */
struct rpc_client;
struct rpc_client *rpc_client_new(uv_loop_t *loop, struct tls_ctx *ctx, const char *host, uint16_t port);
/* For the connections after this one (a renewed certificate). */
void rpc_client_set_ctx(struct rpc_client *c, struct tls_ctx *ctx);
/* As rpc_server_set_keepalive, while there are calls; defaults 2000, 5000. */
void rpc_client_set_keepalive(struct rpc_client *c, unsigned interval_ms, unsigned timeout_ms);
/* state(data, connected, why): optional, tells of connection changes. */
void rpc_client_on_state(
    struct rpc_client *c, void (*state)(void *data, bool up, const struct err *why), void *data);
/* Starts a stream; connects first when needed. deadline_ms 0: none. response describes what comes back. A
 * verified server that is not a manager by its certificate is refused (ERR_UNAUTHORIZED). */
int rpc_call(struct rpc_client *c, const char *path, const ProtobufCMessageDescriptor *response,
    unsigned deadline_ms, const struct rpc_stream_ops *ops, void *data, struct rpc_stream **ret,
    struct err *e);
/* Unary: one request, cb exactly once: with the response and e->code 0, or with NULL and the error.
 * `response` is borrowed during the call. */
typedef void (*rpc_unary_cb)(void *data, const ProtobufCMessage *response, const struct err *e);
int rpc_unary(struct rpc_client *c, const char *path, const void *request,
    const ProtobufCMessageDescriptor *response, unsigned deadline_ms, rpc_unary_cb cb, void *data,
    struct err *e);
/* Calls under way end with ERR_CANCELLED, then closed(data). */
void rpc_client_close(struct rpc_client *c, void (*closed)(void *data), void *data);

#endif
