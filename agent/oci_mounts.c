/* Checking the mounts that a container asks for. What the spec will hold of them is in oci_spec.c. */
#include "agent/oci_spec.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"

static const char *const propagations[] = {"private", "rprivate", "shared", "rshared", "slave", "rslave"};

static bool wants(const Pb__ContainerMount *m, const char *plain, const char *recursive)
{
	return str_eq(m->propagation, plain) || str_eq(m->propagation, recursive);
}

/* Undoes the octal escapes of /proc/self/mountinfo in place. */
static void unescape(char *s)
{
	char *w = s;
	for (; *s; s++)
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*w++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*w++ = *s;
		}
	*w = '\0';
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	if (n == 1)
		return true;
	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* The mount point that `path` is on, and whether that mount is shared or (at least) a slave. */
static int mount_of(const char *path, char **ret_point, bool *ret_shared, bool *ret_slave, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	char real[PATH_MAX];
	if (!realpath(path, real))
		snprintf(real, sizeof(real), "%s", path);
	int r = fs_read("/proc/self/mountinfo", 16u * 1024 * 1024, &b, e);
	if (r < 0)
		return r;
	CLEANUP_FREE char *best = xstrdup("/");
	size_t best_len = 0;
	bool shared = false, slave = false;
	for (char *line = b.data, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		char *f = line, *point = NULL;
		for (int i = 0; f && i < 5; i++)
			point = strsep(&f, " ");
		if (!point || !f)
			continue;
		unescape(point);
		char *dash = strstr(f, " - ");
		if (dash)
			*dash = '\0';
		if (is_below(real, point) && strlen(point) >= best_len) {
			best_len = strlen(point);
			free(best);
			best = xstrdup(point);
			shared = strstr(f, "shared:") != NULL;
			slave = strstr(f, "master:") != NULL;
		}
	}
	*ret_point = TAKE_PTR(best);
	*ret_shared = shared;
	*ret_slave = slave;
	return 0;
}

static int check_propagation(const Pb__ContainerMount *m, struct err *e)
{
	if (str_empty(m->propagation))
		return 0;
	bool ok = false;
	for (size_t i = 0; i < ARRAY_LEN(propagations); i++)
		ok = ok || str_eq(m->propagation, propagations[i]);
	if (!ok)
		return err_set(e, ERR_INVALID,
		    "invalid mount config for type \"bind\": invalid propagation mode: %s", m->propagation);
	bool need_shared = wants(m, "shared", "rshared"), need_slave = wants(m, "slave", "rslave");
	if (!need_shared && !need_slave)
		return 0;
	CLEANUP_FREE char *point = NULL;
	bool shared, slave;
	int r = mount_of(m->source, &point, &shared, &slave, e);
	if (r < 0)
		return r;
	if (need_shared && !shared)
		return err_set(e, ERR_INVALID, "path %s is mounted on %s but it is not a shared mount",
		    m->source, point);
	if (need_slave && !shared && !slave)
		return err_set(e, ERR_INVALID,
		    "path %s is mounted on %s but it is not a shared or slave mount", m->source, point);
	return 0;
}

static int check_bind(const Pb__ContainerMount *m, struct err *e)
{
	struct stat st;
	if (str_empty(m->source))
		return err_set(
		    e, ERR_INVALID, "invalid mount config for type \"bind\": field Source must not be empty");
	if (m->source[0] != '/')
		return err_set(e, ERR_INVALID,
		    "invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be "
		    "absolute",
		    m->source);
	if (stat(m->source, &st) < 0)
		return err_set(e, ERR_INVALID,
		    "invalid mount config for type \"bind\": bind source path does not exist: %s", m->source);
	return check_propagation(m, e);
}

int oci_mounts_check(const Pb__ContainerConfig *c, struct err *e)
{
	for (size_t i = 0; i < c->n_mounts; i++) {
		const Pb__ContainerMount *m = c->mounts[i];
		int r = 0;
		if (str_empty(m->target))
			return err_set(e, ERR_INVALID,
			    "invalid mount config for type \"%s\": field Target must not be empty", m->type);
		if (m->target[0] != '/' || strcmp(m->target, "/") == 0)
			return err_set(e, ERR_INVALID,
			    "invalid mount config for type \"%s\": invalid mount path: '%s' mount path must "
			    "be absolute and "
			    "not /",
			    m->type, m->target);
		for (size_t k = 0; k < i; k++)
			if (strcmp(c->mounts[k]->target, m->target) == 0)
				return err_set(e, ERR_INVALID, "Duplicate mount point: %s", m->target);
		if (str_eq(m->type, "bind") || (str_eq(m->type, "volume") && !str_empty(m->source)))
			r = check_bind(m, e);
		else if (str_eq(m->type, "tmpfs"))
			r = m->tmpfs_size < 0
				? err_set(e, ERR_INVALID,
				      "invalid mount config for type \"tmpfs\": SizeBytes is negative")
				: 0;
		else
			r = err_set(e, ERR_NOT_IMPLEMENTED,
			    "mounts of type \"%s\" are not supported: use type \"bind\" or \"tmpfs\"",
			    m->type);
		if (r < 0)
			return r;
	}
	return 0;
}
