/* Responses: whole, chunked, hijacked.
 *
 * The happy path is one gathered write straight to the socket. What the socket does not take is kept in
 * `out`, which one uv_write sends; whatever is sent meanwhile gathers in `out_next`. When a write fails the
 * connection is marked broken and closed on the next turn, so that no callback comes from inside a call of
 * the handler. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/http_conn.h"
#include "proto/json.h"

static const char *status_text(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 201:
		return "Created";
	case 202:
		return "Accepted";
	case 204:
		return "No Content";
	case 304:
		return "Not Modified";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 408:
		return "Request Timeout";
	case 409:
		return "Conflict";
	case 413:
		return "Request Entity Too Large";
	case 431:
		return "Request Header Fields Too Large";
	case 500:
		return "Internal Server Error";
	case 501:
		return "Not Implemented";
	case 503:
		return "Service Unavailable";
	default:
		return "Status";
	}
}

size_t conn_waiting(const struct http_req *c)
{
	if (!c->write_busy)
		return 0;
	return uv_stream_get_write_queue_size((const uv_stream_t *)&c->pipe) + c->out_next.len;
}

static void mark_broken(struct http_req *c)
{
	c->broken = true;
	conn_kick(c);
}

static void flushed(struct http_req *c)
{
	if (c->on_drained || c->close_when_flushed)
		conn_kick(c);
}

static void on_written(uv_write_t *req, int status);

static void write_out(struct http_req *c)
{
	uv_buf_t v = uv_buf_init(c->out.data, (unsigned)c->out.len);

	c->write_busy = true;
	if (uv_write(&c->write_req, (uv_stream_t *)&c->pipe, &v, 1, on_written) < 0) {
		c->write_busy = false;
		mark_broken(c);
	}
}

static void on_written(uv_write_t *req, int status)
{
	struct http_req *c = CONTAINER_OF(req, struct http_req, write_req);

	c->write_busy = false;
	if (c->sm.state == CONN_CLOSED)
		return;
	if (status < 0) {
		mark_broken(c);
		return;
	}
	if (c->out.cap > HTTP_READ_SIZE)
		buf_done(&c->out);
	buf_reset(&c->out);
	if (c->out_next.len > 0) {
		struct buf t = c->out;
		c->out = c->out_next;
		c->out_next = t;
		write_out(c);
		return;
	}
	/* Somebody may have waited for this: a producer, the next request, the end. */
	conn_kick(c);
}

void conn_send(struct http_req *c, const uv_buf_t *v, unsigned n)
{
	size_t sent = 0;

	if (c->broken || c->sm.state == CONN_CLOSED)
		return;
	if (!c->write_busy) {
		int r = uv_try_write((uv_stream_t *)&c->pipe, v, n);
		if (r < 0 && r != UV_EAGAIN) {
			mark_broken(c);
			return;
		}
		sent = r > 0 ? (size_t)r : 0;
	}
	struct buf *to = c->write_busy ? &c->out_next : &c->out;
	for (unsigned i = 0; i < n; i++) {
		size_t skip = sent < v[i].len ? sent : v[i].len;
		sent -= skip;
		if (v[i].len > skip)
			buf_append(to, v[i].base + skip, v[i].len - skip);
	}
	if (!c->write_busy && c->out.len > 0)
		write_out(c);
	else if (!c->write_busy)
		flushed(c);
}

static const char *date_now(struct http_server *s)
{
	time_t now = time(NULL);
	struct tm tm;

	if (now != s->date_at) {
		s->date_at = now;
		gmtime_r(&now, &tm);
		strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	return s->date;
}

static void head_begin(struct http_req *c, int status, const char *content_type)
{
	struct buf *h = &c->server->head;
	char line[64];

	buf_reset(h);
	buf_append(h, line, (size_t)snprintf(line, sizeof(line), "HTTP/1.1 %d ", status));
	buf_puts(h, status_text(status));
	buf_puts(h, "\r\n");
	if (c->server->opts.headers)
		buf_puts(h, c->server->opts.headers);
	if (content_type) {
		buf_puts(h, "Content-Type: ");
		buf_puts(h, content_type);
		buf_puts(h, "\r\n");
	}
	buf_append(h, c->extra.data ? c->extra.data : "", c->extra.len);
	buf_puts(h, "Date: ");
	buf_puts(h, date_now(c->server));
	buf_puts(h, "\r\n");
}

/* The response is complete as far as its handler is concerned. */
static void response_done(struct http_req *c)
{
	c->resp = RESP_DONE;
	c->on_closed = NULL;
	if (!c->in_feed)
		conn_advance(c);
}

void http_set_header(struct http_req *r, const char *name, const char *value)
{
	buf_puts(&r->extra, name);
	buf_puts(&r->extra, ": ");
	for (; *value != '\0'; value++) {
		if ((unsigned char)*value >= 0x20 && *value != 0x7f)
			buf_putc(&r->extra, *value);
	}
	buf_puts(&r->extra, "\r\n");
}

void http_reply(struct http_req *r, int status, const char *content_type, const void *p, size_t n)
{
	struct buf *h = &r->server->head;
	char line[64];

	ASSERT(r->resp == RESP_NONE);
	head_begin(r, status, content_type);
	if (status != 204 && status != 304)
		buf_append(h, line, (size_t)snprintf(line, sizeof(line), "Content-Length: %zu\r\n", n));
	/* Answered before the request was read: nobody knows where the next one begins. */
	if (!r->message_done || r->server->closing)
		r->keep_alive = false;
	if (!r->keep_alive)
		buf_puts(h, "Connection: close\r\n");
	else if (r->http10)
		buf_puts(h, "Connection: keep-alive\r\n");
	buf_puts(h, "\r\n");
	uv_buf_t v[2] = {uv_buf_init(h->data, (unsigned)h->len), uv_buf_init((char *)p, (unsigned)n)};
	conn_send(r, v, r->is_head || n == 0 || status == 204 || status == 304 ? 1 : 2);
	response_done(r);
}

static int append_json(const char *p, size_t n, void *data)
{
	buf_append(data, p, n);
	return 0;
}

void http_reply_json(struct http_req *r, int status, json_t *j)
{
	struct buf *b = &r->server->body;

	buf_reset(b);
	if (json_dump_callback(j, append_json, b, JSON_DUMP_FLAGS) < 0)
		buf_puts(b, "null");
	buf_putc(b, '\n');
	json_decref(j);
	http_reply(r, status, "application/json", b->data, b->len);
	if (b->cap > (1u << 20))
		buf_done(b);
}

void http_reply_empty(struct http_req *r, int status)
{
	http_reply(r, status, NULL, "", 0);
}

void http_reply_err(struct http_req *r, const struct err *e)
{
	json_t *text = json_string(e->text[0] != '\0' ? e->text : err_code_name(e->code));

	/* Not UTF-8: somebody else's bytes got into the text. */
	if (!text)
		text = json_string("error text is not valid UTF-8");
	http_reply_json(r, err_http_status(e->code), json_pack("{s:o}", "message", text));
}

void http_start(struct http_req *r, int status, const char *content_type)
{
	struct buf *h = &r->server->head;

	ASSERT(r->resp == RESP_NONE);
	head_begin(r, status, content_type);
	r->chunked = !r->http10;
	if (!r->message_done || r->http10 || r->server->closing)
		r->keep_alive = false;
	if (r->chunked)
		buf_puts(h, "Transfer-Encoding: chunked\r\n");
	if (!r->keep_alive)
		buf_puts(h, "Connection: close\r\n");
	buf_puts(h, "\r\n");
	r->resp = RESP_STREAM;
	uv_buf_t v = uv_buf_init(h->data, (unsigned)h->len);
	conn_send(r, &v, 1);
}

size_t http_write(struct http_req *r, const void *p, size_t n)
{
	char line[24];

	ASSERT(r->resp == RESP_STREAM);
	if (n == 0 || r->is_head)
		return conn_waiting(r);
	uv_buf_t v[3] = {uv_buf_init(line, (unsigned)snprintf(line, sizeof(line), "%zx\r\n", n)),
	    uv_buf_init((char *)p, (unsigned)n), uv_buf_init((char *)"\r\n", 2)};
	if (r->chunked)
		conn_send(r, v, 3);
	else
		conn_send(r, v + 1, 1);
	return conn_waiting(r);
}

void http_on_drained(struct http_req *r, void (*fn)(void *data), void *data)
{
	r->on_drained = fn;
	r->on_drained_data = data;
	if (!r->write_busy)
		conn_kick(r);
}

void http_finish(struct http_req *r)
{
	ASSERT(r->resp == RESP_STREAM);
	r->on_drained = NULL;
	if (r->chunked && !r->is_head) {
		uv_buf_t v = uv_buf_init((char *)"0\r\n\r\n", 5);
		conn_send(r, &v, 1);
	}
	response_done(r);
}

/* --- hijacked connections */

struct http_hijack *http_hijack(struct http_req *r, const char *content_type, http_hijack_data_cb on_data,
    http_hijack_closed_cb on_closed, void *data)
{
	struct buf *h = &r->server->head;

	ASSERT(r->resp == RESP_NONE && r->message_done);
	buf_reset(h);
	buf_puts(h, r->upgrade ? "HTTP/1.1 101 UPGRADED\r\n" : "HTTP/1.1 200 OK\r\n");
	buf_puts(h, "Content-Type: ");
	buf_puts(h, content_type);
	buf_puts(h, r->upgrade ? "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" : "\r\nConnection: close\r\n");
	if (r->server->opts.headers)
		buf_puts(h, r->server->opts.headers);
	buf_append(h, r->extra.data ? r->extra.data : "", r->extra.len);
	buf_puts(h, "\r\n");
	r->hijack_data = on_data;
	r->hijack_closed = on_closed;
	r->hijack_user = data;
	r->on_closed = NULL;
	r->resp = RESP_DONE;
	r->deadline = 0;
	sm_move(&r->sm, CONN_HIJACK);
	uv_buf_t v = uv_buf_init(h->data, (unsigned)h->len);
	conn_send(r, &v, 1);
	if (r->half_closed)
		r->hijack_eof = true;
	/* Bytes that came with the request are handed over on the next turn. */
	conn_kick(r);
	return (struct http_hijack *)r;
}

size_t http_hijack_write(struct http_hijack *h, const void *p, size_t n)
{
	struct http_req *c = (struct http_req *)h;
	uv_buf_t v = uv_buf_init((char *)p, (unsigned)n);

	if (n > 0)
		conn_send(c, &v, 1);
	return conn_waiting(c);
}

void http_hijack_pause(struct http_hijack *h, bool paused)
{
	struct http_req *c = (struct http_req *)h;

	c->hijack_paused = paused;
	conn_read_update(c);
	if (!paused && (c->pending.len > 0 || c->hijack_eof))
		conn_kick(c);
}

void http_hijack_close(struct http_hijack *h)
{
	struct http_req *c = (struct http_req *)h;

	c->close_when_flushed = true;
	conn_kick(c);
}
