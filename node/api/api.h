/* The Engine API: routes, and what handlers need to read a request and answer it.
 *
 * A handler gets the data it was registered with and the request. It answers at once or later, with
 * http_reply*, http_start ... or http_hijack (proto/http.h); everything that api_* returns for a request
 * lives as long as the request. A handler that answers later sets http_on_closed and must not touch the
 * request after that was called. */
#ifndef NODE_API_API_H
#define NODE_API_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "node/api/deps.h"
#include "proto/http.h"
#include "proto/json.h"

#define API_VERSION_MAX "1.47"
#define API_VERSION_MIN "1.24"
#define API_MINOR_MAX   47
#define API_MINOR_MIN   24
/* What Server and Version show; docker's clients want something that looks like a version. */
#define API_ENGINE_VERSION SHOAL_VERSION

struct api;

/* Copies deps. All swarm resources are registered; containers, exec and images are added by their owners
 * (api_containers_register ... of their own headers) with api_route. */
struct api *api_new(const struct api_deps *deps);
void api_free(struct api *a);
const struct api_deps *api_deps(const struct api *a);
/* Options that serve this API: pass to http_server_new. */
struct http_server_opts api_http_opts(struct api *a);

typedef void (*api_handler)(void *data, struct http_req *r);

/* `pattern` is a path without version: "/services/{id}/update". {name} matches one part; {name...} one or
 * more parts, slashes included, as much as the rest of the pattern allows: "/images/{ref...}/json". Patterns
 * without parameters win over those with; of the others the one that was added first wins. Both `pattern` and
 * `method` are kept by reference. GET routes also answer HEAD (proto/http sends no body). */
void api_route(struct api *a, const char *method, const char *pattern, api_handler fn, void *data);
/* As api_route, but fn runs when the headers are there; it reads the body with http_stream_body (any length).
 */
void api_route_stream(struct api *a, const char *method, const char *pattern, api_handler fn, void *data);

/* Frees p with the api: for the data of routes. */
void api_own(struct api *a, void *p);

/* --- reading the request */
/* A path parameter, decoded; "" when the pattern has no such name. */
const char *api_param(const struct http_req *r, const char *name);
/* 24..47: the minor version of the path, the newest when it has none. */
unsigned api_minor(const struct http_req *r);
/* Go's lax booleans: false when absent, "", "0", "no", "false", "none" (any case); else true. */
bool api_bool_loose(const struct http_req *r, const char *key);
/* As api_bool_loose, but `dflt` when the parameter is absent. */
bool api_bool_loose_or(const struct http_req *r, const char *key, bool dflt);
/* strconv.ParseBool; absent or empty gives false; ERR_INVALID otherwise. */
int api_bool_strict(const struct http_req *r, const char *key, bool *ret, struct err *e);
/* The `version` parameter of updates; ERR_INVALID when missing or no number. */
int api_version_param(const struct http_req *r, uint64_t *ret, struct err *e);
/* A number of a query parameter; dflt when absent or empty. */
int api_int_param(const struct http_req *r, const char *key, int64_t dflt, int64_t *ret, struct err *e);
/* "unix seconds[.nanos]", RFC 3339 or a duration before now ("10m") -> unix ns; 0 when absent or empty. */
int api_time_param(struct api *a, const struct http_req *r, const char *key, int64_t *ret_ns, struct err *e);
/* The same of a text that came from elsewhere; `what` names it in the error. */
int api_time_value(struct api *a, const char *what, const char *v, int64_t *ret_ns, struct err *e);
/* The body as JSON. An empty body gives {}. ERR_INVALID when it is no JSON object or the content type is
 * there and is not application/json. New reference. */
int api_body_json(const struct http_req *r, json_t **ret, struct err *e);
/* The body as a message of the schema; free with protobuf_c_message_free_unpacked(m, NULL). */
int api_body_msg(const struct http_req *r, const ProtobufCMessageDescriptor *d, void *ret_msg, struct err *e);

/* --- filters: {"key":{"value":true}} and {"key":["value"]} */
struct api_filters {
	struct strlist keys;
	struct strlist *values; /* as many as keys */
};
#define API_FILTERS_INIT                                                                                     \
	{                                                                                                    \
		STRLIST_INIT, NULL                                                                           \
	}
#define CLEANUP_API_FILTERS __attribute__((cleanup(api_filters_done)))
/* `allowed` is a NULL-terminated list, NULL allows any key. ERR_INVALID "invalid filter 'x'". */
int api_filters_parse(
    const struct http_req *r, const char *const *allowed, struct api_filters *ret, struct err *e);
void api_filters_done(struct api_filters *f);
bool api_filters_has(const struct api_filters *f, const char *key);
/* The values of a key, or NULL. */
const struct strlist *api_filters_get(const struct api_filters *f, const char *key);
/* True when the key was not given, or when one of its values equals v / is a prefix of v / is contained in v.
 */
bool api_filters_match(const struct api_filters *f, const char *key, const char *v);
bool api_filters_match_prefix(const struct api_filters *f, const char *key, const char *v);
bool api_filters_match_substr(const struct api_filters *f, const char *key, const char *v);
/* Each value "k" or "k=v" must be among the labels. True when the key was not given. */
bool api_filters_match_labels(
    const struct api_filters *f, const char *key, Pb__KV *const *labels, size_t n_labels);
/* One boolean value ("true", "1", ...): 1 or 0; -1 when not given; ERR_INVALID otherwise. */
int api_filters_bool(const struct api_filters *f, const char *key, struct err *e);

/* --- answering */
/* {"message": ...} with the status of e's code. */
void api_reply_err(struct http_req *r, const struct err *e);
/* As err_set and api_reply_err. */
/* One object of a stream with its line end, in one chunk: docker-py takes a chunk for whole lines. Returns
 * what http_write does. */
size_t api_write_line(struct http_req *r, const json_t *o);
void api_reply_errf(struct http_req *r, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- managers */
/* The store, or NULL after an error reply was sent. */
struct store *api_store_or_reply(struct api *a, struct http_req *r);
/* Commits and answers. `t` is freed. On success it replies `status` with `body` (reference taken; NULL: no
 * body); on failure the error. Nothing more needs to be done for the request. */
void api_commit(struct api *a, struct http_req *r, struct txn *t, int status, json_t *body);

#endif
