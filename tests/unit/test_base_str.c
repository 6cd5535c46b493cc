/* The strict parsers: what they take, what they refuse, and that a refusal leaves the result alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#define UNTOUCHED INT64_C(-424242)

static void test_compare(void **state)
{
	(void)state;
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq(NULL, ""));
	assert_true(str_eq("a", "a"));
	assert_true(str_ieq("Content-TYPE", "content-type"));
	assert_false(str_ieq("ab", "abc"));
	assert_false(str_ieq("[", "{"));
	assert_true(str_empty(NULL) && str_empty("") && !str_empty("x"));
	assert_true(str_has_prefix("abc", "ab") && str_has_prefix("abc", ""));
	assert_false(str_has_prefix("a", "ab") || str_has_prefix(NULL, ""));
	assert_true(str_has_suffix("abc", "bc"));
	assert_false(str_has_suffix("c", "bc"));
	assert_true(str_has_iprefix("Bearer x", "bearer "));
	assert_false(str_has_iprefix("Be", "bearer"));
	assert_string_equal(str_or("", "f"), "f");
	assert_string_equal(str_or("v", "f"), "v");
}

static void test_natural_order(void **state)
{
	(void)state;
	assert_true(str_natural_cmp("web.2", "web.10") < 0);
	assert_true(str_natural_cmp("web.10", "web.2") > 0);
	assert_true(str_natural_cmp("web", "web.1") < 0);
	assert_true(str_natural_cmp("a1b2", "a1b10") < 0);
	assert_int_equal(str_natural_cmp("a7", "a7"), 0);
	assert_true(str_natural_cmp("a007", "a7") != 0);
	assert_true(str_natural_cmp("a007", "a8") < 0);
	assert_true(str_natural_cmp("x99999999999999999999998", "x99999999999999999999999") < 0);
}

struct number {
	const char *text;
	int64_t value;
};

static void test_integers(void **state)
{
	(void)state;
	static const struct number good[] = {
	    {"0", 0},
	    {"-0", 0},
	    {"007", 7},
	    {"+5", 5},
	    {"9223372036854775807", INT64_MAX},
	    {"-9223372036854775808", INT64_MIN},
	};
	static const char *const bad[] = {"", "-", "+", " 1", "1 ", "1.0", "0x10", "1e3", "--1",
	    "9223372036854775808", "-9223372036854775809", "99999999999999999999", NULL};
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		int64_t v = UNTOUCHED;
		assert_int_equal(str_parse_i64(good[i].text, &v, NULL), 0);
		assert_int_equal(v, good[i].value);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int64_t v = UNTOUCHED;
		struct err e = ERR_INIT;
		assert_int_equal(str_parse_i64(bad[i], &v, &e), ERR_INVALID);
		assert_int_equal(v, UNTOUCHED);
		if (bad[i])
			assert_non_null(strstr(e.text, bad[i]));
	}
	uint64_t u = 7;
	assert_int_equal(str_parse_u64("18446744073709551615", &u, NULL), 0);
	assert_true(u == UINT64_MAX);
	u = 7;
	assert_int_equal(str_parse_u64("18446744073709551616", &u, NULL), ERR_INVALID);
	assert_int_equal(str_parse_u64("-1", &u, NULL), ERR_INVALID);
	assert_int_equal(str_parse_u64("+1", &u, NULL), ERR_INVALID);
	assert_int_equal(u, 7);
}

static void test_sizes(void **state)
{
	(void)state;
	static const struct number good[] = {
	    {"100", 100},
	    {"100b", 100},
	    {"64m", INT64_C(64) << 20},
	    {"64M", INT64_C(64) << 20},
	    {"64MB", INT64_C(64) << 20},
	    {"64mib", INT64_C(64) << 20},
	    {"1 GiB", INT64_C(1) << 30},
	    {"512k", INT64_C(512) << 10},
	    {"1.5g", INT64_C(3) << 29},
	    {"0.5k", 512},
	    {"2t", INT64_C(2) << 40},
	    {"8191p", INT64_C(8191) << 50},
	    {"0", 0},
	};
	static const char *const bad[] = {"", "m", "-1", "1q", "1 k b", "1kbb", "1ib", "1mi", ".5k", "1..5k",
	    " 1", "1  k", "8192p", "99999999999999999999", "0x1", "1k ", NULL};
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		int64_t v = UNTOUCHED;
		assert_int_equal(str_parse_size(good[i].text, &v, NULL), 0);
		assert_int_equal(v, good[i].value);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int64_t v = UNTOUCHED;
		assert_int_equal(str_parse_size(bad[i], &v, NULL), ERR_INVALID);
		assert_int_equal(v, UNTOUCHED);
	}
}

#define S NS_PER_SEC

static void test_parse_durations(void **state)
{
	(void)state;
	static const struct number good[] = {
	    {"0", 0},
	    {"-0", 0},
	    {"0s", 0},
	    {"10s", 10 * S},
	    {"1h2m3.5s", 3723 * S + S / 2},
	    {"100ms", S / 10},
	    {"-5s", -5 * S},
	    {"+1m", 60 * S},
	    {"1.5h", 5400 * S},
	    {".5s", S / 2},
	    {"5.s", 5 * S},
	    {"1us", 1000},
	    {"1\xc2\xb5s", 1000},
	    {"1\xce\xbcs", 1000},
	    {"1s1s", 2 * S},
	    {"0.9999999999ns", 0},
	    {"0.123456789012345678999s", 123456789},
	    {"9223372036854775807ns", INT64_MAX},
	    {"-9223372036854775808ns", INT64_MIN},
	    {"2562047h47m16.854775807s", INT64_MAX},
	};
	static const char *const bad[] = {"", "-", "5", "s", ".s", "1", "1.5", "1h2", "1x", "1 s", " 1s",
	    "1s ", "--1s", "1m-1s", "1d", "9223372036854775808ns", "2562048h", "1e3s", "00", NULL};
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		int64_t v = UNTOUCHED;
		struct err e = ERR_INIT;
		int r = str_parse_duration(good[i].text, &v, &e);
		if (r)
			print_error("%s: %s\n", good[i].text, e.text);
		assert_int_equal(r, 0);
		assert_int_equal(v, good[i].value);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int64_t v = UNTOUCHED;
		int r = str_parse_duration(bad[i], &v, NULL);
		if (!r)
			print_error("taken: %s\n", bad[i]);
		assert_int_equal(r, ERR_INVALID);
		assert_int_equal(v, UNTOUCHED);
	}
}

static void test_format_durations(void **state)
{
	(void)state;
	static const struct number cases[] = {
	    {"0s", 0},
	    {"1ns", 1},
	    {"1.1\xc2\xb5s", 1100},
	    {"2.2ms", 2200000},
	    {"100ms", S / 10},
	    {"1.5s", S * 3 / 2},
	    {"10s", 10 * S},
	    {"1m0s", 60 * S},
	    {"1h0m0s", 3600 * S},
	    {"4m5.001s", 245 * S + 1000000},
	    {"5h6m7.001s", 18367 * S + 1000000},
	    {"8m0.000000001s", 480 * S + 1},
	    {"-5s", -5 * S},
	    {"2562047h47m16.854775807s", INT64_MAX},
	    {"-2562047h47m16.854775808s", INT64_MIN},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char out[40];
		int64_t back = UNTOUCHED;
		str_format_duration(cases[i].value, out, sizeof(out));
		assert_string_equal(out, cases[i].text);
		assert_int_equal(str_parse_duration(out, &back, NULL), 0);
		assert_int_equal(back, cases[i].value);
	}
}

static void test_times(void **state)
{
	(void)state;
	static const struct number both[] = {
	    {"1970-01-01T00:00:00Z", 0},
	    {"2026-01-02T03:04:05.678901234Z", INT64_C(1767323045678901234)},
	    {"2026-01-02T03:04:05.5Z", INT64_C(1767323045500000000)},
	    {"2000-02-29T23:59:59Z", 951868799 * S},
	    {"1969-12-31T23:59:59.999999999Z", -1},
	    {"2262-04-11T23:47:16.854775807Z", INT64_MAX},
	    {"1677-09-21T00:12:43.145224192Z", INT64_MIN},
	};
	static const struct number parse_only[] = {
	    {"1970-01-01T01:00:00+01:00", 0},
	    {"1969-12-31T18:30:00-05:30", 0},
	    {"1970-01-01T00:00:00.000Z", 0},
	    {"1970-01-01T00:00:00.000000001-00:00", 1},
	};
	static const char *const bad[] = {"", "1970-01-01", "1970-01-01T00:00:00", "1970-01-01 00:00:00Z",
	    "1970-13-01T00:00:00Z", "1970-00-01T00:00:00Z", "1970-01-32T00:00:00Z", "2026-02-29T00:00:00Z",
	    "1900-02-29T00:00:00Z", "1970-01-01T24:00:00Z", "1970-01-01T00:60:00Z", "1970-01-01T00:00:60Z",
	    "1970-01-01T00:00:00.Z", "1970-01-01T00:00:00.1234567890Z", "1970-01-01T00:00:00ZZ",
	    "1970-01-01T00:00:00z", "1970-01-01T00:00:00+0100", "1970-01-01T00:00:00+24:00",
	    "1-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2262-04-11T23:47:16.854775808Z",
	    "1677-09-21T00:12:43.145224191Z", "-970-01-01T00:00:00Z", NULL};
	for (size_t i = 0; i < ARRAY_LEN(both); i++) {
		char out[40];
		int64_t v = UNTOUCHED;
		assert_int_equal(str_parse_time(both[i].text, &v, NULL), 0);
		assert_int_equal(v, both[i].value);
		str_format_time(both[i].value, out);
		assert_string_equal(out, both[i].text);
		str_format_time_fixed(both[i].value, out);
		assert_int_equal(strlen(out), 30);
		assert_int_equal(str_parse_time(out, &v, NULL), 0);
		assert_int_equal(v, both[i].value);
	}
	for (size_t i = 0; i < ARRAY_LEN(parse_only); i++) {
		int64_t v = UNTOUCHED;
		assert_int_equal(str_parse_time(parse_only[i].text, &v, NULL), 0);
		assert_int_equal(v, parse_only[i].value);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int64_t v = UNTOUCHED;
		int r = str_parse_time(bad[i], &v, NULL);
		if (!r)
			print_error("taken: %s\n", bad[i]);
		assert_int_equal(r, ERR_INVALID);
		assert_int_equal(v, UNTOUCHED);
	}
}

/* Every day of four centuries, there and back. */
static void test_calendar(void **state)
{
	(void)state;
	for (int64_t day = -100000; day < 100000; day += 1) {
		char out[40];
		int64_t v, ns = day * 86400 * S;
		str_format_time(ns, out);
		assert_int_equal(str_parse_time(out, &v, NULL), 0);
		assert_int_equal(v, ns);
	}
}

static void test_hex(void **state)
{
	(void)state;
	char out[9];
	uint8_t back[4] = {9, 9, 9, 9};
	size_t n = 77;
	str_hex("\x00\xff\x1a\x80", 4, out);
	assert_string_equal(out, "00ff1a80");
	assert_int_equal(str_unhex("00FF1a80", back, sizeof(back), &n, NULL), 0);
	assert_int_equal(n, 4);
	assert_memory_equal(back, "\x00\xff\x1a\x80", 4);
	assert_int_equal(str_unhex("abc", back, sizeof(back), &n, NULL), ERR_INVALID);
	assert_int_equal(str_unhex("0g", back, sizeof(back), &n, NULL), ERR_INVALID);
	assert_int_equal(str_unhex("0011223344", back, sizeof(back), &n, NULL), ERR_INVALID);
	assert_int_equal(n, 4);
	assert_memory_equal(back, "\x00\xff\x1a\x80", 4);
	assert_int_equal(str_unhex("", back, sizeof(back), &n, NULL), 0);
	assert_int_equal(n, 0);
}

static void check_unbase64(bool url, const char *text, const char *expected)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int r = url ? str_unbase64_url(text, strlen(text), &p, &n, NULL)
		    : str_unbase64(text, strlen(text), &p, &n, NULL);
	if (!expected) {
		assert_int_equal(r, ERR_INVALID);
		assert_null(p);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(n, strlen(expected));
	assert_string_equal((char *)p, expected);
	free(p);
}

static void test_base64(void **state)
{
	(void)state;
	/* RFC 4648, section 10. */
	static const char *const vectors[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
	    {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		char *s = str_base64(vectors[i][0], strlen(vectors[i][0]));
		assert_string_equal(s, vectors[i][1]);
		check_unbase64(false, s, vectors[i][0]);
		check_unbase64(true, s, vectors[i][0]);
		free(s);
	}
	check_unbase64(true, "Zm9vYg", "foob");
	check_unbase64(true, "Pz8_", "???");
	check_unbase64(false, "Pz8/", "???");
	static const char *const bad[] = {"Zg", "Zg=", "Z",
	    "Z===", "====", "Zm9v=", "Zm9v====", "Zh==", "Zm9=", "Pz8_", "Zm 9v", "Zm9v\n", "=Zm9"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_unbase64(false, bad[i], NULL);
	static const char *const bad_url[] = {"Pz8/", "Zg=", "Z", "Zh", "Zm9vYg=", "=", "Zg==="};
	for (size_t i = 0; i < ARRAY_LEN(bad_url); i++)
		check_unbase64(true, bad_url[i], NULL);
}

static void test_base64_bytes(void **state)
{
	(void)state;
	struct rng_seeded seed;
	struct rng r = rng_from_seed(&seed, 1);
	for (size_t n = 0; n < 100; n++) {
		uint8_t in[100], *back;
		size_t len;
		r.fill(r.data, in, n);
		char *s = str_base64(in, n);
		assert_int_equal(str_unbase64(s, strlen(s), &back, &len, NULL), 0);
		assert_int_equal(len, n);
		assert_memory_equal(back, in, n);
		free(back);
		free(s);
	}
}

static void check_url(const char *text, bool form, const char *expected)
{
	char *s = NULL;
	int r = str_url_decode(text, strlen(text), form, &s, NULL);
	assert_int_equal(r, expected ? 0 : ERR_INVALID);
	if (expected)
		assert_string_equal(s, expected);
	else
		assert_null(s);
	free(s);
}

static void test_url(void **state)
{
	(void)state;
	check_url("a%20b+c", false, "a b+c");
	check_url("a%20b+c", true, "a b c");
	check_url("%7B%22x%22%3a1%7d", true, "{\"x\":1}");
	check_url("", false, "");
	static const char *const bad[] = {"%", "%4", "%4g", "%g4", "abc%", "a%00b", "%%41"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_url(bad[i], true, NULL);
	char *s = str_url_encode("a b/c~\xc3\xa9?");
	assert_string_equal(s, "a%20b%2Fc~%C3%A9%3F");
	free(s);
	/* The length bounds, not a NUL. */
	assert_int_equal(str_url_decode("%41%4", 3, false, &s, NULL), 0);
	assert_string_equal(s, "A");
	free(s);
}

static void test_lists(void **state)
{
	(void)state;
	struct strlist l = STRLIST_INIT;
	strlist_split(&l, "a,,c,", ',');
	assert_int_equal(l.n, 4);
	assert_string_equal(l.v[1], "");
	assert_string_equal(l.v[3], "");
	strlist_addf(&l, "%s-%d", "x", 5);
	strlist_take(&l, xstrdup("b"));
	assert_true(strlist_has(&l, "x-5"));
	assert_false(strlist_has(&l, "x"));
	strlist_sort(&l);
	char *s = strlist_join(&l, "|");
	assert_string_equal(s, "||a|b|c|x-5");
	free(s);
	char **argv = strlist_argv(&l);
	assert_ptr_equal(argv[5], l.v[5]);
	assert_null(argv[6]);
	free(argv);
	strlist_done(&l);
	assert_int_equal(l.n, 0);
	s = strlist_join(&l, ",");
	assert_string_equal(s, "");
	free(s);
	for (int i = 0; i < 1000; i++)
		strlist_addf(&l, "%d", i);
	assert_string_equal(l.v[999], "999");
	strlist_done(&l);
	strlist_split(&l, "", ',');
	assert_int_equal(l.n, 1);
	strlist_done(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_compare),
	    cmocka_unit_test(test_natural_order),
	    cmocka_unit_test(test_integers),
	    cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_parse_durations),
	    cmocka_unit_test(test_format_durations),
	    cmocka_unit_test(test_times),
	    cmocka_unit_test(test_calendar),
	    cmocka_unit_test(test_hex),
	    cmocka_unit_test(test_base64),
	    cmocka_unit_test(test_base64_bytes),
	    cmocka_unit_test(test_url),
	    cmocka_unit_test(test_lists),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
