/* An image's digest from its registry, so that every task runs the same image. The registry gets a few
 * seconds; services are created without it as well, as an image may be on the nodes already. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/spec.h"

#define PATIENCE_MS 4000

#define IMAGE "TaskTemplate.ContainerSpec.Image"

/* An image that was loaded on this node, not pulled, is in no registry. */
static bool is_loaded(struct cli *c, const char *coded)
{
	json_t *image;
	if (api_get(c, &image, NULL, "/images/%s/json", coded) < 0)
		return false;
	bool loaded = json_array_size(json_object_get(image, "RepoDigests")) == 0;
	json_decref(image);
	return loaded;
}

static void set_platforms(json_t *spec, const json_t *found)
{
	json_t *list = json_array(), *p;
	size_t i;
	json_array_foreach(json_object_get(found, "Platforms"), i, p)
	{
		const char *arch = jstr(p, "architecture");
		/* Names of ARM variants differ too much to match nodes by. */
		json_array_append_new(list, json_pack("{s:s, s:s}", "Architecture",
						str_eq(arch, "arm") ? "" : arch, "OS", jstr(p, "os")));
	}
	if (json_array_size(list))
		jset(spec, "TaskTemplate.Placement.Platforms", list);
	else
		json_decref(list);
}

void spec_resolve_image(struct cli *c, json_t *spec, const char *auth, bool quiet)
{
	CLEANUP_FREE char *image = xstrdup(jstr(spec, IMAGE));
	if (strchr(image, '@'))
		return;
	CLEANUP_FREE char *coded = api_escape(image);
	if (is_loaded(c, coded))
		return;
	json_t *found = NULL;
	CLEANUP_FREE char *path = xasprintf("/distribution/%s/json", coded);
	int r = api_call(
	    c, "GET", path, &(struct api_opts){.auth = auth, .patience_ms = PATIENCE_MS}, &found, NULL, NULL);
	const char *digest = jstr(found, "Descriptor.digest");
	if (r == 0 && *digest) {
		const char *slash = strrchr(image, '/');
		bool tagged = strchr(slash ? slash : image, ':') != NULL;
		jset(spec, IMAGE, json_sprintf("%s%s@%s", image, tagged ? "" : ":latest", digest));
		set_platforms(spec, found);
	} else if (!quiet) {
		cli_warn("image %s could not be accessed on a registry to record\n"
			 "its digest. Each node will access %s independently,\n"
			 "possibly leading to different nodes running different\n"
			 "versions of the image.",
		    image, image);
	}
	json_decref(found);
}
