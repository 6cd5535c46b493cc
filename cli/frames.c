/* Whole frames are handed on, so that a line of a service's log is one call; their length is bounded. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cli/frames.h"

#define HEADER    8
#define MAX_FRAME (16u << 20)

/* Straight to the descriptor: bytes of programs are not ours to buffer. */
static int print(enum frame_stream stream, const char *p, size_t n, struct err *e)
{
	int fd = stream == FRAME_STDERR ? STDERR_FILENO : STDOUT_FILENO;
	while (n) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return err_errno(e, errno, "cannot write the output");
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

static int hand_on(struct frames *f, enum frame_stream stream, const char *p, size_t n, struct err *e)
{
	if (stream == FRAME_ERROR)
		return err_set(
		    e, ERR_INTERNAL, "Error from daemon in stream: %.*s", (int)(n > 500 ? 500 : n), p);
	return f->frame ? f->frame(f->data, stream, p, n, e) : print(stream, p, n, e);
}

int frames_feed(void *frames, const char *p, size_t n, struct err *e)
{
	struct frames *f = frames;
	if (f->raw)
		return hand_on(f, FRAME_STDOUT, p, n, e);
	buf_append(&f->pending, p, n);
	size_t used = 0;
	int r = 0;
	while (r == 0 && f->pending.len - used >= HEADER) {
		const unsigned char *h = (const unsigned char *)f->pending.data + used;
		size_t len = (size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7];
		if (h[0] > FRAME_ERROR || len > MAX_FRAME)
			return err_set(e, ERR_CORRUPT, "the daemon's output is not framed as it should be");
		if (f->pending.len - used - HEADER < len)
			break;
		r = hand_on(f, (enum frame_stream)h[0], f->pending.data + used + HEADER, len, e);
		used += HEADER + len;
	}
	buf_consume(&f->pending, used);
	return r;
}

void frames_done(struct frames *f)
{
	buf_done(&f->pending);
}
