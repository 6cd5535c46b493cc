/* One TLS connection on the loop.
 *
 * Outgoing: resolve, connect, shake hands, `ready`. Incoming: shake hands, the listener's accept. Then bytes:
 * what libuv reads is decrypted at once and handed up; what is written gathers in `plain` until the turn's
 * end (an idle handle, active only then), is encrypted at most 256 KiB ahead of the socket and goes out with
 * one write at a time.
 *
 * The end: tls_close sends what waits and a close_notify, shuts down and reads until the peer's end, for at
 * most LINGER_MS; the same is done after a failed handshake, because closing with unread input would reset
 * the connection and destroy the alert that tells the peer why. Any other failure closes at once. In each
 * case the handles are closed, and when the last is gone `closed` is called and the memory freed: so a
 * callback may close its connection and go on using the pointer until it returns. */
#include "proto/tls_private.h"

#include <string.h>

#include <openssl/err.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "proto/pki_private.h"
#include "proto/queue.h"

#define HANDSHAKE_MS    10000
#define FLUSH_MS        2000
#define LINGER_MS       1000
#define READ_CHUNK      65536
#define ENCRYPT_AHEAD   (256u * 1024)
#define TCP_KEEPALIVE_S 15

enum state {
	RESOLVING,
	CONNECTING,
	HANDSHAKE,
	OPEN,
	FLUSHING,  /* tls_close: what waits is still going out */
	LINGERING, /* our side is shut; waiting for the peer's end */
	CLOSING,   /* handles are being closed */
};

struct tls_conn {
	uv_tcp_t tcp;
	uv_idle_t flush;
	uv_connect_t connect;
	uv_shutdown_t shutdown;
	uv_getaddrinfo_t *resolve; /* owns itself: cancelling is a request */
	struct timer *timer;
	struct tls_ctx *ctx;
	struct tls_listener *listener; /* NULL: outgoing */
	struct tls_conn *prev, *next;  /* among the listener's handshakes */
	SSL *ssl;
	struct tls_mem mem;
	struct buf held;    /* cipher text that waits because of tls_pause */
	struct queue plain; /* to be encrypted */
	struct buf cipher;  /* to be written */
	size_t in_flight;   /* bytes of the write under way */
	struct tls_conn_ops ops;
	void *data;
	struct err why;
	enum state state;
	bool paused, reading, pumping, wrote, why_set, shutting, on_list;
	uint8_t handles; /* not closed yet */
	struct tls_peer peer;
};

static void pump(struct tls_conn *c);
static void send_out(struct tls_conn *c);
static void want_flush(struct tls_conn *c);

/* --- the end */

static void maybe_finish_close(struct tls_conn *c)
{
	if (c->handles > 0 || c->resolve)
		return;
	struct tls_listener *l = c->listener;
	if (c->ops.closed)
		c->ops.closed(c->data, &c->why);
	SSL_free(c->ssl);
	tls_ctx_unref(c->ctx);
	buf_done(&c->held);
	queue_done(&c->plain);
	buf_done(&c->cipher);
	free(c);
	if (l) {
		l->n_conns--;
		tls_listener_maybe_finish_close(l);
	}
}

static void on_tcp_closed(uv_handle_t *h)
{
	struct tls_conn *c = CONTAINER_OF(h, struct tls_conn, tcp);
	c->handles--;
	maybe_finish_close(c);
}

static void on_flush_closed(uv_handle_t *h)
{
	struct tls_conn *c = CONTAINER_OF(h, struct tls_conn, flush);
	c->handles--;
	maybe_finish_close(c);
}

static void leave_handshakes(struct tls_conn *c)
{
	if (!c->on_list)
		return;
	struct tls_listener *l = c->listener;
	if (c->prev)
		c->prev->next = c->next;
	else
		l->handshakes = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->on_list = false;
	l->n_handshakes--;
	tls_listener_maybe_finish_close(l);
}

static void close_now(struct tls_conn *c)
{
	if (c->state == CLOSING)
		return;
	c->state = CLOSING;
	leave_handshakes(c);
	timer_free(c->timer);
	c->timer = NULL;
	if (c->resolve)
		uv_cancel((uv_req_t *)c->resolve);
	uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
	uv_close((uv_handle_t *)&c->flush, on_flush_closed);
}

static void set_why(struct tls_conn *c, const struct err *why)
{
	if (!c->why_set && why)
		c->why = *why;
	c->why_set = true;
}

static void fail(struct tls_conn *c, const struct err *why)
{
	set_why(c, why);
	close_now(c);
}

static void on_timeout(void *data)
{
	struct tls_conn *c = data;
	if (c->state == FLUSHING || c->state == LINGERING) {
		close_now(c);
		return;
	}
	struct err e = ERR_INIT;
	err_set(&e, ERR_TIMEOUT, "%s %s took too long",
	    c->state == HANDSHAKE ? "the TLS handshake with" : "connecting to", c->peer.addr);
	fail(c, &e);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
	struct tls_conn *c = CONTAINER_OF(req, struct tls_conn, shutdown);
	c->shutting = false;
	if (status < 0)
		close_now(c);
}

static void start_reading(struct tls_conn *c);

/* All that we had to say is with the socket, or being written. */
static void linger(struct tls_conn *c)
{
	if (c->state == LINGERING || c->state == CLOSING)
		return;
	c->state = LINGERING;
	leave_handshakes(c);
	timer_start(c->timer, LINGER_MS);
	c->shutting = true;
	if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) < 0) {
		c->shutting = false;
		close_now(c);
		return;
	}
	start_reading(c);
}

void tls_close(struct tls_conn *c)
{
	if (c->state >= FLUSHING)
		return;
	set_why(c, NULL);
	if (c->state != OPEN) {
		close_now(c);
		return;
	}
	c->state = FLUSHING;
	if (!c->timer)
		c->timer = timer_new(c->tcp.loop, on_timeout, c);
	timer_start(c->timer, FLUSH_MS);
	want_flush(c);
}

void tls_abort(struct tls_conn *c, const struct err *why)
{
	fail(c, why);
}

/* --- writing */

static void maybe_drained(struct tls_conn *c)
{
	if (!c->wrote || c->in_flight || queue_len(&c->plain) || c->cipher.len)
		return;
	c->wrote = false;
	buf_done(&c->cipher);
	if (c->state == OPEN && c->ops.drained)
		c->ops.drained(c->data);
}

struct write {
	uv_write_t req;
	struct tls_conn *c;
	char *memory;
};

static void on_written(uv_write_t *req, int status)
{
	struct write *w = CONTAINER_OF(req, struct write, req);
	struct tls_conn *c = w->c;
	free(w->memory);
	free(w);
	c->in_flight = 0;
	if (c->state == CLOSING)
		return;
	if (status < 0) {
		struct err e = ERR_INIT;
		err_uv(&e, status, "writing to %s", c->peer.addr);
		e.code = ERR_UNAVAILABLE;
		fail(c, &e);
		return;
	}
	send_out(c);
}

/* Encrypts what may go ahead of the socket. */
static int encrypt(struct tls_conn *c)
{
	while (queue_len(&c->plain) && c->cipher.len < ENCRYPT_AHEAD) {
		size_t n = 0;
		ERR_clear_error();
		if (SSL_write_ex(c->ssl, queue_data(&c->plain), queue_len(&c->plain), &n) != 1) {
			int why = SSL_get_error(c->ssl, 0);
			return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
		}
		queue_consume(&c->plain, n);
	}
	return 0;
}

static void send_out(struct tls_conn *c)
{
	if (c->in_flight || c->state == CLOSING || c->state == LINGERING || c->state < HANDSHAKE)
		return;
	for (;;) {
		if (c->state >= OPEN && queue_len(&c->plain) && encrypt(c) < 0) {
			struct err e = ERR_INIT;
			pki_err(&e, ERR_IO, "encrypting");
			fail(c, &e);
			return;
		}
		if (c->state == FLUSHING && queue_len(&c->plain) == 0 &&
		    !(SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN)) {
			ERR_clear_error();
			SSL_shutdown(c->ssl);
		}
		if (c->cipher.len == 0)
			break;
		uv_buf_t b = uv_buf_init(c->cipher.data, (unsigned)c->cipher.len);
		int n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
		if (n > 0)
			buf_consume(&c->cipher, (size_t)n);
		else if (n < 0 && n != UV_EAGAIN) {
			struct err e = ERR_INIT;
			err_uv(&e, n, "writing to %s", c->peer.addr);
			e.code = ERR_UNAVAILABLE;
			fail(c, &e);
			return;
		}
		if (c->cipher.len == 0)
			continue;
		struct write *w = NEW(struct write);
		size_t len;
		w->c = c;
		w->memory = buf_take(&c->cipher, &len);
		c->in_flight = len;
		b = uv_buf_init(w->memory, (unsigned)len);
		n = uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written);
		if (n < 0) {
			c->in_flight = 0;
			free(w->memory);
			free(w);
			struct err e = ERR_INIT;
			err_uv(&e, n, "writing to %s", c->peer.addr);
			e.code = ERR_UNAVAILABLE;
			fail(c, &e);
		}
		return;
	}
	if (c->state == FLUSHING)
		linger(c);
	else
		maybe_drained(c);
}

static void on_flush(uv_idle_t *h)
{
	struct tls_conn *c = CONTAINER_OF(h, struct tls_conn, flush);
	uv_idle_stop(h);
	if (c->held.len && !c->paused && c->state == OPEN)
		pump(c);
	send_out(c);
}

static void want_flush(struct tls_conn *c)
{
	if (c->state != CLOSING && !uv_is_active((uv_handle_t *)&c->flush))
		uv_idle_start(&c->flush, on_flush);
}

size_t tls_waiting(const struct tls_conn *c)
{
	return queue_len(&c->plain) + c->cipher.len + c->in_flight;
}

size_t tls_write(struct tls_conn *c, const void *p, size_t n)
{
	if (c->state > OPEN || n == 0)
		return tls_waiting(c);
	if (n > TLS_QUEUE_MAX - queue_len(&c->plain)) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_TOO_LARGE, "%s does not read: %zu bytes wait for it", c->peer.addr,
		    tls_waiting(c));
		fail(c, &e);
		return tls_waiting(c);
	}
	queue_append(&c->plain, p, n);
	c->wrote = true;
	if (c->state == OPEN)
		want_flush(c);
	return tls_waiting(c);
}

/* --- reading */

static void handshake_failed(struct tls_conn *c)
{
	struct err e = ERR_INIT;
	long v = SSL_get_verify_result(c->ssl);
	if (c->ctx->verify && v != X509_V_OK) {
		err_set(&e, ERR_UNAUTHORIZED, "the certificate of %s was refused: %s", c->peer.addr,
		    X509_verify_cert_error_string(v));
		ERR_clear_error();
	} else {
		pki_err(&e, ERR_UNAUTHORIZED, "the TLS handshake failed");
	}
	set_why(c, &e);
	send_out(c); /* the alert */
	linger(c);
}

static void handshake(struct tls_conn *c)
{
	ERR_clear_error();
	int r = SSL_do_handshake(c->ssl);
	if (r != 1) {
		int why = SSL_get_error(c->ssl, r);
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			handshake_failed(c);
		return;
	}
	struct err e = ERR_INIT;
	if (tls_peer_fill(c->ctx, c->ssl, &c->peer, &e)) {
		fail(c, &e);
		return;
	}
	c->state = OPEN;
	timer_free(c->timer);
	c->timer = NULL;
	if (queue_len(&c->plain))
		want_flush(c);
	if (!c->listener) {
		if (c->ops.ready)
			c->ops.ready(c->data, &c->peer);
		return;
	}
	leave_handshakes(c);
	if (c->listener->accept(c->listener->data, c, &c->peer) != 0) {
		memset(&c->ops, 0, sizeof(c->ops));
		tls_close(c);
	}
}

/* The stream ended. Without a close_notify somebody may have cut it: that is an error. */
static void read_failed(struct tls_conn *c, int why)
{
	struct err e = ERR_INIT;
	if (why == SSL_ERROR_ZERO_RETURN) {
		set_why(c, NULL);
		close_now(c);
		return;
	}
	if (c->mem.eof && why != SSL_ERROR_SSL) {
		err_set(&e, ERR_UNAVAILABLE, "%s closed the connection", c->peer.addr);
	} else {
		unsigned long n = ERR_peek_last_error();
		int reason = ERR_GET_REASON(n);
		/* An alert in the first flight after our own handshake is about our certificate. */
		bool alert = reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256;
		if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
			err_set(&e, ERR_UNAVAILABLE, "%s closed the connection", c->peer.addr);
		else
			pki_err(&e, alert ? ERR_UNAUTHORIZED : ERR_IO, c->peer.addr);
		ERR_clear_error();
	}
	fail(c, &e);
}

/* Decrypts what is there until it is used up, reading is paused, or the connection ends. */
static void pump(struct tls_conn *c)
{
	uint8_t out[16384];
	if (c->pumping)
		return;
	c->pumping = true;
	size_t before = c->held.len;
	if (before) {
		c->mem.in = (const uint8_t *)c->held.data;
		c->mem.in_len = c->held.len;
	}
	if (c->state == HANDSHAKE)
		handshake(c);
	while (c->state == OPEN && !c->paused) {
		size_t n = 0;
		ERR_clear_error();
		if (SSL_read_ex(c->ssl, out, sizeof(out), &n) == 1) {
			c->ops.read(c->data, out, n);
			continue;
		}
		int why = SSL_get_error(c->ssl, 0);
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			read_failed(c, why);
		break;
	}
	if (before) {
		buf_consume(&c->held, before - c->mem.in_len);
		if (c->held.len == 0)
			buf_done(&c->held);
	} else if (c->mem.in_len) {
		buf_append(&c->held, c->mem.in, c->mem.in_len);
	}
	c->mem.in = NULL;
	c->mem.in_len = 0;
	c->pumping = false;
	if (c->cipher.len)
		send_out(c);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
	(void)hint;
	struct tls_ctx *ctx = CONTAINER_OF(h, struct tls_conn, tcp)->ctx;
	if (!ctx->scratch)
		ctx->scratch = xmalloc(READ_CHUNK);
	*b = uv_buf_init((char *)ctx->scratch, READ_CHUNK);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct tls_conn *c = CONTAINER_OF(s, struct tls_conn, tcp);
	if (c->state == LINGERING || c->state == FLUSHING) {
		if (n < 0)
			close_now(c);
	} else if (n > 0) {
		if (c->held.len) {
			buf_append(&c->held, b->base, (size_t)n);
		} else {
			c->mem.in = (const uint8_t *)b->base;
			c->mem.in_len = (size_t)n;
		}
		pump(c);
	} else if (n == UV_EOF) {
		c->mem.eof = true;
		uv_read_stop(s);
		c->reading = false;
		if (!c->paused)
			pump(c);
	} else if (n < 0) {
		struct err e = ERR_INIT;
		err_uv(&e, (int)n, "reading from %s", c->peer.addr);
		e.code = ERR_UNAVAILABLE;
		fail(c, &e);
	}
}

static void start_reading(struct tls_conn *c)
{
	if (c->reading || c->mem.eof || c->state == CLOSING)
		return;
	if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) == 0)
		c->reading = true;
}

void tls_pause(struct tls_conn *c, bool paused)
{
	if (c->paused == paused)
		return;
	c->paused = paused;
	if (c->state != OPEN)
		return;
	if (paused && c->reading) {
		uv_read_stop((uv_stream_t *)&c->tcp);
		c->reading = false;
	} else if (!paused) {
		start_reading(c);
		if (!c->pumping)
			want_flush(c); /* what is held goes up on a later turn */
	}
}

/* --- the beginning */

static void begin_handshake(struct tls_conn *c)
{
	c->state = HANDSHAKE;
	c->ssl = SSL_new(c->ctx->ssl);
	ASSERT(c->ssl);
	c->mem.out = &c->cipher;
	BIO *b = tls_mem_bio(c->ctx, &c->mem);
	SSL_set_bio(c->ssl, b, b);
	if (c->listener)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	uv_tcp_nodelay(&c->tcp, 1);
	uv_tcp_keepalive(&c->tcp, 1, TCP_KEEPALIVE_S);
	start_reading(c);
	pump(c);
}

static void print_addr(const struct sockaddr *sa, char *out, size_t cap)
{
	char ip[48] = "?";
	if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *a = (const void *)sa;
		if (IN6_IS_ADDR_V4MAPPED(&a->sin6_addr)) {
			uv_inet_ntop(AF_INET, a->sin6_addr.s6_addr + 12, ip, sizeof(ip));
			snprintf(out, cap, "%s:%u", ip, ntohs(a->sin6_port));
			return;
		}
		uv_ip6_name(a, ip, sizeof(ip));
		snprintf(out, cap, "[%s]:%u", ip, ntohs(a->sin6_port));
	} else {
		const struct sockaddr_in *a = (const void *)sa;
		uv_ip4_name(a, ip, sizeof(ip));
		snprintf(out, cap, "%s:%u", ip, ntohs(a->sin_port));
	}
}

static struct tls_conn *conn_new(uv_loop_t *loop, struct tls_ctx *ctx)
{
	struct tls_conn *c = NEW(struct tls_conn);
	int r = uv_tcp_init(loop, &c->tcp);
	ASSERT(r == 0);
	r = uv_idle_init(loop, &c->flush);
	ASSERT(r == 0);
	c->handles = 2;
	c->ctx = tls_ctx_ref(ctx);
	c->timer = timer_new(loop, on_timeout, c);
	return c;
}

void tls_conn_accept(struct tls_listener *l, uv_stream_t *from)
{
	struct tls_conn *c = conn_new(l->loop, l->ctx);
	c->listener = l;
	l->n_conns++;
	c->next = l->handshakes;
	if (c->next)
		c->next->prev = c;
	l->handshakes = c;
	l->n_handshakes++;
	c->on_list = true;
	if (uv_accept(from, (uv_stream_t *)&c->tcp) < 0) {
		close_now(c);
		return;
	}
	struct sockaddr_storage sa;
	int n = sizeof(sa);
	if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&sa, &n) == 0)
		print_addr((struct sockaddr *)&sa, c->peer.addr, sizeof(c->peer.addr));
	timer_start(c->timer, HANDSHAKE_MS);
	begin_handshake(c);
}

void tls_conn_end_handshakes(struct tls_listener *l)
{
	while (l->handshakes)
		close_now(l->handshakes); /* takes itself off the list */
}

static void on_connected(uv_connect_t *req, int status)
{
	struct tls_conn *c = CONTAINER_OF(req, struct tls_conn, connect);
	if (c->state == CLOSING)
		return;
	if (status < 0) {
		struct err e = ERR_INIT;
		err_uv(&e, status, "connecting to %s", c->peer.addr);
		e.code = ERR_UNAVAILABLE;
		fail(c, &e);
		return;
	}
	begin_handshake(c);
}

static int start_connect(struct tls_conn *c, const struct sockaddr *sa, struct err *e)
{
	c->state = CONNECTING;
	print_addr(sa, c->peer.addr, sizeof(c->peer.addr));
	int r = uv_tcp_connect(&c->connect, &c->tcp, sa, on_connected);
	if (r < 0) {
		err_uv(e, r, "connecting to %s", c->peer.addr);
		if (e)
			e->code = ERR_UNAVAILABLE;
		return ERR_UNAVAILABLE;
	}
	return 0;
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *ai)
{
	struct tls_conn *c = req->data;
	c->resolve = NULL;
	free(req);
	if (c->state == CLOSING) {
		maybe_finish_close(c);
	} else if (status < 0) {
		struct err e = ERR_INIT;
		err_uv(&e, status, "looking up %s", c->peer.addr);
		e.code = ERR_UNAVAILABLE;
		fail(c, &e);
	} else {
		struct err e = ERR_INIT;
		if (start_connect(c, ai->ai_addr, &e))
			fail(c, &e);
	}
	if (ai)
		uv_freeaddrinfo(ai);
}

int tls_connect(uv_loop_t *loop, struct tls_ctx *ctx, const char *host, uint16_t port, unsigned timeout_ms,
    const struct tls_conn_ops *ops, void *data, struct tls_conn **ret, struct err *e)
{
	struct sockaddr_storage sa;
	bool literal = uv_ip4_addr(host, port, (void *)&sa) == 0 || uv_ip6_addr(host, port, (void *)&sa) == 0;
	if (port == 0 || strlen(host) > 255)
		return err_set(e, ERR_INVALID, "\"%.64s\" port %u is no address to connect to", host, port);

	struct tls_conn *c = conn_new(loop, ctx);
	int r = 0;
	if (literal) {
		r = start_connect(c, (struct sockaddr *)&sa, e);
	} else {
		struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
		char service[8];
		snprintf(service, sizeof(service), "%u", port);
		snprintf(c->peer.addr, sizeof(c->peer.addr), "%.54s:%u", host, port);
		c->resolve = NEW(uv_getaddrinfo_t);
		c->resolve->data = c;
		int u = uv_getaddrinfo(loop, c->resolve, on_resolved, host, service, &hints);
		if (u < 0) {
			free(TAKE_PTR(c->resolve));
			r = err_uv(e, u, "looking up %s", host);
		}
	}
	if (r) { /* ops are not set: nobody is called */
		close_now(c);
		return r;
	}
	c->ops = *ops;
	c->data = data;
	timer_start(c->timer, timeout_ms ? timeout_ms : HANDSHAKE_MS);
	*ret = c;
	return 0;
}

const struct tls_peer *tls_conn_peer(const struct tls_conn *c)
{
	return &c->peer;
}

void tls_conn_set_ops(struct tls_conn *c, const struct tls_conn_ops *ops, void *data)
{
	c->ops = *ops;
	c->data = data;
}
