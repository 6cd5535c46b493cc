/* The --mount syntax of services: comma-separated key=value. Bind mounts and tmpfs; the daemon refuses types
 * that it does not know. */
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/spec.h"

static int parse_switch(const char *key, const char *value, bool *ret, struct err *e)
{
	if (!value || str_eq(value, "true") || str_eq(value, "1"))
		*ret = true;
	else if (str_eq(value, "false") || str_eq(value, "0"))
		*ret = false;
	else
		return err_set(e, ERR_INVALID, "%s is true or false, not \"%s\"", key, value);
	return 0;
}

static int parse_mode(const char *s, int64_t *ret, struct err *e)
{
	int64_t v = 0;
	for (const char *p = s; *p; p++) {
		if (*p < '0' || *p > '7' || p - s > 5)
			return err_set(
			    e, ERR_INVALID, "tmpfs-mode is an octal number such as 1777, not \"%s\"", s);
		v = v * 8 + (*p - '0');
	}
	*ret = v;
	return 0;
}

static int parse_field(json_t *m, const char *key, const char *value, struct err *e)
{
	static const struct {
		const char *key, *path;
	} strings[] = {{"type", "Type"}, {"source", "Source"}, {"src", "Source"}, {"target", "Target"},
	    {"destination", "Target"}, {"dst", "Target"}, {"bind-propagation", "BindOptions.Propagation"}};
	int64_t n;
	bool b;
	int r;
	for (size_t i = 0; i < ARRAY_LEN(strings); i++)
		if (str_eq(key, strings[i].key)) {
			if (str_empty(value))
				return err_set(e, ERR_INVALID, "%s needs a value", key);
			jset(m, strings[i].path, json_string(value));
			return 0;
		}
	if (str_eq(key, "readonly") || str_eq(key, "ro")) {
		if ((r = parse_switch(key, value, &b, e)) == 0)
			jset(m, "ReadOnly", json_boolean(b));
		return r;
	}
	if (str_eq(key, "bind-nonrecursive")) {
		if ((r = parse_switch(key, value, &b, e)) == 0)
			jset(m, "BindOptions.NonRecursive", json_boolean(b));
		return r;
	}
	if (str_eq(key, "tmpfs-size")) {
		if ((r = str_parse_size(str_or(value, ""), &n, e)) == 0)
			jset(m, "TmpfsOptions.SizeBytes", json_integer(n));
		return r;
	}
	if (str_eq(key, "tmpfs-mode")) {
		if ((r = parse_mode(str_or(value, "x"), &n, e)) == 0)
			jset(m, "TmpfsOptions.Mode", json_integer(n));
		return r;
	}
	return err_set(e, ERR_INVALID,
	    "unknown key \"%s\": there are type, source, target, readonly, bind-propagation, "
	    "bind-nonrecursive, tmpfs-size, tmpfs-mode",
	    key);
}

static int check(const json_t *m, struct err *e)
{
	const char *type = jstr(m, "Type");
	if (!str_eq(type, "bind") && !str_eq(type, "tmpfs"))
		return err_set(
		    e, ERR_INVALID, "type=%s is not supported: write type=bind or type=tmpfs", type);
	if (!*jstr(m, "Target"))
		return err_set(e, ERR_INVALID, "target=PATH is missing");
	if (str_eq(type, "bind") && !*jstr(m, "Source"))
		return err_set(e, ERR_INVALID, "a bind mount needs source=PATH");
	if (str_eq(type, "bind") && jpath(m, "TmpfsOptions"))
		return err_set(e, ERR_INVALID, "tmpfs options on a bind mount");
	if (str_eq(type, "tmpfs") && (*jstr(m, "Source") || jpath(m, "BindOptions")))
		return err_set(e, ERR_INVALID, "a tmpfs has no source and no bind options");
	return 0;
}

int mount_parse(const char *s, json_t **ret, struct err *e)
{
	CLEANUP_STRLIST struct strlist fields = STRLIST_INIT;
	json_t *m = json_pack("{s:s}", "Type", "volume");
	int r = words_csv(s, &fields, e);
	for (size_t i = 0; i < fields.n && r == 0; i++) {
		char *value = strchr(fields.v[i], '=');
		if (value)
			*value++ = 0;
		r = parse_field(m, fields.v[i], value, e);
	}
	if (r == 0)
		r = check(m, e);
	if (r < 0) {
		json_decref(m);
		return err_wrap(e, "mount \"%s\"", s);
	}
	*ret = m;
	return 0;
}
