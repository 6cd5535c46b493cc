/* Hex, base64 (RFC 4648) and percent encoding (RFC 3986). Decoders are strict: a wrong character, a
 * wrong length or bits that no encoder would leave are ERR_INVALID, and the results are untouched. The
 * messages do not quote the input, which may be a secret. */
#include "base/str.h"

#include <string.h>

#include "base/mem.h"

static const char hex_digits[] = "0123456789abcdef";

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void str_hex(const void *p, size_t n, char *out)
{
	const uint8_t *b = p;
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = hex_digits[b[i] >> 4];
		out[2 * i + 1] = hex_digits[b[i] & 15];
	}
	out[2 * n] = '\0';
}

int str_unhex(const char *s, void *out, size_t cap, size_t *ret_len, struct err *e)
{
	size_t n = s ? strlen(s) : 0;
	if (n % 2)
		return err_set(e, ERR_INVALID, "hex text has an odd length");
	if (n / 2 > cap)
		return err_set(e, ERR_INVALID, "hex text is longer than %zu bytes", cap);
	for (size_t i = 0; i < n; i++) {
		if (hex_value(s[i]) < 0)
			return err_set(e, ERR_INVALID, "invalid hex digit at position %zu", i);
	}
	uint8_t *b = out;
	for (size_t i = 0; i < n / 2; i++)
		b[i] = (uint8_t)(hex_value(s[2 * i]) * 16 + hex_value(s[2 * i + 1]));
	if (ret_len)
		*ret_len = n / 2;
	return 0;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *str_base64(const void *p, size_t n)
{
	const uint8_t *b = p;
	char *out = xmalloc((n + 2) / 3 * 4 + 1), *o = out;
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)b[i] << 16;
		if (left > 1)
			v |= (uint32_t)b[i + 1] << 8;
		if (left > 2)
			v |= b[i + 2];
		*o++ = base64_digits[v >> 18];
		*o++ = base64_digits[v >> 12 & 63];
		*o++ = left > 1 ? base64_digits[v >> 6 & 63] : '=';
		*o++ = left > 2 ? base64_digits[v & 63] : '=';
	}
	*o = '\0';
	return out;
}

static int base64_value(char c, bool url)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == (url ? '-' : '+'))
		return 62;
	if (c == (url ? '_' : '/'))
		return 63;
	return -1;
}

static int unbase64(const char *s, size_t n, bool url, uint8_t **ret_p, size_t *ret_len, struct err *e)
{
	size_t digits = n;
	while (digits && n - digits < 2 && s[digits - 1] == '=')
		digits--;
	bool padded = digits != n;
	if (digits % 4 == 1 || ((padded || !url) && n % 4))
		return err_set(e, ERR_INVALID, "base64 text has a wrong length");
	size_t len = digits / 4 * 3 + (digits % 4 ? digits % 4 - 1 : 0), at = 0;
	uint8_t *out = xmalloc(len + 1);
	uint32_t acc = 0;
	unsigned bits = 0;
	for (size_t i = 0; i < digits; i++) {
		int v = base64_value(s[i], url);
		if (v < 0) {
			free(out);
			return err_set(e, ERR_INVALID, "invalid base64 character at position %zu", i);
		}
		acc = (acc << 6 | (uint32_t)v) & 0xfff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[at++] = (uint8_t)(acc >> bits);
		}
	}
	if (acc & ((1u << bits) - 1)) {
		mem_wipe(out, len);
		free(out);
		return err_set(e, ERR_INVALID, "base64 text ends in stray bits");
	}
	out[at] = '\0'; /* so that text may be used as a string */
	*ret_p = out;
	*ret_len = at;
	return 0;
}

int str_unbase64(const char *s, size_t n, uint8_t **ret_p, size_t *ret_len, struct err *e)
{
	return unbase64(s, n, false, ret_p, ret_len, e);
}

int str_unbase64_url(const char *s, size_t n, uint8_t **ret_p, size_t *ret_len, struct err *e)
{
	return unbase64(s, n, true, ret_p, ret_len, e);
}

int str_url_decode(const char *s, size_t n, bool form, char **ret_s, struct err *e)
{
	char *out = xmalloc(n + 1), *o = out;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		if (c == '%') {
			int hi = n - i > 2 ? hex_value(s[i + 1]) : -1;
			int lo = n - i > 2 ? hex_value(s[i + 2]) : -1;
			if (hi < 0 || lo < 0) {
				free(out);
				return err_set(e, ERR_INVALID, "invalid percent escape at position %zu", i);
			}
			c = (char)(hi * 16 + lo);
			i += 2;
		} else if (c == '+' && form) {
			c = ' ';
		}
		if (!c) {
			free(out);
			return err_set(e, ERR_INVALID, "a zero byte is not allowed in a URL");
		}
		*o++ = c;
	}
	*o = '\0';
	*ret_s = out;
	return 0;
}

static bool is_unreserved(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
	       c == '.' || c == '_' || c == '~';
}

char *str_url_encode(const char *s)
{
	char *out = xmalloc(strlen(s) * 3 + 1), *o = out;
	for (; *s; s++) {
		if (is_unreserved(*s)) {
			*o++ = *s;
		} else {
			*o++ = '%';
			*o++ = "0123456789ABCDEF"[(uint8_t)*s >> 4];
			*o++ = "0123456789ABCDEF"[(uint8_t)*s & 15];
		}
	}
	*o = '\0';
	return out;
}
