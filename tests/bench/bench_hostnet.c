/* Attaching and detaching containers, and what a published port costs, in a network namespace of its own.
 *
 *   bench_hostnet [containers] [seconds] */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <linux/netlink.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "overlay/hostnet.h"
#include "overlay/ipam.h"
#include "overlay/netns.h"
#include "overlay/rtnl.h"

static double now_ms(void)
{
	return (double)clock_mono_ns(clock_system()) / 1e6;
}

static void must(int r, const struct err *e)
{
	if (r < 0) {
		fprintf(stderr, "bench_hostnet: %s\n", e->text);
		exit(1);
	}
}

struct opener {
	int fd;
	bool listen;
	uint16_t port;
};

static int open_socket(void *data, struct err *e)
{
	struct opener *o = data;
	o->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!o->listen)
		return 0;
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(o->port)};
	if (bind(o->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(o->fd, 128) < 0)
		return err_errno(e, errno, "listen");
	return 0;
}

static int socket_in(struct netns_worker *w, const char *ns, bool listening, uint16_t port)
{
	struct opener o = {-1, listening, port};
	struct err e = ERR_INIT;
	must(netns_run(w, ns, open_socket, &o, &e), &e);
	return o.fd;
}

/* A namespace beside the host, 10.99.0.2, with the host as its gateway at 10.99.0.1. */
static void make_outside(struct netns_worker *w, const char *path)
{
	struct err e = ERR_INIT;
	struct nl host, inside;
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	int fd;
	uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
	must(nl_open(&host, NETLINK_ROUTE, &e), &e);
	must(netns_create(w, path, &fd, &inside, &e), &e);
	rtnl_put_veth(&b, "up0", (const uint8_t[]){2, 0, 0, 0, 0, 8}, "eth0", mac, fd);
	rtnl_put_up(&b, "up0");
	rtnl_put_up(&b, "lo");
	must(nl_send(&host, &b, NULL, &e), &e);
	rtnl_put_address(&b, rtnl_link_index(&host, "up0"), 0x0a630001, 24);
	must(nl_send(&host, &b, NULL, &e), &e);
	rtnl_put_up(&b, "eth0");
	rtnl_put_address(&b, rtnl_link_index(&inside, "eth0"), 0x0a630002, 24);
	must(nl_send(&inside, &b, NULL, &e), &e);
	nl_close(&host);
	nl_close(&inside);
	close(fd);
}

struct sink {
	int fd;
	double seconds;
	int64_t bytes;
};

static void *read_all(void *data)
{
	struct sink *s = data;
	static _Thread_local char buf[256 * 1024];
	ssize_t n;
	double t0 = now_ms();
	while ((n = read(s->fd, buf, sizeof(buf))) > 0)
		s->bytes += n;
	s->seconds = (now_ms() - t0) / 1e3;
	return NULL;
}

static double gbits(
    struct netns_worker *w, const char *client_ns, int listener, uint32_t ip, uint16_t port, double seconds)
{
	struct sockaddr_in sa = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip)};
	int c = socket_in(w, client_ns, false, 0);
	if (connect(c, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		perror("connect");
		exit(1);
	}
	struct sink s = {.fd = accept(listener, NULL, NULL)};
	pthread_t t;
	pthread_create(&t, NULL, read_all, &s);
	static char buf[256 * 1024];
	for (double end = now_ms() + seconds * 1e3; now_ms() < end;)
		if (write(c, buf, sizeof(buf)) < 0)
			break;
	close(c);
	pthread_join(t, NULL);
	close(s.fd);
	return (double)s.bytes * 8 / s.seconds / 1e9;
}

static double connects(
    struct netns_worker *w, const char *client_ns, int listener, uint32_t ip, uint16_t port, int count)
{
	struct sockaddr_in sa = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip)};
	double spent = 0;
	for (int i = 0; i < count; i++) {
		int c = socket_in(w, client_ns, false, 0);
		double t0 = now_ms();
		if (connect(c, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
			perror("connect");
			exit(1);
		}
		close(accept(listener, NULL, NULL));
		spent += now_ms() - t0;
		close(c);
	}
	return spent * 1e3 / count;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 50;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	struct err e = ERR_INIT;
	char dir[] = "/tmp/shoal-bench-net-XXXXXX";
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(dir)) {
		perror("bench_hostnet needs root");
		return 1;
	}
	log_set_level(LOG_LEVEL_WARN);
	char *state CLEANUP_FREE = fs_path(dir, "state"), *netns CLEANUP_FREE = fs_path(dir, "netns"),
		    *outside CLEANUP_FREE = fs_path(dir, "outside");
	struct netns_worker *w;
	must(netns_worker_start(&w, &e), &e);
	make_outside(w, outside);
	struct hostnet_opts o = {.tag = "bench", .state_dir = state, .netns_dir = netns};
	struct hostnet *n;
	double t0 = now_ms();
	must(hostnet_open(NULL, &o, &n, &e), &e);
	printf("open                          %8.2f ms\n", now_ms() - t0);

	struct hostnet_endpoint *ep = xcalloc((size_t)count, sizeof(*ep));
	struct hostnet_backend *be = xcalloc((size_t)count, sizeof(*be));
	double worst = 0;
	t0 = now_ms();
	for (int i = 0; i < count; i++) {
		double a = now_ms();
		be[i].container_id = xasprintf("c%063d", i);
		must(hostnet_attach(n, be[i].container_id, NULL, 0, &ep[i], &e), &e);
		worst = now_ms() - a > worst ? now_ms() - a : worst;
	}
	printf("attach                        %8.2f ms each (worst %.2f), %d of them\n",
	    (now_ms() - t0) / count, worst, count);

	struct hostnet_ingress_port p = {.published = 8000, .target = 80};
	t0 = now_ms();
	must(hostnet_publish(n, "svc", &p, 1, be, (size_t)count, &e), &e);
	printf("publish, %d backends          %8.2f ms\n", count, now_ms() - t0);
	t0 = now_ms();
	for (uint16_t i = 0; i < 1000; i++) {
		char id[16];
		snprintf(id, sizeof(id), "s%d", i);
		struct hostnet_ingress_port q = {.published = (uint16_t)(10000 + i), .target = 80};
		must(hostnet_publish(n, id, &q, 1, be, 1, &e), &e);
	}
	printf("publish, 1000 more services   %8.2f ms each\n", (now_ms() - t0) / 1000);
	t0 = now_ms();
	must(hostnet_publish(n, "svc", &p, 1, be, (size_t)count - 1, &e), &e);
	printf("one backend less, 1001 svcs   %8.2f ms\n", now_ms() - t0);

	must(hostnet_publish(n, "svc", &p, 1, be, 1, &e), &e);
	int l = socket_in(w, ep[0].netns_path, true, 80);
	uint32_t direct;
	inet_pton(AF_INET, ep[0].address, &direct);
	char only[64];
	snprintf(only, sizeof(only), "%.*s", (int)strcspn(ep[0].address, "/"), ep[0].address);
	inet_pton(AF_INET, only, &direct);
	/* The host itself to the container, without translation and with it. */
	printf("host -> container             %8.2f Gbit/s\n",
	    gbits(w, "/proc/self/ns/net", l, ntohl(direct), 80, seconds));
	printf("host -> published port        %8.2f Gbit/s\n",
	    gbits(w, "/proc/self/ns/net", l, 0x0a630001, 8000, seconds));
	printf(
	    "outside -> published port     %8.2f Gbit/s\n", gbits(w, outside, l, 0x0a630001, 8000, seconds));
	printf("connect, host -> container    %8.2f us\n",
	    connects(w, "/proc/self/ns/net", l, ntohl(direct), 80, 2000));
	printf("connect, host -> published    %8.2f us\n",
	    connects(w, "/proc/self/ns/net", l, 0x0a630001, 8000, 2000));

	t0 = now_ms();
	for (int i = 0; i < count; i++)
		hostnet_detach(n, be[i].container_id);
	printf("detach                        %8.2f ms each (1000 services)\n", (now_ms() - t0) / count);
	t0 = now_ms();
	hostnet_close(n);
	must(hostnet_open(NULL, &o, &n, &e), &e);
	printf("close and open, 1000 services %8.2f ms\n", now_ms() - t0);
	t0 = now_ms();
	hostnet_destroy(n);
	printf("destroy                       %8.2f ms\n", now_ms() - t0);
	netns_remove(outside);
	netns_worker_stop(w);
	fs_remove_tree(dir, NULL);
	for (int i = 0; i < count; i++)
		free((char *)(uintptr_t)be[i].container_id);
	free(be);
	free(ep);
	return 0;
}
