/* Flags that set one value of a service's spec: a table of flag and path, and the few that need more. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/spec.h"

#define CONTAINER "TaskTemplate.ContainerSpec."
#define LIMITS    "TaskTemplate.Resources.Limits."
#define RESERVE   "TaskTemplate.Resources.Reservations."

struct scalar {
	const char *flag, *path;
};

static const struct scalar container[] = {{"workdir", CONTAINER "Dir"}, {"user", CONTAINER "User"},
    {"hostname", CONTAINER "Hostname"}, {"tty", CONTAINER "TTY"}, {"init", CONTAINER "Init"},
    {"read-only", CONTAINER "ReadOnly"}, {"stop-signal", CONTAINER "StopSignal"},
    {"stop-grace-period", CONTAINER "StopGracePeriod"}, {"oom-score-adj", CONTAINER "OomScoreAdj"},
    {"limit-cpu", LIMITS "NanoCPUs"}, {"limit-memory", LIMITS "MemoryBytes"}, {"limit-pids", LIMITS "Pids"},
    {"reserve-cpu", RESERVE "NanoCPUs"}, {"reserve-memory", RESERVE "MemoryBytes"},
    {"replicas-max-per-node", "TaskTemplate.Placement.MaxReplicas"}, {"endpoint-mode", "EndpointSpec.Mode"},
    {0}};

static const struct scalar restart[] = {{"restart-condition", "Condition"}, {"restart-delay", "Delay"},
    {"restart-max-attempts", "MaxAttempts"}, {"restart-window", "Window"}, {0}};
static const struct scalar update[] = {{"update-parallelism", "Parallelism"}, {"update-delay", "Delay"},
    {"update-failure-action", "FailureAction"}, {"update-monitor", "Monitor"},
    {"update-max-failure-ratio", "MaxFailureRatio"}, {"update-order", "Order"}, {0}};
static const struct scalar rollback[] = {{"rollback-parallelism", "Parallelism"}, {"rollback-delay", "Delay"},
    {"rollback-failure-action", "FailureAction"}, {"rollback-monitor", "Monitor"},
    {"rollback-max-failure-ratio", "MaxFailureRatio"}, {"rollback-order", "Order"}, {0}};
static const struct scalar health[] = {{"health-interval", "Interval"}, {"health-timeout", "Timeout"},
    {"health-retries", "Retries"}, {"health-start-period", "StartPeriod"},
    {"health-start-interval", "StartInterval"}, {0}};

/* The flag's value as JSON, by its type. */
static json_t *value_of(const struct cli *c, const char *flag)
{
	for (const struct cli_flag *f = c->cmd->common; f && f->name; f++) {
		if (!str_eq(f->name, flag))
			continue;
		if (f->type == CLI_STR)
			return json_string(cli_str(c, flag));
		if (f->type == CLI_BOOL)
			return json_boolean(cli_bool(c, flag));
		if (f->type == CLI_RATIO)
			return json_real(cli_ratio(c, flag, 0));
		return json_integer(cli_int(c, flag, 0));
	}
	ASSERT(false); /* every flag of these tables is in spec_flags */
	return NULL;
}

static bool any_given(const struct cli *c, const struct scalar *s)
{
	for (; s->flag; s++)
		if (cli_given(c, s->flag))
			return true;
	return false;
}

static void set_all(const struct cli *c, const struct scalar *s, json_t *o)
{
	for (; s->flag; s++)
		if (cli_given(c, s->flag))
			jset(o, s->path, value_of(c, s->flag));
}

/* As set_all, in the object at spec.path, which begins with these defaults (taken): where one field is given,
 * an absent other one would mean zero to the daemon. */
static void set_within(
    const struct cli *c, const struct scalar *s, json_t *spec, const char *path, json_t *defaults)
{
	if (any_given(c, s)) {
		if (!json_is_object(jpath(spec, path)))
			jset(spec, path, json_incref(defaults));
		set_all(c, s, jpath(spec, path));
	}
	json_decref(defaults);
}

static json_t *roll_defaults(void)
{
	return json_pack("{s:i, s:s, s:I, s:f, s:s}", "Parallelism", 1, "FailureAction", "pause", "Monitor",
	    (json_int_t)5000000000, "MaxFailureRatio", 0.0, "Order", "stop-first");
}

static int set_health(struct cli *c, json_t *spec, struct err *e)
{
	bool off = cli_bool(c, "no-healthcheck"), command = cli_given(c, "health-cmd");
	if (off && (command || any_given(c, health)))
		return err_set(e, ERR_INVALID, "--no-healthcheck conflicts with the --health flags");
	if (off)
		jset(spec, CONTAINER "Healthcheck", json_pack("{s:[s]}", "Test", "NONE"));
	else if (cli_given(c, "no-healthcheck") &&
		 str_eq(
		     json_string_value(json_array_get(jpath(spec, CONTAINER "Healthcheck.Test"), 0)), "NONE"))
		json_object_del(jpath(spec, "TaskTemplate.ContainerSpec"), "Healthcheck");
	if (command) {
		const char *cmd = cli_str(c, "health-cmd");
		/* An empty command goes back to the image's. */
		jset(spec, CONTAINER "Healthcheck.Test",
		    *cmd ? json_pack("[s, s]", "CMD-SHELL", cmd) : json_array());
	}
	set_within(c, health, spec, CONTAINER "Healthcheck", json_object());
	return 0;
}

static int set_log(struct cli *c, json_t *spec, struct err *e)
{
	const struct strlist *opts = cli_list(c, "log-opt");
	if (cli_given(c, "log-driver"))
		jset(spec, "TaskTemplate.LogDriver", json_pack("{s:s}", "Name", cli_str(c, "log-driver")));
	for (size_t i = 0; i < opts->n; i++) {
		const char *eq = strchr(opts->v[i], '=');
		if (!eq)
			return err_set(
			    e, ERR_INVALID, "--log-opt: \"%s\" is not of the form key=value", opts->v[i]);
		if (i == 0)
			jset(spec, "TaskTemplate.LogDriver.Options", json_object());
		CLEANUP_FREE char *key = xstrndup(opts->v[i], (size_t)(eq - opts->v[i]));
		json_object_set_new(jpath(spec, "TaskTemplate.LogDriver.Options"), key, json_string(eq + 1));
	}
	return 0;
}

int spec_set_scalars(struct cli *c, json_t *spec, struct err *e)
{
	set_all(c, container, spec);
	set_within(c, restart, spec, "TaskTemplate.RestartPolicy",
	    json_pack(
		"{s:s, s:I, s:i}", "Condition", "any", "Delay", (json_int_t)5000000000, "MaxAttempts", 0));
	set_within(c, update, spec, "UpdateConfig", roll_defaults());
	set_within(c, rollback, spec, "RollbackConfig", roll_defaults());
	if (cli_given(c, "entrypoint")) {
		json_t *words;
		int r = words_split(cli_str(c, "entrypoint"), &words, e);
		if (r < 0)
			return err_wrap(e, "--entrypoint");
		jset(spec, CONTAINER "Command", words);
	}
	int r = set_health(c, spec, e);
	return r < 0 ? r : set_log(c, spec, e);
}

int spec_set_replicas(json_t *spec, uint64_t n, struct err *e)
{
	if (jpath(spec, "Mode.ReplicatedJob")) {
		jset(spec, "Mode.ReplicatedJob.TotalCompletions", json_integer((json_int_t)n));
		return 0;
	}
	if (jpath(spec, "Mode.Global") || jpath(spec, "Mode.GlobalJob"))
		return err_set(
		    e, ERR_INVALID, "a global service has one task a node: its number cannot be set");
	jset(spec, "Mode.Replicated.Replicas", json_integer((json_int_t)n));
	return 0;
}

int spec_set_mode(struct cli *c, json_t *spec, bool create, struct err *e)
{
	const char *mode = create ? str_or(cli_str(c, "mode"), "replicated") : NULL;
	if (create) {
		bool job = str_eq(mode, "replicated-job"), global_job = str_eq(mode, "global-job");
		const char *key = job                      ? "ReplicatedJob"
				  : global_job             ? "GlobalJob"
				  : str_eq(mode, "global") ? "Global"
							   : "Replicated";
		jset(spec, "Mode", json_pack("{s:{}}", key));
	}
	if (cli_given(c, "replicas")) {
		int r = spec_set_replicas(spec, (uint64_t)cli_int(c, "replicas", 0), e);
		if (r < 0)
			return err_wrap(e, "--replicas");
	} else if (create && jpath(spec, "Mode.Replicated")) {
		jset(spec, "Mode.Replicated.Replicas", json_integer(1));
	} else if (create && jpath(spec, "Mode.ReplicatedJob")) {
		jset(spec, "Mode.ReplicatedJob.TotalCompletions",
		    json_integer(cli_int(c, "max-concurrent", 1)));
	}
	if (jpath(spec, "Mode.ReplicatedJob") && (create || cli_given(c, "max-concurrent"))) {
		int64_t total = jint(spec, "Mode.ReplicatedJob.TotalCompletions");
		jset(spec, "Mode.ReplicatedJob.MaxConcurrent",
		    json_integer(cli_int(c, "max-concurrent", total)));
	} else if (cli_given(c, "max-concurrent")) {
		return err_set(e, ERR_INVALID, "--max-concurrent is for --mode replicated-job");
	}
	return 0;
}
