/* Health checks: a command in the container at intervals; its exit code decides.
 *
 *   starting   until the first success, or `retries` failures that count (those within the start period do
 * not) healthy    until `retries` failures in a row unhealthy  until a success
 *
 * A check that takes longer than its timeout is killed and has failed. The last results are kept in memory
 * for inspection; the status is in the record, and a change of it is told through `changed` and an event. */
#include "agent/engine.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#define DEFAULT_INTERVAL       (30 * NS_PER_SEC)
#define DEFAULT_TIMEOUT        (30 * NS_PER_SEC)
#define DEFAULT_START_INTERVAL (5 * NS_PER_SEC)
#define DEFAULT_RETRIES        3
#define KEEP                   5
#define OUTPUT_MAX             4096

/* One run of the check. It outlives the health struct when that is stopped while the exec is being started.
 */
struct probe {
	struct health *h;
	struct engine *g;
	char exec_id[ID_HEX_LEN + 1];
	bool started, timed_out;
	int64_t begun;
	struct timer *timeout;
	struct buf output;
};

struct health {
	struct ctr *c;
	struct timer *timer;
	struct probe *probe;
	unsigned streak;
	Pb__HealthResult *log[KEEP];
	size_t n_log;
};

static void on_due(void *data);

static int64_t or_default(bool has, int64_t v, int64_t dflt)
{
	return has && v > 0 ? v : dflt;
}

static const Pb__HealthConfig *config_of(const struct health *h)
{
	return h->c->rec->config->healthcheck;
}

static bool in_start_period(const struct health *h)
{
	const Pb__HealthConfig *k = config_of(h);
	return k->has_start_period && clock_unix_ns(h->c->g->clock) - h->c->rec->started_at < k->start_period;
}

static void schedule(struct health *h)
{
	const Pb__HealthConfig *k = config_of(h);
	int64_t ns = or_default(k->has_interval, k->interval, DEFAULT_INTERVAL);
	if (str_eq(h->c->rec->health, "starting") && in_start_period(h))
		ns = or_default(k->has_start_interval, k->start_interval, DEFAULT_START_INTERVAL);
	timer_start(h->timer, (uint64_t)(ns / NS_PER_MSEC) + 1);
}

static void set_status(struct health *h, const char *status)
{
	struct ctr *c = h->c;
	if (str_eq(c->rec->health, status))
		return;
	pb_set_str(&c->rec->health, status);
	char action[64];
	snprintf(action, sizeof(action), "health_status: %s", status);
	ctr_event(c, action, NULL);
	ctr_changed(c); /* may stop or remove the container: h is not touched after this */
}

static void add_result(struct health *h, int64_t start, int64_t exit_code, const char *output)
{
	Pb__HealthResult *r = PB_NEW(Pb__HealthResult, pb__health_result);
	r->start = start;
	r->end = clock_unix_ns(h->c->g->clock);
	r->exit_code = (int32_t)exit_code;
	pb_set_str(&r->output, output);
	if (h->n_log == KEEP) {
		pb_free(h->log[0]);
		memmove(h->log, h->log + 1, (KEEP - 1) * sizeof(h->log[0]));
		h->n_log--;
	}
	h->log[h->n_log++] = r;
}

static void take_result(struct health *h, int64_t start, int64_t exit_code, const char *output)
{
	const Pb__HealthConfig *k = config_of(h);
	int64_t retries = or_default(k->has_retries, k->retries, DEFAULT_RETRIES);
	add_result(h, start, exit_code, output);
	const char *status = NULL;
	if (exit_code == 0) {
		h->streak = 0;
		status = "healthy";
	} else if (!(str_eq(h->c->rec->health, "starting") && in_start_period(h))) {
		h->streak++;
		if (h->streak >= retries)
			status = "unhealthy";
	}
	schedule(h);
	if (status)
		set_status(h, status);
}

/* --- one check */

static void probe_free(struct probe *p)
{
	timer_free(p->timeout);
	buf_done(&p->output);
	free(p);
}

static void probe_result(struct probe *p, int64_t exit_code, const char *output)
{
	struct health *h = p->h;
	int64_t begun = p->begun;
	h->probe = NULL;
	take_result(h, begun, exit_code, output);
	probe_free(p);
}

static void on_output(void *data, int stream, const uint8_t *bytes, size_t n)
{
	struct probe *p = data;
	(void)stream;
	size_t room = OUTPUT_MAX - p->output.len;
	buf_append(&p->output, bytes, n < room ? n : room);
}

static void on_ended(void *data, const struct err *e)
{
	struct probe *p = data;
	struct exec_info info;
	int64_t code = EXIT_UNKNOWN;
	(void)e;
	if (exec_inspect(p->g, p->exec_id, &info, NULL) == 0)
		code = info.exit_code;
	if (p->timed_out) {
		const Pb__HealthConfig *k = config_of(p->h);
		char took[40], text[128];
		str_format_duration(
		    or_default(k->has_timeout, k->timeout, DEFAULT_TIMEOUT), took, sizeof(took));
		snprintf(text, sizeof(text), "Health check exceeded timeout (%s)", took);
		probe_result(p, -1, text);
		return;
	}
	buf_append(&p->output, "", 0);
	probe_result(p, code, p->output.data ? p->output.data : "");
}

static void on_started(void *data, const struct err *e)
{
	struct probe *p = data;
	if (!p->h) { /* stopped meanwhile */
		if (e->code == 0) {
			exec_detach(p->g, p->exec_id);
			exec_kill(p->g, p->exec_id, SIGKILL, NULL);
		}
		probe_free(p);
		return;
	}
	p->started = true;
	if (e->code)
		probe_result(p, p->timed_out ? -1 : 126, e->text);
}

static void on_timeout(void *data)
{
	struct probe *p = data;
	p->timed_out = true;
	exec_kill(p->g, p->exec_id, SIGKILL, NULL);
}

static void on_due(void *data)
{
	struct health *h = data;
	struct ctr *c = h->c;
	const Pb__HealthConfig *k = config_of(h);
	if (h->probe || c->rec->status != ST_RUNNING) { /* paused: nothing can be asked */
		schedule(h);
		return;
	}
	static const char *const shell[] = {"/bin/sh", "-c"};
	CLEANUP_FREE char **cmd = xcalloc(k->n_test + 3, sizeof(*cmd));
	size_t n = 0;
	if (str_eq(k->test[0], "CMD-SHELL"))
		for (size_t i = 0; i < ARRAY_LEN(shell); i++)
			cmd[n++] = (char *)(uintptr_t)shell[i];
	for (size_t i = 1; i < k->n_test; i++)
		cmd[n++] = k->test[i];
	const struct exec_config xc = {.cmd = cmd, .attach_stdout = true, .attach_stderr = true};
	struct probe *p = NEW(struct probe);
	const struct exec_stdio io = {.output = on_output, .ended = on_ended, .data = p};
	struct err e = ERR_INIT;
	p->h = h;
	p->g = c->g;
	p->begun = clock_unix_ns(c->g->clock);
	p->timeout = timer_new(c->g->loop, on_timeout, p);
	h->probe = p;
	if (exec_create(c->g, c->rec->id, &xc, p->exec_id, &e) < 0 ||
	    exec_start(c->g, p->exec_id, &io, 0, 0, on_started, p, &e) < 0) {
		probe_result(p, 126, e.text);
		return;
	}
	timer_start(p->timeout,
	    (uint64_t)(or_default(k->has_timeout, k->timeout, DEFAULT_TIMEOUT) / NS_PER_MSEC) + 1);
}

/* --- the container's */

void health_start(struct ctr *c, bool restored)
{
	const Pb__HealthConfig *k = c->rec->config->healthcheck;
	if (c->health || !k || k->n_test < 1 || str_eq(k->test[0], "NONE"))
		return;
	bool known = k->n_test >= 2 && (str_eq(k->test[0], "CMD") || str_eq(k->test[0], "CMD-SHELL"));
	if (!known)
		return;
	struct health *h = NEW(struct health);
	h->c = c;
	h->timer = timer_new(c->g->loop, on_due, h);
	c->health = h;
	if (!restored || str_empty(c->rec->health)) {
		pb_set_str(&c->rec->health, "starting");
		ctr_store(c);
	}
	schedule(h);
}

void health_stop(struct ctr *c)
{
	struct health *h = TAKE_PTR(c->health);
	if (!h)
		return;
	struct probe *p = h->probe;
	if (p) {
		p->h = NULL;
		timer_stop(p->timeout);
		if (p->started) {
			exec_detach(p->g, p->exec_id);
			exec_kill(p->g, p->exec_id, SIGKILL, NULL);
			probe_free(p);
		}
	}
	timer_free(h->timer);
	for (size_t i = 0; i < h->n_log; i++)
		pb_free(h->log[i]);
	free(h);
}

bool engine_health(struct engine *g, const char *id, struct health_info *ret)
{
	struct ctr *c = engine_ctr(g, id, NULL);
	if (!c || !c->health)
		return false;
	ret->status = str_or(c->rec->health, "starting");
	ret->failing_streak = c->health->streak;
	ret->log = (const Pb__HealthResult *const *)c->health->log;
	ret->n_log = c->health->n_log;
	return true;
}
