/* Between the parts of the template engine: the tree, and the functions that templates call. */
#ifndef PROTO_GOTMPL_PRIVATE_H
#define PROTO_GOTMPL_PRIVATE_H

#include "proto/gotmpl.h"

#define GOTMPL_MAX_TEXT  (1u << 20) /* bytes of template */
#define GOTMPL_MAX_DEPTH 64         /* nesting of blocks, parentheses, field chains; also of template calls */
#define GOTMPL_MAX_STEPS 1000000    /* nodes evaluated in one execution */
#define GOTMPL_MAX_VALUE (1u << 20) /* bytes of a string that a function makes */

/* Returns a new reference in *ret. */
typedef int (*gotmpl_builtin)(json_t *const *args, size_t n, json_t **ret, struct err *e);

enum expr_kind { EXPR_DOT, EXPR_VAR, EXPR_CONST, EXPR_FIELD, EXPR_CALL, EXPR_AND, EXPR_OR, EXPR_SET };

struct expr {
	enum expr_kind kind;
	char *name;         /* EXPR_VAR, EXPR_SET: without "$"; EXPR_FIELD; EXPR_CALL for messages */
	bool declare;       /* EXPR_SET */
	json_t *value;      /* EXPR_CONST */
	struct expr **args; /* EXPR_FIELD, EXPR_SET: one; calls: any */
	size_t n;
	gotmpl_builtin builtin; /* EXPR_CALL: this, or the caller's function of that index */
	size_t custom;
};

enum node_kind {
	NODE_TEXT,
	NODE_ACTION,
	NODE_IF,
	NODE_RANGE,
	NODE_WITH,
	NODE_TEMPLATE,
	NODE_BREAK,
	NODE_CONTINUE
};

struct node_list {
	struct node *v;
	size_t n;
};

struct node {
	enum node_kind kind;
	char *text; /* NODE_TEXT; NODE_TEMPLATE: its name */
	size_t len;
	struct expr *pipe;        /* may be NULL for NODE_TEMPLATE */
	char *key_var, *elem_var; /* NODE_RANGE */
	struct node_list body, other;
};

struct definition {
	char *name;
	struct node_list body;
};

struct gotmpl {
	struct node_list root;
	struct definition *defs;
	size_t n_defs;
};

/* NULL when there is none of that name. */
gotmpl_builtin gotmpl_find_builtin(const char *name, size_t len);
bool gotmpl_truth(const json_t *v);
/* As {{.}} prints a value; nested ones as fmt.Print does. Bounded by `max` in all of b. */
int gotmpl_print(struct buf *b, const json_t *v, size_t max, struct err *e);
/* fmt.Sprintf: args[0] is the format. */
int gotmpl_printf(json_t *const *args, size_t n, json_t **ret, struct err *e);
/* A field by name; NULL when absent. Borrowed. */
json_t *gotmpl_field(const json_t *o, const char *name, bool ignore_case);

#endif
