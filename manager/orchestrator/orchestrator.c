/* The entry of the reconcilers: one pass over one service.
 *
 * Ports first, then what the mode of the service asks for, then what can be cleared away; what changes in the
 * service itself (endpoint, update status, automatic rollback) goes into one transaction at the end. */
#include "manager/orchestrator/internal.h"

#include "base/mem.h"
#include "manager/allocator/allocator.h"

/* Every service comes with its template. One that lost it gets it anew from its spec, rather than standing
 * still. */
static void make_template(struct view *v)
{
	const Pb__Service *s = v->s;
	Pb__Template *t;

	if (s->spec->task_template == NULL)
		return;
	t = xmalloc(sizeof(*t));
	pb__template__init(t);
	t->id = xstrdup(s->template_id);
	t->service_id = xstrdup(s->id);
	t->service_name = xstrdup(s->spec->name != NULL ? s->spec->name : "");
	t->spec = msg_clone(s->spec->task_template);
	if (s->spec->endpoint_spec != NULL)
		t->endpoint = msg_clone(s->spec->endpoint_spec);
	t->service_labels = xcalloc(s->spec->n_labels + 1, sizeof(*t->service_labels));
	for (; t->n_service_labels < s->spec->n_labels; t->n_service_labels++)
		t->service_labels[t->n_service_labels] = msg_clone(s->spec->labels[t->n_service_labels]);
	txn_create(plan_unit(v->c->out), OBJ(TEMPLATE), t);
}

static void allocate(struct view *v)
{
	Pb__Endpoint *ep = NULL;
	Pb__Service *s;

	if (!allocator_needs(v->s))
		return;
	if (v->c->allocator == NULL) {
		v->blocked = true;
		return;
	}
	if (allocator_assign(v->c->allocator, v->s, &ep, &v->why) < 0) {
		v->blocked = v->c->blocked = true;
		return;
	}
	s = view_edit(v);
	if (s->endpoint != NULL)
		protobuf_c_message_free_unpacked(&s->endpoint->base, NULL);
	s->endpoint = ep;
}

void reconcile_service(struct reconcile_ctx *c, const char *service_id)
{
	const struct object *o = store_get(c->store, OBJ(SERVICE), service_id);
	struct view v;

	if (o == NULL) {
		reap_removed_service(c, service_id);
		return;
	}
	view_init(&v, c, o->service);
	if (v.tmpl == NULL) {
		make_template(&v);
		view_done(&v);
		return;
	}
	allocate(&v);
	view_load(&v);
	switch (v.mode) {
	case VIEW_REPLICATED:
		reconcile_replicated(&v);
		break;
	case VIEW_GLOBAL:
		reconcile_global(&v);
		break;
	case VIEW_REPLICATED_JOB:
		reconcile_replicated_job(&v);
		break;
	case VIEW_GLOBAL_JOB:
		reconcile_global_job(&v);
		break;
	}
	reap(&v);
	reap_templates(&v);
	if (v.edit != NULL)
		txn_update(plan_unit(c->out), OBJ(SERVICE), TAKE_PTR(v.edit));
	view_done(&v);
}
