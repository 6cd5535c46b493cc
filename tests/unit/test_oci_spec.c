/* The OCI spec: users, capabilities, seccomp, mounts, limits, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "agent/oci_spec.h"
#include "base/fs.h"
#include "base/mem.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "# comment\n"
			     "broken line\n"
			     "app:x:1000:1001:App:/home/app:/bin/sh\n"
			     "short:x:1100:1100\n";
static const char group[] = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nvideo:x:44:app\n";

static const struct oci_host host = {.id = ID, .rootfs = "/r", .cgroups_path = "/shoal/x", .netns = "/n"};

static Pb__ContainerConfig config(void)
{
	static char *cmd[] = {"/bin/sleep", "1"};
	Pb__ContainerConfig c = PB__CONTAINER_CONFIG__INIT;
	c.name = "t";
	c.image = "i";
	c.image_id = "sha256:0";
	c.cmd = cmd;
	c.n_cmd = 2;
	return c;
}

static json_t *build(const Pb__ContainerConfig *c)
{
	struct oci_user u = {.home = "/root"};
	struct err e = ERR_INIT;
	json_t *j = NULL;
	if (oci_spec_check(c, &e) < 0 || oci_spec_build(c, &u, &host, &j, &e) < 0)
		fail_msg("%s", e.text);
	return j;
}

static void refused(const Pb__ContainerConfig *c, const char *text)
{
	struct err e = ERR_INIT;
	assert_true(oci_spec_check(c, &e) < 0);
	if (!strstr(e.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, e.text);
}

static bool array_has(const json_t *a, const char *s)
{
	size_t i;
	json_t *v;
	json_array_foreach(
	    a, i, v) if (json_is_string(v) && strcmp(json_string_value(v), s) == 0) return true;
	return false;
}

static const json_t *path(const json_t *j, const char *keys)
{
	CLEANUP_STRLIST struct strlist l = STRLIST_INIT;
	strlist_split(&l, keys, '.');
	for (size_t i = 0; i < l.n && j; i++)
		j = json_object_get(j, l.v[i]);
	return j;
}

static const json_t *mount_at(const json_t *spec, const char *target)
{
	size_t i;
	json_t *v;
	json_array_foreach(path(spec, "mounts"), i,
	    v) if (strcmp(json_string_value(json_object_get(v, "destination")), target) == 0) return v;
	return NULL;
}

/* --- */

static void resolve(const char *user, uint32_t uid, uint32_t gid, const char *home, size_t n_groups)
{
	struct oci_user u;
	struct err e = ERR_INIT;
	if (oci_user_resolve(user, NULL, 0, passwd, group, &u, &e) < 0)
		fail_msg("%s: %s", user, e.text);
	assert_int_equal(u.uid, uid);
	assert_int_equal(u.gid, gid);
	assert_string_equal(u.home, home);
	assert_int_equal(u.n_groups, n_groups);
	oci_user_done(&u);
}

static void test_users(void **state)
{
	(void)state;
	resolve(NULL, 0, 0, "/root", 1);
	resolve("", 0, 0, "/root", 1);
	resolve("root", 0, 0, "/root", 1);
	resolve("app", 1000, 1001, "/home/app", 2);
	resolve("1000", 1000, 1001, "/home/app", 2);
	resolve("4242", 4242, 0, "/", 0);
	resolve("4242:4343", 4242, 4343, "/", 0);
	resolve("app:video", 1000, 44, "/home/app", 0);
	resolve("app:0", 1000, 0, "/home/app", 0);
	resolve("short", 1100, 1100, "/", 0);

	struct oci_user u;
	struct err e = ERR_INIT;
	assert_int_equal(oci_user_resolve("nobody", NULL, 0, passwd, group, &u, &e), ERR_INVALID);
	assert_string_equal(e.text, "unable to find user nobody: no matching entries in passwd file");
	assert_int_equal(oci_user_resolve("root", NULL, 0, NULL, NULL, &u, &e), ERR_INVALID);
	assert_int_equal(oci_user_resolve("root:nope", NULL, 0, passwd, group, &u, &e), ERR_INVALID);
	assert_string_equal(e.text, "unable to find group nope: no matching entries in group file");
	char *extra[] = {"video", "77"}, *bad[] = {"nope"};
	assert_int_equal(oci_user_resolve("app:app", extra, 2, passwd, group, &u, &e), 0);
	assert_int_equal(u.n_groups, 2);
	assert_int_equal(u.groups[0], 44);
	assert_int_equal(u.groups[1], 77);
	oci_user_done(&u);
	assert_int_equal(oci_user_resolve("app", bad, 1, passwd, group, &u, &e), ERR_INVALID);
	assert_int_equal(oci_user_resolve(NULL, NULL, 0, NULL, NULL, &u, &e), 0);
	oci_user_done(&u);
}

static void test_image_files(void **state)
{
	(void)state;
	char root[] = "/tmp/shoal-test-spec.XXXXXX";
	assert_non_null(mkdtemp(root));
	CLEANUP_FREE char *low = fs_path(root, "low/etc"), *top = fs_path(root, "top/etc");
	CLEANUP_FREE char *low_dir = fs_path(root, "low"), *top_dir = fs_path(root, "top");
	CLEANUP_FREE char *f = fs_path(low, "passwd"), *wh = fs_path(top, "passwd");
	char *dirs[] = {top_dir, low_dir};
	assert_int_equal(fs_mkdir_p(low, 0755, NULL), 0);
	assert_int_equal(fs_mkdir_p(top, 0755, NULL), 0);
	assert_int_equal(fs_write_atomic(f, "abc", 3, 0644, NULL), 0);
	CLEANUP_FREE char *text = oci_read_image_file(dirs, 2, "/etc/passwd");
	assert_string_equal(text, "abc");
	assert_null(oci_read_image_file(dirs, 2, "/etc/group"));
	if (mknod(wh, S_IFCHR, 0) == 0)
		assert_null(oci_read_image_file(dirs, 2, "/etc/passwd"));
	/* A link out of the layer leads nowhere. */
	unlink(wh);
	assert_int_equal(symlink("/../../../../../../etc/passwd", wh), 0);
	assert_null(oci_read_image_file(dirs, 1, "/etc/passwd"));
	fs_remove_tree(root, NULL);
}

static void test_capabilities(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	uint64_t base = oci_caps_default(), set;
	char *all[] = {"ALL"}, *net[] = {"net_admin"}, *chown_[] = {"CAP_CHOWN"}, *bad[] = {"FLY"};
	assert_int_equal(__builtin_popcountll(base), 14);
	assert_int_equal(oci_caps_apply(base, net, 1, chown_, 1, &set, &e), 0);
	assert_true(oci_caps_has(set, "NET_ADMIN"));
	assert_false(oci_caps_has(set, "CHOWN"));
	assert_int_equal(oci_caps_apply(base, NULL, 0, all, 1, &set, &e), 0);
	assert_int_equal(set, 0);
	assert_int_equal(oci_caps_apply(base, net, 1, all, 1, &set, &e), 0);
	assert_int_equal(__builtin_popcountll(set), 1);
	assert_int_equal(oci_caps_apply(base, all, 1, chown_, 1, &set, &e), 0);
	assert_int_equal(set, oci_caps_all() & ~UINT64_C(1));
	assert_int_equal(oci_caps_apply(base, bad, 1, NULL, 0, &set, &e), ERR_INVALID);
	assert_string_equal(e.text, "unknown capability \"FLY\"");
}

static bool allows(const json_t *seccomp, const char *name)
{
	size_t i;
	json_t *r;
	json_array_foreach(path(seccomp, "syscalls"), i,
	    r) if (strcmp(json_string_value(json_object_get(r, "action")), "SCMP_ACT_ALLOW") == 0 &&
		   array_has(json_object_get(r, "names"), name)) return true;
	return false;
}

static void test_seccomp(void **state)
{
	(void)state;
	json_t *d = oci_seccomp_default(oci_caps_default());
	assert_true(allows(d, "openat"));
	assert_true(allows(d, "chroot"));
	assert_true(allows(d, "clone"));
	assert_false(allows(d, "mount"));
	assert_false(allows(d, "keyctl"));
	assert_false(allows(d, "init_module"));
	assert_false(allows(d, "clone3"));
	assert_false(allows(d, "no_such_call"));
	CLEANUP_FREE char *bpf = oci_seccomp_compile(d);
	assert_non_null(bpf);
	json_decref(d);
	d = oci_seccomp_default(oci_caps_all());
	assert_true(allows(d, "mount"));
	assert_true(allows(d, "clone3"));
	json_decref(d);

	static const char custom[] =
	    "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":["
	    "{\"names\":[\"mkdir\",\"bogus_call\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":13},"
	    "{\"name\":\"rmdir\",\"action\":\"SCMP_ACT_ERRNO\",\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\"]}},"
	    "{\"names\":[\"unlink\"],\"action\":\"SCMP_ACT_ERRNO\",\"excludes\":{\"caps\":[\"CAP_CHOWN\"]}}]"
	    "}";
	struct err e = ERR_INIT;
	json_t *j = NULL;
	assert_int_equal(oci_seccomp_custom(custom, strlen(custom), oci_caps_default(), &j, &e), 0);
	assert_int_equal(json_array_size(path(j, "syscalls")), 1);
	json_decref(j);
	assert_int_equal(oci_seccomp_custom("{}", 2, 0, &j, &e), ERR_INVALID);
	assert_int_equal(oci_seccomp_custom("[", 1, 0, &j, &e), ERR_INVALID);
}

static void test_spec(void **state)
{
	(void)state;
	Pb__ContainerConfig c = config();
	json_t *j = build(&c);
	assert_string_equal(json_string_value(path(j, "hostname")), "0123456789ab");
	assert_true(array_has(path(j, "process.env"), "HOME=/root"));
	assert_true(array_has(path(j, "process.env"), "HOSTNAME=0123456789ab"));
	assert_false(array_has(path(j, "process.env"), "TERM=xterm"));
	assert_int_equal(json_array_size(path(j, "process.capabilities.bounding")), 14);
	assert_non_null(mount_at(j, "/dev/shm"));
	assert_null(path(j, "linux.resources.memory"));
	assert_non_null(path(j, "linux.seccomp"));
	json_decref(j);

	char *env[] = {"PATH=/x", "A=1=2"};
	char *entry[] = {"/entry"};
	Pb__Ulimit ul = PB__ULIMIT__INIT, *uls[] = {&ul};
	ul.name = "core";
	ul.has_soft = ul.has_hard = true;
	ul.soft = ul.hard = -1;
	Pb__ContainerMount m1 = PB__CONTAINER_MOUNT__INIT, m2 = m1, m3 = m1, *ms[] = {&m1, &m2, &m3};
	m1.type = "bind";
	m1.source = "/tmp";
	m1.target = "/a/b";
	m1.read_only = true;
	m2.type = "tmpfs";
	m2.target = "/a";
	m2.tmpfs_size = 1048576;
	m3.type = "tmpfs";
	m3.target = "/dev/shm";
	c.entrypoint = entry;
	c.n_entrypoint = 1;
	c.env = env;
	c.n_env = 2;
	c.tty = c.read_only = true;
	c.memory_bytes = 64 << 20;
	c.nano_cpus = 1500000000;
	c.pids_limit = 20;
	c.ulimits = uls;
	c.n_ulimits = 1;
	c.mounts = ms;
	c.n_mounts = 3;
	c.seccomp_mode = "unconfined";
	c.hostname = "h";
	j = build(&c);
	assert_true(array_has(path(j, "process.env"), "PATH=/x"));
	assert_true(array_has(path(j, "process.env"), "TERM=xterm"));
	assert_int_equal(json_array_size(path(j, "process.args")), 3);
	assert_int_equal(json_integer_value(path(j, "linux.resources.cpu.quota")), 150000);
	assert_int_equal(json_integer_value(path(j, "linux.resources.memory.limit")), 64 << 20);
	assert_int_equal(json_integer_value(path(j, "linux.resources.pids.limit")), 20);
	assert_true(json_is_true(path(j, "root.readonly")));
	assert_null(path(j, "linux.seccomp"));
	assert_true(array_has(json_object_get(mount_at(j, "/a/b"), "options"), "ro"));
	assert_true(array_has(json_object_get(mount_at(j, "/a"), "options"), "size=1048576"));
	CLEANUP_FREE char *text = oci_spec_text(j);
	assert_non_null(strstr(text, "\"hard\":18446744073709551615"));
	assert_non_null(strstr(text, "\"soft\":18446744073709551615"));
	/* The parent comes first; the user's /dev/shm takes the place of the default one. */
	assert_true(strstr(text, "\"/a\"") < strstr(text, "\"/a/b\""));
	const char *shm = strstr(text, "\"/dev/shm\"");
	assert_null(strstr(shm + 1, "\"/dev/shm\""));
	json_decref(j);
}

static void test_refusals(void **state)
{
	(void)state;
	Pb__ContainerConfig c = config();
	c.n_cmd = 0;
	refused(&c, "No command specified");
	c = config();
	c.memory_bytes = 1000;
	refused(&c, "Minimum memory limit allowed is 6MB");
	c = config();
	c.nano_cpus = 5;
	refused(&c, "CPU limit");
	c = config();
	c.stop_signal = "SIGFOO";
	refused(&c, "Invalid signal: SIGFOO");
	Pb__KV kv = PB__KV__INIT, *kvs[] = {&kv};
	kv.key = "kernel.panic";
	kv.value = "1";
	c = config();
	c.sysctls = kvs;
	c.n_sysctls = 1;
	refused(&c, "sysctl \"kernel.panic\" is not in a separate kernel namespace");
	kv.key = "net.ipv4.ip_forward";
	c.network_mode = "host";
	refused(&c, "host's network");
	c = config();
	char *caps[] = {"NOPE"};
	c.capability_add = caps;
	c.n_capability_add = 1;
	refused(&c, "unknown capability \"NOPE\"");
	Pb__Ulimit ul = PB__ULIMIT__INIT, *uls[] = {&ul};
	ul.name = "nofile";
	ul.soft = 10;
	ul.hard = 5;
	c = config();
	c.ulimits = uls;
	c.n_ulimits = 1;
	refused(&c, "soft limit must be less than or equal to hard limit: nofile=10:5");
	Pb__ContainerMount m = PB__CONTAINER_MOUNT__INIT, *ms[] = {&m};
	m.type = "bind";
	m.source = "/no/such/path";
	m.target = "/x";
	c = config();
	c.mounts = ms;
	c.n_mounts = 1;
	refused(&c, "invalid mount config for type \"bind\": bind source path does not exist: /no/such/path");
	m.source = "relative";
	refused(&c, "must be absolute");
	m.source = "/tmp";
	m.propagation = "sideways";
	refused(&c, "invalid propagation mode: sideways");
	m.type = "npipe";
	refused(&c, "mounts of type \"npipe\" are not supported");
	c = config();
	c.log_driver = "syslog";
	refused(&c, "log driver \"syslog\" is not supported");
	c = config();
	c.network_mode = "container:x";
	refused(&c, "network mode");
	c = config();
	c.seccomp_mode = "custom";
	refused(&c, "needs a profile");
	c = config();
	c.init = true;
	struct oci_user u = {.home = "/"};
	struct err e = ERR_INIT;
	json_t *j;
	assert_int_equal(oci_spec_build(&c, &u, &host, &j, &e), ERR_PRECONDITION);
	assert_non_null(strstr(e.text, "install the package \"tini\""));
}

static void test_signals(void **state)
{
	(void)state;
	int s;
	struct err e = ERR_INIT;
	assert_int_equal(oci_signal_parse("TERM", &s, &e), 0);
	assert_int_equal(s, SIGTERM);
	assert_int_equal(oci_signal_parse("sigusr1", &s, &e), 0);
	assert_int_equal(s, SIGUSR1);
	assert_int_equal(oci_signal_parse("9", &s, &e), 0);
	assert_int_equal(s, 9);
	assert_int_equal(oci_signal_parse("SIGRTMIN+3", &s, &e), 0);
	assert_int_equal(s, 37);
	assert_int_equal(oci_signal_parse("RTMAX", &s, &e), 0);
	assert_int_equal(s, 64);
	assert_int_equal(oci_signal_parse("0", &s, &e), ERR_INVALID);
	assert_int_equal(oci_signal_parse("65", &s, &e), ERR_INVALID);
	assert_int_equal(oci_signal_parse("RTMIN+31", &s, &e), ERR_INVALID);
	assert_int_equal(oci_signal_parse("", &s, &e), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_users),
	    cmocka_unit_test(test_image_files),
	    cmocka_unit_test(test_capabilities),
	    cmocka_unit_test(test_seccomp),
	    cmocka_unit_test(test_spec),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_signals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
