/* Creating a container: checks, directories, record.
 *
 * What can be refused at once is (name, configuration, image); the rest needs the disk and runs in a worker:
 * the user in the image's files, the directories of the writable layer. Only then the record is stored and
 * the container can be found. A crash before that leaves directories without a record, which the next start
 * removes. */
#include "agent/engine.h"

#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define NAME_MAX_ 512

struct create_job {
	struct engine *g;
	struct ctr *c;
	struct image *image;
	engine_cb cb;
	void *data;
	struct err err;
};

static bool name_char(char ch, bool first)
{
	bool alnum = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
	return alnum || (!first && (ch == '_' || ch == '.' || ch == '-'));
}

static int check_name(struct engine *g, const char *name, struct err *e)
{
	size_t n = strlen(name);
	bool ok = n >= 2 && n <= NAME_MAX_;
	for (size_t i = 0; ok && i < n; i++)
		ok = name_char(name[i], i == 0);
	if (!ok)
		return err_set(e, ERR_INVALID,
		    "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name);
	const struct ctr *other = strmap_get(&g->by_name, name);
	if (other)
		return err_set(e, ERR_CONFLICT,
		    "Conflict. The container name \"/%s\" is already in use by container \"%s\". You have to "
		    "remove (or "
		    "rename) that container to be able to reuse that name.",
		    name, other->rec->id);
	return 0;
}

static int resolve_user(const struct create_job *j, struct err *e)
{
	const Pb__ContainerConfig *c = j->c->rec->config;
	struct oci_user u;
	CLEANUP_STRLIST struct strlist dirs = STRLIST_INIT;
	for (size_t i = j->image->layers.n; i-- > 0;)
		strlist_add(&dirs, j->image->layers.v[i]);
	CLEANUP_FREE char *passwd = oci_read_image_file(dirs.v, dirs.n, "/etc/passwd");
	CLEANUP_FREE char *group = oci_read_image_file(dirs.v, dirs.n, "/etc/group");
	int r = oci_user_resolve(c->user, c->groups, c->n_groups, passwd, group, &u, e);
	if (r == 0)
		oci_user_done(&u);
	return r;
}

static int make_dirs(const struct create_job *j, struct err *e)
{
	static const char *const names[] = {"upper", "work", "log"};
	static const mode_t modes[] = {0755, 0700, 0700};
	CLEANUP_FREE char *dir = ctr_dir(j->g, j->c->rec->id);
	int r = fs_mkdir_p(dir, 0710, e);
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(names); i++) {
		CLEANUP_FREE char *sub = fs_path(dir, names[i]);
		r = fs_mkdir_p(sub, modes[i], e);
	}
	return r;
}

static void create_work(void *data)
{
	struct create_job *j = data;
	int r = oci_spec_check(j->c->rec->config, &j->err);
	if (r == 0)
		r = resolve_user(j, &j->err);
	if (r == 0)
		r = make_dirs(j, &j->err);
	if (r < 0) {
		CLEANUP_FREE char *dir = ctr_dir(j->g, j->c->rec->id);
		fs_remove_tree(dir, NULL);
	}
}

static void create_done(void *data)
{
	struct create_job *j = data;
	struct engine *g = j->g;
	struct ctr *c = j->c;
	engine_cb cb = j->cb;
	void *cb_data = j->data;
	struct err e = j->err;

	if (e.code == 0 && g->closing)
		err_set(&e, ERR_UNAVAILABLE, "the engine is closing");
	if (e.code == 0)
		record_put(g->kv, c->rec, &e);
	if (e.code == 0) {
		c->creating = false;
		ctr_event(c, "create", NULL);
		if (g->o.changed)
			g->o.changed(g->o.data, c->rec);
	} else {
		ctr_free(c);
	}
	image_unref(j->image);
	free(j);
	if (cb)
		cb(cb_data, &e);
	engine_pending_done(g);
}

/* A limit that this host cannot enforce is refused, not dropped. */
static int check_controllers(const struct engine *g, const Pb__ContainerConfig *c, struct err *e)
{
	const struct {
		bool wanted;
		const char *controller, *what;
	} checks[] = {{c->memory_bytes > 0, "memory", "memory"}, {c->nano_cpus > 0, "cpu", "CPU"},
	    {c->pids_limit > 0, "pids", "pids"}};
	for (size_t i = 0; i < ARRAY_LEN(checks); i++)
		if (checks[i].wanted && !cgroups_has(g->cgroups, checks[i].controller))
			return err_set(e, ERR_PRECONDITION,
			    "a %s limit is wanted, but this host's kernel has the %s control group turned "
			    "off",
			    checks[i].what, checks[i].controller);
	return 0;
}

int engine_create(struct engine *g, Pb__ContainerConfig *cfg, const char *task_id, engine_cb cb, void *data,
    char ret_id[65], struct err *e)
{
	struct err local = ERR_INIT;
	struct image *image = NULL;
	int64_t max_size;
	unsigned max_file;
	int r = g->closing ? err_set(&local, ERR_UNAVAILABLE, "the engine is closing") : 0;
	if (r == 0)
		r = check_name(g, str_or(cfg->name, ""), &local);
	if (r == 0)
		r = log_options_parse(cfg, &max_size, &max_file, &local);
	if (r == 0)
		r = check_controllers(g, cfg, &local);
	if (r == 0 && cfg->init && !g->init_path)
		r = err_set(&local, ERR_PRECONDITION,
		    "an init process is wanted, but this node has none: install the package \"tini\"");
	if (r == 0)
		r = images_find(g->o.images, cfg->image_id, &image, &local);
	if (r < 0) {
		pb_free(cfg);
		return err_copy(e, &local);
	}

	Pb__Container *rec = PB_NEW(Pb__Container, pb__container);
	char id[ID_HEX_LEN + 1];
	id_new_hex(rng_system(), id);
	rec->id = xstrdup(id);
	rec->config = cfg;
	rec->status = ST_CREATED;
	rec->created_at = clock_unix_ns(g->clock);
	pb_set_str(&rec->task_id, task_id);
	struct create_job *j = NEW(struct create_job);
	j->g = g;
	j->c = ctr_new(g, rec);
	j->c->creating = true;
	j->image = image;
	j->cb = cb;
	j->data = data;
	memcpy(ret_id, id, ID_HEX_LEN + 1);
	g->pending++;
	loop_work(g->loop, create_work, create_done, j);
	return 0;
}
