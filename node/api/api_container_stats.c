/* Figures of a container's use, once or every second, and its processes.
 *
 * A share of CPU needs two samples: a single answer takes a second for that, unless "one-shot" says that the
 * caller does the subtraction. A stream ends with the container or with the client; a sample is skipped while
 * the client does not read. */
#include <string.h>
#include <sys/sysinfo.h>

#include "base/mem.h"
#include "base/timer.h"
#include "node/api/containers.h"

#define INTERVAL_MS 1000
#define OUT_HIGH    (256u * 1024)

/* --- JSON */

static json_t *big(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *cpu_json(const struct container_stats *s)
{
	static const struct container_stats zero;
	const struct container_stats *v = s ? s : &zero;
	json_t *o = json_pack("{s:{s:o, s:o, s:o}, s:{s:o, s:o, s:o}}", "cpu_usage", "total_usage",
	    big(v->cpu_total_ns), "usage_in_kernelmode", big(v->cpu_system_ns), "usage_in_usermode",
	    big(v->cpu_user_ns), "throttling_data", "periods", big(v->throttled_periods), "throttled_periods",
	    big(v->throttled_count), "throttled_time", big(v->throttled_ns));
	if (s) {
		json_object_set_new(o, "system_cpu_usage", big(s->system_cpu_ns));
		json_object_set_new(o, "online_cpus", json_integer(s->online_cpus));
	}
	return o;
}

static uint64_t host_memory(void)
{
	struct sysinfo si;
	return sysinfo(&si) == 0 ? (uint64_t)si.totalram * si.mem_unit : 0;
}

static json_t *memory_json(const struct container_stats *s, bool v2)
{
	uint64_t host = host_memory();
	json_t *st = json_object();
	if (v2) {
		json_object_set_new(st, "anon", big(s->mem_rss));
		json_object_set_new(st, "file", big(s->mem_cache));
		json_object_set_new(st, "inactive_file", big(s->mem_inactive_file));
	} else {
		json_object_set_new(st, "cache", big(s->mem_cache));
		json_object_set_new(st, "rss", big(s->mem_rss));
		json_object_set_new(st, "inactive_file", big(s->mem_inactive_file));
		json_object_set_new(st, "total_cache", big(s->mem_cache));
		json_object_set_new(st, "total_rss", big(s->mem_rss));
		json_object_set_new(st, "total_inactive_file", big(s->mem_inactive_file));
	}
	return json_pack("{s:o, s:o, s:o}", "usage", big(s->mem_usage), "stats", st, "limit",
	    big(s->mem_limit && s->mem_limit < host ? s->mem_limit : host));
}

static json_t *block_json(const struct container_stats *s)
{
	json_t *bytes = json_null();
	if (s->blk_read || s->blk_write)
		bytes = json_pack("[{s:i, s:i, s:s, s:o}, {s:i, s:i, s:s, s:o}]", "major", 0, "minor", 0,
		    "op", "read", "value", big(s->blk_read), "major", 0, "minor", 0, "op", "write", "value",
		    big(s->blk_write));
	json_t *o = json_pack("{s:o}", "io_service_bytes_recursive", bytes);
	static const char *const others[] = {"io_serviced_recursive", "io_queue_recursive",
	    "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive",
	    "sectors_recursive"};
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		json_object_set_new(o, others[i], json_null());
	return o;
}

static json_t *network_json(const struct container_stats *s)
{
	return json_pack("{s:{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}}", "eth0", "rx_bytes", big(s->rx_bytes),
	    "rx_packets", big(s->rx_packets), "rx_errors", big(s->rx_errors), "rx_dropped",
	    big(s->rx_dropped), "tx_bytes", big(s->tx_bytes), "tx_packets", big(s->tx_packets), "tx_errors",
	    big(s->tx_errors), "tx_dropped", big(s->tx_dropped));
}

static void set_time(json_t *o, const char *key, const struct container_stats *s)
{
	char t[40] = "0001-01-01T00:00:00Z";
	if (s)
		str_format_time(s->read_ns, t);
	json_object_set_new(o, key, json_string(t));
}

json_t *container_stats_json(const Pb__Container *c, const struct container_stats *now,
    const struct container_stats *before, bool cgroup_v2)
{
	CLEANUP_FREE char *name = xasprintf("/%s", c->config->name);
	json_t *o = json_object();
	set_time(o, "read", now);
	set_time(o, "preread", before);
	json_object_set_new(o, "name", json_string(name));
	json_object_set_new(o, "id", json_string(c->id));
	json_object_set_new(o, "num_procs", json_integer(0));
	json_object_set_new(o, "storage_stats", json_object());
	json_object_set_new(o, "cpu_stats", cpu_json(now));
	json_object_set_new(o, "precpu_stats", cpu_json(before));
	if (!now) {
		json_object_set_new(o, "pids_stats", json_object());
		json_object_set_new(o, "blkio_stats", json_object());
		json_object_set_new(o, "memory_stats", json_object());
		return o;
	}
	json_t *pids = json_pack("{s:o}", "current", big(now->pids));
	if (now->pids_limit)
		json_object_set_new(pids, "limit", big(now->pids_limit));
	json_object_set_new(o, "pids_stats", pids);
	json_object_set_new(o, "blkio_stats", block_json(now));
	json_object_set_new(o, "memory_stats", memory_json(now, cgroup_v2));
	if (str_eq(container_network_mode(c), "bridge"))
		json_object_set_new(o, "networks", network_json(now));
	return o;
}

/* --- stats */

struct stats {
	struct api_local *l;
	struct http_req *r;
	struct timer *timer;
	char *id;
	bool stream, has_before, full;
	struct container_stats before;
};

static void stats_free(struct stats *s)
{
	timer_free(s->timer);
	free(s->id);
	free(s);
}

static void stats_gone(void *data)
{
	stats_free(data);
}

static void stats_drained(void *data)
{
	((struct stats *)data)->full = false;
}

static bool is_v2(const struct stats *s)
{
	return str_eq(engine_cgroup_mode(s->l->engine), "v2");
}

static void send_line(struct stats *s, json_t *o)
{
	size_t waiting = api_write_line(s->r, o);
	json_decref(o);
	if (waiting > OUT_HIGH) {
		s->full = true;
		http_on_drained(s->r, stats_drained, s);
	}
}

/* The container has gone or does not run any more. */
static void stats_stop(struct stats *s, const struct err *e)
{
	const Pb__Container *c;
	if (s->stream)
		http_finish(s->r);
	else if (engine_find(s->l->engine, s->id, &c, NULL) == 0 && !container_is_running(c))
		http_reply_json(s->r, 200, container_stats_json(c, NULL, NULL, is_v2(s)));
	else
		api_reply_err(s->r, e);
	stats_free(s);
}

static void sample(void *data)
{
	struct stats *s = data;
	struct container_stats now = {0};
	struct err e = ERR_INIT;
	const Pb__Container *c;
	int rc = engine_find(s->l->engine, s->id, &c, &e);
	if (rc == 0 && !container_is_running(c))
		rc = err_set(&e, ERR_CONFLICT, "container %s is not running", s->id);
	if (rc == 0)
		rc = engine_stats(s->l->engine, s->id, &now, &e);
	if (rc != 0) {
		stats_stop(s, &e);
		return;
	}
	if (!s->stream && s->has_before) {
		http_reply_json(s->r, 200, container_stats_json(c, &now, &s->before, is_v2(s)));
		stats_free(s);
		return;
	}
	if (s->stream && !s->full)
		send_line(s, container_stats_json(c, &now, s->has_before ? &s->before : NULL, is_v2(s)));
	s->before = now;
	s->has_before = true;
	timer_start(s->timer, INTERVAL_MS);
}

static void one_shot(struct api_local *l, struct http_req *r, const Pb__Container *c)
{
	struct container_stats now = {0};
	struct err e = ERR_INIT;
	if (engine_stats(l->engine, c->id, &now, &e) != 0)
		api_reply_err(r, &e);
	else
		http_reply_json(
		    r, 200, container_stats_json(c, &now, NULL, str_eq(engine_cgroup_mode(l->engine), "v2")));
}

static void stats(void *data, struct http_req *r)
{
	struct api_local *l = data;
	const Pb__Container *c = container_or_reply(l, r);
	bool stream = api_bool_loose_or(r, "stream", true), once = api_bool_loose(r, "one-shot");
	if (!c)
		return;
	if (stream && once) {
		api_reply_errf(r, ERR_INVALID, "cannot have stream=true and one-shot=true");
		return;
	}
	if (!stream && !container_is_running(c)) {
		http_reply_json(r, 200, container_stats_json(c, NULL, NULL, false));
		return;
	}
	if (once) {
		one_shot(l, r, c);
		return;
	}
	struct stats *s = NEW(struct stats);
	s->l = l;
	s->r = r;
	s->stream = stream;
	s->id = xstrdup(c->id);
	s->timer = timer_new(l->loop, sample, s);
	http_on_closed(r, stats_gone, s);
	if (stream)
		http_start(r, 200, "application/json");
	sample(s);
}

/* --- top */

struct top {
	struct http_req *r; /* NULL once the client has gone */
};

static void top_gone(void *data)
{
	((struct top *)data)->r = NULL;
}

static void top_done(void *data, json_t *result, const struct err *e)
{
	struct top *t = data;
	if (t->r && e->code)
		api_reply_err(t->r, e);
	else if (t->r)
		http_reply_json(t->r, 200, json_incref(result));
	json_decref(result);
	free(t);
}

static void top(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	struct top *t = NEW(struct top);
	t->r = r;
	http_on_closed(r, top_gone, t);
	const char *args = str_empty(http_query(r, "ps_args")) ? NULL : http_query(r, "ps_args");
	if (engine_top(l->engine, c->id, args, top_done, t, &e) != 0) {
		api_reply_err(r, &e);
		free(t);
	}
}

void api_container_stats_register(struct api_local *l)
{
	api_route(l->api, "GET", "/containers/{id}/stats", stats, l);
	api_route(l->api, "GET", "/containers/{id}/top", top, l);
}
