/* Any bytes as an image archive, as a layer, and as a config, manifest or index: no crash, and nothing is
 * created outside the layer's directory. Works in /dev/shm.
 *
 * The first byte says what the rest is; its highest bit asks for the checksums of what looks like tar headers
 * to be put right first, since a mutation hardly ever gets past them otherwise. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/image.h"
#include "agent/image_archive.h"
#include "agent/image_unpack.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static char dir[64], *layer;

static void make_dir(void)
{
	if (layer)
		return;
	strcpy(dir, "/dev/shm/shoal-fuzz-XXXXXX");
	ASSERT(mkdtemp(dir));
	layer = fs_path(dir, "layer");
}

static void remove_dir(void)
{
	if (layer)
		fs_remove_tree(dir, NULL);
}

static void fix_checksums(char *p, size_t n)
{
	for (size_t at = 0; at + 512 <= n; at += 512) {
		if (memcmp(p + at + 257, "ustar", 5) != 0)
			continue;
		unsigned sum = 8 * ' ';
		for (size_t i = 0; i < 512; i++)
			if (i < 148 || i >= 156)
				sum += (unsigned char)p[at + i];
		char text[8];
		snprintf(text, sizeof(text), "%06o", sum & 0777777);
		memcpy(p + at + 148, text, 7);
		p[at + 155] = ' ';
	}
}

static int memory_file(const char *p, size_t n)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	ASSERT(fd >= 0 && image_write_all(fd, p, n, "memory", NULL) == 0);
	return fd;
}

static void unpack(const struct image_blob *b)
{
	ASSERT(mkdir(layer, 0755) == 0);
	struct unpack_opts o = {.dir = layer, .blob = b, .what = "layer"};
	struct unpack_result r;
	struct err e = ERR_INIT;
	int rc = image_unpack(&o, &r, &e);
	ASSERT(rc == 0 || (rc == e.code && e.text[0]));
	ASSERT(fs_remove_tree(layer, &e) == 0);
	/* rmdir fails when anything was put beside the layer. */
	ASSERT(rmdir(dir) == 0 && mkdir(dir, 0700) == 0);
}

static void as_archive(const char *p, size_t n)
{
	int fd = memory_file(p, n);
	atomic_bool no = false;
	struct image_archive a;
	struct err e = ERR_INIT;
	if (image_archive_read(&fd, dir, &no, &a, &e) == 0) {
		for (size_t i = 0; i < a.n && i < 4; i++)
			for (size_t k = 0; k < a.images[i].diff_ids.n && k < 4; k++)
				unpack(&a.images[i].blobs[k]);
		image_archive_done(&a);
	} else {
		ASSERT(e.code < 0 && e.text[0]);
	}
	close(fd);
}

static void as_layer(const char *p, size_t n)
{
	int fd = memory_file(p, n);
	struct image_blob b = {.fd = fd, .size = (int64_t)n};
	unpack(&b);
	close(fd);
}

static void as_json(const char *p, size_t n)
{
	struct buf text = BUF_INIT;
	buf_append(&text, p, n);
	json_t *j;
	if (image_json_parse(&text, "text", &j, NULL) == 0) {
		struct image_descriptor config, *layers;
		size_t n_layers;
		if (image_is_index(j))
			image_index_choose(j, "text", NULL);
		if (image_manifest_read(j, "text", &config, &layers, &n_layers, NULL) == 0)
			free(layers);
		json_decref(j);
	}
	struct image_parts parts = {.config = BUF_INIT};
	image_parts_set_config(&parts, &text, "text", NULL);
	image_parts_done(&parts);
	buf_done(&text);
}

static void as_reference(const char *p, size_t n)
{
	CLEANUP_FREE char *s = xstrndup(p, n);
	struct image_ref r, again;
	if (image_ref_parse(s, &r, NULL) < 0)
		return;
	/* What was read can be printed and read back, in both forms. */
	CLEANUP_FREE char *full = image_ref_full(&r);
	CLEANUP_FREE char *familiar = image_ref_familiar(&r);
	ASSERT(image_ref_parse(full, &again, NULL) == 0);
	CLEANUP_FREE char *full2 = image_ref_full(&again);
	ASSERT(strcmp(full, full2) == 0);
	image_ref_done(&again);
	ASSERT(image_ref_parse(familiar, &again, NULL) == 0);
	CLEANUP_FREE char *full3 = image_ref_full(&again);
	ASSERT(strcmp(full, full3) == 0);
	image_ref_done(&again);
	image_ref_done(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (n < 1)
		return 0;
	if (!layer) {
		make_dir();
		atexit(remove_dir);
		log_set_level(LOG_LEVEL_OFF);
	}
	char *copy = xmemdup(p + 1, n - 1);
	if (p[0] & 0x80)
		fix_checksums(copy, n - 1);
	switch (p[0] & 3) {
	case 0:
		as_archive(copy, n - 1);
		break;
	case 1:
		as_layer(copy, n - 1);
		break;
	case 2:
		as_json(copy, n - 1);
		break;
	default:
		as_reference(copy, n - 1);
	}
	free(copy);
	return 0;
}
