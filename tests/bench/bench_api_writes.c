/* Config creates a second over the Engine API's unix socket, with 1 and 16 clients on keep-alive connections,
 * each one request at a time. Works against any engine that is a swarm manager; tests/bench/api-writes runs
 * it against Shoal and Docker.
 *
 *   bench_api_writes SOCKET [SECONDS [CLIENTS...]]
 *
 * Prints one line per number of clients. Configs that it made are left: run it on a throw-away swarm. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define CLIENTS_MAX 64

struct client {
	int fd;
	char in[4096];
	size_t len;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int dial(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
		fprintf(stderr, "bench_api_writes: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	return fd;
}

static void send_create(struct client *c, unsigned long n, int run)
{
	char body[256], req[768];
	int bl = snprintf(body, sizeof(body),
	    "{\"Name\":\"bench-%d-%d-%lu\",\"Labels\":{},\"Data\":\"c29tZSBkYXRh\"}", (int)getpid(), run, n);
	int rl = snprintf(req, sizeof(req),
	    "POST /v1.41/configs/create HTTP/1.1\r\nHost: d\r\nContent-Type: "
	    "application/json\r\nContent-Length: "
	    "%d\r\n\r\n%s",
	    bl, body);
	if (write(c->fd, req, (size_t)rl) != rl) {
		perror("bench_api_writes: write");
		exit(1);
	}
}

/* Whether a whole response is there; it must be a 201. */
static int complete(struct client *c)
{
	c->in[c->len] = 0;
	const char *end = strstr(c->in, "\r\n\r\n");
	if (!end)
		return 0;
	if (strncmp(c->in, "HTTP/1.1 201", 12) != 0) {
		fprintf(stderr, "bench_api_writes: %s\n", c->in);
		exit(1);
	}
	const char *cl = strcasestr(c->in, "content-length:");
	if (cl && cl < end)
		return (size_t)(end - c->in) + 4 + strtoul(cl + 15, NULL, 10) <= c->len;
	return strstr(end, "\r\n0\r\n\r\n") != NULL;
}

static double measure(const char *path, int clients, double seconds, int run)
{
	static struct client c[CLIENTS_MAX];
	struct pollfd p[CLIENTS_MAX];
	unsigned long sent = 0, done = 0;
	memset(c, 0, sizeof(c));
	for (int i = 0; i < clients; i++) {
		c[i].fd = dial(path);
		p[i] = (struct pollfd){.fd = c[i].fd, .events = POLLIN};
	}
	double start = now(), end = start + seconds;
	for (int i = 0; i < clients; i++)
		send_create(&c[i], sent++, run);
	unsigned open = (unsigned)clients;
	while (open) {
		if (poll(p, (nfds_t)clients, 10000) <= 0) {
			fprintf(stderr, "bench_api_writes: no answer for 10 s\n");
			exit(1);
		}
		int over = now() >= end;
		for (int i = 0; i < clients; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			ssize_t n = read(c[i].fd, c[i].in + c[i].len, sizeof(c[i].in) - 1 - c[i].len);
			if (n <= 0) {
				fprintf(stderr, "bench_api_writes: the connection ended\n");
				exit(1);
			}
			c[i].len += (size_t)n;
			if (!complete(&c[i]))
				continue;
			done++;
			c[i].len = 0;
			if (over) {
				close(c[i].fd);
				p[i].fd = -1;
				open--;
			} else {
				send_create(&c[i], sent++, run);
			}
		}
	}
	return (double)done / (now() - start);
}

int main(int argc, char **argv)
{
	static const int standard[] = {1, 16};
	if (argc < 2) {
		fprintf(stderr, "usage: bench_api_writes SOCKET [SECONDS [CLIENTS...]]\n");
		return 2;
	}
	double seconds = argc > 2 ? atof(argv[2]) : 3;
	int n = argc > 3 ? argc - 3 : (int)ARRAY_LEN(standard);
	for (int i = 0; i < n; i++) {
		int clients = argc > 3 ? atoi(argv[3 + i]) : standard[i];
		if (clients < 1 || clients > CLIENTS_MAX)
			return 2;
		printf("%2d clients: %.0f config creates a second\n", clients,
		    measure(argv[1], clients, seconds, i));
		fflush(stdout);
	}
	return 0;
}
