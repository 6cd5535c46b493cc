/* Numbers, sizes and durations from text. The whole string must fit; anything else, overflow
 * included, is ERR_INVALID with the text in the message, and the result is untouched. */
#include "base/str.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"

__extension__ typedef unsigned __int128 u128;

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits at *s into *v; false when there is none or it passes 2^64 - 1. Leading zeros are fine. */
static bool take_u64(const char **s, uint64_t *v)
{
	const char *p = *s;
	uint64_t n = 0;
	if (!is_digit(*p))
		return false;
	for (; is_digit(*p); p++) {
		if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return false;
	}
	*s = p;
	*v = n;
	return true;
}

int str_parse_u64(const char *s, uint64_t *ret_v, struct err *e)
{
	const char *p = s ? s : "";
	uint64_t v;
	if (!take_u64(&p, &v) || *p)
		return err_set(e, ERR_INVALID, "\"%s\" is not a number in 0..2^64-1", s ? s : "");
	*ret_v = v;
	return 0;
}

int str_parse_i64(const char *s, int64_t *ret_v, struct err *e)
{
	const char *p = s ? s : "";
	bool neg = *p == '-';
	if (*p == '-' || *p == '+')
		p++;
	uint64_t v;
	if (!take_u64(&p, &v) || *p || v > (uint64_t)INT64_MAX + (neg ? 1 : 0))
		return err_set(e, ERR_INVALID, "\"%s\" is not a whole number of 64 bits", s ? s : "");
	*ret_v = neg ? (int64_t)(0 - v) : (int64_t)v;
	return 0;
}

/* A decimal number "12", "12.5", ".5", "12." as whole + frac / scale. Digits of the fraction past the
 * eighteenth are read and dropped: they are below what any unit here can show. */
static bool take_decimal(const char **s, uint64_t *whole, uint64_t *frac, uint64_t *scale)
{
	const char *p = *s;
	bool any = is_digit(*p);
	*whole = 0;
	*frac = 0;
	*scale = 1;
	if (any && !take_u64(&p, whole))
		return false;
	if (*p == '.') {
		p++;
		any = any || is_digit(*p);
		for (; is_digit(*p); p++) {
			if (*scale == UINT64_C(1000000000000000000))
				continue;
			*frac = *frac * 10 + (uint64_t)(*p - '0');
			*scale *= 10;
		}
	}
	*s = p;
	return any;
}

/* whole + frac/scale times unit, rounded towards zero; false past `max`. */
static bool scaled(uint64_t whole, uint64_t frac, uint64_t scale, uint64_t unit, uint64_t max, uint64_t *v)
{
	u128 n = (u128)whole * unit + (u128)frac * unit / scale;
	if (n > max)
		return false;
	*v = (uint64_t)n;
	return true;
}

int str_parse_size(const char *s, int64_t *ret_bytes, struct err *e)
{
	static const char units[] = "kmgtp";
	const char *p = s ? s : "";
	uint64_t whole, frac, scale, unit = 1, v;
	if (!is_digit(*p) || !take_decimal(&p, &whole, &frac, &scale))
		goto bad;
	if (*p == ' ')
		p++;
	if (*p) {
		char c = (char)(*p | 0x20);
		const char *u = strchr(units, c);
		if (u) {
			unit = UINT64_C(1) << (10 * (u - units + 1));
			p++;
			if (str_ieq(p, "ib"))
				p += 2;
		}
		if (str_ieq(p, "b"))
			p++;
		if (*p)
			goto bad;
	}
	if (!scaled(whole, frac, scale, unit, INT64_MAX, &v))
		return err_set(e, ERR_INVALID, "size \"%s\" is too large", s);
	*ret_bytes = (int64_t)v;
	return 0;
bad:
	return err_set(e, ERR_INVALID,
	    "invalid size \"%s\": use a number with an optional unit b, k, m, g, t or p", s ? s : "");
}

struct duration_unit {
	const char *name;
	uint64_t ns;
};

static const struct duration_unit duration_units[] = {
    {"ns", 1},
    {"us", 1000},
    {"\xc2\xb5s", 1000}, /* micro sign */
    {"\xce\xbcs", 1000}, /* Greek mu */
    {"ms", 1000000},
    {"s", UINT64_C(1000000000)},
    {"m", UINT64_C(60) * 1000000000},
    {"h", UINT64_C(3600) * 1000000000},
};

static uint64_t take_duration_unit(const char **s)
{
	size_t n = 0;
	while ((*s)[n] && (*s)[n] != '.' && !is_digit((*s)[n]))
		n++;
	for (size_t i = 0; i < sizeof(duration_units) / sizeof(duration_units[0]); i++) {
		const struct duration_unit *u = &duration_units[i];
		if (strlen(u->name) == n && memcmp(u->name, *s, n) == 0) {
			*s += n;
			return u->ns;
		}
	}
	return 0;
}

int str_parse_duration(const char *s, int64_t *ret_ns, struct err *e)
{
	const char *p = s ? s : "";
	bool neg = *p == '-';
	if (*p == '-' || *p == '+')
		p++;
	if (p[0] == '0' && !p[1]) {
		*ret_ns = 0;
		return 0;
	}
	uint64_t total = 0, max = (uint64_t)INT64_MAX + (neg ? 1 : 0);
	if (!*p)
		goto bad;
	while (*p) {
		uint64_t whole, frac, scale, v;
		if (!take_decimal(&p, &whole, &frac, &scale))
			goto bad;
		uint64_t unit = take_duration_unit(&p);
		if (!unit)
			goto bad;
		if (!scaled(whole, frac, scale, unit, max, &v) || v > max - total)
			return err_set(e, ERR_INVALID, "duration \"%s\" is too long", s);
		total += v;
	}
	*ret_ns = neg ? (int64_t)(0 - total) : (int64_t)total;
	return 0;
bad:
	return err_set(e, ERR_INVALID,
	    "invalid duration \"%s\": use numbers with units, such as 300ms, 10s or 1h30m", s ? s : "");
}

/* value / unit with as many digits after the point as it needs. */
static size_t put_decimal(char *out, size_t cap, uint64_t value, uint64_t unit)
{
	int n = snprintf(out, cap, "%llu", (unsigned long long)(value / unit));
	size_t len = (size_t)n;
	uint64_t rest = value % unit;
	if (!rest)
		return len;
	out[len++] = '.';
	while (rest) {
		unit /= 10;
		out[len++] = (char)('0' + rest / unit);
		rest %= unit;
	}
	out[len] = '\0';
	return len;
}

void str_format_duration(int64_t ns, char *out, size_t cap)
{
	char tmp[64];
	size_t n = 0;
	uint64_t v = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
	const uint64_t sec = (uint64_t)NS_PER_SEC;
	if (ns < 0)
		tmp[n++] = '-';
	if (v == 0) {
		snprintf(tmp, sizeof(tmp), "0s");
	} else if (v < sec) {
		uint64_t unit = v < 1000 ? 1 : v < 1000000 ? 1000 : 1000000;
		n += put_decimal(tmp + n, sizeof(tmp) - n, v, unit);
		snprintf(tmp + n, sizeof(tmp) - n, "%s",
		    unit == 1      ? "ns"
		    : unit == 1000 ? "\xc2\xb5s"
				   : "ms");
	} else {
		uint64_t h = v / (3600 * sec), m = v / (60 * sec) % 60;
		if (h)
			n += (size_t)snprintf(tmp + n, sizeof(tmp) - n, "%lluh", (unsigned long long)h);
		if (h || m)
			n += (size_t)snprintf(tmp + n, sizeof(tmp) - n, "%llum", (unsigned long long)m);
		n += put_decimal(tmp + n, sizeof(tmp) - n, v % (60 * sec), sec);
		snprintf(tmp + n, sizeof(tmp) - n, "s");
	}
	snprintf(out, cap, "%s", tmp);
}
