/* The host network beside other people's packet filters: iptables, nftables, and Docker's own engine. */
#include "test_netbox.h"

static void tick(void *data)
{
	(void)data;
}

/* Turns the loop until the rule is there, at most 5 s. */
static bool wait_for(uv_loop_t *loop, const char *command)
{
	struct timer *t = timer_new(loop, tick, NULL);
	bool ok = false;
	for (int i = 0; i < 500 && !ok; i++) {
		timer_start(t, 10);
		uv_run(loop, UV_RUN_ONCE);
		ok = i % 5 == 4 && run(command) == 0;
	}
	timer_free(t);
	return ok;
}

static void test_foreign_firewall(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct hostnet *n;
	uv_loop_t loop;
	uv_loop_init(&loop);
	/* As Docker's engine leaves it, with a rule of the administrator's. */
	assert_int_equal(
	    run("iptables -P FORWARD DROP && iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER"
		" && iptables -A DOCKER-USER -p tcp --dport 81 -j DROP"),
	    0);
	assert_int_equal(hostnet_open(&loop, &env.o, &n, &e), 0);
	struct hostnet_endpoint a = attach(n, "a");
	static const char *const ids[] = {"a"};
	int s = server_in(a.netns_path, 80), s2 = server_in(a.netns_path, 81),
	    out = server_in(env.outside, 9000);
	publish(n, "web", false, 8000, 80, ids, 1);
	publish(n, "blocked", false, 8001, 81, ids, 1);
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
	assert_refused(env.outside, HOST_IP, 8001, ETIMEDOUT); /* the administrator's word counts */
	/* iptables still reads its table, and shows whose rules these are. */
	assert_int_equal(run("iptables -S FORWARD | grep -q 'shoal t: to containers'"), 0);

	/* Somebody reloads their firewall: noticed and put right. */
	assert_int_equal(run("iptables -F FORWARD"), 0);
	assert_true(wait_for(&loop, "iptables -S FORWARD | grep -q 'shoal t: to containers'"));
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_int_equal(run("nft flush ruleset"), 0);
	assert_true(wait_for(&loop, "nft list table ip shoal_t > /dev/null 2>&1"));
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);

	/* A firewall of another kind: its own table, everything that is left is rejected by a last rule. */
	assert_int_equal(
	    run("nft 'table inet fw { chain f { type filter hook forward priority 10; ct state established "
		"accept; counter reject; }; }'"),
	    0);
	assert_true(wait_for(&loop, "nft list table inet fw | grep -q 'shoal t: to containers'"));
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
	hostnet_destroy(n);
	assert_int_not_equal(run("nft list ruleset | grep -q shoal"), 0);
	assert_int_equal(run("nft flush ruleset"), 0);
	close(s);
	close(s2);
	close(out);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* Docker's engine in this namespace, with everything it keeps below our directory. Returns its pid. */
static pid_t start_dockerd(void)
{
	char *root CLEANUP_FREE = fs_path(env.dir, "docker"),
		   *log CLEANUP_FREE = fs_path(env.dir, "docker.log");
	char *data CLEANUP_FREE = xasprintf("--data-root=%s/data", root);
	char *exec CLEANUP_FREE = xasprintf("--exec-root=%s/exec", root);
	char *pid CLEANUP_FREE = xasprintf("--pidfile=%s/pid", root);
	char *host CLEANUP_FREE = xasprintf("--host=unix://%s/sock", root);
	struct err e = ERR_INIT;
	assert_int_equal(fs_mkdir_p(root, 0700, &e), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
		dup2(fd, 1);
		dup2(fd, 2);
		execl("/usr/sbin/dockerd", "dockerd", data, exec, pid, host, "--storage-driver=vfs",
		    (char *)NULL);
		_exit(127);
	}
	char *ping CLEANUP_FREE =
	    xasprintf("curl -sf -o /dev/null --max-time 1 --unix-socket %s/sock http://x/_ping", root);
	for (int i = 0; i < 300; i++) {
		if (run(ping) == 0)
			return child;
		usleep(100000);
	}
	fail_msg("dockerd did not start, see %s", log);
	return 0;
}

static void stop_dockerd(pid_t child)
{
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
}

static void test_docker_engine(void **state)
{
	(void)state;
	if (access("/usr/sbin/dockerd", X_OK) < 0 || access("/usr/bin/curl", X_OK) < 0) {
		print_message("dockerd or curl is not installed\n");
		skip();
	}
	struct err e = ERR_INIT;
	uv_loop_t loop;
	uv_loop_init(&loop);
	/* With routing off, Docker's engine turns it on and the FORWARD policy to drop. */
	assert_int_equal(fs_write_existing("/proc/sys/net/ipv4/ip_forward", "0", &e), 0);
	pid_t docker = start_dockerd();
	assert_int_equal(run("iptables -S FORWARD | grep -q -- '-P FORWARD DROP'"), 0);
	struct hostnet *n;
	assert_int_equal(hostnet_open(&loop, &env.o, &n, &e), 0);
	struct hostnet_endpoint a = attach(n, "a"), b = attach(n, "b");
	static const char *const ids[] = {"a"};
	char ip_b[16];
	address_of(&b, ip_b);
	int s = server_in(a.netns_path, 80), out = server_in(env.outside, 9000);
	publish(n, "web", false, 8000, 80, ids, 1);
	for (int round = 0; round < 2; round++) {
		assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
		assert_reached(HERE, "127.0.0.1", 8000, s, "172.18.0.1");
		assert_reached(b.netns_path, HOST_IP, 8000, s, ip_b);
		assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
		/* Again after the engine has restarted and written its rules anew. */
		stop_dockerd(docker);
		if (round == 0) {
			assert_int_equal(run("iptables -F FORWARD"), 0);
			docker = start_dockerd();
			assert_true(
			    wait_for(&loop, "iptables -S FORWARD | grep -q 'shoal t: to containers'"));
		}
	}
	hostnet_destroy(n);
	close(s);
	close(out);
	assert_int_equal(run("nft flush ruleset && ip link del docker0"), 0);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_foreign_firewall),
	    cmocka_unit_test(test_docker_engine),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
