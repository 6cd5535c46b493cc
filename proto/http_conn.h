/* The inside of the HTTP server, for proto/http*.c only. */
#ifndef PROTO_HTTP_CONN_H
#define PROTO_HTTP_CONN_H

#include <llhttp.h>

#include "base/sm.h"
#include "proto/http.h"

#define HTTP_READ_SIZE   65536 /* one read; also how much of a following request is taken early */
#define HTTP_HEADERS_MAX 100
#define HTTP_QUERY_MAX   256

enum conn_state {
	CONN_IDLE,   /* between requests */
	CONN_HEAD,   /* reading request line and headers */
	CONN_BODY,   /* reading the body */
	CONN_READY,  /* the request is read; its response is not finished */
	CONN_DRAIN,  /* answered early: what the client still sends is dropped, then closed */
	CONN_HIJACK, /* bytes both ways */
	CONN_CLOSED, /* handle closing */
	CONN_STATES,
};

enum resp_state { RESP_NONE, RESP_STREAM, RESP_DONE };

struct listener {
	uv_pipe_t pipe;
	struct http_server *server;
	struct listener *next;
	char *path; /* unlinked on close; NULL for an inherited socket */
};

struct http_server {
	uv_loop_t *loop;
	struct http_server_opts opts;
	struct listener *listeners;
	struct http_req *conns; /* all, newest first */
	size_t n_conns;
	struct http_req *kicked; /* to be looked at on the next turn */
	uv_timer_t tick;
	uv_idle_t kick;
	uint64_t tick_ms;
	struct buf head, body; /* where responses are put together */
	time_t date_at;
	char date[40];
	bool closing;
	unsigned open_handles; /* listeners, tick, kick */
	uint64_t close_deadline;
	void (*closed)(void *data);
	void *closed_data;
	char rbuf[HTTP_READ_SIZE];
};

struct http_header_ {
	uint32_t name, value; /* offsets in text */
};
struct http_query_ {
	const char *key, *value;
};

/* A connection and its request of the moment. */
struct http_req {
	struct http_server *server;
	struct http_req *prev, *next, *next_kicked;
	uv_pipe_t pipe;
	llhttp_t parser;
	struct sm sm;
	uint64_t deadline; /* loop time at which this state has lasted too long; 0: never */
	bool kicked, in_feed, feed_again, broken, half_closed, handle_closed, reading;
	struct buf pending; /* bytes read that belong to what comes next */

	/* request */
	struct buf text; /* URL, header names and values, NUL-terminated each */
	struct http_header_ headers[HTTP_HEADERS_MAX];
	unsigned n_headers;
	bool value_open;
	uint32_t url_end;
	size_t head_bytes;
	const char *path; /* in text, after the headers are complete */
	char *raw_query;
	struct http_query_ *query;
	unsigned n_query;
	bool query_parsed;
	struct buf body;
	int64_t body_limit;
	bool headers_done, message_done, handled, keep_alive, is_head, http10, upgrade, expect_continue;
	int refuse_code, refuse_status; /* status 0: the code's */
	struct err refuse;
	bool streaming, body_paused, body_aborted, body_ended;
	void (*on_body)(void *data, const uint8_t *p, size_t n, bool aborted);
	void *on_body_data;
	struct buf body_held; /* of a streamed body, while it is paused */
	void *user;
	void (*on_closed)(void *data);
	void *on_closed_data;
	uint64_t scratch[HTTP_SCRATCH / sizeof(uint64_t)];

	/* response */
	enum resp_state resp;
	bool chunked, close_when_flushed, write_busy;
	struct buf extra; /* header lines of http_set_header */
	uv_write_t write_req;
	struct buf out, out_next; /* being written, to be written after it */
	void (*on_drained)(void *data);
	void *on_drained_data;

	/* hijack */
	http_hijack_data_cb hijack_data;
	http_hijack_closed_cb hijack_closed;
	void *hijack_user;
	bool hijack_paused, hijack_eof, hijack_eof_told;
};

static inline uint64_t http_ms_or(unsigned ms, unsigned dflt)
{
	return ms ? ms : dflt;
}
static inline uint64_t conn_deadline_in(const struct http_req *c, uint64_t ms)
{
	return uv_now(c->server->loop) + ms;
}

/* http.c */
struct http_req *conn_new(struct http_server *s);
void conn_kick(struct http_req *c); /* looks at the connection on the next turn */
void conn_close(struct http_req *c);
void conn_read_update(struct http_req *c); /* starts or stops reading as the state wants */
/* True when the client closed, rather than only shut down its sending side. */
bool conn_peer_gone(const struct http_req *c);
/* http_server.c */
void http_server_maybe_closed(struct http_server *s);
/* http_parse.c */
const llhttp_settings_t *http_parser_settings(void);
/* http_request.c */
void request_reset(struct http_req *c);
void conn_feed(struct http_req *c, const char *p, size_t n);
/* Answers what never reaches the handler, with c->refuse. */
void request_refuse(struct http_req *c);
void request_end_body(struct http_req *c, bool aborted);
/* Gives a streamed body's held bytes, and its end when everything came. */
void request_resume_body(struct http_req *c);
/* Looks at a connection whose response has just been finished. */
void conn_advance(struct http_req *c);
/* http_query.c */
int http_url_split(struct http_req *c, struct err *e);
/* http_reply.c */
void conn_send(struct http_req *c, const uv_buf_t *v, unsigned n);
size_t conn_waiting(const struct http_req *c);

#endif
