/* Templates to trees, by recursive descent over the text itself. Errors name the line. Everything is bounded:
 * the text, and the depth of nesting; a tree has fewer nodes than the text has bytes. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl_private.h"

struct parser {
	const char *p, *end, *start;
	struct gotmpl *t;
	const struct gotmpl_opts *opts;
	struct err *e;
	unsigned depth, loops;
	bool trim_next;
};

/* What ended a list of nodes. */
enum stop { STOP_EOF, STOP_END, STOP_ELSE };

static int parse_list(struct parser *s, struct node_list *l, enum stop *ret_stop);
static int parse_pipe(struct parser *s, struct expr **ret);

static int fail(struct parser *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct parser *s, const char *fmt, ...)
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

static int deeper(struct parser *s)
{
	return ++s->depth > GOTMPL_MAX_DEPTH ? fail(s, "nested too deeply") : 0;
}

/* --- freeing
 * ------------------------------------------------------------------------------------------------------ */

static void expr_free(struct expr *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->n; i++)
		expr_free(x->args[i]);
	free(x->args);
	free(x->name);
	json_decref(x->value);
	free(x);
}

static void list_done(struct node_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct node *n = &l->v[i];
		free(n->text);
		free(n->key_var);
		free(n->elem_var);
		expr_free(n->pipe);
		list_done(&n->body);
		list_done(&n->other);
	}
	free(l->v);
}

void gotmpl_free(struct gotmpl *t)
{
	if (!t)
		return;
	list_done(&t->root);
	for (size_t i = 0; i < t->n_defs; i++) {
		free(t->defs[i].name);
		list_done(&t->defs[i].body);
	}
	free(t->defs);
	free(t);
}

/* --- expressions
 * -------------------------------------------------------------------------------------------------- */

static void skip_space(struct parser *s)
{
	while (s->p < s->end && isspace((unsigned char)*s->p))
		s->p++;
}

static bool looking_at(const struct parser *s, const char *word)
{
	size_t n = strlen(word);
	return (size_t)(s->end - s->p) >= n && memcmp(s->p, word, n) == 0;
}

/* Where `word` comes next, or NULL. */
static const char *find(const struct parser *s, const char *word)
{
	return s->p < s->end ? memmem(s->p, (size_t)(s->end - s->p), word, strlen(word)) : NULL;
}

/* The end of an action, "}}" or " -}}", not consumed. */
static bool at_close(struct parser *s)
{
	skip_space(s);
	return looking_at(s, "}}") || looking_at(s, "-}}");
}

static int close_action(struct parser *s)
{
	if (!at_close(s))
		return s->p < s->end ? fail(s, "unexpected \"%.*s\"",
					   (int)(s->end - s->p < 10 ? s->end - s->p : 10), s->p)
				     : fail(s, "unclosed action");
	s->trim_next = *s->p == '-';
	s->p += s->trim_next ? 3 : 2;
	return 0;
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || ((unsigned char)c & 0x80);
}

static size_t word_len(const struct parser *s)
{
	size_t n = 0;
	while (s->p + n < s->end && is_word(s->p[n]))
		n++;
	return n;
}

/* Takes the keyword if it is there. */
static bool accept_word(struct parser *s, const char *word)
{
	size_t n = strlen(word);
	if (word_len(s) != n || memcmp(s->p, word, n) != 0)
		return false;
	s->p += n;
	return true;
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
		return fail(s, "a character that cannot be");
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
		return fail(s, "unknown escape \\%c", c);
	unsigned long r = 0;
	for (size_t i = 0; i < digits; i++) {
		char d = *s->p++;
		if (!isxdigit((unsigned char)d))
			return fail(s, "bad escape \\%c", c);
		r = r * 16 + (unsigned long)(isdigit((unsigned char)d) ? d - '0' : (d | 32) - 'a' + 10);
	}
	return put_rune(s, b, r);
}

/* "..." or `...`; the opening quote is looked at. */
static int parse_string(struct parser *s, json_t **ret)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	char quote = *s->p++;
	for (;;) {
		if (s->p >= s->end || (quote != '`' && *s->p == '\n'))
			return fail(s, "a string without its end");
		char c = *s->p++;
		if (c == quote)
			break;
		if (c == '\\' && quote != '`') {
			if (s->p >= s->end)
				return fail(s, "a string without its end");
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
			return fail(s, "not one character between ''");
		*ret = json_integer(v);
		return 0;
	}
	*ret = json_stringn(b.data ? b.data : "", b.len);
	return *ret ? 0 : fail(s, "a string that is not UTF-8");
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
			return fail(s, "\"%s\" is not a number", text);
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
	int r = fail(s, "function \"%s\" is not defined", x->name);
	expr_free(x);
	*ret = NULL;
	return r;
}

/* ".A.B" behind an operand. */
static int parse_fields(struct parser *s, struct expr **x)
{
	unsigned n = 0;
	while (s->p + 1 < s->end && *s->p == '.' && is_word(s->p[1])) {
		if (++n > GOTMPL_MAX_DEPTH)
			return fail(s, "too many fields in a row");
		s->p++;
		size_t len = word_len(s);
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
	skip_space(s);
	if (s->p >= s->end)
		return fail(s, "unclosed action");
	char c = *s->p;
	json_t *v = NULL;
	int r = 0;
	if (c == '(') {
		s->p++;
		if ((r = deeper(s)) < 0 || (r = parse_pipe(s, ret)) < 0)
			return r;
		s->depth--;
		skip_space(s);
		if (s->p >= s->end || *s->p != ')') {
			expr_free(TAKE_PTR(*ret));
			return fail(s, "missing )");
		}
		s->p++;
	} else if (c == '.') {
		*ret = expr_new(EXPR_DOT);
		if (!(s->p + 1 < s->end && is_word(s->p[1])))
			s->p++;
	} else if (c == '$') {
		s->p++;
		size_t n = word_len(s);
		*ret = expr_new(EXPR_VAR);
		(*ret)->name = xstrndup(s->p, n);
		s->p += n;
	} else if (c == '"' || c == '`' || c == '\'') {
		if ((r = parse_string(s, &v)) < 0)
			return r;
		*ret = const_new(v);
	} else if (isdigit((unsigned char)c) ||
		   ((c == '-' || c == '+') && s->p + 1 < s->end && isdigit((unsigned char)s->p[1]))) {
		if ((r = parse_number(s, &v)) < 0)
			return r;
		*ret = const_new(v);
	} else if (is_word(c)) {
		size_t n = word_len(s);
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
		return fail(s, "unexpected \"%c\"", c);
	}
	if ((r = parse_fields(s, ret)) < 0)
		expr_free(TAKE_PTR(*ret));
	return r;
}

static bool at_operand_end(struct parser *s)
{
	return at_close(s) || s->p >= s->end || *s->p == '|' || *s->p == ')';
}

static bool is_function(const struct expr *x)
{
	return (x->kind == EXPR_CALL || x->kind == EXPR_AND || x->kind == EXPR_OR) && x->n == 0;
}

/* One command of a pipeline: an operand, or a function (or a field) with arguments; `last` is what the pipe
 * brings, or NULL. */
static int parse_command(struct parser *s, struct expr *last, struct expr **ret)
{
	struct expr *x = NULL;
	int r = parse_operand(s, &x);
	if (r < 0)
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
			r = fail(s, "an argument to something that is no function");
			goto fail;
		}
		if ((r = parse_operand(s, &arg)) < 0)
			goto fail;
		expr_add(x, arg);
	}
	if (last && !takes) {
		r = fail(s, "a pipe into something that is no function");
		goto fail;
	}
	if (last)
		expr_add(x, last);
	*ret = x;
	return 0;
fail:
	expr_free(x);
	expr_free(last);
	return r;
}

/* "$x :=" or "$x =" before a pipeline: *ret_name (heap) stays NULL without. */
static void parse_assignment(struct parser *s, char **ret_name, bool *ret_declare)
{
	skip_space(s);
	const char *back = s->p;
	if (s->p < s->end && *s->p == '$') {
		s->p++;
		size_t n = word_len(s);
		const char *name = s->p;
		s->p += n;
		skip_space(s);
		if (looking_at(s, ":=") || (looking_at(s, "=") && !looking_at(s, "=="))) {
			*ret_declare = *s->p == ':';
			s->p += *ret_declare ? 2 : 1;
			*ret_name = xstrndup(name, n);
			return;
		}
	}
	s->p = back;
}

static int parse_pipe(struct parser *s, struct expr **ret)
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
		if (at_close(s) || s->p >= s->end || *s->p != '|')
			break;
		if (++commands > GOTMPL_MAX_DEPTH) {
			expr_free(x);
			return fail(s, "too long a pipeline");
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

/* --- nodes
 * -------------------------------------------------------------------------------------------------------- */

static struct node *add_node(struct node_list *l, enum node_kind kind)
{
	l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
	l->v[l->n] = (struct node){.kind = kind};
	return &l->v[l->n++];
}

/* "$i, $x := " or "$x := " before range's pipeline. */
static int parse_range_vars(struct parser *s, struct node *n)
{
	skip_space(s);
	const char *back = s->p;
	char *names[2] = {NULL, NULL};
	for (int i = 0; i < 2 && s->p < s->end && *s->p == '$'; i++) {
		s->p++;
		size_t len = word_len(s);
		names[i] = xstrndup(s->p, len);
		s->p += len;
		skip_space(s);
		if (s->p < s->end && *s->p == ',' && i == 0) {
			s->p++;
			skip_space(s);
			continue;
		}
		if (!looking_at(s, ":="))
			break;
		s->p += 2;
		n->key_var = names[1] ? names[0] : NULL;
		n->elem_var = names[1] ? names[1] : names[0];
		return 0;
	}
	free(names[0]);
	free(names[1]);
	s->p = back;
	return 0;
}

/* The rest of {{if}}, {{with}} and {{range}} behind the keyword. */
static int parse_block(struct parser *s, struct node *n)
{
	int r = deeper(s);
	if (r < 0 || (n->kind == NODE_RANGE && (r = parse_range_vars(s, n)) < 0) ||
	    (r = parse_pipe(s, &n->pipe)) < 0 || (r = close_action(s)) < 0)
		return r;
	enum stop stop;
	s->loops += n->kind == NODE_RANGE;
	r = parse_list(s, &n->body, &stop);
	s->loops -= n->kind == NODE_RANGE;
	if (r < 0)
		return r;
	if (stop == STOP_ELSE) {
		skip_space(s);
		bool with = n->kind == NODE_WITH;
		if (accept_word(s, with ? "with" : "if")) {
			/* The inner one's end is the outer's as well. */
			struct node inner = {.kind = with ? NODE_WITH : NODE_IF};
			r = parse_block(s, &inner);
			*add_node(&n->other, inner.kind) = inner;
			s->depth--;
			return r;
		}
		if ((r = close_action(s)) < 0 || (r = parse_list(s, &n->other, &stop)) < 0)
			return r;
	}
	if (stop != STOP_END)
		return fail(s, stop == STOP_ELSE ? "a second else" : "missing {{end}}");
	s->depth--;
	return 0;
}

static int parse_name(struct parser *s, char **ret)
{
	json_t *v = NULL;
	skip_space(s);
	if (s->p >= s->end || (*s->p != '"' && *s->p != '`'))
		return fail(s, "a template's name must be in quotes");
	int r = parse_string(s, &v);
	if (r < 0)
		return r;
	*ret = xstrdup(json_string_value(v));
	json_decref(v);
	return 0;
}

/* {{define "x"}}...{{end}}; also the definition part of {{block}}. */
static int parse_definition(struct parser *s, char *name)
{
	struct gotmpl *t = s->t;
	struct node_list body = {0};
	enum stop stop;
	unsigned loops = s->loops;
	s->loops = 0;
	int r = deeper(s);
	if (r == 0)
		r = parse_list(s, &body, &stop);
	if (r == 0 && stop != STOP_END)
		r = fail(s, "missing {{end}} of \"%s\"", name);
	s->loops = loops;
	s->depth--;
	t->defs = xreallocarray(t->defs, t->n_defs + 1, sizeof(*t->defs));
	t->defs[t->n_defs++] = (struct definition){name, body};
	return r;
}

static int parse_template_call(struct parser *s, struct node_list *l, bool block)
{
	char *name = NULL;
	int r = parse_name(s, &name);
	if (r < 0)
		return r;
	struct node *n = add_node(l, NODE_TEMPLATE);
	n->text = name;
	if (!at_close(s) && (r = parse_pipe(s, &n->pipe)) < 0)
		return r;
	if ((r = close_action(s)) < 0)
		return r;
	return block ? parse_definition(s, xstrdup(name)) : 0;
}

/* Behind "{{" and its trim mark. */
static int parse_action(struct parser *s, struct node_list *l, enum stop *ret_stop, bool *ret_stopped)
{
	int r;
	skip_space(s);
	if (looking_at(s, "/*")) {
		s->p += 2;
		const char *q = find(s, "*/");
		if (!q)
			return fail(s, "a comment without its end");
		s->p = q + 2;
		return close_action(s);
	}
	if (accept_word(s, "end")) {
		*ret_stop = STOP_END;
		*ret_stopped = true;
		return close_action(s);
	}
	if (accept_word(s, "else")) {
		*ret_stop = STOP_ELSE;
		*ret_stopped = true;
		return 0; /* "if" or the end of the action follows */
	}
	static const struct {
		const char *word;
		enum node_kind kind;
	} blocks[] = {{"if", NODE_IF}, {"range", NODE_RANGE}, {"with", NODE_WITH}};
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		if (accept_word(s, blocks[i].word)) {
			struct node n = {.kind = blocks[i].kind};
			r = parse_block(s, &n);
			*add_node(l, n.kind) = n;
			return r;
		}
	bool is_break = accept_word(s, "break");
	if (is_break || accept_word(s, "continue")) {
		if (!s->loops)
			return fail(s, "%s outside of a range", is_break ? "break" : "continue");
		add_node(l, is_break ? NODE_BREAK : NODE_CONTINUE);
		return close_action(s);
	}
	if (accept_word(s, "define")) {
		char *name = NULL;
		if (s->depth)
			return fail(s, "define inside of another block");
		if ((r = parse_name(s, &name)) < 0)
			return r;
		if ((r = close_action(s)) < 0) {
			free(name);
			return r;
		}
		return parse_definition(s, name);
	}
	bool block = accept_word(s, "block");
	if (block || accept_word(s, "template"))
		return parse_template_call(s, l, block);
	struct expr *pipe = NULL;
	if ((r = parse_pipe(s, &pipe)) < 0)
		return r;
	add_node(l, NODE_ACTION)->pipe = pipe;
	return close_action(s);
}

static int parse_list(struct parser *s, struct node_list *l, enum stop *ret_stop)
{
	bool stopped = false;
	*ret_stop = STOP_EOF;
	while (s->p < s->end && !stopped) {
		if (s->trim_next)
			skip_space(s);
		s->trim_next = false;
		const char *open = find(s, "{{"), *text = s->p;
		const char *text_end = open ? open : s->end;
		if (open && open + 3 < s->end && open[2] == '-' && isspace((unsigned char)open[3])) {
			while (text_end > text && isspace((unsigned char)text_end[-1]))
				text_end--;
		}
		if (text_end > text) {
			struct node *n = add_node(l, NODE_TEXT);
			n->len = (size_t)(text_end - text);
			n->text = xstrndup(text, n->len);
		}
		s->p = open ? open + 2 : s->end;
		if (!open)
			break;
		if (s->p + 1 < s->end && *s->p == '-' && isspace((unsigned char)s->p[1]))
			s->p++;
		int r = parse_action(s, l, ret_stop, &stopped);
		if (r < 0)
			return r;
	}
	return 0;
}

int gotmpl_parse(
    const char *text, size_t n, const struct gotmpl_opts *opts, struct gotmpl **ret, struct err *e)
{
	if (n > GOTMPL_MAX_TEXT)
		return err_set(e, ERR_TOO_LARGE, "a template of more than %u bytes", GOTMPL_MAX_TEXT);
	if (memchr(text, 0, n))
		return err_set(e, ERR_INVALID, "a template with a zero byte");
	struct parser s = {
	    .p = text, .start = text, .end = text + n, .opts = opts, .e = e, .t = NEW(struct gotmpl)};
	enum stop stop;
	int r = parse_list(&s, &s.t->root, &stop);
	if (r == 0 && stop != STOP_EOF)
		r = fail(&s, "%s without its beginning", stop == STOP_END ? "end" : "else");
	if (r < 0) {
		gotmpl_free(s.t);
		return r;
	}
	*ret = s.t;
	return 0;
}
