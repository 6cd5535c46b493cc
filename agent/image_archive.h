/* What is in a docker-archive or an OCI archive. For the image store's own use, on the thread pool. */
#ifndef AGENT_IMAGE_ARCHIVE_H
#define AGENT_IMAGE_ARCHIVE_H

#include <jansson.h>
#include <stdatomic.h>

#include "agent/image_source.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#define IMAGE_MAX_LAYERS     128 /* what other engines allow too */
#define IMAGE_MAX_IN_ARCHIVE 256

/* One image of an archive, or the one that a pull has fetched. */
struct image_parts {
	char id[IMAGE_DIGEST_LEN + 1]; /* digest of the config */
	struct buf config;             /* its bytes */
	json_t *json;                  /* the same, read; checked as image_config_check does */
	struct buf manifest;           /* as the registry has it; empty for a docker-archive */
	struct strlist names;          /* full references; may be none */
	struct strlist diff_ids;
	struct image_blob *blobs; /* as many as diff_ids, lowest first */
};
void image_parts_done(struct image_parts *p);

/* Reads a config and fills id, config (taken from `bytes`), json and diff_ids of p. ERR_CORRUPT when it is no
 * image's. */
int image_parts_set_config(struct image_parts *p, struct buf *bytes, const char *what, struct err *e);

/* Of an index or manifest list, the descriptor that fits this machine (borrowed), or NULL with ERR_NOT_FOUND.
 */
const json_t *image_index_choose(const json_t *index, const char *what, struct err *e);
/* True for an index or a manifest list, by its mediaType or its shape. */
bool image_is_index(const json_t *manifest);
/* The config's and the layers' descriptors of a manifest: checked digests and sizes. ERR_CORRUPT or
 * ERR_INVALID. */
struct image_descriptor {
	char digest[IMAGE_DIGEST_LEN + 1];
	int64_t size;
};
int image_manifest_read(const json_t *manifest, const char *what, struct image_descriptor *ret_config,
    struct image_descriptor **ret_layers, size_t *ret_n, struct err *e);
/* JSON of a bounded text that has to be an object or an array; ERR_CORRUPT naming `what`. */
int image_json_parse(const struct buf *text, const char *what, json_t **ret, struct err *e);

/* The images of an archive in `*fd`. A compressed archive is unpacked into a file without a name in `tmp_dir`
 * first, and *fd replaced. The blobs borrow *fd. Errors name the part that is wrong. */
struct image_archive {
	struct image_parts *images;
	size_t n;
};
int image_archive_read(
    int *fd, const char *tmp_dir, const atomic_bool *cancelled, struct image_archive *ret, struct err *e);
void image_archive_done(struct image_archive *a);

/* A file without a name in `dir`; the descriptor or a negative error. */
int image_temp_file(const char *dir, struct err *e);

#endif
