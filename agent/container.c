/* The engine: opening and closing, finding containers, telling of changes.
 *
 * Opening takes the database, probes the runtime and restores the containers that the records name. Closing
 * leaves containers alone: it stops watching and waits for the steps under way; what they did is in the
 * records. */
#include "agent/engine.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define CHOICE_TABLE "runtime"

/* --- small parts */

struct fd_watch {
	uv_poll_t poll;
	int fd;
	fd_watch_cb cb;
	void *data;
};

static void on_readable(uv_poll_t *p, int status, int events)
{
	struct fd_watch *w = CONTAINER_OF(p, struct fd_watch, poll);
	(void)status;
	(void)events;
	w->cb(w->data);
}

struct fd_watch *fd_watch_new(uv_loop_t *loop, int fd, fd_watch_cb readable, void *data)
{
	struct fd_watch *w = NEW(struct fd_watch);
	w->fd = fd;
	w->cb = readable;
	w->data = data;
	int r = uv_poll_init(loop, &w->poll, fd);
	ASSERT(r == 0);
	r = uv_poll_start(&w->poll, UV_READABLE, on_readable);
	ASSERT(r == 0);
	return w;
}

int fd_watch_fd(const struct fd_watch *w)
{
	return w->fd;
}

static void watch_closed(uv_handle_t *h)
{
	struct fd_watch *w = CONTAINER_OF((uv_poll_t *)h, struct fd_watch, poll);
	close(w->fd);
	free(w);
}

void fd_watch_free(struct fd_watch *w)
{
	if (w)
		uv_close((uv_handle_t *)&w->poll, watch_closed);
}

void callback_add(struct callback **list, engine_cb cb, void *data)
{
	while (*list)
		list = &(*list)->next;
	*list = NEW(struct callback);
	(*list)->cb = cb;
	(*list)->data = data;
}

void callbacks_call(struct callback **list, const struct err *e)
{
	struct err none = ERR_INIT;
	struct callback *c = TAKE_PTR(*list), *next;
	for (; c; c = next) {
		next = c->next;
		engine_cb cb = c->cb;
		void *data = c->data;
		free(c);
		if (cb)
			cb(data, e ? e : &none);
	}
}

struct deferred {
	struct engine *g;
	engine_cb cb;
	void *data;
	struct err err;
};

static void run_deferred(void *data)
{
	struct deferred *d = data;
	struct engine *g = d->g;
	if (d->cb)
		d->cb(d->data, &d->err);
	free(d);
	engine_pending_done(g);
}

void engine_defer(struct engine *g, engine_cb cb, void *data, const struct err *e)
{
	struct deferred *d = NEW(struct deferred);
	d->g = g;
	d->cb = cb;
	d->data = data;
	if (e)
		d->err = *e;
	g->pending++;
	loop_defer(g->loop, run_deferred, d);
}

/* --- open, close */

static char *find_init(void)
{
	static const char *const places[] = {"/usr/bin/tini-static", "/usr/bin/docker-init",
	    "/usr/libexec/docker/docker-init", "/usr/libexec/podman/catatonit", "/usr/bin/catatonit"};
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		if (access(places[i], X_OK) == 0)
			return xstrdup(places[i]);
	return NULL;
}

static bool kernel_at_least(unsigned major, unsigned minor)
{
	struct utsname u;
	unsigned a = 0, b = 0;
	return uname(&u) == 0 && sscanf(u.release, "%u.%u", &a, &b) == 2 &&
	       (a > major || (a == major && b >= minor));
}

static void engine_free(struct engine *g)
{
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&g->by_id, &it, &id, &v);) {
		struct ctr *c = v;
		strmap_remove(&g->by_id, id);
		ctr_free(c);
	}
	strmap_done(&g->by_id);
	strmap_done(&g->by_name);
	strmap_done(&g->execs);
	fd_watch_free(g->log_watch);
	u64map_done(&g->log_rotators);
	kv_close(g->kv);
	runtime_done(&g->runtime);
	cgroups_free(g->cgroups);
	free(g->data_root);
	free(g->exec_root);
	free(g->containers_dir);
	free(g->bundles_dir);
	free(g->exits_dir);
	free(g->execs_dir);
	free(g->conmon_path);
	free(g->init_path);
	free(g);
}

static int make_dirs(struct engine *g, struct err *e)
{
	int r = fs_mkdir_p(g->containers_dir, 0710, e);
	if (r == 0)
		r = fs_mkdir_p(g->exec_root, 0711, e);
	if (r == 0)
		r = fs_mkdir_p(g->bundles_dir, 0700, e);
	if (r == 0)
		r = fs_mkdir_p(g->exits_dir, 0700, e);
	/* Sessions of a daemon before this one. */
	if (r == 0)
		r = fs_remove_tree(g->execs_dir, e);
	if (r == 0)
		r = fs_mkdir_p(g->execs_dir, 0700, e);
	return r;
}

/* Probing takes some hundred milliseconds of a restart; what was chosen under the same circumstances still
 * holds. */
static int choose_runtime(struct engine *g, const char *wanted, struct err *e)
{
	CLEANUP_FREE char *now = runtime_fingerprint(wanted, g->cgroups), *was = NULL;
	CLEANUP_FREE char *value = NULL;
	void *p = NULL;
	size_t n = 0;
	if (kv_get(g->kv, CHOICE_TABLE, "choice", &p, &n, NULL) == 0) {
		was = xstrndup(p, n);
		free(p);
		/* "fingerprint\nname\n0|1" */
		char *name = strchr(was, '\n'), *hide = name ? strchr(name + 1, '\n') : NULL;
		if (hide) {
			*name++ = '\0';
			*hide++ = '\0';
			if (str_eq(was, now) &&
			    runtime_adopt(name, str_eq(hide, "1"), g->exec_root, &g->runtime, NULL) == 0) {
				log_info("runtime chosen name=%s cgroups=%s reason=\"as before\"",
				    g->runtime.name, cgroups_mode_name(g->cgroups));
				return 0;
			}
		}
	}
	int r = runtime_probe(wanted, g->exec_root, g->cgroups, &g->runtime, e);
	if (r < 0)
		return r;
	value = xasprintf("%s\n%s\n%d", now, g->runtime.path, g->runtime.hide_unified);
	return kv_put(g->kv, CHOICE_TABLE, "choice", value, strlen(value), e);
}

int engine_open(uv_loop_t *loop, const struct engine_opts *o, struct engine **ret, struct err *e)
{
	struct engine *g = NEW(struct engine);
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	g->loop = loop;
	g->o = *o;
	g->data_root = xstrdup(o->data_root);
	g->exec_root = xstrdup(o->exec_root);
	g->containers_dir = fs_path(o->data_root, "containers");
	g->bundles_dir = fs_path(o->exec_root, "containers");
	g->exits_dir = fs_path(o->exec_root, "exits");
	g->execs_dir = fs_path(o->exec_root, "execs");
	g->clock = clock_system();
	g->max_starting = cores > 0 ? (unsigned)cores * 2 : 2;
	g->queue_tail = &g->queue;
	g->conmon_path = conmon_find();
	g->init_path = find_init();
	g->overlay_volatile = kernel_at_least(5, 10);
	int r = 0;
	if (!g->conmon_path)
		r = err_set(e, ERR_UNAVAILABLE, "conmon is not installed: install the package \"conmon\"");
	if (r == 0)
		r = make_dirs(g, e);
	if (r == 0)
		r = kv_open(loop, o->data_root, &g->kv, e);
	if (r == 0)
		r = cgroups_open(str_or(o->cgroup_parent, "shoal"), &g->cgroups, e);
	if (r == 0)
		r = choose_runtime(g, o->runtime, e);
	if (r == 0)
		r = engine_restore(g, e);
	if (r < 0) {
		engine_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

static void maybe_finish_close(struct engine *g)
{
	if (!g->closing || g->pending)
		return;
	void (*closed)(void *) = g->closed;
	void *data = g->closed_data;
	engine_free(g);
	if (closed)
		closed(data);
}

void engine_pending_done(struct engine *g)
{
	ASSERT(g->pending > 0);
	g->pending--;
	maybe_finish_close(g);
}

static void close_deferred(void *data)
{
	engine_pending_done(data);
}

void engine_close(struct engine *g, void (*closed)(void *data), void *data)
{
	if (g->closing)
		return;
	g->closing = true;
	g->closed = closed;
	g->closed_data = data;
	g->pending++;
	loop_defer(g->loop, close_deferred, g);
	void *v;
	for (size_t it = 0; strmap_next(&g->by_id, &it, NULL, &v);) {
		struct ctr *c = v;
		health_stop(c);
		log_rotator_stop(c);
		attach_engine_closing(c);
	}
	exec_close_all(g);
	logs_close_all(g);
	engine_pump(g); /* queued starts are refused */
}

const char *engine_runtime(const struct engine *g)
{
	return g->runtime.name;
}

const char *engine_cgroup_mode(const struct engine *g)
{
	return cgroups_mode_name(g->cgroups);
}

struct kv *engine_kv(const struct engine *g)
{
	return g->kv;
}

/* --- containers */

struct ctr *ctr_new(struct engine *g, Pb__Container *rec)
{
	struct ctr *c = NEW(struct ctr);
	c->g = g;
	c->rec = rec;
	strmap_put(&g->by_id, rec->id, c);
	strmap_put(&g->by_name, rec->config->name, c);
	return c;
}

void ctr_free(struct ctr *c)
{
	struct engine *g = c->g;
	strmap_remove(&g->by_id, c->rec->id);
	if (strmap_get(&g->by_name, c->rec->config->name) == c)
		strmap_remove(&g->by_name, c->rec->config->name);
	health_stop(c);
	log_rotator_stop(c);
	fd_watch_free(c->conmon);
	timer_free(c->kill_timer);
	ctr_waits_fail(c);
	struct err e = ERR_INIT;
	err_set(&e, ERR_CANCELLED, "the engine was closed");
	callbacks_call(&c->stops, &e);
	callbacks_call(&c->removes, &e);
	pb_free(c->rec);
	free(c);
}

bool ctr_is_running(const struct ctr *c)
{
	return c->rec->status == ST_RUNNING || c->rec->status == ST_PAUSED;
}

void ctr_store(struct ctr *c)
{
	struct err e = ERR_INIT;
	if (record_put(c->g->kv, c->rec, &e) < 0)
		log_error("container record not stored id=%.12s error=\"%s\"", c->rec->id, e.text);
}

void ctr_changed(struct ctr *c)
{
	ctr_store(c);
	if (c->g->o.changed)
		c->g->o.changed(c->g->o.data, c->rec);
}

void ctr_event(struct ctr *c, const char *action, const char *const *attrs)
{
	static const char *const none[] = {NULL};
	if (c->g->o.event)
		c->g->o.event(c->g->o.data, action, c->rec, attrs ? attrs : none);
}

char *ctr_bundle(const struct engine *g, const char *id)
{
	return fs_path(g->bundles_dir, id);
}

char *ctr_dir(const struct engine *g, const char *id)
{
	return fs_path(g->containers_dir, id);
}

struct ctr *engine_ctr(struct engine *g, const char *ref, struct err *e)
{
	const char *name = *ref == '/' ? ref + 1 : ref;
	struct ctr *c = strmap_get(&g->by_id, ref);
	if (!c)
		c = strmap_get(&g->by_name, name);
	if (!c && *ref) {
		const char *id;
		void *v;
		unsigned n = 0;
		for (size_t it = 0; strmap_next(&g->by_id, &it, &id, &v);)
			if (str_has_prefix(id, ref) && !((struct ctr *)v)->creating) {
				c = v;
				n++;
			}
		if (n > 1) {
			err_set(e, ERR_INVALID, "Multiple IDs found with provided prefix: %s", ref);
			return NULL;
		}
	}
	if (!c || c->creating) {
		err_set(e, ERR_NOT_FOUND, "No such container: %s", ref);
		return NULL;
	}
	return c;
}

int engine_find(struct engine *g, const char *ref, const Pb__Container **ret, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, ref, &local);
	if (!c)
		return err_copy(e, &local);
	*ret = c->rec;
	return 0;
}

void engine_each(struct engine *g, void (*fn)(void *data, const Pb__Container *c), void *data)
{
	void *v;
	for (size_t it = 0; strmap_next(&g->by_id, &it, NULL, &v);)
		if (!((struct ctr *)v)->creating)
			fn(data, ((struct ctr *)v)->rec);
}

char *engine_log_path(const struct engine *g, const char *id)
{
	return log_path_of(g, id);
}

char *engine_cgroup_path(const struct engine *g, const char *id, const char *controller)
{
	return cgroup_dir(g->cgroups, id, controller);
}
