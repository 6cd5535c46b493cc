/* After a start of the daemon: the records against what the machine has.
 *
 *   record says             found                                   then
 *   running                 conmon alive (pid and start time)       watched again; let run if the crash came
 * just before that running                 conmon gone, exit file                  ended, with the true code
 *   running                 conmon gone, no exit file               what is left is killed; ended, code
 * unknown created, exited         a bundle directory                      a start was cut off: conmon and
 * container are killed, cleaned removing                anything                                the removal
 * is finished no record               a directory                             removed
 *
 * Ends that are found here are told through `changed` and `event` on the first turn of the loop, when the
 * engine's user has its pointer. */
#include "agent/engine.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

/* --- a start that was cut off */

static bool is_monitor_of(pid_t pid, const char *bundle)
{
	char path[40];
	CLEANUP_BUF struct buf b = BUF_INIT;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (fs_read(path, 64u * 1024, &b, NULL) < 0)
		return false;
	bool option = false;
	size_t at = 0;
	while (at < b.len) {
		const char *word = b.data + at;
		if (option && str_eq(word, bundle))
			return true;
		option = str_eq(word, "-b");
		at += strlen(word) + 1;
	}
	return false;
}

/* conmon's pid may not have been stored: it is known by its bundle. Its runtime dies with it. */
static void kill_monitors(const struct engine *g, const char *id)
{
	CLEANUP_FREE char *bundle = ctr_bundle(g, id);
	DIR *d = opendir("/proc");
	struct dirent *ent;
	while (d && (ent = readdir(d))) {
		pid_t pid = (pid_t)atoi(ent->d_name);
		if (pid <= 1 || pid == getpid() || !is_monitor_of(pid, bundle))
			continue;
		int fd = spawn_pidfd(pid, spawn_start_time(pid));
		if (fd < 0)
			continue;
		if (is_monitor_of(pid, bundle)) {
			spawn_signal(fd, SIGKILL);
			for (int i = 0; i < 1000 && spawn_start_time(pid); i++) {
				struct timespec t = {0, 1000000};
				nanosleep(&t, NULL);
			}
		}
		close(fd);
	}
	if (d)
		closedir(d);
}

/* Kills what a half-done start or a dead conmon left, and removes it. */
static void clear(struct engine *g, const char *id)
{
	struct err e = ERR_INIT;
	if (ctr_cleanup_blocking(g, id, &e) < 0)
		log_warn("something of a container is left behind id=%.12s error=\"%s\"", id, e.text);
}

/* --- told later */

struct found_exit {
	struct engine *g;
	char *id;
	int64_t code;
	bool oom;
};

static void tell_exit(void *data)
{
	struct found_exit *f = data;
	struct engine *g = f->g;
	struct ctr *c = strmap_get(&g->by_id, f->id);
	if (c && ctr_is_running(c) && !g->closing)
		ctr_finish_exit(c, f->code, f->oom);
	free(f->id);
	free(f);
	engine_pending_done(g);
}

static void tell_exit_later(struct ctr *c, int64_t code, bool oom)
{
	struct found_exit *f = NEW(struct found_exit);
	f->g = c->g;
	f->id = xstrdup(c->rec->id);
	f->code = code;
	f->oom = oom;
	c->g->pending++;
	loop_defer(c->g->loop, tell_exit, f);
}

static void go_on_removing(void *data)
{
	struct found_exit *f = data;
	struct engine *g = f->g;
	struct ctr *c = strmap_get(&g->by_id, f->id);
	if (c && !g->closing) {
		c->removing = true;
		ctr_maybe_remove(c);
	}
	free(f->id);
	free(f);
	engine_pending_done(g);
}

/* --- one record */

static void let_run(struct ctr *c)
{
	struct engine *g = c->g;
	const struct runtime rt =
	    runtime_that_made(&g->runtime, c->rec->runtime, c->rec->runtime_hides_unified);
	enum runtime_go go;
	int fd = -1;
	struct err e = ERR_INIT;
	if (!runtime_waits(&rt, c->rec->id))
		return;
	log_info("letting a container run whose start was cut off id=%.12s", c->rec->id);
	int r = runtime_go(&rt, c->rec->id, &go, &fd, &e);
	if (r == 0 && go == RUNTIME_GO_WAIT) {
		for (int i = 0; i < 1000; i++) {
			struct timespec t = {0, 1000000};
			char ch;
			if (read(fd, &ch, 1) == 1)
				break;
			nanosleep(&t, NULL);
		}
		close(fd);
		CLEANUP_FREE char *fifo = xasprintf("%s/%s/exec.fifo", rt.root, c->rec->id);
		unlink(fifo);
	} else if (r == 0 && go == RUNTIME_GO_CALL) {
		r = runtime_start(&rt, c->rec->id, -1, &e);
	}
	if (r < 0)
		log_warn("a container whose start was cut off does not run id=%.12s error=\"%s\"", c->rec->id,
		    e.text);
}

static void restore_running(struct ctr *c)
{
	struct engine *g = c->g;
	const Pb__Container *rec = c->rec;
	int conmon = spawn_pidfd((pid_t)rec->conmon_pid, rec->conmon_start_time);
	if (conmon >= 0) {
		let_run(c);
		ctr_watch(c, conmon);
		log_rotator_start(c);
		health_start(c, true);
		log_info("container goes on id=%.12s name=%s pid=%lld", rec->id, rec->config->name,
		    (long long)rec->pid);
		return;
	}
	int64_t code = ctr_read_exit_file(g, rec->id);
	CLEANUP_FREE char *bundle = ctr_bundle(g, rec->id);
	CLEANUP_FREE char *mark = fs_path(bundle, "oom");
	bool oom = cgroup_oom_kills(g->cgroups, rec->id) > 0 || fs_exists(mark);
	log_info("container ended while the daemon was away id=%.12s name=%s exit=%lld", rec->id,
	    rec->config->name, (long long)code);
	if (code == EXIT_UNKNOWN) {
		int pidfd = spawn_pidfd((pid_t)rec->pid, rec->pid_start_time);
		if (pidfd >= 0) {
			spawn_signal(pidfd, SIGKILL);
			close(pidfd);
		}
		clear(g, rec->id);
		oom = false;
	}
	tell_exit_later(c, code, oom);
}

static void restore_one(void *data, Pb__Container *rec)
{
	struct engine *g = data;
	struct ctr *c = ctr_new(g, rec);
	if (ctr_is_running(c)) {
		restore_running(c);
		return;
	}
	CLEANUP_FREE char *bundle = ctr_bundle(g, rec->id);
	if (fs_exists(bundle)) {
		log_info("cleaning up after a start or end that was cut off id=%.12s name=%s", rec->id,
		    rec->config->name);
		kill_monitors(g, rec->id);
		clear(g, rec->id);
	}
	if (rec->status == ST_REMOVING) {
		struct found_exit *f = NEW(struct found_exit);
		f->g = g;
		f->id = xstrdup(rec->id);
		g->pending++;
		loop_defer(g->loop, go_on_removing, f);
	}
}

/* --- directories without a record */

static bool is_id(const char *s)
{
	return strlen(s) == ID_HEX_LEN && strspn(s, "0123456789abcdef") == ID_HEX_LEN;
}

static void remove_strays(struct engine *g, const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *ent;
	while (d && (ent = readdir(d))) {
		if (!is_id(ent->d_name) || strmap_has(&g->by_id, ent->d_name))
			continue;
		log_info("removing what a container left that no record knows id=%.12s", ent->d_name);
		CLEANUP_FREE char *own = ctr_dir(g, ent->d_name);
		struct err e = ERR_INIT;
		kill_monitors(g, ent->d_name);
		clear(g, ent->d_name);
		if (fs_remove_tree(own, &e) < 0)
			log_warn("directory not removed path=%s error=\"%s\"", own, e.text);
	}
	if (d)
		closedir(d);
}

int engine_restore(struct engine *g, struct err *e)
{
	int r = record_each(g->kv, restore_one, g, e);
	if (r < 0)
		return err_wrap(e, "reading container records");
	remove_strays(g, g->containers_dir);
	remove_strays(g, g->bundles_dir);
	if (g->o.net) {
		const char **ids = xcalloc(strmap_len(&g->by_id) + 1, sizeof(*ids));
		size_t n = 0;
		const char *id;
		void *v;
		for (size_t it = 0; strmap_next(&g->by_id, &it, &id, &v);)
			if (ctr_is_running(v))
				ids[n++] = id;
		hostnet_reconcile(g->o.net, ids, n);
		free(ids);
	}
	return 0;
}
