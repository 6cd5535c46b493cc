/* shoal node: the machines of the cluster. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/each.h"
#include "cli/out.h"
#include "cli/pretty.h"
#include "cli/tasks.h"

/* "self" is this node's id; others as they are. Heap, percent-encoded. */
static int node_id(struct cli *c, const char *name, char **ret, struct err *e)
{
	if (!str_eq(name, "self")) {
		*ret = api_escape(name);
		return 0;
	}
	json_t *info;
	int r = api_get(c, &info, e, "/info");
	if (r < 0)
		return r;
	const char *id = jstr(info, "Swarm.NodeID");
	if (*id)
		*ret = api_escape(id);
	else
		r = err_set(e, ERR_UNAVAILABLE, "this node is in no swarm: \"self\" stands for nothing");
	json_decref(info);
	return r;
}

/* --- ls ------------------------------------------------------------------------------------------ */

static int by_hostname(const void *pa, const void *pb)
{
	return str_natural_cmp(jstr(*(json_t *const *)pa, "Description.Hostname"),
	    jstr(*(json_t *const *)pb, "Description.Hostname"));
}

static const char *tls_status(const json_t *node, const json_t *info)
{
	json_t *mine = jpath(node, "Description.TLSInfo"), *wanted = jpath(info, "Swarm.Cluster.TLSInfo");
	if (!json_object_size(mine) || !json_object_size(wanted))
		return "Unknown";
	return json_equal(mine, wanted) ? "Ready" : "Needs Rotation";
}

static json_t *make_row(const json_t *n, const json_t *info, bool quiet)
{
	char state[32], availability[32], manager[32];
	bool self = info && str_eq(jstr(n, "ID"), jstr(info, "Swarm.NodeID"));
	out_capital(jstr(n, "Status.State"), state, sizeof(state));
	out_capital(jstr(n, "Spec.Availability"), availability, sizeof(availability));
	out_capital(jbool(n, "ManagerStatus.Leader") ? "leader" : jstr(n, "ManagerStatus.Reachability"),
	    manager, sizeof(manager));
	return json_pack("{s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "ID",
	    json_sprintf("%s%s", jstr(n, "ID"), self && !quiet ? " *" : ""), "Hostname",
	    jstr(n, "Description.Hostname"), "Status", state, "Availability", availability, "ManagerStatus",
	    manager, "EngineVersion", jstr(n, "Description.Engine.EngineVersion"), "TLSStatus",
	    tls_status(n, info), "Self", self);
}

static const struct out_column columns[] = {{"ID", "ID", false}, {"Hostname", "HOSTNAME", false},
    {"Status", "STATUS", false}, {"Availability", "AVAILABILITY", false},
    {"ManagerStatus", "MANAGER STATUS", false}, {"EngineVersion", "ENGINE VERSION", false},
    {"TLSStatus", "TLS STATUS", true}, {"Self", "SELF", true}, {0}};

static int run_ls(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	json_t *list = NULL, *info = NULL, *rows = json_array();
	bool quiet = cli_bool(c, "quiet");
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r == 0)
		r = api_get(c, &list, e, "/nodes?%s", filters + (*filters == '&'));
	if (r < 0) {
		json_decref(rows);
		return r;
	}
	size_t n = json_array_size(list);
	if (n && !quiet)
		r = api_get(c, &info, e, "/info");
	CLEANUP_FREE json_t **v = xcalloc(n + 1, sizeof(*v));
	for (size_t i = 0; i < n; i++)
		v[i] = json_array_get(list, i);
	qsort(v, n, sizeof(*v), by_hostname);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(rows, make_row(v[i], info, quiet));
	if (r == 0)
		r = out_rows(c, columns, rows, "ID", e);
	json_decref(info);
	json_decref(rows);
	json_decref(list);
	return r;
}

static const struct cli_flag ls_flags[] = {OUT_LIST_FLAGS, OUT_FILTER_FLAG, {0}};

static const struct cli_cmd ls_cmd = {
    .name = "ls",
    .alias = "list",
    .brief = "List the nodes of the cluster; * marks the one that answers",
    .about =
	"Filters: id, name, label, node.label, role, membership.\n"
	"Template fields: .ID .Hostname .Status .Availability .ManagerStatus .EngineVersion .TLSStatus .Self",
    .examples = "shoal node ls\n"
		"shoal node ls --filter role=worker -q",
    .flags = ls_flags,
    .run = run_ls,
};

/* --- inspect ------------------------------------------------------------------------------------- */

static int run_inspect(struct cli *c, struct err *e)
{
	json_t *found = json_array(), *o;
	int status = 0, r = 0;
	size_t i;
	for (int k = 0; k < c->argc; k++) {
		struct err one = ERR_INIT;
		CLEANUP_FREE char *id = NULL;
		if (node_id(c, c->argv[k], &id, &one) < 0 || api_get(c, &o, &one, "/nodes/%s", id) < 0)
			status = cli_error(&one);
		else
			json_array_append_new(found, o);
	}
	if (cli_bool(c, "pretty"))
		json_array_foreach(found, i, o) pretty_node(o);
	else
		r = out_inspect(c, found, e);
	json_decref(found);
	return r ? r : status;
}

static const struct cli_flag inspect_flags[] = {
    OUT_FORMAT_FLAG, {"pretty", 0, CLI_BOOL, NULL, "Print what matters, for reading", NULL}, {0}};

static const struct cli_cmd inspect_cmd = {
    .name = "inspect",
    .args = "self|NODE [NODE...]",
    .brief = "Show nodes as JSON, or for reading",
    .examples = "shoal node inspect --pretty self\n"
		"shoal node inspect -f '{{.Status.Addr}}' worker1",
    .flags = inspect_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "node",
    .run = run_inspect,
};

/* --- ps ------------------------------------------------------------------------------------------ */

static int run_ps(struct cli *c, struct err *e)
{
	json_t *ids = json_array(), *fixed = json_pack("{s:o}", "node", ids), *node;
	int r = 0;
	static char self[] = "self";
	for (int i = 0; i < (c->argc ? c->argc : 1) && r == 0; i++) {
		CLEANUP_FREE char *id = NULL;
		if ((r = node_id(c, c->argc ? c->argv[i] : self, &id, e)) == 0 &&
		    (r = api_get(c, &node, e, "/nodes/%s", id)) == 0) {
			json_array_append(ids, json_object_get(node, "ID"));
			json_decref(node);
		}
	}
	if (r == 0)
		r = tasks_print(c, fixed, e);
	json_decref(fixed);
	return r;
}

static const struct cli_flag ps_flags[] = {TASKS_FLAGS, {0}};

static const struct cli_cmd ps_cmd = {
    .name = "ps",
    .args = "[NODE...]",
    .brief = "List the tasks of nodes (default: this one)",
    .about = "Filters: id, name, label, desired-state.\n"
	     "Template fields: .ID .Name .Image .Node .DesiredState .CurrentState .Error .Ports",
    .examples = "shoal node ps\n"
		"shoal node ps -f desired-state=running worker1 worker2",
    .flags = ps_flags,
    .max_args = -1,
    .kind = "node",
    .run = run_ps,
};

/* --- update, promote, demote --------------------------------------------------------------------- */

static int update_labels(struct cli *c, json_t *spec, struct err *e)
{
	const struct strlist *add = cli_list(c, "label-add"), *rm = cli_list(c, "label-rm");
	json_t *labels = json_object_get(spec, "Labels");
	if (!json_is_object(labels))
		json_object_set_new(spec, "Labels", labels = json_object());
	for (size_t i = 0; i < rm->n; i++)
		if (json_object_del(labels, rm->v[i]) < 0)
			return err_set(
			    e, ERR_NOT_FOUND, "--label-rm: the node has no label \"%s\"", rm->v[i]);
	for (size_t i = 0; i < add->n; i++) {
		const char *eq = strchr(add->v[i], '=');
		CLEANUP_FREE char *key =
		    eq ? xstrndup(add->v[i], (size_t)(eq - add->v[i])) : xstrdup(add->v[i]);
		if (!*key)
			return err_set(e, ERR_INVALID, "--label-add: \"%s\" has no name", add->v[i]);
		json_object_set_new(labels, key, json_string(eq ? eq + 1 : ""));
	}
	return 0;
}

/* Reads a node's spec, lets `change` alter it, writes it; again when the node was written meanwhile. */
static int update_node(
    struct cli *c, const char *name, int (*change)(struct cli *, json_t *, struct err *), struct err *e)
{
	CLEANUP_FREE char *id = api_escape(name);
	int r = ERR_STALE;
	for (int i = 0; i < 5 && r == ERR_STALE; i++) {
		json_t *node;
		if ((r = api_get(c, &node, e, "/nodes/%s", id)) < 0)
			return r;
		json_t *spec = json_object_get(node, "Spec");
		if ((r = change(c, spec, e)) == 0)
			r = api_post(c, spec, NULL, e, "/nodes/%s/update?version=%lld", id,
			    (long long)jint(node, "Version.Index"));
		json_decref(node);
	}
	return r;
}

static int change_update(struct cli *c, json_t *spec, struct err *e)
{
	if (cli_given(c, "availability"))
		jset(spec, "Availability", json_string(cli_str(c, "availability")));
	if (cli_given(c, "role"))
		jset(spec, "Role", json_string(cli_str(c, "role")));
	return update_labels(c, spec, e);
}

static int run_update(struct cli *c, struct err *e)
{
	int r = update_node(c, c->argv[0], change_update, e);
	if (r == 0)
		puts(c->argv[0]);
	return r;
}

static const struct cli_flag update_flags[] = {
    {"availability", 0, CLI_STR, NULL,
	"active takes tasks, pause keeps those there are, drain gives them away", "active|pause|drain"},
    {"role", 0, CLI_STR, NULL, "What the node is to be", "worker|manager"},
    {"label-add", 0, CLI_LIST, "KEY=VALUE", "Set a label", NULL},
    {"label-rm", 0, CLI_LIST, "KEY", "Remove a label", NULL}, {0}};

static const struct cli_cmd update_cmd = {
    .name = "update",
    .args = "NODE",
    .brief = "Change a node's availability, role or labels",
    .examples = "shoal node update --availability drain worker1\n"
		"shoal node update --label-add zone=a --label-rm old worker1",
    .flags = update_flags,
    .min_args = 1,
    .max_args = 1,
    .kind = "node",
    .run = run_update,
};

static int change_promote(struct cli *c, json_t *spec, struct err *e)
{
	(void)c;
	(void)e;
	jset(spec, "Role", json_string("manager"));
	return 0;
}

static int change_demote(struct cli *c, json_t *spec, struct err *e)
{
	(void)c;
	(void)e;
	jset(spec, "Role", json_string("worker"));
	return 0;
}

static int run_role(struct cli *c, int (*change)(struct cli *, json_t *, struct err *), bool manager)
{
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		if (update_node(c, c->argv[i], change, &one) < 0)
			status = cli_error(&one);
		else
			printf(manager ? "Node %s promoted to a manager in the swarm.\n"
				       : "Manager %s demoted in the swarm.\n",
			    c->argv[i]);
	}
	return status;
}

static int run_promote(struct cli *c, struct err *e)
{
	(void)e;
	return run_role(c, change_promote, true);
}

static int run_demote(struct cli *c, struct err *e)
{
	(void)e;
	return run_role(c, change_demote, false);
}

static const struct cli_cmd promote_cmd = {
    .name = "promote",
    .args = "NODE [NODE...]",
    .brief = "Make nodes managers",
    .examples = "shoal node promote worker1",
    .min_args = 1,
    .max_args = -1,
    .kind = "node",
    .run = run_promote,
};

static const struct cli_cmd demote_cmd = {
    .name = "demote",
    .args = "NODE [NODE...]",
    .brief = "Make managers workers",
    .examples = "shoal node demote manager3",
    .min_args = 1,
    .max_args = -1,
    .kind = "node",
    .run = run_demote,
};

/* --- rm ------------------------------------------------------------------------------------------ */

static int run_rm(struct cli *c, struct err *e)
{
	(void)e;
	return each_delete(c, "/nodes/", cli_bool(c, "force") ? "?force=1" : "");
}

static const struct cli_flag rm_flags[] = {
    {"force", 'f', CLI_BOOL, NULL, "Remove workers that are not down as well", NULL}, {0}};

static const struct cli_cmd rm_cmd = {
    .name = "rm",
    .alias = "remove",
    .args = "NODE [NODE...]",
    .brief = "Remove nodes that have left or are lost from the cluster",
    .examples = "shoal node rm worker1\n"
		"shoal node rm --force worker1",
    .flags = rm_flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "node",
    .run = run_rm,
};

static const struct cli_cmd *const subs[] = {
    &ls_cmd, &inspect_cmd, &ps_cmd, &update_cmd, &promote_cmd, &demote_cmd, &rm_cmd, NULL};

const struct cli_cmd cmd_node = {
    .name = "node",
    .brief = "The machines of the cluster",
    .examples = "shoal node ls\nshoal node update --availability drain worker1",
    .subs = subs,
};
