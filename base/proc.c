/* Running a program to its end.
 *
 * The child gets its input from a sealed memory file (so that nothing here can block or be hit by
 * SIGPIPE) and writes into two pipes that the loop reads. When it has exited, what is left in the
 * pipes is read at once and they are closed, without waiting for their end: a daemon that it started
 * (conmon) may hold them for ever. When every handle is closed, the callback comes.
 *
 * Failing: a program that cannot be started is an error of proc_run, and no callback comes. A deadline
 * is SIGTERM and 2 s later SIGKILL; the callback comes when the child is really gone. */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#define DEFAULT_MAX_OUTPUT (64u * 1024)
#define KILL_AFTER_MS      2000
/* What is read after the exit, at most: a grandchild may write without end. */
#define DRAIN_MAX (4u * 1024 * 1024)

struct stream {
	struct proc *proc;
	uv_pipe_t pipe;
	bool is_stderr;
	bool open; /* the handle was initialised and is not being closed */
	struct buf *kept;
	struct buf line;
	bool line_cut; /* the line is over its bound: the rest of it is dropped */
};

struct proc {
	uv_process_t uv;
	uv_timer_t timer;
	struct stream out, err;
	struct proc_result result;
	size_t max_output;
	bool own_session;
	bool exited;
	unsigned n_handles; /* not yet closed */
	proc_line_cb on_line;
	proc_cb on_exit;
	void *data;
	char chunk[16 * 1024];
};

/* --- output ----------------------------------------------------------------------------------------- */

static void emit_line(struct stream *s)
{
	s->proc->on_line(s->proc->data, s->is_stderr, s->line.data ? s->line.data : "", s->line.len);
	buf_reset(&s->line);
	s->line_cut = false;
}

static void line_append(struct stream *s, const char *p, size_t n)
{
	size_t room = LIMIT_LOG_LINE - s->line.len;
	if (n > room) {
		n = room;
		s->line_cut = true;
	}
	buf_append(&s->line, p, n);
}

static void split_lines(struct stream *s, const char *p, size_t n)
{
	while (n) {
		const char *nl = memchr(p, '\n', n);
		size_t len = nl ? (size_t)(nl - p) : n;
		line_append(s, p, len);
		if (!nl)
			return;
		emit_line(s);
		p += len + 1;
		n -= len + 1;
	}
}

static void take_output(struct stream *s, const char *p, size_t n)
{
	size_t room = s->proc->max_output - s->kept->len;
	buf_append(s->kept, p, n < room ? n : room);
	if (s->proc->on_line)
		split_lines(s, p, n);
}

/* --- ending ----------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *h)
{
	struct proc *p = h->data;
	if (--p->n_handles)
		return;
	/* proc_run failed after handles were made: nobody is called. */
	if (p->exited && p->on_exit)
		p->on_exit(p->data, &p->result);
	buf_done(&p->result.out);
	buf_done(&p->result.err);
	buf_done(&p->out.line);
	buf_done(&p->err.line);
	free(p);
}

static void close_stream(struct stream *s)
{
	if (!s->open)
		return;
	s->open = false;
	if (s->proc->on_line && (s->line.len || s->line_cut))
		emit_line(s);
	uv_close((uv_handle_t *)&s->pipe, on_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
	struct proc *p = h->data;
	(void)suggested;
	*b = uv_buf_init(p->chunk, sizeof(p->chunk));
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct stream *s = CONTAINER_OF(h, struct stream, pipe);
	if (n > 0)
		take_output(s, b->base, (size_t)n);
	else if (n < 0)
		close_stream(s);
}

static void drain_and_close(struct stream *s)
{
	uv_os_fd_t fd;
	if (!s->open)
		return;
	uv_read_stop((uv_stream_t *)&s->pipe);
	if (uv_fileno((uv_handle_t *)&s->pipe, &fd) == 0) {
		for (size_t total = 0; total < DRAIN_MAX;) {
			ssize_t n = read(fd, s->proc->chunk, sizeof(s->proc->chunk));
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				break;
			take_output(s, s->proc->chunk, (size_t)n);
			total += (size_t)n;
		}
	}
	close_stream(s);
}

static void on_process_exit(uv_process_t *uv, int64_t status, int signum)
{
	struct proc *p = CONTAINER_OF(uv, struct proc, uv);
	p->exited = true;
	p->result.exit_code = signum ? -1 : (int)status;
	p->result.term_signal = signum;
	drain_and_close(&p->out);
	drain_and_close(&p->err);
	uv_close((uv_handle_t *)&p->timer, on_closed);
	uv_close((uv_handle_t *)&p->uv, on_closed);
}

void proc_kill(struct proc *p, int signum)
{
	if (p->exited)
		return;
	/* Until libuv has reaped it the pid cannot be anybody else's. */
	if (!p->own_session || kill(-p->uv.pid, signum) < 0)
		kill(p->uv.pid, signum);
}

static void on_timeout(uv_timer_t *t)
{
	struct proc *p = CONTAINER_OF(t, struct proc, timer);
	if (p->result.timed_out) {
		proc_kill(p, SIGKILL);
		return;
	}
	p->result.timed_out = true;
	proc_kill(p, SIGTERM);
	uv_timer_start(&p->timer, on_timeout, KILL_AFTER_MS, 0);
}

/* --- starting --------------------------------------------------------------------------------------- */

/* A descriptor that gives the input and then its end. */
static int open_input(const struct proc_opts *o, struct err *e)
{
	if (!o->stdin_len) {
		int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return fd < 0 ? err_errno(e, errno, "cannot open /dev/null") : fd;
	}
	CLEANUP_CLOSE int fd = memfd_create("stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return err_errno(e, errno, "cannot make a memory file");
	const char *data = o->stdin_data;
	for (size_t at = 0; at < o->stdin_len;) {
		ssize_t n = pwrite(fd, data + at, o->stdin_len - at, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "cannot write a memory file");
		at += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return err_errno(e, errno, "cannot seal a memory file");
	int r = fd;
	fd = -1;
	return r;
}

/* Makes the pipe of one stream and gives our end to the loop; *ret_fd is the child's end. */
static int open_stream(uv_loop_t *loop, struct stream *s, int *ret_fd, struct err *e)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, errno, "cannot make a pipe");
	int r = uv_pipe_init(loop, &s->pipe, 0);
	ASSERT(r == 0);
	s->pipe.data = s->proc;
	s->open = true;
	s->proc->n_handles++;
	r = uv_pipe_open(&s->pipe, fds[0]);
	if (r < 0) {
		close(fds[0]);
		close(fds[1]);
		return err_uv(e, r, "cannot open a pipe");
	}
	*ret_fd = fds[1];
	return 0;
}

static int spawn(
    uv_loop_t *loop, struct proc *p, const struct proc_opts *o, const int std_fds[3], struct err *e)
{
	size_t n = 3 + o->n_pass_fds;
	CLEANUP_FREE uv_stdio_container_t *stdio = xcalloc(n, sizeof(*stdio));
	for (size_t i = 0; i < n; i++) {
		stdio[i].flags = UV_INHERIT_FD;
		stdio[i].data.fd = i < 3 ? std_fds[i] : o->pass_fds[i - 3];
	}
	uv_process_options_t opts = {
	    .file = o->argv[0],
	    .args = (char **)o->argv,
	    .env = (char **)o->env,
	    .cwd = o->cwd,
	    .stdio = stdio,
	    .stdio_count = (int)n,
	    .exit_cb = on_process_exit,
	    .flags = o->own_session ? UV_PROCESS_DETACHED : 0,
	};
	/* Libraries open files without O_CLOEXEC, and what we inherited may lack it too. Passed
	 * descriptors are duplicates, so they are not affected. */
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	int r = uv_spawn(loop, &p->uv, &opts);
	/* libuv leaves the handle initialised when it fails: it has to be closed either way. */
	p->uv.data = p;
	p->n_handles++;
	return r < 0 ? err_uv(e, r, "cannot run %s", o->argv[0]) : 0;
}

static int start(uv_loop_t *loop, struct proc *p, const struct proc_opts *o, struct err *e)
{
	CLEANUP_CLOSE int in = -1;
	CLEANUP_CLOSE int out = -1;
	CLEANUP_CLOSE int err = -1;
	in = open_input(o, e);
	if (in < 0)
		return in;
	int r = open_stream(loop, &p->out, &out, e);
	if (r == 0)
		r = open_stream(loop, &p->err, &err, e);
	if (r == 0)
		r = spawn(loop, p, o, (int[3]){in, out, err}, e);
	return r;
}

static void abandon(struct proc *p, bool spawned)
{
	p->on_line = NULL;
	close_stream(&p->out);
	close_stream(&p->err);
	if (spawned)
		uv_close((uv_handle_t *)&p->uv, on_closed);
	uv_close((uv_handle_t *)&p->timer, on_closed);
}

int proc_run(uv_loop_t *loop, const struct proc_opts *o, struct proc **ret_proc, struct err *e)
{
	ASSERT(o->argv && o->argv[0]);
	struct proc *p = NEW(struct proc);
	p->max_output = o->max_output ? o->max_output : DEFAULT_MAX_OUTPUT;
	p->own_session = o->own_session;
	p->on_line = o->on_line;
	p->on_exit = o->on_exit;
	p->data = o->data;
	p->out.proc = p->err.proc = p;
	p->out.kept = &p->result.out;
	p->err.kept = &p->result.err;
	p->err.is_stderr = true;
	int r = uv_timer_init(loop, &p->timer);
	ASSERT(r == 0);
	p->timer.data = p;
	p->n_handles++;
	r = start(loop, p, o, e);
	if (r < 0) {
		abandon(p, p->uv.data);
		return r;
	}
	uv_read_start((uv_stream_t *)&p->out.pipe, on_alloc, on_read);
	uv_read_start((uv_stream_t *)&p->err.pipe, on_alloc, on_read);
	if (o->timeout_ms) {
		uv_update_time(loop);
		uv_timer_start(&p->timer, on_timeout, o->timeout_ms, 0);
	}
	if (ret_proc)
		*ret_proc = p;
	return 0;
}
