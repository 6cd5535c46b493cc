/* RFC 3339 times as nanoseconds since 1970, which reach from 1677 to 2262; a time outside is
 * ERR_INVALID. Leap seconds (":60") are refused, as Go does. */
#include "base/str.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"

#define SEC_PER_DAY 86400

/* Proleptic Gregorian calendar, computed with years that begin in March so that the leap day comes
 * last. `month` is 1..12. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
	if (month <= 2)
		year--;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t yoe = year - era * 400;
	int64_t doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
	return era * 146097 + doe - 719468;
}

struct date {
	int year, month, day;
};

static struct date date_from_days(int64_t days)
{
	days += 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	int64_t doe = days - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	int64_t month = mp < 10 ? mp + 3 : mp - 9;
	int64_t year = yoe + era * 400 + (month <= 2);
	return (struct date){(int)year, (int)month, (int)(doy - (153 * mp + 2) / 5 + 1)};
}

static size_t put_seconds(int64_t unix_ns, char out[40], int64_t *ret_frac)
{
	int64_t sec = unix_ns / NS_PER_SEC, frac = unix_ns % NS_PER_SEC;
	if (frac < 0) {
		frac += NS_PER_SEC;
		sec--;
	}
	int64_t days = sec / SEC_PER_DAY, rest = sec % SEC_PER_DAY;
	if (rest < 0) {
		rest += SEC_PER_DAY;
		days--;
	}
	struct date d = date_from_days(days);
	*ret_frac = frac;
	return (size_t)snprintf(out, 40, "%04d-%02d-%02dT%02d:%02d:%02d", d.year, d.month, d.day,
	    (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
}

void str_format_time_fixed(int64_t unix_ns, char out[40])
{
	int64_t frac;
	size_t n = put_seconds(unix_ns, out, &frac);
	snprintf(out + n, 40 - n, ".%09dZ", (int)frac);
}

void str_format_time(int64_t unix_ns, char out[40])
{
	int64_t frac;
	size_t n = put_seconds(unix_ns, out, &frac);
	if (frac) {
		n += (size_t)snprintf(out + n, 40 - n, ".%09d", (int)frac);
		while (out[n - 1] == '0')
			n--;
	}
	snprintf(out + n, 40 - n, "Z");
}

/* Exactly `n` digits at *s, in [min, max]. */
static bool take_field(const char **s, int n, int min, int max, int *ret)
{
	int v = 0;
	for (int i = 0; i < n; i++, (*s)++) {
		if (**s < '0' || **s > '9')
			return false;
		v = v * 10 + (**s - '0');
	}
	*ret = v;
	return v >= min && v <= max;
}

static bool take_char(const char **s, char c)
{
	return **s == c && (*s)++;
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return days[month - 1] + (month == 2 && leap);
}

/* ".5" and so on as nanoseconds; nothing is 0. */
static bool take_fraction(const char **s, int64_t *ret_ns)
{
	*ret_ns = 0;
	if (!take_char(s, '.'))
		return true;
	int64_t unit = NS_PER_SEC;
	for (; **s >= '0' && **s <= '9'; (*s)++) {
		unit /= 10;
		if (!unit)
			return false;
		*ret_ns += (**s - '0') * unit;
	}
	return unit < NS_PER_SEC;
}

static bool take_offset(const char **s, int *ret_sec)
{
	*ret_sec = 0;
	if (take_char(s, 'Z'))
		return true;
	int sign = **s == '-' ? -1 : 1, h, m;
	if (!take_char(s, '+') && !take_char(s, '-'))
		return false;
	if (!take_field(s, 2, 0, 23, &h) || !take_char(s, ':') || !take_field(s, 2, 0, 59, &m))
		return false;
	*ret_sec = sign * (h * 3600 + m * 60);
	return true;
}

int str_parse_time(const char *s, int64_t *ret_unix_ns, struct err *e)
{
	const char *p = s ? s : "";
	int year, month, day, h, m, sec, offset;
	int64_t frac, ns;
	bool ok = take_field(&p, 4, 0, 9999, &year) && take_char(&p, '-') &&
		  take_field(&p, 2, 1, 12, &month) && take_char(&p, '-') &&
		  take_field(&p, 2, 1, days_in_month(year, month), &day) && take_char(&p, 'T') &&
		  take_field(&p, 2, 0, 23, &h) && take_char(&p, ':') && take_field(&p, 2, 0, 59, &m) &&
		  take_char(&p, ':') && take_field(&p, 2, 0, 59, &sec) && take_fraction(&p, &frac) &&
		  take_offset(&p, &offset) && !*p;
	if (!ok)
		return err_set(e, ERR_INVALID,
		    "invalid time \"%s\": use RFC 3339, such as 2026-01-02T03:04:05Z", s ? s : "");
	int64_t total = days_from_date(year, month, day) * SEC_PER_DAY + h * 3600 + m * 60 + sec - offset;
	/* Before 1970 the fraction counts towards zero, so that the earliest time does not overflow. */
	if (total < 0 && frac) {
		total++;
		frac -= NS_PER_SEC;
	}
	if (__builtin_mul_overflow(total, NS_PER_SEC, &ns) || __builtin_add_overflow(ns, frac, &ns))
		return err_set(e, ERR_INVALID, "time \"%s\" is out of range (1677 to 2262)", s);
	*ret_unix_ns = ns;
	return 0;
}
