/* stdout and stderr of a container in one stream: frames of 8 header bytes and a payload. */
#ifndef CLI_FRAMES_H
#define CLI_FRAMES_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

enum frame_stream { FRAME_STDIN, FRAME_STDOUT, FRAME_STDERR, FRAME_ERROR };

struct frames {
	struct buf pending;
	bool raw; /* a terminal's: no frames, all is stdout */
	int (*frame)(
	    void *data, enum frame_stream stream, const char *p, size_t n, struct err *e); /* NULL: print */
	void *data;
};

/* For api_opts.on_data. A frame of the error stream ends it with its text. */
int frames_feed(void *frames, const char *p, size_t n, struct err *e);
void frames_done(struct frames *f);

#endif
