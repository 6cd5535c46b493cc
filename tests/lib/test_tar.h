/* Tar archives and images made byte by byte, so that tests can make wrong ones too. */
#ifndef TEST_TAR_H
#define TEST_TAR_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "agent/image_source.h"
#include "base/buf.h"
#include "base/mem.h"

struct tar_entry {
	const char *name;
	char type; /* '0' file, '1' hard link, '2' symlink, '3' char, '4' block, '5' directory, '6' fifo */
	unsigned mode, uid, gid;
	int64_t mtime;
	const char *link;
	const char *data;
	size_t size; /* of data; 0: strlen(data) */
	unsigned major, minor;
	const char *pax;      /* records "key=value" separated by newlines; NULL: none */
	int64_t claimed_size; /* in the header instead of the true size, when not 0 */
};

static inline void tar_octal(char *at, size_t width, uint64_t v)
{
	char text[32];
	snprintf(text, sizeof(text), "%0*llo", (int)width - 1, (unsigned long long)v);
	memcpy(at, text + strlen(text) - (width - 1), width - 1);
}

static inline void tar_header(
    struct buf *b, const struct tar_entry *x, const char *name, char type, size_t size)
{
	char h[512] = {0};
	size_t n = strlen(name);
	memcpy(h, name, n > 100 ? 100 : n);
	tar_octal(h + 100, 8, x->mode);
	tar_octal(h + 108, 8, x->uid);
	tar_octal(h + 116, 8, x->gid);
	tar_octal(h + 124, 12, type == x->type && x->claimed_size ? (uint64_t)x->claimed_size : size);
	tar_octal(h + 136, 12, (uint64_t)x->mtime);
	memset(h + 148, ' ', 8);
	h[156] = type;
	if (x->link)
		memcpy(h + 157, x->link, strlen(x->link) > 100 ? 100 : strlen(x->link));
	memcpy(h + 257, "ustar\00000", 8);
	tar_octal(h + 329, 8, x->major);
	tar_octal(h + 337, 8, x->minor);
	unsigned sum = 0;
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	buf_append(b, h, sizeof(h));
}

static inline void tar_data(struct buf *b, const void *p, size_t n)
{
	static const char zeros[512];
	buf_append(b, p, n);
	if (n % 512)
		buf_append(b, zeros, 512 - n % 512);
}

static inline void tar_add(struct buf *b, struct tar_entry x)
{
	size_t size = x.data ? (x.size ? x.size : strlen(x.data)) : 0;
	struct buf pax = BUF_INIT;
	char *records = xstrdup(x.pax ? x.pax : "");
	CLEANUP_FREE char *long_name = strlen(x.name) > 100 ? xasprintf("path=%s", x.name) : NULL;
	for (char *r = long_name ? long_name : strtok(records, "\n"); r;) {
		size_t n = strlen(r) + 3; /* one digit, space, newline */
		while (n != strlen(r) + 2 + (size_t)snprintf(NULL, 0, "%zu", n))
			n++;
		buf_printf(&pax, "%zu %s\n", n, r);
		r = r == long_name ? strtok(records, "\n") : strtok(NULL, "\n");
	}
	free(records);
	if (pax.len) {
		tar_header(b, &x, "pax", 'x', pax.len);
		tar_data(b, pax.data, pax.len);
	}
	buf_done(&pax);
	tar_header(b, &x, x.name, x.type, size);
	if (size)
		tar_data(b, x.data, size);
}

static inline void tar_file(struct buf *b, const char *name, const char *data)
{
	tar_add(b, (struct tar_entry){.name = name, .type = '0', .mode = 0644, .data = data});
}

static inline void tar_dir(struct buf *b, const char *name, unsigned mode)
{
	tar_add(b, (struct tar_entry){.name = name, .type = '5', .mode = mode});
}

static inline void tar_end(struct buf *b)
{
	static const char zeros[1024];
	buf_append(b, zeros, sizeof(zeros));
}

/* The config of an image of these layers (uncompressed tars), as text. */
static inline char *image_config_text(const struct buf *layers, size_t n, const char *label)
{
	json_t *ids = json_array();
	for (size_t i = 0; i < n; i++) {
		char digest[IMAGE_DIGEST_LEN + 1];
		image_digest(layers[i].data, layers[i].len, digest);
		json_array_append_new(ids, json_string(digest));
	}
	json_t *j = json_pack("{s:s,s:s,s:s,s:{s:[s],s:{s:s}},s:{s:s,s:o},s:[{s:s}]}", "architecture",
	    "amd64", "os", "linux", "created", "2025-01-02T03:04:05Z", "config", "Cmd", "/bin/x", "Labels",
	    "test", label, "rootfs", "type", "layers", "diff_ids", ids, "history", "created_by", "test");
	char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return text;
}

/* A docker-archive of one image. `tag` may be NULL. */
static inline void docker_archive(
    struct buf *out, const struct buf *layers, size_t n, const char *tag, const char *label)
{
	char *config = image_config_text(layers, n, label);
	json_t *names = json_array();
	for (size_t i = 0; i < n; i++) {
		char name[32];
		snprintf(name, sizeof(name), "l%zu/layer.tar", i);
		tar_add(out, (struct tar_entry){.name = name,
				 .type = '0',
				 .mode = 0644,
				 .data = layers[i].data,
				 .size = layers[i].len});
		json_array_append_new(names, json_string(name));
	}
	tar_file(out, "config.json", config);
	json_t *m = json_pack("[{s:s,s:o,s:o}]", "Config", "config.json", "RepoTags",
	    tag ? json_pack("[s]", tag) : json_null(), "Layers", names);
	char *text = json_dumps(m, JSON_COMPACT);
	tar_file(out, "manifest.json", text);
	tar_end(out);
	json_decref(m);
	free(text);
	free(config);
}

#endif
