/* Replicated services: as many slots as replicas, numbered from 1.
 *
 * Too few: the lowest free numbers are filled. Too many: see pick_victims. A slot whose tasks ended and are
 * not to be restarted still counts as one. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/map.h"
#include "base/mem.h"

struct candidate {
	struct slot *sl;
	const char *node_id; /* NULL: none, or not one node */
	bool running;
	size_t nth; /* replica of the service on its node, from 1; 0 without a node */
};

static void look_at(struct view *v, struct candidate *c)
{
	size_t wanted = 0;

	for (size_t i = 0; i < c->sl->n; i++) {
		const Pb__Task *t = c->sl->t[i];

		if (!task_wanted(v, t))
			continue;
		wanted++;
		c->node_id = task_assigned(t) ? t->node_id : NULL;
		c->running = c->running || t->status->state == TASK(RUNNING);
	}
	if (wanted != 1)
		c->node_id = NULL;
}

static int by_worth(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->running != b->running)
		return a->running ? -1 : 1;
	return a->sl->number < b->sl->number ? -1 : a->sl->number > b->sl->number;
}

static int by_nth(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->nth != b->nth) {
		if (a->nth == 0 || b->nth == 0)
			return a->nth == 0 ? 1 : -1;
		return a->nth < b->nth ? -1 : 1;
	}
	return by_worth(pa, pb);
}

/* Marks the slots to give up: those without a node first, then from the nodes with the most replicas, then
 * those that do not run, then the highest numbers. */
static void pick_victims(struct view *v, size_t n_filled, size_t n_keep)
{
	struct candidate *c = xcalloc(n_filled + 1, sizeof(*c));
	struct strmap per_node = STRMAP_INIT;
	size_t n = 0;

	for (size_t i = 0; i < v->n_slots; i++) {
		if (v->slots[i].kind == SLOT_DEAD)
			continue;
		c[n].sl = &v->slots[i];
		look_at(v, &c[n++]);
	}
	qsort(c, n, sizeof(*c), by_worth);
	for (size_t i = 0; i < n; i++) {
		if (c[i].node_id == NULL)
			continue;
		c[i].nth = (size_t)(uintptr_t)strmap_get(&per_node, c[i].node_id) + 1;
		strmap_put(&per_node, c[i].node_id, (void *)(uintptr_t)c[i].nth);
	}
	qsort(c, n, sizeof(*c), by_nth);
	for (size_t i = n_keep; i < n; i++)
		c[i].sl->unwanted = true;
	strmap_done(&per_node);
	free(c);
}

/* Slots are sorted by number, so one walk finds the gaps. Numbers of dead slots are free again: their remains
 * stay as history, and what of them still stops is waited for. */
static void fill(struct view *v, size_t missing)
{
	uint64_t number = 1;
	size_t i = 0;

	for (; missing > 0 && !view_full(v); number++) {
		struct slot fresh = {.number = number};

		while (i < v->n_slots && v->slots[i].number < number)
			i++;
		if (i == v->n_slots || v->slots[i].number > number) {
			slot_fill(v, &fresh);
		} else if (v->slots[i].kind == SLOT_DEAD) {
			v->slots[i].acted = true;
			slot_fill(v, &v->slots[i]);
		} else {
			continue;
		}
		missing--;
	}
}

void reconcile_replicated(struct view *v)
{
	const Pb__ServiceMode *m = v->s->spec->mode;
	uint64_t replicas = 1;
	size_t filled = 0;

	if (m != NULL && m->replicated != NULL && m->replicated->has_replicas)
		replicas = m->replicated->replicas;
	for (size_t i = 0; i < v->n_slots; i++) {
		slot_classify(v, &v->slots[i]);
		filled += v->slots[i].kind != SLOT_DEAD;
	}
	if (filled > replicas)
		pick_victims(v, filled, (size_t)replicas);
	if (update_begin(v))
		return;
	for (size_t i = 0; i < v->n_slots && !view_full(v); i++) {
		struct slot *sl = &v->slots[i];

		if (sl->unwanted)
			slot_remove(v, sl);
		else if (sl->kind == SLOT_LIVE)
			slot_step(v, sl);
	}
	update_run(v);
	if (filled < replicas)
		fill(v, (size_t)(replicas - filled));
	/* What is left of slots that are not needed again goes altogether. */
	for (size_t i = 0; i < v->n_slots && !view_full(v); i++) {
		if (v->slots[i].kind == SLOT_DEAD && !v->slots[i].acted) {
			v->slots[i].unwanted = true;
			slot_remove(v, &v->slots[i]);
		}
	}
}
