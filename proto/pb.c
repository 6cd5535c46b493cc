/* See pb.h. Copies go through the wire format, which keeps unknown fields and needs no knowledge of the type.
 */
#include "proto/pb.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

void *pb_clone(const void *msg)
{
	if (!msg)
		return NULL;
	const ProtobufCMessage *m = msg;
	size_t n = protobuf_c_message_get_packed_size(m);
	CLEANUP_FREE uint8_t *p = xmalloc(n ? n : 1);
	protobuf_c_message_pack(m, p);
	ProtobufCMessage *copy = protobuf_c_message_unpack(m->descriptor, NULL, n, p);
	if (!copy)
		abort(); /* what was packed unpacks, or there is no memory */
	return copy;
}

void pb_free(void *msg)
{
	if (msg)
		protobuf_c_message_free_unpacked(msg, NULL);
}

int pb_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n, void *ret_msg, struct err *e)
{
	ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, n, p);
	if (!m)
		return err_set(e, ERR_CORRUPT, "a %s of %zu bytes does not decode", d->short_name, n);
	*(void **)ret_msg = m;
	return 0;
}

void pb_set_str(char **field, const char *value)
{
	char *copy = xstrdup(value);
	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
}

void pb_add_str(char ***v, size_t *n, const char *s)
{
	*v = xreallocarray(*v, *n + 1, sizeof(char *));
	(*v)[(*n)++] = xstrdup(s);
}

void pb_add_msg(void *v, size_t *n, void *msg)
{
	void ***arr = v;
	*arr = xreallocarray(*arr, *n + 1, sizeof(void *));
	(*arr)[(*n)++] = msg;
}
