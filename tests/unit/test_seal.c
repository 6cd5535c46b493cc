/* Sealing: what comes back, and what does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "proto/log.pb-c.h"
#include "raft/seal.h"

static const uint8_t key[32] = "key number one, 32 bytes long...";
static const uint8_t other[32] = "key number two, 32 bytes long...";

static void put(struct sealer *s, const char *aad, const void *p, size_t n, struct buf *out)
{
	struct seal_frame f;
	size_t head = seal_head_len(s, n), at = out->len;

	buf_reserve(out, head + n + SEAL_TAG_LEN);
	seal(s, aad, strlen(aad), p, n, (uint8_t *)out->data + at + head, &f);
	assert_int_equal(f.head_len, head);
	memcpy(out->data + at, f.head, head);
	memcpy(out->data + at + head + n, f.tag, SEAL_TAG_LEN);
	out->len += head + n + SEAL_TAG_LEN;
}

static int get(struct sealer *s, const char *aad, const struct buf *b, struct buf *out, struct err *e)
{
	return unseal(s, aad, strlen(aad), (const uint8_t *)b->data, b->len, out, e);
}

static void test_round_trip(void **state)
{
	struct sealer *a = sealer_new(key), *b = sealer_new(key), *c = sealer_new(other);
	static const size_t sizes[] = {0, 1, 100, 127, 128, 16367, 16368, 70000};
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buf out = BUF_INIT, back = BUF_INIT;
		uint8_t *p = xcalloc(sizes[i] + 1, 1);
		Pb__Sealed *m;

		memset(p, (int)i + 1, sizes[i]);
		put(a, "x", p, sizes[i], &out);
		m = pb__sealed__unpack(NULL, out.len, (const uint8_t *)out.data);
		assert_non_null(m);
		assert_int_equal(m->nonce.len, 24);
		assert_int_equal(m->data.len, sizes[i] + 16);
		pb__sealed__free_unpacked(m, NULL);
		assert_int_equal(get(b, "x", &out, &back, &e), 0);
		assert_int_equal(back.len, sizes[i]);
		assert_memory_equal(back.data, p, sizes[i]);
		assert_int_equal(get(b, "y", &out, &back, &e), ERR_CORRUPT);
		assert_int_equal(get(c, "x", &out, &back, &e), ERR_CORRUPT);
		assert_string_equal(e.text, "sealed with another key");
		assert_int_equal(back.len, sizes[i]); /* untouched */
		free(p);
		buf_done(&out);
		buf_done(&back);
	}
	sealer_free(a);
	sealer_free(b);
	sealer_free(c);
	sealer_free(NULL);
}

static void test_nonces_differ(void **state)
{
	struct sealer *a = sealer_new(key), *b = sealer_new(key);
	struct buf x = BUF_INIT, y = BUF_INIT, z = BUF_INIT;

	(void)state;
	put(a, "", "same", 4, &x);
	put(a, "", "same", 4, &y);
	put(b, "", "same", 4, &z);
	assert_int_equal(x.len, y.len);
	assert_memory_not_equal(x.data, y.data, x.len);
	assert_memory_not_equal(x.data, z.data, x.len);
	buf_done(&x);
	buf_done(&y);
	buf_done(&z);
	sealer_free(a);
	sealer_free(b);
}

/* Every bit and every length matters. */
static void test_altered(void **state)
{
	struct sealer *a = sealer_new(key);
	struct buf x = BUF_INIT, out = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	put(a, "a", "a secret that is kept", 21, &x);
	for (size_t i = 0; i < x.len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			x.data[i] = (char)(x.data[i] ^ (1 << bit));
			assert_int_equal(get(a, "a", &x, &out, &e), ERR_CORRUPT);
			x.data[i] = (char)(x.data[i] ^ (1 << bit));
		}
	}
	for (size_t n = 0; n < x.len; n++) {
		uint8_t *cut = xmemdup(x.data, n ? n : 1);

		assert_int_equal(unseal(a, "a", 1, cut, n, &out, &e), ERR_CORRUPT);
		free(cut);
	}
	assert_int_equal(out.len, 0);
	assert_int_equal(get(a, "a", &x, &out, &e), 0);
	assert_string_equal(out.data, "a secret that is kept");
	buf_done(&x);
	buf_done(&out);
	sealer_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_nonces_differ),
	    cmocka_unit_test(test_altered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
