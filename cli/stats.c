/* shoal stats: what containers use. Samples are taken a second apart, all containers in a row on one
 * connection; a share of CPU is the difference of two. On a terminal the table is redrawn in place. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/out.h"

static double real_at(const json_t *j, const char *path)
{
	return json_number_value(jpath(j, path));
}

/* Percent of one CPU between two samples; 0 before there are two. */
static double cpu_percent(const json_t *now, const json_t *before)
{
	double used = real_at(now, "cpu_stats.cpu_usage.total_usage") -
		      real_at(before, "cpu_stats.cpu_usage.total_usage");
	double all =
	    real_at(now, "cpu_stats.system_cpu_usage") - real_at(before, "cpu_stats.system_cpu_usage");
	double cpus = real_at(now, "cpu_stats.online_cpus");
	if (!before || used <= 0 || all <= 0)
		return 0;
	return used / all * (cpus > 0 ? cpus : 1) * 100;
}

/* Without the page cache that can go at any time, as docker counts. */
static double memory_used(const json_t *s)
{
	double usage = real_at(s, "memory_stats.usage");
	double cache = real_at(s, "memory_stats.stats.total_inactive_file"); /* cgroup v1 */
	if (cache <= 0)
		cache = real_at(s, "memory_stats.stats.inactive_file"); /* v2 */
	return cache < usage ? usage - cache : usage;
}

static void network_io(const json_t *s, double *ret_rx, double *ret_tx)
{
	const char *name;
	json_t *n;
	json_object_foreach(json_object_get(s, "networks"), name, n)
	{
		*ret_rx += real_at(n, "rx_bytes");
		*ret_tx += real_at(n, "tx_bytes");
	}
}

static void block_io(const json_t *s, double *ret_read, double *ret_write)
{
	size_t i;
	json_t *n;
	json_array_foreach(jpath(s, "blkio_stats.io_service_bytes_recursive"), i, n)
	{
		const char *op = jstr(n, "op");
		if (str_ieq(op, "read"))
			*ret_read += real_at(n, "value");
		else if (str_ieq(op, "write"))
			*ret_write += real_at(n, "value");
	}
}

static json_t *pair(double a, double b, bool binary)
{
	char x[32], y[32];
	if (binary) {
		out_size_binary(a, x);
		out_size_binary(b, y);
	} else {
		out_size_decimal(a, 3, x);
		out_size_decimal(b, 3, y);
	}
	return json_sprintf("%s / %s", x, y);
}

static json_t *make_row(const json_t *now, const json_t *before, const char *id, bool full)
{
	double rx = 0, tx = 0, rd = 0, wr = 0, used = memory_used(now),
	       limit = real_at(now, "memory_stats.limit");
	const char *name = jstr(now, "name");
	CLEANUP_FREE char *shown = out_id(id, full);
	network_io(now, &rx, &tx);
	block_io(now, &rd, &wr);
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "ID", shown, "Container", id,
	    "Name", name + (*name == '/'), "CPUPerc", json_sprintf("%.2f%%", cpu_percent(now, before)),
	    "MemUsage", pair(used, limit, true), "MemPerc",
	    json_sprintf("%.2f%%", limit > 0 ? used / limit * 100 : 0), "NetIO", pair(rx, tx, false),
	    "BlockIO", pair(rd, wr, false), "PIDs",
	    json_sprintf("%lld", (long long)jint(now, "pids_stats.current")));
}

static const struct out_column columns[] = {{"ID", "CONTAINER ID", false}, {"Container", "CONTAINER", true},
    {"Name", "NAME", false}, {"CPUPerc", "CPU %", false}, {"MemUsage", "MEM USAGE / LIMIT", false},
    {"MemPerc", "MEM %", false}, {"NetIO", "NET I/O", false}, {"BlockIO", "BLOCK I/O", false},
    {"PIDs", "PIDS", false}, {0}};

/* The ids to look at: those given, else all that run. Heap strings. */
static int list_ids(struct cli *c, struct strlist *ids, struct err *e)
{
	json_t *list, *o;
	size_t i;
	for (int k = 0; k < c->argc; k++)
		strlist_add(ids, c->argv[k]);
	if (c->argc)
		return 0;
	int r = api_get(c, &list, e, "/containers/json?all=%d", cli_bool(c, "all"));
	if (r < 0)
		return r;
	json_array_foreach(list, i, o) strlist_add(ids, jstr(o, "Id"));
	json_decref(list);
	return 0;
}

/* A sample of each container; those that are gone meanwhile are left out, unless they were asked for by name
 * at the beginning. */
static int sample(struct cli *c, bool first, struct strmap *ret, struct strlist *order, struct err *e)
{
	CLEANUP_STRLIST struct strlist ids = STRLIST_INIT;
	int r = list_ids(c, &ids, e);
	for (size_t i = 0; i < ids.n && r == 0; i++) {
		json_t *s;
		CLEANUP_FREE char *id = api_escape(ids.v[i]);
		r = api_get(c, &s, e, "/containers/%s/stats?stream=0&one-shot=1", id);
		if (r == 0) {
			json_decref(strmap_put(ret, ids.v[i], s));
			strlist_add(order, ids.v[i]);
		} else if (r == ERR_NOT_FOUND && !(first && c->argc)) {
			r = 0;
		}
	}
	return r;
}

static void drop_value(void *p)
{
	json_decref(p);
}

static int print_table(struct cli *c, const struct strmap *now, const struct strmap *before,
    const struct strlist *order, struct err *e)
{
	json_t *rows = json_array();
	for (size_t i = 0; i < order->n; i++) {
		const json_t *s = strmap_get(now, order->v[i]);
		json_array_append_new(rows, make_row(s, strmap_get(before, order->v[i]),
						str_or(jstr(s, "id"), order->v[i]), cli_bool(c, "no-trunc")));
	}
	int r = out_rows(c, columns, rows, NULL, e);
	json_decref(rows);
	fflush(stdout);
	return r;
}

static int run_stats(struct cli *c, struct err *e)
{
	struct strmap before = STRMAP_INIT;
	bool once = cli_bool(c, "no-stream"), redraw = c->out_tty && !once && !cli_given(c, "format");
	int r = 0;
	for (unsigned round = 0; r == 0; round++) {
		struct strmap now = STRMAP_INIT;
		CLEANUP_STRLIST struct strlist order = STRLIST_INIT;
		r = sample(c, round == 0, &now, &order, e);
		if (r == 0 && (round > 0 || !once || !order.n)) {
			if (redraw)
				fputs("\033[H\033[2J", stdout);
			if (round > 0 || redraw || !order.n)
				r = print_table(c, &now, &before, &order, e);
		}
		strmap_done_free(&before, drop_value);
		before = now;
		if (once && (round == 1 || !order.n))
			break;
		if (r == 0)
			nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
	}
	strmap_done_free(&before, drop_value);
	return r;
}

static const struct cli_flag flags[] = {
    {"format", 0, CLI_STR, "TEMPLATE", "Print by a Go template, \"table TEMPLATE\", or \"json\"", NULL},
    {"all", 'a', CLI_BOOL, NULL, "Those that have ended as well", NULL},
    {"no-stream", 0, CLI_BOOL, NULL, "Print once and end", NULL}, OUT_TRUNC_FLAG, {0}};

const struct cli_cmd cmd_stats = {
    .name = "stats",
    .args = "[CONTAINER...]",
    .brief = "Show what containers of this node use, second by second",
    .about = "Template fields: .ID .Container .Name .CPUPerc .MemUsage .MemPerc .NetIO .BlockIO .PIDs",
    .examples = "shoal stats\n"
		"shoal stats --no-stream web.1\n"
		"shoal stats --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}'",
    .flags = flags,
    .max_args = -1,
    .kind = "container",
    .run = run_stats,
};
