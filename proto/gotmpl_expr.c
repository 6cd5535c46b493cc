/* What stands inside of an action: constants, variables, fields, function calls and pipelines, to trees. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl_parser.h"

int gotmpl_fail(struct parser *s, const char *fmt, ...)
{
	unsigned line = 1;
	for (const char *q = s->start; q < s->p && q < s->end; q++)
		line += *q == '\n';
	va_list ap;
	va_start(ap, fmt);
	err_vset(s->e, ERR_INVALID, fmt, ap);
	va_end(ap);
	err_wrap(s->e, "template line %u", line);
	return ERR_INVALID;
}

int gotmpl_deeper(struct parser *s)
{
	return ++s->depth > GOTMPL_MAX_DEPTH ? gotmpl_fail(s, "nested too deeply") : 0;
}

void gotmpl_expr_free(struct expr *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->n; i++)
		gotmpl_expr_free(x->args[i]);
	free(x->args);
	free(x->name);
	json_decref(x->value);
	free(x);
}

/* --- expressions --------------------------------------------------------------------------------- */

void gotmpl_skip_space(struct parser *s)
{
	while (s->p < s->end && isspace((unsigned char)*s->p))
		s->p++;
}

bool gotmpl_looking_at(const struct parser *s, const char *word)
{
	size_t n = strlen(word);
	return (size_t)(s->end - s->p) >= n && memcmp(s->p, word, n) == 0;
}

/* Where `word` comes next, or NULL. */
const char *gotmpl_find(const struct parser *s, const char *word)
{
	return s->p < s->end ? memmem(s->p, (size_t)(s->end - s->p), word, strlen(word)) : NULL;
}

/* The end of an action, "}}" or " -}}", not consumed. */
bool gotmpl_at_close(struct parser *s)
{
	gotmpl_skip_space(s);
	return gotmpl_looking_at(s, "}}") || gotmpl_looking_at(s, "-}}");
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || ((unsigned char)c & 0x80);
}

size_t gotmpl_word_len(const struct parser *s)
{
	size_t n = 0;
	while (s->p + n < s->end && is_word(s->p[n]))
		n++;
	return n;
}

static struct expr *expr_new(enum expr_kind kind)
{
	struct expr *x = NEW(struct expr);
	x->kind = kind;
	return x;
}

static void expr_add(struct expr *x, struct expr *arg)
{
	x->args = xreallocarray(x->args, x->n + 1, sizeof(*x->args));
	x->args[x->n++] = arg;
}

static struct expr *const_new(json_t *v)
{
	struct expr *x = expr_new(EXPR_CONST);
	x->value = v;
	return x;
}

static int put_rune(struct parser *s, struct buf *b, unsigned long r)
{
	if (r == 0 || r > 0x10FFFF || (r >= 0xD800 && r < 0xE000))
		return gotmpl_fail(s, "a character that cannot be");
	if (r < 0x80) {
		buf_putc(b, (char)r);
	} else if (r < 0x800) {
		buf_putc(b, (char)(0xC0 | (r >> 6)));
		buf_putc(b, (char)(0x80 | (r & 63)));
	} else if (r < 0x10000) {
		buf_putc(b, (char)(0xE0 | (r >> 12)));
		buf_putc(b, (char)(0x80 | ((r >> 6) & 63)));
		buf_putc(b, (char)(0x80 | (r & 63)));
	} else {
		buf_putc(b, (char)(0xF0 | (r >> 18)));
		buf_putc(b, (char)(0x80 | ((r >> 12) & 63)));
		buf_putc(b, (char)(0x80 | ((r >> 6) & 63)));
		buf_putc(b, (char)(0x80 | (r & 63)));
	}
	return 0;
}

static int parse_escape(struct parser *s, struct buf *b)
{
	static const char from[] = "abfnrtv\\\"'", to[] = "\a\b\f\n\r\t\v\\\"'";
	char c = *s->p++;
	const char *at = c ? strchr(from, c) : NULL;
	if (at) {
		buf_putc(b, to[at - from]);
		return 0;
	}
	size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
	if (!digits || (size_t)(s->end - s->p) < digits)
		return gotmpl_fail(s, "unknown escape \\%c", c);
	unsigned long r = 0;
	for (size_t i = 0; i < digits; i++) {
		char d = *s->p++;
		if (!isxdigit((unsigned char)d))
			return gotmpl_fail(s, "bad escape \\%c", c);
		r = r * 16 + (unsigned long)(isdigit((unsigned char)d) ? d - '0' : (d | 32) - 'a' + 10);
	}
	return put_rune(s, b, r);
}

/* "..." or `...`; the opening quote is looked at. */
int gotmpl_parse_string(struct parser *s, json_t **ret)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	char quote = *s->p++;
	for (;;) {
		if (s->p >= s->end || (quote != '`' && *s->p == '\n'))
			return gotmpl_fail(s, "a string without its end");
		char c = *s->p++;
		if (c == quote)
			break;
		if (c == '\\' && quote != '`') {
			if (s->p >= s->end)
				return gotmpl_fail(s, "a string without its end");
			int r = parse_escape(s, &b);
			if (r < 0)
				return r;
		} else {
			buf_putc(&b, c);
		}
	}
	if (quote == '\'') { /* a character is its number */
		json_t *text = json_stringn(b.data ? b.data : "", b.len);
		size_t n = text ? json_string_length(text) : 0;
		const unsigned char *u = text ? (const unsigned char *)json_string_value(text) : NULL;
		static const unsigned char masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
		bool one =
		    n >= 1 && n <= 4 &&
		    (n == 1 ? u[0] < 0x80 : (u[0] & (0xFF << (7 - n) & 0xFF)) == (0xFF << (8 - n) & 0xFF));
		long v = one ? u[0] & masks[n] : 0;
		for (size_t i = 1; one && i < n; i++)
			v = v << 6 | (u[i] & 63);
		json_decref(text);
		if (!one)
			return gotmpl_fail(s, "not one character between ''");
		*ret = json_integer(v);
		return 0;
	}
	*ret = json_stringn(b.data ? b.data : "", b.len);
	return *ret ? 0 : gotmpl_fail(s, "a string that is not UTF-8");
}

static int parse_number(struct parser *s, json_t **ret)
{
	char text[64];
	size_t n = 0;
	while (s->p + n < s->end && n < sizeof(text) - 1 &&
	       (is_word(s->p[n]) || s->p[n] == '.' ||
		   ((s->p[n] == '-' || s->p[n] == '+') && (n == 0 || strchr("eE", s->p[n - 1])))))
		n++;
	memcpy(text, s->p, n);
	text[n] = 0;
	char *end;
	errno = 0;
	long long v = strtoll(text, &end, 0);
	if (n && !*end && errno == 0) {
		*ret = json_integer(v);
	} else {
		double d = strtod(text, &end);
		json_t *j = n && !*end ? json_real(d) : NULL;
		if (!j)
			return gotmpl_fail(s, "\"%s\" is not a number", text);
		*ret = j;
	}
	s->p += n;
	return 0;
}

static int function(struct parser *s, const char *name, size_t len, struct expr **ret)
{
	bool and = len == 3 && memcmp(name, "and", 3) == 0, or = len == 2 && memcmp(name, "or", 2) == 0;
	struct expr *x = expr_new(and? EXPR_AND : or ? EXPR_OR : EXPR_CALL);
	x->name = xstrndup(name, len);
	*ret = x;
	if (and || or)
		return 0;
	for (size_t i = 0; s->opts && s->opts->funcs && s->opts->funcs[i].name; i++)
		if (str_eq(s->opts->funcs[i].name, x->name)) {
			x->custom = i;
			return 0;
		}
	x->builtin = gotmpl_find_builtin(name, len);
	if (x->builtin)
		return 0;
	int r = gotmpl_fail(s, "function \"%s\" is not defined", x->name);
	gotmpl_expr_free(x);
	*ret = NULL;
	return r;
}

/* ".A.B" behind an operand. */
static int parse_fields(struct parser *s, struct expr **x)
{
	unsigned n = 0;
	while (s->p + 1 < s->end && *s->p == '.' && is_word(s->p[1])) {
		if (++n > GOTMPL_MAX_DEPTH)
			return gotmpl_fail(s, "too many fields in a row");
		s->p++;
		size_t len = gotmpl_word_len(s);
		struct expr *f = expr_new(EXPR_FIELD);
		f->name = xstrndup(s->p, len);
		expr_add(f, *x);
		*x = f;
		s->p += len;
	}
	return 0;
}

static int parse_operand(struct parser *s, struct expr **ret)
{
	gotmpl_skip_space(s);
	if (s->p >= s->end)
		return gotmpl_fail(s, "unclosed action");
	char c = *s->p;
	json_t *v = NULL;
	int r = 0;
	if (c == '(') {
		s->p++;
		if ((r = gotmpl_deeper(s)) < 0 || (r = gotmpl_parse_pipe(s, ret)) < 0)
			return r;
		s->depth--;
		gotmpl_skip_space(s);
		if (s->p >= s->end || *s->p != ')') {
			gotmpl_expr_free(TAKE_PTR(*ret));
			return gotmpl_fail(s, "missing )");
		}
		s->p++;
	} else if (c == '.') {
		*ret = expr_new(EXPR_DOT);
		if (!(s->p + 1 < s->end && is_word(s->p[1])))
			s->p++;
	} else if (c == '$') {
		s->p++;
		size_t n = gotmpl_word_len(s);
		*ret = expr_new(EXPR_VAR);
		(*ret)->name = xstrndup(s->p, n);
		s->p += n;
	} else if (c == '"' || c == '`' || c == '\'') {
		if ((r = gotmpl_parse_string(s, &v)) < 0)
			return r;
		*ret = const_new(v);
	} else if (isdigit((unsigned char)c) ||
		   ((c == '-' || c == '+') && s->p + 1 < s->end && isdigit((unsigned char)s->p[1]))) {
		if ((r = parse_number(s, &v)) < 0)
			return r;
		*ret = const_new(v);
	} else if (is_word(c)) {
		size_t n = gotmpl_word_len(s);
		const char *name = s->p;
		if (n == 4 && memcmp(name, "true", n) == 0)
			*ret = const_new(json_true());
		else if (n == 5 && memcmp(name, "false", n) == 0)
			*ret = const_new(json_false());
		else if (n == 3 && memcmp(name, "nil", n) == 0)
			*ret = const_new(json_null());
		else if ((r = function(s, name, n, ret)) < 0)
			return r;
		s->p += n;
	} else {
		return gotmpl_fail(s, "unexpected \"%c\"", c);
	}
	if ((r = parse_fields(s, ret)) < 0)
		gotmpl_expr_free(TAKE_PTR(*ret));
	return r;
}

static bool at_operand_end(struct parser *s)
{
	return gotmpl_at_close(s) || s->p >= s->end || *s->p == '|' || *s->p == ')';
}

static bool is_function(const struct expr *x)
{
	ASSERT(x != NULL);
	return (x->kind == EXPR_CALL || x->kind == EXPR_AND || x->kind == EXPR_OR) && x->n == 0;
}

/* One command of a pipeline: an operand, or a function (or a field) with arguments; `last` is what the pipe
 * brings, or NULL. */
static int parse_command(struct parser *s, struct expr *last, struct expr **ret)
{
	struct expr *x = NULL;
	int r = parse_operand(s, &x);
	if (r < 0 || !x)
		goto fail;
	bool takes = is_function(x);
	if (!takes && x->kind == EXPR_FIELD && (last || !at_operand_end(s))) {
		/* A method with an argument, as in {{.Label "k"}}: look the argument up in the field. */
		struct expr *call = expr_new(EXPR_CALL);
		call->name = xstrdup("index");
		call->builtin = gotmpl_find_builtin("index", 5);
		expr_add(call, x);
		x = call;
		takes = true;
	}
	while (!at_operand_end(s)) {
		struct expr *arg = NULL;
		if (!takes) {
			r = gotmpl_fail(s, "an argument to something that is no function");
			goto fail;
		}
		if ((r = parse_operand(s, &arg)) < 0)
			goto fail;
		expr_add(x, arg);
	}
	if (last && !takes) {
		r = gotmpl_fail(s, "a pipe into something that is no function");
		goto fail;
	}
	if (last)
		expr_add(x, last);
	*ret = x;
	return 0;
fail:
	gotmpl_expr_free(x);
	gotmpl_expr_free(last);
	return r;
}

/* "$x :=" or "$x =" before a pipeline: *ret_name (heap) stays NULL without. */
static void parse_assignment(struct parser *s, char **ret_name, bool *ret_declare)
{
	gotmpl_skip_space(s);
	const char *back = s->p;
	if (s->p < s->end && *s->p == '$') {
		s->p++;
		size_t n = gotmpl_word_len(s);
		const char *name = s->p;
		s->p += n;
		gotmpl_skip_space(s);
		if (gotmpl_looking_at(s, ":=") ||
		    (gotmpl_looking_at(s, "=") && !gotmpl_looking_at(s, "=="))) {
			*ret_declare = *s->p == ':';
			s->p += *ret_declare ? 2 : 1;
			*ret_name = xstrndup(name, n);
			return;
		}
	}
	s->p = back;
}

int gotmpl_parse_pipe(struct parser *s, struct expr **ret)
{
	CLEANUP_FREE char *name = NULL;
	bool declare = false;
	parse_assignment(s, &name, &declare);
	struct expr *x = NULL;
	unsigned commands = 0;
	for (;;) {
		struct expr *next = NULL;
		int r = parse_command(s, x, &next);
		if (r < 0)
			return r;
		x = next;
		if (gotmpl_at_close(s) || s->p >= s->end || *s->p != '|')
			break;
		if (++commands > GOTMPL_MAX_DEPTH) {
			gotmpl_expr_free(x);
			return gotmpl_fail(s, "too long a pipeline");
		}
		s->p++;
	}
	if (name) {
		struct expr *set = expr_new(EXPR_SET);
		set->name = TAKE_PTR(name);
		set->declare = declare;
		expr_add(set, x);
		x = set;
	}
	*ret = x;
	return 0;
}
