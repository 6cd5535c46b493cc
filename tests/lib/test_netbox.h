/* A network of one's own for a test: a network and mount namespace of this process, with an "outside"
 * namespace on a veth pair (10.99.0.2; this host is 10.99.0.1 and also 10.98.0.1), sockets in any namespace,
 * and a hostnet in it. Needs root. */
#ifndef TEST_NETBOX_H
#define TEST_NETBOX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <linux/netlink.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/timer.h"
#include "overlay/hostnet.h"
#include "overlay/ipam.h"
#include "overlay/netns.h"
#include "overlay/rtnl.h"

#define NETBOX_UNUSED __attribute__((unused))

#define HOST_IP    "10.99.0.1"
#define HOST_IP2   "10.98.0.1"
#define OUTSIDE_IP "10.99.0.2"
#define HERE       "/proc/self/ns/net"

static struct {
	char dir[64];
	char *state, *netns, *outside;
	struct netns_worker *w;
	struct hostnet_opts o;
} env;

/* --- sockets in any namespace ------------------------------------------------------------------------ */

struct opener {
	int type, fd;
	bool listening;
	const char *ip;
	uint16_t port;
};

NETBOX_UNUSED static int open_socket(void *data, struct err *e)
{
	struct opener *o = data;
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(o->port)};
	int on = 1;
	o->fd = socket(AF_INET, o->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (o->fd < 0)
		return err_errno(e, errno, "socket");
	setsockopt(o->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (o->ip)
		inet_pton(AF_INET, o->ip, &sa.sin_addr);
	if (o->port && bind(o->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_errno(e, errno, "bind %u", o->port);
	if (o->listening && listen(o->fd, 64) < 0)
		return err_errno(e, errno, "listen %u", o->port);
	return 0;
}

NETBOX_UNUSED static int socket_in(const char *ns, int type, bool listening, const char *ip, uint16_t port)
{
	struct opener o = {.type = type, .fd = -1, .listening = listening, .ip = ip, .port = port};
	struct err e = ERR_INIT;
	if (netns_run(env.w, ns, open_socket, &o, &e) < 0)
		fail_msg("%s", e.text);
	return o.fd;
}

NETBOX_UNUSED static int server_in(const char *ns, uint16_t port)
{
	return socket_in(ns, SOCK_STREAM, true, NULL, port);
}

NETBOX_UNUSED static struct sockaddr_in sockaddr_of(const char *ip, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
	assert_int_equal(inet_pton(AF_INET, ip, &sa.sin_addr), 1);
	return sa;
}

/* A connection and the server that took it. result: 0, or the errno of connect (ETIMEDOUT after the time
 * given). */
struct conn {
	int result;
	int client, server;
	int which; /* index of the listener */
	char peer[16];
};

NETBOX_UNUSED static struct conn connect_to(
    const char *ns, const char *ip, uint16_t port, const int *servers, int n, int timeout_ms)
{
	struct conn c = {.client = socket_in(ns, SOCK_STREAM, false, NULL, 0), .server = -1, .which = -1};
	struct sockaddr_in sa = sockaddr_of(ip, port);
	if (connect(c.client, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno != EINPROGRESS)
		c.result = errno;
	else {
		struct pollfd p = {.fd = c.client, .events = POLLOUT};
		if (poll(&p, 1, timeout_ms) <= 0)
			c.result = ETIMEDOUT;
		else {
			socklen_t len = sizeof(c.result);
			getsockopt(c.client, SOL_SOCKET, SO_ERROR, &c.result, &len);
		}
	}
	if (c.result) {
		close(c.client);
		c.client = -1;
		return c;
	}
	struct pollfd p[16];
	for (int i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = servers[i], .events = POLLIN};
	assert_true(poll(p, (nfds_t)n, 5000) > 0);
	for (int i = 0; i < n && c.which < 0; i++) {
		if (!(p[i].revents & POLLIN))
			continue;
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		c.server = accept4(servers[i], (struct sockaddr *)&from, &len, SOCK_CLOEXEC);
		assert_true(c.server >= 0);
		c.which = i;
		inet_ntop(AF_INET, &from.sin_addr, c.peer, sizeof(c.peer));
	}
	assert_true(c.which >= 0);
	return c;
}

NETBOX_UNUSED static void hang_up(struct conn *c)
{
	if (c->client >= 0)
		close(c->client);
	if (c->server >= 0)
		close(c->server);
}

/* Bytes go both ways on an established connection. */
NETBOX_UNUSED static void assert_alive(const struct conn *c)
{
	char b[8];
	struct pollfd p = {.fd = c->server, .events = POLLIN};
	assert_int_equal(write(c->client, "ping", 4), 4);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(c->server, b, sizeof(b)), 4);
	p.fd = c->client;
	assert_int_equal(write(c->server, "pong", 4), 4);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(c->client, b, sizeof(b)), 4);
}

NETBOX_UNUSED static void assert_reached(
    const char *ns, const char *ip, uint16_t port, int server, const char *peer)
{
	struct conn c = connect_to(ns, ip, port, &server, 1, 5000);
	if (c.result)
		fail_msg("%s: connect to %s:%u: %s", ns, ip, port, strerror(c.result));
	assert_string_equal(c.peer, peer);
	assert_alive(&c);
	hang_up(&c);
}

NETBOX_UNUSED static void assert_refused(const char *ns, const char *ip, uint16_t port, int expected)
{
	struct conn c = connect_to(ns, ip, port, NULL, 0, expected == ETIMEDOUT ? 300 : 5000);
	hang_up(&c);
	if (c.result != expected)
		fail_msg(
		    "connect to %s:%u: %s instead of %s", ip, port, strerror(c.result), strerror(expected));
}

/* Sends from the client socket; returns which server got it, and who it saw; -1: nobody within the time, -2:
 * refused. */
NETBOX_UNUSED static int udp_ask(
    int client, const char *ip, uint16_t port, const int *servers, int n, char peer[16])
{
	struct sockaddr_in sa = sockaddr_of(ip, port), from;
	socklen_t len = sizeof(from);
	char b[16];
	struct pollfd p[17];
	if (connect(client, (struct sockaddr *)&sa, sizeof(sa)) < 0 || send(client, "ask", 3, 0) < 0)
		return errno == ECONNREFUSED ? -2 : -1;
	for (int i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = servers[i], .events = POLLIN};
	p[n] = (struct pollfd){.fd = client, .events = POLLIN};
	if (poll(p, (nfds_t)n + 1, 2000) <= 0)
		return -1;
	for (int i = 0; i < n; i++) {
		if (!(p[i].revents & POLLIN))
			continue;
		assert_int_equal(recvfrom(servers[i], b, sizeof(b), 0, (struct sockaddr *)&from, &len), 3);
		if (peer)
			inet_ntop(AF_INET, &from.sin_addr, peer, 16);
		assert_int_equal(sendto(servers[i], "yes", 3, 0, (struct sockaddr *)&from, len), 3);
		struct pollfd q = {.fd = client, .events = POLLIN};
		assert_int_equal(poll(&q, 1, 5000), 1);
		assert_int_equal(recv(client, b, sizeof(b), 0), 3);
		return i;
	}
	return recv(client, b, sizeof(b), 0) < 0 && errno == ECONNREFUSED ? -2 : -1;
}

/* --- the environment --------------------------------------------------------------------------------- */

NETBOX_UNUSED static void send_ok(struct nl *s, struct nl_batch *b)
{
	struct err e = ERR_INIT;
	if (nl_send(s, b, NULL, &e) < 0)
		fail_msg("%s", e.text);
}

NETBOX_UNUSED static int setup_all(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct nl host, inside;
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
	int fd;
	log_set_level(LOG_LEVEL_ERROR);
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	snprintf(env.dir, sizeof(env.dir), "/tmp/shoal-test-net-%d-XXXXXX", getpid());
	if (!mkdtemp(env.dir))
		return -1;
	env.state = fs_path(env.dir, "state");
	env.netns = fs_path(env.dir, "netns");
	env.outside = fs_path(env.dir, "outside");
	env.o = (struct hostnet_opts){.tag = "t", .state_dir = env.state, .netns_dir = env.netns};
	if (netns_worker_start(&env.w, &e) < 0 || nl_open(&host, NETLINK_ROUTE, &e) < 0 ||
	    netns_create(env.w, env.outside, &fd, &inside, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return -1;
	}
	rtnl_put_veth(&b, "up0", (const uint8_t[]){2, 0, 0, 0, 0, 8}, "eth0", mac, fd);
	rtnl_put_up(&b, "up0");
	rtnl_put_up(&b, "lo");
	send_ok(&host, &b);
	rtnl_put_address(&b, rtnl_link_index(&host, "up0"), 0x0a630001, 24);
	rtnl_put_address(&b, rtnl_link_index(&host, "up0"), 0x0a620001, 24);
	send_ok(&host, &b);
	rtnl_put_up(&b, "lo");
	rtnl_put_up(&b, "eth0");
	rtnl_put_address(&b, rtnl_link_index(&inside, "eth0"), 0x0a630002, 24);
	rtnl_put_default_route(&b, rtnl_link_index(&inside, "eth0"), 0x0a630001);
	send_ok(&inside, &b);
	nl_close(&host);
	nl_close(&inside);
	close(fd);
	return 0;
}

NETBOX_UNUSED static int teardown_all(void **state)
{
	(void)state;
	netns_remove(env.outside);
	netns_worker_stop(env.w);
	fs_remove_tree(env.dir, NULL);
	free(env.state);
	free(env.netns);
	free(env.outside);
	return 0;
}

NETBOX_UNUSED static struct hostnet *open_net(void)
{
	struct err e = ERR_INIT;
	struct hostnet *n;
	if (hostnet_open(NULL, &env.o, &n, &e) < 0)
		fail_msg("%s", e.text);
	return n;
}

/* A container's end can send when the kernel's link watch has seen its carrier: long before a process starts
 * there, but not before this test can go on. */
NETBOX_UNUSED static void wait_running(const char *ns)
{
	struct err e = ERR_INIT;
	struct nl inside;
	struct rtnl_link l;
	int fd;
	assert_int_equal(netns_open(env.w, ns, &fd, &inside, &e), 0);
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(rtnl_link_get(&inside, "eth0", &l, &e), 0);
		if (l.flags & IFF_RUNNING)
			break;
		usleep(1000);
	}
	assert_true(l.flags & IFF_RUNNING);
	nl_close(&inside);
	close(fd);
}

NETBOX_UNUSED static struct hostnet_endpoint attach(struct hostnet *n, const char *id)
{
	struct err e = ERR_INIT;
	struct hostnet_endpoint ep;
	if (hostnet_attach(n, id, NULL, 0, &ep, &e) < 0)
		fail_msg("%s", e.text);
	wait_running(ep.netns_path);
	return ep;
}

NETBOX_UNUSED static void address_of(const struct hostnet_endpoint *ep, char out[16])
{
	snprintf(out, 16, "%.*s", (int)strcspn(ep->address, "/"), ep->address);
}

NETBOX_UNUSED static void publish(struct hostnet *n, const char *svc, bool udp, uint16_t port,
    uint16_t target, const char *const *ids, size_t count)
{
	struct hostnet_backend b[16];
	struct hostnet_ingress_port p = {.published = port, .target = target, .udp = udp};
	struct err e = ERR_INIT;
	for (size_t i = 0; i < count; i++)
		b[i].container_id = ids[i];
	if (hostnet_publish(n, svc, &p, 1, b, count, &e) < 0)
		fail_msg("%s", e.text);
}

NETBOX_UNUSED static int run(const char *command)
{
	return system(command); /* NOLINT: fixed strings, in a test */
}

#endif
