/* Time and randomness behind small tables: the system's, and a reproducible source for simulations.
 * The system's random source cannot fail once the kernel has booted; if it does, the process ends. */
#include "base/rng.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

static void fill_system(void *data, void *out, size_t n)
{
	(void)data;
	char *p = out;
	while (n) {
		ssize_t r = getrandom(p, n, 0);
		if (r < 0 && errno == EINTR)
			continue;
		ASSERT(r > 0);
		p += r;
		n -= (size_t)r;
	}
}

struct rng rng_system(void)
{
	return (struct rng){.fill = fill_system};
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

/* xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018). */
static uint64_t seeded_next(struct rng_seeded *g)
{
	uint64_t *s = g->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

static void fill_seeded(void *data, void *out, size_t n)
{
	char *p = out;
	while (n) {
		uint64_t v = seeded_next(data);
		size_t k = n < sizeof(v) ? n : sizeof(v);
		memcpy(p, &v, k);
		p += k;
		n -= k;
	}
}

struct rng rng_from_seed(struct rng_seeded *state, uint64_t seed)
{
	/* splitmix64 spreads a small seed over the state, which must not be all zero. */
	for (size_t i = 0; i < 4; i++) {
		seed += UINT64_C(0x9e3779b97f4a7c15);
		uint64_t z = seed;
		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		state->s[i] = z ^ (z >> 31);
	}
	return (struct rng){.fill = fill_seeded, .data = state};
}

static void buffered_fill(void *data, void *out, size_t n)
{
	struct rng_buffered *b = data;

	if (n > sizeof(b->bytes)) {
		b->source.fill(b->source.data, out, n);
		return;
	}
	if (n > b->left) {
		b->source.fill(b->source.data, b->bytes, sizeof(b->bytes));
		b->left = sizeof(b->bytes);
	}
	b->left -= n;
	memcpy(out, b->bytes + b->left, n);
	mem_wipe(b->bytes + b->left, n);
}

struct rng rng_buffer(struct rng_buffered *state, struct rng source)
{
	state->source = source;
	state->left = 0;
	return (struct rng){buffered_fill, state};
}

uint64_t rng_u64(struct rng r)
{
	uint64_t v;
	r.fill(r.data, &v, sizeof(v));
	return v;
}

uint64_t rng_below(struct rng r, uint64_t bound)
{
	ASSERT(bound > 0);
	/* Values below 2^64 mod bound would make the low results likelier. */
	uint64_t skip = (0 - bound) % bound;
	uint64_t v;
	do {
		v = rng_u64(r);
	} while (v < skip);
	return v % bound;
}

static int64_t read_clock(clockid_t id)
{
	struct timespec ts;
	int r = clock_gettime(id, &ts);
	ASSERT(r == 0);
	return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t system_unix_ns(void *data)
{
	(void)data;
	return read_clock(CLOCK_REALTIME);
}

static int64_t system_mono_ns(void *data)
{
	(void)data;
	return read_clock(CLOCK_MONOTONIC);
}

struct clock clock_system(void)
{
	return (struct clock){.unix_ns = system_unix_ns, .mono_ns = system_mono_ns};
}

int64_t clock_unix_ns(struct clock c)
{
	return c.unix_ns(c.data);
}

int64_t clock_mono_ns(struct clock c)
{
	return c.mono_ns(c.data);
}

void id_new(struct rng r, char out[ID_LEN + 1])
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	unsigned __int128 v = ((unsigned __int128)rng_u64(r) << 64) | rng_u64(r);
	/* 36^25 is a little more than 2^129, so every value fits. */
	for (size_t i = ID_LEN; i-- > 0;) {
		out[i] = digits[(unsigned)(v % 36)];
		v /= 36;
	}
	out[ID_LEN] = '\0';
}

void id_new_hex(struct rng r, char out[ID_HEX_LEN + 1])
{
	uint8_t raw[ID_HEX_LEN / 2];
	r.fill(r.data, raw, sizeof(raw));
	str_hex(raw, sizeof(raw), out);
}
