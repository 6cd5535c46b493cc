/* Values as Go prints them, and fmt.Sprintf. Numbers print in their shortest form that reads back the same;
 * maps by sorted key. A verb that does not fit its argument prints as Go's "%!d(string=x)". */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl_private.h"

#define MAX_PAD     1024 /* of a width or precision in a format */
#define MAX_NESTING 128

static int bounded(const struct buf *b, size_t max, struct err *e)
{
	return b->len > max ? err_set(e, ERR_TOO_LARGE, "the template's output is too long") : 0;
}

static void print_real(struct buf *b, double d)
{
	char text[400];
	int precision = 0;
	do {
		snprintf(text, sizeof(text), "%.*e", precision, d);
	} while (strtod(text, NULL) != d && ++precision < 17);
	const char *exponent = strchr(text, 'e');
	int x = exponent ? atoi(exponent + 1) : 0;
	if (x >= -4 && x < 21) {
		int decimals = precision - x;
		snprintf(text, sizeof(text), "%.*f", decimals > 0 ? decimals : 0, d);
	}
	buf_puts(b, text);
}

static int print(struct buf *b, const json_t *v, size_t max, unsigned depth, struct err *e)
{
	int r = bounded(b, max, e);
	if (r < 0)
		return r;
	if (depth > MAX_NESTING)
		return err_set(e, ERR_TOO_LARGE, "a value nested too deeply");
	switch (json_typeof(v)) {
	case JSON_STRING:
		buf_append(b, json_string_value(v), json_string_length(v));
		break;
	case JSON_INTEGER:
		buf_printf(b, "%lld", (long long)json_integer_value(v));
		break;
	case JSON_REAL:
		print_real(b, json_real_value(v));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		buf_puts(b, json_is_true(v) ? "true" : "false");
		break;
	case JSON_NULL:
		buf_puts(b, "<nil>");
		break;
	case JSON_ARRAY:
		buf_putc(b, '[');
		for (size_t i = 0; i < json_array_size(v); i++) {
			if (i)
				buf_putc(b, ' ');
			if ((r = print(b, json_array_get(v, i), max, depth + 1, e)) < 0)
				return r;
		}
		buf_putc(b, ']');
		break;
	case JSON_OBJECT: {
		CLEANUP_STRLIST struct strlist keys = STRLIST_INIT;
		const char *key;
		json_t *item;
		json_object_foreach((json_t *)(uintptr_t)v, key, item) strlist_add(&keys, key);
		strlist_sort(&keys);
		buf_puts(b, "map[");
		for (size_t i = 0; i < keys.n; i++) {
			buf_printf(b, "%s%s:", i ? " " : "", keys.v[i]);
			if ((r = print(b, json_object_get(v, keys.v[i]), max, depth + 1, e)) < 0)
				return r;
		}
		buf_putc(b, ']');
		break;
	}
	}
	return bounded(b, max, e);
}

int gotmpl_print(struct buf *b, const json_t *v, size_t max, struct err *e)
{
	if (json_is_null(v)) {
		buf_puts(b, "<no value>");
		return bounded(b, max, e);
	}
	return print(b, v, max, 0, e);
}

/* --- printf -------------------------------------------------------------------------------------- */

struct verb {
	bool minus, plus, sharp, space, zero;
	int width, precision; /* -1: not given */
	char letter;
};

static const char *parse_number(const char *p, int *ret)
{
	int n = 0;
	for (; isdigit((unsigned char)*p); p++)
		n = n >= MAX_PAD ? MAX_PAD : n * 10 + (*p - '0');
	*ret = n > MAX_PAD ? MAX_PAD : n;
	return p;
}

static const char *parse_verb(const char *p, struct verb *v)
{
	*v = (struct verb){.width = -1, .precision = -1};
	for (;; p++) {
		if (*p == '-')
			v->minus = true;
		else if (*p == '+')
			v->plus = true;
		else if (*p == '#')
			v->sharp = true;
		else if (*p == ' ')
			v->space = true;
		else if (*p == '0')
			v->zero = true;
		else
			break;
	}
	if (isdigit((unsigned char)*p))
		p = parse_number(p, &v->width);
	if (*p == '.')
		p = parse_number(p + 1, &v->precision);
	v->letter = *p;
	return *p ? p + 1 : p;
}

static size_t runes(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xC0) != 0x80;
	return n;
}

static void pad(struct buf *b, const struct verb *v, const char *s)
{
	size_t w = runes(s), want = v->width > 0 ? (size_t)v->width : 0;
	int spaces = want > w ? (int)(want - w) : 0;
	if (!v->minus && v->zero && spaces && (isdigit((unsigned char)*s) || *s == '-' || *s == '+')) {
		if (!isdigit((unsigned char)*s))
			buf_putc(b, *s++);
		while (spaces--)
			buf_putc(b, '0');
		spaces = 0;
	}
	if (!v->minus)
		buf_printf(b, "%*s", spaces, "");
	buf_puts(b, s);
	if (v->minus)
		buf_printf(b, "%*s", spaces, "");
}

static void quote(struct buf *b, const char *s)
{
	buf_putc(b, '"');
	for (; *s; s++) {
		static const char from[] = "\a\b\f\n\r\t\v\\\"", to[] = "abfnrtv\\\"";
		const char *at = strchr(from, *s);
		if (at)
			buf_printf(b, "\\%c", to[at - from]);
		else if ((unsigned char)*s < 0x20 || *s == 0x7f)
			buf_printf(b, "\\x%02x", (unsigned)(unsigned char)*s);
		else
			buf_putc(b, *s);
	}
	buf_putc(b, '"');
}

static void mismatch(struct buf *b, char letter, const json_t *v, const char *text)
{
	static const char *const types[] = {
	    "map[string]interface {}", "[]interface {}", "string", "int", "float64", "bool", "bool"};
	if (json_is_null(v))
		buf_printf(b, "%%!%c(<nil>)", letter);
	else
		buf_printf(b, "%%!%c(%s=%s)", letter, types[json_typeof(v)], text);
}

static void cut_runes(char *s, int n)
{
	for (; *s; s++)
		if (((unsigned char)*s & 0xC0) != 0x80 && n-- == 0)
			break;
	*s = 0;
}

static void format_int(struct buf *b, const struct verb *v, long long n)
{
	CLEANUP_BUF struct buf t = BUF_INIT;
	unsigned long long u = n < 0 ? 0 - (unsigned long long)n : (unsigned long long)n;
	if (n < 0)
		buf_putc(&t, '-');
	else if (v->plus || v->space)
		buf_putc(&t, v->plus ? '+' : ' ');
	switch (v->letter) {
	case 'x':
		buf_printf(&t, v->sharp ? "0x%llx" : "%llx", u);
		break;
	case 'X':
		buf_printf(&t, v->sharp ? "0X%llX" : "%llX", u);
		break;
	case 'o':
		buf_printf(&t, v->sharp ? "0%llo" : "%llo", u);
		break;
	case 'b': {
		char bits[65];
		int i = 64;
		bits[i] = 0;
		do
			bits[--i] = (char)('0' + (u & 1));
		while (u >>= 1);
		buf_puts(&t, bits + i);
		break;
	}
	default:
		buf_printf(&t, "%llu", u);
	}
	pad(b, v, t.data);
}

static void format_real(struct buf *b, const struct verb *v, double d)
{
	char text[512 + MAX_PAD];
	int precision = v->precision < 0 ? 6 : v->precision;
	if (v->letter == 'e')
		snprintf(text, sizeof(text), v->plus ? "%+.*e" : "%.*e", precision, d);
	else if (v->letter == 'g' && v->precision >= 0)
		snprintf(text, sizeof(text), v->plus ? "%+.*g" : "%.*g", precision, d);
	else
		snprintf(text, sizeof(text), v->plus ? "%+.*f" : "%.*f", precision, d);
	pad(b, v, text);
}

static int format_string(struct buf *b, const struct verb *v, char *text)
{
	CLEANUP_BUF struct buf t = BUF_INIT;
	if (v->precision >= 0)
		cut_runes(text, v->precision);
	if (v->letter == 'q') {
		quote(&t, text);
	} else if (v->letter == 'x' || v->letter == 'X') {
		for (const char *p = text; *p; p++)
			buf_printf(&t, v->letter == 'x' ? "%02x" : "%02X", (unsigned)(unsigned char)*p);
	} else {
		buf_puts(&t, text);
	}
	pad(b, v, t.data ? t.data : "");
	return 0;
}

static int format_one(struct buf *b, const struct verb *v, const json_t *arg, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT;
	int r = print(&text, arg, GOTMPL_MAX_VALUE, 0, e);
	if (r < 0)
		return r;
	char *s = text.data ? text.data : "";
	char empty[1] = "";
	if (!*s)
		s = empty;
	bool integer = json_is_integer(arg), real = json_is_real(arg), string = json_is_string(arg);
	if (v->letter == 'v' ||
	    (v->letter == 's' && !integer && !real && !json_is_boolean(arg) && !json_is_null(arg))) {
		if (v->sharp && string)
			quote(b, s);
		else if (string)
			format_string(b, v, s);
		else
			pad(b, v, s);
	} else if (string && strchr("qxX", v->letter)) {
		format_string(b, v, s);
	} else if (integer && strchr("dxXob", v->letter)) {
		format_int(b, v, json_integer_value(arg));
	} else if (integer && v->letter == 'c') {
		char c[2] = {(char)json_integer_value(arg), 0};
		pad(b, v, json_integer_value(arg) > 0 && json_integer_value(arg) < 128 ? c : "?");
	} else if (real && v->letter == 'g' && v->precision < 0) {
		pad(b, v, s);
	} else if (real && strchr("feg", v->letter)) {
		format_real(b, v, json_real_value(arg));
	} else if (json_is_boolean(arg) && v->letter == 't') {
		pad(b, v, s);
	} else {
		mismatch(b, v->letter, arg, s);
	}
	return 0;
}

int gotmpl_printf(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (n < 1 || !json_is_string(args[0]))
		return err_set(e, ERR_INVALID, "needs a format first");
	size_t next = 1;
	for (const char *p = json_string_value(args[0]); *p;) {
		if (*p != '%') {
			buf_putc(&b, *p++);
			continue;
		}
		struct verb v;
		p = parse_verb(p + 1, &v);
		if (!v.letter) {
			buf_puts(&b, "%!(NOVERB)");
		} else if (v.letter == '%') {
			buf_putc(&b, '%');
		} else if (next >= n) {
			buf_printf(&b, "%%!%c(MISSING)", v.letter);
		} else {
			int r = format_one(&b, &v, args[next++], e);
			if (r < 0)
				return r;
		}
		if (b.len > GOTMPL_MAX_VALUE)
			return err_set(e, ERR_TOO_LARGE, "the text is too long");
	}
	*ret = json_stringn(b.data ? b.data : "", b.len);
	return *ret ? 0 : err_set(e, ERR_INVALID, "the text is not UTF-8");
}
