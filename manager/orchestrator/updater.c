/* Rolling updates and rollbacks, derived from the store: Service.update_status says which phase it is and
 * since when, the tasks that the phase made (by_update, of the current template, no older than the phase) say
 * how far it came.
 *
 * Each of `parallelism` workers takes an outdated slot, replaces its task (stop-first: the new one waits,
 * wanted READY, until the old one has stopped; start-first: the old one ends when the new one runs), and is
 * busy until the new task has run or ended and the delay has passed. A new task that ends before it ran, or
 * within the monitoring time after, is a failure. Too many of them pause the phase or roll the service back
 * to its previous spec. When every slot had its turn and the last one was watched long enough, the phase is
 * completed.
 *
 * A slot is tried once in a phase: what fails after that is the restart policy's business. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/mem.h"

#define DEFAULT_MONITOR (INT64_C(5) * NS_PER_SEC)

struct policy {
	uint64_t parallelism; /* 0: all at once */
	int64_t delay, monitor;
	Pb__UpdateFailureAction__E action;
	float max_failure_ratio;
	bool start_first;
};

static Pb__UpdateState__E state_of(const struct view *v)
{
	return v->s->update_status != NULL ? v->s->update_status->state : PB__UPDATE_STATE__E__UNKNOWN;
}

static bool rolling_back(Pb__UpdateState__E st)
{
	return st == PB__UPDATE_STATE__E__ROLLBACK_STARTED || st == PB__UPDATE_STATE__E__ROLLBACK_PAUSED ||
	       st == PB__UPDATE_STATE__E__ROLLBACK_COMPLETED;
}

static bool under_way(Pb__UpdateState__E st)
{
	return st == PB__UPDATE_STATE__E__UPDATING || st == PB__UPDATE_STATE__E__ROLLBACK_STARTED;
}

static struct policy policy_of(const struct view *v)
{
	const Pb__ServiceSpec *spec = v->s->spec;
	const Pb__UpdateConfig *c = rolling_back(state_of(v)) ? spec->rollback_config : spec->update_config;
	struct policy p = {.parallelism = 1, .monitor = DEFAULT_MONITOR};

	if (c == NULL)
		return p;
	p.parallelism = c->parallelism;
	p.delay = c->delay;
	if (c->monitor > 0)
		p.monitor = c->monitor;
	p.action = c->failure_action;
	p.max_failure_ratio = c->max_failure_ratio;
	p.start_first = c->order == PB__UPDATE_ORDER__E__START_FIRST;
	return p;
}

bool update_made(struct view *v, const Pb__Task *t)
{
	const Pb__UpdateStatus *st = v->s->update_status;

	return t->by_update && st != NULL && st->has_phase_at && t->created_at >= st->phase_at &&
	       view_relation(v, t) == REL_SAME;
}

static bool attempted(struct view *v, const struct slot *sl)
{
	for (size_t i = 0; i < sl->n; i++) {
		if (update_made(v, sl->t[i]))
			return true;
	}
	return false;
}

bool update_wants(struct view *v, const struct slot *sl)
{
	return under_way(state_of(v)) && !attempted(v, sl);
}

/* What fills the slot is not what the service asks for now. */
static bool outdated(struct view *v, const struct slot *sl)
{
	if (sl->kind == SLOT_DEAD || sl->unwanted || sl->frozen)
		return false;
	if (sl->kind == SLOT_FINISHED)
		return !view_clean(v, slot_newest(sl));
	for (size_t i = 0; i < sl->n; i++) {
		if (task_wanted(v, sl->t[i]) && view_clean(v, sl->t[i]))
			return false;
	}
	return true;
}

/* When the worker that made it was done with it; INT64_MAX: it is not. */
static int64_t finished_at(const struct view *v, const Pb__Task *t)
{
	if (t->has_running_at)
		return t->running_at;
	if (task_dead(t) || t->status->state == TASK(RUNNING))
		return task_ended_at(t);
	if (!task_wanted(v, t))
		return t->has_desired_at ? t->desired_at : t->updated_at;
	return INT64_MAX;
}

static bool failed(const Pb__Task *t, int64_t monitor)
{
	if (t->desired_state == TASK(REMOVE))
		return false;
	if (t->status->state != TASK(COMPLETE) && t->status->state != TASK(FAILED) &&
	    t->status->state != TASK(REJECTED))
		return false;
	return !t->has_running_at || task_ended_at(t) - t->running_at <= monitor;
}

struct progress {
	size_t attempted;  /* slots that had their turn */
	size_t pending;    /* slots that will */
	size_t unfinished; /* new tasks that neither ran nor ended yet */
	size_t busy;       /* workers: those, and those that wait out the delay */
	size_t failures;
	const Pb__Task *failure; /* the last one */
	int64_t last;            /* when the last worker was done; 0: none */
	int64_t free_at;         /* when the next worker that waits out the delay is free */
};

static struct progress progress_of(struct view *v, const struct policy *p)
{
	struct progress g = {.free_at = INT64_MAX};

	for (size_t i = 0; i < v->n_slots; i++) {
		const struct slot *sl = &v->slots[i];
		bool tried = false;

		for (size_t j = 0; j < sl->n; j++) {
			const Pb__Task *t = sl->t[j];
			int64_t end;

			if (!update_made(v, t))
				continue;
			tried = true;
			if (failed(t, p->monitor)) {
				g.failures++;
				g.failure = t;
			}
			end = finished_at(v, t);
			if (end == INT64_MAX) {
				g.unfinished++;
				g.busy++;
				continue;
			}
			if (end > g.last)
				g.last = end;
			if (p->delay > 0 && end + p->delay > v->c->now) {
				g.busy++;
				if (end + p->delay < g.free_at)
					g.free_at = end + p->delay;
			}
		}
		g.attempted += tried;
		g.pending += !tried && outdated(v, sl);
	}
	return g;
}

static Pb__UpdateStatus *edit_status(struct view *v, Pb__UpdateState__E state, char *message)
{
	Pb__Service *s = view_edit(v);

	if (s->update_status == NULL) {
		s->update_status = xmalloc(sizeof(*s->update_status));
		pb__update_status__init(s->update_status);
	}
	s->update_status->has_state = true;
	s->update_status->state = state;
	if (message != NULL) {
		if (s->update_status->message != protobuf_c_empty_string)
			free(s->update_status->message);
		s->update_status->message = message;
	}
	return s->update_status;
}

static void begin_phase(struct view *v, Pb__UpdateState__E state, char *message)
{
	Pb__UpdateStatus *st = edit_status(v, state, message);

	if (!st->has_started_at) {
		st->has_started_at = true;
		st->started_at = v->c->now;
	}
	st->has_phase_at = true;
	st->phase_at = v->c->now;
}

static void roll_back(struct view *v, const char *task_id)
{
	Pb__Service *s = view_edit(v);

	begin_phase(v, PB__UPDATE_STATE__E__ROLLBACK_STARTED,
	    xasprintf("update rolled back due to failure or early termination of task %s", task_id));
	protobuf_c_message_free_unpacked(&s->spec->base, NULL);
	s->spec = TAKE_PTR(s->previous_spec);
	free(s->template_id);
	s->template_id = TAKE_PTR(s->previous_template_id);
}

static void fail(struct view *v, const struct policy *p, const char *task_id)
{
	bool back = rolling_back(state_of(v));
	bool want_back = p->action == PB__UPDATE_FAILURE_ACTION__E__ROLLBACK;

	if (!back && want_back && v->s->previous_spec != NULL && v->s->previous_template_id != NULL) {
		roll_back(v, task_id);
		return;
	}
	edit_status(v, back ? PB__UPDATE_STATE__E__ROLLBACK_PAUSED : PB__UPDATE_STATE__E__PAUSED,
	    xasprintf("%s paused due to failure or early termination of task %s",
		back && want_back ? "rollback" : "update", task_id));
}

bool update_begin(struct view *v)
{
	Pb__UpdateState__E st = state_of(v);
	struct policy p = policy_of(v);
	struct progress g;

	if (st == PB__UPDATE_STATE__E__PAUSED || st == PB__UPDATE_STATE__E__ROLLBACK_PAUSED)
		return false;
	if (under_way(st) && !v->s->update_status->has_phase_at) {
		begin_phase(v, st, NULL);
		return true;
	}
	g = progress_of(v, &p);
	if (st == PB__UPDATE_STATE__E__UNKNOWN && g.pending > 0) {
		begin_phase(v, PB__UPDATE_STATE__E__UPDATING, xstrdup("update in progress"));
		return true;
	}
	if (under_way(st) && p.action != PB__UPDATE_FAILURE_ACTION__E__CONTINUE && g.failures > 0 &&
	    (float)g.failures > p.max_failure_ratio * (float)(g.attempted + g.pending)) {
		fail(v, &p, g.failure->id);
		return true;
	}
	return false;
}

static bool runs(const struct view *v, const struct slot *sl)
{
	for (size_t i = 0; i < sl->n; i++) {
		if (task_wanted(v, sl->t[i]) && sl->t[i]->status->state == TASK(RUNNING))
			return true;
	}
	return false;
}

static void replace(struct view *v, struct slot *sl, const struct policy *p)
{
	struct task_opts o = {.slot = sl, .desired = run_state(v), .by_update = true};
	struct txn *u = plan_unit(v->c->out);

	if (!p->start_first || !runs(v, sl)) {
		for (size_t i = 0; i < sl->n; i++) {
			if (task_wanted(v, sl->t[i]) && !task_gone(v, sl->t[i]))
				o.desired = TASK(READY);
			if (task_wanted(v, sl->t[i]))
				task_desire(v, u, sl->t[i], TASK(SHUTDOWN));
		}
		if (slot_stopping(v, sl, NULL))
			o.desired = TASK(READY);
	}
	task_create(v, u, &o);
	sl->acted = true;
}

void update_complete(struct view *v)
{
	bool back = rolling_back(state_of(v));
	Pb__UpdateStatus *st =
	    edit_status(v, back ? PB__UPDATE_STATE__E__ROLLBACK_COMPLETED : PB__UPDATE_STATE__E__COMPLETED,
		xstrdup(back ? "rollback completed" : "update completed"));

	st->has_completed_at = true;
	st->completed_at = v->c->now;
}

void update_run(struct view *v)
{
	Pb__UpdateState__E st = state_of(v);
	struct policy p = policy_of(v);
	struct progress g;
	int64_t watch_until;

	if (st == PB__UPDATE_STATE__E__UNKNOWN || st == PB__UPDATE_STATE__E__PAUSED ||
	    st == PB__UPDATE_STATE__E__ROLLBACK_PAUSED)
		return;
	g = progress_of(v, &p);
	for (size_t i = 0; i < v->n_slots && g.pending > 0 && !view_full(v); i++) {
		struct slot *sl = &v->slots[i];

		if (p.parallelism > 0 && g.busy >= p.parallelism) {
			view_at(v, g.free_at);
			break;
		}
		if (sl->acted || attempted(v, sl) || !outdated(v, sl))
			continue;
		replace(v, sl, &p);
		g.busy++;
	}
	if (!under_way(st) || g.pending > 0 || g.unfinished > 0)
		return;
	watch_until = g.last + (p.delay >= p.monitor ? p.delay + NS_PER_SEC : p.monitor);
	if (g.last == 0 || watch_until <= v->c->now)
		update_complete(v);
	else
		view_at(v, watch_until);
}
