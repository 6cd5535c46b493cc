/* Unpacking one layer into a directory, in the form that overlayfs mounts. For the image store's own use. */
#ifndef AGENT_IMAGE_UNPACK_H
#define AGENT_IMAGE_UNPACK_H

#include <stdatomic.h>
#include <stdint.h>

#include "agent/image_source.h"
#include "base/err.h"

#define UNPACK_MAX_ENTRIES   (4 * 1000 * 1000)
#define UNPACK_MAX_FILE_SIZE (256ll * 1024 * 1024 * 1024)

struct unpack_opts {
	const char *dir;               /* exists and is empty; nobody else writes there */
	const struct image_blob *blob; /* the layer: a tar, perhaps compressed */
	const char *what;              /* its name in errors, as "layer 2 of 5 (sha256:...)" */
	const char *diff_id;           /* what the uncompressed tar's digest has to be; NULL: anything */
	const atomic_bool *cancelled;  /* may be NULL */
	/* Called now and then from this thread with the compressed bytes done; may be NULL. */
	void (*progress)(void *data, int64_t done);
	void *data;
};
struct unpack_result {
	char diff_id[IMAGE_DIGEST_LEN + 1];
	int64_t size; /* bytes of the regular files */
	int64_t entries;
};
/* Blocks; for the thread pool. On error the directory may hold anything and is the caller's to remove.
 * ERR_CORRUPT for what the archive does wrong, ERR_INVALID for what it must not ask for, ERR_IO for the disk,
 * ERR_CANCELLED. */
int image_unpack(const struct unpack_opts *o, struct unpack_result *ret, struct err *e);

#endif
