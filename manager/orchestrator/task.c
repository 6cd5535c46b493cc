/* What a task is, to the reconcilers, and the ways in which they change one: a new one, or a further desired
 * state.
 *
 * A task's observed state belongs to the agent and is never written here, but for NEW -> PENDING and the
 * states of tasks whose node cannot speak for them (enforcer.c). */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

bool task_is_job(const struct view *v)
{
	return v->mode == VIEW_REPLICATED_JOB || v->mode == VIEW_GLOBAL_JOB;
}

Pb__TaskState__E run_state(const struct view *v)
{
	return task_is_job(v) ? TASK(COMPLETE) : TASK(RUNNING);
}

bool task_wanted(const struct view *v, const Pb__Task *t)
{
	return t->desired_state <= run_state(v);
}

bool task_dead(const Pb__Task *t)
{
	return t->status->state > TASK(RUNNING);
}

bool task_assigned(const Pb__Task *t)
{
	return !str_empty(t->node_id);
}

static bool node_down(const Pb__Node *n)
{
	return n == NULL || (n->status != NULL && n->status->state == PB__NODE_STATE__E__DOWN);
}

bool node_usable(const Pb__Node *n)
{
	return !node_down(n) && n->spec->availability != PB__NODE_AVAILABILITY__E__DRAIN;
}

bool task_gone(const struct view *v, const Pb__Task *t)
{
	/* A global task has its node from the start, but nothing runs before the scheduler has confirmed it.
	 */
	return task_dead(t) || t->status->state < TASK(ASSIGNED) || node_down(view_node(v, t->node_id));
}

bool task_lost(const struct view *v, const Pb__Task *t)
{
	if (task_is_job(v) && t->status->state == TASK(COMPLETE))
		return false;
	return task_dead(t) || (task_assigned(t) && !node_usable(view_node(v, t->node_id)));
}

int64_t task_ended_at(const Pb__Task *t)
{
	return t->status->has_applied_at ? t->status->applied_at : t->status->timestamp;
}

bool task_older(const Pb__Task *a, const Pb__Task *b)
{
	if (a->created_at != b->created_at)
		return a->created_at < b->created_at;
	return strcmp(a->id, b->id) < 0;
}

void task_create(struct view *v, struct txn *t, const struct task_opts *o)
{
	Pb__Task *k = xmalloc(sizeof(*k));
	char id[ID_LEN + 1];

	pb__task__init(k);
	id_new(v->c->rng, id);
	k->id = xstrdup(id);
	k->service_id = xstrdup(v->s->id);
	k->template_id = xstrdup(v->s->template_id);
	k->service_name = xstrdup(v->s->spec->name);
	if (o->slot->node_id != NULL)
		k->node_id = xstrdup(o->slot->node_id);
	if (o->slot->number != 0) {
		k->has_slot = true;
		k->slot = o->slot->number;
	}
	k->desired_state = o->desired;
	k->has_desired_at = true;
	k->desired_at = v->c->now;
	if (o->start_after != 0) {
		k->has_start_after = true;
		k->start_after = o->start_after;
	}
	if (o->restarts != 0) {
		k->has_restarts = true;
		k->restarts = o->restarts;
	}
	if (o->by_update)
		k->has_by_update = k->by_update = true;
	if (task_is_job(v)) {
		k->job_iteration = xmalloc(sizeof(*k->job_iteration));
		pb__version__init(k->job_iteration);
		k->job_iteration->has_index = true;
		k->job_iteration->index = v->iteration;
	}
	k->status = xmalloc(sizeof(*k->status));
	pb__task_status__init(k->status);
	k->status->timestamp = v->c->now;
	if (v->blocked) {
		k->status->state = TASK(NEW);
		k->status->message = xstrdup("created");
		k->status->err = xstrdup(v->why.text);
	} else {
		k->status->state = TASK(PENDING);
		k->status->message = xstrdup("pending task scheduling");
	}
	txn_create(t, OBJ(TASK), k);
}

void task_desire(struct view *v, struct txn *t, const Pb__Task *task, Pb__TaskState__E desired)
{
	Pb__Task *k = msg_clone(task);

	ASSERT(desired >= task->desired_state);
	k->desired_state = desired;
	k->has_desired_at = true;
	k->desired_at = v->c->now;
	txn_update(t, OBJ(TASK), k);
}

void task_desire_alone(struct view *v, const Pb__Task *task, Pb__TaskState__E desired)
{
	task_desire(v, plan_unit(v->c->out), task, desired);
}
