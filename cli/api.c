/* The Engine API on a kept connection: request, reply, errors. A kept connection that the daemon closed
 * meanwhile is dialled again, once. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"

static int code_of(int status)
{
	switch (status) {
	case 400:
		return ERR_INVALID;
	case 401:
		return ERR_UNAUTHORIZED;
	case 403:
		return ERR_FORBIDDEN;
	case 404:
		return ERR_NOT_FOUND;
	case 409:
		return ERR_CONFLICT;
	case 501:
		return ERR_NOT_IMPLEMENTED;
	case 503:
		return ERR_UNAVAILABLE;
	default:
		return ERR_INTERNAL;
	}
}

static int refused(const struct conn_reply *r, struct err *e)
{
	json_t *j = json_loadb(str_or(r->body.data, ""), r->body.len, 0, NULL);
	const char *text = json_string_value(json_object_get(j, "message"));
	int code;
	if (str_eq(text, "update out of sequence") || (text && strstr(text, "update out of sequence")))
		code = err_set(e, ERR_STALE, "Error response from daemon: %s", text);
	else if (!str_empty(text))
		code = err_set(e, code_of(r->status), "Error response from daemon: %s", text);
	else
		code = err_set(e, code_of(r->status),
		    "the daemon answered with status %d and no message: %.200s", r->status,
		    str_or(r->body.data, ""));
	json_decref(j);
	return code;
}

void api_close(struct cli *c)
{
	conn_free(c->conn);
	c->conn = NULL;
}

static int perform(struct cli *c, const struct conn_request *req, struct conn_reply *reply, struct err *e)
{
	for (bool again = c->conn != NULL;; again = false) {
		int r = c->conn ? 0 : conn_dial(c, &c->conn, e);
		if (r < 0)
			return r;
		r = conn_do(c->conn, req, reply, e);
		if (r == ERR_STALE && again && req->body_fd < 0) {
			buf_done(&reply->body);
			api_close(c);
			continue;
		}
		if (r || !conn_reusable(c->conn))
			if (!req->upgrade || r)
				api_close(c);
		return r;
	}
}

int api_call(struct cli *c, const char *method, const char *path, const struct api_opts *o, json_t **ret,
    bool *ret_framed, struct err *e)
{
	static const struct api_opts none;
	if (!o)
		o = &none;
	CLEANUP_FREE char *body = o->body ? json_dumps(o->body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	struct conn_request req = {.method = method,
	    .path = path,
	    .content_type = body ? "application/json" : o->body_type,
	    .body = body,
	    .body_len = body ? strlen(body) : 0,
	    .body_fd = o->body_type ? o->body_fd : -1,
	    .auth = o->auth,
	    .patience_ms = o->patience_ms,
	    .on_data = o->on_data,
	    .data = o->data};
	struct conn_reply reply = {0}; /* nothing comes when nobody answers */
	int r = perform(c, &req, &reply, e);
	if (r == 0 && reply.status >= 400)
		r = refused(&reply, e);
	if (r == 0 && ret_framed)
		*ret_framed = reply.framed;
	if (r == 0 && ret) {
		json_error_t je;
		json_t *j = reply.body.len ? json_loadb(reply.body.data, reply.body.len, JSON_DECODE_ANY, &je)
					   : json_null();
		if (j)
			*ret = j;
		else
			r = err_set(
			    e, ERR_IO, "the daemon's answer to %s %s is not JSON: %s", method, path, je.text);
	}
	buf_done(&reply.body);
	return r;
}

static int vcall(struct cli *c, const char *method, json_t *body, json_t **ret, struct err *e,
    const char *fmt, va_list ap) __attribute__((format(printf, 6, 0)));
static int vcall(
    struct cli *c, const char *method, json_t *body, json_t **ret, struct err *e, const char *fmt, va_list ap)
{
	CLEANUP_BUF struct buf path = BUF_INIT;
	buf_vprintf(&path, fmt, ap);
	return api_call(c, method, path.data, &(struct api_opts){.body = body}, ret, NULL, e);
}

int api_get(struct cli *c, json_t **ret, struct err *e, const char *path, ...)
{
	va_list ap;
	va_start(ap, path);
	int r = vcall(c, "GET", NULL, ret, e, path, ap);
	va_end(ap);
	return r;
}

int api_post(struct cli *c, json_t *body, json_t **ret, struct err *e, const char *path, ...)
{
	va_list ap;
	va_start(ap, path);
	int r = vcall(c, "POST", body, ret, e, path, ap);
	va_end(ap);
	return r;
}

int api_delete(struct cli *c, json_t **ret, struct err *e, const char *path, ...)
{
	va_list ap;
	va_start(ap, path);
	int r = vcall(c, "DELETE", NULL, ret, e, path, ap);
	va_end(ap);
	return r;
}

int api_upgrade(
    struct cli *c, const char *path, json_t *body, struct conn **ret, struct buf *rest, struct err *e)
{
	CLEANUP_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct conn_request req = {.method = "POST",
	    .path = path,
	    .content_type = text ? "application/json" : NULL,
	    .body = text,
	    .body_len = text ? strlen(text) : 0,
	    .body_fd = -1,
	    .upgrade = true};
	struct conn_reply reply = {0}; /* nothing comes when nobody answers */
	api_close(c);                  /* a connection of its own */
	int r = perform(c, &req, &reply, e);
	if (r == 0 && reply.status >= 300)
		r = refused(&reply, e);
	if (r < 0) {
		buf_done(&reply.body);
		return r;
	}
	*rest = reply.body;
	*ret = TAKE_PTR(c->conn);
	return 0;
}

char *api_escape(const char *s)
{
	return str_url_encode(s);
}

int api_filters(const struct strlist *given, json_t *fixed, char **ret, struct err *e)
{
	json_t *all = fixed ? json_deep_copy(fixed) : json_object();
	for (size_t i = 0; given && i < given->n; i++) {
		const char *eq = strchr(given->v[i], '=');
		if (!eq || eq == given->v[i]) {
			json_decref(all);
			return err_set(
			    e, ERR_INVALID, "filter \"%s\" is not of the form name=value", given->v[i]);
		}
		CLEANUP_FREE char *key = xstrndup(given->v[i], (size_t)(eq - given->v[i]));
		json_t *values = json_object_get(all, key);
		if (!values)
			json_object_set_new(all, key, values = json_array());
		json_array_append_new(values, json_string(eq + 1));
	}
	if (json_object_size(all)) {
		CLEANUP_FREE char *text = json_dumps(all, JSON_COMPACT);
		CLEANUP_FREE char *coded = api_escape(text);
		*ret = xasprintf("&filters=%s", coded);
	} else {
		*ret = xstrdup("");
	}
	json_decref(all);
	return 0;
}

json_t *jpath(const json_t *j, const char *path)
{
	char key[128];
	json_t *at = NULL;
	while (*path) {
		size_t n = strcspn(path, ".");
		if (n >= sizeof(key))
			return NULL;
		memcpy(key, path, n);
		key[n] = 0;
		at = json_object_get(j, key);
		if (!at || json_is_null(at))
			return NULL;
		j = at;
		path += n + (path[n] == '.');
	}
	return at;
}

const char *jstr(const json_t *j, const char *path)
{
	return str_or(json_string_value(jpath(j, path)), "");
}

int64_t jint(const json_t *j, const char *path)
{
	json_t *v = jpath(j, path);
	return json_is_real(v) ? (int64_t)json_real_value(v) : json_integer_value(v);
}

bool jbool(const json_t *j, const char *path)
{
	return json_is_true(jpath(j, path));
}

void jset(json_t *j, const char *path, json_t *value)
{
	char key[128];
	for (;;) {
		size_t n = strcspn(path, ".");
		n = n < sizeof(key) ? n : sizeof(key) - 1;
		memcpy(key, path, n);
		key[n] = 0;
		if (!path[n]) {
			json_object_set_new(j, key, value);
			return;
		}
		json_t *next = json_object_get(j, key);
		if (!json_is_object(next))
			json_object_set_new(j, key, next = json_object());
		j = next;
		path += n + 1;
	}
}
