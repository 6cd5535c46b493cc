/* Reading requests: booleans the ways Go's daemon takes them, numbers, times, bodies. */
#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "node/api/api.h"
#include "proto/pb.h"

static bool loose(const char *v)
{
	static const char *const no[] = {"", "0", "no", "false", "none"};
	while (isspace((unsigned char)*v))
		v++;
	size_t n = strlen(v);
	while (n > 0 && isspace((unsigned char)v[n - 1]))
		n--;
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (strlen(no[i]) == n && strncasecmp(v, no[i], n) == 0)
			return false;
	return true;
}

bool api_bool_loose(const struct http_req *r, const char *key)
{
	const char *v = http_query(r, key);
	return v && loose(v);
}

bool api_bool_loose_or(const struct http_req *r, const char *key, bool dflt)
{
	const char *v = http_query(r, key);
	return v ? loose(v) : dflt;
}

int api_bool_strict(const struct http_req *r, const char *key, bool *ret, struct err *e)
{
	static const char *const yes[] = {"1", "t", "T", "true", "True", "TRUE"}, *const no[] = {"", "0", "f",
										      "F", "false", "False",
										      "FALSE"};
	const char *v = str_or(http_query(r, key), "");
	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		if (strcmp(v, yes[i]) == 0) {
			*ret = true;
			return 0;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		if (strcmp(v, no[i]) == 0) {
			*ret = false;
			return 0;
		}
	}
	return err_set(e, ERR_INVALID, "invalid value for %s: \"%s\" is neither true nor false", key, v);
}

int api_version_param(const struct http_req *r, uint64_t *ret, struct err *e)
{
	const char *v = str_or(http_query(r, "version"), "");
	if (str_parse_u64(v, ret, NULL) != 0)
		return err_set(e, ERR_INVALID,
		    "invalid version '%s': the version of the object that the update is based on is needed",
		    v);
	return 0;
}

int api_int_param(const struct http_req *r, const char *key, int64_t dflt, int64_t *ret, struct err *e)
{
	const char *v = http_query(r, key);
	if (str_empty(v)) {
		*ret = dflt;
		return 0;
	}
	if (str_parse_i64(v, ret, NULL) != 0)
		return err_set(e, ERR_INVALID, "invalid value for %s: \"%s\" is no number", key, v);
	return 0;
}

/* "123" or "123.000000456" */
static int parse_unix(const char *v, int64_t *ret_ns)
{
	char whole[32];
	const char *dot = strchr(v, '.');
	size_t n = dot ? (size_t)(dot - v) : strlen(v);
	int64_t sec, ns = 0;
	if (n == 0 || n >= sizeof(whole))
		return ERR_INVALID;
	memcpy(whole, v, n);
	whole[n] = 0;
	if (str_parse_i64(whole, &sec, NULL) != 0 || sec < -9000000000 || sec > 9000000000)
		return ERR_INVALID;
	int64_t unit = NS_PER_SEC / 10;
	for (const char *p = dot ? dot + 1 : ""; *p; p++, unit /= 10) {
		if (!isdigit((unsigned char)*p))
			return ERR_INVALID;
		ns += (*p - '0') * unit;
	}
	*ret_ns = sec * NS_PER_SEC + (sec < 0 ? -ns : ns);
	return 0;
}

int api_time_param(struct api *a, const struct http_req *r, const char *key, int64_t *ret_ns, struct err *e)
{
	return api_time_value(a, key, http_query(r, key), ret_ns, e);
}

int api_time_value(struct api *a, const char *what, const char *v, int64_t *ret_ns, struct err *e)
{
	int64_t d;
	*ret_ns = 0;
	if (str_empty(v) || parse_unix(v, ret_ns) == 0 || str_parse_time(v, ret_ns, NULL) == 0)
		return 0;
	if (str_parse_duration(v, &d, NULL) == 0) {
		*ret_ns = clock_unix_ns(api_deps(a)->clock) - d;
		return 0;
	}
	return err_set(e, ERR_INVALID,
	    "invalid value for %s: \"%s\" is neither a unix time, nor RFC 3339, nor a duration", what, v);
}

int api_body_json(const struct http_req *r, json_t **ret, struct err *e)
{
	const struct buf *b = http_body(r);
	const char *type = http_header(r, "Content-Type");
	if (b->len && !str_empty(type)) {
		size_t n = strcspn(type, "; ");
		if (n != strlen("application/json") || strncasecmp(type, "application/json", n) != 0)
			return err_set(e, ERR_INVALID,
			    "unsupported Content-Type header (%s): must be 'application/json'", type);
	}
	json_t *j;
	int rc = json_parse(b->data ? b->data : "", b->len, &j, e);
	if (rc != 0)
		return rc;
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(e, ERR_INVALID, "the request body must be a JSON object");
	}
	*ret = j;
	return 0;
}

int api_body_msg(const struct http_req *r, const ProtobufCMessageDescriptor *d, void *ret_msg, struct err *e)
{
	json_t *j;
	int rc = api_body_json(r, &j, e);
	if (rc != 0)
		return rc;
	rc = json_to_msg(j, d, ret_msg, e);
	json_decref(j);
	return rc;
}
