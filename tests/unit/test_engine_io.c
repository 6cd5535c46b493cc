/* Exec, attaching, logs and health checks with real containers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "test_engine.h"

static struct te env;
#define T (&env)

static int setup(void **state)
{
	(void)state;
	te_init(T, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	te_done(T);
	return 0;
}

static int remove_all(void **state)
{
	(void)state;
	te_remove_all(T);
	return 0;
}

static void has(const char *text, const char *part)
{
	if (!text || !strstr(text, part))
		fail_msg("\"%s\" is not in \"%s\"", part, text ? text : "(null)");
}

/* --- exec */

struct session {
	struct te_done started;
	bool ended;
	struct buf out, err;
	const char *want; /* text that `out` is to hold */
};

static void on_output(void *data, int stream, const uint8_t *p, size_t n)
{
	struct session *s = data;
	buf_append(stream == 2 ? &s->err : &s->out, p, n);
}

static void on_ended(void *data, const struct err *e)
{
	struct session *s = data;
	(void)e;
	s->ended = true;
}

static bool is_over(void *data)
{
	struct session *s = data;
	return s->ended || (s->started.done && s->started.err.code);
}

static bool has_output(void *data)
{
	struct session *s = data;
	return s->out.data && strstr(s->out.data, s->want);
}

static void begin(const char *container, const struct exec_config *xc, struct session *s, char xid[65],
    unsigned rows, unsigned cols)
{
	struct err e = ERR_INIT;
	const struct exec_stdio io = {.output = on_output, .ended = on_ended, .data = s};
	if (exec_create(T->g, container, xc, xid, &e) < 0 ||
	    exec_start(T->g, xid, &io, rows, cols, te_cb, &s->started, &e) < 0)
		fail_msg("%s", e.text);
}

static int64_t end(struct session *s, const char *xid)
{
	struct exec_info info;
	struct err e = ERR_INIT;
	if (!test_loop_until(&T->loop, is_over, s, TE_WAIT_MS))
		fail_msg("the exec does not end: out \"%s\"", s->out.data ? s->out.data : "");
	assert_int_equal(exec_inspect(T->g, xid, &info, &e), 0);
	assert_false(info.running);
	assert_true(info.started);
	return info.exit_code;
}

static void done(struct session *s)
{
	buf_done(&s->out);
	buf_done(&s->err);
	*s = (struct session){0};
}

#define WORDS(...) ((char *[]){__VA_ARGS__, NULL})

static void test_exec(void **state)
{
	(void)state;
	char id[65], xid[65];
	struct session s = {0};
	struct err e = ERR_INIT;
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	struct exec_config xc = {
	    .cmd = WORDS("/bin/sh", "-c", "echo out; echo err >&2; echo $X; id -u; pwd; exit 9"),
	    .env = WORDS("X=y z"),
	    .user = "nobody",
	    .cwd = "/tmp",
	    .attach_stdout = true,
	    .attach_stderr = true};
	begin(id, &xc, &s, xid, 0, 0);
	assert_int_equal(end(&s, xid), 9);
	assert_string_equal(s.out.data, "out\ny z\n65534\n/tmp\n");
	assert_string_equal(s.err.data, "err\n");
	assert_int_equal(exec_start(T->g, xid, NULL, 0, 0, NULL, NULL, &e), ERR_CONFLICT);
	done(&s);

	xc = (struct exec_config){.cmd = WORDS("no-such-program")};
	begin(id, &xc, &s, xid, 0, 0);
	assert_int_equal(end(&s, xid), 127);
	has(s.started.err.text, "OCI runtime exec failed: exec failed: ");
	has(s.started.err.text, "exec: \"no-such-program\": executable file not found in $PATH");
	assert_false(s.ended);
	done(&s);

	xc.cmd = WORDS("/bin/sh", "-c", "kill -9 $$");
	begin(id, &xc, &s, xid, 0, 0);
	assert_int_equal(end(&s, xid), 137);
	done(&s);

	xc.user = "ghost";
	begin(id, &xc, &s, xid, 0, 0);
	assert_int_equal(end(&s, xid), 126);
	has(s.started.err.text, "unable to find user ghost");
	done(&s);
	xc.cmd = WORDS("");
	assert_int_equal(exec_create(T->g, id, &xc, xid, &e), ERR_INVALID);
	assert_int_equal(exec_inspect(T->g, "nope", &(struct exec_info){0}, &e), ERR_NOT_FOUND);
}

static void test_exec_input(void **state)
{
	(void)state;
	char id[65], xid[65];
	struct session s = {0};
	struct err e = ERR_INIT;
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	const struct exec_config xc = {
	    .cmd = WORDS("/bin/sh", "-c", "md5sum; echo end"), .attach_stdin = true, .attach_stdout = true};
	begin(id, &xc, &s, xid, 0, 0);
	te_wait(T, &s.started, "exec");
	/* More than a pipe and a packet hold. */
	char block[10000];
	memset(block, 'a', sizeof(block));
	for (int i = 0; i < 60; i++)
		assert_int_equal(exec_input(T->g, xid, block, sizeof(block), &e), 0);
	assert_true(exec_input_waiting(T->g, xid) > 0);
	assert_int_equal(exec_input(T->g, xid, NULL, 0, &e), 0);
	assert_int_equal(end(&s, xid), 0);
	/* md5 of 600000 times "a" */
	assert_string_equal(s.out.data, "09f901b937edaf5a12718c4753f563f4  -\nend\n");
	done(&s);
}

static void test_exec_tty(void **state)
{
	(void)state;
	char id[65], xid[65];
	struct session s = {0};
	struct err e = ERR_INIT;
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	const struct exec_config xc = {.cmd = WORDS("/bin/sh"),
	    .attach_stdin = true,
	    .attach_stdout = true,
	    .attach_stderr = true,
	    .tty = true};
	begin(id, &xc, &s, xid, 24, 80);
	te_wait(T, &s.started, "exec");
	assert_int_equal(s.started.err.code, 0);
	assert_int_equal(exec_resize(T->g, xid, 33, 111, &e), 0);
	const char *line = "tty && for i in 1 2 3 4 5 6 7 8 9; do stty size | grep '33 111' && break; sleep "
			   "0.1; done; echo $TERM-x\n";
	assert_int_equal(exec_input(T->g, xid, line, strlen(line), &e), 0);
	s.want = "xterm-x\r\n";
	if (!test_loop_until(&T->loop, has_output, &s, TE_WAIT_MS))
		fail_msg("%s", s.out.data ? s.out.data : "");
	has(s.out.data, "/dev/pts/");
	has(s.out.data, "33 111\r\n");
	assert_int_equal(exec_input(T->g, xid, "exit 5\n", 7, &e), 0);
	assert_int_equal(end(&s, xid), 5);
	done(&s);
}

/* A reader that is slow makes the process wait; nothing is lost. */
static void test_exec_much_output(void **state)
{
	(void)state;
	char id[65], xid[65];
	struct session s = {0};
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	const struct exec_config xc = {
	    .cmd = WORDS("/bin/sh", "-c", "dd if=/dev/zero bs=1000 count=2000 2>/dev/null"),
	    .attach_stdout = true};
	begin(id, &xc, &s, xid, 0, 0);
	te_wait(T, &s.started, "exec");
	exec_pause_output(T->g, xid, true);
	uint64_t t0 = uv_hrtime();
	while (uv_hrtime() - t0 < 200000000)
		uv_run(&T->loop, UV_RUN_NOWAIT);
	assert_true(s.out.len < 2000000);
	exec_pause_output(T->g, xid, false);
	assert_int_equal(end(&s, xid), 0);
	assert_int_equal(s.out.len, 2000000);
	done(&s);
}

static void test_exec_ends_with_container(void **state)
{
	(void)state;
	char id[65], xid[65];
	struct session s = {0};
	struct err e = ERR_INIT;
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	const struct exec_config xc = {.cmd = WORDS("sleep", "60"), .attach_stdout = true};
	begin(id, &xc, &s, xid, 0, 0);
	te_wait(T, &s.started, "exec");
	assert_int_equal(engine_kill(T->g, id, "KILL", &e), 0);
	assert_int_equal(end(&s, xid), 137);
	done(&s);
	te_wait_exit(T, id);
	assert_int_equal(exec_create(T->g, id, &xc, xid, &e), ERR_CONFLICT);
	has(e.text, "is not running");
}

/* --- attach */

static void test_attach(void **state)
{
	(void)state;
	char id[65];
	struct session s = {0};
	struct err e = ERR_INIT;
	struct engine_attach *a;
	const struct exec_stdio io = {.output = on_output, .ended = on_ended, .data = &s};
	Pb__ContainerConfig *c = TE_SHELL(T, "while read l; do echo got $l; done; exit 4");
	c->has_open_stdin = c->open_stdin = true;
	te_up(T, c, id);
	assert_int_equal(engine_attach(T->g, id, &io, &a, &e), 0);
	assert_int_equal(engine_attach_input(a, "hello\n", 6, &e), 0);
	s.want = "got hello\n";
	assert_true(test_loop_until(&T->loop, has_output, &s, TE_WAIT_MS));
	assert_int_equal(engine_kill(T->g, id, "KILL", &e), 0);
	assert_true(test_loop_until(&T->loop, is_over, &s, TE_WAIT_MS));
	engine_attach_close(a);
	te_wait_exit(T, id);
	assert_int_equal(engine_attach(T->g, id, &io, &a, &e), ERR_CONFLICT);
	done(&s);
}

/* --- logs */

static bool log_has_marker(void *data)
{
	struct te_log *l = data;
	return l->text.data && strstr(l->text.data, "marker");
}

static void test_logs_follow(void **state)
{
	(void)state;
	char id[65];
	struct te_log l = {0};
	struct log_reader *r;
	struct err e = ERR_INIT;
	te_up(T, TE_SHELL(T, "echo one; sleep 0.2; echo marker >&2; sleep 0.2; printf 'no newline'; exit 0"),
	    id);
	const struct log_reader_opts o = {
	    .follow = true, .want_stdout = true, .want_stderr = true, .tail = -1};
	assert_int_equal(log_reader_start(T->g, id, &o, te_log_line, te_log_end, &l, &r, &e), 0);
	assert_true(test_loop_until(&T->loop, log_has_marker, &l, TE_WAIT_MS));
	assert_false(l.ended);
	assert_true(test_loop_until(&T->loop, te_log_ended, &l, TE_WAIT_MS));
	assert_string_equal(l.text.data, "O:one\nE:marker\nO:no newline\n");
	log_reader_close(r);
	buf_done(&l.text);
	/* One stream; and a reader that is closed at once. */
	const struct log_reader_opts only = {.want_stderr = true, .tail = -1};
	l = (struct te_log){0};
	assert_int_equal(log_reader_start(T->g, id, &only, te_log_line, te_log_end, &l, &r, &e), 0);
	assert_true(test_loop_until(&T->loop, te_log_ended, &l, TE_WAIT_MS));
	assert_string_equal(l.text.data, "E:marker\n");
	log_reader_close(r);
	buf_done(&l.text);
	assert_int_equal(log_reader_start(T->g, id, &o, te_log_line, te_log_end, &l, &r, &e), 0);
	log_reader_close(r);
}

static void test_logs_tail(void **state)
{
	(void)state;
	char id[65];
	te_up(T,
	    TE_SHELL(T, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; "
			"dd if=/dev/zero bs=1000 count=30 2>/dev/null | tr '\\0' x; echo; echo last"),
	    id);
	assert_int_equal(te_wait_exit(T, id), 0);
	CLEANUP_FREE char *t0 = te_logs(T, id, 0), *t1 = te_logs(T, id, 1), *t2 = te_logs(T, id, 2),
			  *t4 = te_logs(T, id, 4), *all = te_logs(T, id, -1), *more = te_logs(T, id, 100000);
	assert_string_equal(t0, "");
	assert_string_equal(t1, "O:last\n");
	assert_int_equal(strlen(t2), 2 + 30000 + 1 + strlen("O:last\n")); /* a long line comes in one piece */
	assert_int_equal(strncmp(t4, "O:line 2998\nO:line 2999\nO:xxx", 29), 0);
	assert_int_equal(strncmp(all, "O:line 0\nO:line 1\n", 18), 0);
	assert_string_equal(all, more);
}

static size_t count_files(const char *path)
{
	size_t n = 0;
	for (int i = 1; i < 20; i++) {
		CLEANUP_FREE char *p = xasprintf("%s.%d", path, i);
		n += fs_exists(p);
	}
	return n;
}

static void test_logs_rotation(void **state)
{
	(void)state;
	char id[65];
	struct te_log l = {0};
	struct log_reader *r;
	struct err e = ERR_INIT;
	Pb__ContainerConfig *c = TE_SHELL(T,
	    "i=100; while [ $i -lt 700 ]; do echo line $i ..............................; i=$((i+1)); "
	    "[ $((i % 10)) = 0 ] && sleep 0.01; done");
	static const char *const options[][2] = {{"max-size", "10k"}, {"max-file", "3"}};
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		Pb__KV *kv = PB_NEW(Pb__KV, pb__kv);
		kv->key = xstrdup(options[i][0]);
		kv->value = xstrdup(options[i][1]);
		pb_add_msg(&c->log_options, &c->n_log_options, kv);
	}
	te_up(T, c, id);
	const struct log_reader_opts o = {
	    .follow = true, .want_stdout = true, .want_stderr = true, .tail = -1};
	assert_int_equal(log_reader_start(T->g, id, &o, te_log_line, te_log_end, &l, &r, &e), 0);
	assert_true(test_loop_until(&T->loop, te_log_ended, &l, TE_WAIT_MS));
	log_reader_close(r);
	/* The follower saw every line, in order, over all rotations. */
	const char *p = l.text.data;
	for (int i = 100; i < 700; i++) {
		char want[16];
		snprintf(want, sizeof(want), "O:line %d ", i);
		if (strncmp(p, want, strlen(want)) != 0)
			fail_msg("expected \"%s\" at \"%.40s\"", want, p);
		p = strchr(p, '\n') + 1;
	}
	assert_int_equal(l.n, 600);
	buf_done(&l.text);
	/* The disk holds three files, and what a reader gets of them ends with the last line and has no hole.
	 */
	CLEANUP_FREE char *path = engine_log_path(T->g, id), *all = te_logs(T, id, -1),
			  *tail = te_logs(T, id, 150);
	assert_int_equal(count_files(path), 2);
	int first = 0, n = 0;
	assert_int_equal(sscanf(all, "O:line %d", &first), 1);
	for (const char *q = all; *q; q = strchr(q, '\n') + 1)
		n++;
	assert_int_equal(first + n, 700);
	assert_true(n > 200 && n < 600);
	assert_int_equal(sscanf(tail, "O:line %d", &first), 1);
	assert_int_equal(first, 550);
	/* Options that mean nothing are refused. */
	c = TE_CONFIG(T, "true");
	Pb__KV *kv = PB_NEW(Pb__KV, pb__kv);
	kv->key = xstrdup("tag");
	kv->value = xstrdup("x");
	pb_add_msg(&c->log_options, &c->n_log_options, kv);
	assert_int_equal(te_create(T, c, id, &e), ERR_INVALID);
	has(e.text, "unknown log opt 'tag'");
}

/* --- health */

static bool is_healthy(void *data)
{
	(void)data;
	return strcmp(T->last_health, "healthy") == 0;
}

static bool is_unhealthy(void *data)
{
	(void)data;
	return strcmp(T->last_health, "unhealthy") == 0;
}

static void test_health(void **state)
{
	(void)state;
	char id[65];
	struct health_info info;
	Pb__ContainerConfig *c = TE_SHELL(T, "sleep 0.3; touch /ok; sleep 0.7; rm /ok; sleep 60");
	Pb__HealthConfig *h = PB_NEW(Pb__HealthConfig, pb__health_config);
	pb_add_str(&h->test, &h->n_test, "CMD-SHELL");
	pb_add_str(&h->test, &h->n_test, "echo checking; test -e /ok");
	h->has_interval = h->has_retries = h->has_start_period = h->has_start_interval = true;
	h->interval = 100 * NS_PER_MSEC;
	h->retries = 2;
	h->start_period = 10 * NS_PER_SEC;
	h->start_interval = 50 * NS_PER_MSEC;
	c->healthcheck = h;
	T->last_health[0] = '\0';
	te_up(T, c, id);
	assert_string_equal(te_find(T, id)->health, "starting");
	assert_true(test_loop_until(&T->loop, is_healthy, NULL, TE_WAIT_MS));
	assert_true(test_loop_until(&T->loop, is_unhealthy, NULL, TE_WAIT_MS));
	assert_true(engine_health(T->g, id, &info));
	assert_string_equal(info.status, "unhealthy");
	assert_true(info.failing_streak >= 2 && info.n_log >= 2);
	assert_string_equal(info.log[info.n_log - 1]->output, "checking\n");
	assert_int_equal(info.log[info.n_log - 1]->exit_code, 1);
}

static void test_health_timeout(void **state)
{
	(void)state;
	char id[65];
	struct health_info info;
	Pb__ContainerConfig *c = TE_CONFIG(T, "sleep", "60");
	Pb__HealthConfig *h = PB_NEW(Pb__HealthConfig, pb__health_config);
	pb_add_str(&h->test, &h->n_test, "CMD");
	pb_add_str(&h->test, &h->n_test, "sleep");
	pb_add_str(&h->test, &h->n_test, "50");
	h->has_interval = h->has_retries = h->has_timeout = true;
	h->interval = 50 * NS_PER_MSEC;
	h->timeout = 200 * NS_PER_MSEC;
	h->retries = 1;
	c->healthcheck = h;
	T->last_health[0] = '\0';
	te_up(T, c, id);
	assert_true(test_loop_until(&T->loop, is_unhealthy, NULL, TE_WAIT_MS));
	assert_true(engine_health(T->g, id, &info));
	assert_string_equal(info.log[0]->output, "Health check exceeded timeout (200ms)");
}

static void on_top(void *data, json_t *result, const struct err *e)
{
	struct te_done *d = data;
	d->done = true;
	d->err = *e;
	CLEANUP_FREE char *text = result ? json_dumps(result, JSON_COMPACT) : NULL;
	if (text)
		snprintf(d->err.text, sizeof(d->err.text), "%s", text);
	json_decref(result);
}

static void test_top(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	struct te_done d = {0};
	te_up(T, TE_CONFIG(T, "sleep", "4711"), id);
	for (int i = 0; i < 200 && !strstr(d.err.text, "sleep 4711\"]]}");
	     i++) { /* the runtime's last moments */
		d = (struct te_done){0};
		assert_int_equal(engine_top(T->g, id, NULL, on_top, &d, &e), 0);
		te_wait(T, &d, "top");
		assert_int_equal(d.err.code, 0);
	}
	has(d.err.text, "{\"Titles\":[\"UID\",\"PID\",");
	has(d.err.text, "sleep 4711\"]]}");
	assert_int_equal(engine_top(T->g, id, "-o pid;reboot", on_top, &d, &e), ERR_INVALID);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, remove_all)
	const struct CMUnitTest tests[] = {
	    CASE(test_exec),
	    CASE(test_exec_input),
	    CASE(test_exec_tty),
	    CASE(test_exec_much_output),
	    CASE(test_exec_ends_with_container),
	    CASE(test_attach),
	    CASE(test_logs_follow),
	    CASE(test_logs_tail),
	    CASE(test_logs_rotation),
	    CASE(test_health),
	    CASE(test_health_timeout),
	    CASE(test_top),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
