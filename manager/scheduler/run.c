/* One run of the scheduler: group by group, as long as there is something to decide.
 *
 * A task that is placed, and one that is told a new reason why it cannot be, leaves its group's list until
 * the event that commits the decision (or scheduler_retry) brings it back. A group with tasks left over is
 * put aside until a node changes or something is given back. Reasons that only change in their numbers are
 * rewritten at most once a second. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "manager/scheduler/internal.h"

#define EXPLAIN_EVERY NS_PER_SEC

struct run {
	struct scheduler *s;
	int64_t now;
	size_t left; /* decisions */
	scheduler_cb cb;
	void *data;
	int64_t *next;
};

Pb__Task *sched_decision_task(const struct sched_decision *d, int64_t now)
{
	Pb__Task *t = msg_clone(d->task);

	free(t->status->err);
	t->status->err = NULL;
	if (d->node_id == NULL) {
		t->status->err = xstrdup(d->err);
		return t;
	}
	free(t->node_id);
	t->node_id = xstrdup(d->node_id);
	free(t->status->message);
	t->status->message = xstrdup(d->message);
	t->status->state = TASK(ASSIGNED);
	t->status->timestamp = now;
	ASSERT(t->n_generic_resources == 0 && t->n_host_ports == 0);
	if (d->n_generic > 0) {
		t->generic_resources = xcalloc(d->n_generic, sizeof(*t->generic_resources));
		for (; t->n_generic_resources < d->n_generic; t->n_generic_resources++)
			t->generic_resources[t->n_generic_resources] =
			    msg_clone(d->generic[t->n_generic_resources]);
	}
	if (d->n_host_ports > 0) {
		t->host_ports = xcalloc(d->n_host_ports, sizeof(*t->host_ports));
		for (; t->n_host_ports < d->n_host_ports; t->n_host_ports++)
			t->host_ports[t->n_host_ports] = msg_clone(d->host_ports[t->n_host_ports]);
	}
	return t;
}

static void decide(struct run *r, struct stask *st, const struct sched_decision *d)
{
	st->in_flight = true;
	r->left--;
	r->cb(r->data, d);
}

static void assign(struct run *r, struct stask *st, struct node_info *n)
{
	struct group *g = st->group;
	bool preassigned = !str_empty(st->obj->task->node_id);
	struct sched_decision d = {
	    .task = st->obj->task,
	    .node_id = n->id,
	    .message = preassigned ? "scheduler confirmed task can run on preassigned node"
				   : "scheduler assigned task to node",
	    .host_ports = g->host_ports,
	    .n_host_ports = g->n_host_ports,
	};

	stask_wait_end(r->s, st);
	stask_reserve(r->s, st, n);
	generic_take(g, n, &st->generic, &st->n_generic);
	d.generic = st->generic;
	d.n_generic = st->n_generic;
	decide(r, st, &d);
}

/* Tells a task why it waits, unless it knows. False when that has to wait itself. */
static bool explain(struct run *r, struct stask *st, const char *why)
{
	struct sched_decision d = {.task = st->obj->task, .err = why};
	struct group *g = st->group;

	if (str_eq(st->obj->task->status->err, why))
		return true;
	if (!str_empty(st->obj->task->status->err) && g->explained_at != r->now &&
	    g->explained_at + EXPLAIN_EVERY > r->now)
		return false;
	stask_wait_end(r->s, st);
	g->explained_at = r->now;
	decide(r, st, &d);
	return true;
}

/* Places as many as fit; true when it got through the list. */
static bool place_all(struct run *r, struct group *g)
{
	struct placement *p = NULL;
	struct stask *st, *next;

	for (st = g->first; st != NULL && r->left > 0; st = next) {
		const Pb__Task *t = st->obj->task;
		struct node_info *n;

		next = st->next;
		if (!str_empty(t->node_id)) {
			n = strmap_get(&r->s->nodes, t->node_id);
			if (n != NULL && filter_node(g, n) == FILTER_NONE)
				assign(r, st, n);
			continue;
		}
		if (p == NULL)
			p = placement_new(r->s, g, r->now);
		n = placement_best(p);
		if (n == NULL)
			continue;
		assign(r, st, n);
		placement_took(p);
	}
	if (p != NULL)
		placement_free(p);
	return st == NULL;
}

/* True when all that are left over know why. */
static bool explain_all(struct run *r, struct group *g)
{
	size_t refused[FILTERS];
	char why[512], why_here[512];
	struct stask *st, *next;
	bool done = true;

	placement_refusals(r->s, g, refused);
	filter_explain(refused, why, sizeof(why));
	for (st = g->first; st != NULL && r->left > 0; st = next) {
		const Pb__Task *t = st->obj->task;

		next = st->next;
		if (!str_empty(t->node_id)) {
			const struct node_info *n = strmap_get(&r->s->nodes, t->node_id);
			enum filter f = n != NULL ? filter_node(g, n) : FILTER_READY;

			memset(refused, 0, sizeof(refused));
			if (f != FILTER_NONE)
				refused[f] = 1;
			filter_explain(refused, why_here, sizeof(why_here));
		}
		done = explain(r, st, str_empty(t->node_id) ? why : why_here) && done;
	}
	return done && st == NULL;
}

static void run_group(struct run *r, struct group *g)
{
	const struct scheduler *s = r->s;

	if (g->tmpl == NULL)
		return;
	if (g->stuck && g->stuck_nodes == s->nodes_gen && g->stuck_freed == s->freed_gen)
		return;
	g->stuck = false;
	if (!place_all(r, g) || g->first == NULL)
		return;
	if (explain_all(r, g)) {
		g->stuck = true;
		g->stuck_nodes = s->nodes_gen;
		g->stuck_freed = s->freed_gen;
	} else if (r->left > 0 && g->explained_at + EXPLAIN_EVERY < *r->next) {
		*r->next = g->explained_at + EXPLAIN_EVERY;
	}
}

size_t scheduler_run(struct scheduler *s, int64_t now, size_t max, scheduler_cb cb, void *data, int64_t *next)
{
	struct run r = {s, now, max, cb, data, next};
	struct group *g, *after;

	for (g = s->first; g != NULL && r.left > 0; g = after) {
		after = g->next;
		run_group(&r, g);
	}
	return max - r.left;
}
