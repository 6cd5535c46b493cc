/* The functions that templates call: Go's own, and those that docker adds for --format. */
#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl_private.h"

bool gotmpl_truth(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return json_object_size(v) > 0;
	case JSON_ARRAY:
		return json_array_size(v) > 0;
	case JSON_STRING:
		return json_string_length(v) > 0;
	case JSON_INTEGER:
		return json_integer_value(v) != 0;
	case JSON_REAL:
		return json_real_value(v) < 0 || json_real_value(v) > 0;
	case JSON_TRUE:
		return true;
	case JSON_FALSE:
	case JSON_NULL:
		return false;
	}
	return false;
}

static int give_string(struct buf *b, json_t **ret, struct err *e)
{
	if (b->len > GOTMPL_MAX_VALUE)
		return err_set(e, ERR_TOO_LARGE, "the text is too long");
	*ret = json_stringn(b->data ? b->data : "", b->len);
	return *ret ? 0 : err_set(e, ERR_INVALID, "the text is not UTF-8");
}

static int need(size_t n, size_t want, struct err *e)
{
	return n == want ? 0 : err_set(e, ERR_INVALID, "takes %zu arguments, but got %zu", want, n);
}

static int need_string(json_t *const *args, size_t i, struct err *e)
{
	return json_is_string(args[i]) ? 0 : err_set(e, ERR_INVALID, "argument %zu is no string", i + 1);
}

/* --- logic and comparison ------------------------------------------------------------------------ */

static int call_not(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	int r = need(n, 1, e);
	if (r == 0)
		*ret = json_boolean(!gotmpl_truth(args[0]));
	return r;
}

/* -1, 0, 1 in *ret, or ERR_INVALID when the two do not compare. */
static int compare(const json_t *a, const json_t *b, bool order, int *ret, struct err *e)
{
	if (json_is_string(a) && json_is_string(b)) {
		int c = strcmp(json_string_value(a), json_string_value(b));
		*ret = c < 0 ? -1 : c > 0;
	} else if (json_is_integer(a) && json_is_integer(b)) {
		json_int_t x = json_integer_value(a), y = json_integer_value(b);
		*ret = x < y ? -1 : x > y;
	} else if (json_is_number(a) && json_is_number(b)) {
		double x = json_number_value(a), y = json_number_value(b);
		*ret = x < y ? -1 : x > y;
	} else if (!order &&
		   (json_is_null(a) || json_is_null(b) || (json_is_boolean(a) && json_is_boolean(b)))) {
		*ret = json_typeof(a) != json_typeof(b);
	} else {
		return err_set(e, ERR_INVALID, "incompatible types for comparison");
	}
	return 0;
}

static int call_eq(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	bool same = false;
	if (n < 2)
		return err_set(e, ERR_INVALID, "takes at least two arguments");
	for (size_t i = 1; i < n && !same; i++) {
		int c = 0, r = compare(args[0], args[i], false, &c, e);
		if (r < 0)
			return r;
		same = c == 0;
	}
	*ret = json_boolean(same);
	return 0;
}

static int call_ne(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	int c = 0, r = need(n, 2, e);
	if (r < 0 || (r = compare(args[0], args[1], false, &c, e)) < 0)
		return r;
	*ret = json_boolean(c != 0);
	return 0;
}

#define ORDER(name, op)                                                                                      \
	static int call_##name(json_t *const *args, size_t n, json_t **ret, struct err *e)                   \
	{                                                                                                    \
		int c = 0, r = need(n, 2, e);                                                                \
		if (r < 0 || (r = compare(args[0], args[1], true, &c, e)) < 0)                               \
			return r;                                                                            \
		*ret = json_boolean(c op 0);                                                                 \
		return 0;                                                                                    \
	}
ORDER(lt, <)
ORDER(le, <=)
ORDER(gt, >)
ORDER(ge, >=)

/* --- lists, maps, strings ------------------------------------------------------------------------ */

static int call_len(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	int r = need(n, 1, e);
	if (r < 0)
		return r;
	const json_t *v = args[0];
	if (!json_is_string(v) && !json_is_array(v) && !json_is_object(v) && !json_is_null(v))
		return err_set(e, ERR_INVALID, "of something that has no length");
	size_t len = json_is_string(v)  ? json_string_length(v)
		     : json_is_array(v) ? json_array_size(v)
					: json_object_size(v);
	*ret = json_integer((json_int_t)len);
	return 0;
}

static int call_index(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	if (n < 1)
		return err_set(e, ERR_INVALID, "needs arguments");
	json_t *v = args[0];
	for (size_t i = 1; i < n; i++) {
		if (json_is_array(v) && json_is_integer(args[i])) {
			json_int_t at = json_integer_value(args[i]);
			if (at < 0 || (uint64_t)at >= json_array_size(v))
				return err_set(e, ERR_NOT_FOUND, "%lld is out of range (there are %zu)",
				    (long long)at, json_array_size(v));
			v = json_array_get(v, (size_t)at);
		} else if ((json_is_object(v) || json_is_null(v)) && json_is_string(args[i])) {
			json_t *item = json_object_get(v, json_string_value(args[i]));
			v = item ? item : json_null();
		} else {
			return err_set(e, ERR_INVALID, "argument %zu does not fit what is indexed", i + 1);
		}
	}
	*ret = json_incref(v);
	return 0;
}

static int call_slice(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	if (n < 1 || n > 3 || !(json_is_string(args[0]) || json_is_array(args[0])))
		return err_set(e, ERR_INVALID, "takes a string or list, and up to two numbers");
	bool string = json_is_string(args[0]);
	size_t len = string ? json_string_length(args[0]) : json_array_size(args[0]);
	json_int_t from = 0, to = (json_int_t)len;
	for (size_t i = 1; i < n; i++)
		if (!json_is_integer(args[i]))
			return err_set(e, ERR_INVALID, "argument %zu is no number", i + 1);
	if (n > 1)
		from = json_integer_value(args[1]);
	if (n > 2)
		to = json_integer_value(args[2]);
	if (from < 0 || to < from || (uint64_t)to > len)
		return err_set(e, ERR_INVALID, "%lld to %lld is out of range (there are %zu)",
		    (long long)from, (long long)to, len);
	if (string) {
		*ret = json_stringn(json_string_value(args[0]) + from, (size_t)(to - from));
		return *ret ? 0 : err_set(e, ERR_INVALID, "cuts a character in two");
	}
	json_t *l = json_array();
	for (json_int_t i = from; i < to; i++)
		json_array_append(l, json_array_get(args[0], (size_t)i));
	*ret = l;
	return 0;
}

static int call_split(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	int r = need(n, 2, e);
	if (r < 0 || (r = need_string(args, 0, e)) < 0 || (r = need_string(args, 1, e)) < 0)
		return r;
	const char *s = json_string_value(args[0]), *sep = json_string_value(args[1]);
	size_t n_sep = strlen(sep);
	if (!n_sep)
		return err_set(e, ERR_INVALID, "an empty separator");
	json_t *l = json_array();
	for (const char *at; (at = strstr(s, sep)); s = at + n_sep)
		json_array_append_new(l, json_stringn(s, (size_t)(at - s)));
	json_array_append_new(l, json_string(s));
	*ret = l;
	return 0;
}

/* Of a list and a separator, in either order (a pipe brings the list last). */
static int call_join(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	int r = need(n, 2, e);
	if (r < 0)
		return r;
	size_t sep = json_is_string(args[0]) ? 0 : 1;
	const json_t *list = args[1 - sep];
	if (!json_is_string(args[sep]) || !(json_is_array(list) || json_is_null(list)))
		return err_set(e, ERR_INVALID, "takes a list and a separator");
	for (size_t i = 0; i < json_array_size(list); i++) {
		if (i)
			buf_puts(&b, json_string_value(args[sep]));
		if ((r = gotmpl_print(&b, json_array_get(list, i), GOTMPL_MAX_VALUE, e)) < 0)
			return r;
	}
	return give_string(&b, ret, e);
}

enum letters { UPPER, LOWER, TITLE };

static int change_case(json_t *const *args, size_t n, json_t **ret, enum letters how, struct err *e)
{
	int r = need(n, 1, e);
	if (r < 0 || (r = need_string(args, 0, e)) < 0)
		return r;
	CLEANUP_FREE char *s = xstrdup(json_string_value(args[0]));
	for (char *p = s; *p; p++) {
		bool first = p == s || p[-1] == ' ';
		if (how == UPPER || (how == TITLE && first))
			*p = (char)((unsigned char)*p < 128 ? toupper((unsigned char)*p) : *p);
		else if (how == LOWER)
			*p = (char)((unsigned char)*p < 128 ? tolower((unsigned char)*p) : *p);
	}
	*ret = json_string(s);
	return 0;
}

static int call_upper(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	return change_case(args, n, ret, UPPER, e);
}

static int call_lower(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	return change_case(args, n, ret, LOWER, e);
}

static int call_title(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	return change_case(args, n, ret, TITLE, e);
}

/* pad TEXT BEFORE AFTER; nothing becomes of an empty text. */
static int call_pad(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	int r = need(n, 3, e);
	if (r < 0 || (r = need_string(args, 0, e)) < 0)
		return r;
	json_int_t before = json_integer_value(args[1]), after = json_integer_value(args[2]);
	if (!json_is_integer(args[1]) || !json_is_integer(args[2]) || before < 0 || after < 0 ||
	    before > 1024 || after > 1024)
		return err_set(e, ERR_INVALID, "takes a text and two numbers up to 1024");
	if (json_string_length(args[0]))
		buf_printf(&b, "%*s%s%*s", (int)before, "", json_string_value(args[0]), (int)after, "");
	return give_string(&b, ret, e);
}

static int call_truncate(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	int r = need(n, 2, e);
	if (r < 0 || (r = need_string(args, 0, e)) < 0)
		return r;
	if (!json_is_integer(args[1]) || json_integer_value(args[1]) < 0)
		return err_set(e, ERR_INVALID, "takes a text and a number");
	const char *s = json_string_value(args[0]);
	json_int_t left = json_integer_value(args[1]);
	size_t i = 0;
	for (; s[i]; i++)
		if (((unsigned char)s[i] & 0xC0) != 0x80 && left-- == 0)
			break;
	*ret = json_stringn(s, i);
	return 0;
}

/* --- printing ------------------------------------------------------------------------------------ */

static int call_json(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	int r = need(n, 1, e);
	if (r < 0)
		return r;
	CLEANUP_FREE char *text =
	    json_dumps(args[0], JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));
	if (!text)
		return err_set(e, ERR_INVALID, "a value that JSON cannot hold");
	*ret = json_string(text);
	return *ret ? 0 : err_set(e, ERR_INVALID, "the text is not UTF-8");
}

static int print_all(json_t *const *args, size_t n, bool line, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		/* print puts a space only between two that are both no strings; println always. */
		if (i && (line || (!json_is_string(args[i]) && !json_is_string(args[i - 1]))))
			buf_putc(&b, ' ');
		int r = 0;
		if (json_is_null(args[i]))
			buf_puts(&b, "<nil>");
		else
			r = gotmpl_print(&b, args[i], GOTMPL_MAX_VALUE, e);
		if (r < 0)
			return r;
	}
	if (line)
		buf_putc(&b, '\n');
	return give_string(&b, ret, e);
}

static int call_print(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	return print_all(args, n, false, ret, e);
}

static int call_println(json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	return print_all(args, n, true, ret, e);
}

gotmpl_builtin gotmpl_find_builtin(const char *name, size_t len)
{
	static const struct {
		const char *name;
		gotmpl_builtin call;
	} all[] = {{"not", call_not}, {"eq", call_eq}, {"ne", call_ne}, {"lt", call_lt}, {"le", call_le},
	    {"gt", call_gt}, {"ge", call_ge}, {"len", call_len}, {"index", call_index}, {"slice", call_slice},
	    {"print", call_print}, {"println", call_println}, {"printf", gotmpl_printf}, {"json", call_json},
	    {"join", call_join}, {"split", call_split}, {"upper", call_upper}, {"lower", call_lower},
	    {"title", call_title}, {"pad", call_pad}, {"truncate", call_truncate}};
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (strlen(all[i].name) == len && memcmp(all[i].name, name, len) == 0)
			return all[i].call;
	return NULL;
}
