/* shoal service: what takes names only: ls, ps, rm, scale, rollback. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/converge.h"
#include "cli/each.h"
#include "cli/out.h"
#include "cli/ports.h"
#include "cli/service.h"
#include "cli/spec.h"
#include "cli/tasks.h"

void service_warnings(const void *reply)
{
	size_t i;
	json_t *w;
	json_array_foreach(json_object_get(reply, "Warnings"), i, w) cli_warn("%s", json_string_value(w));
}

int service_wait(struct cli *c, const char *service, struct err *e)
{
	return cli_bool(c, "detach") ? 0 : converge_wait(c, service, cli_bool(c, "quiet"), e);
}

/* --- ls ------------------------------------------------------------------------------------------ */

static char *replicas_cell(const json_t *s)
{
	long long running = jint(s, "ServiceStatus.RunningTasks"),
		  want = jint(s, "ServiceStatus.DesiredTasks"),
		  done = jint(s, "ServiceStatus.CompletedTasks");
	if (jpath(s, "Spec.Mode.ReplicatedJob"))
		return xasprintf("%lld/%lld (%lld/%lld completed)", running, want, done,
		    (long long)jint(s, "Spec.Mode.ReplicatedJob.TotalCompletions"));
	if (jpath(s, "Spec.Mode.GlobalJob"))
		return xasprintf("%lld/%lld (%lld/%lld completed)", running, want, done, done + want);
	long long most = jint(s, "Spec.TaskTemplate.Placement.MaxReplicas");
	if (jpath(s, "Spec.Mode.Replicated") && most > 0)
		return xasprintf("%lld/%lld (max %lld per node)", running, want, most);
	return xasprintf("%lld/%lld", running, want);
}

static const char *mode_word(const json_t *s)
{
	return jpath(s, "Spec.Mode.Global")          ? "global"
	       : jpath(s, "Spec.Mode.GlobalJob")     ? "global job"
	       : jpath(s, "Spec.Mode.ReplicatedJob") ? "replicated job"
						     : "replicated";
}

static int by_name(const void *pa, const void *pb)
{
	return str_natural_cmp(
	    jstr(*(json_t *const *)pa, "Spec.Name"), jstr(*(json_t *const *)pb, "Spec.Name"));
}

static const struct out_column ls_columns[] = {{"ID", "ID", false}, {"Name", "NAME", false},
    {"Mode", "MODE", false}, {"Replicas", "REPLICAS", false}, {"Image", "IMAGE", false},
    {"Ports", "PORTS", false}, {"Label", "", true}, {0}};

static int run_ls(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *list;
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r < 0 || (r = api_get(c, &list, e, "/services?status=true%s", filters)) < 0)
		return r;
	size_t n = json_array_size(list);
	CLEANUP_FREE json_t **v = xcalloc(n + 1, sizeof(*v));
	for (size_t i = 0; i < n; i++)
		v[i] = json_array_get(list, i);
	qsort(v, n, sizeof(*v), by_name);
	json_t *rows = json_array();
	for (size_t i = 0; i < n; i++) {
		const char *image = jstr(v[i], "Spec.TaskTemplate.ContainerSpec.Image"),
			   *at = strchr(image, '@');
		CLEANUP_FREE char *id = out_id(jstr(v[i], "ID"), cli_bool(c, "quiet"));
		CLEANUP_FREE char *replicas = replicas_cell(v[i]);
		CLEANUP_FREE char *ports = ports_list(jpath(v[i], "Endpoint.Ports"), "ingress");
		CLEANUP_FREE char *tag = at && memchr(image, ':', (size_t)(at - image))
					     ? xstrndup(image, (size_t)(at - image))
					     : xstrdup(image);
		json_array_append_new(
		    rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O?}", "ID", id, "Name",
			      jstr(v[i], "Spec.Name"), "Mode", mode_word(v[i]), "Replicas", replicas, "Image",
			      tag, "Ports", ports, "Label", jpath(v[i], "Spec.Labels")));
	}
	r = out_rows(c, ls_columns, rows, "ID", e);
	json_decref(rows);
	json_decref(list);
	return r;
}

static const struct cli_flag ls_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, {0}};

const struct cli_cmd service_ls_cmd = {
    .name = "ls",
    .alias = "list",
    .brief = "List services",
    .about = "Filters: id, name, label, mode (replicated, global, replicated-job, global-job).\n"
	     "Template fields: .ID .Name .Mode .Replicas .Image .Ports, and .Label \"key\".",
    .examples = "shoal service ls\n"
		"shoal service ls --filter label=tier=front -q\n"
		"shoal service ls --format 'table {{.Name}}\\t{{.Replicas}}'",
    .flags = ls_flags,
    .run = run_ls,
};

/* --- ps ------------------------------------------------------------------------------------------ */

static int run_ps(struct cli *c, struct err *e)
{
	json_t *ids = json_array();
	int missing = 0, r = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		json_t *s;
		CLEANUP_FREE char *id = api_escape(c->argv[i]);
		r = api_get(c, &s, &one, "/services/%s", id);
		if (r < 0 && r != ERR_NOT_FOUND) {
			json_decref(ids);
			return err_copy(e, &one);
		}
		if (r < 0) {
			cli_warn("no such service: %s", c->argv[i]);
			missing = 1;
			continue;
		}
		json_array_append(ids, json_object_get(s, "ID"));
		json_decref(s);
	}
	r = 0;
	json_t *fixed = json_pack("{s:o}", "service", ids);
	if (json_array_size(ids))
		r = tasks_print(c, fixed, e);
	json_decref(fixed);
	return r ? r : missing;
}

static const struct cli_flag ps_flags[] = {TASKS_FLAGS, {0}};

const struct cli_cmd service_ps_cmd = {
    .name = "ps",
    .args = "SERVICE [SERVICE...]",
    .brief = "List a service's tasks: where they run, and how those before them ended",
    .about = "Filters: id, name, node, desired-state (running, shutdown, accepted).\n"
	     "Template fields: .ID .Name .Image .Node .DesiredState .CurrentState .Error .Ports",
    .examples = "shoal service ps web\n"
		"shoal service ps --no-trunc web                     # errors in full\n"
		"shoal service ps -f desired-state=running web",
    .flags = ps_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "service",
    .run = run_ps,
};

/* --- rm ------------------------------------------------------------------------------------------ */

static int run_rm(struct cli *c, struct err *e)
{
	(void)e;
	return each_delete(c, "/services/", "");
}

const struct cli_cmd service_rm_cmd = {
    .name = "rm",
    .alias = "remove",
    .args = "SERVICE [SERVICE...]",
    .brief = "Remove services; their containers are stopped",
    .examples = "shoal service rm web\n"
		"shoal service rm $(shoal service ls -q --filter label=test)",
    .min_args = 1,
    .max_args = -1,
    .kind = "service",
    .run = run_rm,
};

/* --- scale --------------------------------------------------------------------------------------- */

/* Reads a service, changes its spec, writes it; again when the cluster itself wrote it meanwhile (addresses,
 * the state of an update). */
static int modify(struct cli *c, const char *id, const char *query,
    int (*change)(const char *id, json_t *spec, uint64_t n, struct err *e), uint64_t n, struct err *e)
{
	CLEANUP_FREE char *coded = api_escape(id);
	int r = ERR_STALE;
	for (int i = 0; i < 5 && r == ERR_STALE; i++) {
		json_t *s, *reply = NULL;
		if ((r = api_get(c, &s, e, "/services/%s?insertDefaults=false", coded)) < 0)
			return r;
		json_t *spec = json_object_get(s, "Spec");
		if (!change || (r = change(id, spec, n, e)) == 0)
			r = api_post(c, spec, &reply, e, "/services/%s/update?version=%lld%s", coded,
			    (long long)jint(s, "Version.Index"), query);
		if (r == 0)
			service_warnings(reply);
		json_decref(reply);
		json_decref(s);
	}
	return r;
}

static int change_scale(const char *id, json_t *spec, uint64_t n, struct err *e)
{
	if (jpath(spec, "Mode.ReplicatedJob") || jpath(spec, "Mode.GlobalJob") || jpath(spec, "Mode.Global"))
		return err_set(e, ERR_INVALID, "%s: only replicated services can be scaled", id);
	return spec_set_replicas(spec, n, e);
}

static int run_scale(struct cli *c, struct err *e)
{
	int status = 0;
	CLEANUP_FREE bool *scaled = xcalloc((size_t)c->argc, sizeof(bool));
	for (int i = 0; i < c->argc; i++) {
		uint64_t n;
		const char *eq = strchr(c->argv[i], '=');
		if (!eq || eq == c->argv[i] || str_parse_u64(eq + 1, &n, NULL) < 0)
			return cli_usage(c, "\"%s\" is not of the form SERVICE=REPLICAS", c->argv[i]);
	}
	for (int i = 0; i < c->argc; i++) {
		uint64_t n;
		struct err one = ERR_INIT;
		char *eq = strchr(c->argv[i], '=');
		str_parse_u64(eq + 1, &n, NULL);
		*eq = 0;
		if (modify(c, c->argv[i], "", change_scale, n, &one) < 0) {
			status = cli_error(&one);
			continue;
		}
		printf("%s scaled to %llu\n", c->argv[i], (unsigned long long)n);
		fflush(stdout);
		scaled[i] = true;
	}
	for (int i = 0; i < c->argc && !cli_bool(c, "detach"); i++) {
		int r = scaled[i] ? converge_wait(c, c->argv[i], false, e) : 0;
		if (r < 0 || r == 130)
			return r;
		status = r ? r : status;
	}
	return status;
}

static const struct cli_flag scale_flags[] = {
    {"detach", 'd', CLI_BOOL, NULL, "Return at once, without waiting until the tasks run", NULL}, {0}};

const struct cli_cmd service_scale_cmd = {
    .name = "scale",
    .args = "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
    .brief = "Set the number of tasks of replicated services",
    .examples = "shoal service scale web=5\n"
		"shoal service scale -d web=10 worker=20",
    .flags = scale_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "service",
    .run = run_scale,
};

/* --- rollback ------------------------------------------------------------------------------------ */

static int run_rollback(struct cli *c, struct err *e)
{
	int r = modify(c, c->argv[0], "&rollback=previous", NULL, 0, e);
	if (r < 0)
		return r;
	puts(c->argv[0]);
	fflush(stdout);
	r = service_wait(c, c->argv[0], e);
	return r == 1 ? 0 : r; /* that it was rolled back is no failure here */
}

static const struct cli_flag rollback_flags[] = {
    {"detach", 'd', CLI_BOOL, NULL, "Return at once, without waiting until the tasks run", NULL},
    {"quiet", 'q', CLI_BOOL, NULL, "Print no progress", NULL}, {0}};

const struct cli_cmd service_rollback_cmd = {
    .name = "rollback",
    .args = "SERVICE",
    .brief = "Go back to a service's previous spec",
    .examples = "shoal service rollback web",
    .flags = rollback_flags,
    .min_args = 1,
    .max_args = 1,
    .kind = "service",
    .run = run_rollback,
};

static const struct cli_cmd *const subs[] = {&service_create_cmd, &service_ls_cmd, &service_ps_cmd,
    &service_scale_cmd, &service_update_cmd, &service_rollback_cmd, &service_logs_cmd, &service_inspect_cmd,
    &service_rm_cmd, NULL};

const struct cli_cmd cmd_service = {
    .name = "service",
    .brief = "Services: containers that the cluster keeps running",
    .examples = "shoal service create --name web --replicas 3 -p 80:8000 whoami:latest\n"
		"shoal service update --image whoami:2 web\n"
		"shoal service logs -f web",
    .subs = subs,
};
