/* Containers with a network: what they see of it, what the record says, and that nobody keeps another's
 * namespace. */
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
	te_init(T, true);
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

static void test_bridge(void **state)
{
	(void)state;
	char id[65];
	struct container_stats st;
	struct err e = ERR_INIT;
	Pb__ContainerConfig *c =
	    TE_SHELL(T, "ip -o -4 addr show eth0; cat /etc/hosts; grep -c nameserver /etc/resolv.conf; "
			"gw=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'); "
			"ping -c 1 -W 5 $gw >/dev/null && echo pinged; sleep 60");
	pb_set_str(&c->hostname, "me");
	te_up(T, c, id);
	const Pb__Container *r = te_find(T, id);
	assert_non_null(r->network);
	te_wait_log(T, id, "pinged");
	CLEANUP_FREE char *log = te_logs(T, id, -1), *addr = xstrdup(r->network->address);
	*strchr(addr, '/') = '\0'; /* the link's prefix is the network's own business */
	if (!strstr(log, addr))
		fail_msg("%s is not in %s", addr, log);
	CLEANUP_FREE char *line = xasprintf("O:%s\tme\n", addr);
	assert_non_null(strstr(log, line));
	assert_int_equal(engine_stats(T->g, id, &st, &e), 0);
	assert_true(st.rx_packets > 0 && st.tx_packets > 0);
}

static void test_host_and_none(void **state)
{
	(void)state;
	CLEANUP_FREE char *log = NULL, *log2 = NULL;
	Pb__ContainerConfig *c = TE_SHELL(T, "ls -l /proc/self/ns/net");
	pb_set_str(&c->network_mode, "host");
	assert_int_equal(te_run(T, c, &log), 0);
	char own[64];
	ssize_t n = readlink("/proc/self/ns/net", own, sizeof(own) - 1);
	own[n] = '\0';
	assert_non_null(strstr(log, own));
	c = TE_SHELL(T, "ip -o link | wc -l; ls /sys/class/net | grep -v -E "
			"'^(lo|tunl0|sit0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|ip6tnl0|ip6gre0)$' | wc -l");
	pb_set_str(&c->network_mode, "none");
	assert_int_equal(te_run(T, c, &log2), 0);
	assert_non_null(strstr(log2, "\nO:0\n"));
}

static void test_no_namespace_is_kept(void **state)
{
	(void)state;
	char a[65], b[65];
	struct err e = ERR_INIT;
	struct te_done d = {0};
	te_up(T, TE_CONFIG(T, "sleep", "60"), a);
	te_up(T, TE_CONFIG(T, "sleep", "60"), b);
	CLEANUP_FREE char *path = xasprintf("/proc/%lld/mountinfo", (long long)te_find(T, b)->conmon_pid);
	CLEANUP_BUF struct buf mounts = BUF_INIT;
	assert_int_equal(fs_read(path, 1 << 20, &mounts, &e), 0);
	assert_non_null(strstr(mounts.data, b));
	assert_null(strstr(mounts.data, a));
	/* The host's binds are untouched by that. */
	assert_true(fs_exists(te_find(T, a)->network->netns));
	assert_int_equal(engine_remove(T->g, a, true, te_cb, &d, &e), 0);
	te_wait(T, &d, "remove");
	assert_int_equal(d.err.code, 0);
	assert_int_equal(te_start(T, b, &e), ERR_CONFLICT);
}

static void test_ports(void **state)
{
	(void)state;
	char id[65], other[65];
	struct err e = ERR_INIT;
	for (int i = 0; i < 2; i++) {
		Pb__ContainerConfig *c = TE_SHELL(T, "sleep 60");
		Pb__ContainerPort *p = PB_NEW(Pb__ContainerPort, pb__container_port);
		p->container_port = 80;
		p->has_host_port = true;
		p->host_port = i == 0 ? 0 : te_find(T, id)->network->ports[0]->host_port;
		p->protocol = PB__PORT_PROTOCOL__E__TCP;
		pb_add_msg(&c->ports, &c->n_ports, p);
		if (i == 0) {
			te_up(T, c, id);
			assert_true(te_find(T, id)->network->ports[0]->host_port > 0);
			continue;
		}
		/* The same port again is refused, and nothing of the refused start is left. */
		assert_int_equal(te_create(T, c, other, &e), 0);
		assert_true(te_start(T, other, &e) < 0);
		assert_non_null(strstr(e.text, "is already in use"));
		assert_null(te_find(T, other)->network);
	}
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, remove_all)
	const struct CMUnitTest tests[] = {
	    CASE(test_bridge),
	    CASE(test_host_and_none),
	    CASE(test_no_namespace_is_kept),
	    CASE(test_ports),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
