/* The store itself: making it, and reading from it. Changing is in apply.c, snapshots in snapshot.c. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/store/internal.h"

struct store *store_new(void)
{
	struct store *s = NEW(struct store);

	s->strings = intern_new();
	arena_init(&s->scratch);
	return s;
}

void store_free(struct store *s)
{
	if (s == NULL)
		return;
	ASSERT(!s->applying);
	watches_done(&s->watches);
	tables_done(&s->t);
	arena_done(&s->scratch);
	intern_unref_pool(s->strings);
	free(s);
}

uint64_t store_version(const struct store *s)
{
	return s->version;
}

const struct object *store_get(const struct store *s, obj_kind kind, const char *id)
{
	struct object_node *o;

	ASSERT((unsigned)kind < OBJ_KINDS);
	if (id == NULL)
		return NULL;
	o = tables_get(&s->t, kind, id);
	return o != NULL ? &o->pub : NULL;
}

const struct object *store_get_by_name(const struct store *s, obj_kind kind, const char *name)
{
	struct object_node *o;

	ASSERT((unsigned)kind < OBJ_KINDS);
	if (str_empty(name))
		return NULL;
	o = tables_get_name(&s->t, kind, name);
	return o != NULL && (object_name_unique(kind) || o->twin == NULL) ? &o->pub : NULL;
}

static size_t count_twins(const struct object_node *o)
{
	size_t n = 0;

	for (; o != NULL; o = o->twin)
		n++;
	return n;
}

int store_find(
    const struct store *s, obj_kind kind, const char *ref, const struct object **ret, struct err *e)
{
	const char *what = object_kind_name(kind);
	const struct object *found = store_get(s, kind, ref);
	const struct object_node *named;
	const struct table *t = &s->t.by_id[kind];
	size_t matches = 0;

	if (found != NULL) {
		*ret = found;
		return 0;
	}
	if (str_empty(ref))
		return err_set(e, ERR_NOT_FOUND, "%s not found: no name or id given", what);
	named = tables_get_name(&s->t, kind, ref);
	if (named != NULL) {
		matches = count_twins(named);
		if (matches > 1)
			return err_set(
			    e, ERR_INVALID, "%s %s is ambiguous (%zu matches found)", what, ref, matches);
		*ret = &named->pub;
		return 0;
	}
	/* Prefixes are typed by people: a walk over the kind is fast enough, and needs no ordered index. */
	for (size_t i = 0; i < t->cap; i++) {
		for (const struct object_node *o = t->slots[i]; o != NULL; o = o->next) {
			if (str_has_prefix(o->pub.head->id, ref)) {
				found = &o->pub;
				matches++;
			}
		}
	}
	if (matches == 0)
		return err_set(e, ERR_NOT_FOUND, "%s %s not found", what, ref);
	if (matches > 1)
		return err_set(e, ERR_INVALID, "%s %s is ambiguous (%zu matches found)", what, ref, matches);
	*ret = found;
	return 0;
}

size_t store_count(const struct store *s, obj_kind kind)
{
	ASSERT((unsigned)kind < OBJ_KINDS);
	return s->t.by_id[kind].n;
}

const Pb__Cluster *store_cluster(const struct store *s)
{
	struct store_iter it;
	const struct object *o;

	store_iter_init(&it, s, OBJ(CLUSTER), STORE_ALL, NULL);
	o = store_iter_next(&it);
	return o != NULL ? o->cluster : NULL;
}

const Pb__Template *store_template(const struct store *s, const char *template_id)
{
	const struct object *o = store_get(s, OBJ(TEMPLATE), template_id);

	return o != NULL ? o->tmpl : NULL;
}

/* --- iterating ----------------------------------------------------------------------------------------- */

static obj_kind index_kind(enum store_index index)
{
	switch (index) {
	case STORE_TASK_BY_SERVICE:
	case STORE_TASK_BY_NODE:
	case STORE_TASK_BY_TEMPLATE:
		return OBJ(TASK);
	case STORE_TEMPLATE_BY_SERVICE:
		return OBJ(TEMPLATE);
	default:
		return OBJ(SERVICE);
	}
}

void store_iter_init(
    struct store_iter *it, const struct store *s, obj_kind kind, enum store_index index, const char *key)
{
	ASSERT((unsigned)kind < OBJ_KINDS && (unsigned)index < STORE_INDEXES);
	ASSERT(index == STORE_ALL || index_kind(index) == kind);
	memset(it, 0, sizeof(*it));
	if (index == STORE_ALL)
		it->table_ = &s->t.by_id[kind];
	else
		it->node_ = strmap_get(&s->t.index[index], key != NULL ? key : "");
}

const struct object *store_iter_next(struct store_iter *it)
{
	const struct table *t = it->table_;
	const struct object_node *o;

	if (t == NULL) {
		const struct bucket *b = it->node_;

		return b != NULL && it->i_ < b->n ? &b->v[it->i_++]->pub : NULL;
	}
	for (o = it->node_; o == NULL; o = t->slots[it->i_++]) {
		if (it->i_ == t->cap)
			return NULL;
	}
	it->node_ = o->next;
	return &o->pub;
}

size_t store_index_count(const struct store *s, enum store_index index, const char *key)
{
	const struct bucket *b;

	ASSERT(index != STORE_ALL && (unsigned)index < STORE_INDEXES);
	b = strmap_get(&s->t.index[index], key != NULL ? key : "");
	return b != NULL ? b->n : 0;
}
