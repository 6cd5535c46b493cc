/* Progress that the daemon sends as JSON objects in a row: image pull, load, prune. */
#ifndef CLI_JSONSTREAM_H
#define CLI_JSONSTREAM_H

#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct jsonstream {
	struct buf pending;
	bool quiet, tty;
	struct strlist ids;                                  /* lines on the terminal, by their id */
	int (*object)(void *data, json_t *o, struct err *e); /* NULL: shows progress */
	void *data;
};

/* For api_opts.on_data: feeds bytes; an object with "error" ends it with that error. */
int jsonstream_feed(void *stream, const char *p, size_t n, struct err *e);
void jsonstream_done(struct jsonstream *s);

#endif
