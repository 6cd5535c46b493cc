/* The images of this node: what there is and what it is called.
 *
 * On disk, below <data-root>/images: configs/HEX (the config's bytes; its digest is the image's id),
 * manifests/HEX (the registry's manifest, when it came from one), names.json (full reference -> id), tmp/
 * (spools). An image is there when its config and all its layers are. Order of writing: layers, sync, config,
 * names; so a crash leaves at most layers and configs that the next start throws away or keeps without a
 * name.
 *
 * In memory each image is one struct image, replaced as a whole when its names change; whoever holds a
 * reference keeps the layers too, until the last one is gone. All of this runs on the loop, but for
 * images_unpack. */
#include "agent/image.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/image_store.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

#define NAMES_VERSION 1
#define NAMES_MAX     (64u * 1024 * 1024)

struct image_full {
	struct image pub;
	struct images *im;
};

/* --- life */

void images_hold(struct images *im)
{
	im->users++;
}

void images_release(struct images *im)
{
	ASSERT(im->users > 0);
	if (--im->users)
		return;
	void (*closed)(void *) = im->closed;
	void *data = im->closed_data;
	layers_free(im->layers);
	strmap_done(&im->by_id);
	strmap_done_free(&im->names, free);
	strmap_done(&im->pulls);
	strlist_done(&im->insecure);
	strlist_done(&im->mirrors);
	free(im->dir);
	free(im->tmp_dir);
	free(im);
	if (closed)
		closed(data);
}

static void release_deferred(void *data)
{
	images_release(data);
}

void images_close(struct images *im, void (*closed)(void *data), void *data)
{
	if (im->closing)
		return;
	im->closing = true;
	im->closed = closed;
	im->closed_data = data;
	images_pull_cancel_all(im);
	for (struct image_job *j = im->queue_head; j; j = image_job_next(j))
		image_job_cancel(j);
	/* References that others still hold would keep it for ever: they are about to go as well, and
	 * `closed` comes then. */
	size_t it = 0;
	void *value;
	while (strmap_next(&im->by_id, &it, NULL, &value)) {
		struct image *i = value;
		strmap_remove(&im->by_id, i->id);
		image_unref(i);
	}
	loop_defer(im->loop, release_deferred, im);
}

static void trash_work(void *data)
{
	layers_empty_trash(((struct images *)data)->layers);
}

static void trash_done(void *data)
{
	struct images *im = data;
	im->emptying = false;
	images_sweep(im);
	images_release(im);
}

void images_sweep(struct images *im)
{
	if (im->emptying || im->closing || !layers_has_trash(im->layers))
		return;
	im->emptying = true;
	images_hold(im);
	loop_work(im->loop, trash_work, trash_done, im);
}

void images_announce(struct images *im, const char *action, const char *id, const char *name)
{
	if (im->o.event)
		im->o.event(im->o.data, action, id, name);
}

/* --- struct image */

static void free_image(struct image *i)
{
	struct image_full *f = CONTAINER_OF(i, struct image_full, pub);
	struct images *im = f->im;
	/* A store that closes keeps its layers. */
	for (size_t k = 0; !im->closing && k < i->chain_ids.n; k++)
		layers_release(im->layers, i->chain_ids.v[k]);
	free(i->id);
	json_decref(i->config);
	strlist_done(&i->layers);
	strlist_done(&i->chain_ids);
	strlist_done(&i->repo_tags);
	strlist_done(&i->repo_digests);
	free(f);
	images_sweep(im);
	images_release(im);
}

void image_unref(struct image *i)
{
	if (!i)
		return;
	ASSERT(i->refs > 0);
	if (--i->refs == 0)
		free_image(i);
}

void images_names_of(const struct images *im, const char *id, struct strlist *ret)
{
	size_t it = 0;
	const char *name;
	void *value;
	while (strmap_next(&im->names, &it, &name, &value))
		if (str_eq(value, id))
			strlist_add(ret, name);
	strlist_sort(ret);
}

static void fill_names(struct images *im, struct image *i)
{
	CLEANUP_STRLIST struct strlist names = STRLIST_INIT;
	images_names_of(im, i->id, &names);
	for (size_t k = 0; k < names.n; k++) {
		struct image_ref r;
		if (image_ref_parse(names.v[k], &r, NULL) < 0)
			continue;
		strlist_take(r.digest ? &i->repo_digests : &i->repo_tags, image_ref_familiar(&r));
		image_ref_done(&r);
	}
}

/* Takes the pins that the caller has on the layers. */
static struct image *new_image(
    struct images *im, const char *id, json_t *config, const struct strlist *chain_ids, int64_t size)
{
	struct image_full *f = NEW(struct image_full);
	struct image *i = &f->pub;
	f->im = im;
	images_hold(im);
	i->refs = 1;
	i->id = xstrdup(id);
	i->config = json_incref(config);
	i->size = size;
	const char *created = json_string_value(json_object_get(config, "created"));
	int64_t ns;
	if (created && str_parse_time(created, &ns, NULL) == 0 && ns > 0)
		i->created = ns / INT64_C(1000000000);
	for (size_t k = 0; k < chain_ids->n; k++) {
		strlist_add(&i->chain_ids, chain_ids->v[k]);
		strlist_take(&i->layers, layers_path(im->layers, chain_ids->v[k]));
	}
	fill_names(im, i);
	return i;
}

static void put_image(struct images *im, struct image *i)
{
	/* The map copies its key, so the old image may go. */
	image_unref(strmap_put(&im->by_id, i->id, i));
}

/* Replaces an image after its names changed. */
static void renew(struct images *im, const char *id)
{
	struct image *old = images_get(im, id);
	if (!old)
		return;
	int64_t size;
	for (size_t k = 0; k < old->chain_ids.n; k++) {
		bool there = layers_acquire(im->layers, old->chain_ids.v[k], &size);
		ASSERT(there);
	}
	put_image(im, new_image(im, old->id, old->config, &old->chain_ids, old->size));
}

struct image *images_get(const struct images *im, const char *id)
{
	return strmap_get(&im->by_id, id);
}

void images_each(struct images *im, void (*fn)(void *data, const struct image *i), void *data)
{
	size_t it = 0;
	void *value;
	while (strmap_next(&im->by_id, &it, NULL, &value))
		fn(data, value);
}

int64_t images_layers_size(struct images *im)
{
	return layers_total_size(im->layers);
}

int64_t images_layer_size(struct images *im, const char *chain_id)
{
	int64_t size = 0;
	if (layers_acquire(im->layers, chain_id, &size))
		layers_release(im->layers, chain_id);
	return size;
}

/* --- finding */

/* The key of a reference in the names: without the tag when there is a digest. */
static char *name_key(const struct image_ref *r)
{
	struct image_ref key = *r;
	if (key.digest)
		key.tag = NULL;
	return image_ref_full(&key);
}

/* NULL: none or more than one. */
static struct image *by_prefix(const struct images *im, const char *prefix, bool *ret_ambiguous)
{
	size_t n = strlen(prefix), it = 0;
	struct image *found = NULL;
	void *value;
	if (n == 0 || n > 64 || strspn(prefix, "0123456789abcdef") != n)
		return NULL;
	while (strmap_next(&im->by_id, &it, NULL, &value)) {
		struct image *i = value;
		if (strncmp(i->id + 7, prefix, n) != 0)
			continue;
		if (found) {
			*ret_ambiguous = true;
			return NULL;
		}
		found = i;
	}
	return found;
}

int images_lookup(
    const struct images *im, const char *ref, struct image **ret, char **ret_name, struct err *e)
{
	struct image *i = NULL;
	bool ambiguous = false;
	if (ret_name)
		*ret_name = NULL;
	if (image_digest_valid(ref))
		i = images_get(im, ref);
	else if (str_has_prefix(ref, "sha256:"))
		i = by_prefix(im, ref + 7, &ambiguous);
	struct image_ref r;
	struct err why = ERR_INIT;
	bool is_ref = !i && image_ref_parse(ref, &r, &why) == 0;
	if (is_ref) {
		char *key = name_key(&r);
		const char *id = strmap_get(&im->names, key);
		i = id ? images_get(im, id) : NULL;
		/* An image is its id also by "name@id". */
		if (!i && r.digest)
			i = images_get(im, r.digest);
		else if (i && ret_name)
			*ret_name = TAKE_PTR(key);
		free(key);
		image_ref_done(&r);
	}
	if (!i)
		i = by_prefix(im, ref, &ambiguous);
	if (i) {
		*ret = i;
		return 0;
	}
	if (ambiguous) {
		err_set(e, ERR_NOT_FOUND, "No such image: %s (the prefix fits several)", ref);
		return ERR_NOT_FOUND;
	}
	if (!is_ref && why.code && !str_has_prefix(ref, "sha256:") &&
	    strspn(ref, "0123456789abcdef") != strlen(ref)) {
		err_copy(e, &why);
		return ERR_INVALID;
	}
	CLEANUP_FREE char *shown = NULL;
	if (is_ref && !strchr(ref, '@') && image_ref_parse(ref, &r, NULL) == 0) {
		shown = image_ref_familiar(&r);
		image_ref_done(&r);
	}
	err_set(e, ERR_NOT_FOUND, "No such image: %s", shown ? shown : ref);
	return ERR_NOT_FOUND;
}

int images_find(struct images *im, const char *ref, struct image **ret, struct err *e)
{
	struct image *i;
	int rc = images_lookup(im, ref, &i, NULL, e);
	if (rc < 0)
		return rc;
	i->refs++;
	*ret = i;
	return 0;
}

/* --- files */

static char *store_path(const struct images *im, const char *folder, const char *id)
{
	ASSERT(image_digest_valid(id));
	return xasprintf("%s/%s/%s", im->dir, folder, id + 7);
}

char *images_config_path(const struct images *im, const char *id)
{
	return store_path(im, "configs", id);
}

char *images_manifest_path(const struct images *im, const char *id)
{
	return store_path(im, "manifests", id);
}

int images_read_config(struct images *im, const char *id, struct buf *ret, struct err *e)
{
	CLEANUP_FREE char *path = images_config_path(im, id);
	return fs_read(path, LIMIT_IMAGE_CONFIG, ret, e);
}

int images_read_manifest(struct images *im, const char *id, struct buf *ret, struct err *e)
{
	CLEANUP_FREE char *path = images_manifest_path(im, id);
	return fs_exists(path) ? fs_read(path, LIMIT_IMAGE_MANIFEST, ret, e) : 0;
}

static int write_names(struct images *im, struct err *e)
{
	json_t *names = json_object();
	size_t it = 0;
	const char *name;
	void *id;
	while (strmap_next(&im->names, &it, &name, &id))
		json_object_set_new(names, name, json_string(id));
	json_t *j = json_pack("{s:i,s:o}", "version", NAMES_VERSION, "names", names);
	ASSERT(j);
	char *text = json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS);
	ASSERT(text);
	json_decref(j);
	CLEANUP_FREE char *path = fs_path(im->dir, "names.json");
	int rc = fs_write_atomic(path, text, strlen(text), 0600, e);
	free(text);
	return rc;
}

static int read_names(struct images *im, struct err *e)
{
	CLEANUP_FREE char *path = fs_path(im->dir, "names.json");
	if (!fs_exists(path))
		return 0;
	CLEANUP_BUF struct buf text = BUF_INIT;
	int rc = fs_read(path, NAMES_MAX, &text, e);
	if (rc < 0)
		return rc;
	json_t *j = NULL;
	rc = image_json_parse(&text, path, &j, e);
	if (rc < 0)
		return rc;
	if (json_integer_value(json_object_get(j, "version")) != NAMES_VERSION)
		rc = err_set(e, ERR_CORRUPT, "%s is of a version that this program does not know", path);
	const char *name;
	json_t *id;
	json_object_foreach(json_object_get(j, "names"), name, id)
	{
		/* Those of images that are gone are dropped. */
		if (rc == 0 && json_is_string(id) && images_get(im, json_string_value(id)))
			free(strmap_put(&im->names, name, xstrdup(json_string_value(id))));
	}
	json_decref(j);
	return rc;
}

/* --- opening */

static bool pin_chain(
    struct images *im, const struct strlist *diff_ids, struct strlist *ret_chain, int64_t *ret_size)
{
	char chain[IMAGE_DIGEST_LEN + 1];
	int64_t total = 0;
	for (size_t k = 0; k < diff_ids->n; k++) {
		int64_t size;
		layers_chain_id(k ? ret_chain->v[k - 1] : NULL, diff_ids->v[k], chain);
		if (!layers_acquire(im->layers, chain, &size)) {
			while (k--)
				layers_release(im->layers, ret_chain->v[k]);
			return false;
		}
		total += size;
		strlist_add(ret_chain, chain);
	}
	*ret_size = total;
	return true;
}

/* The config without what no container needs. */
static void trim_config(json_t *config)
{
	json_object_del(config, "history");
}

/* Makes an image of its parts whose layers are pinned, or pins them. NULL when a layer is missing. */
static struct image *image_of(struct images *im, struct image_parts *p)
{
	CLEANUP_STRLIST struct strlist chain = STRLIST_INIT;
	int64_t size = 0;
	if (!pin_chain(im, &p->diff_ids, &chain, &size))
		return NULL;
	trim_config(p->json);
	return new_image(im, p->id, p->json, &chain, size);
}

static int load_config(struct images *im, const char *hex, struct err *e)
{
	CLEANUP_FREE char *id = xasprintf("sha256:%s", hex);
	if (!image_digest_valid(id))
		return err_set(e, ERR_CORRUPT, "its name is not a digest");
	CLEANUP_BUF struct buf text = BUF_INIT;
	int rc = images_read_config(im, id, &text, e);
	struct image_parts p = {.config = BUF_INIT};
	if (rc == 0)
		rc = image_parts_set_config(&p, &text, "the config", e);
	if (rc == 0 && !str_eq(p.id, id))
		rc = err_set(e, ERR_CORRUPT, "its digest is %s", p.id);
	struct image *i = rc == 0 ? image_of(im, &p) : NULL;
	if (i)
		put_image(im, i);
	else if (rc == 0)
		rc = err_set(e, ERR_CORRUPT, "a layer is missing");
	image_parts_done(&p);
	return rc;
}

static int load_configs(struct images *im, struct err *e)
{
	CLEANUP_FREE char *dir = fs_path(im->dir, "configs");
	DIR *d = opendir(dir);
	if (!d)
		return err_errno(e, errno, "cannot open %s", dir);
	const struct dirent *de;
	while ((de = readdir(d))) {
		if (str_eq(de->d_name, ".") || str_eq(de->d_name, ".."))
			continue;
		struct err why = ERR_INIT;
		if (load_config(im, de->d_name, &why) == 0)
			continue;
		log_warn("image %s is removed: %s", de->d_name, why.text);
		CLEANUP_FREE char *path = fs_path(dir, de->d_name);
		unlink(path);
	}
	closedir(d);
	return 0;
}

/* Manifests of images that are gone. */
static void drop_manifests(struct images *im)
{
	CLEANUP_FREE char *dir = fs_path(im->dir, "manifests");
	DIR *d = opendir(dir);
	const struct dirent *de;
	while (d && (de = readdir(d))) {
		CLEANUP_FREE char *id = xasprintf("sha256:%s", de->d_name);
		if (de->d_name[0] == '.' || (image_digest_valid(id) && images_get(im, id)))
			continue;
		CLEANUP_FREE char *path = fs_path(dir, de->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
}

static int make_folders(struct images *im, struct err *e)
{
	static const char *const names[] = {"configs", "manifests"};
	int rc = fs_mkdir_p(im->dir, 0700, e);
	for (size_t k = 0; rc == 0 && k < ARRAY_LEN(names); k++) {
		CLEANUP_FREE char *path = fs_path(im->dir, names[k]);
		rc = fs_mkdir_p(path, 0700, e);
	}
	/* Spools of a daemon that is gone. */
	if (rc == 0)
		rc = fs_remove_tree(im->tmp_dir, e);
	return rc == 0 ? fs_mkdir_p(im->tmp_dir, 0700, e) : rc;
}

static void copy_list(struct strlist *to, const struct strlist *from)
{
	for (size_t k = 0; from && k < from->n; k++)
		strlist_add(to, from->v[k]);
}

int images_open(uv_loop_t *loop, const struct images_opts *o, struct images **ret, struct err *e)
{
	struct images *im = NEW(struct images);
	im->loop = loop;
	im->o = *o;
	im->users = 1;
	im->queue_tail = &im->queue_head;
	copy_list(&im->insecure, o->insecure_registries);
	copy_list(&im->mirrors, o->registry_mirrors);
	im->dir = fs_path(o->data_root, "images");
	im->tmp_dir = fs_path(im->dir, "tmp");
	int rc = make_folders(im, e);
	if (rc == 0)
		rc = layers_open(o->data_root, &im->layers, e);
	if (rc == 0)
		rc = load_configs(im, e);
	if (rc == 0)
		rc = read_names(im, e);
	if (rc < 0) {
		images_close(im, NULL, NULL);
		return rc;
	}
	size_t it = 0;
	const char *id;
	CLEANUP_STRLIST struct strlist ids = STRLIST_INIT;
	while (strmap_next(&im->by_id, &it, &id, NULL))
		strlist_add(&ids, id);
	for (size_t k = 0; k < ids.n; k++)
		renew(im, ids.v[k]); /* their names are known now */
	drop_manifests(im);
	layers_drop_unused(im->layers);
	images_sweep(im);
	*ret = im;
	return 0;
}

/* --- adding */

struct unpack_report {
	const struct images_unpack_progress *pr;
	size_t layer;
	int64_t total;
};

static void report(
    const struct images_unpack_progress *pr, size_t layer, const char *status, int64_t done, int64_t total)
{
	if (pr->report)
		pr->report(pr->data, layer, status, done, total);
}

static void report_layer(void *data, int64_t done)
{
	const struct unpack_report *r = data;
	report(r->pr, r->layer, "Loading", done, r->total);
}

/* The chain ids of the layers 0..n of p. */
static void chain_of(const struct strlist *diff_ids, struct strlist *ret)
{
	char chain[IMAGE_DIGEST_LEN + 1];
	for (size_t k = 0; k < diff_ids->n; k++) {
		layers_chain_id(k ? ret->v[k - 1] : NULL, diff_ids->v[k], chain);
		strlist_add(ret, chain);
	}
}

static void unpin(struct images *im, const struct strlist *diff_ids)
{
	CLEANUP_STRLIST struct strlist chain = STRLIST_INIT;
	chain_of(diff_ids, &chain);
	for (size_t k = 0; k < chain.n; k++)
		layers_release(im->layers, chain.v[k]);
}

static int unpack_layer(struct images *im, const struct image_parts *p, size_t k, const struct strlist *chain,
    const struct images_unpack_progress *pr, struct err *e)
{
	int64_t size;
	if (layers_acquire(im->layers, chain->v[k], &size)) {
		report(pr, k, "Already exists", 0, 0);
		return 0;
	}
	if (p->blobs[k].fd < 0)
		return err_set(
		    e, ERR_INTERNAL, "layer %zu of %zu was removed meanwhile; try again", k + 1, chain->n);
	CLEANUP_FREE char *what = xasprintf("layer %zu of %zu (%.19s)", k + 1, chain->n, p->diff_ids.v[k]);
	struct unpack_report r = {.pr = pr, .layer = k, .total = p->blobs[k].size};
	struct layer_source s = {
	    .parent = k ? chain->v[k - 1] : NULL,
	    .diff_id = p->diff_ids.v[k],
	    .blob = &p->blobs[k],
	    .what = what,
	    .cancelled = pr->cancelled,
	    .progress = report_layer,
	    .data = &r,
	};
	report(pr, k, "Loading", 0, r.total);
	int rc = layers_add(im->layers, &s, &size, e);
	if (rc == 0)
		report(pr, k, "Complete", r.total, r.total);
	return rc;
}

static int write_files(struct images *im, const struct image_parts *p, struct err *e)
{
	CLEANUP_FREE char *config = images_config_path(im, p->id);
	int rc = fs_exists(config) ? 0 : fs_write_atomic(config, p->config.data, p->config.len, 0600, e);
	if (rc == 0 && p->manifest.len) {
		CLEANUP_FREE char *manifest = images_manifest_path(im, p->id);
		rc = fs_write_atomic(manifest, p->manifest.data, p->manifest.len, 0600, e);
	}
	return rc;
}

static void remove_files(const struct images *im, const char *id)
{
	CLEANUP_FREE char *config = images_config_path(im, id);
	CLEANUP_FREE char *manifest = images_manifest_path(im, id);
	unlink(config);
	unlink(manifest);
}

int images_unpack(
    struct images *im, const struct image_parts *p, const struct images_unpack_progress *pr, struct err *e)
{
	CLEANUP_STRLIST struct strlist chain = STRLIST_INIT;
	chain_of(&p->diff_ids, &chain);
	int rc = 0;
	size_t n = 0;
	for (; rc == 0 && n < chain.n; n++) {
		rc = unpack_layer(im, p, n, &chain, pr, e);
		if (rc < 0)
			break;
	}
	if (rc == 0)
		rc = layers_sync(im->layers, e);
	if (rc == 0)
		rc = write_files(im, p, e);
	while (rc < 0 && n--)
		layers_release(im->layers, chain.v[n]);
	return rc;
}

void images_discard(struct images *im, const struct image_parts *p)
{
	/* A store that closes has forgotten which images there are; the next start looks anew. */
	if (!im->closing && !images_get(im, p->id))
		remove_files(im, p->id);
	unpin(im, &p->diff_ids);
}

int images_commit(struct images *im, struct image_parts *p, const char *digest_ref, struct err *e)
{
	if (im->closing) {
		images_discard(im, p);
		return err_set(e, ERR_CANCELLED, "the daemon is stopping");
	}
	/* image_of pins for itself; the caller's pins go in any case. */
	int rc = write_files(im, p, e); /* an image of this id may have been removed since images_unpack */
	bool is_new = rc == 0 && !images_get(im, p->id);
	if (is_new) {
		struct image *i = image_of(im, p);
		ASSERT(i);
		put_image(im, i);
	}
	unpin(im, &p->diff_ids);
	if (rc == 0 && digest_ref)
		rc = images_name(im, digest_ref, p->id, e);
	for (size_t k = 0; rc == 0 && k < p->names.n; k++)
		rc = images_name(im, p->names.v[k], p->id, e);
	if (rc < 0 && !images_get(im, p->id)) {
		remove_files(im, p->id);
	} else if (rc < 0 && is_new) {
		/* Nothing stays of an image that has no name because the disk is full. */
		CLEANUP_STRLIST struct strlist names = STRLIST_INIT;
		images_names_of(im, p->id, &names);
		images_unname(im, &names, NULL);
		images_forget(im, p->id);
	}
	return rc;
}

int images_name(struct images *im, const char *full, const char *id, struct err *e)
{
	CLEANUP_FREE char *old = NULL;
	const char *now = strmap_get(&im->names, full);
	if (str_eq(now, id))
		return 0;
	old = strmap_put(&im->names, full, xstrdup(id));
	int rc = write_names(im, e);
	if (rc < 0) {
		if (old)
			free(strmap_put(&im->names, full, TAKE_PTR(old)));
		else
			free(strmap_remove(&im->names, full));
		return rc;
	}
	if (old)
		renew(im, old);
	renew(im, id);
	return 0;
}

int images_unname(struct images *im, const struct strlist *full, struct err *e)
{
	CLEANUP_STRLIST struct strlist ids = STRLIST_INIT;
	for (size_t k = 0; k < full->n; k++) {
		char *id = strmap_remove(&im->names, full->v[k]);
		if (id && !strlist_has(&ids, id))
			strlist_add(&ids, id);
		free(id);
	}
	int rc = ids.n ? write_names(im, e) : 0;
	for (size_t k = 0; k < ids.n; k++)
		renew(im, ids.v[k]);
	return rc;
}

void images_forget(struct images *im, const char *id)
{
	remove_files(im, id);
	image_unref(strmap_remove(&im->by_id, id));
	images_sweep(im);
}

int images_tag(struct images *im, const char *source, const char *target, struct err *e)
{
	struct image *i;
	int rc = images_lookup(im, source, &i, NULL, e);
	if (rc < 0)
		return rc;
	struct image_ref r;
	rc = image_ref_parse(target, &r, e);
	if (rc < 0)
		return err_wrap(e, "Error parsing reference: \"%s\" is not a valid repository/tag", target);
	if (r.digest) {
		image_ref_done(&r);
		return err_set(e, ERR_INVALID, "refusing to create a tag with a digest reference");
	}
	CLEANUP_FREE char *full = image_ref_full(&r);
	CLEANUP_FREE char *familiar = image_ref_familiar(&r);
	CLEANUP_FREE char *id = xstrdup(i->id);
	image_ref_done(&r);
	rc = images_name(im, full, id, e);
	if (rc == 0)
		images_announce(im, "tag", id, familiar);
	return rc;
}
