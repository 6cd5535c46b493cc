/* Archives of images.
 *
 * The archive lies in a file without a name. One pass over the tar's headers notes where each entry begins;
 * then manifest.json (docker-archive, also what newer `docker save` writes) or index.json (OCI) says which
 * entries are configs and layers. Nothing of it is unpacked here; names of entries are only looked up, never
 * used on disk.
 *
 * Failing: no tar, cut short, parts missing or not what they should be: ERR_CORRUPT with the part's name. */
#include "agent/image_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/image.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"

#define MAX_ENTRIES (64 * 1024)
#define MAX_LINKS   8
#define SPACE_EVERY (8u * 1024 * 1024)

struct entry {
	int64_t offset, size;
	char *link; /* a link's target as a clean name; NULL for a file */
};

struct index {
	int fd;
	struct strmap entries;
};

static void free_entry(void *p)
{
	struct entry *x = p;
	free(x->link);
	free(x);
}

/* --- names in the archive */

/* Joins and cleans lexically, "." and ".." included; what would lead above the top stays at the top. */
static char *clean_name(const char *dir, const char *name)
{
	CLEANUP_STRLIST struct strlist parts = STRLIST_INIT, all = STRLIST_INIT;
	if (name[0] != '/')
		strlist_split(&all, dir, '/');
	strlist_split(&all, name, '/');
	for (size_t i = 0; i < all.n; i++) {
		if (str_eq(all.v[i], "..")) {
			if (parts.n)
				free(parts.v[--parts.n]);
		} else if (all.v[i][0] && !str_eq(all.v[i], "."))
			strlist_add(&parts, all.v[i]);
	}
	return strlist_join(&parts, "/");
}

static char *dir_of(const char *name)
{
	const char *slash = strrchr(name, '/');
	return xstrndup(name, slash ? (size_t)(slash - name) : 0);
}

static int find_blob(const struct index *ix, const char *name, struct image_blob *ret, struct err *e)
{
	CLEANUP_FREE char *at = clean_name("", name);
	const struct entry *x = strmap_get(&ix->entries, at);
	for (int i = 0; x && x->link && i < MAX_LINKS; i++)
		x = strmap_get(&ix->entries, x->link);
	if (!x || x->link)
		return err_set(
		    e, ERR_CORRUPT, "the archive has no \"%.200s\", which its manifest names", name);
	*ret = (struct image_blob){.fd = ix->fd, .offset = x->offset, .in_tar = true, .size = x->size};
	return 0;
}

static bool has_entry(const struct index *ix, const char *name)
{
	return strmap_has(&ix->entries, name);
}

/* --- the pass over the headers */

static int add_entry(
    struct index *ix, struct archive *a, struct archive_entry *ae, int64_t end, struct err *e)
{
	const char *raw = archive_entry_pathname(ae);
	if (!raw || strlen(raw) > 4096)
		return err_set(e, ERR_CORRUPT, "the archive has an entry without a usable name");
	CLEANUP_FREE char *name = clean_name("", raw);
	const char *hard = archive_entry_hardlink(ae);
	mode_t type = archive_entry_filetype(ae);
	struct entry x = {.offset = archive_read_header_position(a), .size = archive_entry_size(ae)};
	if (hard)
		x.link = clean_name("", hard);
	else if (type == AE_IFLNK) {
		CLEANUP_FREE char *dir = dir_of(name);
		x.link = clean_name(dir, str_or(archive_entry_symlink(ae), ""));
	} else if (type != AE_IFREG)
		return 0;
	if (!x.link && (x.size < 0 || x.size > end - x.offset)) {
		return err_set(e, ERR_CORRUPT, "the archive is cut short in \"%.200s\"", name);
	}
	struct entry *copy = xmemdup(&x, sizeof(x));
	struct entry *old = strmap_put(&ix->entries, name, copy);
	if (old)
		free_entry(old);
	return 0;
}

static int index_entries(struct index *ix, struct archive *a, int64_t end, struct err *e)
{
	for (unsigned n = 0;; n++) {
		struct archive_entry *ae;
		int rc = archive_read_next_header(a, &ae);
		if (rc == ARCHIVE_EOF)
			return 0;
		if (rc < ARCHIVE_WARN) {
			const char *why = archive_error_string(a);
			return err_set(
			    e, ERR_CORRUPT, "the archive is damaged or cut short: %s", why ? why : "no tar");
		}
		if (n >= MAX_ENTRIES)
			return err_set(e, ERR_TOO_LARGE, "the archive has more than %d entries", MAX_ENTRIES);
		rc = add_entry(ix, a, ae, end, e);
		if (rc < 0)
			return rc;
	}
}

static int index_read(struct index *ix, struct err *e)
{
	struct stat st;
	if (fstat(ix->fd, &st) < 0 || lseek(ix->fd, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "cannot read the archive");
	if (st.st_size == 0)
		return err_set(e, ERR_CORRUPT, "the archive is empty");
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
	struct archive *a = archive_read_new();
	ASSERT(a);
	archive_read_support_format_tar(a);
	int rc;
	if (archive_read_open_fd(a, ix->fd, 64 * 1024) != ARCHIVE_OK)
		rc = err_set(e, ERR_CORRUPT, "the archive cannot be read: %s", archive_error_string(a));
	else
		rc = index_entries(ix, a, st.st_size, e);
	archive_read_free(a);
	if (utf8) {
		uselocale(before);
		freelocale(utf8);
	}
	return rc;
}

/* --- compressed archives */

int image_temp_file(const char *dir, struct err *e)
{
	CLEANUP_FREE char *path =
	    xasprintf("%s/spool-%016llx", dir, (unsigned long long)rng_u64(rng_system()));
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "cannot create a file in %s", dir);
	/* Without a name it goes with the descriptor, in a crash too. */
	unlink(path);
	return fd;
}

static bool looks_compressed(int fd)
{
	unsigned char m[6] = {0};
	if (pread(fd, m, sizeof(m), 0) < (ssize_t)sizeof(m))
		return false;
	return (m[0] == 0x1f && m[1] == 0x8b) || memcmp(m, "\x28\xb5\x2f\xfd", 4) == 0 ||
	       memcmp(m,
		   "\xfd"
		   "7zXZ",
		   5) == 0 ||
	       memcmp(m, "BZh", 3) == 0;
}

static int decompress(int *fd, const char *tmp_dir, const atomic_bool *cancelled, struct err *e)
{
	struct stat st;
	if (fstat(*fd, &st) < 0)
		return err_errno(e, errno, "cannot read the archive");
	CLEANUP_CLOSE int out = image_temp_file(tmp_dir, e);
	if (out < 0)
		return out;
	struct image_blob b = {.fd = *fd, .size = st.st_size};
	struct image_stream *s;
	int rc = image_stream_open(&b, "the archive", &s, e);
	if (rc < 0)
		return rc;
	size_t n = 1, unchecked = 0;
	while (rc == 0 && n) {
		const void *p;
		rc = image_stream_read(s, &p, &n, e);
		if (rc == 0 && n)
			rc = image_write_all(out, p, n, "the decompressed archive", e);
		unchecked += n;
		if (rc == 0 && unchecked > SPACE_EVERY) {
			unchecked = 0;
			rc = image_check_space(out, "the decompressed archive", e);
			if (rc == 0 && atomic_load(cancelled))
				rc = err_set(e, ERR_CANCELLED, "cancelled");
		}
	}
	image_stream_close(s);
	if (rc < 0)
		return rc;
	close(*fd);
	*fd = out;
	out = -1;
	return 0;
}

/* --- docker-archive */

/* A name that the archive gives: only what is a reference with a tag is taken. */
static int add_name(struct image_parts *p, const char *name, struct err *e)
{
	struct image_ref r;
	int rc = image_ref_parse(name, &r, e);
	if (rc < 0)
		return err_wrap(e, "the archive's name \"%.200s\"", name);
	if (r.tag) {
		/* A digest would be a claim that only a registry can make. */
		free(r.digest);
		r.digest = NULL;
		strlist_take(&p->names, image_ref_full(&r));
	}
	image_ref_done(&r);
	return 0;
}

static int read_json(
    const struct index *ix, const char *name, size_t max, struct buf *ret_text, json_t **ret, struct err *e)
{
	struct image_blob b;
	int rc = find_blob(ix, name, &b, e);
	if (rc == 0)
		rc = image_blob_read(&b, name, max, ret_text, e);
	return rc < 0 ? rc : image_json_parse(ret_text, name, ret, e);
}

static int read_docker_image(const struct index *ix, const json_t *m, struct image_parts *p, struct err *e)
{
	const char *config = json_string_value(json_object_get(m, "Config"));
	const json_t *layers = json_object_get(m, "Layers"), *tags = json_object_get(m, "RepoTags");
	if (!config || !json_is_array(layers))
		return err_set(e, ERR_CORRUPT, "manifest.json names no Config or no Layers");
	CLEANUP_BUF struct buf text = BUF_INIT;
	struct image_blob b;
	int rc = find_blob(ix, config, &b, e);
	if (rc == 0)
		rc = image_blob_read(&b, config, LIMIT_IMAGE_CONFIG, &text, e);
	if (rc == 0)
		rc = image_parts_set_config(p, &text, config, e);
	if (rc < 0)
		return rc;
	if (json_array_size(layers) != p->diff_ids.n)
		return err_set(e, ERR_CORRUPT,
		    "invalid manifest, layers length mismatch: manifest.json has %zu, the config has %zu",
		    json_array_size(layers), p->diff_ids.n);
	p->blobs = xcalloc(p->diff_ids.n, sizeof(*p->blobs));
	for (size_t i = 0; rc == 0 && i < p->diff_ids.n; i++)
		rc = find_blob(ix, str_or(json_string_value(json_array_get(layers, i)), ""), &p->blobs[i], e);
	for (size_t i = 0; rc == 0 && i < json_array_size(tags); i++)
		rc = add_name(p, str_or(json_string_value(json_array_get(tags, i)), ""), e);
	return rc;
}

static int read_docker(const struct index *ix, struct image_archive *a, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT;
	json_t *j = NULL;
	int rc = read_json(ix, "manifest.json", LIMIT_IMAGE_MANIFEST, &text, &j, e);
	if (rc < 0)
		return rc;
	size_t n = json_array_size(j);
	if (n == 0)
		rc = err_set(e, ERR_CORRUPT, "manifest.json lists no image");
	else if (n > IMAGE_MAX_IN_ARCHIVE)
		rc = err_set(
		    e, ERR_TOO_LARGE, "manifest.json lists more than %d images", IMAGE_MAX_IN_ARCHIVE);
	if (rc == 0)
		a->images = xcalloc(n, sizeof(*a->images));
	for (; rc == 0 && a->n < n; a->n++) {
		rc = read_docker_image(ix, json_array_get(j, a->n), &a->images[a->n], e);
		if (rc < 0)
			image_parts_done(&a->images[a->n]);
		if (rc < 0)
			break;
	}
	json_decref(j);
	return rc;
}

/* --- OCI archive */

static char *blob_name(const char *digest)
{
	return xasprintf("blobs/sha256/%s", digest + 7);
}

/* A blob that is JSON, with the digest that its descriptor says. */
static int read_oci_blob(
    const struct index *ix, const json_t *descriptor, size_t max, struct buf *ret_text, struct err *e)
{
	const char *digest = json_string_value(json_object_get(descriptor, "digest"));
	if (!image_digest_valid(digest))
		return err_set(e, ERR_CORRUPT, "index.json has an entry without a sha256 digest");
	CLEANUP_FREE char *name = blob_name(digest);
	struct image_blob b;
	int rc = find_blob(ix, name, &b, e);
	if (rc == 0)
		rc = image_blob_read(&b, name, max, ret_text, e);
	if (rc < 0)
		return rc;
	char is[IMAGE_DIGEST_LEN + 1];
	image_digest(ret_text->data ? ret_text->data : "", ret_text->len, is);
	return str_eq(is, digest) ? 0 : err_set(e, ERR_CORRUPT, "%s is corrupt: its digest is %s", name, is);
}

static int read_oci_layers(
    const struct index *ix, const json_t *manifest, const char *what, struct image_parts *p, struct err *e)
{
	struct image_descriptor config, *layers;
	size_t n;
	int rc = image_manifest_read(manifest, what, &config, &layers, &n, e);
	if (rc < 0)
		return rc;
	CLEANUP_BUF struct buf text = BUF_INIT;
	rc = read_oci_blob(ix, json_object_get(manifest, "config"), LIMIT_IMAGE_CONFIG, &text, e);
	if (rc == 0)
		rc = image_parts_set_config(p, &text, "the image's config", e);
	if (rc == 0 && p->diff_ids.n != n)
		rc = err_set(e, ERR_CORRUPT,
		    "invalid manifest, layers length mismatch: %s has %zu, the config has %zu", what, n,
		    p->diff_ids.n);
	if (rc == 0)
		p->blobs = xcalloc(n, sizeof(*p->blobs));
	for (size_t i = 0; rc == 0 && i < n; i++) {
		CLEANUP_FREE char *name = blob_name(layers[i].digest);
		rc = find_blob(ix, name, &p->blobs[i], e);
	}
	free(layers);
	return rc;
}

/* `descriptor` may lead to the manifest over one index of platforms. */
static int read_oci_image(
    const struct index *ix, const json_t *descriptor, struct image_parts *p, struct err *e)
{
	json_t *j = NULL;
	const json_t *at = descriptor;
	json_t *outer = NULL;
	int rc = 0;
	for (int depth = 0; rc == 0; depth++) {
		buf_reset(&p->manifest);
		rc = read_oci_blob(ix, at, LIMIT_IMAGE_MANIFEST, &p->manifest, e);
		if (rc == 0)
			rc = image_json_parse(&p->manifest, "a manifest in the archive", &j, e);
		if (rc < 0 || !image_is_index(j))
			break;
		json_decref(outer);
		outer = j;
		j = NULL;
		at = depth < 2 ? image_index_choose(outer, "the archive", e) : NULL;
		if (!at)
			rc = depth < 2 ? ERR_NOT_FOUND
				       : err_set(e, ERR_CORRUPT, "the archive's indexes are nested too deep");
	}
	if (rc == 0)
		rc = read_oci_layers(ix, j, "a manifest in the archive", p, e);
	json_decref(j);
	json_decref(outer);
	return rc;
}

static int add_oci_name(struct image_parts *p, const json_t *descriptor, struct err *e)
{
	const json_t *notes = json_object_get(descriptor, "annotations");
	const char *name = json_string_value(json_object_get(notes, "io.containerd.image.name"));
	if (!name) {
		name = json_string_value(json_object_get(notes, "org.opencontainers.image.ref.name"));
		/* The specification allows a bare tag here, which names no image. */
		if (name && !strpbrk(name, ":/"))
			name = NULL;
	}
	return name ? add_name(p, name, e) : 0;
}

static int read_oci(const struct index *ix, struct image_archive *a, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT;
	json_t *j = NULL;
	int rc = read_json(ix, "index.json", LIMIT_IMAGE_MANIFEST, &text, &j, e);
	if (rc < 0)
		return rc;
	const json_t *list = json_object_get(j, "manifests");
	size_t n = json_array_size(list);
	if (n == 0)
		rc = err_set(e, ERR_CORRUPT, "index.json lists no image");
	else if (n > IMAGE_MAX_IN_ARCHIVE)
		rc = err_set(e, ERR_TOO_LARGE, "index.json lists more than %d images", IMAGE_MAX_IN_ARCHIVE);
	if (rc == 0)
		a->images = xcalloc(n, sizeof(*a->images));
	for (; rc == 0 && a->n < n; a->n++) {
		const json_t *d = json_array_get(list, a->n);
		rc = read_oci_image(ix, d, &a->images[a->n], e);
		if (rc == 0)
			rc = add_oci_name(&a->images[a->n], d, e);
		if (rc < 0) {
			image_parts_done(&a->images[a->n]);
			break;
		}
	}
	json_decref(j);
	return rc;
}

int image_archive_read(
    int *fd, const char *tmp_dir, const atomic_bool *cancelled, struct image_archive *ret, struct err *e)
{
	int rc = looks_compressed(*fd) ? decompress(fd, tmp_dir, cancelled, e) : 0;
	if (rc < 0)
		return rc;
	struct index ix = {.fd = *fd, .entries = STRMAP_INIT};
	struct image_archive a = {NULL, 0};
	rc = index_read(&ix, e);
	if (rc < 0)
		;
	else if (has_entry(&ix, "manifest.json"))
		rc = read_docker(&ix, &a, e);
	else if (has_entry(&ix, "index.json"))
		rc = read_oci(&ix, &a, e);
	else if (has_entry(&ix, "repositories"))
		rc = err_set(e, ERR_INVALID,
		    "the archive has no manifest.json: it is of docker before 1.10; save it with a current "
		    "version");
	else
		rc = err_set(e, ERR_CORRUPT,
		    "the archive has neither manifest.json nor index.json: it is not an image's, or it is "
		    "cut short");
	strmap_done_free(&ix.entries, free_entry);
	if (rc < 0)
		image_archive_done(&a);
	else
		*ret = a;
	return rc;
}

void image_archive_done(struct image_archive *a)
{
	for (size_t i = 0; i < a->n; i++)
		image_parts_done(&a->images[i]);
	free(a->images);
	*a = (struct image_archive){NULL, 0};
}
