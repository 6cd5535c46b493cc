/* Flags of a service's spec that may be given again and again. Each list has a kind that says how an element
 * is written, kept, and found again by update's -rm; create's --x and update's --x-add are the same. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/ports.h"
#include "cli/spec.h"

#define CONTAINER    "TaskTemplate.ContainerSpec."
#define MAX_ENV_FILE (1u << 20)

enum kind {
	TEXT,  /* a list of strings */
	ENV,   /* a list of K=V, by K */
	MAP,   /* an object of strings */
	HOSTS, /* "name:ip" as "ip name" */
	PORTS,
	MOUNTS,  /* by target */
	ULIMITS, /* by name */
	PREFS,
	GENERIC, /* by kind */
};

static const struct list {
	const char *flag, *path;
	enum kind kind;
} lists[] = {{"label", "Labels", MAP}, {"container-label", CONTAINER "Labels", MAP},
    {"env", CONTAINER "Env", ENV}, {"publish", "EndpointSpec.Ports", PORTS},
    {"mount", CONTAINER "Mounts", MOUNTS}, {"constraint", "TaskTemplate.Placement.Constraints", TEXT},
    {"placement-pref", "TaskTemplate.Placement.Preferences", PREFS}, {"group", CONTAINER "Groups", TEXT},
    {"host", CONTAINER "Hosts", HOSTS}, {"dns", CONTAINER "DNSConfig.Nameservers", TEXT},
    {"dns-search", CONTAINER "DNSConfig.Search", TEXT}, {"dns-option", CONTAINER "DNSConfig.Options", TEXT},
    {"sysctl", CONTAINER "Sysctls", MAP}, {"ulimit", CONTAINER "Ulimits", ULIMITS},
    {"generic-resource", "TaskTemplate.Resources.Reservations.GenericResources", GENERIC}};

static json_t *target(json_t *spec, const struct list *l)
{
	json_t *t = jpath(spec, l->path);
	if (!t) {
		jset(spec, l->path, l->kind == MAP ? json_object() : json_array());
		t = jpath(spec, l->path);
	}
	return t;
}

/* Splits "key=value"; value is NULL without "=". */
static char *split(const char *s, char sep, const char **ret_value)
{
	const char *at = strchr(s, sep);
	*ret_value = at ? at + 1 : NULL;
	return at ? xstrndup(s, (size_t)(at - s)) : xstrdup(s);
}

/* Whether an element of a list is the one that `key` names. */
static bool is_named(enum kind kind, const json_t *item, const char *key)
{
	const char *s = json_string_value(item);
	size_t n = strlen(key);
	switch (kind) {
	case ENV:
		return s && strncmp(s, key, n) == 0 && (s[n] == '=' || !s[n]);
	case HOSTS: { /* NAME or NAME:IP of "IP NAME" */
		CLEANUP_FREE char *name = xstrndup(key, strcspn(key, ":"));
		const char *ip = key[strlen(name)] ? key + strlen(name) + 1 : NULL,
			   *space = s ? strchr(s, ' ') : NULL;
		return space && str_eq(space + 1, name) &&
		       (!ip || (strlen(ip) == (size_t)(space - s) && strncmp(s, ip, strlen(ip)) == 0));
	}
	case MOUNTS:
		return str_eq(jstr(item, "Target"), key);
	case ULIMITS:
		return str_eq(jstr(item, "Name"), key);
	case GENERIC:
		return str_eq(jstr(item, "DiscreteResourceSpec.Kind"), key) ||
		       str_eq(jstr(item, "NamedResourceSpec.Kind"), key);
	case PREFS:
		return str_has_prefix(key, "spread=") &&
		       str_eq(jstr(item, "Spread.SpreadDescriptor"), key + 7);
	default:
		return str_eq(s, key);
	}
}

static bool remove_named(json_t *list, enum kind kind, const char *key)
{
	bool any = false;
	for (size_t i = json_array_size(list); i-- > 0;)
		if (is_named(kind, json_array_get(list, i), key)) {
			json_array_remove(list, i);
			any = true;
		}
	return any;
}

/* --- adding -------------------------------------------------------------------------------------- */

static void add_env(json_t *list, const char *s)
{
	const char *value;
	CLEANUP_FREE char *key = split(s, '=', &value);
	const char *own = value ? NULL : getenv(key);
	CLEANUP_FREE char *text = own ? xasprintf("%s=%s", key, own) : xstrdup(s);
	remove_named(list, ENV, key);
	json_array_append_new(list, json_string(text));
}

static int add_env_file(json_t *list, const char *path, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	int r = fs_read(path, MAX_ENV_FILE, &b, e);
	if (r < 0)
		return r;
	strlist_split(&lines, b.len ? b.data : "", '\n');
	for (size_t i = 0; i < lines.n; i++) {
		char *s = lines.v[i] + strspn(lines.v[i], " \t");
		size_t n = strlen(s);
		if (n && s[n - 1] == '\r')
			s[n - 1] = 0;
		if (!*s || *s == '#')
			continue;
		if (strcspn(s, " \t") < strcspn(s, "="))
			return err_set(
			    e, ERR_INVALID, "%s line %zu: a variable's name has a space in it", path, i + 1);
		add_env(list, s);
	}
	return 0;
}

static int add_host(json_t *list, const char *s, struct err *e)
{
	const char *ip;
	CLEANUP_FREE char *name = split(s, ':', &ip);
	if (!*name || str_empty(ip))
		return err_set(e, ERR_INVALID, "\"%s\" is not of the form NAME:IP", s);
	CLEANUP_FREE char *text = xasprintf("%s %s", ip, name);
	remove_named(list, TEXT, text);
	json_array_append_new(list, json_string(text));
	return 0;
}

static int add_ulimit(json_t *list, const char *s, struct err *e)
{
	const char *value, *hard_text;
	int64_t soft, hard;
	CLEANUP_FREE char *name = split(s, '=', &value);
	CLEANUP_FREE char *soft_text = value ? split(value, ':', &hard_text) : NULL;
	if (!*name || !value || str_parse_i64(soft_text, &soft, NULL) < 0 ||
	    str_parse_i64(hard_text ? hard_text : soft_text, &hard, NULL) < 0)
		return err_set(e, ERR_INVALID, "\"%s\" is not of the form NAME=SOFT[:HARD]", s);
	if (soft > hard && hard >= 0)
		return err_set(e, ERR_INVALID, "\"%s\": the soft limit is above the hard one", s);
	remove_named(list, ULIMITS, name);
	json_array_append_new(list,
	    json_pack("{s:s, s:I, s:I}", "Name", name, "Soft", (json_int_t)soft, "Hard", (json_int_t)hard));
	return 0;
}

static int add_generic(json_t *list, const char *s, struct err *e)
{
	const char *value;
	int64_t n;
	CLEANUP_FREE char *kind = split(s, '=', &value);
	if (!*kind || !value || str_parse_i64(value, &n, NULL) < 0 || n < 1)
		return err_set(e, ERR_INVALID, "\"%s\" is not of the form KIND=N", s);
	remove_named(list, GENERIC, kind);
	json_array_append_new(
	    list, json_pack("{s:{s:s, s:I}}", "DiscreteResourceSpec", "Kind", kind, "Value", (json_int_t)n));
	return 0;
}

static int add_mount(json_t *list, const char *s, struct err *e)
{
	json_t *m;
	int r = mount_parse(s, &m, e);
	if (r < 0)
		return r;
	remove_named(list, MOUNTS, jstr(m, "Target"));
	json_array_append_new(list, m);
	return 0;
}

static int add_pref(json_t *list, const char *s, struct err *e)
{
	if (!str_has_prefix(s, "spread=") || !s[7])
		return err_set(
		    e, ERR_INVALID, "\"%s\" is not a preference: write spread=node.labels.NAME", s);
	json_array_append_new(list, json_pack("{s:{s:s}}", "Spread", "SpreadDescriptor", s + 7));
	return 0;
}

static int add_map(json_t *map, const char *flag, const char *s, struct err *e)
{
	const char *value;
	CLEANUP_FREE char *key = split(s, '=', &value);
	if (!*key || (!value && str_eq(flag, "sysctl")))
		return err_set(e, ERR_INVALID, "\"%s\" is not of the form key=value", s);
	json_object_set_new(map, key, json_string(value ? value : ""));
	return 0;
}

static int add_port(json_t *list, const char *s, struct err *e)
{
	json_t *more = json_array();
	int r = ports_parse(s, more, e);
	size_t i, k;
	json_t *p, *old;
	json_array_foreach(more, i, p)
	{
		bool there = false;
		json_array_foreach(list, k, old) there |= json_equal(old, p);
		if (!there)
			json_array_append(list, p);
	}
	json_decref(more);
	return r;
}

static int add_one(json_t *t, const struct list *l, const char *s, struct err *e)
{
	switch (l->kind) {
	case ENV:
		if (!*s || *s == '=')
			return err_set(e, ERR_INVALID, "\"%s\" has no name", s);
		add_env(t, s);
		return 0;
	case MAP:
		return add_map(t, l->flag, s, e);
	case HOSTS:
		return add_host(t, s, e);
	case PORTS:
		return add_port(t, s, e);
	case MOUNTS:
		return add_mount(t, s, e);
	case ULIMITS:
		return add_ulimit(t, s, e);
	case PREFS:
		return add_pref(t, s, e);
	case GENERIC:
		return add_generic(t, s, e);
	case TEXT:
		remove_named(t, TEXT, s);
		json_array_append_new(t, json_string(s));
		return 0;
	}
	return 0;
}

static int add_all(struct cli *c, json_t *spec, const struct list *l, const char *flag, struct err *e)
{
	const struct strlist *given = cli_list(c, flag);
	for (size_t i = 0; i < given->n; i++) {
		int r = add_one(target(spec, l), l, given->v[i], e);
		if (r < 0)
			return err_wrap(e, "--%s", flag);
	}
	return 0;
}

static int remove_all(struct cli *c, json_t *spec, const struct list *l, const char *flag, struct err *e)
{
	const struct strlist *given = cli_list(c, flag);
	for (size_t i = 0; i < given->n; i++) {
		json_t *t = target(spec, l);
		if (l->kind == PORTS) {
			int r = ports_remove(t, given->v[i], e);
			if (r < 0)
				return err_wrap(e, "--%s", flag);
		} else if (l->kind == MAP) {
			json_object_del(t, given->v[i]);
		} else {
			remove_named(t, l->kind, given->v[i]);
		}
	}
	return 0;
}

/* --- capabilities: adding one takes it off the other list, and the other way round --------------- */

static char *capability(const char *s)
{
	char *name = str_ieq(s, "all")            ? xstrdup("ALL")
		     : str_has_iprefix(s, "CAP_") ? xstrdup(s)
						  : xasprintf("CAP_%s", s);
	for (char *p = name; *p; p++)
		if (*p >= 'a' && *p <= 'z')
			*p = (char)(*p - 32);
	return name;
}

static void set_caps(struct cli *c, json_t *spec, const char *flag, const char *path, const char *other)
{
	const struct strlist *given = cli_list(c, flag);
	for (size_t i = 0; i < given->n; i++) {
		CLEANUP_FREE char *name = capability(given->v[i]);
		json_t *list = jpath(spec, path);
		if (!list) {
			jset(spec, path, json_array());
			list = jpath(spec, path);
		}
		remove_named(list, TEXT, name);
		remove_named(jpath(spec, other), TEXT, name);
		json_array_append_new(list, json_string(name));
	}
}

static void set_capabilities(struct cli *c, json_t *spec)
{
	set_caps(c, spec, "cap-drop", CONTAINER "CapabilityDrop", CONTAINER "CapabilityAdd");
	set_caps(c, spec, "cap-add", CONTAINER "CapabilityAdd", CONTAINER "CapabilityDrop");
}

int spec_create_lists(struct cli *c, json_t *spec, struct err *e)
{
	int r = 0;
	const struct strlist *files = cli_list(c, "env-file");
	for (size_t i = 0; i < files->n; i++) {
		if (!jpath(spec, CONTAINER "Env"))
			jset(spec, CONTAINER "Env", json_array());
		if ((r = add_env_file(jpath(spec, CONTAINER "Env"), files->v[i], e)) < 0)
			return err_wrap(e, "--env-file");
	}
	for (size_t i = 0; i < ARRAY_LEN(lists) && r == 0; i++)
		r = add_all(c, spec, &lists[i], lists[i].flag, e);
	set_capabilities(c, spec);
	return r;
}

int spec_update_lists(struct cli *c, json_t *spec, struct err *e)
{
	int r = 0;
	for (size_t i = 0; i < ARRAY_LEN(lists) && r == 0; i++) {
		char flag[64];
		snprintf(flag, sizeof(flag), "%s-rm", lists[i].flag);
		if ((r = remove_all(c, spec, &lists[i], flag, e)) == 0) {
			snprintf(flag, sizeof(flag), "%s-add", lists[i].flag);
			r = add_all(c, spec, &lists[i], flag, e);
		}
	}
	set_capabilities(c, spec);
	return r;
}
