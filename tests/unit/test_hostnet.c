/* The host network with real packets (tests/lib/test_netbox.h). */
#include "test_netbox.h"

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
	/* What is not named goes, what an earlier run published included. */
	publish(n, "web", false, 8001, 80, ids, 1);
	publish(n, "old", false, 8002, 80, ids, 1);
	hostnet_close(n);
	n = open_net();
	assert_reached(env.outside, HOST_IP, 8002, servers[0], OUTSIDE_IP);
	const char *keep[] = {"web", "other"};
	hostnet_unpublish_others(n, keep, 2);
	assert_refused(env.outside, HOST_IP, 8002, ECONNREFUSED);
	assert_reached(env.outside, HOST_IP, 8001, servers[0], OUTSIDE_IP);
	publish(n, "new", false, 8002, 80, ids, 1);
	assert_reached(env.outside, HOST_IP, 8002, servers[0], OUTSIDE_IP);
	hostnet_unpublish_others(n, NULL, 0);
	assert_refused(env.outside, HOST_IP, 8001, ECONNREFUSED);
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

struct crowd {
	struct hostnet *n;
	int first;
};

static void *attach_many(void *data)
{
	struct crowd *c = data;
	struct err e = ERR_INIT;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 10; i++) {
			char id[16];
			struct hostnet_endpoint ep;
			struct hostnet_port p = {.container_port = 80, .udp = true};
			snprintf(id, sizeof(id), "p%d", c->first + i);
			if (hostnet_attach(c->n, id, &p, 1, &ep, &e) < 0)
				return c;
			struct hostnet_backend b = {.container_id = id};
			struct hostnet_ingress_port q = {
			    .published = (uint16_t)(7000 + c->first + i), .target = 80};
			if (hostnet_publish(c->n, id, &q, 1, &b, 1, &e) < 0)
				return c;
		}
		for (int i = 0; i < 10 && round == 0; i++) {
			char id[16];
			snprintf(id, sizeof(id), "p%d", c->first + i);
			hostnet_detach(c->n, id);
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	struct hostnet *n = open_net();
	pthread_t t[4];
	struct crowd c[4];
	struct err e = ERR_INIT;
	struct strmap seen = STRMAP_INIT;
	for (int i = 0; i < 4; i++) {
		c[i] = (struct crowd){.n = n, .first = i * 10};
		assert_int_equal(pthread_create(&t[i], NULL, attach_many, &c[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	for (int i = 0; i < 40; i++) {
		char id[16];
		struct hostnet_endpoint ep;
		snprintf(id, sizeof(id), "p%d", i);
		assert_int_equal(hostnet_endpoint_of(n, id, &ep, &e), 0);
		assert_null(strmap_put(&seen, ep.address, n));
	}
	strmap_done(&seen);
	/* With containers, the kernel's state stays; without, closing leaves the host as it was. */
	hostnet_close(n);
	assert_int_equal(run("nft list table ip shoal_t > /dev/null"), 0);
	n = open_net();
	hostnet_reconcile(n, NULL, 0);
	hostnet_close(n);
	assert_int_not_equal(run("nft list ruleset | grep -q shoal"), 0);
	assert_int_not_equal(run("ip link | grep -q ': sht'"), 0);
	assert_int_not_equal(run("ip route | grep -q 172.18"), 0);
	assert_false(fs_exists(env.netns));
	assert_true(fs_exists(env.state));
	n = open_net();
	hostnet_destroy(n);
	assert_false(fs_exists(env.state));
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
	    cmocka_unit_test(test_resolv), cmocka_unit_test(test_small_pool), cmocka_unit_test(test_threads),
	    cmocka_unit_test(test_host_ports), /* last: it bends the outside's loopback */
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
