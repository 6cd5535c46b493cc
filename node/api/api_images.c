/* Images of this node: list, inspect, history, tag, remove, prune. What moves images is in
 * api_image_transfer.c. */
#include <fnmatch.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/api/image_transfer.h"
#include "node/api/local.h"

/* --- listing ------------------------------------------------------------------------------------------ */

struct listing {
	struct api_local *local;
	const struct api_filters *f;
	const struct image **v; /* those that match */
	size_t n, cap;
	int64_t before, since; /* unix seconds of the images that were named; -1: none */
	int64_t until;         /* unix ns; 0: none */
	int dangling;          /* -1: both */
};

static const json_t *labels_of(const struct image *i)
{
	return json_object_get(json_object_get(i->config, "config"), "Labels");
}

static bool label_fits(const struct image *i, const char *want)
{
	const char *eq = strchr(want, '=');
	CLEANUP_FREE char *key = eq ? xstrndup(want, (size_t)(eq - want)) : xstrdup(want);
	const char *v = json_string_value(json_object_get(labels_of(i), key));
	return v && (!eq || strcmp(v, eq + 1) == 0);
}

static bool labels_fit(const struct image *i, const struct strlist *want)
{
	for (size_t k = 0; want && k < want->n; k++)
		if (!label_fits(i, want->v[k]))
			return false;
	return true;
}

/* "redis", "redis:7*", "me/" patterns against a familiar reference, with or without its tag. */
static bool reference_fits(const struct strlist *patterns, const char *ref)
{
	if (!patterns)
		return true;
	const char *slash = strrchr(ref, '/');
	size_t end = strcspn(slash ? slash : ref, ":@") + (slash ? (size_t)(slash - ref) : 0);
	CLEANUP_FREE char *name = xstrndup(ref, end);
	for (size_t k = 0; k < patterns->n; k++)
		if (fnmatch(patterns->v[k], ref, FNM_PATHNAME) == 0 ||
		    fnmatch(patterns->v[k], name, FNM_PATHNAME) == 0)
			return true;
	return false;
}

static bool any_reference_fits(const struct image *i, const struct strlist *patterns)
{
	for (size_t k = 0; k < i->repo_tags.n; k++)
		if (reference_fits(patterns, i->repo_tags.v[k]))
			return true;
	for (size_t k = 0; k < i->repo_digests.n; k++)
		if (reference_fits(patterns, i->repo_digests.v[k]))
			return true;
	return !patterns;
}

static bool is_dangling(const struct image *i)
{
	return i->repo_tags.n == 0 && i->repo_digests.n == 0;
}

static void collect(void *data, const struct image *i)
{
	struct listing *l = data;
	if ((l->dangling >= 0 && is_dangling(i) != (l->dangling == 1)) ||
	    !labels_fit(i, api_filters_get(l->f, "label")) ||
	    !any_reference_fits(i, api_filters_get(l->f, "reference")) ||
	    (l->before >= 0 && i->created >= l->before) || (l->since >= 0 && i->created <= l->since) ||
	    (l->until && i->created * NS_PER_SEC >= l->until))
		return;
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 32;
		l->v = xreallocarray(l->v, l->cap, sizeof(*l->v));
	}
	l->v[l->n++] = i;
}

static int by_age(const void *a, const void *b)
{
	const struct image *x = *(const struct image *const *)a, *y = *(const struct image *const *)b;
	if (x->created != y->created)
		return x->created > y->created ? -1 : 1;
	return strcmp(x->id, y->id);
}

static json_t *matching(const struct strlist *names, const struct strlist *patterns)
{
	json_t *out = json_array();
	for (size_t k = 0; k < names->n; k++)
		if (reference_fits(patterns, names->v[k]))
			json_array_append_new(out, json_string(names->v[k]));
	return out;
}

static json_t *summary(const struct image *i, const struct strlist *patterns, unsigned minor)
{
	json_t *tags = matching(&i->repo_tags, patterns), *digests = matching(&i->repo_digests, patterns);
	if (minor < 43 && json_array_size(tags) == 0 && json_array_size(digests) == 0) {
		/* How clients of that time know an image without a name. */
		json_array_append_new(tags, json_string("<none>:<none>"));
		json_array_append_new(digests, json_string("<none>@<none>"));
	}
	const json_t *labels = labels_of(i);
	json_t *o = json_pack("{s:i,s:I,s:s,s:O,s:s,s:o,s:o,s:i,s:I}", "Containers", -1, "Created",
	    (json_int_t)i->created, "Id", i->id, "Labels", labels ? labels : json_null(), "ParentId", "",
	    "RepoDigests", digests, "RepoTags", tags, "SharedSize", -1, "Size", (json_int_t)i->size);
	ASSERT(o);
	if (minor < 44)
		json_object_set_new(o, "VirtualSize", json_integer(i->size));
	return o;
}

json_t *image_summary_json(const struct image *i, unsigned minor)
{
	return summary(i, NULL, minor);
}

/* The creation time of the image that a filter names. */
static int created_of(
    struct api_local *l, const struct api_filters *f, const char *key, int64_t *ret, struct err *e)
{
	const struct strlist *v = api_filters_get(f, key);
	*ret = -1;
	if (!v || v->n == 0)
		return 0;
	struct image *i;
	int rc = images_find(l->images, v->v[0], &i, e);
	if (rc < 0)
		return rc;
	*ret = i->created;
	image_unref(i);
	return 0;
}

/* "until" as unix time, RFC 3339 or a duration before now. */
static int until_of(struct api_local *l, const struct api_filters *f, int64_t *ret, struct err *e)
{
	const struct strlist *v = api_filters_get(f, "until");
	int64_t n;
	*ret = 0;
	if (!v || v->n == 0)
		return 0;
	if (v->n > 1)
		return err_set(e, ERR_INVALID, "more than one until filter specified");
	if (str_parse_i64(v->v[0], &n, NULL) == 0 && n >= 0 && n < INT64_MAX / NS_PER_SEC)
		*ret = n * NS_PER_SEC;
	else if (str_parse_duration(v->v[0], &n, NULL) == 0)
		*ret = clock_unix_ns(api_deps(l->api)->clock) - n;
	else if (str_parse_time(v->v[0], ret, NULL) != 0)
		return err_set(e, ERR_INVALID,
		    "invalid filter 'until=%s': a unix time, RFC 3339 or a duration is wanted", v->v[0]);
	return 0;
}

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {
	    "before", "dangling", "label", "reference", "since", "until", NULL};
	struct api_local *local = data;
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	struct listing l = {.local = local, .f = &f, .dangling = -1};
	int rc = api_filters_parse(r, allowed, &f, &e);
	if (rc == 0) {
		l.dangling = api_filters_bool(&f, "dangling", &e);
		rc = l.dangling < -1 ? l.dangling : 0;
	}
	if (rc == 0)
		rc = created_of(local, &f, "before", &l.before, &e);
	if (rc == 0)
		rc = created_of(local, &f, "since", &l.since, &e);
	if (rc == 0)
		rc = until_of(local, &f, &l.until, &e);
	if (rc != 0) {
		api_reply_err(r, &e);
		return;
	}
	images_each(local->images, collect, &l);
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), by_age);
	json_t *out = json_array();
	for (size_t k = 0; k < l.n; k++)
		json_array_append_new(out, summary(l.v[k], api_filters_get(&f, "reference"), api_minor(r)));
	free(l.v);
	http_reply_json(r, 200, out);
}

/* --- one image ---------------------------------------------------------------------------------------- */

/* The image of the path, with a reference; NULL after an error was sent. */
static struct image *find_or_reply(struct api_local *l, struct http_req *r)
{
	struct err e = ERR_INIT;
	struct image *i;
	if (images_find(l->images, api_param(r, "ref"), &i, &e) == 0)
		return i;
	api_reply_err(r, &e);
	return NULL;
}

static json_t *strings(const struct strlist *l)
{
	json_t *out = json_array();
	for (size_t k = 0; k < l->n; k++)
		json_array_append_new(out, json_string(l->v[k]));
	return out;
}

static const char *text_of(const json_t *o, const char *key)
{
	return str_or(json_string_value(json_object_get(o, key)), "");
}

/* A container config as the API has it: every key is there, those of the image win. */
static json_t *full_config(const json_t *config)
{
	json_t *o = json_pack("{s:s,s:s,s:s,s:b,s:b,s:b,s:b,s:b,s:b,s:n,s:n,s:s,s:n,s:s,s:n,s:n,s:n}",
	    "Hostname", "", "Domainname", "", "User", "", "AttachStdin", 0, "AttachStdout", 0, "AttachStderr",
	    0, "Tty", 0, "OpenStdin", 0, "StdinOnce", 0, "Env", "Cmd", "Image", "", "Volumes", "WorkingDir",
	    "", "Entrypoint", "OnBuild", "Labels");
	ASSERT(o);
	if (config)
		json_object_update(o, (json_t *)config);
	return o;
}

static json_t *graph_of(const struct image *i)
{
	size_t n = i->layers.n;
	json_t *graph = json_pack("{s:s}", "UpperDir", n ? i->layers.v[n - 1] : "");
	CLEANUP_BUF struct buf lower = BUF_INIT;
	for (size_t k = n ? n - 1 : 0; k-- > 0;)
		buf_printf(&lower, "%s%s", i->layers.v[k], k ? ":" : "");
	if (lower.len)
		json_object_set_new(graph, "LowerDir", json_string(lower.data));
	return graph;
}

static json_t *image_json(const struct image *i, unsigned minor)
{
	const json_t *c = i->config;
	json_t *diffs = json_object_get(json_object_get(c, "rootfs"), "diff_ids");
	json_t *o =
	    json_pack("{s:s,s:o,s:o,s:s,s:s,s:s,s:s,s:s,s:o,s:s,s:s,s:I,s:{s:s,s:o},s:{s:s,s:O},s:{s:s}}",
		"Id", i->id, "RepoTags", strings(&i->repo_tags), "RepoDigests", strings(&i->repo_digests),
		"Parent", "", "Comment", text_of(c, "comment"), "Created", text_of(c, "created"),
		"DockerVersion", text_of(c, "docker_version"), "Author", text_of(c, "author"), "Config",
		full_config(json_object_get(c, "config")), "Architecture", text_of(c, "architecture"), "Os",
		text_of(c, "os"), "Size", (json_int_t)i->size, "GraphDriver", "Name", "overlay2", "Data",
		graph_of(i), "RootFS", "Type", "layers", "Layers", diffs, "Metadata", "LastTagTime",
		"0001-01-01T00:00:00Z");
	ASSERT(o);
	static const char *const optional[][2] = {{"variant", "Variant"}, {"os.version", "OsVersion"}};
	for (size_t k = 0; k < ARRAY_LEN(optional); k++)
		if (*text_of(c, optional[k][0]))
			json_object_set_new(o, optional[k][1], json_string(text_of(c, optional[k][0])));
	if (minor < 44)
		json_object_set_new(o, "VirtualSize", json_integer(i->size));
	if (minor < 45) {
		json_object_set_new(o, "Container", json_string(text_of(c, "container")));
		json_object_set_new(
		    o, "ContainerConfig", full_config(json_object_get(c, "container_config")));
	}
	return o;
}

static void inspect(void *data, struct http_req *r)
{
	struct image *i = find_or_reply(data, r);
	if (!i)
		return;
	http_reply_json(r, 200, image_json(i, api_minor(r)));
	image_unref(i);
}

/* --- history */

static json_t *history_line(const json_t *h, const char *id, const struct image *tags_of, int64_t size)
{
	int64_t ns = 0;
	if (str_parse_time(text_of(h, "created"), &ns, NULL) != 0)
		ns = 0;
	json_t *line = json_pack("{s:s,s:s,s:I,s:s,s:I,s:o}", "Comment", text_of(h, "comment"), "CreatedBy",
	    text_of(h, "created_by"), "Created", (json_int_t)(ns / NS_PER_SEC), "Id", id, "Size",
	    (json_int_t)size, "Tags",
	    tags_of && tags_of->repo_tags.n ? strings(&tags_of->repo_tags) : json_null());
	ASSERT(line);
	return line;
}

static void history(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct image *i = find_or_reply(l, r);
	if (!i)
		return;
	struct err e = ERR_INIT;
	CLEANUP_BUF struct buf text = BUF_INIT;
	json_t *config = NULL, *out = json_array();
	int rc = images_read_config(l->images, i->id, &text, &e);
	if (rc == 0)
		rc = json_parse(text.data ? text.data : "", text.len, &config, &e);
	const json_t *h = json_object_get(config, "history");
	size_t layer = 0, n = json_array_size(h);
	for (size_t k = 0; k < n; k++) {
		const json_t *one = json_array_get(h, k);
		int64_t size = 0;
		if (!json_is_true(json_object_get(one, "empty_layer")) && layer < i->chain_ids.n)
			size = images_layer_size(l->images, i->chain_ids.v[layer++]);
		bool top = k + 1 == n;
		json_array_insert_new(
		    out, 0, history_line(one, top ? i->id : "<missing>", top ? i : NULL, size));
	}
	json_decref(config);
	image_unref(i);
	if (rc == 0) {
		http_reply_json(r, 200, out);
	} else {
		json_decref(out);
		api_reply_err(r, &e);
	}
}

/* --- changing ----------------------------------------------------------------------------------------- */

static void tag(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const char *repo = str_or(http_query(r, "repo"), ""), *t = str_or(http_query(r, "tag"), "");
	CLEANUP_FREE char *target = xasprintf("%s%s%s", repo, *t ? ":" : "", t);
	if (images_tag(l->images, api_param(r, "ref"), target, &e) == 0)
		http_reply_empty(r, 201);
	else
		api_reply_err(r, &e);
}

static void remove_image(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	json_t *gone;
	if (images_remove(l->images, api_param(r, "ref"), api_bool_loose(r, "force"), &gone, &e) == 0)
		http_reply_json(r, 200, gone);
	else
		api_reply_err(r, &e);
}

struct pruning {
	const struct api_filters *f;
	int64_t until;
};

static bool may_prune(void *data, const struct image *i)
{
	const struct pruning *p = data;
	const struct strlist *without = api_filters_get(p->f, "label!");
	for (size_t k = 0; without && k < without->n; k++)
		if (label_fits(i, without->v[k]))
			return false;
	return labels_fit(i, api_filters_get(p->f, "label")) &&
	       (!p->until || i->created * NS_PER_SEC < p->until);
}

static void prune(void *data, struct http_req *r)
{
	static const char *const allowed[] = {"dangling", "label", "label!", "until", NULL};
	struct api_local *l = data;
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	struct pruning p = {.f = &f};
	json_t *gone;
	int64_t bytes;
	int dangling = 1;
	int rc = api_filters_parse(r, allowed, &f, &e);
	if (rc == 0) {
		dangling = api_filters_bool(&f, "dangling", &e);
		rc = dangling < -1 ? dangling : until_of(l, &f, &p.until, &e);
	}
	if (rc == 0)
		rc = images_prune(l->images, dangling != 0, may_prune, &p, &gone, &bytes, &e);
	if (rc != 0) {
		api_reply_err(r, &e);
		return;
	}
	if (json_array_size(gone) == 0) {
		json_decref(gone);
		gone = json_null();
	}
	http_reply_json(
	    r, 200, json_pack("{s:o,s:I}", "ImagesDeleted", gone, "SpaceReclaimed", (json_int_t)bytes));
}

void api_images_register(struct api_local *l)
{
	api_route(l->api, "GET", "/images/json", list, l);
	api_route(l->api, "GET", "/images/{ref...}/json", inspect, l);
	api_route(l->api, "GET", "/images/{ref...}/history", history, l);
	api_route(l->api, "POST", "/images/{ref...}/tag", tag, l);
	api_route(l->api, "POST", "/images/prune", prune, l);
	api_route(l->api, "DELETE", "/images/{ref...}", remove_image, l);
	api_image_transfer_register(l);
}
