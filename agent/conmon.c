/* Starting conmon and reading what it reports.
 *
 * conmon runs as our child (--sync: one fork less; when the daemon dies, init adopts it), in its own session
 * and mount namespace, and reports over a pipe: for a container one line {"data": pid} or {"data": -1,
 * "message": "the runtime's words"}; for an exec a line like it and a second one {"data": exit code} at the
 * end. It ends without a report when its own options or directories are wrong: then its stderr has the
 * reason.
 *
 * Messages: conmon escapes most of what JSON wants but not all (0x1f, bytes above 0x7f as they are), so a
 * report that does not parse as JSON is read by hand. */
#include "agent/conmon.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#define MAX_ARGS 64

char *conmon_find(void)
{
	static const char *const places[] = {
	    "/usr/local/bin/conmon", "/usr/bin/conmon", "/usr/libexec/podman/conmon"};
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		if (access(places[i], X_OK) == 0)
			return xstrdup(places[i]);
	return NULL;
}

static int take_fd(int *fd)
{
	int v = *fd;
	*fd = -1;
	return v;
}

struct args {
	char *v[MAX_ARGS];
	size_t n;
};

static void add(struct args *a, const char *s)
{
	ASSERT(a->n < MAX_ARGS - 1);
	a->v[a->n++] = xstrdup(s);
}

static void add2(struct args *a, const char *option, const char *value)
{
	add(a, option);
	add(a, value);
}

static void build_args(struct args *a, const struct conmon_opts *o)
{
	char num[32];
	CLEANUP_FREE char *pid_file = fs_path(o->bundle, "pidfile");
	add(a, o->path);
	add2(a, "--api-version", "1");
	add2(a, "-c", o->id);
	add2(a, "-u", o->id);
	add2(a, "-n", o->name);
	add2(a, "-r", o->runtime->path);
	add2(a, "-b", o->bundle);
	add2(a, "-p", pid_file);
	add2(a, "--log-level", "error");
	add2(a, "--runtime-arg", "--root");
	add2(a, "--runtime-arg", o->runtime->root);
	add(a, "--sync");
	add(a, "--full-attach");
	add(a, "--no-sync-log");
	if (o->exit_dir)
		add2(a, "--exit-dir", o->exit_dir);
	if (o->log_path) {
		CLEANUP_FREE char *l = xasprintf("k8s-file:%s", o->log_path);
		add2(a, "-l", l);
		if (o->log_size_max > 0) {
			snprintf(num, sizeof(num), "%lld", (long long)o->log_size_max);
			add2(a, "--log-size-max", num);
		}
	} else {
		add2(a, "-l", "none");
	}
	if (o->tty)
		add(a, "-t");
	if (o->open_stdin)
		add(a, "-i");
	if (o->process_file) {
		add(a, "-e");
		add2(a, "--exec-process-spec", o->process_file);
		if (o->attach)
			add(a, "--exec-attach");
	} else if (o->open_stdin) {
		add(a, "--leave-stdin-open");
	}
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void conmon_proc_done(struct conmon_proc *p)
{
	close_fd(&p->pidfd);
	close_fd(&p->sync_fd);
	close_fd(&p->attach_fd);
	close_fd(&p->start_fd);
	close_fd(&p->stderr_fd);
}

int conmon_start(const struct conmon_opts *o, struct conmon_proc *ret, struct err *e)
{
	struct conmon_proc p = {.pidfd = -1, .sync_fd = -1, .attach_fd = -1, .start_fd = -1, .stderr_fd = -1};
	int sync[2] = {-1, -1}, att[2] = {-1, -1}, start[2] = {-1, -1}, pass[3];
	struct args a = {0};
	char *env[8];
	size_t n_env = 0, n_pass = 0;
	int r = 0;

	p.stderr_fd = memfd_create("conmon", MFD_CLOEXEC);
	if (p.stderr_fd < 0 || pipe2(sync, O_CLOEXEC) < 0 ||
	    (o->attach && (pipe2(att, O_CLOEXEC) < 0 || pipe2(start, O_CLOEXEC) < 0))) {
		r = err_errno(e, errno, "starting conmon");
		goto out;
	}
	for (char *const *v = runtime_env(); *v; v++)
		env[n_env++] = *v;
	env[n_env++] = (char *)(uintptr_t) "_OCI_SYNCPIPE=3";
	pass[n_pass++] = sync[1];
	if (o->attach) {
		env[n_env++] = (char *)(uintptr_t) "_OCI_ATTACHPIPE=4";
		env[n_env++] = (char *)(uintptr_t) "_OCI_STARTPIPE=5";
		pass[n_pass++] = att[1];
		pass[n_pass++] = start[0];
	}
	env[n_env] = NULL;
	build_args(&a, o);
	struct spawn_opts so = {.path = o->path,
	    .argv = a.v,
	    .env = env,
	    .cwd = o->bundle,
	    .stdin_fd = -1,
	    .stdout_fd = -1,
	    .stderr_fd = p.stderr_fd,
	    .pass_fds = pass,
	    .n_pass_fds = n_pass,
	    .join_mountns = o->join_mountns,
	    .new_mountns = !o->process_file,
	    .mounts = o->mounts,
	    .n_mounts = o->n_mounts};
	r = spawn_child(&so, &p.pid, &p.pidfd, e);
	if (r == 0) {
		p.sync_fd = take_fd(&sync[0]);
		p.attach_fd = take_fd(&att[0]);
		p.start_fd = take_fd(&start[1]);
	}
out:
	close_fd(&sync[0]);
	close_fd(&sync[1]);
	close_fd(&att[0]);
	close_fd(&att[1]);
	close_fd(&start[0]);
	close_fd(&start[1]);
	for (size_t i = 0; i < a.n; i++)
		free(a.v[i]);
	if (r < 0)
		conmon_proc_done(&p);
	else
		*ret = p;
	return r;
}

char *conmon_stderr(const struct conmon_proc *p)
{
	char text[2048];
	ssize_t n = p->stderr_fd >= 0 ? pread(p->stderr_fd, text, sizeof(text) - 1, 0) : 0;
	if (n < 0)
		n = 0;
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		n--;
	return xstrndup(text, (size_t)n);
}

/* --- reports */

static char *loose_message(const char *line, size_t n)
{
	static const char key[] = "\"message\": \"";
	const char *p = memmem(line, n, key, sizeof(key) - 1);
	if (!p)
		return NULL;
	p += sizeof(key) - 1;
	size_t len = (size_t)(line + n - p);
	while (len && p[len - 1] != '"')
		len--;
	struct buf b = BUF_INIT;
	for (size_t i = 0; len && i < len - 1; i++) {
		unsigned char c = (unsigned char)p[i];
		if (c == '\\' && i + 1 < len - 1)
			c = (unsigned char)(p[++i] == 'n' ? '\n' : p[i]);
		buf_putc(&b, c == '\n' || (c >= 0x20 && c < 0x7f) ? (char)c : '?');
	}
	return buf_take(&b, NULL);
}

int conmon_parse(const char *line, size_t n, struct conmon_report *ret, struct err *e)
{
	json_error_t je;
	json_t *j = json_loadb(line, n, 0, &je);
	if (j) {
		const json_t *d = json_object_get(j, "data"), *m = json_object_get(j, "message");
		if (!json_is_integer(d)) {
			json_decref(j);
			return err_set(e, ERR_CORRUPT, "conmon's report has no data");
		}
		ret->data = json_integer_value(d);
		ret->message = json_is_string(m) ? xstrdup(json_string_value(m)) : NULL;
		json_decref(j);
		return 0;
	}
	int data;
	CLEANUP_FREE char *copy = xstrndup(line, n < 64 ? n : 64);
	if (sscanf(copy, "{\"data\": %d", &data) != 1)
		return err_set(e, ERR_CORRUPT, "conmon's report cannot be read");
	ret->data = data;
	ret->message = loose_message(line, n);
	return 0;
}
