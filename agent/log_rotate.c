/* Log rotation.
 *
 * conmon itself starts a new file when the log would exceed max-size, and drops the old one: by renaming an
 * empty file over it. So a second name, ctr.log.0, is kept for the file that is being written; after a rename
 * the old file still has that name, and becomes ctr.log.1, .1 becomes .2, and so on up to max-file - 1. The
 * disk stays bounded while no daemon runs. What can be lost is a file in the middle, when a container fills
 * more than one file before we look (which is when the rename is told, by inotify), or while no daemon runs;
 * what is newest and what is oldest stays in order. */
#include "agent/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define MIN_SIZE  1024
#define MAX_FILES 1000
#define LOG_NAME  "ctr.log"

struct log_rotator {
	char *path; /* of ctr.log */
	unsigned max_file;
	int wd; /* -1: not watched */
};

char *log_path_of(const struct engine *g, const char *id)
{
	return xasprintf("%s/%s/log/" LOG_NAME, g->containers_dir, id);
}

int log_options_parse(
    const Pb__ContainerConfig *c, int64_t *ret_max_size, unsigned *ret_max_file, struct err *e)
{
	int64_t size = 0, files = 1;
	bool has_files = false;
	for (size_t i = 0; i < c->n_log_options; i++) {
		const char *k = c->log_options[i]->key, *v = str_or(c->log_options[i]->value, "");
		if (str_eq(c->log_driver, "none"))
			return err_set(
			    e, ERR_INVALID, "log driver \"none\" has no options, but \"%s\" is set", k);
		if (str_eq(k, "max-size")) {
			if (str_eq(v, "-1"))
				continue;
			if (str_parse_size(v, &size, NULL) < 0 || size < MIN_SIZE)
				return err_set(e, ERR_INVALID,
				    "invalid log option max-size \"%s\": at least 1k, as in 10m", v);
		} else if (str_eq(k, "max-file")) {
			if (str_parse_i64(v, &files, NULL) < 0 || files < 1 || files > MAX_FILES)
				return err_set(e, ERR_INVALID, "invalid log option max-file \"%s\": 1 to %d",
				    v, MAX_FILES);
			has_files = true;
		} else {
			return err_set(e, ERR_INVALID,
			    "unknown log opt '%s' for json-file log driver: max-size and max-file are "
			    "supported",
			    k);
		}
	}
	if (has_files && files > 1 && size == 0)
		return err_set(e, ERR_INVALID, "cannot set max-file=%lld without max-size", (long long)files);
	*ret_max_size = size;
	*ret_max_file = (unsigned)files;
	return 0;
}

static bool same_file(const char *a, const char *b)
{
	struct stat sa, sb;
	return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static void shift(struct log_rotator *r)
{
	CLEANUP_FREE char *zero = xasprintf("%s.0", r->path);
	if (same_file(r->path, zero))
		return;
	if (fs_exists(zero)) {
		for (unsigned n = r->max_file - 1; n >= 1; n--) {
			CLEANUP_FREE char *from = xasprintf("%s.%u", r->path, n - 1),
					  *to = xasprintf("%s.%u", r->path, n);
			if (rename(from, to) < 0 && errno != ENOENT)
				log_warn("log not rotated path=%s error=\"%s\"", from, strerror(errno));
		}
	}
	if (link(r->path, zero) < 0 && errno != ENOENT)
		log_warn(
		    "log cannot be kept when it is rotated path=%s error=\"%s\"", r->path, strerror(errno));
}

/* One inotify instance for all containers: a user has few of them. */
static void on_inotify(void *data)
{
	struct engine *g = data;
	char events[16 * 1024] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;
	while ((n = read(fd_watch_fd(g->log_watch), events, sizeof(events))) > 0)
		for (char *p = events; p < events + n;) {
			const struct inotify_event *ev = (const void *)p;
			struct log_rotator *r = u64map_get(&g->log_rotators, (uint64_t)(uint32_t)ev->wd);
			if (r && ev->len && str_eq(ev->name, LOG_NAME))
				shift(r);
			p += sizeof(*ev) + ev->len;
		}
}

static int watch_dir(struct engine *g, struct log_rotator *r)
{
	CLEANUP_FREE char *dir = xstrndup(r->path, (size_t)(strrchr(r->path, '/') - r->path));
	if (!g->log_watch) {
		int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (fd < 0)
			return -errno;
		g->log_watch = fd_watch_new(g->loop, fd, on_inotify, g);
	}
	int wd = inotify_add_watch(fd_watch_fd(g->log_watch), dir, IN_MOVED_TO | IN_ONLYDIR);
	if (wd < 0)
		return -errno;
	r->wd = wd;
	u64map_put(&g->log_rotators, (uint64_t)(uint32_t)wd, r);
	return 0;
}

void log_rotator_start(struct ctr *c)
{
	int64_t size;
	unsigned files;
	if (c->rotator || log_options_parse(c->rec->config, &size, &files, NULL) < 0 || size == 0 ||
	    files < 2)
		return;
	struct log_rotator *r = NEW(struct log_rotator);
	r->path = log_path_of(c->g, c->rec->id);
	r->max_file = files;
	r->wd = -1;
	int status = watch_dir(c->g, r);
	if (status < 0)
		log_warn(
		    "only the newest log file is kept id=%.12s error=\"%s\"", c->rec->id, strerror(-status));
	c->rotator = r;
	shift(r);
}

void log_rotator_stop(struct ctr *c)
{
	struct log_rotator *r = TAKE_PTR(c->rotator);
	if (!r)
		return;
	if (r->wd >= 0) {
		shift(r);
		u64map_remove(&c->g->log_rotators, (uint64_t)(uint32_t)r->wd);
		inotify_rm_watch(fd_watch_fd(c->g->log_watch), r->wd);
	}
	free(r->path);
	free(r);
}
