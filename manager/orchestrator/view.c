/* One pass's view of a service: its tasks sorted into slots, and how their templates stand to the current
 * one.
 *
 * Built from the store at the start of a pass and thrown away at its end; holds only borrowed pointers. */
#include "manager/orchestrator/internal.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/scheduler/constraint.h"

#define BULK_ACTIONS 500

static const char *empty_id = "";

void view_init(struct view *v, struct reconcile_ctx *c, const Pb__Service *s)
{
	const Pb__ServiceMode *m = s->spec->mode;

	memset(v, 0, sizeof(*v));
	v->c = c;
	v->s = s;
	v->tmpl = store_template(c->store, s->template_id);
	v->actions_before = plan_actions(c->out);
	if (m != NULL && m->global != NULL)
		v->mode = VIEW_GLOBAL;
	else if (m != NULL && m->replicated_job != NULL)
		v->mode = VIEW_REPLICATED_JOB;
	else if (m != NULL && m->global_job != NULL)
		v->mode = VIEW_GLOBAL_JOB;
	if (s->job_status != NULL && s->job_status->job_iteration != NULL)
		v->iteration = s->job_status->job_iteration->index;
}

void view_done(struct view *v)
{
	if (v->edit != NULL)
		protobuf_c_message_free_unpacked(&v->edit->base, NULL);
	free(v->tasks);
	free(v->slots);
	free(v->rels);
}

static bool per_node(const struct view *v)
{
	return v->mode == VIEW_GLOBAL || v->mode == VIEW_GLOBAL_JOB;
}

static const char *group_node(const Pb__Task *t)
{
	return t->node_id != NULL ? t->node_id : empty_id;
}

static int compare(const Pb__Task *a, const Pb__Task *b, bool nodes)
{
	if (nodes) {
		int d = strcmp(group_node(a), group_node(b));

		if (d != 0)
			return d;
	} else if (a->slot != b->slot) {
		return a->slot < b->slot ? -1 : 1;
	}
	if (a->created_at != b->created_at)
		return a->created_at < b->created_at ? -1 : 1;
	return strcmp(a->id, b->id);
}

static int by_slot(const void *a, const void *b)
{
	return compare(*(const Pb__Task *const *)a, *(const Pb__Task *const *)b, false);
}

static int by_node(const void *a, const void *b)
{
	return compare(*(const Pb__Task *const *)a, *(const Pb__Task *const *)b, true);
}

void view_load(struct view *v)
{
	size_t cap = store_index_count(v->c->store, STORE_TASK_BY_SERVICE, v->s->id);
	const struct object *o;
	struct store_iter it;

	v->tasks = xcalloc(cap + 1, sizeof(Pb__Task *));
	store_iter_init(&it, v->c->store, OBJ(TASK), STORE_TASK_BY_SERVICE, v->s->id);
	while ((o = store_iter_next(&it)) != NULL && v->n_tasks < cap)
		v->tasks[v->n_tasks++] = o->task;
	qsort(v->tasks, v->n_tasks, sizeof(Pb__Task *), per_node(v) ? by_node : by_slot);
	v->slots = xcalloc(v->n_tasks + 1, sizeof(*v->slots));
	for (size_t i = 0; i < v->n_tasks; i++) {
		const Pb__Task *t = v->tasks[i];
		struct slot *sl = v->n_slots > 0 ? &v->slots[v->n_slots - 1] : NULL;

		if (sl == NULL ||
		    (per_node(v) ? strcmp(sl->node_id, group_node(t)) != 0 : sl->number != t->slot)) {
			sl = &v->slots[v->n_slots++];
			ASSERT(sl != NULL);
			sl->t = &v->tasks[i];
			sl->number = t->slot;
			sl->node_id = per_node(v) ? group_node(t) : NULL;
		}
		sl->n++;
	}
}

bool view_full(const struct view *v)
{
	return plan_actions(v->c->out) - v->actions_before >= RECONCILE_MAX_ACTIONS;
}

struct txn *view_bulk(struct view *v)
{
	if (v->bulk == NULL || txn_count(v->bulk) >= BULK_ACTIONS)
		v->bulk = plan_unit(v->c->out);
	return v->bulk;
}

Pb__Service *view_edit(struct view *v)
{
	if (v->edit == NULL)
		v->edit = msg_clone(v->s);
	return v->edit;
}

static bool endpoints_equal(const Pb__EndpointSpec *a, const Pb__EndpointSpec *b)
{
	size_t na = a != NULL ? a->n_ports : 0, nb = b != NULL ? b->n_ports : 0;

	if ((a != NULL ? a->mode : PB__ENDPOINT_MODE__E__VIP) !=
	    (b != NULL ? b->mode : PB__ENDPOINT_MODE__E__VIP))
		return false;
	if (na != nb)
		return false;
	for (size_t i = 0; i < na; i++) {
		if (!msg_equal(a->ports[i], b->ports[i]))
			return false;
	}
	return true;
}

/* Equal but for registry credentials and, when `placement` is false, placement. */
static bool specs_equal(const Pb__TaskSpec *a, const Pb__TaskSpec *b, bool placement)
{
	Pb__ContainerSpec ca, cb;
	Pb__TaskSpec ta = *a, tb = *b;

	if (ta.container_spec != NULL) {
		ca = *ta.container_spec;
		ca.registry_auth = NULL;
		ta.container_spec = &ca;
	}
	if (tb.container_spec != NULL) {
		cb = *tb.container_spec;
		cb.registry_auth = NULL;
		tb.container_spec = &cb;
	}
	if (!placement)
		ta.placement = tb.placement = NULL;
	return msg_equal(&ta, &tb);
}

static enum relation relation(const Pb__Template *t, const Pb__Template *cur)
{
	if (strcmp(t->id, cur->id) == 0)
		return REL_SAME;
	if (!endpoints_equal(t->endpoint, cur->endpoint))
		return REL_DIRTY;
	if (specs_equal(t->spec, cur->spec, true))
		return REL_EQUAL;
	return specs_equal(t->spec, cur->spec, false) ? REL_PLACEMENT : REL_DIRTY;
}

enum relation view_relation(struct view *v, const Pb__Task *t)
{
	const Pb__Template *tmpl;
	enum relation rel;

	if (strcmp(t->template_id, v->s->template_id) == 0)
		return REL_SAME;
	for (size_t i = 0; i < v->n_rels; i++) {
		if (strcmp(v->rels[i].template_id, t->template_id) == 0)
			return v->rels[i].rel;
	}
	tmpl = store_template(v->c->store, t->template_id);
	rel = tmpl != NULL ? relation(tmpl, v->tmpl) : REL_DIRTY;
	v->rels = xreallocarray(v->rels, v->n_rels + 1, sizeof(*v->rels));
	v->rels[v->n_rels++] = (struct template_relation){t->template_id, rel};
	return rel;
}

bool view_clean(struct view *v, const Pb__Task *t)
{
	enum relation rel;
	const Pb__Node *n;

	/* A job that changes runs anew, as a new iteration; see jobs.c. */
	if (task_is_job(v))
		return true;
	rel = view_relation(v, t);
	if (rel != REL_PLACEMENT)
		return rel != REL_DIRTY;
	if (!task_assigned(t))
		return true;
	n = view_node(v, t->node_id);
	return n != NULL && placement_matches_node(v->tmpl->spec->placement, n) &&
	       placement_platform_fits(v->tmpl->spec->placement, n);
}

bool orchestrator_template_current(const Pb__Template *t, const Pb__Template *current, const Pb__Node *node)
{
	enum relation rel;

	if (t == NULL || current == NULL)
		return t == current;
	rel = relation(t, current);
	if (rel != REL_PLACEMENT)
		return rel != REL_DIRTY;
	return node == NULL || (placement_matches_node(current->spec->placement, node) &&
				   placement_platform_fits(current->spec->placement, node));
}

void view_at(struct view *v, int64_t when)
{
	if (when > v->c->now && when < v->c->next)
		v->c->next = when;
}

const Pb__Node *view_node(const struct view *v, const char *node_id)
{
	const struct object *o = str_empty(node_id) ? NULL : store_get(v->c->store, OBJ(NODE), node_id);

	return o != NULL ? o->node : NULL;
}
