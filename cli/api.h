/* Calls of the Engine API. Paths are printf formats; use %s only with what api_escape gave. A refusal by the
 * daemon is an error with its message ("Error response from daemon: ...") and the code of its status: 404 is
 * ERR_NOT_FOUND. */
#ifndef CLI_API_H
#define CLI_API_H

#include <jansson.h>

#include "cli/cli.h"
#include "cli/conn.h"

/* `ret` gets a new reference (JSON null for an empty body) and may be NULL. `body` is borrowed, may be NULL.
 */
int api_get(struct cli *c, json_t **ret, struct err *e, const char *path, ...)
    __attribute__((format(printf, 4, 5)));
int api_post(struct cli *c, json_t *body, json_t **ret, struct err *e, const char *path, ...)
    __attribute__((format(printf, 5, 6)));
int api_delete(struct cli *c, json_t **ret, struct err *e, const char *path, ...)
    __attribute__((format(printf, 4, 5)));

struct api_opts {
	json_t *body; /* borrowed */
	int body_fd;  /* a file as body (0 is stdin); used when body_type is set */
	const char *body_type;
	const char *auth; /* X-Registry-Auth */
	int patience_ms;  /* longest wait for anything to come; 0: no bound. ERR_TIMEOUT after that. */
	int (*on_data)(void *data, const char *p, size_t n, struct err *e);
	void *data;
};
/* Any call. ret and ret_framed may be NULL. */
int api_call(struct cli *c, const char *method, const char *path, const struct api_opts *o, json_t **ret,
    bool *ret_framed, struct err *e);
/* A raw connection by upgrade: the caller frees it; `rest` has bytes that came with the headers. */
int api_upgrade(
    struct cli *c, const char *path, json_t *body, struct conn **ret, struct buf *rest, struct err *e);
/* Forgets the kept connection (closing it). */
void api_close(struct cli *c);

/* Percent-encoded, heap. */
char *api_escape(const char *s);
/* "&filters=..." (or "") from --filter values k=v and a fixed filter (NULL, or {"key": ["value"]}, borrowed);
 * heap. ERR_INVALID for one without "=". */
int api_filters(const struct strlist *given, json_t *fixed, char **ret, struct err *e);

/* Strings and numbers along a path of keys "Spec.Labels" (no dots inside keys); "" / 0 / NULL when absent.
 * Borrowed. */
json_t *jpath(const json_t *j, const char *path);
const char *jstr(const json_t *j, const char *path);
int64_t jint(const json_t *j, const char *path);
bool jbool(const json_t *j, const char *path);
/* Sets a value (taken) along a path, making objects on the way. */
void jset(json_t *j, const char *path, json_t *value);

#endif
