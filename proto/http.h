/* HTTP/1.1 server on llhttp: keep-alive, pipelining off (one request at a time a connection), chunked
 * both ways, hijack, bounded headers and bodies, slow clients timed out.
 *
 * A request handler gets a struct http_req that stays valid until the response is finished or the
 * connection ends; `closed` tells of the latter, so that streams stop. Every response goes out through
 * exactly one of: http_reply*, http_start + http_write... + http_finish, http_hijack. */
#ifndef PROTO_HTTP_H
#define PROTO_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

struct http_server;
struct http_req;

struct http_server_opts {
	/* Called when the headers are complete. It returns the most body bytes to take (0: none), or a
	 * negative ERR_* with e to refuse at once. NULL: LIMIT_HTTP_JSON_BODY. */
	int64_t (*body_limit)(void *data, struct http_req *r, struct err *e);
	/* Called with the whole request (or, when http_stream_body was called from body_limit, right after
	 * the headers). */
	void (*handle)(void *data, struct http_req *r);
	void *data;
	const char *headers;        /* lines for every response, "Server: x\r\n"; borrowed. May be NULL */
	unsigned header_timeout_ms; /* 0: 30000: from connect or first byte to end of headers */
	unsigned idle_timeout_ms;   /* 0: 120000: between requests */
	unsigned body_timeout_ms;   /* 0: 60000: without a byte of body */
};
struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_opts *o);
/* Listens on a unix socket path (an old socket that nobody answers is replaced; mode 0660) or on an inherited
 * fd. The socket file's group is set by the caller. */
int http_server_listen_unix(struct http_server *s, const char *path, mode_t mode, struct err *e);
/* Takes a listening stream socket over (socket activation). */
int http_server_listen_fd(struct http_server *s, int fd, struct err *e);
/* Serves a connected stream socket, which it owns on success. */
int http_server_adopt(struct http_server *s, int fd, struct err *e);
size_t http_server_connections(const struct http_server *s);
/* Stops listening, ends connections (those in a response get up to grace_ms), then closed(data). */
void http_server_close(struct http_server *s, unsigned grace_ms, void (*closed)(void *data), void *data);

const char *http_method(const struct http_req *r); /* "GET" */
const char *http_path(const struct http_req *r);   /* decoded, without query; "/v1.41/services" */
/* First value of a query parameter, decoded; NULL when absent ("" when it has no value). */
const char *http_query(const struct http_req *r, const char *key);
/* All values of a repeated parameter: calls fn for each. */
void http_query_each(const struct http_req *r, const char *key, void (*fn)(void *d, const char *v), void *d);
const char *http_header(const struct http_req *r, const char *name); /* NULL when absent */
const struct buf *http_body(const struct http_req *r);
void http_set_user(struct http_req *r, void *user);
void *http_user(const struct http_req *r);
/* Memory that lives as long as the request, for its router: zeroed when the request begins. */
#define HTTP_SCRATCH 512
void *http_scratch(struct http_req *r);
/* Called once if the connection ends before the response was finished; never after. */
void http_on_closed(struct http_req *r, void (*fn)(void *data), void *data);

/* Streaming the request's body (image load): call from body_limit or handle. on_data gets pieces, then len 0
 * at the end (p NULL); aborted with that when the connection ended before the body did. pause stops the
 * pieces until resume. body_limit may pass a NULL on_data to say that handle will call again with the right
 * one: until then nothing is read. */
void http_stream_body(
    struct http_req *r, void (*on_data)(void *data, const uint8_t *p, size_t n, bool aborted), void *data);
void http_body_pause(struct http_req *r);
void http_body_resume(struct http_req *r);

/* Whole responses. Extra headers set before any of these with http_set_header. */
void http_set_header(struct http_req *r, const char *name, const char *value);
void http_reply(struct http_req *r, int status, const char *content_type, const void *p, size_t n);
void http_reply_json(struct http_req *r, int status, json_t *j); /* takes the reference */
void http_reply_empty(struct http_req *r, int status);
/* {"message": text} with the code's status; end text of any chain. */
void http_reply_err(struct http_req *r, const struct err *e);

/* Chunked responses; headers are sent at once. */
void http_start(struct http_req *r, int status, const char *content_type);
/* Queues a chunk (copied). Returns the bytes that wait to be sent, so that producers can pause above a bound.
 */
size_t http_write(struct http_req *r, const void *p, size_t n);
/* Once, when nothing waits; of a hijacked connection too. */
void http_on_drained(struct http_req *r, void (*fn)(void *data), void *data);
void http_finish(struct http_req *r);

/* Takes the connection over: answers 101 UPGRADED when the client asked for an upgrade, else 200, with the
 * content type; from then on bytes go both ways. on_data: n 0 is the client's half-close. */
struct http_hijack;
typedef void (*http_hijack_data_cb)(void *data, const uint8_t *p, size_t n);
typedef void (*http_hijack_closed_cb)(void *data);
struct http_hijack *http_hijack(struct http_req *r, const char *content_type, http_hijack_data_cb on_data,
    http_hijack_closed_cb on_closed, void *data);
size_t http_hijack_write(struct http_hijack *h, const void *p, size_t n); /* bytes that wait */
void http_hijack_pause(struct http_hijack *h, bool paused);               /* reading from the client */
void http_hijack_close(struct http_hijack *h); /* after what waits is sent; on_closed still comes once */

#endif
