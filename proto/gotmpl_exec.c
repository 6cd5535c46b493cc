/* Walks a template's tree. Every evaluated node counts against GOTMPL_MAX_STEPS and everything printed
 * against max_output, so that a template from a user ends soon and small; templates that call each other are
 * bounded in depth. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl_private.h"

struct var {
	const char *name;
	json_t *value;
};

struct run {
	const struct gotmpl *t;
	const struct gotmpl_opts *opts;
	struct buf *out;
	size_t max; /* out->len may grow to this */
	struct err *e;
	struct var *vars;
	size_t n_vars, cap_vars;
	unsigned steps, depth;
	enum { GO_ON, BREAK, CONTINUE } control;
};

static int eval(struct run *r, const struct expr *x, json_t *dot, json_t **ret);
static int exec_list(struct run *r, const struct node_list *l, json_t *dot);

/* --- variables ----------------------------------------------------------------------------------- */

static void push(struct run *r, const char *name, json_t *value)
{
	if (r->n_vars == r->cap_vars) {
		r->cap_vars = r->cap_vars ? r->cap_vars * 2 : 8;
		r->vars = xreallocarray(r->vars, r->cap_vars, sizeof(*r->vars));
	}
	r->vars[r->n_vars++] = (struct var){name, json_incref(value)};
}

static void pop_to(struct run *r, size_t n)
{
	while (r->n_vars > n)
		json_decref(r->vars[--r->n_vars].value);
}

static struct var *find_var(struct run *r, const char *name)
{
	for (size_t i = r->n_vars; i-- > 0;)
		if (strcmp(r->vars[i].name, name) == 0)
			return &r->vars[i];
	err_set(r->e, ERR_INVALID, "undefined variable \"$%s\"", name);
	return NULL;
}

/* --- expressions --------------------------------------------------------------------------------- */

json_t *gotmpl_field(const json_t *o, const char *name, bool ignore_case)
{
	json_t *v = json_object_get(o, name);
	if (v || !ignore_case)
		return v;
	const char *key;
	json_object_foreach((json_t *)(uintptr_t)o, key, v) if (str_ieq(key, name)) return v;
	return NULL;
}

static int missing(struct run *r, const json_t *o, const char *name)
{
	CLEANUP_STRLIST struct strlist keys = STRLIST_INIT;
	const char *key;
	json_t *v = NULL;
	json_object_foreach((json_t *)(uintptr_t)o, key, v) strlist_add(&keys, key);
	strlist_sort(&keys);
	CLEANUP_FREE char *all = strlist_join(&keys, " ");
	return err_set(r->e, ERR_NOT_FOUND, "there is no field .%s; there are: %.600s", name, all);
}

static int eval_field(struct run *r, const struct expr *x, json_t *dot, json_t **ret)
{
	json_t *base = NULL;
	int rc = eval(r, x->args[0], dot, &base);
	if (rc < 0)
		return rc;
	ASSERT(base != NULL);
	json_t *v = NULL;
	if (json_is_object(base)) {
		v = gotmpl_field(base, x->name, r->opts->ignore_case);
		if (!v && r->opts->missing_is_error)
			rc = missing(r, base, x->name);
	} else if (!json_is_null(base)) {
		static const char *const names[] = {
		    "an object", "a list", "a string", "a number", "a number", "a boolean", "a boolean"};
		rc = err_set(
		    r->e, ERR_INVALID, "there is no field .%s in %s", x->name, names[json_typeof(base)]);
	} else if (r->opts->missing_is_error) {
		rc = err_set(r->e, ERR_NOT_FOUND, "there is no field .%s in nothing", x->name);
	}
	if (rc == 0)
		*ret = v ? json_incref(v) : json_null();
	json_decref(base);
	return rc;
}

static int eval_and_or(struct run *r, const struct expr *x, json_t *dot, json_t **ret)
{
	if (!x->n)
		return err_set(r->e, ERR_INVALID, "%s without arguments", x->name);
	json_t *v = NULL;
	for (size_t i = 0; i < x->n; i++) {
		json_decref(v);
		int rc = eval(r, x->args[i], dot, &v);
		if (rc < 0)
			return rc;
		if (gotmpl_truth(v) == (x->kind == EXPR_OR))
			break;
	}
	*ret = v;
	return 0;
}

/* What a function's work on a value may cost, in steps: otherwise few steps on long strings would take
 * minutes. */
static unsigned cost(const json_t *v)
{
	size_t n = json_is_string(v)  ? json_string_length(v) / 16
		   : json_is_array(v) ? json_array_size(v)
				      : json_object_size(v);
	return n > GOTMPL_MAX_STEPS ? GOTMPL_MAX_STEPS : (unsigned)n;
}

static int eval_call(struct run *r, const struct expr *x, json_t *dot, json_t **ret)
{
	CLEANUP_FREE json_t **args = xcalloc(x->n + 1, sizeof(*args));
	size_t n = 0;
	int rc = 0;
	while (n < x->n && rc == 0)
		if ((rc = eval(r, x->args[n], dot, &args[n])) == 0)
			r->steps += cost(args[n++]);
	if (rc == 0) {
		rc = x->builtin ? x->builtin(args, n, ret, r->e)
				: r->opts->funcs[x->custom].call(r->opts->data, args, n, ret, r->e);
		if (rc < 0)
			err_wrap(r->e, "%s", x->name);
		else
			r->steps += cost(*ret);
	}
	for (size_t i = 0; i < n; i++)
		json_decref(args[i]);
	return rc;
}

static int eval_set(struct run *r, const struct expr *x, json_t *dot, json_t **ret)
{
	json_t *v = NULL;
	int rc = eval(r, x->args[0], dot, &v);
	if (rc < 0)
		return rc;
	if (x->declare) {
		push(r, x->name, v);
	} else {
		struct var *var = find_var(r, x->name);
		if (!var) {
			json_decref(v);
			return ERR_INVALID;
		}
		json_decref(var->value);
		var->value = json_incref(v);
	}
	*ret = v;
	return 0;
}

static int eval(struct run *r, const struct expr *x, json_t *dot, json_t **ret)
{
	struct var *var;
	if (++r->steps > GOTMPL_MAX_STEPS)
		return err_set(r->e, ERR_TOO_LARGE, "the template does too much");
	switch (x->kind) {
	case EXPR_DOT:
		*ret = json_incref(dot);
		return 0;
	case EXPR_VAR:
		if (!(var = find_var(r, x->name)))
			return ERR_INVALID;
		*ret = json_incref(var->value);
		return 0;
	case EXPR_CONST:
		*ret = json_incref(x->value);
		return 0;
	case EXPR_FIELD:
		return eval_field(r, x, dot, ret);
	case EXPR_AND:
	case EXPR_OR:
		return eval_and_or(r, x, dot, ret);
	case EXPR_CALL:
		return eval_call(r, x, dot, ret);
	case EXPR_SET:
		return eval_set(r, x, dot, ret);
	}
	return err_set(r->e, ERR_INTERNAL, "an expression of no kind");
}

/* --- nodes --------------------------------------------------------------------------------------- */

static int exec_range_item(struct run *r, const struct node *n, json_t *key, json_t *value)
{
	size_t mark = r->n_vars;
	if (n->key_var)
		push(r, n->key_var, key);
	if (n->elem_var)
		push(r, n->elem_var, value);
	int rc = ++r->steps > GOTMPL_MAX_STEPS ? err_set(r->e, ERR_TOO_LARGE, "the template does too much")
					       : exec_list(r, &n->body, value);
	pop_to(r, mark);
	return rc;
}

/* Whether the loop goes on after a body. */
static bool loop_on(struct run *r, int rc)
{
	bool stop = rc < 0 || r->control == BREAK;
	r->control = GO_ON;
	return !stop;
}

static int exec_range_map(struct run *r, const struct node *n, json_t *map)
{
	CLEANUP_STRLIST struct strlist keys = STRLIST_INIT;
	const char *key;
	json_t *v;
	json_object_foreach(map, key, v) strlist_add(&keys, key);
	strlist_sort(&keys);
	r->steps += cost(map);
	int rc = 0;
	for (size_t i = 0; i < keys.n; i++) {
		json_t *k = json_string(keys.v[i]);
		rc = exec_range_item(r, n, k, json_object_get(map, keys.v[i]));
		json_decref(k);
		if (!loop_on(r, rc))
			break;
	}
	return rc;
}

static int exec_range(struct run *r, const struct node *n, json_t *v, json_t *dot)
{
	int rc = 0;
	bool list = json_is_array(v), number = json_is_integer(v);
	if (json_is_object(v) && json_object_size(v))
		return exec_range_map(r, n, v);
	json_int_t count = list ? (json_int_t)json_array_size(v) : number ? json_integer_value(v) : 0;
	if (!list && !number && !json_is_object(v) && !json_is_null(v))
		return err_set(r->e, ERR_INVALID, "range over something that is no list, map or number");
	if (count <= 0)
		return exec_list(r, &n->other, dot);
	for (json_int_t i = 0; i < count; i++) {
		json_t *index = json_integer(i);
		rc = exec_range_item(r, n, index, list ? json_array_get(v, (size_t)i) : index);
		json_decref(index);
		if (!loop_on(r, rc))
			break;
	}
	return rc;
}

static int exec_template(struct run *r, const struct node *n, json_t *dot)
{
	const struct definition *d = NULL;
	for (size_t i = 0; i < r->t->n_defs; i++)
		if (str_eq(r->t->defs[i].name, n->text))
			d = &r->t->defs[i]; /* the last one counts */
	if (!d)
		return err_set(r->e, ERR_INVALID, "template \"%s\" is not defined", n->text);
	if (++r->depth > GOTMPL_MAX_DEPTH)
		return err_set(r->e, ERR_TOO_LARGE, "templates call each other without end");
	json_t *arg = json_null();
	int rc = n->pipe ? eval(r, n->pipe, dot, &arg) : 0;
	if (rc < 0)
		return rc;
	size_t mark = r->n_vars;
	push(r, "", arg);
	rc = exec_list(r, &d->body, arg);
	pop_to(r, mark);
	json_decref(arg);
	r->depth--;
	return rc;
}

static int exec_branch(struct run *r, const struct node *n, json_t *dot)
{
	size_t mark = r->n_vars;
	json_t *v;
	int rc = eval(r, n->pipe, dot, &v);
	if (rc < 0)
		return rc;
	if (n->kind == NODE_RANGE)
		rc = exec_range(r, n, v, dot);
	else if (gotmpl_truth(v))
		rc = exec_list(r, &n->body, n->kind == NODE_WITH ? v : dot);
	else
		rc = exec_list(r, &n->other, dot);
	json_decref(v);
	pop_to(r, mark);
	return rc;
}

static int exec_action(struct run *r, const struct node *n, json_t *dot)
{
	json_t *v;
	int rc = eval(r, n->pipe, dot, &v);
	if (rc < 0)
		return rc;
	if (n->pipe->kind != EXPR_SET)
		rc = gotmpl_print(r->out, v, r->max, r->e);
	json_decref(v);
	return rc;
}

static int exec_node(struct run *r, const struct node *n, json_t *dot)
{
	switch (n->kind) {
	case NODE_TEXT:
		buf_append(r->out, n->text, n->len);
		return r->out->len > r->max
			   ? err_set(r->e, ERR_TOO_LARGE, "the template's output is too long")
			   : 0;
	case NODE_ACTION:
		return exec_action(r, n, dot);
	case NODE_IF:
	case NODE_WITH:
	case NODE_RANGE:
		return exec_branch(r, n, dot);
	case NODE_TEMPLATE:
		return exec_template(r, n, dot);
	case NODE_BREAK:
		r->control = BREAK;
		return 0;
	case NODE_CONTINUE:
		r->control = CONTINUE;
		return 0;
	}
	return 0;
}

static int exec_list(struct run *r, const struct node_list *l, json_t *dot)
{
	int rc = 0;
	size_t mark = r->n_vars;
	for (size_t i = 0; i < l->n && rc == 0 && r->control == GO_ON; i++)
		rc = exec_node(r, &l->v[i], dot);
	pop_to(r, mark);
	return rc;
}

int gotmpl_exec(
    const struct gotmpl *t, const struct gotmpl_opts *opts, json_t *value, struct buf *out, struct err *e)
{
	static const struct gotmpl_opts none;
	size_t mark = out->len;
	if (!opts)
		opts = &none;
	struct run r = {.t = t, .opts = opts, .out = out, .e = e};
	r.max = mark + (opts->max_output ? opts->max_output : (size_t)1 << 20);
	push(&r, "", value);
	int rc = exec_list(&r, &t->root, value);
	pop_to(&r, 0);
	free(r.vars);
	if (rc < 0 && out->data) {
		out->len = mark;
		out->data[mark] = 0;
	}
	return rc < 0 ? err_wrap(e, "template") : 0;
}

int gotmpl_expand(
    const char *text, const struct gotmpl_opts *opts, json_t *value, struct buf *out, struct err *e)
{
	struct gotmpl *t;
	int r = gotmpl_parse(text, strlen(text), opts, &t, e);
	if (r < 0)
		return r;
	r = gotmpl_exec(t, opts, value, out, e);
	gotmpl_free(t);
	return r;
}
