/* What a pure decision wants done: a list of transactions, each of which is right by itself. They are kept
 * small where they touch tasks that agents report on at the same time, so that a lost race costs one slot a
 * second look and not a whole service. */
#ifndef MANAGER_PLAN_H
#define MANAGER_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "manager/store/store.h"

struct plan {
	struct txn **v; /* in the order to propose; none is NULL */
	size_t n, cap;
	size_t closed, closed_actions; /* the first ones, counted once */
};
#define PLAN_INIT                                                                                            \
	{                                                                                                    \
		0, 0, 0, 0, 0                                                                                \
	}

/* A new empty transaction at the end, owned by the plan. One that stays empty does no harm. */
struct txn *plan_unit(struct plan *p);
/* Over all transactions; what was added to one after a later one was begun may be missing. */
size_t plan_actions(struct plan *p);
void plan_done(struct plan *p); /* frees the transactions; p is empty and usable after */

#endif
