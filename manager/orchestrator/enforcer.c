/* The constraint enforcer: what a changed node means for the tasks on it.
 *
 * Tasks that the node may no longer run (constraints of their template, or reservations beyond what the node
 * has now) are rejected. Tasks of a node that is gone, or down for a day, are orphaned: no agent will ever
 * report about them. Both are ends, and the service's reconciler does what it does for any task that ended.
 */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "manager/scheduler/constraint.h"

static void end_task(
    struct reconcile_ctx *c, const Pb__Task *t, Pb__TaskState__E state, const char *message, const char *err)
{
	Pb__Task *k = msg_clone(t);

	k->status->state = state;
	k->status->timestamp = c->now;
	k->status->has_applied_at = true;
	k->status->applied_at = c->now;
	free(k->status->message);
	k->status->message = xstrdup(message);
	free(k->status->err);
	k->status->err = xstrdup(err);
	txn_update(plan_unit(c->out), OBJ(TASK), k);
}

static void orphan_all(struct reconcile_ctx *c, const char *node_id, const char *why)
{
	const struct object *o;
	struct store_iter it;

	store_iter_init(&it, c->store, OBJ(TASK), STORE_TASK_BY_NODE, node_id);
	while ((o = store_iter_next(&it)) != NULL) {
		if (!task_dead(o->task))
			end_task(c, o->task, TASK(ORPHANED), "task orphaned", why);
	}
}

static bool is_global(const struct reconcile_ctx *c, const Pb__Task *t)
{
	const struct object *o =
	    t->service_id != NULL ? store_get(c->store, OBJ(SERVICE), t->service_id) : NULL;
	const Pb__ServiceMode *m = o != NULL ? o->service->spec->mode : NULL;

	return m != NULL && (m->global != NULL || m->global_job != NULL);
}

/* Running ones first, then the older: those keep their place. */
static int by_claim(const void *pa, const void *pb)
{
	const Pb__Task *a = *(const Pb__Task *const *)pa, *b = *(const Pb__Task *const *)pb;
	bool ra = a->status->state == TASK(RUNNING), rb = b->status->state == TASK(RUNNING);

	if (ra != rb)
		return ra ? -1 : 1;
	return task_older(a, b) ? -1 : 1;
}

static const Pb__Resources *reservations(const Pb__Template *t)
{
	return t != NULL && t->spec->resources != NULL ? t->spec->resources->reservations : NULL;
}

/* Takes the reservation out of what is left; false when there is too little. */
static bool take(int64_t *left, int64_t want)
{
	if (want <= 0)
		return true;
	if (want > *left)
		return false;
	*left -= want;
	return true;
}

static void enforce_all(struct reconcile_ctx *c, const Pb__Node *n, const Pb__Task **v, size_t count)
{
	const Pb__Resources *have = n->description != NULL ? n->description->resources : NULL;
	int64_t cpu = have != NULL ? have->nano_cpus : 0, mem = have != NULL ? have->memory_bytes : 0;
	struct strmap fits = STRMAP_INIT; /* template id -> "y" or "n" */

	for (size_t i = 0; i < count; i++) {
		const Pb__Template *tmpl = store_template(c->store, v[i]->template_id);
		const Pb__Resources *want = reservations(tmpl);
		const char *fit = strmap_get(&fits, v[i]->template_id);

		if (fit == NULL) {
			fit = tmpl == NULL || placement_matches_node(tmpl->spec->placement, n) ? "y" : "n";
			strmap_put(&fits, v[i]->template_id, (void *)(uintptr_t)fit);
		}
		/* A global service leaves the node by itself. */
		if ((*fit == 'n' && !is_global(c, v[i])) ||
		    (want != NULL && (!take(&cpu, want->nano_cpus) || !take(&mem, want->memory_bytes))))
			end_task(c, v[i], TASK(REJECTED), "task rejected by constraint enforcer",
			    "assigned node no longer meets constraints");
	}
	strmap_done(&fits);
}

void enforce_node(struct reconcile_ctx *c, const char *node_id)
{
	const struct object *no = store_get(c->store, OBJ(NODE), node_id), *o;
	const Pb__Task **v;
	struct store_iter it;
	size_t n = 0;

	if (no == NULL) {
		orphan_all(c, node_id, "the node was removed");
		return;
	}
	if (no->node->status != NULL && no->node->status->state == PB__NODE_STATE__E__DOWN) {
		int64_t at = (no->node->has_down_since ? no->node->down_since : no->node->updated_at) +
			     NODE_ORPHAN_AFTER;

		if (at <= c->now)
			orphan_all(c, node_id, "the node was down for too long");
		else if (at < c->next && store_index_count(c->store, STORE_TASK_BY_NODE, node_id) > 0)
			c->next = at;
		return;
	}
	if (!node_usable(no->node) || no->node->description == NULL)
		return;
	v = xcalloc(store_index_count(c->store, STORE_TASK_BY_NODE, node_id) + 1, sizeof(Pb__Task *));
	store_iter_init(&it, c->store, OBJ(TASK), STORE_TASK_BY_NODE, node_id);
	while ((o = store_iter_next(&it)) != NULL) {
		if (o->task->status->state >= TASK(ASSIGNED) && !task_dead(o->task) &&
		    o->task->desired_state <= TASK(COMPLETE))
			v[n++] = o->task;
	}
	qsort(v, n, sizeof(Pb__Task *), by_claim);
	enforce_all(c, no->node, v, n);
	free(v);
}
