/* What the files of the store share. Nothing outside manager/store includes this.
 *
 * An object is one block of memory: this header, the message struct, everything that it points to. Strings
 * that many objects repeat (a task's service, node, template, status text) are not in the block but
 * interned: one copy, counted. A task with one network attachment takes about 0.7 KiB that way. */
#ifndef MANAGER_STORE_INTERNAL_H
#define MANAGER_STORE_INTERNAL_H

#include "base/map.h"
#include "manager/store/store.h"

/* --- intern.c: strings that many objects share. Outlives the store for as long as one is referenced. */
struct intern;
struct intern *intern_new(void);
void intern_unref_pool(struct intern *in);
char *intern_get(struct intern *in, const char *s); /* one reference for the caller */
void intern_put(char *s);                           /* s came from intern_get */
uint32_t hash_str(const char *s);

/* --- arena.c: scratch memory for decoding, thrown away whole. */
struct arena_chunk;
struct arena {
	struct arena_chunk *chunks; /* the first is the one being filled */
	ProtobufCAllocator alloc;
};
void arena_init(struct arena *a);
void arena_reset(struct arena *a); /* keeps one chunk of moderate size */
void arena_done(struct arena *a);

/* --- object.c */
#define OBJ_SLOTS 3
struct object_node {
	struct object pub;
	struct object_node *next; /* in its table's chain */
	uint32_t hash;            /* of the id */
	union {
		uint32_t
		    pos[OBJ_SLOTS]; /* where in the buckets of its single-valued indexes (tasks, templates) */
		struct object_node *twin; /* next with the same name (nodes, volumes) */
	};
};
static inline struct object_node *node_of(const struct object *o)
{
	return (struct object_node *)(uintptr_t)o;
}
/* Decodes one packed message of that kind into a fresh object with one reference. ERR_CORRUPT. */
int object_decode(struct intern *in, struct arena *scratch, obj_kind kind, const uint8_t *p, size_t n,
    struct object_node **ret, struct err *e);
/* The name by which the object is looked up, or NULL. */
const char *object_name(const struct object *o);
bool object_name_unique(obj_kind kind);

/* --- index.c */
struct table {
	struct object_node **slots;
	size_t cap, n;
};
struct bucket {
	size_t n, cap;
	struct object_node **v;
};
struct tables {
	struct table by_id[OBJ_KINDS];
	struct strmap by_name[OBJ_KINDS];   /* lower-cased name -> struct object_node, chained by twin */
	struct strmap index[STORE_INDEXES]; /* key -> struct bucket */
};
void tables_done(struct tables *t); /* drops its references */
struct object_node *tables_get(const struct tables *t, obj_kind kind, const char *id);
struct object_node *tables_get_name(const struct tables *t, obj_kind kind, const char *name);
/* ERR_CONFLICT when an object other than `old` holds the name of `cur`, or a second cluster is made. */
int tables_check(
    const struct tables *t, const struct object_node *old, const struct object_node *cur, struct err *e);
/* The one primitive: create (old NULL), update, delete (cur NULL). References are moved: the tables give up
 * theirs to old, and take the caller's to cur. Its own inverse with the arguments swapped. */
void tables_swap(struct tables *t, struct object_node *old, struct object_node *cur);

/* --- watch.c */
struct watches {
	struct store_watch *first, *last;
	bool running;
};
void watches_dispatch(struct watches *w, const struct store_event *ev, size_t n);
void watches_done(struct watches *w); /* detaches those that are left */

/* --- store.c */
struct store {
	uint64_t version;
	struct tables t;
	struct watches watches;
	struct intern *strings;
	struct arena scratch;
	bool applying;
};

#endif
