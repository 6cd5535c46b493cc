/* A growable run of bytes. Grows by doubling; running out of memory aborts, so nothing here fails. */
#include "base/buf.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#define MIN_CAP 64

void buf_done(struct buf *b)
{
	free(b->data);
	*b = (struct buf)BUF_INIT;
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

void buf_reserve(struct buf *b, size_t extra)
{
	size_t need;
	ASSERT(!__builtin_add_overflow(b->len, extra, &need) && need < SIZE_MAX / 2);
	if (need < b->cap) /* one more for the NUL */
		return;
	size_t cap = b->cap ? b->cap : MIN_CAP;
	while (cap <= need)
		cap *= 2;
	bool fresh = !b->data;
	b->data = xrealloc(b->data, cap);
	b->cap = cap;
	if (fresh)
		b->data[0] = '\0';
}

void buf_append(struct buf *b, const void *p, size_t n)
{
	buf_reserve(b, n);
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
	buf_append(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	buf_reserve(b, 1);
	size_t room = b->cap - b->len;
	int n = vsnprintf(b->data + b->len, room, fmt, ap);
	ASSERT(n >= 0);
	if ((size_t)n >= room) {
		buf_reserve(b, (size_t)n);
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
	}
	va_end(again);
	b->len += (size_t)n;
}

void buf_put_u32be(struct buf *b, uint32_t v)
{
	uint8_t p[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
	buf_append(b, p, sizeof(p));
}

void buf_consume(struct buf *b, size_t n)
{
	ASSERT(n <= b->len);
	if (!n)
		return;
	b->len -= n;
	memmove(b->data, b->data + n, b->len);
	b->data[b->len] = '\0';
}

char *buf_take(struct buf *b, size_t *ret_len)
{
	buf_reserve(b, 0);
	char *p = TAKE_PTR(b->data);
	if (ret_len)
		*ret_len = b->len;
	*b = (struct buf)BUF_INIT;
	return p;
}
