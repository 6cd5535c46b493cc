/* A request's life on its connection: bytes are fed to the parser, the handler runs when it is time, the
 * answer ends it and the connection is idle again. Bytes beyond a request wait in `pending` until its
 * response is finished.
 *
 * A malformed, oversized or refused request is answered, and the connection is drained for a while (closing
 * with unread data would make the client lose the answer) and closed. */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/http_conn.h"

#define DRAIN_MS    2000
#define FLUSH_MS    120000 /* for a whole response to be taken by the client */
#define KEEP_BUFFER 16384  /* memory that an idle connection keeps */

static void buf_recycle(struct buf *b)
{
	if (b->cap > KEEP_BUFFER)
		buf_done(b);
	else
		buf_reset(b);
}

void request_reset(struct http_req *c)
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
	llhttp_init(&c->parser, HTTP_REQUEST, http_parser_settings());
}

static void to_idle(struct http_req *c)
{
	request_reset(c);
	sm_move(&c->sm, CONN_IDLE);
	c->deadline = conn_deadline_in(c, http_ms_or(c->server->opts.idle_timeout_ms, 120000));
	conn_read_update(c);
}

/* What the client still sends is dropped until it has read our answer. */
static void to_drain(struct http_req *c)
{
	sm_move(&c->sm, CONN_DRAIN);
	c->deadline = conn_deadline_in(c, DRAIN_MS);
	buf_done(&c->body_held);
	buf_done(&c->pending);
	c->body_paused = false;
	c->close_when_flushed = true;
	conn_read_update(c);
}

/* Answers what never reaches the handler. */
void request_refuse(struct http_req *c)
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

void request_end_body(struct http_req *c, bool aborted)
{
	if (!c->streaming || c->body_ended || !c->on_body)
		return;
	c->body_ended = true;
	c->on_body(c->on_body_data, NULL, 0, aborted);
}

/* Gives a streamed body's held bytes, and its end when everything came. */
void request_resume_body(struct http_req *c)
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
		request_end_body(c, false);
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
		c->deadline = conn_deadline_in(c, http_ms_or(c->server->opts.body_timeout_ms, 60000));
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
		request_resume_body(c);
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
		request_end_body(c, true);
		if (c->resp == RESP_DONE && c->sm.state == CONN_BODY)
			to_drain(c);
		else
			conn_close(c);
		conn_kick(c);
		return;
	}
	request_refuse(c);
}

void conn_feed(struct http_req *c, const char *p, size_t n)
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
			c->deadline =
			    conn_deadline_in(c, http_ms_or(c->server->opts.header_timeout_ms, 30000));
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
			c->deadline = conn_deadline_in(c, http_ms_or(c->server->opts.body_timeout_ms, 60000));
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
		c->deadline = conn_deadline_in(c, FLUSH_MS);
		conn_kick(c);
		return;
	}
	to_idle(c);
	if (c->pending.len > 0)
		conn_kick(c);
}
