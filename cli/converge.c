/* Progress of a service towards its spec (API contract §3.3). Each tick reads the service, its up-to-date
 * tasks and the nodes, and counts. The first tick that finds everything running begins a period in which it
 * must stay so (the spec's monitor period); a task that fails meanwhile begins it anew. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/converge.h"
#include "cli/out.h"
#include "cli/progress.h"

#define FIRST_TICK_NS   (10 * 1000000L) /* services of one node are up within a few of these */
#define LAST_TICK_NS    (200 * 1000000L)
#define DEFAULT_MONITOR INT64_C(5000000000)
#define MAX_BARS        20

struct wait {
	struct cli *c;
	const char *service; /* as given */
	char *id;            /* escaped */
	struct progress progress;
	json_t *object, *tasks, *nodes; /* of this tick */
	struct strmap active;           /* node ids */
	bool rollback, converged, verifying, job;
	char *rolled;  /* the message of a rollback that is complete */
	int64_t since; /* converged since, ns */
	size_t done, want;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
	(void)signum;
	interrupted = 1;
}

static const char *const states[] = {
    "new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"};

/* 1 to 9 on the way to running, 0 for what has ended. */
static unsigned step(const char *state)
{
	for (unsigned i = 0; i < ARRAY_LEN(states); i++)
		if (str_eq(states[i], state))
			return i + 1;
	return 0;
}

/* Orders observed or desired states; -1 for those that do not count. */
static int order(const char *state)
{
	static const char *const ended[] = {"complete", "shutdown", "failed", "rejected"};
	unsigned s = step(state);
	if (s)
		return (int)s;
	for (int i = 0; i < (int)ARRAY_LEN(ended); i++)
		if (str_eq(ended[i], state))
			return 10 + i;
	return -1;
}

static bool on_active_node(const struct wait *w, const json_t *t)
{
	return !*jstr(t, "NodeID") || strmap_has(&w->active, jstr(t, "NodeID"));
}

static bool is_running(const json_t *t)
{
	return str_eq(jstr(t, "Status.State"), "running") && order(jstr(t, "DesiredState")) <= 9 &&
	       order(jstr(t, "DesiredState")) >= 0;
}

/* --- reading ------------------------------------------------------------------------------------- */

static void forget(struct wait *w)
{
	json_decref(w->object);
	json_decref(w->tasks);
	json_decref(w->nodes);
	w->object = w->tasks = w->nodes = NULL;
	strmap_done(&w->active);
}

static int read_state(struct wait *w, struct err *e)
{
	forget(w);
	int r = api_get(w->c, &w->object, e, "/services/%s?insertDefaults=false", w->id);
	if (r < 0)
		return r;
	json_t *fixed = json_pack("{s:[s], s:[s]}", "service", jstr(w->object, "ID"), "_up-to-date", "true");
	CLEANUP_FREE char *filters = NULL;
	r = api_filters(NULL, fixed, &filters, e);
	json_decref(fixed);
	if (r < 0 || (r = api_get(w->c, &w->tasks, e, "/tasks?%s", filters + 1)) < 0 ||
	    (r = api_get(w->c, &w->nodes, e, "/nodes")) < 0)
		return r;
	size_t i;
	json_t *n;
	json_array_foreach(w->nodes, i, n) if (!str_eq(jstr(n, "Status.State"), "down"))
	    strmap_put(&w->active, jstr(n, "ID"), n);
	return 0;
}

/* --- counting: sets done and want, and tells the progress of each slot or node ------------------- */

static void show(struct wait *w, size_t number, const json_t *t, const char *name)
{
	const char *state = t ? jstr(t, "Status.State") : "", *error = t ? jstr(t, "Status.Err") : "";
	if (w->want > MAX_BARS)
		return;
	char label[40];
	if (name)
		snprintf(label, sizeof(label), "%.12s", name);
	else
		snprintf(label, sizeof(label), "%zu/%zu", number, w->want);
	progress_item(
	    &w->progress, label, *error ? error : state, *error ? 0 : step(state), ARRAY_LEN(states));
}

/* Which of two tasks of one slot counts. */
static bool better(const json_t *a, const json_t *b)
{
	int d = order(jstr(a, "DesiredState")) - order(jstr(b, "DesiredState"));
	return d ? d < 0 : order(jstr(a, "Status.State")) < order(jstr(b, "Status.State"));
}

/* The task that stands for each key (slot or node), in the order of `keys` (sorted). */
static void choose(const struct wait *w, bool by_node, struct strmap *ret, struct strlist *keys)
{
	size_t i;
	json_t *t;
	json_array_foreach(w->tasks, i, t)
	{
		char slot[24];
		snprintf(slot, sizeof(slot), "%06lld", (long long)jint(t, "Slot"));
		const char *key = by_node ? jstr(t, "NodeID") : slot;
		if (order(jstr(t, "DesiredState")) < 0 || order(jstr(t, "Status.State")) < 0 ||
		    !on_active_node(w, t) || !*key)
			continue;
		json_t *other = strmap_get(ret, key);
		if (!other)
			strlist_add(keys, key);
		if (!other || better(t, other))
			strmap_put(ret, key, t);
	}
	strlist_sort(keys);
}

static void count_replicated(struct wait *w)
{
	struct strmap slots = STRMAP_INIT;
	CLEANUP_STRLIST struct strlist keys = STRLIST_INIT;
	choose(w, false, &slots, &keys);
	w->want = (size_t)jint(w->object, "Spec.Mode.Replicated.Replicas");
	for (size_t i = 0; i < keys.n; i++) {
		const json_t *t = strmap_get(&slots, keys.v[i]);
		w->done += is_running(t);
		if (i < w->want)
			show(w, i + 1, t, NULL);
	}
	w->converged = w->done == w->want;
	strmap_done(&slots);
}

static void count_global(struct wait *w)
{
	struct strmap nodes = STRMAP_INIT;
	CLEANUP_STRLIST struct strlist keys = STRLIST_INIT;
	choose(w, true, &nodes, &keys);
	w->want = keys.n;
	for (size_t i = 0; i < keys.n; i++) {
		const json_t *t = strmap_get(&nodes, keys.v[i]);
		w->done += is_running(t);
		show(w, i + 1, t, keys.v[i]);
	}
	w->converged = keys.n > 0 && w->done == w->want;
	strmap_done(&nodes);
}

/* Jobs: the tasks of the running iteration that are complete. */
static void count_job(struct wait *w, bool global)
{
	int64_t iteration = jint(w->object, "JobStatus.JobIteration.Index");
	size_t i, seen = 0;
	json_t *t;
	w->job = true;
	w->want = global ? 0 : (size_t)jint(w->object, "Spec.Mode.ReplicatedJob.TotalCompletions");
	json_array_foreach(w->tasks, i, t)
	{
		if (jint(t, "JobIteration.Index") != iteration)
			continue;
		seen++;
		w->done += str_eq(jstr(t, "Status.State"), "complete");
		if (global && on_active_node(w, t) && order(jstr(t, "DesiredState")) <= 10)
			w->want++;
	}
	w->converged = w->done >= w->want && (seen || !w->want) && (seen || !global);
}

static void count(struct wait *w)
{
	w->done = w->want = 0;
	if (jpath(w->object, "Spec.Mode.Global"))
		count_global(w);
	else if (jpath(w->object, "Spec.Mode.ReplicatedJob"))
		count_job(w, false);
	else if (jpath(w->object, "Spec.Mode.GlobalJob"))
		count_job(w, true);
	else
		count_replicated(w);
	progress_total(&w->progress, w->done, w->want, w->job);
}

/* --- the end ------------------------------------------------------------------------------------- */

enum verdict { GO_ON, SUCCESS, FAILURE };

/* What an update's own state says, before tasks are looked at. */
static enum verdict check_update(struct wait *w)
{
	const char *state = jstr(w->object, "UpdateStatus.State"),
		   *message = jstr(w->object, "UpdateStatus.Message");
	if (str_eq(state, "updating")) {
		w->rollback = false;
	} else if (str_eq(state, "completed")) {
		if (!w->converged)
			return SUCCESS;
	} else if (str_eq(state, "paused")) {
		progress_end(&w->progress);
		cli_warn("service update paused: %s", message);
		return FAILURE;
	} else if (str_eq(state, "rollback_started")) {
		if (!w->rollback && *message)
			progress_note(&w->progress, message);
		w->rollback = true;
	} else if (str_eq(state, "rollback_paused")) {
		progress_end(&w->progress);
		cli_warn("service rollback paused: %s", message);
		return FAILURE;
	} else if (str_eq(state, "rollback_completed")) {
		free(w->rolled);
		w->rolled = xstrdup(message);
		w->rollback = true;
	}
	return GO_ON;
}

static int64_t monotonic(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static bool check_stable(struct wait *w)
{
	if (!w->converged) {
		if (w->verifying)
			progress_verify(&w->progress, "verify: Detected task failure");
		w->verifying = false;
		w->since = 0;
		return false;
	}
	if (w->job) {
		progress_verify(&w->progress, "job complete");
		return true;
	}
	int64_t monitor = jint(w->object, "Spec.UpdateConfig.Monitor"), now = monotonic();
	monitor = monitor ? monitor : DEFAULT_MONITOR;
	if (!w->since)
		w->since = now;
	int64_t left = w->since + monitor - now;
	char text[160];
	if (left <= 0) {
		snprintf(text, sizeof(text), "verify: Service %.80s converged", w->service);
		progress_verify(&w->progress, text);
		return true;
	}
	if (!w->verifying || w->c->err_tty || w->c->out_tty) {
		snprintf(text, sizeof(text),
		    "verify: Waiting %lld seconds to verify that tasks are stable...",
		    (long long)((left + 999999999) / 1000000000));
		progress_verify(&w->progress, text);
	}
	w->verifying = true;
	return false;
}

static int loop(struct wait *w, struct err *e)
{
	long tick = FIRST_TICK_NS;
	for (;;) {
		int r = read_state(w, e);
		if (r < 0)
			return r;
		switch (check_update(w)) {
		case SUCCESS:
			count(w);
			progress_draw(&w->progress);
			return 0;
		case FAILURE:
			return 1;
		case GO_ON:
			break;
		}
		count(w);
		bool end = check_stable(w);
		progress_draw(&w->progress);
		if (end) {
			if (w->rolled)
				cli_warn("service rolled back: %s", w->rolled);
			return w->rollback ? 1 : 0;
		}
		nanosleep(&(struct timespec){.tv_nsec = tick}, NULL);
		tick = tick * 2 > LAST_TICK_NS ? LAST_TICK_NS : tick * 2;
		if (interrupted)
			return 130;
	}
}

int converge_wait(struct cli *c, const char *service, bool quiet, struct err *e)
{
	struct wait w = {.c = c, .service = service, .id = api_escape(service)};
	progress_init(&w.progress, !quiet, c->out_tty);
	struct sigaction act = {.sa_handler = on_interrupt}, old;
	sigaction(SIGINT, &act, &old);
	int r = loop(&w, e);
	sigaction(SIGINT, &old, NULL);
	progress_end(&w.progress);
	if (r == 130)
		cli_warn("Operation continuing in background.\nUse 'shoal service ps %s' to check progress.",
		    service);
	progress_done(&w.progress);
	forget(&w);
	free(w.rolled);
	free(w.id);
	return r;
}
