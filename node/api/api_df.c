/* GET /system/df: what images and containers take. The lists are made on the loop; sizes of writable layers
 * are counted on the pool, then the answer goes out. Volumes and build cache are none. A layer that several
 * images have is shared by them and counted once in LayersSize. */
#include <string.h>

#include "base/fs.h"
#include "base/timer.h"
#include "base/map.h"
#include "base/mem.h"
#include "node/api/containers.h"

struct df {
	struct http_req *r; /* NULL once the client has gone */
	struct api_local *l;
	json_t *answer, *containers;
	struct strmap users;  /* image id -> containers of it */
	struct strmap layers; /* chain id -> images that have it */
	struct strlist dirs;  /* writable layers, as in containers */
	int64_t *sizes;
};

enum { IMAGES = 1, CONTAINERS = 2, VOLUMES = 4, BUILD_CACHE = 8, ALL = 15 };

static void gone(void *data)
{
	((struct df *)data)->r = NULL;
}

static void count(struct strmap *m, const char *key)
{
	uintptr_t n = (uintptr_t)strmap_get(m, key);
	strmap_put(m, key, (void *)(n + 1));
}

static void count_layers(void *data, const struct image *i)
{
	struct df *d = data;
	for (size_t k = 0; k < i->chain_ids.n; k++)
		count(&d->layers, i->chain_ids.v[k]);
}

static void take_image(void *data, const struct image *i)
{
	struct df *d = data;
	int64_t shared = 0;
	for (size_t k = 0; k < i->chain_ids.n; k++)
		if ((uintptr_t)strmap_get(&d->layers, i->chain_ids.v[k]) > 1)
			shared += images_layer_size(d->l->images, i->chain_ids.v[k]);
	json_t *o = image_summary_json(i, api_minor(d->r));
	json_object_set_new(o, "SharedSize", json_integer(shared));
	json_object_set_new(o, "VirtualSize", json_integer(i->size)); /* 20.10 asks for it */
	json_object_set_new(
	    o, "Containers", json_integer((json_int_t)(uintptr_t)strmap_get(&d->users, i->id)));
	json_array_append_new(json_object_get(d->answer, "Images"), o);
}

static void take_container(void *data, const Pb__Container *c)
{
	struct df *d = data;
	count(&d->users, c->config->image_id);
	if (!d->containers)
		return;
	json_array_append_new(
	    d->containers, container_list_json(d->l, c, clock_unix_ns(api_deps(d->l->api)->clock)));
	strlist_addf(&d->dirs, "%s/containers/%s/upper", api_deps(d->l->api)->data_root, c->id);
}

static void work(void *data)
{
	struct df *d = data;
	for (size_t i = 0; i < d->dirs.n; i++)
		if (fs_tree_size(d->dirs.v[i], &d->sizes[i], NULL) != 0)
			d->sizes[i] = 0; /* removed meanwhile */
}

static void set_sizes(struct df *d)
{
	for (size_t i = 0; i < d->dirs.n; i++) {
		struct image *image;
		int64_t root = d->sizes[i];
		json_t *c = json_array_get(d->containers, i);
		const char *id = json_string_value(json_object_get(c, "ImageID"));
		if (id && images_find(d->l->images, id, &image, NULL) == 0) {
			root += image->size;
			image_unref(image);
		}
		json_object_set_new(c, "SizeRw", json_integer(d->sizes[i]));
		json_object_set_new(c, "SizeRootFs", json_integer(root));
	}
}

static void done(void *data)
{
	struct df *d = data;
	if (d->r) {
		set_sizes(d);
		http_reply_json(d->r, 200, d->answer);
	} else {
		json_decref(d->answer);
	}
	strmap_done(&d->users);
	strmap_done(&d->layers);
	strlist_done(&d->dirs);
	free(d->sizes);
	free(d);
}

struct types {
	unsigned wanted;
	char *unknown;
};

static void take_type(void *data, const char *v)
{
	static const char *const names[] = {"image", "container", "volume", "build-cache"};
	struct types *t = data;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], v) == 0) {
			t->wanted |= 1u << i;
			return;
		}
	free(t->unknown);
	t->unknown = xstrdup(v);
}

static void df(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct types t = {0, NULL};
	http_query_each(r, "type", take_type, &t);
	if (t.unknown) {
		api_reply_errf(r, ERR_INVALID, "unknown object type: %s", t.unknown);
		free(t.unknown);
		return;
	}
	if (!t.wanted)
		t.wanted = ALL;
	struct df *d = NEW(struct df);
	d->r = r;
	d->l = l;
	d->answer = json_object();
	if (t.wanted & CONTAINERS)
		json_object_set(d->answer, "Containers", d->containers = json_array());
	engine_each(l->engine, take_container, d);
	if (t.wanted & IMAGES) {
		json_object_set_new(d->answer, "Images", json_array());
		json_object_set_new(d->answer, "LayersSize", json_integer(images_layers_size(l->images)));
		images_each(l->images, count_layers, d);
		images_each(l->images, take_image, d);
	}
	if (t.wanted & VOLUMES)
		json_object_set_new(d->answer, "Volumes", json_array());
	if (t.wanted & BUILD_CACHE) {
		json_object_set_new(d->answer, "BuildCache", json_array());
		json_object_set_new(d->answer, "BuilderSize", json_integer(0));
	}
	json_decref(d->containers); /* the answer has it */
	d->sizes = xcalloc(d->dirs.n ? d->dirs.n : 1, sizeof(*d->sizes));
	http_on_closed(r, gone, d);
	loop_work(l->loop, work, done, d);
}

void api_df_register(struct api_local *l)
{
	api_route(l->api, "GET", "/system/df", df, l);
}
