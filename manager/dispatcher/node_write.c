/* What a session's beginning and end do to the node's object: read it, change it, propose; again when another
 * writer was quicker. Nothing is proposed when nothing would change. */
#include "manager/dispatcher/internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"

#define TRIES_MAX 20

struct node_write {
	struct dispatcher *d;
	char *node_id;
	Pb__NodeState__E state;
	char *message, *addr;
	Pb__NodeDescription *description;
	unsigned tries;
};

/* Ends w and its hold on the dispatcher. */
static void done(struct node_write *w)
{
	struct dispatcher *d = w->d;
	free(w->node_id);
	free(w->message);
	free(w->addr);
	pb_free(w->description);
	free(w);
	dispatcher_release(d);
}

static Pb__Node *changed(const struct node_write *w, const Pb__Node *old)
{
	Pb__Node *n = pb_clone(old);
	if (!n->status)
		n->status = PB_NEW(Pb__NodeStatus, pb__node_status);
	n->status->has_state = true;
	n->status->state = w->state;
	pb_set_str(&n->status->message, w->message);
	if (w->addr)
		pb_set_str(&n->status->addr, w->addr);
	bool down = w->state == PB__NODE_STATE__E__DOWN;
	if (down && !n->has_down_since)
		n->down_since = clock_unix_ns(w->d->o.clock);
	n->has_down_since = down;
	if (w->description) {
		pb_free(n->description);
		n->description = pb_clone(w->description);
	}
	return n;
}

static void try_write(struct node_write *w);

static void on_committed(void *data, int status, const struct err *e)
{
	struct node_write *w = data;
	if (status == ERR_STALE && ++w->tries < TRIES_MAX && w->d->running) {
		try_write(w);
		return;
	}
	if (status != 0 && status != ERR_UNAVAILABLE && status != ERR_NOT_FOUND)
		log_warn("the state of node %s could not be stored: %s", w->node_id, e->text);
	done(w);
}

static void try_write(struct node_write *w)
{
	const struct object *o = store_get(w->d->o.store, OBJ(NODE), w->node_id);
	Pb__Node *n = o ? changed(w, o->node) : NULL;
	if (!n || msg_equal(n, o->node)) {
		pb_free(n);
		done(w);
		return;
	}
	struct err e = ERR_INIT;
	struct txn *t = txn_new();
	txn_update(t, OBJ(NODE), n);
	int r = w->d->o.propose(w->d->o.data, t, on_committed, w, &e);
	txn_free(t);
	if (r)
		on_committed(w, r == ERR_STALE ? ERR_INTERNAL : r, &e);
}

void node_write(struct dispatcher *d, const char *node_id, Pb__NodeState__E state, const char *message,
    const char *addr, const Pb__NodeDescription *description)
{
	struct node_write *w = NEW(struct node_write);
	w->d = d;
	w->node_id = xstrdup(node_id);
	w->state = state;
	w->message = xstrdup(message);
	w->addr = xstrdup(addr);
	w->description = pb_clone(description);
	d->in_flight++;
	try_write(w);
}
