/* Secrets, configs, nodes, the swarm, networks, volumes and events in the Engine API. */
#include "api_fake.h"

static size_t count(struct fake *f, const char *path)
{
	json_t *j = fake_json(f, "GET", path, NULL, 200);
	size_t n = json_array_size(j);

	assert_true(json_is_array(j));
	json_decref(j);
	return n;
}

static unsigned long long version_of(struct fake *f, const char *path)
{
	json_t *j = fake_json(f, "GET", path, NULL, 200);
	unsigned long long v = (unsigned long long)int_at(j, "Version.Index");

	json_decref(j);
	return v;
}

static const char *versioned(const char *path, unsigned long long version, const char *more)
{
	static char out[200];

	snprintf(out, sizeof(out), "%s/update?version=%llu%s", path, version, more);
	return out;
}

static char *create(struct fake *f, const char *path, const char *body)
{
	json_t *j = fake_json(f, "POST", path, body, 201);
	char *id = xstrdup(text_at(j, "ID"));

	assert_int_equal(strlen(id), ID_LEN);
	json_decref(j);
	return id;
}

static void test_configs(void **state)
{
	struct fake *f = *state;
	char *id = create(
	    f, "/configs/create", "{\"Name\":\"conf\",\"Labels\":{\"a\":\"b\"},\"Data\":\"aGVsbG8=\"}");
	char *other =
	    create(f, "/configs/create", "{\"name\":\"conf.d-2\",\"data\":\"aGVsbG8=\",\"Labels\":null}");

	json_t *j = fake_json(f, "GET", "/configs/conf", NULL, 200);
	assert_string_equal(text_at(j, "ID"), id);
	assert_string_equal(text_at(j, "Spec.Data"), "aGVsbG8=");
	assert_string_equal(text_at(j, "Spec.Labels.a"), "b");
	json_decref(j);
	j = fake_json(f, "GET", "/configs/conf.d-2", NULL, 200);
	assert_true(json_is_object(at(j, "Spec.Labels")));
	json_decref(j);
	fake_expect(f, "POST", "/configs/create", "{\"Name\":\"CONF\",\"Data\":\"aA==\"}", 409,
	    "config CONF already exists");
	static const char *const bad[] = {"", "-a", "a-", "a b", "caf\xc3\xa9", ".x"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char body[100];
		snprintf(body, sizeof(body), "{\"Name\":\"%s\",\"Data\":\"aA==\"}", bad[i]);
		fake_expect(f, "POST", "/configs/create", body, 400, "invalid name");
	}
	char body[200];
	snprintf(body, sizeof(body), "{\"Name\":\"%065d\",\"Data\":\"aA==\"}", 1);
	fake_expect(f, "POST", "/configs/create", body, 400, "invalid name");
	fake_expect(f, "POST", "/configs/create", "{\"Name\":\"e\"}", 400, "larger than 0");
	fake_expect(f, "POST", "/configs/create", "{\"Name\":\"e\",\"Data\":\"a\"}", 400, "base64");
	fake_expect(f, "POST", "/configs/create",
	    "{\"Name\":\"e\",\"Data\":\"aA==\",\"Templating\":{\"Name\":\"golang\"}}", 501, "Templating");
	assert_int_equal(count(f, "/configs"), 2);
	assert_int_equal(count(f, "/configs?filters={\"name\":[\"conf\"]}"), 2);
	assert_int_equal(count(f, "/configs?filters={\"name\":[\"conf.\"]}"), 1);
	assert_int_equal(count(f, "/configs?filters={\"label\":[\"a\"]}"), 1);
	snprintf(body, sizeof(body), "/configs?filters={\"id\":[\"%s\"],\"name\":[\"conf.d\"]}", id);
	assert_int_equal(count(f, body), 2); /* or-ed */
	/* Labels change; nothing else does. */
	unsigned long long v = version_of(f, "/configs/conf");
	fake_expect(f, "POST", versioned("/configs/conf", v + 1, ""), "{\"Labels\":{}}", 500,
	    "update out of sequence");
	fake_expect(f, "POST", "/configs/conf/update", "{}", 400, "version");
	fake_expect(f, "POST", versioned("/configs/conf", v, ""),
	    "{\"Name\":\"conf\",\"Labels\":{\"n\":\"1\"},\"Data\":\"aA==\"}", 400,
	    "only updates to Labels are allowed");
	fake_expect(f, "POST", versioned("/configs/conf", v, ""), "{\"Name\":\"new\",\"Labels\":{}}", 400,
	    "only updates to Labels");
	fake_expect(f, "POST", versioned("/configs/conf", v, ""),
	    "{\"Name\":\"conf\",\"Labels\":{\"n\":\"1\"},\"Data\":\"aGVsbG8=\"}", 200, NULL);
	assert_true(version_of(f, "/configs/conf") > v);
	j = fake_json(f, "GET", "/configs/conf", NULL, 200);
	assert_string_equal(text_at(j, "Spec.Labels.n"), "1");
	assert_null(at(j, "Spec.Labels.a"));
	assert_string_equal(text_at(j, "Spec.Data"), "aGVsbG8=");
	json_decref(j);
	struct reply r = fake_call(f, "DELETE", "/configs/conf.d-2", NULL);
	assert_int_equal(r.status, 204);
	assert_string_equal(r.text, "");
	reply_done(&r);
	fake_expect(f, "DELETE", "/configs/conf.d-2", NULL, 404, "config conf.d-2 not found");
	free(id);
	free(other);
}

static void test_secrets(void **state)
{
	struct fake *f = *state;
	char *id = create(f, "/secrets/create", "{\"Name\":\"pw\",\"Labels\":{},\"Data\":\"c2VzYW1l\"}");

	struct reply r = fake_call(f, "GET", "/secrets/pw", NULL);
	assert_int_equal(r.status, 200);
	assert_null(strstr(r.text, "c2VzYW1l"));
	assert_null(strstr(r.text, "Data"));
	reply_done(&r);
	r = fake_call(f, "GET", "/secrets", NULL);
	assert_null(strstr(r.text, "c2VzYW1l"));
	assert_non_null(strstr(r.text, id));
	reply_done(&r);
	assert_int_equal(count(f, "/secrets?filters={\"names\":[\"pw\"]}"), 1);
	assert_int_equal(count(f, "/secrets?filters={\"names\":[\"p\"]}"), 0);
	fake_expect(f, "POST", "/secrets/create", "{\"Name\":\"pw\",\"Data\":\"aA==\"}", 409,
	    "secret pw already exists");
	fake_expect(f, "POST", "/secrets/create", "{\"Name\":\"s\",\"Driver\":{\"Name\":\"vault\"}}", 501,
	    "Driver \"vault\"");
	/* One byte over, and the last that fits. */
	char *fill = xmalloc(682668), *body;
	memset(fill, 'A', 682667);
	fill[682667] = '\0';                                           /* 4 of these are 3 bytes */
	body = xasprintf("{\"Name\":\"big\",\"Data\":\"%s=\"}", fill); /* 512000 bytes */
	fake_expect(f, "POST", "/secrets/create", body, 400, "less than 512000 bytes");
	free(body);
	body = xasprintf("{\"Name\":\"big\",\"Data\":\"%s==\"}", fill + 1); /* 511999 */
	fake_expect(f, "POST", "/secrets/create", body, 201, NULL);
	free(fill);
	free(body);
	fake_expect(f, "DELETE", "/secrets/big", NULL, 204, NULL);
	free(id);
}

/* What a service uses cannot be removed. Services with secrets are refused for now: the store is told past
 * the API. */
static void test_in_use(void **state)
{
	struct fake *f = *state;
	char *id = create(f, "/secrets/create", "{\"Name\":\"pw\",\"Data\":\"aA==\"}");

	for (int i = 2; i >= 1; i--) {
		struct txn *t = txn_new();
		Pb__Service *s = PB_NEW(Pb__Service, pb__service);
		s->id = xasprintf("service%d", i);
		s->spec = PB_NEW(Pb__ServiceSpec, pb__service_spec);
		s->spec->name = xasprintf("svc%d", i);
		s->spec->task_template = PB_NEW(Pb__TaskSpec, pb__task_spec);
		s->spec->mode = PB_NEW(Pb__ServiceMode, pb__service_mode);
		s->spec->task_template->container_spec = PB_NEW(Pb__ContainerSpec, pb__container_spec);
		Pb__SecretReference *ref = PB_NEW(Pb__SecretReference, pb__secret_reference);
		ref->secret_id = xstrdup(id);
		pb_add_msg(&s->spec->task_template->container_spec->secrets,
		    &s->spec->task_template->container_spec->n_secrets, ref);
		s->template_id = xstrdup("");
		txn_create(t, OBJ(SERVICE), s);
		fake_commit(f, t);
		fake_expect(f, "DELETE", "/secrets/pw", NULL, 400,
		    i == 2 ? "secret 'pw' is in use by the following service: svc2"
			   : "is in use by the following services: svc1, svc2");
	}
	free(id);
}

static void test_nodes(void **state)
{
	struct fake *f = *state;
	json_t *j = fake_json(f, "GET", "/nodes/testhost", NULL, 200);

	assert_string_equal(text_at(j, "ID"), FAKE_NODE);
	assert_string_equal(text_at(j, "Spec.Role"), "manager");
	assert_string_equal(text_at(j, "Spec.Availability"), "active");
	assert_true(json_is_object(at(j, "Spec.Labels")));
	assert_null(at(j, "Spec.Name"));
	assert_string_equal(text_at(j, "Status.State"), "ready");
	assert_true(json_is_true(at(j, "ManagerStatus.Leader")));
	assert_true(json_is_object(at(j, "Description.Platform")));
	json_decref(j);
	assert_int_equal(count(f, "/nodes?filters={\"role\":[\"manager\"]}"), 1);
	assert_int_equal(count(f, "/nodes?filters={\"role\":[\"worker\"]}"), 0);
	assert_int_equal(count(f, "/nodes?filters={\"membership\":[\"pending\"]}"), 0);
	assert_int_equal(count(f, "/nodes?filters={\"node.label\":[\"rack=1\"]}"), 0);
	unsigned long long v = version_of(f, "/nodes/testhost");
	fake_expect(
	    f, "POST", versioned("/nodes/testhost", v, ""), "{\"Role\":\"manager\"}", 400, "Availability");
	fake_expect(
	    f, "POST", versioned("/nodes/testhost", v, ""), "{\"Availability\":\"drain\"}", 400, "Role");
	fake_expect(f, "POST", versioned("/nodes/testhost", v, ""),
	    "{\"Role\":\"manager\",\"Availability\":\"asleep\"}", 400, "Availability");
	fake_expect(f, "POST", versioned("/nodes/testhost", v, ""),
	    "{\"Role\":\"worker\",\"Availability\":\"active\"}", 400, "last manager");
	fake_expect(f, "POST", versioned("/nodes/testhost", v + 9, ""),
	    "{\"Role\":\"manager\",\"Availability\":\"drain\"}", 500, "update out of sequence");
	fake_expect(f, "POST", versioned("/nodes/testhost", v, ""),
	    "{\"Role\":\"manager\",\"Availability\":\"drain\",\"Labels\":{\"rack\":\"1\"}}", 200, "");
	j = fake_json(f, "GET", "/nodes/node1", NULL, 200);
	assert_string_equal(text_at(j, "Spec.Availability"), "drain");
	json_decref(j);
	assert_int_equal(count(f, "/nodes?filters={\"node.label\":[\"rack=1\"]}"), 1);
	fake_expect(f, "DELETE", "/nodes/testhost?force=1", NULL, 400, "must be demoted");
	/* A worker that is up needs force. */
	struct txn *t = txn_new();
	Pb__Node *n = PB_NEW(Pb__Node, pb__node);
	n->id = xstrdup("worker1worker1worker1work");
	n->spec = PB_NEW(Pb__NodeSpec, pb__node_spec);
	n->status = PB_NEW(Pb__NodeStatus, pb__node_status);
	n->status->has_state = true;
	n->status->state = PB__NODE_STATE__E__READY;
	txn_create(t, OBJ(NODE), n);
	fake_commit(f, t);
	fake_expect(f, "DELETE", "/nodes/worker1", NULL, 400, "is not down and can't be removed");
	fake_expect(f, "DELETE", "/nodes/worker1?force=1", NULL, 200, NULL);
	fake_expect(f, "GET", "/nodes/worker1", NULL, 404, "node worker1 not found");
}

static void test_swarm(void **state)
{
	struct fake *f = *state;
	json_t *j = fake_json(f, "GET", "/swarm", NULL, 200);

	assert_string_equal(text_at(j, "JoinTokens.Worker"), "SWMTKN-1-w");
	assert_string_equal(text_at(j, "JoinTokens.Manager"), "SWMTKN-1-m");
	assert_string_equal(text_at(j, "Spec.Name"), "default");
	assert_true(json_is_object(at(j, "Spec.Orchestration")));
	assert_true(json_is_false(at(j, "RootRotationInProgress")));
	json_decref(j);
	unsigned long long v = version_of(f, "/swarm");
	char path[120];
	snprintf(path, sizeof(path), "/swarm/update?version=%llu&rotateWorkerToken=true", v);
	fake_expect(f, "POST", path, "{\"Orchestration\":{\"TaskHistoryRetentionLimit\":3}}", 200, "");
	j = fake_json(f, "GET", "/swarm", NULL, 200);
	assert_string_equal(text_at(j, "JoinTokens.Worker"), "SWMTKN-1-new");
	assert_string_equal(text_at(j, "JoinTokens.Manager"), "SWMTKN-1-m");
	assert_int_equal(int_at(j, "Spec.Orchestration.TaskHistoryRetentionLimit"), 3);
	assert_int_equal(int_at(j, "Spec.Raft.SnapshotInterval"), 10000);
	assert_int_equal(int_at(j, "Spec.Raft.KeepOldSnapshots"), 0);
	assert_int_equal(int_at(j, "Spec.Dispatcher.HeartbeatPeriod"), 5000000000);
	assert_int_equal(int_at(j, "Spec.CAConfig.NodeCertExpiry"), 7776000000000000);
	assert_true(json_is_false(at(j, "Spec.EncryptionConfig.AutoLockManagers")));
	json_decref(j);
	fake_expect(f, "POST", path, "{}", 500, "update out of sequence");
	fake_expect(
	    f, "POST", "/swarm/update?version=1&rotateManagerToken=perhaps", "{}", 400, "rotateManagerToken");
	v = version_of(f, "/swarm");
	snprintf(path, sizeof(path), "/swarm/update?version=%llu", v);
	fake_expect(f, "POST", path, "{\"Name\":\"other\"}", 400, "expected \"default\"");
	fake_expect(f, "POST", path, "{\"CAConfig\":{\"NodeCertExpiry\":5}}", 400, "certificate expiry");
	fake_expect(
	    f, "POST", path, "{\"EncryptionConfig\":{\"AutoLockManagers\":true}}", 501, "AutoLockManagers");
	fake_expect(f, "GET", "/swarm/unlockkey", NULL, 200, "\"UnlockKey\":\"\"");
	fake_expect(f, "POST", "/swarm/unlock", "{\"UnlockKey\":\"x\"}", 409, "swarm is not locked");
	fake_expect(
	    f, "POST", "/swarm/init", "{\"ListenAddr\":\"0.0.0.0:2377\"}", 503, "already part of a swarm");
	fake_expect(f, "POST", "/swarm/join", "{}", 503, "already part of a swarm");
	fake_expect(f, "POST", "/swarm/leave", NULL, 503, "last manager");
	assert_false(f->left);
	fake_expect(f, "POST", "/swarm/leave?force=1", NULL, 200, "");
	assert_true(f->left);
	fake_expect(f, "POST", "/swarm/leave?force=1", NULL, 503, "not part of a swarm");
	fake_expect(f, "POST", "/swarm/init", "{}", 400, "ListenAddr");
	fake_expect(f, "POST", "/swarm/init", "{\"ListenAddr\":\"0.0.0.0:2377\",\"Availability\":\"gone\"}",
	    400, "Availability");
	fake_expect(f, "POST", "/swarm/init", "{\"ListenAddr\":\"0.0.0.0:2377\",\"Spec\":{\"Name\":\"x\"}}",
	    400, "default");
	/* What the docker client sends. */
	struct reply r = fake_call(f, "POST", "/v1.41/swarm/init",
	    "{\"ListenAddr\":\"0.0.0.0:2377\",\"AdvertiseAddr\":\"\",\"DataPathAddr\":\"\",\"DataPathPort\":"
	    "0,"
	    "\"ForceNewCluster\":false,\"Spec\":{\"Labels\":null,\"Orchestration\":{},\"Raft\":{"
	    "\"ElectionTick\":0,"
	    "\"HeartbeatTick\":0},\"Dispatcher\":{},\"CAConfig\":{},\"TaskDefaults\":{},\"EncryptionConfig\":"
	    "{"
	    "\"AutoLockManagers\":false}},\"AutoLockManagers\":false,\"Availability\":\"drain\","
	    "\"DefaultAddrPool\":"
	    "null,\"SubnetSize\":24}");
	assert_int_equal(r.status, 200);
	assert_string_equal(json_string_value(r.json), FAKE_NODE);
	assert_int_equal(f->init.subnet_size, 24);
	assert_int_equal(f->init.availability, PB__NODE_AVAILABILITY__E__DRAIN);
	reply_done(&r);
}

static void test_networks(void **state)
{
	struct fake *f = *state;
	json_t *j = fake_json(f, "GET", "/networks/host", NULL, 200);

	assert_string_equal(text_at(j, "Name"), "host");
	assert_string_equal(text_at(j, "Scope"), "local");
	assert_string_equal(text_at(j, "IPAM.Driver"), "default");
	json_decref(j);
	assert_true(count(f, "/networks") >= 3);
	assert_int_equal(count(f, "/networks?filters={\"name\":[\"bridge\"]}"), 1);
	assert_int_equal(count(f, "/networks?filters={\"driver\":[\"overlay\"],\"type\":[\"custom\"]}"), 0);
	fake_expect(f, "GET", "/networks/nope", NULL, 404, "network nope not found");
	fake_expect(f, "GET", "/networks/host?scope=swarm", NULL, 501, "attaching services");
	fake_expect(f, "POST", "/networks/create", "{\"Name\":\"bridge\"}", 403, "predefined");
	fake_expect(
	    f, "POST", "/networks/create", "{\"Name\":\"net\",\"Driver\":\"overlay\"}", 501, "overlay");
	fake_expect(f, "DELETE", "/networks/bridge", NULL, 403, "pre-defined");
	fake_expect(f, "DELETE", "/networks/nope", NULL, 404, "network nope not found");
	fake_expect(f, "POST", "/networks/prune", NULL, 200, "NetworksDeleted");
	fake_expect(f, "GET", "/volumes", NULL, 200, "{\"Volumes\":[],\"Warnings\":null}");
	fake_expect(f, "GET", "/volumes/v", NULL, 404, "get v: no such volume");
	fake_expect(f, "DELETE", "/volumes/v", NULL, 404, "get v: no such volume");
	fake_expect(f, "POST", "/volumes/create", "{\"Name\":\"v\"}", 501, "volumes");
	fake_expect(f, "POST", "/volumes/prune", NULL, 200, "SpaceReclaimed");
	fake_expect(f, "GET", "/volumes?filters={\"x\":[\"y\"]}", NULL, 400, "invalid filter 'x'");
}

/* A published port that another service has. */
static void test_port_conflict(void **state)
{
	struct fake *f = *state;
	static const char fmt[] =
	    "{\"Name\":\"%s\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"EndpointSpec\":{"
	    "\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":%d,\"PublishMode\":\"%s\"}]}}";
	char body[400];

	snprintf(body, sizeof(body), fmt, "one", 8080, "ingress");
	fake_expect(f, "POST", "/services/create", body, 201, NULL);
	snprintf(body, sizeof(body), fmt, "two", 8080, "ingress");
	fake_expect(
	    f, "POST", "/services/create", body, 400, "port '8080' is already in use by service 'one'");
	snprintf(body, sizeof(body), fmt, "two", 8081, "host");
	fake_expect(f, "POST", "/services/create", body, 201, NULL);
	snprintf(body, sizeof(body), fmt, "three", 8081, "host");
	fake_expect(f, "POST", "/services/create", body, 201, NULL);
	snprintf(body, sizeof(body), fmt, "four", 8081, "ingress");
	fake_expect(f, "POST", "/services/create", body, 400, "already in use by service");
}

static bool three_lines(const struct buf *b)
{
	size_t n = 0;

	for (const char *p = b->data; p && (p = strstr(p, "\"timeNano\"")); p++)
		n++;
	return n >= 3;
}

static void test_events(void **state)
{
	struct fake *f = *state;
	struct buf b CLEANUP_BUF = BUF_INIT;
	int64_t t0 = INT64_C(1700000000) * NS_PER_SEC;
	int fd = fake_dial(f);

	events_publish(f->events, "service", "create", "id1", json_pack("{s:s}", "name", "web"), "swarm", t0);
	events_publish(f->events, "container", "die", "cid",
	    json_pack("{s:s,s:s,s:s}", "image", "nginx:1", "name", "web.1", "exitCode", "3"), "local",
	    t0 + 5 * NS_PER_SEC);
	/* The past only. */
	struct reply r = fake_call(f, "GET", "/events?since=1600000000&until=1700000004", NULL);
	assert_non_null(strstr(r.head, "Transfer-Encoding: chunked"));
	assert_non_null(strstr(r.head, "Content-Type: application/json\r\n"));
	assert_non_null(strstr(r.text,
	    "\"Type\":\"service\",\"Action\":\"create\",\"Actor\":{\"ID\":\"id1\",\"Attributes\":{"
	    "\"name\":\"web\"}},\"scope\":\"swarm\",\"time\":1700000000,\"timeNano\":1700000000000000000}"));
	assert_null(strstr(r.text, "\"container\""));
	reply_done(&r);
	static const struct {
		const char *filters;
		bool service, container;
	} cases[] = {{"{}", true, true}, {"{\"type\":[\"service\"]}", true, false},
	    {"{\"event\":[\"die\"]}", false, true}, {"{\"container\":[\"cid\"]}", false, true},
	    {"{\"container\":[\"web.1\"]}", false, true}, {"{\"service\":{\"web\":true}}", true, false},
	    {"{\"image\":[\"nginx\"]}", false, true}, {"{\"scope\":[\"swarm\"]}", true, false},
	    {"{\"label\":[\"exitCode=3\"]}", false, true}, {"{\"label\":[\"exitCode=4\"]}", false, false},
	    {"{\"unknown\":[\"x\"]}", true, true},
	    {"{\"type\":[\"service\",\"container\"],\"event\":[\"create\"]}", true, false}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char path[200];
		snprintf(path, sizeof(path), "/events?since=1600000000&until=1750000000&filters=%s",
		    cases[i].filters);
		r = fake_call(f, "GET", path, NULL);
		if ((strstr(r.text, "\"id1\"") != NULL) != cases[i].service ||
		    (strstr(r.text, "\"cid\"") != NULL) != cases[i].container)
			fail_msg("%s gave %s", cases[i].filters, r.text);
		reply_done(&r);
	}
	fake_expect(f, "GET", "/events?since=whenever", NULL, 400, "whenever");
	/* Past and present in one stream. */
	fake_send(f, fd, "GET", "/events?since=1600000000", NULL, NULL);
	for (int i = 0; i < 5; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	events_publish(f->events, "service", "remove", "id1", NULL, "swarm", f->now);
	fake_read(f, fd, &b, three_lines);
	assert_non_null(strstr(b.data, "\"status\":\"die\",\"id\":\"cid\",\"from\":\"nginx:1\""));
	assert_non_null(strstr(b.data, "\"remove\""));
	close(fd);
	for (int i = 0; i < 20; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	events_publish(f->events, "service", "remove", "id2", NULL, "swarm", f->now);
	/* The ring forgets the oldest. */
	for (int i = 0; i < EVENTS_KEPT; i++)
		events_publish(f->events, "node", "update", "n", NULL, "swarm", t0 + NS_PER_SEC);
	r = fake_call(f, "GET", "/events?since=1600000000&until=1750000000", NULL);
	assert_null(strstr(r.text, "\"id1\""));
	reply_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_API(test_configs),
	    WITH_API(test_secrets),
	    WITH_API(test_in_use),
	    WITH_API(test_nodes),
	    WITH_API(test_swarm),
	    WITH_API(test_networks),
	    WITH_API(test_port_conflict),
	    WITH_API(test_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
