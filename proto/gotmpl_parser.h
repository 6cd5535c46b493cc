/* Between the two halves of the template parser: expressions (inside of an action) and nodes (actions and
 * blocks). */
#ifndef PROTO_GOTMPL_PARSER_H
#define PROTO_GOTMPL_PARSER_H

#include "proto/gotmpl_private.h"

struct parser {
	const char *p, *end, *start;
	struct gotmpl *t;
	const struct gotmpl_opts *opts;
	struct err *e;
	unsigned depth, loops;
	bool trim_next;
};

/* ERR_INVALID, with the line in front. */
int gotmpl_fail(struct parser *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One more level of nesting; ERR_INVALID beyond the bound. The caller takes it off s->depth again. */
int gotmpl_deeper(struct parser *s);
void gotmpl_skip_space(struct parser *s);
bool gotmpl_looking_at(const struct parser *s, const char *word);
/* Where `word` comes next, or NULL. */
const char *gotmpl_find(const struct parser *s, const char *word);
/* The end of an action, "}}" or " -}}", not consumed. */
bool gotmpl_at_close(struct parser *s);
/* Bytes of the name at the cursor. */
size_t gotmpl_word_len(const struct parser *s);
/* "..." or `...`; the opening quote is looked at. */
int gotmpl_parse_string(struct parser *s, json_t **ret);
/* A pipeline, with or without an assignment. *ret is freed with gotmpl_expr_free. */
int gotmpl_parse_pipe(struct parser *s, struct expr **ret);
void gotmpl_expr_free(struct expr *x);

#endif
