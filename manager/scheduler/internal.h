/* What the files of the scheduler share. Nothing outside manager/scheduler includes this. */
#ifndef MANAGER_SCHEDULER_INTERNAL_H
#define MANAGER_SCHEDULER_INTERNAL_H

#include "base/map.h"
#include "manager/scheduler/constraint.h"
#include "manager/scheduler/scheduler.h"

#define TASK(state) PB__TASK_STATE__E__##state

/* One kind of generic resource of a node: a number, or values with names. */
struct generic {
	char *kind;
	int64_t total, used; /* discrete */
	char **named;        /* values; named_used alike */
	bool *named_used;
	size_t n_named;
};

struct node_info {
	char *id;
	uint32_t index;     /* dense, reused */
	unsigned refs;      /* tasks that point here */
	struct object *obj; /* NULL: not in the store (any more) */
	int64_t cpu_used, mem_used;
	uint32_t active;     /* tasks that are to run */
	struct u64map ports; /* protocol << 32 | host port -> number of tasks that publish it */
	struct generic *generic;
	size_t n_generic;
};

/* How many tasks of a service are to run on which node. */
struct service_info {
	char *id;
	unsigned refs;         /* groups */
	struct u64map on_node; /* node index -> count, as a pointer */
};

struct preference {
	bool engine; /* engine.labels, else node.labels */
	char *key;
};

#define FAILURES_MAX    5
#define FAILURES_WINDOW (INT64_C(300) * 1000000000)
struct failures { /* the last ones on one node */
	int64_t at[FAILURES_MAX];
	unsigned n;
};

enum filter {
	FILTER_READY,
	FILTER_RESOURCES,
	FILTER_PLUGIN,
	FILTER_CONSTRAINTS,
	FILTER_PLATFORM,
	FILTER_HOST_PORT,
	FILTER_MAX_REPLICAS,
	FILTER_NONE, /* passes */
};
#define FILTERS FILTER_NONE

/* All tasks of one template. */
struct group {
	char *template_id;
	unsigned refs;       /* tasks */
	struct object *tmpl; /* NULL: the store has no such template (the reconciler makes it) */
	struct service_info *service;
	struct constraints constraints;
	bool constraints_ok;
	int64_t cpu, mem; /* reserved by each task */
	uint64_t max_replicas;
	struct preference *prefs;
	size_t n_prefs;
	Pb__PortConfig **host_ports; /* borrowed from tmpl */
	size_t n_host_ports;
	struct u64map failures;     /* node index -> struct failures */
	struct stask *first, *last; /* that wait for a node */
	size_t n_waiting;
	struct group *next, *prev; /* in the list of groups with waiting tasks */
	/* Tried in vain at these generations of the world. */
	bool stuck;
	uint64_t stuck_nodes, stuck_freed;
	int64_t explained_at;
};

/* A task that is not over. */
struct stask {
	struct object *obj;
	struct group *group;
	struct node_info *node; /* where it is, or is to be */
	bool active;            /* counts in node->active and in the service's count */
	bool reserved;          /* its resources count in node */
	bool waiting;           /* in the group's list */
	bool in_flight;         /* decided, not committed */
	struct stask *next, *prev;
	Pb__GenericResource **generic; /* what it holds, owned */
	size_t n_generic;
};

struct scheduler {
	const struct store *store;
	struct strmap nodes;         /* id -> struct node_info */
	struct node_info **by_index; /* NULL where free */
	size_t n_index, cap_index;
	struct strmap services;     /* id -> struct service_info */
	struct strmap groups;       /* template id -> struct group */
	struct strmap tasks;        /* id -> struct stask */
	struct group *first, *last; /* groups with waiting tasks */
	size_t n_waiting;
	uint64_t nodes_gen; /* moves with every change of a node */
	uint64_t freed_gen; /* moves when something was given back */
};

/* --- filters.c */
/* The first filter that keeps a task of this group from the node, or FILTER_NONE. */
enum filter filter_node(const struct group *g, const struct node_info *n);
/* Only those that a placement on the node can change. */
enum filter filter_node_again(const struct group *g, const struct node_info *n);
/* "no suitable node (insufficient resources on 2 nodes; ...)" from the nodes that each filter refused. */
void filter_explain(const size_t refused[FILTERS], char *out, size_t cap);
uint32_t service_on_node(const struct service_info *s, uint32_t node_index);
uint64_t port_key(const Pb__PortConfig *p);

/* --- generic.c */
void generic_load(struct node_info *n); /* from the node's description; nothing is used */
void generic_clear(struct node_info *n);
bool generic_fits(const struct group *g, const struct node_info *n);
/* Takes what the group's tasks ask for; *ret is owned by the caller. */
void generic_take(const struct group *g, struct node_info *n, Pb__GenericResource ***ret, size_t *ret_n);
/* Marks what a task has as used, or gives it back. */
void generic_mark(struct node_info *n, Pb__GenericResource *const *v, size_t count, bool used);
void generic_free(Pb__GenericResource **v, size_t n);

/* --- place.c: one group's candidates. */
struct placement;
struct placement *placement_new(const struct scheduler *s, const struct group *g, int64_t now);
void placement_free(struct placement *p);
/* The best node, or NULL. placement_took follows when the task was put there. */
struct node_info *placement_best(struct placement *p);
void placement_took(struct placement *p);
/* Nodes that each filter refused, as things stand. */
void placement_refusals(const struct scheduler *s, const struct group *g, size_t refused[FILTERS]);
void preferences_parse(const Pb__Placement *pl, struct preference **ret, size_t *ret_n);

/* --- scheduler.c */
void stask_reserve(struct scheduler *s, struct stask *st, struct node_info *n);
void stask_wait_end(struct scheduler *s, struct stask *st); /* out of the group's list, if it is in it */
void stask_release(struct scheduler *s, struct stask *st);
struct node_info *node_info_get(struct scheduler *s, const char *id);

#endif
