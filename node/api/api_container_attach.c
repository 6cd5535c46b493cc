/* Attaching to a container: its output from now on, its input when it was made with one, its log before that
 * when asked.
 *
 *   stream      conmon's attach socket, both ways
 *   logs        the log, read to its end
 *   both        the log, followed: nothing is lost or seen twice between the two; output only
 *
 * Everything that can be refused is refused with a JSON error before the connection is taken over; what fails
 * later is a line in the output. A slow client pauses the source, a container that does not read pauses the
 * client. */
#include <string.h>

#include "base/mem.h"
#include "base/timer.h"
#include "node/api/containers.h"
#include "node/api/detach_keys.h"

#define OUT_HIGH (1024u * 1024)
#define IN_HIGH  (256u * 1024)
/* docker-py reads the headers through a buffer that it then throws away, output that came along included.
 * What is written a moment later reaches it. */
#define FIRST_OUTPUT_MS 30

struct attach {
	struct api_local *l;
	struct http_req *r;
	struct http_hijack *h;
	struct engine_attach *live; /* one of these two; both NULL after the end */
	struct log_reader *log;
	bool raw, want_stdin, want_stdout, want_stderr;
	bool has_keys;
	struct detach_keys keys;
	struct timer *first;
	struct buf out;
};

static void close_source(struct attach *s)
{
	if (s->live)
		engine_attach_close(TAKE_PTR(s->live));
	if (s->log)
		log_reader_close(TAKE_PTR(s->log));
}

static void attach_free(struct attach *s)
{
	close_source(s);
	timer_free(s->first);
	buf_done(&s->out);
	free(s);
}

static void pause_source(struct attach *s, bool paused)
{
	if (s->live)
		engine_attach_pause(s->live, paused);
	if (s->log)
		log_reader_pause(s->log, paused);
}

static void on_sent(void *data)
{
	pause_source(data, false);
}

static void send_output(struct attach *s, int stream, const void *p, size_t n)
{
	buf_reset(&s->out);
	frame_append(&s->out, s->raw, stream, p, n);
	if (http_hijack_write(s->h, s->out.data, s->out.len) > OUT_HIGH) {
		pause_source(s, true);
		http_on_drained(s->r, on_sent, s);
	}
}

static void end(struct attach *s, const struct err *e)
{
	close_source(s);
	if (e && e->code) {
		CLEANUP_FREE char *text = xasprintf("%s\r\n", e->text);
		send_output(s, 1, text, strlen(text));
	}
	/* What the client still sends is read and dropped, or closing would cut off what we sent. */
	http_hijack_pause(s->h, false);
	http_hijack_close(s->h);
}

/* --- from the container */

static void on_output(void *data, int stream, const uint8_t *p, size_t n)
{
	struct attach *s = data;
	if (stream == 2 ? s->want_stderr : s->want_stdout)
		send_output(s, stream, p, n);
}

static void on_ended(void *data, const struct err *e)
{
	end(data, e);
}

static void on_input_taken(void *data)
{
	struct attach *s = data;
	http_hijack_pause(s->h, false);
}

static void on_line(void *data, int64_t time_ns, int stream, const uint8_t *p, size_t n)
{
	struct attach *s = data;
	CLEANUP_BUF struct buf line = BUF_INIT;
	(void)time_ns;
	buf_append(&line, p, n);
	buf_putc(&line, '\n');
	send_output(s, stream, line.data, line.len);
}

/* --- from the client */

static void on_data(void *data, const uint8_t *p, size_t n)
{
	struct attach *s = data;
	CLEANUP_BUF struct buf in = BUF_INIT;
	bool leave = false;
	if (!s->live || !s->want_stdin)
		return;
	if (s->has_keys && n) {
		leave = detach_keys_feed(&s->keys, p, n, &in);
		p = (const uint8_t *)in.data;
		n = in.len;
		if (n)
			engine_attach_input(s->live, p, n, NULL);
	} else {
		engine_attach_input(s->live, p, n, NULL);
	}
	if (leave)
		end(s, NULL);
	else if (engine_attach_waiting(s->live) > IN_HIGH)
		http_hijack_pause(s->h, true);
}

static void on_closed(void *data)
{
	attach_free(data);
}

/* --- the route */

static int open_source(struct attach *s, const Pb__Container *c, bool logs, bool stream, struct err *e)
{
	const struct exec_stdio io = {on_output, on_ended, s, on_input_taken};
	if (!logs)
		return engine_attach(s->l->engine, c->id, &io, &s->live, e);
	struct log_reader_opts o = {
	    .follow = stream, .want_stdout = s->want_stdout, .want_stderr = s->want_stderr, .tail = -1};
	return log_reader_start(s->l->engine, c->id, &o, on_line, on_ended, s, &s->log, e);
}

static int check(const struct attach *s, const Pb__Container *c, bool logs, bool stream, struct err *e)
{
	if (!logs && !stream)
		return err_set(e, ERR_INVALID, "nothing to attach to: set stream or logs");
	if (!s->want_stdin && !s->want_stdout && !s->want_stderr)
		return err_set(e, ERR_INVALID, "you must choose at least one of stdin, stdout and stderr");
	if (s->want_stdin && logs)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "attaching stdin together with logs is not supported: leave one of them out");
	if (s->want_stdin && !c->config->open_stdin)
		return err_set(e, ERR_INVALID,
		    "container %s has no open stdin: attach without stdin, or create the service with "
		    "OpenStdin",
		    c->id);
	if (stream && c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED)
		return err_set(
		    e, ERR_CONFLICT, "container %s is paused, unpause the container before attach", c->id);
	if (stream && !container_is_running(c))
		return err_set(e, ERR_CONFLICT, "Container %s is not running", c->id);
	return 0;
}

static void attach(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	bool logs = api_bool_loose(r, "logs"), stream = api_bool_loose(r, "stream");
	if (!c)
		return;
	struct attach *s = NEW(struct attach);
	s->l = l;
	s->r = r;
	s->raw = c->config->tty;
	s->want_stdin = stream && api_bool_loose(r, "stdin");
	s->want_stdout = api_bool_loose(r, "stdout");
	s->want_stderr = api_bool_loose(r, "stderr");
	s->has_keys = s->raw && s->want_stdin;
	int rc = check(s, c, logs, stream, &e);
	if (rc == 0 && s->has_keys)
		rc = detach_keys_parse(http_query(r, "detachKeys"), &s->keys, &e);
	if (rc == 0)
		rc = open_source(s, c, logs, stream, &e);
	if (rc != 0) {
		api_reply_err(r, &e);
		attach_free(s);
		return;
	}
	s->h = http_hijack(r, frame_content_type(r, s->raw), on_data, on_closed, s);
	pause_source(s, true);
	s->first = timer_new(l->loop, on_sent, s);
	timer_start(s->first, FIRST_OUTPUT_MS);
}

void api_container_attach_register(struct api_local *l)
{
	api_route(l->api, "POST", "/containers/{id}/attach", attach, l);
}
