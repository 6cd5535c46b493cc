/* Reading configs, manifests and indexes of images: JSON that somebody else wrote, so every field is checked.
 */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "agent/image_archive.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

int image_json_parse(const struct buf *text, const char *what, json_t **ret, struct err *e)
{
	json_error_t why;
	/* An empty buffer has no memory at all. */
	json_t *j = json_loadb(text->data ? text->data : "", text->len, 0, &why);
	if (!j)
		return err_set(e, ERR_CORRUPT, "%s is not JSON: %s (line %d)", what, why.text, why.line);
	*ret = j;
	return 0;
}

void image_parts_done(struct image_parts *p)
{
	buf_done(&p->config);
	buf_done(&p->manifest);
	json_decref(p->json);
	p->json = NULL;
	strlist_done(&p->names);
	strlist_done(&p->diff_ids);
	free(p->blobs);
	p->blobs = NULL;
}

enum kind { TEXT, TEXTS, MAP, TEXT_MAP };

static bool is_kind(const json_t *v, enum kind kind)
{
	if (!v || json_is_null(v))
		return true;
	bool ok = kind == TEXT ? json_is_string(v) : kind == TEXTS ? json_is_array(v) : json_is_object(v);
	for (size_t i = 0; ok && kind == TEXTS && i < json_array_size(v); i++)
		ok = json_is_string(json_array_get(v, i));
	void *at = kind == TEXT_MAP ? json_object_iter((json_t *)v) : NULL;
	for (; ok && at; at = json_object_iter_next((json_t *)v, at))
		ok = json_is_string(json_object_iter_value(at));
	return ok;
}

/* What others read of a config, and show to clients that are as strict as Go, has the types that they expect.
 */
static int check_types(const json_t *image, const char *what, struct err *e)
{
	static const struct {
		const char *key;
		enum kind kind;
	} outer[] = {{"architecture", TEXT}, {"os", TEXT}, {"variant", TEXT}, {"created", TEXT},
	    {"author", TEXT}, {"config", MAP}},
	  inner[] = {{"User", TEXT}, {"WorkingDir", TEXT}, {"StopSignal", TEXT}, {"Hostname", TEXT},
	      {"Env", TEXTS}, {"Cmd", TEXTS}, {"Entrypoint", TEXTS}, {"OnBuild", TEXTS}, {"Shell", TEXTS},
	      {"Labels", TEXT_MAP}, {"Volumes", MAP}, {"ExposedPorts", MAP}, {"Healthcheck", MAP}};
	for (size_t i = 0; i < ARRAY_LEN(outer); i++)
		if (!is_kind(json_object_get(image, outer[i].key), outer[i].kind))
			return err_set(e, ERR_CORRUPT, "%s: \"%s\" is of the wrong type", what, outer[i].key);
	const json_t *config = json_object_get(image, "config");
	for (size_t i = 0; i < ARRAY_LEN(inner); i++)
		if (!is_kind(json_object_get(config, inner[i].key), inner[i].kind))
			return err_set(e, ERR_CORRUPT, "%s: \"%s\" is of the wrong type", what, inner[i].key);
	return 0;
}

int image_parts_set_config(struct image_parts *p, struct buf *bytes, const char *what, struct err *e)
{
	json_t *j = NULL;
	int rc = image_json_parse(bytes, what, &j, e);
	if (rc < 0)
		return rc;
	const json_t *rootfs = json_object_get(j, "rootfs");
	const json_t *diffs = json_object_get(rootfs, "diff_ids");
	if (!json_is_object(j) || !json_is_object(rootfs) || (diffs && !json_is_array(diffs)))
		rc = err_set(e, ERR_CORRUPT, "%s is not the config of a container image", what);
	else if (check_types(j, what, e) < 0)
		rc = ERR_CORRUPT;
	else if (json_array_size(diffs) > IMAGE_MAX_LAYERS)
		rc = err_set(e, ERR_TOO_LARGE, "%s has %zu layers; at most %d are possible", what,
		    json_array_size(diffs), IMAGE_MAX_LAYERS);
	struct strlist ids = STRLIST_INIT;
	for (size_t i = 0; rc == 0 && i < json_array_size(diffs); i++) {
		const char *id = json_string_value(json_array_get(diffs, i));
		if (image_digest_valid(id))
			strlist_add(&ids, id);
		else
			rc = err_set(e, ERR_CORRUPT, "%s: diff_ids[%zu] is not a sha256 digest", what, i);
	}
	if (rc == 0 && ids.n == 0)
		rc = err_set(e, ERR_CORRUPT, "%s has no layers", what);
	if (rc < 0) {
		strlist_done(&ids);
		json_decref(j);
		return rc;
	}
	image_digest(bytes->data, bytes->len, p->id);
	buf_done(&p->config);
	p->config = *bytes;
	*bytes = (struct buf)BUF_INIT;
	json_decref(p->json);
	p->json = j;
	strlist_done(&p->diff_ids);
	p->diff_ids = ids;
	return 0;
}

/* --- platforms */

static const char *machine_arch(const struct utsname *u)
{
	static const char *const names[][2] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"i686", "386"},
	    {"i386", "386"}, {"ppc64le", "ppc64le"}, {"s390x", "s390x"}, {"riscv64", "riscv64"},
	    {"loongarch64", "loong64"}};
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_eq(u->machine, names[i][0]))
			return names[i][1];
	return str_has_prefix(u->machine, "armv") ? "arm" : u->machine;
}

/* 0: does not fit; else the better the higher. A 32-bit ARM machine runs its own and older variants. */
static int platform_score(const json_t *platform, const struct utsname *u)
{
	const char *os = json_string_value(json_object_get(platform, "os"));
	const char *arch = json_string_value(json_object_get(platform, "architecture"));
	const char *variant = json_string_value(json_object_get(platform, "variant"));
	if (!str_eq(os, "linux") || !str_eq(arch, machine_arch(u)))
		return 0;
	if (!str_eq(arch, "arm"))
		return str_empty(variant) || str_eq(variant, "v8") || str_eq(variant, "v1") ? 2 : 1;
	int have = u->machine[4] >= '5' && u->machine[4] <= '9' ? u->machine[4] - '0' : 7;
	int want =
	    variant && variant[0] == 'v' && variant[1] >= '5' && variant[1] <= '9' ? variant[1] - '0' : 7;
	return want > have ? 0 : want;
}

bool image_is_index(const json_t *manifest)
{
	const char *type = json_string_value(json_object_get(manifest, "mediaType"));
	if (type)
		return str_eq(type, "application/vnd.oci.image.index.v1+json") ||
		       str_eq(type, "application/vnd.docker.distribution.manifest.list.v2+json");
	return json_is_array(json_object_get(manifest, "manifests"));
}

const json_t *image_index_choose(const json_t *index, const char *what, struct err *e)
{
	const json_t *list = json_object_get(index, "manifests"), *best = NULL;
	struct utsname u;
	if (uname(&u) < 0)
		memset(&u, 0, sizeof(u));
	int best_score = 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *m = json_array_get(list, i);
		const json_t *platform = json_object_get(m, "platform");
		int score =
		    json_is_object(platform) ? platform_score(platform, &u) : json_array_size(list) == 1;
		if (score > best_score) {
			best = m;
			best_score = score;
		}
	}
	if (!best)
		err_set(e, ERR_NOT_FOUND,
		    "no matching manifest for linux/%s in the manifest list entries of %s", machine_arch(&u),
		    what);
	return best;
}

/* --- manifests */

static int read_descriptor(
    const json_t *d, const char *what, const char *part, struct image_descriptor *ret, struct err *e)
{
	const char *digest = json_string_value(json_object_get(d, "digest"));
	const json_t *size = json_object_get(d, "size");
	if (!image_digest_valid(digest))
		return err_set(e, ERR_CORRUPT, "%s: %s has no sha256 digest", what, part);
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return err_set(e, ERR_CORRUPT, "%s: %s has no size", what, part);
	snprintf(ret->digest, sizeof(ret->digest), "%s", digest);
	ret->size = json_integer_value(size);
	return 0;
}

int image_manifest_read(const json_t *manifest, const char *what, struct image_descriptor *ret_config,
    struct image_descriptor **ret_layers, size_t *ret_n, struct err *e)
{
	if (json_integer_value(json_object_get(manifest, "schemaVersion")) == 1)
		return err_set(e, ERR_INVALID,
		    "%s: manifests of schema version 1 are not supported; push the image again with a "
		    "current tool",
		    what);
	const json_t *layers = json_object_get(manifest, "layers");
	if (!json_is_object(json_object_get(manifest, "config")) || !json_is_array(layers))
		return err_set(e, ERR_CORRUPT, "%s is not the manifest of a container image", what);
	size_t n = json_array_size(layers);
	if (n > IMAGE_MAX_LAYERS)
		return err_set(e, ERR_TOO_LARGE, "%s has %zu layers; at most %d are possible", what, n,
		    IMAGE_MAX_LAYERS);
	struct image_descriptor config;
	int rc = read_descriptor(json_object_get(manifest, "config"), what, "the config", &config, e);
	if (rc == 0 && config.size > LIMIT_IMAGE_CONFIG)
		rc = err_set(e, ERR_TOO_LARGE, "%s: the config has %lld bytes; at most %u are allowed", what,
		    (long long)config.size, LIMIT_IMAGE_CONFIG);
	struct image_descriptor *out = xcalloc(n ? n : 1, sizeof(*out));
	for (size_t i = 0; rc == 0 && i < n; i++) {
		char part[32];
		snprintf(part, sizeof(part), "layer %zu of %zu", i + 1, n);
		rc = read_descriptor(json_array_get(layers, i), what, part, &out[i], e);
	}
	if (rc < 0) {
		free(out);
		return rc;
	}
	*ret_config = config;
	*ret_layers = out;
	*ret_n = n;
	return 0;
}
