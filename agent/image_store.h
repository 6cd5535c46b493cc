/* The inside of the image store (agent/image.h), for its own files: image.c keeps what there is,
 * image_remove.c takes away, image_load.c and image_pull.c bring in, image_job.c runs their work on the
 * thread pool. */
#ifndef AGENT_IMAGE_STORE_H
#define AGENT_IMAGE_STORE_H

#include <stdatomic.h>

#include "agent/image.h"
#include "agent/image_archive.h"
#include "agent/image_layers.h"
#include "base/map.h"

struct image_job;

struct images {
	uv_loop_t *loop;
	struct images_opts o; /* its pointers to strings are not used after opening */
	struct strlist insecure, mirrors;
	char *dir;     /* <data-root>/images */
	char *tmp_dir; /* ... /tmp: private, emptied at the start */
	struct layers *layers;
	struct strmap by_id; /* id -> struct image, one reference */
	struct strmap names; /* full reference -> heap id */
	struct strmap pulls; /* key -> struct image_op, those under way */
	struct image_job *queue_head, **queue_tail;
	unsigned running; /* jobs on the thread pool */
	unsigned users;   /* images, jobs and operations that still point here, and one until closed */
	bool emptying;    /* the trash is being emptied */
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
};

void images_hold(struct images *im);
void images_release(struct images *im);

/* Heap paths of what the store keeps of an image. */
char *images_config_path(const struct images *im, const char *id);
char *images_manifest_path(const struct images *im, const char *id);

/* On the thread pool: unpacks what is missing and writes config and manifest. On success every chain id is
 * pinned once, for images_commit to take over or images_discard to give back; on error nothing stays. */
struct images_unpack_progress {
	const atomic_bool *cancelled;
	/* status is "Loading", "Already exists" or "Complete"; may be NULL. */
	void (*report)(void *data, size_t layer, const char *status, int64_t done, int64_t total);
	void *data;
};
int images_unpack(
    struct images *im, const struct image_parts *p, const struct images_unpack_progress *pr, struct err *e);
/* Gives up what images_unpack has made, when it will not be committed. On the loop. */
void images_discard(struct images *im, const struct image_parts *p);
/* On the loop: makes the image known under its names and `digest_ref` (full form, may be NULL). Takes the
 * pins, also when it fails. */
int images_commit(struct images *im, struct image_parts *p, const char *digest_ref, struct err *e);
/* Adds or changes a name (full form) and writes the names. Announces nothing. */
int images_name(struct images *im, const char *full, const char *id, struct err *e);
/* Removes names and writes the list; those that are not there are fine. */
int images_unname(struct images *im, const struct strlist *full, struct err *e);
/* Forgets an image: its files, its pins. Its names must be gone. */
void images_forget(struct images *im, const char *id);
/* The names (full form) of an image, sorted. */
void images_names_of(const struct images *im, const char *id, struct strlist *ret);
/* The current struct image, or NULL; borrowed. */
struct image *images_get(const struct images *im, const char *id);
/* The current image by id, id prefix or reference. *ret_name: the full name by which it was found, NULL when
 * by id (heap; may be NULL). Borrowed. */
int images_lookup(
    const struct images *im, const char *ref, struct image **ret, char **ret_name, struct err *e);
void images_announce(struct images *im, const char *action, const char *id, const char *name);
/* Starts emptying the trash in the background when there is any. */
void images_sweep(struct images *im);

/* --- work on the pool, with progress lines that are delivered on the loop, in order, before `done` */
typedef int (*image_job_work)(struct image_job *j, void *data, struct err *e);
typedef void (*image_job_done)(void *data, int rc, const struct err *e);
struct image_job *image_job_start(
    struct images *im, image_job_work work, image_job_done done, image_progress_cb progress, void *data);
/* From the work's thread; takes the reference. */
void image_job_report(struct image_job *j, json_t *line);
const atomic_bool *image_job_cancelled(const struct image_job *j);
void image_job_cancel(struct image_job *j);                  /* from the loop */
struct image_job *image_job_next(const struct image_job *j); /* in the line of those that wait */

/* {"status":..,"progressDetail":{..},"progress":"[==> ] 1MB/2MB","id":..}; total 0 leaves the detail empty;
 * id may be NULL. */
json_t *image_progress_line(const char *status, const char *id, int64_t done, int64_t total);

/* Ends every pull; for images_close. */
void images_pull_cancel_all(struct images *im);

#endif
