/* gRPC over TLS on one loop, both ends in this process: handshakes a second, memory a connection (both ends),
 * calls a second, bytes a second of a stream.
 *
 *   bench_rpc [connections]     default 1000 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "proto/control.pb-c.h"
#include "proto/pki.h"
#include "proto/rpc.h"

#define CALLS  100000
#define WINDOW 64
#define CHUNK  65536
#define CHUNKS 8000

struct bench {
	uv_loop_t loop;
	struct rpc_server *server;
	struct tls_listener *l;
	size_t open, done, started;
	size_t bytes, chunks;
	struct rpc_client *client;
	bool over;
};

static double now_s(void)
{
	return (double)uv_hrtime() / 1e9;
}

static size_t resident(void)
{
	size_t pages = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (f) {
		if (fscanf(f, "%zu %zu", &pages, &rss) != 2)
			rss = 0;
		fclose(f);
	}
	return rss * (size_t)sysconf(_SC_PAGESIZE);
}

static struct tls_ctx *ctx_new(
    const char *root, const uint8_t *key, size_t n, const char *node, const char *role, bool server)
{
	static const char *const alpn[] = {"h2", NULL};
	char *key_pem, *cert;
	uint8_t *csr = NULL;
	size_t csr_len = 0;
	struct tls_ctx *ctx;
	struct err e = ERR_INIT;
	int64_t now = clock_unix_ns(clock_system());
	int r = pki_key_new(&key_pem, &e);
	if (r == 0)
		r = pki_csr_new(key_pem, &csr, &csr_len, &e);
	ASSERT(r == 0);
	struct pki_issue q = {.root_pem = root,
	    .root_key = key,
	    .root_key_len = n,
	    .csr = csr,
	    .csr_len = csr_len,
	    .node_id = node,
	    .role = role,
	    .cluster_id = "c",
	    .not_before_ns = now - 3600 * NS_PER_SEC,
	    .not_after_ns = now + 3600 * NS_PER_SEC};
	r = pki_issue(&q, &cert, &e);
	ASSERT(r == 0);
	struct tls_ctx_opts o = {
	    .cert_pem = cert, .key_pem = key_pem, .ca_pem = root, .server = server, .alpn = alpn};
	r = tls_ctx_new(&o, &ctx, &e);
	ASSERT(r == 0);
	free(key_pem);
	free(cert);
	free(csr);
	return ctx;
}

/* --- server: echoes */

static void srv_message(void *data, const ProtobufCMessage *m)
{
	rpc_stream_send(data, m);
	if (((const Pb__LogBatch *)m)->has_end)
		rpc_stream_finish(data, NULL);
}
static void srv_closed(void *data, const struct err *why)
{
	(void)data;
	(void)why;
}
static void begin(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = srv_message, .closed = srv_closed};
	(void)data;
	(void)peer;
	rpc_stream_set_ops(s, &ops, s);
}
static const struct rpc_method METHOD = {.path = "/bench/Echo",
    .request = &pb__log_batch__descriptor,
    .response = &pb__log_batch__descriptor,
    .need_node = true,
    .begin = begin};

static int on_accept(void *data, struct tls_conn *c, const struct tls_peer *peer)
{
	rpc_server_serve(((struct bench *)data)->server, c, peer);
	return 0;
}

/* --- clients */

static void cl_message(void *data, const ProtobufCMessage *m)
{
	(void)m;
	((struct bench *)data)->open++;
}
static void cl_closed(void *data, const struct err *why)
{
	(void)data;
	if (why->code) {
		fprintf(stderr, "%s\n", why->text);
		exit(1);
	}
}

static void fill(Pb__LogBatch *b, Pb__LogLine *l, Pb__LogLine **lines, uint8_t *p, size_t n, bool end)
{
	pb__log_batch__init(b);
	pb__log_line__init(l);
	b->subscription_id = (char *)"x";
	*lines = l;
	b->lines = lines;
	b->n_lines = 1;
	b->has_end = b->end = end;
	l->task_id = (char *)"t";
	l->data.data = p;
	l->data.len = n;
}

static void call_one(struct bench *b);
static void on_answer(void *data, const ProtobufCMessage *m, const struct err *e)
{
	struct bench *b = data;
	(void)m;
	ASSERT(e->code == 0);
	b->done++;
	if (b->started < CALLS)
		call_one(b);
}
static void call_one(struct bench *b)
{
	Pb__LogBatch q;
	Pb__LogLine l, *lines;
	uint8_t p[100] = {0};
	fill(&q, &l, &lines, p, sizeof(p), true);
	b->started++;
	int r = rpc_unary(b->client, METHOD.path, &q, METHOD.response, 0, on_answer, b, NULL);
	ASSERT(r == 0);
}

static struct rpc_stream *bulk;
static uint8_t payload[CHUNK];
static void bulk_send(struct bench *b)
{
	Pb__LogBatch q;
	Pb__LogLine l, *lines;
	fill(&q, &l, &lines, payload, sizeof(payload), false);
	while (b->chunks < CHUNKS) {
		b->chunks++;
		if (rpc_stream_send(bulk, &q) > 512 * 1024)
			return;
	}
}
static void bulk_drained(void *data)
{
	bulk_send(data);
}
static void bulk_message(void *data, const ProtobufCMessage *m)
{
	struct bench *b = data;
	b->bytes += ((const Pb__LogBatch *)m)->lines[0]->data.len;
}

int main(int argc, char **argv)
{
	struct bench b = {.open = 0};
	size_t n = argc > 1 ? (size_t)atol(argv[1]) : 1000, key_len;
	char *root;
	uint8_t *key;
	struct err e = ERR_INIT;
	if (n < 1 || n > 30000) {
		fprintf(stderr, "usage: bench_rpc [connections, 1 to 30000]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct rlimit rl = {65536, 65536};
	setrlimit(RLIMIT_NOFILE, &rl);
	uv_loop_init(&b.loop);
	int r = pki_root_new(clock_unix_ns(clock_system()), &root, &key, &key_len, &e);
	ASSERT(r == 0);
	struct tls_ctx *sctx = ctx_new(root, key, key_len, "m", PKI_ROLE_MANAGER, true);
	struct tls_ctx *cctx = ctx_new(root, key, key_len, "w", PKI_ROLE_WORKER, false);
	b.server = rpc_server_new(&b.loop);
	rpc_server_add(b.server, &METHOD, 1);
	r = tls_listen(&b.loop, sctx, "127.0.0.1", 0, on_accept, &b, &b.l, &e);
	ASSERT(r == 0);
	uint16_t port = tls_listener_port(b.l);

	struct rpc_client **c = xcalloc(n, sizeof(*c));
	struct rpc_stream **s = xcalloc(n, sizeof(*s));
	static const struct rpc_stream_ops ops = {.message = cl_message, .closed = cl_closed};
	Pb__LogBatch q;
	Pb__LogLine l, *lines;
	uint8_t p[100] = {0};
	fill(&q, &l, &lines, p, sizeof(p), false);
	size_t before = resident();
	double t = now_s();
	for (size_t i = 0; i < n; i++) {
		c[i] = rpc_client_new(&b.loop, cctx, "127.0.0.1", port);
		r = rpc_call(c[i], METHOD.path, METHOD.response, 0, &ops, &b, &s[i], &e);
		ASSERT(r == 0);
		rpc_stream_send(s[i], &q);
	}
	while (b.open < n)
		uv_run(&b.loop, UV_RUN_ONCE);
	t = now_s() - t;
	printf("connections: %zu in %.2f s, %.0f a second (both ends), %zu bytes each (both ends)\n", n, t,
	    (double)n / t, (resident() - before) / n);

	b.client = c[0];
	t = now_s();
	for (int i = 0; i < WINDOW; i++)
		call_one(&b);
	while (b.done < CALLS)
		uv_run(&b.loop, UV_RUN_ONCE);
	t = now_s() - t;
	printf("unary calls: %.0f a second, %d at a time\n", CALLS / t, WINDOW);

	static const struct rpc_stream_ops bops = {
	    .message = bulk_message, .closed = cl_closed, .drained = bulk_drained};
	t = now_s();
	r = rpc_call(b.client, METHOD.path, METHOD.response, 0, &bops, &b, &bulk, &e);
	ASSERT(r == 0);
	bulk_send(&b);
	while (b.bytes < (size_t)CHUNK * CHUNKS)
		uv_run(&b.loop, UV_RUN_ONCE);
	t = now_s() - t;
	printf("stream: %.0f MB a second there and back\n", (double)CHUNK * CHUNKS / t / 1e6);
	fflush(stdout);
	_exit(0); /* the kernel closes the sockets faster than we do */
}
