/* shoal exec: a process in a container of this node. Its streams travel on a raw connection; with a terminal
 * ours goes into raw mode and its size follows. The exit status is the process's; 126 and 127 when it cannot
 * be run or is not there. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/frames.h"

#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND  127

static volatile sig_atomic_t resized;

static void on_resize(int signum)
{
	(void)signum;
	resized = 1;
}

/* --- the terminal -------------------------------------------------------------------------------- */

static bool raw_mode(struct termios *old)
{
	if (tcgetattr(STDIN_FILENO, old) < 0)
		return false;
	struct termios t = *old;
	cfmakeraw(&t);
	return tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
}

/* A connection of its own: the other one is the process's. */
static void send_size(const struct cli *c, const char *id)
{
	struct winsize w;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || !w.ws_row)
		return;
	struct cli side = {.host = xstrdup(c->host),
	    .tls = c->tls,
	    .tls_verify = c->tls_verify,
	    .tls_ca = c->tls_ca,
	    .tls_cert = c->tls_cert,
	    .tls_key = c->tls_key};
	/* A process that has just ended needs no size. */
	api_post(&side, NULL, NULL, NULL, "/exec/%s/resize?h=%u&w=%u", id, w.ws_row, w.ws_col);
	api_close(&side);
	free(side.host);
}

/* --- the streams --------------------------------------------------------------------------------- */

/* What has come on the connection. *ret_end is set at its end. */
static int drain(struct conn *k, struct frames *f, bool *ret_end, struct err *e)
{
	char part[32768];
	for (;;) {
		ssize_t n = conn_read(k, part, sizeof(part));
		if (n == -EAGAIN || n == -EINTR)
			return 0;
		if (n <= 0) {
			*ret_end = true;
			return n == 0 || n == -ECONNRESET
				   ? 0
				   : err_errno(e, (int)-n, "lost the process's output");
		}
		int r = frames_feed(f, part, (size_t)n, e);
		if (r < 0)
			return r;
	}
}

/* Some of our standard input. *ret_open is cleared at its end. */
static int forward(struct conn *k, bool *ret_open)
{
	char part[32768];
	ssize_t n = read(STDIN_FILENO, part, sizeof(part));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	/* When it cannot be written the process is gone: its end is read next. */
	if (n <= 0 || conn_write(k, part, (size_t)n, NULL) < 0) {
		*ret_open = false;
		conn_shutdown(k);
	}
	return 0;
}

static int pump(struct cli *c, struct conn *k, struct frames *f, const char *id, bool input, struct err *e)
{
	bool end = false;
	int r = drain(k, f, &end, e);
	while (r == 0 && !end) {
		struct pollfd p[] = {{.fd = conn_fd(k), .events = POLLIN},
		    {.fd = input ? STDIN_FILENO : -1, .events = POLLIN}};
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return err_errno(e, errno, "poll");
		if (resized) {
			resized = 0;
			send_size(c, id);
			continue;
		}
		if (p[1].revents)
			forward(k, &input);
		if (p[0].revents)
			r = drain(k, f, &end, e);
	}
	return r;
}

static int attach(struct cli *c, const char *id, bool input, bool tty, struct err *e)
{
	struct buf rest = BUF_INIT;
	struct conn *k;
	json_t *body = json_pack("{s:b, s:b}", "Detach", false, "Tty", tty);
	struct winsize w;
	/* The terminal has its size from the beginning: a process may ask for it at once. */
	if (tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row)
		json_object_set_new(body, "ConsoleSize", json_pack("[i, i]", w.ws_row, w.ws_col));
	CLEANUP_FREE char *path = xasprintf("/exec/%s/start", id);
	int r = api_upgrade(c, path, body, &k, &rest, e);
	json_decref(body);
	if (r < 0)
		return r;
	struct termios old;
	bool raw = tty && input && isatty(STDIN_FILENO) && raw_mode(&old);
	struct sigaction act = {.sa_handler = on_resize};
	if (tty)
		sigaction(SIGWINCH, &act, NULL);
	struct frames f = {.raw = tty};
	r = rest.len ? frames_feed(&f, rest.data, rest.len, e) : 0;
	if (r == 0)
		r = pump(c, k, &f, id, input, e);
	if (raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
	frames_done(&f);
	buf_done(&rest);
	conn_free(k);
	return r;
}

/* --- the command --------------------------------------------------------------------------------- */

static json_t *make_config(const struct cli *c, bool input, bool tty, bool detach)
{
	json_t *cmd = json_array(), *env = json_array();
	const struct strlist *vars = cli_list(c, "env");
	for (int i = 1; i < c->argc; i++)
		json_array_append_new(cmd, json_string(c->argv[i]));
	for (size_t i = 0; i < vars->n; i++) {
		const char *own = strchr(vars->v[i], '=') ? NULL : getenv(vars->v[i]);
		json_array_append_new(
		    env, own ? json_sprintf("%s=%s", vars->v[i], own) : json_string(vars->v[i]));
	}
	json_t *body = json_pack("{s:b, s:b, s:b, s:b, s:b, s:o, s:o}", "AttachStdin", input && !detach,
	    "AttachStdout", !detach, "AttachStderr", !detach, "Tty", tty, "Privileged",
	    cli_bool(c, "privileged"), "Cmd", cmd, "Env", env);
	if (cli_given(c, "user"))
		json_object_set_new(body, "User", json_string(cli_str(c, "user")));
	if (cli_given(c, "workdir"))
		json_object_set_new(body, "WorkingDir", json_string(cli_str(c, "workdir")));
	return body;
}

/* The status for a process that could not be started, after saying why. */
static int cannot_start(const struct err *e)
{
	cli_error(e);
	if (strstr(e->text, "not found") || strstr(e->text, "no such file") ||
	    strstr(e->text, "No such file"))
		return EXIT_NOT_FOUND;
	return EXIT_CANNOT_RUN;
}

static int run_exec(struct cli *c, struct err *e)
{
	bool input = cli_bool(c, "interactive"), tty = cli_bool(c, "tty"), detach = cli_bool(c, "detach");
	if (tty && input && !detach && !isatty(STDIN_FILENO))
		return cli_usage(c, "the standard input is no terminal: leave out -t");
	CLEANUP_FREE char *container = api_escape(c->argv[0]);
	json_t *config = make_config(c, input, tty, detach), *made = NULL, *state = NULL;
	int r = api_post(c, config, &made, e, "/containers/%s/exec", container);
	json_decref(config);
	if (r < 0)
		return r;
	CLEANUP_FREE char *id = xstrdup(jstr(made, "Id"));
	json_decref(made);
	if (detach) {
		config = json_pack("{s:b, s:b}", "Detach", true, "Tty", tty);
		r = api_post(c, config, NULL, e, "/exec/%s/start", id);
		json_decref(config);
		return r < 0 ? cannot_start(e) : 0;
	}
	if ((r = attach(c, id, input, tty, e)) < 0)
		return str_has_prefix(e->text, "Error response") ? cannot_start(e) : r;
	if ((r = api_get(c, &state, e, "/exec/%s/json", id)) < 0)
		return r;
	if (jbool(state, "Running") || !json_is_integer(jpath(state, "ExitCode")))
		r = err_set(e, ERR_INTERNAL,
		    "the connection ended before the process did: its exit code is not known");
	else
		r = (int)(jint(state, "ExitCode") & 255);
	json_decref(state);
	return r;
}

static const struct cli_flag flags[] = {
    {"interactive", 'i', CLI_BOOL, NULL, "Connect our standard input to it", NULL},
    {"tty", 't', CLI_BOOL, NULL, "Give it a terminal", NULL},
    {"detach", 'd', CLI_BOOL, NULL, "Do not wait for it", NULL},
    {"env", 'e', CLI_LIST, "KEY=VALUE", "Environment variable", NULL},
    {"user", 'u', CLI_STR, "NAME|UID[:GROUP|GID]", "User that it runs as", NULL},
    {"workdir", 'w', CLI_STR, "DIR", "Its working directory", NULL},
    {"privileged", 0, CLI_BOOL, NULL, "Give it all capabilities", NULL}, {0}};

const struct cli_cmd cmd_exec = {
    .name = "exec",
    .args = "CONTAINER COMMAND [ARG...]",
    .brief = "Run a process in a container of this node",
    .about = "The exit status is the process's; 126: it could not be run, 127: there is no such program.",
    .examples = "shoal exec -it web.1 sh\n"
		"shoal exec 3f1c2b7a90de cat /etc/hosts\n"
		"shoal exec -i db psql <dump.sql",
    .flags = flags,
    .min_args = 2,
    .max_args = -1,
    .stop_at_arg = true,
    .kind = "container",
    .run = run_exec,
};
