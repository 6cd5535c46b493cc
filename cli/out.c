/* Quantities in words, and tables. Columns are as wide as their longest cell, at least seven, with three
 * spaces between, as docker's are; the last one is not padded, so that no line ends in spaces. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <ctype.h>

#include "base/mem.h"
#include "cli/out.h"

#define GAP       3
#define MIN_WIDTH 7 /* of a cell without the gap */

#define SECOND INT64_C(1000000000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

int64_t out_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

void out_duration(int64_t ns, char out[32])
{
	long long seconds = ns / SECOND, minutes = ns / MINUTE, hours = (ns + HOUR / 2) / HOUR;
	if (seconds < 1)
		snprintf(out, 32, "Less than a second");
	else if (seconds == 1)
		snprintf(out, 32, "1 second");
	else if (seconds < 60)
		snprintf(out, 32, "%lld seconds", seconds);
	else if (minutes == 1)
		snprintf(out, 32, "About a minute");
	else if (minutes < 60)
		snprintf(out, 32, "%lld minutes", minutes);
	else if (hours == 1)
		snprintf(out, 32, "About an hour");
	else if (hours < 48)
		snprintf(out, 32, "%lld hours", hours);
	else if (hours < 24 * 7 * 2)
		snprintf(out, 32, "%lld days", hours / 24);
	else if (hours < 24 * 30 * 2)
		snprintf(out, 32, "%lld weeks", hours / 24 / 7);
	else if (hours < 24 * 365 * 2)
		snprintf(out, 32, "%lld months", hours / 24 / 30);
	else
		snprintf(out, 32, "%lld years", hours / 24 / 365);
}

void out_ago(const char *when, char out[40])
{
	int64_t t;
	out[0] = 0;
	if (str_empty(when) || str_parse_time(when, &t, NULL) < 0 || t < 0)
		return;
	char words[32];
	out_duration(out_now() - t, words);
	snprintf(out, 40, "%s ago", words);
}

static void size_words(double v, double base, const char *const *units, size_t n, int digits, char out[32])
{
	size_t i = 0;
	while (v >= base && i + 1 < n) {
		v /= base;
		i++;
	}
	snprintf(out, 32, "%.*g%s", digits, v, units[i]);
}

void out_size_decimal(double bytes, int digits, char out[32])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	size_words(bytes, 1000.0, units, ARRAY_LEN(units), digits, out);
}

void out_size_binary(double bytes, char out[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	size_words(bytes, 1024.0, units, ARRAY_LEN(units), 4, out);
}

void out_capital(const char *s, char *out, size_t cap)
{
	snprintf(out, cap, "%s", s);
	out[0] = (char)toupper((unsigned char)out[0]);
}

char *out_id(const char *id, bool full)
{
	if (full)
		return xstrdup(id);
	if (str_has_prefix(id, "sha256:"))
		id += 7;
	return xstrndup(id, 12);
}

char *out_labels(const json_t *labels)
{
	CLEANUP_STRLIST struct strlist all = STRLIST_INIT;
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)labels, key, v)
	    strlist_addf(&all, "%s=%s", key, json_string_value(v) ? json_string_value(v) : "");
	strlist_sort(&all);
	return strlist_join(&all, ",");
}

size_t out_width(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xC0) != 0x80;
	return n;
}

char *out_cut(const char *s, size_t columns)
{
	if (out_width(s) <= columns)
		return xstrdup(s);
	size_t i = 0, n = 0;
	for (; s[i]; i++)
		if (((unsigned char)s[i] & 0xC0) != 0x80 && n++ == columns - 1)
			break;
	return xasprintf("%.*s\u2026", (int)i, s);
}

void out_table(struct buf *b, const char *const *cells, size_t n_columns, size_t n_rows)
{
	CLEANUP_FREE size_t *widths = xcalloc(n_columns, sizeof(size_t));
	for (size_t r = 0; r < n_rows; r++)
		for (size_t k = 0; k < n_columns; k++) {
			size_t w = out_width(cells[r * n_columns + k]);
			if (w > widths[k])
				widths[k] = w;
		}
	for (size_t r = 0; r < n_rows; r++) {
		size_t end = n_columns;
		while (end && !*cells[r * n_columns + end - 1])
			end--;
		for (size_t k = 0; k < end; k++) {
			const char *s = cells[r * n_columns + k];
			buf_puts(b, s);
			size_t want = (widths[k] < MIN_WIDTH ? MIN_WIDTH : widths[k]) + GAP;
			if (k + 1 < end)
				buf_printf(b, "%*s", (int)(want - out_width(s)), "");
		}
		buf_putc(b, '\n');
	}
}
