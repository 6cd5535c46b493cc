/* Bytes that come in at one end and leave at the other, without moving what stays each time. */
#ifndef PROTO_QUEUE_H
#define PROTO_QUEUE_H

#include "base/buf.h"

struct queue {
	struct buf b;
	size_t off; /* consumed, not yet dropped */
};

static inline size_t queue_len(const struct queue *q)
{
	return q->b.len - q->off;
}
static inline const char *queue_data(const struct queue *q)
{
	return q->b.data + q->off;
}
static inline void queue_append(struct queue *q, const void *p, size_t n)
{
	buf_append(&q->b, p, n);
}
/* Frees the memory when the last byte leaves: most queues are empty most of the time. */
static inline void queue_consume(struct queue *q, size_t n)
{
	q->off += n;
	if (q->off == q->b.len) {
		buf_done(&q->b);
		q->off = 0;
	} else if (q->off > 65536 && q->off > q->b.len / 2) {
		buf_consume(&q->b, q->off);
		q->off = 0;
	}
}
static inline void queue_done(struct queue *q)
{
	buf_done(&q->b);
	q->off = 0;
}

#endif
