/* Building a transaction: a list of actions, each owning its message, packed once as a Pb__Txn. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/store/internal.h"
#include "proto/wire.h"

struct action {
	Pb__ActionType__E type;
	obj_kind kind;
	Pb__ObjectHead *head; /* create, update */
	char *id;             /* delete */
	uint64_t based_on;
};
struct txn {
	struct action *v;
	size_t n, cap;
};

struct txn *txn_new(void)
{
	return NEW(struct txn);
}

void txn_free(struct txn *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n; i++) {
		if (t->v[i].head != NULL)
			protobuf_c_message_free_unpacked(&t->v[i].head->base, NULL);
		free(t->v[i].id);
	}
	free(t->v);
	free(t);
}

static struct action *add(struct txn *t, Pb__ActionType__E type, obj_kind kind)
{
	struct action *a;

	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 4;
		t->v = xreallocarray(t->v, t->cap, sizeof(*t->v));
	}
	a = &t->v[t->n++];
	*a = (struct action){.type = type, .kind = kind};
	return a;
}

static struct action *add_msg(struct txn *t, Pb__ActionType__E type, obj_kind kind, void *msg)
{
	struct action *a = add(t, type, kind);

	a->head = msg;
	ASSERT(a->head->base.descriptor == object_descriptor(kind));
	ASSERT(!str_empty(a->head->id));
	return a;
}

void txn_create(struct txn *t, obj_kind kind, void *msg)
{
	add_msg(t, PB__ACTION_TYPE__E__CREATE, kind, msg);
}

void txn_update(struct txn *t, obj_kind kind, void *msg)
{
	struct action *a = add_msg(t, PB__ACTION_TYPE__E__UPDATE, kind, msg);

	a->based_on = a->head->version;
}

void txn_delete(struct txn *t, obj_kind kind, const char *id, uint64_t based_on)
{
	struct action *a = add(t, PB__ACTION_TYPE__E__DELETE, kind);

	ASSERT(!str_empty(id));
	a->id = xstrdup(id);
	a->based_on = based_on;
}

size_t txn_count(const struct txn *t)
{
	return t->n;
}

void txn_pack(const struct txn *t, int64_t now_ns, struct buf *out)
{
	/* By hand, so that an object is packed straight into its place: Txn.time 1, Txn.actions 2;
	 * Action.type 1, kind 2, id 3, based_on 4, object 5. A test unpacks it with the generated code. */
	wire_put_fixed64(out, 1, (uint64_t)now_ns);
	for (size_t i = 0; i < t->n; i++) {
		const struct action *a = &t->v[i];
		CLEANUP_BUF struct buf head = BUF_INIT;
		size_t size = 0;

		wire_put_uint(&head, 1, (uint64_t)a->type);
		wire_put_uint(&head, 2, (uint64_t)a->kind);
		if (a->id != NULL)
			wire_put_bytes(&head, 3, a->id, strlen(a->id));
		if (a->based_on != 0)
			wire_put_uint(&head, 4, a->based_on);
		if (a->head != NULL) {
			size = protobuf_c_message_get_packed_size(&a->head->base);
			wire_put_bytes_head(&head, 5, size);
		}
		wire_put_bytes_head(out, 2, head.len + size);
		buf_append(out, head.data, head.len);
		if (a->head != NULL)
			wire_put_raw_message(out, &a->head->base, size);
	}
}
