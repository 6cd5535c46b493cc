/* shoal info and shoal system df: what the daemon knows of itself and its node. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/out.h"

static void line(const char *title, const char *value)
{
	if (!str_empty(value))
		printf(" %s: %s\n", title, value);
}

static void number(const char *title, int64_t v)
{
	printf(" %s: %lld\n", title, (long long)v);
}

static void names(const char *title, const json_t *list)
{
	size_t i;
	json_t *v;
	if (!json_array_size(list))
		return;
	printf(" %s:", title);
	json_array_foreach(list, i, v) printf(" %s", str_or(json_string_value(v), ""));
	putchar('\n');
}

static void print_swarm(const json_t *s)
{
	line("Swarm", jstr(s, "LocalNodeState"));
	if (!*jstr(s, "NodeID"))
		return;
	printf("  NodeID: %s\n  Is Manager: %s\n", jstr(s, "NodeID"),
	    jbool(s, "ControlAvailable") ? "true" : "false");
	if (*jstr(s, "Error"))
		printf("  Error: %s\n", jstr(s, "Error"));
	if (jbool(s, "ControlAvailable"))
		printf("  ClusterID: %s\n  Managers: %lld\n  Nodes: %lld\n", jstr(s, "Cluster.ID"),
		    (long long)jint(s, "Managers"), (long long)jint(s, "Nodes"));
	printf("  Node Address: %s\n", jstr(s, "NodeAddr"));
	size_t i;
	json_t *m;
	json_array_foreach(json_object_get(s, "RemoteManagers"), i, m)
	    printf("  Manager: %s\n", jstr(m, "Addr"));
}

static void print_info(const json_t *o)
{
	char memory[32];
	size_t i;
	json_t *v;
	const char *key;
	puts("Server:");
	number("Containers", jint(o, "Containers"));
	printf("  Running: %lld\n  Paused: %lld\n  Stopped: %lld\n", (long long)jint(o, "ContainersRunning"),
	    (long long)jint(o, "ContainersPaused"), (long long)jint(o, "ContainersStopped"));
	number("Images", jint(o, "Images"));
	line("Server Version", jstr(o, "ServerVersion"));
	line("Storage Driver", jstr(o, "Driver"));
	line("Logging Driver", jstr(o, "LoggingDriver"));
	line("Cgroup Driver", jstr(o, "CgroupDriver"));
	line("Cgroup Version", jstr(o, "CgroupVersion"));
	names("Volume Drivers", jpath(o, "Plugins.Volume"));
	names("Network Drivers", jpath(o, "Plugins.Network"));
	names("Log Drivers", jpath(o, "Plugins.Log"));
	print_swarm(json_object_get(o, "Swarm"));
	if (json_object_size(json_object_get(o, "Runtimes"))) {
		printf(" Runtimes:");
		json_object_foreach(json_object_get(o, "Runtimes"), key, v) printf(" %s", key);
		putchar('\n');
	}
	line("Default Runtime", jstr(o, "DefaultRuntime"));
	names("Security Options", json_object_get(o, "SecurityOptions"));
	line("Kernel Version", jstr(o, "KernelVersion"));
	line("Operating System", jstr(o, "OperatingSystem"));
	line("OSType", jstr(o, "OSType"));
	line("Architecture", jstr(o, "Architecture"));
	number("CPUs", jint(o, "NCPU"));
	out_size_binary((double)jint(o, "MemTotal"), memory);
	line("Total Memory", memory);
	line("Name", jstr(o, "Name"));
	line("ID", jstr(o, "ID"));
	line("Root Dir", jstr(o, "DockerRootDir"));
	names("Labels", json_object_get(o, "Labels"));
	names("Insecure Registries", jpath(o, "RegistryConfig.InsecureRegistryCIDRs"));
	names("Registry Mirrors", jpath(o, "RegistryConfig.Mirrors"));
	json_array_foreach(json_object_get(o, "Warnings"), i, v)
	    cli_warn("%s", str_or(json_string_value(v), ""));
}

static int run_info(struct cli *c, struct err *e)
{
	json_t *o;
	int r = api_get(c, &o, e, "/info");
	if (r < 0)
		return r;
	if (cli_given(c, "format"))
		r = out_template(cli_str(c, "format"), o, e);
	else
		print_info(o);
	json_decref(o);
	return r;
}

static const struct cli_flag format_flags[] = {OUT_FORMAT_FLAG, {0}};

#define INFO                                                                                                 \
	.name = "info", .brief = "Show what the daemon knows of itself, its node and its cluster",           \
	.examples = "shoal info\n"                                                                           \
		    "shoal info -f '{{.Swarm.LocalNodeState}}'",                                             \
	.flags = format_flags, .run = run_info
const struct cli_cmd cmd_info = {INFO};

/* --- df ------------------------------------------------------------------------------------------ */

struct usage {
	int64_t total, active;
	double size, unused;
};

static json_t *make_row(const char *type, const struct usage *u)
{
	char size[32], unused[32];
	out_size_decimal(u->size, 4, size);
	out_size_decimal(u->unused, 4, unused);
	json_t *share = u->size > 0 ? json_sprintf("%s (%d%%)", unused, (int)(u->unused / u->size * 100))
				    : json_string(unused);
	return json_pack("{s:s, s:o, s:o, s:s, s:o}", "Type", type, "TotalCount",
	    json_sprintf("%lld", (long long)u->total), "Active", json_sprintf("%lld", (long long)u->active),
	    "Size", size, "Reclaimable", share);
}

static bool has_container(const json_t *containers, const char *image)
{
	size_t i;
	json_t *v;
	json_array_foreach(containers, i, v) if (str_eq(jstr(v, "ImageID"), image)) return true;
	return false;
}

static const struct out_column df_columns[] = {{"Type", "TYPE", false}, {"TotalCount", "TOTAL", false},
    {"Active", "ACTIVE", false}, {"Size", "SIZE", false}, {"Reclaimable", "RECLAIMABLE", false}, {0}};

static int run_df(struct cli *c, struct err *e)
{
	struct usage images = {0}, containers = {0}, volumes = {0};
	json_t *o, *v, *rows;
	size_t i;
	int r = api_get(c, &o, e, "/system/df");
	if (r < 0)
		return r;
	images.size = (double)jint(o, "LayersSize");
	double used = 0;
	json_array_foreach(json_object_get(o, "Images"), i, v)
	{
		images.total++;
		if (has_container(json_object_get(o, "Containers"), jstr(v, "Id"))) {
			images.active++;
			used += (double)jint(v, "Size");
		}
	}
	images.unused = used < images.size ? images.size - used : 0;
	json_array_foreach(json_object_get(o, "Containers"), i, v)
	{
		bool runs = str_eq(jstr(v, "State"), "running");
		containers.total++;
		containers.active += runs;
		containers.size += (double)jint(v, "SizeRw");
		containers.unused += runs ? 0 : (double)jint(v, "SizeRw");
	}
	json_array_foreach(json_object_get(o, "Volumes"), i, v)
	{
		int64_t size = jint(v, "UsageData.Size");
		volumes.total++;
		volumes.active += jint(v, "UsageData.RefCount") > 0;
		volumes.size += size > 0 ? (double)size : 0;
		volumes.unused += size > 0 && jint(v, "UsageData.RefCount") <= 0 ? (double)size : 0;
	}
	rows = json_pack("[o, o, o]", make_row("Images", &images), make_row("Containers", &containers),
	    make_row("Local Volumes", &volumes));
	r = out_rows(c, df_columns, rows, NULL, e);
	json_decref(rows);
	json_decref(o);
	return r;
}

static const struct cli_flag df_flags[] = {
    {"format", 0, CLI_STR, "TEMPLATE", "Print by a Go template, \"table TEMPLATE\", or \"json\"", NULL}, {0}};

static const struct cli_cmd df_cmd = {
    .name = "df",
    .brief = "Show what this node's images, containers and volumes take on disk",
    .about = "Template fields: .Type .TotalCount .Active .Size .Reclaimable",
    .examples = "shoal system df",
    .flags = df_flags,
    .run = run_df,
};

static const struct cli_cmd info_cmd = {INFO};
static const struct cli_cmd *const subs[] = {&df_cmd, &cmd_events, &info_cmd, NULL};

const struct cli_cmd cmd_system = {
    .name = "system",
    .brief = "The daemon and its node",
    .examples = "shoal system df",
    .subs = subs,
};
