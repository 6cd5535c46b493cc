/* Waiting on a loop for a condition, with a deadline. */
#ifndef TEST_LOOP_H
#define TEST_LOOP_H

#include <stdbool.h>
#include <uv.h>

static void test_loop_expired(uv_timer_t *t)
{
	*(bool *)t->data = true;
}

/* Runs the loop until cond(data) or until ms have passed; whether it was met. */
static inline bool test_loop_until(uv_loop_t *loop, bool (*cond)(void *data), void *data, unsigned ms)
{
	bool expired = false;
	uv_timer_t t;
	uv_timer_init(loop, &t);
	t.data = &expired;
	uv_timer_start(&t, test_loop_expired, ms, 0);
	while (!expired && !cond(data))
		uv_run(loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&t, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	return cond(data);
}

static inline bool test_loop_flag(void *data)
{
	return *(bool *)data;
}

/* Lets everything that is closing finish; false when handles were left open. */
static inline bool test_loop_end(uv_loop_t *loop)
{
	bool expired = false;
	uv_timer_t t;
	uv_timer_init(loop, &t);
	t.data = &expired;
	uv_timer_start(&t, test_loop_expired, 10000, 0);
	uv_unref((uv_handle_t *)&t);
	while (!expired && uv_loop_alive(loop))
		uv_run(loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&t, NULL);
	uv_run(loop, UV_RUN_DEFAULT);
	return uv_loop_close(loop) == 0;
}

#endif
