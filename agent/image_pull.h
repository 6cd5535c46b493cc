/* Pulling, split over two files: image_pull.c has the callers, what they are told, and the end; image_fetch.c
 * the steps from the reference to unpacked layers. For those two only. */
#ifndef AGENT_IMAGE_PULL_H
#define AGENT_IMAGE_PULL_H

#include "agent/image_skopeo.h"
#include "agent/image_store.h"
#include "base/timer.h"

#define PULL_STALL_MS (180 * 1000) /* without a byte */

struct pull;

struct image_op {
	struct pull *pull; /* NULL once it is only waiting for its callback */
	struct images *im;
	image_progress_cb progress;
	image_done_cb done;
	void *data;
	char *id;    /* the result */
	char *asked; /* the reference, when it is answered without a pull */
	bool behind; /* joined a pull that had said something already */
	struct err err;
	struct image_op *next;
};

struct pull_layer {
	char digest[IMAGE_DIGEST_LEN + 1];
	char chain_id[IMAGE_DIGEST_LEN + 1];
	int64_t size, seen; /* bytes; how many of them were seen on disk */
	bool here;          /* unpacked before this pull, and pinned by it */
	bool started, fetched;
	json_t *last; /* its last progress line, for callers that join */
};

struct pull {
	struct images *im;
	char *key; /* in im->pulls */
	struct image_ref ref;
	char *familiar, *repository; /* "redis:7", "library/redis" */
	char *source;                /* docker.io/library/redis, without tag */
	struct skopeo *sk;
	struct image_op *ops;
	char digest[IMAGE_DIGEST_LEN + 1]; /* of what the reference names: a list or a manifest */
	char child[IMAGE_DIGEST_LEN + 1];  /* of the manifest */
	char config_digest[IMAGE_DIGEST_LEN + 1];
	struct image_parts parts;
	struct pull_layer *layers;
	size_t n_layers;
	bool announced; /* the first lines were sent */
	struct timer *watch;
	uint64_t moved_at; /* loop time of the last byte */
	int64_t moved_total;
	bool stalled;
	struct image_job *job;
	bool cancelled;
};

/* Hands the line (reference taken) to every caller. */
void pull_send(struct pull *p, json_t *line);
/* A layer's line; total 0: no figures. */
void pull_send_layer(struct pull *p, size_t k, const char *status, int64_t done, int64_t total);
/* "Pulling from ...", once. */
void pull_announce(struct pull *p);
/* The end with an error; p is gone. */
void pull_fail(struct pull *p, const struct err *e);
/* The end when every layer is unpacked and pinned by p->parts. */
void pull_commit(struct pull *p);
/* The end when the image is here under its id and only needs the names. */
void pull_name_existing(struct pull *p, const char *id);
/* False, and p is gone, when it was cancelled or rc is an error. */
bool pull_goes_on(struct pull *p, int rc, const struct err *e);
/* Heap "docker.io/library/redis@sha256:...". */
char *pull_digest_name(const struct pull *p);
/* Starts the steps: 0, or an error and p is still there. */
int pull_fetch(struct pull *p, struct err *e);

#endif
