/* What the container engine adds to /info and /system/df. */
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/node_private.h"

struct counts {
	unsigned all, running, paused, stopped, images;
};

static void count_container(void *data, const Pb__Container *c)
{
	struct counts *n = data;
	n->all++;
	if (c->status == PB__CONTAINER_STATUS_KIND__E__RUNNING)
		n->running++;
	else if (c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED)
		n->paused++;
	else
		n->stopped++;
}

static void count_image(void *data, const struct image *i)
{
	(void)i;
	((struct counts *)data)->images++;
}

static json_t *registry_config(const struct config *c)
{
	json_t *index = json_object(), *cidrs = json_array(), *mirrors = json_array();
	json_array_append_new(cidrs, json_string("127.0.0.0/8"));
	for (size_t i = 0; i < c->registry_mirrors.n; i++)
		json_array_append_new(mirrors, json_string(c->registry_mirrors.v[i]));
	json_object_set_new(index, "docker.io",
	    json_pack(
		"{s:s, s:O, s:b, s:b}", "Name", "docker.io", "Mirrors", mirrors, "Secure", 1, "Official", 1));
	for (size_t i = 0; i < c->insecure_registries.n; i++) {
		const char *r = c->insecure_registries.v[i];
		if (strchr(r, '/'))
			json_array_append_new(cidrs, json_string(r));
		else
			json_object_set_new(index, r,
			    json_pack(
				"{s:s, s:[], s:b, s:b}", "Name", r, "Mirrors", "Secure", 0, "Official", 0));
	}
	return json_pack(
	    "{s:o, s:o, s:o}", "IndexConfigs", index, "InsecureRegistryCIDRs", cidrs, "Mirrors", mirrors);
}

static void info(void *data, json_t *o)
{
	struct node *n = data;
	struct counts c = {0};
	const char *runtime = engine_runtime(n->engine), *mode = engine_cgroup_mode(n->engine);
	engine_each(n->engine, count_container, &c);
	images_each(n->images, count_image, &c);
	json_object_set_new(o, "Containers", json_integer(c.all));
	json_object_set_new(o, "ContainersRunning", json_integer(c.running));
	json_object_set_new(o, "ContainersPaused", json_integer(c.paused));
	json_object_set_new(o, "ContainersStopped", json_integer(c.stopped));
	json_object_set_new(o, "Images", json_integer(c.images));
	json_object_set_new(o, "Driver", json_string("overlay2"));
	json_object_set_new(o, "DriverStatus", json_pack("[[s, s]]", "Backing", "overlayfs"));
	json_object_set_new(o, "CgroupDriver", json_string("cgroupfs"));
	json_object_set_new(o, "CgroupVersion", json_string(strcmp(mode, "v2") == 0 ? "2" : "1"));
	json_object_set_new(o, "DefaultRuntime", json_string(runtime));
	json_object_set_new(o, "Runtimes", json_pack("{s:{s:s}}", runtime, "path", runtime));
	json_object_set_new(o, "DockerRootDir", json_string(n->cfg->data_root));
	json_object_set_new(o, "LoggingDriver", json_string("json-file"));
	json_object_set_new(o, "SecurityOptions", json_pack("[s]", "name=seccomp,profile=default"));
	json_object_set_new(o, "RegistryConfig", registry_config(n->cfg));
	json_t *labels = json_array();
	for (size_t i = 0; i < n->cfg->labels.n; i++)
		json_array_append_new(labels, json_string(n->cfg->labels.v[i]));
	json_object_set_new(o, "Labels", labels);
}

/* --- /system/df: sizes are counted on the pool, container by container */

struct df {
	struct node *node;
	json_t *result, *containers;
	struct strlist dirs;
	int64_t *sizes, layers;
	char *layers_dir;
	void (*done)(void *cb_data, json_t *o);
	void *cb_data;
};

static void df_container(void *data, const Pb__Container *c)
{
	struct df *d = data;
	CLEANUP_FREE char *cmd = NULL;
	if (c->config->n_entrypoint + c->config->n_cmd)
		cmd = xstrdup(c->config->n_entrypoint ? c->config->entrypoint[0] : c->config->cmd[0]);
	static const char *const words[] = {"created", "running", "exited", "removing", "paused", "dead"};
	json_array_append_new(d->containers,
	    json_pack("{s:s, s:[s+], s:s, s:s, s:s, s:I, s:s, s:s, s:{}}", "Id", c->id, "Names", "/",
		c->config->name, "Image", c->config->image, "ImageID", c->config->image_id, "Command",
		str_or(cmd, ""), "Created", (json_int_t)(c->created_at / NS_PER_SEC), "State",
		words[c->status], "Status", words[c->status], "Labels"));
	strlist_addf(&d->dirs, "%s/containers/%s", d->node->cfg->data_root, c->id);
}

static void df_image(void *data, const struct image *i)
{
	json_t *tags = json_array(), *digests = json_array();
	for (size_t k = 0; k < i->repo_tags.n; k++)
		json_array_append_new(tags, json_string(i->repo_tags.v[k]));
	for (size_t k = 0; k < i->repo_digests.n; k++)
		json_array_append_new(digests, json_string(i->repo_digests.v[k]));
	json_array_append_new(
	    data, json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:i, s:i, s:{}}", "Id", i->id, "ParentId", "",
		      "RepoTags", tags, "RepoDigests", digests, "Created", (json_int_t)i->created, "Size",
		      (json_int_t)i->size, "SharedSize", 0, "Containers", -1, "Labels"));
}

static void df_work(void *data)
{
	struct df *d = data;
	for (size_t i = 0; i < d->dirs.n; i++)
		if (fs_tree_size(d->dirs.v[i], &d->sizes[i], NULL) != 0)
			d->sizes[i] = 0; /* removed meanwhile */
	if (fs_tree_size(d->layers_dir, &d->layers, NULL) != 0)
		d->layers = 0;
}

static void df_done(void *data)
{
	struct df *d = data;
	for (size_t i = 0; i < d->dirs.n; i++) {
		json_t *c = json_array_get(d->containers, i);
		json_object_set_new(c, "SizeRw", json_integer(d->sizes[i]));
		json_object_set_new(c, "SizeRootFs", json_integer(d->sizes[i]));
	}
	json_object_set_new(d->result, "LayersSize", json_integer(d->layers));
	d->done(d->cb_data, d->result);
	strlist_done(&d->dirs);
	free(d->sizes);
	free(d->layers_dir);
	free(d);
}

static int system_df(void *data, void (*done)(void *cb_data, json_t *o), void *cb_data, struct err *e)
{
	struct node *n = data;
	(void)e;
	struct df *d = NEW(struct df);
	json_t *images = json_array();
	d->node = n;
	d->containers = json_array();
	d->done = done;
	d->cb_data = cb_data;
	engine_each(n->engine, df_container, d);
	images_each(n->images, df_image, images);
	d->result = json_pack("{s:o, s:o}", "Images", images, "Containers", d->containers);
	d->sizes = xcalloc(d->dirs.n ? d->dirs.n : 1, sizeof(*d->sizes));
	d->layers_dir = fs_path(n->cfg->data_root, "layers");
	loop_work(n->loop, df_work, df_done, d);
	return 0;
}

void engine_info_fill_api(struct node *n, struct engine_if *e)
{
	*e = (struct engine_if){.data = n, .info = info, .system_df = system_df};
}
