/* gRPC's frames, both sides, without sockets: what a peer sends must never upset us, and every call ends
 * exactly once.
 *
 * The first byte chooses:
 *   0  raw HTTP/2 after the preface, into a server
 *   1  raw HTTP/2 into a client with a call open
 *   2  a valid request's body: gRPC messages into the server (a session's schema)
 *   3  a valid answer's body and trailers into the client
 *   4  timeouts and status messages
 * The second byte is the size of the pieces that it comes in. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/control.pb-c.h"
#include "proto/rpc_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* A transport that drops what it gets and closes when told. */
struct memory {
	struct rpc_conn *conn;
	bool close;
};

static size_t mem_write(void *io, const void *p, size_t n)
{
	(void)io;
	(void)p;
	(void)n;
	return 0;
}
static size_t mem_waiting(void *io)
{
	(void)io;
	return 0;
}
static void mem_close(void *io)
{
	((struct memory *)io)->close = true;
}
static void mem_abort(void *io, const struct err *why)
{
	(void)why;
	((struct memory *)io)->close = true;
}
static const struct rpc_io MEMORY = {mem_write, mem_waiting, mem_close, mem_abort};

/* --- users of calls */

static int open_calls;

struct call {
	struct rpc_stream *s;
	unsigned messages;
};

static void on_message(void *data, const ProtobufCMessage *m)
{
	struct call *c = data;
	(void)m;
	/* A bit of everything that a user may do while being told. */
	if (++c->messages == 3)
		rpc_stream_pause(c->s, true);
	if (c->messages == 2)
		rpc_stream_pause(c->s, false);
	if (c->messages == 40) {
		rpc_stream_cancel(c->s);
		free(c);
		open_calls--;
	}
}
static void on_half_closed(void *data)
{
	struct call *c = data;
	Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
	rpc_stream_send(c->s, &m);
	rpc_stream_finish(c->s, NULL);
	free(c);
	open_calls--;
}
static void on_closed(void *data, const struct err *why)
{
	(void)why;
	free(data);
	open_calls--;
}
static const struct rpc_stream_ops SERVER_OPS = {
    .message = on_message, .half_closed = on_half_closed, .closed = on_closed};
static const struct rpc_stream_ops CLIENT_OPS = {.message = on_message, .closed = on_closed};

static void begin(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	(void)data;
	(void)peer;
	struct call *c = NEW(struct call);
	c->s = s;
	open_calls++;
	rpc_stream_set_ops(s, &SERVER_OPS, c);
}

static const struct rpc_method METHODS[] = {
    {"/shoal.Dispatcher/Session", &pb__agent_message__descriptor, &pb__manager_message__descriptor, true,
	false, begin, NULL, false},
    {"/shoal.CA/IssueCertificate", &pb__issue_certificate_request__descriptor,
	&pb__issue_certificate_response__descriptor, false, false, begin, NULL, true},
};

/* --- frames that are valid, to carry what is not */

static void frame(struct buf *out, uint8_t type, uint8_t flags, uint32_t stream, const void *p, size_t n)
{
	uint8_t h[9] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags,
	    (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
	buf_append(out, h, sizeof(h));
	buf_append(out, p, n);
}

/* Literal header fields without indexing, names and values under 127 bytes. */
static void header(struct buf *out, const char *name, const char *value)
{
	buf_putc(out, 0);
	buf_putc(out, (char)strlen(name));
	buf_puts(out, name);
	buf_putc(out, (char)strlen(value));
	buf_puts(out, value);
}

static void request(struct buf *out)
{
	struct buf h = BUF_INIT;
	header(&h, ":method", "POST");
	header(&h, ":scheme", "https");
	header(&h, ":path", "/shoal.Dispatcher/Session");
	header(&h, ":authority", "m");
	header(&h, "te", "trailers");
	header(&h, "content-type", "application/grpc");
	frame(out, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, h.data, h.len);
	buf_done(&h);
}

static void answer(struct buf *out)
{
	struct buf h = BUF_INIT;
	header(&h, ":status", "200");
	header(&h, "content-type", "application/grpc");
	frame(out, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, h.data, h.len);
	buf_done(&h);
}

static void trailers(struct buf *out, const char *message)
{
	struct buf h = BUF_INIT;
	header(&h, "grpc-status", "10");
	header(&h, "grpc-message", message);
	header(&h, "shoal-code", "stale");
	frame(out, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, h.data, h.len);
	buf_done(&h);
}

static void body(struct buf *out, const uint8_t *p, size_t n, bool end)
{
	while (n > 16384) {
		frame(out, NGHTTP2_DATA, 0, 1, p, 16384);
		p += 16384;
		n -= 16384;
	}
	frame(out, NGHTTP2_DATA, end ? NGHTTP2_FLAG_END_STREAM : 0, 1, p, n);
}

/* --- one run */

static void feed(uv_loop_t *loop, struct memory *m, const struct buf *in, size_t piece)
{
	for (size_t i = 0; i < in->len && !m->close; i += piece) {
		size_t n = in->len - i < piece ? in->len - i : piece;
		rpc_conn_input(m->conn, (const uint8_t *)in->data + i, n);
		if (i % (16 * piece) == 0)
			uv_run(loop, UV_RUN_NOWAIT);
	}
	for (int i = 0; i < 3; i++)
		uv_run(loop, UV_RUN_NOWAIT);
	struct err e = ERR_INIT;
	rpc_conn_lost(m->conn, &e);
}

static struct tls_peer peer_of(const char *role)
{
	struct tls_peer peer = {.verified = true, .addr = "192.0.2.1:1"};
	strcpy(peer.node_id, "node");
	strcpy(peer.role, role);
	return peer;
}

static void into_server(uv_loop_t *loop, const struct buf *in, size_t piece, bool verified)
{
	struct rpc_server *s = rpc_server_new(loop);
	struct memory m = {.close = false};
	struct tls_peer peer = peer_of("swarm-worker");
	peer.verified = verified;
	rpc_server_add(s, METHODS, ARRAY_LEN(METHODS));
	m.conn = rpc_server_attach(s, &MEMORY, &m, &peer);
	feed(loop, &m, in, piece);
	rpc_server_close(s, NULL, NULL);
}

static void into_client(uv_loop_t *loop, const struct buf *in, size_t piece)
{
	struct tls_ctx_opts o = {.ca_pem = NULL};
	static struct tls_ctx *ctx;
	if (!ctx && tls_ctx_new(&o, &ctx, NULL) != 0)
		abort();
	struct rpc_client *c = rpc_client_new(loop, ctx, "192.0.2.1", 1);
	struct memory m = {.close = false};
	struct tls_peer peer = peer_of("swarm-manager");
	m.conn = rpc_client_attach(c, &MEMORY, &m);
	for (int i = 0; i < 2; i++) {
		struct call *call = NEW(struct call);
		open_calls++;
		int r =
		    rpc_call(c, METHODS[0].path, METHODS[0].response, 0, &CLIENT_OPS, call, &call->s, NULL);
		ASSERT(r == 0);
	}
	rpc_conn_open(m.conn, &peer);
	uv_run(loop, UV_RUN_NOWAIT);
	feed(loop, &m, in, piece);
	rpc_client_close(c, NULL, NULL);
}

static void words(const uint8_t *p, size_t n)
{
	char out[64];
	unsigned ms;
	struct buf b = BUF_INIT;
	if (rpc_timeout_parse((const char *)p, n, &ms) == 0) {
		unsigned back;
		rpc_timeout_format(ms, out);
		int r = rpc_timeout_parse(out, strlen(out), &back);
		ASSERT(r == 0 && back <= ms);
	}
	rpc_message_decode((const char *)p, n, out, sizeof(out));
	rpc_message_encode(out, &b);
	char again[64];
	rpc_message_decode(b.data ? b.data : "", b.len, again, sizeof(again));
	ASSERT(strcmp(out, again) == 0);
	buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static uv_loop_t loop;
	static bool ready;
	if (!ready) {
		uv_loop_init(&loop);
		ready = true;
	}
	if (n < 2)
		return 0;
	uint8_t mode = p[0];
	size_t piece = p[1] ? (size_t)p[1] * p[1] : 1;
	p += 2;
	n -= 2;
	struct buf in = BUF_INIT;
	switch (mode % 5) {
	case 0:
	case 2:
		buf_puts(&in, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
		frame(&in, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
		if (mode % 5 == 2) {
			request(&in);
			body(&in, p, n, (mode & 0x80) != 0);
		} else {
			buf_append(&in, p, n);
		}
		into_server(&loop, &in, piece, (mode & 0x40) == 0);
		break;
	case 1:
	case 3:
		frame(&in, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
		if (mode % 5 == 3) {
			answer(&in);
			body(&in, p, n, false);
			trailers(&in, "it is %66ine");
		} else {
			buf_append(&in, p, n);
		}
		into_client(&loop, &in, piece);
		break;
	default:
		words(p, n);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	ASSERT(open_calls == 0);
	buf_done(&in);
	return 0;
}
