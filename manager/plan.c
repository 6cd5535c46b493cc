/* A growing list of transactions; see plan.h. Nothing here fails. */
#include "manager/plan.h"

#include "base/mem.h"

struct txn *plan_unit(struct plan *p)
{
	if (p->n > 0 && txn_count(p->v[p->n - 1]) == 0)
		return p->v[p->n - 1];
	if (p->n == p->cap) {
		p->cap = p->cap == 0 ? 16 : p->cap * 2;
		p->v = xreallocarray(p->v, p->cap, sizeof(*p->v));
	}
	p->v[p->n] = txn_new();
	return p->v[p->n++];
}

size_t plan_actions(struct plan *p)
{
	for (; p->closed + 1 < p->n; p->closed++)
		p->closed_actions += txn_count(p->v[p->closed]);
	return p->closed_actions + (p->n > 0 ? txn_count(p->v[p->n - 1]) : 0);
}

void plan_done(struct plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		txn_free(p->v[i]);
	free(p->v);
	*p = (struct plan)PLAN_INIT;
}
