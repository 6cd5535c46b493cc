/* Scratch memory for decoding: protobuf-c allocates every string and struct by itself, which the store
 * then copies into one block; what came before the copy is thrown away whole. */
#include <string.h>

#include "base/mem.h"
#include "manager/store/internal.h"

#define CHUNK_MIN  ((size_t)64 * 1024)
#define CHUNK_KEEP ((size_t)1024 * 1024)

struct arena_chunk {
	struct arena_chunk *next;
	size_t used, cap;
	_Alignas(16) unsigned char data[];
};

static void *arena_alloc(void *data, size_t n)
{
	struct arena *a = data;
	struct arena_chunk *c = a->chunks;
	void *p;

	n = (n + 15) & ~(size_t)15;
	if (c == NULL || c->cap - c->used < n) {
		size_t cap = c == NULL ? CHUNK_MIN : c->cap * 2;

		if (cap > CHUNK_KEEP)
			cap = CHUNK_KEEP;
		if (cap < n)
			cap = n;
		c = xmalloc(sizeof(*c) + cap);
		c->cap = cap;
		c->used = 0;
		c->next = a->chunks;
		a->chunks = c;
	}
	p = c->data + c->used;
	c->used += n;
	return p;
}

static void arena_free(void *data, void *p)
{
	(void)data;
	(void)p;
}

void arena_init(struct arena *a)
{
	memset(a, 0, sizeof(*a));
	a->alloc.alloc = arena_alloc;
	a->alloc.free = arena_free;
	a->alloc.allocator_data = a;
}

void arena_reset(struct arena *a)
{
	struct arena_chunk *keep = NULL;

	for (struct arena_chunk *c = a->chunks, *next; c != NULL; c = next) {
		next = c->next;
		if (keep == NULL && c->cap <= CHUNK_KEEP)
			keep = c;
		else
			free(c);
	}
	if (keep != NULL) {
		keep->used = 0;
		keep->next = NULL;
	}
	a->chunks = keep;
}

void arena_done(struct arena *a)
{
	for (struct arena_chunk *c = a->chunks, *next; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	a->chunks = NULL;
}
