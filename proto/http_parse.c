/* llhttp's callbacks: they note what they saw in the connection, nothing more, and refuse what is over a
 * bound. What follows from it happens when the parser has returned (http_request.c). */
#include <llhttp.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/http_conn.h"

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

const llhttp_settings_t *http_parser_settings(void)
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
