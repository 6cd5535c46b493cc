/* A connection to the daemon and HTTP/1.1 requests on it, blocking. Unix sockets are spoken to directly; TCP
 * goes through libcurl, which is loaded only then (its libraries would cost more time than most commands
 * take). */
#ifndef CLI_CONN_H
#define CLI_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

struct cli;
struct conn;

/* Connects to c->host (NULL: from the environment, then the default). ERR_UNAVAILABLE when nobody answers
 * there. */
int conn_dial(struct cli *c, struct conn **ret, struct err *e);
void conn_free(struct conn *k);

struct conn_request {
	const char *method;
	const char *path; /* with query */
	const char *content_type;
	const void *body; /* or body_fd; borrowed */
	size_t body_len;
	int body_fd;      /* sent in chunks to its end; -1: none */
	const char *auth; /* X-Registry-Auth, or NULL */
	bool upgrade;     /* ask for a raw connection */
	int patience_ms;  /* longest wait for the reply to go on: ERR_TIMEOUT after that; 0: no bound */
	/* Gets a 2xx body piece by piece; a non-zero result ends the request and is what conn_do returns.
	 * NULL: collected. */
	int (*on_data)(void *data, const char *p, size_t n, struct err *e);
	void *data;
};

struct conn_reply {
	int status;
	bool framed; /* the body is multiplexed stdout and stderr */
	bool json;   /* the body says that it is JSON */
	struct buf
	    body; /* what was not given to on_data; after an upgrade: bytes that came behind the headers */
};

/* Sends the request and reads the reply. After an error or !conn_reusable the connection is of no further
 * use. ERR_STALE when the server had closed a kept connection before this request. */
int conn_do(struct conn *k, const struct conn_request *r, struct conn_reply *ret, struct err *e);
bool conn_reusable(const struct conn *k);

/* Raw bytes, after an upgrade. */
int conn_fd(const struct conn *k); /* to poll for reading */
/* n bytes, 0 at the end, -EAGAIN when none are there now, or another -errno. */
ssize_t conn_read(struct conn *k, void *p, size_t n);
int conn_write(struct conn *k, const void *p, size_t n, struct err *e); /* all of it */
void conn_shutdown(struct conn *k);                                     /* no more will be written */

#endif
