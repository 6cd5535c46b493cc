/* Containers in the Engine API, as far as it is pure: words, the list's filters, JSON, detach keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "node/api/containers.h"
#include "node/api/detach_keys.h"
#include "proto/pb.h"

#define SEC NS_PER_SEC
#define NOW (INT64_C(1700000000) * SEC)

static Pb__Container *make(const char *name)
{
	Pb__Container *c = PB_NEW(Pb__Container, pb__container);
	c->id = xstrdup("aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899");
	c->config = PB_NEW(Pb__ContainerConfig, pb__container_config);
	c->config->name = xstrdup(name);
	c->config->image = xstrdup("nginx:latest");
	c->config->image_id = xstrdup("sha256:1234");
	c->created_at = NOW - 100 * SEC;
	c->status = PB__CONTAINER_STATUS_KIND__E__RUNNING;
	c->has_started_at = true;
	c->started_at = NOW - 15 * SEC;
	return c;
}

static void test_durations(void **state)
{
	static const struct {
		int64_t s;
		const char *words;
	} cases[] = {{-5, "Less than a second"}, {0, "Less than a second"}, {1, "1 second"}, {2, "2 seconds"},
	    {59, "59 seconds"}, {60, "About a minute"}, {119, "About a minute"}, {120, "2 minutes"},
	    {3599, "59 minutes"}, {3600, "About an hour"}, {5399, "About an hour"}, {5400, "2 hours"},
	    {47 * 3600, "47 hours"}, {48 * 3600, "2 days"}, {13 * 86400, "13 days"}, {14 * 86400, "2 weeks"},
	    {59 * 86400, "8 weeks"}, {60 * 86400, "2 months"}, {729 * 86400, "24 months"},
	    {730 * 86400, "2 years"}};
	char out[40];
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		container_duration_words(cases[i].s * SEC, out, sizeof(out));
		assert_string_equal(out, cases[i].words);
	}
}

static void assert_status(const Pb__Container *c, const char *want)
{
	char out[96];
	container_status_words(c, NOW, out, sizeof(out));
	assert_string_equal(out, want);
}

static void test_status(void **state)
{
	CLEANUP_PB Pb__Container *c = make("a");
	(void)state;
	assert_status(c, "Up 15 seconds");
	c->started_at = NOW - 250 * SEC;
	c->health = xstrdup("healthy");
	assert_status(c, "Up 4 minutes (healthy)");
	pb_set_str(&c->health, "starting");
	assert_status(c, "Up 4 minutes (health: starting)");
	pb_set_str(&c->health, "unhealthy");
	assert_status(c, "Up 4 minutes (unhealthy)");
	c->status = PB__CONTAINER_STATUS_KIND__E__PAUSED;
	assert_status(c, "Up 4 minutes (Paused)");
	c->status = PB__CONTAINER_STATUS_KIND__E__EXITED;
	c->finished_at = NOW - 2 * SEC;
	c->has_exit_code = true;
	c->exit_code = 3;
	assert_status(c, "Exited (3) 2 seconds ago");
	c->has_exit_code = false;
	assert_status(c, "Exited (unknown) 2 seconds ago");
	c->status = PB__CONTAINER_STATUS_KIND__E__CREATED;
	assert_status(c, "Created");
}

/* --- filters */

static struct api_filters filters(const char *key, const char *value)
{
	struct api_filters f = API_FILTERS_INIT;
	strlist_add(&f.keys, key);
	f.values = xcalloc(1, sizeof(*f.values));
	strlist_split(&f.values[0], value, ' ');
	return f;
}

static bool finds(const Pb__Container *c, const char *key, const char *value)
{
	struct container_query q = {.f = filters(key, value)};
	struct api_local l = {0};
	struct err e = ERR_INIT;
	if (container_query_prepare(&l, &q, &e) != 0)
		fail_msg("%s", e.text);
	bool r = container_query_matches(&q, c);
	container_query_done(&q);
	return r;
}

static void assert_refused(const char *key, const char *value, const char *words)
{
	struct container_query q = {.f = filters(key, value)};
	struct api_local l = {0};
	struct err e = ERR_INIT;
	assert_int_equal(container_query_prepare(&l, &q, &e), ERR_INVALID);
	if (!strstr(e.text, words))
		fail_msg("\"%s\" is not in \"%s\"", words, e.text);
	container_query_done(&q);
}

static void test_filters(void **state)
{
	CLEANUP_PB Pb__Container *c = make("web.1.xyz");
	Pb__KV *kv = PB_NEW(Pb__KV, pb__kv);
	(void)state;
	kv->key = xstrdup("tier");
	kv->value = xstrdup("front");
	pb_add_msg(&c->config->labels, &c->config->n_labels, kv);
	assert_true(finds(c, "name", "web"));
	assert_true(finds(c, "name", "^/web.1"));
	assert_true(finds(c, "name", "^web\\.1\\.xyz$"));
	assert_true(finds(c, "name", "nothing xyz$"));
	assert_false(finds(c, "name", "^eb"));
	assert_true(finds(c, "id", "aabb"));
	assert_false(finds(c, "id", "^bb"));
	assert_true(finds(c, "label", "tier"));
	assert_true(finds(c, "label", "tier=front"));
	assert_false(finds(c, "label", "tier=back"));
	assert_false(finds(c, "label", "tier other"));
	assert_true(finds(c, "network", "bridge"));
	assert_false(finds(c, "network", "host"));
	assert_true(finds(c, "is-task", "false"));
	assert_false(finds(c, "is-task", "true"));
	assert_true(finds(c, "health", "none healthy"));
	assert_false(finds(c, "health", "healthy"));
	assert_true(finds(c, "status", "running"));
	assert_false(finds(c, "status", "exited created"));
	assert_false(finds(c, "publish", "80"));
	c->network = PB_NEW(Pb__ContainerNetworkState, pb__container_network_state);
	Pb__ContainerPort *p = PB_NEW(Pb__ContainerPort, pb__container_port);
	p->container_port = 80;
	p->has_host_port = true;
	p->host_port = 8080;
	p->protocol = PB__PORT_PROTOCOL__E__UDP;
	pb_add_msg(&c->network->ports, &c->network->n_ports, p);
	assert_true(finds(c, "publish", "8080/udp"));
	assert_true(finds(c, "publish", "8000-9000/udp"));
	assert_false(finds(c, "publish", "8080"));
	assert_true(finds(c, "expose", "80/udp"));
	c->status = PB__CONTAINER_STATUS_KIND__E__EXITED;
	c->has_exit_code = true;
	c->exit_code = 137;
	assert_false(finds(c, "name", "web")); /* only running ones unless asked */
	assert_true(finds(c, "status", "exited"));

	assert_refused("health", "bad", "'health=bad'");
	assert_refused("status", "gone", "'status=gone'");
	assert_refused("exited", "x", "'exited=x'");
	assert_refused("publish", "70000", "'publish=70000'");
	assert_refused("publish", "1/icmp", "'publish=1/icmp'");
	assert_refused("name", "a{1,1000}", "'name=a{1,1000}'");
	assert_refused("name", "(a)\\1", "references");
	assert_refused("name", "(", "no regular expression");
	assert_refused("is-task", "maybe", "is-task");
}

/* --- JSON */

static const char *text(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static void test_json(void **state)
{
	CLEANUP_PB Pb__Container *c = make("web.1.xyz");
	Pb__ContainerConfig *g = c->config;
	struct api_local l = {0};
	(void)state;
	pb_add_str(&g->entrypoint, &g->n_entrypoint, "sh");
	pb_add_str(&g->cmd, &g->n_cmd, "-c");
	pb_add_str(&g->cmd, &g->n_cmd, "echo hi");
	pb_add_str(&g->hosts, &g->n_hosts, "10.0.0.9 db data");
	c->network = PB_NEW(Pb__ContainerNetworkState, pb__container_network_state);
	c->network->address = xstrdup("172.18.0.5/16");
	c->network->gateway = xstrdup("172.18.0.1");
	Pb__ContainerPort *p = PB_NEW(Pb__ContainerPort, pb__container_port);
	p->container_port = 80;
	p->has_host_port = true;
	p->host_port = 8080;
	pb_add_msg(&c->network->ports, &c->network->n_ports, p);
	c->has_exit_code = true;

	json_t *o = container_list_json(&l, c, NOW);
	assert_string_equal(text(o, "Command"), "sh -c 'echo hi'");
	assert_string_equal(json_string_value(json_array_get(json_object_get(o, "Names"), 0)), "/web.1.xyz");
	assert_string_equal(text(o, "Status"), "Up 15 seconds");
	json_t *port = json_array_get(json_object_get(o, "Ports"), 0);
	assert_int_equal(json_integer_value(json_object_get(port, "PublicPort")), 8080);
	json_decref(o);

	o = container_inspect_json(&l, c);
	assert_string_equal(text(o, "Path"), "sh");
	assert_int_equal(json_array_size(json_object_get(o, "Args")), 2);
	json_t *net =
	    json_object_get(json_object_get(json_object_get(o, "NetworkSettings"), "Networks"), "bridge");
	assert_string_equal(text(net, "IPAddress"), "172.18.0.5");
	assert_int_equal(json_integer_value(json_object_get(net, "IPPrefixLen")), 16);
	json_t *bound =
	    json_object_get(json_object_get(json_object_get(o, "NetworkSettings"), "Ports"), "80/tcp");
	assert_string_equal(text(json_array_get(bound, 0), "HostPort"), "8080");
	json_t *hosts = json_object_get(json_object_get(o, "HostConfig"), "ExtraHosts");
	assert_string_equal(json_string_value(json_array_get(hosts, 1)), "data:10.0.0.9");
	assert_string_equal(text(json_object_get(o, "State"), "FinishedAt"), "0001-01-01T00:00:00Z");
	assert_string_equal(text(json_object_get(o, "Config"), "Hostname"), "aabbccddeeff");
	assert_string_equal(
	    text(json_object_get(json_object_get(o, "HostConfig"), "LogConfig"), "Type"), "json-file");
	json_decref(o);
}

static void test_stats(void **state)
{
	CLEANUP_PB Pb__Container *c = make("a");
	struct container_stats now = {.read_ns = NOW,
	    .cpu_total_ns = 7,
	    .mem_usage = 5000,
	    .mem_limit = 9000,
	    .pids = 3,
	    .blk_write = 11,
	    .rx_bytes = 13,
	    .online_cpus = 2};
	(void)state;
	json_t *o = container_stats_json(c, &now, NULL, false);
	json_t *mem = json_object_get(o, "memory_stats");
	assert_int_equal(json_integer_value(json_object_get(mem, "limit")), 9000);
	assert_non_null(json_object_get(json_object_get(mem, "stats"), "total_inactive_file"));
	assert_non_null(json_object_get(json_object_get(o, "networks"), "eth0"));
	assert_string_equal(text(o, "preread"), "0001-01-01T00:00:00Z");
	json_decref(o);
	now.mem_limit = 0; /* none: the machine's memory */
	o = container_stats_json(c, &now, &now, true);
	mem = json_object_get(o, "memory_stats");
	assert_true(json_integer_value(json_object_get(mem, "limit")) > 1024 * 1024);
	assert_non_null(json_object_get(json_object_get(mem, "stats"), "inactive_file"));
	json_decref(o);
	o = container_stats_json(c, NULL, NULL, true);
	assert_string_equal(text(o, "read"), "0001-01-01T00:00:00Z");
	json_decref(o);
}

/* --- streams */

static void test_frames(void **state)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	(void)state;
	frame_append(&b, false, 2, "abc", 3);
	assert_int_equal(b.len, 11);
	assert_memory_equal(b.data, "\2\0\0\0\0\0\0\3abc", 11);
	buf_reset(&b);
	frame_append(&b, true, 2, "abc", 3);
	assert_int_equal(b.len, 3);
}

static bool feed(struct detach_keys *d, const char *in, const char *want)
{
	CLEANUP_BUF struct buf out = BUF_INIT;
	bool r = detach_keys_feed(d, (const uint8_t *)in, strlen(in), &out);
	assert_int_equal(out.len, strlen(want));
	if (out.len)
		assert_memory_equal(out.data, want, out.len);
	return r;
}

static void test_detach_keys(void **state)
{
	struct detach_keys d;
	struct err e = ERR_INIT;
	(void)state;
	assert_int_equal(detach_keys_parse(NULL, &d, &e), 0);
	assert_false(feed(&d, "ab", "ab"));
	assert_false(feed(&d, "c\x10", "c"));
	assert_false(feed(&d, "d",
	    "\x10"
	    "d")); /* broken off */
	assert_false(feed(&d, "\x10", ""));
	assert_true(feed(&d, "\x11rest", ""));
	assert_int_equal(detach_keys_parse("a,a,b", &d, &e), 0);
	assert_true(feed(&d, "xaaab", "xa"));
	assert_int_equal(detach_keys_parse("ctrl-@,ctrl-[,ctrl-_", &d, &e), 0);
	assert_int_equal(d.keys[0], 0);
	assert_int_equal(d.keys[1], 27);
	assert_int_equal(d.keys[2], 31);
	assert_int_equal(detach_keys_parse("ctrl-!", &d, &e), ERR_INVALID);
	assert_int_equal(detach_keys_parse("a,", &d, &e), ERR_INVALID);
	assert_int_equal(detach_keys_parse("shift-a", &d, &e), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_durations),
	    cmocka_unit_test(test_status),
	    cmocka_unit_test(test_filters),
	    cmocka_unit_test(test_json),
	    cmocka_unit_test(test_stats),
	    cmocka_unit_test(test_frames),
	    cmocka_unit_test(test_detach_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
