/* Maps under churn, checked against a plain array; removal while iterating. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"

#define KEYS   2000
#define ROUNDS 200000

static void test_empty(void **state)
{
	(void)state;
	struct strmap m = STRMAP_INIT;
	size_t it = 0;
	assert_null(strmap_get(&m, "x"));
	assert_false(strmap_has(&m, "x"));
	assert_null(strmap_remove(&m, "x"));
	assert_false(strmap_next(&m, &it, NULL, NULL));
	assert_int_equal(strmap_len(&m), 0);
	strmap_done(&m);
}

static void test_null_value_and_copy(void **state)
{
	(void)state;
	struct strmap m = STRMAP_INIT;
	char key[] = "key";
	assert_null(strmap_put(&m, key, NULL));
	key[0] = 'X';
	assert_true(strmap_has(&m, "key"));
	assert_null(strmap_get(&m, "key"));
	assert_null(strmap_put(&m, "key", &m));
	assert_ptr_equal(strmap_put(&m, "key", &key), &m);
	assert_int_equal(strmap_len(&m), 1);
	strmap_done(&m);
}

static void test_empty_key(void **state)
{
	(void)state;
	struct strmap m = STRMAP_INIT;
	assert_false(strmap_has(&m, ""));
	strmap_put(&m, "", &m);
	assert_ptr_equal(strmap_get(&m, ""), &m);
	assert_ptr_equal(strmap_remove(&m, ""), &m);
	strmap_done(&m);
}

/* Long-lived churn: the table must neither lose entries nor grow without bound. */
static void test_string_churn(void **state)
{
	(void)state;
	struct rng_seeded seed;
	struct rng r = rng_from_seed(&seed, 42);
	struct strmap m = STRMAP_INIT;
	static void *expected[KEYS];
	size_t n = 0;
	memset(expected, 0, sizeof(expected));
	for (int i = 0; i < ROUNDS; i++) {
		size_t k = (size_t)rng_below(r, KEYS);
		char key[32];
		snprintf(key, sizeof(key), "key/%zu", k);
		/* Full for a while, then almost empty. */
		bool put = rng_below(r, 10) < (i / 20000 % 2 ? 2 : 8);
		void *before = expected[k];
		if (put) {
			expected[k] = &expected[rng_below(r, KEYS)];
			assert_ptr_equal(strmap_put(&m, key, expected[k]), before);
			n += !before;
		} else {
			expected[k] = NULL;
			assert_ptr_equal(strmap_remove(&m, key), before);
			n -= !!before;
		}
		assert_int_equal(strmap_len(&m), n);
		k = (size_t)rng_below(r, KEYS);
		snprintf(key, sizeof(key), "key/%zu", k);
		assert_ptr_equal(strmap_get(&m, key), expected[k]);
	}
	assert_true(m.cap <= 8192);
	size_t it = 0, seen = 0;
	const char *key;
	void *value;
	while (strmap_next(&m, &it, &key, &value)) {
		size_t k = (size_t)strtoul(key + 4, NULL, 10);
		assert_ptr_equal(value, expected[k]);
		seen++;
	}
	assert_int_equal(seen, n);
	strmap_done(&m);
}

static void test_number_churn(void **state)
{
	(void)state;
	struct rng_seeded seed;
	struct rng r = rng_from_seed(&seed, 43);
	struct u64map m = U64MAP_INIT;
	static void *expected[KEYS];
	size_t n = 0;
	memset(expected, 0, sizeof(expected));
	for (int i = 0; i < ROUNDS; i++) {
		size_t k = (size_t)rng_below(r, KEYS);
		/* Keys that differ in the high bits only. */
		uint64_t key = (uint64_t)k << 48;
		void *before = expected[k];
		if (rng_below(r, 2)) {
			expected[k] = &expected[rng_below(r, KEYS)];
			assert_ptr_equal(u64map_put(&m, key, expected[k]), before);
			n += !before;
		} else {
			expected[k] = NULL;
			assert_ptr_equal(u64map_remove(&m, key), before);
			n -= !!before;
		}
		assert_int_equal(u64map_len(&m), n);
		k = (size_t)rng_below(r, KEYS);
		assert_ptr_equal(u64map_get(&m, (uint64_t)k << 48), expected[k]);
	}
	assert_true(m.cap <= 8192);
	u64map_done(&m);
}

/* A queue-like use, few entries alive and never the same key, must not fill up with tombstones. */
static void test_sliding_window(void **state)
{
	(void)state;
	struct u64map m = U64MAP_INIT;
	for (uint64_t i = 0; i < 300000; i++) {
		u64map_put(&m, i, &m);
		if (i >= 16)
			assert_ptr_equal(u64map_remove(&m, i - 16), &m);
	}
	assert_int_equal(u64map_len(&m), 16);
	assert_true(m.cap <= 64);
	u64map_done(&m);
}

static void test_remove_while_iterating(void **state)
{
	(void)state;
	struct strmap m = STRMAP_INIT;
	for (size_t i = 0; i < 1000; i++) {
		char key[32];
		snprintf(key, sizeof(key), "%zu", i);
		strmap_put(&m, key, &m);
	}
	size_t it = 0, seen = 0;
	const char *key;
	while (strmap_next(&m, &it, &key, NULL)) {
		seen++;
		if (strtoul(key, NULL, 10) % 2)
			strmap_remove(&m, key);
	}
	assert_int_equal(seen, 1000);
	assert_int_equal(strmap_len(&m), 500);
	it = 0;
	while (strmap_next(&m, &it, &key, NULL)) {
		assert_int_equal(strtoul(key, NULL, 10) % 2, 0);
		strmap_remove(&m, key);
	}
	assert_int_equal(strmap_len(&m), 0);
	strmap_done(&m);
}

static void test_done_frees_values(void **state)
{
	(void)state;
	struct strmap m = STRMAP_INIT;
	strmap_put(&m, "a", xstrdup("x"));
	strmap_put(&m, "b", xstrdup("y"));
	strmap_done_free(&m, free);
	assert_int_equal(strmap_len(&m), 0);
	strmap_put(&m, "again", NULL);
	strmap_done(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_empty),
	    cmocka_unit_test(test_null_value_and_copy),
	    cmocka_unit_test(test_empty_key),
	    cmocka_unit_test(test_string_churn),
	    cmocka_unit_test(test_number_churn),
	    cmocka_unit_test(test_sliding_window),
	    cmocka_unit_test(test_remove_while_iterating),
	    cmocka_unit_test(test_done_frees_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
