/* Tasks as a table: sorted by name, the newest of a slot first and those before it as its history. Names of
 * services and nodes are asked for once each. */
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/out.h"
#include "cli/ports.h"
#include "cli/tasks.h"

#define ERROR_WIDTH 30

struct row {
	json_t *task; /* borrowed */
	char *name;
};

static int by_name(const void *pa, const void *pb)
{
	const struct row *a = pa, *b = pb;
	int d = str_natural_cmp(a->name, b->name);
	return d ? d : strcmp(jstr(b->task, "CreatedAt"), jstr(a->task, "CreatedAt"));
}

/* The name of a service or node by id, or the id; cached in `names`. */
static const char *name_of(
    struct cli *c, struct strmap *names, const char *kind, const char *id, bool resolve)
{
	if (!resolve || !*id)
		return id;
	char *name = strmap_get(names, id);
	if (name)
		return name;
	json_t *o = NULL;
	CLEANUP_FREE char *coded = api_escape(id);
	/* One that is gone meanwhile is called by its id. */
	if (api_get(c, &o, NULL, "/%s/%s", kind, coded) == 0)
		name = xstrdup(str_or(jstr(o, "Spec.Name"), str_or(jstr(o, "Description.Hostname"), id)));
	else
		name = xstrdup(id);
	json_decref(o);
	strmap_put(names, id, name);
	return name;
}

static char *task_name(struct cli *c, struct strmap *names, const json_t *t, bool resolve)
{
	const char *service = name_of(c, names, "services", jstr(t, "ServiceID"), resolve);
	if (jint(t, "Slot"))
		return xasprintf("%s.%lld", service, (long long)jint(t, "Slot"));
	return xasprintf("%s.%s", service, jstr(t, "NodeID"));
}

static char *image_name(const char *image, bool full)
{
	const char *at = strchr(image, '@');
	/* A digest behind a tag is noise in a table. */
	if (full || !at || !memchr(image, ':', (size_t)(at - image)))
		return xstrdup(image);
	return xstrndup(image, (size_t)(at - image));
}

static json_t *make_row(
    struct cli *c, struct strmap *names, const struct row *r, bool repeated, bool full, bool resolve)
{
	char state[48], desired[48], age[40], current[100];
	const json_t *t = r->task;
	out_capital(jstr(t, "Status.State"), state, sizeof(state));
	out_capital(jstr(t, "DesiredState"), desired, sizeof(desired));
	out_ago(jstr(t, "Status.Timestamp"), age);
	if (*age)
		age[0] = (char)(age[0] == 'L' || age[0] == 'A' ? age[0] | 32 : age[0]);
	snprintf(current, sizeof(current), "%s %s", state, age);
	CLEANUP_FREE char *id = out_id(jstr(t, "ID"), full);
	CLEANUP_FREE char *name = xasprintf("%s%s", repeated ? " \\_ " : "", r->name);
	CLEANUP_FREE char *image = image_name(jstr(t, "Spec.ContainerSpec.Image"), full);
	CLEANUP_FREE char *ports = ports_list(jpath(t, "Status.PortStatus.Ports"), "host");
	CLEANUP_FREE char *quoted =
	    *jstr(t, "Status.Err") ? xasprintf("\"%s\"", jstr(t, "Status.Err")) : xstrdup("");
	CLEANUP_FREE char *error = full ? xstrdup(quoted) : out_cut(quoted, ERROR_WIDTH);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "ID", id, "Name", name, "Image", image,
	    "Node", name_of(c, names, "nodes", jstr(t, "NodeID"), resolve), "DesiredState", desired,
	    "CurrentState", current, "Error", error, "Ports", ports);
}

static const struct out_column columns[] = {{"ID", "ID", false}, {"Name", "NAME", false},
    {"Image", "IMAGE", false}, {"Node", "NODE", false}, {"DesiredState", "DESIRED STATE", false},
    {"CurrentState", "CURRENT STATE", false}, {"Error", "ERROR", false}, {"Ports", "PORTS", false}, {0}};

int tasks_print(struct cli *c, json_t *fixed, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *tasks;
	int r = api_filters(cli_list(c, "filter"), fixed, &filters, e);
	if (r < 0 || (r = api_get(c, &tasks, e, "/tasks?%s", filters + (*filters == '&'))) < 0)
		return r;
	bool full = cli_bool(c, "no-trunc"), resolve = !cli_bool(c, "no-resolve"),
	     quiet = cli_bool(c, "quiet");
	struct strmap names = STRMAP_INIT;
	size_t n = json_array_size(tasks);
	struct row *rows = xcalloc(n + 1, sizeof(*rows));
	for (size_t i = 0; i < n; i++) {
		rows[i].task = json_array_get(tasks, i);
		rows[i].name = task_name(c, &names, rows[i].task, resolve && !quiet);
	}
	qsort(rows, n, sizeof(*rows), by_name);
	json_t *out = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(
		    out, make_row(c, &names, &rows[i], i && str_eq(rows[i].name, rows[i - 1].name),
			     full || quiet, resolve && !quiet));
	r = out_rows(c, columns, out, "ID", e);
	for (size_t i = 0; i < n; i++)
		free(rows[i].name);
	free(rows);
	strmap_done_free(&names, free);
	json_decref(out);
	json_decref(tasks);
	return r;
}
