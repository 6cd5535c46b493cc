/* Generic resources: things that a node says it has ("gpu=2", or by name "gpu=UUID1"), and that tasks reserve
 * a number of.
 *
 * A task that reserves n of a kind that the node has by name gets n of the names; they reach its container.
 */
#include "manager/scheduler/internal.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static struct generic *find(const struct node_info *n, const char *kind)
{
	for (size_t i = 0; i < n->n_generic; i++) {
		if (str_eq(n->generic[i].kind, kind))
			return &n->generic[i];
	}
	return NULL;
}

static struct generic *find_or_add(struct node_info *n, const char *kind)
{
	struct generic *g = find(n, kind);

	if (g != NULL)
		return g;
	n->generic = xreallocarray(n->generic, n->n_generic + 1, sizeof(*n->generic));
	g = &n->generic[n->n_generic++];
	memset(g, 0, sizeof(*g));
	g->kind = xstrdup(kind);
	return g;
}

void generic_clear(struct node_info *n)
{
	for (size_t i = 0; i < n->n_generic; i++) {
		for (size_t j = 0; j < n->generic[i].n_named; j++)
			free(n->generic[i].named[j]);
		free(n->generic[i].named);
		free(n->generic[i].named_used);
		free(n->generic[i].kind);
	}
	free(n->generic);
	n->generic = NULL;
	n->n_generic = 0;
}

void generic_load(struct node_info *n)
{
	const Pb__NodeDescription *d = n->obj != NULL ? n->obj->node->description : NULL;
	const Pb__Resources *r = d != NULL ? d->resources : NULL;

	generic_clear(n);
	for (size_t i = 0; r != NULL && i < r->n_generic_resources; i++) {
		const Pb__GenericResource *x = r->generic_resources[i];

		if (x->discrete_resource_spec != NULL && x->discrete_resource_spec->kind != NULL) {
			find_or_add(n, x->discrete_resource_spec->kind)->total +=
			    x->discrete_resource_spec->value;
		} else if (x->named_resource_spec != NULL && x->named_resource_spec->kind != NULL) {
			struct generic *g = find_or_add(n, x->named_resource_spec->kind);

			g->named = xreallocarray(g->named, g->n_named + 1, sizeof(*g->named));
			g->named_used = xreallocarray(g->named_used, g->n_named + 1, sizeof(bool));
			g->named[g->n_named] = xstrdup(str_or(x->named_resource_spec->value, ""));
			g->named_used[g->n_named++] = false;
		}
	}
}

static int64_t available(const struct generic *g)
{
	int64_t n = g->total - g->used;

	for (size_t i = 0; i < g->n_named; i++)
		n += !g->named_used[i];
	return n;
}

static const Pb__Resources *wanted(const struct group *g)
{
	const Pb__ResourceRequirements *r = g->tmpl->tmpl->spec->resources;

	return r != NULL ? r->reservations : NULL;
}

bool generic_fits(const struct group *g, const struct node_info *n)
{
	const Pb__Resources *r = wanted(g);

	for (size_t i = 0; r != NULL && i < r->n_generic_resources; i++) {
		const Pb__DiscreteGenericResource *d = r->generic_resources[i]->discrete_resource_spec;
		const struct generic *have = d != NULL ? find(n, d->kind) : NULL;

		if (d != NULL && d->value > 0 && (have == NULL || available(have) < d->value))
			return false;
	}
	return true;
}

static void add(Pb__GenericResource ***v, size_t *n, const char *kind, const char *name, int64_t value)
{
	Pb__GenericResource *r = xmalloc(sizeof(*r));

	pb__generic_resource__init(r);
	if (name != NULL) {
		r->named_resource_spec = xmalloc(sizeof(*r->named_resource_spec));
		pb__named_generic_resource__init(r->named_resource_spec);
		r->named_resource_spec->kind = xstrdup(kind);
		r->named_resource_spec->value = xstrdup(name);
	} else {
		r->discrete_resource_spec = xmalloc(sizeof(*r->discrete_resource_spec));
		pb__discrete_generic_resource__init(r->discrete_resource_spec);
		r->discrete_resource_spec->kind = xstrdup(kind);
		r->discrete_resource_spec->has_value = true;
		r->discrete_resource_spec->value = value;
	}
	*v = xreallocarray(*v, *n + 1, sizeof(**v));
	(*v)[(*n)++] = r;
}

void generic_take(const struct group *g, struct node_info *n, Pb__GenericResource ***ret, size_t *ret_n)
{
	const Pb__Resources *r = wanted(g);

	*ret = NULL;
	*ret_n = 0;
	for (size_t i = 0; r != NULL && i < r->n_generic_resources; i++) {
		const Pb__DiscreteGenericResource *d = r->generic_resources[i]->discrete_resource_spec;
		struct generic *have = d != NULL ? find(n, d->kind) : NULL;
		int64_t left = d != NULL ? d->value : 0;

		if (have == NULL)
			continue;
		for (size_t j = 0; j < have->n_named && left > 0; j++) {
			if (have->named_used[j])
				continue;
			have->named_used[j] = true;
			add(ret, ret_n, d->kind, have->named[j], 0);
			left--;
		}
		if (left > 0) {
			have->used += left;
			add(ret, ret_n, d->kind, NULL, left);
		}
	}
}

void generic_mark(struct node_info *n, Pb__GenericResource *const *v, size_t count, bool used)
{
	for (size_t i = 0; i < count; i++) {
		const Pb__NamedGenericResource *named = v[i]->named_resource_spec;
		const Pb__DiscreteGenericResource *d = v[i]->discrete_resource_spec;
		struct generic *g = find(n, named != NULL ? named->kind : d != NULL ? d->kind : "");

		if (g == NULL)
			continue;
		if (named != NULL) {
			for (size_t j = 0; j < g->n_named; j++) {
				if (str_eq(g->named[j], named->value))
					g->named_used[j] = used;
			}
		} else if (d != NULL) {
			g->used += used ? d->value : -d->value;
			if (g->used < 0)
				g->used = 0;
		}
	}
}

void generic_free(Pb__GenericResource **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		protobuf_c_message_free_unpacked(&v[i]->base, NULL);
	free(v);
}
