/* Errors, buffers, memory, random numbers and ids, the state machine, log levels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <cmocka.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sm.h"

static void test_err(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	assert_int_equal(err_set(&e, ERR_CONFLICT, "name %s is taken", "web"), ERR_CONFLICT);
	assert_int_equal(err_wrap(&e, "cannot create service %d", 7), ERR_CONFLICT);
	assert_string_equal(e.text, "cannot create service 7: name web is taken");
	/* The text itself as an argument. */
	assert_int_equal(err_set(&e, ERR_INVALID, "again: %s", e.text), ERR_INVALID);
	assert_string_equal(e.text, "again: cannot create service 7: name web is taken");
	assert_int_equal(err_errno(&e, ENOENT, "cannot open %s", "x"), ERR_NOT_FOUND);
	assert_string_equal(e.text, "cannot open x: No such file or directory");
	assert_int_equal(err_errno(&e, EACCES, "cannot open %s", "x"), ERR_IO);
	assert_int_equal(err_uv(&e, UV_ECONNREFUSED, "cannot connect"), ERR_IO);
	assert_string_equal(e.text, "cannot connect: connection refused");
	assert_int_equal(err_uv(&e, UV_ECANCELED, "x"), ERR_CANCELLED);
	struct err copy = ERR_INIT;
	assert_int_equal(err_copy(&copy, &e), ERR_CANCELLED);
	assert_string_equal(copy.text, e.text);
	/* Nobody asks for the text. */
	assert_int_equal(err_set(NULL, ERR_STALE, "x"), ERR_STALE);
	assert_int_equal(err_errno(NULL, ENOENT, "x"), ERR_NOT_FOUND);
	assert_true(err_wrap(NULL, "x") < 0);
	assert_int_equal(err_copy(NULL, &e), ERR_CANCELLED);
	struct err empty = ERR_INIT;
	assert_true(err_wrap(&empty, "x") < 0);
}

static void test_err_long_text(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	char big[2000];
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&e, ERR_INVALID, "%s", big);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	assert_int_equal(err_wrap(&e, "context"), ERR_INVALID);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	assert_memory_equal(e.text, "context: xxx", 12);
	assert_int_equal(err_wrap(&e, "%s", big), ERR_INVALID);
	err_errno(&e, ENOENT, "%s", big);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

static void test_err_codes(void **state)
{
	(void)state;
	assert_int_equal(err_http_status(0), 200);
	assert_int_equal(err_http_status(ERR_INVALID), 400);
	assert_int_equal(err_http_status(ERR_NOT_FOUND), 404);
	assert_int_equal(err_http_status(ERR_CONFLICT), 409);
	assert_int_equal(err_http_status(ERR_UNAVAILABLE), 503);
	assert_int_equal(err_http_status(ERR_STALE), 500);
	assert_int_equal(err_http_status(-1), 500);
	/* Every code has its own word. */
	struct strmap names = STRMAP_INIT;
	for (int c = ERR_INVALID; c <= ERR_INTERNAL; c++) {
		assert_false(strmap_has(&names, err_code_name(c)));
		strmap_put(&names, err_code_name(c), NULL);
		assert_true(err_http_status(c) >= 400);
	}
	strmap_done(&names);
}

static void test_buf(void **state)
{
	(void)state;
	struct buf b = BUF_INIT;
	char *s = buf_take(&b, NULL);
	assert_string_equal(s, "");
	free(s);
	buf_append(&b, NULL, 0);
	buf_puts(&b, "ab");
	buf_putc(&b, 'c');
	buf_printf(&b, "%d-%s", 42, "x");
	assert_string_equal(b.data, "abc42-x");
	buf_consume(&b, 3);
	assert_string_equal(b.data, "42-x");
	buf_consume(&b, 0);
	buf_consume(&b, 4);
	assert_int_equal(b.len, 0);
	buf_put_u32be(&b, 0x01020304);
	assert_memory_equal(b.data, "\1\2\3\4", 4);
	buf_reset(&b);
	assert_int_equal(b.len, 0);
	assert_string_equal(b.data, "");
	/* Printing over every boundary of the growth. */
	for (size_t i = 0; i < 3000; i++) {
		buf_printf(&b, "%c", 'a' + (int)(i % 26));
		assert_int_equal(b.data[b.len], 0);
		assert_int_equal(b.len, i + 1);
	}
	char big[5000];
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	buf_printf(&b, "%s", big);
	assert_int_equal(b.len, 3000 + 4999);
	size_t len;
	s = buf_take(&b, &len);
	assert_int_equal(len, strlen(s));
	free(s);
	assert_null(b.data);
	buf_done(&b);
}

static void test_mem(void **state)
{
	(void)state;
	void *p = xmalloc(0);
	assert_non_null(p);
	p = xrealloc(p, 0);
	assert_non_null(p);
	free(p);
	p = xcalloc(0, 8);
	assert_non_null(p);
	free(p);
	assert_null(xstrdup(NULL));
	char *s = xstrndup("abcdef", 3);
	assert_string_equal(s, "abc");
	char *t = TAKE_PTR(s);
	assert_null(s);
	mem_wipe(t, 3);
	assert_string_equal(t, "");
	free(t);
	/* No NUL within the bound. */
	t = xstrndup((const char[]){'a', 'b'}, 2);
	assert_string_equal(t, "ab");
	free(t);
	t = xasprintf("%s/%d", "x", 3);
	assert_string_equal(t, "x/3");
	free(t);
}

static void test_rng(void **state)
{
	(void)state;
	struct rng_seeded sa, sb;
	struct rng a = rng_from_seed(&sa, 7), b = rng_from_seed(&sb, 7);
	for (int i = 0; i < 100; i++)
		assert_true(rng_u64(a) == rng_u64(b));
	b = rng_from_seed(&sb, 8);
	assert_true(rng_u64(a) != rng_u64(b));
	a = rng_from_seed(&sa, 0);
	unsigned counts[6] = {0};
	for (int i = 0; i < 60000; i++)
		counts[rng_below(a, 6)]++;
	for (size_t i = 0; i < 6; i++)
		assert_in_range(counts[i], 9500, 10500);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(rng_below(a, 1), 0);
		assert_true(rng_below(a, UINT64_MAX) < UINT64_MAX);
	}
	/* Buffered: bytes differ from call to call, across refills, and for more than the buffer holds. */
	struct rng_buffered buffered;
	struct rng d = rng_buffer(&buffered, rng_from_seed(&sb, 8));
	uint64_t last = 0;
	for (int i = 0; i < 1000; i++) {
		uint64_t v = rng_u64(d);
		assert_true(v != last);
		last = v;
	}
	uint8_t large[3000] = {0};
	d.fill(d.data, large, sizeof(large));
	assert_true(large[2998] || large[2999] || large[2997]);
	struct clock c = clock_system();
	int64_t before = clock_mono_ns(c);
	assert_true(clock_mono_ns(c) >= before);
	assert_true(clock_unix_ns(c) > INT64_C(1700000000) * NS_PER_SEC);
}

static void fill_ones(void *data, void *out, size_t n)
{
	(void)data;
	memset(out, 0xff, n);
}

static void fill_zeros(void *data, void *out, size_t n)
{
	(void)data;
	memset(out, 0, n);
}

static void test_ids(void **state)
{
	(void)state;
	char id[ID_LEN + 1], hex[ID_HEX_LEN + 1];
	id_new((struct rng){.fill = fill_ones}, id);
	assert_string_equal(id, "f5lxx1zz5pnorynqglhzmsp33"); /* 2^128 - 1 */
	id_new((struct rng){.fill = fill_zeros}, id);
	assert_string_equal(id, "0000000000000000000000000");
	struct strmap seen = STRMAP_INIT;
	for (int i = 0; i < 1000; i++) {
		id_new(rng_system(), id);
		assert_int_equal(strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz"), ID_LEN);
		assert_int_equal(strlen(id), ID_LEN);
		assert_false(strmap_has(&seen, id));
		strmap_put(&seen, id, NULL);
	}
	strmap_done(&seen);
	id_new_hex(rng_system(), hex);
	assert_int_equal(strspn(hex, "0123456789abcdef"), ID_HEX_LEN);
	assert_int_equal(strlen(hex), ID_HEX_LEN);
}

static void test_sm(void **state)
{
	(void)state;
	enum { IDLE, BUSY, DONE };
	static const struct sm_state table[] = {
	    [IDLE] = {"idle", SM_BIT(BUSY)},
	    [BUSY] = {"busy", SM_BIT(IDLE) | SM_BIT(DONE)},
	    [DONE] = {"done", 0},
	};
	struct sm m;
	sm_init(&m, table, ARRAY_LEN(table), IDLE);
	assert_true(sm_may(&m, BUSY));
	assert_false(sm_may(&m, DONE));
	assert_false(sm_may(&m, IDLE));
	assert_false(sm_may(&m, 3));
	assert_false(sm_may(&m, 99));
	sm_move(&m, BUSY);
	sm_move(&m, DONE);
	assert_string_equal(sm_name(&m), "done");
	assert_false(sm_may(&m, IDLE));
}

static void test_log_levels(void **state)
{
	(void)state;
	enum log_level level = LOG_LEVEL_OFF;
	assert_int_equal(log_level_parse("WARN", &level, NULL), 0);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(log_level_parse("fatal", &level, NULL), 0);
	struct err e = ERR_INIT;
	assert_int_equal(log_level_parse("loud", &level, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, "loud"));
	assert_non_null(strstr(e.text, "debug, info"));
	assert_int_equal(log_level_parse(NULL, &level, NULL), ERR_INVALID);
	assert_int_equal(log_level_parse("off", &level, NULL), ERR_INVALID);
}

/* What one call writes is one line, whatever it quotes, and levels below the set one write nothing. */
static void test_log_lines(void **state)
{
	(void)state;
	int fds[2], saved = dup(STDERR_FILENO);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	dup2(fds[1], STDERR_FILENO);
	log_set_level(LOG_LEVEL_INFO);
	log_debug("not shown");
	log_info("peer said text=%s", "a\nb\x1b[31m\t\xc3\xa9");
	char big[9000];
	memset(big, '\n', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_error("%s", big);
	log_set_level(LOG_LEVEL_OFF);
	log_error("not shown");
	log_set_level(LOG_LEVEL_INFO);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	char out[20000];
	size_t len = 0;
	for (ssize_t n; (n = read(fds[0], out + len, sizeof(out) - 1 - len)) > 0;)
		len += (size_t)n;
	close(fds[0]);
	out[len] = '\0';
	char *nl = strchr(out, '\n');
	assert_non_null(nl);
	*nl = '\0';
	assert_int_equal(strlen("2026-01-02T03:04:05.678Z"), strcspn(out, " "));
	assert_string_equal(out + strcspn(out, " "), " info  peer said text=a\\nb\\x1b[31m\\t\xc3\xa9");
	char *second = nl + 1;
	nl = strchr(second, '\n');
	assert_non_null(nl);
	assert_ptr_equal(nl + 1, out + len);
	assert_true((size_t)(nl - second) < 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_err),
	    cmocka_unit_test(test_err_long_text),
	    cmocka_unit_test(test_err_codes),
	    cmocka_unit_test(test_buf),
	    cmocka_unit_test(test_mem),
	    cmocka_unit_test(test_rng),
	    cmocka_unit_test(test_ids),
	    cmocka_unit_test(test_sm),
	    cmocka_unit_test(test_log_levels),
	    cmocka_unit_test(test_log_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
