/* One HTTP/2 connection: an nghttp2 session between a transport and streams.
 *
 * Input is handed to nghttp2, whose callbacks find the stream; output is taken from it at the end of the
 * loop's turn, as long as the transport has less than RPC_WRITE_AHEAD bytes waiting, so that what a slow peer
 * does not take stays in its streams, whose producers see it. Nothing calls into nghttp2's send or receive
 * from inside a user's callback, apart from submitting.
 *
 * The end comes from the transport (rpc_conn_lost), from our side (rpc_conn_close: streams are ended with
 * their status, GOAWAY, then the transport is closed), or from a peer that breaks the protocol or falls
 * silent. In each case the owner first hears `draining`, then every stream is told, then `ended`; the memory
 * goes with the idle handle. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/rpc_private.h"

#define SUSPECT_MS   250  /* a last chance after our own loop was held up */
#define RESETS_BURST 1000 /* streams that a peer may reset at once, */
#define RESETS_PER_S 50   /* and steadily */

static void flush(struct rpc_conn *c);

/* --- nghttp2's callbacks */

static struct rpc_stream *find(struct rpc_conn *c, int32_t id)
{
	return nghttp2_session_get_stream_user_data(c->h2, id);
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *f, void *user)
{
	struct rpc_conn *c = user;
	if (!c->server || f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	struct rpc_stream *s = rpc_stream_new(c, f->hd.stream_id);
	nghttp2_session_set_stream_user_data(h2, f->hd.stream_id, s);
	return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *name, size_t name_len,
    const uint8_t *v, size_t n, uint8_t flags, void *user)
{
	(void)h2;
	(void)flags;
	struct rpc_stream *s = find(user, f->hd.stream_id);
	if (!s || !s->head || f->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (s->head->bytes + name_len + n > RPC_HEADERS_MAX)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	rpc_stream_header(s, (const char *)name, name_len, (const char *)v, n);
	return 0;
}

static void tell_draining(struct rpc_conn *c)
{
	if (c->draining_told)
		return;
	c->draining_told = true;
	c->owner->draining(c->owner_data, c);
}

static void count_reset(struct rpc_conn *c)
{
	uint64_t now = uv_now(c->loop);
	uint64_t leaked = (now - c->resets_at) * RESETS_PER_S / 1000;
	if (leaked > 0) {
		c->resets = leaked >= c->resets ? 0 : c->resets - (unsigned)leaked;
		c->resets_at = now;
	}
	if (++c->resets <= RESETS_BURST)
		return;
	struct err e = ERR_INIT;
	err_set(&e, ERR_TOO_LARGE, "%s resets too many calls", c->peer.addr);
	rpc_conn_close(c, &e);
}

static int on_frame_recv(nghttp2_session *h2, const nghttp2_frame *f, void *user)
{
	(void)h2;
	struct rpc_conn *c = user;
	if (f->hd.type == NGHTTP2_GOAWAY) {
		tell_draining(c);
		return 0;
	}
	if (f->hd.type == NGHTTP2_RST_STREAM && c->server)
		count_reset(c);
	if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA)
		return 0;
	struct rpc_stream *s = find(c, f->hd.stream_id);
	if (s && f->hd.type == NGHTTP2_HEADERS)
		rpc_stream_headers_end(s);
	/* The same again: the stream may have ended meanwhile. */
	s = find(c, f->hd.stream_id);
	if (s && (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
		rpc_stream_remote_end(s);
	return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
	(void)flags;
	struct rpc_conn *c = user;
	/* One stream that is paused must not hold up the others. */
	nghttp2_session_consume_connection(h2, n);
	struct rpc_stream *s = find(c, id);
	if (s)
		rpc_stream_input(s, p, n);
	else
		nghttp2_session_consume_stream(h2, id, n);
	return 0;
}

/* We have said all about a call whose caller has not: tell it to stop, or the stream would stay half open. */
static int on_frame_send(nghttp2_session *h2, const nghttp2_frame *f, void *user)
{
	struct rpc_conn *c = user;
	if (!c->server || f->hd.type != NGHTTP2_HEADERS || !(f->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	const struct rpc_stream *s = find(c, f->hd.stream_id);
	if (s && !s->rx_end)
		nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
	return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *user)
{
	struct rpc_stream *s = find(user, id);
	if (!s)
		return 0;
	nghttp2_session_set_stream_user_data(h2, id, NULL);
	rpc_stream_h2_closed(s, error_code);
	return 0;
}

/* --- the connection */

static void on_idle(uv_idle_t *h)
{
	struct rpc_conn *c = CONTAINER_OF(h, struct rpc_conn, flush);
	uv_idle_stop(h);
	flush(c);
}

void rpc_conn_want_flush(struct rpc_conn *c)
{
	if (!c->ended && !uv_is_active((uv_handle_t *)&c->flush))
		uv_idle_start(&c->flush, on_idle);
}

void rpc_conn_event(struct rpc_conn *c, struct rpc_stream *s)
{
	if (!s->on_events) {
		s->on_events = true;
		s->ev_next = c->events;
		c->events = s;
	}
	rpc_conn_want_flush(c);
}

static void give_up(struct rpc_conn *c)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_UNAVAILABLE, "%s did not answer for %u ms", c->peer.addr, c->timeout_ms);
	if (!c->why)
		c->why = xmemdup(&e, sizeof(e));
	c->closed_io = true;
	c->io->abort(c->io_data, &e);
}

static void on_timer(void *data)
{
	struct rpc_conn *c = data;
	uint64_t now = uv_now(c->loop), silent = now - c->last_recv;
	if (c->closed_io)
		return;
	if (c->idle_ms && c->n_streams == 0 && now - c->idle_since >= c->idle_ms) {
		rpc_conn_close(c, NULL);
		return;
	}
	unsigned next = c->interval_ms / 2 + 1;
	if (!c->server && c->n_streams == 0) {
		c->suspect = false;
	} else if (silent >= c->timeout_ms) {
		if (c->suspect) {
			give_up(c);
			return;
		}
		/* This timer runs before sockets are read: if it was us who slept, the answer is there. */
		c->suspect = true;
		next = SUSPECT_MS;
	} else if (silent >= c->interval_ms) {
		nghttp2_submit_ping(c->h2, NGHTTP2_FLAG_NONE, NULL);
		rpc_conn_want_flush(c);
		if (c->timeout_ms - silent < next)
			next = (unsigned)(c->timeout_ms - silent) + 1;
	}
	timer_start(c->timer, next);
}

struct rpc_conn *rpc_conn_new(const struct rpc_conn_opts *o)
{
	struct rpc_conn *c = NEW(struct rpc_conn);
	c->loop = o->loop;
	c->server = o->server;
	c->owner = o->owner;
	c->owner_data = o->owner_data;
	c->io = o->io;
	c->io_data = o->io_data;
	c->interval_ms = o->interval_ms;
	c->timeout_ms = o->timeout_ms;
	c->idle_ms = o->idle_ms;
	c->last_recv = c->idle_since = c->resets_at = uv_now(c->loop);
	c->timer = timer_new(c->loop, on_timer, c);
	int r = uv_idle_init(c->loop, &c->flush);
	ASSERT(r == 0);

	nghttp2_session_callbacks *cb;
	nghttp2_option *opt;
	r = nghttp2_session_callbacks_new(&cb);
	ASSERT(r == 0);
	r = nghttp2_option_new(&opt);
	ASSERT(r == 0);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_option_set_no_auto_window_update(opt, 1);
	nghttp2_option_set_no_closed_streams(opt, 1);
	nghttp2_option_set_max_deflate_dynamic_table_size(opt, 1024);
	r = c->server ? nghttp2_session_server_new2(&c->h2, cb, c, opt)
		      : nghttp2_session_client_new2(&c->h2, cb, c, opt);
	ASSERT(r == 0);
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(opt);
	return c;
}

void rpc_conn_open(struct rpc_conn *c, const struct tls_peer *peer)
{
	c->peer = *peer;
	unsigned streams = tls_peer_is_manager(peer) ? RPC_MANAGER_STREAMS
			   : peer->verified          ? RPC_NODE_STREAMS
						     : RPC_ANON_STREAMS;
	nghttp2_settings_entry iv[] = {
	    {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, RPC_STREAM_WINDOW},
	    {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, RPC_HEADERS_MAX},
	    {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 1024},
	    {c->server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
		c->server ? streams : 0},
	};
	int r = nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, iv, ARRAY_LEN(iv));
	ASSERT(r == 0);
	r = nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, RPC_CONN_WINDOW);
	ASSERT(r == 0);
	c->open = true;
	c->last_recv = c->idle_since = uv_now(c->loop);
	timer_start(c->timer, c->interval_ms / 2 + 1);
	rpc_conn_want_flush(c);
}

/* --- bytes */

static void protocol_error(struct rpc_conn *c, int h2_error)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_CORRUPT, "HTTP/2 with %s: %s", c->peer.addr, nghttp2_strerror(h2_error));
	rpc_conn_close(c, &e);
}

void rpc_conn_input(struct rpc_conn *c, const uint8_t *p, size_t n)
{
	if (c->closed_io || c->closing)
		return;
	c->last_recv = uv_now(c->loop);
	c->suspect = false;
	ssize_t r = nghttp2_session_mem_recv(c->h2, p, n);
	if (r < 0)
		protocol_error(c, (int)r);
	flush(c);
}

void rpc_conn_drained(struct rpc_conn *c)
{
	if (!c->closed_io)
		flush(c);
}

static int send_frames(struct rpc_conn *c)
{
	while (c->io->waiting(c->io_data) < RPC_WRITE_AHEAD) {
		const uint8_t *p;
		ssize_t n = nghttp2_session_mem_send(c->h2, &p);
		if (n <= 0)
			return (int)n;
		c->io->write(c->io_data, p, (size_t)n);
	}
	return 0;
}

static void run_events(struct rpc_conn *c)
{
	/* Those that are added meanwhile wait for the next turn. */
	struct rpc_stream *s = c->events, *next;
	c->events = NULL;
	for (; s; s = next) {
		next = s->ev_next;
		s->on_events = false;
		rpc_stream_events(s);
	}
}

static void finish_closing(struct rpc_conn *c)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_CANCELLED, "the connection is closing");
	tell_draining(c);
	/* What users do when they are told may end other streams: hold on to the next one. */
	struct rpc_stream *s = c->streams, *next;
	if (s)
		rpc_stream_pin(s);
	for (; s; s = next) {
		rpc_stream_fail(s, c->why ? c->why : &e);
		next = s->next;
		if (next)
			rpc_stream_pin(next);
		rpc_stream_unpin(s);
	}
	if (c->open) {
		/* First the streams' statuses: behind a GOAWAY that terminates they would not be sent. */
		send_frames(c);
		nghttp2_session_terminate_session(
		    c->h2, c->why && c->why->code == ERR_CORRUPT ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR);
		send_frames(c);
	}
	c->closed_io = true;
	c->io->close(c->io_data);
}

static void flush(struct rpc_conn *c)
{
	if (c->closed_io)
		return;
	if (c->closing) {
		finish_closing(c);
		return;
	}
	if (c->open) {
		int r = send_frames(c);
		if (r < 0)
			protocol_error(c, r);
	}
	run_events(c);
	if (c->open && !c->closing && !nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2))
		rpc_conn_close(c, NULL);
}

/* --- the end */

void rpc_conn_close(struct rpc_conn *c, const struct err *why)
{
	if (c->closing || c->closed_io)
		return;
	c->closing = true;
	if (why && !c->why)
		c->why = xmemdup(why, sizeof(*why));
	rpc_conn_want_flush(c);
}

static void on_idle_closed(uv_handle_t *h)
{
	struct rpc_conn *c = CONTAINER_OF(h, struct rpc_conn, flush);
	free(c);
}

/* What a call hears when its connection is gone: that it may be tried elsewhere, unless it is about who we
 * are. */
static void connection_error(const struct rpc_conn *c, const struct err *why, struct err *ret)
{
	if (c->why)
		why = c->why;
	*ret = *why;
	if (ret->code == 0)
		err_set(ret, ERR_UNAVAILABLE, "%s closed the connection",
		    c->peer.addr[0] ? c->peer.addr : "the peer");
	else if (ret->code == ERR_IO || ret->code == ERR_TIMEOUT || ret->code == ERR_NOT_FOUND)
		ret->code = ERR_UNAVAILABLE;
}

void rpc_conn_lost(struct rpc_conn *c, const struct err *why)
{
	struct err e = ERR_INIT;
	connection_error(c, why, &e);
	c->closed_io = true;
	c->io_data = NULL;
	tell_draining(c);
	for (struct rpc_stream *s = c->events; s; s = s->ev_next)
		s->on_events = false;
	c->events = NULL;
	while (c->streams)
		rpc_stream_lost(c->streams, &e);
	nghttp2_session_del(c->h2);
	c->h2 = NULL;
	c->ended = true;
	timer_free(TAKE_PTR(c->timer));
	c->owner->ended(c->owner_data, c, &e);
	free(c->why);
	uv_close((uv_handle_t *)&c->flush, on_idle_closed);
}
