/* Errors that travel upwards with a code and a text.
 *
 * A function that can fail returns 0 or one of the negative codes below and, if its caller passed a
 * `struct err`, leaves the text there. Layers add context with err_wrap; whoever ends the chain logs
 * it or sends it to the user, once. `e` may be NULL everywhere. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

enum err_code {
	ERR_NONE = 0,
	ERR_INVALID = -1000, /* the caller's input is wrong (HTTP 400) */
	ERR_UNAUTHORIZED,    /* who are you (401) */
	ERR_FORBIDDEN,       /* known, but may not (403) */
	ERR_NOT_FOUND,       /* 404 */
	ERR_CONFLICT,        /* exists already, or wrong state for the request (409) */
	ERR_TOO_LARGE,       /* over a stated bound (413) */
	ERR_UNAVAILABLE,     /* not a manager, no quorum, closing, locked (503) */
	ERR_NOT_IMPLEMENTED, /* 501 */
	ERR_STALE,           /* "update out of sequence" (500, as Swarm does) */
	ERR_PRECONDITION,    /* in use, last manager ... (400) */
	ERR_CANCELLED,       /* closed or cancelled before it was done (500) */
	ERR_TIMEOUT,         /* a deadline passed (504 on the wire between nodes, 500 to users) */
	ERR_IO,              /* the system said no; text has the errno's words (500) */
	ERR_CORRUPT,         /* data on disk or from a peer does not decode (500) */
	ERR_INTERNAL,        /* anything else (500) */
};

struct err {
	int code;
	char text[768];
};

#define ERR_INIT                                                                                             \
	{                                                                                                    \
		0,                                                                                           \
		{                                                                                            \
			0                                                                                    \
		}                                                                                            \
	}

/* Sets code and text; returns `code`, so that `return err_set(e, ERR_INVALID, ...)` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_vset(struct err *e, int code, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* "<fmt>: <strerror(errnum)>" with ERR_NOT_FOUND for ENOENT, ERR_IO otherwise. Returns the code. */
int err_errno(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As err_errno for a libuv status (negative). */
int err_uv(struct err *e, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "<fmt>: " before the text that is there; keeps and returns the code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Copies; `to` may be NULL. Returns from->code. */
int err_copy(struct err *to, const struct err *from);

/* The static analyzer cannot see that these never return 0, and would follow paths that do not exist. */
#if defined(__clang_analyzer__) && !defined(ERR_IMPLEMENTATION)
#define err_set(e, code, ...) (err_set(e, code, __VA_ARGS__), (code))
#define err_errno(...)        (err_errno(__VA_ARGS__), ERR_IO)
#define err_uv(...)           (err_uv(__VA_ARGS__), ERR_IO)
#define err_wrap(...)         (err_wrap(__VA_ARGS__), ERR_INTERNAL)
#endif

/* The HTTP status that a code stands for (500 when in doubt). */
int err_http_status(int code);
/* A short word for a code ("invalid", "not found"), for logs. */
const char *err_code_name(int code);

#endif
