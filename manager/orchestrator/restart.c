/* The restart supervisor's policy: whether a task that is lost is followed by another one, and when that may
 * start.
 *
 * All it knows is in the tasks: how often the slot was restarted with this template (restarts), when (the
 * restarts' creation times, which the history keeps for at least MaxAttempts tasks), and until when a
 * replacement waits (start_after). Tasks lost with their node do not use up attempts: nothing was wrong with
 * them. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#define DEFAULT_DELAY (INT64_C(5) * NS_PER_SEC)

static const Pb__RestartPolicy *policy_of(const struct view *v, const Pb__Task *t)
{
	const Pb__Template *tmpl = store_template(v->c->store, t->template_id);

	return tmpl != NULL ? tmpl->spec->restart_policy : NULL;
}

uint64_t restart_max_attempts(const Pb__Template *t)
{
	return t != NULL && t->spec->restart_policy != NULL ? t->spec->restart_policy->max_attempts : 0;
}

/* Restarts of the slot with t's template that were made within the window before t ended. */
static uint64_t recent_restarts(const struct slot *sl, const Pb__Task *t, int64_t window)
{
	int64_t since = task_ended_at(t) - window;
	uint64_t n = 0;

	for (size_t i = 0; i < sl->n; i++) {
		const Pb__Task *o = sl->t[i];

		if (o->restarts > 0 && o->created_at >= since && !task_older(t, o) &&
		    strcmp(o->template_id, t->template_id) == 0)
			n++;
	}
	return n;
}

bool restart_wanted(const struct view *v, const struct slot *sl, const Pb__Task *t)
{
	const Pb__RestartPolicy *p = policy_of(v, t);
	Pb__RestartCondition__E condition = p != NULL ? p->condition : PB__RESTART_CONDITION__E__ANY;

	if (condition == PB__RESTART_CONDITION__E__NONE)
		return false;
	if (t->status->state == TASK(COMPLETE) &&
	    (condition == PB__RESTART_CONDITION__E__ON_FAILURE || task_is_job(v)))
		return false;
	if (p == NULL || p->max_attempts == 0 || !task_dead(t))
		return true;
	if (p->window > 0)
		return recent_restarts(sl, t, p->window) < p->max_attempts;
	return t->restarts < p->max_attempts;
}

bool restart_must_wait(struct view *v, const Pb__Task *t)
{
	if (t->desired_state != TASK(READY) || !task_dead(t) || !t->has_start_after ||
	    t->start_after <= v->c->now)
		return false;
	view_at(v, t->start_after);
	return true;
}

void restart_replace(struct view *v, const struct slot *sl, struct txn *u, const Pb__Task *t)
{
	const Pb__RestartPolicy *p = v->tmpl->spec->restart_policy;
	const Pb__Node *n = view_node(v, t->node_id);
	int64_t delay = p != NULL && p->has_delay ? p->delay : DEFAULT_DELAY;
	struct task_opts o = {.slot = sl, .desired = run_state(v)};

	/* While an update is under way, what comes next is its attempt at this slot, and does not pay for its
	 * predecessor. */
	o.by_update = !view_clean(v, t) && update_wants(v, sl);
	if (o.by_update || (n != NULL && n->spec->availability == PB__NODE_AVAILABILITY__E__DRAIN))
		delay = 0;
	if (delay > 0)
		o.start_after = v->c->now + delay;
	if (delay > 0 || slot_stopping(v, sl, t) || !task_gone(v, t))
		o.desired = TASK(READY);
	if (strcmp(t->template_id, v->s->template_id) == 0)
		o.restarts = t->restarts + (task_dead(t) ? 1 : 0);
	task_create(v, u, &o);
}
