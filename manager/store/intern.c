/* Strings that many objects repeat, kept once.
 *
 * An entry holds its pool, so that an object which outlives the store can still give its strings back: the
 * pool goes with its last entry. Chained hash table; keys are ids of ours and texts of nodes with a
 * certificate, so the hash is not seeded, and a simulation stays reproducible. */
#include <stddef.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "manager/store/internal.h"

struct intern_entry {
	struct intern *pool;
	struct intern_entry *next;
	uint32_t hash;
	uint32_t refs;
	char s[];
};
struct intern {
	struct intern_entry **slots;
	size_t cap, n;
	bool owned; /* the store is still there */
};

#define MIN_CAP 64

uint32_t hash_str(const char *s)
{
	size_t n = strlen(s);
	uint64_t h = 0x9e3779b97f4a7c15u ^ n, w;

	for (; n >= 8; s += 8, n -= 8) {
		memcpy(&w, s, 8);
		h = (h ^ w) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	w = 0;
	memcpy(&w, s, n);
	h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
	h ^= h >> 29;
	h *= 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32);
}

struct intern *intern_new(void)
{
	struct intern *in = NEW(struct intern);

	in->cap = MIN_CAP;
	in->slots = xcalloc(in->cap, sizeof(*in->slots));
	in->owned = true;
	return in;
}

static void maybe_free(struct intern *in)
{
	if (in->owned || in->n > 0)
		return;
	free(in->slots);
	free(in);
}

void intern_unref_pool(struct intern *in)
{
	in->owned = false;
	maybe_free(in);
}

static void resize(struct intern *in, size_t cap)
{
	struct intern_entry **slots = xcalloc(cap, sizeof(*slots));

	for (size_t i = 0; i < in->cap; i++) {
		for (struct intern_entry *e = in->slots[i], *next; e != NULL; e = next) {
			next = e->next;
			e->next = slots[e->hash & (cap - 1)];
			slots[e->hash & (cap - 1)] = e;
		}
	}
	free(in->slots);
	in->slots = slots;
	in->cap = cap;
}

char *intern_get(struct intern *in, const char *s)
{
	uint32_t h = hash_str(s);
	struct intern_entry *e;
	size_t n;

	for (e = in->slots[h & (in->cap - 1)]; e != NULL; e = e->next) {
		if (e->hash == h && strcmp(e->s, s) == 0) {
			e->refs++;
			return e->s;
		}
	}
	if (in->n >= in->cap)
		resize(in, in->cap * 2);
	n = strlen(s) + 1;
	e = xmalloc(sizeof(*e) + n);
	e->pool = in;
	e->hash = h;
	e->refs = 1;
	memcpy(e->s, s, n);
	e->next = in->slots[h & (in->cap - 1)];
	in->slots[h & (in->cap - 1)] = e;
	in->n++;
	return e->s;
}

void intern_put(char *s)
{
	struct intern_entry *e = CONTAINER_OF(s, struct intern_entry, s);
	struct intern *in = e->pool;
	struct intern_entry **at;

	ASSERT(e->refs > 0);
	if (--e->refs > 0)
		return;
	for (at = &in->slots[e->hash & (in->cap - 1)]; *at != e; at = &(*at)->next)
		;
	*at = e->next;
	free(e);
	in->n--;
	if (in->cap > MIN_CAP && in->n < in->cap / 8)
		resize(in, in->cap / 2);
	maybe_free(in);
}
