/* Go's text/template, over JSON values: what `--format` takes, and what templates in service specs and
 * configs take.
 *
 * Supported: text, {{- trimming -}}, comments, pipelines, fields (.A.B, (index .M "k").C), variables ($x :=
 * ..., $x = ...), if/else if/else, range (with two variables, over lists, maps by key and numbers, with else,
 * break, continue), with/else, define/template/block, parentheses, constants (strings, raw strings,
 * characters, numbers, true, false, nil), and the functions and or not eq ne lt le gt ge len index slice
 * print printf println, and docker's json join split upper lower title pad truncate. Output and work are
 * bounded: a template that passes a bound is ERR_TOO_LARGE.
 *
 * A field that is not there is "<no value>" in text and false in a condition; with missing_is_error it is
 * ERR_NOT_FOUND naming it (and the ones that there are). Where template and value disagree (a field of a
 * string): ERR_INVALID. */
#ifndef PROTO_GOTMPL_H
#define PROTO_GOTMPL_H

#include <stdbool.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

struct gotmpl;

/* A function of the caller's: args are borrowed; *ret gets a new reference. */
struct gotmpl_func {
	const char *name; /* NULL ends an array */
	int (*call)(void *data, json_t *const *args, size_t n, json_t **ret, struct err *e);
};

struct gotmpl_opts {
	bool missing_is_error;
	bool ignore_case;  /* a field that is not there exactly is looked up without regard to case */
	size_t max_output; /* bytes; 0: 1 MiB */
	const struct gotmpl_func *funcs; /* or NULL */
	void *data;                      /* of funcs */
};

/* ERR_INVALID saying what is wrong where. Functions are looked up when parsing, so opts->funcs must be the
 * same in both calls. opts may be NULL. */
int gotmpl_parse(
    const char *text, size_t n, const struct gotmpl_opts *opts, struct gotmpl **ret, struct err *e);
/* Appends to out; on an error what was appended so far is cut off again. `value` is the dot, borrowed. */
int gotmpl_exec(
    const struct gotmpl *t, const struct gotmpl_opts *opts, json_t *value, struct buf *out, struct err *e);
void gotmpl_free(struct gotmpl *t);
/* Both at once. */
int gotmpl_expand(
    const char *text, const struct gotmpl_opts *opts, json_t *value, struct buf *out, struct err *e);

#endif
