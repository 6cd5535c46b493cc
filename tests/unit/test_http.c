/* The HTTP server over a real unix socket: its loop runs in a thread, the tests are blocking clients. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"
#include "proto/http.h"

static struct {
	uv_loop_t loop;
	pthread_t thread;
	struct http_server *server;
	uv_async_t stop;
	char path[64];
	atomic_int closed_cbs, stream_aborted, hijack_closed, stopped;
	atomic_size_t streamed;
	unsigned grace;
} T;

/* --- handlers */

struct later {
	struct http_req *r;
	struct timer *timer;
	struct http_hijack *h;
	int left;
	size_t got;
};

static void gone(void *data)
{
	struct later *l = data;

	atomic_fetch_add(&T.closed_cbs, 1);
	timer_free(l->timer);
	free(l);
}

static void reply_later(void *data)
{
	struct later *l = data;

	http_reply(l->r, 200, "text/plain", "later", 5);
	timer_free(l->timer);
	free(l);
}

static void tick(void *data)
{
	struct later *l = data;

	http_write(l->r, "tick\n", 5);
	if (--l->left == 0) {
		http_finish(l->r);
		timer_free(l->timer);
		free(l);
		return;
	}
	timer_start(l->timer, 10);
}

static void fill(void *data)
{
	static char chunk[32768];
	struct later *l = data;

	while (l->left > 0) {
		l->left--;
		if (http_write(l->r, chunk, sizeof(chunk)) > 256 * 1024) {
			http_on_drained(l->r, fill, l);
			return;
		}
	}
	http_finish(l->r);
	free(l);
}

static void upload(void *data, const uint8_t *p, size_t n, bool aborted)
{
	struct later *l = data;

	if (p) {
		l->got += n;
		atomic_fetch_add(&T.streamed, n);
		if (l->got > 100000 && l->left) {
			l->left = 0;
			http_body_pause(l->r);
			timer_start(l->timer, 20);
		}
		return;
	}
	if (aborted) {
		atomic_fetch_add(&T.stream_aborted, 1);
		return; /* gone() follows */
	}
	char text[32];
	int len = snprintf(text, sizeof(text), "%zu", l->got);
	http_reply(l->r, 200, "text/plain", text, (size_t)len);
	timer_free(l->timer);
	free(l);
}

static void upload_resume(void *data)
{
	http_body_resume(((struct later *)data)->r);
}

static void echo(void *data, const uint8_t *p, size_t n)
{
	struct later *l = data;

	if (n > 0) {
		http_hijack_write(l->h, p, n);
		return;
	}
	http_hijack_write(l->h, "bye", 3);
	http_hijack_close(l->h);
}

static void echo_closed(void *data)
{
	atomic_fetch_add(&T.hijack_closed, 1);
	free(data);
}

static struct later *later_new(struct http_req *r, timer_cb cb)
{
	struct later *l = NEW(struct later);

	l->r = r;
	l->timer = cb ? timer_new(&T.loop, cb, l) : NULL;
	http_on_closed(r, gone, l);
	return l;
}

static int64_t limit(void *data, struct http_req *r, struct err *e)
{
	(void)data;
	if (str_eq(http_path(r), "/refuse"))
		return err_set(e, ERR_FORBIDDEN, "not you");
	if (str_has_prefix(http_path(r), "/upload"))
		http_stream_body(r, NULL, NULL);
	return str_eq(http_path(r), "/small") ? 10 : LIMIT_HTTP_JSON_BODY;
}

static void add_value(void *d, const char *v)
{
	buf_puts(d, v);
	buf_putc(d, ';');
}

static void handle(void *data, struct http_req *r)
{
	const char *p = http_path(r);
	(void)data;

	if (str_eq(p, "/later")) {
		timer_start(later_new(r, reply_later)->timer, 50);
	} else if (str_eq(p, "/never")) {
		later_new(r, NULL);
	} else if (str_eq(p, "/ticks")) {
		struct later *l = later_new(r, tick);
		l->left = 3;
		http_start(r, 200, "application/json");
		timer_start(l->timer, 1);
	} else if (str_eq(p, "/forever")) {
		struct later *l = later_new(r, tick);
		l->left = 1 << 30;
		http_start(r, 200, "application/json");
		timer_start(l->timer, 1);
	} else if (str_eq(p, "/large")) {
		struct later *l = later_new(r, NULL);
		l->left = 200;
		http_start(r, 200, "text/plain");
		fill(l);
	} else if (str_eq(p, "/whole")) {
		size_t n = 3000000;
		char *big = xcalloc(1, n);
		memset(big, 'x', n);
		http_reply(r, 200, "text/plain", big, n);
		free(big);
	} else if (str_eq(p, "/upload") || str_eq(p, "/upload-pause")) {
		struct later *l = later_new(r, upload_resume);
		l->left = str_eq(p, "/upload-pause");
		http_stream_body(r, upload, l);
	} else if (str_eq(p, "/upload-no")) {
		http_reply_err(r, &(struct err){ERR_CONFLICT, "no thanks"});
	} else if (str_eq(p, "/hijack")) {
		struct later *l = NEW(struct later);
		l->h = http_hijack(r, "application/vnd.docker.raw-stream", echo, echo_closed, l);
	} else if (str_eq(p, "/query")) {
		struct buf b CLEANUP_BUF = BUF_INIT;
		http_query_each(r, "a", add_value, &b);
		buf_printf(&b, "|%s|%s|%s", str_or(http_query(r, "b"), "-"),
		    http_query(r, "c") ? "c" : "none", str_or(http_header(r, "X-THING"), "-"));
		http_reply(r, 200, "text/plain", b.data, b.len);
	} else if (str_eq(p, "/empty")) {
		http_reply_empty(r, 204);
	} else {
		http_set_header(r, "X-Method", http_method(r));
		http_set_header(r, "X-Path", p);
		http_reply(
		    r, 200, "text/plain", http_body(r)->data ? http_body(r)->data : "", http_body(r)->len);
	}
}

/* --- the server's thread */

static void server_closed(void *data)
{
	(void)data;
	atomic_store(&T.stopped, 1);
}

static void on_stop(uv_async_t *a)
{
	http_server_close(T.server, T.grace, server_closed, NULL);
	uv_close((uv_handle_t *)a, NULL);
}

static void *run(void *arg)
{
	(void)arg;
	uv_run(&T.loop, UV_RUN_DEFAULT);
	uv_loop_close(&T.loop);
	return NULL;
}

static int setup(void **state)
{
	struct err e = ERR_INIT;
	struct http_server_opts o = {.body_limit = limit,
	    .handle = handle,
	    .headers = "Server: test\r\n",
	    .header_timeout_ms = 300,
	    .body_timeout_ms = 300,
	    .idle_timeout_ms = 3000};
	(void)state;

	memset(&T, 0, sizeof(T));
	uv_loop_init(&T.loop);
	snprintf(T.path, sizeof(T.path), "/tmp/test_http.%d.sock", (int)getpid());
	T.server = http_server_new(&T.loop, &o);
	if (http_server_listen_unix(T.server, T.path, 0660, &e) < 0)
		fail_msg("%s", e.text);
	uv_async_init(&T.loop, &T.stop, on_stop);
	pthread_create(&T.thread, NULL, run, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	uv_async_send(&T.stop);
	pthread_join(T.thread, NULL);
	assert_int_equal(atomic_load(&T.stopped), 1);
	assert_int_equal(access(T.path, F_OK), -1);
	return 0;
}

/* --- the client */

static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval tv = {10, 0};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", T.path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void put(int fd, const char *s)
{
	size_t n = strlen(s);

	while (n > 0) {
		ssize_t w = send(fd, s, n, MSG_NOSIGNAL);
		if (w < 0)
			return;
		s += w;
		n -= (size_t)w;
	}
}

/* Reads until the text ends with `end`, or the end of file when that is NULL. */
static char *get(int fd, const char *end)
{
	struct buf b = BUF_INIT;
	char chunk[65536];

	for (;;) {
		if (end && b.len > 0 && str_has_suffix(b.data, end))
			break;
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno != ECONNRESET)
			fail_msg("read: %s after %s", strerror(errno), b.data ? b.data : "nothing");
		if (n <= 0) {
			if (end)
				fail_msg("end of file before \"%s\": %s", end, b.data ? b.data : "nothing");
			break;
		}
		buf_append(&b, chunk, (size_t)n);
	}
	return buf_take(&b, NULL);
}

static void expect(int fd, const char *end, const char *const *needles)
{
	char *s = get(fd, end);

	for (; *needles; needles++) {
		if (!strstr(s, *needles))
			fail_msg("no \"%s\" in %s", *needles, s);
	}
	free(s);
}
#define EXPECT(fd, end, ...) expect(fd, end, (const char *const[]){__VA_ARGS__, NULL})

static void exchange(const char *request, const char *const *needles)
{
	int fd = dial();

	put(fd, request);
	expect(fd, NULL, needles);
	close(fd);
}
#define EXCHANGE(req, ...) exchange(req, (const char *const[]){__VA_ARGS__, NULL})

static void wait_for(atomic_int *v, int want)
{
	for (int i = 0; i < 1000 && atomic_load(v) != want; i++)
		poll(NULL, 0, 10);
	assert_int_equal(atomic_load(v), want);
}

static void test_keep_alive(void **state)
{
	int fd = dial();
	(void)state;

	for (int i = 0; i < 3; i++) {
		put(fd, "POST /v1.41/x%2Fy?z=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
		EXPECT(fd, "hello", "HTTP/1.1 200 OK\r\n", "Server: test\r\n", "X-Method: POST",
		    "X-Path: /v1.41/x/y\r\n", "Content-Length: 5\r\n");
	}
	put(fd, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
	EXPECT(fd, "abcde", "Content-Length: 5");
	put(fd, "HEAD / HTTP/1.1\r\n\r\n");
	EXPECT(fd, "\r\n\r\n", "Content-Length: 0", "X-Method: HEAD");
	put(fd, "GET /empty HTTP/1.1\r\n\r\n");
	EXPECT(fd, "\r\n\r\n", "HTTP/1.1 204 No Content");
	/* One byte at a time, and an empty header. */
	for (const char *c = "GET /query?a=1 HTTP/1.1\r\nX-Empty:\r\nX-Thing: v\r\n\r\n"; *c; c++) {
		char one[2] = {*c, 0};
		put(fd, one);
	}
	EXPECT(fd, "1;|-|none|v", "200");
	put(fd, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
	EXPECT(fd, NULL, "Connection: close");
	close(fd);
	EXCHANGE("GET / HTTP/1.0\r\n\r\n", "200 OK");
}

static void test_pipelined(void **state)
{
	int fd = dial();
	(void)state;

	put(fd, "GET /later HTTP/1.1\r\n\r\nPOST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nAGET /ticks "
		"HTTP/1.1\r\n\r\n"
		"GET /later HTTP/1.1\r\nConnection: close\r\n\r\n");
	char *s = get(fd, NULL);
	char *p = strstr(s, "later");
	assert_non_null(p);
	p = strstr(p, "X-Path: /a");
	assert_non_null(p);
	p = strstr(p, "5\r\ntick\n\r\n5\r\ntick\n\r\n5\r\ntick\n\r\n0\r\n\r\n");
	assert_non_null(p);
	assert_non_null(strstr(p, "later"));
	free(s);
	close(fd);
}

/* A client that never reads may not make us hold its answers. */
static void test_pipelined_unread(void **state)
{
	static const char req[] = "GET /whole HTTP/1.1\r\n\r\n";
	int fd = dial();
	size_t total = 0;
	char chunk[65536];
	(void)state;

	for (int i = 0; i < 20; i++)
		put(fd, req);
	put(fd, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		assert_true(n >= 0);
		if (n == 0)
			break;
		total += (size_t)n;
	}
	assert_true(total > 20u * 3000000u);
	close(fd);
}

static void test_query(void **state)
{
	(void)state;
	EXCHANGE(
	    "GET /query?a=1&b=x%20y+z&a=%7B%22k%22%3A1%7D&c&a HTTP/1.0\r\n\r\n", "1;{\"k\":1};;|x y z|c|-");
	EXCHANGE("GET http://api.moby.localhost/query?a=9#frag HTTP/1.0\r\n\r\n", "9;|-|none|-");
	EXCHANGE("GET /query?a=%zz HTTP/1.1\r\n\r\n", "400 Bad Request", "bad percent escape in the query",
	    "Connection: close");
	EXCHANGE("GET /%00 HTTP/1.1\r\n\r\n", "400 Bad Request", "bad percent escape in the path");
}

static void test_malformed(void **state)
{
	(void)state;
	EXCHANGE("BOGUS / HTTP/1.1\r\n\r\n", "400 Bad Request", "application/json",
	    "{\"message\":\"malformed HTTP request");
	EXCHANGE("GET / HTTP/1.1\r\nBad Header: x\r\n\r\n", "400 Bad Request");
	EXCHANGE("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	    "400 Bad Request");
	EXCHANGE("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400 Bad Request");
	EXCHANGE("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", "400 Bad Request");
	EXCHANGE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request");
	EXCHANGE("CONNECT a:1 HTTP/1.1\r\n\r\n", "400 Bad Request");
	EXCHANGE("GET /\x01 HTTP/1.1\r\n\r\n", "400 Bad Request");
}

static void test_oversize(void **state)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	(void)state;

	EXCHANGE("POST /small HTTP/1.1\r\nContent-Length: 11\r\n\r\n", "413", "over the limit of 10");
	EXCHANGE("POST /small HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n",
	    "413");
	EXCHANGE("POST /small HTTP/1.0\r\nContent-Length: 10\r\n\r\n0123456789", "200");
	EXCHANGE("POST /refuse HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "403", "not you");
	buf_puts(&b, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 101; i++)
		buf_printf(&b, "X-%d: y\r\n", i);
	buf_puts(&b, "\r\n");
	EXCHANGE(b.data, "431");
	buf_reset(&b);
	buf_puts(&b, "GET /");
	for (int i = 0; i < 70000; i++)
		buf_putc(&b, 'a');
	buf_puts(&b, " HTTP/1.1\r\n\r\n");
	EXCHANGE(b.data, "431");
	buf_reset(&b);
	/* A long body is refused without being read, and the answer arrives all the same. */
	buf_puts(&b, "POST / HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n");
	for (int i = 0; i < 8000000; i++)
		buf_putc(&b, 'a');
	EXCHANGE(b.data, "413", "over the limit of 4194304");
}

static void test_slow(void **state)
{
	int fd = dial();
	(void)state;

	put(fd, "GET / HT");
	EXPECT(fd, NULL, "408", "did not arrive in time");
	close(fd);
	fd = dial();
	put(fd, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab");
	EXPECT(fd, NULL, "408");
	close(fd);
	/* Silent from the start. */
	fd = dial();
	char *s = get(fd, NULL);
	assert_string_equal(s, "");
	free(s);
	close(fd);
}

static void test_half_close(void **state)
{
	int fd = dial();
	(void)state;

	put(fd, "GET /later HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	EXPECT(fd, NULL, "later");
	close(fd);
	fd = dial();
	put(fd, "GET /whole HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	char *s = get(fd, NULL);
	assert_true(strlen(s) > 3000000);
	free(s);
	close(fd);
	/* Half a request is none. */
	fd = dial();
	put(fd, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab");
	shutdown(fd, SHUT_WR);
	s = get(fd, NULL);
	assert_string_equal(s, "");
	free(s);
	close(fd);
}

static void test_vanish(void **state)
{
	(void)state;
	int fd = dial();
	put(fd, "GET /never HTTP/1.1\r\n\r\n");
	close(fd);
	wait_for(&T.closed_cbs, 1);
	fd = dial();
	put(fd, "GET /forever HTTP/1.1\r\n\r\n");
	free(get(fd, "tick\n\r\n"));
	close(fd);
	wait_for(&T.closed_cbs, 2);
	/* Half closed first, gone later. */
	fd = dial();
	put(fd, "GET /never HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	poll(NULL, 0, 50);
	assert_int_equal(atomic_load(&T.closed_cbs), 2);
	close(fd);
	wait_for(&T.closed_cbs, 3);
	/* With a large answer under way: it may have been finished, or not. */
	fd = dial();
	put(fd, "GET /large HTTP/1.1\r\n\r\n");
	close(fd);
	EXCHANGE("GET / HTTP/1.0\r\n\r\n", "200 OK");
}

static void test_drained(void **state)
{
	int fd = dial();
	(void)state;

	put(fd, "GET /large HTTP/1.1\r\nConnection: close\r\n\r\n");
	size_t n = 0;
	char chunk[65536];
	ssize_t r;
	while ((r = read(fd, chunk, sizeof(chunk))) > 0)
		n += (size_t)r;
	assert_true(n > 200 * 32768);
	close(fd);
}

static void upload_bytes(const char *path, size_t n, const char *want, bool chunked)
{
	struct buf b CLEANUP_BUF = BUF_INIT;

	buf_printf(&b, "POST %s HTTP/1.1\r\nConnection: close\r\n", path);
	if (chunked)
		buf_puts(&b, "Transfer-Encoding: chunked\r\n\r\n");
	else
		buf_printf(&b, "Content-Length: %zu\r\n\r\n", n);
	for (size_t left = n; left > 0;) {
		size_t k = left < 10000 ? left : 10000;
		if (chunked)
			buf_printf(&b, "%zx\r\n", k);
		for (size_t i = 0; i < k; i++)
			buf_putc(&b, 'b');
		if (chunked)
			buf_puts(&b, "\r\n");
		left -= k;
	}
	if (chunked)
		buf_puts(&b, "0\r\n\r\n");
	int fd = dial(); /* now, for the headers must not be late */
	put(fd, b.data);
	EXPECT(fd, NULL, want);
	close(fd);
}

static void test_upload(void **state)
{
	(void)state;
	upload_bytes("/upload", 9000000, "\r\n\r\n9000000", false);
	upload_bytes("/upload-pause", 3000000, "\r\n\r\n3000000", false);
	upload_bytes("/upload-pause", 3000000, "\r\n\r\n3000000", true);
	upload_bytes("/upload", 0, "\r\n\r\n0", false);
	upload_bytes("/upload", 0, "\r\n\r\n0", true);
	upload_bytes("/upload-no", 5000000, "no thanks", false);
	int fd = dial();
	put(fd, "POST /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	EXPECT(fd, "\r\n\r\n", "HTTP/1.1 100 Continue");
	put(fd, "abc");
	EXPECT(fd, "\r\n\r\n3", "200 OK");
	/* The connection is good for another. */
	put(fd, "POST /upload HTTP/1.1\r\nContent-Length: 1\r\n\r\na");
	EXPECT(fd, "\r\n\r\n1", "200 OK");
	close(fd);
	fd = dial();
	put(fd, "POST /upload HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc");
	close(fd);
	wait_for(&T.stream_aborted, 1);
	wait_for(&T.closed_cbs, 1);
	fd = dial();
	put(fd, "POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense");
	free(get(fd, NULL));
	close(fd);
	wait_for(&T.stream_aborted, 2);
	wait_for(&T.closed_cbs, 2);
	/* Slow: no byte for longer than allowed. */
	fd = dial();
	put(fd, "POST /upload HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc");
	free(get(fd, NULL));
	close(fd);
	wait_for(&T.stream_aborted, 3);
}

static void test_hijack(void **state)
{
	(void)state;
	int fd = dial();
	put(fd, "POST /hijack HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: "
		"2\r\n\r\n{}early");
	EXPECT(fd, "early",
	    "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: "
	    "Upgrade\r\nUpgrade: tcp\r\n");
	put(fd, "more");
	EXPECT(fd, "more", "more");
	shutdown(fd, SHUT_WR);
	EXPECT(fd, NULL, "bye");
	close(fd);
	wait_for(&T.hijack_closed, 1);
	fd = dial();
	put(fd, "POST /hijack HTTP/1.1\r\n\r\n");
	EXPECT(fd, "\r\n\r\n", "HTTP/1.1 200 OK", "raw-stream", "Connection: close");
	close(fd);
	wait_for(&T.hijack_closed, 2);
	/* Request and end at once. */
	fd = dial();
	put(fd, "POST /hijack HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nin");
	shutdown(fd, SHUT_WR);
	EXPECT(fd, NULL, "inbye");
	close(fd);
	wait_for(&T.hijack_closed, 3);
}

static void test_sockets(void **state)
{
	struct err e = ERR_INIT;
	struct http_server_opts o = {.handle = handle};
	uv_loop_t loop;
	struct stat st;
	(void)state;

	assert_int_equal(stat(T.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	uv_loop_init(&loop);
	struct http_server *s = http_server_new(&loop, &o);
	assert_int_equal(http_server_listen_unix(s, T.path, 0660, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "another daemon"));
	assert_int_equal(http_server_listen_unix(s, "/dev/null", 0660, &e), ERR_CONFLICT);
	/* A socket left by a dead daemon is replaced. */
	char path[80];
	snprintf(path, sizeof(path), "%s.old", T.path);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "%.100s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	if (http_server_listen_unix(s, path, 0600, &e) < 0)
		fail_msg("%s", e.text);
	http_server_close(s, 0, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_close_graceful(void **state)
{
	int idle = dial(), busy = dial(), stuck = dial();
	(void)state;

	put(busy, "GET /later HTTP/1.1\r\n\r\n");
	put(stuck, "GET /forever HTTP/1.1\r\n\r\n");
	free(get(stuck, "tick\n\r\n"));
	T.grace = 400;
	uv_async_send(&T.stop);
	EXPECT(busy, NULL, "later");
	free(get(stuck, NULL));
	free(get(idle, NULL));
	pthread_join(T.thread, NULL);
	assert_int_equal(atomic_load(&T.stopped), 1);
	assert_int_equal(atomic_load(&T.closed_cbs), 1);
	close(idle);
	close(busy);
	close(stuck);
}

#define WITH_SERVER(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_SERVER(test_keep_alive),
	    WITH_SERVER(test_pipelined),
	    WITH_SERVER(test_pipelined_unread),
	    WITH_SERVER(test_query),
	    WITH_SERVER(test_malformed),
	    WITH_SERVER(test_oversize),
	    WITH_SERVER(test_slow),
	    WITH_SERVER(test_half_close),
	    WITH_SERVER(test_vanish),
	    WITH_SERVER(test_drained),
	    WITH_SERVER(test_upload),
	    WITH_SERVER(test_hijack),
	    WITH_SERVER(test_sockets),
	    cmocka_unit_test_setup(test_close_graceful, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
