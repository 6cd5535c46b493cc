/* A growable run of bytes; always NUL-terminated one past its length, so `data` may serve as a string. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdint.h>
#include <stddef.h>

struct buf {
	char *data; /* NULL while nothing was ever appended */
	size_t len;
	size_t cap;
};

#define BUF_INIT                                                                                             \
	{                                                                                                    \
		0, 0, 0                                                                                      \
	}
#define CLEANUP_BUF __attribute__((cleanup(buf_done)))

void buf_done(struct buf *b);  /* frees; b is empty and usable after */
void buf_reset(struct buf *b); /* length 0, memory kept */
void buf_reserve(struct buf *b, size_t extra);
void buf_append(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
void buf_put_u32be(struct buf *b, uint32_t v);
void buf_consume(struct buf *b, size_t n); /* drops n bytes from the front */
/* Hands the memory to the caller (free it); never NULL ("" when empty). ret_len may be NULL. */
char *buf_take(struct buf *b, size_t *ret_len);

#endif
