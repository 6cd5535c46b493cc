/* shoal config and shoal secret: small files that the cluster stores. Both have the same commands; each is
 * made for both by macros, and looks at its own path to tell which it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/each.h"
#include "cli/out.h"
#include "cli/pretty.h"

static bool is_secret(const struct cli *c)
{
	return strstr(c->path, " secret ") != NULL;
}

static const char *base(const struct cli *c)
{
	return is_secret(c) ? "/secrets" : "/configs";
}

/* --- create -------------------------------------------------------------------------------------- */

static int read_input(const char *path, size_t max, struct buf *b, struct err *e)
{
	bool is_stdin = str_eq(path, "-");
	CLEANUP_CLOSE int fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "cannot open %s", path);
	for (;;) {
		char part[16384];
		ssize_t n = read(fd, part, sizeof(part));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "cannot read %s", is_stdin ? "the standard input" : path);
		if (n == 0)
			return 0;
		buf_append(b, part, (size_t)n);
		mem_wipe(part, (size_t)n);
		if (b->len >= max)
			return err_set(e, ERR_TOO_LARGE, "%s is too large: it must have less than %zu bytes",
			    is_stdin ? "the input" : path, max);
	}
}

static int run_create(struct cli *c, struct err *e)
{
	struct buf data = BUF_INIT;
	const struct strlist *labels = cli_list(c, "label");
	int r = read_input(c->argv[1], is_secret(c) ? LIMIT_SECRET : LIMIT_CONFIG, &data, e);
	if (r == 0) {
		char *coded = str_base64(data.data ? data.data : "", data.len);
		json_t *map = json_object(), *reply;
		for (size_t i = 0; i < labels->n; i++) {
			const char *eq = strchr(labels->v[i], '=');
			CLEANUP_FREE char *key =
			    eq ? xstrndup(labels->v[i], (size_t)(eq - labels->v[i])) : xstrdup(labels->v[i]);
			json_object_set_new(map, key, json_string(eq ? eq + 1 : ""));
		}
		json_t *body = json_pack("{s:s, s:o, s:s}", "Name", c->argv[0], "Labels", map, "Data", coded);
		mem_wipe(coded, strlen(coded));
		free(coded);
		if ((r = api_post(c, body, &reply, e, "%s/create", base(c))) == 0) {
			puts(jstr(reply, "ID"));
			json_decref(reply);
		}
		json_decref(body);
	}
	if (data.data)
		mem_wipe(data.data, data.len);
	buf_done(&data);
	return r;
}

/* --- ls ------------------------------------------------------------------------------------------ */

static int by_name(const void *pa, const void *pb)
{
	return str_natural_cmp(
	    jstr(*(json_t *const *)pa, "Spec.Name"), jstr(*(json_t *const *)pb, "Spec.Name"));
}

static const struct out_column config_columns[] = {{"ID", "ID", false}, {"Name", "NAME", false},
    {"CreatedAt", "CREATED", false}, {"UpdatedAt", "UPDATED", false}, {"Labels", "LABELS", true},
    {"Label", "", true}, {0}};
static const struct out_column secret_columns[] = {{"ID", "ID", false}, {"Name", "NAME", false},
    {"Driver", "DRIVER", false}, {"CreatedAt", "CREATED", false}, {"UpdatedAt", "UPDATED", false},
    {"Labels", "LABELS", true}, {"Label", "", true}, {0}};

static int run_ls(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *list;
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r < 0 || (r = api_get(c, &list, e, "%s?%s", base(c), filters + (*filters == '&'))) < 0)
		return r;
	size_t n = json_array_size(list);
	CLEANUP_FREE json_t **v = xcalloc(n + 1, sizeof(*v));
	for (size_t i = 0; i < n; i++)
		v[i] = json_array_get(list, i);
	qsort(v, n, sizeof(*v), by_name);
	json_t *rows = json_array();
	for (size_t i = 0; i < n; i++) {
		char created[40], updated[40];
		out_ago(jstr(v[i], "CreatedAt"), created);
		out_ago(jstr(v[i], "UpdatedAt"), updated);
		CLEANUP_FREE char *labels = out_labels(jpath(v[i], "Spec.Labels"));
		json_array_append_new(
		    rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O?}", "ID", jstr(v[i], "ID"), "Name",
			      jstr(v[i], "Spec.Name"), "Driver", jstr(v[i], "Spec.Driver.Name"), "CreatedAt",
			      created, "UpdatedAt", updated, "Labels", labels, "Label",
			      jpath(v[i], "Spec.Labels")));
	}
	r = out_rows(c, is_secret(c) ? secret_columns : config_columns, rows, "ID", e);
	json_decref(rows);
	json_decref(list);
	return r;
}

/* --- inspect, rm --------------------------------------------------------------------------------- */

static int run_inspect(struct cli *c, struct err *e)
{
	const char *path = is_secret(c) ? "/secrets/" : "/configs/";
	if (!cli_bool(c, "pretty"))
		return each_inspect(c, path, "", e);
	json_t *found = json_array(), *o;
	size_t i;
	int status = each_get(c, path, "", found);
	json_array_foreach(found, i, o) pretty_object(o, is_secret(c) ? NULL : jstr(o, "Spec.Data"));
	json_decref(found);
	return status;
}

static int run_rm(struct cli *c, struct err *e)
{
	(void)e;
	return each_delete(c, is_secret(c) ? "/secrets/" : "/configs/", "");
}

/* --- the commands -------------------------------------------------------------------------------- */

static const struct cli_flag create_flags[] = {{"label", 'l', CLI_LIST, "KEY=VALUE", "A label", NULL}, {0}};
static const struct cli_flag ls_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, {0}};
static const struct cli_flag inspect_flags[] = {
    OUT_FORMAT_FLAG, {"pretty", 0, CLI_BOOL, NULL, "Print what matters, for reading", NULL}, {0}};

#define COMMANDS(kind_, kinds_, NAME)                                                                        \
	static const struct cli_cmd kind_##_create_cmd = {                                                   \
	    .name = "create",                                                                                \
	    .args = NAME " FILE|-",                                                                          \
	    .brief = "Store a " #kind_ " from a file or the standard input",                                 \
	    .examples = "shoal " #kind_ " create site ./site.conf\n"                                         \
			"printf hello | shoal " #kind_ " create -l stage=test greeting -",                   \
	    .flags = create_flags,                                                                           \
	    .min_args = 2,                                                                                   \
	    .max_args = 2,                                                                                   \
	    .run = run_create,                                                                               \
	};                                                                                                   \
	static const struct cli_cmd kind_##_ls_cmd = {                                                       \
	    .name = "ls",                                                                                    \
	    .alias = "list",                                                                                 \
	    .brief = "List " kinds_,                                                                         \
	    .about = "Filters: id, name, label. Template fields: .ID .Name .Driver .CreatedAt .UpdatedAt "   \
		     ".Labels",                                                                              \
	    .examples = "shoal " #kind_ " ls\n"                                                              \
			"shoal " #kind_ " ls -q --filter name=site",                                         \
	    .flags = ls_flags,                                                                               \
	    .run = run_ls,                                                                                   \
	};                                                                                                   \
	static const struct cli_cmd kind_##_inspect_cmd = {                                                  \
	    .name = "inspect",                                                                               \
	    .args = NAME " [" NAME "...]",                                                                   \
	    .brief = "Show " kinds_ " as JSON, or for reading",                                              \
	    .examples = "shoal " #kind_ " inspect --pretty site",                                            \
	    .flags = inspect_flags,                                                                          \
	    .min_args = 1,                                                                                   \
	    .max_args = -1,                                                                                  \
	    .kind = #kind_,                                                                                  \
	    .run = run_inspect,                                                                              \
	};                                                                                                   \
	static const struct cli_cmd kind_##_rm_cmd = {                                                       \
	    .name = "rm",                                                                                    \
	    .alias = "remove",                                                                               \
	    .args = NAME " [" NAME "...]",                                                                   \
	    .brief = "Remove " kinds_ " that no service uses",                                               \
	    .examples = "shoal " #kind_ " rm site",                                                          \
	    .min_args = 1,                                                                                   \
	    .max_args = -1,                                                                                  \
	    .kind = #kind_,                                                                                  \
	    .run = run_rm,                                                                                   \
	};                                                                                                   \
	static const struct cli_cmd *const kind_##_subs[] = {                                                \
	    &kind_##_create_cmd, &kind_##_ls_cmd, &kind_##_inspect_cmd, &kind_##_rm_cmd, NULL}

COMMANDS(config, "configs", "CONFIG");
COMMANDS(secret, "secrets", "SECRET");

const struct cli_cmd cmd_config = {
    .name = "config",
    .brief = "Configs: files that the cluster stores",
    .examples = "shoal config create site ./site.conf\nshoal config inspect --pretty site",
    .subs = config_subs,
};

const struct cli_cmd cmd_secret = {
    .name = "secret",
    .brief = "Secrets: files that the cluster stores and never shows again",
    .examples = "printf hunter2 | shoal secret create db-password -\nshoal secret ls",
    .subs = secret_subs,
};
