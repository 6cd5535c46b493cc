/* What the files of the orchestrator share. Nothing outside manager/orchestrator includes this. */
#ifndef MANAGER_ORCHESTRATOR_INTERNAL_H
#define MANAGER_ORCHESTRATOR_INTERNAL_H

#include "base/err.h"
#include "manager/orchestrator/orchestrator.h"

#define TASK(state) PB__TASK_STATE__E__##state

/* A replacement waits no longer than this for its predecessor to stop. */
#define STOP_TIMEOUT (INT64_C(60) * NS_PER_SEC)

/* How a task's template stands to the one that its service has now. */
enum relation {
	REL_SAME,      /* is it */
	REL_EQUAL,     /* differs in nothing that makes a task: may be relabelled */
	REL_PLACEMENT, /* differs in placement only: may be relabelled where the node fits */
	REL_DIRTY,     /* to be replaced */
};

enum slot_kind {
	SLOT_LIVE,     /* some task in it is to run */
	SLOT_FINISHED, /* the last one ended and is not to be restarted; the slot counts as filled */
	SLOT_DEAD,     /* nothing but remains */
};

/* The tasks of one replica (replicated) or of one node (global), oldest first. */
struct slot {
	uint64_t number;
	const char *node_id; /* global: the node; replicated: NULL */
	const Pb__Task **t;
	size_t n;
	enum slot_kind kind;
	bool acted;    /* something was planned for it in this pass: leave it alone until that is committed */
	bool frozen;   /* no updates here (global: the node is paused) */
	bool unwanted; /* global: nothing is to run here */
};

struct template_relation {
	const char *template_id; /* borrowed from a task */
	enum relation rel;
};

/* One pass over one service. */
struct view {
	struct reconcile_ctx *c;
	const Pb__Service *s;
	const Pb__Template *tmpl; /* what its tasks are to be made from */
	Pb__Service *edit;        /* the service as it is to become; NULL while unchanged */
	const Pb__Task **tasks;   /* sorted: slot or node, then age */
	size_t n_tasks;
	struct slot *slots;
	size_t n_slots;
	struct template_relation *rels;
	size_t n_rels;
	enum {
		VIEW_REPLICATED,
		VIEW_GLOBAL,
		VIEW_REPLICATED_JOB,
		VIEW_GLOBAL_JOB,
	} mode;
	uint64_t iteration;    /* jobs */
	size_t actions_before; /* in the plan */
	struct txn *bulk;      /* where creates and deletes go, which conflict with nothing */
	bool blocked;          /* ports could not be had: tasks wait in NEW */
	struct err why;        /* the reason */
};

/* --- view.c */
void view_init(struct view *v, struct reconcile_ctx *c, const Pb__Service *s);
void view_done(struct view *v);
/* Collects the tasks and sorts them into slots. */
void view_load(struct view *v);
bool view_full(const struct view *v); /* enough for one pass */
struct txn *view_bulk(struct view *v);
Pb__Service *view_edit(struct view *v);
enum relation view_relation(struct view *v, const Pb__Task *t);
/* Needs no replacement. */
bool view_clean(struct view *v, const Pb__Task *t);
void view_at(struct view *v, int64_t when); /* call again then, if that lies ahead */
const Pb__Node *view_node(const struct view *v, const char *node_id); /* NULL when gone or node_id is none */

/* --- task.c: what a task is. */
bool task_is_job(const struct view *v);
bool task_wanted(const struct view *v, const Pb__Task *t); /* desired state says: run (or, jobs, complete) */
bool task_dead(const Pb__Task *t);                         /* observed to have ended */
bool task_assigned(const Pb__Task *t);
/* No container of it runs, or can be found out to run: ended, never assigned, or its node is down or gone. */
bool task_gone(const struct view *v, const Pb__Task *t);
/* Cannot do its work where it is: ended, or its node is down, gone or drained. */
bool task_lost(const struct view *v, const Pb__Task *t);
bool node_usable(const Pb__Node *n); /* not NULL, down or drained */
int64_t task_ended_at(const Pb__Task *t);
/* Older of two of one slot: by creation, then id. */
bool task_older(const Pb__Task *a, const Pb__Task *b);
struct task_opts {
	const struct slot *slot;
	Pb__TaskState__E desired;
	int64_t start_after; /* 0: none */
	uint64_t restarts;
	bool by_update;
};
/* Adds the creation of a task for the service's current template. */
void task_create(struct view *v, struct txn *t, const struct task_opts *o);
/* Adds the move of the desired state; it only grows. */
void task_desire(struct view *v, struct txn *t, const Pb__Task *task, Pb__TaskState__E desired);
/* As task_desire, in a transaction of its own. */
void task_desire_alone(struct view *v, const Pb__Task *task, Pb__TaskState__E desired);
Pb__TaskState__E run_state(const struct view *v); /* RUNNING, for jobs COMPLETE */

/* --- slot.c: what every kind of service does with a slot. */
/* Ends what is lost (with a replacement where the restart policy says so), starts what waited, takes over
 * tasks that an update need not touch, ends the old one where a new one runs. Sets acted. */
void slot_step(struct view *v, struct slot *sl);
/* A task made in this slot now has to wait for one that still stops; plans to look again when that is over.
 */
bool slot_stopping(struct view *v, const struct slot *sl, const Pb__Task *except);
void slot_remove(struct view *v, struct slot *sl);     /* all of it is to go */
void slot_fill(struct view *v, const struct slot *sl); /* a first task, or one after those that still stop */
const Pb__Task *slot_newest(const struct slot *sl);
void slot_classify(struct view *v, struct slot *sl);

/* --- restart.c: the restart supervisor's policy. */
bool restart_wanted(const struct view *v, const struct slot *sl, const Pb__Task *t);
/* The task ended while it still waited for its turn (agents prepare what is wanted READY): its own
 * replacement is not made before that has come, or a missing image would be tried as fast as the cluster can.
 * Plans to look again. */
bool restart_must_wait(struct view *v, const Pb__Task *t);
/* Adds to `u` the replacement of `t`, which is lost. */
void restart_replace(struct view *v, const struct slot *sl, struct txn *u, const Pb__Task *t);
uint64_t restart_max_attempts(const Pb__Template *t);

/* --- updater.c */
/* Moves the service's update status: begins, pauses, rolls back. True when the service itself changes so that
 * nothing else is to be planned in this pass. */
bool update_begin(struct view *v);
/* Replaces as many of the service's outdated slots as its update policy allows now, and notices the end. */
void update_run(struct view *v);
/* An update is under way that has not had a go at this slot. */
bool update_wants(struct view *v, const struct slot *sl);
void update_complete(struct view *v); /* writes that the update or rollback is over */
/* Made by the update (or rollback) that is under way. */
bool update_made(struct view *v, const Pb__Task *t);

/* --- the kinds of services */
void reconcile_replicated(struct view *v);
void reconcile_global(struct view *v);
void reconcile_replicated_job(struct view *v);
void reconcile_global_job(struct view *v);

/* --- reaper.c */
/* Deletes what was to be removed and is gone, and history beyond the limit. */
void reap(struct view *v);
void reap_removed_service(struct reconcile_ctx *c, const char *service_id);
void reap_templates(struct view *v);

#endif
