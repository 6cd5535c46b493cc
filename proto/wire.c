/* Protobuf's encoding by hand: see wire.h. Reading never looks past the given length, and a field that
 * claims more bytes than there are ends the reading with -1. */
#include "proto/wire.h"

#include <string.h>

void wire_put_varint(struct buf *out, uint64_t v)
{
	uint8_t b[10];
	size_t n = 0;

	while (v >= 0x80) {
		b[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	b[n++] = (uint8_t)v;
	buf_append(out, b, n);
}

size_t wire_varint_size(uint64_t v)
{
	size_t n = 1;

	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

void wire_put_uint(struct buf *out, uint32_t field, uint64_t v)
{
	wire_put_varint(out, (uint64_t)field << 3 | WIRE_VARINT);
	wire_put_varint(out, v);
}

void wire_put_fixed64(struct buf *out, uint32_t field, uint64_t v)
{
	uint8_t b[8];

	wire_put_varint(out, (uint64_t)field << 3 | WIRE_FIXED64);
	for (unsigned i = 0; i < 8; i++)
		b[i] = (uint8_t)(v >> (8 * i));
	buf_append(out, b, sizeof(b));
}

void wire_put_bytes_head(struct buf *out, uint32_t field, size_t n)
{
	wire_put_varint(out, (uint64_t)field << 3 | WIRE_BYTES);
	wire_put_varint(out, n);
}

void wire_put_bytes(struct buf *out, uint32_t field, const void *p, size_t n)
{
	wire_put_bytes_head(out, field, n);
	if (n > 0)
		buf_append(out, p, n);
}

void wire_put_raw_message(struct buf *out, const ProtobufCMessage *m, size_t size)
{
	if (size == 0)
		size = protobuf_c_message_get_packed_size(m);
	buf_reserve(out, size);
	/* buf_reserve(0) may leave data NULL; packing nothing then touches nothing. */
	if (size == 0)
		return;
	out->len += protobuf_c_message_pack(m, (uint8_t *)out->data + out->len);
	out->data[out->len] = '\0';
}

void wire_put_message(struct buf *out, uint32_t field, const ProtobufCMessage *m, size_t size)
{
	if (size == 0)
		size = protobuf_c_message_get_packed_size(m);
	wire_put_bytes_head(out, field, size);
	wire_put_raw_message(out, m, size);
}

static bool read_varint(struct wire_reader *r, uint64_t *ret_v)
{
	uint64_t v = 0;

	for (size_t i = 0; i < 10 && i < r->n; i++) {
		v |= (uint64_t)(r->p[i] & 0x7f) << (7 * i);
		if (!(r->p[i] & 0x80)) {
			r->p += i + 1;
			r->n -= i + 1;
			*ret_v = v;
			return true;
		}
	}
	return false;
}

static bool read_fixed(struct wire_reader *r, unsigned bytes, uint64_t *ret_v)
{
	uint64_t v = 0;

	if (r->n < bytes)
		return false;
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)r->p[i] << (8 * i);
	r->p += bytes;
	r->n -= bytes;
	*ret_v = v;
	return true;
}

int wire_next(struct wire_reader *r, struct wire_field *ret_f)
{
	struct wire_field f = {0};
	uint64_t tag;

	if (r->n == 0)
		return 0;
	if (!read_varint(r, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
		return -1;
	f.field = (uint32_t)(tag >> 3);
	f.type = (uint32_t)(tag & 7);
	switch (f.type) {
	case WIRE_VARINT:
		if (!read_varint(r, &f.v))
			return -1;
		break;
	case WIRE_FIXED64:
		if (!read_fixed(r, 8, &f.v))
			return -1;
		break;
	case WIRE_FIXED32:
		if (!read_fixed(r, 4, &f.v))
			return -1;
		break;
	case WIRE_BYTES:
		if (!read_varint(r, &f.v) || f.v > r->n)
			return -1;
		f.p = r->p;
		f.n = (size_t)f.v;
		r->p += f.n;
		r->n -= f.n;
		break;
	default:
		return -1;
	}
	*ret_f = f;
	return 1;
}
