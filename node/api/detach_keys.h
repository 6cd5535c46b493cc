/* The keys that take a client off a terminal ("ctrl-p,ctrl-q"): found in its input, not passed on. */
#ifndef NODE_API_DETACH_KEYS_H
#define NODE_API_DETACH_KEYS_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

#define DETACH_KEYS_MAX 16

struct detach_keys {
	uint8_t keys[DETACH_KEYS_MAX];
	size_t n, matched;
};

/* Text as docker's --detach-keys has it: characters or ctrl-X with commas between; NULL or "" gives
 * ctrl-p,ctrl-q. ERR_INVALID names what it does not know. */
int detach_keys_parse(const char *s, struct detach_keys *ret, struct err *e);
/* Takes input, appends what is to be passed on. Keys that may become the sequence are held back until it is
 * broken off. True when the sequence is complete: what follows it is dropped. */
bool detach_keys_feed(struct detach_keys *d, const uint8_t *p, size_t n, struct buf *out);

#endif
