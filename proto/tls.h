/* TLS 1.3 streams over libuv TCP: OpenSSL on memory, both sides verified where a CA is given.
 *
 * Nothing here blocks. What is written is gathered until the end of the loop's turn, so that many small
 * writes become few records and few system calls. */
#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include <openssl/ssl.h>

#include "base/err.h"

/* An identity and what it trusts; reference-counted, replaceable at run time (certificate renewal). Used on
 * one loop only. */
struct tls_ctx;
struct tls_ctx_opts {
	const char *cert_pem; /* chain; NULL: anonymous client */
	const char *key_pem;
	const char *ca_pem; /* roots to verify the peer by; NULL only for fetching the root CA by digest */
	bool server;
	bool require_peer_cert;  /* server: refuse clients without one; otherwise they may come without */
	const char *const *alpn; /* NULL-terminated, by preference */
};
int tls_ctx_new(const struct tls_ctx_opts *o, struct tls_ctx **ret, struct err *e);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *c);
void tls_ctx_unref(struct tls_ctx *c); /* NULL is fine */

/* What the peer's verified certificate says. node_id "" when it showed none. */
struct tls_peer {
	char node_id[64]; /* CN */
	char role[32];    /* OU: "swarm-manager" | "swarm-worker" */
	char org[64];     /* O: cluster id */
	bool verified;
	char alpn[32];
	char addr[64]; /* ip:port, [ip]:port */
};
/* Verified, and a manager by its certificate. */
bool tls_peer_is_manager(const struct tls_peer *p);

struct tls_conn;
struct tls_conn_ops {
	/* Handshake done. Outgoing connections only: accepted ones are handed to the listener's accept. */
	void (*ready)(void *data, const struct tls_peer *peer);
	void (*read)(void *data, const uint8_t *p, size_t n);
	void (*closed)(
	    void *data, const struct err *why); /* exactly once, last; why->code 0 for a clean end */
	void (*drained)(void *data);            /* nothing waits to be sent (may be NULL) */
};
/* Connects and shakes hands within timeout_ms (0: 10 s). ret is valid until closed. `host` is an address or
 * a name. Failures after this returned come with `closed`: ERR_UNAVAILABLE (not reachable), ERR_TIMEOUT,
 * ERR_UNAUTHORIZED (a certificate was not accepted, here or there). */
int tls_connect(uv_loop_t *loop, struct tls_ctx *ctx, const char *host, uint16_t port, unsigned timeout_ms,
    const struct tls_conn_ops *ops, void *data, struct tls_conn **ret, struct err *e);
/* Queues bytes (copied); returns how many wait. Fine before `ready`. A queue beyond TLS_QUEUE_MAX ends the
 * connection: a producer that ignores the return value must not fill the memory. */
#define TLS_QUEUE_MAX (64u * 1024 * 1024)
size_t tls_write(struct tls_conn *c, const void *p, size_t n);
size_t tls_waiting(const struct tls_conn *c);
void tls_pause(struct tls_conn *c, bool paused);
/* Sends what waits (for at most 2 s), says goodbye, closes. Idempotent; closed comes later, with code 0. */
void tls_close(struct tls_conn *c);
/* Closes without sending what waits; closed comes later with `why`. */
void tls_abort(struct tls_conn *c, const struct err *why);
const struct tls_peer *tls_conn_peer(const struct tls_conn *c);
void tls_conn_set_ops(struct tls_conn *c, const struct tls_conn_ops *ops, void *data);

/* Listens on an address (not a name; "" or NULL: all, IPv6 and IPv4) and a port (0: any free one). accept is
 * called after each good handshake; it sets the connection's ops by ALPN with tls_conn_set_ops and returns 0,
 * or returns non-zero to refuse. A handshake gets 10 s; at most LIMIT_RPC_CONNECTIONS connections are open at
 * a time. ctx can be replaced while listening. */
struct tls_listener;
int tls_listen(uv_loop_t *loop, struct tls_ctx *ctx, const char *addr, uint16_t port,
    int (*accept)(void *data, struct tls_conn *c, const struct tls_peer *peer), void *data,
    struct tls_listener **ret, struct err *e);
void tls_listener_set_ctx(struct tls_listener *l, struct tls_ctx *ctx);
uint16_t tls_listener_port(const struct tls_listener *l);
/* Open connections, those in their handshake included. */
size_t tls_listener_connections(const struct tls_listener *l);
/* Stops listening and ends handshakes; accepted connections live on with their owners. */
void tls_listener_close(struct tls_listener *l, void (*closed)(void *data), void *data);

#endif
