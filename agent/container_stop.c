/* Stopping, killing, pausing: signals to a container's first process.
 *
 * Signals go through a pidfd that was checked against the process' start time, so they never reach a
 * stranger. A stop sends its signal, waits for the grace period, then kills; should conmon not end even then,
 * it is killed as well and the exit is unknown. */
#include "agent/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#define STUCK_MS 10000 /* from SIGKILL until conmon is taken for stuck */

int ctr_signal(struct ctr *c, int sig, struct err *e)
{
	const Pb__Container *rec = c->rec;
	int fd = spawn_pidfd((pid_t)rec->pid, rec->pid_start_time);
	if (fd < 0)
		return 0; /* it has ended and conmon is about to say so */
	int r = spawn_signal(fd, sig);
	close(fd);
	if (r < 0 && r != -ESRCH)
		return err_errno(e, -r, "sending signal %d to container %.12s", sig, rec->id);
	return 0;
}

static void event_kill(struct ctr *c, int sig)
{
	char text[16];
	snprintf(text, sizeof(text), "%d", sig);
	const char *const attrs[] = {"signal", text, NULL};
	ctr_event(c, "kill", attrs);
}

/* A frozen process takes no signal. */
static void thaw(struct ctr *c)
{
	struct err e = ERR_INIT;
	if (c->rec->status != ST_PAUSED)
		return;
	if (cgroup_freeze(c->g->cgroups, c->rec->id, false, &e) < 0)
		log_warn("a paused container cannot be thawed id=%.12s error=\"%s\"", c->rec->id, e.text);
	c->rec->status = ST_RUNNING;
	ctr_changed(c);
}

/* --- stop */

static void on_kill_timer(void *data)
{
	struct ctr *c = data;
	if (!ctr_is_running(c))
		return;
	if (!c->killed) {
		c->killed = true;
		event_kill(c, SIGKILL);
		ctr_signal(c, SIGKILL, NULL);
		timer_start(c->kill_timer, STUCK_MS);
	} else if (c->conmon) {
		log_warn("a container's monitor does not end and is killed id=%.12s", c->rec->id);
		spawn_signal(fd_watch_fd(c->conmon), SIGKILL);
	}
}

static void begin_kill(struct ctr *c, uint64_t ms)
{
	if (!c->kill_timer)
		c->kill_timer = timer_new(c->g->loop, on_kill_timer, c);
	timer_start(c->kill_timer, ms);
}

static int stop_signal_of(const struct ctr *c)
{
	int sig = SIGTERM;
	if (!str_empty(c->rec->config->stop_signal))
		oci_signal_parse(c->rec->config->stop_signal, &sig, NULL);
	return sig;
}

static void begin_stop(struct ctr *c, int sig, int64_t grace_ns)
{
	if (!c->rec->stop_requested) {
		c->rec->has_stop_requested = c->rec->stop_requested = true;
		ctr_store(c);
	}
	thaw(c);
	if (c->killed)
		return;
	c->killed = sig == SIGKILL;
	event_kill(c, sig);
	ctr_signal(c, sig, NULL);
	begin_kill(c, c->killed ? STUCK_MS : grace_ns <= 0 ? 0 : (uint64_t)(grace_ns / NS_PER_MSEC));
}

void ctr_stop_continue(struct ctr *c)
{
	if (!c->stops || c->starting)
		return;
	if (!ctr_is_running(c)) {
		callbacks_call(&c->stops, NULL);
		return;
	}
	begin_stop(c, stop_signal_of(c),
	    c->rec->config->has_stop_grace_period ? c->rec->config->stop_grace_period : DEFAULT_GRACE_NS);
}

int engine_stop(struct engine *g, const char *id, const char *signal_name, int64_t grace_ns, engine_cb cb,
    void *data, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	int sig = 0;
	if (!c)
		return err_copy(e, &local);
	if (g->closing)
		return err_set(e, ERR_UNAVAILABLE, "the engine is closing");
	if (signal_name && oci_signal_parse(signal_name, &sig, e) < 0)
		return ERR_INVALID;
	if (!ctr_is_running(c) && !c->starting) {
		engine_defer(g, cb, data, NULL);
		return 0;
	}
	callback_add(&c->stops, cb, data);
	if (c->starting)
		return 0; /* goes on when it runs, with the container's own signal and grace */
	if (grace_ns < 0)
		grace_ns = c->rec->config->has_stop_grace_period ? c->rec->config->stop_grace_period
								 : DEFAULT_GRACE_NS;
	begin_stop(c, sig ? sig : stop_signal_of(c), grace_ns);
	return 0;
}

int engine_kill(struct engine *g, const char *id, const char *signal_name, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	int sig = SIGKILL;
	if (!c)
		return err_copy(e, &local);
	if (!str_empty(signal_name) && oci_signal_parse(signal_name, &sig, e) < 0)
		return ERR_INVALID;
	if (!ctr_is_running(c))
		return err_set(e, ERR_CONFLICT, "Cannot kill container: %s: Container %s is not running", id,
		    c->rec->id);
	if (sig == SIGKILL)
		thaw(c);
	int r = ctr_signal(c, sig, e);
	if (r == 0)
		event_kill(c, sig);
	return r;
}

/* --- pause */

struct pause_job {
	struct engine *g;
	char *id;
	bool pause;
	engine_cb cb;
	void *data;
	struct err err;
};

static void pause_work(void *data)
{
	struct pause_job *j = data;
	cgroup_freeze(j->g->cgroups, j->id, j->pause, &j->err);
}

static void pause_done(void *data)
{
	struct pause_job *j = data;
	struct engine *g = j->g;
	struct ctr *c = strmap_get(&g->by_id, j->id);
	if (c && ctr_is_running(c) && j->err.code == 0) {
		c->rec->status = j->pause ? ST_PAUSED : ST_RUNNING;
		ctr_event(c, j->pause ? "pause" : "unpause", NULL);
		ctr_changed(c);
	}
	if (j->cb)
		j->cb(j->data, &j->err);
	free(j->id);
	free(j);
	engine_pending_done(g);
}

int engine_pause(struct engine *g, const char *id, bool pause, engine_cb cb, void *data, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	if (!ctr_is_running(c))
		return err_set(e, ERR_CONFLICT, "Container %s is not running", c->rec->id);
	if (pause && c->rec->status == ST_PAUSED)
		return err_set(e, ERR_CONFLICT, "Container %s is already paused", c->rec->id);
	if (!pause && c->rec->status != ST_PAUSED)
		return err_set(e, ERR_CONFLICT, "Container %s is not paused", c->rec->id);
	struct pause_job *j = NEW(struct pause_job);
	j->g = g;
	j->id = xstrdup(c->rec->id);
	j->pause = pause;
	j->cb = cb;
	j->data = data;
	g->pending++;
	loop_work(g->loop, pause_work, pause_done, j);
	return 0;
}
