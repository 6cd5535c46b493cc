/* Handing out nodes to the tasks of one group.
 *
 * The nodes that pass the filters are the leaves of a tree: one level for each placement preference, one
 * branch for each value of its label. A task goes down the branch that has the fewest tasks of the service,
 * and there takes the top of a heap: nodes on which the group kept failing last, then fewest tasks of the
 * service, then fewest tasks. A node that took one sinks to its new place, or leaves the heap when no further
 * task fits on it. */
#include "manager/scheduler/internal.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

struct candidate {
	struct node_info *node;
	uint32_t of_service, active;
	bool failing;
};

struct branch {
	char *value;
	struct branch *parent;
	struct branch **children;
	size_t n_children;
	struct strmap by_value;
	uint64_t tasks;         /* of the service, below here */
	size_t nodes;           /* that can still take one, below here */
	struct candidate *heap; /* leaf */
	size_t n, cap;
};

struct placement {
	const struct group *group;
	struct branch root;
	struct branch *leaf; /* of the last placement_best */
};

/* --- the heap */

static bool before(const struct candidate *a, const struct candidate *b)
{
	if (a->failing != b->failing)
		return b->failing;
	if (a->of_service != b->of_service)
		return a->of_service < b->of_service;
	if (a->active != b->active)
		return a->active < b->active;
	return a->node->index < b->node->index;
}

static void sift_down(struct branch *b, size_t i)
{
	for (;;) {
		size_t least = i, l = 2 * i + 1;
		struct candidate tmp;

		if (l < b->n && before(&b->heap[l], &b->heap[least]))
			least = l;
		if (l + 1 < b->n && before(&b->heap[l + 1], &b->heap[least]))
			least = l + 1;
		if (least == i)
			return;
		tmp = b->heap[i];
		b->heap[i] = b->heap[least];
		b->heap[least] = tmp;
		i = least;
	}
}

static void heap_add(struct branch *b, const struct candidate *c)
{
	if (b->n == b->cap) {
		b->cap = b->cap == 0 ? 8 : b->cap * 2;
		b->heap = xreallocarray(b->heap, b->cap, sizeof(*b->heap));
	}
	b->heap[b->n++] = *c;
}

/* --- the tree */

static struct branch *child(struct branch *b, const char *value)
{
	struct branch *c = strmap_get(&b->by_value, value);

	if (c != NULL)
		return c;
	c = NEW(struct branch);
	c->parent = b;
	c->value = xstrdup(value);
	b->children = xreallocarray(b->children, b->n_children + 1, sizeof(struct branch *));
	b->children[b->n_children++] = c;
	strmap_put(&b->by_value, value, c);
	return c;
}

static void branch_done(struct branch *b)
{
	for (size_t i = 0; i < b->n_children; i++) {
		branch_done(b->children[i]);
		free(b->children[i]);
	}
	strmap_done(&b->by_value);
	free(b->children);
	free(b->value);
	free(b->heap);
}

static const char *value_of(const struct preference *p, const Pb__Node *n)
{
	const Pb__EngineDescription *e = n->description != NULL ? n->description->engine : NULL;
	Pb__KV *const *kv = p->engine ? (e != NULL ? e->labels : NULL) : n->spec->labels;
	size_t count = p->engine ? (e != NULL ? e->n_labels : 0) : n->spec->n_labels;

	for (size_t i = 0; i < count; i++) {
		if (str_eq(kv[i]->key, p->key))
			return kv[i]->value;
	}
	return "";
}

static bool is_failing(const struct group *g, const struct node_info *n, int64_t now)
{
	const struct failures *f = u64map_get(&g->failures, n->index);

	/* at[n % MAX] is the oldest of a full ring. */
	return f != NULL && f->n >= FAILURES_MAX && f->at[f->n % FAILURES_MAX] + FAILURES_WINDOW > now;
}

static void add_node(struct placement *p, struct node_info *n, bool fits, int64_t now)
{
	const struct group *g = p->group;
	uint32_t of_service = service_on_node(g->service, n->index);
	struct branch *b = &p->root;

	if (!fits && of_service == 0)
		return;
	for (size_t i = 0;; i++) {
		b->tasks += of_service;
		b->nodes += fits;
		if (i == g->n_prefs)
			break;
		b = child(b, n->obj != NULL ? value_of(&g->prefs[i], n->obj->node) : "");
	}
	if (fits) {
		struct candidate c = {n, of_service, n->active, is_failing(g, n, now)};

		heap_add(b, &c);
	}
}

static void heapify(struct branch *b)
{
	for (size_t i = b->n / 2; i-- > 0;)
		sift_down(b, i);
	for (size_t i = 0; i < b->n_children; i++)
		heapify(b->children[i]);
}

struct placement *placement_new(const struct scheduler *s, const struct group *g, int64_t now)
{
	struct placement *p = NEW(struct placement);

	p->group = g;
	for (size_t i = 0; i < s->n_index; i++) {
		struct node_info *n = s->by_index[i];

		if (n != NULL)
			add_node(p, n, filter_node(g, n) == FILTER_NONE, now);
	}
	heapify(&p->root);
	return p;
}

void placement_free(struct placement *p)
{
	branch_done(&p->root);
	free(p);
}

struct node_info *placement_best(struct placement *p)
{
	struct branch *b = &p->root;

	if (b->nodes == 0)
		return NULL;
	while (b->n_children > 0) {
		struct branch *best = NULL;

		for (size_t i = 0; i < b->n_children; i++) {
			struct branch *c = b->children[i];

			if (c->nodes > 0 && (best == NULL || c->tasks < best->tasks))
				best = c;
		}
		ASSERT(best != NULL); /* b->nodes counts its children's */
		b = best;
	}
	p->leaf = b;
	return b->heap[0].node;
}

void placement_took(struct placement *p)
{
	struct branch *leaf = p->leaf;
	bool full = filter_node_again(p->group, leaf->heap[0].node) != FILTER_NONE;

	if (full) {
		leaf->heap[0] = leaf->heap[--leaf->n];
	} else {
		leaf->heap[0].of_service++;
		leaf->heap[0].active++;
	}
	sift_down(leaf, 0);
	for (struct branch *b = leaf; b != NULL; b = b->parent) {
		b->tasks++;
		b->nodes -= full;
	}
}

void placement_refusals(const struct scheduler *s, const struct group *g, size_t refused[FILTERS])
{
	memset(refused, 0, FILTERS * sizeof(*refused));
	for (size_t i = 0; i < s->n_index; i++) {
		enum filter f = FILTER_NONE;

		if (s->by_index[i] != NULL && s->by_index[i]->obj != NULL)
			f = filter_node(g, s->by_index[i]);
		if (f != FILTER_NONE)
			refused[f]++;
	}
}

static bool parse_spread(const char *d, struct preference *ret)
{
	if (str_has_iprefix(d, "node.labels.") && d[12] != '\0')
		*ret = (struct preference){false, (char *)(uintptr_t)(d + 12)};
	else if (str_has_iprefix(d, "engine.labels.") && d[14] != '\0')
		*ret = (struct preference){true, (char *)(uintptr_t)(d + 14)};
	else
		return false;
	return true;
}

bool scheduler_spread_valid(const char *descriptor)
{
	struct preference p;

	return descriptor != NULL && parse_spread(descriptor, &p);
}

void preferences_parse(const Pb__Placement *pl, struct preference **ret, size_t *ret_n)
{
	struct preference *v = NULL;
	size_t n = 0;

	for (size_t i = 0; pl != NULL && i < pl->n_preferences; i++) {
		const Pb__SpreadOver *sp = pl->preferences[i]->spread;
		struct preference p;

		if (sp == NULL || sp->spread_descriptor == NULL || !parse_spread(sp->spread_descriptor, &p))
			continue;
		v = xreallocarray(v, n + 1, sizeof(*v));
		v[n].engine = p.engine;
		v[n++].key = xstrdup(p.key);
	}
	*ret = v;
	*ret_n = n;
}
