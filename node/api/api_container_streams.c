/* Logs of one container, and waiting for its end: answers that go on for as long as the container does.
 *
 * A log line is one frame: "[time ]text\n". While the client does not read, the log's reader is paused, so
 * nothing piles up here whatever the container writes. */
#include <string.h>

#include "base/mem.h"
#include "node/api/containers.h"

#define OUT_HIGH (1024u * 1024)

/* --- logs */

struct logs {
	struct http_req *r;
	struct log_reader *reader;
	bool raw, timestamps;
	struct buf line, out;
};

static void logs_free(struct logs *s)
{
	if (s->reader)
		log_reader_close(s->reader);
	buf_done(&s->line);
	buf_done(&s->out);
	free(s);
}

static void logs_gone(void *data)
{
	logs_free(data);
}

static void logs_drained(void *data)
{
	log_reader_pause(((struct logs *)data)->reader, false);
}

static void on_line(void *data, int64_t time_ns, int stream, const uint8_t *p, size_t n)
{
	struct logs *s = data;
	buf_reset(&s->line);
	buf_reset(&s->out);
	if (s->timestamps) {
		char t[40];
		str_format_time_fixed(time_ns, t);
		buf_printf(&s->line, "%s ", t);
	}
	buf_append(&s->line, p, n);
	buf_putc(&s->line, '\n');
	frame_append(&s->out, s->raw, stream, s->line.data, s->line.len);
	if (http_write(s->r, s->out.data, s->out.len) > OUT_HIGH) {
		log_reader_pause(s->reader, true);
		http_on_drained(s->r, logs_drained, s);
	}
}

static void on_log_end(void *data, const struct err *e)
{
	struct logs *s = data;
	if (e->code) {
		buf_reset(&s->line);
		buf_reset(&s->out);
		buf_printf(&s->line, "%s\n", e->text);
		frame_append(&s->out, s->raw, 2, s->line.data, s->line.len);
		http_write(s->r, s->out.data, s->out.len);
	}
	http_finish(s->r);
	logs_free(s);
}

static int parse_tail(const char *s, int64_t *ret, struct err *e)
{
	*ret = -1;
	if (str_empty(s) || str_eq(s, "all"))
		return 0;
	if (str_parse_i64(s, ret, NULL) != 0)
		return err_set(e, ERR_INVALID, "tail must be a number or \"all\": %s", s);
	if (*ret < 0)
		*ret = -1;
	return 0;
}

static void logs(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	struct log_reader_opts o = {.follow = api_bool_loose(r, "follow"),
	    .want_stdout = api_bool_loose(r, "stdout"),
	    .want_stderr = api_bool_loose(r, "stderr")};
	if (!c)
		return;
	if (!o.want_stdout && !o.want_stderr) {
		api_reply_errf(r, ERR_INVALID, "Bad parameters: you must choose at least one stream");
		return;
	}
	struct logs *s = NEW(struct logs);
	s->r = r;
	s->raw = c->config->tty;
	s->timestamps = api_bool_loose(r, "timestamps");
	if (parse_tail(http_query(r, "tail"), &o.tail, &e) != 0 ||
	    api_time_param(l->api, r, "since", &o.since_ns, &e) != 0 ||
	    api_time_param(l->api, r, "until", &o.until_ns, &e) != 0 ||
	    log_reader_start(l->engine, c->id, &o, on_line, on_log_end, s, &s->reader, &e) != 0) {
		api_reply_err(r, &e);
		logs_free(s);
		return;
	}
	http_on_closed(r, logs_gone, s);
	http_start(r, 200, frame_content_type(r, s->raw));
}

/* --- wait */

struct wait {
	struct http_req *r;
	struct engine_wait *wait;
};

static void wait_gone(void *data)
{
	struct wait *w = data;
	engine_wait_cancel(w->wait);
	free(w);
}

static void waited(void *data, int64_t exit_code, const struct err *e)
{
	struct wait *w = data;
	json_t *o = json_pack("{s:I}", "StatusCode", (json_int_t)exit_code);
	if (e->code)
		json_object_set_new(o, "Error", json_pack("{s:s}", "Message", e->text));
	api_write_line(w->r, o);
	json_decref(o);
	http_finish(w->r);
	free(w);
}

static void wait_container(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	const char *condition = str_or(http_query(r, "condition"), "not-running");
	if (!c)
		return;
	struct wait *w = NEW(struct wait);
	w->r = r;
	if (engine_wait(l->engine, c->id, condition, waited, w, &w->wait, &e) != 0) {
		api_reply_err(r, &e);
		free(w);
		return;
	}
	http_on_closed(r, wait_gone, w);
	/* The headers say that the wait has begun: clients start what ends the container after them. */
	http_start(r, 200, "application/json");
}

void api_container_streams_register(struct api_local *l)
{
	api_route(l->api, "GET", "/containers/{id}/logs", logs, l);
	api_route(l->api, "POST", "/containers/{id}/wait", wait_container, l);
}
