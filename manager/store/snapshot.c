/* The whole state as bytes: records, each a big-endian 32-bit length and a message of proto/log.proto: one
 * SnapshotHeader, then as many SnapshotObjects as it says, and nothing after.
 *
 * Taking one is in two steps, so that only the first needs the loop: freeze takes a reference on every
 * object, pack encodes them. Objects and interned strings never change, so packing may run on a thread beside
 * transactions.
 *
 * Restoring builds new tables and only then puts them in place; whatever is wrong with the bytes
 * (ERR_CORRUPT), the store stays what it was. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "manager/store/internal.h"
#include "proto/wire.h"

#define SNAPSHOT_FORMAT 1

struct store_frozen {
	uint64_t version;
	size_t n;
	struct object *v[];
};

struct store_frozen *store_freeze(const struct store *s)
{
	struct store_frozen *f;
	size_t n = 0;

	for (unsigned k = 0; k < OBJ_KINDS; k++)
		n += s->t.by_id[k].n;
	f = xmalloc(sizeof(*f) + n * sizeof(f->v[0]));
	f->version = s->version;
	f->n = 0;
	for (unsigned k = 0; k < OBJ_KINDS; k++) {
		const struct table *t = &s->t.by_id[k];

		for (size_t i = 0; i < t->cap; i++) {
			for (struct object_node *o = t->slots[i]; o != NULL; o = o->next)
				f->v[f->n++] = object_ref(&o->pub);
		}
	}
	ASSERT(f->n == n);
	return f;
}

void store_frozen_free(struct store_frozen *f)
{
	if (f == NULL)
		return;
	for (size_t i = 0; i < f->n; i++)
		object_unref(f->v[i]);
	free(f);
}

void store_frozen_pack(const struct store_frozen *f, struct buf *out)
{
	Pb__SnapshotHeader h = PB__SNAPSHOT_HEADER__INIT;

	h.format = SNAPSHOT_FORMAT;
	h.store_version = f->version;
	h.objects = f->n;
	buf_put_u32be(out, (uint32_t)pb__snapshot_header__get_packed_size(&h));
	wire_put_raw_message(out, &h.base, 0);
	for (size_t i = 0; i < f->n; i++) {
		const struct object *o = f->v[i];
		size_t n = protobuf_c_message_get_packed_size(o->msg);

		/* SnapshotObject: kind 1, object 2; one byte each for the tags and the kind. */
		buf_put_u32be(out, (uint32_t)(3 + wire_varint_size(n) + n));
		wire_put_uint(out, 1, (uint64_t)o->kind);
		wire_put_message(out, 2, o->msg, n);
	}
}

void store_snapshot(const struct store *s, struct buf *out)
{
	struct store_frozen *f = store_freeze(s);

	store_frozen_pack(f, out);
	store_frozen_free(f);
}

/* --- restoring ----------------------------------------------------------------------------------------- */

struct reader {
	const uint8_t *p;
	size_t n;
};

static int next_record(struct reader *r, const uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	size_t n;

	if (r->n < 4)
		return err_set(e, ERR_CORRUPT, "the snapshot ends within a record");
	n = (size_t)r->p[0] << 24 | (size_t)r->p[1] << 16 | (size_t)r->p[2] << 8 | r->p[3];
	if (n > r->n - 4)
		return err_set(e, ERR_CORRUPT, "the snapshot ends within a record");
	*ret_p = r->p + 4;
	*ret_n = n;
	r->p += 4 + n;
	r->n -= 4 + n;
	return 0;
}

static int read_header(struct store *s, struct reader *r, Pb__SnapshotHeader *ret_h, struct err *e)
{
	Pb__SnapshotHeader *h;
	const uint8_t *p;
	size_t n;
	int rc = next_record(r, &p, &n, e);

	if (rc < 0)
		return rc;
	h = pb__snapshot_header__unpack(&s->scratch.alloc, n, p);
	if (h == NULL)
		return err_set(e, ERR_CORRUPT, "the snapshot's header does not decode");
	if (h->format != SNAPSHOT_FORMAT)
		return err_set(e, ERR_CORRUPT,
		    "the snapshot has format %u, and this version reads %d: was it written by a newer one?",
		    h->format, SNAPSHOT_FORMAT);
	*ret_h = *h; /* numbers only */
	return 0;
}

static int read_object(struct store *s, struct tables *to, struct reader *r, struct err *e)
{
	Pb__SnapshotObject *rec;
	struct object_node *o;
	const uint8_t *p;
	size_t n;
	int rc = next_record(r, &p, &n, e);

	if (rc < 0)
		return rc;
	rec = pb__snapshot_object__unpack(&s->scratch.alloc, n, p);
	if (rec == NULL)
		return err_set(e, ERR_CORRUPT, "an object's record does not decode");
	if ((unsigned)rec->kind >= OBJ_KINDS)
		return err_set(
		    e, ERR_CORRUPT, "the snapshot has an object of the unknown kind %d", (int)rec->kind);
	rc = object_decode(s->strings, &s->scratch, rec->kind, rec->object.data, rec->object.len, &o, e);
	if (rc < 0)
		return rc;
	if (tables_get(to, rec->kind, o->pub.head->id) != NULL)
		rc = err_set(e, ERR_CORRUPT, "the snapshot has %s %s twice", object_kind_name(rec->kind),
		    o->pub.head->id);
	else if (tables_check(to, NULL, o, e) < 0)
		rc = e != NULL ? (e->code = ERR_CORRUPT) : ERR_CORRUPT;
	if (rc < 0) {
		object_unref(&o->pub);
		return rc;
	}
	tables_swap(to, NULL, o);
	return 0;
}

/* Tells the watches that all of `t` went, or came. */
static void announce_all(struct store *s, const struct tables *t, bool came)
{
	if (s->watches.first == NULL)
		return;
	for (unsigned k = 0; k < OBJ_KINDS; k++) {
		for (size_t i = 0; i < t->by_id[k].cap; i++) {
			for (struct object_node *o = t->by_id[k].slots[i]; o != NULL; o = o->next) {
				struct store_event ev = {
				    (obj_kind)k, came ? NULL : &o->pub, came ? &o->pub : NULL};

				watches_dispatch(&s->watches, &ev, 1);
			}
		}
	}
}

int store_restore(struct store *s, const uint8_t *p, size_t n, struct err *e)
{
	struct reader r = {p, n};
	struct tables fresh, old;
	Pb__SnapshotHeader h = PB__SNAPSHOT_HEADER__INIT;
	int rc;

	ASSERT(!s->applying);
	memset(&fresh, 0, sizeof(fresh));
	rc = read_header(s, &r, &h, e);
	for (uint64_t i = 0; rc == 0 && i < h.objects; i++) {
		rc = read_object(s, &fresh, &r, e);
		arena_reset(&s->scratch);
	}
	if (rc == 0 && r.n > 0)
		rc = err_set(e, ERR_CORRUPT, "the snapshot has %zu bytes after its last object", r.n);
	if (rc < 0) {
		tables_done(&fresh);
		arena_reset(&s->scratch);
		return rc;
	}
	s->applying = true;
	s->version = h.store_version;
	old = s->t;
	s->t = fresh;
	announce_all(s, &old, false);
	announce_all(s, &s->t, true);
	tables_done(&old);
	arena_reset(&s->scratch);
	s->applying = false;
	return 0;
}
