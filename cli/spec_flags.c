/* The flags of `service create` and `service update`: names and meanings are docker's. */
#include "cli/spec.h"

#define ROLL_FLAGS(what)                                                                                     \
	{what "-parallelism", 0, CLI_UINT, NULL, "Tasks changed at once; 0: all (default 1)", NULL},         \
	    {what "-delay", 0, CLI_DURATION, NULL, "Pause between two tasks (default 0s)", NULL},            \
	    {what "-monitor", 0, CLI_DURATION, NULL,                                                         \
		"How long a new task is watched for failure (default 5s)", NULL},                            \
	    {what "-max-failure-ratio", 0, CLI_RATIO, NULL, "Share of tasks that may fail (default 0)",      \
		NULL},                                                                                       \
	{                                                                                                    \
		what "-order", 0, CLI_STR, NULL,                                                             \
		    "Whether the old task stops before the new one starts (default stop-first)",             \
		    "start-first|stop-first"                                                                 \
	}

const struct cli_flag spec_flags[] = {
    /* how it is called and how many there are */
    {"replicas", 0, CLI_UINT, NULL, "Number of tasks", NULL},
    {"max-concurrent", 0, CLI_UINT, NULL, "Tasks of a replicated job that run at once (default: --replicas)",
	NULL},
    {"detach", 'd', CLI_BOOL, NULL, "Return at once, without waiting until the tasks run", NULL},
    {"quiet", 'q', CLI_BOOL, NULL, "Print no progress", NULL},
    {"with-registry-auth", 0, CLI_BOOL, NULL,
	"Send the registry's credentials along, for the nodes that pull", NULL},
    {"no-resolve-image", 0, CLI_BOOL, NULL, "Do not ask the registry for the image's digest", NULL},
    /* the container */
    {"entrypoint", 0, CLI_STR, "COMMAND", "Replaces the image's entrypoint", NULL},
    {"workdir", 'w', CLI_STR, "DIR", "Working directory", NULL},
    {"user", 'u', CLI_STR, "NAME|UID[:GROUP|GID]", "User that the process runs as", NULL},
    {"hostname", 0, CLI_STR, "NAME", "Host name inside", NULL},
    {"tty", 't', CLI_BOOL, NULL, "Give it a terminal", NULL},
    {"init", 0, CLI_BOOL, NULL, "Run an init as process 1 that reaps and forwards signals", NULL},
    {"read-only", 0, CLI_BOOL, NULL, "Make the root file system read-only", NULL},
    {"stop-signal", 0, CLI_STR, "SIGNAL", "Signal that asks it to end", NULL},
    {"stop-grace-period", 0, CLI_DURATION, NULL,
	"How long it may take to end before it is killed (default 10s)", NULL},
    {"oom-score-adj", 0, CLI_INT, NULL, "Its likelihood to be killed when memory is short (-1000 to 1000)",
	NULL},
    {"log-driver", 0, CLI_STR, "NAME", "How output is kept: json-file or none", NULL},
    {"log-opt", 0, CLI_LIST, "KEY=VALUE", "Options of that: max-size, max-file", NULL},
    {"cap-add", 0, CLI_LIST, "CAPABILITY", "Capabilities to give", NULL},
    {"cap-drop", 0, CLI_LIST, "CAPABILITY", "Capabilities to take away", NULL},
    /* health */
    {"health-cmd", 0, CLI_STR, "COMMAND", "Command that tells whether the task is healthy", NULL},
    {"health-interval", 0, CLI_DURATION, NULL, "Time between checks (default 30s)", NULL},
    {"health-timeout", 0, CLI_DURATION, NULL, "Longest time of a check (default 30s)", NULL},
    {"health-retries", 0, CLI_UINT, NULL, "Failures in a row that mean unhealthy (default 3)", NULL},
    {"health-start-period", 0, CLI_DURATION, NULL, "Time to start up in, when failures do not count", NULL},
    {"health-start-interval", 0, CLI_DURATION, NULL, "Time between checks in that period (default 5s)", NULL},
    {"no-healthcheck", 0, CLI_BOOL, NULL, "Do not run the image's health check", NULL},
    /* resources */
    {"limit-cpu", 0, CLI_CPUS, NULL, "CPUs that it may use", NULL},
    {"limit-memory", 0, CLI_SIZE, NULL, "Memory that it may use", NULL},
    {"limit-pids", 0, CLI_INT, NULL, "Processes that it may have; 0: no limit", NULL},
    {"reserve-cpu", 0, CLI_CPUS, NULL, "CPUs that its node must have to spare", NULL},
    {"reserve-memory", 0, CLI_SIZE, NULL, "Memory that its node must have to spare", NULL},
    {"replicas-max-per-node", 0, CLI_UINT, NULL, "Tasks that one node may have; 0: no limit", NULL},
    /* restarts, updates, rollbacks */
    {"restart-condition", 0, CLI_STR, NULL, "When a task that ended is replaced (default any)",
	"none|on-failure|any"},
    {"restart-delay", 0, CLI_DURATION, NULL, "Pause before that (default 5s)", NULL},
    {"restart-max-attempts", 0, CLI_UINT, NULL, "How often before giving up; 0: no limit", NULL},
    {"restart-window", 0, CLI_DURATION, NULL, "Time in which those attempts count", NULL},
    ROLL_FLAGS("update"),
    {"update-failure-action", 0, CLI_STR, NULL, "What to do when an update fails (default pause)",
	"pause|continue|rollback"},
    ROLL_FLAGS("rollback"),
    {"rollback-failure-action", 0, CLI_STR, NULL, "What to do when a rollback fails (default pause)",
	"pause|continue"},
    {"endpoint-mode", 0, CLI_STR, NULL, "One virtual address, or the tasks' own by DNS (default vip)",
	"vip|dnsrr"},
    {0}};

const struct cli_flag spec_create_flags[] = {
    {"name", 0, CLI_STR, "NAME", "The service's name (default: made up)", NULL},
    {"mode", 0, CLI_STR, NULL, "Default replicated", "replicated|global|replicated-job|global-job"},
    {"label", 'l', CLI_LIST, "KEY=VALUE", "Label of the service", NULL},
    {"container-label", 0, CLI_LIST, "KEY=VALUE", "Label of its containers", NULL},
    {"env", 'e', CLI_LIST, "KEY=VALUE", "Environment variable (without \"=\": this shell's)", NULL},
    {"env-file", 0, CLI_LIST, "FILE", "Environment variables, one a line", "file"},
    {"publish", 'p', CLI_LIST, "PORT",
	"[PUBLISHED:]TARGET[/PROTOCOL], or published=N,target=N,protocol=tcp,mode=host", NULL},
    {"mount", 0, CLI_LIST, "MOUNT",
	"type=bind,source=/a,target=/b[,readonly] or type=tmpfs,target=/b[,tmpfs-size=64m]", NULL},
    {"constraint", 0, CLI_LIST, "EXPRESSION", "Nodes that may run it: node.role==worker, node.labels.zone!=a",
	NULL},
    {"placement-pref", 0, CLI_LIST, "PREFERENCE",
	"Spread tasks over values of a label: spread=node.labels.zone", NULL},
    {"group", 0, CLI_LIST, "NAME|GID", "Further groups of the process", NULL},
    {"host", 0, CLI_LIST, "NAME:IP", "Lines of /etc/hosts", NULL},
    {"dns", 0, CLI_LIST, "IP", "Name servers", NULL},
    {"dns-search", 0, CLI_LIST, "DOMAIN", "Domains that names are searched in", NULL},
    {"dns-option", 0, CLI_LIST, "OPTION", "Options of the resolver", NULL},
    {"sysctl", 0, CLI_LIST, "KEY=VALUE", "Kernel settings of its namespaces", NULL},
    {"ulimit", 0, CLI_LIST, "NAME=SOFT[:HARD]", "Limits of the process", NULL},
    {"generic-resource", 0, CLI_LIST, "KIND=N", "Resources that its node must have to spare", NULL}, {0}};

#define ADD(name, value, help)                                                                               \
	{                                                                                                    \
		name "-add", 0, CLI_LIST, value, help, NULL                                                  \
	}
#define RM(name, value, help)                                                                                \
	{                                                                                                    \
		name "-rm", 0, CLI_LIST, value, help, NULL                                                   \
	}

const struct cli_flag spec_update_flags[] = {{"image", 0, CLI_STR, "IMAGE", "The image", "image"},
    {"args", 0, CLI_STR, "COMMAND", "The command's arguments", NULL},
    {"force", 0, CLI_BOOL, NULL, "Replace all tasks even if nothing changed", NULL},
    {"rollback", 0, CLI_BOOL, NULL, "Go back to the previous spec", NULL},
    ADD("label", "KEY=VALUE", "Set a label of the service"), RM("label", "KEY", "Remove one"),
    ADD("container-label", "KEY=VALUE", "Set a label of its containers"),
    RM("container-label", "KEY", "Remove one"), ADD("env", "KEY=VALUE", "Set an environment variable"),
    RM("env", "KEY", "Remove one"), ADD("publish", "PORT", "Publish a port, as with create's --publish"),
    RM("publish", "PORT", "Stop to, by target port"),
    ADD("mount", "MOUNT", "Add a mount, as with create's --mount"),
    RM("mount", "TARGET", "Remove one by its target"), ADD("constraint", "EXPRESSION", "Add a constraint"),
    RM("constraint", "EXPRESSION", "Remove one"), ADD("placement-pref", "PREFERENCE", "Add a preference"),
    RM("placement-pref", "PREFERENCE", "Remove one"), ADD("group", "NAME|GID", "Add a group"),
    RM("group", "NAME|GID", "Remove one"), ADD("host", "NAME:IP", "Add a line of /etc/hosts"),
    RM("host", "NAME[:IP]", "Remove one"), ADD("dns", "IP", "Add a name server"),
    RM("dns", "IP", "Remove one"), ADD("dns-search", "DOMAIN", "Add a search domain"),
    RM("dns-search", "DOMAIN", "Remove one"), ADD("dns-option", "OPTION", "Add an option of the resolver"),
    RM("dns-option", "OPTION", "Remove one"), ADD("sysctl", "KEY=VALUE", "Set a kernel setting"),
    RM("sysctl", "KEY", "Remove one"), ADD("ulimit", "NAME=SOFT[:HARD]", "Set a limit"),
    RM("ulimit", "NAME", "Remove one"), ADD("generic-resource", "KIND=N", "Add a resource"),
    RM("generic-resource", "KIND", "Remove one"), {0}};
