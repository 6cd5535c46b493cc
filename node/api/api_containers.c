/* Containers of this node: starting, stopping, killing, removing, and what else is no list and no stream.
 *
 * A request is kept while the engine works; a client that goes meanwhile changes nothing of what was begun.
 * Creating and renaming containers is no part of this version: containers are made by services. Those routes
 * answer 501 with what to do instead, so that a client says more than "page not found". */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/timer.h"
#include "node/api/containers.h"

#define STOP_MAX_S (365 * 24 * 3600)

const Pb__Container *container_or_reply(struct api_local *l, struct http_req *r)
{
	const Pb__Container *c;
	struct err e = ERR_INIT;
	if (engine_find(l->engine, api_param(r, "id"), &c, &e) == 0)
		return c;
	api_reply_err(r, &e);
	return NULL;
}

void frame_append(struct buf *out, bool raw, int stream, const void *p, size_t n)
{
	uint8_t head[FRAME_HEAD] = {
	    (uint8_t)stream, 0, 0, 0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
	if (!raw)
		buf_append(out, head, sizeof(head));
	buf_append(out, p, n);
}

const char *frame_content_type(const struct http_req *r, bool raw)
{
	return !raw && api_minor(r) >= 42 ? "application/vnd.docker.multiplexed-stream"
					  : "application/vnd.docker.raw-stream";
}

/* --- one step of the engine, then 204 */

struct action {
	struct api_local *l;
	struct http_req *r; /* NULL once the client has gone */
	char *id;
};

static void action_gone(void *data)
{
	((struct action *)data)->r = NULL;
}

static struct action *action_new(struct api_local *l, struct http_req *r, const char *id)
{
	struct action *a = NEW(struct action);
	a->l = l;
	a->r = r;
	a->id = xstrdup(id);
	http_on_closed(r, action_gone, a);
	return a;
}

static void action_end(struct action *a, const struct err *e)
{
	if (a->r && e->code)
		api_reply_err(a->r, e);
	else if (a->r)
		http_reply_empty(a->r, 204);
	free(a->id);
	free(a);
}

static void action_done(void *data, const struct err *e)
{
	action_end(data, e);
}

static void start(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	if (c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED) {
		api_reply_errf(
		    r, ERR_CONFLICT, "cannot start a paused container, try unpause instead: %s", c->id);
		return;
	}
	if (container_is_running(c)) {
		http_reply_empty(r, 304);
		return;
	}
	struct action *a = action_new(l, r, c->id);
	if (engine_start(l->engine, a->id, action_done, a, &e) != 0)
		action_end(a, &e);
}

/* t and signal of stop and restart. Without t the container's own grace; a negative one waits as long as it
 * takes. */
static int stop_params(const struct http_req *r, int64_t *ret_grace, const char **ret_signal, struct err *e)
{
	int64_t t;
	int rc = api_int_param(r, "t", 0, &t, e);
	if (rc != 0)
		return rc;
	if (t > STOP_MAX_S || t < 0)
		t = STOP_MAX_S;
	*ret_grace = str_empty(http_query(r, "t")) ? -1 : t * NS_PER_SEC;
	*ret_signal = str_empty(http_query(r, "signal")) ? NULL : http_query(r, "signal");
	return 0;
}

static void stop(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	int64_t grace;
	const char *signal;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	if (stop_params(r, &grace, &signal, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	if (!container_is_running(c)) {
		http_reply_empty(r, 304);
		return;
	}
	struct action *a = action_new(l, r, c->id);
	if (engine_stop(l->engine, a->id, signal, grace, action_done, a, &e) != 0)
		action_end(a, &e);
}

static void restart_stopped(void *data, const struct err *e)
{
	struct action *a = data;
	struct err e2 = *e;
	if (e->code || engine_start(a->l->engine, a->id, action_done, a, &e2) != 0)
		action_end(a, &e2);
}

static void restart(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	int64_t grace;
	const char *signal;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	if (stop_params(r, &grace, &signal, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	struct action *a = action_new(l, r, c->id);
	if (engine_stop(l->engine, a->id, signal, grace, restart_stopped, a, &e) != 0)
		action_end(a, &e);
}

static void kill_container(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	if (!container_or_reply(l, r))
		return;
	if (engine_kill(l->engine, api_param(r, "id"), http_query(r, "signal"), &e) != 0)
		api_reply_err(r, &e);
	else
		http_reply_empty(r, 204);
}

static void pause_or_not(struct api_local *l, struct http_req *r, bool pause)
{
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	struct action *a = action_new(l, r, c->id);
	if (engine_pause(l->engine, a->id, pause, action_done, a, &e) != 0)
		action_end(a, &e);
}

static void pause_container(void *data, struct http_req *r)
{
	pause_or_not(data, r, true);
}

static void unpause_container(void *data, struct http_req *r)
{
	pause_or_not(data, r, false);
}

static void remove_container(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	if (api_bool_loose(r, "link")) {
		api_reply_errf(r, ERR_NOT_IMPLEMENTED,
		    "links between containers do not exist here: remove the container without \"link\"");
		return;
	}
	struct action *a = action_new(l, r, c->id);
	if (engine_remove(l->engine, a->id, api_bool_loose(r, "force"), action_done, a, &e) != 0)
		action_end(a, &e);
}

static void resize(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	int64_t h = 0, w = 0;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	if (api_int_param(r, "h", -1, &h, &e) != 0 || api_int_param(r, "w", -1, &w, &e) != 0)
		api_reply_err(r, &e);
	else if (h < 0 || h > UINT16_MAX || w < 0 || w > UINT16_MAX)
		api_reply_errf(r, ERR_INVALID, "h and w must be between 0 and %d", UINT16_MAX);
	else if (engine_resize(l->engine, c->id, (unsigned)h, (unsigned)w, &e) != 0)
		api_reply_err(r, &e);
	else
		http_reply_empty(r, 200);
}

/* --- prune: sizes are counted on the pool, then all are removed */

struct prune {
	struct api_local *l;
	struct http_req *r; /* NULL once the client has gone */
	struct api_filters f;
	int64_t until; /* created before; 0: any */
	struct strlist ids, dirs;
	int64_t *sizes, bytes;
	json_t *deleted;
	size_t waiting;
};

struct prune_one {
	struct prune *p;
	size_t i;
};

static void prune_gone(void *data)
{
	((struct prune *)data)->r = NULL;
}

static void prune_free(struct prune *p)
{
	api_filters_done(&p->f);
	strlist_done(&p->ids);
	strlist_done(&p->dirs);
	json_decref(p->deleted);
	free(p->sizes);
	free(p);
}

static void prune_put(struct prune *p)
{
	if (--p->waiting)
		return;
	if (p->r)
		http_reply_json(p->r, 200,
		    json_pack("{s:O, s:I}", "ContainersDeleted", p->deleted, "SpaceReclaimed",
			(json_int_t)p->bytes));
	prune_free(p);
}

static void prune_removed(void *data, const struct err *e)
{
	struct prune_one *one = data;
	struct prune *p = one->p;
	if (e->code == 0) {
		json_array_append_new(p->deleted, json_string(p->ids.v[one->i]));
		p->bytes += p->sizes[one->i];
	}
	free(one);
	prune_put(p);
}

static void prune_work(void *data)
{
	struct prune *p = data;
	for (size_t i = 0; i < p->dirs.n; i++)
		if (fs_tree_size(p->dirs.v[i], &p->sizes[i], NULL) != 0)
			p->sizes[i] = 0;
}

static void prune_counted(void *data)
{
	struct prune *p = data;
	p->waiting = 1;
	for (size_t i = 0; i < p->ids.n; i++) {
		struct prune_one *one = NEW(struct prune_one);
		one->p = p;
		one->i = i;
		p->waiting++;
		/* Not by force: one that was started meanwhile stays. */
		if (engine_remove(p->l->engine, p->ids.v[i], false, prune_removed, one, NULL) != 0) {
			free(one);
			p->waiting--;
		}
	}
	prune_put(p);
}

static bool label_excluded(const struct api_filters *f, const Pb__Container *c)
{
	return api_filters_has(f, "label!") &&
	       api_filters_match_labels(f, "label!", c->config->labels, c->config->n_labels);
}

/* A task's container that was made and not started yet is about to be. */
static bool is_about_to_start(const Pb__Container *c)
{
	return c->task_id && c->status == PB__CONTAINER_STATUS_KIND__E__CREATED;
}

static void prune_take(void *data, const Pb__Container *c)
{
	struct prune *p = data;
	if (container_is_running(c) || is_about_to_start(c) ||
	    c->status == PB__CONTAINER_STATUS_KIND__E__REMOVING || (p->until && c->created_at >= p->until) ||
	    label_excluded(&p->f, c) ||
	    !api_filters_match_labels(&p->f, "label", c->config->labels, c->config->n_labels))
		return;
	strlist_add(&p->ids, c->id);
	strlist_addf(&p->dirs, "%s/containers/%s", api_deps(p->l->api)->data_root, c->id);
}

static void prune(void *data, struct http_req *r)
{
	static const char *const allowed[] = {"label", "label!", "until", NULL};
	struct err e = ERR_INIT;
	struct prune *p = NEW(struct prune);
	p->l = data;
	p->r = r;
	p->deleted = json_array();
	int rc = api_filters_parse(r, allowed, &p->f, &e);
	const struct strlist *until = rc == 0 ? api_filters_get(&p->f, "until") : NULL;
	if (until && until->n > 1)
		rc = err_set(&e, ERR_INVALID, "filter 'until' has more than one value");
	else if (until && until->n)
		rc = api_time_value(p->l->api, "until", until->v[0], &p->until, &e);
	if (rc != 0) {
		api_reply_err(r, &e);
		prune_free(p);
		return;
	}
	engine_each(p->l->engine, prune_take, p);
	p->sizes = xcalloc(p->ids.n ? p->ids.n : 1, sizeof(*p->sizes));
	http_on_closed(r, prune_gone, p);
	loop_work(p->l->loop, prune_work, prune_counted, p);
}

/* --- what this version does not do */

static void no_create(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "standalone containers are not supported by this version; create a service");
}

static void no_rename(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "renaming containers is not supported: a task's container has the name of its task");
}

static void no_update(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "updating a container's resources is not supported by this version; update its service");
}

static void no_archive(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "copying files to and from containers (docker cp) is not supported by this version");
}

static void no_export(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(
	    r, ERR_NOT_IMPLEMENTED, "exporting a container's file system is not supported by this version");
}

static void no_changes(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "listing changes of a container's file system (docker diff) is not supported by this version");
}

static void no_commit(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "making an image of a container (docker commit) is not supported by this version");
}

void api_containers_register(struct api_local *l)
{
	struct api *a = l->api;
	api_container_list_register(l);
	api_container_streams_register(l);
	api_container_stats_register(l);
	api_container_attach_register(l);
	api_route(a, "POST", "/containers/{id}/start", start, l);
	api_route(a, "POST", "/containers/{id}/stop", stop, l);
	api_route(a, "POST", "/containers/{id}/restart", restart, l);
	api_route(a, "POST", "/containers/{id}/kill", kill_container, l);
	api_route(a, "POST", "/containers/{id}/pause", pause_container, l);
	api_route(a, "POST", "/containers/{id}/unpause", unpause_container, l);
	api_route(a, "POST", "/containers/{id}/resize", resize, l);
	api_route(a, "DELETE", "/containers/{id}", remove_container, l);
	api_route(a, "POST", "/containers/prune", prune, l);
	api_route(a, "POST", "/containers/create", no_create, l);
	api_route(a, "POST", "/containers/{id}/rename", no_rename, l);
	api_route(a, "POST", "/containers/{id}/update", no_update, l);
	api_route(a, "GET", "/containers/{id}/archive", no_archive, l);
	api_route(a, "PUT", "/containers/{id}/archive", no_archive, l);
	api_route(a, "GET", "/containers/{id}/export", no_export, l);
	api_route(a, "GET", "/containers/{id}/changes", no_changes, l);
	api_route(a, "POST", "/commit", no_commit, l);
}
