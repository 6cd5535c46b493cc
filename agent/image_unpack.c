/* Unpacking one layer.
 *
 * The tar's author is not trusted, and we are root: every name is taken apart first (no "..", no name that
 * would be a forged whiteout), its parent is opened with openat2(RESOLVE_IN_ROOT), so that links lead nowhere
 * but into the layer itself, and the last part is never followed: what is there is removed and the new thing
 * created with O_EXCL or by a call that does not follow. Nobody else writes into the directory meanwhile, so
 * there is nothing to race.
 *
 * Whiteouts become what overlayfs wants: ".wh.NAME" a character device 0:0 called NAME, ".wh..wh..opq" the
 * attribute trusted.overlay.opaque. They speak of the layers below only, whatever the order of entries in the
 * archive.
 *
 * Failing: a name, a link or an attribute that must not be (ERR_INVALID), damage (ERR_CORRUPT, also when the
 * digest is wrong at the end), a full disk (ERR_IO, before it is full to the brim). The caller removes the
 * directory. */
#include "agent/image_unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#define OPAQUE            "trusted.overlay.opaque"
#define WHITEOUT          ".wh."
#define WHITEOUT_META     ".wh..wh."
#define WHITEOUT_OPAQUE   ".wh..wh..opq"
#define SPACE_CHECK_EVERY (8ll * 1024 * 1024)
#define MAX_TAIL          (16ll * 1024 * 1024) /* bytes after the end of the tar */
#define MAX_XATTRS        256

/* A directory's time is set when nothing more is put into it. */
struct dir_time {
	char *path;
	struct timespec mtime;
};

struct unpacker {
	const struct unpack_opts *o;
	struct image_stream *stream;
	struct archive *tar;
	struct err *e;
	struct err stream_err;
	int root;
	int parent; /* the directory of the last entry; -1: none */
	char *parent_path;
	struct dir_time *dirs;
	size_t n_dirs, cap_dirs;
	int64_t size, entries, unchecked;
};

/* --- names */

static bool is_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static int bad_entry(struct unpacker *u, const char *path, const char *why)
{
	return err_set(u->e, ERR_INVALID, "%s: entry \"%.300s\" %s", u->o->what, path, why);
}

static int sys_failed(struct unpacker *u, const char *path, const char *doing)
{
	int why = errno;
	err_errno(u->e, why, "%s: cannot %s \"%.300s\"", u->o->what, doing, path);
	if (u->e)
		u->e->code = ERR_IO; /* not ERR_NOT_FOUND: nobody asked for this name */
	return ERR_IO;
}

/* Makes "usr/bin/x" of "./usr//bin/x" and "/usr/bin/x"; "" is the root itself. */
static int clean_path(struct unpacker *u, const char *raw, char out[PATH_MAX])
{
	size_t n = 0;
	out[0] = 0;
	for (const char *p = raw; *p;) {
		size_t len = strcspn(p, "/");
		if (len == 2 && p[0] == '.' && p[1] == '.')
			return bad_entry(u, raw, "leads out of the layer (\"..\")");
		if (len > 0 && !(len == 1 && p[0] == '.')) {
			if (n + len + 2 > PATH_MAX)
				return bad_entry(u, raw, "has a name that is too long");
			if (n)
				out[n++] = '/';
			memcpy(out + n, p, len);
			n += len;
			out[n] = 0;
		}
		p += len;
		p += strspn(p, "/");
	}
	return 0;
}

/* True when some part of the path but the last starts with ".wh.". */
static bool below_whiteout(const char *path, const char *prefix)
{
	for (const char *p = path, *slash; (slash = strchr(p, '/')); p = slash + 1)
		if (str_has_prefix(p, prefix))
			return true;
	return false;
}

/* --- directories */

static int open_in_root(int root, const char *path)
{
	struct open_how how = {
	    .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK,
	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	for (int tries = 0;; tries++) {
		long fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		/* The kernel says so when something was renamed anywhere at that moment. */
		if (errno != EAGAIN || tries > 100)
			return -errno;
	}
}

static void forget_parent(struct unpacker *u)
{
	if (u->parent >= 0)
		close(u->parent);
	u->parent = -1;
	free(u->parent_path);
	u->parent_path = NULL;
}

/* A new directory that hides what the layers below have there, or does not. */
static int make_dir(struct unpacker *u, int parent, const char *name, const char *path, bool opaque)
{
	if (mkdirat(parent, name, 0755) < 0 || fchmodat(parent, name, 0755, 0) < 0)
		return sys_failed(u, path, "create directory");
	if (!opaque)
		return 0;
	CLEANUP_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fsetxattr(fd, OPAQUE, "y", 1, 0) < 0)
		return sys_failed(u, path, "mark as opaque");
	return 0;
}

/* Opens the directory `path`, creating what is missing of it. */
static int make_parents(struct unpacker *u, const char *path, int *ret_fd)
{
	char part[PATH_MAX];
	int at = open_in_root(u->root, "");
	if (at < 0) {
		errno = -at;
		return sys_failed(u, ".", "open");
	}
	for (size_t end = 0; path[end];) {
		size_t start = end ? end + 1 : 0;
		end = start + strcspn(path + start, "/");
		memcpy(part, path, end);
		part[end] = 0;
		int next = open_in_root(u->root, part);
		struct stat st;
		if (next == -ENOENT || next == -ENOTDIR) {
			const char *name = part + start;
			bool there = fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
			bool covered = there && is_whiteout(&st);
			int rc = 0;
			if (covered && unlinkat(at, name, 0) < 0)
				rc = sys_failed(u, part, "replace");
			else if (there && !covered)
				rc = bad_entry(u, path,
				    S_ISLNK(st.st_mode)
					? "has a parent that is a link to nowhere in this layer"
					: "has a parent that is not a directory");
			else
				rc = make_dir(u, at, name, part, covered);
			if (rc < 0) {
				close(at);
				return rc;
			}
			next = open_in_root(u->root, part);
		}
		close(at);
		if (next < 0) {
			errno = -next;
			return sys_failed(u, part, "open");
		}
		at = next;
	}
	*ret_fd = at;
	return 0;
}

/* Makes u->parent the directory of `path` and gives the last part's name. */
static int enter_parent(struct unpacker *u, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	*ret_name = slash ? slash + 1 : path;
	if (u->parent >= 0 && strlen(u->parent_path) == len && memcmp(u->parent_path, path, len) == 0)
		return 0;
	forget_parent(u);
	char *dir = xstrndup(path, len);
	int fd = open_in_root(u->root, dir);
	int rc = fd >= 0 ? 0 : make_parents(u, dir, &fd);
	if (rc < 0) {
		free(dir);
		return rc;
	}
	u->parent = fd;
	u->parent_path = dir;
	return 0;
}

/* Removes whatever has the name, so that something else may take it. */
static int clear_name(struct unpacker *u, const char *name, const char *path)
{
	if (unlinkat(u->parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return sys_failed(u, path, "replace");
	CLEANUP_FREE char *full = xasprintf("/proc/self/fd/%d/%s", u->parent, name);
	struct err why = ERR_INIT;
	if (fs_remove_tree(full, &why) < 0)
		return err_set(u->e, ERR_IO, "%s: cannot replace \"%.300s\": %s", u->o->what, path, why.text);
	return 0;
}

/* --- attributes */

static bool xattr_allowed(const char *name)
{
	return (str_has_prefix(name, "trusted.") && !str_has_prefix(name, "trusted.overlay.")) ||
	       str_has_prefix(name, "user.") || str_has_prefix(name, "security.") ||
	       str_eq(name, "system.posix_acl_access") || str_eq(name, "system.posix_acl_default");
}

static int set_xattrs(struct unpacker *u, struct archive_entry *entry, const char *name, const char *path)
{
	int n = archive_entry_xattr_reset(entry);
	if (n == 0)
		return 0;
	if (n > MAX_XATTRS)
		return bad_entry(u, path, "has too many extended attributes");
	CLEANUP_FREE char *full = xasprintf("/proc/self/fd/%d/%s", u->parent, name);
	const char *key;
	const void *value;
	size_t size;
	while (archive_entry_xattr_next(entry, &key, &value, &size) == ARCHIVE_OK) {
		if (str_has_prefix(key, "user.overlay.") || !xattr_allowed(key)) {
			CLEANUP_FREE char *why = xasprintf(
			    "has the extended attribute \"%.100s\", which an image may not set", key);
			return bad_entry(u, path, why);
		}
		/* As other engines: what the file system has no room for in its design is left out, and
		 * user.* is not for links and devices. */
		if (lsetxattr(full, key, value ? value : "", size, 0) < 0 && errno != ENOTSUP &&
		    errno != EPERM)
			return sys_failed(u, path, "set extended attributes of");
	}
	return 0;
}

static struct timespec entry_time(struct archive_entry *entry)
{
	struct timespec t = {.tv_nsec = UTIME_OMIT};
	if (archive_entry_mtime_is_set(entry)) {
		t.tv_sec = archive_entry_mtime(entry);
		t.tv_nsec = archive_entry_mtime_nsec(entry);
		if (t.tv_nsec < 0 || t.tv_nsec > 999999999)
			t.tv_nsec = 0;
	}
	return t;
}

/* Owner first: changing it takes away set-user-id bits and capabilities. */
static int set_attributes(struct unpacker *u, struct archive_entry *entry, const char *name, const char *path)
{
	la_int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);
	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return bad_entry(u, path, "has an owner that no system knows");
	if (fchownat(u->parent, name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0)
		return sys_failed(u, path, "set the owner of");
	bool link = archive_entry_filetype(entry) == AE_IFLNK;
	if (!link && fchmodat(u->parent, name, archive_entry_perm(entry) & 07777, 0) < 0)
		return sys_failed(u, path, "set the mode of");
	int rc = set_xattrs(u, entry, name, path);
	if (rc < 0 || archive_entry_filetype(entry) == AE_IFDIR)
		return rc;
	struct timespec times[2] = {entry_time(entry), entry_time(entry)};
	if (utimensat(u->parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return sys_failed(u, path, "set the time of");
	return 0;
}

static void note_dir_time(struct unpacker *u, struct archive_entry *entry, const char *path)
{
	struct timespec t = entry_time(entry);
	if (t.tv_nsec == UTIME_OMIT)
		return;
	if (u->n_dirs == u->cap_dirs) {
		u->cap_dirs = u->cap_dirs ? u->cap_dirs * 2 : 64;
		u->dirs = xreallocarray(u->dirs, u->cap_dirs, sizeof(*u->dirs));
	}
	u->dirs[u->n_dirs++] = (struct dir_time){xstrdup(path), t};
}

static int set_dir_times(struct unpacker *u)
{
	for (size_t i = 0; i < u->n_dirs; i++) {
		const struct dir_time *d = &u->dirs[i];
		const char *name;
		int rc = enter_parent(u, d->path, &name);
		if (rc < 0)
			return rc;
		struct stat st;
		/* It may have been replaced later in the archive. */
		if (*name && (fstatat(u->parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)))
			continue;
		struct timespec times[2] = {d->mtime, d->mtime};
		if (utimensat(u->parent, *name ? name : ".", times, AT_SYMLINK_NOFOLLOW) < 0)
			return sys_failed(u, d->path, "set the time of");
	}
	return 0;
}

/* --- kinds of entries */

static int tar_failed(struct unpacker *u, const char *path)
{
	if (u->stream_err.code)
		return err_copy(u->e, &u->stream_err);
	const char *why = archive_error_string(u->tar);
	return err_set(u->e, ERR_CORRUPT, "%s is corrupt%s%.300s%s: %s", u->o->what, *path ? " at \"" : "",
	    path, *path ? "\"" : "", why ? why : "damaged tar");
}

static bool cancelled(const struct unpacker *u)
{
	return u->o->cancelled && atomic_load_explicit(u->o->cancelled, memory_order_relaxed);
}

static int write_data(struct unpacker *u, int fd, const char *path, int64_t declared)
{
	int64_t end = 0;
	for (;;) {
		const void *p;
		size_t n;
		la_int64_t at;
		int rc = archive_read_data_block(u->tar, &p, &n, &at);
		if (rc == ARCHIVE_EOF)
			break;
		if (rc < ARCHIVE_WARN)
			return tar_failed(u, path);
		if (cancelled(u))
			return err_set(u->e, ERR_CANCELLED, "cancelled");
		if (at < 0 || at > UNPACK_MAX_FILE_SIZE || (int64_t)n > UNPACK_MAX_FILE_SIZE - at)
			return bad_entry(u, path, "is too large");
		for (const char *q = p; n;) {
			ssize_t w = pwrite(fd, q, n, at);
			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0)
				return sys_failed(u, path, "write");
			q += w;
			at += w;
			n -= (size_t)w;
			u->unchecked += w;
		}
		end = at > end ? at : end;
		if (u->unchecked >= SPACE_CHECK_EVERY) {
			u->unchecked = 0;
			int full = image_check_space(fd, u->o->what, u->e);
			if (full < 0)
				return full;
			if (u->o->progress)
				u->o->progress(u->o->data, image_stream_position(u->stream));
		}
	}
	if (declared > end && ftruncate(fd, declared) < 0) /* ends in a hole */
		return sys_failed(u, path, "write");
	u->size += declared > end ? declared : end;
	return 0;
}

static int put_file(struct unpacker *u, struct archive_entry *entry, const char *name, const char *path)
{
	la_int64_t size = archive_entry_size(entry);
	if (size < 0 || size > UNPACK_MAX_FILE_SIZE)
		return bad_entry(u, path, "is too large");
	int rc = clear_name(u, name, path);
	if (rc < 0)
		return rc;
	CLEANUP_CLOSE int fd =
	    openat(u->parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return sys_failed(u, path, "create");
	rc = write_data(u, fd, path, size);
	return rc < 0 ? rc : set_attributes(u, entry, name, path);
}

static int put_dir(struct unpacker *u, struct archive_entry *entry, const char *name, const char *path)
{
	struct stat st;
	bool there = fstatat(u->parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!there || !S_ISDIR(st.st_mode)) {
		int rc = clear_name(u, name, path);
		if (rc == 0)
			rc = make_dir(u, u->parent, name, path, there && is_whiteout(&st));
		if (rc < 0)
			return rc;
	}
	note_dir_time(u, entry, path);
	return set_attributes(u, entry, name, path);
}

static int put_root(struct unpacker *u, struct archive_entry *entry)
{
	if (archive_entry_filetype(entry) != AE_IFDIR || archive_entry_hardlink(entry))
		return bad_entry(u, archive_entry_pathname(entry), "would replace the root directory");
	forget_parent(u);
	u->parent = open_in_root(u->root, "");
	u->parent_path = xstrdup("");
	if (u->parent < 0)
		return sys_failed(u, "/", "open");
	note_dir_time(u, entry, "");
	return set_attributes(u, entry, ".", "/");
}

static int put_link(struct unpacker *u, struct archive_entry *entry, const char *name, const char *path)
{
	const char *target = archive_entry_symlink(entry);
	if (!target || !*target)
		return bad_entry(u, path, "is a link without a target");
	int rc = clear_name(u, name, path);
	if (rc < 0)
		return rc;
	if (symlinkat(target, u->parent, name) < 0)
		return sys_failed(u, path, "create link");
	return set_attributes(u, entry, name, path);
}

static int put_hardlink(struct unpacker *u, const char *raw_target, const char *name, const char *path)
{
	char target[PATH_MAX];
	int rc = clean_path(u, raw_target, target);
	if (rc < 0)
		return rc;
	const char *slash = strrchr(target, '/');
	const char *last = slash ? slash + 1 : target;
	CLEANUP_FREE char *dir = xstrndup(target, slash ? (size_t)(slash - target) : 0);
	CLEANUP_CLOSE int from = open_in_root(u->root, dir);
	struct stat st, old;
	if (!*last || from < 0 || fstatat(from, last, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		CLEANUP_FREE char *why =
		    xasprintf("is a hard link to \"%.200s\", which this layer does not have", raw_target);
		return bad_entry(u, path, why);
	}
	if (S_ISDIR(st.st_mode) || is_whiteout(&st))
		return bad_entry(u, path, "is a hard link to something that cannot have one");
	/* To itself, perhaps by another way: there is nothing to do, and clearing would lose it. */
	if (fstatat(u->parent, name, &old, AT_SYMLINK_NOFOLLOW) == 0 && old.st_ino == st.st_ino &&
	    old.st_dev == st.st_dev)
		return 0;
	rc = clear_name(u, name, path);
	if (rc < 0)
		return rc;
	if (linkat(from, last, u->parent, name, 0) < 0)
		return sys_failed(u, path, "create hard link");
	return 0;
}

static int put_node(struct unpacker *u, struct archive_entry *entry, const char *name, const char *path)
{
	mode_t type = archive_entry_filetype(entry);
	dev_t dev = 0;
	if (type != AE_IFIFO) {
		la_int64_t major = (la_int64_t)archive_entry_rdevmajor(entry);
		la_int64_t minor = (la_int64_t)archive_entry_rdevminor(entry);
		if (major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff)
			return bad_entry(u, path, "is a device with a number that no system knows");
		dev = makedev((unsigned)major, (unsigned)minor);
		if (dev == makedev(0, 0))
			return bad_entry(
			    u, path, "is the device 0:0, which would hide a file of another layer");
	}
	int rc = clear_name(u, name, path);
	if (rc < 0)
		return rc;
	if (mknodat(u->parent, name, type | 0600, dev) < 0)
		return sys_failed(u, path, "create device");
	return set_attributes(u, entry, name, path);
}

static int put_whiteout(struct unpacker *u, const char *name, const char *path)
{
	if (str_eq(name, WHITEOUT_OPAQUE)) {
		if (fsetxattr(u->parent, OPAQUE, "y", 1, 0) < 0)
			return sys_failed(u, path, "mark as opaque the directory of");
		return 0;
	}
	const char *hidden = name + strlen(WHITEOUT);
	if (!*hidden || str_eq(hidden, ".") || str_eq(hidden, ".."))
		return bad_entry(u, path, "is a whiteout of nothing");
	struct stat st;
	if (fstatat(u->parent, hidden, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (mknodat(u->parent, hidden, S_IFCHR, makedev(0, 0)) < 0)
			return sys_failed(u, path, "create the whiteout");
		return 0;
	}
	/* This layer has the name itself, so what is below is hidden already, but for a directory's content.
	 */
	if (!S_ISDIR(st.st_mode))
		return 0;
	CLEANUP_CLOSE int fd = openat(u->parent, hidden, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fsetxattr(fd, OPAQUE, "y", 1, 0) < 0)
		return sys_failed(u, path, "mark as opaque");
	return 0;
}

static int put_entry(struct unpacker *u, struct archive_entry *entry)
{
	const char *raw = archive_entry_pathname(entry);
	if (!raw)
		return err_set(u->e, ERR_INVALID, "%s: an entry has no name", u->o->what);
	char path[PATH_MAX];
	int rc = clean_path(u, raw, path);
	if (rc < 0)
		return rc;
	if (!*path)
		return put_root(u, entry);
	if (below_whiteout(path, WHITEOUT_META))
		return 0; /* aufs kept notes of its own there */
	if (below_whiteout(path, WHITEOUT))
		return bad_entry(u, path, "lies below a whiteout");
	const char *name;
	rc = enter_parent(u, path, &name);
	if (rc < 0)
		return rc;
	if (str_has_prefix(name, WHITEOUT)) {
		if (str_has_prefix(name, WHITEOUT_META) && !str_eq(name, WHITEOUT_OPAQUE))
			return 0;
		return put_whiteout(u, name, path);
	}
	const char *hardlink = archive_entry_hardlink(entry);
	if (hardlink)
		return put_hardlink(u, hardlink, name, path);
	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
		return put_file(u, entry, name, path);
	case AE_IFDIR:
		return put_dir(u, entry, name, path);
	case AE_IFLNK:
		return put_link(u, entry, name, path);
	case AE_IFCHR:
	case AE_IFBLK:
	case AE_IFIFO:
		return put_node(u, entry, name, path);
	default:
		return bad_entry(u, path, "is of a kind that images do not have");
	}
}

/* --- the archive */

static la_ssize_t read_stream(struct archive *a, void *data, const void **ret)
{
	struct unpacker *u = data;
	size_t n;
	int rc = image_stream_read(u->stream, ret, &n, &u->stream_err);
	if (rc == 0)
		return (la_ssize_t)n;
	archive_set_error(a, EIO, "%s", u->stream_err.text);
	return -1;
}

static int unpack_entries(struct unpacker *u)
{
	for (;;) {
		struct archive_entry *entry;
		int rc = archive_read_next_header(u->tar, &entry);
		if (rc == ARCHIVE_EOF)
			return 0;
		if (rc < ARCHIVE_WARN)
			return tar_failed(u, "");
		if (cancelled(u))
			return err_set(u->e, ERR_CANCELLED, "cancelled");
		if (++u->entries > UNPACK_MAX_ENTRIES)
			return err_set(u->e, ERR_TOO_LARGE, "%s has more than %d entries", u->o->what,
			    UNPACK_MAX_ENTRIES);
		/* Small files and directories take room too. */
		u->unchecked += 4096;
		rc = put_entry(u, entry);
		if (rc < 0)
			return rc;
	}
}

/* The digest is that of the whole stream, so what lies behind the tar's end is read too. */
static int read_tail(struct unpacker *u)
{
	int64_t total = 0;
	for (;;) {
		const void *p;
		size_t n;
		int rc = image_stream_read(u->stream, &p, &n, u->e);
		if (rc < 0 || n == 0)
			return rc;
		total += (int64_t)n;
		if (total > MAX_TAIL)
			return err_set(u->e, ERR_CORRUPT, "%s goes on after its end", u->o->what);
	}
}

static int unpack(struct unpacker *u, struct unpack_result *ret)
{
	u->tar = archive_read_new();
	ASSERT(u->tar);
	archive_read_support_format_tar(u->tar);
	archive_read_set_read_callback(u->tar, read_stream);
	archive_read_set_callback_data(u->tar, u);
	if (archive_read_open1(u->tar) != ARCHIVE_OK)
		return tar_failed(u, "");
	int rc = unpack_entries(u);
	if (rc == 0)
		rc = set_dir_times(u);
	if (rc == 0)
		rc = read_tail(u);
	if (rc < 0)
		return rc;
	image_stream_digest(u->stream, ret->diff_id);
	ret->size = u->size;
	ret->entries = u->entries;
	if (u->o->diff_id && !str_eq(u->o->diff_id, ret->diff_id))
		return err_set(u->e, ERR_CORRUPT,
		    "%s is corrupt: its digest is %s, the image's config says %s", u->o->what, ret->diff_id,
		    u->o->diff_id);
	return 0;
}

int image_unpack(const struct unpack_opts *o, struct unpack_result *ret, struct err *e)
{
	struct unpacker u = {.o = o, .e = e, .root = -1, .parent = -1};
	struct err mine = ERR_INIT;
	if (!e)
		u.e = &mine;
	u.root = open(o->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (u.root < 0)
		return err_errno(e, errno, "cannot open %s", o->dir);
	/* Names in archives are UTF-8, whatever this process's locale; libarchive converts by the thread's.
	 */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
	struct unpack_result result = {.size = 0};
	int rc = image_stream_open(o->blob, o->what, &u.stream, u.e);
	if (rc == 0)
		rc = unpack(&u, &result);
	if (u.tar)
		archive_read_free(u.tar);
	image_stream_close(u.stream);
	if (utf8) {
		uselocale(before);
		freelocale(utf8);
	}
	forget_parent(&u);
	close(u.root);
	for (size_t i = 0; i < u.n_dirs; i++)
		free(u.dirs[i].path);
	free(u.dirs);
	if (rc == 0)
		*ret = result;
	return rc;
}
