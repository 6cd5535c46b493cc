/* Processes in running containers: create, start, resize, inspect.
 *
 * A start that is not detached takes the connection over as soon as the engine has accepted it; input waits
 * until the process runs. If it cannot be started (no such program) the reason is a line of output and the
 * exit code 126 or 127, as docker does it: its client prints the one and exits with the other. A client that
 * goes leaves the process running, with its input closed. */
#include <string.h>

#include "base/mem.h"
#include "node/api/containers.h"
#include "node/api/detach_keys.h"

#define OUT_HIGH (1024u * 1024)
#define IN_HIGH  (256u * 1024)
#define WORDS    4096 /* of a command, of its environment */

/* --- reading bodies */

static int get_bool(const json_t *o, const char *key, bool *ret, struct err *e)
{
	const json_t *v = json_get(o, key);
	if (v && !json_is_boolean(v))
		return err_set(e, ERR_INVALID, "%s must be true or false", key);
	*ret = json_is_true(v);
	return 0;
}

static int get_str(const json_t *o, const char *key, const char **ret, struct err *e)
{
	const json_t *v = json_get(o, key);
	if (v && !json_is_string(v))
		return err_set(e, ERR_INVALID, "%s must be a string", key);
	*ret = v && *json_string_value(v) ? json_string_value(v) : NULL;
	return 0;
}

static int get_strings(const json_t *o, const char *key, struct strlist *ret, struct err *e)
{
	const json_t *a = json_get(o, key), *v;
	size_t i;
	if (a && (!json_is_array(a) || json_array_size(a) > WORDS))
		return err_set(e, ERR_INVALID, "%s must be a list of up to %d strings", key, WORDS);
	json_array_foreach(a, i, v)
	{
		if (!json_is_string(v))
			return err_set(e, ERR_INVALID, "%s[%zu] must be a string", key, i);
		strlist_add(ret, json_string_value(v));
	}
	return 0;
}

static int get_size(const json_t *o, unsigned *ret_rows, unsigned *ret_cols, struct err *e)
{
	const json_t *a = json_get(o, "ConsoleSize");
	unsigned v[2] = {0, 0};
	if (!a)
		return 0;
	for (size_t i = 0; i < 2; i++) {
		const json_t *n = json_array_size(a) == 2 ? json_array_get(a, i) : NULL;
		json_int_t x = json_is_integer(n) ? json_integer_value(n) : -1;
		if (x < 0 || x > UINT16_MAX)
			return err_set(e, ERR_INVALID, "ConsoleSize must be two numbers: height and width");
		v[i] = (unsigned)x;
	}
	*ret_rows = v[0];
	*ret_cols = v[1];
	return 0;
}

/* --- create */

static int read_config(
    const json_t *o, struct exec_config *c, struct strlist *cmd, struct strlist *env, struct err *e)
{
	struct detach_keys keys;
	int r = get_str(o, "User", &c->user, e);
	if (r == 0)
		r = get_str(o, "WorkingDir", &c->cwd, e);
	if (r == 0)
		r = get_str(o, "DetachKeys", &c->detach_keys, e);
	if (r == 0)
		r = detach_keys_parse(c->detach_keys, &keys, e);
	if (r == 0)
		r = get_bool(o, "Privileged", &c->privileged, e);
	if (r == 0)
		r = get_bool(o, "Tty", &c->tty, e);
	if (r == 0)
		r = get_bool(o, "AttachStdin", &c->attach_stdin, e);
	if (r == 0)
		r = get_bool(o, "AttachStdout", &c->attach_stdout, e);
	if (r == 0)
		r = get_bool(o, "AttachStderr", &c->attach_stderr, e);
	if (r == 0)
		r = get_strings(o, "Cmd", cmd, e);
	if (r == 0)
		r = get_strings(o, "Env", env, e);
	if (r == 0 && (cmd->n == 0 || str_empty(cmd->v[0])))
		r = err_set(e, ERR_INVALID, "No exec command specified");
	for (size_t i = 0; r == 0 && i < env->n; i++)
		if (!*env->v[i] || *env->v[i] == '=')
			r = err_set(e, ERR_INVALID, "invalid environment variable: %s", env->v[i]);
	return r;
}

static void create(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	struct exec_config cfg = {0};
	CLEANUP_STRLIST struct strlist cmd = STRLIST_INIT, env = STRLIST_INIT;
	char id[65];
	json_t *body;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	if (api_body_json(r, &body, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	int rc = read_config(body, &cfg, &cmd, &env, &e);
	if (rc == 0 && c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED)
		rc = err_set(
		    &e, ERR_CONFLICT, "Container %s is paused, unpause the container before exec", c->id);
	else if (rc == 0 && !container_is_running(c))
		rc = err_set(&e, ERR_CONFLICT, "Container %s is not running", c->id);
	CLEANUP_FREE char **cmd_v = strlist_argv(&cmd);
	CLEANUP_FREE char **env_v = strlist_argv(&env);
	cfg.cmd = cmd_v;
	cfg.env = env_v;
	if (rc == 0)
		rc = exec_create(l->engine, c->id, &cfg, id, &e);
	json_decref(body);
	if (rc != 0)
		api_reply_err(r, &e);
	else
		http_reply_json(r, 201, json_pack("{s:s}", "Id", id));
}

/* --- start, detached */

struct detached {
	struct http_req *r; /* NULL once the client has gone */
};

static void detached_gone(void *data)
{
	((struct detached *)data)->r = NULL;
}

static void detached_started(void *data, const struct err *e)
{
	struct detached *d = data;
	if (d->r && e->code)
		api_reply_err(d->r, e);
	else if (d->r)
		http_reply_empty(d->r, 200);
	free(d);
}

static void start_detached(
    struct api_local *l, struct http_req *r, const char *id, unsigned rows, unsigned cols)
{
	struct err e = ERR_INIT;
	struct detached *d = NEW(struct detached);
	d->r = r;
	if (exec_start(l->engine, id, NULL, rows, cols, detached_started, d, &e) != 0) {
		api_reply_err(r, &e);
		free(d);
		return;
	}
	http_on_closed(r, detached_gone, d);
}

/* --- start, attached */

struct session {
	struct api_local *l;
	struct http_req *r;
	struct http_hijack *h; /* NULL once the client has gone */
	char *id;
	bool raw, want_stdin, want_stdout, want_stderr;
	bool starting; /* the engine will say whether it runs */
	bool ended;    /* the engine says no more */
	bool has_keys;
	struct detach_keys keys;
	struct buf out;
};

static void session_free(struct session *s)
{
	buf_done(&s->out);
	free(s->id);
	free(s);
}

static void on_sent(void *data)
{
	struct session *s = data;
	exec_pause_output(s->l->engine, s->id, false);
}

static void send_output(struct session *s, int stream, const void *p, size_t n)
{
	buf_reset(&s->out);
	frame_append(&s->out, s->raw, stream, p, n);
	if (http_hijack_write(s->h, s->out.data, s->out.len) > OUT_HIGH && !s->ended) {
		exec_pause_output(s->l->engine, s->id, true);
		http_on_drained(s->r, on_sent, s);
	}
}

/* Nothing more comes from the engine. */
static void end(struct session *s, const struct err *e)
{
	s->ended = true;
	if (!s->h) {
		session_free(s);
		return;
	}
	if (e && e->code) {
		CLEANUP_FREE char *text = xasprintf("%s\r\n", e->text);
		send_output(s, 1, text, strlen(text));
	}
	/* What the client still sends is read and dropped, or closing would cut off what we sent. */
	http_hijack_pause(s->h, false);
	http_hijack_close(s->h);
}

static void on_output(void *data, int stream, const uint8_t *p, size_t n)
{
	struct session *s = data;
	if (s->h && (stream == 2 ? s->want_stderr : s->want_stdout))
		send_output(s, stream, p, n);
}

static void on_ended(void *data, const struct err *e)
{
	end(data, e);
}

static void on_input_taken(void *data)
{
	struct session *s = data;
	if (s->h && !s->starting)
		http_hijack_pause(s->h, false);
}

/* The process goes on without its client. */
static void leave(struct session *s)
{
	if (s->want_stdin && !s->has_keys)
		exec_input(s->l->engine, s->id, NULL, 0, NULL);
	exec_detach(s->l->engine, s->id);
	end(s, NULL);
}

static void on_started(void *data, const struct err *e)
{
	struct session *s = data;
	s->starting = false;
	if (e->code)
		end(s, e);
	else if (!s->h)
		leave(s);
	else
		http_hijack_pause(s->h, false);
}

static void on_data(void *data, const uint8_t *p, size_t n)
{
	struct session *s = data;
	struct engine *g = s->l->engine;
	CLEANUP_BUF struct buf in = BUF_INIT;
	if (s->ended || !s->want_stdin)
		return;
	if (s->has_keys && n) {
		bool detach = detach_keys_feed(&s->keys, p, n, &in);
		if (in.len)
			exec_input(g, s->id, in.data, in.len, NULL);
		if (detach) {
			leave(s);
			return;
		}
	} else {
		exec_input(g, s->id, p, n, NULL);
	}
	if (exec_input_waiting(g, s->id) > IN_HIGH)
		http_hijack_pause(s->h, true);
}

static void on_closed(void *data)
{
	struct session *s = data;
	s->h = NULL;
	if (s->ended)
		session_free(s);
	else if (!s->starting)
		leave(s);
}

static void start_attached(struct api_local *l, struct http_req *r, const struct exec_info *info, bool tty,
    unsigned rows, unsigned cols)
{
	struct err e = ERR_INIT;
	struct session *s = NEW(struct session);
	const struct exec_stdio io = {on_output, on_ended, s, on_input_taken};
	s->l = l;
	s->r = r;
	s->id = xstrdup(info->id);
	s->raw = tty;
	s->want_stdin = info->config->attach_stdin;
	s->want_stdout = info->config->attach_stdout;
	s->want_stderr = info->config->attach_stderr;
	s->has_keys = s->want_stdin && info->config->tty;
	s->starting = true;
	if (detach_keys_parse(info->config->detach_keys, &s->keys, &e) != 0 ||
	    exec_start(l->engine, s->id, &io, rows, cols, on_started, s, &e) != 0) {
		api_reply_err(r, &e);
		session_free(s);
		return;
	}
	s->h = http_hijack(r, frame_content_type(r, tty), on_data, on_closed, s);
	http_hijack_pause(s->h, true);
}

static void start(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	struct exec_info info;
	bool detach = false, tty = false;
	unsigned rows = 0, cols = 0;
	json_t *body = NULL;
	int rc = exec_inspect(l->engine, api_param(r, "id"), &info, &e);
	if (rc == 0)
		rc = api_body_json(r, &body, &e);
	if (rc == 0)
		rc = get_bool(body, "Detach", &detach, &e);
	if (rc == 0)
		rc = get_bool(body, "Tty", &tty, &e);
	if (rc == 0)
		rc = get_size(body, &rows, &cols, &e);
	if (rc == 0 && rows && !info.config->tty)
		rows = cols = 0; /* clients send it with everything */
	json_decref(body);
	if (rc != 0)
		api_reply_err(r, &e);
	else if (detach)
		start_detached(l, r, info.id, rows, cols);
	else
		start_attached(l, r, &info, tty, rows, cols);
}

/* --- resize, inspect */

static void resize(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	int64_t h = 0, w = 0;
	if (api_int_param(r, "h", -1, &h, &e) != 0 || api_int_param(r, "w", -1, &w, &e) != 0)
		api_reply_err(r, &e);
	else if (h < 0 || h > UINT16_MAX || w < 0 || w > UINT16_MAX)
		api_reply_errf(r, ERR_INVALID, "h and w must be between 0 and %d", UINT16_MAX);
	else if (exec_resize(l->engine, api_param(r, "id"), (unsigned)h, (unsigned)w, &e) != 0)
		api_reply_err(r, &e);
	else
		http_reply_empty(r, 200);
}

static void inspect(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	struct exec_info x;
	if (exec_inspect(l->engine, api_param(r, "id"), &x, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const struct exec_config *c = x.config;
	json_t *args = json_array();
	for (size_t i = 1; c->cmd[i]; i++)
		json_array_append_new(args, json_string(c->cmd[i]));
	json_t *process = json_pack("{s:b, s:s, s:o, s:b}", "tty", c->tty, "entrypoint", c->cmd[0],
	    "arguments", args, "privileged", c->privileged);
	if (c->user)
		json_object_set_new(process, "user", json_string(c->user));
	bool over = x.started && !x.running;
	http_reply_json(r, 200,
	    json_pack("{s:s, s:b, s:o, s:o, s:b, s:b, s:b, s:b, s:s, s:s, s:I}", "ID", x.id, "Running",
		x.running, "ExitCode", over ? json_integer(x.exit_code) : json_null(), "ProcessConfig",
		process, "OpenStdin", c->attach_stdin, "OpenStderr", c->attach_stderr, "OpenStdout",
		c->attach_stdout, "CanRemove", over, "ContainerID", x.container_id, "DetachKeys",
		str_or(c->detach_keys, ""), "Pid", (json_int_t)x.pid));
}

void api_exec_register(struct api_local *l)
{
	api_route(l->api, "POST", "/containers/{id}/exec", create, l);
	api_route(l->api, "POST", "/exec/{id}/start", start, l);
	api_route(l->api, "POST", "/exec/{id}/resize", resize, l);
	api_route(l->api, "GET", "/exec/{id}/json", inspect, l);
}
