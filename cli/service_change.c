/* shoal service create and update: flags to a spec, the image to a digest, and then the wait for convergence.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/auth.h"
#include "cli/service.h"
#include "cli/spec.h"

#define CONTAINER "TaskTemplate.ContainerSpec."

/* The credentials for the daemon, if --with-registry-auth; *ret is heap or NULL. */
static int credentials(struct cli *c, const json_t *spec, char **ret, struct err *e)
{
	*ret = NULL;
	return cli_bool(c, "with-registry-auth") ? auth_header(jstr(spec, CONTAINER "Image"), ret, e) : 0;
}

static int build_spec(struct cli *c, json_t *spec, struct err *e)
{
	int r;
	if (cli_given(c, "name"))
		jset(spec, "Name", json_string(cli_str(c, "name")));
	jset(spec, CONTAINER "Image", json_string(c->argv[0]));
	if (c->argc > 1) {
		json_t *args = json_array();
		for (int i = 1; i < c->argc; i++)
			json_array_append_new(args, json_string(c->argv[i]));
		jset(spec, CONTAINER "Args", args);
	}
	jset(spec, "EndpointSpec.Mode", json_string("vip"));
	if ((r = spec_set_mode(c, spec, true, e)) < 0 || (r = spec_set_scalars(c, spec, e)) < 0)
		return r;
	return spec_create_lists(c, spec, e);
}

static int run_create(struct cli *c, struct err *e)
{
	json_t *spec = json_object(), *reply = NULL;
	CLEANUP_FREE char *auth = NULL;
	int r = build_spec(c, spec, e);
	if (r == 0 && (r = credentials(c, spec, &auth, e)) == 0) {
		if (!cli_bool(c, "no-resolve-image"))
			spec_resolve_image(c, spec, auth, cli_bool(c, "quiet"));
		r = api_call(c, "POST", "/services/create", &(struct api_opts){.body = spec, .auth = auth},
		    &reply, NULL, e);
	}
	json_decref(spec);
	if (r < 0)
		return r;
	service_warnings(reply);
	CLEANUP_FREE char *id = xstrdup(jstr(reply, "ID"));
	json_decref(reply);
	puts(id);
	fflush(stdout);
	return service_wait(c, id, e);
}

const struct cli_cmd service_create_cmd = {
    .name = "create",
    .args = "IMAGE [COMMAND] [ARG...]",
    .brief = "Create a service",
    .examples =
	"shoal service create --name web --replicas 3 -p 80:8000 whoami:latest\n"
	"shoal service create --name cache --limit-memory 256m --mount "
	"type=bind,source=/srv/cache,target=/data redis:latest\n"
	"shoal service create --name agent --mode global --constraint node.platform.os==linux busybox:latest "
	"sleep 1d\n"
	"shoal service create --name db --health-cmd 'redis-cli ping' --health-interval 5s redis:latest\n"
	"shoal service create --name api -p published=8443,target=443,mode=host --restart-delay 1s api:1",
    .flags = spec_create_flags,
    .common = spec_flags,
    .min_args = 1,
    .max_args = -1,
    .stop_at_arg = true,
    .kind = "image",
    .run = run_create,
};

/* --- update -------------------------------------------------------------------------------------- */

static int change_spec(struct cli *c, json_t *spec, struct err *e)
{
	int r;
	if (cli_given(c, "image"))
		jset(spec, CONTAINER "Image", json_string(cli_str(c, "image")));
	if (cli_given(c, "args")) {
		json_t *words;
		if ((r = words_split(cli_str(c, "args"), &words, e)) < 0)
			return err_wrap(e, "--args");
		jset(spec, CONTAINER "Args", words);
	}
	if (cli_bool(c, "force"))
		jset(spec, "TaskTemplate.ForceUpdate",
		    json_integer(jint(spec, "TaskTemplate.ForceUpdate") + 1));
	if ((r = spec_set_mode(c, spec, false, e)) < 0 || (r = spec_set_scalars(c, spec, e)) < 0)
		return r;
	return spec_update_lists(c, spec, e);
}

/* Reads, changes, writes: once. *ret_raced: somebody else wrote in between. */
static int update_once(struct cli *c, const char *id, bool *ret_raced, struct err *e)
{
	json_t *s, *reply = NULL;
	CLEANUP_FREE char *auth = NULL;
	int r = api_get(c, &s, e, "/services/%s?insertDefaults=false", id);
	if (r < 0)
		return r;
	json_t *spec = json_object_get(s, "Spec");
	bool rollback = cli_bool(c, "rollback");
	if (rollback || (r = change_spec(c, spec, e)) == 0)
		r = credentials(c, spec, &auth, e);
	if (r == 0 && cli_given(c, "image") && !cli_bool(c, "no-resolve-image"))
		spec_resolve_image(c, spec, auth, cli_bool(c, "quiet"));
	if (r == 0) {
		CLEANUP_FREE char *path =
		    xasprintf("/services/%s/update?version=%lld&registryAuthFrom=spec%s", id,
			(long long)jint(s, "Version.Index"), rollback ? "&rollback=previous" : "");
		r = api_call(
		    c, "POST", path, &(struct api_opts){.body = spec, .auth = auth}, &reply, NULL, e);
		*ret_raced = r == ERR_STALE;
	}
	if (r == 0)
		service_warnings(reply);
	json_decref(reply);
	json_decref(s);
	return r;
}

static int run_update(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *id = api_escape(c->argv[0]);
	bool raced = true;
	int r = 0;
	/* The cluster itself writes to services (addresses, the state of an update): what was asked for holds
	 * on the newer one too. */
	for (int i = 0; i < 5 && raced; i++) {
		raced = false;
		r = update_once(c, id, &raced, e);
	}
	if (r < 0)
		return r;
	puts(c->argv[0]);
	fflush(stdout);
	return service_wait(c, c->argv[0], e);
}

const struct cli_cmd service_update_cmd = {
    .name = "update",
    .args = "SERVICE",
    .brief = "Change a service; its tasks are replaced a few at a time, where that needs it",
    .about = "Flags that are not given leave what there is. Lists have --x-add and --x-rm.",
    .examples =
	"shoal service update --image whoami:2 web\n"
	"shoal service update --update-parallelism 2 --update-delay 10s --update-order start-first web\n"
	"shoal service update --env-add LEVEL=debug --env-rm OLD web\n"
	"shoal service update --publish-rm 8000 --publish-add 8080:8000 web\n"
	"shoal service update --force web                         # replace all tasks",
    .flags = spec_update_flags,
    .common = spec_flags,
    .min_args = 1,
    .max_args = 1,
    .kind = "service",
    .run = run_update,
};
