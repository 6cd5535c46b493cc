/* The image store: loading, names, removing, and what is left after failures and crashes. */
#include "test_images.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/mount.h>

#define N_LAYERS 3

/* Layers that depend on `salt`, the lowest does not. */
static void make_layers(struct buf *layers, const char *salt)
{
	for (size_t i = 0; i < N_LAYERS; i++) {
		char name[64];
		layers[i] = (struct buf)BUF_INIT;
		snprintf(name, sizeof(name), "file%zu", i);
		tar_file(&layers[i], name, i ? salt : "base");
		tar_end(&layers[i]);
	}
	/* The one above hides it. */
	struct buf t = BUF_INIT;
	tar_file(&t, ".wh.file0", "");
	buf_append(&t, layers[2].data, layers[2].len);
	buf_done(&layers[2]);
	layers[2] = t;
}

static void free_layers(struct buf *layers)
{
	for (size_t i = 0; i < N_LAYERS; i++)
		buf_done(&layers[i]);
}

static struct buf make_archive(const char *tag, const char *salt)
{
	struct buf layers[N_LAYERS], out = BUF_INIT;
	make_layers(layers, salt);
	docker_archive(&out, layers, N_LAYERS, tag, salt);
	free_layers(layers);
	return out;
}

static void load_ok(struct store_fix *f, const char *tag, const char *salt)
{
	struct store_op op = {.done = false};
	CLEANUP_BUF struct buf b = make_archive(tag, salt);
	if (store_load(f, &b, &op))
		fail_msg("%s", op.e.text);
	store_op_done(&op);
}

static void assert_file(const char *dir, const char *name, const char *text)
{
	CLEANUP_FREE char *path = fs_path(dir, name);
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (fs_read(path, 1000, &b, NULL) < 0)
		fail_msg("%s is missing", path);
	assert_string_equal(b.data, text);
}

/* --- loading ------------------------------------------------------------------------------------------ */

static void test_load(void **state)
{
	struct store_fix *f = *state;
	struct store_op op = {.done = false};
	CLEANUP_BUF struct buf b = make_archive("app:1", "one");
	assert_int_equal(store_load(f, &b, &op), 0);
	assert_true(store_said(&op, "{\"stream\":\"Loaded image: app:1\\n\"}"));
	assert_true(store_said(&op, "\"status\":\"Loading layer\""));
	struct image *i = store_find(f, "app:1");
	assert_string_equal(i->id, op.id);
	assert_int_equal(i->layers.n, N_LAYERS);
	assert_int_equal(i->repo_tags.n, 1);
	assert_string_equal(i->repo_tags.v[0], "app:1");
	assert_int_equal(i->repo_digests.n, 0);
	assert_int_equal(i->created, 1735787045);
	assert_int_equal(i->size, 4 + 3 + 3);
	assert_string_equal(json_string_value(json_array_get(
				json_object_get(json_object_get(i->config, "config"), "Cmd"), 0)),
	    "/bin/x");
	assert_file(i->layers.v[0], "file0", "base");
	assert_file(i->layers.v[1], "file1", "one");
	CLEANUP_BUF struct buf text = BUF_INIT;
	assert_int_equal(images_read_config(f->im, i->id, &text, NULL), 0);
	char digest[IMAGE_DIGEST_LEN + 1];
	image_digest(text.data, text.len, digest);
	assert_string_equal(digest, i->id);
	/* Found by everything that names it. */
	char prefix[16];
	snprintf(prefix, sizeof(prefix), "%.12s", i->id + 7);
	assert_true(store_has(f, i->id) && store_has(f, i->id + 7) && store_has(f, prefix));
	assert_true(store_has(f, "docker.io/library/app:1") && store_has(f, "library/app:1"));
	assert_false(store_has(f, "app") || store_has(f, "app:2") || store_has(f, "") || store_has(f, "zz"));
	struct err e = ERR_INIT;
	struct image *none;
	assert_int_equal(images_find(f->im, "app", &none, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "No such image: app:latest");
	assert_int_equal(store_count(f, "images/tmp"), 0);
	assert_true(strlist_has(&f->events, "load app:1"));
	image_unref(i);
	store_op_done(&op);
}

/* What overlayfs makes of the layers is what the image's author meant. */
static void test_mounts(void **state)
{
	struct store_fix *f = *state;
	load_ok(f, "app:1", "one");
	struct image *i = store_find(f, "app:1");
	CLEANUP_BUF struct buf o = BUF_INIT;
	buf_puts(&o, "lowerdir=");
	for (size_t k = i->layers.n; k-- > 0;)
		buf_printf(&o, "%s%s", i->layers.v[k], k ? ":" : "");
	CLEANUP_FREE char *at = fs_path(f->dir, "merged");
	assert_int_equal(mkdir(at, 0755), 0);
	int rc = mount("overlay", at, "overlay", MS_RDONLY, o.data);
	image_unref(i);
	if (rc < 0)
		skip(); /* not allowed to mount */
	CLEANUP_FREE char *hidden = fs_path(at, "file0");
	bool visible = fs_exists(hidden);
	CLEANUP_FREE char *kept = fs_path(at, "file1");
	bool other = fs_exists(kept);
	umount2(at, MNT_DETACH);
	assert_false(visible);
	assert_true(other);
}

static void compress_with(struct buf *b, int (*filter)(struct archive *))
{
	size_t used = 0, cap = b->len * 2 + 65536;
	char *out = xmalloc(cap);
	struct archive *a = archive_write_new();
	assert_int_equal(filter(a), ARCHIVE_OK);
	archive_write_set_format_raw(a);
	archive_write_open_memory(a, out, cap, &used);
	struct archive_entry *entry = archive_entry_new();
	archive_entry_set_filetype(entry, AE_IFREG);
	assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
	assert_int_equal(archive_write_data(a, b->data, b->len), b->len);
	archive_entry_free(entry);
	archive_write_close(a);
	archive_write_free(a);
	buf_reset(b);
	buf_append(b, out, used);
	free(out);
}

static void test_compressed(void **state)
{
	struct store_fix *f = *state;
	static int (*const filters[])(struct archive *) = {archive_write_add_filter_gzip,
	    archive_write_add_filter_zstd, archive_write_add_filter_xz, archive_write_add_filter_bzip2};
	for (size_t k = 0; k < ARRAY_LEN(filters); k++) {
		char tag[32], salt[32];
		struct store_op op = {.done = false};
		struct buf layers[N_LAYERS], b = BUF_INIT;
		snprintf(tag, sizeof(tag), "app:%zu", k);
		snprintf(salt, sizeof(salt), "salt%zu", k);
		/* The config is of the uncompressed layers. */
		make_layers(layers, salt);
		char *config = image_config_text(layers, N_LAYERS, salt);
		json_t *names = json_array();
		for (size_t i = 0; i < N_LAYERS; i++) {
			char name[8];
			compress_with(&layers[i], filters[k]);
			snprintf(name, sizeof(name), "l%zu", i);
			tar_add(&b,
			    (struct tar_entry){
				.name = name, .type = '0', .data = layers[i].data, .size = layers[i].len});
			json_array_append_new(names, json_string(name));
		}
		free_layers(layers);
		tar_file(&b, "c", config);
		json_t *m = json_pack("[{s:s,s:[s],s:o}]", "Config", "c", "RepoTags", tag, "Layers", names);
		char *text = json_dumps(m, 0);
		tar_file(&b, "manifest.json", text);
		tar_end(&b);
		json_decref(m);
		free(text);
		free(config);
		compress_with(&b, filters[k]);
		if (store_load(f, &b, &op))
			fail_msg("%zu: %s", k, op.e.text);
		/* Cut anywhere it is an error, and nothing is left. */
		store_op_done(&op);
		json_t *gone;
		assert_int_equal(images_remove(f->im, tag, false, &gone, NULL), 0);
		json_decref(gone);
		for (size_t cut = 1; cut < b.len; cut += b.len / 9) {
			struct buf part = {b.data, cut, cut};
			assert_int_equal(store_load(f, &part, &op), ERR_CORRUPT);
		}
		store_op_done(&op);
		store_assert_empty(f);
		buf_done(&b);
	}
}

/* Adds a blob and returns its descriptor. */
static json_t *oci_blob(struct buf *out, const char *p, size_t n, const char *type)
{
	char digest[IMAGE_DIGEST_LEN + 1];
	image_digest(p, n, digest);
	CLEANUP_FREE char *name = xasprintf("blobs/sha256/%s", digest + 7);
	tar_add(out, (struct tar_entry){.name = name, .type = '0', .data = p, .size = n});
	return json_pack("{s:s,s:s,s:I}", "mediaType", type, "digest", digest, "size", (json_int_t)n);
}

static json_t *oci_json(struct buf *out, json_t *j, const char *type)
{
	char *text = json_dumps(j, JSON_COMPACT);
	json_t *d = oci_blob(out, text, strlen(text), type);
	free(text);
	json_decref(j);
	return d;
}

static void test_oci(void **state)
{
	struct store_fix *f = *state;
	struct store_op op = {.done = false};
	struct buf layers[N_LAYERS], b = BUF_INIT;
	make_layers(layers, "oci");
	char *config = image_config_text(layers, N_LAYERS, "oci");
	json_t *list = json_array();
	for (size_t i = 0; i < N_LAYERS; i++)
		json_array_append_new(list,
		    oci_blob(&b, layers[i].data, layers[i].len, "application/vnd.oci.image.layer.v1.tar"));
	json_t *c = oci_blob(&b, config, strlen(config), "application/vnd.oci.image.config.v1+json");
	json_t *m = oci_json(&b, json_pack("{s:i,s:o,s:o}", "schemaVersion", 2, "config", c, "layers", list),
	    "application/vnd.oci.image.manifest.v1+json");

	/* Behind an index of platforms, beside one that is for another machine. */
	json_t *other = json_deep_copy(m);
	json_object_set_new(other, "digest",
	    json_string("sha256:0000000000000000000000000000000000000000000000000000000000000000"));
	json_object_set_new(other, "platform", json_pack("{s:s,s:s}", "os", "plan9", "architecture", "vax"));
#if defined(__aarch64__)
	const char *arch = "arm64";
#else
	const char *arch = "amd64";
#endif
	json_object_set_new(m, "platform", json_pack("{s:s,s:s}", "os", "linux", "architecture", arch));
	json_t *ix = oci_json(&b, json_pack("{s:i,s:[o,o]}", "schemaVersion", 2, "manifests", other, m),
	    "application/vnd.oci.image.index.v1+json");
	json_object_set_new(ix, "annotations",
	    json_pack("{s:s,s:s}", "io.containerd.image.name", "docker.io/library/oci:9",
		"org.opencontainers.image.ref.name", "9"));
	json_t *top = json_pack("{s:i,s:[o]}", "schemaVersion", 2, "manifests", ix);
	char *text = json_dumps(top, 0);
	tar_file(&b, "index.json", text);
	tar_file(&b, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	tar_end(&b);
	json_decref(top);
	free(text);
	free(config);
	free_layers(layers);
	if (store_load(f, &b, &op))
		fail_msg("%s", op.e.text);
	struct image *i = store_find(f, "oci:9");
	assert_file(i->layers.v[1], "file1", "oci");
	image_unref(i);
	/* A manifest whose bytes are not those of its name. */
	char *at = memmem(b.data, b.len, "schemaVersion\":2,\"config", 23);
	assert_non_null(at);
	at[15] = '3';
	struct err e = ERR_INIT;
	json_t *gone;
	assert_int_equal(images_remove(f->im, "oci:9", false, &gone, &e), 0);
	json_decref(gone);
	assert_int_equal(store_load(f, &b, &op), ERR_CORRUPT);
	assert_non_null(strstr(op.e.text, "blobs/sha256/"));
	store_op_done(&op);
	buf_done(&b);
	store_assert_empty(f);
}

static void test_shared_at_once(void **state)
{
	struct store_fix *f = *state;
	struct store_op ops[6];
	struct buf b[6];
	memset(ops, 0, sizeof(ops));
	for (size_t k = 0; k < 6; k++) {
		char tag[32];
		snprintf(tag, sizeof(tag), "app:%zu", k);
		b[k] = make_archive(tag, k % 2 ? "odd" : "even");
		store_load_start(f, &b[k], &ops[k]);
	}
	for (size_t k = 0; k < 6; k++) {
		if (store_wait(f, &ops[k]))
			fail_msg("%s", ops[k].e.text);
		store_op_done(&ops[k]);
		buf_done(&b[k]);
	}
	/* Two images, the lowest layer shared. */
	assert_int_equal(store_count(f, "images/configs"), 2);
	assert_int_equal(store_count(f, "layers"), 5);
	struct image *i = store_find(f, "app:0");
	assert_int_equal(i->repo_tags.n, 3);
	image_unref(i);
	/* Removing one leaves what the other needs. */
	json_t *gone = NULL;
	assert_int_equal(images_remove(f->im, "app:0", false, &gone, NULL), 0);
	assert_int_equal(json_array_size(gone), 1);
	json_decref(gone);
	for (int k = 2; k < 6; k += 2) {
		char tag[32];
		snprintf(tag, sizeof(tag), "app:%d", k);
		assert_int_equal(images_remove(f->im, tag, false, &gone, NULL), 0);
		assert_int_equal(json_array_size(gone), k == 2 ? 1 : 4);
		json_decref(gone);
	}
	i = store_find(f, "app:1");
	assert_file(i->layers.v[0], "file0", "base");
	image_unref(i);
}

/* A load that runs while the image is removed has what it needs. */
static void test_remove_while_loading(void **state)
{
	struct store_fix *f = *state;
	load_ok(f, "app:1", "one");
	for (int round = 0; round < 20; round++) {
		struct store_op op = {.done = false};
		CLEANUP_BUF struct buf b = make_archive("app:1", "one");
		store_load_start(f, &b, &op);
		json_t *gone;
		if (round % 2)
			uv_run(&f->loop, UV_RUN_NOWAIT);
		bool was_quick = op.done;
		assert_int_equal(images_remove(f->im, "app:1", true, &gone, NULL), 0);
		json_decref(gone);
		assert_int_equal(store_wait(f, &op), 0);
		store_op_done(&op);
		if (was_quick) { /* what was removed is what it had loaded */
			load_ok(f, "app:1", "one");
			continue;
		}
		struct image *i = store_find(f, "app:1");
		assert_file(i->layers.v[1], "file1", "one");
		image_unref(i);
	}
}

/* --- bad archives ------------------------------------------------------------------------------------- */

static void expect_bad(struct store_fix *f, struct buf *b, int code, const char *text)
{
	struct store_op op = {.done = false};
	int rc = store_load(f, b, &op);
	if (rc != code || !strstr(op.e.text, text))
		fail_msg("expected %d \"%s\", got %d \"%s\"", code, text, rc, op.e.text);
	store_op_done(&op);
	buf_done(b);
	store_assert_empty(f);
}

static struct buf with_manifest(const char *manifest, const char *config)
{
	struct buf b = BUF_INIT;
	if (config)
		tar_file(&b, "c.json", config);
	tar_file(&b, "l.tar", "x");
	tar_file(&b, "manifest.json", manifest);
	tar_end(&b);
	return b;
}

#define ID          "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define OK_MANIFEST "[{\"Config\":\"c.json\",\"Layers\":[\"l.tar\"]}]"

static void test_bad_archives(void **state)
{
	struct store_fix *f = *state;
	struct buf b = BUF_INIT;
	expect_bad(f, &b, ERR_CORRUPT, "empty");
	buf_puts(&b, "this is no archive at all");
	expect_bad(f, &b, ERR_CORRUPT, "archive");
	tar_file(&b, "hello", "x");
	tar_end(&b);
	expect_bad(f, &b, ERR_CORRUPT, "neither manifest.json nor index.json");
	tar_file(&b, "repositories", "{}");
	tar_end(&b);
	expect_bad(f, &b, ERR_INVALID, "docker before 1.10");
	static const struct {
		const char *manifest, *config, *text;
	} table[] = {
	    {"{", NULL, "manifest.json is not JSON"},
	    {"", NULL, "manifest.json is not JSON"},
	    {"[]", NULL, "lists no image"},
	    {"{\"a\":1}", NULL, "lists no image"},
	    {"[1]", NULL, "names no Config"},
	    {"[{\"Config\":1,\"Layers\":[]}]", NULL, "names no Config"},
	    {"[{\"Config\":\"none.json\",\"Layers\":[]}]", NULL, "no \"none.json\""},
	    {"[{\"Config\":\"../../etc/passwd\",\"Layers\":[]}]", NULL, "no \"../../etc/passwd\""},
	    {OK_MANIFEST, "[]", "not the config"},
	    {OK_MANIFEST, "{}", "not the config"},
	    {OK_MANIFEST, "{\"rootfs\":{\"diff_ids\":{}}}", "not the config"},
	    {OK_MANIFEST, "{\"rootfs\":{\"diff_ids\":[]}}", "has no layers"},
	    {OK_MANIFEST, "{\"rootfs\":{\"diff_ids\":[1]}}", "not a sha256 digest"},
	    {OK_MANIFEST, "{\"rootfs\":{\"diff_ids\":[\"../../x\"]}}", "not a sha256 digest"},
	    {OK_MANIFEST, "{\"config\":[],\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}",
		"\"config\" is of the wrong type"},
	    {OK_MANIFEST, "{\"config\":{\"Labels\":[]},\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}",
		"\"Labels\" is of the wrong"},
	    {OK_MANIFEST, "{\"config\":{\"Labels\":{\"a\":1}},\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}",
		"\"Labels\" is of the wrong"},
	    {OK_MANIFEST, "{\"config\":{\"Env\":[1]},\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}",
		"\"Env\" is of the wrong"},
	    {OK_MANIFEST, "{\"rootfs\":{\"diff_ids\":[\"" ID "\",\"" ID "\"]}}", "layers length mismatch"},
	    {OK_MANIFEST, "{\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}", "layer 1 of 1"},
	    {"[{\"Config\":\"c.json\",\"Layers\":[\"none\"]}]", "{\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}",
		"no \"none\""},
	    {"[{\"Config\":\"c.json\",\"Layers\":[\"l.tar\"],\"RepoTags\":[\"Not A Name\"]}]",
		"{\"rootfs\":{\"diff_ids\":[\"" ID "\"]}}", "invalid reference format"},
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		b = with_manifest(table[i].manifest, table[i].config);
		expect_bad(f, &b,
		    !strcmp(table[i].text, "invalid reference format") ? ERR_INVALID : ERR_CORRUPT,
		    table[i].text);
	}
	/* Links that go round, and a link to a file that is there. */
	tar_add(&b, (struct tar_entry){.name = "manifest.json", .type = '2', .link = "a"});
	tar_add(&b, (struct tar_entry){.name = "a", .type = '2', .link = "manifest.json"});
	tar_end(&b);
	expect_bad(f, &b, ERR_CORRUPT, "manifest.json");
	/* More layers than anybody has. */
	CLEANUP_BUF struct buf ids = BUF_INIT;
	for (int i = 0; i < 200; i++)
		buf_printf(&ids, "%s\"" ID "\"", i ? "," : "");
	CLEANUP_FREE char *config = xasprintf("{\"rootfs\":{\"diff_ids\":[%s]}}", ids.data);
	b = with_manifest(OK_MANIFEST, config);
	expect_bad(f, &b, ERR_TOO_LARGE, "200 layers");
}

static void test_wrong_layer(void **state)
{
	struct store_fix *f = *state;
	struct buf b = make_archive("app:1", "one");
	char *at = memmem(b.data, b.len, "base", 4);
	assert_non_null(at);
	*at = 'B';
	expect_bad(f, &b, ERR_CORRUPT, "layer 1 of 3");
	b = make_archive("app:1", "one");
	/* The third one: two are unpacked already and have to go. */
	at = memmem(b.data, b.len, "file2", 5);
	at = memmem(at, b.len - (size_t)(at - b.data), "one", 3);
	*at = 'O';
	expect_bad(f, &b, ERR_CORRUPT, "layer 3 of 3");
}

static void test_truncated(void **state)
{
	struct store_fix *f = *state;
	CLEANUP_BUF struct buf b = make_archive("app:1", "one");
	for (size_t n = 0; n < b.len - 1024; n += 331) {
		struct buf part = BUF_INIT;
		buf_append(&part, b.data, n);
		expect_bad(f, &part, ERR_CORRUPT, "");
	}
}

static void test_abort(void **state)
{
	struct store_fix *f = *state;
	struct image_load *l;
	struct err e = ERR_INIT;
	assert_int_equal(images_load_start(f->im, NULL, NULL, NULL, &l, &e), 0);
	assert_int_equal(images_load_write(l, "abc", 3, &e), 0);
	images_load_abort(l);
	store_assert_empty(f);
}

static void test_full_disk(void **state)
{
	struct store_fix *f = *state;
	store_close(f);
	if (mount("shoal-test", f->dir, "tmpfs", 0, "size=2m") < 0) {
		store_open(f);
		skip(); /* not allowed to mount */
	}
	store_open(f);
	struct buf layer = BUF_INIT, b = BUF_INIT;
	char *data = xmalloc(1 << 20);
	memset(data, 'x', 1 << 20);
	tar_add(&layer, (struct tar_entry){.name = "big", .type = '0', .data = data, .size = 1 << 20});
	tar_end(&layer);
	docker_archive(&b, &layer, 1, "big:1", "big");
	/* The spool fits, the layer does not fit beside it. */
	struct store_op op = {.done = false};
	int rc = store_load(f, &b, &op);
	struct err e = op.e;
	store_op_done(&op);
	store_assert_empty(f);
	/* And a spool that does not fit. */
	struct image_load *l;
	struct err e2 = ERR_INIT;
	assert_int_equal(images_load_start(f->im, NULL, NULL, NULL, &l, &e2), 0);
	int rc2 = 0;
	for (int i = 0; i < 4 && rc2 == 0; i++)
		rc2 = images_load_write(l, data, 1 << 20, &e2);
	images_load_abort(l);
	store_assert_empty(f);
	free(data);
	buf_done(&layer);
	buf_done(&b);
	store_close(f);
	umount2(f->dir, MNT_DETACH);
	assert_int_equal(rc, ERR_IO);
	assert_non_null(strstr(e.text, "No space left on device"));
	assert_int_equal(rc2, ERR_IO);
	assert_non_null(strstr(e2.text, "No space left on device"));
}

/* --- names -------------------------------------------------------------------------------------------- */

static char *removed(struct store_fix *f, const char *ref, bool force, struct err *e)
{
	json_t *j = NULL;
	*e = (struct err)ERR_INIT;
	if (images_remove(f->im, ref, force, &j, e) < 0)
		return NULL;
	char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return text;
}

static void test_tags(void **state)
{
	struct store_fix *f = *state;
	struct err e = ERR_INIT;
	load_ok(f, "app:1", "one");
	assert_int_equal(images_tag(f->im, "app:1", "other/app", &e), 0);
	assert_int_equal(images_tag(f->im, "app:1", "app:2", &e), 0);
	assert_int_equal(images_tag(f->im, "app:9", "app:2", &e), ERR_NOT_FOUND);
	assert_int_equal(images_tag(f->im, "app:1", "No Name", &e), ERR_INVALID);
	assert_int_equal(images_tag(f->im, "app:1", "app@" ID, &e), ERR_INVALID);
	struct image *i = store_find(f, "other/app:latest");
	assert_int_equal(i->repo_tags.n, 3);
	CLEANUP_FREE char *id = xstrdup(i->id);
	image_unref(i);
	assert_null(removed(f, id, false, &e));
	assert_non_null(strstr(e.text, "multiple repositories"));
	CLEANUP_FREE char *a = removed(f, "app:2", false, &e);
	assert_string_equal(a, "[{\"Untagged\":\"app:2\"}]");
	/* A tag that moves leaves the old image without a name. */
	load_ok(f, "app:1", "two");
	i = store_find(f, "app:1");
	assert_string_not_equal(i->id, id);
	image_unref(i);
	load_ok(f, "other/app:latest", "two");
	i = store_find(f, id);
	assert_int_equal(i->repo_tags.n, 0);
	image_unref(i);
	json_t *deleted;
	int64_t bytes;
	assert_int_equal(images_prune(f->im, true, NULL, NULL, &deleted, &bytes, &e), 0);
	assert_int_equal(json_array_size(deleted), 3); /* the image and the two layers that only it had */
	assert_int_equal(bytes, 6);
	json_decref(deleted);
	assert_false(store_has(f, id));
	assert_true(store_has(f, "app:1"));
	assert_int_equal(images_prune(f->im, false, NULL, NULL, &deleted, &bytes, &e), 0);
	json_decref(deleted);
	store_assert_empty(f);
}

static void test_in_use(void **state)
{
	struct store_fix *f = *state;
	struct err e = ERR_INIT;
	load_ok(f, "app:1", "one");
	struct image *i = store_find(f, "app:1");
	CLEANUP_FREE char *id = xstrdup(i->id);
	f->user = "0123456789abcdef";
	f->user_runs = true;
	assert_null(removed(f, id, true, &e));
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_non_null(strstr(e.text, "cannot be forced"));
	assert_non_null(strstr(e.text, "0123456789ab"));
	assert_null(removed(f, "app:1", false, &e));
	assert_non_null(
	    strstr(e.text, "(must force) - container 0123456789ab is using its referenced image"));
	f->user_runs = false;
	assert_null(removed(f, id, false, &e));
	assert_non_null(strstr(e.text, "must be forced"));
	json_t *deleted;
	int64_t bytes;
	assert_int_equal(images_prune(f->im, false, NULL, NULL, &deleted, &bytes, &e), 0);
	assert_int_equal(json_array_size(deleted), 0);
	json_decref(deleted);
	/* Forced, the name goes and the data stay for the container. */
	CLEANUP_FREE char *a = removed(f, "app:1", true, &e);
	assert_string_equal(a, "[{\"Untagged\":\"app:1\"}]");
	assert_true(store_has(f, id));
	f->user = NULL;
	CLEANUP_FREE char *b = removed(f, id, false, &e);
	assert_non_null(strstr(b, "Deleted"));
	/* Who holds the image has its layers. */
	assert_file(i->layers.v[0], "file0", "base");
	image_unref(i);
	store_assert_empty(f);
}

/* --- the next start ----------------------------------------------------------------------------------- */

static void test_reopen(void **state)
{
	struct store_fix *f = *state;
	load_ok(f, "app:1", "one");
	load_ok(f, "app:2", "two");
	struct err e = ERR_INIT;
	assert_int_equal(images_tag(f->im, "app:1", "same:1", &e), 0);
	store_close(f);
	/* What crashes leave: spools, half a layer, a layer of no image, a config without layers, damaged
	 * files. */
	CLEANUP_FREE char *cmd = xasprintf(
	    "cd %s && mkdir -p images/tmp/skopeo-1 layers/.new-1/diff layers/.old-2 && echo x "
	    ">images/tmp/skopeo-1/auth.json "
	    "&& cp -a layers/$(ls layers | head -1) "
	    "layers/0000000000000000000000000000000000000000000000000000000000000000 && mkdir layers/junk && "
	    "echo '{}' "
	    ">images/configs/0000000000000000000000000000000000000000000000000000000000000000 && echo x "
	    ">images/manifests/0000000000000000000000000000000000000000000000000000000000000000 && echo x "
	    ">images/configs/.tmp",
	    f->dir);
	assert_int_equal(system(cmd), 0);
	store_open(f);
	struct image *i = store_find(f, "same:1");
	assert_int_equal(i->repo_tags.n, 2);
	assert_file(i->layers.v[1], "file1", "one");
	image_unref(i);
	for (int k = 0; k < 500 && store_count(f, "layers") > 5; k++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(10000);
	}
	assert_int_equal(store_count(f, "layers"), 5);
	assert_int_equal(store_count(f, "images/configs"), 2);
	assert_int_equal(store_count(f, "images/manifests"), 0);
	assert_int_equal(store_count(f, "images/tmp"), 0);
	store_close(f);
	/* An image that lost a layer is gone as a whole; the other stays. */
	i = NULL;
	store_open(f);
	i = store_find(f, "app:2");
	CLEANUP_FREE char *top = xstrdup(i->layers.v[2]);
	image_unref(i);
	store_close(f);
	assert_int_equal(fs_remove_tree(top, NULL), 0);
	*strrchr(top, '/') = 0;
	assert_int_equal(fs_remove_tree(top, NULL), 0);
	store_open(f);
	assert_false(store_has(f, "app:2"));
	assert_true(store_has(f, "app:1"));
	store_close(f);
	/* Names that cannot be read are an error that says which file. */
	CLEANUP_FREE char *names = xasprintf("%s/images/names.json", f->dir);
	assert_int_equal(fs_write_atomic(names, "{", 1, 0600, NULL), 0);
	struct images_opts o = {.data_root = f->dir};
	assert_int_equal(images_open(&f->loop, &o, &f->im, &e), ERR_CORRUPT);
	assert_non_null(strstr(e.text, "names.json"));
	f->im = NULL;
}

static void test_close_while_loading(void **state)
{
	struct store_fix *f = *state;
	struct store_op ops[4];
	memset(ops, 0, sizeof(ops));
	for (size_t k = 0; k < 4; k++) {
		CLEANUP_BUF struct buf b = make_archive("app:1", "one");
		store_load_start(f, &b, &ops[k]);
	}
	store_close(f);
	for (size_t k = 0; k < 4; k++) {
		assert_true(ops[k].done);
		store_op_done(&ops[k]);
	}
	store_open(f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, store_setup, store_teardown)
	const struct CMUnitTest tests[] = {
	    T(test_load),
	    T(test_mounts),
	    T(test_compressed),
	    T(test_oci),
	    T(test_shared_at_once),
	    T(test_remove_while_loading),
	    T(test_bad_archives),
	    T(test_wrong_layer),
	    T(test_truncated),
	    T(test_abort),
	    T(test_full_disk),
	    T(test_tags),
	    T(test_in_use),
	    T(test_reopen),
	    T(test_close_while_loading),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
