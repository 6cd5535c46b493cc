/* Loading an archive that comes as a stream.
 *
 * The pieces go into a file without a name; when the last one is there, a job on the thread pool finds the
 * images in it and unpacks the layers that are missing. Only when everything is there do the images get their
 * names, on the loop. A load that fails leaves nothing: the file goes with its descriptor, and layers that
 * nothing else has are given back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/image_store.h"
#include "base/log.h"
#include "base/mem.h"

#define SPACE_EVERY (8u * 1024 * 1024)

struct image_load {
	struct images *im;
	int fd;
	size_t unchecked;
	struct image_job *job;
	struct image_archive archive;
	size_t n_unpacked; /* images whose layers are pinned */
	size_t current;    /* the image that is being unpacked */
	image_progress_cb progress;
	image_done_cb done;
	void *data;
};

static void load_free(struct image_load *l)
{
	if (l->fd >= 0)
		close(l->fd);
	image_archive_done(&l->archive);
	images_release(l->im);
	free(l);
}

int images_load_start(struct images *im, image_progress_cb progress, image_done_cb done, void *data,
    struct image_load **ret, struct err *e)
{
	if (im->closing)
		return err_set(e, ERR_UNAVAILABLE, "the daemon is stopping");
	int fd = image_temp_file(im->tmp_dir, e);
	if (fd < 0)
		return fd;
	struct image_load *l = NEW(struct image_load);
	l->im = im;
	l->fd = fd;
	l->progress = progress;
	l->done = done;
	l->data = data;
	images_hold(im);
	*ret = l;
	return 0;
}

int images_load_write(struct image_load *l, const void *p, size_t n, struct err *e)
{
	int rc = image_write_all(l->fd, p, n, "the archive", e);
	l->unchecked += n;
	if (rc == 0 && l->unchecked > SPACE_EVERY) {
		l->unchecked = 0;
		rc = image_check_space(l->fd, "the archive", e);
	}
	return rc;
}

void images_load_abort(struct image_load *l)
{
	load_free(l);
}

/* --- on the thread pool */

static void report(void *data, size_t layer, const char *status, int64_t done, int64_t total)
{
	struct image_load *l = data;
	if (!str_eq(status, "Loading"))
		return;
	char id[13];
	snprintf(id, sizeof(id), "%.12s", l->archive.images[l->current].diff_ids.v[layer] + 7);
	image_job_report(l->job, image_progress_line("Loading layer", id, done, total));
}

static int work(struct image_job *j, void *data, struct err *e)
{
	struct image_load *l = data;
	l->job = j;
	const struct images_unpack_progress pr = {
	    .cancelled = image_job_cancelled(j), .report = report, .data = l};
	int rc = image_archive_read(&l->fd, l->im->tmp_dir, pr.cancelled, &l->archive, e);
	for (; rc == 0 && l->n_unpacked < l->archive.n; l->n_unpacked++) {
		l->current = l->n_unpacked;
		rc = images_unpack(l->im, &l->archive.images[l->n_unpacked], &pr, e);
		if (rc < 0)
			break;
	}
	return rc;
}

/* --- back on the loop */

static void on_progress(void *data, const json_t *line)
{
	struct image_load *l = data;
	if (l->progress)
		l->progress(l->data, line);
}

static void say_loaded(struct image_load *l, const struct image_parts *p)
{
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	for (size_t k = 0; k < p->names.n; k++) {
		struct image_ref r;
		if (image_ref_parse(p->names.v[k], &r, NULL) < 0)
			continue;
		CLEANUP_FREE char *name = image_ref_familiar(&r);
		strlist_addf(&lines, "Loaded image: %s\n", name);
		images_announce(l->im, "load", p->id, name);
		image_ref_done(&r);
	}
	if (lines.n == 0) {
		strlist_addf(&lines, "Loaded image ID: %s\n", p->id);
		images_announce(l->im, "load", p->id, p->id);
	}
	for (size_t k = 0; k < lines.n && l->progress; k++) {
		json_t *line = json_pack("{s:s}", "stream", lines.v[k]);
		ASSERT(line);
		l->progress(l->data, line);
		json_decref(line);
	}
}

static void on_done(void *data, int rc, const struct err *why)
{
	struct image_load *l = data;
	struct err e = ERR_INIT;
	if (why)
		err_copy(&e, why);
	CLEANUP_FREE char *id = NULL;
	for (size_t k = 0; k < l->n_unpacked; k++) {
		struct image_parts *p = &l->archive.images[k];
		if (rc < 0) {
			images_discard(l->im, p);
			continue;
		}
		rc = images_commit(l->im, p, NULL, &e);
		if (rc == 0) {
			say_loaded(l, p);
			free(id);
			id = xstrdup(p->id);
		}
	}
	images_sweep(l->im);
	l->done(l->data, rc < 0 ? NULL : id, &e);
	load_free(l);
}

void images_load_finish(struct image_load *l)
{
	image_job_start(l->im, work, on_done, on_progress, l);
}
