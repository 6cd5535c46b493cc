/* The engine killed with SIGKILL: containers live on, a new engine takes them up, ends are reported with
 * their true codes, half-done starts are cleaned up. A helper process owns the first engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <string.h>
#include <cmocka.h>

#include "test_engine.h"

static struct te env;
#define T (&env)

static int setup(void **state)
{
	(void)state;
	te_prepare(T, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	te_done(T);
	return 0;
}

/* Runs fn in a process of its own that then waits to be killed; returns its pid when it has written `n` bytes
 * into the pipe. */
static pid_t owner(void (*fn)(int fd), void *buf, size_t n)
{
	int p[2];
	assert_int_equal(pipe(p), 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(p[0]);
		te_begin(T);
		fn(p[1]);
		for (;;)
			uv_run(&T->loop, UV_RUN_ONCE);
	}
	close(p[1]);
	for (size_t got = 0; got < n;) {
		ssize_t r = read(p[0], (char *)buf + got, n - got);
		if (r <= 0)
			fail_msg("the owner of the engine ended");
		got += (size_t)r;
	}
	close(p[0]);
	return pid;
}

static void kill_owner(pid_t pid)
{
	int status;
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

enum { LIVES, ENDS, ORPHAN, MADE, ENDED, COUNT };
struct made {
	char id[COUNT][65];
	int64_t pid[COUNT], conmon[COUNT];
};

static void make_containers(int fd)
{
	struct made m = {0};
	struct err e = ERR_INIT;
	te_up(T, TE_SHELL(T, "trap 'exit 33' TERM; echo up; while :; do sleep 0.05; done"), m.id[LIVES]);
	te_up(T, TE_SHELL(T, "while [ ! -e /go ]; do sleep 0.02; done; echo bye; exit 5"), m.id[ENDS]);
	te_up(T, TE_CONFIG(T, "sleep", "60"), m.id[ORPHAN]);
	if (te_create(T, TE_CONFIG(T, "sleep", "60"), m.id[MADE], &e) < 0)
		te_die("create", &e);
	te_up(T, TE_SHELL(T, "exit 12"), m.id[ENDED]);
	te_wait_exit(T, m.id[ENDED]);
	for (int i = 0; i < COUNT; i++) {
		m.pid[i] = te_find(T, m.id[i])->pid;
		m.conmon[i] = te_find(T, m.id[i])->conmon_pid;
	}
	if (write(fd, &m, sizeof(m)) != sizeof(m))
		abort();
}

static void wait_gone(int64_t pid)
{
	for (int i = 0; i < 1000 && kill((pid_t)pid, 0) == 0; i++)
		usleep(5000);
	assert_int_equal(kill((pid_t)pid, 0), -1);
}

static bool has_ended(void *data)
{
	return te_find(T, data)->status == PB__CONTAINER_STATUS_KIND__E__EXITED;
}

static void test_killed_engine(void **state)
{
	(void)state;
	static struct made m;
	struct err e = ERR_INIT;
	pid_t pid = owner(make_containers, &m, sizeof(m));
	kill_owner(pid);

	/* What happens while nobody looks. */
	CLEANUP_FREE char *go = xasprintf("/proc/%d/root/go", (int)m.pid[ENDS]);
	assert_int_equal(fs_write_atomic(go, "", 0, 0644, &e), 0);
	wait_gone(m.conmon[ENDS]);
	kill((pid_t)m.conmon[ORPHAN], SIGKILL);
	wait_gone(m.conmon[ORPHAN]);

	te_begin(T);
	const Pb__Container *c = te_find(T, m.id[LIVES]);
	assert_int_equal(c->status, PB__CONTAINER_STATUS_KIND__E__RUNNING);
	assert_int_equal(c->pid, m.pid[LIVES]);
	assert_int_equal(kill((pid_t)m.pid[LIVES], 0), 0);
	assert_true(test_loop_until(&T->loop, has_ended, m.id[ENDS], TE_WAIT_MS));
	assert_true(te_find(T, m.id[ENDS])->has_exit_code);
	assert_int_equal(te_find(T, m.id[ENDS])->exit_code, 5);
	CLEANUP_FREE char *log = te_logs(T, m.id[ENDS], -1);
	assert_string_equal(log, "O:bye\n");
	assert_true(test_loop_until(&T->loop, has_ended, m.id[ORPHAN], TE_WAIT_MS));
	assert_true(te_find(T, m.id[ORPHAN])->exit_unknown);
	assert_false(te_find(T, m.id[ORPHAN])->has_exit_code);
	wait_gone(m.pid[ORPHAN]);
	assert_int_equal(te_find(T, m.id[MADE])->status, PB__CONTAINER_STATUS_KIND__E__CREATED);
	assert_int_equal(te_find(T, m.id[ENDED])->exit_code, 12);
	assert_int_equal(T->n_die, 2);

	/* It is ours again: its end is seen, with its code; and those that wait can be started. */
	struct te_done d = {0};
	assert_int_equal(engine_stop(T->g, m.id[LIVES], NULL, -1, te_cb, &d, &e), 0);
	te_wait(T, &d, "stop");
	assert_int_equal(te_find(T, m.id[LIVES])->exit_code, 33);
	assert_int_equal(te_start(T, m.id[MADE], &e), 0);
	assert_int_equal(te_start(T, m.id[ORPHAN], &e), 0);
}

/* Closed in order: the same, without a kill. */
static void test_closed_engine(void **state)
{
	(void)state;
	char id[65];
	te_begin(T);
	te_up(T, TE_SHELL(T, "while [ ! -e /go ]; do sleep 0.02; done; exit 6"), id);
	int64_t pid = te_find(T, id)->pid;
	bool closed = false;
	te_close_engine(T);
	images_close(T->images, te_closed, &closed);
	assert_true(test_loop_until(&T->loop, test_loop_flag, &closed, TE_WAIT_MS));
	assert_true(test_loop_end(&T->loop));
	assert_int_equal(kill((pid_t)pid, 0), 0);
	te_begin(T);
	assert_int_equal(te_find(T, id)->pid, pid);
	CLEANUP_FREE char *go = xasprintf("/proc/%d/root/go", (int)pid);
	assert_int_equal(fs_write_atomic(go, "", 0, 0644, NULL), 0);
	assert_int_equal(te_wait_exit(T, id), 6);
}

enum { STORM = 16 };
static void storm(int fd)
{
	static char ids[STORM][65];
	static struct te_done d[STORM];
	struct err e = ERR_INIT;
	for (int i = 0; i < STORM; i++)
		if (te_create(T, TE_CONFIG(T, "sleep", "60"), ids[i], &e) < 0)
			te_die("create", &e);
	if (write(fd, "x", 1) != 1)
		abort();
	for (int i = 0; i < STORM; i++)
		if (engine_start(T->g, ids[i], te_cb, &d[i], &e) < 0)
			te_die("start", &e);
}

/* Processes that have our directory on their command line. */
static int processes(void)
{
	int n = 0;
	DIR *d = opendir("/proc");
	struct dirent *ent;
	while ((ent = readdir(d))) {
		CLEANUP_FREE char *path = xasprintf("/proc/%s/cmdline", ent->d_name);
		CLEANUP_BUF struct buf b = BUF_INIT;
		if (atoi(ent->d_name) > 0 && fs_read(path, 65536, &b, NULL) == 0 && b.len &&
		    memmem(b.data, b.len, T->exec_root, strlen(T->exec_root)))
			n++;
	}
	closedir(d);
	return n;
}

struct tally {
	int running, created, other;
};

static void count_one(void *data, const Pb__Container *c)
{
	struct tally *t = data;
	if (c->status == PB__CONTAINER_STATUS_KIND__E__RUNNING && kill((pid_t)c->pid, 0) == 0)
		t->running++;
	else if (c->status == PB__CONTAINER_STATUS_KIND__E__CREATED)
		t->created++;
	else
		t->other++;
}

static bool nothing_runs(void *data)
{
	(void)data;
	return processes() == 0;
}

/* Killed in the middle of many starts, at different moments: each container runs or does not, nothing is in
 * between. */
static void test_killed_while_starting(void **state)
{
	(void)state;
	for (int round = 0; round < 8; round++) {
		char x;
		pid_t pid = owner(storm, &x, 1);
		usleep((useconds_t)(5000 + round * 25000));
		kill_owner(pid);
		te_begin(T);
		struct tally t = {0};
		engine_each(T->g, count_one, &t);
		assert_int_equal(t.running + t.created, STORM);
		assert_int_equal(t.other, 0);
		/* Those that run really do: they answer to signals and their ends are seen. */
		te_remove_all(T);
		assert_true(test_loop_until(&T->loop, nothing_runs, NULL, 5000));
		bool closed = false;
		te_close_engine(T);
		images_close(T->images, te_closed, &closed);
		assert_true(test_loop_until(&T->loop, test_loop_flag, &closed, TE_WAIT_MS));
		assert_true(test_loop_end(&T->loop));
		struct cgroups *cg;
		assert_int_equal(cgroups_open(T->cgroup, &cg, NULL), 0);
		cgroups_remove_base(cg);
		CLEANUP_FREE char *base = cgroup_dir(cg, "", "pids");
		assert_false(fs_exists(base)); /* no group was left below it */
		cgroups_free(cg);
	}
	te_begin(T);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_killed_engine, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_closed_engine, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_killed_while_starting, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
