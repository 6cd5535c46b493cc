/* What runs on the loop: timers, deferred calls, work on the thread pool, programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <cmocka.h>
#include <uv.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/rng.h"
#include "base/timer.h"

static int setup(void **state)
{
	uv_loop_t *loop = xmalloc(sizeof(*loop));
	*state = loop;
	return uv_loop_init(loop);
}

/* A handle that somebody forgot makes the close fail. */
static int teardown(void **state)
{
	int r = uv_loop_close(*state);
	free(*state);
	return r;
}

static int64_t now_ms(void)
{
	return clock_mono_ns(clock_system()) / NS_PER_MSEC;
}

/* --- timers ----------------------------------------------------------------------------------------- */

struct ticker {
	struct timer *timer;
	int fired;
	int again; /* how often to start anew */
	bool free_in_callback;
};

static void on_tick(void *data)
{
	struct ticker *t = data;
	t->fired++;
	if (t->again-- > 0)
		timer_start(t->timer, 1);
	else if (t->free_in_callback)
		timer_free(TAKE_PTR(t->timer));
}

static void test_timer(void **state)
{
	struct ticker t = {.again = 3, .free_in_callback = true};
	t.timer = timer_new(*state, on_tick, &t);
	assert_false(timer_armed(t.timer));
	timer_start(t.timer, 100000);
	assert_true(timer_armed(t.timer));
	timer_start(t.timer, 0);
	assert_int_equal(t.fired, 0);
	int64_t start = now_ms();
	uv_run(*state, UV_RUN_DEFAULT);
	assert_int_equal(t.fired, 4);
	assert_true(now_ms() - start < 10000);
	assert_null(t.timer);
}

static void test_timer_stopped_and_freed(void **state)
{
	struct ticker a = {0}, b = {0};
	a.timer = timer_new(*state, on_tick, &a);
	b.timer = timer_new(*state, on_tick, &b);
	timer_start(a.timer, 0);
	timer_start(b.timer, 0);
	timer_stop(a.timer);
	assert_false(timer_armed(a.timer));
	timer_free(a.timer);
	timer_free(b.timer);
	timer_free(NULL);
	uv_run(*state, UV_RUN_DEFAULT);
	assert_int_equal(a.fired + b.fired, 0);
}

/* A timer counts from the call, not from when the loop last looked at the clock. */
static void test_timer_after_long_callback(void **state)
{
	struct ticker t = {.free_in_callback = true};
	uv_update_time(*state);
	int64_t until = now_ms() + 30;
	while (now_ms() < until)
		;
	t.timer = timer_new(*state, on_tick, &t);
	timer_start(t.timer, 20);
	int64_t start = now_ms();
	uv_run(*state, UV_RUN_DEFAULT);
	assert_true(now_ms() - start >= 19);
}

struct trail {
	uv_loop_t *loop;
	struct buf b;
	int depth;
};

static void defer_a(void *data)
{
	buf_putc(&((struct trail *)data)->b, 'a');
}

static void defer_b(void *data)
{
	struct trail *t = data;
	buf_putc(&t->b, 'b');
	if (t->depth-- > 0) {
		loop_defer(t->loop, defer_a, t);
		buf_putc(&t->b, '.');
	}
}

static void test_defer(void **state)
{
	struct trail t = {.loop = *state, .depth = 1};
	loop_defer(*state, defer_a, &t);
	loop_defer(*state, defer_b, &t);
	loop_defer(*state, defer_b, &t);
	assert_int_equal(t.b.len, 0);
	uv_run(*state, UV_RUN_DEFAULT);
	assert_string_equal(t.b.data, "ab.ba");
	buf_done(&t.b);
}

struct job {
	uv_thread_t thread;
	int worked, done;
};

static void job_work(void *data)
{
	struct job *j = data;
	j->thread = uv_thread_self();
	j->worked++;
}

static void job_done(void *data)
{
	struct job *j = data;
	assert_int_equal(j->worked, 1);
	j->done++;
}

static void test_work(void **state)
{
	struct job jobs[50] = {0};
	for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
		loop_work(*state, job_work, job_done, &jobs[i]);
	uv_run(*state, UV_RUN_DEFAULT);
	uv_thread_t self = uv_thread_self();
	for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
		assert_int_equal(jobs[i].done, 1);
		assert_false(uv_thread_equal(&self, &jobs[i].thread));
	}
}

/* --- programs --------------------------------------------------------------------------------------- */

struct ran {
	int calls;
	struct proc_result r; /* copies of the buffers */
	struct buf lines;
	struct proc *proc;
	int kill_on_line;
};

static void on_exit_result(void *data, const struct proc_result *r)
{
	struct ran *x = data;
	x->calls++;
	x->r = *r;
	x->r.out = x->r.err = (struct buf)BUF_INIT;
	buf_append(&x->r.out, r->out.data, r->out.len);
	buf_append(&x->r.err, r->err.data, r->err.len);
}

static void on_line(void *data, bool is_stderr, const char *line, size_t len)
{
	struct ran *x = data;
	assert_true(len <= LIMIT_LOG_LINE);
	if (len > 100)
		buf_printf(&x->lines, "%d:%zu bytes|", is_stderr, len);
	else
		buf_printf(&x->lines, "%d:%.*s|", is_stderr, (int)len, line);
	if (x->kill_on_line)
		proc_kill(x->proc, x->kill_on_line);
}

static void ran_done(struct ran *x)
{
	buf_done(&x->r.out);
	buf_done(&x->r.err);
	buf_done(&x->lines);
}

#define ARGV(...)                                                                                            \
	(char *const[])                                                                                      \
	{                                                                                                    \
		__VA_ARGS__, NULL                                                                            \
	}

static void run(uv_loop_t *loop, struct ran *x, struct proc_opts o)
{
	struct err e = ERR_INIT;
	o.on_exit = on_exit_result;
	o.data = x;
	int r = proc_run(loop, &o, &x->proc, &e);
	if (r)
		print_error("%s\n", e.text);
	assert_int_equal(r, 0);
	assert_int_equal(x->calls, 0);
	uv_run(loop, UV_RUN_DEFAULT);
	assert_int_equal(x->calls, 1);
}

static void test_proc_output_and_code(void **state)
{
	struct ran x = {0};
	run(*state, &x, (struct proc_opts){.argv = ARGV("sh", "-c", "echo out; echo err >&2; exit 3")});
	assert_int_equal(x.r.exit_code, 3);
	assert_int_equal(x.r.term_signal, 0);
	assert_false(x.r.timed_out);
	assert_string_equal(x.r.out.data, "out\n");
	assert_string_equal(x.r.err.data, "err\n");
	ran_done(&x);
}

static void test_proc_environment(void **state)
{
	struct ran x = {0};
	run(*state, &x,
	    (struct proc_opts){.argv = ARGV("/bin/sh", "-c", "echo $FOO; pwd; cat; cat <&4"),
		.env = ARGV("FOO=bar", "PATH=/usr/bin:/bin"),
		.cwd = "/usr",
		.stdin_data = "in\n",
		.stdin_len = 3,
		.pass_fds = (int[]){STDERR_FILENO, open("/dev/null", O_RDONLY | O_CLOEXEC)},
		.n_pass_fds = 2});
	assert_int_equal(x.r.exit_code, 0);
	assert_string_equal(x.r.out.data, "bar\n/usr\nin\n");
	ran_done(&x);
}

static void test_proc_large_input(void **state)
{
	struct ran x = {0};
	size_t n = 3u << 20;
	char *data = xmalloc(n);
	memset(data, 'i', n);
	run(*state, &x,
	    (struct proc_opts){.argv = ARGV("cat"), .stdin_data = data, .stdin_len = n, .max_output = n + 1});
	assert_int_equal(x.r.out.len, n);
	assert_memory_equal(x.r.out.data, data, n);
	ran_done(&x);
	/* One that does not read its input at all. */
	x = (struct ran){0};
	run(*state, &x, (struct proc_opts){.argv = ARGV("true"), .stdin_data = data, .stdin_len = n});
	assert_int_equal(x.r.exit_code, 0);
	ran_done(&x);
	free(data);
}

static void test_proc_no_descriptors_leak(void **state)
{
	struct ran x = {0};
	int careless = open("/dev/null", O_RDONLY);
	assert_true(careless > 3);
	/* ls itself has 3 open on the directory. */
	run(*state, &x, (struct proc_opts){.argv = ARGV("ls", "/proc/self/fd")});
	assert_string_equal(x.r.out.data, "0\n1\n2\n3\n");
	close(careless);
	ran_done(&x);
}

static void test_proc_output_bound(void **state)
{
	struct ran x = {0};
	run(*state, &x,
	    (struct proc_opts){
		.argv = ARGV("sh", "-c", "head -c 500000 /dev/zero; head -c 10 /dev/zero >&2; exit 7"),
		.max_output = 1000});
	assert_int_equal(x.r.exit_code, 7);
	assert_int_equal(x.r.out.len, 1000);
	assert_int_equal(x.r.err.len, 10);
	ran_done(&x);
	x = (struct ran){0};
	run(*state, &x, (struct proc_opts){.argv = ARGV("head", "-c", "500000", "/dev/zero")});
	assert_int_equal(x.r.out.len, 65536);
	ran_done(&x);
}

static void test_proc_lines(void **state)
{
	struct ran x = {0};
	run(*state, &x,
	    (struct proc_opts){.argv = ARGV("sh", "-c", "printf 'one\\n\\ntwo'; printf ' more\\nlast' "),
		.on_line = on_line});
	assert_string_equal(x.lines.data, "0:one|0:|0:two more|0:last|");
	ran_done(&x);
	x = (struct ran){0};
	run(*state, &x,
	    (struct proc_opts){
		.argv = ARGV("sh", "-c", "head -c 200000 /dev/zero >&2; echo >&2; echo next >&2"),
		.on_line = on_line});
	assert_string_equal(x.lines.data, "1:65536 bytes|1:next|");
	ran_done(&x);
}

static void test_proc_missing(void **state)
{
	struct ran x = {0};
	struct err e = ERR_INIT;
	struct proc *p = NULL;
	struct proc_opts o = {.argv = ARGV("no-such-program-here"), .on_exit = on_exit_result, .data = &x};
	assert_int_equal(proc_run(*state, &o, &p, &e), ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "no-such-program-here"));
	assert_null(p);
	o.argv = ARGV("/etc/passwd");
	assert_int_equal(proc_run(*state, &o, &p, &e), ERR_IO);
	o.argv = ARGV("true");
	o.cwd = "/no-such-directory";
	assert_true(proc_run(*state, &o, &p, &e) < 0);
	uv_run(*state, UV_RUN_DEFAULT);
	assert_int_equal(x.calls, 0);
}

static void test_proc_signal(void **state)
{
	struct ran x = {.kill_on_line = SIGUSR1};
	run(*state, &x,
	    (struct proc_opts){.argv = ARGV("sh", "-c", "echo ready; exec sleep 1000"), .on_line = on_line});
	assert_int_equal(x.r.exit_code, -1);
	assert_int_equal(x.r.term_signal, SIGUSR1);
	ran_done(&x);
}

static void test_proc_deadline(void **state)
{
	struct ran x = {0};
	int64_t start = now_ms();
	run(*state, &x, (struct proc_opts){.argv = ARGV("sleep", "1000"), .timeout_ms = 50});
	assert_true(x.r.timed_out);
	assert_int_equal(x.r.term_signal, SIGTERM);
	assert_int_equal(x.r.exit_code, -1);
	assert_in_range(now_ms() - start, 50, 1900);
	ran_done(&x);
	/* One that catches SIGTERM and leaves in order still counts as timed out. */
	x = (struct ran){0};
	run(*state, &x,
	    (struct proc_opts){.argv = ARGV("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"),
		.timeout_ms = 300});
	assert_true(x.r.timed_out);
	assert_int_equal(x.r.exit_code, 5);
	ran_done(&x);
}

/* Deaf to SIGTERM, with a child in the same session: both are gone afterwards. */
static void test_proc_deadline_deaf(void **state)
{
	struct ran x = {0};
	run(*state, &x,
	    (struct proc_opts){
		.argv = ARGV("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 0.1; done"),
		.timeout_ms = 300,
		.own_session = true});
	assert_true(x.r.timed_out);
	assert_int_equal(x.r.term_signal, SIGKILL);
	pid_t child = (pid_t)strtol(x.r.out.data, NULL, 10);
	assert_true(child > 1);
	/* Its new parent reaps it when it likes: a zombie counts as gone. */
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)child);
	int64_t until = now_ms() + 5000;
	bool alive = true;
	while (alive && now_ms() < until) {
		char c;
		CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
		alive = fd >= 0 && read(fd, &c, 1) == 1;
	}
	assert_false(alive);
	ran_done(&x);
}

/* A daemon that keeps the pipes open does not keep the callback. */
static void test_proc_left_behind(void **state)
{
	struct ran x = {0};
	int64_t start = now_ms();
	run(*state, &x,
	    (struct proc_opts){.argv = ARGV("sh", "-c", "sleep 20 & echo $!"), .timeout_ms = 15000});
	assert_int_equal(x.r.exit_code, 0);
	assert_false(x.r.timed_out);
	assert_true(now_ms() - start < 5000);
	pid_t left = (pid_t)strtol(x.r.out.data, NULL, 10);
	assert_true(left > 1);
	assert_int_equal(kill(left, SIGKILL), 0);
	ran_done(&x);
}

static void test_proc_many(void **state)
{
	enum { N = 60 };
	static struct ran all[N];
	memset(all, 0, sizeof(all));
	for (int i = 0; i < N; i++) {
		char script[64];
		snprintf(script, sizeof(script), "echo %d; exit %d", i, i);
		struct proc_opts o = {
		    .argv = ARGV("sh", "-c", script), .on_exit = on_exit_result, .data = &all[i]};
		assert_int_equal(proc_run(*state, &o, NULL, NULL), 0);
	}
	uv_run(*state, UV_RUN_DEFAULT);
	for (int i = 0; i < N; i++) {
		assert_int_equal(all[i].calls, 1);
		assert_int_equal(all[i].r.exit_code, i);
		assert_int_equal(strtol(all[i].r.out.data, NULL, 10), i);
		ran_done(&all[i]);
	}
}

#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    LOOP_TEST(test_timer),
	    LOOP_TEST(test_timer_stopped_and_freed),
	    LOOP_TEST(test_timer_after_long_callback),
	    LOOP_TEST(test_defer),
	    LOOP_TEST(test_work),
	    LOOP_TEST(test_proc_output_and_code),
	    LOOP_TEST(test_proc_environment),
	    LOOP_TEST(test_proc_large_input),
	    LOOP_TEST(test_proc_no_descriptors_leak),
	    LOOP_TEST(test_proc_output_bound),
	    LOOP_TEST(test_proc_lines),
	    LOOP_TEST(test_proc_missing),
	    LOOP_TEST(test_proc_signal),
	    LOOP_TEST(test_proc_deadline),
	    LOOP_TEST(test_proc_deadline_deaf),
	    LOOP_TEST(test_proc_left_behind),
	    LOOP_TEST(test_proc_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
