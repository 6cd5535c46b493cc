/* Reading a container's log.
 *
 * Lines are conmon's k8s-file format: "time stream tag text", tag F for a whole line, P for a piece of one;
 * pieces are put together up to LIMIT_LOG_LINE. Files are read oldest first (ctr.log.N ... ctr.log.1,
 * ctr.log), in chunks on the thread pool; the callbacks run on the loop. Where to start for `tail` is found
 * from the end backwards.
 *
 * Following: inotify on the log's directory wakes the reader; at the end of a file that is not the current
 * one any more it goes on with the next, which is found by inode, so that a rotation loses nothing that is
 * still on disk. A follower ends when the container has ended and everything is read. A line that does not
 * parse is passed over. */
#include "agent/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#define CHUNK     (64u * 1024)
#define MAX_FILES 1000

struct piece {
	struct buf text;
	int64_t time;
	bool open;
};

struct log_reader {
	struct engine *g;
	char *id, *path;
	struct log_reader_opts o;
	log_line_cb line;
	log_end_cb end;
	void *data;
	struct log_reader *next;
	uv_fs_event_t watch;
	bool watching;
	/* The worker's while busy. */
	int fd;
	off_t offset;
	uint8_t *chunk;
	ssize_t got;
	bool at_end; /* of the newest file */
	int error;
	/* The loop's. */
	bool started, busy, again, paused, closed, ended, container_ended;
	struct buf carry; /* an incomplete physical line */
	struct piece pieces[2];
};

static void step(struct log_reader *r);

/* --- files (worker) */

static char *rotated(const struct log_reader *r, unsigned n)
{
	return n ? xasprintf("%s.%u", r->path, n) : xstrdup(r->path);
}

static int open_file(const struct log_reader *r, unsigned n)
{
	CLEANUP_FREE char *path = rotated(r, n);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static bool is_same(int fd, const char *path)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* The highest N of ctr.log.N; 0 when there is only ctr.log. */
static unsigned oldest(const struct log_reader *r)
{
	unsigned n = 0;
	while (n < MAX_FILES) {
		CLEANUP_FREE char *path = rotated(r, n + 1);
		if (!fs_exists(path))
			break;
		n++;
	}
	return n;
}

/* The file after `fd` by the names of this moment; -1 with *ret_moved when a rotation got in between.
 * ctr.log.0 is the second name of the newest file until its rotation is noticed. */
static int find_next(const struct log_reader *r, bool *ret_moved)
{
	unsigned n = oldest(r), at = 0;
	CLEANUP_FREE char *zero = xasprintf("%s.0", r->path);
	bool is_zero = is_same(r->fd, zero);
	for (unsigned i = 1; !is_zero && !at && i <= n; i++) {
		CLEANUP_FREE char *path = rotated(r, i);
		if (is_same(r->fd, path))
			at = i;
	}
	*ret_moved = true;
	if (!is_zero && !at)
		return -1;
	CLEANUP_FREE char *own = is_zero ? xstrdup(zero) : rotated(r, at);
	int fd = open_file(r, is_zero ? 0 : at - 1);
	if (fd >= 0 && !is_same(r->fd, own)) { /* moved while we opened: that may be the wrong one */
		close(fd);
		return -1;
	}
	*ret_moved = fd < 0;
	return fd;
}

/* At the end of r->fd: the file after it, or -1 when it is the newest. */
static int open_next(const struct log_reader *r)
{
	for (int tries = 0; tries < 1000; tries++) {
		struct stat st;
		bool moved;
		if (!fs_exists(r->path) || is_same(r->fd, r->path))
			return -1;
		int fd = find_next(r, &moved);
		if (!moved)
			return fd;
		/* Without a name it was dropped before we had read on: the oldest that is left comes next. */
		if (fstat(r->fd, &st) == 0 && st.st_nlink == 0)
			return open_file(r, oldest(r));
	}
	return -1;
}

/* --- tail (worker) */

/* The tag of a physical line: 'F', 'P', or 0. */
static char tag_of(const char *line, size_t n)
{
	const char *sp = memchr(line, ' ', n);
	if (!sp)
		return 0;
	n -= (size_t)(sp + 1 - line);
	line = sp + 1;
	sp = memchr(line, ' ', n);
	return sp && (size_t)(sp - line) + 1 < n ? sp[1] : 0;
}

struct tail {
	int64_t want, count;
	bool any; /* a physical line was seen */
};

/* Scans one file backwards. True when the start was found at *ret_offset. */
static bool scan_back(int fd, struct tail *t, off_t *ret_offset)
{
	struct stat st;
	CLEANUP_FREE char *block = xmalloc(CHUNK);
	if (fstat(fd, &st) < 0)
		return false;
	off_t end = st.st_size;
	while (end > 0) {
		off_t from = end > (off_t)CHUNK ? end - (off_t)CHUNK : 0;
		ssize_t n = pread(fd, block, (size_t)(end - from), from);
		if (n <= 0)
			return false;
		/* Lines [at, stop) from the last to the first that begins in the block. */
		ssize_t stop = n;
		while (stop > 0) {
			const char *nl = stop > 1 ? memrchr(block, '\n', (size_t)stop - 1) : NULL;
			if (!nl && from > 0)
				break;
			ssize_t at = nl ? nl + 1 - block : 0;
			char tag = tag_of(block + at, (size_t)(stop - at));
			if (tag == 'F' || !t->any) {
				if (t->count == t->want) {
					*ret_offset = from + stop;
					return true;
				}
				t->count++;
			}
			t->any = true;
			stop = at;
		}
		if (stop == n) /* no line begins in a whole block: not a log of conmon */
			return false;
		end = from + stop;
	}
	return false;
}

static void open_first(struct log_reader *r)
{
	unsigned last = oldest(r);
	if (r->o.tail < 0) {
		r->fd = open_file(r, last);
		return;
	}
	struct tail t = {.want = r->o.tail};
	for (unsigned n = 0; n <= last; n++) {
		int fd = open_file(r, n);
		off_t at = 0;
		if (fd < 0)
			continue;
		bool found = scan_back(fd, &t, &at);
		if (!found && n < last) {
			close(fd);
			continue;
		}
		r->fd = fd;
		r->offset = at;
		return;
	}
}

static void read_work(void *data)
{
	struct log_reader *r = data;
	r->got = 0;
	r->at_end = false;
	if (r->fd < 0) {
		open_first(r);
		if (r->fd < 0) {
			r->at_end = true;
			return;
		}
	}
	for (;;) {
		r->got = pread(r->fd, r->chunk, CHUNK, r->offset);
		if (r->got < 0) {
			r->error = errno;
			return;
		}
		if (r->got > 0) {
			r->offset += r->got;
			return;
		}
		int next = open_next(r);
		if (next < 0) {
			r->at_end = true;
			return;
		}
		/* What was written between the last read and the rotation. */
		r->got = pread(r->fd, r->chunk, CHUNK, r->offset);
		if (r->got > 0) {
			close(next);
			r->offset += r->got;
			return;
		}
		close(r->fd);
		r->fd = next;
		r->offset = 0;
	}
}

/* --- lines */

static void reader_free(struct log_reader *r)
{
	if (r->fd >= 0)
		close(r->fd);
	buf_done(&r->carry);
	buf_done(&r->pieces[0].text);
	buf_done(&r->pieces[1].text);
	free(r->chunk);
	free(r->id);
	free(r->path);
	free(r);
}

static void finish(struct log_reader *r, const struct err *e)
{
	if (r->ended)
		return;
	r->ended = true;
	r->end(r->data, e);
}

static void emit(struct log_reader *r, int stream, int64_t time_ns, const char *p, size_t n)
{
	if (stream == 2 ? !r->o.want_stderr : !r->o.want_stdout)
		return;
	if (r->o.since_ns && time_ns < r->o.since_ns)
		return;
	if (r->o.until_ns && time_ns > r->o.until_ns)
		return;
	r->line(r->data, time_ns, stream, (const uint8_t *)p, n);
}

static void flush_piece(struct log_reader *r, int stream)
{
	struct piece *p = &r->pieces[stream - 1];
	if (p->open)
		emit(r, stream, p->time, p->text.data ? p->text.data : "", p->text.len);
	buf_reset(&p->text);
	p->open = false;
}

static void take_line(struct log_reader *r, char *line, size_t n)
{
	/* time SP stream SP tag SP text */
	char *sp1 = memchr(line, ' ', n);
	char *sp2 = sp1 ? memchr(sp1 + 1, ' ', n - (size_t)(sp1 + 1 - line)) : NULL;
	if (!sp2 || (size_t)(sp2 - line) + 2 >= n)
		return;
	char tag = sp2[1];
	size_t head = (size_t)(sp2 - line) + 3;
	const char *text = line + (head < n ? head : n);
	size_t len = head < n ? n - head : 0;
	*sp1 = '\0';
	*sp2 = '\0';
	int stream = str_eq(sp1 + 1, "stderr") ? 2 : str_eq(sp1 + 1, "stdout") ? 1 : 0;
	int64_t time_ns;
	if (!stream || (tag != 'F' && tag != 'P') || str_parse_time(line, &time_ns, NULL) < 0)
		return;
	struct piece *p = &r->pieces[stream - 1];
	if (tag == 'F' && !p->open) {
		emit(r, stream, time_ns, text, len);
		return;
	}
	if (!p->open)
		p->time = time_ns;
	p->open = true;
	if (p->text.len + len > LIMIT_LOG_LINE) {
		flush_piece(r, stream);
		p->time = time_ns;
		p->open = true;
	}
	buf_append(&p->text, text, len);
	if (tag == 'F')
		flush_piece(r, stream);
}

static void take_chunk(struct log_reader *r)
{
	buf_append(&r->carry, r->chunk, (size_t)r->got);
	size_t at = 0;
	char *nl;
	while (!r->closed && (nl = memchr(r->carry.data + at, '\n', r->carry.len - at))) {
		take_line(r, r->carry.data + at, (size_t)(nl - r->carry.data) - at);
		at = (size_t)(nl - r->carry.data) + 1;
	}
	if (at)
		buf_consume(&r->carry, at);
	if (r->carry.len > 4 * LIMIT_LOG_LINE)
		buf_reset(&r->carry); /* no log of conmon's */
}

/* What refers to a reader: the worker, its own callbacks, the first turn, the watch's handle. */
static void maybe_free(struct log_reader *r)
{
	if (r->closed && !r->busy && r->started && !r->watching)
		reader_free(r);
}

static void at_end(struct log_reader *r)
{
	struct err none = ERR_INIT;
	if (r->again || (r->o.follow && !r->container_ended))
		return;
	flush_piece(r, 1);
	if (!r->closed)
		flush_piece(r, 2);
	if (!r->closed)
		finish(r, &none);
}

static void read_done(void *data)
{
	struct log_reader *r = data;
	struct engine *g = r->g;
	struct err e = ERR_INIT;
	bool more = false;
	if (r->closed) {
		/* nobody to tell */
	} else if (r->error) {
		err_errno(&e, r->error, "reading the log of container %.12s", r->id);
		finish(r, &e);
	} else if (r->got > 0) {
		take_chunk(r);
		more = true;
	} else {
		at_end(r);
		more = r->again;
		r->again = false;
	}
	r->busy = false; /* only now: a callback may have closed it */
	if (more)
		step(r);
	maybe_free(r);
	engine_pending_done(g);
}

static void step(struct log_reader *r)
{
	if (r->busy || r->paused || r->closed || r->ended)
		return;
	r->busy = true;
	r->g->pending++;
	loop_work(r->g->loop, read_work, read_done, r);
}

static void wake(struct log_reader *r)
{
	r->again = r->busy || r->paused;
	step(r);
}

static void on_change(uv_fs_event_t *h, const char *name, int events, int status)
{
	(void)name;
	(void)events;
	(void)status;
	wake(CONTAINER_OF(h, struct log_reader, watch));
}

/* --- interface */

static void start_deferred(void *data)
{
	struct log_reader *r = data;
	struct engine *g = r->g;
	r->started = true;
	step(r);
	maybe_free(r);
	engine_pending_done(g);
}

int log_reader_start(struct engine *g, const char *container_id, const struct log_reader_opts *o,
    log_line_cb line, log_end_cb end, void *data, struct log_reader **ret, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, container_id, &local);
	if (!c)
		return err_copy(e, &local);
	if (g->closing)
		return err_set(e, ERR_UNAVAILABLE, "the engine is closing");
	if (str_eq(c->rec->config->log_driver, "none"))
		return err_set(e, ERR_NOT_IMPLEMENTED, "configured logging driver does not support reading");
	struct log_reader *r = NEW(struct log_reader);
	r->g = g;
	r->id = xstrdup(c->rec->id);
	r->path = log_path_of(g, c->rec->id);
	r->o = *o;
	r->line = line;
	r->end = end;
	r->data = data;
	r->fd = -1;
	r->chunk = xmalloc(CHUNK);
	/* One that was never started may be followed: it will be. */
	r->container_ended = !ctr_is_running(c) && !c->starting && c->rec->started_once;
	if (o->follow && !r->container_ended) {
		CLEANUP_FREE char *dir = xstrndup(r->path, (size_t)(strrchr(r->path, '/') - r->path));
		int s = uv_fs_event_init(g->loop, &r->watch);
		ASSERT(s == 0);
		r->watching = true;
		s = uv_fs_event_start(&r->watch, on_change, dir, 0);
		if (s < 0)
			log_warn("a log cannot be followed id=%.12s error=\"%s\"", r->id, uv_strerror(s));
	}
	r->next = g->readers;
	g->readers = r;
	g->pending++;
	loop_defer(g->loop, start_deferred, r);
	*ret = r;
	return 0;
}

void log_reader_pause(struct log_reader *r, bool paused)
{
	r->paused = paused;
	if (!paused && r->started)
		step(r);
}

static void watch_closed(uv_handle_t *h)
{
	struct log_reader *r = CONTAINER_OF((uv_fs_event_t *)h, struct log_reader, watch);
	struct engine *g = r->g;
	r->watching = false;
	maybe_free(r);
	engine_pending_done(g);
}

void log_reader_close(struct log_reader *r)
{
	if (!r || r->closed)
		return;
	struct engine *g = r->g;
	for (struct log_reader **at = &g->readers; *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	r->closed = true;
	if (r->watching) {
		g->pending++;
		uv_close((uv_handle_t *)&r->watch, watch_closed);
	} else {
		maybe_free(r);
	}
}

void logs_container_ended(struct engine *g, const char *id)
{
	for (struct log_reader *r = g->readers; r; r = r->next)
		if (str_eq(r->id, id)) {
			r->container_ended = true;
			if (r->started)
				wake(r);
			else
				r->again = true;
		}
}

void logs_close_all(struct engine *g)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_CANCELLED, "the engine is closing");
	/* Their users close them, from the callback or later. */
	for (struct log_reader *r = g->readers; r;) {
		struct log_reader *next = r->next;
		if (!r->ended) {
			finish(r, &e);
			next = g->readers; /* the callback may have closed any of them */
		}
		r = next;
	}
}
