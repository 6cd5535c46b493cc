/* The containers of this node: ps, and what takes their names only. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/out.h"
#include "cli/ports.h"

#define COMMAND_WIDTH 20

/* --- ps ------------------------------------------------------------------------------------------ */

static char *names_of(const json_t *o)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	size_t i;
	json_t *n;
	json_array_foreach(json_object_get(o, "Names"), i, n)
	{
		const char *s = str_or(json_string_value(n), "");
		buf_printf(&b, "%s%s", b.len ? "," : "", s + (*s == '/'));
	}
	return buf_take(&b, NULL);
}

static json_t *make_row(const json_t *o, bool full)
{
	char age[32], when[40], size[32] = "0B";
	CLEANUP_FREE char *id = out_id(jstr(o, "Id"), full);
	CLEANUP_FREE char *names = names_of(o), *labels = out_labels(json_object_get(o, "Labels"));
	CLEANUP_FREE char *ports = ports_of_container(json_object_get(o, "Ports"));
	CLEANUP_FREE char *quoted = NULL, *cut = full ? xstrdup(jstr(o, "Command"))
						      : out_cut(jstr(o, "Command"), COMMAND_WIDTH);
	CLEANUP_FREE char *image = NULL;
	const char *at = strchr(jstr(o, "Image"), '@');
	quoted = xasprintf("\"%s\"", cut);
	image = !full && at && memchr(jstr(o, "Image"), ':', (size_t)(at - jstr(o, "Image")))
		    ? xstrndup(jstr(o, "Image"), (size_t)(at - jstr(o, "Image")))
		    : xstrdup(jstr(o, "Image"));
	out_duration(out_now() - jint(o, "Created") * 1000000000, age);
	str_format_time(jint(o, "Created") * 1000000000, when);
	out_size_decimal((double)jint(o, "SizeRw"), 3, size);
	json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:O?}", "ID", id, "Image",
	    image, "Command", quoted, "CreatedAt", when, "Status", jstr(o, "Status"), "State",
	    jstr(o, "State"), "Ports", ports, "Names", names, "Labels", labels, "Size", size, "Label",
	    json_object_get(o, "Labels"));
	json_object_set_new(row, "RunningFor", json_sprintf("%s ago", age));
	return row;
}

static const struct out_column columns[] = {{"ID", "CONTAINER ID", false}, {"Image", "IMAGE", false},
    {"Command", "COMMAND", false}, {"RunningFor", "CREATED", false}, {"CreatedAt", "CREATED AT", true},
    {"Status", "STATUS", false}, {"State", "STATE", true}, {"Ports", "PORTS", false},
    {"Names", "NAMES", false}, {"Labels", "LABELS", true}, {"Size", "SIZE", true}, {"Label", "", true}, {0}};
static const struct out_column columns_size[] = {{"ID", "CONTAINER ID", false}, {"Image", "IMAGE", false},
    {"Command", "COMMAND", false}, {"RunningFor", "CREATED", false}, {"CreatedAt", "CREATED AT", true},
    {"Status", "STATUS", false}, {"State", "STATE", true}, {"Ports", "PORTS", false},
    {"Names", "NAMES", false}, {"Labels", "LABELS", true}, {"Size", "SIZE", false}, {"Label", "", true}, {0}};

static int run_ps(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *list, *o;
	int64_t limit = cli_bool(c, "latest") ? 1 : cli_int(c, "last", 0);
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r < 0)
		return r;
	CLEANUP_FREE char *more = limit > 0 ? xasprintf("&limit=%lld", (long long)limit) : xstrdup("");
	if ((r = api_get(c, &list, e, "/containers/json?all=%d&size=%d%s%s", cli_bool(c, "all") || limit > 0,
		 cli_bool(c, "size"), more, filters)) < 0)
		return r;
	json_t *rows = json_array();
	size_t i;
	json_array_foreach(list, i, o) json_array_append_new(rows, make_row(o, cli_bool(c, "no-trunc")));
	r = out_rows(c, cli_bool(c, "size") ? columns_size : columns, rows, "ID", e);
	json_decref(rows);
	json_decref(list);
	return r;
}

static const struct cli_flag ps_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, OUT_TRUNC_FLAG,
    {"all", 'a', CLI_BOOL, NULL, "Show those that have ended as well", NULL},
    {"last", 'n', CLI_INT, NULL, "Show the N newest", NULL},
    {"latest", 'l', CLI_BOOL, NULL, "Show the newest", NULL},
    {"size", 's', CLI_BOOL, NULL, "Show what they take on disk", NULL}, {0}};

#define PS                                                                                                   \
	.brief = "List this node's containers",                                                              \
	.about =                                                                                             \
	    "Filters: id, name, label, status, ancestor, exited, health, is-task, network, before, since.\n" \
	    "Template fields: .ID .Image .Command .RunningFor .CreatedAt .Status .State .Ports .Names "      \
	    ".Labels .Size,\n"                                                                               \
	    "and .Label \"key\".",                                                                           \
	.examples = "shoal ps\n"                                                                             \
		    "shoal ps -a --filter label=com.docker.swarm.service.name=web\n"                         \
		    "shoal ps --format '{{.Names}}\\t{{.Status}}'",                                          \
	.flags = ps_flags, .run = run_ps
const struct cli_cmd cmd_ps = {.name = "ps", PS};
static const struct cli_cmd ls_cmd = {.name = "ls", .alias = "ps,list", PS};

/* --- kill, stop, start, restart, rm, wait -------------------------------------------------------- */

/* Does `path` (a format with the id) to every container and prints its name. */
static int each(struct cli *c, bool delete, const char *action, const char *query)
{
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		CLEANUP_FREE char *id = api_escape(c->argv[i]);
		int r = delete ? api_delete(c, NULL, &one, "/containers/%s%s", id, query)
			       : api_post(c, NULL, NULL, &one, "/containers/%s/%s%s", id, action, query);
		if (r < 0) {
			status = cli_error(&one);
			continue;
		}
		puts(c->argv[i]);
		fflush(stdout);
	}
	return status;
}

#define MANY .args = "CONTAINER [CONTAINER...]", .min_args = 1, .max_args = -1, .kind = "container"

static int run_kill(struct cli *c, struct err *e)
{
	(void)e;
	CLEANUP_FREE char *signal = api_escape(str_or(cli_str(c, "signal"), "KILL"));
	CLEANUP_FREE char *query = xasprintf("?signal=%s", signal);
	return each(c, false, "kill", query);
}

static const struct cli_flag kill_flags[] = {{"signal", 's', CLI_STR, "SIGNAL", "Default KILL", NULL}, {0}};

const struct cli_cmd cmd_kill = {
    .name = "kill",
    .brief = "Send a signal to containers; a service replaces those of its tasks that end",
    .examples = "shoal kill 3f1c2b7a90de\n"
		"shoal kill -s HUP web.1",
    .flags = kill_flags,
    .run = run_kill,
    MANY,
};

static char *stop_query(const struct cli *c)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (cli_given(c, "time"))
		buf_printf(&b, "?t=%lld", (long long)cli_int(c, "time", 0));
	if (cli_given(c, "signal")) {
		CLEANUP_FREE char *signal = api_escape(cli_str(c, "signal"));
		buf_printf(&b, "%csignal=%s", b.len ? '&' : '?', signal);
	}
	return buf_take(&b, NULL);
}

static int run_stop(struct cli *c, struct err *e)
{
	(void)e;
	CLEANUP_FREE char *query = stop_query(c);
	return each(c, false, "stop", query);
}

static int run_restart(struct cli *c, struct err *e)
{
	(void)e;
	CLEANUP_FREE char *query = stop_query(c);
	return each(c, false, "restart", query);
}

static const struct cli_flag stop_flags[] = {
    {"time", 't', CLI_INT, "SECONDS",
	"How long it may take before it is killed (default: the container's own)", NULL},
    {"signal", 's', CLI_STR, "SIGNAL", "The signal that asks it to end (default: the container's own)", NULL},
    {0}};

const struct cli_cmd cmd_stop = {
    .name = "stop",
    .brief = "Stop containers; a service replaces those of its tasks",
    .examples = "shoal stop web.1\n"
		"shoal stop -t 30 3f1c2b7a90de",
    .flags = stop_flags,
    .run = run_stop,
    MANY,
};

const struct cli_cmd cmd_restart = {
    .name = "restart",
    .brief = "Stop containers and start them again",
    .examples = "shoal restart -t 5 3f1c2b7a90de",
    .flags = stop_flags,
    .run = run_restart,
    MANY,
};

static int run_start(struct cli *c, struct err *e)
{
	(void)e;
	return each(c, false, "start", "");
}

const struct cli_cmd cmd_start = {
    .name = "start",
    .brief = "Start containers that have ended",
    .examples = "shoal start 3f1c2b7a90de",
    .run = run_start,
    MANY,
};

static int run_rm(struct cli *c, struct err *e)
{
	(void)e;
	CLEANUP_FREE char *query = xasprintf("?force=%d&v=%d", cli_bool(c, "force"), cli_bool(c, "volumes"));
	return each(c, true, NULL, query);
}

static const struct cli_flag rm_flags[] = {{"force", 'f', CLI_BOOL, NULL, "Kill those that run", NULL},
    {"volumes", 'v', CLI_BOOL, NULL, "Remove their volumes without a name as well", NULL}, {0}};

const struct cli_cmd cmd_rm = {
    .name = "rm",
    .alias = "remove",
    .brief = "Remove containers",
    .examples = "shoal rm 3f1c2b7a90de\n"
		"shoal rm -f $(shoal ps -aq --filter status=exited)",
    .flags = rm_flags,
    .run = run_rm,
    MANY,
};

static int run_wait(struct cli *c, struct err *e)
{
	(void)e;
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		json_t *reply;
		CLEANUP_FREE char *id = api_escape(c->argv[i]);
		if (api_post(c, NULL, &reply, &one, "/containers/%s/wait", id) < 0) {
			status = cli_error(&one);
			continue;
		}
		if (*jstr(reply, "Error.Message"))
			cli_warn("Error: %s", jstr(reply, "Error.Message"));
		printf("%lld\n", (long long)jint(reply, "StatusCode"));
		fflush(stdout);
		json_decref(reply);
	}
	return status;
}

const struct cli_cmd cmd_wait = {
    .name = "wait",
    .brief = "Wait until containers have ended, and print their exit codes",
    .examples = "shoal wait 3f1c2b7a90de",
    .run = run_wait,
    MANY,
};

/* --- top ----------------------------------------------------------------------------------------- */

static int run_top(struct cli *c, struct err *e)
{
	CLEANUP_BUF struct buf args = BUF_INIT, b = BUF_INIT;
	CLEANUP_STRLIST struct strlist cells = STRLIST_INIT;
	for (int i = 1; i < c->argc; i++)
		buf_printf(&args, "%s%s", i > 1 ? " " : "", c->argv[i]);
	CLEANUP_FREE char *id = api_escape(c->argv[0]), *ps = api_escape(args.len ? args.data : "-ef");
	json_t *reply, *row, *cell;
	int r = api_get(c, &reply, e, "/containers/%s/top?ps_args=%s", id, ps);
	if (r < 0)
		return r;
	json_t *titles = json_object_get(reply, "Titles");
	size_t n = json_array_size(titles), i, k, rows = 1;
	json_array_foreach(titles, i, cell) strlist_add(&cells, str_or(json_string_value(cell), ""));
	json_array_foreach(json_object_get(reply, "Processes"), i, row)
	{
		for (k = 0; k < n; k++)
			strlist_add(&cells, str_or(json_string_value(json_array_get(row, k)), ""));
		rows++;
	}
	if (n)
		out_table(&b, (const char *const *)cells.v, n, rows);
	fputs(b.len ? b.data : "", stdout);
	json_decref(reply);
	return 0;
}

const struct cli_cmd cmd_top = {
    .name = "top",
    .args = "CONTAINER [PS ARGUMENTS...]",
    .brief = "List a container's processes",
    .examples = "shoal top web.1\n"
		"shoal top 3f1c2b7a90de -o pid,rss,args",
    .min_args = 1,
    .max_args = -1,
    .stop_at_arg = true,
    .kind = "container",
    .run = run_top,
};

static const struct cli_cmd *const subs[] = {&ls_cmd, &cmd_logs, &cmd_exec, &cmd_stats, &cmd_kill, &cmd_stop,
    &cmd_restart, &cmd_start, &cmd_rm, &cmd_wait, &cmd_top, NULL};

const struct cli_cmd cmd_container = {
    .name = "container",
    .brief = "Containers of this node (these commands are at the top level as well)",
    .examples = "shoal container ls -a",
    .subs = subs,
};
