/* An image store in a directory of its own, driven to the end of an operation. */
#ifndef TEST_IMAGES_H
#define TEST_IMAGES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/image.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "test_loop.h"
#include "test_tar.h"

struct store_fix {
	char dir[64];
	uv_loop_t loop;
	struct images *im;
	bool closed;
	struct strlist events;
	const char *user; /* container that uses every image; NULL: none */
	bool user_runs;
	struct strlist insecure, mirrors;
};

/* One load or pull. */
struct store_op {
	bool done;
	char *id;
	struct err e;
	struct strlist lines; /* of progress, as text */
};

static inline const char *store_in_use(void *data, const char *id, bool *running)
{
	struct store_fix *f = data;
	(void)id;
	*running = f->user_runs;
	return f->user;
}

static inline void store_event(void *data, const char *action, const char *id, const char *name)
{
	struct store_fix *f = data;
	strlist_addf(&f->events, "%s %s", action, str_or(name, id));
}

static inline void store_open(struct store_fix *f)
{
	struct err e = ERR_INIT;
	struct images_opts o = {.data_root = f->dir,
	    .insecure_registries = &f->insecure,
	    .registry_mirrors = &f->mirrors,
	    .in_use = store_in_use,
	    .event = store_event,
	    .data = f};
	if (images_open(&f->loop, &o, &f->im, &e) < 0)
		fail_msg("%s", e.text);
}

static inline void store_closed(void *data)
{
	*(bool *)data = true;
}

static inline void store_close(struct store_fix *f)
{
	f->closed = false;
	images_close(f->im, store_closed, &f->closed);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->closed, 30000));
	f->im = NULL;
}

static inline int store_setup(void **state)
{
	struct store_fix *f = NEW(struct store_fix);
	strcpy(f->dir, "/tmp/shoal-images-XXXXXX");
	if (!mkdtemp(f->dir) || uv_loop_init(&f->loop) < 0)
		return -1;
	log_set_level(getenv("VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_OFF);
	store_open(f);
	*state = f;
	return 0;
}

static inline int store_teardown(void **state)
{
	struct store_fix *f = *state;
	if (f->im)
		store_close(f);
	bool ok = test_loop_end(&f->loop);
	fs_remove_tree(f->dir, NULL);
	strlist_done(&f->events);
	strlist_done(&f->insecure);
	strlist_done(&f->mirrors);
	free(f);
	return ok ? 0 : -1;
}

static inline void store_progress(void *data, const json_t *line)
{
	struct store_op *op = data;
	char *text = json_dumps(line, JSON_COMPACT);
	strlist_add(&op->lines, text);
	free(text);
}

static inline void store_done(void *data, const char *id, const struct err *e)
{
	struct store_op *op = data;
	assert_false(op->done);
	op->done = true;
	op->id = xstrdup(id);
	op->e = *e;
	assert_int_equal(id == NULL, e->code != 0);
}

static inline void store_op_done(struct store_op *op)
{
	free(op->id);
	strlist_done(&op->lines);
	*op = (struct store_op){.done = false};
}

static inline bool store_said(const struct store_op *op, const char *text)
{
	for (size_t i = 0; i < op->lines.n; i++)
		if (strstr(op->lines.v[i], text))
			return true;
	return false;
}

/* Starts a load of these bytes, in pieces. */
static inline void store_load_start(struct store_fix *f, const struct buf *b, struct store_op *op)
{
	struct image_load *l;
	struct err e = ERR_INIT;
	assert_int_equal(images_load_start(f->im, store_progress, store_done, op, &l, &e), 0);
	for (size_t at = 0; at < b->len; at += 1000) {
		size_t n = b->len - at < 1000 ? b->len - at : 1000;
		assert_int_equal(images_load_write(l, b->data + at, n, &e), 0);
	}
	images_load_finish(l);
	assert_false(op->done);
}

static inline int store_wait(struct store_fix *f, struct store_op *op)
{
	assert_true(test_loop_until(&f->loop, test_loop_flag, &op->done, 60000));
	return op->e.code;
}

static inline int store_load(struct store_fix *f, const struct buf *b, struct store_op *op)
{
	store_op_done(op);
	store_load_start(f, b, op);
	return store_wait(f, op);
}

/* Entries of <dir>/<folder>, hidden ones too. */
static inline size_t store_count(struct store_fix *f, const char *folder)
{
	CLEANUP_FREE char *cmd = xasprintf("ls -A %s/%s | wc -l", f->dir, folder);
	FILE *p = popen(cmd, "r");
	char text[32] = "";
	assert_non_null(p);
	assert_non_null(fgets(text, sizeof(text), p));
	pclose(p);
	return (size_t)strtoul(text, NULL, 10);
}

static inline bool store_is_clean(void *data)
{
	struct store_fix *f = data;
	/* The wait must not block for ever when there is nothing left to happen. */
	return store_count(f, "images/tmp") == 0 && store_count(f, "images/configs") == 0 &&
	       store_count(f, "layers") == 0;
}

static inline void store_assert_empty(struct store_fix *f)
{
	for (int i = 0; i < 500 && !store_is_clean(f); i++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(10000);
	}
	if (!store_is_clean(f)) {
		CLEANUP_FREE char *cmd = xasprintf("find %s >&2", f->dir);
		assert_int_equal(system(cmd), 0);
	}
	assert_int_equal(store_count(f, "images/tmp"), 0);
	assert_int_equal(store_count(f, "images/configs"), 0);
	assert_int_equal(store_count(f, "layers"), 0);
}

static inline struct image *store_find(struct store_fix *f, const char *ref)
{
	struct image *i;
	struct err e = ERR_INIT;
	if (images_find(f->im, ref, &i, &e) < 0)
		fail_msg("%s: %s", ref, e.text);
	return i;
}

static inline bool store_has(struct store_fix *f, const char *ref)
{
	struct image *i;
	if (images_find(f->im, ref, &i, NULL) < 0)
		return false;
	image_unref(i);
	return true;
}

#endif
