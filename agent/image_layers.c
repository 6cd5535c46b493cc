/* Layers on disk.
 *
 * A layer is unpacked into layers/.new-RANDOM/diff, gets its layer.json beside that, and then its name by one
 * rename; so a directory with a chain id for a name is always whole. It is removed by a rename to
 * .old-RANDOM, whose tree goes later. Whatever starts with a dot when the store opens is left over from a
 * crash.
 *
 * Two threads that want the same layer both unpack it; the second finds the name taken and throws its own
 * away. That is rare, and cheaper than waiting in the thread pool. */
#include "agent/image_layers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/image_unpack.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#define META_VERSION 1
#define META_MAX     4096

struct layer {
	char chain_id[IMAGE_DIGEST_LEN + 1];
	int64_t size;
	unsigned pins;
};

struct layers {
	char *dir;
	pthread_mutex_t lock;
	struct strmap by_chain;
	struct strlist trash; /* paths */
	bool users_known;     /* before: what nobody pins may be of an image that was not read yet */
};

void layers_chain_id(const char *parent, const char *diff_id, char out[IMAGE_DIGEST_LEN + 1])
{
	if (!parent) {
		snprintf(out, IMAGE_DIGEST_LEN + 1, "%s", diff_id);
		return;
	}
	CLEANUP_FREE char *both = xasprintf("%s %s", parent, diff_id);
	image_digest(both, strlen(both), out);
}

static char *layer_dir(const struct layers *ls, const char *chain_id)
{
	ASSERT(image_digest_valid(chain_id));
	return fs_path(ls->dir, chain_id + 7);
}

char *layers_path(const struct layers *ls, const char *chain_id)
{
	ASSERT(image_digest_valid(chain_id));
	return xasprintf("%s/%s/diff", ls->dir, chain_id + 7);
}

static char *temp_name(const struct layers *ls, const char *kind)
{
	return xasprintf("%s/.%s-%016llx", ls->dir, kind, (unsigned long long)rng_u64(rng_system()));
}

static void insert(struct layers *ls, const char *chain_id, int64_t size, unsigned pins)
{
	struct layer *l = NEW(struct layer);
	snprintf(l->chain_id, sizeof(l->chain_id), "%s", chain_id);
	l->size = size;
	l->pins = pins;
	strmap_put(&ls->by_chain, l->chain_id, l);
}

/* --- opening */

static int read_meta(const struct layers *ls, const char *chain_id, int64_t *ret_size, struct err *e)
{
	CLEANUP_FREE char *dir = layer_dir(ls, chain_id);
	CLEANUP_FREE char *path = fs_path(dir, "layer.json");
	CLEANUP_BUF struct buf text = BUF_INIT;
	int rc = fs_read(path, META_MAX, &text, e);
	if (rc < 0)
		return rc;
	json_t *j = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	const json_t *size = json_object_get(j, "size");
	if (json_integer_value(json_object_get(j, "version")) != META_VERSION || !json_is_integer(size) ||
	    !str_eq(json_string_value(json_object_get(j, "chain_id")), chain_id))
		rc = err_set(e, ERR_CORRUPT, "%s is damaged or of another version", path);
	else
		*ret_size = json_integer_value(size);
	json_decref(j);
	return rc;
}

static void scan_entry(struct layers *ls, const char *name)
{
	char chain_id[IMAGE_DIGEST_LEN + 1];
	int64_t size = 0;
	struct err why = ERR_INIT;
	snprintf(chain_id, sizeof(chain_id), "sha256:%.64s", name);
	if (strlen(name) == 64 && image_digest_valid(chain_id) && read_meta(ls, chain_id, &size, &why) == 0) {
		insert(ls, chain_id, size, 0);
		return;
	}
	if (why.code)
		log_warn("a layer is removed: %s", why.text);
	strlist_take(&ls->trash, fs_path(ls->dir, name));
}

int layers_open(const char *data_root, struct layers **ret, struct err *e)
{
	struct layers *ls = NEW(struct layers);
	pthread_mutex_init(&ls->lock, NULL);
	ls->dir = fs_path(data_root, "layers");
	int rc = fs_mkdir_p(ls->dir, 0700, e);
	DIR *d = rc == 0 ? opendir(ls->dir) : NULL;
	if (!d) {
		if (rc == 0)
			rc = err_errno(e, errno, "cannot open %s", ls->dir);
		layers_free(ls);
		return rc;
	}
	const struct dirent *de;
	while ((de = readdir(d)))
		if (!str_eq(de->d_name, ".") && !str_eq(de->d_name, ".."))
			scan_entry(ls, de->d_name);
	closedir(d);
	*ret = ls;
	return 0;
}

void layers_free(struct layers *ls)
{
	if (!ls)
		return;
	strmap_done_free(&ls->by_chain, free);
	strlist_done(&ls->trash);
	pthread_mutex_destroy(&ls->lock);
	free(ls->dir);
	free(ls);
}

/* --- pins */

static struct layer *pin(struct layers *ls, const char *chain_id)
{
	struct layer *l = strmap_get(&ls->by_chain, chain_id);
	if (l)
		l->pins++;
	return l;
}

bool layers_acquire(struct layers *ls, const char *chain_id, int64_t *ret_size)
{
	pthread_mutex_lock(&ls->lock);
	const struct layer *l = pin(ls, chain_id);
	if (l)
		*ret_size = l->size;
	pthread_mutex_unlock(&ls->lock);
	return l != NULL;
}

/* Locked. The name is free again at once. */
static void discard(struct layers *ls, struct layer *l)
{
	CLEANUP_FREE char *from = layer_dir(ls, l->chain_id);
	char *to = temp_name(ls, "old");
	if (rename(from, to) < 0) {
		log_warn("cannot remove layer %s: %s", l->chain_id, strerror(errno));
		free(to);
		return; /* stays, unpinned, and is tried again at the next start */
	}
	strlist_take(&ls->trash, to);
	strmap_remove(&ls->by_chain, l->chain_id);
	free(l);
}

void layers_release(struct layers *ls, const char *chain_id)
{
	pthread_mutex_lock(&ls->lock);
	struct layer *l = strmap_get(&ls->by_chain, chain_id);
	ASSERT(l && l->pins > 0);
	if (--l->pins == 0 && ls->users_known)
		discard(ls, l);
	pthread_mutex_unlock(&ls->lock);
}

void layers_drop_unused(struct layers *ls)
{
	pthread_mutex_lock(&ls->lock);
	ls->users_known = true;
	size_t it = 0;
	void *value;
	while (strmap_next(&ls->by_chain, &it, NULL, &value)) {
		struct layer *l = value;
		if (l->pins == 0)
			discard(ls, l);
	}
	pthread_mutex_unlock(&ls->lock);
}

int64_t layers_total_size(struct layers *ls)
{
	int64_t total = 0;
	pthread_mutex_lock(&ls->lock);
	size_t it = 0;
	void *value;
	while (strmap_next(&ls->by_chain, &it, NULL, &value))
		total += ((const struct layer *)value)->size;
	pthread_mutex_unlock(&ls->lock);
	return total;
}

void layers_trash(struct layers *ls, const char *path)
{
	pthread_mutex_lock(&ls->lock);
	strlist_add(&ls->trash, path);
	pthread_mutex_unlock(&ls->lock);
}

bool layers_has_trash(struct layers *ls)
{
	pthread_mutex_lock(&ls->lock);
	bool has = ls->trash.n > 0;
	pthread_mutex_unlock(&ls->lock);
	return has;
}

void layers_empty_trash(struct layers *ls)
{
	for (;;) {
		pthread_mutex_lock(&ls->lock);
		char *path = ls->trash.n ? ls->trash.v[--ls->trash.n] : NULL;
		pthread_mutex_unlock(&ls->lock);
		if (!path)
			return;
		struct err why = ERR_INIT;
		if (fs_remove_tree(path, &why) < 0)
			log_warn("left for the next start: %s", why.text);
		free(path);
	}
}

/* --- adding */

static int write_meta(
    const char *dir, const char *chain_id, const struct layer_source *s, int64_t size, struct err *e)
{
	json_t *j = json_pack("{s:i,s:s,s:s,s:s?,s:I}", "version", META_VERSION, "chain_id", chain_id,
	    "diff_id", s->diff_id, "parent", s->parent, "size", (json_int_t)size);
	ASSERT(j);
	char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
	ASSERT(text);
	json_decref(j);
	CLEANUP_FREE char *path = fs_path(dir, "layer.json");
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc = fd < 0 ? err_errno(e, errno, "cannot create %s", path)
			: image_write_all(fd, text, strlen(text), path, e);
	if (fd >= 0)
		close(fd);
	free(text);
	return rc;
}

static int fill(
    const char *dir, const char *chain_id, const struct layer_source *s, int64_t *ret_size, struct err *e)
{
	CLEANUP_FREE char *diff = fs_path(dir, "diff");
	/* Only root may look into the store, but a container's users must pass its root directory; a root
	 * entry in the layer changes the mode. */
	if (mkdir(dir, 0700) < 0 || mkdir(diff, 0755) < 0 || chmod(diff, 0755) < 0)
		return err_errno(e, errno, "cannot create %s", diff);
	struct unpack_opts o = {
	    .dir = diff,
	    .blob = s->blob,
	    .what = s->what,
	    .diff_id = s->diff_id,
	    .cancelled = s->cancelled,
	    .progress = s->progress,
	    .data = s->data,
	};
	struct unpack_result result;
	int rc = image_unpack(&o, &result, e);
	if (rc == 0)
		rc = write_meta(dir, chain_id, s, result.size, e);
	if (rc == 0)
		*ret_size = result.size;
	return rc;
}

/* Gives the new directory its name, or finds that another thread has done so; pinned either way. */
static int publish(struct layers *ls, const char *dir, const char *chain_id, int64_t size, struct err *e)
{
	CLEANUP_FREE char *to = layer_dir(ls, chain_id);
	int rc = 0;
	pthread_mutex_lock(&ls->lock);
	if (!pin(ls, chain_id)) {
		if (rename(dir, to) < 0)
			rc = err_errno(e, errno, "cannot rename %s to %s", dir, to);
		else
			insert(ls, chain_id, size, 1);
	}
	pthread_mutex_unlock(&ls->lock);
	return rc;
}

int layers_add(struct layers *ls, const struct layer_source *s, int64_t *ret_size, struct err *e)
{
	char chain_id[IMAGE_DIGEST_LEN + 1];
	layers_chain_id(s->parent, s->diff_id, chain_id);
	if (layers_acquire(ls, chain_id, ret_size))
		return 0;
	CLEANUP_FREE char *dir = temp_name(ls, "new");
	int64_t size = 0;
	int rc = fill(dir, chain_id, s, &size, e);
	if (rc == 0)
		rc = publish(ls, dir, chain_id, size, e);
	/* Gone when it has its name. */
	struct err why = ERR_INIT;
	if (fs_remove_tree(dir, &why) < 0)
		log_warn("left for the next start: %s", why.text);
	if (rc == 0)
		*ret_size = size;
	return rc;
}

int layers_sync(struct layers *ls, struct err *e)
{
	CLEANUP_CLOSE int fd = open(ls->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || syncfs(fd) < 0)
		return err_errno(e, errno, "cannot sync %s", ls->dir);
	return 0;
}
