/* The reconcilers: what must change so that the tasks of a service are what its spec asks for.
 *
 * Pure and level-triggered: each call looks at the store as it is now and plans the next step; when reality
 * is as desired it plans nothing. Nothing is remembered between calls, so a new leader continues where the
 * old one stopped. The caller commits the plan, calls again when it is committed or when something about the
 * service changed, and again at `next`. A transaction that lost a race (ERR_STALE) is simply planned anew by
 * the next call. */
#ifndef MANAGER_ORCHESTRATOR_ORCHESTRATOR_H
#define MANAGER_ORCHESTRATOR_ORCHESTRATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "manager/plan.h"
#include "manager/store/store.h"

struct allocator;

struct reconcile_ctx {
	const struct store *store;
	int64_t now;                 /* unix ns */
	struct rng rng;              /* for new ids */
	struct allocator *allocator; /* published ports; NULL: services with ports wait unallocated */
	struct plan *out;            /* transactions are added here */
	int64_t next;                /* in/out: lowered to when to call again; INT64_MAX: on change only */
	bool blocked; /* out: the service's ports are held by another one; call again when ports are freed */
};

/* Plans the next step for a service, or for what is left of one that was deleted. When the plan was
 * cut at RECONCILE_MAX_ACTIONS, the call after its commit goes on. */
void reconcile_service(struct reconcile_ctx *c, const char *service_id);
#define RECONCILE_MAX_ACTIONS 10000

/* Plans what a node that changed means for the tasks on it: those whose constraints or reservations it no
 * longer meets are rejected, those of a node that was removed or is down for NODE_ORPHAN_AFTER are orphaned.
 * That the service then replaces them is up to reconcile_service. */
void enforce_node(struct reconcile_ctx *c, const char *node_id);
#define NODE_ORPHAN_AFTER (INT64_C(24) * 3600 * NS_PER_SEC)

/* Whether a task made from template `t` would not have to be replaced for the service's current template:
 * what GET /tasks calls up to date. Registry credentials, labels and replicas do not count. node may be NULL.
 */
bool orchestrator_template_current(const Pb__Template *t, const Pb__Template *current, const Pb__Node *node);

#endif
