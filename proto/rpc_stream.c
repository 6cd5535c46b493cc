/* One call, on either side.
 *
 * It lives between two parties: its user, who is told things until `user_dead`, and nghttp2, which knows it
 * until `h2_closed`. When both are done with it, and nobody up the stack is using it, it is freed. So ending
 * it for the user (finish, cancel, deadline, refusal) and ending it on the wire are separate steps in either
 * order.
 *
 * Client: request headers, messages, END_STREAM; the answer's trailers bring the status, and `closed`.
 * Server: headers are checked, a method is chosen, messages flow, rpc_stream_finish sends the status in
 * trailers (or, when nothing was sent before, in the only headers). */
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/rpc_private.h"

#define PARTIAL_MAX      (4u * LIMIT_RPC_MESSAGE) /* incomplete messages of a connection */
#define PARTIAL_ANON_MAX (2u * RPC_ANON_MESSAGE)
#define ANON_CALL_MS     30000

/* --- life */

struct rpc_stream *rpc_stream_new(struct rpc_conn *c, int32_t id)
{
	struct rpc_stream *s = NEW(struct rpc_stream);
	s->conn = c;
	s->id = id;
	s->user_dead = c->server; /* until a method has it */
	s->max_message = !c->server || c->peer.verified ? LIMIT_RPC_MESSAGE : RPC_ANON_MESSAGE;
	s->head = NEW(struct rpc_head);
	s->head->grpc_status = -1;
	s->next = c->streams;
	if (s->next)
		s->next->prev = s;
	c->streams = s;
	if (c->n_streams++ == 0 && !c->server)
		c->last_recv = uv_now(c->loop); /* nobody pinged while there were none */
	return s;
}

static void free_head(struct rpc_stream *s)
{
	if (s->head) {
		free(s->head->path);
		free(s->head->word);
		free(TAKE_PTR(s->head));
	}
}

static void maybe_free(struct rpc_stream *s)
{
	struct rpc_conn *c = s->conn;
	if (!s->user_dead || !s->h2_closed || s->in_cb || s->on_events)
		return;
	if (s->prev)
		s->prev->next = s->next;
	else
		c->streams = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (--c->n_streams == 0)
		c->idle_since = uv_now(c->loop);
	c->partial -= s->counted;
	free_head(s);
	timer_free(s->deadline);
	queue_done(&s->rx);
	queue_done(&s->tx);
	protobuf_c_message_free_unpacked(s->kept, NULL);
	free(s->finish);
	free(s->failed);
	free(s);
}

/* The user's last news. */
static void tell_closed(struct rpc_stream *s, const struct err *why)
{
	if (s->user_dead)
		return;
	s->user_dead = true;
	timer_free(TAKE_PTR(s->deadline));
	s->in_cb++;
	if (s->ops.closed)
		s->ops.closed(s->data, why);
	s->in_cb--;
}

static void reset(struct rpc_stream *s, uint32_t code)
{
	if (s->h2_closed || !s->conn->h2)
		return;
	nghttp2_submit_rst_stream(s->conn->h2, NGHTTP2_FLAG_NONE, s->id, code);
	rpc_conn_want_flush(s->conn);
}

/* --- sending */

static nghttp2_nv nv(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
	    strlen(value), NGHTTP2_NV_FLAG_NONE};
}

struct trailers {
	nghttp2_nv v[5];
	size_t n;
	char status[8];
	struct buf message;
};

static void add_status(struct trailers *t, const struct err *e)
{
	int code = e ? e->code : 0;
	snprintf(t->status, sizeof(t->status), "%d", rpc_status_of(code));
	t->v[t->n++] = nv("grpc-status", t->status);
	if (code == 0)
		return;
	rpc_message_encode(e->text, &t->message);
	t->v[t->n++] = nv("grpc-message", t->message.data ? t->message.data : "");
	t->v[t->n++] = nv("shoal-code", rpc_word_of(code));
}

/* nghttp2 asks for bytes of a DATA frame. */
static ssize_t read_tx(nghttp2_session *h2, int32_t id, uint8_t *out, size_t cap, uint32_t *flags,
    nghttp2_data_source *source, void *user)
{
	(void)user;
	struct rpc_stream *s = source->ptr;
	size_t n = queue_len(&s->tx);
	if (n == 0 && !s->tx_end) {
		s->tx_deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	if (n > cap)
		n = cap;
	if (n > 0) {
		memcpy(out, queue_data(&s->tx), n);
		queue_consume(&s->tx, n);
	}
	if (queue_len(&s->tx) > 0)
		return (ssize_t)n;
	if (s->want_drained && !s->user_dead) {
		s->want_drained = false;
		s->ev_drained = true;
		rpc_conn_event(s->conn, s);
	}
	if (s->tx_end) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		s->tx_sent_end = true;
		if (s->conn->server) {
			struct trailers t = {.n = 0};
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			add_status(&t, s->finish);
			nghttp2_submit_trailer(h2, id, t.v, t.n);
			buf_done(&t.message);
		}
	}
	return (ssize_t)n;
}

static void resume(struct rpc_stream *s)
{
	if (s->tx_deferred && !s->h2_closed && s->conn->h2) {
		s->tx_deferred = false;
		nghttp2_session_resume_data(s->conn->h2, s->id);
	}
	rpc_conn_want_flush(s->conn);
}

/* With a body to come, or with the status and nothing else. */
static void respond(struct rpc_stream *s, bool only_status)
{
	struct trailers t = {.n = 2};
	t.v[0] = nv(":status", "200");
	t.v[1] = nv("content-type", "application/grpc");
	nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_tx};
	if (only_status) {
		add_status(&t, s->finish);
		s->tx_sent_end = true;
	}
	nghttp2_submit_response(s->conn->h2, s->id, t.v, t.n, only_status ? NULL : &body);
	buf_done(&t.message);
	s->responded = true;
}

static int submit(struct rpc_stream *s, const char *path, unsigned deadline_ms, struct err *e)
{
	char timeout[16];
	nghttp2_nv v[8] = {nv(":method", "POST"), nv(":scheme", "https"), nv(":path", path),
	    nv(":authority", "swarm-manager"), nv("te", "trailers"), nv("content-type", "application/grpc"),
	    nv("user-agent", "shoal/" SHOAL_VERSION)};
	size_t n = 7;
	if (deadline_ms) {
		rpc_timeout_format(deadline_ms, timeout);
		v[n++] = nv("grpc-timeout", timeout);
	}
	nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_tx};
	int32_t id = nghttp2_submit_request(s->conn->h2, NULL, v, n, &body, s);
	if (id < 0) {
		s->user_dead = s->h2_closed = true;
		maybe_free(s);
		return err_set(e, ERR_UNAVAILABLE, "starting a call: %s", nghttp2_strerror(id));
	}
	s->id = id;
	rpc_conn_want_flush(s->conn);
	return 0;
}

size_t rpc_stream_send(struct rpc_stream *s, const void *msg)
{
	if (s->user_dead || s->tx_end || s->h2_closed || s->failed)
		return queue_len(&s->tx);
	size_t n = rpc_frame_pack(msg, &s->tx.b);
	if (n > LIMIT_RPC_MESSAGE) {
		s->failed = NEW(struct err);
		err_set(s->failed, ERR_TOO_LARGE, "a %s of %zu bytes is over the limit of %u",
		    ((const ProtobufCMessage *)msg)->descriptor->short_name, n, LIMIT_RPC_MESSAGE);
		rpc_conn_event(s->conn, s);
		return queue_len(&s->tx);
	}
	s->want_drained = true;
	if (s->conn->server && !s->responded)
		respond(s, false);
	resume(s);
	return queue_len(&s->tx);
}

/* The server's last word; the stream goes when it is out. */
static void finish(struct rpc_stream *s, const struct err *e)
{
	if (s->tx_end || s->h2_closed || !s->conn->h2)
		return;
	s->tx_end = true;
	if (e && e->code)
		s->finish = xmemdup(e, sizeof(*e));
	if (s->responded)
		resume(s);
	else
		respond(s, true);
	rpc_conn_want_flush(s->conn);
}

void rpc_stream_finish(struct rpc_stream *s, const struct err *e)
{
	if (s->user_dead)
		return;
	if (!s->conn->server) {
		s->tx_end = true;
		resume(s);
		return;
	}
	s->user_dead = true;
	timer_free(TAKE_PTR(s->deadline));
	finish(s, e);
	maybe_free(s);
}

void rpc_stream_cancel(struct rpc_stream *s)
{
	if (s->user_dead)
		return;
	s->user_dead = true;
	timer_free(TAKE_PTR(s->deadline));
	reset(s, NGHTTP2_CANCEL);
	maybe_free(s);
}

void rpc_stream_fail(struct rpc_stream *s, const struct err *why)
{
	s->in_cb++;
	tell_closed(s, why);
	if (s->conn->server)
		finish(s, why);
	else if (!s->rx_end || !s->tx_sent_end)
		reset(s, NGHTTP2_CANCEL);
	s->in_cb--;
	maybe_free(s);
}

void rpc_stream_pin(struct rpc_stream *s)
{
	s->in_cb++;
}

void rpc_stream_unpin(struct rpc_stream *s)
{
	s->in_cb--;
	maybe_free(s);
}

void rpc_stream_lost(struct rpc_stream *s, const struct err *why)
{
	s->h2_closed = true;
	s->in_cb++;
	tell_closed(s, why);
	s->in_cb--;
	ASSERT(s->in_cb == 0 && !s->on_events);
	maybe_free(s);
}

/* --- receiving: headers */

static bool is(const char *want, const char *p, size_t n)
{
	return strlen(want) == n && memcmp(want, p, n) == 0;
}

static int small_number(const char *v, size_t n)
{
	int x = 0;
	if (n == 0 || n > 3)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (v[i] < '0' || v[i] > '9')
			return -1;
		x = x * 10 + (v[i] - '0');
	}
	return x;
}

/* application/grpc, and with +proto or parameters */
static bool is_grpc(const char *v, size_t n)
{
	static const char type[] = "application/grpc";
	size_t len = sizeof(type) - 1;
	return n >= len && memcmp(v, type, len) == 0 &&
	       (n == len || v[len] == ';' || is("+proto", v + len, n - len));
}

void rpc_stream_header(struct rpc_stream *s, const char *name, size_t name_len, const char *v, size_t n)
{
	struct rpc_head *h = s->head;
	if (!h)
		return; /* trailers of a request */
	h->bytes += name_len + n;
	if (is("content-type", name, name_len)) {
		h->grpc = is_grpc(v, n);
	} else if (s->conn->server) {
		if (is(":method", name, name_len))
			h->post = is("POST", v, n);
		else if (is(":path", name, name_len) && !h->path)
			h->path = xstrndup(v, n);
		else if (is("te", name, name_len))
			h->te = is("trailers", v, n);
		else if (is("grpc-timeout", name, name_len))
			h->bad_timeout = rpc_timeout_parse(v, n, &h->timeout_ms) != 0;
	} else if (is(":status", name, name_len)) {
		h->http_status = small_number(v, n);
	} else if (is("grpc-status", name, name_len)) {
		h->grpc_status = small_number(v, n);
	} else if (is("grpc-message", name, name_len)) {
		rpc_message_decode(v, n, h->message, sizeof(h->message));
	} else if (is("shoal-code", name, name_len) && !h->word && n < 32) {
		h->word = xstrndup(v, n);
	}
}

void rpc_stream_refuse(struct rpc_stream *s, int code, const char *text)
{
	struct err e = ERR_INIT;
	err_set(&e, code, "%s", text);
	finish(s, &e);
}

static void request_ready(struct rpc_stream *s)
{
	struct rpc_head *h = s->head;
	if (s->dispatched || s->tx_end)
		return; /* trailers of a request say nothing */
	if (!h->post || !h->path)
		rpc_stream_refuse(s, ERR_INVALID, "not a gRPC request: the method must be POST");
	else if (!h->grpc)
		rpc_stream_refuse(
		    s, ERR_INVALID, "not a gRPC request: the content type must be application/grpc");
	else if (!h->te)
		rpc_stream_refuse(s, ERR_INVALID, "not a gRPC request: \"te: trailers\" is missing");
	else if (h->bad_timeout)
		rpc_stream_refuse(s, ERR_INVALID, "grpc-timeout is not readable");
	else
		s->conn->owner->request(s->conn->owner_data, s, h->path);
}

static void on_deadline(void *data)
{
	struct rpc_stream *s = data;
	struct err e = ERR_INIT;
	err_set(&e, ERR_TIMEOUT, "the call's deadline passed");
	rpc_stream_fail(s, &e);
}

static void set_deadline(struct rpc_stream *s, unsigned ms)
{
	s->deadline = timer_new(s->conn->loop, on_deadline, s);
	timer_start(s->deadline, ms);
}

void rpc_stream_dispatch(struct rpc_stream *s, const struct rpc_method *m)
{
	s->dispatched = true;
	s->user_dead = false;
	s->in = m->request;
	s->unary = m->unary;
	unsigned ms = s->head->timeout_ms;
	if (!s->conn->peer.verified && (ms == 0 || ms > ANON_CALL_MS))
		ms = ANON_CALL_MS; /* whoever it is, it shall not sit here for ever */
	if (ms)
		set_deadline(s, ms);
	free_head(s); /* 600 bytes that a session of weeks does not need; trailers of requests are not read */
	s->in_cb++;
	m->begin(m->data, s, &s->conn->peer);
	s->in_cb--;
	maybe_free(s);
}

void rpc_stream_headers_end(struct rpc_stream *s)
{
	if (s->conn->server) {
		request_ready(s);
		return;
	}
	const struct rpc_head *h = s->head;
	if (s->user_dead || h->http_status < 200 || (h->http_status == 200 && h->grpc))
		return;
	struct err e = ERR_INIT;
	err_set(&e, ERR_CORRUPT, "%s does not answer as gRPC (HTTP status %d)", s->conn->peer.addr,
	    h->http_status);
	rpc_stream_fail(s, &e);
}

/* --- receiving: messages */

static void give_window(struct rpc_stream *s)
{
	if (s->unconsumed == 0 || s->h2_closed || !s->conn->h2)
		return;
	nghttp2_session_consume_stream(s->conn->h2, s->id, s->unconsumed);
	s->unconsumed = 0;
	rpc_conn_want_flush(s->conn);
}

static bool fail_with(struct rpc_stream *s, int code, const char *text)
{
	struct err e = ERR_INIT;
	err_set(&e, code, "%s", text);
	rpc_stream_fail(s, &e);
	return false;
}

/* Delivers one message; false when there is no whole one, or the stream ended. */
static bool next_message(struct rpc_stream *s)
{
	size_t have = queue_len(&s->rx);
	if (have < 5)
		return false;
	const uint8_t *p = (const uint8_t *)queue_data(&s->rx);
	size_t n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	if (p[0] != 0)
		return fail_with(s, ERR_NOT_IMPLEMENTED, "compressed messages are not supported");
	if (n > s->max_message) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_TOO_LARGE, "a %s of %zu bytes is over the limit of %zu", s->in->short_name, n,
		    s->max_message);
		rpc_stream_fail(s, &e);
		return false;
	}
	if (have < n + 5)
		return false;
	if (s->unary && s->got_message)
		return fail_with(s, ERR_INVALID, "this call takes one message");
	ProtobufCMessage *m = NULL;
	struct err e = ERR_INIT;
	if (rpc_frame_unpack(s->in, p + 5, n, &m, &e)) {
		rpc_stream_fail(s, &e);
		return false;
	}
	queue_consume(&s->rx, n + 5);
	s->got_message = true;
	if (s->keep) {
		s->kept = m;
		return true;
	}
	if (s->ops.message)
		s->ops.message(s->data, m);
	protobuf_c_message_free_unpacked(m, NULL);
	return true;
}

/* The status that the trailers told. */
static void client_end(struct rpc_stream *s)
{
	const struct rpc_head *h = s->head;
	struct err e = ERR_INIT;
	if (h->grpc_status < 0)
		err_set(&e, ERR_CORRUPT, "%s ended the call without a status", s->conn->peer.addr);
	else if (h->grpc_status > 0)
		err_set(&e, rpc_code_of(h->grpc_status, h->word), "%s",
		    h->message[0] ? h->message : "the call failed");
	rpc_stream_fail(s, &e);
}

static void received_all(struct rpc_stream *s)
{
	s->end_told = true;
	if (queue_len(&s->rx) > 0 && (s->conn->server || s->head->grpc_status <= 0))
		fail_with(s, ERR_CORRUPT, "the last message was cut");
	else if (!s->conn->server)
		client_end(s);
	else if (s->unary && !s->got_message)
		fail_with(s, ERR_INVALID, "the request is missing");
	else if (s->ops.half_closed)
		s->ops.half_closed(s->data);
}

static bool count_partial(struct rpc_stream *s)
{
	struct rpc_conn *c = s->conn;
	size_t now = s->paused || s->user_dead ? 0 : queue_len(&s->rx);
	c->partial += now;
	c->partial -= s->counted;
	s->counted = now;
	return c->partial <= (c->server && !c->peer.verified ? PARTIAL_ANON_MAX : PARTIAL_MAX);
}

static void deliver(struct rpc_stream *s)
{
	if (s->in_cb)
		return; /* whoever is up the stack goes on */
	s->in_cb++;
	while (!s->user_dead && !s->paused && next_message(s))
		;
	if (!s->user_dead && !s->paused && s->rx_end && !s->end_told)
		received_all(s);
	if (!count_partial(s))
		fail_with(s, ERR_TOO_LARGE, "too many incomplete messages on one connection");
	if (s->user_dead)
		queue_done(&s->rx);
	if (s->user_dead || !s->paused)
		give_window(s);
	s->in_cb--;
	maybe_free(s);
}

void rpc_stream_input(struct rpc_stream *s, const uint8_t *p, size_t n)
{
	s->unconsumed += n;
	if (!s->user_dead)
		queue_append(&s->rx, p, n);
	deliver(s);
}

void rpc_stream_remote_end(struct rpc_stream *s)
{
	s->rx_end = true;
	deliver(s);
}

void rpc_stream_pause(struct rpc_stream *s, bool paused)
{
	if (s->user_dead || s->paused == paused)
		return;
	s->paused = paused;
	if (!paused)
		rpc_conn_event(s->conn, s);
}

void rpc_stream_set_ops(struct rpc_stream *s, const struct rpc_stream_ops *ops, void *data)
{
	s->ops = *ops;
	s->data = data;
}

/* --- what comes from the loop */

void rpc_stream_events(struct rpc_stream *s)
{
	if (s->failed && !s->user_dead) {
		rpc_stream_fail(s, s->failed);
		return;
	}
	if (s->ev_drained) {
		s->ev_drained = false;
		s->in_cb++;
		if (!s->user_dead && s->ops.drained)
			s->ops.drained(s->data);
		s->in_cb--;
	}
	deliver(s);
}

static int code_of_reset(uint32_t error_code)
{
	switch (error_code) {
	case NGHTTP2_CANCEL:
		return ERR_CANCELLED;
	case NGHTTP2_NO_ERROR:
	case NGHTTP2_REFUSED_STREAM:
	case NGHTTP2_ENHANCE_YOUR_CALM:
		return ERR_UNAVAILABLE;
	default:
		return ERR_INTERNAL;
	}
}

void rpc_stream_h2_closed(struct rpc_stream *s, uint32_t error_code)
{
	s->h2_closed = true;
	/* An answer that is whole waits until the user wants it. */
	bool waits = !s->conn->server && s->rx_end && s->paused;
	if (!s->user_dead && !waits) {
		struct err e = ERR_INIT;
		err_set(&e, code_of_reset(error_code), "%s ended the call (%s)", s->conn->peer.addr,
		    nghttp2_http2_strerror(error_code));
		s->in_cb++;
		tell_closed(s, &e);
		s->in_cb--;
	}
	maybe_free(s);
}

struct rpc_stream *rpc_stream_start(struct rpc_conn *c, const char *path,
    const ProtobufCMessageDescriptor *in, unsigned deadline_ms, const struct rpc_stream_ops *ops, void *data,
    struct err *e)
{
	struct rpc_stream *s = rpc_stream_new(c, -1);
	s->in = in;
	s->ops = *ops;
	s->data = data;
	if (submit(s, path, deadline_ms, e))
		return NULL;
	if (deadline_ms)
		set_deadline(s, deadline_ms);
	return s;
}
