/* Logs of services and tasks: lines of all their containers in one stream, framed, followed when asked.
 *
 * One frame a line: "[time ]details message\n". While the client does not read, the source is paused if it
 * can be; it is never more than OUT_MAX ahead otherwise: then the stream ends with an error frame, rather
 * than growing without bound. */
#include <string.h>

#include "base/mem.h"
#include "node/api/resources.h"

#define OUT_HIGH (1024u * 1024)
#define OUT_MAX  (64u * 1024 * 1024)

struct stream {
	struct api *api;
	struct http_req *r; /* NULL once the client has gone */
	struct api_log *log;
	bool raw; /* a tty: no frames */
	bool timestamps, details, paused;
	struct buf line;
};

static void stream_free(struct stream *s)
{
	const struct manager_if *m = &api_deps(s->api)->manager;
	if (s->log)
		m->log_close(m->data, s->log);
	buf_done(&s->line);
	free(s);
}

static void on_gone(void *data)
{
	stream_free(data);
}

static void on_drained(void *data)
{
	struct stream *s = data;
	const struct manager_if *m = &api_deps(s->api)->manager;
	s->paused = false;
	m->log_pause(m->data, s->log, false);
}

static void finish(struct stream *s)
{
	http_finish(s->r);
	stream_free(s);
}

static size_t send_frame(struct stream *s, int stream)
{
	uint8_t head[8] = {(uint8_t)stream, 0, 0, 0, (uint8_t)(s->line.len >> 24),
	    (uint8_t)(s->line.len >> 16), (uint8_t)(s->line.len >> 8), (uint8_t)s->line.len};
	if (s->raw)
		return http_write(s->r, s->line.data, s->line.len);
	struct buf framed = BUF_INIT;
	buf_append(&framed, head, sizeof(head));
	buf_append(&framed, s->line.data, s->line.len);
	size_t waiting = http_write(s->r, framed.data, framed.len);
	buf_done(&framed);
	return waiting;
}

static void on_line(void *data, const struct api_log_line *l)
{
	struct stream *s = data;
	const struct manager_if *m = &api_deps(s->api)->manager;
	buf_reset(&s->line);
	if (s->timestamps) {
		char t[40];
		str_format_time_fixed(l->ts, t);
		buf_printf(&s->line, "%s ", t);
	}
	if (s->details)
		buf_printf(&s->line,
		    "com.docker.swarm.node.id=%s,com.docker.swarm.service.id=%s,com.docker.swarm.task.id=%s ",
		    l->node_id, l->service_id, l->task_id);
	buf_append(&s->line, l->data, l->len);
	buf_putc(&s->line, '\n');
	size_t waiting = send_frame(s, l->stream);
	if (waiting > OUT_HIGH && m->log_pause && !s->paused) {
		s->paused = true;
		m->log_pause(m->data, s->log, true);
		http_on_drained(s->r, on_drained, s);
	} else if (waiting > OUT_MAX) {
		buf_reset(&s->line);
		buf_puts(&s->line, "the client reads too slowly: the log stream was cut\n");
		send_frame(s, 3);
		finish(s);
	}
}

static void on_end(void *data, int status, const struct err *e)
{
	struct stream *s = data;
	if (status != 0) {
		buf_reset(&s->line);
		buf_printf(&s->line, "%s\n", e->text);
		send_frame(s, s->raw ? 1 : 2);
	}
	finish(s);
}

static int parse_query(struct api *a, const struct http_req *r, struct api_log_query *q, struct err *e)
{
	const char *tail = str_or(http_query(r, "tail"), "all");
	q->follow = api_bool_loose(r, "follow");
	q->want_stdout = api_bool_loose(r, "stdout");
	q->want_stderr = api_bool_loose(r, "stderr");
	q->tail = -1;
	if (!q->want_stdout && !q->want_stderr)
		return err_set(e, ERR_INTERNAL, "Bad parameters: you must choose at least one stream");
	if (!str_empty(http_query(r, "until")))
		return err_set(e, ERR_INVALID, "until is not supported by swarm service logs");
	if (strcmp(tail, "all") != 0 && (str_parse_i64(tail, &q->tail, NULL) != 0 || q->tail < -1))
		return err_set(
		    e, ERR_INVALID, "tail must be a number that is not negative, or \"all\": %s", tail);
	return api_time_param(a, r, "since", &q->since, e);
}

static void open_stream(struct api *a, struct http_req *r, struct api_log_query *q, bool tty)
{
	const struct manager_if *m = &api_deps(a)->manager;
	struct err e = ERR_INIT;
	struct stream *s = NEW(struct stream);
	s->api = a;
	s->r = r;
	s->raw = tty;
	s->timestamps = api_bool_loose(r, "timestamps");
	s->details = api_bool_loose(r, "details");
	q->on_line = on_line;
	q->on_end = on_end;
	q->data = s;
	if (parse_query(a, r, q, &e) != 0 || m->log_open(m->data, q, &s->log, &e) != 0) {
		api_reply_err(r, &e);
		stream_free(s);
		return;
	}
	http_on_closed(r, on_gone, s);
	http_start(r, 200,
	    !tty && api_minor(r) >= 42 ? "application/vnd.docker.multiplexed-stream"
				       : "application/vnd.docker.raw-stream");
}

static bool is_tty(const Pb__TaskSpec *t)
{
	return t && t->container_spec && t->container_spec->has_tty && t->container_spec->tty;
}

static void service_logs(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	const struct object *o;
	struct err e = ERR_INIT;
	if (!st)
		return;
	if (store_find(st, OBJ(SERVICE), api_param(r, "id"), &o, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	struct api_log_query q = {.service_id = o->service->id};
	open_stream(data, r, &q, is_tty(o->service->spec->task_template));
}

static void task_logs(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	const struct object *o;
	struct err e = ERR_INIT;
	if (!st)
		return;
	if (store_find(st, OBJ(TASK), api_param(r, "id"), &o, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const Pb__Template *t = store_template(st, o->task->template_id);
	struct api_log_query q = {.task_id = o->task->id};
	open_stream(data, r, &q, is_tty(t ? t->spec : NULL));
}

void api_logs_register(struct api *a)
{
	api_route(a, "GET", "/services/{id}/logs", service_logs, a);
	api_route(a, "GET", "/tasks/{id}/logs", task_logs, a);
}
