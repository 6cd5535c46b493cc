/* Global services: one task on every node that meets the constraints and is neither down nor drained.
 *
 * A paused node keeps its task but gets no new or updated one. A node that is down, drained or no longer
 * meets the constraints loses its task without a replacement, and gets a new one when it is back. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/map.h"
#include "manager/scheduler/constraint.h"

static bool paused(const Pb__Node *n)
{
	return n->spec->availability == PB__NODE_AVAILABILITY__E__PAUSE;
}

/* Nothing of the service is to run on this node. */
static void clear_node(struct view *v, struct slot *sl)
{
	for (size_t i = 0; i < sl->n; i++) {
		if (task_wanted(v, sl->t[i])) {
			task_desire_alone(v, sl->t[i], TASK(SHUTDOWN));
			sl->acted = true;
		}
	}
}

void reconcile_global(struct view *v)
{
	struct constraints cs = CONSTRAINTS_INIT;
	const Pb__Placement *p = v->tmpl->spec->placement;
	bool parses = p == NULL || constraints_parse(p->constraints, p->n_constraints, &cs, NULL) == 0;
	struct strmap slots = STRMAP_INIT;
	const struct object *o;
	struct store_iter it;

	for (size_t i = 0; i < v->n_slots; i++) {
		struct slot *sl = &v->slots[i];
		const Pb__Node *n = view_node(v, sl->node_id);

		strmap_put(&slots, sl->node_id, sl);
		slot_classify(v, sl);
		sl->unwanted = !node_usable(n) || !parses || !constraints_match(&cs, n);
		sl->frozen = sl->unwanted || paused(n);
	}
	if (update_begin(v))
		goto out;
	for (size_t i = 0; i < v->n_slots && !view_full(v); i++) {
		struct slot *sl = &v->slots[i];

		if (sl->unwanted)
			clear_node(v, sl);
		else if (sl->kind == SLOT_LIVE)
			slot_step(v, sl);
	}
	update_run(v);
	store_iter_init(&it, v->c->store, OBJ(NODE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL && !view_full(v)) {
		struct slot *sl = strmap_get(&slots, o->node->id);
		struct slot fresh = {.node_id = o->node->id};

		if (!node_usable(o->node) || paused(o->node) || !parses || !constraints_match(&cs, o->node))
			continue;
		if (sl == NULL)
			slot_fill(v, &fresh);
		else if (sl->kind == SLOT_DEAD && !sl->acted)
			slot_fill(v, sl);
	}
out:
	strmap_done(&slots);
	constraints_done(&cs);
}
