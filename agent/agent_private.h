/* What the agent's own files share. */
#ifndef AGENT_AGENT_PRIVATE_H
#define AGENT_AGENT_PRIVATE_H

#include "agent/agent.h"
#include "base/map.h"
#include "base/sm.h"
#include "base/timer.h"

struct session;

struct agent {
	uv_loop_t *loop;
	struct clock clock;
	struct rng rng;
	struct images *images;
	struct engine *engine;
	struct hostnet *net;
	char *node_id, *advertise_addr;
	Pb__NodeDescription *description;
	Pb__Node *node; /* as the manager last sent it, or NULL */
	struct tls_ctx *tls;
	struct strlist managers;
	char *(*manager_at)(void *data, const char *addr);
	void (*managers_changed)(void *data, char *const *addrs, size_t n);
	void (*node_changed)(void *data, const Pb__Node *node);
	void (*removed)(void *data);
	void *data;

	struct strmap tasks;     /* id -> struct task */
	struct strmap templates; /* id -> Pb__Template */
	struct strmap published; /* service id -> Pb__PublishedService */
	struct strmap refused;   /* service id -> why its ports could not be published (heap) */
	struct timer *publish_retry;
	uint64_t sequence; /* of the last assignments taken */

	struct session *session;
	struct strmap dirty; /* tasks whose status waits to be reported: id -> struct task */
	bool flush_queued;

	bool closing, leaving;
	bool dead;     /* closed; only steps that are still under way hold it */
	unsigned refs; /* those steps, and the owner */
	void (*closed)(void *data);
	void *closed_data;
	unsigned orphans; /* removals of containers without a task under way */
};

/* --- tasks (agent/task.c) */
struct task {
	struct agent *agent;
	char *id;
	Pb__AssignedTask *assigned;
	Pb__Template *tmpl; /* owned copy: outlives the manager's delta that removes it */
	struct sm state;
	Pb__TaskStatus *status;
	char *container_id; /* NULL while none was made */
	bool busy;          /* one asynchronous step at a time */
	bool stopping;      /* engine_stop is under way or done: its end is a shutdown */
	bool unhealthy;
	bool removing; /* no longer assigned: goes when all is cleared away */
	bool warned;   /* status->err is task_warn's */
	struct image_op *pull;
	char *pull_err;
};
struct task *task_new(struct agent *a, const Pb__AssignedTask *at, const Pb__Template *tmpl);
/* Takes over the container of an earlier run of this daemon. */
void task_adopt(struct task *t, const Pb__Container *c);
void task_update(struct task *t, const Pb__AssignedTask *at);
/* No longer assigned: stop, remove, then the task frees itself and leaves agent->tasks. */
void task_remove(struct task *t);
void task_drive(struct task *t);
void task_container_changed(struct task *t, const Pb__Container *c);
bool task_is_serving(const struct task *t); /* RUNNING and not asked to stop */
/* What is wrong around a task that runs (its service's port cannot be published), for `service ps`; NULL: all
 * is well again. */
void task_warn(struct task *t, const char *err);
void task_free(struct task *t);

/* --- the container that a task becomes (agent/task_config.c). Pure. */
struct task_config_in {
	const Pb__AssignedTask *task;
	const Pb__Template *tmpl;
	const struct image *image;
	const char *node_id;
	const Pb__NodeDescription *node;
};
int task_config_make(const struct task_config_in *in, Pb__ContainerConfig **ret, struct err *e);
/* "<service>.<slot or node id>.<task id>", heap. */
char *task_container_name(const Pb__AssignedTask *t, const char *node_id);

/* --- agent.c */
void agent_assign(struct agent *a, const Pb__Assignments *as);
void agent_task_changed(struct agent *a, struct task *t); /* its status is to be reported */
void agent_task_gone(struct agent *a, struct task *t);    /* called last by a removed task */
void agent_set_node(struct agent *a, const Pb__Node *n);
void agent_flush(struct agent *a);
/* Frees a dead agent that nothing holds any more. */
void agent_unref(struct agent *a);

/* --- published ports (agent/publish.c) */
void publish_init(struct agent *a);
/* Removals at once. What is to be published: at once, too, by a delta; after a full assignment publish_all
 * does it, when the tasks have found their containers. */
void publish_take(struct agent *a, const Pb__Assignments *as);
void publish_all(struct agent *a);
/* A task has become or stopped being a backend: the manager's table follows later. */
void publish_of(struct agent *a, const struct task *t);
void publish_none(struct agent *a); /* every port goes */
void publish_done(struct agent *a); /* frees; what is published stays */

/* --- the stream to a manager (agent/session.c) */
struct session *session_start(struct agent *a);
bool session_ready(const struct session *s);
/* False when nothing can be sent now: the statuses stay dirty. */
bool session_send_status(struct session *s, const Pb__TaskStatusBatch *b);
size_t session_send(struct session *s, const Pb__AgentMessage *m);
/* A TLS context replaced: used by the next connection. */
void session_close(struct session *s, void (*closed)(void *data), void *data);

/* --- logs of tasks (agent/task_logs.c) */
struct task_logs;
struct task_logs *task_logs_new(struct agent *a);
void task_logs_free(struct task_logs *l);
void task_logs_request(struct task_logs *l, const Pb__LogSubscribe *q);
void task_logs_drained(struct task_logs *l);
/* The session ended: so do its subscriptions. */
void task_logs_reset(struct task_logs *l);

#endif
