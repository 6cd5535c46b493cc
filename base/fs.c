/* Files and directory trees.
 *
 * Writing: the new content goes to a temporary file in the same directory, reaches the disk, and takes
 * the name in one rename; a crash leaves the old or the new content, and at most a stray ".NAME.tmp-*".
 * Trees are walked by descriptors and never through a symbolic link or onto another mount: a tree may
 * have been written by an image, whose author we do not trust. Both walks keep one descriptor open
 * however deep the tree is. */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

char *fs_path(const char *dir, const char *name)
{
	size_t n = strlen(dir);
	return xasprintf(n && dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
}

bool fs_exists(const char *path)
{
	return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int fs_read(const char *path, size_t max, struct buf *ret, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "cannot open %s", path);
	CLEANUP_BUF struct buf b = BUF_INIT;
	/* The size is a hint only: files in /proc say 0. */
	struct stat st;
	size_t step = 4096;
	if (fstat(fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size <= max)
		step = (size_t)st.st_size + 1;
	for (;;) {
		buf_reserve(&b, step);
		ssize_t n = read(fd, b.data + b.len, step);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "cannot read %s", path);
		if (n == 0)
			break;
		b.len += (size_t)n;
		b.data[b.len] = '\0';
		if (b.len > max)
			return err_set(e, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, max);
		step = 4096 + b.len;
	}
	buf_append(ret, b.data, b.len);
	return 0;
}

static int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;
	while (n) {
		ssize_t r = write(fd, p, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

/* Splits "a/b" into heap "a" and the pointer "b"; a plain name has the directory ".". */
static char *parent_of(const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	*ret_name = slash ? slash + 1 : path;
	if (!slash)
		return xstrdup(".");
	return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

static int write_temporary(int dir, const char *name, const void *p, size_t n, mode_t mode)
{
	CLEANUP_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	int r = write_all(fd, p, n);
	if (r == 0 && fchmod(fd, mode) < 0)
		r = -errno;
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

int fs_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct err *e)
{
	const char *name;
	CLEANUP_FREE char *parent = parent_of(path, &name);
	CLEANUP_CLOSE int dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_errno(e, errno, "cannot open %s", parent);
	CLEANUP_FREE char *tmp =
	    xasprintf(".%.200s.tmp-%016llx", name, (unsigned long long)rng_u64(rng_system()));
	int r = write_temporary(dir, tmp, p, n, mode);
	if (r == 0 && renameat(dir, tmp, dir, name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dir, tmp, 0);
		return err_errno(e, -r, "cannot write %s", path);
	}
	if (fsync(dir) < 0)
		return err_errno(e, errno, "cannot sync %s", parent);
	return 0;
}

int fs_write_existing(const char *path, const char *text, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "cannot open %s", path);
	size_t n = strlen(text);
	ssize_t r;
	do {
		r = write(fd, text, n);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_errno(e, errno, "cannot write \"%.200s\" to %s", text, path);
	if ((size_t)r != n)
		return err_set(e, ERR_IO, "cannot write to %s: it took %zd of %zu bytes", path, r, n);
	return 0;
}

int fs_mkdir_p(const char *path, mode_t mode, struct err *e)
{
	CLEANUP_FREE char *p = xstrdup(path);
	for (char *at = p;;) {
		at += strspn(at, "/");
		at += strcspn(at, "/");
		char end = *at;
		*at = '\0';
		/* A directory that exists but that we may not create in says EACCES or EROFS. */
		if (*p && mkdir(p, mode) < 0) {
			int why = errno;
			struct stat st;
			if (stat(p, &st) < 0 || !S_ISDIR(st.st_mode))
				return err_errno(
				    e, why == EEXIST ? ENOTDIR : why, "cannot create directory %s", p);
		}
		if (!end)
			return 0;
		*at = end;
	}
}

/* Opens the directory `name` below `dir`; -ELOOP for a link, -EXDEV for a mount point. */
static int open_below(int dir, const char *name)
{
	struct open_how how = {
	    .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
	    .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};
	long fd = syscall(SYS_openat2, dir, name, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* --- removing --------------------------------------------------------------------------------------- */

struct place {
	dev_t dev;
	ino_t ino;
};

/* The walk: an open directory, and where it lies, from the root of the tree down. */
struct removal {
	const char *path;
	DIR *dir;
	struct place *stack;
	size_t depth, cap;
	struct err *e;
};

/* Moves the walk into the directory behind `fd` (taken). */
static int removal_enter(struct removal *w, int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0) {
		int why = errno;
		close(fd);
		return err_errno(w->e, why, "cannot look into %s", w->path);
	}
	if (w->dir)
		closedir(w->dir);
	w->dir = fdopendir(fd);
	if (!w->dir) {
		int why = errno;
		close(fd);
		return err_errno(w->e, why, "cannot look into %s", w->path);
	}
	if (w->depth == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 16;
		w->stack = xreallocarray(w->stack, w->cap, sizeof(*w->stack));
	}
	w->stack[w->depth++] = (struct place){st.st_dev, st.st_ino};
	return 0;
}

/* Back to the parent, which must be where we came from: somebody may be moving directories about. */
static int removal_leave(struct removal *w)
{
	int fd = openat(dirfd(w->dir), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	struct place *up = &w->stack[w->depth - 2];
	if (fd < 0)
		return err_errno(w->e, errno, "cannot look into %s", w->path);
	if (fstat(fd, &st) < 0 || st.st_dev != up->dev || st.st_ino != up->ino) {
		close(fd);
		return err_set(w->e, ERR_IO, "cannot remove %s: it changes while being removed", w->path);
	}
	w->depth -= 2; /* entering pushes the parent again */
	return removal_enter(w, fd);
}

/* Removes one entry of the open directory, or enters it when it is a directory with content. */
static int removal_step(struct removal *w, const char *name)
{
	int dir = dirfd(w->dir);
	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	int why = errno;
	if (why == EISDIR) {
		if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		why = errno;
	}
	if (why != ENOTEMPTY && why != EEXIST)
		return err_errno(w->e, why, "cannot remove %s below %s", name, w->path);
	int fd = open_below(dir, name);
	if (fd < 0)
		return err_errno(w->e, -fd, "cannot look into %s below %s", name, w->path);
	return removal_enter(w, fd);
}

static int removal_run(struct removal *w)
{
	for (;;) {
		errno = 0;
		const struct dirent *d = readdir(w->dir);
		if (!d && errno)
			return err_errno(w->e, errno, "cannot look into %s", w->path);
		int r = 0;
		if (d && !is_dot(d->d_name)) {
			r = removal_step(w, d->d_name);
		} else if (!d) {
			if (w->depth == 1)
				return 0;
			/* The parent's scan begins anew and finds this directory empty. */
			r = removal_leave(w);
		}
		if (r < 0)
			return r;
	}
}

int fs_remove_tree(const char *path, struct err *e)
{
	if (unlink(path) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return err_errno(e, errno, "cannot remove %s", path);
	struct statx sx;
	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &sx) == 0 &&
	    (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return err_set(e, ERR_IO, "cannot remove %s: it is a mount point", path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(e, errno, "cannot open %s", path);
	struct removal w = {.path = path, .e = e};
	int r = removal_enter(&w, fd);
	if (r == 0)
		r = removal_run(&w);
	if (w.dir)
		closedir(w.dir);
	free(w.stack);
	if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
		r = err_errno(e, errno, "cannot remove %s", path);
	return r;
}

/* --- measuring -------------------------------------------------------------------------------------- */

struct measure {
	int root;
	int64_t blocks;
	struct strlist todo; /* directories not yet read, relative to root */
	struct u64map seen;  /* inodes with several names; one file system, so inodes suffice */
	dev_t dev;
};

static void measure_entry(struct measure *m, int dir, const char *rel, const char *name)
{
	struct stat st;
	/* What vanishes meanwhile does not count. */
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != m->dev)
		return;
	if (S_ISDIR(st.st_mode)) {
		strlist_take(&m->todo, *rel ? fs_path(rel, name) : xstrdup(name));
		return;
	}
	if (st.st_nlink > 1) {
		if (u64map_get(&m->seen, st.st_ino))
			return;
		u64map_put(&m->seen, st.st_ino, m);
	}
	m->blocks += st.st_blocks;
}

static int measure_directory(struct measure *m, const char *path, const char *rel, struct err *e)
{
	int fd = open_below(m->root, *rel ? rel : ".");
	/* Gone, replaced by a link, or somebody's mount: not of this tree. */
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV)
		return 0;
	if (fd < 0)
		return err_errno(e, -fd, "cannot look into %s below %s", rel, path);
	DIR *d = fdopendir(fd);
	if (!d) {
		int why = errno;
		close(fd);
		return err_errno(e, why, "cannot look into %s below %s", rel, path);
	}
	const struct dirent *de;
	while ((de = readdir(d))) {
		if (!is_dot(de->d_name))
			measure_entry(m, fd, rel, de->d_name);
	}
	closedir(d);
	return 0;
}

int fs_tree_size(const char *path, int64_t *ret_bytes, struct err *e)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return err_errno(e, errno, "cannot look at %s", path);
	if (!S_ISDIR(st.st_mode)) {
		*ret_bytes = (int64_t)st.st_blocks * 512;
		return 0;
	}
	struct measure m = {
	    .root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), .dev = st.st_dev};
	if (m.root < 0)
		return err_errno(e, errno, "cannot open %s", path);
	int r = measure_directory(&m, path, "", e);
	while (r == 0 && m.todo.n) {
		CLEANUP_FREE char *rel = m.todo.v[--m.todo.n];
		r = measure_directory(&m, path, rel, e);
	}
	if (r == 0)
		*ret_bytes = m.blocks * 512;
	strlist_done(&m.todo);
	u64map_done(&m.seen);
	close(m.root);
	return r;
}
