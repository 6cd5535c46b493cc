/* What a request said: URL, headers, body. Everything borrowed from the connection's text buffer. */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/http_conn.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Percent-decodes in place; false on a bad escape or %00. */
static bool unescape(char *s, bool form)
{
	char *out = s;

	for (; *s != '\0'; s++) {
		if (*s == '%') {
			int hi = hex_digit(s[1]);
			int lo = hi < 0 ? -1 : hex_digit(s[2]);
			if (lo < 0 || (hi == 0 && lo == 0))
				return false;
			*out++ = (char)(hi * 16 + lo);
			s += 2;
		} else {
			*out++ = form && *s == '+' ? ' ' : *s;
		}
	}
	*out = '\0';
	return true;
}

int http_url_split(struct http_req *c, struct err *e)
{
	char *url = c->text.data;

	/* "http://host/path", which proxies' clients send. */
	if (url[0] != '/') {
		char *host = strstr(url, "://");
		url = host ? strchr(host + 3, '/') : NULL;
		if (!url)
			return err_set(e, ERR_INVALID, "malformed URL");
	}
	char *fragment = strchr(url, '#');
	if (fragment)
		*fragment = '\0';
	char *query = strchr(url, '?');
	if (query)
		*query++ = '\0';
	if (!unescape(url, false))
		return err_set(e, ERR_INVALID, "malformed URL: bad percent escape in the path");
	c->path = url;
	c->raw_query = query;
	/* Keys and values are checked now, so that looking them up later cannot fail. */
	unsigned n = 0;
	for (char *s = query; s && *s != '\0'; n++) {
		char *end = strchr(s, '&');
		for (char *p = s; *p != '\0' && p != end; p++) {
			if (*p == '%' &&
			    (hex_digit(p[1]) < 0 || hex_digit(p[2]) < 0 || (p[1] == '0' && p[2] == '0')))
				return err_set(
				    e, ERR_INVALID, "malformed URL: bad percent escape in the query");
		}
		s = end ? end + 1 : NULL;
	}
	if (n > HTTP_QUERY_MAX)
		return err_set(
		    e, ERR_INVALID, "malformed URL: more than %d query parameters", HTTP_QUERY_MAX);
	return 0;
}

/* In place, on first use: most requests have no query. */
static void parse_query(struct http_req *c)
{
	if (c->query_parsed)
		return;
	c->query_parsed = true;
	if (!c->raw_query || *c->raw_query == '\0')
		return;
	if (!c->query)
		c->query = xcalloc(HTTP_QUERY_MAX, sizeof(*c->query));
	char *s = c->raw_query;
	while (s && *s != '\0' && c->n_query < HTTP_QUERY_MAX) {
		char *next = strchr(s, '&');
		if (next)
			*next++ = '\0';
		char *value = strchr(s, '=');
		if (value)
			*value++ = '\0';
		if (unescape(s, true) && (!value || unescape(value, true)))
			c->query[c->n_query++] = (struct http_query_){s, value ? value : ""};
		s = next;
	}
}

const char *http_query(const struct http_req *r, const char *key)
{
	parse_query((struct http_req *)r);
	for (unsigned i = 0; i < r->n_query; i++) {
		if (strcmp(r->query[i].key, key) == 0)
			return r->query[i].value;
	}
	return NULL;
}

void http_query_each(const struct http_req *r, const char *key, void (*fn)(void *d, const char *v), void *d)
{
	parse_query((struct http_req *)r);
	for (unsigned i = 0; i < r->n_query; i++) {
		if (strcmp(r->query[i].key, key) == 0)
			fn(d, r->query[i].value);
	}
}

const char *http_header(const struct http_req *r, const char *name)
{
	for (unsigned i = 0; i < r->n_headers; i++) {
		if (str_ieq(r->text.data + r->headers[i].name, name))
			return r->text.data + r->headers[i].value;
	}
	return NULL;
}

const char *http_method(const struct http_req *r)
{
	return llhttp_method_name((llhttp_method_t)r->parser.method);
}

const char *http_path(const struct http_req *r)
{
	return r->path;
}

const struct buf *http_body(const struct http_req *r)
{
	return &r->body;
}

void http_set_user(struct http_req *r, void *user)
{
	r->user = user;
}

void *http_user(const struct http_req *r)
{
	return r->user;
}

void *http_scratch(struct http_req *r)
{
	return r->scratch;
}

void http_on_closed(struct http_req *r, void (*fn)(void *data), void *data)
{
	r->on_closed = fn;
	r->on_closed_data = data;
}
