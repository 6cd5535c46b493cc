/* The listening side: accepts, caps the number of connections, owns those that still shake hands.
 *
 * A connection beyond the cap is closed at once. Closing the listener ends handshakes and reports when they
 * are gone; connections that were handed over count on the listener's memory, which therefore goes
 * with the last of them. */
#include "proto/tls_private.h"

#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#define BACKLOG        4096
#define HANDSHAKES_MAX (LIMIT_RPC_CONNECTIONS / 2) /* who has not shown anything yet gets no more places */

static void maybe_free(struct tls_listener *l)
{
	if (l->reported && l->n_conns == 0) {
		tls_ctx_unref(l->ctx);
		free(l);
	}
}

void tls_listener_maybe_finish_close(struct tls_listener *l)
{
	if (!l->closing || !l->tcp_closed || l->n_handshakes > 0)
		return;
	if (!l->reported) {
		l->reported = true;
		if (l->closed)
			l->closed(l->closed_data);
	}
	maybe_free(l);
}

static void on_closed(uv_handle_t *h)
{
	struct tls_listener *l = CONTAINER_OF(h, struct tls_listener, tcp);
	l->tcp_closed = true;
	tls_listener_maybe_finish_close(l);
}

static void free_refused(uv_handle_t *h)
{
	free(h);
}

static void on_connection(uv_stream_t *s, int status)
{
	struct tls_listener *l = CONTAINER_OF(s, struct tls_listener, tcp);
	if (status < 0 || l->closing)
		return;
	if (l->n_conns < LIMIT_RPC_CONNECTIONS && l->n_handshakes < HANDSHAKES_MAX) {
		tls_conn_accept(l, s);
		return;
	}
	uv_tcp_t *t = NEW(uv_tcp_t);
	uv_tcp_init(l->loop, t);
	uv_accept(s, (uv_stream_t *)t);
	uv_close((uv_handle_t *)t, free_refused);
}

static int bind_address(struct tls_listener *l, const char *addr, uint16_t port, struct err *e)
{
	struct sockaddr_storage sa;
	bool any = !addr || !*addr;
	const char *shown = any ? "[::]" : addr;
	if (uv_ip4_addr(any ? "" : addr, port, (void *)&sa) != 0 &&
	    uv_ip6_addr(any ? "::" : addr, port, (void *)&sa) != 0)
		return err_set(e, ERR_INVALID, "\"%.64s\" is not an IP address to listen on", addr);
	int r = uv_tcp_bind(&l->tcp, (struct sockaddr *)&sa, 0);
	if (r == UV_EAFNOSUPPORT && any) { /* a host without IPv6 */
		uv_ip4_addr("0.0.0.0", port, (void *)&sa);
		r = uv_tcp_bind(&l->tcp, (struct sockaddr *)&sa, 0);
	}
	if (r == 0)
		r = uv_listen((uv_stream_t *)&l->tcp, BACKLOG, on_connection);
	if (r < 0)
		return err_uv(e, r, "listening on %s port %u", shown, port);
	int n = sizeof(sa);
	r = uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&sa, &n);
	ASSERT(r == 0);
	l->port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
						 : ((struct sockaddr_in *)&sa)->sin_port);
	return 0;
}

int tls_listen(uv_loop_t *loop, struct tls_ctx *ctx, const char *addr, uint16_t port,
    int (*accept)(void *data, struct tls_conn *c, const struct tls_peer *peer), void *data,
    struct tls_listener **ret, struct err *e)
{
	struct tls_listener *l = NEW(struct tls_listener);
	l->loop = loop;
	l->ctx = tls_ctx_ref(ctx);
	l->accept = accept;
	l->data = data;
	int r = uv_tcp_init(loop, &l->tcp);
	ASSERT(r == 0);
	r = bind_address(l, addr, port, e);
	if (r) {
		tls_listener_close(l, NULL, NULL);
		return r;
	}
	*ret = l;
	return 0;
}

void tls_listener_set_ctx(struct tls_listener *l, struct tls_ctx *ctx)
{
	tls_ctx_ref(ctx);
	tls_ctx_unref(l->ctx);
	l->ctx = ctx;
}

uint16_t tls_listener_port(const struct tls_listener *l)
{
	return l->port;
}

size_t tls_listener_connections(const struct tls_listener *l)
{
	return l->n_conns;
}

void tls_listener_close(struct tls_listener *l, void (*closed)(void *data), void *data)
{
	ASSERT(!l->closing);
	l->closing = true;
	l->closed = closed;
	l->closed_data = data;
	uv_close((uv_handle_t *)&l->tcp, on_closed);
	tls_conn_end_handshakes(l);
}
