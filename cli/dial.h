/* What carries bytes to the daemon: a unix socket, or TCP with or without TLS. */
#ifndef CLI_DIAL_H
#define CLI_DIAL_H

#include <sys/types.h>

#include "base/err.h"

struct cli;

struct transport {
	int fd;     /* for poll */
	void *curl; /* a CURL handle, or NULL when fd is the connection itself */
};

int transport_dial(struct cli *c, struct transport *ret, struct err *e);
void transport_close(struct transport *t);
/* As recv and send without blocking: bytes, 0 at the end (read), or -errno. */
ssize_t transport_read(struct transport *t, void *p, size_t n);
ssize_t transport_write(struct transport *t, const void *p, size_t n);
void transport_shutdown(struct transport *t);

#endif
