/* shoal service logs: lines of all tasks of a service, each with the task and node that it is from. The
 * daemon sends that as details in front of each line; names for the ids are asked for once each, on a
 * connection of their own as the log's is busy. */
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/frames.h"
#include "cli/logs.h"
#include "cli/service.h"

struct lines {
	struct cli *c;
	struct cli names;   /* a connection of its own */
	struct strmap seen; /* task id to its prefix */
	int slot_width;
	bool raw, timestamps, details;
};

/* Takes a value out of "k=v,k=v" (url-escaped); heap or NULL. */
static char *detail(const char *all, size_t n, const char *key)
{
	const char *end = all + n;
	size_t key_len = strlen(key);
	for (const char *p = all; p < end;) {
		const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma ? comma : end;
		if ((size_t)(stop - p) > key_len && strncmp(p, key, key_len) == 0 && p[key_len] == '=') {
			char *value;
			p += key_len + 1;
			return str_url_decode(p, (size_t)(stop - p), true, &value, NULL) == 0 ? value : NULL;
		}
		p = stop + 1;
	}
	return NULL;
}

/* "web.1.81i1onvxwvci@node1    | ". What cannot be looked up any more is called by its id. */
static char *make_prefix(struct lines *l, const char *task_id, const char *service_id, const char *node_id)
{
	json_t *task = NULL, *service = NULL, *node = NULL;
	bool resolve = !cli_bool(l->c, "no-resolve"), full = cli_bool(l->c, "no-trunc");
	CLEANUP_FREE char *t = api_escape(task_id), *s = api_escape(service_id), *n = api_escape(node_id);
	api_get(&l->names, &task, NULL, "/tasks/%s", t);
	if (resolve) {
		api_get(&l->names, &service, NULL, "/services/%s", s);
		api_get(&l->names, &node, NULL, "/nodes/%s", n);
	}
	char slot[24];
	if (task && !jint(task, "Slot"))
		snprintf(slot, sizeof(slot), "%.12s", jstr(task, "NodeID"));
	else
		snprintf(slot, sizeof(slot), "%lld", (long long)jint(task, "Slot"));
	CLEANUP_FREE char *id = cli_bool(l->c, "no-task-ids") ? xstrdup("")
				: full                        ? xasprintf(".%s", task_id)
							      : xasprintf(".%.12s", task_id);
	int pad = l->slot_width - (int)strlen(slot);
	char *text = xasprintf("%s.%s%s@%s%*s    | ", str_or(jstr(service, "Spec.Name"), service_id), slot,
	    id, str_or(jstr(node, "Description.Hostname"), node_id), pad > 0 ? pad : 0, "");
	json_decref(task);
	json_decref(service);
	json_decref(node);
	return text;
}

static const char *prefix_of(struct lines *l, const char *details, size_t n)
{
	CLEANUP_FREE char *task = detail(details, n, "com.docker.swarm.task.id");
	CLEANUP_FREE char *service = detail(details, n, "com.docker.swarm.service.id");
	CLEANUP_FREE char *node = detail(details, n, "com.docker.swarm.node.id");
	if (!task || !service || !node)
		return NULL;
	char *prefix = strmap_get(&l->seen, task);
	if (!prefix) {
		prefix = make_prefix(l, task, service, node);
		strmap_put(&l->seen, task, prefix);
	}
	return prefix;
}

/* One line of the log: "[timestamp ]details message\n". */
static int on_line(void *data, enum frame_stream stream, const char *p, size_t n, struct err *e)
{
	struct lines *l = data;
	FILE *out = stream == FRAME_STDERR ? stderr : stdout;
	const char *end = p + n, *stamp = p;
	size_t stamp_len = 0;
	if (l->timestamps) {
		const char *space = memchr(p, ' ', n);
		stamp_len = space ? (size_t)(space - p) + 1 : 0;
		p += stamp_len;
	}
	const char *space = memchr(p, ' ', (size_t)(end - p));
	const char *prefix = space ? prefix_of(l, p, (size_t)(space - p)) : NULL;
	if (!prefix)
		return err_set(e, ERR_IO, "a line of the log does not say which task it is from");
	fwrite(stamp, 1, stamp_len, out);
	fputs(prefix, out);
	if (!l->details)
		p = space + 1;
	fwrite(p, 1, (size_t)(end - p), out);
	if (p == end || end[-1] != '\n')
		fputc('\n', out);
	fflush(out);
	return 0;
}

/* The service or task that the argument names: its path in the API, and whether it has a terminal. */
static int find(struct cli *c, char **ret_path, bool *ret_tty, int *ret_width, struct err *e)
{
	json_t *o;
	CLEANUP_FREE char *id = api_escape(c->argv[0]);
	int r = api_get(c, &o, e, "/services/%s", id);
	bool task = r == ERR_NOT_FOUND;
	if (task)
		r = api_get(c, &o, e, "/tasks/%s", id);
	if (r == ERR_NOT_FOUND)
		return err_set(e, ERR_NOT_FOUND, "no such task or service: %s", c->argv[0]);
	if (r < 0)
		return r;
	char digits[24];
	snprintf(digits, sizeof(digits), "%lld",
	    (long long)(task ? jint(o, "Slot") : jint(o, "Spec.Mode.Replicated.Replicas")));
	*ret_width = (int)strlen(digits);
	*ret_tty = jbool(o, task ? "Spec.ContainerSpec.TTY" : "Spec.TaskTemplate.ContainerSpec.TTY");
	*ret_path = xasprintf("/%s/%s/logs", task ? "tasks" : "services", id);
	json_decref(o);
	return 0;
}

static int run_logs(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *path = NULL, *query = NULL;
	bool tty = false;
	struct lines l = {.c = c,
	    .raw = cli_bool(c, "raw"),
	    .timestamps = cli_bool(c, "timestamps"),
	    .details = cli_bool(c, "details")};
	int r = logs_query(c, !l.raw || l.details, &query, e);
	if (r < 0 || (r = find(c, &path, &tty, &l.slot_width, e)) < 0)
		return r;
	if (tty && !l.raw)
		return err_set(e, ERR_INVALID,
		    "the service has a terminal, so that its output has no lines to mark: use --raw");
	l.names = (struct cli){.host = xstrdup(c->host),
	    .tls = c->tls,
	    .tls_verify = c->tls_verify,
	    .tls_ca = c->tls_ca,
	    .tls_cert = c->tls_cert,
	    .tls_key = c->tls_key};
	struct frames f = {.raw = tty, .frame = l.raw ? NULL : on_line, .data = &l};
	CLEANUP_FREE char *whole = xasprintf("%s?%s", path, query);
	r = api_call(c, "GET", whole, &(struct api_opts){.on_data = frames_feed, .data = &f}, NULL, NULL, e);
	frames_done(&f);
	api_close(&l.names);
	free(l.names.host);
	strmap_done_free(&l.seen, free);
	return r;
}

static const struct cli_flag flags[] = {LOGS_FLAGS,
    {"raw", 0, CLI_BOOL, NULL, "Print lines as they are, without the task in front", NULL},
    {"no-resolve", 0, CLI_BOOL, NULL, "Print ids instead of names", NULL},
    {"no-trunc", 0, CLI_BOOL, NULL, "Print task ids in full", NULL},
    {"no-task-ids", 0, CLI_BOOL, NULL, "Print no task ids", NULL}, {0}};

const struct cli_cmd service_logs_cmd = {
    .name = "logs",
    .args = "SERVICE|TASK",
    .brief = "Show what the tasks of a service wrote, wherever they run",
    .examples = "shoal service logs web\n"
		"shoal service logs -f --tail 10 web\n"
		"shoal service logs --raw --since 1h web",
    .flags = flags,
    .min_args = 1,
    .max_args = 1,
    .kind = "service",
    .run = run_logs,
};
