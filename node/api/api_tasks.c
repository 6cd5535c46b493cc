/* Tasks: list and inspect. A task's Spec is its template's. */
#include <string.h>

#include "base/mem.h"
#include "manager/orchestrator/orchestrator.h"
#include "node/api/resources.h"
#include "proto/pb.h"

static json_t *task_json(const struct store *st, const Pb__Task *t)
{
	json_t *j = json_from_msg(t);
	const Pb__Template *tmpl = store_template(st, t->template_id);
	json_object_set_new(j, "Labels", json_object());
	json_object_set_new(j, "Spec", tmpl ? json_from_msg(tmpl->spec) : json_object());
	json_object_set_new(j, "Volumes", json_null());
	return j;
}

/* "<service>.<slot or node>.<id>" */
static char *task_name(const struct store *st, const Pb__Task *t)
{
	const struct object *s = t->service_id ? store_get(st, OBJ(SERVICE), t->service_id) : NULL;
	const char *service = s ? s->service->spec->name : str_or(t->service_name, str_or(t->service_id, ""));
	if (t->slot)
		return xasprintf("%s.%llu.%s", service, (unsigned long long)t->slot, t->id);
	return xasprintf("%s.%s.%s", service, str_or(t->node_id, ""), t->id);
}

struct query {
	struct api_filters f;
	struct strlist services, nodes; /* ids */
	uint64_t states[16];            /* desired states asked for */
	size_t n_states;
	bool up_to_date;
};

static void query_done(struct query *q)
{
	api_filters_done(&q->f);
	strlist_done(&q->services);
	strlist_done(&q->nodes);
}

static int resolve(
    const struct store *st, obj_kind kind, const struct strlist *refs, struct strlist *ids, struct err *e)
{
	for (size_t i = 0; refs && i < refs->n; i++) {
		const struct object *o;
		int rc = store_find(st, kind, refs->v[i], &o, e);
		if (rc != 0)
			return rc;
		strlist_add(ids, o->head->id);
	}
	return 0;
}

static int query_parse(const struct store *st, const struct http_req *r, struct query *q, struct err *e)
{
	static const char *const allowed[] = {
	    "id", "name", "service", "node", "label", "desired-state", "runtime", "_up-to-date", NULL};
	int rc = api_filters_parse(r, allowed, &q->f, e);
	if (rc == 0)
		rc = resolve(st, OBJ(SERVICE), api_filters_get(&q->f, "service"), &q->services, e);
	if (rc == 0)
		rc = resolve(st, OBJ(NODE), api_filters_get(&q->f, "node"), &q->nodes, e);
	const struct strlist *states = rc == 0 ? api_filters_get(&q->f, "desired-state") : NULL;
	for (size_t i = 0; states && i < states->n && q->n_states < ARRAY_LEN(q->states); i++) {
		int v;
		if (json_enum_parse(&pb__task_state__e__descriptor, states->v[i], &v, NULL) != 0)
			return err_set(e, ERR_INTERNAL, "invalid filter 'desired-state=%s'", states->v[i]);
		q->states[q->n_states++] = (uint64_t)v;
	}
	q->up_to_date = api_filters_has(&q->f, "_up-to-date");
	return rc;
}

static bool matches(const struct store *st, const struct query *q, const Pb__Task *t)
{
	const Pb__Template *tmpl = store_template(st, t->template_id);
	if (q->n_states) {
		bool any = false;
		for (size_t i = 0; i < q->n_states; i++)
			any |= q->states[i] == (uint64_t)t->desired_state;
		if (!any)
			return false;
	}
	if (q->nodes.n && !strlist_has(&q->nodes, str_or(t->node_id, "")))
		return false;
	if (q->up_to_date) {
		const struct object *s = t->service_id ? store_get(st, OBJ(SERVICE), t->service_id) : NULL;
		const struct object *n = t->node_id ? store_get(st, OBJ(NODE), t->node_id) : NULL;
		if (!s || !orchestrator_template_current(
			      tmpl, store_template(st, s->service->template_id), n ? n->node : NULL))
			return false;
	}
	if (!api_filters_match_prefix(&q->f, "id", t->id) ||
	    !api_filters_match(
		&q->f, "runtime", tmpl ? str_or(tmpl->spec->runtime, "container") : "container"))
		return false;
	if (api_filters_has(&q->f, "label")) {
		const struct object *s = t->service_id ? store_get(st, OBJ(SERVICE), t->service_id) : NULL;
		Pb__KV *const *labels = s ? s->service->spec->labels : tmpl ? tmpl->service_labels : NULL;
		size_t n = s ? s->service->spec->n_labels : tmpl ? tmpl->n_service_labels : 0;
		if (!api_filters_match_labels(&q->f, "label", labels, n))
			return false;
	}
	if (api_filters_has(&q->f, "name")) {
		CLEANUP_FREE char *name = task_name(st, t);
		return api_filters_match_prefix(&q->f, "name", name);
	}
	return true;
}

static void add_matching(
    const struct store *st, const struct query *q, enum store_index index, const char *key, json_t *out)
{
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, st, OBJ(TASK), index, key);
	while ((o = store_iter_next(&it)))
		if (matches(st, q, o->task))
			json_array_append_new(out, task_json(st, o->task));
}

static void list(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	struct err e = ERR_INIT;
	struct query q = {.f = API_FILTERS_INIT};
	if (!st)
		return;
	if (query_parse(st, r, &q, &e) != 0) {
		api_reply_err(r, &e);
		query_done(&q);
		return;
	}
	json_t *out = json_array();
	/* By the narrowest index that the filters allow. */
	for (size_t i = 0; i < q.services.n; i++) {
		bool again = false;
		for (size_t k = 0; k < i; k++)
			again |= strcmp(q.services.v[k], q.services.v[i]) == 0;
		if (!again)
			add_matching(st, &q, STORE_TASK_BY_SERVICE, q.services.v[i], out);
	}
	if (!q.services.n && q.nodes.n == 1)
		add_matching(st, &q, STORE_TASK_BY_NODE, q.nodes.v[0], out);
	else if (!q.services.n)
		add_matching(st, &q, STORE_ALL, NULL, out);
	query_done(&q);
	http_reply_json(r, 200, out);
}

static void inspect(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	const struct object *o;
	struct err e = ERR_INIT;
	if (!st)
		return;
	if (store_find(st, OBJ(TASK), api_param(r, "id"), &o, &e) != 0)
		api_reply_err(r, &e);
	else
		http_reply_json(r, 200, task_json(st, o->task));
}

void api_tasks_register(struct api *a)
{
	api_route(a, "GET", "/tasks", list, a);
	api_route(a, "GET", "/tasks/{id}", inspect, a);
}
