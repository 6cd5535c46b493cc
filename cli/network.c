/* shoal network and shoal volume, as far as they can be looked at. */
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/each.h"
#include "cli/out.h"

static const char *sort_key; /* of the one list that this process prints */

static int by_key(const void *pa, const void *pb)
{
	return str_natural_cmp(jstr(*(json_t *const *)pa, sort_key), jstr(*(json_t *const *)pb, sort_key));
}

static int print_sorted(struct cli *c, const struct out_column *columns, json_t *rows, const char *name,
    const char *quiet, struct err *e)
{
	size_t n = json_array_size(rows);
	CLEANUP_FREE json_t **v = xcalloc(n + 1, sizeof(*v));
	for (size_t i = 0; i < n; i++)
		v[i] = json_array_get(rows, i);
	sort_key = name;
	qsort(v, n, sizeof(*v), by_key);
	json_t *sorted = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append(sorted, v[i]);
	int r = out_rows(c, columns, sorted, quiet, e);
	json_decref(sorted);
	return r;
}

/* --- networks ------------------------------------------------------------------------------------ */

static const struct out_column network_columns[] = {{"ID", "NETWORK ID", false}, {"Name", "NAME", false},
    {"Driver", "DRIVER", false}, {"Scope", "SCOPE", false}, {"CreatedAt", "CREATED AT", true},
    {"Internal", "INTERNAL", true}, {"IPv6", "IPV6", true}, {"Labels", "LABELS", true}, {"Label", "", true},
    {0}};

static int run_network_ls(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *list, *o, *rows = json_array();
	size_t i;
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r == 0 && (r = api_get(c, &list, e, "/networks?%s", filters + (*filters == '&'))) == 0) {
		json_array_foreach(list, i, o)
		{
			CLEANUP_FREE char *id = out_id(jstr(o, "Id"), cli_bool(c, "no-trunc"));
			CLEANUP_FREE char *labels = out_labels(json_object_get(o, "Labels"));
			json_array_append_new(
			    rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:s, s:O?}", "ID", id,
				      "Name", jstr(o, "Name"), "Driver", jstr(o, "Driver"), "Scope",
				      jstr(o, "Scope"), "CreatedAt", jstr(o, "Created"), "Internal",
				      jbool(o, "Internal"), "IPv6", jbool(o, "EnableIPv6"), "Labels", labels,
				      "Label", json_object_get(o, "Labels")));
		}
		r = print_sorted(c, network_columns, rows, "Name", "ID", e);
		json_decref(list);
	}
	json_decref(rows);
	return r;
}

static const struct cli_flag network_ls_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, OUT_TRUNC_FLAG, {0}};

static const struct cli_cmd network_ls_cmd = {
    .name = "ls",
    .alias = "list",
    .brief = "List networks",
    .about = "Filters: id, name, driver, scope, type, label.\n"
	     "Template fields: .ID .Name .Driver .Scope .CreatedAt .Internal .IPv6 .Labels",
    .examples = "shoal network ls\n"
		"shoal network ls --filter scope=swarm",
    .flags = network_ls_flags,
    .run = run_network_ls,
};

static int run_network_inspect(struct cli *c, struct err *e)
{
	return each_inspect(c, "/networks/", cli_bool(c, "verbose") ? "?verbose=true" : "", e);
}

static const struct cli_flag network_inspect_flags[] = {OUT_FORMAT_FLAG,
    {"verbose", 'v', CLI_BOOL, NULL, "Show the services and tasks on it as well", NULL}, {0}};

static const struct cli_cmd network_inspect_cmd = {
    .name = "inspect",
    .args = "NETWORK [NETWORK...]",
    .brief = "Show networks as JSON",
    .examples = "shoal network inspect ingress\n"
		"shoal network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' ingress",
    .flags = network_inspect_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "network",
    .run = run_network_inspect,
};

static const struct cli_cmd *const network_subs[] = {&network_ls_cmd, &network_inspect_cmd, NULL};

const struct cli_cmd cmd_network = {
    .name = "network",
    .brief = "Networks",
    .examples = "shoal network ls",
    .subs = network_subs,
};

/* --- volumes ------------------------------------------------------------------------------------- */

static const struct out_column volume_columns[] = {{"Driver", "DRIVER", false},
    {"Name", "VOLUME NAME", false}, {"Scope", "SCOPE", true}, {"Mountpoint", "MOUNTPOINT", true},
    {"Labels", "LABELS", true}, {"Label", "", true}, {0}};

static int run_volume_ls(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *reply, *o, *rows = json_array();
	size_t i;
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r == 0 && (r = api_get(c, &reply, e, "/volumes?%s", filters + (*filters == '&'))) == 0) {
		json_array_foreach(json_object_get(reply, "Volumes"), i, o)
		{
			CLEANUP_FREE char *labels = out_labels(json_object_get(o, "Labels"));
			json_array_append_new(
			    rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:O?}", "Driver", jstr(o, "Driver"),
				      "Name", jstr(o, "Name"), "Scope", jstr(o, "Scope"), "Mountpoint",
				      jstr(o, "Mountpoint"), "Labels", labels, "Label",
				      json_object_get(o, "Labels")));
		}
		r = print_sorted(c, volume_columns, rows, "Name", "Name", e);
		json_decref(reply);
	}
	json_decref(rows);
	return r;
}

static const struct cli_flag volume_ls_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, {0}};

static const struct cli_cmd volume_ls_cmd = {
    .name = "ls",
    .alias = "list",
    .brief = "List this node's volumes",
    .about =
	"Filters: name, driver, dangling, label. Template fields: .Name .Driver .Scope .Mountpoint .Labels",
    .examples = "shoal volume ls\n"
		"shoal volume ls -q",
    .flags = volume_ls_flags,
    .run = run_volume_ls,
};

static int run_volume_inspect(struct cli *c, struct err *e)
{
	return each_inspect(c, "/volumes/", "", e);
}

static const struct cli_flag volume_inspect_flags[] = {OUT_FORMAT_FLAG, {0}};

static const struct cli_cmd volume_inspect_cmd = {
    .name = "inspect",
    .args = "VOLUME [VOLUME...]",
    .brief = "Show volumes as JSON",
    .examples = "shoal volume inspect -f '{{.Mountpoint}}' data",
    .flags = volume_inspect_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "volume",
    .run = run_volume_inspect,
};

static const struct cli_cmd *const volume_subs[] = {&volume_ls_cmd, &volume_inspect_cmd, NULL};

const struct cli_cmd cmd_volume = {
    .name = "volume",
    .brief = "Volumes of this node",
    .examples = "shoal volume ls",
    .subs = volume_subs,
};
