/* Networks: the built-in ones are listed and can be looked at; making others waits for overlay networks. */
#include <string.h>

#include "base/mem.h"
#include "node/api/resources.h"

/* Every docker host has these; ids are fixed, since nothing of them is stored. They differ in the 12 digits
 * that clients show. */
static const struct builtin {
	const char *name, *driver, *id;
} builtins[] = {
    {"bridge", "bridge", "b101d9e00000000000000000000000000000000000000000000000000000000b"},
    {"host", "host", "b201d9e00000000000000000000000000000000000000000000000000000000b"},
    {"none", "null", "b301d9e00000000000000000000000000000000000000000000000000000000b"},
};

static json_t *network_json(const struct builtin *b)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:{s:s, s:n, s:[]}, s:b, s:b, s:b, s:{s:s}, s:b, "
			 "s:{}, s:{}, s:{}}",
	    "Name", b->name, "Id", b->id, "Created", "1970-01-01T00:00:00Z", "Scope", "local", "Driver",
	    b->driver, "EnableIPv6", 0, "IPAM", "Driver", "default", "Options", "Config", "Internal", 0,
	    "Attachable", 0, "Ingress", 0, "ConfigFrom", "Network", "", "ConfigOnly", 0, "Containers",
	    "Options", "Labels");
}

static bool matches(const struct api_filters *f, const struct builtin *b)
{
	return api_filters_match_prefix(f, "id", b->id) && api_filters_match_substr(f, "name", b->name) &&
	       api_filters_match(f, "driver", b->driver) && api_filters_match(f, "scope", "local") &&
	       api_filters_match(f, "type", "builtin") && !api_filters_has(f, "label");
}

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {
	    "dangling", "driver", "id", "label", "name", "scope", "type", NULL};
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	(void)data;
	if (api_filters_parse(r, allowed, &f, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	json_t *out = json_array();
	bool dangling = api_filters_bool(&f, "dangling", NULL) == 1; /* built-in ones never are */
	for (size_t i = 0; !dangling && i < ARRAY_LEN(builtins); i++)
		if (matches(&f, &builtins[i]))
			json_array_append_new(out, network_json(&builtins[i]));
	http_reply_json(r, 200, out);
}

/* By name, id, or what begins one id only. */
static const struct builtin *find(const char *ref)
{
	const struct builtin *begun = NULL;
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(builtins); i++) {
		if (strcmp(builtins[i].name, ref) == 0 || strcmp(builtins[i].id, ref) == 0)
			return &builtins[i];
		if (*ref && str_has_prefix(builtins[i].id, ref)) {
			begun = &builtins[i];
			n++;
		}
	}
	return n == 1 ? begun : NULL;
}

const char *api_network_id(const char *name)
{
	const struct builtin *b = find(name);
	return b ? b->id : "";
}

static void inspect(void *data, struct http_req *r)
{
	const struct builtin *b = find(api_param(r, "id"));
	const char *scope = http_query(r, "scope");
	(void)data;
	if (b && (str_empty(scope) || strcmp(scope, "local") == 0))
		http_reply_json(r, 200, network_json(b));
	else if (b && strcmp(scope, "swarm") == 0) /* clients ask so before they create a service */
		api_reply_errf(r, ERR_NOT_IMPLEMENTED,
		    "attaching services to networks (%s) is not supported by this version: they have the "
		    "bridge without being asked",
		    b->name);
	else
		api_reply_errf(r, ERR_NOT_FOUND, "network %s not found", api_param(r, "id"));
}

static void create(void *data, struct http_req *r)
{
	struct err e = ERR_INIT;
	json_t *j;
	(void)data;
	if (api_body_json(r, &j, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const char *name = str_or(json_string_value(json_get(j, "Name")), ""),
		   *driver = str_or(json_string_value(json_get(j, "Driver")), "bridge");
	if (find(name) || strcmp(name, "default") == 0)
		api_reply_errf(
		    r, ERR_FORBIDDEN, "operation is not permitted on predefined %s network ", name);
	else
		api_reply_errf(r, ERR_NOT_IMPLEMENTED,
		    "creating networks (driver \"%s\") is not supported by this version", driver);
	json_decref(j);
}

static void delete (void *data, struct http_req *r)
{
	const struct builtin *b = find(api_param(r, "id"));
	(void)data;
	if (b)
		api_reply_errf(
		    r, ERR_FORBIDDEN, "%s is a pre-defined network and cannot be removed", b->name);
	else
		api_reply_errf(r, ERR_NOT_FOUND, "network %s not found", api_param(r, "id"));
}

static void prune(void *data, struct http_req *r)
{
	(void)data;
	http_reply_json(r, 200, json_pack("{s:n}", "NetworksDeleted")); /* there are none to prune */
}

static void connect_container(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(
	    r, ERR_NOT_IMPLEMENTED, "connecting containers to networks is not supported by this version");
}

void api_networks_register(struct api *a)
{
	api_route(a, "GET", "/networks", list, a);
	api_route(a, "POST", "/networks/create", create, a);
	api_route(a, "POST", "/networks/prune", prune, a);
	api_route(a, "GET", "/networks/{id}", inspect, a);
	api_route(a, "DELETE", "/networks/{id}", delete, a);
	api_route(a, "POST", "/networks/{id}/connect", connect_container, a);
	api_route(a, "POST", "/networks/{id}/disconnect", connect_container, a);
}
