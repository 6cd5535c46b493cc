/* The agent's database: tables, growth, the copy that survives a reboot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "agent/kv.h"
#include "base/fs.h"
#include "base/mem.h"

static char root[64];
static uv_loop_t loop;

static int setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/shoal-test-kv.XXXXXX");
	uv_loop_init(&loop);
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return fs_remove_tree(root, NULL);
}

static void count(void *data, const char *key, const void *p, size_t n)
{
	(void)key;
	(void)p;
	*(size_t *)data += n;
}

static struct kv *open_db(void)
{
	struct kv *kv = NULL;
	struct err e = ERR_INIT;
	if (kv_open(&loop, root, &kv, &e) < 0)
		fail_msg("%s", e.text);
	return kv;
}

static void test_tables(void **state)
{
	(void)state;
	struct kv *kv = open_db();
	struct err e = ERR_INIT;
	void *p = NULL;
	size_t n = 0, total = 0;
	assert_int_equal(kv_each(kv, "a", count, &total, &e), 0);
	assert_int_equal(kv_get(kv, "a", "k", &p, &n, &e), ERR_NOT_FOUND);
	assert_int_equal(kv_del(kv, "a", "k", &e), 0);
	assert_int_equal(kv_put(kv, "a", "k", "one", 3, &e), 0);
	assert_int_equal(kv_put(kv, "b", "k", "three", 5, &e), 0);
	assert_int_equal(kv_put(kv, "a", "", "x", 1, &e), ERR_INVALID);
	assert_int_equal(kv_get(kv, "a", "k", &p, &n, &e), 0);
	assert_int_equal(n, 3);
	assert_memory_equal(p, "one", 3);
	free(p);
	assert_int_equal(kv_del(kv, "a", "k", &e), 0);
	assert_int_equal(kv_get(kv, "a", "k", &p, &n, &e), ERR_NOT_FOUND);
	assert_int_equal(kv_each(kv, "b", count, &total, &e), 0);
	assert_int_equal(total, 5);
	kv_close(kv);
}

static void test_second_owner_is_refused(void **state)
{
	(void)state;
	struct kv *kv = open_db(), *two = NULL;
	struct err e = ERR_INIT;
	assert_int_equal(kv_open(&loop, root, &two, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "in use by another daemon"));
	kv_close(kv);
	kv = open_db();
	kv_close(kv);
}

static void test_grows(void **state)
{
	(void)state;
	struct kv *kv = open_db();
	struct err e = ERR_INIT;
	size_t n = 1024 * 1024, total = 0;
	char *big = xcalloc(1, n);
	for (int i = 0; i < 80; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(kv_put(kv, "big", key, big, n, &e), 0);
	}
	assert_int_equal(kv_each(kv, "big", count, &total, &e), 0);
	assert_int_equal(total, 80 * n);
	free(big);
	kv_close(kv);
	kv = open_db();
	total = 0;
	assert_int_equal(kv_each(kv, "big", count, &total, &e), 0);
	assert_int_equal(total, 80 * n);
	kv_close(kv);
}

/* Another boot id: the live file may be torn, so the copy is used. */
static void test_reboot_takes_the_copy(void **state)
{
	(void)state;
	struct kv *kv = open_db();
	struct err e = ERR_INIT;
	assert_int_equal(kv_put(kv, "t", "k", "v1", 2, &e), 0);
	kv_close(kv);
	CLEANUP_FREE char *live = fs_path(root, "agent.db"), *boot = fs_path(root, "agent.db.boot");
	assert_int_equal(fs_write_atomic(live, "garbage", 7, 0600, &e), 0);
	assert_int_equal(fs_write_atomic(boot, "another boot\n", 13, 0600, &e), 0);
	kv = open_db();
	void *p;
	size_t n;
	assert_int_equal(kv_get(kv, "t", "k", &p, &n, &e), 0);
	assert_memory_equal(p, "v1", 2);
	free(p);
	kv_close(kv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_second_owner_is_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_grows, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_reboot_takes_the_copy, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
