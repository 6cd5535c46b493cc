/* Services and tasks in the Engine API: create, inspect, update, roll back, filter, delete; what is refused.
 */
#include "api_fake.h"

#define WEB                                                                                                  \
	"{\"Name\":\"web\",\"Labels\":{\"tier\":\"front\",\"x\":\"1\"},\"TaskTemplate\":{\"ContainerSpec\":" \
	"{"                                                                                                  \
	"\"Image\":\"nginx:1\",\"Init\":false,\"DNSConfig\":{}},\"Resources\":{\"Limits\":{},"               \
	"\"Reservations\":{}},\"Placement\":{},\"ForceUpdate\":0},\"Mode\":{\"Replicated\":{\"Replicas\":2}" \
	"},"                                                                                                 \
	"\"EndpointSpec\":{\"Mode\":\"vip\"}}"

static char *create(struct fake *f, const char *body)
{
	json_t *j = fake_json(f, "POST", "/services/create", body, 201);
	char *id = xstrdup(text_at(j, "ID"));

	assert_int_equal(strlen(id), ID_LEN);
	json_decref(j);
	return id;
}

static const Pb__Service *service(struct fake *f, const char *name)
{
	const struct object *o = store_get_by_name(f->store, OBJ(SERVICE), name);

	assert_non_null(o);
	return o->service;
}

/* The update path of a service as it is now. */
static const char *update_path(struct fake *f, const char *name, const char *more)
{
	static char path[200];

	snprintf(path, sizeof(path), "/services/%s/update?version=%llu%s", name,
	    (unsigned long long)service(f, name)->version, more);
	return path;
}

static void test_create(void **state)
{
	struct fake *f = *state;
	char *id = create(f, WEB), path[128];

	snprintf(path, sizeof(path), "/services/%s", id);
	json_t *j = fake_json(f, "GET", path, NULL, 200);
	assert_string_equal(text_at(j, "ID"), id);
	assert_true(int_at(j, "Version.Index") > 0);
	assert_string_equal(text_at(j, "CreatedAt"), "2027-01-15T08:00:02Z");
	assert_string_equal(text_at(j, "Spec.Name"), "web");
	assert_string_equal(text_at(j, "Spec.Labels.tier"), "front");
	assert_string_equal(text_at(j, "Spec.TaskTemplate.ContainerSpec.Isolation"), "default");
	assert_string_equal(text_at(j, "Spec.TaskTemplate.Runtime"), "container");
	assert_true(json_is_false(at(j, "Spec.TaskTemplate.ContainerSpec.Init")));
	assert_non_null(at(j, "Spec.TaskTemplate.ContainerSpec.DNSConfig"));
	assert_non_null(at(j, "Spec.TaskTemplate.Resources.Limits"));
	assert_int_equal(int_at(j, "Spec.TaskTemplate.ForceUpdate"), 0);
	assert_int_equal(int_at(j, "Spec.Mode.Replicated.Replicas"), 2);
	assert_string_equal(text_at(j, "Spec.EndpointSpec.Mode"), "vip");
	assert_non_null(at(j, "Endpoint.Spec"));
	assert_null(at(j, "UpdateStatus"));
	assert_null(at(j, "PreviousSpec"));
	assert_null(at(j, "Spec.UpdateConfig"));
	assert_null(at(j, "JobStatus"));
	json_decref(j);
	snprintf(path, sizeof(path), "/services/%s?insertDefaults=true", id);
	j = fake_json(f, "GET", path, NULL, 200);
	assert_int_equal(int_at(j, "Spec.UpdateConfig.Parallelism"), 1);
	assert_string_equal(text_at(j, "Spec.UpdateConfig.FailureAction"), "pause");
	assert_int_equal(int_at(j, "Spec.UpdateConfig.Monitor"), 5000000000);
	assert_string_equal(text_at(j, "Spec.RollbackConfig.Order"), "stop-first");
	assert_int_equal(int_at(j, "Spec.TaskTemplate.RestartPolicy.Delay"), 5000000000);
	assert_string_equal(text_at(j, "Spec.TaskTemplate.RestartPolicy.Condition"), "any");
	assert_int_equal(int_at(j, "Spec.TaskTemplate.ContainerSpec.StopGracePeriod"), 10000000000);
	json_decref(j);
	const Pb__Template *t = store_template(f->store, service(f, "web")->template_id);
	assert_non_null(t);
	assert_string_equal(t->service_id, id);
	assert_string_equal(t->spec->container_spec->image, "nginx:1");
	/* By prefix and by name in any case of uniqueness. */
	snprintf(path, sizeof(path), "/services/%.6s", id);
	fake_expect(f, "GET", path, NULL, 200, id);
	fake_expect(f, "GET", "/services/web?insertDefaults=maybe", NULL, 400, "insertDefaults");
	fake_expect(f, "GET", "/services/nope", NULL, 404, "service nope not found");
	fake_expect(f, "POST", "/services/create", WEB, 409,
	    "name conflicts with an existing object: service web already exists");
	free(id);
}

static void test_create_bare(void **state)
{
	struct fake *f = *state;
	/* docker-py's spelling, and as little as possible. */
	char *id = create(
	    f, "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"Mode\":{\"replicated\":{}}}");
	char path[80];

	snprintf(path, sizeof(path), "/services/%s", id);
	json_t *j = fake_json(f, "GET", path, NULL, 200);
	assert_non_null(strchr(text_at(j, "Spec.Name"), '_'));
	assert_int_equal(int_at(j, "Spec.Mode.Replicated.Replicas"), 1);
	assert_non_null(at(j, "Spec.Labels"));
	json_decref(j);
	free(id);
	id = create(f,
	    "{\"Name\":\"g\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"Mode\":{\"global\":{}},"
	    "\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80}]}}");
	j = fake_json(f, "GET", "/services/g", NULL, 200);
	assert_true(json_is_object(at(j, "Spec.Mode.Global")));
	assert_null(at(j, "Spec.Mode.Replicated"));
	assert_string_equal(text_at(j, "Spec.EndpointSpec.Ports.0.Protocol"), "tcp");
	assert_string_equal(text_at(j, "Spec.EndpointSpec.Ports.0.PublishMode"), "ingress");
	json_decref(j);
	free(id);
}

static void test_registry_auth(void **state)
{
	struct fake *f = *state;
	struct reply r = fake_call_with(f, "POST", "/services/create", "X-Registry-Auth: c2VjcmV0\r\n", WEB);

	assert_int_equal(r.status, 201);
	reply_done(&r);
	assert_string_equal(
	    service(f, "web")->spec->task_template->container_spec->registry_auth, "c2VjcmV0");
	r = fake_call(f, "GET", "/services/web", NULL);
	assert_null(strstr(r.text, "c2VjcmV0"));
	reply_done(&r);
	/* Carried on without the header. */
	fake_expect(f, "POST", update_path(f, "web", "&registryAuthFrom=spec"), WEB, 200, "Warnings");
	assert_string_equal(
	    service(f, "web")->spec->task_template->container_spec->registry_auth, "c2VjcmV0");
	fake_expect(f, "POST", update_path(f, "web", "&registryAuthFrom=x"), WEB, 400, "registryAuthFrom");
}

static void test_update(void **state)
{
	struct fake *f = *state;
	char *id = create(f, WEB), *template = xstrdup(service(f, "web")->template_id);
	static const char
	    scaled[] = "{\"Name\":\"web\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":"
		       "\"nginx:1\",\"Init\":false}},"
		       "\"Mode\":{\"Replicated\":{\"Replicas\":5}}}",
	    changed[] = "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"nginx:2\"}},"
			"\"Mode\":{\"Replicated\":{\"Replicas\":5}}}";

	/* Scaling and labels leave the tasks alone: same template. */
	json_t *j = fake_json(f, "POST", update_path(f, "web", ""), scaled, 200);
	assert_true(json_is_null(at(j, "Warnings")));
	json_decref(j);
	const Pb__Service *s = service(f, "web");
	assert_string_equal(s->template_id, template);
	assert_int_equal(s->spec->mode->replicated->replicas, 5);
	assert_int_equal(s->previous_spec->mode->replicated->replicas, 2);
	/* Another image is another template. */
	fake_expect(f, "POST", update_path(f, "web", ""), changed, 200, NULL);
	s = service(f, "web");
	assert_string_not_equal(s->template_id, template);
	assert_string_equal(s->previous_template_id, template);
	assert_non_null(store_template(f->store, s->template_id));
	j = fake_json(f, "GET", "/services/web", NULL, 200);
	assert_string_equal(text_at(j, "PreviousSpec.TaskTemplate.ContainerSpec.Image"), "nginx:1");
	assert_null(at(j, "UpdateStatus"));
	json_decref(j);
	/* Back: specs and templates change places. */
	fake_expect(f, "POST", update_path(f, "web", "&rollback=previous"), changed, 200, NULL);
	s = service(f, "web");
	assert_string_equal(s->template_id, template);
	assert_string_equal(s->spec->task_template->container_spec->image, "nginx:1");
	assert_string_equal(s->previous_spec->task_template->container_spec->image, "nginx:2");
	j = fake_json(f, "GET", "/services/web", NULL, 200);
	assert_string_equal(text_at(j, "UpdateStatus.State"), "rollback_started");
	assert_string_equal(text_at(j, "UpdateStatus.Message"), "manually requested rollback");
	json_decref(j);
	/* A user's update clears the status in the same write. */
	fake_expect(f, "POST", update_path(f, "web", ""), scaled, 200, NULL);
	j = fake_json(f, "GET", "/services/web", NULL, 200);
	assert_null(at(j, "UpdateStatus"));
	json_decref(j);
	free(template);
	free(id);
}

static void test_update_refused(void **state)
{
	struct fake *f = *state;
	char path[100];
	free(create(f, WEB));

	snprintf(path, sizeof(path), "/services/web/update?version=%llu",
	    (unsigned long long)service(f, "web")->version + 1);
	fake_expect(f, "POST", path, WEB, 500, "update out of sequence");
	fake_expect(f, "POST", "/services/web/update", WEB, 400, "version");
	fake_expect(f, "POST", "/services/web/update?version=x", WEB, 400, "version");
	fake_expect(f, "POST", "/services/nope/update?version=1", WEB, 404, "service nope not found");
	fake_expect(f, "POST", update_path(f, "web", ""),
	    "{\"Name\":\"web2\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"Mode\":{"
	    "\"Replicated\":{}}}",
	    501, "renaming services is not supported");
	fake_expect(f, "POST", update_path(f, "web", ""),
	    "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"Mode\":{\"Global\":{}"
	    "}}",
	    501, "service mode change is not allowed");
	fake_expect(f, "POST", update_path(f, "web", "&rollback=previous"), WEB, 400,
	    "does not have a previous spec");
	fake_expect(
	    f, "POST", update_path(f, "web", "&rollback=sideways"), WEB, 500, "unrecognized rollback option");
	fake_expect(f, "POST", update_path(f, "web", ""), "{\"Name\":\"web\",\"Mode\":{\"Replicated\":{}}}",
	    400, NULL);
}

/* Two updates that were read from one version: the second loses, whichever way it is found out. */
static void test_update_race(void **state)
{
	struct fake *f = *state;
	struct buf a CLEANUP_BUF = BUF_INIT, b CLEANUP_BUF = BUF_INIT;
	int one = fake_dial(f), two = fake_dial(f);
	free(create(f, WEB));
	char *path = xstrdup(update_path(f, "web", ""));

	fake_send(f, one, "POST", path, NULL,
	    "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"one\"}},\"Mode\":{"
	    "\"Replicated\":{}}}");
	fake_send(f, two, "POST", path, NULL,
	    "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"two\"}},\"Mode\":{"
	    "\"Replicated\":{}}}");
	fake_read(f, one, &a, fake_whole);
	fake_read(f, two, &b, fake_whole);
	bool first = strstr(a.data, "200 OK") != NULL;
	assert_non_null(strstr(first ? a.data : b.data, "200 OK"));
	assert_non_null(strstr(first ? b.data : a.data, "500 Internal"));
	assert_non_null(strstr(first ? b.data : a.data, "update out of sequence"));
	free(path);
	close(one);
	close(two);
}

static size_t count(struct fake *f, const char *path)
{
	json_t *j = fake_json(f, "GET", path, NULL, 200);
	size_t n = json_array_size(j);

	assert_true(json_is_array(j));
	json_decref(j);
	return n;
}

static void test_list(void **state)
{
	struct fake *f = *state;
	char *id = create(f, WEB), path[128];

	free(create(f, "{\"Name\":\"webhook\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},"
		       "\"Mode\":{\"Global\":{}}}"));
	assert_int_equal(count(f, "/services"), 2);
	assert_int_equal(count(f, "/services?filters={\"name\":[\"web\"]}"), 2); /* a prefix */
	assert_int_equal(count(f, "/services?filters={\"name\":[\"webh\"]}"), 1);
	assert_int_equal(count(f, "/services?filters={\"name\":[\"ook\"]}"), 0);
	assert_int_equal(count(f, "/services?filters={\"mode\":[\"global\"]}"), 1);
	assert_int_equal(count(f, "/services?filters={\"mode\":[\"global\",\"replicated\"]}"), 2);
	assert_int_equal(count(f, "/services?filters={\"label\":[\"tier=front\",\"x\"]}"), 1);
	assert_int_equal(count(f, "/services?filters={\"label\":[\"tier=back\"]}"), 0);
	snprintf(path, sizeof(path), "/services?filters={\"id\":[\"%.5s\"]}", id);
	assert_int_equal(count(f, path), 1);
	fake_expect(f, "GET", "/services?filters={\"node\":[\"x\"]}", NULL, 400, "invalid filter 'node'");
	fake_expect(f, "GET", "/services?status=perhaps", NULL, 400, "status");
	json_t *j = fake_json(f, "GET", "/services?filters={\"name\":[\"webh\"]}", NULL, 200);
	assert_null(at(j, "0.ServiceStatus"));
	json_decref(j);
	fake_task(f, "task1task1task1task1task11", "web", 1, PB__TASK_STATE__E__RUNNING,
	    PB__TASK_STATE__E__RUNNING);
	fake_task(f, "task2task2task2task2task22", "web", 2, PB__TASK_STATE__E__PREPARING,
	    PB__TASK_STATE__E__RUNNING);
	fake_task(f, "task3task3task3task3task33", "webhook", 0, PB__TASK_STATE__E__RUNNING,
	    PB__TASK_STATE__E__RUNNING);
	j = fake_json(f, "GET", "/services?status=true", NULL, 200);
	for (size_t i = 0; i < 2; i++) {
		const json_t *s = json_array_get(j, i);
		bool web = strcmp(text_at(s, "Spec.Name"), "web") == 0;
		assert_int_equal(int_at(s, "ServiceStatus.RunningTasks"), 1);
		assert_int_equal(int_at(s, "ServiceStatus.DesiredTasks"), web ? 2 : 1);
		assert_int_equal(int_at(s, "ServiceStatus.CompletedTasks"), 0);
	}
	json_decref(j);
	free(id);
}

static void test_delete(void **state)
{
	struct fake *f = *state;
	free(create(f, WEB));

	fake_expect(f, "DELETE", "/services/web", NULL, 200, "");
	fake_expect(f, "GET", "/services/web", NULL, 404, NULL);
	fake_expect(f, "DELETE", "/services/web", NULL, 404, "service web not found");
}

static void test_tasks(void **state)
{
	struct fake *f = *state;
	char *id = create(f, WEB), path[200];

	fake_task(f, "task1task1task1task1task11", "web", 1, PB__TASK_STATE__E__RUNNING,
	    PB__TASK_STATE__E__RUNNING);
	fake_task(f, "task2task2task2task2task22", "web", 2, PB__TASK_STATE__E__FAILED,
	    PB__TASK_STATE__E__SHUTDOWN);
	json_t *j = fake_json(f, "GET", "/tasks/task1task1task1task1task11", NULL, 200);
	assert_string_equal(text_at(j, "ServiceID"), id);
	assert_int_equal(int_at(j, "Slot"), 1);
	assert_string_equal(text_at(j, "NodeID"), FAKE_NODE);
	assert_string_equal(text_at(j, "Status.State"), "running");
	assert_string_equal(text_at(j, "DesiredState"), "running");
	assert_true(json_is_object(at(j, "Status.PortStatus")));
	assert_true(json_is_object(at(j, "Labels")));
	assert_null(at(j, "Name"));
	assert_string_equal(text_at(j, "Spec.ContainerSpec.Image"), "nginx:1");
	assert_int_equal(int_at(j, "Spec.ForceUpdate"), 0);
	json_decref(j);
	assert_int_equal(count(f, "/tasks"), 2);
	assert_int_equal(count(f, "/tasks?filters={\"service\":[\"web\"]}"), 2);
	assert_int_equal(count(f, "/tasks?filters={\"service\":[\"web\",\"web\"]}"), 2);
	snprintf(path, sizeof(path), "/tasks?filters={\"service\":{\"%.8s\":true}}", id);
	assert_int_equal(count(f, path), 2);
	fake_expect(f, "GET", "/tasks?filters={\"service\":[\"nope\"]}", NULL, 404, "service nope not found");
	fake_expect(f, "GET", "/tasks?filters={\"node\":[\"nope\"]}", NULL, 404, "node nope not found");
	assert_int_equal(count(f, "/tasks?filters={\"node\":[\"testhost\"]}"), 2);
	assert_int_equal(count(f, "/tasks?filters={\"desired-state\":[\"running\"]}"), 1);
	assert_int_equal(count(f, "/tasks?filters={\"desired-state\":[\"running\",\"shutdown\"]}"), 2);
	fake_expect(f, "GET", "/tasks?filters={\"desired-state\":[\"asleep\"]}", NULL, 500, "asleep");
	assert_int_equal(count(f, "/tasks?filters={\"name\":[\"web.1\"]}"), 1);
	assert_int_equal(count(f, "/tasks?filters={\"label\":[\"tier=front\"]}"), 2);
	assert_int_equal(count(f, "/tasks?filters={\"label\":[\"tier=back\"]}"), 0);
	assert_int_equal(count(f, "/tasks?filters={\"id\":[\"task2\"]}"), 1);
	assert_int_equal(count(f, "/tasks?filters={\"runtime\":[\"container\"]}"), 2);
	assert_int_equal(count(f, "/tasks?filters={\"_up-to-date\":[\"true\"]}"), 2);
	/* After an update the old tasks are not up to date; new ones are. */
	fake_expect(f, "POST", update_path(f, "web", ""),
	    "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"nginx:2\"}},\"Mode\":{"
	    "\"Replicated\":{}}}",
	    200, NULL);
	assert_int_equal(
	    count(f, "/tasks?filters={\"_up-to-date\":{\"true\":true},\"service\":[\"web\"]}"), 0);
	fake_task(
	    f, "task4task4task4task4task44", "web", 1, PB__TASK_STATE__E__NEW, PB__TASK_STATE__E__READY);
	assert_int_equal(count(f, "/tasks?filters={\"_up-to-date\":{\"true\":true}}"), 1);
	j = fake_json(f, "GET", "/tasks/task1", NULL, 200);
	assert_string_equal(text_at(j, "Spec.ContainerSpec.Image"), "nginx:1");
	json_decref(j);
	fake_expect(f, "GET", "/tasks/task", NULL, 400, "ambiguous (3 matches found)");
	fake_expect(f, "GET", "/tasks/nope", NULL, 404, "task nope not found");
	/* The service goes, its tasks stay visible by label. */
	fake_expect(f, "DELETE", "/services/web", NULL, 200, NULL);
	assert_int_equal(count(f, "/tasks"), 3);
	free(id);
}

static void test_logs(void **state)
{
	struct fake *f = *state;
	struct buf b CLEANUP_BUF = BUF_INIT;
	int fd = fake_dial(f);
	char *id = create(f, WEB);

	fake_task(f, "task1task1task1task1task11", "web", 1, PB__TASK_STATE__E__RUNNING,
	    PB__TASK_STATE__E__RUNNING);
	fake_expect(f, "GET", "/services/web/logs", NULL, 500, "you must choose at least one stream");
	fake_expect(f, "GET", "/services/nope/logs?stdout=1", NULL, 404, "service nope not found");
	fake_expect(f, "GET", "/services/web/logs?stdout=1&tail=x", NULL, 400, "tail");
	fake_expect(f, "GET", "/tasks/nope/logs?stdout=1", NULL, 404, "task nope not found");
	fake_send(f, fd, "GET",
	    "/v1.41/services/web/logs?stdout=True&stderr=1&details=1&timestamps=1&follow=1&tail=10&since=5.5",
	    NULL, NULL);
	while (!f->log_is_open)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_string_equal(f->log.service_id, id);
	assert_true(f->log.want_stdout && f->log.want_stderr && f->log.follow);
	assert_int_equal(f->log.tail, 10);
	assert_int_equal(f->log.since, 5500000000);
	f->log.on_line(f->log.data, &(struct api_log_line){"task1", id, FAKE_NODE, 1700000000000000001, 2,
					(const uint8_t *)"hello", 5});
	f->log.on_end(f->log.data, 0, NULL);
	assert_false(f->log_is_open);
	fake_read(f, fd, &b, fake_whole);
	/* NULs of the frame's head end C's idea of the text: look at the bytes. */
	char want[300];
	int n = snprintf(want, sizeof(want),
	    "2023-11-14T22:13:20.000000001Z "
	    "com.docker.swarm.node.id=%s,com.docker.swarm.service.id=%s,com.docker.swarm.task.id=task1 "
	    "hello\n",
	    FAKE_NODE, id);
	const uint8_t head[8] = {2, 0, 0, 0, 0, 0, 0, (uint8_t)n};
	const char *p = memmem(b.data, b.len, head, sizeof(head));
	assert_non_null(p);
	assert_memory_equal(p + 8, want, (size_t)n);
	/* A client that leaves closes the source. */
	fake_send(f, fd, "GET", "/tasks/task1/logs?stderr=1&follow=1", NULL, NULL);
	while (!f->log_is_open)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_string_equal(f->log.task_id, "task1task1task1task1task11");
	close(fd);
	for (int i = 0; i < 10000 && f->log_is_open; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_false(f->log_is_open);
	/* One that does not read pauses it. */
	fd = fake_dial(f);
	fake_send(f, fd, "GET", "/tasks/task1/logs?stdout=1&follow=1", NULL, NULL);
	while (!f->log_is_open)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	char *line = xcalloc(1, 16000);
	memset(line, 'x', 16000);
	int lines = 0;
	for (; lines < 1000 && !f->log_paused; lines++)
		f->log.on_line(f->log.data,
		    &(struct api_log_line){"task1", id, FAKE_NODE, 1, 1, (const uint8_t *)line, 16000});
	assert_true(f->log_paused);
	char sink[65536];
	for (int i = 0; i < 100000 && f->log_paused; i++) {
		while (read(fd, sink, sizeof(sink)) > 0)
			;
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	assert_false(f->log_paused);
	free(line);
	close(fd);
	free(id);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_API(test_create),
	    WITH_API(test_create_bare),
	    WITH_API(test_registry_auth),
	    WITH_API(test_update),
	    WITH_API(test_update_refused),
	    WITH_API(test_update_race),
	    WITH_API(test_list),
	    WITH_API(test_delete),
	    WITH_API(test_tasks),
	    WITH_API(test_logs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
