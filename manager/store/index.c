/* Where objects are found: by id, by name, by the indexes of enum store_index.
 *
 * By id: one chained hash table a kind, the chain link inside the object, resized both ways so that walking
 * it costs what it holds. By name: a map from the lower-cased name to the first of a chain (nodes
 * and volumes may share a name). Single-valued indexes (task by service ...) are buckets of
 * pointers, and the object knows its place in each, so that removal and replacement cost O(1).
 * Multi-valued ones (service by secret ...) are buckets searched on removal. */
#include <ctype.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/store/internal.h"

#define TABLE_MIN 64

static const struct {
	enum store_index index;
	obj_kind kind;
	size_t offset; /* of the key's pointer in the message */
	unsigned slot; /* in object_node.pos */
} single[] = {
    {STORE_TASK_BY_SERVICE, OBJ(TASK), offsetof(Pb__Task, service_id), 0},
    {STORE_TASK_BY_NODE, OBJ(TASK), offsetof(Pb__Task, node_id), 1},
    {STORE_TASK_BY_TEMPLATE, OBJ(TASK), offsetof(Pb__Task, template_id), 2},
    {STORE_TEMPLATE_BY_SERVICE, OBJ(TEMPLATE), offsetof(Pb__Template, service_id), 0},
};

/* --- by id ------------------------------------------------------------------------------------------- */

static struct object_node **table_at(const struct table *t, uint32_t hash)
{
	return &t->slots[hash & (t->cap - 1)];
}

static void table_resize(struct table *t, size_t cap)
{
	struct table to = {xcalloc(cap, sizeof(*to.slots)), cap, t->n};

	for (size_t i = 0; i < t->cap; i++) {
		for (struct object_node *o = t->slots[i], *next; o != NULL; o = next) {
			struct object_node **at = table_at(&to, o->hash);

			next = o->next;
			o->next = *at;
			*at = o;
		}
	}
	free(t->slots);
	*t = to;
}

struct object_node *tables_get(const struct tables *t, obj_kind kind, const char *id)
{
	const struct table *by_id = &t->by_id[kind];
	uint32_t h;

	if (by_id->n == 0)
		return NULL;
	h = hash_str(id);
	for (struct object_node *o = *table_at(by_id, h); o != NULL; o = o->next) {
		if (o->hash == h && strcmp(o->pub.head->id, id) == 0)
			return o;
	}
	return NULL;
}

static void table_add(struct table *t, struct object_node *o)
{
	struct object_node **at;

	if (t->n >= t->cap)
		table_resize(t, t->cap ? t->cap * 2 : TABLE_MIN);
	at = table_at(t, o->hash);
	o->next = *at;
	*at = o;
	t->n++;
}

static struct object_node **table_link(struct table *t, const struct object_node *o)
{
	struct object_node **at = table_at(t, o->hash);

	while (*at != o) {
		ASSERT(*at != NULL);
		at = &(*at)->next;
	}
	return at;
}

static void table_remove(struct table *t, struct object_node *o)
{
	struct object_node **at = table_link(t, o);

	*at = o->next;
	o->next = NULL;
	t->n--;
	if (t->cap > TABLE_MIN && t->n < t->cap / 8)
		table_resize(t, t->cap / 2);
}

static void table_replace(struct table *t, struct object_node *old, struct object_node *cur)
{
	struct object_node **at = table_link(t, old);

	cur->next = old->next;
	old->next = NULL;
	*at = cur;
}

/* --- by name ----------------------------------------------------------------------------------------- */

/* Volumes are a driver's, where case counts; everything else compares as Swarm does, without case. */
static char *name_key(obj_kind kind, const char *name)
{
	char *key = xstrdup(name);

	if (kind != OBJ(VOLUME)) {
		for (char *c = key; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	}
	return key;
}

struct object_node *tables_get_name(const struct tables *t, obj_kind kind, const char *name)
{
	CLEANUP_FREE char *key = name_key(kind, name);

	return strmap_get(&t->by_name[kind], key);
}

static void name_add(struct tables *t, struct object_node *o, const char *name)
{
	CLEANUP_FREE char *key = name_key(o->pub.kind, name);

	o->twin = strmap_put(&t->by_name[o->pub.kind], key, o);
}

static void name_remove(struct tables *t, struct object_node *o, const char *name)
{
	CLEANUP_FREE char *key = name_key(o->pub.kind, name);
	struct object_node *at = strmap_get(&t->by_name[o->pub.kind], key);

	if (at == o) {
		if (o->twin != NULL)
			strmap_put(&t->by_name[o->pub.kind], key, o->twin);
		else
			strmap_remove(&t->by_name[o->pub.kind], key);
	} else {
		for (; at->twin != o; at = at->twin)
			ASSERT(at->twin != NULL);
		at->twin = o->twin;
	}
	o->twin = NULL;
}

/* --- buckets ----------------------------------------------------------------------------------------- */

static struct bucket *bucket_for(struct strmap *m, const char *key)
{
	struct bucket *b = strmap_get(m, key);

	if (b == NULL) {
		b = NEW(struct bucket);
		strmap_put(m, key, b);
	}
	return b;
}

static void bucket_push(struct bucket *b, struct object_node *o)
{
	if (b->n == b->cap) {
		b->cap = b->cap ? b->cap + b->cap / 2 + 1 : 2;
		b->v = xreallocarray(b->v, b->cap, sizeof(*b->v));
	}
	b->v[b->n++] = o;
}

static void bucket_free(void *p)
{
	struct bucket *b = p;

	free(b->v);
	free(b);
}

static void bucket_shrink(struct strmap *m, const char *key, struct bucket *b)
{
	if (b->n == 0) {
		strmap_remove(m, key);
		bucket_free(b);
	} else if (b->cap > 16 && b->n < b->cap / 4) {
		b->cap /= 2;
		b->v = xreallocarray(b->v, b->cap, sizeof(*b->v));
	}
}

static const char *single_key(const struct object_node *o, size_t i)
{
	return str_or(*(char *const *)(const void *)((const char *)o->pub.msg + single[i].offset), "");
}

static void single_remove(struct tables *t, struct object_node *o, size_t i)
{
	struct strmap *m = &t->index[single[i].index];
	const char *key = single_key(o, i);
	struct bucket *b = strmap_get(m, key);
	uint32_t at = o->pos[single[i].slot];
	struct object_node *last;

	ASSERT(b != NULL && at < b->n && b->v[at] == o);
	last = b->v[--b->n];
	b->v[at] = last;
	last->pos[single[i].slot] = at;
	bucket_shrink(m, key, b);
}

static void single_add(struct tables *t, struct object_node *o, size_t i)
{
	struct bucket *b = bucket_for(&t->index[single[i].index], single_key(o, i));

	o->pos[single[i].slot] = (uint32_t)b->n;
	bucket_push(b, o);
}

static void single_swap(struct tables *t, struct object_node *old, struct object_node *cur, size_t i)
{
	const char *key;

	if (old != NULL && cur != NULL && strcmp(key = single_key(old, i), single_key(cur, i)) == 0) {
		struct bucket *b = strmap_get(&t->index[single[i].index], key);
		uint32_t at = old->pos[single[i].slot];

		ASSERT(b != NULL && at < b->n && b->v[at] == old);
		b->v[at] = cur;
		cur->pos[single[i].slot] = at;
		return;
	}
	if (old != NULL)
		single_remove(t, old, i);
	if (cur != NULL)
		single_add(t, cur, i);
}

/* --- what a service names ------------------------------------------------------------------------------ */

static void multi_add(struct tables *t, struct object_node *o, enum store_index index, const char *key)
{
	struct bucket *b;

	if (str_empty(key))
		return;
	b = bucket_for(&t->index[index], key);
	/* One that is named twice is in once: all keys of an object are added in a row. */
	if (b->n == 0 || b->v[b->n - 1] != o)
		bucket_push(b, o);
}

static void multi_remove(struct tables *t, struct object_node *o, enum store_index index, const char *key)
{
	struct bucket *b = str_empty(key) ? NULL : strmap_get(&t->index[index], key);

	if (b == NULL)
		return;
	for (size_t i = b->n; i-- > 0;) {
		if (b->v[i] == o) {
			b->v[i] = b->v[--b->n];
			break;
		}
	}
	bucket_shrink(&t->index[index], key, b);
}

typedef void (*multi_fn)(struct tables *t, struct object_node *o, enum store_index index, const char *key);

static void service_refs(struct tables *t, struct object_node *o, multi_fn fn)
{
	const Pb__ServiceSpec *spec = o->pub.service->spec;
	const Pb__TaskSpec *task = spec->task_template;
	const Pb__ContainerSpec *c = task != NULL ? task->container_spec : NULL;

	for (size_t i = 0; c != NULL && i < c->n_secrets; i++)
		fn(t, o, STORE_SERVICE_BY_SECRET, c->secrets[i]->secret_id);
	for (size_t i = 0; c != NULL && i < c->n_configs; i++)
		fn(t, o, STORE_SERVICE_BY_CONFIG, c->configs[i]->config_id);
	if (c != NULL && c->privileges != NULL && c->privileges->credential_spec != NULL)
		fn(t, o, STORE_SERVICE_BY_CONFIG, c->privileges->credential_spec->config);
	for (size_t i = 0; task != NULL && i < task->n_networks; i++)
		fn(t, o, STORE_SERVICE_BY_NETWORK, task->networks[i]->target);
	for (size_t i = 0; i < spec->n_networks; i++)
		fn(t, o, STORE_SERVICE_BY_NETWORK, spec->networks[i]->target);
}

/* --- all together -------------------------------------------------------------------------------------- */

int tables_check(
    const struct tables *t, const struct object_node *old, const struct object_node *cur, struct err *e)
{
	obj_kind kind = cur->pub.kind;
	const char *name = object_name(&cur->pub);
	const struct object_node *other;

	if (kind == OBJ(CLUSTER) && old == NULL && t->by_id[kind].n > 0)
		return err_set(e, ERR_CONFLICT, "the cluster object exists already");
	if (!object_name_unique(kind) || name == NULL)
		return 0;
	other = tables_get_name(t, kind, name);
	if (other == NULL || other == old)
		return 0;
	if (kind == OBJ(SERVICE))
		return err_set(e, ERR_CONFLICT,
		    "name conflicts with an existing object: service %s already exists", name);
	if (kind == OBJ(NETWORK))
		return err_set(e, ERR_CONFLICT, "network with name %s already exists", name);
	return err_set(e, ERR_CONFLICT, "%s %s already exists", object_kind_name(kind), name);
}

void tables_swap(struct tables *t, struct object_node *old, struct object_node *cur)
{
	obj_kind kind = (old != NULL ? old : cur)->pub.kind;
	const char *old_name = old != NULL ? object_name(&old->pub) : NULL;
	const char *name = cur != NULL ? object_name(&cur->pub) : NULL;

	if (old == NULL)
		table_add(&t->by_id[kind], cur);
	else if (cur == NULL)
		table_remove(&t->by_id[kind], old);
	else
		table_replace(&t->by_id[kind], old, cur);

	if (old_name != NULL)
		name_remove(t, old, old_name);
	if (name != NULL)
		name_add(t, cur, name);

	for (size_t i = 0; i < ARRAY_LEN(single); i++) {
		if (single[i].kind == kind)
			single_swap(t, old, cur, i);
	}
	if (kind == OBJ(SERVICE)) {
		if (old != NULL)
			service_refs(t, old, multi_remove);
		if (cur != NULL)
			service_refs(t, cur, multi_add);
	}
}

void tables_done(struct tables *t)
{
	for (unsigned k = 0; k < OBJ_KINDS; k++) {
		for (size_t i = 0; i < t->by_id[k].cap; i++) {
			for (struct object_node *o = t->by_id[k].slots[i], *next; o != NULL; o = next) {
				next = o->next;
				object_unref(&o->pub);
			}
		}
		free(t->by_id[k].slots);
		strmap_done(&t->by_name[k]);
	}
	for (unsigned i = 0; i < STORE_INDEXES; i++)
		strmap_done_free(&t->index[i], bucket_free);
	memset(t, 0, sizeof(*t));
}
