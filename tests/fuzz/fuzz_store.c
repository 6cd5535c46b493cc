/* Bytes from a log or a snapshot: transactions, snapshots, entries and envelopes. None may crash; a state
 * that was accepted must come back the same from its own snapshot. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "manager/store/store.h"
#include "raft/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void ignore(void *data, size_t i, const uint8_t *p, size_t n)
{
	(void)i;
	(void)p;
	*(size_t *)data += n;
}

static void check_round_trip(struct store *s)
{
	CLEANUP_BUF struct buf once = BUF_INIT;
	struct store *t = store_new();

	store_snapshot(s, &once);
	ASSERT(store_restore(t, (const uint8_t *)once.data, once.len, NULL) == 0);
	ASSERT(store_version(t) == store_version(s));
	for (obj_kind k = 0; k < OBJ_KINDS; k++)
		ASSERT(store_count(t, k) == store_count(s, k));
	store_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const uint8_t key[SEAL_KEY_LEN];
	CLEANUP_BUF struct buf out = BUF_INIT;
	struct store *s;
	struct sealer *sealer;
	struct raft_buffer buf;
	size_t total = 0;

	if (n < 1)
		return 0;
	switch (p[0] % 4) {
	case 0: /* several transactions, each with a length in two bytes */
		s = store_new();
		for (size_t i = 1; i + 2 <= n;) {
			size_t len = (size_t)p[i] << 8 | p[i + 1];

			i += 2;
			if (len > n - i)
				len = n - i;
			store_apply(s, p + i, len, NULL);
			i += len;
		}
		check_round_trip(s);
		store_free(s);
		break;
	case 1:
		s = store_new();
		if (store_restore(s, p + 1, n - 1, NULL) == 0)
			check_round_trip(s);
		store_free(s);
		break;
	case 2:
		entry_each(p + 1, n - 1, ignore, &total, NULL);
		break;
	default:
		sealer = sealer_new(key);
		buf = (struct raft_buffer){(void *)(uintptr_t)(p + 1), n - 1};
		entry_unseal(sealer, &buf, &out, NULL);
		sealer_free(sealer);
	}
	return 0;
}
