/* A task's controller: takes one task from ASSIGNED to its end.
 *
 * ASSIGNED, ACCEPTED, PREPARING (find or pull the image, make the container), READY (wait until the manager
 * wants it to run), STARTING (run it; with a health check, wait until it is healthy), RUNNING, and then
 * COMPLETE (exit 0), FAILED, or SHUTDOWN when the manager asked. An error before STARTING is REJECTED, after
 * it FAILED. States only move forward; a task is never restarted.
 *
 * task_drive is the one place that decides: it looks at where the task is and what is wanted, and starts the
 * one next step; each step's end calls it again. So it does not matter in which order news come: an order to
 * stop while a pull is under way cancels the pull, and is looked at again when the pull has ended. */
#include "agent/agent_private.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"

enum {
	T_ASSIGNED,
	T_ACCEPTED,
	T_PREPARING,
	T_READY,
	T_STARTING,
	T_RUNNING,
	T_COMPLETE,
	T_SHUTDOWN,
	T_FAILED,
	T_REJECTED,
	T_STATES
};

#define ENDS (SM_BIT(T_COMPLETE) | SM_BIT(T_SHUTDOWN) | SM_BIT(T_FAILED) | SM_BIT(T_REJECTED))
static const struct sm_state states[T_STATES] = {
    [T_ASSIGNED] = {"assigned",
	SM_BIT(T_ACCEPTED) | SM_BIT(T_STARTING) | SM_BIT(T_RUNNING) | SM_BIT(T_READY) | ENDS},
    [T_ACCEPTED] = {"accepted", SM_BIT(T_PREPARING) | ENDS},
    [T_PREPARING] = {"preparing", SM_BIT(T_READY) | ENDS},
    [T_READY] = {"ready", SM_BIT(T_STARTING) | ENDS},
    [T_STARTING] = {"starting", SM_BIT(T_RUNNING) | ENDS},
    [T_RUNNING] = {"running", ENDS},
    [T_COMPLETE] = {"complete", 0},
    [T_SHUTDOWN] = {"shutdown", 0},
    [T_FAILED] = {"failed", 0},
    [T_REJECTED] = {"rejected", 0},
};
static const struct {
	Pb__TaskState__E state;
	const char *message;
} shown[T_STATES] = {
    [T_ASSIGNED] = {PB__TASK_STATE__E__ASSIGNED, "scheduler assigned task to node"},
    [T_ACCEPTED] = {PB__TASK_STATE__E__ACCEPTED, "accepted"},
    [T_PREPARING] = {PB__TASK_STATE__E__PREPARING, "preparing"},
    [T_READY] = {PB__TASK_STATE__E__READY, "prepared"},
    [T_STARTING] = {PB__TASK_STATE__E__STARTING, "starting"},
    [T_RUNNING] = {PB__TASK_STATE__E__RUNNING, "started"},
    [T_COMPLETE] = {PB__TASK_STATE__E__COMPLETE, "finished"},
    [T_SHUTDOWN] = {PB__TASK_STATE__E__SHUTDOWN, "shutdown"},
    [T_FAILED] = {PB__TASK_STATE__E__FAILED, NULL}, /* keeps the last phase */
    [T_REJECTED] = {PB__TASK_STATE__E__REJECTED, NULL},
};

static bool is_terminal(const struct task *t)
{
	return t->state.state >= T_COMPLETE;
}

bool task_is_serving(const struct task *t)
{
	return t->state.state == T_RUNNING && !t->removing && !t->stopping &&
	       t->assigned->desired_state <= PB__TASK_STATE__E__RUNNING;
}

/* What the container's record says about process, exit and bound ports. */
static void fill_container_status(struct task *t)
{
	const Pb__Container *c;
	if (!t->container_id || t->state.state < T_STARTING ||
	    engine_find(t->agent->engine, t->container_id, &c, NULL) != 0)
		return;
	Pb__TaskStatus *st = t->status;
	if (!st->container_status)
		st->container_status = PB_NEW(Pb__ContainerStatus, pb__container_status);
	Pb__ContainerStatus *cs = st->container_status;
	pb_set_str(&cs->container_id, c->id);
	cs->has_pid = c->has_pid;
	cs->pid = c->pid;
	cs->has_exit_code = c->has_exit_code;
	cs->exit_code = c->exit_code;
	if (st->port_status || !c->network || !c->network->n_ports)
		return;
	Pb__PortStatus *ps = PB_NEW(Pb__PortStatus, pb__port_status);
	for (size_t i = 0; i < c->network->n_ports; i++) {
		const Pb__ContainerPort *p = c->network->ports[i];
		Pb__PortConfig *pc = PB_NEW(Pb__PortConfig, pb__port_config);
		pc->has_protocol = pc->has_target_port = pc->has_published_port = pc->has_publish_mode = true;
		pc->protocol = p->protocol;
		pc->target_port = p->container_port;
		pc->published_port = p->host_port;
		pc->publish_mode = PB__PUBLISH_MODE__E__HOST;
		pb_add_msg(&ps->ports, &ps->n_ports, pc);
	}
	st->port_status = ps;
}

static void set_state(struct task *t, unsigned next, const char *err)
{
	sm_move(&t->state, next);
	if (t->warned) {
		t->warned = false;
		pb_set_str(&t->status->err, NULL);
	}
	t->status->state = shown[next].state;
	t->status->timestamp = clock_unix_ns(t->agent->clock);
	if (shown[next].message)
		pb_set_str(&t->status->message, shown[next].message);
	if (err)
		pb_set_str(&t->status->err, err);
	fill_container_status(t);
	if (err)
		log_warn("task %s is %s: %s", t->id, sm_name(&t->state), err);
	else
		log_debug("task %s is %s", t->id, sm_name(&t->state));
	agent_task_changed(t->agent, t);
}

void task_warn(struct task *t, const char *err)
{
	if (t->state.state != T_RUNNING || (!err && !t->warned) || (err && str_eq(err, t->status->err)))
		return;
	t->warned = err != NULL;
	pb_set_str(&t->status->err, err);
	t->status->timestamp++; /* news, of a state that is as old as before */
	agent_task_changed(t->agent, t);
}

struct task *task_new(struct agent *a, const Pb__AssignedTask *at, const Pb__Template *tmpl)
{
	struct task *t = NEW(struct task);
	t->agent = a;
	t->id = xstrdup(at->id);
	t->assigned = pb_clone(at);
	t->tmpl = pb_clone(tmpl);
	sm_init(&t->state, states, T_STATES, T_ASSIGNED);
	t->status = PB_NEW(Pb__TaskStatus, pb__task_status);
	t->status->state = PB__TASK_STATE__E__ASSIGNED;
	t->status->timestamp = clock_unix_ns(a->clock);
	/* What the manager heard of an earlier run of this daemon is final. */
	if (at->observed_state >= PB__TASK_STATE__E__COMPLETE) {
		for (unsigned i = T_COMPLETE; i < T_STATES; i++)
			if (shown[i].state == at->observed_state)
				sm_move(&t->state, i);
		if (!is_terminal(t))
			sm_move(&t->state, T_SHUTDOWN);
		t->status->state = at->observed_state;
	}
	return t;
}

void task_free(struct task *t)
{
	if (!t)
		return;
	free(t->id);
	free(t->container_id);
	free(t->pull_err);
	pb_free(t->assigned);
	pb_free(t->tmpl);
	pb_free(t->status);
	free(t);
}

void task_update(struct task *t, const Pb__AssignedTask *at)
{
	pb_free(t->assigned);
	t->assigned = pb_clone(at);
	task_drive(t);
}

void task_remove(struct task *t)
{
	t->removing = true;
	task_drive(t);
}

/* --- how a container ended */

static void ended(struct task *t, const Pb__Container *c)
{
	char text[256];
	if (t->unhealthy) {
		snprintf(text, sizeof(text), "task: non-zero exit (%lld): dockerexec: unhealthy container",
		    (long long)c->exit_code);
		set_state(t, T_FAILED, text);
	} else if (t->stopping) {
		set_state(t, T_SHUTDOWN, NULL);
	} else if (!c->has_exit_code) {
		set_state(t, T_FAILED, "task: the container ended and its exit code is unknown");
	} else if (c->exit_code != 0 || c->oom_killed) {
		snprintf(text, sizeof(text), "task: non-zero exit (%lld)%s", (long long)c->exit_code,
		    c->oom_killed ? ": out of memory" : "");
		set_state(t, T_FAILED, text);
	} else {
		set_state(t, T_COMPLETE, NULL);
	}
}

static bool has_ended(const Pb__Container *c)
{
	return c->status == PB__CONTAINER_STATUS_KIND__E__EXITED ||
	       c->status == PB__CONTAINER_STATUS_KIND__E__DEAD;
}

void task_container_changed(struct task *t, const Pb__Container *c)
{
	if (is_terminal(t) || t->state.state < T_STARTING)
		return;
	if (has_ended(c)) {
		if (!t->busy) /* else the step under way ends by itself and sees it */
			ended(t, c);
	} else if (c->health && t->state.state == T_STARTING && !t->busy &&
		   strcmp(c->health, "healthy") == 0) {
		set_state(t, T_RUNNING, NULL);
	} else if (c->health && strcmp(c->health, "unhealthy") == 0 && !t->stopping) {
		t->unhealthy = true;
	}
	task_drive(t);
}

void task_adopt(struct task *t, const Pb__Container *c)
{
	int64_t since = 0;
	t->container_id = xstrdup(c->id);
	if (is_terminal(t))
		return;
	switch (c->status) {
	case PB__CONTAINER_STATUS_KIND__E__RUNNING:
	case PB__CONTAINER_STATUS_KIND__E__PAUSED:
		t->stopping = c->stop_requested;
		if (c->health && strcmp(c->health, "starting") == 0)
			set_state(t, T_STARTING, NULL);
		else
			set_state(t, T_RUNNING, NULL);
		t->unhealthy = c->health && strcmp(c->health, "unhealthy") == 0;
		since = c->started_at;
		break;
	case PB__CONTAINER_STATUS_KIND__E__EXITED:
	case PB__CONTAINER_STATUS_KIND__E__DEAD:
		t->stopping = c->stop_requested;
		set_state(t, T_STARTING, NULL);
		ended(t, c);
		since = c->finished_at;
		break;
	default: /* made, but never started */
		set_state(t, T_READY, NULL);
		break;
	}
	/* It has been so since then, not since this daemon looked: what the manager knows already is not
	 * news. */
	if (since)
		t->status->timestamp = since;
}

/* --- the steps: while one is under way it holds the agent, which may be closed meanwhile */

static void step_begins(struct task *t)
{
	t->busy = true;
	t->agent->refs++;
}

static void step_undone(struct task *t)
{
	t->busy = false;
	t->agent->refs--;
}

/* False when the agent has closed: the task is gone. */
static bool step_ended(struct task *t)
{
	struct agent *a = t->agent;
	bool dead = a->dead;
	step_undone(t);
	if (!dead)
		return true;
	task_free(t);
	agent_unref(a);
	return false;
}

static void on_created(void *data, const struct err *e)
{
	struct task *t = data;
	if (!step_ended(t))
		return;
	if (e->code) {
		free(TAKE_PTR(t->container_id));
		if (!is_terminal(t))
			set_state(t, T_REJECTED, e->text);
	} else if (!is_terminal(t)) {
		set_state(t, T_READY, NULL);
	}
	task_drive(t);
}

static void make_container(struct task *t, const struct image *im)
{
	struct err e = ERR_INIT;
	Pb__ContainerConfig *cfg = NULL;
	struct task_config_in in = {.task = t->assigned,
	    .tmpl = t->tmpl,
	    .image = im,
	    .node_id = t->agent->node_id,
	    .node = t->agent->description};
	char id[65];
	if (task_config_make(&in, &cfg, &e) == 0 &&
	    engine_create(t->agent->engine, cfg, t->id, on_created, t, id, &e) == 0) {
		t->container_id = xstrdup(id);
		step_begins(t);
		return;
	}
	set_state(t, T_REJECTED, e.text);
}

static const Pb__ContainerSpec *spec_of(const struct task *t)
{
	return t->tmpl->spec->container_spec;
}

static void on_pulled(void *data, const char *image_id, const struct err *e)
{
	struct task *t = data;
	(void)image_id;
	if (!step_ended(t))
		return;
	t->pull = NULL;
	free(TAKE_PTR(t->pull_err));
	if (e->code)
		t->pull_err = xstrdup(e->text);
	struct image *im = NULL;
	struct err fe = ERR_INIT;
	if (!is_terminal(t) && t->assigned->desired_state <= PB__TASK_STATE__E__COMPLETE && !t->removing) {
		/* A failed pull does not matter when the image is here. */
		if (images_find(t->agent->images, spec_of(t)->image, &im, &fe) == 0) {
			if (e->code)
				log_warn("task %s: pulling %s failed (%s); the image that is here is used",
				    t->id, spec_of(t)->image, e->text);
			make_container(t, im);
			image_unref(im);
		} else {
			/* "No such image: X", and why it could not be pulled. */
			CLEANUP_FREE char *both = xasprintf("%s: %s", fe.text, e->text);
			set_state(t, T_REJECTED, e->code ? both : fe.text);
		}
	}
	task_drive(t);
}

/* An image named by digest that is here is that image; one named by tag is looked for at its registry first,
 * as Swarm does, unless it was only ever loaded here. */
static void prepare(struct task *t)
{
	struct err e = ERR_INIT;
	struct image *im = NULL;
	const char *ref = spec_of(t)->image;
	if (images_find(t->agent->images, ref, &im, &e) == 0) {
		bool local = im->repo_digests.n == 0 || strstr(ref, "@sha256:") != NULL ||
			     str_has_prefix(ref, "sha256:");
		if (local) {
			make_container(t, im);
			image_unref(im);
			return;
		}
		image_unref(im);
	}
	struct err pe = ERR_INIT;
	if (images_pull(
		t->agent->images, ref, spec_of(t)->registry_auth, NULL, on_pulled, t, &t->pull, &pe) == 0)
		step_begins(t);
	else
		set_state(t, T_REJECTED, pe.text);
}

static void on_started(void *data, const struct err *e)
{
	struct task *t = data;
	const Pb__Container *c = NULL;
	if (!step_ended(t))
		return;
	if (!is_terminal(t)) {
		if (e->code) {
			set_state(t, T_FAILED, e->text);
		} else if (engine_find(t->agent->engine, t->container_id, &c, NULL) != 0) {
			set_state(t, T_FAILED, "task: the container is gone");
		} else if (has_ended(c)) {
			ended(t, c);
		} else if (!c->health || strcmp(c->health, "healthy") == 0) {
			set_state(t, T_RUNNING, NULL);
		}
	}
	task_drive(t);
}

static void start(struct task *t)
{
	struct err e = ERR_INIT;
	set_state(t, T_STARTING, NULL);
	step_begins(t);
	if (engine_start(t->agent->engine, t->container_id, on_started, t, &e) != 0) {
		step_undone(t);
		set_state(t, T_FAILED, e.text);
	}
}

static void on_stopped(void *data, const struct err *e)
{
	struct task *t = data;
	const Pb__Container *c = NULL;
	if (!step_ended(t))
		return;
	if (!is_terminal(t)) {
		if (engine_find(t->agent->engine, t->container_id, &c, NULL) == 0 && has_ended(c))
			ended(t, c);
		else if (e->code)
			set_state(t, T_FAILED, e->text);
		else
			set_state(t, T_SHUTDOWN, NULL);
	}
	task_drive(t);
}

static void stop(struct task *t)
{
	struct err e = ERR_INIT;
	t->stopping = true;
	agent_task_changed(t->agent, t); /* leaves the published ports first */
	step_begins(t);
	if (engine_stop(t->agent->engine, t->container_id, NULL, -1, on_stopped, t, &e) != 0) {
		step_undone(t);
		set_state(t, T_FAILED, e.text);
	}
}

static void on_removed(void *data, const struct err *e)
{
	struct task *t = data;
	if (!step_ended(t))
		return;
	if (e->code && e->code != ERR_NOT_FOUND)
		log_error(
		    "task %s: its container %s could not be removed: %s", t->id, t->container_id, e->text);
	free(TAKE_PTR(t->container_id));
	task_drive(t);
}

/* Returns true when a removal is under way. */
static bool remove_container(struct task *t)
{
	struct err e = ERR_INIT;
	if (!t->container_id)
		return false;
	step_begins(t);
	if (engine_remove(t->agent->engine, t->container_id, true, on_removed, t, &e) == 0)
		return true;
	step_undone(t);
	if (e.code != ERR_NOT_FOUND)
		log_error(
		    "task %s: its container %s could not be removed: %s", t->id, t->container_id, e.text);
	free(TAKE_PTR(t->container_id));
	return false;
}

static bool wants_stop(const struct task *t)
{
	return t->removing || t->unhealthy || t->assigned->desired_state > PB__TASK_STATE__E__COMPLETE;
}

void task_drive(struct task *t)
{
	for (;;) {
		if (t->busy) {
			if (wants_stop(t) && t->pull)
				image_op_cancel(t->pull);
			return;
		}
		if (is_terminal(t)) {
			if (t->removing && !remove_container(t))
				agent_task_gone(t->agent, t); /* frees t */
			return;
		}
		if (wants_stop(t)) {
			if (t->state.state >= T_STARTING) {
				stop(t);
			} else if (!remove_container(
				       t)) { /* made but never started: nothing to look at later */
				set_state(t, T_SHUTDOWN, NULL);
			}
			continue;
		}
		switch (t->state.state) {
		case T_ASSIGNED:
			set_state(t, T_ACCEPTED, NULL);
			continue;
		case T_ACCEPTED:
			set_state(t, T_PREPARING, NULL);
			continue;
		case T_PREPARING:
			prepare(t);
			continue;
		case T_READY:
			if (t->assigned->desired_state < PB__TASK_STATE__E__RUNNING)
				return;
			start(t);
			continue;
		default:
			return; /* STARTING waits for health, RUNNING for its end */
		}
	}
}
