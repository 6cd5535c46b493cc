/* The end of a container.
 *
 * conmon waits for the container, drains its output, writes the exit file and ends; that end is what is
 * watched (pidfd), so the exit file is complete when we look. Whether memory ran out is asked of the control
 * group before it is removed. A conmon that was killed leaves no exit file: what is left of the container is
 * killed, and the exit code stays unknown.
 *
 * Everybody is told first; control groups, network, runtime state and bundle go afterwards, in a worker,
 * because the kernel takes its time with control groups and namespaces. */
#include "agent/engine.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

int64_t ctr_read_exit_file(const struct engine *g, const char *id)
{
	CLEANUP_FREE char *path = fs_path(g->exits_dir, id);
	CLEANUP_BUF struct buf b = BUF_INIT;
	int64_t code;
	if (fs_read(path, 64, &b, NULL) < 0 || str_parse_i64(str_or(b.data, ""), &code, NULL) < 0 ||
	    code < 0 || code > 255)
		return EXIT_UNKNOWN;
	return code;
}

static bool was_oom(const struct ctr *c)
{
	CLEANUP_FREE char *bundle = ctr_bundle(c->g, c->rec->id);
	CLEANUP_FREE char *mark = fs_path(bundle, "oom");
	return cgroup_oom_kills(c->g->cgroups, c->rec->id) > 0 || fs_exists(mark);
}

/* --- waiting */

static void unlink_wait(struct engine_wait *w)
{
	for (struct engine_wait **at = &w->c->waits; *at; at = &(*at)->next)
		if (*at == w) {
			*at = w->next;
			return;
		}
}

void ctr_waits_call(struct ctr *c, char event, int64_t code, const struct err *e)
{
	struct err none = ERR_INIT;
	struct engine_wait **at = &c->waits, *due = NULL, **tail = &due;
	while (*at) {
		struct engine_wait *w = *at;
		bool match = event == 'r' || w->condition != 'r';
		if (!match || w->due) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = NULL;
		w->c = NULL;
		*tail = w;
		tail = &w->next;
	}
	while (due) {
		struct engine_wait *w = due;
		due = w->next;
		if (!w->cancelled)
			w->cb(w->data, code, e ? e : &none);
		free(w);
	}
}

void ctr_waits_fail(struct ctr *c)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_CANCELLED, "the engine was closed");
	ctr_waits_call(c, 'r', EXIT_UNKNOWN, &e);
}

static void wait_due(void *data)
{
	struct engine_wait *w = data;
	if (w->c)
		unlink_wait(w);
	if (!w->cancelled)
		w->cb(w->data, w->exit_code, &w->err);
	free(w);
}

static int64_t exit_of(const Pb__Container *rec, struct err *e)
{
	if (rec->exit_unknown)
		err_set(e, ERR_INTERNAL, "nobody recorded how the container ended");
	return rec->has_exit_code ? rec->exit_code : rec->exit_unknown ? EXIT_UNKNOWN : 0;
}

int engine_wait(struct engine *g, const char *id, const char *condition, engine_wait_cb cb, void *data,
    struct engine_wait **ret, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	const char *cond = str_or(condition, "not-running");
	if (!c)
		return err_copy(e, &local);
	char kind = str_eq(cond, "not-running") ? 'n'
		    : str_eq(cond, "next-exit") ? 'e'
		    : str_eq(cond, "removed")   ? 'r'
						: 0;
	if (!kind)
		return err_set(e, ERR_INVALID, "invalid condition: \"%s\"", cond);
	struct engine_wait *w = NEW(struct engine_wait);
	w->c = c;
	w->condition = kind;
	w->cb = cb;
	w->data = data;
	if (kind == 'n' && !ctr_is_running(c) && !c->starting) {
		w->c = NULL;
		w->due = true;
		w->exit_code = exit_of(c->rec, &w->err);
		loop_defer(g->loop, wait_due, w);
	} else {
		w->next = c->waits;
		c->waits = w;
	}
	*ret = w;
	return 0;
}

void engine_wait_cancel(struct engine_wait *w)
{
	w->cancelled = true;
	if (w->due || !w->c)
		return; /* freed where it is to be called */
	unlink_wait(w);
	free(w);
}

/* --- cleaning */

struct clean_job {
	struct engine *g;
	struct ctr *c;
	char *id;
	bool report; /* tell of an unknown exit afterwards */
	struct err err;
};

static void clean_work(void *data)
{
	struct clean_job *j = data;
	ctr_cleanup_blocking(j->g, j->id, &j->err);
}

static void clean_done(void *data)
{
	struct clean_job *j = data;
	struct engine *g = j->g;
	struct ctr *c = j->c;
	if (j->err.code)
		log_warn("something of an ended container is left behind id=%.12s error=\"%s\"", j->id,
		    j->err.text);
	c->cleaning = false;
	if (j->report)
		ctr_finish_exit(c, EXIT_UNKNOWN, false);
	else
		engine_pump(g);
	ctr_maybe_remove(c);
	free(j->id);
	free(j);
	engine_pending_done(g);
}

static void clean(struct ctr *c, bool report)
{
	struct clean_job *j = NEW(struct clean_job);
	j->g = c->g;
	j->c = c;
	j->id = xstrdup(c->rec->id);
	j->report = report;
	c->cleaning = true;
	c->g->pending++;
	loop_work(c->g->loop, clean_work, clean_done, j);
}

void ctr_clean(struct ctr *c)
{
	clean(c, false);
}

/* --- the end */

void ctr_finish_exit(struct ctr *c, int64_t code, bool oom)
{
	struct engine *g = c->g;
	Pb__Container *rec = c->rec;
	char text[24];
	struct err unknown = ERR_INIT;
	bool cleaned = code == EXIT_UNKNOWN;
	health_stop(c);
	log_rotator_stop(c);
	rec->status = ST_EXITED;
	rec->has_finished_at = true;
	rec->finished_at = clock_unix_ns(g->clock);
	rec->has_exit_code = code != EXIT_UNKNOWN;
	rec->exit_code = rec->has_exit_code ? code : 0;
	rec->has_exit_unknown = rec->exit_unknown = code == EXIT_UNKNOWN;
	rec->has_oom_killed = rec->oom_killed = oom;
	rec->has_pid = rec->has_pid_start_time = rec->has_conmon_pid = rec->has_conmon_start_time = false;
	rec->pid = rec->conmon_pid = 0;
	if (rec->network && g->o.net)
		hostnet_withdraw(g->o.net, rec->id); /* its ports may be wanted at once */
	pb_free(rec->network);
	rec->network = NULL;
	c->killed = false;
	if (c->kill_timer)
		timer_stop(c->kill_timer);
	ctr_store(c);
	exec_container_ended(g, rec->id);
	logs_container_ended(g, rec->id);

	snprintf(text, sizeof(text), "%lld", (long long)code);
	const char *const attrs[] = {"exitCode", code == EXIT_UNKNOWN ? "unknown" : text, NULL};
	if (oom)
		ctr_event(c, "oom", NULL);
	ctr_event(c, "die", attrs);
	if (rec->stop_requested)
		ctr_event(c, "stop", NULL);
	if (!cleaned)
		ctr_clean(c);
	if (g->o.changed)
		g->o.changed(g->o.data, rec);
	ctr_waits_call(c, 'e', exit_of(rec, &unknown), &unknown);
	callbacks_call(&c->stops, NULL);
}

void ctr_conmon_ended(struct ctr *c)
{
	struct engine *g = c->g;
	const Pb__Container *rec = c->rec;
	int status;
	if (!spawn_reap(fd_watch_fd(c->conmon), &status))
		return;
	fd_watch_free(TAKE_PTR(c->conmon));
	int64_t code = ctr_read_exit_file(g, rec->id);
	if (code != EXIT_UNKNOWN) {
		ctr_finish_exit(c, code, was_oom(c));
		return;
	}
	log_warn(
	    "a container's monitor ended without an exit code; the container is killed id=%.12s", rec->id);
	int pidfd = spawn_pidfd((pid_t)rec->pid, rec->pid_start_time);
	if (pidfd >= 0) {
		spawn_signal(pidfd, SIGKILL);
		close(pidfd);
	}
	clean(c, true);
}

static void on_conmon(void *data)
{
	ctr_conmon_ended(data);
}

void ctr_watch(struct ctr *c, int pidfd)
{
	ASSERT(!c->conmon);
	c->conmon = fd_watch_new(c->g->loop, pidfd, on_conmon, c);
}
