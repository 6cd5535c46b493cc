/* HTTP/1.1 as a client, on llhttp. conn_do writes the head and the body, then parses until the message is
 * complete; a 2xx body goes to the caller as it comes. A server that answers before it has read the whole
 * body (an image archive that it does not like) is heard: when writing fails, the reply is read nevertheless.
 * Replies that are collected are bounded. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <llhttp.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/conn.h"
#include "cli/dial.h"

#define MAX_REPLY (256u * 1024 * 1024) /* collected; streams have no bound */
#define MAX_HEAD  (64u * 1024)
#define CHUNK     (64u * 1024)

struct conn {
	struct transport t;
	unsigned served; /* requests that were answered */
	bool keep;       /* the last reply leaves the connection usable */
	llhttp_t parser;
	llhttp_settings_t settings;
	/* of the request at work */
	const struct conn_request *req;
	struct conn_reply *reply;
	struct err *err;
	int result; /* of on_data or of a bound; 0: go on */
	bool done, any;
	struct buf field, value;
	size_t head;
};

/* --- parser callbacks ---------------------------------------------------------------------------- */

static int stop(struct conn *k, int result)
{
	k->result = result;
	return HPE_USER;
}

static int count_head(struct conn *k, size_t n)
{
	k->head += n;
	if (k->head > MAX_HEAD)
		return stop(k, err_set(k->err, ERR_TOO_LARGE, "the reply's headers are too long"));
	return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
	struct conn *k = p->data;
	buf_append(&k->field, at, n);
	return count_head(k, n);
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
	struct conn *k = p->data;
	buf_append(&k->value, at, n);
	return count_head(k, n);
}

static int on_value_complete(llhttp_t *p)
{
	struct conn *k = p->data;
	if (k->field.data && k->value.data && strcasecmp(k->field.data, "content-type") == 0) {
		k->reply->framed = strcmp(k->value.data, "application/vnd.docker.multiplexed-stream") == 0;
		k->reply->json = str_has_prefix(k->value.data, "application/json");
	}
	buf_reset(&k->field);
	buf_reset(&k->value);
	return 0;
}

static int on_headers(llhttp_t *p)
{
	struct conn *k = p->data;
	k->reply->status = p->status_code;
	if (k->req->upgrade && (p->status_code == 101 || p->status_code == 200)) {
		k->done = true;
		return 2; /* no body follows: the rest is the raw connection's */
	}
	return strcmp(k->req->method, "HEAD") == 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
	struct conn *k = p->data;
	if (k->req->on_data && k->reply->status / 100 == 2) {
		int r = k->req->on_data(k->req->data, at, n, k->err);
		return r ? stop(k, r) : 0;
	}
	if (k->reply->body.len + n > MAX_REPLY)
		return stop(k, err_set(k->err, ERR_TOO_LARGE, "the daemon's reply is longer than %u MiB",
				   MAX_REPLY >> 20));
	buf_append(&k->reply->body, at, n);
	return 0;
}

static int on_complete(llhttp_t *p)
{
	struct conn *k = p->data;
	if (p->status_code == 100)
		return 0;
	k->done = true;
	return HPE_PAUSED;
}

/* --- bytes --------------------------------------------------------------------------------------- */

static int wait_for(struct conn *k, short events, int timeout_ms)
{
	struct pollfd p = {.fd = k->t.fd, .events = events};
	int r;
	while ((r = poll(&p, 1, timeout_ms)) < 0)
		if (errno != EINTR)
			return -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

int conn_write(struct conn *k, const void *data, size_t n, struct err *e)
{
	const char *p = data;
	while (n) {
		ssize_t w = transport_write(&k->t, p, n);
		if (w == -EAGAIN)
			w = wait_for(k, POLLOUT, -1);
		else if (w == -EINTR)
			w = 0;
		if (w < 0)
			return err_errno(e, (int)-w, "cannot write to the daemon");
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

ssize_t conn_read(struct conn *k, void *p, size_t n)
{
	return transport_read(&k->t, p, n);
}

void conn_shutdown(struct conn *k)
{
	transport_shutdown(&k->t);
}

int conn_fd(const struct conn *k)
{
	return k->t.fd;
}

bool conn_reusable(const struct conn *k)
{
	return k->keep;
}

int conn_dial(struct cli *c, struct conn **ret, struct err *e)
{
	struct transport t;
	int r = transport_dial(c, &t, e);
	if (r < 0)
		return r;
	struct conn *k = NEW(struct conn);
	k->t = t;
	llhttp_settings_init(&k->settings);
	k->settings.on_header_field = on_field;
	k->settings.on_header_value = on_value;
	k->settings.on_header_value_complete = on_value_complete;
	k->settings.on_headers_complete = on_headers;
	k->settings.on_body = on_body;
	k->settings.on_message_complete = on_complete;
	*ret = k;
	return 0;
}

void conn_free(struct conn *k)
{
	if (!k)
		return;
	transport_close(&k->t);
	buf_done(&k->field);
	buf_done(&k->value);
	free(k);
}

/* --- a request ----------------------------------------------------------------------------------- */

static int send_head(struct conn *k, const struct conn_request *r, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	buf_printf(&b, "%s %s HTTP/1.1\r\nHost: shoal\r\nUser-Agent: shoal/" SHOAL_VERSION "\r\n", r->method,
	    r->path);
	if (r->content_type)
		buf_printf(&b, "Content-Type: %s\r\n", r->content_type);
	if (r->auth)
		buf_printf(&b, "X-Registry-Auth: %s\r\n", r->auth);
	if (r->upgrade)
		buf_puts(&b, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
	if (r->body_fd >= 0)
		buf_puts(&b, "Transfer-Encoding: chunked\r\n");
	else if (r->body || strcmp(r->method, "POST") == 0)
		buf_printf(&b, "Content-Length: %zu\r\n", r->body_len);
	buf_puts(&b, "\r\n");
	if (r->body_fd < 0)
		buf_append(&b, r->body, r->body_len);
	return conn_write(k, b.data, b.len, e);
}

/* 0 also when the server has stopped reading: its reply says why. */
static int send_file(struct conn *k, int fd, struct err *e)
{
	CLEANUP_FREE char *p = xmalloc(CHUNK);
	for (;;) {
		ssize_t n = read(fd, p, CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "cannot read the input");
		char size[16];
		int len = snprintf(size, sizeof(size), "%zx\r\n", (size_t)n);
		if (conn_write(k, size, (size_t)len, NULL) < 0 || conn_write(k, p, (size_t)n, NULL) < 0 ||
		    conn_write(k, "\r\n", 2, NULL) < 0)
			return 0;
		if (n == 0)
			return 0;
	}
}

/* Feeds the parser until the message is complete. */
static int receive(struct conn *k, struct err *e)
{
	char in[CHUNK];
	while (!k->done) {
		ssize_t n = transport_read(&k->t, in, sizeof(in));
		if (n == -EAGAIN) {
			if (wait_for(k, POLLIN, k->req->patience_ms ? k->req->patience_ms : -1) == -ETIMEDOUT)
				return err_set(e, ERR_TIMEOUT, "no answer within %d ms", k->req->patience_ms);
			continue;
		}
		if (n == -EINTR)
			continue;
		if (n <= 0 && !k->any)
			return k->served ? err_set(e, ERR_STALE, "the daemon had closed the connection")
					 : err_set(e, ERR_UNAVAILABLE,
					       "the daemon closed the connection without an answer");
		if (n < 0)
			return err_errno(e, (int)-n, "cannot read from the daemon");
		if (n == 0) {
			if (llhttp_finish(&k->parser) == HPE_OK && k->done)
				break;
			return k->result ? k->result : err_set(e, ERR_IO, "the daemon's reply ended early");
		}
		k->any = true;
		llhttp_errno_t code = llhttp_execute(&k->parser, in, (size_t)n);
		if (k->result)
			return k->result;
		if (code == HPE_PAUSED_UPGRADE) {
			const char *rest = llhttp_get_error_pos(&k->parser);
			buf_append(&k->reply->body, rest, (size_t)(in + n - rest));
			k->done = true;
		} else if (code != HPE_OK && code != HPE_PAUSED) {
			return err_set(e, ERR_IO, "the daemon's reply is not HTTP: %s",
			    llhttp_get_error_reason(&k->parser));
		}
	}
	return 0;
}

int conn_do(struct conn *k, const struct conn_request *r, struct conn_reply *ret, struct err *e)
{
	*ret = (struct conn_reply){0};
	llhttp_init(&k->parser, HTTP_RESPONSE, &k->settings);
	k->parser.data = k;
	k->req = r;
	k->reply = ret;
	k->err = e;
	k->result = 0;
	k->done = k->any = k->keep = false;
	k->head = 0;
	int rc = send_head(k, r, e);
	if (rc < 0 && !k->served)
		return rc;
	if (rc == 0 && r->body_fd >= 0 && (rc = send_file(k, r->body_fd, e)) < 0)
		return rc;
	rc = receive(k, e);
	k->keep = rc == 0 && !r->upgrade && llhttp_should_keep_alive(&k->parser);
	k->served++;
	return rc;
}
