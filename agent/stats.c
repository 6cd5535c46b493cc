/* What a container uses, from its control groups and its network interface; and its processes, through ps.
 *
 * v1 and hybrid read cpuacct, memory, pids and blkio of the v1 trees; v2 reads the one group. A file that is
 * not there (a controller that is off) leaves its figures 0. */
#include "agent/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"

#define USER_HZ_NS   (NS_PER_SEC / 100)
#define NO_LIMIT_MIN (UINT64_C(1) << 60) /* v1 writes "none" as about 2^63 */
#define PS_MS        5000
#define PS_MAX       (4u * 1024 * 1024)
#define MAX_COLUMNS  64

/* --- figures */

static uint64_t read_number(const struct engine *g, const char *id, const char *controller, const char *file)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	uint64_t v = 0;
	if (cgroup_read(g->cgroups, id, controller, file, &b, NULL) < 0)
		return 0;
	return str_parse_u64(str_or(b.data, ""), &v, NULL) == 0 ? v : 0;
}

static uint64_t read_key(
    const struct engine *g, const char *id, const char *controller, const char *file, const char *key)
{
	uint64_t v = 0;
	return cgroup_read_key(g->cgroups, id, controller, file, key, &v, NULL) == 0 ? v : 0;
}

static uint64_t host_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

/* All time of all CPUs, as docker's clients expect it. */
static uint64_t system_cpu_ns(void)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	unsigned long long v[7] = {0};
	if (fs_read("/proc/stat", 1024u * 1024, &b, NULL) < 0 ||
	    sscanf(b.data, "cpu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
		&v[6]) < 7)
		return 0;
	uint64_t ticks = 0;
	for (size_t i = 0; i < 7; i++)
		ticks += v[i];
	return ticks * (uint64_t)USER_HZ_NS;
}

/* Sum of the third (v1: "8:0 Read 123") or keyed ("8:0 rbytes=123 wbytes=45") values. */
static void add_block(const char *text, bool v2, struct container_stats *st)
{
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	strlist_split(&lines, text, '\n');
	for (size_t i = 0; i < lines.n; i++) {
		unsigned long long n = 0;
		char op[16] = "";
		if (!v2) {
			if (sscanf(lines.v[i], "%*s %15s %llu", op, &n) != 2)
				continue;
			if (str_eq(op, "Read"))
				st->blk_read += n;
			else if (str_eq(op, "Write"))
				st->blk_write += n;
			continue;
		}
		const char *p = strstr(lines.v[i], "rbytes=");
		st->blk_read += p ? strtoull(p + 7, NULL, 10) : 0;
		p = strstr(lines.v[i], "wbytes=");
		st->blk_write += p ? strtoull(p + 7, NULL, 10) : 0;
	}
}

static void read_v1(const struct engine *g, const char *id, struct container_stats *st)
{
	st->cpu_total_ns = read_number(g, id, "cpuacct", "cpuacct.usage");
	st->cpu_user_ns = read_key(g, id, "cpuacct", "cpuacct.stat", "user") * (uint64_t)USER_HZ_NS;
	st->cpu_system_ns = read_key(g, id, "cpuacct", "cpuacct.stat", "system") * (uint64_t)USER_HZ_NS;
	st->throttled_periods = read_key(g, id, "cpu", "cpu.stat", "nr_periods");
	st->throttled_count = read_key(g, id, "cpu", "cpu.stat", "nr_throttled");
	st->throttled_ns = read_key(g, id, "cpu", "cpu.stat", "throttled_time");
	st->mem_usage = read_number(g, id, "memory", "memory.usage_in_bytes");
	st->mem_limit = read_number(g, id, "memory", "memory.limit_in_bytes");
	st->mem_cache = read_key(g, id, "memory", "memory.stat", "total_cache");
	st->mem_rss = read_key(g, id, "memory", "memory.stat", "total_rss");
	st->mem_inactive_file = read_key(g, id, "memory", "memory.stat", "total_inactive_file");
	st->pids = read_number(g, id, "pids", "pids.current");
	st->pids_limit = read_number(g, id, "pids", "pids.max");
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (cgroup_read(g->cgroups, id, "blkio", "blkio.throttle.io_service_bytes", &b, NULL) == 0)
		add_block(str_or(b.data, ""), false, st);
}

static void read_v2(const struct engine *g, const char *id, struct container_stats *st)
{
	st->cpu_total_ns = read_key(g, id, NULL, "cpu.stat", "usage_usec") * 1000;
	st->cpu_user_ns = read_key(g, id, NULL, "cpu.stat", "user_usec") * 1000;
	st->cpu_system_ns = read_key(g, id, NULL, "cpu.stat", "system_usec") * 1000;
	st->throttled_periods = read_key(g, id, NULL, "cpu.stat", "nr_periods");
	st->throttled_count = read_key(g, id, NULL, "cpu.stat", "nr_throttled");
	st->throttled_ns = read_key(g, id, NULL, "cpu.stat", "throttled_usec") * 1000;
	st->mem_usage = read_number(g, id, NULL, "memory.current");
	st->mem_limit = read_number(g, id, NULL, "memory.max");
	st->mem_cache = read_key(g, id, NULL, "memory.stat", "file");
	st->mem_rss = read_key(g, id, NULL, "memory.stat", "anon");
	st->mem_inactive_file = read_key(g, id, NULL, "memory.stat", "inactive_file");
	st->pids = read_number(g, id, NULL, "pids.current");
	st->pids_limit = read_number(g, id, NULL, "pids.max");
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (cgroup_read(g->cgroups, id, NULL, "io.stat", &b, NULL) == 0)
		add_block(str_or(b.data, ""), true, st);
}

int engine_stats(struct engine *g, const char *id, struct container_stats *ret, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	struct container_stats st = {.read_ns = clock_unix_ns(g->clock)};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	st.online_cpus = cpus > 0 ? (unsigned)cpus : 1;
	if (!ctr_is_running(c)) {
		*ret = st;
		return 0;
	}
	if (cgroups_mode(g->cgroups) == CGROUP_V2)
		read_v2(g, c->rec->id, &st);
	else
		read_v1(g, c->rec->id, &st);
	st.system_cpu_ns = system_cpu_ns();
	if (st.mem_limit == 0 || st.mem_limit > NO_LIMIT_MIN)
		st.mem_limit = host_memory();
	struct hostnet_counters n;
	if (g->o.net && c->rec->network && hostnet_counters(g->o.net, c->rec->id, &n, NULL) == 0) {
		st.rx_bytes = n.rx_bytes;
		st.rx_packets = n.rx_packets;
		st.rx_errors = n.rx_errors;
		st.rx_dropped = n.rx_dropped;
		st.tx_bytes = n.tx_bytes;
		st.tx_packets = n.tx_packets;
		st.tx_errors = n.tx_errors;
		st.tx_dropped = n.tx_dropped;
	}
	*ret = st;
	return 0;
}

/* --- processes */

struct top_job {
	struct engine *g;
	pid_t *pids;
	size_t n_pids;
	engine_top_cb cb;
	void *data;
};

static bool is_ours(const struct top_job *j, const char *field)
{
	int64_t pid;
	if (str_parse_i64(field, &pid, NULL) < 0)
		return false;
	for (size_t i = 0; i < j->n_pids; i++)
		if (j->pids[i] == pid)
			return true;
	return false;
}

/* Splits a line at runs of spaces into at most `max` fields; the last keeps its spaces. */
static size_t split(char *line, char **f, size_t max)
{
	size_t n = 0;
	char *p = line;
	while (n < max) {
		while (*p == ' ')
			p++;
		if (!*p)
			break;
		f[n++] = p;
		if (n == max)
			break;
		p += strcspn(p, " ");
		if (*p)
			*p++ = '\0';
	}
	return n;
}

static int parse_ps(const struct top_job *j, const char *text, json_t **ret, struct err *e)
{
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	char *f[MAX_COLUMNS];
	json_t *titles = json_array(), *rows = json_array();
	int pid_at = -1;
	size_t columns = 0;
	strlist_split(&lines, text, '\n');
	if (lines.n)
		columns = split(lines.v[0], f, MAX_COLUMNS);
	for (size_t i = 0; i < columns; i++) {
		if (str_eq(f[i], "PID"))
			pid_at = (int)i;
		json_array_append_new(titles, json_string(f[i]));
	}
	for (size_t l = 1; pid_at >= 0 && l < lines.n; l++) {
		size_t n = split(lines.v[l], f, columns);
		if (n <= (size_t)pid_at || !is_ours(j, f[pid_at]))
			continue;
		json_t *row = json_array();
		for (size_t i = 0; i < n; i++) {
			json_t *s = json_string(f[i]);
			json_array_append_new(row, s ? s : json_string("?")); /* not UTF-8 */
		}
		json_array_append_new(rows, row);
	}
	if (pid_at < 0) {
		json_decref(titles);
		json_decref(rows);
		return err_set(e, ERR_INVALID, "Couldn't find PID field in ps output");
	}
	*ret = json_pack("{s:o,s:o}", "Titles", titles, "Processes", rows);
	return 0;
}

static void on_ps(void *data, const struct proc_result *r)
{
	struct top_job *j = data;
	struct engine *g = j->g;
	struct err e = ERR_INIT;
	json_t *result = NULL;
	if (r->timed_out)
		err_set(&e, ERR_TIMEOUT, "ps did not end within 5 s");
	else if (r->exit_code != 0)
		err_set(&e, ERR_INVALID, "ps: %s", str_or(r->err.data, "it failed"));
	else
		parse_ps(j, str_or(r->out.data, ""), &result, &e);
	j->cb(j->data, result, &e);
	free(j->pids);
	free(j);
	engine_pending_done(g);
}

/* ps may run with any options that only choose what is shown. */
static bool safe_args(const char *s)
{
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
			strchr(" -_,.:=%+", *s)))
			return false;
	return true;
}

int engine_top(
    struct engine *g, const char *id, const char *ps_args, engine_top_cb cb, void *data, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	if (!ctr_is_running(c))
		return err_set(e, ERR_CONFLICT, "container %s is not running", c->rec->id);
	const char *args = str_or(ps_args, "-ef");
	if (!safe_args(args))
		return err_set(e, ERR_INVALID, "ps_args \"%s\" has characters that are not allowed", args);
	struct top_job *j = NEW(struct top_job);
	j->g = g;
	j->cb = cb;
	j->data = data;
	int r = cgroup_pids(g->cgroups, c->rec->id, &j->pids, &j->n_pids, e);
	if (r == 0) {
		CLEANUP_STRLIST struct strlist words = STRLIST_INIT, argv = STRLIST_INIT;
		strlist_add(&argv, "ps");
		strlist_split(&words, args, ' ');
		for (size_t i = 0; i < words.n; i++)
			if (*words.v[i])
				strlist_add(&argv, words.v[i]);
		CLEANUP_FREE char **v = strlist_argv(&argv);
		const struct proc_opts po = {
		    .argv = v, .max_output = PS_MAX, .timeout_ms = PS_MS, .on_exit = on_ps, .data = j};
		r = proc_run(g->loop, &po, NULL, e);
	}
	if (r < 0) {
		free(j->pids);
		free(j);
		return r;
	}
	g->pending++;
	return 0;
}
