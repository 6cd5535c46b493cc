/* Small things that every user of protobuf-c messages needs. */
#ifndef PROTO_PB_H
#define PROTO_PB_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "base/err.h"

/* A deep copy by way of the wire format; NULL gives NULL. Heap: pb_free. */
void *pb_clone(const void *msg);
void pb_free(void *msg); /* NULL is fine */
/* Unpacks; ERR_CORRUPT names the message type. */
int pb_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n, void *ret_msg, struct err *e);
/* Replaces a heap string field (NULL clears it). */
void pb_set_str(char **field, const char *value);
/* Appends to a repeated field of strings (copied) or messages (taken). */
void pb_add_str(char ***v, size_t *n, const char *s);
void pb_add_msg(void *v, size_t *n, void *msg);

/* A new message on the heap, initialised: PB_NEW(Pb__Task, pb__task). */
#define PB_NEW(type, prefix)                                                                                 \
	({                                                                                                   \
		type *pb_new_ = xcalloc(1, sizeof(type));                                                    \
		prefix##__init(pb_new_);                                                                     \
		pb_new_;                                                                                     \
	})

static inline void cleanup_pb_(void *p)
{
	pb_free(*(void **)p);
}
#define CLEANUP_PB __attribute__((cleanup(cleanup_pb_)))

#endif
