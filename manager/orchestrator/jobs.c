/* Jobs: tasks that are to complete, not to stay.
 *
 * A replicated job keeps up to MaxConcurrent tasks going until TotalCompletions of them are complete, in
 * slots numbered from 0; a global job runs once on every eligible node, also on those that join later. A task
 * that fails is replaced by the restart policy in its slot; a slot that used up its attempts stays failed.
 * Each update of the service is a new iteration: tasks of earlier ones are removed. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/map.h"
#include "manager/scheduler/constraint.h"

/* A job is not updated slot by slot: a rollback that the user asked for is done when the spec is swapped. */
static void settle_rollback(struct view *v)
{
	const Pb__UpdateStatus *st = v->s->update_status;

	if (st != NULL && st->state == PB__UPDATE_STATE__E__ROLLBACK_STARTED)
		update_complete(v);
}

static bool is_current(const struct view *v, const Pb__Task *t)
{
	return t->job_iteration != NULL ? t->job_iteration->index == v->iteration : v->iteration == 0;
}

/* Removes what is left of earlier iterations, and looks at what the slot is without it. */
static void clear_old(struct view *v, struct slot *sl)
{
	for (size_t i = 0; i < sl->n; i++) {
		if (!is_current(v, sl->t[i]) && sl->t[i]->desired_state < TASK(REMOVE)) {
			task_desire_alone(v, sl->t[i], TASK(REMOVE));
			sl->acted = true;
		}
	}
	slot_classify(v, sl);
}

static bool completed(const struct view *v, const struct slot *sl)
{
	for (size_t i = 0; i < sl->n; i++) {
		if (is_current(v, sl->t[i]) && sl->t[i]->status->state == TASK(COMPLETE))
			return true;
	}
	return false;
}

void reconcile_replicated_job(struct view *v)
{
	const Pb__ReplicatedJob *j = v->s->spec->mode->replicated_job;
	uint64_t concurrent = j->has_max_concurrent ? j->max_concurrent : 1;
	uint64_t total = j->has_total_completions ? j->total_completions : concurrent;
	uint64_t done = 0, active = 0, spent = 0, number = 0;
	size_t i = 0;

	settle_rollback(v);
	for (size_t k = 0; k < v->n_slots && !view_full(v); k++) {
		struct slot *sl = &v->slots[k];

		clear_old(v, sl);
		if (completed(v, sl))
			done++;
		else if (sl->kind == SLOT_FINISHED)
			spent++;
		else if (sl->kind == SLOT_LIVE)
			active++;
		if (sl->kind == SLOT_LIVE && !sl->acted)
			slot_step(v, sl);
	}
	for (; active < concurrent && done + spent + active < total && !view_full(v); number++) {
		struct slot fresh = {.number = number};

		while (i < v->n_slots && v->slots[i].number < number)
			i++;
		if (i == v->n_slots || v->slots[i].number > number)
			slot_fill(v, &fresh);
		else if (v->slots[i].kind == SLOT_DEAD)
			slot_fill(v, &v->slots[i]);
		else
			continue;
		active++;
	}
}

void reconcile_global_job(struct view *v)
{
	struct constraints cs = CONSTRAINTS_INIT;
	const Pb__Placement *p = v->tmpl->spec->placement;
	bool parses = p == NULL || constraints_parse(p->constraints, p->n_constraints, &cs, NULL) == 0;
	struct strmap slots = STRMAP_INIT;
	const struct object *o;
	struct store_iter it;

	settle_rollback(v);
	for (size_t i = 0; i < v->n_slots && !view_full(v); i++) {
		struct slot *sl = &v->slots[i];

		strmap_put(&slots, sl->node_id, sl);
		clear_old(v, sl);
		if (sl->acted || sl->kind != SLOT_LIVE || completed(v, sl))
			continue;
		if (node_usable(view_node(v, sl->node_id))) {
			slot_step(v, sl);
			continue;
		}
		for (size_t j = 0; j < sl->n; j++) {
			if (task_wanted(v, sl->t[j]))
				task_desire_alone(v, sl->t[j], TASK(SHUTDOWN));
		}
	}
	store_iter_init(&it, v->c->store, OBJ(NODE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL && !view_full(v)) {
		struct slot *sl = strmap_get(&slots, o->node->id);
		struct slot fresh = {.node_id = o->node->id};

		if (!node_usable(o->node) || !parses || !constraints_match(&cs, o->node) ||
		    o->node->spec->availability == PB__NODE_AVAILABILITY__E__PAUSE)
			continue;
		if (sl == NULL)
			slot_fill(v, &fresh);
		else if (sl->kind == SLOT_DEAD)
			slot_fill(v, sl);
	}
	strmap_done(&slots);
	constraints_done(&cs);
}
