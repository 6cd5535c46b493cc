/* Batches: payloads that were proposed together and go into the log as one entry (a sealed Pb__Entry).
 * The plain entry is kept until it has been applied, so that the proposer's side need not open it again. */
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/wire.h"
#include "raft/internal.h"

#define ENTRY_FORMAT 1

static const char entry_aad[] = "shoal entry";

struct batch *batch_new(struct consensus *c)
{
	struct batch *b = NEW(struct batch);

	b->c = c;
	b->req.data = b;
	wire_put_uint(&b->plain, 1, ENTRY_FORMAT);
	return b;
}

void batch_free(struct batch *b)
{
	if (b == NULL)
		return;
	for (size_t i = 0; i < b->n; i++)
		free(b->v[i].err);
	free(b->v);
	/* Payloads hold secrets. */
	if (b->plain.data != NULL)
		mem_wipe(b->plain.data, b->plain.len);
	buf_done(&b->plain);
	free(b);
}

void batch_add(struct batch *b, const void *p, size_t n, consensus_cb cb, void *data)
{
	if (b->n == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 8;
		b->v = xreallocarray(b->v, b->cap, sizeof(*b->v));
	}
	b->v[b->n++] = (struct waiter){cb, data, 0, NULL};
	wire_put_bytes(&b->plain, 2, p, n);
	b->bytes += n;
}

int batch_seal(const struct batch *b, struct sealer *s, struct raft_buffer *ret_buf)
{
	size_t n = b->plain.len, head = seal_head_len(s, n), sealed = head + n + SEAL_TAG_LEN;
	/* libraft wants a multiple of eight. */
	size_t total = (4 + sealed + 7) & ~(size_t)7;
	struct seal_frame f;
	uint8_t *p = raft_malloc(total);

	if (p == NULL)
		return RAFT_NOMEM;
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(sealed >> (24 - 8 * i));
	seal(s, entry_aad, sizeof(entry_aad) - 1, (const uint8_t *)b->plain.data, n, p + 4 + head, &f);
	memcpy(p + 4, f.head, head);
	memcpy(p + 4 + head + n, f.tag, SEAL_TAG_LEN);
	memset(p + 4 + sealed, 0, total - 4 - sealed);
	ret_buf->base = p;
	ret_buf->len = total;
	return 0;
}

int entry_unseal(struct sealer *s, const struct raft_buffer *buf, struct buf *out, struct err *e)
{
	const uint8_t *p = buf->base;
	size_t n;

	if (buf->len < 4)
		return err_set(e, ERR_CORRUPT, "not a sealed envelope");
	n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	if (n > buf->len - 4)
		return err_set(e, ERR_CORRUPT, "cut short");
	return unseal(s, entry_aad, sizeof(entry_aad) - 1, p + 4, n, out, e);
}

int entry_each(const uint8_t *p, size_t n, void (*each)(void *data, size_t i, const uint8_t *p, size_t n),
    void *data, struct err *e)
{
	struct wire_reader r = {p, n}, look = r;
	struct wire_field f;
	uint64_t format = 0;
	size_t i = 0;
	int more;

	/* All of it is looked at before any of it is applied. */
	while ((more = wire_next(&look, &f)) > 0) {
		if (f.field == 1 && f.type == WIRE_VARINT)
			format = f.v;
	}
	if (more < 0)
		return err_set(e, ERR_CORRUPT, "not an entry");
	if (format != ENTRY_FORMAT)
		return err_set(e, ERR_CORRUPT,
		    "has format %llu, and this version reads %d: was it written by a newer one?",
		    (unsigned long long)format, ENTRY_FORMAT);
	while (wire_next(&r, &f) > 0) {
		if (f.field == 2 && f.type == WIRE_BYTES)
			each(data, i++, f.p, f.n);
	}
	return 0;
}

void batch_finish(struct batch *b, int status, const struct err *e)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct waiter *w = &b->v[i];

		w->cb(w->data, status != 0 ? status : w->status, status != 0 ? e : w->err);
	}
	batch_free(b);
}
