/* The container engine with real containers: starting, ends, signals, limits, isolation, refusals. */
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

static void test_runs_and_ends(void **state)
{
	(void)state;
	CLEANUP_FREE char *log = NULL;
	assert_int_equal(te_run(T, TE_SHELL(T, "echo out; echo err >&2; exit 3"), &log), 3);
	has(log, "O:out\n");
	has(log, "E:err\n");
	assert_int_equal(te_run(T, TE_CONFIG(T, "true"), NULL), 0);
	assert_int_equal(te_run(T, TE_SHELL(T, "sh -c 'kill -9 $$'; exit $?"), NULL), 137);
}

static void test_record(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	const Pb__Container *c = te_find(T, id);
	assert_int_equal(c->status, PB__CONTAINER_STATUS_KIND__E__RUNNING);
	assert_true(c->pid > 0 && c->conmon_pid > 0 && c->started_at > c->created_at);
	assert_int_equal(kill((pid_t)c->pid, 0), 0);
	assert_ptr_equal(te_find(T, c->config->name), c);
	char prefix[13], slash[64];
	snprintf(prefix, sizeof(prefix), "%.12s", id);
	assert_ptr_equal(te_find(T, prefix), c);
	snprintf(slash, sizeof(slash), "/%s", c->config->name);
	assert_ptr_equal(te_find(T, slash), c);
	assert_int_equal(engine_find(T->g, "nope", &c, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "No such container: nope");
	assert_int_equal(engine_start(T->g, id, NULL, NULL, &e), ERR_CONFLICT);
	assert_int_equal(engine_remove(T->g, id, false, NULL, NULL, &e), ERR_CONFLICT);
	has(e.text, "You cannot remove a running container");
	Pb__ContainerConfig *same = TE_CONFIG(T, "true");
	pb_set_str(&same->name, te_find(T, id)->config->name);
	char other[65];
	assert_int_equal(engine_create(T->g, same, NULL, NULL, NULL, other, &e), ERR_CONFLICT);
	has(e.text, "is already in use by container");
}

static void test_signals_and_stop(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	struct te_done d = {0};
	/* A trap that ends orderly. */
	te_up(T, TE_SHELL(T, "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"), id);
	te_wait_log(T, id, "ready");
	assert_int_equal(engine_stop(T->g, id, NULL, -1, te_cb, &d, &e), 0);
	te_wait(T, &d, "stop");
	assert_int_equal(te_find(T, id)->exit_code, 42);
	assert_true(te_find(T, id)->stop_requested);
	/* Nobody listens: killed after the grace period. */
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	d = (struct te_done){0};
	uint64_t t0 = uv_hrtime();
	assert_int_equal(engine_stop(T->g, id, NULL, 300 * NS_PER_MSEC, te_cb, &d, &e), 0);
	te_wait(T, &d, "stop");
	uint64_t ms = (uv_hrtime() - t0) / 1000000;
	assert_true(ms >= 290 && ms < 5000);
	assert_int_equal(te_find(T, id)->exit_code, 137);
	/* Stopping what has ended is no error. */
	d = (struct te_done){0};
	assert_int_equal(engine_stop(T->g, id, NULL, -1, te_cb, &d, &e), 0);
	assert_false(d.done);
	te_wait(T, &d, "stop");
	assert_int_equal(d.err.code, 0);
	assert_int_equal(engine_kill(T->g, id, NULL, &e), ERR_CONFLICT);
	has(e.text, "is not running");
	/* A signal by name, and one of its own. */
	Pb__ContainerConfig *c =
	    TE_SHELL(T, "trap 'exit 7' USR1; trap 'exit 8' QUIT; echo ready; while :; do sleep 0.05; done");
	pb_set_str(&c->stop_signal, "SIGQUIT");
	te_up(T, c, id);
	te_wait_log(T, id, "ready");
	d = (struct te_done){0};
	assert_int_equal(engine_stop(T->g, id, NULL, -1, te_cb, &d, &e), 0);
	te_wait(T, &d, "stop");
	assert_int_equal(te_find(T, id)->exit_code, 8);
	assert_int_equal(te_start(T, id, &e), 0); /* again */
	te_wait_log(T, id, "ready\nO:ready");
	assert_int_equal(engine_kill(T->g, id, "NOPE", &e), ERR_INVALID);
	assert_int_equal(engine_kill(T->g, id, "USR1", &e), 0);
	assert_int_equal(te_wait_exit(T, id), 7);
}

static void test_refusals(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	assert_int_equal(te_create(T, TE_CONFIG(T, "no-such-program"), id, &e), 0);
	assert_true(te_start(T, id, &e) < 0);
	has(e.text, "starting container failed: ");
	has(e.text, "exec: \"no-such-program\": executable file not found in $PATH");
	assert_int_equal(te_find(T, id)->exit_code, 127);
	assert_int_equal(te_find(T, id)->status, PB__CONTAINER_STATUS_KIND__E__CREATED);
	has(te_find(T, id)->error, "not found in $PATH");

	Pb__ContainerConfig *c = TE_CONFIG(T, "true");
	pb_set_str(&c->user, "ghost");
	assert_int_equal(te_create(T, c, id, &e), ERR_INVALID);
	assert_string_equal(e.text, "unable to find user ghost: no matching entries in passwd file");
	c = TE_CONFIG(T, "true");
	pb_set_str(&c->image_id, "sha256:0000000000000000000000000000000000000000000000000000000000000000");
	assert_int_equal(te_create(T, c, id, &e), ERR_NOT_FOUND);
	c = TE_CONFIG(T, "true");
	pb_set_str(&c->name, "bad name");
	assert_int_equal(te_create(T, c, id, &e), ERR_INVALID);
	c = TE_CONFIG(T, "true");
	Pb__ContainerMount *m = PB_NEW(Pb__ContainerMount, pb__container_mount);
	m->type = xstrdup("bind");
	m->source = xstrdup("/does/not/exist");
	m->target = xstrdup("/x");
	pb_add_msg(&c->mounts, &c->n_mounts, m);
	assert_int_equal(te_create(T, c, id, &e), ERR_INVALID);
	has(e.text, "bind source path does not exist: /does/not/exist");
}

static void test_user_and_caps(void **state)
{
	(void)state;
	CLEANUP_FREE char *log = NULL;
	Pb__ContainerConfig *c =
	    TE_SHELL(T, "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status");
	pb_set_str(&c->user, "1234:5678");
	pb_add_str(&c->groups, &c->n_groups, "77");
	assert_int_equal(te_run(T, c, &log), 0);
	has(log, "O:1234\nO:5678\nO:5678 77\nO:/\n");
	has(log, "CapEff:\t0000000000000000");
	free(TAKE_PTR(log));
	c = TE_SHELL(T, "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status");
	pb_add_str(&c->capability_drop, &c->n_capability_drop, "ALL");
	pb_add_str(&c->capability_add, &c->n_capability_add, "NET_BIND_SERVICE");
	c->has_no_new_privileges = c->no_new_privileges = true;
	assert_int_equal(te_run(T, c, &log), 0);
	has(log, "CapEff:\t0000000000000400");
	has(log, "NoNewPrivs:\t1");
	has(log, "Seccomp:\t2");
	free(TAKE_PTR(log));
	assert_int_equal(
	    te_run(T,
		TE_SHELL(T, "grep -E 'CapEff|Seccomp:' /proc/self/status; unshare -n true || echo refused"),
		&log),
	    0);
	has(log, "CapEff:\t00000000a80425fb");
	has(log, "refused");
	free(TAKE_PTR(log));
	c = TE_SHELL(T, "grep Seccomp: /proc/self/status");
	pb_set_str(&c->seccomp_mode, "unconfined");
	assert_int_equal(te_run(T, c, &log), 0);
	has(log, "Seccomp:\t0");
}

static void test_files_and_mounts(void **state)
{
	(void)state;
	CLEANUP_FREE char *log = NULL;
	Pb__ContainerConfig *c = TE_SHELL(T,
	    "touch /x 2>/dev/null && echo root writable; touch /t/x && echo tmpfs writable; stat -c %a /t;"
	    "cat /b/f; touch /b/y 2>/dev/null || echo bind read-only; cat /etc/hostname; grep extra "
	    "/etc/hosts;"
	    "ls -d /proc/1 /sys/fs/cgroup /dev/shm /dev/mqueue; cat /proc/kcore | wc -c; mount | grep -c "
	    "overlay");
	c->has_read_only = c->read_only = true;
	pb_set_str(&c->hostname, "myhost");
	pb_add_str(&c->hosts, &c->n_hosts, "10.1.2.3 extra");
	Pb__ContainerMount *m = PB_NEW(Pb__ContainerMount, pb__container_mount);
	m->type = xstrdup("tmpfs");
	m->target = xstrdup("/t");
	m->has_tmpfs_mode = true;
	m->tmpfs_mode = 0750;
	pb_add_msg(&c->mounts, &c->n_mounts, m);
	CLEANUP_FREE char *dir = fs_path(T->data_root, "bind"), *file = fs_path(dir, "f");
	assert_int_equal(fs_mkdir_p(dir, 0755, NULL), 0);
	assert_int_equal(fs_write_atomic(file, "bound\n", 6, 0644, NULL), 0);
	m = PB_NEW(Pb__ContainerMount, pb__container_mount);
	m->type = xstrdup("bind");
	m->source = xstrdup(dir);
	m->target = xstrdup("/b");
	m->has_read_only = m->read_only = true;
	pb_add_msg(&c->mounts, &c->n_mounts, m);
	assert_int_equal(te_run(T, c, &log), 0);
	assert_null(strstr(log, "root writable"));
	has(log, "tmpfs writable\nO:750\nO:bound\nO:bind read-only\nO:myhost\nO:10.1.2.3\textra\n");
	has(log, "/dev/mqueue\n");
	has(log, "\nO:0\n"); /* /proc/kcore is masked */
	/* Nothing of it is mounted on the host. */
	CLEANUP_BUF struct buf mounts = BUF_INIT;
	assert_int_equal(fs_read("/proc/self/mounts", 1 << 20, &mounts, NULL), 0);
	assert_null(strstr(mounts.data, T->data_root));
}

static void test_env_and_init(void **state)
{
	(void)state;
	CLEANUP_FREE char *log = NULL;
	Pb__ContainerConfig *c =
	    TE_SHELL(T, "echo $A-$PATH-$HOSTNAME; pwd; cat /proc/1/comm; ulimit -n; cat "
			"/proc/sys/net/ipv4/ip_default_ttl; cat /proc/self/oom_score_adj");
	pb_add_str(&c->env, &c->n_env, "A=b c");
	pb_set_str(&c->working_dir, "/made/here");
	pb_set_str(&c->hostname, "h");
	c->has_init = c->init = true;
	Pb__Ulimit *u = PB_NEW(Pb__Ulimit, pb__ulimit);
	u->name = xstrdup("nofile");
	u->has_soft = u->has_hard = true;
	u->soft = 123;
	u->hard = 456;
	pb_add_msg(&c->ulimits, &c->n_ulimits, u);
	Pb__KV *kv = PB_NEW(Pb__KV, pb__kv);
	kv->key = xstrdup("net.ipv4.ip_default_ttl");
	kv->value = xstrdup("77");
	pb_add_msg(&c->sysctls, &c->n_sysctls, kv);
	c->has_oom_score_adj = true;
	c->oom_score_adj = 321;
	assert_int_equal(te_run(T, c, &log), 0);
	has(log, "O:b "
		 "c-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin-h\nO:/made/"
		 "here\nO:docker-init\nO:123\nO:77\nO:321\n");
}

static void test_limits(void **state)
{
	(void)state;
	char id[65];
	Pb__ContainerConfig *c = TE_SHELL(T, "x=a; while :; do x=$x$x; done");
	c->has_memory_bytes = true;
	c->memory_bytes = 16 << 20;
	unsigned ooms = T->n_oom;
	te_up(T, c, id);
	assert_int_equal(te_wait_exit(T, id), 137);
	assert_true(te_find(T, id)->oom_killed);
	assert_int_equal(T->n_oom, ooms + 1);
	/* pids: the shell cannot fork without end. */
	CLEANUP_FREE char *log = NULL;
	c = TE_SHELL(T, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 3 & done 2>&1; jobs | wc -l");
	c->has_pids_limit = true;
	c->pids_limit = 6;
	te_run(T, c, &log);
	has(log, "can't fork");
}

static void test_pause(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	struct te_done d = {0};
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	assert_int_equal(engine_pause(T->g, id, true, te_cb, &d, &e), 0);
	te_wait(T, &d, "pause");
	assert_int_equal(d.err.code, 0);
	assert_int_equal(te_find(T, id)->status, PB__CONTAINER_STATUS_KIND__E__PAUSED);
	assert_int_equal(engine_pause(T->g, id, true, te_cb, &d, &e), ERR_CONFLICT);
	const struct exec_config xc = {.cmd = (char *[]){"true", NULL}};
	char xid[65];
	assert_int_equal(exec_create(T->g, id, &xc, xid, &e), ERR_CONFLICT);
	has(e.text, "is paused");
	d = (struct te_done){0};
	assert_int_equal(engine_pause(T->g, id, false, te_cb, &d, &e), 0);
	te_wait(T, &d, "unpause");
	assert_int_equal(te_find(T, id)->status, PB__CONTAINER_STATUS_KIND__E__RUNNING);
	d = (struct te_done){0};
	assert_int_equal(engine_pause(T->g, id, true, te_cb, &d, &e), 0);
	te_wait(T, &d, "pause");
	/* A paused one is stopped all the same. */
	d = (struct te_done){0};
	assert_int_equal(engine_stop(T->g, id, NULL, 100 * NS_PER_MSEC, te_cb, &d, &e), 0);
	te_wait(T, &d, "stop");
	assert_int_equal(te_find(T, id)->exit_code, 137);
}

static void test_remove_leaves_nothing(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	te_up(T, TE_CONFIG(T, "sleep", "60"), id);
	pid_t pid = (pid_t)te_find(T, id)->pid, conmon = (pid_t)te_find(T, id)->conmon_pid;
	CLEANUP_FREE char *cgroup = engine_cgroup_path(T->g, id, "pids");
	CLEANUP_FREE char *log = engine_log_path(T->g, id);
	assert_true(fs_exists(cgroup));
	struct te_done d = {0};
	struct te_exit gone = {0};
	struct engine_wait *w;
	assert_int_equal(engine_wait(T->g, id, "removed", te_exited, &gone, &w, &e), 0);
	assert_int_equal(engine_remove(T->g, id, true, te_cb, &d, &e), 0);
	te_wait(T, &d, "remove");
	assert_int_equal(d.err.code, 0);
	assert_true(gone.done);
	assert_int_equal(gone.code, 137);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(kill(conmon, 0), -1);
	assert_false(fs_exists(cgroup));
	assert_false(fs_exists(log));
	CLEANUP_FREE char *bundle = xasprintf("%s/containers/%s", T->exec_root, id),
			  *dir = xasprintf("%s/containers/%s", T->data_root, id);
	assert_false(fs_exists(bundle));
	assert_false(fs_exists(dir));
}

/* Removed while it is being started: both callbacks come, nothing is left. */
static void test_remove_while_starting(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	struct te_done s = {0}, r = {0};
	assert_int_equal(te_create(T, TE_CONFIG(T, "sleep", "60"), id, &e), 0);
	assert_int_equal(engine_start(T->g, id, te_cb, &s, &e), 0);
	assert_int_equal(engine_remove(T->g, id, true, te_cb, &r, &e), 0);
	te_wait(T, &r, "remove");
	assert_true(s.done);
	assert_int_equal(r.err.code, 0);
	const Pb__Container *c;
	assert_int_equal(engine_find(T->g, id, &c, &e), ERR_NOT_FOUND);
}

/* A task's container is mounted without syncs; it can be started again all the same, with what it had
 * written. */
static void test_task_container_again(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	struct te_done d = {0};
	assert_int_equal(
	    engine_create(T->g, TE_SHELL(T, "echo x >> /f; exit $(wc -l < /f)"), "task1", te_cb, &d, id, &e),
	    0);
	te_wait(T, &d, "create");
	for (int i = 1; i <= 3; i++) {
		if (te_start(T, id, &e) < 0)
			fail_msg("%s", e.text);
		assert_int_equal(te_wait_exit(T, id), i);
	}
	assert_string_equal(te_find(T, id)->task_id, "task1");
}

static void test_many_at_once(void **state)
{
	(void)state;
	enum { N = 20 };
	static char ids[N][65];
	struct te_done d[N] = {0};
	struct err e = ERR_INIT;
	for (int i = 0; i < N; i++)
		assert_int_equal(te_create(T, TE_CONFIG(T, "sleep", "60"), ids[i], &e), 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(engine_start(T->g, ids[i], te_cb, &d[i], &e), 0);
	for (int i = 0; i < N; i++) {
		te_wait(T, &d[i], "start");
		if (d[i].err.code)
			fail_msg("%s", d[i].err.text);
	}
}

static void test_stats_and_top(void **state)
{
	(void)state;
	char id[65];
	struct err e = ERR_INIT;
	struct container_stats st;
	Pb__ContainerConfig *c = TE_SHELL(T, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 61");
	c->has_memory_bytes = true;
	c->memory_bytes = 64 << 20;
	te_up(T, c, id);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(engine_stats(T->g, id, &st, &e), 0);
		if (st.cpu_total_ns > 5000000)
			break;
		usleep(10000);
	}
	assert_true(st.cpu_total_ns > 5000000);
	assert_true(st.mem_usage > 0);
	assert_int_equal(st.mem_limit, 64 << 20);
	assert_true(st.pids >= 1 && st.system_cpu_ns > st.cpu_total_ns);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, remove_all)
	const struct CMUnitTest tests[] = {
	    CASE(test_runs_and_ends),
	    CASE(test_record),
	    CASE(test_signals_and_stop),
	    CASE(test_refusals),
	    CASE(test_user_and_caps),
	    CASE(test_files_and_mounts),
	    CASE(test_env_and_init),
	    CASE(test_limits),
	    CASE(test_pause),
	    CASE(test_remove_leaves_nothing),
	    CASE(test_remove_while_starting),
	    CASE(test_task_container_again),
	    CASE(test_many_at_once),
	    CASE(test_stats_and_top),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
