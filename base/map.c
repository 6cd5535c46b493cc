/* Hash maps by open addressing with linear probing.
 *
 * A removed entry leaves a tombstone unless nothing follows it, so that entries never move while
 * someone iterates; tombstones go when the table is rebuilt, which only a put does. The table is
 * rebuilt when three quarters of it are entries or tombstones, at a size that leaves it at most half
 * full. Keys are hashed with SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
 * 2012) under a key drawn once per process. */
#include "base/map.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

struct map_slot_ {
	char *key;  /* strmap: owned key; u64map: &used_mark. NULL: empty; &gone_mark: tombstone */
	uint64_t h; /* strmap: the key's hash; u64map: the key itself */
	void *value;
};

#define MIN_CAP 8

static char used_mark, gone_mark;

static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void draw_hash_key(void)
{
	hash_key[0] = rng_u64(rng_system());
	hash_key[1] = rng_u64(rng_system());
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

struct sip {
	uint64_t a, b, c, d;
};

static void sip_round(struct sip *s)
{
	s->a += s->b;
	s->b = rotl(s->b, 13) ^ s->a;
	s->a = rotl(s->a, 32);
	s->c += s->d;
	s->d = rotl(s->d, 16) ^ s->c;
	s->a += s->d;
	s->d = rotl(s->d, 21) ^ s->a;
	s->c += s->b;
	s->b = rotl(s->b, 17) ^ s->c;
	s->c = rotl(s->c, 32);
}

static void sip_word(struct sip *s, uint64_t w)
{
	s->d ^= w;
	sip_round(s);
	s->a ^= w;
}

static uint64_t hash_bytes(const void *data, size_t n)
{
	pthread_once(&hash_once, draw_hash_key);
	struct sip s = {
	    hash_key[0] ^ UINT64_C(0x736f6d6570736575),
	    hash_key[1] ^ UINT64_C(0x646f72616e646f6d),
	    hash_key[0] ^ UINT64_C(0x6c7967656e657261),
	    hash_key[1] ^ UINT64_C(0x7465646279746573),
	};
	const unsigned char *p = data;
	size_t left = n;
	for (; left >= 8; p += 8, left -= 8) {
		uint64_t w;
		memcpy(&w, p, 8);
		sip_word(&s, w);
	}
	uint64_t last = (uint64_t)n << 56;
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)p[i] << (8 * i);
	sip_word(&s, last);
	s.c ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}

static uint64_t hash_u64(uint64_t v)
{
	return hash_bytes(&v, sizeof(v));
}

static bool slot_live(const struct map_slot_ *s)
{
	return s->key && s->key != &gone_mark;
}

/* Whether a table with `used` occupied slots has to be rebuilt before another is taken. */
static bool must_rebuild(size_t cap, size_t used)
{
	return (used + 1) * 4 > cap * 3;
}

static size_t rebuilt_cap(size_t n)
{
	size_t cap = MIN_CAP;
	while ((n + 1) * 2 > cap)
		cap *= 2;
	return cap;
}

/* The slot after removing index i: empty when the run of occupied slots ends there, which also frees
 * the tombstones before it. Returns how many slots became empty. */
static size_t vacate(struct map_slot_ *slots, size_t cap, size_t i)
{
	size_t mask = cap - 1, freed = 0;
	slots[i].value = NULL;
	if (slots[(i + 1) & mask].key) {
		slots[i].key = &gone_mark;
		return 0;
	}
	slots[i].key = NULL;
	freed++;
	for (i = (i - 1) & mask; slots[i].key == &gone_mark; i = (i - 1) & mask) {
		slots[i].key = NULL;
		freed++;
	}
	return freed;
}

static void rebuild(struct map_slot_ **slots, size_t *cap, size_t n, size_t *used, bool strings)
{
	size_t new_cap = rebuilt_cap(n), mask = new_cap - 1;
	struct map_slot_ *fresh = xcalloc(new_cap, sizeof(*fresh));
	for (size_t i = 0; i < *cap; i++) {
		const struct map_slot_ *s = &(*slots)[i];
		if (!slot_live(s))
			continue;
		size_t at = (strings ? s->h : hash_u64(s->h)) & mask;
		while (fresh[at].key)
			at = (at + 1) & mask;
		fresh[at] = *s;
	}
	free(*slots);
	*slots = fresh;
	*cap = new_cap;
	*used = n;
}

/* --- strings ---------------------------------------------------------------------------------------- */

static struct map_slot_ *str_find(const struct strmap *m, const char *key, uint64_t h)
{
	if (!m->n)
		return NULL;
	size_t mask = m->cap - 1;
	for (size_t i = h & mask; m->slots[i].key; i = (i + 1) & mask) {
		struct map_slot_ *s = &m->slots[i];
		if (s->h == h && s->key != &gone_mark && strcmp(s->key, key) == 0)
			return s;
	}
	return NULL;
}

void *strmap_get(const struct strmap *m, const char *key)
{
	const struct map_slot_ *s = m->n ? str_find(m, key, hash_bytes(key, strlen(key))) : NULL;
	return s ? s->value : NULL;
}

bool strmap_has(const struct strmap *m, const char *key)
{
	return m->n && str_find(m, key, hash_bytes(key, strlen(key)));
}

void *strmap_put(struct strmap *m, const char *key, void *value)
{
	size_t len = strlen(key);
	uint64_t h = hash_bytes(key, len);
	struct map_slot_ *s = str_find(m, key, h);
	if (s) {
		void *before = s->value;
		s->value = value;
		return before;
	}
	if (must_rebuild(m->cap, m->used))
		rebuild(&m->slots, &m->cap, m->n, &m->used, true);
	size_t mask = m->cap - 1, i = h & mask;
	while (slot_live(&m->slots[i]))
		i = (i + 1) & mask;
	if (!m->slots[i].key)
		m->used++;
	m->slots[i] = (struct map_slot_){.key = xmemdup(key, len + 1), .h = h, .value = value};
	m->n++;
	return NULL;
}

void *strmap_remove(struct strmap *m, const char *key)
{
	struct map_slot_ *s = m->n ? str_find(m, key, hash_bytes(key, strlen(key))) : NULL;
	if (!s)
		return NULL;
	void *value = s->value;
	free(s->key);
	m->used -= vacate(m->slots, m->cap, (size_t)(s - m->slots));
	m->n--;
	return value;
}

size_t strmap_len(const struct strmap *m)
{
	return m->n;
}

bool strmap_next(const struct strmap *m, size_t *it, const char **ret_key, void **ret_value)
{
	for (; *it < m->cap; (*it)++) {
		const struct map_slot_ *s = &m->slots[*it];
		if (!slot_live(s))
			continue;
		if (ret_key)
			*ret_key = s->key;
		if (ret_value)
			*ret_value = s->value;
		(*it)++;
		return true;
	}
	return false;
}

void strmap_done(struct strmap *m)
{
	strmap_done_free(m, NULL);
}

void strmap_done_free(struct strmap *m, void (*free_value)(void *))
{
	for (size_t i = 0; i < m->cap; i++) {
		struct map_slot_ *s = &m->slots[i];
		if (!slot_live(s))
			continue;
		if (free_value)
			free_value(s->value);
		free(s->key);
	}
	free(m->slots);
	*m = (struct strmap)STRMAP_INIT;
}

/* --- numbers ---------------------------------------------------------------------------------------- */

static struct map_slot_ *u64_find(const struct u64map *m, uint64_t key)
{
	if (!m->n)
		return NULL;
	size_t mask = m->cap - 1;
	for (size_t i = hash_u64(key) & mask; m->slots[i].key; i = (i + 1) & mask) {
		struct map_slot_ *s = &m->slots[i];
		if (s->h == key && s->key == &used_mark)
			return s;
	}
	return NULL;
}

void *u64map_get(const struct u64map *m, uint64_t key)
{
	const struct map_slot_ *s = u64_find(m, key);
	return s ? s->value : NULL;
}

void *u64map_put(struct u64map *m, uint64_t key, void *value)
{
	struct map_slot_ *s = u64_find(m, key);
	if (s) {
		void *before = s->value;
		s->value = value;
		return before;
	}
	if (must_rebuild(m->cap, m->used))
		rebuild(&m->slots, &m->cap, m->n, &m->used, false);
	size_t mask = m->cap - 1, i = hash_u64(key) & mask;
	while (slot_live(&m->slots[i]))
		i = (i + 1) & mask;
	if (!m->slots[i].key)
		m->used++;
	m->slots[i] = (struct map_slot_){.key = &used_mark, .h = key, .value = value};
	m->n++;
	return NULL;
}

void *u64map_remove(struct u64map *m, uint64_t key)
{
	struct map_slot_ *s = u64_find(m, key);
	if (!s)
		return NULL;
	void *value = s->value;
	m->used -= vacate(m->slots, m->cap, (size_t)(s - m->slots));
	m->n--;
	return value;
}

size_t u64map_len(const struct u64map *m)
{
	return m->n;
}

bool u64map_next(const struct u64map *m, size_t *it, uint64_t *ret_key, void **ret_value)
{
	for (; *it < m->cap; (*it)++) {
		const struct map_slot_ *s = &m->slots[*it];
		if (!slot_live(s))
			continue;
		if (ret_key)
			*ret_key = s->h;
		if (ret_value)
			*ret_value = s->value;
		(*it)++;
		return true;
	}
	return false;
}

void u64map_done(struct u64map *m)
{
	free(m->slots);
	*m = (struct u64map)U64MAP_INIT;
}
