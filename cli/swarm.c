/* shoal swarm: making a cluster, its settings, its join tokens, leaving it. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/out.h"

#define DEFAULT_LISTEN "0.0.0.0:2377"

/* Flags that set the cluster's spec. */
#define SPEC_FLAGS                                                                                           \
	{"task-history-limit", 0, CLI_INT, NULL,                                                             \
	    "Tasks kept per slot, the running one included (default 5)", NULL},                              \
	    {"cert-expiry", 0, CLI_DURATION, NULL, "Validity of the nodes' certificates (default 2160h)",    \
		NULL},                                                                                       \
	    {"dispatcher-heartbeat", 0, CLI_DURATION, NULL, "Period of the nodes' heartbeats (default 5s)",  \
		NULL},                                                                                       \
	    {"snapshot-interval", 0, CLI_UINT, NULL, "Log entries between snapshots (default 10000)", NULL}, \
	{                                                                                                    \
		"max-snapshots", 0, CLI_UINT, NULL, "Older snapshots to keep", NULL                          \
	}

static bool set_spec(const struct cli *c, json_t *spec)
{
	static const struct {
		const char *flag, *path;
	} map[] = {{"task-history-limit", "Orchestration.TaskHistoryRetentionLimit"},
	    {"cert-expiry", "CAConfig.NodeCertExpiry"},
	    {"dispatcher-heartbeat", "Dispatcher.HeartbeatPeriod"},
	    {"snapshot-interval", "Raft.SnapshotInterval"}, {"max-snapshots", "Raft.KeepOldSnapshots"}};
	bool any = false;
	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		if (cli_given(c, map[i].flag)) {
			jset(spec, map[i].path, json_integer(cli_int(c, map[i].flag, 0)));
			any = true;
		}
	return any;
}

/* --- join commands ------------------------------------------------------------------------------- */

static void print_join(const char *role, const char *token, const char *address)
{
	printf(
	    "To add a %s to this swarm, run the following command:\n\n    shoal swarm join --token %s %s\n\n",
	    role, token, address);
}

/* The address that others join by: this node's as a manager. */
static int manager_address(struct cli *c, json_t **ret_node, struct err *e)
{
	json_t *info;
	int r = api_get(c, &info, e, "/info");
	if (r < 0)
		return r;
	CLEANUP_FREE char *id = api_escape(jstr(info, "Swarm.NodeID"));
	json_decref(info);
	return api_get(c, ret_node, e, "/nodes/%s", *id ? id : "self");
}

static int run_init(struct cli *c, struct err *e)
{
	json_t *body =
	    json_pack("{s:s, s:s, s:s}", "ListenAddr", str_or(cli_str(c, "listen-addr"), DEFAULT_LISTEN),
		"AdvertiseAddr", str_or(cli_str(c, "advertise-addr"), ""), "Availability",
		str_or(cli_str(c, "availability"), "active"));
	json_t *spec = json_object();
	set_spec(c, spec);
	json_object_set_new(body, "Spec", spec);
	json_t *id = NULL, *node = NULL, *swarm = NULL;
	int r = api_post(c, body, &id, e, "/swarm/init");
	json_decref(body);
	if (r < 0) {
		if (strstr(e->text, "could not choose an IP address") ||
		    strstr(e->text, "could not find the system's IP address"))
			strncat(e->text, " - specify one with --advertise-addr",
			    sizeof(e->text) - strlen(e->text) - 1);
		return r;
	}
	const char *node_id = str_or(json_string_value(id), "");
	printf("Swarm initialized: current node (%s) is now a manager.\n\n", node_id);
	if ((r = api_get(c, &node, e, "/nodes/%s", node_id)) == 0 &&
	    (r = api_get(c, &swarm, e, "/swarm")) == 0) {
		print_join("worker", jstr(swarm, "JoinTokens.Worker"), jstr(node, "ManagerStatus.Addr"));
		puts("To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the "
		     "instructions.");
	}
	json_decref(id);
	json_decref(node);
	json_decref(swarm);
	return r;
}

static const struct cli_flag init_flags[] = {
    {"advertise-addr", 0, CLI_STR, "ADDRESS", "Address or interface that other nodes reach this one by",
	NULL},
    {"listen-addr", 0, CLI_STR, "ADDRESS", "Where to listen for other nodes (default " DEFAULT_LISTEN ")",
	NULL},
    {"availability", 0, CLI_STR, NULL, "Whether this node takes tasks (default active)",
	"active|pause|drain"},
    SPEC_FLAGS, {0}};

static const struct cli_cmd init_cmd = {
    .name = "init",
    .brief = "Make this node the first manager of a new cluster",
    .examples = "shoal swarm init\n"
		"shoal swarm init --advertise-addr 192.0.2.10\n"
		"shoal swarm init --advertise-addr eth1 --task-history-limit 2",
    .flags = init_flags,
    .run = run_init,
};

static int run_join(struct cli *c, struct err *e)
{
	json_t *body = json_pack("{s:s, s:s, s:s, s:s, s:[s]}", "ListenAddr",
	    str_or(cli_str(c, "listen-addr"), DEFAULT_LISTEN), "AdvertiseAddr",
	    str_or(cli_str(c, "advertise-addr"), ""), "Availability",
	    str_or(cli_str(c, "availability"), "active"), "JoinToken", str_or(cli_str(c, "token"), ""),
	    "RemoteAddrs", c->argv[0]);
	json_t *info = NULL;
	int r = api_post(c, body, NULL, e, "/swarm/join");
	json_decref(body);
	if (r == 0 && (r = api_get(c, &info, e, "/info")) == 0)
		printf("This node joined a swarm as a %s.\n",
		    jbool(info, "Swarm.ControlAvailable") ? "manager" : "worker");
	json_decref(info);
	return r;
}

static const struct cli_flag join_flags[] = {
    {"token", 0, CLI_STR, "TOKEN", "Token from 'shoal swarm join-token'", NULL},
    {"advertise-addr", 0, CLI_STR, "ADDRESS", "Address or interface that other nodes reach this one by",
	NULL},
    {"listen-addr", 0, CLI_STR, "ADDRESS", "Where to listen for other nodes (default " DEFAULT_LISTEN ")",
	NULL},
    {"availability", 0, CLI_STR, NULL, "Whether this node takes tasks (default active)",
	"active|pause|drain"},
    {0}};

static const struct cli_cmd join_cmd = {
    .name = "join",
    .args = "HOST:PORT",
    .brief = "Join this node to a cluster, as a worker or a manager by its token",
    .examples = "shoal swarm join --token SWMTKN-1-... 192.0.2.10:2377",
    .flags = join_flags,
    .min_args = 1,
    .max_args = 1,
    .run = run_join,
};

static int run_leave(struct cli *c, struct err *e)
{
	int r = api_post(c, NULL, NULL, e, "/swarm/leave%s", cli_bool(c, "force") ? "?force=1" : "");
	if (r == 0)
		puts("Node left the swarm.");
	return r;
}

static const struct cli_flag leave_flags[] = {
    {"force", 'f', CLI_BOOL, NULL, "Leave even where that loses the cluster or its quorum", NULL}, {0}};

static const struct cli_cmd leave_cmd = {
    .name = "leave",
    .brief = "Take this node out of its cluster; its tasks' containers are removed",
    .examples = "shoal swarm leave\n"
		"shoal swarm leave --force        # the last manager: the cluster is gone after that",
    .flags = leave_flags,
    .run = run_leave,
};

static int update_swarm(struct cli *c, json_t *swarm, const char *more, struct err *e)
{
	return api_post(c, json_object_get(swarm, "Spec"), NULL, e, "/swarm/update?version=%lld%s",
	    (long long)jint(swarm, "Version.Index"), more);
}

static int run_update(struct cli *c, struct err *e)
{
	json_t *swarm;
	int r = api_get(c, &swarm, e, "/swarm");
	if (r < 0)
		return r;
	if (!set_spec(c, json_object_get(swarm, "Spec")))
		r = cli_usage(c, "nothing to update: give at least one flag");
	else if ((r = update_swarm(c, swarm, "", e)) == 0)
		puts("Swarm updated.");
	json_decref(swarm);
	return r;
}

static const struct cli_flag update_flags[] = {SPEC_FLAGS, {0}};

static const struct cli_cmd update_cmd = {
    .name = "update",
    .brief = "Change settings of the cluster",
    .examples = "shoal swarm update --task-history-limit 2\n"
		"shoal swarm update --cert-expiry 720h --dispatcher-heartbeat 10s",
    .flags = update_flags,
    .run = run_update,
};

static int run_join_token(struct cli *c, struct err *e)
{
	bool manager = str_eq(c->argv[0], "manager"), quiet = cli_bool(c, "quiet");
	if (!manager && !str_eq(c->argv[0], "worker"))
		return cli_usage(c, "the role is \"worker\" or \"manager\", not \"%s\"", c->argv[0]);
	json_t *swarm, *node = NULL;
	int r = api_get(c, &swarm, e, "/swarm");
	if (r == 0 && cli_bool(c, "rotate")) {
		r = update_swarm(
		    c, swarm, manager ? "&rotateManagerToken=true" : "&rotateWorkerToken=true", e);
		json_decref(swarm);
		swarm = NULL;
		if (r == 0 && !quiet)
			printf("Successfully rotated %s join token.\n\n", c->argv[0]);
		if (r == 0)
			r = api_get(c, &swarm, e, "/swarm");
	}
	if (r < 0)
		return r;
	const char *token = jstr(swarm, manager ? "JoinTokens.Manager" : "JoinTokens.Worker");
	if (quiet)
		puts(token);
	else if ((r = manager_address(c, &node, e)) == 0)
		print_join(c->argv[0], token, jstr(node, "ManagerStatus.Addr"));
	json_decref(node);
	json_decref(swarm);
	return r;
}

static const struct cli_flag join_token_flags[] = {
    {"quiet", 'q', CLI_BOOL, NULL, "Print only the token", NULL},
    {"rotate", 0, CLI_BOOL, NULL, "Make a new token first; the old one is then of no use, joined nodes stay",
	NULL},
    {0}};

static const struct cli_cmd join_token_cmd = {
    .name = "join-token",
    .args = "worker|manager",
    .brief = "Show or rotate the token that nodes join by",
    .examples = "shoal swarm join-token worker\n"
		"shoal swarm join-token -q manager\n"
		"shoal swarm join-token --rotate worker",
    .flags = join_token_flags,
    .min_args = 1,
    .max_args = 1,
    .kind = "worker|manager",
    .run = run_join_token,
};

static int run_inspect(struct cli *c, struct err *e)
{
	json_t *swarm, *list;
	int r = api_get(c, &swarm, e, "/swarm");
	if (r < 0)
		return r;
	/* Tokens let machines in: they are shown by join-token only. */
	json_object_del(swarm, "JoinTokens");
	list = json_pack("[o]", swarm);
	r = out_inspect(c, list, e);
	json_decref(list);
	return r;
}

static const struct cli_flag inspect_flags[] = {OUT_FORMAT_FLAG, {0}};

static const struct cli_cmd inspect_cmd = {
    .name = "inspect",
    .brief = "Show the cluster's settings as JSON",
    .examples = "shoal swarm inspect\n"
		"shoal swarm inspect -f '{{.Spec.Orchestration.TaskHistoryRetentionLimit}}'",
    .flags = inspect_flags,
    .run = run_inspect,
};

static const struct cli_cmd *const subs[] = {
    &init_cmd, &join_cmd, &leave_cmd, &update_cmd, &join_token_cmd, &inspect_cmd, NULL};

const struct cli_cmd cmd_swarm = {
    .name = "swarm",
    .brief = "The cluster: make it, join it, leave it",
    .examples = "shoal swarm init --advertise-addr 192.0.2.10\nshoal swarm join-token worker",
    .subs = subs,
};
