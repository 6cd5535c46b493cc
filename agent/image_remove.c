/* Taking images away: `image rm` and `image prune`, by docker's rules.
 *
 * Removing by a name takes that name; the image goes with its last one. Names by digest go along when they
 * are all that is left of the same repository. Removing by id takes all names, but those of several
 * repositories only when forced. What a running container uses stays; what a stopped one uses loses its names
 * when forced, and its data stay until the container is gone and the image is pruned or removed. */
#include <stdio.h>
#include <string.h>

#include "agent/image_store.h"
#include "base/log.h"
#include "base/mem.h"

#define SHORT_ID(id) ((id) + 7) /* printed with %.12s */

struct removal {
	struct images *im;
	json_t *result;
	int64_t bytes;
};

static void note(struct removal *rm, const char *key, const char *value)
{
	json_array_append_new(rm->result, json_pack("{s:s}", key, value));
}

/* "docker.io/library/redis" of a full name. */
static char *repository_of(const char *full)
{
	struct image_ref r;
	if (image_ref_parse(full, &r, NULL) < 0)
		return xstrdup(full);
	char *repo = xasprintf("%s/%s", r.domain, r.path);
	image_ref_done(&r);
	return repo;
}

static char *familiar_of(const char *full)
{
	struct image_ref r;
	if (image_ref_parse(full, &r, NULL) < 0)
		return xstrdup(full);
	char *name = image_ref_familiar(&r);
	image_ref_done(&r);
	return name;
}

static bool is_digest_name(const char *full)
{
	return strchr(full, '@') != NULL;
}

static int untag(struct removal *rm, const struct strlist *names, const char *id, struct err *e)
{
	int rc = images_unname(rm->im, names, e);
	for (size_t k = 0; k < names->n; k++) {
		CLEANUP_FREE char *shown = familiar_of(names->v[k]);
		note(rm, "Untagged", shown);
		images_announce(rm->im, "untag", id, shown);
	}
	return rc;
}

/* The image's data. Layers that others have too stay. */
static void delete_image(struct removal *rm, const char *id)
{
	struct images *im = rm->im;
	struct image *i = images_get(im, id);
	i->refs++;
	CLEANUP_FREE char *copy = xstrdup(id);
	int64_t before = layers_total_size(im->layers);
	CLEANUP_STRLIST struct strlist chain = STRLIST_INIT;
	for (size_t k = i->chain_ids.n; k-- > 0;)
		strlist_add(&chain, i->chain_ids.v[k]);
	images_forget(im, copy);
	image_unref(i);
	rm->bytes += before - layers_total_size(im->layers);
	note(rm, "Deleted", copy);
	for (size_t k = 0; k < chain.n; k++) {
		int64_t size;
		if (layers_acquire(im->layers, chain.v[k], &size))
			layers_release(im->layers, chain.v[k]);
		else
			note(rm, "Deleted", chain.v[k]);
	}
	images_announce(im, "delete", copy, copy);
}

/* The names that go when `name` does: itself, and the digests of its repository when no tag of it is left. */
static void names_to_remove(const struct strlist *all, const char *name, struct strlist *ret)
{
	CLEANUP_FREE char *repo = repository_of(name);
	bool tags_left = false;
	strlist_add(ret, name);
	for (size_t k = 0; k < all->n; k++) {
		CLEANUP_FREE char *other = repository_of(all->v[k]);
		tags_left |= str_eq(repo, other) && !str_eq(all->v[k], name) && !is_digest_name(all->v[k]);
	}
	for (size_t k = 0; k < all->n && !tags_left && !is_digest_name(name); k++) {
		CLEANUP_FREE char *other = repository_of(all->v[k]);
		if (str_eq(repo, other) && is_digest_name(all->v[k]))
			strlist_add(ret, all->v[k]);
	}
}

static const char *user_of(struct images *im, const char *id, bool *ret_running)
{
	*ret_running = false;
	return im->o.in_use ? im->o.in_use(im->o.data, id, ret_running) : NULL;
}

static int remove_by_name(
    struct removal *rm, struct image *i, const char *name, const char *asked, bool force, struct err *e)
{
	CLEANUP_STRLIST struct strlist all = STRLIST_INIT, going = STRLIST_INIT;
	CLEANUP_FREE char *id = xstrdup(i->id);
	images_names_of(rm->im, id, &all);
	names_to_remove(&all, name, &going);
	bool last = going.n == all.n, running;
	const char *user = last ? user_of(rm->im, id, &running) : NULL;
	if (user && !force)
		return err_set(e, ERR_CONFLICT,
		    "conflict: unable to remove repository reference \"%s\" (must force) - container %.12s "
		    "is using "
		    "its referenced image %.12s",
		    asked, user, SHORT_ID(id));
	int rc = untag(rm, &going, id, e);
	if (rc == 0 && last && !user)
		delete_image(rm, id);
	return rc;
}

static int remove_by_id(struct removal *rm, struct image *i, bool force, struct err *e)
{
	CLEANUP_STRLIST struct strlist all = STRLIST_INIT;
	CLEANUP_FREE char *id = xstrdup(i->id);
	images_names_of(rm->im, id, &all);
	bool running, several = false;
	const char *user = user_of(rm->im, id, &running);
	if (user && running)
		return err_set(e, ERR_CONFLICT,
		    "conflict: unable to delete %.12s (cannot be forced) - image is being used by running "
		    "container "
		    "%.12s",
		    SHORT_ID(id), user);
	if (user && !force)
		return err_set(e, ERR_CONFLICT,
		    "conflict: unable to delete %.12s (must be forced) - image is being used by stopped "
		    "container "
		    "%.12s",
		    SHORT_ID(id), user);
	for (size_t k = 1; k < all.n; k++) {
		CLEANUP_FREE char *a = repository_of(all.v[0]);
		CLEANUP_FREE char *b = repository_of(all.v[k]);
		several |= !str_eq(a, b);
	}
	if (several && !force)
		return err_set(e, ERR_CONFLICT,
		    "conflict: unable to delete %.12s (must be forced) - image is referenced in multiple "
		    "repositories",
		    SHORT_ID(id));
	int rc = untag(rm, &all, id, e);
	if (rc == 0 && !user)
		delete_image(rm, id);
	return rc;
}

int images_remove(struct images *im, const char *ref, bool force, json_t **ret, struct err *e)
{
	struct image *i;
	CLEANUP_FREE char *name = NULL;
	int rc = images_lookup(im, ref, &i, &name, e);
	if (rc < 0)
		return rc;
	struct removal rm = {.im = im, .result = json_array()};
	rc = name ? remove_by_name(&rm, i, name, ref, force, e) : remove_by_id(&rm, i, force, e);
	if (rc < 0)
		json_decref(rm.result);
	else
		*ret = rm.result;
	return rc;
}

static bool has_tag(const struct strlist *names)
{
	for (size_t k = 0; k < names->n; k++)
		if (!is_digest_name(names->v[k]))
			return true;
	return false;
}

int images_prune(struct images *im, bool dangling_only, bool (*want)(void *data, const struct image *i),
    void *data, json_t **ret_deleted, int64_t *ret_bytes, struct err *e)
{
	struct removal rm = {.im = im, .result = json_array()};
	CLEANUP_STRLIST struct strlist ids = STRLIST_INIT;
	size_t it = 0;
	const char *key;
	void *value;
	while (strmap_next(&im->by_id, &it, &key, &value))
		if (!want || want(data, value))
			strlist_add(&ids, key);
	strlist_sort(&ids);
	int rc = 0;
	for (size_t k = 0; rc == 0 && k < ids.n; k++) {
		CLEANUP_STRLIST struct strlist names = STRLIST_INIT;
		bool running;
		images_names_of(im, ids.v[k], &names);
		if ((dangling_only && has_tag(&names)) || user_of(im, ids.v[k], &running))
			continue;
		rc = untag(&rm, &names, ids.v[k], e);
		if (rc == 0)
			delete_image(&rm, ids.v[k]);
	}
	if (rc < 0) {
		json_decref(rm.result);
		return rc;
	}
	*ret_deleted = rm.result;
	*ret_bytes = rm.bytes;
	return 0;
}
