/* Applying a transaction, the same way on every manager: actions in order, each checked against what is
 * there; the first that does not fit takes back those before it, and the store is as it was. Then the
 * watches hear of the whole. Nothing here depends on time, randomness or the order of a hash table. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/store/internal.h"

/* What was done so far: old carries the reference that the tables gave up. */
struct change {
	struct object_node *old, *cur;
};
struct changes {
	struct change *v;
	size_t n;
};

/* Finds what an update or delete is about, and checks the version that it was based on. */
static int find_base(struct store *s, obj_kind kind, const char *id, const Pb__Action *a,
    struct object_node **ret, struct err *e)
{
	struct object_node *o = tables_get(&s->t, kind, id);
	uint64_t version;

	if (o == NULL)
		return err_set(e, ERR_NOT_FOUND, "%s %s not found", object_kind_name(kind), id);
	version = o->pub.head->version;
	/* s->version + 1: written by this very transaction. */
	if (a->has_based_on && a->based_on != 0 && a->based_on != version && version != s->version + 1)
		return err_set(e, ERR_STALE, "update out of sequence");
	*ret = o;
	return 0;
}

static int apply_write(struct store *s, const Pb__Action *a, int64_t time, struct change *c, struct err *e)
{
	bool create = a->type == PB__ACTION_TYPE__E__CREATE;
	struct object_node *cur, *old = NULL;
	Pb__ObjectHead *head;
	int r;

	if (!a->has_object)
		return err_set(e, ERR_CORRUPT, "a transaction's action has no object");
	r = object_decode(s->strings, &s->scratch, a->kind, a->object.data, a->object.len, &cur, e);
	if (r < 0)
		return r;
	head = cur->pub.head;
	if (create) {
		if (tables_get(&s->t, a->kind, head->id) != NULL)
			r = err_set(
			    e, ERR_CONFLICT, "%s %s already exists", object_kind_name(a->kind), head->id);
	} else {
		r = find_base(s, a->kind, head->id, a, &old, e);
	}
	if (r == 0)
		r = tables_check(&s->t, old, cur, e);
	if (r < 0) {
		object_unref(&cur->pub);
		return r;
	}
	head->version = s->version + 1;
	head->created_at = create ? time : old->pub.head->created_at;
	head->updated_at = time;
	tables_swap(&s->t, old, cur);
	*c = (struct change){old, cur};
	return 0;
}

static int apply_delete(struct store *s, const Pb__Action *a, struct change *c, struct err *e)
{
	struct object_node *old;
	int r;

	if (str_empty(a->id))
		return err_set(e, ERR_CORRUPT, "a transaction's delete has no id");
	r = find_base(s, a->kind, a->id, a, &old, e);
	if (r < 0)
		return r;
	tables_swap(&s->t, old, NULL);
	*c = (struct change){old, NULL};
	return 0;
}

static int apply_action(struct store *s, const Pb__Action *a, int64_t time, struct change *c, struct err *e)
{
	if ((unsigned)a->kind >= OBJ_KINDS)
		return err_set(e, ERR_CORRUPT, "a transaction names the unknown kind %d", (int)a->kind);
	switch (a->type) {
	case PB__ACTION_TYPE__E__CREATE:
	case PB__ACTION_TYPE__E__UPDATE:
		return apply_write(s, a, time, c, e);
	case PB__ACTION_TYPE__E__DELETE:
		return apply_delete(s, a, c, e);
	default:
		return err_set(e, ERR_CORRUPT, "a transaction has the unknown action %d", (int)a->type);
	}
}

static void undo(struct store *s, struct changes *done)
{
	while (done->n > 0) {
		struct change *c = &done->v[--done->n];

		tables_swap(&s->t, c->cur, c->old);
		object_unref(c->cur != NULL ? &c->cur->pub : NULL);
	}
}

static void announce(struct store *s, const struct changes *done)
{
	struct store_event *ev;

	if (s->watches.first == NULL)
		return;
	ev = xcalloc(done->n + 1, sizeof(*ev));
	for (size_t i = 0; i < done->n; i++) {
		const struct change *c = &done->v[i];

		ev[i].kind = (c->cur != NULL ? c->cur : c->old)->pub.kind;
		ev[i].old = c->old != NULL ? &c->old->pub : NULL;
		ev[i].cur = c->cur != NULL ? &c->cur->pub : NULL;
	}
	watches_dispatch(&s->watches, ev, done->n);
	free(ev);
}

int store_apply(struct store *s, const uint8_t *p, size_t n, struct err *e)
{
	struct changes done = {NULL, 0};
	Pb__Txn *txn;
	int r = 0;

	ASSERT(!s->applying);
	txn = pb__txn__unpack(&s->scratch.alloc, n, p);
	if (txn == NULL) {
		arena_reset(&s->scratch);
		return err_set(e, ERR_CORRUPT, "a transaction does not decode");
	}
	s->applying = true;
	done.v = xcalloc(txn->n_actions + 1, sizeof(*done.v));
	for (size_t i = 0; i < txn->n_actions && r == 0; i++) {
		r = apply_action(s, txn->actions[i], txn->time, &done.v[done.n], e);
		if (r == 0)
			done.n++;
	}
	if (r < 0) {
		undo(s, &done);
	} else {
		s->version++;
		announce(s, &done);
		for (size_t i = 0; i < done.n; i++)
			object_unref(done.v[i].old != NULL ? &done.v[i].old->pub : NULL);
	}
	free(done.v);
	arena_reset(&s->scratch);
	s->applying = false;
	return r;
}
