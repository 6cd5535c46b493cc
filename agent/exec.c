/* Running a process in a container: conmon --exec in the container's mount namespace.
 *
 * conmon gives what is hard to get otherwise: the exact exit code of a process that is no child of ours, a
 * terminal with resizing, and output that waits for a slow reader. A session goes NEW, STARTING, RUNNING,
 * ENDED.
 *
 *   worker   process.json written, conmon started, its attach socket connected, then it may call the runtime
 *   loop     first report: the pid, or the runtime's words; output and input over the attach socket
 *   loop     second report: the exit code; when output has ended too, `ended`
 *
 * A conmon that is killed leaves the exit code unknown. Sessions are kept for EXEC_KEEP_MS after their end,
 * for inspection. Their processes live on when the daemon ends; a new daemon knows nothing of them. */
#include "agent/attach.h"
#include "agent/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define EXEC_KEEP_NS (300 * NS_PER_SEC)
#define EXEC_MAX     4096 /* sessions of all containers */
#define CMD_MAX      (1024u * 1024)
#define REPORT_MAX   (64u * 1024)
#define ATTACH_MS    10000

enum exec_state { EXEC_NEW, EXEC_STARTING, EXEC_RUNNING, EXEC_ENDED };

struct exec_session {
	struct engine *g;
	char id[ID_HEX_LEN + 1];
	char *container;
	struct strlist cmd, env;
	char **cmd_v, **env_v;
	struct exec_config cfg; /* points into the above */
	enum exec_state state;
	int64_t pid, exit_code;
	unsigned long long pid_start;
	int64_t ended_at;
	bool working; /* the worker has it */
	bool kill_asked;
	int kill_sig;
	/* starting */
	engine_cb started;
	void *started_data;
	struct exec_stdio io;
	bool has_io;
	unsigned rows, cols;
	struct image *image;
	struct err err;
	char *bundle;
	char *runtime; /* of the container, or NULL: the one in use */
	pid_t container_conmon;
	struct conmon_proc proc;
	int attach_fd;
	/* running */
	struct fd_watch *sync, *monitor;
	struct buf report;
	bool first_report, monitor_gone, output_ended, paused;
	struct attach_conn *conn;
};

/* --- sessions */

static void session_free(struct exec_session *s)
{
	ASSERT(!s->working);
	strmap_remove(&s->g->execs, s->id);
	fd_watch_free(s->sync);
	fd_watch_free(s->monitor);
	attach_free(s->conn);
	if (s->attach_fd >= 0)
		close(s->attach_fd);
	conmon_proc_done(&s->proc);
	buf_done(&s->report);
	image_unref(s->image);
	strlist_done(&s->cmd);
	strlist_done(&s->env);
	free(s->cmd_v);
	free(s->env_v);
	free((char *)(uintptr_t)s->cfg.user);
	free((char *)(uintptr_t)s->cfg.cwd);
	free((char *)(uintptr_t)s->cfg.detach_keys);
	free(s->container);
	free(s->bundle);
	free(s->runtime);
	free(s);
}

static void forget_old(struct engine *g)
{
	int64_t now = clock_mono_ns(g->clock);
	void *v;
	for (size_t it = 0; strmap_next(&g->execs, &it, NULL, &v);) {
		struct exec_session *s = v;
		bool idle = s->state == EXEC_ENDED && !s->working && !s->has_io && !s->monitor;
		if (idle && now - s->ended_at > EXEC_KEEP_NS)
			session_free(s);
	}
}

static struct exec_session *find(struct engine *g, const char *id, struct err *e)
{
	struct exec_session *s = strmap_get(&g->execs, id);
	if (!s)
		err_set(e, ERR_NOT_FOUND, "No such exec instance: %s", id);
	return s;
}

static int check_running(const struct ctr *c, struct err *e)
{
	if (c->rec->status == ST_PAUSED)
		return err_set(
		    e, ERR_CONFLICT, "Container %s is paused, unpause the container before exec", c->rec->id);
	if (!ctr_is_running(c) || c->starting)
		return err_set(e, ERR_CONFLICT, "container %s is not running", c->rec->id);
	return 0;
}

static int copy_list(struct strlist *to, char *const *from, const char *what, struct err *e)
{
	size_t total = 0;
	for (; from && *from; from++) {
		total += strlen(*from) + 1;
		if (total > CMD_MAX)
			return err_set(
			    e, ERR_TOO_LARGE, "the %s is over the bound of %u bytes", what, CMD_MAX);
		strlist_add(to, *from);
	}
	return 0;
}

int exec_create(
    struct engine *g, const char *container, const struct exec_config *cfg, char ret_id[65], struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, container, &local);
	if (!c)
		return err_copy(e, &local);
	int r = g->closing ? err_set(e, ERR_UNAVAILABLE, "the engine is closing") : check_running(c, e);
	if (r < 0)
		return r;
	if (!cfg->cmd || !cfg->cmd[0] || !cfg->cmd[0][0])
		return err_set(e, ERR_INVALID, "No exec command specified");
	if (cfg->cwd && cfg->cwd[0] && cfg->cwd[0] != '/')
		return err_set(
		    e, ERR_INVALID, "the working directory '%s' is not an absolute path", cfg->cwd);
	forget_old(g);
	if (strmap_len(&g->execs) >= EXEC_MAX)
		return err_set(e, ERR_UNAVAILABLE, "too many exec sessions: %d", EXEC_MAX);
	struct exec_session *s = NEW(struct exec_session);
	s->g = g;
	s->attach_fd = -1;
	s->proc = (struct conmon_proc){
	    .pidfd = -1, .sync_fd = -1, .attach_fd = -1, .start_fd = -1, .stderr_fd = -1};
	s->container = xstrdup(c->rec->id);
	s->exit_code = EXIT_UNKNOWN;
	id_new_hex(rng_system(), s->id);
	strmap_put(&g->execs, s->id, s);
	s->cfg = *cfg;
	s->cfg.user = xstrdup(cfg->user);
	s->cfg.cwd = xstrdup(cfg->cwd);
	s->cfg.detach_keys = xstrdup(cfg->detach_keys);
	r = copy_list(&s->cmd, cfg->cmd, "command", e);
	if (r == 0)
		r = copy_list(&s->env, cfg->env, "environment", e);
	if (r < 0) {
		session_free(s);
		return r;
	}
	s->cfg.cmd = s->cmd_v = strlist_argv(&s->cmd);
	s->cfg.env = s->env_v = strlist_argv(&s->env);
	memcpy(ret_id, s->id, ID_HEX_LEN + 1);
	CLEANUP_FREE char *words = strlist_join(&s->cmd, " ");
	CLEANUP_FREE char *action = xasprintf("exec_create: %s", words);
	const char *const attrs[] = {"execID", s->id, NULL};
	ctr_event(c, action, attrs);
	return 0;
}

/* --- the end */

static void remove_bundle(void *data)
{
	fs_remove_tree(data, NULL);
}

static void remove_bundle_done(void *data)
{
	free(data);
}

static void end_io(struct exec_session *s, const struct err *e)
{
	if (!s->has_io)
		return;
	s->has_io = false;
	s->io.ended(s->io.data, e);
}

static void set_ended(struct exec_session *s, int64_t code)
{
	struct ctr *c = strmap_get(&s->g->by_id, s->container);
	char text[24];
	s->state = EXEC_ENDED;
	s->exit_code = code;
	s->ended_at = clock_mono_ns(s->g->clock);
	if (!s->g->closing)
		loop_work(s->g->loop, remove_bundle, remove_bundle_done, TAKE_PTR(s->bundle));
	snprintf(text, sizeof(text), "%lld", (long long)code);
	const char *const attrs[] = {"execID", s->id, "exitCode", text, NULL};
	if (c)
		ctr_event(c, "exec_die", attrs);
}

static void maybe_end(struct exec_session *s)
{
	struct err none = ERR_INIT;
	if (s->state != EXEC_RUNNING || !s->monitor_gone || (s->conn && !s->output_ended))
		return;
	attach_free(TAKE_PTR(s->conn));
	set_ended(s, s->exit_code);
	end_io(s, &none);
}

static void read_reports(struct exec_session *s);

static void on_monitor(void *data)
{
	struct exec_session *s = data;
	int code;
	if (!spawn_reap(fd_watch_fd(s->monitor), &code))
		return;
	fd_watch_free(TAKE_PTR(s->monitor));
	s->monitor_gone = true;
	/* What it reported last. */
	if (s->sync)
		read_reports(s);
	maybe_end(s);
}

static void on_output(void *data, int stream, const uint8_t *p, size_t n)
{
	struct exec_session *s = data;
	if (s->has_io)
		s->io.output(s->io.data, stream, p, n);
}

static void on_output_ended(void *data)
{
	struct exec_session *s = data;
	s->output_ended = true;
	maybe_end(s);
}

static void on_drained(void *data)
{
	struct exec_session *s = data;
	if (s->has_io && s->io.drained)
		s->io.drained(s->io.data);
}

/* --- reports */

static void call_started(struct exec_session *s, const struct err *e)
{
	engine_cb cb = s->started;
	s->started = NULL;
	if (cb)
		cb(s->started_data, e);
}

static void start_failed(struct exec_session *s, const char *words)
{
	struct err e = ERR_INIT;
	bool missing = strstr(words, "not found") || strstr(words, "o such file");
	int64_t code = missing ? 127 : 126;
	if (s->err.code && !words[0])
		e = s->err;
	else
		err_set(&e, ERR_INVALID, "OCI runtime exec failed: exec failed: %s",
		    *words ? words : "unknown reason");
	s->has_io = false;
	attach_free(TAKE_PTR(s->conn));
	fd_watch_free(TAKE_PTR(s->sync));
	set_ended(s, code);
	call_started(s, &e);
}

static void take_first(struct exec_session *s, const struct conmon_report *rep)
{
	struct err none = ERR_INIT;
	struct ctr *c = strmap_get(&s->g->by_id, s->container);
	s->first_report = true;
	if (rep->data <= 0) {
		CLEANUP_FREE char *words = runtime_error_words(str_or(rep->message, ""));
		start_failed(s, words);
		return;
	}
	s->state = EXEC_RUNNING;
	s->pid = rep->data;
	s->pid_start = spawn_start_time((pid_t)rep->data);
	CLEANUP_FREE char *line = strlist_join(&s->cmd, " ");
	CLEANUP_FREE char *action = xasprintf("exec_start: %s", line);
	const char *const attrs[] = {"execID", s->id, NULL};
	if (c)
		ctr_event(c, action, attrs);
	call_started(s, &none);
	if (s->kill_asked)
		exec_kill(s->g, s->id, s->kill_sig, NULL);
	if (s->conn)
		attach_pause(s->conn, s->paused);
	maybe_end(s);
}

static void read_reports(struct exec_session *s)
{
	char chunk[4096];
	ssize_t n;
	while ((n = read(fd_watch_fd(s->sync), chunk, sizeof(chunk))) > 0)
		if (s->report.len < REPORT_MAX)
			buf_append(&s->report, chunk, (size_t)n);
	bool eof = n == 0;
	char *nl;
	while (s->report.data && (nl = memchr(s->report.data, '\n', s->report.len))) {
		struct conmon_report rep = {0};
		struct err e = ERR_INIT;
		size_t len = (size_t)(nl - s->report.data);
		int r = conmon_parse(s->report.data, len, &rep, &e);
		buf_consume(&s->report, len + 1);
		if (r == 0 && !s->first_report)
			take_first(s, &rep);
		else if (r == 0)
			s->exit_code = rep.data >= 0 ? rep.data : EXIT_UNKNOWN;
		free(rep.message);
		if (r < 0)
			log_warn("exec report id=%.12s error=\"%s\"", s->id, e.text);
		if (!s->sync)
			return;
	}
	if (!eof)
		return;
	fd_watch_free(TAKE_PTR(s->sync));
	if (!s->first_report && s->state == EXEC_STARTING) {
		CLEANUP_FREE char *text = conmon_stderr(&s->proc);
		start_failed(s, *text ? text : "conmon ended without a report");
	}
}

static void on_report(void *data)
{
	read_reports(data);
}

/* --- starting */

static int write_process(const struct exec_session *s, const Pb__ContainerConfig *c, struct err *e)
{
	CLEANUP_STRLIST struct strlist dirs = STRLIST_INIT;
	CLEANUP_FREE char *dir = ctr_dir(s->g, s->container);
	struct oci_user u = {0};
	json_t *p = NULL;
	strlist_take(&dirs, fs_path(dir, "upper"));
	for (size_t i = s->image->layers.n; i-- > 0;)
		strlist_add(&dirs, s->image->layers.v[i]);
	CLEANUP_FREE char *passwd = oci_read_image_file(dirs.v, dirs.n, "/etc/passwd");
	CLEANUP_FREE char *group = oci_read_image_file(dirs.v, dirs.n, "/etc/group");
	bool own = str_empty(s->cfg.user);
	int r = oci_user_resolve(
	    own ? c->user : s->cfg.user, own ? c->groups : NULL, own ? c->n_groups : 0, passwd, group, &u, e);
	struct oci_exec x = {.cmd = s->cmd_v,
	    .env = s->env_v,
	    .cwd = str_empty(s->cfg.cwd) ? NULL : s->cfg.cwd,
	    .user = &u,
	    .tty = s->cfg.tty,
	    .privileged = s->cfg.privileged,
	    .rows = s->rows,
	    .cols = s->cols};
	if (r == 0)
		r = oci_exec_process(c, s->container, &x, &p, e);
	oci_user_done(&u);
	if (r < 0)
		return r;
	CLEANUP_FREE char *text = oci_spec_text(p), *path = fs_path(s->bundle, "process.json");
	json_decref(p);
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	size_t n = strlen(text);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n)
		return err_errno(e, errno, "%s", path);
	return 0;
}

/* conmon says when its socket listens; only after we are on it may the process start, or its first output
 * would be lost. */
static int connect_output(struct exec_session *s, struct err *e)
{
	char line[256];
	struct pollfd p = {.fd = s->proc.attach_fd, .events = POLLIN};
	if (write(s->proc.start_fd, "1", 1) != 1)
		return err_errno(e, errno, "conmon");
	if (poll(&p, 1, ATTACH_MS) <= 0)
		return err_set(e, ERR_TIMEOUT, "conmon did not answer within 10 s");
	if (read(s->proc.attach_fd, line, sizeof(line)) <= 0) {
		CLEANUP_FREE char *text = conmon_stderr(&s->proc);
		return err_set(e, ERR_INTERNAL, "conmon ended at its start%s%s", *text ? ": " : "", text);
	}
	int r = attach_connect(s->bundle, &s->attach_fd, e);
	if (r == 0 && write(s->proc.start_fd, "1", 1) != 1)
		r = err_errno(e, errno, "conmon");
	return r;
}

static void start_work(void *data)
{
	struct exec_session *s = data;
	struct engine *g = s->g;
	char ns_path[64];
	CLEANUP_FREE char *process = fs_path(s->bundle, "process.json");
	snprintf(ns_path, sizeof(ns_path), "/proc/%d/ns/mnt", (int)s->container_conmon);
	CLEANUP_CLOSE int ns = open(ns_path, O_RDONLY | O_CLOEXEC);
	struct err *e = &s->err;
	if (ns < 0) {
		err_set(e, ERR_CONFLICT, "container %s is not running", s->container);
		return;
	}
	const struct runtime rt = runtime_that_made(&g->runtime, s->runtime, false); /* ns has the mounts */
	struct conmon_opts co = {.path = g->conmon_path,
	    .runtime = &rt,
	    .id = s->container,
	    .name = s->id,
	    .bundle = s->bundle,
	    .tty = s->cfg.tty,
	    .open_stdin = s->cfg.attach_stdin,
	    .process_file = process,
	    .attach = true,
	    .join_mountns = ns};
	if (conmon_start(&co, &s->proc, e) == 0 && connect_output(s, e) < 0)
		spawn_signal(s->proc.pidfd, SIGKILL);
}

static void start_done(void *data)
{
	struct exec_session *s = data;
	struct engine *g = s->g;
	s->working = false;
	if (s->proc.pidfd >= 0) {
		int fd = s->proc.pidfd;
		s->proc.pidfd = -1;
		s->monitor = fd_watch_new(g->loop, fd, on_monitor, s);
	}
	if (s->err.code || g->closing) {
		if (!s->err.code)
			err_set(&s->err, ERR_UNAVAILABLE, "the engine is closing");
		start_failed(s, "");
		if (g->closing)
			session_free(s);
		engine_pending_done(g);
		return;
	}
	const struct attach_handlers h = {on_output, on_output_ended, on_drained, s};
	int fd = s->proc.sync_fd;
	s->proc.sync_fd = -1;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	s->sync = fd_watch_new(g->loop, fd, on_report, s);
	fd = s->attach_fd;
	s->attach_fd = -1;
	s->conn = attach_new(g->loop, fd, &h);
	attach_pause(s->conn, true); /* until the caller knows that it started */
	engine_pending_done(g);
}

int exec_start(struct engine *g, const char *exec_id, const struct exec_stdio *stdio, unsigned rows,
    unsigned cols, engine_cb started, void *data, struct err *e)
{
	struct err local = ERR_INIT;
	struct exec_session *s = find(g, exec_id, &local);
	struct ctr *c = s ? engine_ctr(g, s->container, &local) : NULL;
	if (!c)
		return err_copy(e, &local);
	if (s->state == EXEC_RUNNING || s->state == EXEC_STARTING)
		return err_set(e, ERR_CONFLICT, "Error: Exec command %s is already running", exec_id);
	if (s->state == EXEC_ENDED)
		return err_set(e, ERR_CONFLICT, "Error: Exec command %s has already run", exec_id);
	int r = g->closing ? err_set(e, ERR_UNAVAILABLE, "the engine is closing") : check_running(c, e);
	if (r == 0)
		r = images_find(g->o.images, c->rec->config->image_id, &s->image, e);
	if (r < 0)
		return r;
	s->bundle = fs_path(g->execs_dir, s->id);
	s->rows = rows;
	s->cols = cols;
	s->container_conmon = (pid_t)c->rec->conmon_pid;
	free(s->runtime);
	s->runtime = xstrdup(c->rec->runtime);
	r = fs_mkdir_p(s->bundle, 0700, e);
	if (r < 0) {
		fs_remove_tree(s->bundle, NULL);
		free(TAKE_PTR(s->bundle));
		image_unref(TAKE_PTR(s->image));
		return r;
	}
	if (stdio) {
		s->io = *stdio;
		s->has_io = true;
	}
	s->started = started;
	s->started_data = data;
	s->state = EXEC_STARTING;
	s->working = true;
	/* Here, not in the worker: the configuration may go with the container. What is wrong with it (an
	 * unknown user) is an end of the session like any other: with an exit code. */
	write_process(s, c->rec->config, &s->err);
	g->pending++;
	loop_work(g->loop, start_work, start_done, s);
	return 0;
}

/* --- while it runs */

int exec_input(struct engine *g, const char *exec_id, const void *p, size_t n, struct err *e)
{
	struct err local = ERR_INIT;
	struct exec_session *s = find(g, exec_id, &local);
	if (!s)
		return err_copy(e, &local);
	if (!s->conn || s->state != EXEC_RUNNING)
		return err_set(e, ERR_CONFLICT, "exec %.12s is not running", exec_id);
	if (!s->cfg.attach_stdin)
		return 0;
	return attach_input(s->conn, p, n, e);
}

size_t exec_input_waiting(struct engine *g, const char *exec_id)
{
	struct exec_session *s = strmap_get(&g->execs, exec_id);
	return s && s->conn ? attach_input_waiting(s->conn) : 0;
}

void exec_pause_output(struct engine *g, const char *exec_id, bool paused)
{
	struct exec_session *s = strmap_get(&g->execs, exec_id);
	if (!s)
		return;
	s->paused = paused;
	if (s->conn && s->state == EXEC_RUNNING)
		attach_pause(s->conn, paused);
}

void exec_detach(struct engine *g, const char *exec_id)
{
	struct exec_session *s = strmap_get(&g->execs, exec_id);
	if (!s)
		return;
	s->has_io = false;
	s->paused = false;
	/* Goes on reading, so that the process does not wait for a reader that is gone. */
	if (s->conn && s->state == EXEC_RUNNING)
		attach_pause(s->conn, false);
}

int exec_kill(struct engine *g, const char *exec_id, int sig, struct err *e)
{
	struct err local = ERR_INIT;
	struct exec_session *s = find(g, exec_id, &local);
	if (!s)
		return err_copy(e, &local);
	if (s->state == EXEC_STARTING) {
		s->kill_asked = true;
		s->kill_sig = sig;
		/* The runtime hangs: it ends with its monitor, and the start fails. */
		if (s->monitor && sig == SIGKILL)
			spawn_signal(fd_watch_fd(s->monitor), SIGKILL);
		return 0;
	}
	if (s->state != EXEC_RUNNING)
		return err_set(e, ERR_CONFLICT, "exec %.12s is not running", exec_id);
	int fd = spawn_pidfd((pid_t)s->pid, s->pid_start);
	if (fd < 0)
		return 0;
	spawn_signal(fd, sig);
	close(fd);
	return 0;
}

int exec_resize(struct engine *g, const char *exec_id, unsigned rows, unsigned cols, struct err *e)
{
	struct err local = ERR_INIT;
	struct exec_session *s = find(g, exec_id, &local);
	if (!s)
		return err_copy(e, &local);
	if (s->state != EXEC_RUNNING || !s->bundle)
		return err_set(e, ERR_CONFLICT, "exec %.12s is not running", exec_id);
	return attach_resize(s->bundle, rows, cols, e);
}

int exec_inspect(struct engine *g, const char *exec_id, struct exec_info *ret, struct err *e)
{
	struct err local = ERR_INIT;
	const struct exec_session *s = find(g, exec_id, &local);
	if (!s)
		return err_copy(e, &local);
	ret->id = s->id;
	ret->container_id = s->container;
	ret->config = &s->cfg;
	ret->running = s->state == EXEC_RUNNING || s->state == EXEC_STARTING;
	ret->started = s->state != EXEC_NEW;
	ret->pid = s->pid;
	ret->exit_code = s->exit_code;
	return 0;
}

/* Its processes have ended with it; their monitors say so on their own. Sessions that were never started are
 * of no use any more. */
void exec_container_ended(struct engine *g, const char *container_id)
{
	void *v;
	for (size_t it = 0; strmap_next(&g->execs, &it, NULL, &v);) {
		struct exec_session *s = v;
		if (s->state == EXEC_NEW && str_eq(s->container, container_id))
			session_free(s);
	}
}

void exec_close_all(struct engine *g)
{
	struct err e = ERR_INIT;
	void *v;
	err_set(&e, ERR_CANCELLED, "the engine is closing");
	for (size_t it = 0; strmap_next(&g->execs, &it, NULL, &v);) {
		struct exec_session *s = v;
		if (s->state == EXEC_RUNNING)
			end_io(s, &e);
		if (s->working)
			continue; /* start_done ends it */
		if (s->state == EXEC_STARTING)
			call_started(s, &e);
		session_free(s);
	}
}
