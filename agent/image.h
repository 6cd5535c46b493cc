/* Images of this node: a content store under <data-root>/images, layers unpacked once per chain id, names
 * (tags and digests) that point at image ids. Registry transport is skopeo; layers and mounts are ours. */
#ifndef AGENT_IMAGE_H
#define AGENT_IMAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct images;

struct images_opts {
	const char *data_root;
	const struct strlist *insecure_registries; /* "host:port" or CIDR; may be NULL */
	const struct strlist *registry_mirrors;    /* may be NULL */
	/* Whether an image id is used by a container (for rm and prune); returns the container's id or NULL.
	 */
	const char *(*in_use)(void *data, const char *image_id, bool *ret_running);
	/* An event for /events: action pull load tag untag delete prune; id and name. May be NULL. */
	void (*event)(void *data, const char *action, const char *id, const char *name);
	void *data;
};
/* Cleans what a crash left half-done. */
int images_open(uv_loop_t *loop, const struct images_opts *o, struct images **ret, struct err *e);
void images_close(struct images *im, void (*closed)(void *data), void *data);

/* References: normalises "redis" to "docker.io/library/redis:latest"; familiar form drops what was added.
 * ERR_INVALID with "invalid reference format" texts. */
struct image_ref {
	char *domain; /* docker.io */
	char *path;   /* library/redis */
	char *tag;    /* NULL when only a digest */
	char *digest; /* sha256:... or NULL */
};
int image_ref_parse(const char *s, struct image_ref *ret, struct err *e);
void image_ref_done(struct image_ref *r);
char *image_ref_familiar(const struct image_ref *r); /* heap: "redis:latest" */
char *image_ref_full(const struct image_ref *r);     /* heap: "docker.io/library/redis:latest" */

/* What a container needs of an image. Reference-counted, immutable. */
struct image {
	int refs;
	char *id;       /* sha256:... of the config */
	json_t *config; /* the image config (OCI/docker: architecture, config{Env,...}, rootfs), without its
			   history */
	struct strlist layers; /* directories of unpacked layers, lowest first */
	struct strlist chain_ids;
	struct strlist repo_tags, repo_digests; /* familiar forms */
	int64_t size;                           /* unpacked bytes */
	int64_t created;                        /* unix seconds, 0 unknown */
};
void image_unref(struct image *i);
/* By id, id prefix or reference. ERR_NOT_FOUND "No such image: X". New reference. */
int images_find(struct images *im, const char *ref, struct image **ret, struct err *e);
/* Calls fn for each image (borrowed). */
void images_each(struct images *im, void (*fn)(void *data, const struct image *i), void *data);

/* Progress lines as the Engine API streams them ({"status":...}); borrowed. */
typedef void (*image_progress_cb)(void *data, const json_t *line);
/* End: id of the image (NULL on error). Exactly once. */
typedef void (*image_done_cb)(void *data, const char *image_id, const struct err *e);

struct image_op;
/* Pulls. auth: the X-Registry-Auth header's text or NULL (never in argv or logs). Concurrent pulls of the
 * same reference share one transfer. A reference with a digest that is here already is not fetched. */
int images_pull(struct images *im, const char *ref, const char *auth, image_progress_cb progress,
    image_done_cb done, void *data, struct image_op **ret, struct err *e);
void image_op_cancel(struct image_op *op); /* done still comes, ERR_CANCELLED */

/* Loads a docker-archive or oci-archive (tar; gzip and zstd too) from a stream: write pieces, then finish. */
struct image_load;
int images_load_start(struct images *im, image_progress_cb progress, image_done_cb done, void *data,
    struct image_load **ret, struct err *e);
/* Returns 0 or an error (disk full ...); after an error only images_load_abort. */
int images_load_write(struct image_load *l, const void *p, size_t n, struct err *e);
void images_load_finish(struct image_load *l); /* unpacks on the pool, then done */
void images_load_abort(struct image_load *l);  /* removes everything; done does not come */

int images_tag(struct images *im, const char *source, const char *target, struct err *e);
/* Result: JSON array of {"Untagged":..} / {"Deleted":..}; new reference. */
int images_remove(struct images *im, const char *ref, bool force, json_t **ret, struct err *e);
/* dangling_only: only untagged ones. `want` (may be NULL) chooses among them. ret_deleted as images_remove's,
 * ret_bytes what the layers that went had. */
int images_prune(struct images *im, bool dangling_only, bool (*want)(void *data, const struct image *i),
    void *data, json_t **ret_deleted, int64_t *ret_bytes, struct err *e);
/* Bytes of all unpacked layers, each once. */
int64_t images_layers_size(struct images *im);
/* Bytes of one unpacked layer; 0 when it is not there. */
int64_t images_layer_size(struct images *im, const char *chain_id);
/* The config as it was written, history included; and the manifest (empty when the image came without one).
 */
int images_read_config(struct images *im, const char *id, struct buf *ret, struct err *e);
int images_read_manifest(struct images *im, const char *id, struct buf *ret, struct err *e);

#endif
