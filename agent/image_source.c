/* Blobs, and layers as streams of uncompressed bytes.
 *
 * A layer passes through two readers of libarchive: the outer one undoes the compression ("raw" format), and
 * what comes out is hashed and handed to the reader of the tar (image_unpack.c). A blob that lies inside a
 * tar archive is read by a third one that starts at the entry's header; its position was noted when the
 * archive was indexed.
 *
 * Failing: read errors, truncated and corrupt compression all end as ERR_CORRUPT (or ERR_IO) with the name of
 * the part. */
#include "agent/image_source.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#define PIECE (128u * 1024)
/* What is left free for others: at most this, and a fiftieth of a small file system. */
#define SPACE_RESERVE (64ll * 1024 * 1024)

int image_write_all(int fd, const void *p, size_t n, const char *what, struct err *e)
{
	const char *at = p;
	while (n) {
		ssize_t r = write(fd, at, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, errno, "cannot write %s", what);
		at += r;
		n -= (size_t)r;
	}
	return 0;
}

int image_check_space(int fd, const char *what, struct err *e)
{
	struct statvfs v;
	if (fstatvfs(fd, &v) < 0)
		return 0;
	int64_t unit = (int64_t)(v.f_frsize ? v.f_frsize : v.f_bsize);
	int64_t total = (int64_t)v.f_blocks * unit, left = (int64_t)v.f_bavail * unit;
	int64_t reserve = total / 50 < SPACE_RESERVE ? total / 50 : SPACE_RESERVE;
	if (left < reserve)
		return err_errno(e, ENOSPC, "cannot write %s (%lld bytes left)", what, (long long)left);
	return 0;
}

/* --- digests */

static EVP_MD_CTX *hash_new(void)
{
	EVP_MD_CTX *h = EVP_MD_CTX_new();
	ASSERT(h && EVP_DigestInit_ex(h, EVP_sha256(), NULL) == 1);
	return h;
}

static void hash_text(EVP_MD_CTX *h, char out[IMAGE_DIGEST_LEN + 1])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	ASSERT(EVP_DigestFinal_ex(h, md, &n) == 1 && n == 32);
	memcpy(out, "sha256:", 7);
	str_hex(md, n, out + 7);
}

void image_digest(const void *p, size_t n, char out[IMAGE_DIGEST_LEN + 1])
{
	EVP_MD_CTX *h = hash_new();
	EVP_DigestUpdate(h, p, n);
	hash_text(h, out);
	EVP_MD_CTX_free(h);
}

bool image_digest_valid(const char *s)
{
	if (!s || strncmp(s, "sha256:", 7) != 0 || strlen(s) != IMAGE_DIGEST_LEN)
		return false;
	return strspn(s + 7, "0123456789abcdef") == 64;
}

/* --- the bytes of a blob */

/* A cursor over the file, and for an entry of a tar the archive reader above it. */
struct blob_reader {
	const struct image_blob *blob;
	const char *what;
	int64_t at;  /* in the file */
	int64_t end; /* in the file; INT64_MAX inside a tar, whose reader knows */
	int64_t given;
	struct archive *tar;
	char *piece;
};

static la_ssize_t read_file(struct archive *a, void *data, const void **ret)
{
	struct blob_reader *r = data;
	int64_t left = r->end - r->at;
	size_t want = left < (int64_t)PIECE ? (size_t)left : PIECE;
	for (;;) {
		ssize_t n = pread(r->blob->fd, r->piece, want, r->at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			archive_set_error(a, errno, "cannot read it: %s", strerror(errno));
			return -1;
		}
		r->at += n;
		*ret = r->piece;
		return n;
	}
}

/* Entries are skipped by moving the cursor. */
static la_int64_t skip_file(struct archive *a, void *data, la_int64_t n)
{
	struct blob_reader *r = data;
	(void)a;
	if (n > r->end - r->at)
		n = r->end - r->at;
	r->at += n;
	return n;
}

static void reader_done(struct blob_reader *r)
{
	if (r->tar)
		archive_read_free(r->tar);
	free(r->piece);
	r->tar = NULL;
	r->piece = NULL;
}

static int reader_init(struct blob_reader *r, const struct image_blob *b, const char *what, struct err *e)
{
	*r = (struct blob_reader){
	    .blob = b, .what = what, .at = b->offset, .end = b->in_tar ? INT64_MAX : b->offset + b->size};
	r->piece = xmalloc(PIECE);
	if (!b->in_tar)
		return 0;
	r->tar = archive_read_new();
	ASSERT(r->tar);
	archive_read_support_format_tar(r->tar);
	archive_read_set_read_callback(r->tar, read_file);
	archive_read_set_skip_callback(r->tar, skip_file);
	archive_read_set_callback_data(r->tar, r);
	struct archive_entry *entry;
	if (archive_read_open1(r->tar) != ARCHIVE_OK ||
	    archive_read_next_header(r->tar, &entry) < ARCHIVE_WARN) {
		const char *why = archive_error_string(r->tar);
		int rc = err_set(e, ERR_CORRUPT, "cannot read %s: %s", what, why ? why : "no such entry");
		reader_done(r);
		return rc;
	}
	return 0;
}

/* The next piece; 0 at the end; negative with e. */
static ssize_t reader_next(struct blob_reader *r, const void **ret, struct err *e)
{
	if (!r->tar) {
		int64_t left = r->end - r->at;
		size_t want = left < (int64_t)PIECE ? (size_t)left : PIECE;
		ssize_t n;
		do {
			n = want ? pread(r->blob->fd, r->piece, want, r->at) : 0;
		} while (n < 0 && errno == EINTR);
		if (n < 0)
			return err_errno(e, errno, "cannot read %s", r->what);
		if (n == 0 && left > 0)
			return err_set(e, ERR_CORRUPT, "%s is truncated: %lld bytes are missing", r->what,
			    (long long)left);
		r->at += n;
		r->given += n;
		*ret = r->piece;
		return n;
	}
	size_t n = 0;
	la_int64_t offset = 0;
	for (;;) {
		int rc = archive_read_data_block(r->tar, ret, &n, &offset);
		if (rc == ARCHIVE_EOF) {
			if (r->given != r->blob->size)
				return err_set(e, ERR_CORRUPT, "%s is truncated", r->what);
			return 0;
		}
		if (rc < ARCHIVE_WARN) {
			const char *why = archive_error_string(r->tar);
			return err_set(e, ERR_CORRUPT, "cannot read %s: %s", r->what, why ? why : "damaged");
		}
		/* A hole would be a way to make much of nothing. */
		if (offset != r->given)
			return err_set(e, ERR_CORRUPT, "%s is a sparse entry, which no image has", r->what);
		if (n)
			break;
	}
	r->given += (int64_t)n;
	return (ssize_t)n;
}

int image_blob_read(const struct image_blob *b, const char *what, size_t max, struct buf *ret, struct err *e)
{
	if (b->size < 0 || (uint64_t)b->size > max)
		return err_set(e, ERR_TOO_LARGE, "%s has %lld bytes; at most %zu are allowed", what,
		    (long long)b->size, max);
	struct blob_reader r;
	int rc = reader_init(&r, b, what, e);
	if (rc < 0)
		return rc;
	CLEANUP_BUF struct buf out = BUF_INIT;
	for (;;) {
		const void *p;
		ssize_t n = reader_next(&r, &p, e);
		if (n < 0) {
			rc = (int)n;
			break;
		}
		if (n == 0)
			break;
		if (out.len + (size_t)n > max) {
			rc = err_set(e, ERR_TOO_LARGE, "%s is larger than %zu bytes", what, max);
			break;
		}
		buf_append(&out, p, (size_t)n);
	}
	reader_done(&r);
	if (rc == 0)
		buf_append(ret, out.data ? out.data : "", out.len);
	return rc;
}

/* --- decompressed */

struct image_stream {
	struct image_blob blob;
	struct blob_reader reader;
	char *what;
	struct archive *raw;
	EVP_MD_CTX *hash;
	struct err read_err; /* of the reader below, while libarchive is in between */
	int64_t at;
	bool ended;
};

static la_ssize_t read_blob(struct archive *a, void *data, const void **ret)
{
	struct image_stream *s = data;
	ssize_t n = reader_next(&s->reader, ret, &s->read_err);
	if (n < 0)
		archive_set_error(a, EIO, "%s", s->read_err.text);
	return n < 0 ? -1 : n;
}

static int stream_error(struct image_stream *s, struct err *e)
{
	if (s->read_err.code) {
		err_copy(e, &s->read_err);
		return s->read_err.code;
	}
	const char *why = archive_error_string(s->raw);
	return err_set(e, ERR_CORRUPT, "%s is corrupt: %s", s->what, why ? why : "cannot be decompressed");
}

int image_stream_open(const struct image_blob *b, const char *what, struct image_stream **ret, struct err *e)
{
	if (b->size == 0)
		return err_set(e, ERR_CORRUPT, "%s is empty", what);
	struct image_stream *s = NEW(struct image_stream);
	s->blob = *b;
	s->what = xstrdup(what);
	int rc = reader_init(&s->reader, &s->blob, s->what, e);
	if (rc < 0) {
		free(s->what);
		free(s);
		return rc;
	}
	s->hash = hash_new();
	s->raw = archive_read_new();
	ASSERT(s->raw);
	archive_read_support_filter_gzip(s->raw);
	archive_read_support_filter_zstd(s->raw);
	archive_read_support_filter_xz(s->raw);
	archive_read_support_filter_bzip2(s->raw);
	archive_read_support_format_raw(s->raw);
	archive_read_set_read_callback(s->raw, read_blob);
	archive_read_set_callback_data(s->raw, s);
	struct archive_entry *entry;
	if (archive_read_open1(s->raw) != ARCHIVE_OK ||
	    archive_read_next_header(s->raw, &entry) < ARCHIVE_WARN) {
		rc = stream_error(s, e);
		image_stream_close(s);
		return rc;
	}
	*ret = s;
	return 0;
}

int image_stream_read(struct image_stream *s, const void **ret_p, size_t *ret_n, struct err *e)
{
	if (s->ended) {
		*ret_n = 0;
		return 0;
	}
	for (;;) {
		la_int64_t offset;
		const void *p;
		size_t n = 0;
		int rc = archive_read_data_block(s->raw, &p, &n, &offset);
		if (rc == ARCHIVE_EOF) {
			s->ended = true;
			*ret_n = 0;
			return 0;
		}
		if (rc < ARCHIVE_WARN || s->read_err.code)
			return stream_error(s, e);
		if (n == 0)
			continue;
		EVP_DigestUpdate(s->hash, p, n);
		s->at += (int64_t)n;
		*ret_p = p;
		*ret_n = n;
		return 0;
	}
}

int64_t image_stream_position(const struct image_stream *s)
{
	return s->reader.given;
}

void image_stream_digest(struct image_stream *s, char out[IMAGE_DIGEST_LEN + 1])
{
	hash_text(s->hash, out);
}

void image_stream_close(struct image_stream *s)
{
	if (!s)
		return;
	archive_read_free(s->raw);
	reader_done(&s->reader);
	EVP_MD_CTX_free(s->hash);
	free(s->what);
	free(s);
}
