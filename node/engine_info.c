/* What the container engine adds to /info. */
#include <string.h>

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

void engine_info_fill_api(struct node *n, struct engine_if *e)
{
	*e = (struct engine_if){.data = n, .info = info};
}
