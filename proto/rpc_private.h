/* What the rpc_*.c files share: a connection (nghttp2 session and its streams) that knows neither sockets nor
 * which side it is used by; rpc_server.c and rpc_client.c own connections, rpc_io.c ties them to TLS. */
#ifndef PROTO_RPC_PRIVATE_H
#define PROTO_RPC_PRIVATE_H

#include <nghttp2/nghttp2.h>

#include "base/timer.h"
#include "proto/queue.h"
#include "proto/rpc.h"

#define RPC_STREAM_WINDOW   (512 * 1024)
#define RPC_CONN_WINDOW     (4 * 1024 * 1024)
#define RPC_WRITE_AHEAD     (256u * 1024) /* bytes in the transport beyond which frames wait */
#define RPC_HEADERS_MAX     16384
#define RPC_ANON_MESSAGE    65536 /* from peers without a certificate */
#define RPC_ANON_STREAMS    8
#define RPC_NODE_STREAMS    256
#define RPC_MANAGER_STREAMS 4096

/* --- rpc_frame.c: the words of gRPC */

/* "100m" and the like -> milliseconds, rounded up, capped at UINT32_MAX; ERR_INVALID otherwise. */
int rpc_timeout_parse(const char *s, size_t n, unsigned *ret_ms);
void rpc_timeout_format(unsigned ms, char out[16]);
/* ERR_* <-> the status number and our own word for the code. */
int rpc_status_of(int err_code);
const char *rpc_word_of(int err_code);
int rpc_code_of(int grpc_status, const char *word); /* word may be NULL */
/* grpc-message: bytes outside printable ASCII, and '%', as %XX. Decoding keeps what is not such an escape. */
void rpc_message_encode(const char *text, struct buf *out);
void rpc_message_decode(const char *p, size_t n, char *out, size_t cap);
/* Packs with the five bytes of frame header; returns the message's size. */
size_t rpc_frame_pack(const ProtobufCMessage *m, struct buf *out);
/* Unpacks with an allocation budget that follows from n: tiny encodings of large structs are refused. */
int rpc_frame_unpack(
    const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n, ProtobufCMessage **ret, struct err *e);

/* --- rpc_conn.c, rpc_stream.c */

struct rpc_conn;

/* Where bytes go. */
struct rpc_io {
	size_t (*write)(void *io, const void *p, size_t n); /* copies; returns how many wait */
	size_t (*waiting)(void *io);
	void (*close)(void *io); /* after what waits was sent; then rpc_conn_lost */
	void (*abort)(void *io, const struct err *why);
};
/* Who uses a connection. */
struct rpc_owner {
	/* Server: a request's headers are there and fine. Calls rpc_stream_dispatch or rpc_stream_refuse. */
	void (*request)(void *owner, struct rpc_stream *s, const char *path);
	/* No new call may use the connection: the peer said goodbye, or it is closing. Once. */
	void (*draining)(void *owner, struct rpc_conn *c);
	/* Over: its streams have been told; the connection must not be used any more. Once, last. */
	void (*ended)(void *owner, struct rpc_conn *c, const struct err *why);
};

struct rpc_head { /* what headers and trailers said */
	char *path;
	char *word; /* our code */
	int http_status;
	int grpc_status; /* -1: none */
	char message[512];
	size_t bytes;
	unsigned timeout_ms;
	bool post, grpc, te, bad_timeout;
};

struct rpc_stream {
	struct rpc_conn *conn;
	int32_t id;
	struct rpc_stream *prev, *next; /* of the connection */
	struct rpc_stream *ev_next;     /* on the connection's list of streams with something to tell */
	const ProtobufCMessageDescriptor *in;
	struct rpc_stream_ops ops;
	void *data;
	struct queue rx, tx;
	size_t unconsumed; /* received while paused: its window is held back */
	size_t max_message;
	struct rpc_head *head;
	struct timer *deadline;
	struct err *finish; /* server: the status to send; NULL: OK */
	struct err *failed; /* to be told from the loop */
	uint8_t in_cb;
	bool user_dead;  /* nobody is told anything any more */
	bool dispatched; /* server: a method has it */
	bool h2_closed;  /* nghttp2 has forgotten it */
	bool paused;
	bool responded; /* server: response headers are submitted */
	bool tx_end;    /* nothing will be added to tx */
	bool tx_sent_end;
	bool tx_deferred; /* nghttp2 waits for more */
	bool rx_end;      /* the peer sends no more */
	bool end_told;    /* half_closed was called */
	bool want_drained;
	bool unary, got_message;
	bool keep; /* the message is kept instead of told */
	ProtobufCMessage *kept;
	size_t counted; /* of rx in conn->partial */
	bool on_events, ev_drained;
};

struct rpc_conn {
	uv_loop_t *loop;
	bool server;
	nghttp2_session *h2;
	const struct rpc_io *io;
	void *io_data; /* NULL: lost */
	const struct rpc_owner *owner;
	void *owner_data;
	struct tls_peer peer;
	uv_idle_t flush;
	struct timer *timer;
	unsigned interval_ms, timeout_ms, idle_ms;
	uint64_t last_recv, idle_since; /* uv_now */
	struct rpc_stream *streams;
	struct rpc_stream *events;
	size_t n_streams;
	size_t partial;  /* bytes of incomplete messages */
	unsigned resets; /* leaky bucket against rapid resets */
	uint64_t resets_at;
	bool open; /* bytes may go out */
	bool suspect, busy, closing, closed_io, draining_told, ended;
	struct err *why;              /* why it is closing */
	struct rpc_conn *prev, *next; /* for the owner */
};

struct rpc_conn_opts {
	uv_loop_t *loop;
	bool server;
	const struct rpc_owner *owner;
	void *owner_data;
	const struct rpc_io *io;
	void *io_data;
	unsigned interval_ms, timeout_ms;
	unsigned idle_ms; /* closed when without streams for so long; 0: never */
};
struct rpc_conn *rpc_conn_new(const struct rpc_conn_opts *o);
/* The peer is known and accepted: start talking. */
void rpc_conn_open(struct rpc_conn *c, const struct tls_peer *peer);
void rpc_conn_input(struct rpc_conn *c, const uint8_t *p, size_t n);
void rpc_conn_drained(struct rpc_conn *c);
/* The transport is gone. Ends the streams, tells the owner, frees the connection. */
void rpc_conn_lost(struct rpc_conn *c, const struct err *why);
/* Ends the streams with `why`, says goodbye, closes the transport; all of it later. */
void rpc_conn_close(struct rpc_conn *c, const struct err *why);
void rpc_conn_want_flush(struct rpc_conn *c);
/* Puts the stream on the list of those with something to tell; want_flush included. */
void rpc_conn_event(struct rpc_conn *c, struct rpc_stream *s);

struct rpc_stream *rpc_stream_new(struct rpc_conn *c, int32_t id);
/* Server: hands the stream to a method, or ends it with a status. */
void rpc_stream_dispatch(struct rpc_stream *s, const struct rpc_method *m);
void rpc_stream_refuse(struct rpc_stream *s, int code, const char *text);
/* Client: a call, its request headers queued; NULL and e when HTTP/2 has no more stream ids. */
struct rpc_stream *rpc_stream_start(struct rpc_conn *c, const char *path,
    const ProtobufCMessageDescriptor *in, unsigned deadline_ms, const struct rpc_stream_ops *ops, void *data,
    struct err *e);
/* Keeps the memory while a list is walked. */
void rpc_stream_pin(struct rpc_stream *s);
void rpc_stream_unpin(struct rpc_stream *s);
void rpc_stream_header(struct rpc_stream *s, const char *name, size_t name_len, const char *v, size_t n);
void rpc_stream_headers_end(struct rpc_stream *s);
void rpc_stream_input(struct rpc_stream *s, const uint8_t *p, size_t n);
void rpc_stream_remote_end(struct rpc_stream *s);
void rpc_stream_h2_closed(struct rpc_stream *s, uint32_t error_code);
void rpc_stream_events(struct rpc_stream *s);
/* Ends it for its user and resets it or sends the status. */
void rpc_stream_fail(struct rpc_stream *s, const struct err *why);
/* The connection is gone: ends it for its user and frees it. */
void rpc_stream_lost(struct rpc_stream *s, const struct err *why);
void rpc_message_free(ProtobufCMessage *m);

/* --- rpc_server.c, rpc_client.c: over any transport */
struct rpc_conn *rpc_server_attach(
    struct rpc_server *s, const struct rpc_io *io, void *io_data, const struct tls_peer *peer);
/* Not open yet: rpc_conn_open when the peer is known. */
struct rpc_conn *rpc_client_attach(struct rpc_client *c, const struct rpc_io *io, void *io_data);

/* --- rpc_io.c */
extern const struct rpc_io rpc_io_tls;        /* io: struct tls_conn */
extern const struct tls_conn_ops rpc_tls_ops; /* data: struct rpc_conn; `ready` is the owner's to set */

#endif
