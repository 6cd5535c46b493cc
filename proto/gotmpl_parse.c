/* Templates to trees, by recursive descent over the text itself: text, actions and blocks. Errors name the
 * line. Everything is bounded: the text, and the depth of nesting; a tree has fewer nodes than the text has
 * bytes. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl_parser.h"

/* What ended a list of nodes. */
enum stop { STOP_EOF, STOP_END, STOP_ELSE };

static int parse_list(struct parser *s, struct node_list *l, enum stop *ret_stop);

/* --- freeing ------------------------------------------------------------------------------------- */

static void list_done(struct node_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct node *n = &l->v[i];
		free(n->text);
		free(n->key_var);
		free(n->elem_var);
		gotmpl_expr_free(n->pipe);
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

static int close_action(struct parser *s)
{
	if (!gotmpl_at_close(s))
		return s->p < s->end ? gotmpl_fail(s, "unexpected \"%.*s\"",
					   (int)(s->end - s->p < 10 ? s->end - s->p : 10), s->p)
				     : gotmpl_fail(s, "unclosed action");
	s->trim_next = *s->p == '-';
	s->p += s->trim_next ? 3 : 2;
	return 0;
}

/* Takes the keyword if it is there. */
static bool accept_word(struct parser *s, const char *word)
{
	size_t n = strlen(word);
	if (gotmpl_word_len(s) != n || memcmp(s->p, word, n) != 0)
		return false;
	s->p += n;
	return true;
}

/* --- nodes --------------------------------------------------------------------------------------- */

static struct node *add_node(struct node_list *l, enum node_kind kind)
{
	l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
	l->v[l->n] = (struct node){.kind = kind};
	return &l->v[l->n++];
}

/* "$i, $x := " or "$x := " before range's pipeline. */
static int parse_range_vars(struct parser *s, struct node *n)
{
	gotmpl_skip_space(s);
	const char *back = s->p;
	char *names[2] = {NULL, NULL};
	for (int i = 0; i < 2 && s->p < s->end && *s->p == '$'; i++) {
		s->p++;
		size_t len = gotmpl_word_len(s);
		names[i] = xstrndup(s->p, len);
		s->p += len;
		gotmpl_skip_space(s);
		if (s->p < s->end && *s->p == ',' && i == 0) {
			s->p++;
			gotmpl_skip_space(s);
			continue;
		}
		if (!gotmpl_looking_at(s, ":="))
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
	int r = gotmpl_deeper(s);
	if (r < 0 || (n->kind == NODE_RANGE && (r = parse_range_vars(s, n)) < 0) ||
	    (r = gotmpl_parse_pipe(s, &n->pipe)) < 0 || (r = close_action(s)) < 0)
		return r;
	enum stop stop;
	s->loops += n->kind == NODE_RANGE;
	r = parse_list(s, &n->body, &stop);
	s->loops -= n->kind == NODE_RANGE;
	if (r < 0)
		return r;
	if (stop == STOP_ELSE) {
		gotmpl_skip_space(s);
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
		return gotmpl_fail(s, stop == STOP_ELSE ? "a second else" : "missing {{end}}");
	s->depth--;
	return 0;
}

static int parse_name(struct parser *s, char **ret)
{
	json_t *v = NULL;
	gotmpl_skip_space(s);
	if (s->p >= s->end || (*s->p != '"' && *s->p != '`'))
		return gotmpl_fail(s, "a template's name must be in quotes");
	int r = gotmpl_parse_string(s, &v);
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
	int r = gotmpl_deeper(s);
	if (r == 0)
		r = parse_list(s, &body, &stop);
	if (r == 0 && stop != STOP_END)
		r = gotmpl_fail(s, "missing {{end}} of \"%s\"", name);
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
	if (!gotmpl_at_close(s) && (r = gotmpl_parse_pipe(s, &n->pipe)) < 0)
		return r;
	if ((r = close_action(s)) < 0)
		return r;
	return block ? parse_definition(s, xstrdup(name)) : 0;
}

/* Behind "{{" and its trim mark. */
static int parse_action(struct parser *s, struct node_list *l, enum stop *ret_stop, bool *ret_stopped)
{
	int r;
	gotmpl_skip_space(s);
	if (gotmpl_looking_at(s, "/*")) {
		s->p += 2;
		const char *q = gotmpl_find(s, "*/");
		if (!q)
			return gotmpl_fail(s, "a comment without its end");
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
			return gotmpl_fail(s, "%s outside of a range", is_break ? "break" : "continue");
		add_node(l, is_break ? NODE_BREAK : NODE_CONTINUE);
		return close_action(s);
	}
	if (accept_word(s, "define")) {
		char *name = NULL;
		if (s->depth)
			return gotmpl_fail(s, "define inside of another block");
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
	if ((r = gotmpl_parse_pipe(s, &pipe)) < 0)
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
			gotmpl_skip_space(s);
		s->trim_next = false;
		const char *open = gotmpl_find(s, "{{"), *text = s->p;
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
		r = gotmpl_fail(&s, "%s without its beginning", stop == STOP_END ? "end" : "else");
	if (r < 0) {
		gotmpl_free(s.t);
		return r;
	}
	*ret = s.t;
	return 0;
}
