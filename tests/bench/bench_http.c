/* The HTTP server alone: one keep-alive client on a unix socket, small POSTs answered at once. Prints
 * requests a second and the server thread's CPU time for each. Usage: bench_http [seconds] [clients]. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/http.h"

static struct http_server *server;
static uv_async_t stop;
static double server_cpu;

static void handle(void *data, struct http_req *r)
{
	(void)data;
	http_reply(r, 201, "application/json", "{\"ID\":\"abcdefghijklmnopqrstuvwxy\"}\n", 35);
}

static void on_stop(uv_async_t *a)
{
	http_server_close(server, 0, NULL, NULL);
	uv_close((uv_handle_t *)a, NULL);
}

static double seconds(clockid_t c)
{
	struct timespec t;

	clock_gettime(c, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *serve(void *loop)
{
	uv_run(loop, UV_RUN_DEFAULT);
	server_cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

struct client {
	pthread_t thread;
	int fd;
	double until;
	unsigned long n;
};

static void *drive(void *arg)
{
	static const char req[] =
	    "POST /v1.41/configs/create HTTP/1.1\r\nHost: api.moby.localhost\r\nUser-Agent: "
	    "Docker-Client/20.10\r\nContent-Length: 55\r\nContent-Type: application/json\r\n\r\n"
	    "{\"Name\":\"config-1234567\",\"Labels\":{},\"Data\":\"aGVsbG8=\"}";
	struct client *c = arg;
	char in[4096];

	while (seconds(CLOCK_MONOTONIC) < c->until) {
		for (int i = 0; i < 64; i++) {
			ASSERT(write(c->fd, req, sizeof(req) - 1) > 0);
			ASSERT(read(c->fd, in, sizeof(in)) > 0);
			c->n++;
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct http_server_opts o = {.handle = handle, .headers = "Server: bench\r\n"};
	double time = argc > 1 ? atof(argv[1]) : 3;
	int clients = argc > 2 ? atoi(argv[2]) : 1;
	struct client *c = xcalloc((size_t)clients, sizeof(*c));
	unsigned long n = 0;
	uv_loop_t loop;
	pthread_t thread;

	uv_loop_init(&loop);
	server = http_server_new(&loop, &o);
	uv_async_init(&loop, &stop, on_stop);
	for (int i = 0; i < clients; i++) {
		int fd[2];
		ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
		ASSERT(http_server_adopt(server, fd[0], NULL) == 0);
		c[i].fd = fd[1];
		c[i].until = seconds(CLOCK_MONOTONIC) + time;
	}
	pthread_create(&thread, NULL, serve, &loop);
	double start = seconds(CLOCK_MONOTONIC);
	for (int i = 0; i < clients; i++)
		pthread_create(&c[i].thread, NULL, drive, &c[i]);
	for (int i = 0; i < clients; i++) {
		pthread_join(c[i].thread, NULL);
		close(c[i].fd);
		n += c[i].n;
	}
	double took = seconds(CLOCK_MONOTONIC) - start;
	uv_async_send(&stop);
	pthread_join(thread, NULL);
	printf("clients %d  requests/s %.0f  server CPU a request %.2f us (%.0f/s a core)\n", clients,
	    (double)n / took, server_cpu / (double)n * 1e6, (double)n / server_cpu);
	free(c);
	return 0;
}
