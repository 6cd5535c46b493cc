/* The words of gRPC: status numbers, timeouts, message escapes, and messages in and out of their frames.
 *
 * Statuses carry our own code as a word in an extra trailer ("shoal-code"), because gRPC's seventeen numbers
 * do not tell all of ours apart; a peer without it gets the nearest. */
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/rpc_private.h"

static const struct {
	int code;
	int grpc;
	const char *word;
} CODES[] = {
    {ERR_INVALID, 3, "invalid"},
    {ERR_UNAUTHORIZED, 16, "unauthorized"},
    {ERR_FORBIDDEN, 7, "forbidden"},
    {ERR_NOT_FOUND, 5, "not-found"},
    {ERR_CONFLICT, 6, "conflict"},
    {ERR_TOO_LARGE, 8, "too-large"},
    {ERR_UNAVAILABLE, 14, "unavailable"},
    {ERR_NOT_IMPLEMENTED, 12, "not-implemented"},
    {ERR_STALE, 10, "stale"},
    {ERR_PRECONDITION, 9, "precondition"},
    {ERR_CANCELLED, 1, "cancelled"},
    {ERR_TIMEOUT, 4, "timeout"},
    {ERR_IO, 2, "io"},
    {ERR_CORRUPT, 15, "corrupt"},
    {ERR_INTERNAL, 13, "internal"},
};

int rpc_status_of(int err_code)
{
	if (err_code == 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(CODES); i++)
		if (CODES[i].code == err_code)
			return CODES[i].grpc;
	return 13;
}

const char *rpc_word_of(int err_code)
{
	for (size_t i = 0; i < ARRAY_LEN(CODES); i++)
		if (CODES[i].code == err_code)
			return CODES[i].word;
	return "internal";
}

int rpc_code_of(int grpc_status, const char *word)
{
	if (grpc_status == 0)
		return 0;
	for (size_t i = 0; word && i < ARRAY_LEN(CODES); i++)
		if (strcmp(CODES[i].word, word) == 0)
			return CODES[i].code;
	for (size_t i = 0; i < ARRAY_LEN(CODES); i++)
		if (CODES[i].grpc == grpc_status)
			return CODES[i].code;
	return ERR_INTERNAL;
}

/* --- grpc-timeout: at most eight digits and a unit */

static uint64_t unit_ns(char c)
{
	switch (c) {
	case 'H':
		return 3600ull * 1000000000;
	case 'M':
		return 60ull * 1000000000;
	case 'S':
		return 1000000000;
	case 'm':
		return 1000000;
	case 'u':
		return 1000;
	case 'n':
		return 1;
	default:
		return 0;
	}
}

int rpc_timeout_parse(const char *s, size_t n, unsigned *ret_ms)
{
	uint64_t v = 0;
	if (n < 2 || n > 9 || unit_ns(s[n - 1]) == 0)
		return ERR_INVALID;
	for (size_t i = 0; i + 1 < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return ERR_INVALID;
		v = v * 10 + (uint64_t)(s[i] - '0');
	}
	/* 99999999 hours do not overflow: 3.6e20 would; so divide first where the unit is whole milliseconds.
	 */
	uint64_t unit = unit_ns(s[n - 1]);
	uint64_t ms = unit >= 1000000 ? v * (unit / 1000000) : (v * unit + 999999) / 1000000;
	*ret_ms = ms > UINT32_MAX ? UINT32_MAX : (unsigned)ms;
	return 0;
}

void rpc_timeout_format(unsigned ms, char out[16])
{
	if (ms < 100000000)
		snprintf(out, 16, "%um", ms);
	else
		snprintf(out, 16, "%uS", ms / 1000);
}

/* --- grpc-message */

void rpc_message_encode(const char *text, struct buf *out)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c >= 0x20 && c < 0x7f && c != '%')
			buf_putc(out, (char)c);
		else
			buf_printf(out, "%%%02X", c);
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void rpc_message_decode(const char *p, size_t n, char *out, size_t cap)
{
	size_t o = 0;
	for (size_t i = 0; i < n && o + 1 < cap; i++) {
		int c = (unsigned char)p[i];
		if (c == '%' && i + 2 < n && hex_digit(p[i + 1]) >= 0 && hex_digit(p[i + 2]) >= 0) {
			c = hex_digit(p[i + 1]) << 4 | hex_digit(p[i + 2]);
			i += 2;
		}
		if (c != 0)
			out[o++] = (char)c;
	}
	out[o] = 0;
}

/* --- frames */

size_t rpc_frame_pack(const ProtobufCMessage *m, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	if (n > LIMIT_RPC_MESSAGE)
		return n;
	buf_reserve(out, n + 5);
	buf_putc(out, 0);
	buf_put_u32be(out, (uint32_t)n);
	size_t wrote = protobuf_c_message_pack(m, (uint8_t *)out->data + out->len);
	ASSERT(wrote == n);
	out->len += n;
	out->data[out->len] = 0;
	return n;
}

/* A repeated empty message is two bytes on the wire and a hundred in memory. What honest messages need is
 * some times their size. */
static void *budget_alloc(void *data, size_t n)
{
	size_t *left = data;
	if (n > *left)
		return NULL;
	*left -= n;
	return malloc(n ? n : 1);
}

static void budget_free(void *data, void *p)
{
	(void)data;
	free(p);
}

int rpc_frame_unpack(
    const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n, ProtobufCMessage **ret, struct err *e)
{
	size_t left = 65536 + 24 * n;
	ProtobufCAllocator a = {budget_alloc, budget_free, &left};
	ProtobufCMessage *m = protobuf_c_message_unpack(d, &a, n, p);
	if (!m)
		return err_set(e, ERR_CORRUPT, "a %s of %zu bytes does not decode", d->short_name, n);
	*ret = m;
	return 0;
}
