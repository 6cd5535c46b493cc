/* A connection to a conmon's attach socket: the output of a container or an exec session, and its input.
 *
 * The socket keeps packets: from conmon one byte for the stream and up to 8 KiB of output; to it plain bytes.
 * While output is paused here, conmon stops reading the process' pipes: the process waits, nothing is lost
 * and nothing piles up. */
#ifndef AGENT_ATTACH_H
#define AGENT_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"

#define ATTACH_INPUT_MAX (1024u * 1024)

struct attach_conn;
struct attach_handlers {
	void (*output)(void *data, int stream, const uint8_t *p, size_t n); /* 1 stdout, 2 stderr */
	void (*ended)(void *data);                                          /* once, last: conmon closed it */
	void (*drained)(void *data); /* input that waited is gone; may be NULL */
	void *data;
};

/* Connects to <bundle>/attach; blocking only as far as connect is. Returns a descriptor. */
int attach_connect(const char *bundle, int *ret_fd, struct err *e);
/* Takes fd. Output starts with the next turn of the loop. */
struct attach_conn *attach_new(uv_loop_t *loop, int fd, const struct attach_handlers *h);
/* Queues input; n 0 closes it after what waits. ERR_TOO_LARGE when more than ATTACH_INPUT_MAX wait;
 * ERR_CANCELLED after the end. */
int attach_input(struct attach_conn *a, const void *p, size_t n, struct err *e);
size_t attach_input_waiting(const struct attach_conn *a);
void attach_pause(struct attach_conn *a, bool paused);
void attach_free(struct attach_conn *a); /* no callback after; NULL is fine */
/* Sets the terminal's size through conmon's control fifo. */
int attach_resize(const char *bundle, unsigned rows, unsigned cols, struct err *e);

#endif
