/* The HTTP/1.1 server: listening, accepting, the one timer that ends what is too slow, closing. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/http_conn.h"

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
		else if (c->half_closed && conn_peer_gone(c))
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
	uint64_t least = http_ms_or(o->header_timeout_ms, 30000);

	/* A client that goes away while we write must not end the process. */
	signal(SIGPIPE, SIG_IGN);
	s->loop = loop;
	s->opts = *o;
	if (http_ms_or(o->idle_timeout_ms, 120000) < least)
		least = o->idle_timeout_ms;
	if (http_ms_or(o->body_timeout_ms, 60000) < least)
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

void http_server_maybe_closed(struct http_server *s)
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

static void on_handle_closed(uv_handle_t *h)
{
	struct http_server *s = h->data;

	s->open_handles--;
	http_server_maybe_closed(s);
}

static void on_listener_closed(uv_handle_t *h)
{
	struct listener *li = CONTAINER_OF(h, struct listener, pipe);
	struct http_server *s = li->server;

	free(li->path);
	free(li);
	s->open_handles--;
	http_server_maybe_closed(s);
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
