/* The few pieces of protobuf's encoding that are written and read by hand where a generated message
 * would copy every payload once more: varints, tags, length-delimited fields. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define WIRE_VARINT  0u
#define WIRE_FIXED64 1u
#define WIRE_BYTES   2u
#define WIRE_FIXED32 5u

void wire_put_varint(struct buf *out, uint64_t v);
void wire_put_uint(struct buf *out, uint32_t field, uint64_t v);
void wire_put_fixed64(struct buf *out, uint32_t field, uint64_t v);
void wire_put_bytes(struct buf *out, uint32_t field, const void *p, size_t n);
/* The field's tag and length; the caller appends exactly n bytes after it. */
void wire_put_bytes_head(struct buf *out, uint32_t field, size_t n);
/* A message packed in place as a length-delimited field; size is its packed size when the caller knows it,
 * else 0. */
void wire_put_message(struct buf *out, uint32_t field, const ProtobufCMessage *m, size_t size);
/* The message's bytes alone. */
void wire_put_raw_message(struct buf *out, const ProtobufCMessage *m, size_t size);
/* How many bytes a varint of v takes. */
size_t wire_varint_size(uint64_t v);

/* One field of a message; v for numbers, p and n (borrowed) for WIRE_BYTES. */
struct wire_field {
	uint32_t field;
	uint32_t type;
	uint64_t v;
	const uint8_t *p;
	size_t n;
};
struct wire_reader {
	const uint8_t *p;
	size_t n;
};
/* 1 and a field, 0 at the end, -1 when what is left is not a field (groups included). */
int wire_next(struct wire_reader *r, struct wire_field *ret_f);

#endif
