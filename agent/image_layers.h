/* The unpacked layers of this node: <data-root>/layers/<chain id>/diff, each there once and whole, or not at
 * all. Shared by all images that have it, and counted: a layer that nothing pins is removed. Thread-safe. */
#ifndef AGENT_IMAGE_LAYERS_H
#define AGENT_IMAGE_LAYERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/image_source.h"
#include "base/err.h"

struct layers;

/* Finds the layers that are there; what a crash left half-done goes to the trash. */
int layers_open(const char *data_root, struct layers **ret, struct err *e);
void layers_free(struct layers *ls);

/* The chain id of a layer on top of `parent` (NULL: the lowest), by the OCI image specification. */
void layers_chain_id(const char *parent, const char *diff_id, char out[IMAGE_DIGEST_LEN + 1]);
/* Heap path of a layer's content, whether it is there or not. */
char *layers_path(const struct layers *ls, const char *chain_id);

/* Pins the layer and gives its size; false when it is not there. */
bool layers_acquire(struct layers *ls, const char *chain_id, int64_t *ret_size);
/* Undoes one pin; the last one moves the layer into the trash. */
void layers_release(struct layers *ls, const char *chain_id);
/* Moves layers that nothing pins into the trash. */
void layers_drop_unused(struct layers *ls);
/* Bytes of all layers that are there. */
int64_t layers_total_size(struct layers *ls);
/* Whether the trash has something; and emptying it (blocks, for the thread pool). */
void layers_trash(struct layers *ls, const char *path); /* adds a tree of anybody's */
bool layers_has_trash(struct layers *ls);
void layers_empty_trash(struct layers *ls);

struct layer_source {
	const char *parent; /* chain id, NULL: the lowest layer */
	const char *diff_id;
	const struct image_blob *blob;
	const char *what;
	const atomic_bool *cancelled;
	void (*progress)(void *data, int64_t done);
	void *data;
};
/* Unpacks a layer, unless another thread was faster, and pins it. Blocks. Nothing stays on error. */
int layers_add(struct layers *ls, const struct layer_source *s, int64_t *ret_size, struct err *e);
/* Makes everything that was added so far survive a loss of power. Blocks. */
int layers_sync(struct layers *ls, struct err *e);

#endif
