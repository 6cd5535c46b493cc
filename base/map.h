/* Hash maps from strings (copied) or 64-bit numbers to pointers (not owned).
 *
 * Iteration order is unspecified. While iterating, only the current entry may be removed. Hashing is
 * seeded once per process from the system, so that a peer cannot choose colliding keys. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot_;
struct strmap {
	struct map_slot_ *slots;
	size_t cap, n, used;
};
#define STRMAP_INIT                                                                                          \
	{                                                                                                    \
		0, 0, 0, 0                                                                                   \
	}

void *strmap_get(const struct strmap *m, const char *key); /* NULL when absent */
bool strmap_has(const struct strmap *m, const char *key);
/* Sets; returns the value that was there before, or NULL. */
void *strmap_put(struct strmap *m, const char *key, void *value);
void *strmap_remove(struct strmap *m, const char *key); /* the value, or NULL */
size_t strmap_len(const struct strmap *m);
/* for (size_t it = 0; strmap_next(m, &it, &key, &value);) ... key and value may be NULL. */
bool strmap_next(const struct strmap *m, size_t *it, const char **ret_key, void **ret_value);
void strmap_done(struct strmap *m);
/* As strmap_done, after calling free_value on each value. */
void strmap_done_free(struct strmap *m, void (*free_value)(void *));

struct u64map {
	struct map_slot_ *slots;
	size_t cap, n, used;
};
#define U64MAP_INIT                                                                                          \
	{                                                                                                    \
		0, 0, 0, 0                                                                                   \
	}
void *u64map_get(const struct u64map *m, uint64_t key);
void *u64map_put(struct u64map *m, uint64_t key, void *value);
void *u64map_remove(struct u64map *m, uint64_t key);
size_t u64map_len(const struct u64map *m);
bool u64map_next(const struct u64map *m, size_t *it, uint64_t *ret_key, void **ret_value);
void u64map_done(struct u64map *m);

#endif
