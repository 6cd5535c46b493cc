/* What tls_ctx.c, tls_conn.c and tls_listen.c share. Nobody else includes this. */
#ifndef PROTO_TLS_PRIVATE_H
#define PROTO_TLS_PRIVATE_H

#include "proto/tls.h"

struct tls_ctx {
	int refs;
	SSL_CTX *ssl;
	BIO_METHOD *bio;
	bool verify;
	uint8_t alpn[256]; /* wire form: length-prefixed names */
	unsigned alpn_len;
	/* What libuv reads into. All connections of a ctx are on one loop, and between the read and the end
	 * of its callback nothing else reads, so one is enough; allocating it for each read would have the
	 * heap's end given back and faulted in again every time. */
	uint8_t *scratch;
};

/* After a handshake: alpn and, where a certificate was shown, who it is. ERR_UNAUTHORIZED when the
 * certificate was not verified although the ctx asks for it, or its subject is not one of ours. */
int tls_peer_fill(const struct tls_ctx *ctx, SSL *ssl, struct tls_peer *ret, struct err *e);

/* The memory end of a connection, as the BIO of tls_ctx.c sees it. */
struct tls_mem {
	const uint8_t *in; /* what came and is not consumed */
	size_t in_len;
	bool eof;
	struct buf *out; /* what is to be sent */
};
BIO *tls_mem_bio(const struct tls_ctx *ctx, struct tls_mem *m);

struct tls_listener;
/* Makes the server side of a connection that waits on `listener`; it counts itself there. */
void tls_conn_accept(struct tls_listener *l, uv_stream_t *from);

struct tls_listener {
	uv_tcp_t tcp;
	uv_loop_t *loop;
	struct tls_ctx *ctx;
	uint16_t port;
	int (*accept)(void *data, struct tls_conn *c, const struct tls_peer *peer);
	void *data;
	struct tls_conn *handshakes; /* list of those not handed over yet */
	size_t n_handshakes;
	size_t n_conns;
	bool closing, tcp_closed, reported;
	void (*closed)(void *data);
	void *closed_data;
};
/* A connection left its handshake, or is gone. */
void tls_listener_maybe_finish_close(struct tls_listener *l);
void tls_conn_end_handshakes(struct tls_listener *l);

#endif
