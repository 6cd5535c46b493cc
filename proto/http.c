/* The HTTP/1.1 server: connections and the reading of requests.
 *
 * The happy path: bytes are read into one buffer of the server and fed to llhttp, whose callbacks only note
 * what they saw; when it has returned, the request is handed to the handler; when the handler has answered,
 * the connection is idle again. Bytes beyond a request wait in `pending` until its response is finished.
 *
 * How it fails: a malformed, oversized or refused request is answered, and the connection is drained for a
 * while (closing with unread data would make the client lose the answer) and closed. Clients that are slow to
 * send run into `deadline`, which one timer checks for all connections. A client that goes away ends the
 * request through its closed callback. Everything that would call the handler from inside one of its own
 * calls is put off to the next turn (conn_kick). */
#include "proto/http.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/http_conn.h"

#define DRAIN_MS    2000
#define FLUSH_MS    120000 /* for a whole response to be taken by the client */
#define KEEP_BUFFER 16384  /* memory that an idle connection keeps */

static const struct sm_state states[CONN_STATES] = {
    [CONN_IDLE] = {"idle", SM_BIT(CONN_HEAD) | SM_BIT(CONN_CLOSED)},
    [CONN_HEAD] = {"head", SM_BIT(CONN_BODY) | SM_BIT(CONN_READY) | SM_BIT(CONN_DRAIN) | SM_BIT(CONN_CLOSED)},
    [CONN_BODY] = {"body", SM_BIT(CONN_READY) | SM_BIT(CONN_DRAIN) | SM_BIT(CONN_CLOSED)},
    [CONN_READY] = {"ready",
	SM_BIT(CONN_IDLE) | SM_BIT(CONN_DRAIN) | SM_BIT(CONN_HIJACK) | SM_BIT(CONN_CLOSED)},
    [CONN_DRAIN] = {"drain", SM_BIT(CONN_CLOSED)},
    [CONN_HIJACK] = {"hijack", SM_BIT(CONN_CLOSED)},
    [CONN_CLOSED] = {"closed", 0},
};

static void conn_feed(struct http_req *c, const char *p, size_t n);

static uint64_t or_default(unsigned ms, unsigned dflt)
{
	return ms ? ms : dflt;
}

static uint64_t deadline_in(const struct http_req *c, uint64_t ms)
{
	return uv_now(c->server->loop) + ms;
}

/* --- llhttp's callbacks: they note, nothing more */

static struct http_req *of(llhttp_t *p)
{
	return CONTAINER_OF(p, struct http_req, parser);
}

static int refuse(struct http_req *c, int status, int code, const char *text)
{
	c->refuse_status = status;
	c->refuse_code = err_set(&c->refuse, code, "%s", text);
	return HPE_USER;
}

static int take_text(struct http_req *c, const char *at, size_t n)
{
	if (c->text.len + n + 1 > LIMIT_HTTP_HEADER)
		return refuse(c, 431, ERR_TOO_LARGE, "request line and headers are over the limit of 64 KiB");
	buf_append(&c->text, at, n);
	return 0;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
	return take_text(of(p), at, n);
}

static int on_url_complete(llhttp_t *p)
{
	buf_putc(&of(p)->text, '\0');
	return 0;
}

static int on_header_field(llhttp_t *p, const char *at, size_t n)
{
	struct http_req *c = of(p);

	/* Trailers of a chunked body: of no use here. */
	if (c->headers_done)
		return 0;
	if (c->value_open || c->n_headers == 0) {
		if (c->n_headers == HTTP_HEADERS_MAX)
			return refuse(c, 431, ERR_TOO_LARGE, "more than 100 request headers");
		c->headers[c->n_headers++].name = (uint32_t)c->text.len;
		c->value_open = false;
	}
	return take_text(c, at, n);
}

static int on_header_field_complete(llhttp_t *p)
{
	struct http_req *c = of(p);

	if (c->headers_done)
		return 0;
	buf_putc(&c->text, '\0');
	/* llhttp lets blanks in names pass. */
	if (strpbrk(c->text.data + c->headers[c->n_headers - 1].name, " \t"))
		return refuse(c, 400, ERR_INVALID, "malformed HTTP request: blank in a header name");
	c->headers[c->n_headers - 1].value = (uint32_t)c->text.len;
	return 0;
}

static int on_header_value(llhttp_t *p, const char *at, size_t n)
{
	return of(p)->headers_done ? 0 : take_text(of(p), at, n);
}

static int on_header_value_complete(llhttp_t *p)
{
	struct http_req *c = of(p);

	if (!c->headers_done) {
		buf_putc(&c->text, '\0');
		c->value_open = true;
	}
	return 0;
}

static int on_headers_complete(llhttp_t *p)
{
	struct http_req *c = of(p);
	const struct http_server_opts *o = &c->server->opts;
	const char *h;

	c->headers_done = true;
	c->keep_alive = llhttp_should_keep_alive(p);
	c->is_head = p->method == HTTP_HEAD;
	c->http10 = p->http_major == 1 && p->http_minor == 0;
	h = http_header(c, "upgrade");
	c->upgrade = p->upgrade && h && !str_has_iprefix(h, "h2c");
	/* The bytes after this request are ours to read, whatever the client would like to speak. */
	p->upgrade = 0;
	if (p->method == HTTP_CONNECT)
		return refuse(c, 400, ERR_INVALID, "method CONNECT is not served");
	if (http_url_split(c, &c->refuse) < 0) {
		c->refuse_code = ERR_INVALID;
		return HPE_USER;
	}
	c->body_limit = LIMIT_HTTP_JSON_BODY;
	if (o->body_limit) {
		c->body_limit = o->body_limit(o->data, c, &c->refuse);
		if (c->body_limit < 0) {
			c->refuse_code = (int)c->body_limit;
			return HPE_USER;
		}
	}
	bool has_body = (p->flags & F_CHUNKED) || p->content_length > 0;
	if (!c->streaming && !(p->flags & F_CHUNKED) && p->content_length > (uint64_t)c->body_limit) {
		c->refuse_code =
		    err_set(&c->refuse, ERR_TOO_LARGE, "request body of %llu bytes is over the limit of %lld",
			(unsigned long long)p->content_length, (long long)c->body_limit);
		return HPE_USER;
	}
	h = http_header(c, "expect");
	c->expect_continue = h && str_ieq(h, "100-continue") && has_body;
	/* A streamed body's handler runs before its bytes come. */
	return c->streaming ? HPE_PAUSED : 0;
}

static void give_body(struct http_req *c, const uint8_t *p, size_t n)
{
	if (c->body_paused || !c->on_body || c->body_held.len > 0)
		buf_append(&c->body_held, p, n);
	else
		c->on_body(c->on_body_data, p, n, false);
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
	struct http_req *c = of(p);

	if (c->streaming) {
		if (c->resp != RESP_DONE)
			give_body(c, (const uint8_t *)at, n);
		return 0;
	}
	if (c->body.len + n > (uint64_t)c->body_limit) {
		c->refuse_code = err_set(&c->refuse, ERR_TOO_LARGE,
		    "request body is over the limit of %lld bytes", (long long)c->body_limit);
		return HPE_USER;
	}
	if (c->body.len == 0 && c->parser.content_length > 0 && !(c->parser.flags & F_CHUNKED))
		buf_reserve(&c->body, n + (size_t)c->parser.content_length);
	buf_append(&c->body, at, n);
	return 0;
}

static int on_message_complete(llhttp_t *p)
{
	of(p)->message_done = true;
	return HPE_PAUSED;
}

static const llhttp_settings_t *parser_settings(void)
{
	static const llhttp_settings_t settings = {
	    .on_url = on_url,
	    .on_url_complete = on_url_complete,
	    .on_header_field = on_header_field,
	    .on_header_field_complete = on_header_field_complete,
	    .on_header_value = on_header_value,
	    .on_header_value_complete = on_header_value_complete,
	    .on_headers_complete = on_headers_complete,
	    .on_body = on_body,
	    .on_message_complete = on_message_complete,
	};
	return &settings;
}

/* --- requests */

static void buf_recycle(struct buf *b)
{
	if (b->cap > KEEP_BUFFER)
		buf_done(b);
	else
		buf_reset(b);
}

static void request_reset(struct http_req *c)
{
	buf_recycle(&c->text);
	buf_recycle(&c->body);
	buf_recycle(&c->extra);
	buf_done(&c->body_held);
	c->n_headers = c->n_query = 0;
	c->value_open = c->headers_done = c->message_done = c->handled = c->query_parsed = false;
	c->streaming = c->body_paused = c->body_aborted = c->body_ended = c->chunked = c->expect_continue =
	    false;
	c->refuse_code = c->refuse_status = 0;
	c->feed_again = false;
	c->on_body = NULL;
	c->on_closed = NULL;
	c->on_drained = NULL;
	c->user = NULL;
	c->path = "";
	c->raw_query = NULL;
	c->resp = RESP_NONE;
	c->keep_alive = false;
	c->is_head = c->http10 = c->upgrade = false;
	memset(c->scratch, 0, sizeof(c->scratch));
	llhttp_init(&c->parser, HTTP_REQUEST, parser_settings());
}

static void to_idle(struct http_req *c)
{
	request_reset(c);
	sm_move(&c->sm, CONN_IDLE);
	c->deadline = deadline_in(c, or_default(c->server->opts.idle_timeout_ms, 120000));
	conn_read_update(c);
}

/* What the client still sends is dropped until it has read our answer. */
static void to_drain(struct http_req *c)
{
	sm_move(&c->sm, CONN_DRAIN);
	c->deadline = deadline_in(c, DRAIN_MS);
	buf_done(&c->body_held);
	buf_done(&c->pending);
	c->body_paused = false;
	c->close_when_flushed = true;
	conn_read_update(c);
}

/* Answers what never reaches the handler. */
static void request_refuse(struct http_req *c)
{
	bool was_feeding = c->in_feed;

	if (!c->path)
		c->path = "";
	c->keep_alive = false;
	c->message_done = false;
	if (c->resp == RESP_NONE) {
		c->in_feed = true; /* conn_advance is not to look at it: we drain */
		if (c->refuse_status)
			http_reply_json(c, c->refuse_status, json_pack("{s:s}", "message", c->refuse.text));
		else
			http_reply_err(c, &c->refuse);
		c->in_feed = was_feeding;
	} else {
		c->close_when_flushed = true;
	}
	if (c->sm.state != CONN_CLOSED)
		to_drain(c);
	conn_kick(c);
}

static void end_body(struct http_req *c, bool aborted)
{
	if (!c->streaming || c->body_ended || !c->on_body)
		return;
	c->body_ended = true;
	c->on_body(c->on_body_data, NULL, 0, aborted);
}

/* Gives a streamed body's held bytes, and its end when everything came. */
static void resume_body(struct http_req *c)
{
	if (!c->streaming || c->body_paused || !c->on_body || c->resp == RESP_DONE)
		return;
	if (c->body_held.len > 0) {
		struct buf held = c->body_held;
		c->body_held = (struct buf)BUF_INIT;
		c->on_body(c->on_body_data, (uint8_t *)held.data, held.len, false);
		buf_done(&held);
	}
	if (c->message_done && c->body_held.len == 0 && !c->body_paused && c->resp != RESP_DONE)
		end_body(c, false);
}

void http_stream_body(
    struct http_req *r, void (*on_data)(void *data, const uint8_t *p, size_t n, bool aborted), void *data)
{
	r->streaming = true;
	r->on_body = on_data;
	r->on_body_data = data;
	if (on_data && r->handled)
		conn_kick(r);
	conn_read_update(r);
}

void http_body_pause(struct http_req *r)
{
	r->body_paused = true;
	conn_read_update(r);
}

void http_body_resume(struct http_req *r)
{
	r->body_paused = false;
	conn_read_update(r);
	conn_kick(r);
}

static void request_handle(struct http_req *c)
{
	c->handled = true;
	c->server->opts.handle(c->server->opts.data, c);
}

/* After llhttp saw something: runs the handler when it is time. */
static void request_progress(struct http_req *c)
{
	if (c->headers_done && c->sm.state == CONN_HEAD) {
		sm_move(&c->sm, CONN_BODY);
		c->deadline = deadline_in(c, or_default(c->server->opts.body_timeout_ms, 60000));
		if (c->expect_continue && !c->message_done) {
			uv_buf_t v = uv_buf_init((char *)"HTTP/1.1 100 Continue\r\n\r\n", 25);
			conn_send(c, &v, 1);
		}
	}
	if (c->message_done && c->sm.state == CONN_BODY) {
		sm_move(&c->sm, CONN_READY);
		c->deadline = 0;
	}
	if (!c->handled && c->headers_done && (c->streaming || c->message_done))
		request_handle(c);
	if (c->message_done && c->streaming)
		resume_body(c);
}

static void request_malformed(struct http_req *c, llhttp_errno_t code)
{
	if (c->refuse_code == 0) {
		const char *why = llhttp_get_error_reason(&c->parser);
		c->refuse_code = err_set(&c->refuse, ERR_INVALID, "malformed HTTP request: %s",
		    code == HPE_PAUSED_H2_UPGRADE ? "HTTP/2 is not served here" : str_or(why, "bad syntax"));
	}
	if (c->handled) {
		/* A streamed body broke off: its handler is told, and may have an answer. */
		c->keep_alive = false;
		end_body(c, true);
		if (c->resp == RESP_DONE && c->sm.state == CONN_BODY)
			to_drain(c);
		else
			conn_close(c);
		conn_kick(c);
		return;
	}
	request_refuse(c);
}

static void conn_feed(struct http_req *c, const char *p, size_t n)
{
	bool again = c->feed_again;

	c->in_feed = true;
	c->feed_again = false;
	while ((n > 0 || again) && c->sm.state <= CONN_BODY && !c->broken) {
		if (c->sm.state == CONN_IDLE) {
			/* Who sends requests without reading the answers waits. */
			if (c->write_busy)
				break;
			sm_move(&c->sm, CONN_HEAD);
			c->deadline = deadline_in(c, or_default(c->server->opts.header_timeout_ms, 30000));
		}
		if (c->streaming && c->handled && (c->body_paused || !c->on_body)) {
			c->feed_again = again;
			break;
		}
		llhttp_errno_t code = llhttp_execute(&c->parser, p, n);
		size_t used = n;
		again = false;
		if (code == HPE_PAUSED) {
			used = (size_t)(llhttp_get_error_pos(&c->parser) - p);
			llhttp_resume(&c->parser);
			again = !c->message_done;
		} else if (code != HPE_OK) {
			request_malformed(c, code);
			n = 0;
			break;
		}
		p += used;
		n -= used;
		if (c->sm.state == CONN_BODY)
			c->deadline = deadline_in(c, or_default(c->server->opts.body_timeout_ms, 60000));
		request_progress(c);
		if (c->resp == RESP_DONE && c->sm.state <= CONN_READY)
			conn_advance(c);
	}
	c->in_feed = false;
	if (n > 0 && c->sm.state != CONN_DRAIN && c->sm.state != CONN_CLOSED) {
		buf_append(&c->pending, p, n);
		if (c->sm.state == CONN_HIJACK)
			conn_kick(c);
	}
	conn_read_update(c);
}

void conn_advance(struct http_req *c)
{
	if (c->resp != RESP_DONE)
		return;
	if (c->sm.state == CONN_BODY) {
		to_drain(c);
		conn_kick(c);
		return;
	}
	if (c->sm.state != CONN_READY)
		return;
	if (!c->keep_alive || c->half_closed) {
		c->close_when_flushed = true;
		c->deadline = deadline_in(c, FLUSH_MS);
		conn_kick(c);
		return;
	}
	to_idle(c);
	if (c->pending.len > 0)
		conn_kick(c);
}

/* --- connections */

static void alloc_cb(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct http_req *c = CONTAINER_OF(h, struct http_req, pipe);

	(void)suggested;
	*buf = uv_buf_init(c->server->rbuf, HTTP_READ_SIZE);
}

/* True when the client closed, rather than only shut down its sending side. */
static bool peer_gone(const struct http_req *c)
{
	uv_os_fd_t fd;

	if (uv_fileno((const uv_handle_t *)&c->pipe, &fd) < 0)
		return true;
	struct pollfd p = {fd, 0, 0};
	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void on_eof(struct http_req *c)
{
	c->half_closed = true;
	c->reading = false;
	if (c->sm.state == CONN_HIJACK) {
		c->hijack_eof = true;
		conn_kick(c);
		return;
	}
	/* A client may end its side after a whole request and wait for the answer. */
	if (!peer_gone(c)) {
		if (c->sm.state == CONN_READY)
			return;
		if (c->write_busy && (c->sm.state == CONN_IDLE || c->sm.state == CONN_DRAIN)) {
			c->close_when_flushed = true;
			return;
		}
	}
	conn_close(c);
}

static void read_cb(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct http_req *c = CONTAINER_OF(s, struct http_req, pipe);

	if (n == UV_EOF) {
		on_eof(c);
	} else if (n < 0) {
		conn_close(c);
	} else if (n > 0) {
		if (c->sm.state == CONN_DRAIN || c->close_when_flushed)
			return;
		if (c->sm.state == CONN_HIJACK) {
			if (c->pending.len == 0 && !c->hijack_paused)
				c->hijack_data(c->hijack_user, (const uint8_t *)buf->base, (size_t)n);
			else
				buf_append(&c->pending, buf->base, (size_t)n);
			conn_read_update(c);
		} else if (c->pending.len > 0 || c->sm.state == CONN_READY) {
			buf_append(&c->pending, buf->base, (size_t)n);
			conn_read_update(c);
		} else {
			conn_feed(c, buf->base, (size_t)n);
		}
	}
}

void conn_read_update(struct http_req *c)
{
	bool want = !c->half_closed && !c->broken && c->sm.state != CONN_CLOSED;

	if (c->sm.state == CONN_HIJACK)
		want = want && !c->hijack_paused && c->pending.len < HTTP_READ_SIZE;
	else if (c->streaming && c->handled && c->sm.state == CONN_BODY)
		want = want && !c->body_paused && c->on_body && c->pending.len == 0;
	else
		want =
		    want && c->pending.len < HTTP_READ_SIZE && !(c->write_busy && c->sm.state == CONN_IDLE);
	if (want == c->reading)
		return;
	c->reading = want;
	if (want) {
		if (uv_read_start((uv_stream_t *)&c->pipe, alloc_cb, read_cb) < 0) {
			c->broken = true;
			conn_kick(c);
		}
	} else {
		uv_read_stop((uv_stream_t *)&c->pipe);
	}
}

static void server_maybe_closed(struct http_server *s)
{
	if (s->closing && s->open_handles == 0 && s->n_conns == 0) {
		void (*fn)(void *) = s->closed;
		void *data = s->closed_data;
		buf_done(&s->head);
		buf_done(&s->body);
		free(s);
		if (fn)
			fn(data);
	}
}

static void conn_maybe_free(struct http_req *c)
{
	struct http_server *s = c->server;

	if (!c->handle_closed || c->kicked)
		return;
	if (c->prev)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	s->n_conns--;
	buf_done(&c->pending);
	buf_done(&c->text);
	buf_done(&c->body);
	buf_done(&c->body_held);
	buf_done(&c->extra);
	buf_done(&c->out);
	buf_done(&c->out_next);
	free(c->query);
	free(c);
	server_maybe_closed(s);
}

static void on_conn_closed(uv_handle_t *h)
{
	struct http_req *c = CONTAINER_OF(h, struct http_req, pipe);

	c->handle_closed = true;
	conn_maybe_free(c);
}

void conn_close(struct http_req *c)
{
	if (c->sm.state == CONN_CLOSED)
		return;
	bool hijacked = c->sm.state == CONN_HIJACK;
	bool unanswered = c->handled && c->resp != RESP_DONE;
	sm_move(&c->sm, CONN_CLOSED);
	c->deadline = 0;
	uv_close((uv_handle_t *)&c->pipe, on_conn_closed);
	if (hijacked && c->hijack_closed) {
		c->hijack_closed(c->hijack_user);
	} else if (unanswered) {
		end_body(c, true);
		/* The handler may have answered the end of its body. */
		if (c->resp != RESP_DONE && c->on_closed)
			c->on_closed(c->on_closed_data);
	}
}

/* --- the next turn */

static void kick_hijack(struct http_req *c)
{
	if (c->hijack_paused)
		return;
	if (c->pending.len > 0) {
		struct buf b = c->pending;
		c->pending = (struct buf)BUF_INIT;
		c->hijack_data(c->hijack_user, (const uint8_t *)b.data, b.len);
		buf_done(&b);
		if (c->sm.state != CONN_HIJACK)
			return;
		conn_read_update(c);
	}
	if (c->hijack_eof && !c->hijack_eof_told && !c->hijack_paused && !c->close_when_flushed) {
		c->hijack_eof_told = true;
		c->hijack_data(c->hijack_user, NULL, 0);
		if (c->sm.state == CONN_HIJACK && peer_gone(c))
			conn_close(c);
	}
}

static void conn_next_turn(struct http_req *c)
{
	if (c->sm.state == CONN_CLOSED)
		return;
	if (c->broken) {
		conn_close(c);
		return;
	}
	if (!c->write_busy && c->on_drained) {
		void (*fn)(void *) = c->on_drained;
		c->on_drained = NULL;
		fn(c->on_drained_data);
		if (c->sm.state == CONN_CLOSED)
			return;
	}
	if (c->close_when_flushed && !c->write_busy) {
		/* While draining, the client's end of file (or the deadline) closes. */
		if (c->sm.state != CONN_DRAIN || c->half_closed) {
			conn_close(c);
		} else {
			uv_os_fd_t fd;
			if (uv_fileno((uv_handle_t *)&c->pipe, &fd) == 0)
				shutdown(fd, SHUT_WR);
		}
		return;
	}
	if (c->sm.state == CONN_HIJACK) {
		kick_hijack(c);
		return;
	}
	if (c->streaming && c->handled)
		resume_body(c);
	if (c->sm.state <= CONN_BODY && (c->pending.len > 0 || c->feed_again)) {
		struct buf b = c->pending;
		c->pending = (struct buf)BUF_INIT;
		conn_feed(c, b.data ? b.data : "", b.len);
		buf_done(&b);
	}
	if (c->sm.state != CONN_CLOSED)
		conn_read_update(c);
}

static void kick_cb(uv_idle_t *idle)
{
	struct http_server *s = CONTAINER_OF(idle, struct http_server, kick);
	struct http_req *list = s->kicked;

	s->kicked = NULL;
	uv_idle_stop(idle);
	while (list) {
		struct http_req *c = list;
		list = c->next_kicked;
		c->kicked = false;
		conn_next_turn(c);
		/* It may have been kicked again: then a later turn frees it. */
		if (c->handle_closed && !c->kicked)
			conn_maybe_free(c);
	}
}

void conn_kick(struct http_req *c)
{
	struct http_server *s = c->server;

	if (c->kicked || c->handle_closed)
		return;
	c->kicked = true;
	c->next_kicked = s->kicked;
	s->kicked = c;
	uv_idle_start(&s->kick, kick_cb);
}

/* --- timeouts */

static void conn_timeout(struct http_req *c)
{
	if ((c->sm.state == CONN_HEAD || c->sm.state == CONN_BODY) && c->resp == RESP_NONE && !c->handled) {
		c->refuse_status = 408;
		c->refuse_code = err_set(&c->refuse, ERR_TIMEOUT, "the request did not arrive in time");
		request_refuse(c);
		return;
	}
	conn_close(c);
}

static void close_handles(struct http_server *s);

static void tick_cb(uv_timer_t *t)
{
	struct http_server *s = CONTAINER_OF(t, struct http_server, tick);
	uint64_t now = uv_now(s->loop);
	struct http_req *next;

	for (struct http_req *c = s->conns; c; c = next) {
		next = c->next; /* closing is asynchronous: the list does not change here */
		if (c->sm.state == CONN_CLOSED)
			continue;
		if (c->deadline && now >= c->deadline)
			conn_timeout(c);
		else if (c->half_closed && peer_gone(c))
			conn_close(c);
		else if (s->closing && now >= s->close_deadline)
			conn_close(c);
	}
	if (s->closing && s->n_conns == 0)
		close_handles(s);
}

/* --- listening */

static void refuse_cb(uv_handle_t *h)
{
	free(h);
}

static struct http_req *conn_new(struct http_server *s)
{
	struct http_req *c = NEW(struct http_req);

	c->server = s;
	uv_pipe_init(s->loop, &c->pipe, 0);
	c->next = s->conns;
	if (c->next)
		c->next->prev = c;
	s->conns = c;
	s->n_conns++;
	sm_init(&c->sm, states, CONN_STATES, CONN_IDLE);
	request_reset(c);
	/* From connect to the end of the first headers. */
	c->deadline = deadline_in(c, or_default(s->opts.header_timeout_ms, 30000));
	return c;
}

static void connection_cb(uv_stream_t *l, int status)
{
	struct listener *li = CONTAINER_OF(l, struct listener, pipe);
	struct http_server *s = li->server;

	if (status < 0) {
		log_warn("accepting an API connection: %s", uv_strerror(status));
		return;
	}
	if (s->n_conns >= LIMIT_HTTP_CONNECTIONS) {
		static const char text[] =
		    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
		    "Content-Length: 36\r\nConnection: close\r\n\r\n"
		    "{\"message\":\"too many connections\"}\r\n";
		uv_pipe_t *p = xcalloc(1, sizeof(*p));
		uv_pipe_init(s->loop, p, 0);
		if (uv_accept(l, (uv_stream_t *)p) == 0) {
			uv_buf_t v = uv_buf_init((char *)text, sizeof(text) - 1);
			uv_try_write((uv_stream_t *)p, &v, 1);
		}
		uv_close((uv_handle_t *)p, refuse_cb);
		return;
	}
	struct http_req *c = conn_new(s);
	if (uv_accept(l, (uv_stream_t *)&c->pipe) < 0 || s->closing)
		conn_close(c);
	else
		conn_read_update(c);
}

int http_server_adopt(struct http_server *s, int fd, struct err *e)
{
	struct http_req *c = conn_new(s);
	int r = uv_pipe_open(&c->pipe, fd);

	if (r < 0) {
		conn_close(c);
		return err_uv(e, r, "taking a connection over");
	}
	conn_read_update(c);
	return 0;
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_opts *o)
{
	struct http_server *s = NEW(struct http_server);
	uint64_t least = or_default(o->header_timeout_ms, 30000);

	/* A client that goes away while we write must not end the process. */
	signal(SIGPIPE, SIG_IGN);
	s->loop = loop;
	s->opts = *o;
	if (or_default(o->idle_timeout_ms, 120000) < least)
		least = o->idle_timeout_ms;
	if (or_default(o->body_timeout_ms, 60000) < least)
		least = o->body_timeout_ms;
	s->tick_ms = least / 4 < 10 ? 10 : least / 4 > 1000 ? 1000 : least / 4;
	uv_timer_init(loop, &s->tick);
	uv_timer_start(&s->tick, tick_cb, s->tick_ms, s->tick_ms);
	uv_unref((uv_handle_t *)&s->tick);
	uv_idle_init(loop, &s->kick);
	s->open_handles = 2;
	return s;
}

size_t http_server_connections(const struct http_server *s)
{
	return s->n_conns;
}

static void on_handle_closed(uv_handle_t *h)
{
	struct http_server *s = h->data;

	s->open_handles--;
	server_maybe_closed(s);
}

static void on_listener_closed(uv_handle_t *h)
{
	struct listener *li = CONTAINER_OF(h, struct listener, pipe);
	struct http_server *s = li->server;

	free(li->path);
	free(li);
	s->open_handles--;
	server_maybe_closed(s);
}

int http_server_listen_fd(struct http_server *s, int fd, struct err *e)
{
	struct listener *li = NEW(struct listener);

	li->server = s;
	uv_pipe_init(s->loop, &li->pipe, 0);
	int r = uv_pipe_open(&li->pipe, fd);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&li->pipe, 512, connection_cb);
	s->open_handles++;
	if (r < 0) {
		uv_close((uv_handle_t *)&li->pipe, on_listener_closed);
		return err_uv(e, r, "listening for API connections");
	}
	li->next = s->listeners;
	s->listeners = li;
	return 0;
}

/* Removes a socket that nobody listens on any more. */
static int clear_old_socket(const char *path, const struct sockaddr_un *a, struct err *e)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_CONFLICT, "%s exists and is no socket", path);
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "socket");
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno != ECONNREFUSED)
		return err_set(e, ERR_CONFLICT, "another daemon answers on %s", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(e, errno, "%s", path);
	return 0;
}

int http_server_listen_unix(struct http_server *s, const char *path, mode_t mode, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ERR_INVALID, "socket path %s is longer than %zu characters", path,
		    sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path));
	int r = clear_old_socket(path, &a, e);
	if (r < 0)
		return r;
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "socket");
	/* Nobody may connect between bind and chmod. */
	mode_t old = umask(0777);
	r = bind(fd, (struct sockaddr *)&a, sizeof(a));
	umask(old);
	if (r < 0)
		return err_errno(e, errno, "binding %s", path);
	if (chmod(path, mode) < 0)
		return err_errno(e, errno, "%s", path);
	r = http_server_listen_fd(s, fd, e);
	if (r < 0) {
		unlink(path);
		return err_wrap(e, "%s", path);
	}
	fd = -1;
	s->listeners->path = xstrdup(path);
	return 0;
}

static void close_handles(struct http_server *s)
{
	if (uv_is_closing((uv_handle_t *)&s->tick))
		return;
	s->tick.data = s->kick.data = s;
	uv_close((uv_handle_t *)&s->tick, on_handle_closed);
	uv_close((uv_handle_t *)&s->kick, on_handle_closed);
}

void http_server_close(struct http_server *s, unsigned grace_ms, void (*closed)(void *data), void *data)
{
	struct http_req *next;

	ASSERT(!s->closing);
	s->closing = true;
	s->closed = closed;
	s->closed_data = data;
	s->close_deadline = uv_now(s->loop) + grace_ms;
	while (s->listeners) {
		struct listener *li = s->listeners;
		s->listeners = li->next;
		if (li->path)
			unlink(li->path);
		uv_close((uv_handle_t *)&li->pipe, on_listener_closed);
	}
	for (struct http_req *c = s->conns; c; c = next) {
		next = c->next;
		bool busy = c->sm.state == CONN_READY || c->sm.state == CONN_BODY ||
			    c->sm.state == CONN_HIJACK || c->write_busy;
		if (grace_ms == 0 || !busy)
			conn_close(c);
		else
			c->keep_alive = false;
	}
	uv_ref((uv_handle_t *)&s->tick);
	uv_timer_start(&s->tick, tick_cb, 1, 20);
}
