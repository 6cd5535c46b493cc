/* One slot of a service: the tasks that follow one another as the same replica, or on the same node.
 *
 * On the happy path a slot holds one wanted task that matches the service's template, and nothing is planned.
 * A task that is lost (ended, or its node is down, drained or gone) is told to shut down and, in the same
 * transaction, followed by a replacement, so that no moment and no crash lies between. A replacement that has
 * to wait (restart delay, predecessor still stopping) is wanted READY and moved on by a later pass. While an
 * update is under way a slot can hold an old and a new task; the old one ends when the new one runs. */
#include "manager/orchestrator/internal.h"

#include "base/log.h"
#include "base/mem.h"

const Pb__Task *slot_newest(const struct slot *sl)
{
	return sl->n > 0 ? sl->t[sl->n - 1] : NULL;
}

static bool ended_by_itself(const Pb__Task *t)
{
	return t->status->state == TASK(COMPLETE) || t->status->state == TASK(FAILED) ||
	       t->status->state == TASK(REJECTED);
}

void slot_classify(struct view *v, struct slot *sl)
{
	const Pb__Task *last = slot_newest(sl);

	sl->kind = SLOT_DEAD;
	for (size_t i = 0; i < sl->n; i++) {
		if (task_wanted(v, sl->t[i]))
			sl->kind = SLOT_LIVE;
	}
	/* On a node a task is also shut down because the node is not to have one for a while. */
	if (sl->kind == SLOT_DEAD && last != NULL && last->desired_state == TASK(SHUTDOWN) &&
	    (sl->node_id == NULL || ended_by_itself(last)) && !restart_wanted(v, sl, last))
		sl->kind = SLOT_FINISHED;
}

bool slot_stopping(struct view *v, const struct slot *sl, const Pb__Task *except)
{
	bool stopping = false;

	for (size_t i = 0; i < sl->n; i++) {
		const Pb__Task *t = sl->t[i];
		int64_t until = (t->has_desired_at ? t->desired_at : t->updated_at) + STOP_TIMEOUT;

		if (t == except || task_wanted(v, t) || task_gone(v, t) || until <= v->c->now)
			continue;
		view_at(v, until);
		stopping = true;
	}
	return stopping;
}

void slot_fill(struct view *v, const struct slot *sl)
{
	struct task_opts o = {.slot = sl, .desired = run_state(v)};

	if (slot_stopping(v, sl, NULL))
		o.desired = TASK(READY);
	task_create(v, view_bulk(v), &o);
}

void slot_remove(struct view *v, struct slot *sl)
{
	for (size_t i = 0; i < sl->n; i++) {
		if (sl->t[i]->desired_state < TASK(REMOVE))
			task_desire_alone(v, sl->t[i], TASK(REMOVE));
	}
	sl->acted = true;
}

/* Labels the task as one of the current template, which asks for nothing that it is not. */
static void relabel(struct view *v, const Pb__Task *t)
{
	Pb__Task *k = msg_clone(t);

	free(k->template_id);
	k->template_id = xstrdup(v->s->template_id);
	k->has_restarts = false;
	k->restarts = 0;
	txn_update(plan_unit(v->c->out), OBJ(TASK), k);
}

/* The ports that the task waited for are there. */
static void release(struct view *v, const Pb__Task *t)
{
	Pb__Task *k = msg_clone(t);

	k->status->state = TASK(PENDING);
	k->status->timestamp = v->c->now;
	free(k->status->message);
	k->status->message = xstrdup("pending task scheduling");
	free(k->status->err);
	k->status->err = NULL;
	txn_update(plan_unit(v->c->out), OBJ(TASK), k);
}

struct census {
	size_t clean, dirty;  /* wanted and not lost */
	const Pb__Task *best; /* of the clean ones: running before not running, then the oldest */
};

static struct census census(struct view *v, const struct slot *sl)
{
	struct census c = {0, 0, NULL};

	for (size_t i = 0; i < sl->n; i++) {
		const Pb__Task *t = sl->t[i];

		if (!task_wanted(v, t) || task_lost(v, t))
			continue;
		if (!view_clean(v, t)) {
			c.dirty++;
			continue;
		}
		c.clean++;
		if (c.best == NULL ||
		    (t->status->state == TASK(RUNNING) && c.best->status->state != TASK(RUNNING)))
			c.best = t;
	}
	return c;
}

/* Ends lost tasks. At most one replacement, and none when another task is there to carry on. */
static void end_lost(struct view *v, struct slot *sl, const struct census *c)
{
	bool replaced = c->clean > 0;

	for (size_t i = sl->n; i-- > 0;) {
		const Pb__Task *t = sl->t[i];
		struct txn *u;

		if (!task_wanted(v, t) || !task_lost(v, t))
			continue;
		if (c->clean + c->dirty == 0 && view_clean(v, t) && restart_must_wait(v, t)) {
			replaced = true;
			continue;
		}
		u = plan_unit(v->c->out);
		task_desire(v, u, t, TASK(SHUTDOWN));
		if (!replaced && (c->dirty == 0 || view_clean(v, t)) && restart_wanted(v, sl, t)) {
			restart_replace(v, sl, u, t);
			replaced = true;
		}
		sl->acted = true;
	}
}

static void start_waiting(struct view *v, struct slot *sl, const Pb__Task *t)
{
	if (t->has_start_after && t->start_after > v->c->now) {
		view_at(v, t->start_after);
		return;
	}
	if (slot_stopping(v, sl, t))
		return;
	task_desire_alone(v, t, run_state(v));
	sl->acted = true;
}

void slot_step(struct view *v, struct slot *sl)
{
	struct census c = census(v, sl);

	end_lost(v, sl, &c);
	if (sl->acted)
		return;
	for (size_t i = 0; i < sl->n; i++) {
		const Pb__Task *t = sl->t[i];

		ASSERT(t != NULL);
		if (!task_wanted(v, t) || task_lost(v, t))
			continue;
		if (!task_is_job(v) && view_clean(v, t) && view_relation(v, t) != REL_SAME) {
			relabel(v, t);
			sl->acted = true;
		} else if (view_clean(v, t) ? t != c.best
					    : c.best != NULL && c.best->status->state == TASK(RUNNING)) {
			/* One too many, or the old one of an update whose new one runs. */
			task_desire_alone(v, t, TASK(SHUTDOWN));
			sl->acted = true;
		} else if (t->status->state == TASK(NEW) && !v->blocked) {
			release(v, t);
			sl->acted = true;
		} else if (t->desired_state < run_state(v)) {
			start_waiting(v, sl, t);
		}
	}
}
