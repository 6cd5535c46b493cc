/* whoami: a small static HTTP server that tells who answered and who asked.
 *
 * It is what the demo deploys and what the tests look at: every answer carries the host name, the task (from
 * the environment variable TASK), this container's addresses, the address the request came from, and the
 * request itself. One thread, epoll, one buffer a connection and only while it has a request in work: a
 * replica costs some ten KiB of its own memory.
 *
 * GET /health answers 200 "ok"; `?wait=MS` delays an answer. SIGTERM and SIGINT answer what has arrived and
 * end the process with 0. `whoami -check` asks a running server for /health, for use as a health check in an
 * image that has nothing else in it. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_CONNS = 4096,
	MAX_REQUEST = 16 * 1024,
	MAX_WAIT_MS = 60 * 1000,
	IDLE_MS = 60 * 1000,
	DRAIN_MS = 200,
};

struct conn {
	int fd;
	bool used, close_after;
	char *in; /* request bytes, MAX_REQUEST; NULL while idle */
	size_t in_len;
	size_t skip; /* bytes of a request body still to be thrown away */
	char *out;   /* answer that did not fit into the socket, or waits for its time */
	size_t out_len, out_sent;
	long due_ms; /* when a delayed answer may go; 0: none */
	long active_ms;
	char peer[INET6_ADDRSTRLEN + 8];
};

static struct conn conns[MAX_CONNS];
static int n_used; /* conns[] in use lie below this index */
static volatile sig_atomic_t stopping;
static bool quiet;
static const char *task;
static char hostname[256];

static void on_stop(int sig)
{
	(void)sig;
	stopping = 1;
}

static long now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int print_addr(const struct sockaddr *sa, bool with_port, char *out, size_t cap)
{
	char ip[INET6_ADDRSTRLEN] = "";
	unsigned port = 0;
	bool v6 = false;
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, sa, sizeof in);
		inet_ntop(AF_INET, &in.sin_addr, ip, sizeof ip);
		port = ntohs(in.sin_port);
	} else if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, sa, sizeof in6);
		port = ntohs(in6.sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
			inet_ntop(AF_INET, &in6.sin6_addr.s6_addr[12], ip, sizeof ip);
		else {
			inet_ntop(AF_INET6, &in6.sin6_addr, ip, sizeof ip);
			v6 = true;
		}
	}
	if (!with_port)
		return snprintf(out, cap, "%s", ip);
	return snprintf(out, cap, v6 ? "[%s]:%u" : "%s:%u", ip, port);
}

/* This container's addresses as "IP: x" lines; looked up again when older than a second. */
static const char *own_addresses(void)
{
	static char text[1024];
	static long read_at;
	if (read_at && now_ms() - read_at < 1000)
		return text;
	struct ifaddrs *list;
	if (getifaddrs(&list) != 0)
		return text;
	size_t n = 0;
	text[0] = 0;
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (!i->ifa_addr || !(i->ifa_flags & IFF_UP))
			continue;
		if (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6)
			continue;
		char ip[INET6_ADDRSTRLEN + 8];
		print_addr(i->ifa_addr, false, ip, sizeof ip);
		int k = snprintf(text + n, sizeof text - n, "IP: %s\n", ip);
		if (k < 0 || (size_t)k >= sizeof text - n) {
			text[n] = 0;
			break;
		}
		n += (size_t)k;
	}
	freeifaddrs(list);
	read_at = now_ms();
	return text;
}

static void conn_close(struct conn *c)
{
	close(c->fd);
	free(c->in);
	free(c->out);
	memset(c, 0, sizeof *c);
	c->fd = -1;
	while (n_used > 0 && !conns[n_used - 1].used)
		n_used--;
}

static void want(int ep, struct conn *c, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};
	epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

/* Sends what is due; false when the connection is gone. */
static bool flush(int ep, struct conn *c)
{
	if (!c->out || (c->due_ms && c->due_ms > now_ms() && !stopping))
		return true;
	c->due_ms = 0;
	while (c->out_sent < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			want(ep, c, EPOLLOUT);
			return true;
		}
		if (n < 0) {
			conn_close(c);
			return false;
		}
		c->out_sent += (size_t)n;
	}
	free(c->out);
	c->out = NULL;
	c->out_len = c->out_sent = 0;
	if (c->close_after) {
		conn_close(c);
		return false;
	}
	want(ep, c, EPOLLIN);
	return true;
}

static void answer(struct conn *c, const char *status, const char *body, size_t body_len, bool head_only)
{
	char head[256];
	int n = snprintf(head, sizeof head,
	    "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n%s\r\n", status,
	    body_len, c->close_after ? "Connection: close\r\n" : "");
	size_t head_len = n > 0 ? (size_t)n : 0;
	c->out = malloc(head_len + body_len);
	if (!c->out)
		abort();
	memcpy(c->out, head, head_len);
	if (!head_only)
		memcpy(c->out + head_len, body, body_len);
	c->out_len = head_len + (head_only ? 0 : body_len);
	c->out_sent = 0;
}

/* The value of a header in head[0..len), or NULL; ends at the line's end. */
static const char *header(const char *head, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = strstr(head, "\r\n"); p && p[2]; p = strstr(p + 2, "\r\n")) {
		if (strncasecmp(p + 2, name, n) == 0 && p[2 + n] == ':') {
			p += 3 + n;
			while (*p == ' ' || *p == '\t')
				p++;
			return p;
		}
	}
	return NULL;
}

static bool word_is(const char *value, const char *word)
{
	size_t n = strlen(word);
	return value && strncasecmp(value, word, n) == 0 &&
	       (value[n] == '\r' || value[n] == 0 || value[n] == ',');
}

/* Handles one complete head (NUL-terminated, without the empty line). */
static void handle(struct conn *c, char *head)
{
	const char *eol = strstr(head, "\r\n");
	int line_len = (int)(eol ? (size_t)(eol - head) : strlen(head));
	char method[16] = "", target[2048] = "", version[16] = "";
	if (sscanf(head, "%15s %2047s %15s", method, target, version) != 3 ||
	    strncmp(version, "HTTP/1.", 7) != 0) {
		c->close_after = true;
		answer(c, "400 Bad Request", "bad request\n", 12, false);
		return;
	}
	bool old = strcmp(version, "HTTP/1.0") == 0;
	const char *connection = header(head, "Connection");
	c->close_after =
	    stopping || (old && !word_is(connection, "keep-alive")) || word_is(connection, "close");
	const char *length = header(head, "Content-Length");
	if (length) {
		char *end;
		errno = 0;
		unsigned long long v = strtoull(length, &end, 10);
		if (errno || end == length || v > (1ull << 32)) {
			c->close_after = true;
			answer(c, "413 Content Too Large", "too large\n", 10, false);
			return;
		}
		c->skip = (size_t)v;
	}
	if (header(head, "Transfer-Encoding"))
		c->close_after = true; /* the chunks are not read: this answer is the last */
	const char *expect = header(head, "Expect");
	if (word_is(expect, "100-continue"))
		c->close_after = true;

	if (!quiet)
		printf("%s \"%.*s\" 200\n", c->peer, line_len, head);
	bool head_only = strcmp(method, "HEAD") == 0;
	char *query = strchr(target, '?');
	if (query)
		*query++ = 0;
	for (char *q = query; q; q = strchr(q, '&') ? strchr(q, '&') + 1 : NULL) {
		if (strncmp(q, "wait=", 5) == 0) {
			long ms = strtol(q + 5, NULL, 10);
			c->due_ms = ms <= 0 ? 0 : now_ms() + (ms > MAX_WAIT_MS ? MAX_WAIT_MS : ms);
		}
	}
	if (strcmp(target, "/health") == 0) {
		answer(c, "200 OK", "ok\n", 3, head_only);
		return;
	}
	size_t cap = strlen(head) + 4096;
	char *body = malloc(cap);
	if (!body)
		abort();
	int n = snprintf(body, cap, "Hostname: %s\n%s%s%s%sRemoteAddr: %s\n", hostname, task ? "Task: " : "",
	    task ? task : "", task ? "\n" : "", own_addresses(), c->peer);
	size_t at = n > 0 ? ((size_t)n < cap ? (size_t)n : cap - 1) : 0;
	for (const char *p = head; *p && at + 2 < cap; p++)
		if (*p != '\r')
			body[at++] = *p;
	body[at++] = '\n';
	answer(c, "200 OK", body, at, head_only);
	free(body);
}

/* Takes requests out of the buffer until one has to wait; false when the connection is gone. */
static bool work(int ep, struct conn *c)
{
	while (!c->out) {
		if (c->skip) {
			size_t k = c->skip < c->in_len ? c->skip : c->in_len;
			memmove(c->in, c->in + k, c->in_len - k);
			c->in_len -= k;
			c->skip -= k;
			if (c->skip)
				return true;
		}
		if (c->in_len == 0) {
			free(c->in);
			c->in = NULL;
			return true;
		}
		char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
		if (!end) {
			if (c->in_len < MAX_REQUEST)
				return true;
			c->close_after = true;
			answer(c, "431 Request Header Fields Too Large", "too large\n", 10, false);
		} else {
			*end = 0;
			bool binary = memchr(c->in, 0, (size_t)(end - c->in)) != NULL;
			if (binary) {
				c->close_after = true;
				answer(c, "400 Bad Request", "bad request\n", 12, false);
			} else {
				handle(c, c->in);
			}
			size_t used = (size_t)(end + 4 - c->in);
			memmove(c->in, end + 4, c->in_len - used);
			c->in_len -= used;
		}
		if (c->out) {
			want(ep, c, 0);
			if (!flush(ep, c))
				return false;
		}
	}
	return true;
}

static void readable(int ep, struct conn *c)
{
	if (!c->in && !(c->in = malloc(MAX_REQUEST)))
		abort();
	ssize_t n = recv(c->fd, c->in + c->in_len, MAX_REQUEST - c->in_len, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	c->in_len += (size_t)n;
	c->active_ms = now_ms();
	work(ep, c);
}

static void accept_all(int ep, int listener)
{
	for (;;) {
		struct sockaddr_storage ss = {0};
		socklen_t len = sizeof ss;
		int fd = accept4(listener, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		struct conn *c = NULL;
		for (int i = 0; i < MAX_CONNS && !c; i++)
			if (!conns[i].used)
				c = &conns[i];
		if (!c) {
			close(fd);
			continue;
		}
		memset(c, 0, sizeof *c);
		c->fd = fd;
		c->used = true;
		c->active_ms = now_ms();
		if (c - conns >= n_used)
			n_used = (int)(c - conns) + 1;
		print_addr((struct sockaddr *)&ss, true, c->peer, sizeof c->peer);
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
			conn_close(c);
	}
}

static int listen_on(unsigned port)
{
	int one = 1, zero = 0;
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
		if (bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0 && listen(fd, 4096) == 0)
			return fd;
		int err = errno;
		close(fd);
		if (err == EADDRINUSE || err == EACCES) {
			errno = err;
			return -1;
		}
	}
	/* A kernel or a namespace without IPv6. */
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&in, sizeof in) == 0 && listen(fd, 4096) == 0)
		return fd;
	int err = errno;
	close(fd);
	errno = err;
	return -1;
}

static int check(unsigned port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
	    .sin_port = htons((uint16_t)port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval two = {.tv_sec = 2};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &two, sizeof two);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &two, sizeof two);
	static const char ask[] = "GET /health HTTP/1.0\r\n\r\n";
	char reply[16] = "";
	if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof in) != 0 ||
	    send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof ask - 1) ||
	    recv(fd, reply, sizeof reply - 1, MSG_WAITALL) < 12 || strncmp(reply + 8, " 200", 4) != 0) {
		fprintf(stderr, "whoami: no healthy server on port %u\n", port);
		return 1;
	}
	return 0;
}

/* Milliseconds until a delayed answer is due or an idle connection too old; closes those that are. */
static int sweep(int ep)
{
	long now = now_ms(), next = 5000;
	for (int i = n_used - 1; i >= 0; i--) {
		struct conn *c = &conns[i];
		if (!c->used)
			continue;
		if (c->due_ms && c->due_ms > now && !stopping) {
			next = c->due_ms - now < next ? c->due_ms - now : next;
		} else if (c->due_ms) {
			if (flush(ep, c))
				work(ep, c);
		} else if (now - c->active_ms > IDLE_MS) {
			conn_close(c);
		}
	}
	return (int)next;
}

static void serve(int listener)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
	long stop_at = 0;
	sigset_t none;
	sigemptyset(&none);
	for (;;) {
		int timeout = sweep(ep);
		if (stopping) {
			if (!stop_at)
				stop_at = now_ms() + DRAIN_MS;
			timeout = 5;
		}
		struct epoll_event evs[64];
		int n = epoll_pwait(ep, evs, 64, timeout, &none);
		if (n <= 0 && stop_at)
			return; /* whatever had arrived is answered */
		for (int i = 0; i < n; i++) {
			struct conn *c = evs[i].data.ptr;
			if (!c || !c->used)
				continue;
			if (evs[i].events & (EPOLLERR | EPOLLHUP))
				conn_close(c);
			else if (evs[i].events & EPOLLOUT) {
				if (flush(ep, c) && !c->out)
					work(ep, c);
			} else
				readable(ep, c);
		}
		/* Last, so that no event above meets a slot that was taken anew. */
		accept_all(ep, listener);
		if (stop_at && now_ms() >= stop_at)
			return;
	}
}

int main(int argc, char **argv)
{
	unsigned port = 8000;
	bool want_check = false;
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i][0] == '-' && argv[i][1] == '-' ? argv[i] + 1 : argv[i];
		if (strcmp(a, "-port") == 0 && i + 1 < argc) {
			char *end;
			unsigned long v = strtoul(argv[++i], &end, 10);
			if (*end || v < 1 || v > 65535) {
				fprintf(stderr, "whoami: -port wants a number from 1 to 65535, not \"%s\"\n",
				    argv[i]);
				return 2;
			}
			port = (unsigned)v;
		} else if (strcmp(a, "-quiet") == 0) {
			quiet = true;
		} else if (strcmp(a, "-check") == 0) {
			want_check = true;
		} else {
			fprintf(stderr, "usage: whoami [-port N] [-quiet] [-check]\n");
			return 2;
		}
	}
	if (want_check)
		return check(port);
	/* Blocked outside epoll_pwait, so that a signal is never lost between the check and the wait. As
	 * process 1 of a container there is no default action, so both need a handler. */
	sigset_t stop;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	struct sigaction sa = {.sa_handler = on_stop};
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	static char line[4096];
	setvbuf(stdout, line, _IOLBF, sizeof line);
	task = getenv("TASK");
	if (gethostname(hostname, sizeof hostname - 1) != 0)
		strcpy(hostname, "unknown");
	int listener = listen_on(port);
	if (listener < 0) {
		fprintf(stderr, "whoami: cannot listen on port %u: %s\n", port, strerror(errno));
		return 1;
	}
	printf("whoami: listening on port %u\n", port);
	serve(listener);
	printf("whoami: stopped\n");
	return 0;
}
