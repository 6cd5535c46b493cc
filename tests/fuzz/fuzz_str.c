/* The parsers of base: no input may upset them, and what they take must survive a round trip through their
 * printers. The first byte chooses the parser. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void fuzz_numbers(const char *s)
{
	uint64_t u;
	int64_t i, back;
	struct err e = ERR_INIT;
	if (str_parse_u64(s, &u, &e) == 0 && str_parse_i64(s, &i, &e) == 0)
		ASSERT(i >= 0 && (uint64_t)i == u);
	if (str_parse_size(s, &i, &e) == 0)
		ASSERT(i >= 0);
	char text[64];
	if (str_parse_duration(s, &i, &e) == 0) {
		str_format_duration(i, text, sizeof(text));
		ASSERT(str_parse_duration(text, &back, &e) == 0 && back == i);
	}
	char when[40];
	if (str_parse_time(s, &i, &e) == 0) {
		str_format_time(i, when);
		ASSERT(str_parse_time(when, &back, &e) == 0 && back == i);
		str_format_time_fixed(i, when);
		ASSERT(str_parse_time(when, &back, &e) == 0 && back == i);
	}
}

static void fuzz_base64(const char *s, size_t n)
{
	uint8_t *bytes = NULL;
	size_t len;
	if (str_unbase64(s, n, &bytes, &len, NULL) == 0) {
		char *again = str_base64(bytes, len);
		ASSERT(strlen(again) == n && memcmp(again, s, n) == 0);
		free(again);
		free(bytes);
	}
	if (str_unbase64_url(s, n, &bytes, &len, NULL) == 0)
		free(bytes);
	char *text = str_base64(s, n);
	ASSERT(str_unbase64(text, strlen(text), &bytes, &len, NULL) == 0);
	ASSERT(len == n && memcmp(bytes, s, n) == 0);
	free(text);
	free(bytes);
}

static void fuzz_url(const char *s, size_t n)
{
	char *plain, *back;
	if (str_url_decode(s, n, n % 2, &plain, NULL) < 0)
		return;
	char *coded = str_url_encode(plain);
	ASSERT(str_url_decode(coded, strlen(coded), false, &back, NULL) == 0 && str_eq(plain, back));
	free(plain);
	free(coded);
	free(back);
}

static void fuzz_hex(const char *s)
{
	uint8_t bytes[64];
	size_t len;
	char text[129];
	if (str_unhex(s, bytes, sizeof(bytes), &len, NULL) < 0)
		return;
	str_hex(bytes, len, text);
	ASSERT(str_ieq(text, s));
}

static void fuzz_order(const char *s)
{
	const char *comma = strchr(s, ',');
	if (!comma)
		return;
	char *a = xstrndup(s, (size_t)(comma - s));
	const char *b = comma + 1;
	int ab = str_natural_cmp(a, b), ba = str_natural_cmp(b, a);
	ASSERT((ab < 0) == (ba > 0) && (ab == 0) == str_eq(a, b));
	free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (n < 1)
		return 0;
	char *s = xstrndup((const char *)p + 1, n - 1);
	switch (p[0] % 5) {
	case 0:
		fuzz_numbers(s);
		break;
	case 1:
		fuzz_base64((const char *)p + 1, n - 1);
		break;
	case 2:
		fuzz_url((const char *)p + 1, n - 1);
		break;
	case 3:
		fuzz_hex(s);
		break;
	default:
		fuzz_order(s);
	}
	free(s);
	return 0;
}
