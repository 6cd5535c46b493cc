/* Unpacking on the thread pool.
 *
 * At most two jobs run at a time, so that they leave threads of the pool to others; the rest wait in line. A
 * job's thread queues progress lines and wakes the loop, which hands them on; when the work returns, what is
 * still queued goes out before `done` is called. Cancelling sets a flag that the work looks at. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>

#include "agent/image_store.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

#define MAX_RUNNING 2

struct image_job {
	struct images *im;
	image_job_work work;
	image_job_done done;
	image_progress_cb progress;
	void *data;
	atomic_bool cancelled;
	pthread_mutex_t lock;
	json_t *lines; /* an array; under the lock */
	uv_async_t wake;
	int rc;
	struct err err;
	struct image_job *next;
};

static void start_next(struct images *im);

static void deliver(struct image_job *j)
{
	pthread_mutex_lock(&j->lock);
	json_t *lines = j->lines;
	j->lines = NULL;
	pthread_mutex_unlock(&j->lock);
	for (size_t i = 0; i < json_array_size(lines); i++)
		if (j->progress)
			j->progress(j->data, json_array_get(lines, i));
	json_decref(lines);
}

static void on_wake(uv_async_t *a)
{
	deliver(CONTAINER_OF(a, struct image_job, wake));
}

static void on_wake_closed(uv_handle_t *h)
{
	struct image_job *j = CONTAINER_OF(h, struct image_job, wake);
	struct images *im = j->im;
	deliver(j);
	j->done(j->data, j->rc, j->rc < 0 ? &j->err : NULL);
	pthread_mutex_destroy(&j->lock);
	free(j);
	images_release(im);
}

static void run(void *data)
{
	struct image_job *j = data;
	if (atomic_load(&j->cancelled))
		j->rc = err_set(&j->err, ERR_CANCELLED, "cancelled");
	else
		j->rc = j->work(j, j->data, &j->err);
	ASSERT(j->rc == 0 || j->err.code < 0);
	/* Decompressors take megabytes for a moment; a daemon that idles must not keep them. */
	malloc_trim(0);
}

static void finish(void *data)
{
	struct image_job *j = data;
	struct images *im = j->im;
	uv_close((uv_handle_t *)&j->wake, on_wake_closed);
	im->running--;
	start_next(im);
}

static void start_next(struct images *im)
{
	while (im->running < MAX_RUNNING && im->queue_head) {
		struct image_job *j = im->queue_head;
		im->queue_head = j->next;
		if (!im->queue_head)
			im->queue_tail = &im->queue_head;
		im->running++;
		loop_work(im->loop, run, finish, j);
	}
}

struct image_job *image_job_start(
    struct images *im, image_job_work work, image_job_done done, image_progress_cb progress, void *data)
{
	struct image_job *j = NEW(struct image_job);
	j->im = im;
	j->work = work;
	j->done = done;
	j->progress = progress;
	j->data = data;
	pthread_mutex_init(&j->lock, NULL);
	int r = uv_async_init(im->loop, &j->wake, on_wake);
	ASSERT(r == 0);
	images_hold(im);
	*im->queue_tail = j;
	im->queue_tail = &j->next;
	start_next(im);
	return j;
}

void image_job_report(struct image_job *j, json_t *line)
{
	pthread_mutex_lock(&j->lock);
	if (!j->lines)
		j->lines = json_array();
	json_array_append_new(j->lines, line);
	pthread_mutex_unlock(&j->lock);
	uv_async_send(&j->wake);
}

const atomic_bool *image_job_cancelled(const struct image_job *j)
{
	return &j->cancelled;
}

void image_job_cancel(struct image_job *j)
{
	atomic_store(&j->cancelled, true);
}

/* "1.5MB", decimal units with up to four digits, as docker prints sizes. */
static void print_size(int64_t n, char out[32])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double v = (double)n;
	size_t u = 0;
	while (v >= 1000 && u + 1 < ARRAY_LEN(units)) {
		v /= 1000;
		u++;
	}
	snprintf(out, 32, "%.4g%s", v, units[u]);
}

json_t *image_progress_line(const char *status, const char *id, int64_t done, int64_t total)
{
	json_t *line = json_pack("{s:s,s:{}}", "status", status, "progressDetail");
	ASSERT(line);
	if (total > 0) {
		int filled = (int)(50 * (done > total ? total : done) / total);
		char bar[52], at[32], of[32];
		int n = 0;
		for (; n < filled; n++)
			bar[n] = '=';
		if (filled < 50)
			bar[n++] = '>';
		for (; n < 50; n++)
			bar[n] = ' ';
		if (filled >= 50)
			bar[n++] = '>';
		bar[n] = 0;
		print_size(done, at);
		print_size(total, of);
		CLEANUP_FREE char *text = xasprintf("[%s]  %s/%s", bar, at, of);
		json_object_set_new(line, "progress", json_string(text));
		json_object_set_new(line, "progressDetail",
		    json_pack("{s:I,s:I}", "current", (json_int_t)done, "total", (json_int_t)total));
	}
	if (id)
		json_object_set_new(line, "id", json_string(id));
	return line;
}

struct image_job *image_job_next(const struct image_job *j)
{
	return j->next;
}
