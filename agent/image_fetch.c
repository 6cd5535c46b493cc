/* The steps of a pull, each one skopeo: the manifest behind the reference (its digest is what the image will
 * be known by); when that is a list, the manifest for this machine; the config, which says what layers there
 * will be; the layers. A step is left out when what is here already answers it.
 *
 * Blobs arrive in an OCI layout of the pull's own directory. For layers that are unpacked here, a placeholder
 * of the right size lies there from the start, so that skopeo does not fetch them again; it is never read.
 * The config is fetched by itself because skopeo rewrites it when it makes an OCI layout of a docker image,
 * and its digest is the image's id. Last, a job on the thread pool unpacks the layers that are missing and
 * checks them.
 *
 * Progress is what the files say: their sizes are looked at some times a second. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/image_pull.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#define WATCH_MS   150
#define INSPECT_MS (60 * 1000)

static void step_config(struct pull *p);
static void step_copy(struct pull *p);
static void step_unpack(struct pull *p);

/* --- manifests */

static int run_inspect(struct pull *p, const char *digest, bool config,
    void (*done)(void *data, int rc, const struct buf *out, const struct err *e), struct err *e)
{
	CLEANUP_STRLIST struct strlist args = STRLIST_INIT;
	strlist_add(&args, "--raw");
	if (config)
		strlist_add(&args, "--config");
	if (digest)
		strlist_addf(&args, "docker://%s@%s", p->source, digest);
	else
		strlist_addf(&args, "docker://%s%s%s", p->source, p->ref.digest ? "@" : ":",
		    p->ref.digest ? p->ref.digest : p->ref.tag);
	struct skopeo_opts o = {
	    .command = "inspect",
	    .args = &args,
	    .tls_option = "--tls-verify",
	    .max_output = (config ? LIMIT_IMAGE_CONFIG : LIMIT_IMAGE_MANIFEST) + 1,
	    .timeout_ms = INSPECT_MS,
	    .done = done,
	    .data = p,
	};
	return skopeo_run(p->sk, &o, e);
}

static int take_layers(struct pull *p, const json_t *manifest, struct err *e)
{
	struct image_descriptor config, *layers;
	size_t n;
	int rc = image_manifest_read(manifest, p->familiar, &config, &layers, &n, e);
	if (rc < 0)
		return rc;
	p->layers = xcalloc(n ? n : 1, sizeof(*p->layers));
	p->n_layers = n;
	for (size_t k = 0; k < n; k++) {
		memcpy(p->layers[k].digest, layers[k].digest, sizeof(layers[k].digest));
		p->layers[k].size = layers[k].size;
	}
	snprintf(p->config_digest, sizeof(p->config_digest), "%s", config.digest);
	free(layers);
	return 0;
}

/* The manifest for this machine is here. */
static int take_manifest(struct pull *p, const struct buf *text, const json_t *manifest, struct err *e)
{
	int rc = take_layers(p, manifest, e);
	if (rc < 0)
		return rc;
	buf_append(&p->parts.manifest, text->data, text->len);
	pull_announce(p);
	if (images_get(p->im, p->config_digest)) {
		for (size_t k = 0; k < p->n_layers; k++)
			pull_send_layer(p, k, "Already exists", 0, 0);
		pull_name_existing(p, p->config_digest);
		return 0;
	}
	step_config(p);
	return 0;
}

static int read_answer(const struct buf *out, const char *want_digest, char digest[IMAGE_DIGEST_LEN + 1],
    json_t **ret, const char *what, struct err *e)
{
	if (out->len > LIMIT_IMAGE_MANIFEST)
		return err_set(e, ERR_TOO_LARGE, "the manifest of %s has more than %u bytes", what,
		    LIMIT_IMAGE_MANIFEST);
	char is[IMAGE_DIGEST_LEN + 1];
	image_digest(out->data ? out->data : "", out->len, is);
	if (want_digest && !str_eq(is, want_digest))
		return err_set(e, ERR_CORRUPT,
		    "the registry's manifest of %s has the digest %s instead of %s", what, is, want_digest);
	memcpy(digest, is, sizeof(is));
	return image_json_parse(out, what, ret, e);
}

static void on_child(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct pull *p = data;
	if (!pull_goes_on(p, rc, why))
		return;
	struct err e = ERR_INIT;
	json_t *j = NULL;
	char digest[IMAGE_DIGEST_LEN + 1];
	rc = read_answer(out, p->child, digest, &j, p->familiar, &e);
	if (rc == 0)
		rc = take_manifest(p, out, j, &e);
	json_decref(j);
	if (rc < 0)
		pull_fail(p, &e);
}

static int choose_child(struct pull *p, const json_t *index, struct err *e)
{
	const json_t *d = image_index_choose(index, p->familiar, e);
	const char *digest = json_string_value(json_object_get(d, "digest"));
	if (!d)
		return ERR_NOT_FOUND;
	if (!image_digest_valid(digest))
		return err_set(e, ERR_CORRUPT, "%s: the manifest list has no sha256 digest", p->familiar);
	snprintf(p->child, sizeof(p->child), "%s", digest);
	return run_inspect(p, p->child, false, on_child, e);
}

static void on_resolved(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct pull *p = data;
	if (!pull_goes_on(p, rc, why))
		return;
	struct err e = ERR_INIT;
	json_t *j = NULL;
	rc = read_answer(out, p->ref.digest, p->digest, &j, p->familiar, &e);
	CLEANUP_FREE char *by_digest = pull_digest_name(p);
	const char *known = rc == 0 ? strmap_get(&p->im->names, by_digest) : NULL;
	if (known) {
		pull_announce(p);
		pull_name_existing(p, known);
	} else if (rc == 0 && image_is_index(j)) {
		rc = choose_child(p, j, &e);
	} else if (rc == 0) {
		memcpy(p->child, p->digest, sizeof(p->child));
		rc = take_manifest(p, out, j, &e);
	}
	json_decref(j);
	if (rc < 0)
		pull_fail(p, &e);
}

/* --- config */

/* Pins the layers that are here, from the lowest up. */
static void find_layers(struct pull *p)
{
	bool unbroken = true;
	for (size_t k = 0; k < p->n_layers; k++) {
		struct pull_layer *l = &p->layers[k];
		int64_t size;
		layers_chain_id(k ? p->layers[k - 1].chain_id : NULL, p->parts.diff_ids.v[k], l->chain_id);
		l->here = unbroken && layers_acquire(p->im->layers, l->chain_id, &size);
		unbroken = l->here;
		pull_send_layer(p, k, l->here ? "Already exists" : "Pulling fs layer", 0, 0);
	}
}

static void on_config(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct pull *p = data;
	if (!pull_goes_on(p, rc, why))
		return;
	struct err e = ERR_INIT;
	if (out->len > LIMIT_IMAGE_CONFIG)
		rc = err_set(&e, ERR_TOO_LARGE, "the config of %s has more than %u bytes", p->familiar,
		    LIMIT_IMAGE_CONFIG);
	CLEANUP_BUF struct buf text = BUF_INIT;
	buf_append(&text, out->data ? out->data : "", out->len);
	CLEANUP_FREE char *what = xasprintf("the config of %s", p->familiar);
	if (rc == 0)
		rc = image_parts_set_config(&p->parts, &text, what, &e);
	if (rc == 0 && !str_eq(p->parts.id, p->config_digest))
		rc = err_set(&e, ERR_CORRUPT, "%s has the digest %s instead of %s", what, p->parts.id,
		    p->config_digest);
	if (rc == 0 && p->parts.diff_ids.n != p->n_layers)
		rc = err_set(&e, ERR_CORRUPT,
		    "invalid manifest, layers length mismatch: the manifest of %s has %zu, the config has "
		    "%zu",
		    p->familiar, p->n_layers, p->parts.diff_ids.n);
	if (rc < 0) {
		pull_fail(p, &e);
		return;
	}
	find_layers(p);
	step_copy(p);
}

static void step_config(struct pull *p)
{
	struct err e = ERR_INIT;
	if (p->cancelled && !pull_goes_on(p, 0, NULL))
		return;
	if (run_inspect(p, p->child, true, on_config, &e) < 0)
		pull_fail(p, &e);
}

/* --- layers */

static char *layout_dir(const struct pull *p)
{
	return fs_path(skopeo_dir(p->sk), "layout");
}

static char *blob_path(const struct pull *p, size_t k)
{
	return xasprintf("%s/layout/blobs/sha256/%s", skopeo_dir(p->sk), p->layers[k].digest + 7);
}

static int place_stand_ins(struct pull *p, struct err *e)
{
	CLEANUP_FREE char *dir = xasprintf("%s/layout/blobs/sha256", skopeo_dir(p->sk));
	int rc = fs_mkdir_p(dir, 0700, e);
	for (size_t k = 0; rc == 0 && k < p->n_layers; k++) {
		if (!p->layers[k].here)
			continue;
		CLEANUP_FREE char *path = blob_path(p, k);
		CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, p->layers[k].size) < 0)
			rc = err_errno(e, errno, "cannot create %s", path);
	}
	return rc;
}

/* skopeo says which blobs it has begun with. */
static void on_copy_line(void *data, bool is_stderr, const char *line, size_t len)
{
	struct pull *p = data;
	static const char begin[] = "Copying blob ";
	if (is_stderr || len < sizeof(begin) - 1 + IMAGE_DIGEST_LEN ||
	    memcmp(line, begin, sizeof(begin) - 1) != 0)
		return;
	for (size_t k = 0; k < p->n_layers; k++)
		if (memcmp(line + sizeof(begin) - 1, p->layers[k].digest, IMAGE_DIGEST_LEN) == 0)
			p->layers[k].started = true;
}

/* Sizes of the files that skopeo is writing now, in the order in which they came. */
struct partial {
	int64_t size;
	struct timespec since;
};

static int partial_cmp(const void *a, const void *b)
{
	const struct partial *x = a, *y = b;
	if (x->since.tv_sec != y->since.tv_sec)
		return x->since.tv_sec < y->since.tv_sec ? -1 : 1;
	return x->since.tv_nsec < y->since.tv_nsec ? -1 : x->since.tv_nsec > y->since.tv_nsec;
}

static size_t find_partials(const struct pull *p, struct partial *out, size_t cap)
{
	CLEANUP_FREE char *dir = layout_dir(p);
	DIR *d = opendir(dir);
	size_t n = 0;
	const struct dirent *de;
	while (d && n < cap && (de = readdir(d))) {
		struct statx st;
		if (!str_has_prefix(de->d_name, "oci-put-blob") ||
		    statx(dirfd(d), de->d_name, AT_SYMLINK_NOFOLLOW, STATX_SIZE | STATX_BTIME, &st) < 0)
			continue;
		out[n].size = (int64_t)st.stx_size;
		out[n++].since = (struct timespec){st.stx_btime.tv_sec, st.stx_btime.tv_nsec};
	}
	if (d)
		closedir(d);
	qsort(out, n, sizeof(*out), partial_cmp);
	return n;
}

static void layer_done(struct pull *p, size_t k)
{
	p->layers[k].fetched = true;
	p->layers[k].seen = p->layers[k].size;
	pull_send_layer(p, k, "Verifying Checksum", 0, 0);
	pull_send_layer(p, k, "Download complete", 0, 0);
}

/* Looks how far the files are. Which partial file is which layer's is a guess (the order), so a layer's
 * figure never goes back; a file with its final name is certain. */
static void look(struct pull *p)
{
	struct partial parts[64];
	size_t n = find_partials(p, parts, ARRAY_LEN(parts)), at = 0;
	int64_t total = 0;
	for (size_t k = 0; k < p->n_layers && p->ops; k++) {
		struct pull_layer *l = &p->layers[k];
		CLEANUP_FREE char *path = blob_path(p, k);
		if (l->here)
			continue;
		if (!l->fetched && fs_exists(path))
			layer_done(p, k);
		if (!l->fetched && l->started && at < n) {
			int64_t size = parts[at].size < l->size ? parts[at].size : l->size;
			at++;
			if (size > l->seen) {
				l->seen = size;
				pull_send_layer(p, k, "Downloading", size, l->size);
			}
		}
		total += l->seen;
	}
	for (size_t k = 0; k < n; k++)
		total += parts[k].size;
	if (total != p->moved_total) {
		p->moved_total = total;
		p->moved_at = uv_now(p->im->loop);
	}
}

static void on_watch(void *data)
{
	struct pull *p = data;
	look(p);
	if (uv_now(p->im->loop) - p->moved_at > PULL_STALL_MS) {
		p->stalled = true;
		skopeo_kill(p->sk);
		return;
	}
	timer_start(p->watch, WATCH_MS);
}

static void on_copied(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct pull *p = data;
	(void)out;
	timer_stop(p->watch);
	if (!pull_goes_on(p, rc, why))
		return;
	look(p);
	step_unpack(p);
}

static void step_copy(struct pull *p)
{
	struct err e = ERR_INIT;
	if (p->cancelled && !pull_goes_on(p, 0, NULL))
		return;
	CLEANUP_STRLIST struct strlist args = STRLIST_INIT;
	CLEANUP_FREE char *layout = layout_dir(p);
	strlist_add(&args, "--dest-oci-accept-uncompressed-layers");
	strlist_add(&args, "--retry-times=2");
	strlist_addf(&args, "docker://%s@%s", p->source, p->child);
	strlist_addf(&args, "oci:%s:image", layout);
	struct skopeo_opts o = {
	    .command = "copy",
	    .args = &args,
	    .tls_option = "--src-tls-verify",
	    .on_line = on_copy_line,
	    .done = on_copied,
	    .data = p,
	};
	int rc = place_stand_ins(p, &e);
	if (rc == 0)
		rc = skopeo_run(p->sk, &o, &e);
	if (rc < 0) {
		pull_fail(p, &e);
		return;
	}
	p->watch = timer_new(p->im->loop, on_watch, p);
	p->moved_at = uv_now(p->im->loop);
	timer_start(p->watch, WATCH_MS);
}

/* --- unpacking */

static void report(void *data, size_t layer, const char *status, int64_t done, int64_t total)
{
	struct pull *p = data;
	json_t *line = json_pack("{s:I,s:s,s:I,s:I}", "layer", (json_int_t)layer, "status", status, "done",
	    (json_int_t)done, "total", (json_int_t)total);
	ASSERT(line);
	image_job_report(p->job, line);
}

static void on_unpack_progress(void *data, const json_t *line)
{
	struct pull *p = data;
	size_t k = (size_t)json_integer_value(json_object_get(line, "layer"));
	const char *status = json_string_value(json_object_get(line, "status"));
	int64_t total = json_integer_value(json_object_get(line, "total"));
	if (p->cancelled || p->layers[k].here)
		return;
	if (str_eq(status, "Loading"))
		pull_send_layer(p, k, "Extracting", json_integer_value(json_object_get(line, "done")), total);
	else
		pull_send_layer(p, k, str_eq(status, "Complete") ? "Pull complete" : status, 0, 0);
}

static int open_blobs(struct pull *p, struct err *e)
{
	p->parts.blobs = xcalloc(p->n_layers, sizeof(*p->parts.blobs));
	for (size_t k = 0; k < p->n_layers; k++)
		p->parts.blobs[k].fd = -1;
	for (size_t k = 0; k < p->n_layers; k++) {
		if (p->layers[k].here)
			continue;
		CLEANUP_FREE char *path = blob_path(p, k);
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			return err_errno(e, errno, "cannot open layer %zu of %zu", k + 1, p->n_layers);
		p->parts.blobs[k] = (struct image_blob){.fd = fd, .size = p->layers[k].size};
	}
	return 0;
}

static int work(struct image_job *j, void *data, struct err *e)
{
	struct pull *p = data;
	p->job = j;
	const struct images_unpack_progress pr = {
	    .cancelled = image_job_cancelled(j), .report = report, .data = p};
	int rc = open_blobs(p, e);
	if (rc == 0)
		rc = images_unpack(p->im, &p->parts, &pr, e);
	for (size_t k = 0; k < p->n_layers; k++)
		if (p->parts.blobs[k].fd >= 0)
			close(p->parts.blobs[k].fd);
	return rc;
}

static void on_unpacked(void *data, int rc, const struct err *why)
{
	struct pull *p = data;
	p->job = NULL;
	if (rc == 0 && p->cancelled)
		images_discard(p->im, &p->parts);
	if (!pull_goes_on(p, rc, why))
		return;
	pull_commit(p);
}

static void step_unpack(struct pull *p)
{
	if (p->cancelled && !pull_goes_on(p, 0, NULL))
		return;
	p->job = image_job_start(p->im, work, on_unpacked, on_unpack_progress, p);
}

int pull_fetch(struct pull *p, struct err *e)
{
	return run_inspect(p, NULL, false, on_resolved, e);
}
