/* Objects for reading, in docker's words and order. What a spec does not say is left out. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/out.h"
#include "cli/pretty.h"

#define CONTAINER "Spec.TaskTemplate.ContainerSpec."

static void line(const char *title, const char *value)
{
	if (!str_empty(value))
		printf("%-23s %s\n", title, value);
}

static void number(const char *title, int64_t v)
{
	printf("%-23s %lld\n", title, (long long)v);
}

static void duration(const char *title, int64_t ns)
{
	char text[48];
	str_format_duration(ns, text, sizeof(text));
	line(title, text);
}

static void capital(const char *title, const char *value)
{
	char text[64];
	out_capital(value, text, sizeof(text));
	line(title, text);
}

static char *join(const json_t *list, const char *sep)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	size_t i;
	json_t *v;
	json_array_foreach(list, i, v)
	    buf_printf(&b, "%s%s", b.len ? sep : "", str_or(json_string_value(v), ""));
	return buf_take(&b, NULL);
}

static void joined(const char *title, const json_t *list, const char *sep)
{
	CLEANUP_FREE char *text = join(list, sep);
	line(title, text);
}

void pretty_labels(const char *title, const json_t *labels)
{
	CLEANUP_STRLIST struct strlist all = STRLIST_INIT;
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)labels, key, v)
	    strlist_addf(&all, "%s=%s", key, str_or(json_string_value(v), ""));
	if (!all.n)
		return;
	strlist_sort(&all);
	puts(title);
	for (size_t i = 0; i < all.n; i++)
		printf(" - %s\n", all.v[i]);
}

static void cpus(const char *title, int64_t nano)
{
	char text[40];
	snprintf(text, sizeof(text), "%.9g", (double)nano / 1e9);
	line(title, text);
}

static void bytes(const char *title, int64_t n)
{
	char text[32];
	out_size_binary((double)n, text);
	line(title, text);
}

/* --- nodes --------------------------------------------------------------------------------------- */

static void plugins(const json_t *engine, const char *type)
{
	CLEANUP_STRLIST struct strlist names = STRLIST_INIT;
	size_t i;
	json_t *p;
	json_array_foreach(json_object_get(engine, "Plugins"), i, p) if (str_eq(jstr(p, "Type"), type))
	    strlist_add(&names, jstr(p, "Name"));
	if (!names.n)
		return;
	strlist_sort(&names);
	CLEANUP_FREE char *all = strlist_join(&names, ", ");
	CLEANUP_FREE char *title = xasprintf(" %s:", type);
	line(title, all);
}

void pretty_node(const json_t *n)
{
	line("ID:", jstr(n, "ID"));
	line("Name:", jstr(n, "Spec.Name"));
	pretty_labels("Labels:", jpath(n, "Spec.Labels"));
	line("Hostname:", jstr(n, "Description.Hostname"));
	line("Joined at:", jstr(n, "CreatedAt"));
	puts("Status:");
	capital(" State:", jstr(n, "Status.State"));
	line(" Message:", jstr(n, "Status.Message"));
	capital(" Availability:", jstr(n, "Spec.Availability"));
	line(" Address:", jstr(n, "Status.Addr"));
	if (jpath(n, "ManagerStatus")) {
		puts("Manager Status:");
		line(" Address:", jstr(n, "ManagerStatus.Addr"));
		capital(" Raft Status:", jstr(n, "ManagerStatus.Reachability"));
		line(" Leader:", jbool(n, "ManagerStatus.Leader") ? "Yes" : "No");
	}
	puts("Platform:");
	line(" Operating System:", jstr(n, "Description.Platform.OS"));
	line(" Architecture:", jstr(n, "Description.Platform.Architecture"));
	puts("Resources:");
	cpus(" CPUs:", jint(n, "Description.Resources.NanoCPUs"));
	bytes(" Memory:", jint(n, "Description.Resources.MemoryBytes"));
	if (jpath(n, "Description.Engine.Plugins"))
		puts("Plugins:");
	plugins(jpath(n, "Description.Engine"), "Log");
	plugins(jpath(n, "Description.Engine"), "Network");
	plugins(jpath(n, "Description.Engine"), "Volume");
	line("Engine Version:", jstr(n, "Description.Engine.EngineVersion"));
	pretty_labels("Engine Labels:", jpath(n, "Description.Engine.Labels"));
	if (*jstr(n, "Description.TLSInfo.TrustRoot"))
		printf("TLS Info:\n TrustRoot:\n%s Issuer Subject:      %s\n Issuer Public Key:   %s\n",
		    jstr(n, "Description.TLSInfo.TrustRoot"),
		    jstr(n, "Description.TLSInfo.CertIssuerSubject"),
		    jstr(n, "Description.TLSInfo.CertIssuerPublicKey"));
	putchar('\n');
}

/* --- services ------------------------------------------------------------------------------------ */

static void pretty_mode(const json_t *s)
{
	if (jpath(s, "Spec.Mode.Global")) {
		line("Service Mode:", "Global");
	} else if (jpath(s, "Spec.Mode.GlobalJob")) {
		line("Service Mode:", "GlobalJob");
	} else if (jpath(s, "Spec.Mode.ReplicatedJob")) {
		line("Service Mode:", "ReplicatedJob");
		number(" Max Concurrent:", jint(s, "Spec.Mode.ReplicatedJob.MaxConcurrent"));
		number(" Total Completions:", jint(s, "Spec.Mode.ReplicatedJob.TotalCompletions"));
	} else {
		line("Service Mode:", "Replicated");
		number(" Replicas:", jint(s, "Spec.Mode.Replicated.Replicas"));
	}
}

static void pretty_update_status(const json_t *s)
{
	char age[40];
	const char *state = jstr(s, "UpdateStatus.State");
	if (!*state)
		return;
	puts("UpdateStatus:");
	line(" State:", state);
	out_ago(jstr(s, "UpdateStatus.StartedAt"), age);
	line(" Started:", age);
	out_ago(jstr(s, "UpdateStatus.CompletedAt"), age);
	line(" Completed:", age);
	line(" Message:", jstr(s, "UpdateStatus.Message"));
}

static void pretty_placement(const json_t *p)
{
	CLEANUP_FREE char *constraints = join(json_object_get(p, "Constraints"), ", ");
	size_t i;
	json_t *pref;
	if (!*constraints && !json_array_size(json_object_get(p, "Preferences")) && !jint(p, "MaxReplicas"))
		return;
	puts("Placement:");
	line(" Constraints:", constraints);
	json_array_foreach(json_object_get(p, "Preferences"), i, pref)
	    line(" Preference:", jstr(pref, "Spread.SpreadDescriptor"));
	if (jint(p, "MaxReplicas"))
		number(" Max Replicas Per Node:", jint(p, "MaxReplicas"));
}

static void pretty_roll(const char *title, const json_t *u)
{
	if (!u)
		return;
	puts(title);
	number(" Parallelism:", jint(u, "Parallelism"));
	if (jint(u, "Delay"))
		duration(" Delay:", jint(u, "Delay"));
	line(" On failure:", jstr(u, "FailureAction"));
	if (jint(u, "Monitor"))
		duration(" Monitoring Period:", jint(u, "Monitor"));
	char ratio[32];
	snprintf(ratio, sizeof(ratio), "%g", json_number_value(jpath(u, "MaxFailureRatio")));
	line(" Max failure ratio:", ratio);
	line(" Order:", jstr(u, "Order"));
}

static void pretty_mounts(const json_t *mounts)
{
	size_t i;
	json_t *m;
	if (json_array_size(mounts))
		puts("Mounts:");
	json_array_foreach(mounts, i, m)
	{
		line(" Target:", jstr(m, "Target"));
		line("  Source:", jstr(m, "Source"));
		line("  ReadOnly:", jbool(m, "ReadOnly") ? "true" : "false");
		line("  Type:", jstr(m, "Type"));
	}
}

static void pretty_health(const json_t *h)
{
	if (!h)
		return;
	puts("Healthcheck:");
	joined(" Command:", json_object_get(h, "Test"), " ");
	if (jint(h, "Interval"))
		duration(" Interval:", jint(h, "Interval"));
	if (jint(h, "Timeout"))
		duration(" Timeout:", jint(h, "Timeout"));
	if (jint(h, "StartPeriod"))
		duration(" Start Period:", jint(h, "StartPeriod"));
	if (jint(h, "Retries"))
		number(" Retries:", jint(h, "Retries"));
}

static void pretty_container(const json_t *s)
{
	puts("ContainerSpec:");
	line(" Image:", jstr(s, CONTAINER "Image"));
	joined(" Entrypoint:", jpath(s, CONTAINER "Command"), " ");
	joined(" Args:", jpath(s, CONTAINER "Args"), " ");
	joined(" Env:", jpath(s, CONTAINER "Env"), " ");
	line(" Dir:", jstr(s, CONTAINER "Dir"));
	line(" Hostname:", jstr(s, CONTAINER "Hostname"));
	line(" User:", jstr(s, CONTAINER "User"));
	joined(" Groups:", jpath(s, CONTAINER "Groups"), ", ");
	if (json_is_boolean(jpath(s, CONTAINER "Init")))
		line(" Init:", jbool(s, CONTAINER "Init") ? "true" : "false");
	if (jbool(s, CONTAINER "TTY"))
		line(" TTY:", "true");
	if (jbool(s, CONTAINER "ReadOnly"))
		line(" ReadOnly:", "true");
	line(" StopSignal:", jstr(s, CONTAINER "StopSignal"));
	if (jint(s, CONTAINER "StopGracePeriod") != 10000000000)
		duration(" StopGracePeriod:", jint(s, CONTAINER "StopGracePeriod"));
	joined(" Hosts:", jpath(s, CONTAINER "Hosts"), ", ");
	joined(" CapabilityAdd:", jpath(s, CONTAINER "CapabilityAdd"), ", ");
	joined(" CapabilityDrop:", jpath(s, CONTAINER "CapabilityDrop"), ", ");
	pretty_labels(" Container Labels:", jpath(s, CONTAINER "Labels"));
	pretty_labels(" SysCtls:", jpath(s, CONTAINER "Sysctls"));
	size_t i;
	json_t *u;
	json_array_foreach(jpath(s, CONTAINER "Ulimits"), i, u)
	    printf(" Ulimit:                 %s=%lld:%lld\n", jstr(u, "Name"), (long long)jint(u, "Soft"),
		(long long)jint(u, "Hard"));
	pretty_mounts(jpath(s, CONTAINER "Mounts"));
	pretty_health(jpath(s, CONTAINER "Healthcheck"));
}

static void pretty_resources(const json_t *r)
{
	static const struct {
		const char *title, *key;
	} parts[] = {{" Reservations:", "Reservations"}, {" Limits:", "Limits"}};
	bool said = false;
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		const json_t *p = json_object_get(r, parts[i].key);
		size_t k;
		json_t *g;
		if (!json_object_size(p))
			continue;
		if (!said)
			puts("Resources:");
		said = true;
		puts(parts[i].title);
		if (jint(p, "NanoCPUs"))
			cpus("  CPU:", jint(p, "NanoCPUs"));
		if (jint(p, "MemoryBytes"))
			bytes("  Memory:", jint(p, "MemoryBytes"));
		if (jint(p, "Pids"))
			number("  Pids:", jint(p, "Pids"));
		json_array_foreach(json_object_get(p, "GenericResources"), k, g)
		    printf("  %s:%*s %lld\n", jstr(g, "DiscreteResourceSpec.Kind"),
			(int)(20 - (int)strlen(jstr(g, "DiscreteResourceSpec.Kind"))), "",
			(long long)jint(g, "DiscreteResourceSpec.Value"));
	}
}

static void pretty_endpoint(const json_t *s)
{
	size_t i;
	json_t *p;
	line("Endpoint Mode:", str_or(jstr(s, "Endpoint.Spec.Mode"), jstr(s, "Spec.EndpointSpec.Mode")));
	json_array_foreach(jpath(s, "Endpoint.Ports"), i, p)
	{
		if (!i)
			puts("Ports:");
		number(" PublishedPort =", jint(p, "PublishedPort"));
		line("  Protocol =", jstr(p, "Protocol"));
		number("  TargetPort =", jint(p, "TargetPort"));
		line("  PublishMode =", jstr(p, "PublishMode"));
	}
}

static void pretty_restart(const json_t *p)
{
	if (!p)
		return;
	puts("RestartPolicy:");
	line(" Condition:", jstr(p, "Condition"));
	duration(" Delay:", jint(p, "Delay"));
	if (jint(p, "MaxAttempts"))
		number(" Max attempts:", jint(p, "MaxAttempts"));
	if (jint(p, "Window"))
		duration(" Window:", jint(p, "Window"));
}

void pretty_service(const json_t *s)
{
	putchar('\n');
	line("ID:", jstr(s, "ID"));
	line("Name:", jstr(s, "Spec.Name"));
	pretty_labels("Labels:", jpath(s, "Spec.Labels"));
	pretty_mode(s);
	pretty_update_status(s);
	pretty_placement(jpath(s, "Spec.TaskTemplate.Placement"));
	pretty_restart(jpath(s, "Spec.TaskTemplate.RestartPolicy"));
	pretty_roll("UpdateConfig:", jpath(s, "Spec.UpdateConfig"));
	pretty_roll("RollbackConfig:", jpath(s, "Spec.RollbackConfig"));
	pretty_container(s);
	if (*jstr(s, "Spec.TaskTemplate.LogDriver.Name")) {
		puts("Log Driver:");
		line(" Name:", jstr(s, "Spec.TaskTemplate.LogDriver.Name"));
		pretty_labels(" LogOpts:", jpath(s, "Spec.TaskTemplate.LogDriver.Options"));
	}
	pretty_resources(jpath(s, "Spec.TaskTemplate.Resources"));
	pretty_endpoint(s);
	putchar('\n');
}

/* --- configs and secrets ------------------------------------------------------------------------- */

void pretty_object(const json_t *o, const char *data)
{
	line("ID:", jstr(o, "ID"));
	line("Name:", jstr(o, "Spec.Name"));
	pretty_labels("Labels:", jpath(o, "Spec.Labels"));
	line("Created at:", jstr(o, "CreatedAt"));
	line("Updated at:", jstr(o, "UpdatedAt"));
	if (data) {
		uint8_t *p;
		size_t n;
		puts("Data:");
		if (str_unbase64(data, strlen(data), &p, &n, NULL) == 0) {
			fwrite(p, 1, n, stdout);
			free(p);
		}
		putchar('\n');
	}
	putchar('\n');
}
