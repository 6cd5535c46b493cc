/* The seams for time and randomness. Decisions take these as arguments, so that a simulation can run
 * the same code with a virtual clock and a seed. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	void (*fill)(void *data, void *out, size_t n);
	void *data;
};
/* The system's random source (getrandom). */
struct rng rng_system(void);
/* A reproducible source (xoshiro-like); *state is 32 bytes owned by the caller. */
struct rng_seeded {
	uint64_t s[4];
};
struct rng rng_from_seed(struct rng_seeded *state, uint64_t seed);
/* The same source asked for a kilobyte at a time: for ids, many a second. *state is owned by the caller. */
struct rng_buffered {
	struct rng source;
	size_t left;
	uint8_t bytes[1024];
};
struct rng rng_buffer(struct rng_buffered *state, struct rng source);
uint64_t rng_u64(struct rng r);
uint64_t rng_below(struct rng r, uint64_t bound); /* uniform in [0, bound); bound > 0 */

struct clock {
	int64_t (*unix_ns)(void *data); /* wall clock, nanoseconds since 1970 */
	int64_t (*mono_ns)(void *data); /* never goes back */
	void *data;
};
struct clock clock_system(void);
int64_t clock_unix_ns(struct clock c);
int64_t clock_mono_ns(struct clock c);

#define NS_PER_SEC  INT64_C(1000000000)
#define NS_PER_MSEC INT64_C(1000000)

/* Swarm object ids: 25 characters of lower-case base 36 from 128 random bits (and NUL). */
#define ID_LEN 25
void id_new(struct rng r, char out[ID_LEN + 1]);
/* Container and exec ids: 64 hex characters (and NUL). */
#define ID_HEX_LEN 64
void id_new_hex(struct rng r, char out[ID_HEX_LEN + 1]);

#endif
