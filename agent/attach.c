/* conmon's attach socket on the loop.
 *
 * Failing: a conmon that dies ends the connection like an orderly end; what it had sent before is delivered
 * first. Input that conmon does not take yet waits in a bounded buffer. */
#include "agent/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define PACKET_MAX  (16u * 1024)
#define PIECE       8192 /* conmon reads at most 32 KiB of a packet */
#define BATCH       32   /* packets a turn, so that one talker does not hold up the loop */
#define PIPE_STDERR 3    /* conmon's numbers: 2 stdout, 3 stderr */

struct attach_conn {
	uv_poll_t poll;
	int fd;
	struct attach_handlers h;
	struct buf input;
	bool paused, ended, freed;
	bool close_input, input_closed;
};

int attach_connect(const char *bundle, int *ret_fd, struct err *e)
{
	/* A socket's path is at most 107 bytes; through the directory's descriptor any bundle will do. */
	CLEANUP_CLOSE int dir = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_errno(e, errno, "attaching to %s", bundle);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/attach", dir);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int r = err_errno(e, errno, "attaching to %s", bundle);
		if (fd >= 0)
			close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static void on_events(uv_poll_t *p, int status, int events);

static void update(struct attach_conn *a)
{
	int events = 0;
	if (a->freed || a->ended)
		return;
	if (!a->paused)
		events |= UV_READABLE;
	if (a->input.len || (a->close_input && !a->input_closed))
		events |= UV_WRITABLE;
	int r = events ? uv_poll_start(&a->poll, events, on_events) : uv_poll_stop(&a->poll);
	ASSERT(r == 0);
}

static void end(struct attach_conn *a)
{
	a->ended = true;
	uv_poll_stop(&a->poll);
	a->h.ended(a->h.data);
}

static void read_some(struct attach_conn *a)
{
	uint8_t packet[PACKET_MAX];
	for (int i = 0; i < BATCH && !a->paused && !a->freed; i++) {
		ssize_t n = recv(a->fd, packet, sizeof(packet), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			end(a);
			return;
		}
		if (n > 1)
			a->h.output(a->h.data, packet[0] == PIPE_STDERR ? 2 : 1, packet + 1, (size_t)n - 1);
	}
}

static void write_some(struct attach_conn *a)
{
	bool had = a->input.len > 0;
	while (a->input.len) {
		size_t n = a->input.len < PIECE ? a->input.len : PIECE;
		ssize_t w = send(a->fd, a->input.data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN)
			break;
		if (w < 0) { /* nobody reads any more: its end comes on the other side */
			buf_reset(&a->input);
			break;
		}
		buf_consume(&a->input, (size_t)w);
	}
	if (a->input.len == 0 && a->close_input && !a->input_closed) {
		shutdown(a->fd, SHUT_WR);
		a->input_closed = true;
	}
	if (had && a->input.len == 0 && a->h.drained)
		a->h.drained(a->h.data);
}

static void closed(uv_handle_t *h)
{
	struct attach_conn *a = CONTAINER_OF((uv_poll_t *)h, struct attach_conn, poll);
	close(a->fd);
	buf_done(&a->input);
	free(a);
}

static void on_events(uv_poll_t *p, int status, int events)
{
	struct attach_conn *a = CONTAINER_OF(p, struct attach_conn, poll);
	(void)status;
	if (events & UV_WRITABLE)
		write_some(a);
	if (!a->freed && (status < 0 || events & UV_READABLE))
		read_some(a);
	update(a);
}

struct attach_conn *attach_new(uv_loop_t *loop, int fd, const struct attach_handlers *h)
{
	struct attach_conn *a = NEW(struct attach_conn);
	a->fd = fd;
	a->h = *h;
	int r = uv_poll_init(loop, &a->poll, fd);
	ASSERT(r == 0);
	update(a);
	return a;
}

int attach_input(struct attach_conn *a, const void *p, size_t n, struct err *e)
{
	if (a->ended || a->close_input)
		return err_set(e, ERR_CANCELLED, "the input is closed");
	if (a->input.len + n > ATTACH_INPUT_MAX)
		return err_set(e, ERR_TOO_LARGE, "the process does not read its input");
	if (n == 0)
		a->close_input = true;
	else
		buf_append(&a->input, p, n);
	update(a);
	return 0;
}

size_t attach_input_waiting(const struct attach_conn *a)
{
	return a->input.len;
}

void attach_pause(struct attach_conn *a, bool paused)
{
	a->paused = paused;
	update(a);
}

void attach_free(struct attach_conn *a)
{
	if (!a || a->freed)
		return;
	a->freed = true;
	uv_close((uv_handle_t *)&a->poll, closed);
}

int attach_resize(const char *bundle, unsigned rows, unsigned cols, struct err *e)
{
	CLEANUP_FREE char *path = fs_path(bundle, "ctl");
	char line[64];
	if (rows > UINT16_MAX || cols > UINT16_MAX)
		return err_set(e, ERR_INVALID, "a terminal of %u by %u is too large", rows, cols);
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	int n = snprintf(line, sizeof(line), "1 %u %u\n", rows, cols);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		return err_errno(e, errno, "resizing the terminal");
	return 0;
}
