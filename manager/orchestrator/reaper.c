/* The task reaper: deletes tasks that were to be removed and are gone, what is left of removed services,
 * history beyond the limit, and templates that nobody refers to.
 *
 * The limit counts all tasks of a slot, the live one included; with MaxAttempts it is MaxAttempts + 1,
 * because the restart policy counts on seeing those. Tasks that a running update made are kept while it needs
 * them to see how it goes. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#define DEFAULT_HISTORY 5

static void delete_task(struct view *v, const Pb__Task *t)
{
	txn_delete(view_bulk(v), OBJ(TASK), t->id, 0);
}

/* Nobody will report about it any more. */
static bool finished(const struct view *v, const Pb__Task *t)
{
	return task_dead(t) || t->status->state < TASK(ASSIGNED) || view_node(v, t->node_id) == NULL;
}

static int64_t history_limit(const struct view *v)
{
	const Pb__Cluster *c = store_cluster(v->c->store);
	uint64_t attempts = restart_max_attempts(v->tmpl);

	if (attempts > 0 && attempts < INT64_MAX)
		return (int64_t)attempts + 1;
	if (c != NULL && c->spec->orchestration != NULL &&
	    c->spec->orchestration->has_task_history_retention_limit)
		return c->spec->orchestration->task_history_retention_limit;
	return DEFAULT_HISTORY;
}

static bool updating(const struct view *v)
{
	const Pb__UpdateStatus *st = v->s->update_status;

	return st != NULL && (st->state == PB__UPDATE_STATE__E__UPDATING ||
				 st->state == PB__UPDATE_STATE__E__ROLLBACK_STARTED);
}

static void reap_slot(struct view *v, const struct slot *sl, int64_t limit)
{
	size_t left = sl->n;
	bool keep_made = updating(v);
	bool orphaned = v->mode == VIEW_GLOBAL && view_node(v, sl->node_id) == NULL;

	for (size_t i = 0; i < sl->n && !keep_made; i++)
		keep_made = task_wanted(v, sl->t[i]) && !view_clean(v, sl->t[i]);
	for (size_t i = 0; i < sl->n; i++) {
		const Pb__Task *t = sl->t[i];
		bool history = !task_wanted(v, t) && finished(v, t);

		if (!history)
			continue;
		if (t->desired_state == TASK(REMOVE) || orphaned ||
		    (!task_is_job(v) && limit >= 0 && left > (size_t)limit &&
			!(sl->kind == SLOT_FINISHED && t == slot_newest(sl)) &&
			!(keep_made && update_made(v, t)))) {
			delete_task(v, t);
			left--;
		}
	}
}

void reap(struct view *v)
{
	int64_t limit = history_limit(v);

	for (size_t i = 0; i < v->n_slots && !view_full(v); i++)
		reap_slot(v, &v->slots[i], limit);
}

/* Templates of the service that neither it (cur: NULL when removed) nor a task refers to. */
static void drop_templates(struct reconcile_ctx *c, const char *service_id, const Pb__Service *cur)
{
	const struct object *o;
	struct store_iter it;
	struct txn *u = NULL;

	store_iter_init(&it, c->store, OBJ(TEMPLATE), STORE_TEMPLATE_BY_SERVICE, service_id);
	while ((o = store_iter_next(&it)) != NULL) {
		const char *id = o->head->id;

		if (cur != NULL &&
		    (strcmp(cur->template_id, id) == 0 ||
			(cur->previous_template_id != NULL && strcmp(cur->previous_template_id, id) == 0)))
			continue;
		if (store_index_count(c->store, STORE_TASK_BY_TEMPLATE, id) > 0)
			continue;
		if (u == NULL)
			u = plan_unit(c->out);
		txn_delete(u, OBJ(TEMPLATE), id, o->head->version);
	}
}

void reap_templates(struct view *v)
{
	if (store_index_count(v->c->store, STORE_TEMPLATE_BY_SERVICE, v->s->id) > 1)
		drop_templates(v->c, v->s->id, v->s);
}

void reap_removed_service(struct reconcile_ctx *c, const char *service_id)
{
	struct view v = {.c = c, .actions_before = plan_actions(c->out)};
	const struct object *o;
	struct store_iter it;

	store_iter_init(&it, c->store, OBJ(TASK), STORE_TASK_BY_SERVICE, service_id);
	while ((o = store_iter_next(&it)) != NULL && !view_full(&v)) {
		if (finished(&v, o->task))
			delete_task(&v, o->task);
		else if (o->task->desired_state < TASK(REMOVE))
			task_desire_alone(&v, o->task, TASK(REMOVE));
	}
	drop_templates(c, service_id, NULL);
}
