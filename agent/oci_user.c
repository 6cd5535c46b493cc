/* Users and groups by the image's own passwd and group files.
 *
 * A lookup never touches the host's databases. A numeric user without an entry is fine (uid as given, gid 0,
 * home "/"); a name without an entry is an error. Lines that do not parse are skipped, as libc does. */
#include "agent/oci_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define FILE_MAX   (1024u * 1024)
#define GROUPS_MAX 65536
#define ID_MAX_    INT32_MAX

/* Splits one line in place at ':' into at most n fields; returns how many. */
static size_t split_fields(char *line, char **f, size_t n)
{
	size_t i = 0;
	for (char *p = line; i < n;) {
		f[i++] = p;
		char *colon = strchr(p, ':');
		if (!colon || i == n)
			break;
		*colon = '\0';
		p = colon + 1;
	}
	return i;
}

/* The next line of *text as a heap string without newline, or NULL. */
static char *next_line(const char **text)
{
	const char *p = *text;
	if (!p || !*p)
		return NULL;
	size_t n = strcspn(p, "\n");
	*text = p[n] ? p + n + 1 : p + n;
	return xstrndup(p, n);
}

static bool parse_id(const char *s, uint32_t *ret)
{
	int64_t v;
	if (str_parse_i64(s, &v, NULL) < 0 || v < 0 || v > ID_MAX_)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* A number in `arg` matches an entry's id, so that "0" finds root's home and groups. */
static bool entry_matches(const char *arg, const char *name, uint32_t id)
{
	uint32_t n;
	return strcmp(arg, name) == 0 || (parse_id(arg, &n) && n == id);
}

static bool find_user(const char *text, const char *arg, struct oci_user *u, char **ret_name)
{
	char *line, *f[7];
	bool found = false;
	while (!found && (line = next_line(&text))) {
		uint32_t uid, gid;
		size_t n = split_fields(line, f, 7);
		if (n >= 4 && *f[0] && parse_id(f[2], &uid) && parse_id(f[3], &gid) &&
		    entry_matches(arg, f[0], uid)) {
			u->uid = uid;
			u->gid = gid;
			if (n >= 6 && *f[5]) {
				free(u->home);
				u->home = xstrdup(f[5]);
			}
			*ret_name = xstrdup(f[0]);
			found = true;
		}
		free(line);
	}
	return found;
}

static bool find_group(const char *text, const char *arg, uint32_t *ret_gid)
{
	char *line, *f[4];
	bool found = false;
	while (!found && (line = next_line(&text))) {
		if (split_fields(line, f, 4) >= 3 && *f[0] && parse_id(f[2], ret_gid))
			found = entry_matches(arg, f[0], *ret_gid);
		free(line);
	}
	return found;
}

static void add_group(struct oci_user *u, uint32_t gid)
{
	for (size_t i = 0; i < u->n_groups; i++)
		if (u->groups[i] == gid)
			return;
	if (u->n_groups >= GROUPS_MAX)
		return;
	u->groups = xreallocarray(u->groups, u->n_groups + 1, sizeof(*u->groups));
	u->groups[u->n_groups++] = gid;
}

static void add_memberships(struct oci_user *u, const char *text, const char *name)
{
	char *line, *f[4];
	while ((line = next_line(&text))) {
		uint32_t gid;
		if (split_fields(line, f, 4) == 4 && *f[0] && parse_id(f[2], &gid)) {
			char *rest = f[3], *member;
			while ((member = strsep(&rest, ",")))
				if (strcmp(member, name) == 0)
					add_group(u, gid);
		}
		free(line);
	}
}

static int lookup_group(const char *text, const char *arg, uint32_t *ret, struct err *e)
{
	if (find_group(text, arg, ret) || parse_id(arg, ret))
		return 0;
	return err_set(e, ERR_INVALID, "unable to find group %s: no matching entries in group file", arg);
}

int oci_user_resolve(const char *user, char *const *groups, size_t n_groups, const char *passwd_text,
    const char *group_text, struct oci_user *ret, struct err *e)
{
	struct oci_user u = {0};
	CLEANUP_FREE char *spec = xstrdup(str_or(user, ""));
	CLEANUP_FREE char *name = NULL;
	char *group = strchr(spec, ':');
	int r = 0;

	if (group)
		*group++ = '\0';
	u.home = xstrdup("/");
	if (!find_user(passwd_text, *spec ? spec : "0", &u, &name) && *spec && !parse_id(spec, &u.uid)) {
		r = err_set(
		    e, ERR_INVALID, "unable to find user %s: no matching entries in passwd file", spec);
		goto fail;
	}
	if (group && *group) {
		r = lookup_group(group_text, group, &u.gid, e);
		if (r < 0)
			goto fail;
	} else if (name) {
		add_memberships(&u, group_text, name);
	}
	for (size_t i = 0; i < n_groups; i++) {
		uint32_t gid;
		r = lookup_group(group_text, groups[i], &gid, e);
		if (r < 0)
			goto fail;
		add_group(&u, gid);
	}
	*ret = u;
	return 0;
fail:
	oci_user_done(&u);
	return r;
}

void oci_user_done(struct oci_user *u)
{
	free(u->groups);
	free(u->home);
	*u = (struct oci_user){0};
}

/* --- files of the image ------------------------------------------------------------------------------------
 */

static int open_in(int dir, const char *path, uint64_t flags)
{
	struct open_how how = {
	    .flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	while (*path == '/')
		path++;
	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* Overlayfs' whiteout is a character device 0:0. */
static bool is_whiteout(int dir, const char *path)
{
	CLEANUP_FREE char *part = xstrdup(path + (*path == '/'));
	for (char *slash = part;; slash++) {
		slash = strchr(slash, '/');
		if (slash)
			*slash = '\0';
		struct stat st;
		CLEANUP_CLOSE int fd = open_in(dir, part, O_PATH | O_NOFOLLOW);
		if (fd < 0)
			return false;
		if (fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0))
			return true;
		if (!slash)
			return false;
		*slash = '/';
	}
}

static char *read_regular(int fd)
{
	struct stat st;
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return NULL;
	buf_reserve(&b, (size_t)st.st_size + 1);
	while (b.len <= (size_t)st.st_size) {
		ssize_t n = read(fd, b.data + b.len, (size_t)st.st_size + 1 - b.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		b.len += (size_t)n;
	}
	b.data[b.len] = '\0';
	return buf_take(&b, NULL);
}

char *oci_read_image_file(char *const *dirs, size_t n_dirs, const char *path)
{
	for (size_t i = 0; i < n_dirs; i++) {
		CLEANUP_CLOSE int dir = open(dirs[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			continue;
		CLEANUP_CLOSE int fd = open_in(dir, path, O_RDONLY | O_NONBLOCK);
		if (fd >= 0)
			return read_regular(fd);
		if (is_whiteout(dir, path))
			return NULL;
	}
	return NULL;
}
