/* shoal image: load, pull, list, inspect, tag, remove, prune; the common ones also as top-level commands. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/auth.h"
#include "cli/cmds.h"
#include "cli/each.h"
#include "cli/jsonstream.h"
#include "cli/out.h"

/* --- load ---------------------------------------------------------------------------------------- */

static int run_load(struct cli *c, struct err *e)
{
	const char *path = cli_str(c, "input");
	CLEANUP_CLOSE int fd = -1;
	if (!path && isatty(STDIN_FILENO))
		return cli_usage(c, "no archive: give -i FILE, or send one to the standard input");
	if (path && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return err_errno(e, errno, "cannot open %s", path);
	struct jsonstream s = {.quiet = false, .tty = c->out_tty};
	struct api_opts o = {.body_fd = fd >= 0 ? fd : STDIN_FILENO,
	    .body_type = "application/x-tar",
	    .on_data = jsonstream_feed,
	    .data = &s};
	int r = api_call(c, "POST", cli_bool(c, "quiet") ? "/images/load?quiet=1" : "/images/load?quiet=0",
	    &o, NULL, NULL, e);
	jsonstream_done(&s);
	return r;
}

static const struct cli_flag load_flags[] = {
    {"input", 'i', CLI_STR, "FILE", "The archive (default: the standard input)", "file"},
    {"quiet", 'q', CLI_BOOL, NULL, "Print only what was loaded", NULL}, {0}};

#define LOAD                                                                                                 \
	.name = "load",                                                                                      \
	.brief = "Load images from an archive (docker save, or an OCI layout; plain or compressed)",         \
	.examples = "shoal image load -i whoami.tar\n"                                                       \
		    "docker save web:2 | shoal image load",                                                  \
	.flags = load_flags, .run = run_load
const struct cli_cmd cmd_load = {LOAD};

/* --- pull ---------------------------------------------------------------------------------------- */

/* Splits into name and tag or digest ("latest" when there is neither). */
static void split_image(const char *image, char **ret_name, char **ret_tag)
{
	const char *at = strchr(image, '@'), *slash = strrchr(image, '/');
	const char *colon = strchr(slash ? slash : image, ':');
	const char *cut = at ? at : colon;
	*ret_name = cut ? xstrndup(image, (size_t)(cut - image)) : xstrdup(image);
	*ret_tag = xstrdup(cut ? cut + 1 : "latest");
}

static int run_pull(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *name = NULL, *tag = NULL, *auth = NULL;
	int r = auth_header(c->argv[0], &auth, e);
	if (r < 0)
		return r;
	split_image(c->argv[0], &name, &tag);
	if (!strpbrk(c->argv[0] + strlen(name), ":@") && !cli_bool(c, "quiet"))
		puts("Using default tag: latest");
	CLEANUP_FREE char *coded_name = api_escape(name), *coded_tag = api_escape(tag);
	CLEANUP_FREE char *path = xasprintf("/images/create?fromImage=%s&tag=%s", coded_name, coded_tag);
	struct jsonstream s = {.quiet = cli_bool(c, "quiet"), .tty = c->out_tty};
	struct api_opts o = {.auth = auth, .on_data = jsonstream_feed, .data = &s};
	r = api_call(c, "POST", path, &o, NULL, NULL, e);
	jsonstream_done(&s);
	if (r == 0)
		puts(c->argv[0]);
	return r;
}

static const struct cli_flag pull_flags[] = {{"quiet", 'q', CLI_BOOL, NULL, "Print no progress", NULL}, {0}};

#define PULL                                                                                                 \
	.name = "pull", .args = "IMAGE", .brief = "Fetch an image from a registry to this node",             \
	.about = "Credentials are those of docker's config.json ($DOCKER_CONFIG or ~/.docker).",             \
	.examples = "shoal image pull registry.example.com/team/web:2\n"                                     \
		    "shoal image pull -q redis",                                                             \
	.flags = pull_flags, .min_args = 1, .max_args = 1, .run = run_pull
const struct cli_cmd cmd_pull = {PULL};

/* --- ls ------------------------------------------------------------------------------------------ */

static void add_image(json_t *rows, const json_t *image, const char *ref, const char *digest, bool full)
{
	char size[32], age[40];
	CLEANUP_FREE char *name = NULL, *tag = NULL;
	CLEANUP_FREE char *id = out_id(jstr(image, "Id"), full);
	if (ref && !str_eq(ref, "<none>:<none>")) {
		split_image(ref, &name, &tag);
	} else {
		const char *at = digest ? strchr(digest, '@') : NULL;
		name = at ? xstrndup(digest, (size_t)(at - digest)) : xstrdup("<none>");
		tag = xstrdup("<none>");
	}
	const char *at = digest ? strchr(digest, '@') : NULL;
	out_size_decimal((double)jint(image, "Size"), 3, size);
	out_duration(out_now() - jint(image, "Created") * 1000000000, age);
	json_array_append_new(
	    rows, json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:I}", "Repository", name, "Tag", tag, "ID",
		      id, "Digest", at ? at + 1 : "<none>", "CreatedSince", json_sprintf("%s ago", age),
		      "Size", size, "CreatedAt", "", "Created", (json_int_t)jint(image, "Created")));
	char when[40];
	str_format_time(jint(image, "Created") * 1000000000, when);
	json_object_set_new(json_array_get(rows, json_array_size(rows) - 1), "CreatedAt", json_string(when));
}

static const char *digest_of(const json_t *image, const char *name)
{
	size_t i, n = strlen(name);
	json_t *d;
	json_array_foreach(json_object_get(image, "RepoDigests"), i, d)
	{
		const char *s = json_string_value(d);
		if (s && strncmp(s, name, n) == 0 && s[n] == '@')
			return s;
	}
	return NULL;
}

static int newest_first(const void *pa, const void *pb)
{
	const json_t *a = *(json_t *const *)pa, *b = *(json_t *const *)pb;
	int64_t x = jint(a, "Created"), y = jint(b, "Created");
	if (x != y)
		return x > y ? -1 : 1;
	int d = strcmp(jstr(a, "Repository"), jstr(b, "Repository"));
	return d ? d : str_natural_cmp(jstr(a, "Tag"), jstr(b, "Tag"));
}

static const struct out_column columns[] = {{"Repository", "REPOSITORY", false}, {"Tag", "TAG", false},
    {"Digest", "DIGEST", true}, {"ID", "IMAGE ID", false}, {"CreatedSince", "CREATED", false},
    {"CreatedAt", "CREATED AT", true}, {"Size", "SIZE", false}, {0}};
static const struct out_column columns_digests[] = {{"Repository", "REPOSITORY", false},
    {"Tag", "TAG", false}, {"Digest", "DIGEST", false}, {"ID", "IMAGE ID", false},
    {"CreatedSince", "CREATED", false}, {"CreatedAt", "CREATED AT", true}, {"Size", "SIZE", false}, {0}};

static int run_images(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *list, *fixed = c->argc ? json_pack("{s:[s]}", "reference", c->argv[0]) : NULL;
	int r = api_filters(cli_list(c, "filter"), fixed, &filters, e);
	json_decref(fixed);
	if (r < 0 || (r = api_get(c, &list, e, "/images/json?all=%d%s", cli_bool(c, "all"), filters)) < 0)
		return r;
	json_t *rows = json_array(), *image, *ref;
	bool full = cli_bool(c, "no-trunc");
	size_t i, k;
	json_array_foreach(list, i, image)
	{
		json_t *tags = json_object_get(image, "RepoTags"),
		       *digests = json_object_get(image, "RepoDigests");
		if (!json_array_size(tags))
			add_image(rows, image, NULL, json_string_value(json_array_get(digests, 0)), full);
		json_array_foreach(tags, k, ref)
		{
			CLEANUP_FREE char *name = NULL, *tag = NULL;
			split_image(str_or(json_string_value(ref), ""), &name, &tag);
			add_image(rows, image, json_string_value(ref), digest_of(image, name), full);
		}
	}
	size_t n = json_array_size(rows);
	CLEANUP_FREE json_t **v = xcalloc(n + 1, sizeof(*v));
	for (i = 0; i < n; i++)
		v[i] = json_array_get(rows, i);
	qsort(v, n, sizeof(*v), newest_first);
	json_t *sorted = json_array();
	for (i = 0; i < n; i++) {
		json_object_del(v[i], "Created");
		json_array_append(sorted, v[i]);
	}
	r = out_rows(c, cli_bool(c, "digests") ? columns_digests : columns, sorted, "ID", e);
	json_decref(sorted);
	json_decref(rows);
	json_decref(list);
	return r;
}

static const struct cli_flag images_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, OUT_TRUNC_FLAG,
    {"all", 'a', CLI_BOOL, NULL, "Show images without a name of their own as well", NULL},
    {"digests", 0, CLI_BOOL, NULL, "Show digests", NULL}, {0}};

#define IMAGES                                                                                               \
	.args = "[NAME[:TAG]]", .brief = "List this node's images",                                          \
	.about = "Filters: reference, label, dangling, before, since.\n"                                     \
		 "Template fields: .Repository .Tag .Digest .ID .CreatedSince .CreatedAt .Size",             \
	.examples = "shoal image ls\n"                                                                       \
		    "shoal image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' whoami",                   \
	.flags = images_flags, .max_args = 1, .kind = "image", .run = run_images
const struct cli_cmd cmd_images = {.name = "images", IMAGES};
static const struct cli_cmd ls_cmd = {.name = "ls", .alias = "list", IMAGES};

/* --- rm, tag, prune ------------------------------------------------------------------------------ */

static void print_removed(const json_t *list)
{
	size_t i;
	json_t *o;
	json_array_foreach(list, i, o)
	{
		if (*jstr(o, "Untagged"))
			printf("Untagged: %s\n", jstr(o, "Untagged"));
		else
			printf("Deleted: %s\n", jstr(o, "Deleted"));
	}
}

static int run_rmi(struct cli *c, struct err *e)
{
	(void)e;
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		json_t *reply = NULL;
		CLEANUP_FREE char *id = api_escape(c->argv[i]);
		if (api_delete(c, &reply, &one, "/images/%s?force=%d", id, cli_bool(c, "force")) < 0)
			status = cli_error(&one);
		else
			print_removed(reply);
		json_decref(reply);
	}
	return status;
}

static const struct cli_flag rmi_flags[] = {
    {"force", 'f', CLI_BOOL, NULL, "Remove it even if it has several names", NULL}, {0}};

#define RMI                                                                                                  \
	.args = "IMAGE [IMAGE...]", .brief = "Remove images from this node",                                 \
	.examples = "shoal image rm whoami:1\n"                                                              \
		    "shoal image rm -f 3f1c2b7a90de",                                                        \
	.flags = rmi_flags, .min_args = 1, .max_args = -1, .kind = "image", .run = run_rmi
const struct cli_cmd cmd_rmi = {.name = "rmi", RMI};
static const struct cli_cmd rm_cmd = {.name = "rm", .alias = "remove", RMI};

static int run_tag(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *name = NULL, *tag = NULL;
	split_image(c->argv[1], &name, &tag);
	CLEANUP_FREE char *id = api_escape(c->argv[0]), *coded_name = api_escape(name),
			  *coded_tag = api_escape(tag);
	return api_post(c, NULL, NULL, e, "/images/%s/tag?repo=%s&tag=%s", id, coded_name, coded_tag);
}

#define TAG                                                                                                  \
	.name = "tag", .args = "IMAGE NAME[:TAG]", .brief = "Give an image another name",                    \
	.examples = "shoal image tag web:2 web:latest", .min_args = 2, .max_args = 2, .kind = "image",       \
	.run = run_tag
const struct cli_cmd cmd_tag = {TAG};

static int run_prune(struct cli *c, struct err *e)
{
	json_t *reply, *fixed = cli_bool(c, "all") ? json_pack("{s:[s]}", "dangling", "false") : NULL;
	CLEANUP_FREE char *filters = NULL;
	char size[32];
	if (!cli_bool(c, "force") &&
	    !cli_confirm(cli_bool(c, "all") ? "This removes all images of this node that no container uses."
					    : "This removes all images of this node without a name.")) {
		json_decref(fixed);
		return 1;
	}
	int r = api_filters(cli_list(c, "filter"), fixed, &filters, e);
	json_decref(fixed);
	if (r < 0 || (r = api_post(c, NULL, &reply, e, "/images/prune?%s", filters + (*filters == '&'))) < 0)
		return r;
	print_removed(json_object_get(reply, "ImagesDeleted"));
	out_size_decimal((double)jint(reply, "SpaceReclaimed"), 4, size);
	printf("Total reclaimed space: %s\n", size);
	json_decref(reply);
	return 0;
}

static const struct cli_flag prune_flags[] = {
    {"filter", 0, CLI_LIST, "KEY=VALUE", "Remove only what fits", NULL},
    {"all", 'a', CLI_BOOL, NULL, "Remove all that no container uses, not only those without a name", NULL},
    {"force", 'f', CLI_BOOL, NULL, "Do not ask first", NULL}, {0}};

static const struct cli_cmd prune_cmd = {
    .name = "prune",
    .brief = "Remove images of this node that nothing uses",
    .examples = "shoal image prune\n"
		"shoal image prune -a --filter label=stage=test",
    .flags = prune_flags,
    .run = run_prune,
};

/* --- inspect ------------------------------------------------------------------------------------- */

static int run_inspect(struct cli *c, struct err *e)
{
	return each_inspect(c, "/images/", "/json", e);
}

static const struct cli_flag inspect_flags[] = {OUT_FORMAT_FLAG, {0}};

static const struct cli_cmd inspect_cmd = {
    .name = "inspect",
    .args = "IMAGE [IMAGE...]",
    .brief = "Show images as JSON",
    .examples = "shoal image inspect whoami\n"
		"shoal image inspect -f '{{.Config.Entrypoint}}' whoami",
    .flags = inspect_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "image",
    .run = run_inspect,
};

static const struct cli_cmd load_cmd = {LOAD}, pull_cmd = {PULL}, tag_cmd = {TAG};
static const struct cli_cmd *const subs[] = {
    &load_cmd, &pull_cmd, &ls_cmd, &inspect_cmd, &tag_cmd, &rm_cmd, &prune_cmd, NULL};

const struct cli_cmd cmd_image = {
    .name = "image",
    .brief = "Images of this node",
    .examples = "shoal image load -i whoami.tar\nshoal image ls",
    .subs = subs,
};
