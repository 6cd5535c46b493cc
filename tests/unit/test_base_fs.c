/* Files and trees in a directory of its own; as root also mount points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"

static char root[64];

static const char *at(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *p = paths[next++ % 8];
	snprintf(p, sizeof(paths[0]), "%s/%s", root, name);
	return p;
}

static int setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/shoal-test-fs.XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	int r = fs_remove_tree(root, &e);
	if (r)
		print_error("%s\n", e.text);
	return r;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(fs_write_atomic(at(name), text, strlen(text), 0600, NULL), 0);
}

static size_t count_entries(const char *path)
{
	size_t n = 0;
	DIR *d = opendir(path);
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_read(void **state)
{
	(void)state;
	CLEANUP_BUF struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	buf_puts(&b, ">");
	put("f", "hello");
	assert_int_equal(fs_read(at("f"), 5, &b, NULL), 0);
	assert_string_equal(b.data, ">hello");
	assert_int_equal(fs_read(at("f"), 4, &b, &e), ERR_TOO_LARGE);
	assert_int_equal(fs_read(at("none"), 4, &b, &e), ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "none"));
	assert_int_equal(fs_read(root, 100, &b, &e), ERR_IO);
	assert_string_equal(b.data, ">hello");
	buf_reset(&b);
	assert_int_equal(fs_read("/proc/self/status", 1 << 20, &b, NULL), 0);
	assert_non_null(strstr(b.data, "VmRSS"));
	assert_int_equal(fs_read("/proc/self/status", 10, &b, NULL), ERR_TOO_LARGE);
	buf_reset(&b);
	put("empty", "");
	assert_int_equal(fs_read(at("empty"), 0, &b, NULL), 0);
	assert_int_equal(b.len, 0);
	size_t n = 3000000;
	char *big = xcalloc(1, n);
	assert_int_equal(fs_write_atomic(at("big"), big, n, 0600, NULL), 0);
	assert_int_equal(fs_read(at("big"), n, &b, NULL), 0);
	assert_int_equal(b.len, n);
	assert_int_equal(fs_read(at("big"), n - 1, &b, NULL), ERR_TOO_LARGE);
	free(big);
}

static void test_write_atomic(void **state)
{
	(void)state;
	struct stat st;
	mode_t mask = umask(077);
	assert_int_equal(mkdir(at("w"), 0755), 0);
	assert_int_equal(fs_write_atomic(at("w/x"), "one", 3, 0644, NULL), 0);
	assert_int_equal(fs_write_atomic(at("w/x"), "three", 5, 0640, NULL), 0);
	umask(mask);
	assert_int_equal(stat(at("w/x"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(st.st_size, 5);
	/* A target that cannot be replaced leaves nothing beside. */
	struct err e = ERR_INIT;
	assert_int_equal(mkdir(at("w/dir"), 0755), 0);
	assert_int_equal(fs_write_atomic(at("w/dir"), "x", 1, 0600, &e), ERR_IO);
	assert_int_equal(count_entries(at("w")), 2);
	assert_int_equal(fs_write_atomic(at("none/x"), "x", 1, 0600, &e), ERR_NOT_FOUND);
	/* A relative name. */
	int cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(chdir(at("w")), 0);
	assert_int_equal(fs_write_atomic("rel", "x", 1, 0600, NULL), 0);
	assert_int_equal(fchdir(cwd), 0);
	close(cwd);
	assert_true(fs_exists(at("w/rel")));
}

/* Readers and kill -9 see a whole content, never a part. */
static void test_write_atomic_killed(void **state)
{
	(void)state;
	const size_t n = 200000;
	char *a = xmalloc(n), *b = xmalloc(n);
	memset(a, 'a', n);
	memset(b, 'b', n);
	assert_int_equal(fs_write_atomic(at("k"), a, n, 0600, NULL), 0);
	for (int round = 0; round < 10; round++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (!pid) {
			for (;;) {
				fs_write_atomic(at("k"), b, n, 0600, NULL);
				fs_write_atomic(at("k"), a, n, 0600, NULL);
			}
		}
		for (int i = 0; i < 30; i++) {
			CLEANUP_BUF struct buf got = BUF_INIT;
			assert_int_equal(fs_read(at("k"), n, &got, NULL), 0);
			assert_int_equal(got.len, n);
			assert_memory_equal(got.data, got.data[0] == 'a' ? a : b, n);
		}
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	free(a);
	free(b);
}

static void test_write_existing(void **state)
{
	(void)state;
	CLEANUP_BUF struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	assert_int_equal(fs_write_existing(at("nope"), "1", &e), ERR_NOT_FOUND);
	assert_false(fs_exists(at("nope")));
	put("exists", "long content");
	assert_int_equal(fs_write_existing(at("exists"), "1", NULL), 0);
	assert_int_equal(fs_read(at("exists"), 100, &b, NULL), 0);
	assert_string_equal(b.data, "1");
	assert_int_equal(fs_write_existing("/dev/full", "value", &e), ERR_IO);
	assert_non_null(strstr(e.text, "value"));
}

static void test_mkdir_p(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	assert_int_equal(fs_mkdir_p(at("p/q//r/"), 0755, &e), 0);
	assert_int_equal(fs_mkdir_p(at("p/q/r"), 0755, &e), 0);
	assert_int_equal(fs_mkdir_p("/", 0755, &e), 0);
	assert_int_equal(fs_mkdir_p("/proc/self", 0755, &e), 0);
	put("plain", "");
	assert_int_equal(fs_mkdir_p(at("plain"), 0755, &e), ERR_IO);
	assert_int_equal(fs_mkdir_p(at("plain/x"), 0755, &e), ERR_IO);
	assert_non_null(strstr(e.text, "plain"));
}

static void test_path(void **state)
{
	(void)state;
	char *p = fs_path("/a", "b"), *q = fs_path("/", "b");
	assert_string_equal(p, "/a/b");
	assert_string_equal(q, "/b");
	free(p);
	free(q);
}

static void test_remove_tree(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	assert_int_equal(fs_remove_tree(at("absent"), &e), 0);
	assert_int_equal(fs_remove_tree(at("absent/deeper"), &e), 0);
	assert_int_equal(fs_mkdir_p(at("outside"), 0755, &e), 0);
	put("outside/keep", "x");
	assert_int_equal(fs_mkdir_p(at("t/a/b"), 0755, &e), 0);
	assert_int_equal(symlink(at("outside"), at("t/a/link")), 0);
	assert_int_equal(symlink("..", at("t/a/up")), 0);
	assert_int_equal(symlink("nowhere", at("t/dangling")), 0);
	assert_int_equal(mkfifo(at("t/fifo"), 0600), 0);
	for (int i = 0; i < 500; i++) {
		char name[64];
		snprintf(name, sizeof(name), "t/a/b/f%d", i);
		put(name, "");
	}
	assert_int_equal(chmod(at("t/a/b"), 0555), 0);
	assert_int_equal(fs_remove_tree(at("t"), &e), 0);
	assert_false(fs_exists(at("t")));
	assert_true(fs_exists(at("outside/keep")));
	/* A link itself goes, what it points to stays. */
	assert_int_equal(symlink(at("outside"), at("link")), 0);
	assert_int_equal(fs_remove_tree(at("link"), &e), 0);
	assert_false(fs_exists(at("link")));
	assert_true(fs_exists(at("outside/keep")));
	put("file", "x");
	assert_int_equal(fs_remove_tree(at("file"), &e), 0);
	assert_false(fs_exists(at("file")));
}

/* Deeper than a path can say or descriptors would reach. */
static void test_remove_deep_tree(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	assert_int_equal(mkdir(at("deep"), 0755), 0);
	int fd = open(at("deep"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 3000; i++) {
		assert_int_equal(mkdirat(fd, "dir", 0755), 0);
		int next = openat(fd, "dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(fs_remove_tree(at("deep"), &e), 0);
	assert_false(fs_exists(at("deep")));
}

static void test_remove_stops_at_mounts(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	assert_int_equal(fs_mkdir_p(at("m/inner"), 0755, &e), 0);
	assert_int_equal(fs_mkdir_p(at("src"), 0755, &e), 0);
	put("src/precious", "x");
	/* A bind mount of the same file system, which st_dev would not show. */
	if (mount(at("src"), at("m/inner"), NULL, MS_BIND, NULL) < 0) {
		print_message("mounting is not allowed here\n");
		skip();
	}
	int inside = fs_remove_tree(at("m"), &e);
	int itself = fs_remove_tree(at("m/inner"), NULL);
	int64_t size = -1;
	int measured = fs_tree_size(at("m"), &size, NULL);
	assert_int_equal(umount(at("m/inner")), 0);
	assert_int_equal(inside, ERR_IO);
	assert_non_null(strstr(e.text, "inner"));
	assert_int_equal(itself, ERR_IO);
	assert_true(fs_exists(at("src/precious")));
	assert_int_equal(measured, 0);
	assert_int_equal(size, 0);
	assert_int_equal(fs_remove_tree(at("m"), &e), 0);
}

static void test_tree_size(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	int64_t size = -1, want = 0;
	struct stat st;
	char data[50000];
	memset(data, 'x', sizeof(data));
	assert_int_equal(fs_mkdir_p(at("s/d"), 0755, &e), 0);
	assert_int_equal(fs_write_atomic(at("s/a"), data, sizeof(data), 0600, &e), 0);
	assert_int_equal(fs_write_atomic(at("s/d/b"), data, 10000, 0600, &e), 0);
	assert_int_equal(link(at("s/a"), at("s/d/again")), 0);
	assert_int_equal(symlink(root, at("s/d/link")), 0);
	const char *const all[] = {"s/a", "s/d/b", "s/d/link"};
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		assert_int_equal(lstat(at(all[i]), &st), 0);
		want += st.st_blocks * 512;
	}
	assert_int_equal(fs_tree_size(at("s"), &size, &e), 0);
	assert_int_equal(size, want);
	assert_int_equal(fs_tree_size(at("s/a"), &size, &e), 0);
	assert_true(size >= 50000);
	size = -1;
	assert_int_equal(fs_tree_size(at("none"), &size, &e), ERR_NOT_FOUND);
	assert_int_equal(size, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_read),
	    cmocka_unit_test(test_write_atomic),
	    cmocka_unit_test(test_write_atomic_killed),
	    cmocka_unit_test(test_write_existing),
	    cmocka_unit_test(test_mkdir_p),
	    cmocka_unit_test(test_path),
	    cmocka_unit_test(test_remove_tree),
	    cmocka_unit_test(test_remove_deep_tree),
	    cmocka_unit_test(test_remove_stops_at_mounts),
	    cmocka_unit_test(test_tree_size),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
