/* The Engine API's core: versions, routes, errors, parameters, filters; and the engine's own routes. */
#include "api_fake.h"

static void test_ping(void **state)
{
	struct fake *f = *state;
	struct reply r = fake_call(f, "HEAD", "/_ping", NULL);

	assert_int_equal(r.status, 200);
	assert_string_equal(r.text, "");
	assert_non_null(strstr(r.head, "Api-Version: 1.47\r\n"));
	assert_non_null(strstr(r.head, "Ostype: linux\r\n"));
	assert_non_null(strstr(r.head, "Docker-Experimental: false\r\n"));
	assert_non_null(strstr(r.head, "Swarm: active/manager\r\n"));
	assert_non_null(strstr(r.head, "Cache-Control: no-cache, no-store, must-revalidate\r\n"));
	assert_non_null(strstr(r.head, "Content-Length: 0\r\n"));
	assert_non_null(strstr(r.head, "Server: Docker/"));
	reply_done(&r);
	f->state = "inactive";
	r = fake_call(f, "GET", "/v1.24/_ping", NULL);
	assert_string_equal(r.text, "OK");
	assert_non_null(strstr(r.head, "Swarm: inactive\r\n"));
	reply_done(&r);
}

static void test_versions(void **state)
{
	struct fake *f = *state;

	fake_expect(f, "GET", "/v1.47/version", NULL, 200, "\"ApiVersion\":\"1.47\"");
	fake_expect(f, "GET", "/version", NULL, 200, "\"MinAPIVersion\":\"1.24\"");
	fake_expect(f, "GET", "/v1.48/version", NULL, 400, "client version 1.48 is too new");
	fake_expect(f, "GET", "/v2.0/version", NULL, 400, "too new");
	struct reply r = fake_call(f, "GET", "/v1.23/version", NULL);
	assert_int_equal(r.status, 400);
	assert_non_null(strstr(r.head, "text/plain"));
	assert_non_null(strstr(r.text, "client version 1.23 is too old"));
	reply_done(&r);
	fake_expect(f, "GET", "/vx/version", NULL, 404, "page not found");
	json_t *j = fake_json(f, "GET", "/version", NULL, 200);
	assert_string_equal(text_at(j, "Components.0.Name"), "Engine");
	assert_string_equal(text_at(j, "Components.0.Details.ApiVersion"), "1.47");
	assert_string_equal(text_at(j, "Os"), "linux");
	json_decref(j);
}

static void test_not_found(void **state)
{
	struct fake *f = *state;

	fake_expect(f, "GET", "/", NULL, 404, "page not found");
	fake_expect(f, "GET", "/bogus", NULL, 404, "page not found");
	fake_expect(f, "PUT", "/services", NULL, 404, "page not found");
	fake_expect(f, "GET", "/services/a/b/c", NULL, 404, "page not found");
	fake_expect(f, "GET", "/v1.41", NULL, 404, "page not found");
}

static void echo(void *data, struct http_req *r)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	struct err e = ERR_INIT;
	bool strict = false;
	int64_t t = 0, n = 0;

	if (api_bool_strict(r, "strict", &strict, &e) != 0 || api_int_param(r, "n", 7, &n, &e) != 0 ||
	    api_time_param(data, r, "t", &t, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	buf_printf(&b, "ref=%s loose=%d strict=%d n=%lld t=%lld minor=%u", api_param(r, "ref"),
	    api_bool_loose(r, "loose"), strict, (long long)n, (long long)t, api_minor(r));
	http_reply(r, 200, "text/plain", b.data, b.len);
}

static void test_params(void **state)
{
	struct fake *f = *state;

	api_route(f->api, "GET", "/echo/{ref...}/json", echo, f->api);
	api_route(f->api, "GET", "/echo/{ref...}", echo, f->api);
	fake_expect(f, "GET", "/v1.30/echo/a/b:c@sha256:12/json", NULL, 200,
	    "ref=a/b:c@sha256:12 loose=0 strict=0 n=7 t=0 minor=30");
	fake_expect(f, "GET", "/echo/docker.io%2Flibrary%2Fx/json", NULL, 200, "ref=docker.io/library/x ");
	fake_expect(f, "GET", "/echo/json/json", NULL, 200, "ref=json ");
	fake_expect(f, "GET", "/echo/x", NULL, 200, "ref=x ");
	static const char *const no[] = {"", "0", "no", "False", "NONE", "%20false%20"};
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		char path[80];
		snprintf(path, sizeof(path), "/echo/x?loose=%s", no[i]);
		fake_expect(f, "GET", path, NULL, 200, "loose=0");
	}
	fake_expect(f, "GET", "/echo/x?loose=True", NULL, 200, "loose=1");
	fake_expect(f, "GET", "/echo/x?loose=whatever", NULL, 200, "loose=1");
	fake_expect(f, "GET", "/echo/x?strict=T", NULL, 200, "strict=1");
	fake_expect(f, "GET", "/echo/x?strict=false", NULL, 200, "strict=0");
	fake_expect(f, "GET", "/echo/x?strict=yes", NULL, 400, "strict");
	fake_expect(f, "GET", "/echo/x?n=-3", NULL, 200, "n=-3");
	fake_expect(f, "GET", "/echo/x?n=3x", NULL, 400, "n");
	fake_expect(f, "GET", "/echo/x?t=12.000000345", NULL, 200, "t=12000000345");
	fake_expect(f, "GET", "/echo/x?t=2026-01-02T03:04:05Z", NULL, 200, "t=1767323045000000000");
	fake_expect(f, "GET", "/echo/x?t=10s", NULL, 200, "t=1799999991000000000");
	fake_expect(f, "GET", "/echo/x?t=soon", NULL, 400, "soon");
}

static void test_bodies(void **state)
{
	struct fake *f = *state;

	fake_expect(f, "POST", "/configs/create", "{", 400, "JSON");
	fake_expect(f, "POST", "/configs/create", "{} {}", 400, "JSON");
	fake_expect(f, "POST", "/configs/create", "[]", 400, "JSON object");
	fake_expect(f, "POST", "/configs/create", "", 400, "invalid name");
}

static void test_content_type(void **state)
{
	struct fake *f = *state;
	struct buf b CLEANUP_BUF = BUF_INIT;
	static const char req[] =
	    "POST /configs/create HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";

	assert_int_equal(write(f->fd, req, sizeof(req) - 1), sizeof(req) - 1);
	fake_read(f, f->fd, &b, fake_whole);
	assert_non_null(strstr(b.data, "400 Bad Request"));
	assert_non_null(strstr(b.data, "must be 'application/json'"));
}

static void test_filters(void **state)
{
	struct fake *f = *state;

	fake_expect(
	    f, "GET", "/nodes?filters=%7B%22name%22%3A%7B%22test%22%3Atrue%7D%7D", NULL, 200, "testhost");
	fake_expect(f, "GET", "/nodes?filters={\"name\":[\"test\",\"other\"]}", NULL, 200, "testhost");
	fake_expect(f, "GET", "/nodes?filters={\"name\":[\"other\"]}", NULL, 200, "[]");
	fake_expect(
	    f, "GET", "/nodes?filters={\"role\":[\"manager\"],\"name\":[\"other\"]}", NULL, 200, "[]");
	fake_expect(f, "GET", "/nodes?filters={}", NULL, 200, "testhost");
	fake_expect(f, "GET", "/nodes?filters=", NULL, 200, "testhost");
	fake_expect(f, "GET", "/nodes?filters={\"bogus\":[\"x\"]}", NULL, 400, "invalid filter 'bogus'");
	fake_expect(f, "GET", "/nodes?filters={", NULL, 400, "invalid filter");
	fake_expect(f, "GET", "/nodes?filters=[]", NULL, 400, "invalid filter");
	fake_expect(f, "GET", "/nodes?filters={\"name\":3}", NULL, 400, "invalid filter 'name'");
	fake_expect(f, "GET", "/nodes?filters={\"name\":[3]}", NULL, 400, "invalid filter 'name'");
	fake_expect(f, "GET", "/nodes?filters={\"role\":[\"king\"]}", NULL, 500, "role=king");
}

static void test_info(void **state)
{
	struct fake *f = *state;
	json_t *j = fake_json(f, "GET", "/info", NULL, 200);

	assert_string_equal(text_at(j, "Name"), "testhost");
	assert_string_equal(text_at(j, "Swarm.NodeID"), FAKE_NODE);
	assert_string_equal(text_at(j, "Swarm.LocalNodeState"), "active");
	assert_true(json_is_true(at(j, "Swarm.ControlAvailable")));
	assert_int_equal(int_at(j, "Swarm.Nodes"), 1);
	assert_int_equal(int_at(j, "Swarm.Managers"), 1);
	assert_string_equal(text_at(j, "Swarm.RemoteManagers.0.NodeID"), FAKE_NODE);
	assert_string_equal(text_at(j, "Swarm.Cluster.ID"), "clusterclusterclustercluu");
	assert_null(at(j, "Swarm.Cluster.JoinTokens"));
	assert_true(int_at(j, "NCPU") > 0);
	assert_true(int_at(j, "MemTotal") > 0);
	json_decref(j);
	f->state = "inactive";
	j = fake_json(f, "GET", "/info", NULL, 200);
	assert_string_equal(text_at(j, "Swarm.LocalNodeState"), "inactive");
	assert_string_equal(text_at(j, "Swarm.NodeID"), "");
	assert_null(at(j, "Swarm.Cluster"));
	json_decref(j);
}

/* Manager routes say so on a node that is none. */
static void test_not_a_manager(void **state)
{
	static const char *const routes[][2] = {{"GET", "/swarm"}, {"GET", "/nodes"}, {"GET", "/services"},
	    {"GET", "/tasks"}, {"GET", "/secrets"}, {"GET", "/configs"}, {"GET", "/nodes/x"},
	    {"GET", "/services/x"}, {"GET", "/tasks/x"}, {"GET", "/secrets/x"}, {"GET", "/configs/x"},
	    {"POST", "/services/create"}, {"POST", "/services/x/update"}, {"DELETE", "/services/x"},
	    {"POST", "/secrets/create"}, {"POST", "/configs/create"}, {"DELETE", "/configs/x"},
	    {"POST", "/nodes/x/update"}, {"DELETE", "/nodes/x"}, {"POST", "/swarm/update"},
	    {"GET", "/swarm/unlockkey"}, {"GET", "/services/x/logs?stdout=1"},
	    {"GET", "/tasks/x/logs?stdout=1"}, {"POST", "/configs/x/update"}};
	struct fake *f = *state;

	f->state = "inactive";
	for (size_t i = 0; i < ARRAY_LEN(routes); i++)
		fake_expect(f, routes[i][0], routes[i][1], NULL, 503, "This node is not a swarm manager");
}

/* A client that goes away while its transaction is under way. */
static void test_client_gone(void **state)
{
	struct fake *f = *state;
	int fd = fake_dial(f);

	fake_send(f, fd, "POST", "/configs/create", NULL, "{\"Name\":\"c\",\"Data\":\"aGk=\"}");
	close(fd);
	for (int i = 0; i < 20; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	fake_expect(f, "GET", "/configs", NULL, 200, "\"c\"");
	f->fail_with = ERR_UNAVAILABLE;
	fake_expect(f, "POST", "/configs/create", "{\"Name\":\"d\",\"Data\":\"aGk=\"}", 503, "made to fail");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_API(test_ping),
	    WITH_API(test_versions),
	    WITH_API(test_not_found),
	    WITH_API(test_params),
	    WITH_API(test_bodies),
	    WITH_API(test_content_type),
	    WITH_API(test_filters),
	    WITH_API(test_info),
	    WITH_API(test_not_a_manager),
	    WITH_API(test_client_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
