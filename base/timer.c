/* Timers, deferred calls and blocking work on a libuv loop. */
#include "base/timer.h"

#include "base/log.h"
#include "base/mem.h"

struct timer {
	uv_timer_t uv;
	timer_cb cb;
	void *data;
};

static void on_timer(uv_timer_t *uv)
{
	struct timer *t = CONTAINER_OF(uv, struct timer, uv);
	t->cb(t->data); /* may free t: the memory goes only in the close callback */
}

struct timer *timer_new(uv_loop_t *loop, timer_cb cb, void *data)
{
	struct timer *t = NEW(struct timer);
	int r = uv_timer_init(loop, &t->uv);
	ASSERT(r == 0);
	t->cb = cb;
	t->data = data;
	return t;
}

void timer_start(struct timer *t, uint64_t ms)
{
	/* The loop's idea of now is as old as its last turn; without this a long callback would make
	 * the timer fire early. */
	if (ms)
		uv_update_time(t->uv.loop);
	int r = uv_timer_start(&t->uv, on_timer, ms, 0);
	ASSERT(r == 0);
}

void timer_stop(struct timer *t)
{
	uv_timer_stop(&t->uv);
}

bool timer_armed(const struct timer *t)
{
	return uv_is_active((const uv_handle_t *)&t->uv);
}

static void free_timer(uv_handle_t *h)
{
	free(CONTAINER_OF(h, struct timer, uv));
}

void timer_free(struct timer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->uv, free_timer);
}

struct deferred {
	uv_timer_t uv;
	timer_cb cb;
	void *data;
};

static void free_deferred(uv_handle_t *h)
{
	free(CONTAINER_OF(h, struct deferred, uv));
}

static void on_deferred(uv_timer_t *uv)
{
	struct deferred *d = CONTAINER_OF(uv, struct deferred, uv);
	uv_close((uv_handle_t *)uv, free_deferred);
	d->cb(d->data);
}

/* A timer of zero rather than an idle handle, because timers keep the order of the calls. */
void loop_defer(uv_loop_t *loop, timer_cb cb, void *data)
{
	struct deferred *d = NEW(struct deferred);
	d->cb = cb;
	d->data = data;
	int r = uv_timer_init(loop, &d->uv);
	ASSERT(r == 0);
	r = uv_timer_start(&d->uv, on_deferred, 0, 0);
	ASSERT(r == 0);
}

struct work {
	uv_work_t uv;
	void (*work)(void *data);
	void (*done)(void *data);
	void *data;
};

static void run_work(uv_work_t *uv)
{
	struct work *w = CONTAINER_OF(uv, struct work, uv);
	w->work(w->data);
}

static void finish_work(uv_work_t *uv, int status)
{
	struct work *w = CONTAINER_OF(uv, struct work, uv);
	ASSERT(status == 0); /* nobody has the request, so nobody can cancel it */
	void (*done)(void *) = w->done;
	void *data = w->data;
	free(w);
	done(data);
}

void loop_work(uv_loop_t *loop, void (*work)(void *data), void (*done)(void *data), void *data)
{
	struct work *w = NEW(struct work);
	w->work = work;
	w->done = done;
	w->data = data;
	int r = uv_queue_work(loop, &w->uv, run_work, finish_work);
	ASSERT(r == 0);
}
