/* The HTTP/1.1 server's connections: reading, closing, and what is put off to the next turn.
 *
 * A client that goes away ends the request through its closed callback. A client may also end only its
 * sending side and wait for the answer; which of the two it was the socket tells (conn_peer_gone). Everything
 * that would call the handler from inside one of its own calls is put off to the next turn of the loop
 * (conn_kick). */
#include "proto/http.h"

#include <poll.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "proto/http_conn.h"

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

struct http_req *conn_new(struct http_server *s)
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
	c->deadline = conn_deadline_in(c, http_ms_or(s->opts.header_timeout_ms, 30000));
	return c;
}

static void alloc_cb(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct http_req *c = CONTAINER_OF(h, struct http_req, pipe);

	(void)suggested;
	*buf = uv_buf_init(c->server->rbuf, HTTP_READ_SIZE);
}

/* True when the client closed, rather than only shut down its sending side. */
bool conn_peer_gone(const struct http_req *c)
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
	if (!conn_peer_gone(c)) {
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
	http_server_maybe_closed(s);
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
		request_end_body(c, true);
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
		if (c->sm.state == CONN_HIJACK && conn_peer_gone(c))
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
		request_resume_body(c);
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
