/* The Engine API's core: routes, versions in paths, answers. See api.h.
 *
 * A request is matched as soon as its headers are there, since the route decides how its body is read. What
 * the match found lives in the request's scratch memory. */
#include "node/api/api.h"

#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/api/match.h"
#include "node/api/resources.h"

#define HEADERS                                                                                              \
	"Api-Version: " API_VERSION_MAX "\r\nDocker-Experimental: false\r\nOstype: linux\r\n"                \
	"Server: Docker/" API_ENGINE_VERSION " (linux)\r\n"

struct route {
	const char *method, *pattern;
	bool plain, stream; /* no parameters; reads its body itself */
	api_handler fn;
	void *data;
};
struct api {
	struct api_deps deps;
	struct route *routes;
	size_t n, cap;
	void **owned;
	size_t n_owned;
	struct rng_buffered rng;
};

static struct match *match_of(const struct http_req *r)
{
	return http_scratch((struct http_req *)r);
}

/* --- routes */

static void add_route(
    struct api *a, const char *method, const char *pattern, api_handler fn, void *data, bool stream)
{
	if (a->n == a->cap) {
		a->cap = a->cap ? a->cap * 2 : 128;
		a->routes = xreallocarray(a->routes, a->cap, sizeof(*a->routes));
	}
	a->routes[a->n++] = (struct route){.method = method,
	    .pattern = pattern,
	    .plain = strchr(pattern, '{') == NULL,
	    .stream = stream,
	    .fn = fn,
	    .data = data};
}

void api_route(struct api *a, const char *method, const char *pattern, api_handler fn, void *data)
{
	add_route(a, method, pattern, fn, data, false);
}

void api_route_stream(struct api *a, const char *method, const char *pattern, api_handler fn, void *data)
{
	add_route(a, method, pattern, fn, data, true);
}

static const struct route *find_route(struct api *a, const char *method, const char *path, struct match *m)
{
	if (strcmp(method, "HEAD") == 0)
		method = "GET";
	for (size_t i = 0; i < a->n; i++)
		if (a->routes[i].plain && strcmp(a->routes[i].pattern, path) == 0 &&
		    strcmp(a->routes[i].method, method) == 0)
			return &a->routes[i];
	for (size_t i = 0; i < a->n; i++)
		if (!a->routes[i].plain && strcmp(a->routes[i].method, method) == 0 &&
		    match_pattern(a->routes[i].pattern, path, m))
			return &a->routes[i];
	return NULL;
}

/* Finds route and version once; later calls see what was found. */
static void match_request(struct api *a, struct http_req *r)
{
	struct match *m = match_of(r);
	if (m->done)
		return;
	m->done = true;
	m->api = a;
	const char *path = http_path(r);
	m->version = match_version(&path, &m->minor);
	if (m->version == MATCH_OK)
		m->route = find_route(a, http_method(r), path, m);
}

static int64_t body_limit(void *data, struct http_req *r, struct err *e)
{
	struct match *m = match_of(r);
	(void)e;
	match_request(data, r);
	if (!m->route || !m->route->stream)
		return LIMIT_HTTP_JSON_BODY;
	http_stream_body(r, NULL, NULL);
	return INT64_MAX;
}

static void handle(void *data, struct http_req *r)
{
	struct match *m = match_of(r);
	char text[160];
	match_request(data, r);
	switch (m->version) {
	case MATCH_OLD: /* such old clients read plain text */
		snprintf(text, sizeof(text),
		    "client version 1.%u is too old. Minimum supported API version is " API_VERSION_MIN
		    ", please upgrade your client to a newer version\n",
		    m->minor);
		http_reply(r, 400, "text/plain; charset=utf-8", text, strlen(text));
		return;
	case MATCH_NEW:
		api_reply_errf(r, ERR_INVALID,
		    "client version 1.%u is too new. Maximum supported API version is " API_VERSION_MAX,
		    m->minor);
		return;
	case MATCH_OK:
		break;
	}
	if (m->route)
		m->route->fn(m->route->data, r);
	else
		api_reply_errf(r, ERR_NOT_FOUND, "page not found");
}

const char *api_param(const struct http_req *r, const char *name)
{
	const struct match *m = match_of(r);
	size_t n = strlen(name);
	for (unsigned i = 0; i < m->n_params; i++)
		if (m->params[i].name_len == n && strncmp(m->params[i].name, name, n) == 0)
			return m->text + m->params[i].value;
	return "";
}

unsigned api_minor(const struct http_req *r)
{
	return match_of(r)->minor;
}

/* --- life */

struct api *api_new(const struct api_deps *deps)
{
	struct api *a = NEW(struct api);
	_Static_assert(sizeof(struct match) <= HTTP_SCRATCH, "a match fits into a request's scratch memory");
	a->deps = *deps;
	a->deps.rng = rng_buffer(&a->rng, deps->rng);
	api_system_register(a);
	api_events_register(a);
	api_swarm_register(a);
	api_nodes_register(a);
	api_services_register(a);
	api_tasks_register(a);
	api_logs_register(a);
	api_secrets_register(a);
	api_configs_register(a);
	api_networks_register(a);
	api_volumes_register(a);
	return a;
}

void api_own(struct api *a, void *p)
{
	a->owned = xreallocarray(a->owned, a->n_owned + 1, sizeof(void *));
	a->owned[a->n_owned++] = p;
}

void api_free(struct api *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->n_owned; i++)
		free(a->owned[i]);
	free(a->owned);
	free(a->routes);
	free(a);
}

const struct api_deps *api_deps(const struct api *a)
{
	return &a->deps;
}

struct http_server_opts api_http_opts(struct api *a)
{
	return (struct http_server_opts){
	    .body_limit = body_limit, .handle = handle, .data = a, .headers = HEADERS};
}

/* --- answers */

void api_reply_err(struct http_req *r, const struct err *e)
{
	http_reply_err(r, e);
}

size_t api_write_line(struct http_req *r, const json_t *o)
{
	CLEANUP_FREE char *text = json_dumps(o, JSON_DUMP_FLAGS);
	ASSERT(text);
	size_t n = strlen(text);
	text[n] = '\n'; /* over the NUL */
	return http_write(r, text, n + 1);
}

void api_reply_errf(struct http_req *r, int code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	va_start(ap, fmt);
	err_vset(&e, code, fmt, ap);
	va_end(ap);
	api_reply_err(r, &e);
}

struct store *api_store_or_reply(struct api *a, struct http_req *r)
{
	struct err e = ERR_INIT;
	struct store *s = a->deps.manager.store(a->deps.manager.data, &e);
	if (!s)
		api_reply_err(r, &e);
	return s;
}

/* A request that waits for its transaction. */
struct commit {
	struct http_req *r; /* NULL once the client has gone */
	int status;
	json_t *body;
};

static void commit_gone(void *data)
{
	((struct commit *)data)->r = NULL;
}

static void committed(void *data, int status, const struct err *e)
{
	struct commit *c = data;
	if (!c->r)
		json_decref(c->body);
	else if (status != 0)
		api_reply_err(c->r, e);
	else if (c->body)
		http_reply_json(c->r, c->status, TAKE_PTR(c->body));
	else
		http_reply_empty(c->r, c->status);
	if (c->r && c->body)
		json_decref(c->body);
	free(c);
}

void api_commit(struct api *a, struct http_req *r, struct txn *t, int status, json_t *body)
{
	struct err e = ERR_INIT;
	struct commit *c = NEW(struct commit);
	c->r = r;
	c->status = status;
	c->body = body;
	if (a->deps.manager.propose(a->deps.manager.data, t, committed, c, &e) == 0) {
		http_on_closed(r, commit_gone, c);
	} else {
		api_reply_err(r, &e);
		json_decref(body);
		free(c);
	}
	txn_free(t);
}
