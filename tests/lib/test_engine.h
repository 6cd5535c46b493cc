/* An engine with real containers in directories of its own: busybox from scripts/mkimage, loaded through the
 * image store; no network unless asked. */
#ifndef TEST_ENGINE_H
#define TEST_ENGINE_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "agent/cgroup.h"
#include "agent/container.h"
#include "agent/image.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "overlay/hostnet.h"
#include "proto/pb.h"
#include "test_loop.h"

#define TE_WAIT_MS 20000

struct te {
	uv_loop_t loop;
	char data_root[64], exec_root[80], cgroup[48], tag[8];
	struct images *images;
	struct hostnet *net;
	struct engine *g;
	char image_id[80];
	/* What the engine told. */
	unsigned n_changed, n_die, n_oom;
	char last_health[32];
	bool with_net;
};

static inline void te_die(const char *what, const struct err *e)
{
	fprintf(stderr, "%s: %s\n", what, e ? e->text : "");
	abort();
}

struct te_done {
	bool done;
	struct err err;
	char image[80];
};

static void te_cb(void *data, const struct err *e)
{
	struct te_done *d = data;
	d->done = true;
	d->err = *e;
}

static void te_image_cb(void *data, const char *image_id, const struct err *e)
{
	struct te_done *d = data;
	d->done = true;
	d->err = *e;
	snprintf(d->image, sizeof(d->image), "%s", image_id ? image_id : "");
}

static bool te_is_done(void *data)
{
	return ((struct te_done *)data)->done;
}

static inline void te_wait(struct te *t, struct te_done *d, const char *what)
{
	if (!test_loop_until(&t->loop, te_is_done, d, TE_WAIT_MS))
		te_die(what, &(struct err){.text = "no answer in time"});
}

/* The archive is built once and kept in the build directory beside the test program. */
static inline char *te_archive(const char *name)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = '\0';
	*strrchr(self, '/') = '\0';
	char *tar = xasprintf("%s/test-image-%s.tar", self, name);
	if (access(tar, R_OK) == 0)
		return tar;
	CLEANUP_FREE char *src = xstrdup(__FILE__);
	for (int i = 0; i < 3; i++)
		*strrchr(src, '/') = '\0';
	CLEANUP_FREE char *cmd =
	    xasprintf("python3 '%s/scripts/mkimage' %s -o '%s.%d' >/dev/null && mv '%s.%d' '%s'", src, name,
		tar, (int)getpid(), tar, (int)getpid(), tar);
	if (system(cmd) != 0)
		te_die("scripts/mkimage", NULL);
	return tar;
}

static inline void te_load_image(struct te *t, const char *name)
{
	CLEANUP_FREE char *tar = te_archive(name);
	CLEANUP_BUF struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	struct image_load *l = NULL;
	struct te_done d = {0};
	if (fs_read(tar, 64u << 20, &b, &e) < 0 ||
	    images_load_start(t->images, NULL, te_image_cb, &d, &l, &e) < 0 ||
	    images_load_write(l, b.data, b.len, &e) < 0)
		te_die("loading the image", &e);
	images_load_finish(l);
	te_wait(t, &d, "loading the image");
	if (d.err.code)
		te_die("loading the image", &d.err);
	snprintf(t->image_id, sizeof(t->image_id), "%s", d.image);
}

static void te_event(void *data, const char *action, const Pb__Container *c, const char *const *attrs)
{
	struct te *t = data;
	(void)c;
	(void)attrs;
	t->n_die += strcmp(action, "die") == 0;
	t->n_oom += strcmp(action, "oom") == 0;
}

static void te_changed(void *data, const Pb__Container *c)
{
	struct te *t = data;
	t->n_changed++;
	if (c->health)
		snprintf(t->last_health, sizeof(t->last_health), "%s", c->health);
}

static inline void te_open_engine(struct te *t)
{
	const struct engine_opts o = {.data_root = t->data_root,
	    .exec_root = t->exec_root,
	    .cgroup_parent = t->cgroup,
	    .runtime = getenv("TEST_RUNTIME"),
	    .images = t->images,
	    .net = t->net,
	    .event = te_event,
	    .changed = te_changed,
	    .data = t};
	struct err e = ERR_INIT;
	if (engine_open(&t->loop, &o, &t->g, &e) < 0)
		te_die("engine_open", &e);
}

static inline void te_open_parts(struct te *t)
{
	struct err e = ERR_INIT;
	const struct images_opts io = {.data_root = t->data_root};
	if (images_open(&t->loop, &io, &t->images, &e) < 0)
		te_die("images_open", &e);
	if (t->with_net) {
		CLEANUP_FREE char *state = fs_path(t->data_root, "net"), *ns = fs_path(t->exec_root, "netns");
		const struct hostnet_opts no = {.tag = t->tag, .state_dir = state, .netns_dir = ns};
		if (hostnet_open(&t->loop, &no, &t->net, &e) < 0)
			te_die("hostnet_open", &e);
	}
}

/* Names and directories only. */
static inline void te_prepare(struct te *t, bool with_net)
{
	*t = (struct te){.with_net = with_net};
	log_set_level(getenv("TEST_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	snprintf(t->data_root, sizeof(t->data_root), "/tmp/shoal-te.XXXXXX");
	if (!mkdtemp(t->data_root))
		te_die("mkdtemp", NULL);
	const char *run = getenv("TEST_EXEC_DIR");
	if (run)
		snprintf(t->exec_root, sizeof(t->exec_root), "%s/shoal-te-%d", run, (int)getpid());
	else
		snprintf(t->exec_root, sizeof(t->exec_root), "%s/run", t->data_root);
	snprintf(t->cgroup, sizeof(t->cgroup), "shoal-te-%d", (int)getpid());
	snprintf(t->tag, sizeof(t->tag), "t%d", (int)getpid() % 10000);
}

/* Opens everything; loads the image the first time. */
static inline void te_begin(struct te *t)
{
	uv_loop_init(&t->loop);
	te_open_parts(t);
	struct image *im;
	if (images_find(t->images, "busybox:latest", &im, NULL) == 0) {
		snprintf(t->image_id, sizeof(t->image_id), "%s", im->id);
		image_unref(im);
	} else {
		te_load_image(t, "busybox");
	}
	te_open_engine(t);
}

static inline void te_init(struct te *t, bool with_net)
{
	te_prepare(t, with_net);
	te_begin(t);
}

static void te_closed(void *data)
{
	*(bool *)data = true;
}

static inline void te_close_engine(struct te *t)
{
	bool closed = false;
	if (!t->g)
		return;
	engine_close(t->g, te_closed, &closed);
	if (!test_loop_until(&t->loop, test_loop_flag, &closed, TE_WAIT_MS))
		te_die("engine_close", NULL);
	t->g = NULL;
}

struct te_ids {
	char id[256][65];
	size_t n;
};

static void te_collect(void *data, const Pb__Container *c)
{
	struct te_ids *ids = data;
	if (ids->n < 256)
		snprintf(ids->id[ids->n++], 65, "%s", c->id);
}

static inline void te_remove_all(struct te *t)
{
	static struct te_ids ids;
	ids.n = 0;
	engine_each(t->g, te_collect, &ids);
	for (size_t i = 0; i < ids.n; i++) {
		struct te_done d = {0};
		struct err e = ERR_INIT;
		if (engine_remove(t->g, ids.id[i], true, te_cb, &d, &e) < 0)
			te_die("engine_remove", &e);
		te_wait(t, &d, "engine_remove");
		if (d.err.code)
			te_die("engine_remove", &d.err);
	}
}

static inline void te_done(struct te *t)
{
	bool closed = false;
	te_remove_all(t);
	te_close_engine(t);
	if (t->net)
		hostnet_destroy(t->net);
	images_close(t->images, te_closed, &closed);
	test_loop_until(&t->loop, test_loop_flag, &closed, TE_WAIT_MS);
	if (!test_loop_end(&t->loop))
		te_die("handles were left open", NULL);
	struct cgroups *cg;
	struct err e = ERR_INIT;
	if (cgroups_open(t->cgroup, &cg, &e) == 0) {
		cgroups_remove_base(cg);
		cgroups_free(cg);
	}
	if (fs_remove_tree(t->exec_root, &e) < 0 || fs_remove_tree(t->data_root, &e) < 0)
		te_die("removing the directories", &e);
}

/* --- containers */

/* A configuration for `argv` (NULL-terminated list of words). Free with pb_free unless handed to
 * engine_create. */
static inline Pb__ContainerConfig *te_config(struct te *t, const char *const *argv)
{
	static unsigned n;
	Pb__ContainerConfig *c = PB_NEW(Pb__ContainerConfig, pb__container_config);
	c->name = xasprintf("te-%u", ++n);
	c->image = xstrdup("busybox:latest");
	c->image_id = xstrdup(t->image_id);
	for (; *argv; argv++)
		pb_add_str(&c->cmd, &c->n_cmd, *argv);
	if (!t->with_net)
		pb_set_str(&c->network_mode, "none");
	return c;
}
#define TE_CONFIG(t, ...)   te_config(t, (const char *const[]){__VA_ARGS__, NULL})
#define TE_SHELL(t, script) TE_CONFIG(t, "/bin/sh", "-c", script)

static inline int te_create(struct te *t, Pb__ContainerConfig *c, char id[65], struct err *e)
{
	struct te_done d = {0};
	int r = engine_create(t->g, c, NULL, te_cb, &d, id, e);
	if (r < 0)
		return r;
	te_wait(t, &d, "engine_create");
	if (d.err.code)
		*e = d.err;
	return d.err.code;
}

static inline int te_start(struct te *t, const char *id, struct err *e)
{
	struct te_done d = {0};
	int r = engine_start(t->g, id, te_cb, &d, e);
	if (r < 0)
		return r;
	te_wait(t, &d, "engine_start");
	if (d.err.code)
		*e = d.err;
	return d.err.code;
}

/* Creates and starts; aborts on failure. */
static inline void te_up(struct te *t, Pb__ContainerConfig *c, char id[65])
{
	struct err e = ERR_INIT;
	if (te_create(t, c, id, &e) < 0 || te_start(t, id, &e) < 0)
		te_die("starting a container", &e);
}

struct te_exit {
	bool done;
	int64_t code;
};

static void te_exited(void *data, int64_t code, const struct err *e)
{
	struct te_exit *x = data;
	(void)e;
	x->done = true;
	x->code = code;
}

static bool te_has_exited(void *data)
{
	return ((struct te_exit *)data)->done;
}

static inline int64_t te_wait_exit(struct te *t, const char *id)
{
	struct te_exit x = {0};
	struct engine_wait *w;
	struct err e = ERR_INIT;
	if (engine_wait(t->g, id, "not-running", te_exited, &x, &w, &e) < 0)
		te_die("engine_wait", &e);
	if (!test_loop_until(&t->loop, te_has_exited, &x, TE_WAIT_MS))
		te_die("the container does not end", NULL);
	return x.code;
}

static inline const Pb__Container *te_find(struct te *t, const char *id)
{
	const Pb__Container *c;
	struct err e = ERR_INIT;
	if (engine_find(t->g, id, &c, &e) < 0)
		te_die("engine_find", &e);
	return c;
}

/* --- logs */

struct te_log {
	struct buf text; /* "O:line\n" and "E:line\n" */
	unsigned n;
	bool ended;
	struct err err;
};

static void te_log_line(void *data, int64_t time_ns, int stream, const uint8_t *p, size_t n)
{
	struct te_log *l = data;
	(void)time_ns;
	buf_puts(&l->text, stream == 2 ? "E:" : "O:");
	buf_append(&l->text, p, n);
	buf_putc(&l->text, '\n');
	l->n++;
}

static void te_log_end(void *data, const struct err *e)
{
	struct te_log *l = data;
	l->ended = true;
	l->err = *e;
}

static bool te_log_ended(void *data)
{
	return ((struct te_log *)data)->ended;
}

/* The whole log, or its last `tail` lines; heap. */
static inline char *te_logs(struct te *t, const char *id, int64_t tail)
{
	struct te_log l = {0};
	struct log_reader *r;
	struct err e = ERR_INIT;
	const struct log_reader_opts o = {.want_stdout = true, .want_stderr = true, .tail = tail};
	if (log_reader_start(t->g, id, &o, te_log_line, te_log_end, &l, &r, &e) < 0)
		te_die("log_reader_start", &e);
	if (!test_loop_until(&t->loop, te_log_ended, &l, TE_WAIT_MS))
		te_die("the log does not end", NULL);
	log_reader_close(r);
	if (l.err.code)
		te_die("log_reader", &l.err);
	return buf_take(&l.text, NULL);
}

/* Waits until the log has a text. */
static inline void te_wait_log(struct te *t, const char *id, const char *text)
{
	uint64_t end = uv_hrtime() + TE_WAIT_MS * 1000000ull;
	for (;;) {
		CLEANUP_FREE char *log = te_logs(t, id, -1);
		if (strstr(log, text))
			return;
		if (uv_hrtime() > end)
			te_die("the log does not come", NULL);
		usleep(5000);
	}
}

/* Creates, starts, waits; returns the exit code and the log. */
static inline int64_t te_run(struct te *t, Pb__ContainerConfig *c, char **ret_log)
{
	char id[65];
	te_up(t, c, id);
	int64_t code = te_wait_exit(t, id);
	if (ret_log)
		*ret_log = te_logs(t, id, -1);
	return code;
}

#endif
