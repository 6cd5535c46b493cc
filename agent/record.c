/* Pb__Container in and out of the agent's database, keyed by id. */
#include "agent/record.h"

#include "base/log.h"
#include "base/mem.h"

int record_put(struct kv *kv, const Pb__Container *c, struct err *e)
{
	size_t n = pb__container__get_packed_size(c);
	uint8_t small[4096];
	uint8_t *p = n <= sizeof(small) ? small : xmalloc(n);
	pb__container__pack(c, p);
	int r = kv_put(kv, RECORD_TABLE, c->id, p, n, e);
	if (p != small)
		free(p);
	return r < 0 ? err_wrap(e, "storing container %.12s", c->id) : 0;
}

int record_del(struct kv *kv, const char *id, struct err *e)
{
	return kv_del(kv, RECORD_TABLE, id, e);
}

struct each_ctx {
	void (*fn)(void *data, Pb__Container *c);
	void *data;
};

static void each_entry(void *data, const char *key, const void *p, size_t n)
{
	struct each_ctx *ctx = data;
	Pb__Container *c = pb__container__unpack(NULL, n, p);
	if (!c) {
		log_error("a container record cannot be read and is ignored id=%s bytes=%zu", key, n);
		return;
	}
	ctx->fn(ctx->data, c);
}

int record_each(struct kv *kv, void (*fn)(void *data, Pb__Container *c), void *data, struct err *e)
{
	struct each_ctx ctx = {fn, data};
	return kv_each(kv, RECORD_TABLE, each_entry, &ctx, e);
}
