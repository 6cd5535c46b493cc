/* Errors with a code and a text. Texts that do not fit are cut; codes never are. */
#define ERR_IMPLEMENTATION
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

/* Formats beside and copies, because callers may pass e->text itself as an argument. */
int err_vset(struct err *e, int code, const char *fmt, va_list ap)
{
	if (!e)
		return code;
	char tmp[sizeof(e->text)];
	vsnprintf(tmp, sizeof(tmp), fmt, ap);
	e->code = code;
	memcpy(e->text, tmp, strlen(tmp) + 1);
	return code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	err_vset(e, code, fmt, ap);
	va_end(ap);
	return code;
}

static void append_text(struct err *e, const char *s)
{
	size_t len = strlen(e->text);
	snprintf(e->text + len, sizeof(e->text) - len, "%s", s);
}

__attribute__((format(printf, 4, 0))) static int set_with_reason(
    struct err *e, int code, const char *reason, const char *fmt, va_list ap)
{
	err_vset(e, code, fmt, ap);
	if (e) {
		append_text(e, ": ");
		append_text(e, reason);
	}
	return code;
}

int err_errno(struct err *e, int errnum, const char *fmt, ...)
{
	char reason[128];
	const char *r = strerror_r(errnum, reason, sizeof(reason));
	va_list ap;
	va_start(ap, fmt);
	int code = set_with_reason(e, errnum == ENOENT ? ERR_NOT_FOUND : ERR_IO, r, fmt, ap);
	va_end(ap);
	return code;
}

int err_uv(struct err *e, int status, const char *fmt, ...)
{
	char reason[128];
	uv_strerror_r(status, reason, sizeof(reason));
	int code = status == UV_ENOENT      ? ERR_NOT_FOUND
		   : status == UV_ECANCELED ? ERR_CANCELLED
		   : status == UV_ETIMEDOUT ? ERR_TIMEOUT
					    : ERR_IO;
	va_list ap;
	va_start(ap, fmt);
	set_with_reason(e, code, reason, fmt, ap);
	va_end(ap);
	return code;
}

/* Without a code to keep (e is NULL or was never set) the result is still an error, so that
 * `return err_wrap(e, ...)` can never turn a failure into success. */
int err_wrap(struct err *e, const char *fmt, ...)
{
	if (!e)
		return ERR_INTERNAL;
	char before[sizeof(e->text)];
	memcpy(before, e->text, sizeof(before));
	int code = e->code ? e->code : ERR_INTERNAL;
	va_list ap;
	va_start(ap, fmt);
	set_with_reason(e, code, before, fmt, ap);
	va_end(ap);
	return code;
}

int err_copy(struct err *to, const struct err *from)
{
	if (to && to != from)
		*to = *from;
	return from->code;
}

int err_http_status(int code)
{
	switch (code) {
	case ERR_NONE:
		return 200;
	case ERR_INVALID:
	case ERR_PRECONDITION:
		return 400;
	case ERR_UNAUTHORIZED:
		return 401;
	case ERR_FORBIDDEN:
		return 403;
	case ERR_NOT_FOUND:
		return 404;
	case ERR_CONFLICT:
		return 409;
	case ERR_TOO_LARGE:
		return 413;
	case ERR_UNAVAILABLE:
		return 503;
	case ERR_NOT_IMPLEMENTED:
		return 501;
	default:
		return 500;
	}
}

const char *err_code_name(int code)
{
	switch (code) {
	case ERR_NONE:
		return "none";
	case ERR_INVALID:
		return "invalid";
	case ERR_UNAUTHORIZED:
		return "unauthorized";
	case ERR_FORBIDDEN:
		return "forbidden";
	case ERR_NOT_FOUND:
		return "not found";
	case ERR_CONFLICT:
		return "conflict";
	case ERR_TOO_LARGE:
		return "too large";
	case ERR_UNAVAILABLE:
		return "unavailable";
	case ERR_NOT_IMPLEMENTED:
		return "not implemented";
	case ERR_STALE:
		return "stale";
	case ERR_PRECONDITION:
		return "precondition";
	case ERR_CANCELLED:
		return "cancelled";
	case ERR_TIMEOUT:
		return "timeout";
	case ERR_IO:
		return "io";
	case ERR_CORRUPT:
		return "corrupt";
	default:
		return "internal";
	}
}
