/* Any bytes, in any pieces, as a connection to the HTTP server: no crash, no leak, and everything closes. The
 * first byte says how to cut the rest and how the client ends. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

struct held {
	struct http_req *r;
	struct http_hijack *h;
};

static void upload_gone(void *data)
{
	free(data);
}

static void upload(void *data, const uint8_t *p, size_t n, bool aborted)
{
	struct held *h = data;
	static unsigned count;

	(void)n;
	if (p) {
		/* Now and then a pause. */
		if (++count % 3 == 0) {
			http_body_pause(h->r);
			http_body_resume(h->r);
		}
		return;
	}
	if (aborted)
		return;
	http_reply_empty(h->r, 200);
	free(h);
}

static void hijack_data(void *data, const uint8_t *p, size_t n)
{
	struct held *h = data;

	if (n > 0)
		http_hijack_write(h->h, p, n);
	else
		http_hijack_close(h->h);
}

static int64_t limit(void *data, struct http_req *r, struct err *e)
{
	(void)data;
	if (str_has_prefix(http_path(r), "/u"))
		http_stream_body(r, NULL, NULL);
	if (str_has_prefix(http_path(r), "/r"))
		return err_set(e, ERR_FORBIDDEN, "refused");
	return 1000;
}

static void handle(void *data, struct http_req *r)
{
	const char *p = http_path(r);
	(void)data;

	if (str_has_prefix(p, "/u")) {
		struct held *h = NEW(struct held);
		h->r = r;
		http_on_closed(r, upload_gone, h);
		http_stream_body(r, upload, h);
	} else if (str_has_prefix(p, "/h")) {
		struct held *h = NEW(struct held);
		h->h = http_hijack(r, "application/x", hijack_data, upload_gone, h);
	} else if (str_has_prefix(p, "/s")) {
		http_start(r, 200, "text/plain");
		http_write(r, p, strlen(p));
		http_finish(r);
	} else {
		const char *a = http_query(r, "a");
		http_set_header(r, "X-A", a ? a : "none");
		http_reply(
		    r, 200, "text/plain", http_body(r)->data ? http_body(r)->data : "", http_body(r)->len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct http_server_opts o = {.body_limit = limit, .handle = handle};
	uv_loop_t loop;
	int fd[2];
	char sink[65536];

	if (n < 2 || n > 60000)
		return 0;
	size_t cut = p[0] % 64u + 1u;
	uv_loop_init(&loop);
	struct http_server *s = http_server_new(&loop, &o);
	ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
	ASSERT(http_server_adopt(s, fd[0], NULL) == 0);
	for (size_t at = 1; at < n;) {
		size_t k = n - at < cut ? n - at : cut;
		if (p[0] >= 128)
			k = n - at;
		if (send(fd[1], p + at, k, MSG_NOSIGNAL) < 0)
			break;
		at += k;
		uv_run(&loop, UV_RUN_NOWAIT);
		while (recv(fd[1], sink, sizeof(sink), 0) > 0)
			;
	}
	if (p[0] & 1)
		shutdown(fd[1], SHUT_WR);
	for (int i = 0; i < 4; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	if (p[0] & 2)
		close(fd[1]);
	uv_run(&loop, UV_RUN_NOWAIT);
	http_server_close(s, 0, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ASSERT(uv_loop_close(&loop) == 0);
	if (!(p[0] & 2))
		close(fd[1]);
	return 0;
}
