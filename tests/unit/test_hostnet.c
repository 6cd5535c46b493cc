/* The host network with real packets: everything runs in a network and mount namespace of this process, with
 * an "outside" namespace on a veth pair (10.99.0.2; this host is 10.99.0.1 and also 10.98.0.1). Needs root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include "base/mem.h"
#include "base/rng.h"
#include "base/timer.h"
#include "overlay/hostnet.h"
#include "overlay/ipam.h"
#include "overlay/netns.h"
#include "overlay/rtnl.h"

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

static int open_socket(void *data, struct err *e)
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

static int socket_in(const char *ns, int type, bool listening, const char *ip, uint16_t port)
{
	struct opener o = {.type = type, .fd = -1, .listening = listening, .ip = ip, .port = port};
	struct err e = ERR_INIT;
	if (netns_run(env.w, ns, open_socket, &o, &e) < 0)
		fail_msg("%s", e.text);
	return o.fd;
}

static int server_in(const char *ns, uint16_t port)
{
	return socket_in(ns, SOCK_STREAM, true, NULL, port);
}

static struct sockaddr_in sockaddr_of(const char *ip, uint16_t port)
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

static struct conn connect_to(
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

static void hang_up(struct conn *c)
{
	if (c->client >= 0)
		close(c->client);
	if (c->server >= 0)
		close(c->server);
}

/* Bytes go both ways on an established connection. */
static void assert_alive(const struct conn *c)
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

static void assert_reached(const char *ns, const char *ip, uint16_t port, int server, const char *peer)
{
	struct conn c = connect_to(ns, ip, port, &server, 1, 5000);
	if (c.result)
		fail_msg("%s: connect to %s:%u: %s", ns, ip, port, strerror(c.result));
	assert_string_equal(c.peer, peer);
	assert_alive(&c);
	hang_up(&c);
}

static void assert_refused(const char *ns, const char *ip, uint16_t port, int expected)
{
	struct conn c = connect_to(ns, ip, port, NULL, 0, expected == ETIMEDOUT ? 300 : 5000);
	hang_up(&c);
	if (c.result != expected)
		fail_msg(
		    "connect to %s:%u: %s instead of %s", ip, port, strerror(c.result), strerror(expected));
}

/* Sends from the client socket; returns which server got it, and who it saw; -1: nobody within the time, -2:
 * refused. */
static int udp_ask(int client, const char *ip, uint16_t port, const int *servers, int n, char peer[16])
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

static void send_ok(struct nl *s, struct nl_batch *b)
{
	struct err e = ERR_INIT;
	if (nl_send(s, b, NULL, &e) < 0)
		fail_msg("%s", e.text);
}

static int setup_all(void **state)
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

static int teardown_all(void **state)
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

static struct hostnet *open_net(void)
{
	struct err e = ERR_INIT;
	struct hostnet *n;
	if (hostnet_open(NULL, &env.o, &n, &e) < 0)
		fail_msg("%s", e.text);
	return n;
}

/* A container's end can send when the kernel's link watch has seen its carrier: long before a process starts
 * there, but not before this test can go on. */
static void wait_running(const char *ns)
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

static struct hostnet_endpoint attach(struct hostnet *n, const char *id)
{
	struct err e = ERR_INIT;
	struct hostnet_endpoint ep;
	if (hostnet_attach(n, id, NULL, 0, &ep, &e) < 0)
		fail_msg("%s", e.text);
	wait_running(ep.netns_path);
	return ep;
}

static void address_of(const struct hostnet_endpoint *ep, char out[16])
{
	snprintf(out, 16, "%.*s", (int)strcspn(ep->address, "/"), ep->address);
}

static void publish(struct hostnet *n, const char *svc, bool udp, uint16_t port, uint16_t target,
    const char *const *ids, size_t count)
{
	struct hostnet_backend b[16];
	struct hostnet_ingress_port p = {.published = port, .target = target, .udp = udp};
	struct err e = ERR_INIT;
	for (size_t i = 0; i < count; i++)
		b[i].container_id = ids[i];
	if (hostnet_publish(n, svc, &p, 1, b, count, &e) < 0)
		fail_msg("%s", e.text);
}

static int run(const char *command)
{
	return system(command); /* NOLINT: fixed strings, in a test */
}

/* --- pure ------------------------------------------------------------------------------------------- */

static void test_ipam(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct ipam p;
	uint32_t net, a, first;
	int prefix;
	char text[16];
	assert_int_equal(ipam_parse("172.18.0.0/16", &net, &prefix, &e), 0);
	assert_int_equal(prefix, 16);
	assert_int_equal(ipam_parse("172.18.0.1/16", &net, &prefix, &e), ERR_INVALID);
	assert_int_equal(ipam_parse("172.18.0.0/30", &net, &prefix, &e), ERR_INVALID);
	assert_int_equal(ipam_parse("172.18.0.0", &net, &prefix, &e), ERR_INVALID);
	assert_int_equal(ipam_parse("10.0.0.8/29", &net, &prefix, &e), 0);
	ipam_init(&p, net, prefix);
	assert_int_equal(ipam_alloc(&p, &first, &e), 0);
	ipam_format(first, text);
	assert_string_equal(text, "10.0.0.10");
	ipam_release(&p, first);
	/* Next-fit: what was released comes last. */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(ipam_alloc(&p, &a, &e), 0);
		assert_int_not_equal(a, first);
	}
	assert_int_equal(ipam_alloc(&p, &a, &e), 0);
	assert_int_equal(a, first);
	assert_int_equal(ipam_alloc(&p, &a, &e), ERR_UNAVAILABLE);
	assert_int_equal(ipam_take(&p, first, &e), ERR_CONFLICT);
	assert_int_equal(ipam_take(&p, net, &e), ERR_INVALID);
	assert_int_equal(ipam_take(&p, net + 1, &e), ERR_INVALID);
	assert_int_equal(ipam_take(&p, net + 7, &e), ERR_INVALID);
	assert_int_equal(ipam_take(&p, net + 8, &e), ERR_INVALID);
	ipam_release(&p, net + 100);
	ipam_done(&p);
	assert_true(ipam_overlap(0xac120000, 16, 0xac120500, 24));
	assert_false(ipam_overlap(0xac120000, 16, 0xac130000, 16));
}

/* --- with packets ----------------------------------------------------------------------------------- */

static void test_attach(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	struct err e = ERR_INIT;
	struct hostnet_endpoint a = attach(n, "aaa"), again, b = attach(n, "bbb");
	char ip_a[16], ip_b[16];
	address_of(&a, ip_a);
	address_of(&b, ip_b);
	assert_string_equal(a.address, "172.18.0.2/16");
	assert_string_equal(a.gateway, "172.18.0.1");
	assert_string_equal(a.mac, "02:42:ac:12:00:02");
	again = attach(n, "aaa");
	assert_string_equal(again.address, a.address);
	assert_int_equal(hostnet_endpoint_of(n, "bbb", &again, &e), 0);
	assert_string_equal(again.address, b.address);
	assert_int_equal(hostnet_endpoint_of(n, "zzz", &again, &e), ERR_NOT_FOUND);
	assert_int_equal(hostnet_attach(n, "../x", NULL, 0, &again, &e), ERR_INVALID);

	/* Out: masqueraded. Among containers, and from the host: as they are. In from outside: not without a
	 * published port. */
	int out = server_in(env.outside, 9000), sb = server_in(b.netns_path, 80);
	assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
	assert_reached(a.netns_path, ip_b, 80, sb, ip_a);
	assert_reached(HERE, ip_b, 80, sb, "172.18.0.1");
	assert_refused(env.outside, ip_b, 80, ETIMEDOUT);

	struct hostnet_counters c;
	assert_int_equal(hostnet_counters(n, "bbb", &c, &e), 0);
	assert_true(c.rx_packets > 3 && c.tx_packets > 3 && c.rx_bytes > 100);

	/* An address that was released is not the next to be handed out. */
	hostnet_detach(n, "aaa");
	hostnet_detach(n, "aaa");
	assert_false(fs_exists(a.netns_path));
	struct hostnet_endpoint d = attach(n, "ddd");
	assert_string_equal(d.address, "172.18.0.4/16");
	close(out);
	close(sb);
	hostnet_destroy(n);
	assert_false(fs_exists(env.state));
}

static void test_ingress(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	static const char *const ids[] = {"r1", "r2", "r3"};
	struct hostnet_endpoint ep[3], cl = attach(n, "client");
	int servers[3], got[3] = {0};
	char ip[16], ip_r1[16];
	for (int i = 0; i < 3; i++) {
		ep[i] = attach(n, ids[i]);
		servers[i] = server_in(ep[i].netns_path, 80);
	}
	address_of(&cl, ip);
	address_of(&ep[0], ip_r1);
	publish(n, "web", false, 8000, 80, ids, 3);

	/* From outside: spread evenly, and the client's address arrives. */
	for (int i = 0; i < 30; i++) {
		struct conn c = connect_to(env.outside, HOST_IP, 8000, servers, 3, 5000);
		assert_int_equal(c.result, 0);
		assert_string_equal(c.peer, OUTSIDE_IP);
		got[c.which]++;
		hang_up(&c);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(got[i], 10);

	publish(n, "web", false, 8000, 80, ids, 1);
	assert_reached(env.outside, HOST_IP2, 8000, servers[0], OUTSIDE_IP);
	assert_reached(HERE, "127.0.0.1", 8000, servers[0], "172.18.0.1");
	assert_reached(HERE, "127.1.2.3", 8000, servers[0], "172.18.0.1");
	assert_reached(HERE, HOST_IP, 8000, servers[0], HOST_IP);
	assert_reached(HERE, HOST_IP2, 8000, servers[0], HOST_IP2);
	/* From a container: to another one with its own address, to itself with the gateway's. */
	assert_reached(cl.netns_path, HOST_IP, 8000, servers[0], ip);
	assert_reached(cl.netns_path, "172.18.0.1", 8000, servers[0], ip);
	assert_reached(ep[0].netns_path, HOST_IP, 8000, servers[0], "172.18.0.1");
	/* Not for others' addresses: the port is not hijacked on the way out. */
	int other = server_in(env.outside, 8000);
	assert_reached(HERE, OUTSIDE_IP, 8000, other, HOST_IP);
	assert_reached(cl.netns_path, OUTSIDE_IP, 8000, other, HOST_IP);
	close(other);

	/* A backend that leaves keeps its connections and gets no new ones. */
	struct conn old = connect_to(env.outside, HOST_IP, 8000, servers, 3, 5000);
	assert_int_equal(old.result, 0);
	publish(n, "web", false, 8000, 80, ids + 1, 2);
	for (int i = 0; i < 10; i++) {
		struct conn c = connect_to(env.outside, HOST_IP, 8000, servers, 3, 5000);
		assert_int_equal(c.result, 0);
		assert_int_not_equal(c.which, 0);
		hang_up(&c);
	}
	assert_alive(&old);
	/* A detached container is taken out even when nobody published anew. */
	hostnet_detach(n, "r2");
	for (int i = 0; i < 4; i++)
		assert_reached(env.outside, HOST_IP, 8000, servers[2], OUTSIDE_IP);
	assert_alive(&old);
	hang_up(&old);

	/* Nobody there: refused at once, from everywhere. */
	publish(n, "web", false, 8000, 80, NULL, 0);
	assert_refused(env.outside, HOST_IP, 8000, ECONNREFUSED);
	assert_refused(HERE, "127.0.0.1", 8000, ECONNREFUSED);
	assert_refused(HERE, HOST_IP, 8000, ECONNREFUSED);
	assert_refused(cl.netns_path, HOST_IP, 8000, ECONNREFUSED);
	publish(n, "web", false, 8001, 80, ids, 1);
	assert_reached(env.outside, HOST_IP, 8001, servers[0], OUTSIDE_IP);
	hostnet_unpublish(n, "web");
	assert_refused(env.outside, HOST_IP, 8001, ECONNREFUSED);
	hostnet_unpublish(n, "web");
	for (int i = 0; i < 3; i++)
		close(servers[i]);
	hostnet_destroy(n);
}

static void test_udp(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	static const char *const ids[] = {"u1", "u2"};
	struct hostnet_endpoint ep[2];
	int servers[2];
	char peer[16];
	for (int i = 0; i < 2; i++) {
		ep[i] = attach(n, ids[i]);
		servers[i] = socket_in(ep[i].netns_path, SOCK_DGRAM, false, NULL, 53);
	}
	int client = socket_in(env.outside, SOCK_DGRAM, false, NULL, 0);
	/* One socket, one flow: each change of the backends must move it. */
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), -2);
	publish(n, "dns", true, 5300, 53, ids, 0);
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), -2);
	publish(n, "dns", true, 5300, 53, ids, 1);
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), 0);
	assert_string_equal(peer, OUTSIDE_IP);
	publish(n, "dns", true, 5300, 53, ids, 2);
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), 0);
	publish(n, "dns", true, 5300, 53, ids + 1, 1);
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), 1);
	hostnet_detach(n, "u2");
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), -2);
	publish(n, "dns", true, 5300, 53, ids, 1);
	assert_int_equal(udp_ask(client, HOST_IP, 5300, servers, 2, peer), 0);
	int local = socket_in(HERE, SOCK_DGRAM, false, NULL, 0);
	assert_int_equal(udp_ask(local, "127.0.0.1", 5300, servers, 2, peer), 0);
	close(local);
	close(client);
	close(servers[0]);
	close(servers[1]);
	hostnet_destroy(n);
}

static void test_restart(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	struct err e = ERR_INIT;
	static const char *const ids[] = {"a", "b"};
	struct hostnet_endpoint a = attach(n, "a"), b, x;
	struct hostnet_port port = {.container_port = 81, .host_port = 8100};
	assert_int_equal(hostnet_attach(n, "b", &port, 1, &b, &e), 0);
	int servers[3] = {
	    server_in(a.netns_path, 80), server_in(b.netns_path, 80), server_in(b.netns_path, 81)};
	int out = server_in(env.outside, 9000);
	publish(n, "web", false, 8000, 80, ids, 2);
	publish(n, "gone", false, 8001, 80, ids, 1);
	struct conn in1 = connect_to(env.outside, HOST_IP, 8000, servers, 3, 5000);
	struct conn lo = connect_to(HERE, "127.0.0.1", 8000, servers, 3, 5000);
	struct conn o = connect_to(a.netns_path, OUTSIDE_IP, 9000, &out, 1, 5000);
	assert_int_equal(in1.result | lo.result | o.result, 0);
	for (int i = 0; i < 3; i++) {
		hostnet_close(n);
		assert_alive(&in1);
		n = open_net();
		assert_alive(&in1);
		assert_alive(&lo);
		assert_alive(&o);
	}
	/* Everything works as before, without anybody declaring it again. */
	assert_int_equal(hostnet_endpoint_of(n, "a", &x, &e), 0);
	assert_string_equal(x.address, a.address);
	assert_reached(env.outside, HOST_IP, 8100, servers[2], OUTSIDE_IP);
	assert_reached(env.outside, HOST_IP, 8001, servers[0], OUTSIDE_IP);
	x = attach(n, "new");
	assert_string_not_equal(x.address, a.address);
	assert_string_not_equal(x.address, b.address);

	/* Only b lives. */
	static const char *const live[] = {"b"};
	hostnet_reconcile(n, live, 1);
	assert_int_equal(hostnet_endpoint_of(n, "a", &x, &e), ERR_NOT_FOUND);
	assert_false(fs_exists(a.netns_path));
	assert_reached(env.outside, HOST_IP, 8000, servers[1], OUTSIDE_IP);
	assert_refused(env.outside, HOST_IP, 8001,
	    ECONNREFUSED); /* its last backend is gone, nobody published it since */

	/* The records are lost: what the kernel knows is taken up. */
	hostnet_close(n);
	assert_int_equal(fs_remove_tree(env.state, &e), 0);
	n = open_net();
	assert_int_equal(hostnet_endpoint_of(n, "b", &x, &e), 0);
	assert_string_equal(x.address, b.address);
	publish(n, "web", false, 8000, 80, ids + 1, 1);
	assert_reached(env.outside, HOST_IP, 8000, servers[1], OUTSIDE_IP);

	/* A damaged record costs itself only. */
	hostnet_close(n);
	char *bad CLEANUP_FREE = xasprintf("%s/c/broken", env.state);
	char *half CLEANUP_FREE = xasprintf("%s/s/half", env.state);
	assert_int_equal(fs_write_atomic(bad, "address 1.2.3\n", 14, 0600, &e), 0);
	assert_int_equal(fs_write_atomic(half, "port tcp 80", 11, 0600, &e), 0);
	log_set_level(LOG_LEVEL_OFF);
	n = open_net();
	log_set_level(LOG_LEVEL_ERROR);
	assert_false(fs_exists(bad));
	assert_false(fs_exists(half));
	assert_reached(env.outside, HOST_IP, 8000, servers[1], OUTSIDE_IP);
	hang_up(&in1);
	hang_up(&lo);
	hang_up(&o);
	for (int i = 0; i < 3; i++)
		close(servers[i]);
	close(out);
	hostnet_destroy(n);
}

static void test_repair(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	struct hostnet_endpoint a = attach(n, "a");
	static const char *const ids[] = {"a"};
	int s = server_in(a.netns_path, 80);
	publish(n, "web", false, 8000, 80, ids, 1);
	/* A flushed ruleset comes back with the next change, everything else with reconcile. */
	assert_int_equal(run("nft flush ruleset"), 0);
	publish(n, "other", false, 8002, 80, ids, 1);
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_reached(env.outside, HOST_IP, 8002, s, OUTSIDE_IP);
	assert_int_equal(run("nft flush ruleset && ip link del sht0"), 0);
	hostnet_reconcile(n, ids, 1);
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	close(s);
	hostnet_destroy(n);
}

static void test_host_ports(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	struct err e = ERR_INIT;
	struct hostnet_endpoint a, b;
	struct hostnet_port p[3] = {{.container_port = 80, .host_port = 8080},
	    {.container_port = 80, .host_port = 0},
	    {.container_port = 80, .host_port = 8081, .host_ip = "127.0.0.1"}};
	assert_int_equal(hostnet_attach(n, "a", p, 3, &a, &e), 0);
	assert_in_range(p[1].host_port, 32768, 60999);
	int s = server_in(a.netns_path, 80);
	assert_reached(env.outside, HOST_IP, 8080, s, OUTSIDE_IP);
	assert_reached(env.outside, HOST_IP, p[1].host_port, s, OUTSIDE_IP);
	assert_reached(HERE, "127.0.0.1", 8081, s, "172.18.0.1");
	assert_refused(HERE, HOST_IP, 8081, ECONNREFUSED);
	assert_refused(env.outside, HOST_IP, 8081, ECONNREFUSED);
	/* Published on loopback is not reachable for a neighbour that routes 127.0.0.0/8 to us. */
	char *cmd CLEANUP_FREE = xasprintf(
	    "nsenter --net=%s sh -c 'sysctl -qw net.ipv4.conf.all.route_localnet=1 && "
	    "ip addr del 127.0.0.1/8 dev lo && ip route add 127.0.0.1 via " HOST_IP " src " OUTSIDE_IP "'",
	    env.outside);
	assert_int_equal(run(cmd), 0);
	assert_refused(env.outside, "127.0.0.1", 8081, ETIMEDOUT);

	/* Another container, a service, a program of the host: each has the port already. */
	struct hostnet_port q = {.container_port = 80, .host_port = 8080};
	assert_int_equal(hostnet_attach(n, "b", &q, 1, &b, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "port 8080/tcp is already in use by container a"));
	q = (struct hostnet_port){.container_port = 80, .host_port = 8081};
	assert_int_equal(hostnet_attach(n, "b", &q, 1, &b, &e), ERR_CONFLICT);
	int mine = server_in(HERE, 8200);
	q.host_port = 8200;
	assert_int_equal(hostnet_attach(n, "b", &q, 1, &b, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "port 8200/tcp is already in use by another program"));
	struct hostnet_ingress_port ip = {.published = 8200, .target = 80};
	assert_int_equal(hostnet_publish(n, "svc", &ip, 1, NULL, 0, &e), ERR_CONFLICT);
	close(mine);
	assert_int_equal(hostnet_publish(n, "svc", &ip, 1, NULL, 0, &e), 0);
	assert_int_equal(hostnet_attach(n, "b", &q, 1, &b, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "service svc"));
	assert_int_equal(hostnet_endpoint_of(n, "b", &b, &e), ERR_NOT_FOUND);
	q.udp = true; /* the same number for another protocol is free */
	assert_int_equal(hostnet_attach(n, "b", &q, 1, &b, &e), 0);
	q = (struct hostnet_port){.container_port = 80, .host_port = 8300, .host_ip = "192.0.2.1"};
	assert_int_equal(hostnet_attach(n, "c", &q, 1, &b, &e), ERR_INVALID);
	q.host_ip = "localhost";
	assert_int_equal(hostnet_attach(n, "c", &q, 1, &b, &e), ERR_INVALID);
	/* And the host's programs see that a published port is taken. */
	int t = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in sa = sockaddr_of("0.0.0.0", 8080);
	assert_int_equal(bind(t, (struct sockaddr *)&sa, sizeof(sa)), -1);
	assert_int_equal(errno, EADDRINUSE);
	hostnet_detach(n, "a");
	assert_int_equal(bind(t, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(t);
	close(s);
	hostnet_destroy(n);
}

static void tick(void *data)
{
	(void)data;
}

/* Turns the loop until the rule is there, at most 5 s. */
static bool wait_for(uv_loop_t *loop, const char *command)
{
	struct timer *t = timer_new(loop, tick, NULL);
	bool ok = false;
	for (int i = 0; i < 500 && !ok; i++) {
		timer_start(t, 10);
		uv_run(loop, UV_RUN_ONCE);
		ok = i % 5 == 4 && run(command) == 0;
	}
	timer_free(t);
	return ok;
}

static void test_foreign_firewall(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct hostnet *n;
	uv_loop_t loop;
	uv_loop_init(&loop);
	/* As Docker's engine leaves it, with a rule of the administrator's. */
	assert_int_equal(
	    run("iptables -P FORWARD DROP && iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER"
		" && iptables -A DOCKER-USER -p tcp --dport 81 -j DROP"),
	    0);
	assert_int_equal(hostnet_open(&loop, &env.o, &n, &e), 0);
	struct hostnet_endpoint a = attach(n, "a");
	static const char *const ids[] = {"a"};
	int s = server_in(a.netns_path, 80), s2 = server_in(a.netns_path, 81),
	    out = server_in(env.outside, 9000);
	publish(n, "web", false, 8000, 80, ids, 1);
	publish(n, "blocked", false, 8001, 81, ids, 1);
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
	assert_refused(env.outside, HOST_IP, 8001, ETIMEDOUT); /* the administrator's word counts */
	/* iptables still reads its table, and shows whose rules these are. */
	assert_int_equal(run("iptables -S FORWARD | grep -q 'shoal t: to containers'"), 0);

	/* Somebody reloads their firewall: noticed and put right. */
	assert_int_equal(run("iptables -F FORWARD"), 0);
	assert_true(wait_for(&loop, "iptables -S FORWARD | grep -q 'shoal t: to containers'"));
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_int_equal(run("nft flush ruleset"), 0);
	assert_true(wait_for(&loop, "nft list table ip shoal_t > /dev/null 2>&1"));
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);

	/* A firewall of another kind: its own table, everything that is left is rejected by a last rule. */
	assert_int_equal(
	    run("nft 'table inet fw { chain f { type filter hook forward priority 10; ct state established "
		"accept; counter reject; }; }'"),
	    0);
	assert_true(wait_for(&loop, "nft list table inet fw | grep -q 'shoal t: to containers'"));
	assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
	assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
	hostnet_destroy(n);
	assert_int_not_equal(run("nft list ruleset | grep -q shoal"), 0);
	assert_int_equal(run("nft flush ruleset"), 0);
	close(s);
	close(s2);
	close(out);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* Docker's engine in this namespace, with everything it keeps below our directory. Returns its pid. */
static pid_t start_dockerd(void)
{
	char *root CLEANUP_FREE = fs_path(env.dir, "docker"),
		   *log CLEANUP_FREE = fs_path(env.dir, "docker.log");
	char *data CLEANUP_FREE = xasprintf("--data-root=%s/data", root);
	char *exec CLEANUP_FREE = xasprintf("--exec-root=%s/exec", root);
	char *pid CLEANUP_FREE = xasprintf("--pidfile=%s/pid", root);
	char *host CLEANUP_FREE = xasprintf("--host=unix://%s/sock", root);
	struct err e = ERR_INIT;
	assert_int_equal(fs_mkdir_p(root, 0700, &e), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
		dup2(fd, 1);
		dup2(fd, 2);
		execl("/usr/sbin/dockerd", "dockerd", data, exec, pid, host, "--storage-driver=vfs",
		    (char *)NULL);
		_exit(127);
	}
	char *ping CLEANUP_FREE =
	    xasprintf("curl -sf -o /dev/null --max-time 1 --unix-socket %s/sock http://x/_ping", root);
	for (int i = 0; i < 300; i++) {
		if (run(ping) == 0)
			return child;
		usleep(100000);
	}
	fail_msg("dockerd did not start, see %s", log);
	return 0;
}

static void stop_dockerd(pid_t child)
{
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
}

static void test_docker_engine(void **state)
{
	(void)state;
	if (access("/usr/sbin/dockerd", X_OK) < 0 || access("/usr/bin/curl", X_OK) < 0) {
		print_message("dockerd or curl is not installed\n");
		skip();
	}
	struct err e = ERR_INIT;
	uv_loop_t loop;
	uv_loop_init(&loop);
	/* With routing off, Docker's engine turns it on and the FORWARD policy to drop. */
	assert_int_equal(fs_write_existing("/proc/sys/net/ipv4/ip_forward", "0", &e), 0);
	pid_t docker = start_dockerd();
	assert_int_equal(run("iptables -S FORWARD | grep -q -- '-P FORWARD DROP'"), 0);
	struct hostnet *n;
	assert_int_equal(hostnet_open(&loop, &env.o, &n, &e), 0);
	struct hostnet_endpoint a = attach(n, "a"), b = attach(n, "b");
	static const char *const ids[] = {"a"};
	char ip_b[16];
	address_of(&b, ip_b);
	int s = server_in(a.netns_path, 80), out = server_in(env.outside, 9000);
	publish(n, "web", false, 8000, 80, ids, 1);
	for (int round = 0; round < 2; round++) {
		assert_reached(env.outside, HOST_IP, 8000, s, OUTSIDE_IP);
		assert_reached(HERE, "127.0.0.1", 8000, s, "172.18.0.1");
		assert_reached(b.netns_path, HOST_IP, 8000, s, ip_b);
		assert_reached(a.netns_path, OUTSIDE_IP, 9000, out, HOST_IP);
		/* Again after the engine has restarted and written its rules anew. */
		stop_dockerd(docker);
		if (round == 0) {
			assert_int_equal(run("iptables -F FORWARD"), 0);
			docker = start_dockerd();
			assert_true(
			    wait_for(&loop, "iptables -S FORWARD | grep -q 'shoal t: to containers'"));
		}
	}
	hostnet_destroy(n);
	close(s);
	close(out);
	assert_int_equal(run("nft flush ruleset && ip link del docker0"), 0);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void with_resolv_conf(const char *text)
{
	char *path CLEANUP_FREE = fs_path(env.dir, "resolv.conf");
	struct err e = ERR_INIT;
	umount2("/etc/resolv.conf", MNT_DETACH);
	assert_int_equal(fs_write_atomic(path, text, strlen(text), 0644, &e), 0);
	assert_int_equal(mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL), 0);
}

static void test_resolv(void **state)
{
	(void)state;
	with_resolv_conf("# mine\nnameserver 10.1.1.1\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\nsearch "
			 "a.example b.example\n"
			 "options ndots:2 timeout:1\n");
	struct hostnet *n = open_net();
	struct strlist servers CLEANUP_STRLIST = STRLIST_INIT, search CLEANUP_STRLIST = STRLIST_INIT;
	char *t = hostnet_resolv_conf(n, NULL, NULL, NULL);
	assert_string_equal(
	    t, "nameserver 10.1.1.1\nsearch a.example b.example\noptions ndots:2 timeout:1\n");
	free(t);
	strlist_add(&servers, "1.2.3.4");
	strlist_add(&search, ".");
	t = hostnet_resolv_conf(n, &servers, &search, NULL);
	assert_string_equal(t, "nameserver 1.2.3.4\noptions ndots:2 timeout:1\n");
	free(t);
	/* A resolver on loopback only: containers ask the gateway, and it sees a loopback client. */
	with_resolv_conf("nameserver 127.0.0.77\n");
	t = hostnet_resolv_conf(n, NULL, NULL, NULL);
	assert_string_equal(t, "nameserver 172.18.0.1\n");
	free(t);
	struct hostnet_endpoint a = attach(n, "a");
	int resolver = socket_in(HERE, SOCK_DGRAM, false, "127.0.0.77", 53);
	int tcp = socket_in(HERE, SOCK_STREAM, true, "127.0.0.77", 53);
	int client = socket_in(a.netns_path, SOCK_DGRAM, false, NULL, 0);
	char peer[16];
	assert_int_equal(udp_ask(client, "172.18.0.1", 53, &resolver, 1, peer), 0);
	assert_string_equal(peer, "127.0.0.1");
	assert_reached(a.netns_path, "172.18.0.1", 53, tcp, "127.0.0.1");
	/* And after a restart. */
	hostnet_close(n);
	n = open_net();
	assert_int_equal(udp_ask(client, "172.18.0.1", 53, &resolver, 1, peer), 0);
	close(client);
	close(resolver);
	close(tcp);
	umount2("/etc/resolv.conf", MNT_DETACH);
	hostnet_destroy(n);
}

static void test_small_pool(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct hostnet_endpoint ep;
	env.o.pool = HOST_IP "/24";
	struct hostnet *n;
	assert_int_equal(hostnet_open(NULL, &env.o, &n, &e), ERR_INVALID);
	env.o.pool = "10.99.0.0/24";
	assert_int_equal(hostnet_open(NULL, &env.o, &n, &e), ERR_CONFLICT);
	env.o.pool = "10.77.0.0/29";
	n = open_net();
	/* Names come back at once here: the link that is being deleted must not be mistaken for the new one.
	 */
	for (int i = 0; i < 12; i++) {
		char id[16];
		snprintf(id, sizeof(id), "c%d", i);
		ep = attach(n, id);
		struct conn c = connect_to(ep.netns_path, HOST_IP, 9, NULL, 0, 5000);
		assert_int_equal(c.result, ECONNREFUSED);
		if (i >= 4) {
			snprintf(id, sizeof(id), "c%d", i - 4);
			hostnet_detach(n, id);
		}
	}
	attach(n, "last");
	assert_int_equal(hostnet_attach(n, "toomany", NULL, 0, &ep, &e), ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "10.77.0.0/29"));
	env.o.pool = NULL;
	hostnet_destroy(n);
	env.o.tag = "UPPER";
	assert_int_equal(hostnet_open(NULL, &env.o, &n, &e), ERR_INVALID);
	env.o.tag = "t";
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ipam), cmocka_unit_test(test_attach), cmocka_unit_test(test_ingress),
	    cmocka_unit_test(test_udp), cmocka_unit_test(test_restart), cmocka_unit_test(test_repair),
	    cmocka_unit_test(test_foreign_firewall), cmocka_unit_test(test_docker_engine), cmocka_unit_test(test_resolv),
	    cmocka_unit_test(test_small_pool),
	    cmocka_unit_test(test_host_ports), /* last: it bends the outside's loopback */
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
