/* Volumes: there are none before volumes are supported; the lists say so, creating is refused. */
#include "node/api/resources.h"

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {"dangling", "driver", "label", "name", NULL};
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	(void)data;
	if (api_filters_parse(r, allowed, &f, &e) != 0)
		api_reply_err(r, &e);
	else
		http_reply_json(r, 200, json_pack("{s:[], s:n}", "Volumes", "Warnings"));
}

static void inspect(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_FOUND, "get %s: no such volume", api_param(r, "name"));
}

static void create(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(
	    r, ERR_NOT_IMPLEMENTED, "volumes are not supported by this version: use bind or tmpfs mounts");
}

static void prune(void *data, struct http_req *r)
{
	(void)data;
	http_reply_json(r, 200, json_pack("{s:[], s:i}", "VolumesDeleted", "SpaceReclaimed", 0));
}

void api_volumes_register(struct api *a)
{
	api_route(a, "GET", "/volumes", list, a);
	api_route(a, "POST", "/volumes/create", create, a);
	api_route(a, "POST", "/volumes/prune", prune, a);
	api_route(a, "GET", "/volumes/{name}", inspect, a);
	api_route(a, "DELETE", "/volumes/{name}", inspect, a);
}
