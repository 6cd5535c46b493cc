/* shoal service inspect, as JSON or for reading. */
#include "cli/api.h"
#include "cli/each.h"
#include "cli/out.h"
#include "cli/pretty.h"
#include "cli/service.h"

static int run_inspect(struct cli *c, struct err *e)
{
	if (!cli_bool(c, "pretty"))
		return each_inspect(c, "/services/", "?insertDefaults=true", e);
	json_t *found = json_array(), *o;
	size_t i;
	int status = each_get(c, "/services/", "?insertDefaults=true", found);
	json_array_foreach(found, i, o) pretty_service(o);
	json_decref(found);
	return status;
}

static const struct cli_flag flags[] = {
    OUT_FORMAT_FLAG, {"pretty", 0, CLI_BOOL, NULL, "Print what matters, for reading", NULL}, {0}};

const struct cli_cmd service_inspect_cmd = {
    .name = "inspect",
    .args = "SERVICE [SERVICE...]",
    .brief = "Show services as JSON, or for reading",
    .examples = "shoal service inspect --pretty web\n"
		"shoal service inspect -f '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web",
    .flags = flags,
    .min_args = 1,
    .max_args = -1,
    .kind = "service",
    .run = run_inspect,
};
