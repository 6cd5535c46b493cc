/* shoal inspect: anything by its name or id, tried kind by kind. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/out.h"

static const struct {
	const char *kind, *before, *after;
} kinds[] = {{"container", "/containers/", "/json"}, {"image", "/images/", "/json"},
    {"network", "/networks/", ""}, {"volume", "/volumes/", ""},
    {"service", "/services/", "?insertDefaults=true"}, {"task", "/tasks/", ""}, {"node", "/nodes/", ""},
    {"secret", "/secrets/", ""}, {"config", "/configs/", ""}};

static int find(struct cli *c, const char *name, json_t **ret, struct err *e)
{
	const char *kind = cli_str(c, "type");
	CLEANUP_FREE char *id = api_escape(name);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kind && !str_eq(kind, kinds[i].kind))
			continue;
		const char *after = i == 0 && cli_bool(c, "size") ? "/json?size=1" : kinds[i].after;
		int r = api_get(c, ret, e, "%s%s%s", kinds[i].before, id, after);
		/* 503: not a manager, so nothing of the cluster can be asked for here. */
		bool refused = r == ERR_UNAVAILABLE && str_has_prefix(e->text, "Error response");
		if (r == 0 || kind || (r != ERR_NOT_FOUND && !refused))
			return r;
	}
	return err_set(e, ERR_NOT_FOUND, "No such object: %s", name);
}

static int run_inspect(struct cli *c, struct err *e)
{
	json_t *found = json_array(), *o;
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		if (find(c, c->argv[i], &o, &one) < 0)
			status = cli_error(&one);
		else
			json_array_append_new(found, o);
	}
	int r = out_inspect(c, found, e);
	json_decref(found);
	return r ? r : status;
}

static const struct cli_flag flags[] = {OUT_FORMAT_FLAG,
    {"type", 0, CLI_STR, "KIND", "Look for this kind only",
	"container|image|network|volume|service|task|node|secret|config"},
    {"size", 's', CLI_BOOL, NULL, "Show what a container takes on disk", NULL}, {0}};

const struct cli_cmd cmd_inspect = {
    .name = "inspect",
    .args = "NAME|ID [NAME|ID...]",
    .brief = "Show anything as JSON: containers, images, networks, volumes, services, tasks, nodes, secrets, "
	     "configs",
    .examples = "shoal inspect web\n"
		"shoal inspect -f '{{.State.Status}}' 3f1c2b7a90de\n"
		"shoal inspect --type task 81i1onvxwvci",
    .flags = flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "any",
    .run = run_inspect,
};
