/* Removing a container: it is killed if it runs (with force), what its end leaves is waited for, then its
 * directories and its record go. The record is first stored as REMOVING, so that a daemon that dies in
 * between finishes the removal when it comes back. */
#include "agent/engine.h"

#include <signal.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

struct remove_job {
	struct engine *g;
	struct ctr *c;
	char *id;
	struct err err;
};

static void remove_work(void *data)
{
	struct remove_job *j = data;
	CLEANUP_FREE char *dir = ctr_dir(j->g, j->id);
	if (ctr_cleanup_blocking(j->g, j->id, &j->err) == 0)
		fs_remove_tree(dir, &j->err);
}

static void remove_done(void *data)
{
	struct remove_job *j = data;
	struct engine *g = j->g;
	struct ctr *c = j->c;
	struct err e = j->err, gone = ERR_INIT;
	if (e.code == 0)
		record_del(g->kv, j->id, &e);
	if (e.code) {
		log_error("container not removed id=%.12s error=\"%s\"", j->id, e.text);
		c->removing = c->cleaning = false;
		c->rec->status = ST_DEAD;
		pb_set_str(&c->rec->error, e.text);
		ctr_changed(c);
		callbacks_call(&c->removes, &e);
	} else {
		struct callback *removes = TAKE_PTR(c->removes);
		ctr_event(c, "destroy", NULL);
		err_set(&gone, 0, "%s", "");
		ctr_waits_call(c, 'r',
		    c->rec->has_exit_code  ? c->rec->exit_code
		    : c->rec->exit_unknown ? EXIT_UNKNOWN
					   : 0,
		    &gone);
		ctr_free(c);
		callbacks_call(&removes, NULL);
	}
	free(j->id);
	free(j);
	engine_pending_done(g);
}

void ctr_maybe_remove(struct ctr *c)
{
	struct engine *g = c->g;
	if (!c->removing || c->starting || c->cleaning || c->creating)
		return;
	if (ctr_is_running(c)) {
		struct err e = ERR_INIT;
		if (c->killed)
			return; /* its end is awaited */
		if (engine_stop(g, c->rec->id, "KILL", 0, NULL, NULL, &e) < 0)
			log_warn("container cannot be killed id=%.12s error=\"%s\"", c->rec->id, e.text);
		return;
	}
	struct remove_job *j = NEW(struct remove_job);
	j->g = g;
	j->c = c;
	j->id = xstrdup(c->rec->id);
	c->cleaning = true;
	c->rec->status = ST_REMOVING;
	ctr_store(c);
	if (strmap_get(&g->by_name, c->rec->config->name) == c)
		strmap_remove(&g->by_name, c->rec->config->name);
	g->pending++;
	loop_work(g->loop, remove_work, remove_done, j);
}

int engine_remove(struct engine *g, const char *id, bool force, engine_cb cb, void *data, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	if (g->closing)
		return err_set(e, ERR_UNAVAILABLE, "the engine is closing");
	if (!force && (ctr_is_running(c) || c->starting))
		return err_set(e, ERR_CONFLICT,
		    "You cannot remove a %s container %s. Stop the container before attempting removal or "
		    "force remove",
		    c->rec->status == ST_PAUSED ? "paused" : "running", c->rec->id);
	callback_add(&c->removes, cb, data);
	if (c->removing)
		return 0;
	c->removing = true;
	ctr_maybe_remove(c);
	return 0;
}
