/* Where the bytes of an image come from: blobs in files or inside a spooled tar archive, and the stream of an
 * uncompressed layer out of such a blob. For the image store's own use, on the thread pool. */
#ifndef AGENT_IMAGE_SOURCE_H
#define AGENT_IMAGE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

#define IMAGE_DIGEST_LEN 71 /* "sha256:" and 64 hex digits */

/* A blob: a file, or one entry of an uncompressed tar. */
struct image_blob {
	int fd;         /* borrowed; read with pread, so that several threads may share it */
	int64_t offset; /* of the blob's first byte, or of its tar header */
	bool in_tar;    /* offset is that of a tar header */
	int64_t size;   /* bytes of the blob, compressed as it lies there */
};

/* Reads a whole blob of at most `max` bytes, appended to ret. `what` names it in errors. */
int image_blob_read(const struct image_blob *b, const char *what, size_t max, struct buf *ret, struct err *e);

/* The decompressed bytes of a blob (gzip, zstd, xz, bzip2 or none), with the digest of what was read. */
struct image_stream;
int image_stream_open(const struct image_blob *b, const char *what, struct image_stream **ret, struct err *e);
/* The next piece, valid until the next call; *ret_n 0 at the end. Corrupt or truncated data is ERR_CORRUPT
 * naming `what`. */
int image_stream_read(struct image_stream *s, const void **ret_p, size_t *ret_n, struct err *e);
/* Compressed bytes taken from the blob so far. */
int64_t image_stream_position(const struct image_stream *s);
/* "sha256:..." of all bytes given out; call at the end, once. */
void image_stream_digest(struct image_stream *s, char out[IMAGE_DIGEST_LEN + 1]);
void image_stream_close(struct image_stream *s); /* NULL is fine */

/* "sha256:..." of bytes. */
void image_digest(const void *p, size_t n, char out[IMAGE_DIGEST_LEN + 1]);
/* True for "sha256:" and 64 lower-case hex digits. */
bool image_digest_valid(const char *s);

/* Writes `n` bytes of a stream to fd; ERR_IO with `what`. */
int image_write_all(int fd, const void *p, size_t n, const char *what, struct err *e);
/* ERR_IO when the file system of `fd` has less room left than a daemon should leave to others. */
int image_check_space(int fd, const char *what, struct err *e);

#endif
