/* Comparing strings, and lists of them. Parsers are in str_num.c and str_time.c, encodings in
 * str_enc.c. */
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/mem.h"

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

bool str_eq(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_ieq(const char *a, const char *b)
{
	if (!a || !b)
		return a == b;
	while (*a && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return lower(*a) == lower(*b);
}

bool str_empty(const char *s)
{
	return !s || !*s;
}

bool str_has_prefix(const char *s, const char *prefix)
{
	return s && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_has_suffix(const char *s, const char *suffix)
{
	if (!s)
		return false;
	size_t n = strlen(s), k = strlen(suffix);
	return n >= k && memcmp(s + n - k, suffix, k) == 0;
}

bool str_has_iprefix(const char *s, const char *prefix)
{
	if (!s)
		return false;
	for (; *prefix; s++, prefix++) {
		if (lower(*s) != lower(*prefix))
			return false;
	}
	return true;
}

const char *str_or(const char *s, const char *fallback)
{
	return str_empty(s) ? fallback : s;
}

void strlist_add(struct strlist *l, const char *s)
{
	strlist_take(l, xstrdup(s));
}

void strlist_take(struct strlist *l, char *s)
{
	/* Full whenever n is a power of two: no capacity to keep. */
	if ((l->n & (l->n - 1)) == 0)
		l->v = xreallocarray(l->v, l->n ? l->n * 2 : 1, sizeof(*l->v));
	l->v[l->n++] = s;
}

void strlist_addf(struct strlist *l, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	strlist_take(l, buf_take(&b, NULL));
}

bool strlist_has(const struct strlist *l, const char *s)
{
	for (size_t i = 0; i < l->n; i++) {
		if (str_eq(l->v[i], s))
			return true;
	}
	return false;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void strlist_sort(struct strlist *l)
{
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), compare_entries);
}

void strlist_done(struct strlist *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct strlist)STRLIST_INIT;
}

void strlist_split(struct strlist *l, const char *s, char sep)
{
	for (;;) {
		const char *end = strchr(s, sep);
		if (!end || !sep) {
			strlist_add(l, s);
			return;
		}
		strlist_take(l, xstrndup(s, (size_t)(end - s)));
		s = end + 1;
	}
}

char *strlist_join(const struct strlist *l, const char *sep)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < l->n; i++) {
		if (i)
			buf_puts(&b, sep);
		buf_puts(&b, l->v[i]);
	}
	return buf_take(&b, NULL);
}

char **strlist_argv(const struct strlist *l)
{
	char **argv = xcalloc(l->n + 1, sizeof(*argv));
	for (size_t i = 0; i < l->n; i++)
		argv[i] = l->v[i];
	return argv;
}

/* Compares the digit runs at *a and *b as numbers of any length, and moves past them. */
static int compare_digits(const char **a, const char **b)
{
	while (**a == '0')
		(*a)++;
	while (**b == '0')
		(*b)++;
	const char *p = *a, *q = *b;
	while (is_digit(*p))
		p++;
	while (is_digit(*q))
		q++;
	size_t n = (size_t)(p - *a), k = (size_t)(q - *b);
	int d = n != k ? (n < k ? -1 : 1) : memcmp(*a, *b, n);
	*a = p;
	*b = q;
	return d;
}

int str_natural_cmp(const char *a, const char *b)
{
	const char *p = a, *q = b;
	while (*p && *q) {
		if (is_digit(*p) && is_digit(*q)) {
			int d = compare_digits(&p, &q);
			if (d)
				return d;
			continue;
		}
		if (*p != *q)
			return (unsigned char)*p < (unsigned char)*q ? -1 : 1;
		p++;
		q++;
	}
	if (*p || *q)
		return *p ? 1 : -1;
	/* Equal but for leading zeros: still a total order. */
	return strcmp(a, b);
}
