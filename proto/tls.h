/* TLS 1.3 streams over libuv TCP (or any uv_stream_t), OpenSSL with memory BIOs, both sides verified where a CA is given. */
#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include <openssl/ssl.h>

#include "base/err.h"

/* An identity and what it trusts; reference-counted, replaceable at run time (certificate renewal). */
struct tls_ctx;
struct tls_ctx_opts {
	const char *cert_pem;      /* chain; NULL: anonymous client */
	const char *key_pem;
	const char *ca_pem;        /* roots to verify the peer by; NULL only for fetching the root CA by digest */
	bool server;
	bool require_peer_cert;    /* server: refuse clients without one; otherwise they may come without */
	const char *const *alpn;   /* NULL-terminated, by preference */
};
int tls_ctx_new(const struct tls_ctx_opts *o, struct tls_ctx **ret, struct err *e);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *c);
void tls_ctx_unref(struct tls_ctx *c);

/* What the peer's verified certificate says. node_id "" when it showed none. */
struct tls_peer {
	char node_id[64];          /* CN */
	char role[32];             /* OU: "swarm-manager" | "swarm-worker" */
	char org[64];              /* O: cluster id */
	bool verified;
	char alpn[32];
	char addr[64];             /* ip:port */
};

struct tls_conn;
struct tls_conn_ops {
	void (*ready)(void *data, const struct tls_peer *peer);       /* handshake done */
	void (*read)(void *data, const uint8_t *p, size_t n);
	void (*closed)(void *data, const struct err *why);            /* exactly once, last; why->code 0 for a clean end */
	void (*drained)(void *data);                                  /* nothing waits to be sent (may be NULL) */
};
/* Connects within timeout_ms. ret is valid until closed. */
int tls_connect(uv_loop_t *loop, struct tls_ctx *ctx, const char *host, uint16_t port, unsigned timeout_ms,
    const struct tls_conn_ops *ops, void *data, struct tls_conn **ret, struct err *e);
/* Queues bytes (copied); returns how many wait. */
size_t tls_write(struct tls_conn *c, const void *p, size_t n);
void tls_pause(struct tls_conn *c, bool paused);
void tls_close(struct tls_conn *c);               /* idempotent; closed comes later */
const struct tls_peer *tls_conn_peer(const struct tls_conn *c);
void tls_conn_set_ops(struct tls_conn *c, const struct tls_conn_ops *ops, void *data);

/* Listens; accept is called after each good handshake and returns the ops by ALPN (set with tls_conn_set_ops inside), or
 * non-zero to refuse. ctx can be replaced while listening. */
struct tls_listener;
int tls_listen(uv_loop_t *loop, struct tls_ctx *ctx, const char *addr, uint16_t port,
    int (*accept)(void *data, struct tls_conn *c, const struct tls_peer *peer), void *data,
    struct tls_listener **ret, struct err *e);
void tls_listener_set_ctx(struct tls_listener *l, struct tls_ctx *ctx);
uint16_t tls_listener_port(const struct tls_listener *l);
void tls_listener_close(struct tls_listener *l, void (*closed)(void *data), void *data);

#endif
