/* A service's spec: what is filled in, what is refused and in which words, when two specs make the same
 * tasks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "node/api/service_spec.h"
#include "proto/json.h"
#include "proto/pb.h"

static Pb__ServiceSpec *parse(const char *text)
{
	json_t *j = NULL;
	Pb__ServiceSpec *s = NULL;
	struct err e = ERR_INIT;
	struct rng_seeded seed;

	if (json_parse(text, strlen(text), &j, &e) != 0 ||
	    json_to_msg(j, &pb__service_spec__descriptor, &s, &e) != 0)
		fail_msg("%s: %s", text, e.text);
	json_decref(j);
	service_spec_fill(s, rng_from_seed(&seed, 1));
	return s;
}

/* A spec with `task` in its TaskTemplate, `container` in its ContainerSpec, `more` at the top. */
static Pb__ServiceSpec *make(const char *container, const char *task, const char *more)
{
	char text[4096];

	snprintf(text, sizeof(text),
	    "{\"Name\":\"web\"%s,\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"nginx\"%s}%s}}", more,
	    container, task);
	return parse(text);
}

static void check(Pb__ServiceSpec *s, int code, const char *needle)
{
	struct store *st = store_new();
	struct err e = ERR_INIT;
	int r = service_spec_check(st, NULL, s, &e);

	if (r != code || (needle && !strstr(e.text, needle)))
		fail_msg("%d \"%s\", wanted %d \"%s\"", r, e.text, code, needle ? needle : "");
	pb_free(s);
	store_free(st);
}

#define CONTAINER(c, code, needle) check(make("," c, "", ""), code, needle)
#define TASK(t, code, needle)      check(make("", "," t, ""), code, needle)
#define SPEC(m, code, needle)      check(make("", "", "," m), code, needle)

static void test_names(void **state)
{
	char text[200];
	(void)state;

	check(parse("{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}}}"), 0, NULL); /* made up */
	check(parse("{\"Name\":\"a-b_C9\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}}}"), 0, NULL);
	check(parse("{\"Name\":\"-a\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}}}"), ERR_INVALID,
	    "DNS name");
	check(parse("{\"Name\":\"a.b\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}}}"), ERR_INVALID,
	    "DNS name");
	snprintf(text, sizeof(text),
	    "{\"Name\":\"%064d\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}}}", 1);
	check(parse(text), ERR_INVALID, "63 characters");
}

static void test_tasks(void **state)
{
	(void)state;
	check(parse("{\"Name\":\"a\"}"), ERR_INVALID, "TaskTemplate");
	check(parse("{\"Name\":\"a\",\"TaskTemplate\":{}}"), ERR_INVALID, "mismatched Runtime");
	check(parse("{\"Name\":\"a\",\"TaskTemplate\":{\"ContainerSpec\":{}}}"), ERR_INVALID,
	    "image reference must be provided");
	check(parse("{\"Name\":\"a\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"A B\"}}}"), ERR_INVALID,
	    "not a valid repository/tag");
	TASK("\"Runtime\":\"plugin\"", ERR_NOT_IMPLEMENTED, "Runtime \"plugin\"");
	TASK("\"Networks\":[{\"Target\":\"n\"}]", ERR_NOT_IMPLEMENTED, "TaskTemplate.Networks");
	SPEC("\"Networks\":[{\"Target\":\"n\"}]", ERR_NOT_IMPLEMENTED, "Networks");
	TASK(
	    "\"RestartPolicy\":{\"Condition\":\"none\",\"Delay\":0,\"MaxAttempts\":0,\"Window\":0}", 0, NULL);
	TASK("\"RestartPolicy\":{\"Delay\":-1}", ERR_INVALID, "restart-delay");
	TASK("\"RestartPolicy\":{\"Window\":-1}", ERR_INVALID, "restart-window");
	TASK("\"LogDriver\":{\"Name\":\"json-file\",\"Options\":{\"max-size\":\"1m\",\"max-file\":\"3\"}}", 0,
	    NULL);
	TASK("\"LogDriver\":{\"Name\":\"none\"}", 0, NULL);
	TASK("\"LogDriver\":{\"Name\":\"syslog\"}", ERR_NOT_IMPLEMENTED, "LogDriver \"syslog\"");
	TASK("\"LogDriver\":{\"Name\":\"json-file\",\"Options\":{\"labels\":\"x\"}}", ERR_NOT_IMPLEMENTED,
	    "\"labels\"");
	TASK("\"LogDriver\":{\"Name\":\"json-file\",\"Options\":{\"max-size\":\"big\"}}", ERR_INVALID,
	    "max-size");
	TASK("\"Placement\":{\"Constraints\":[\"node.role == "
	     "manager\"],\"Preferences\":[{\"Spread\":{\"SpreadDescriptor\":"
	     "\"node.labels.a\"}}]}",
	    0, NULL);
	TASK("\"Placement\":{\"Constraints\":[\"nonsense\"]}", ERR_INTERNAL, "constraint");
	TASK("\"Placement\":{\"Preferences\":[{}]}", ERR_INVALID, "SpreadDescriptor");
}

static void test_resources(void **state)
{
	(void)state;
	TASK(
	    "\"Resources\":{\"Limits\":{\"NanoCPUs\":1000000,\"MemoryBytes\":4194304,\"Pids\":10}}", 0, NULL);
	TASK("\"Resources\":{\"Limits\":{\"NanoCPUs\":999999}}", ERR_INVALID, "Must be at least 0.001");
	TASK("\"Resources\":{\"Reservations\":{\"NanoCPUs\":-5}}", ERR_INVALID, "Must be at least 0.001");
	TASK("\"Resources\":{\"Limits\":{\"MemoryBytes\":4194303}}", ERR_INVALID, "Must be at least 4MiB");
	TASK("\"Resources\":{\"Reservations\":{\"GenericResources\":[{\"DiscreteResourceSpec\":{\"Kind\":"
	     "\"gpu\",\"Value\":2}}]}}",
	    0, NULL);
	TASK("\"Resources\":{\"Reservations\":{\"GenericResources\":[{\"NamedResourceSpec\":{\"Kind\":"
	     "\"gpu\",\"Value\":\"x\"}}]}}",
	    ERR_INVALID, "generic resource");
}

static void test_containers(void **state)
{
	(void)state;
	CONTAINER("\"Secrets\":[{\"File\":{\"Name\":\"s\"},\"SecretID\":\"i\",\"SecretName\":\"n\"}]",
	    ERR_NOT_IMPLEMENTED, "Secrets");
	CONTAINER("\"Configs\":[{\"File\":{\"Name\":\"s\"},\"ConfigID\":\"i\",\"ConfigName\":\"n\"}]",
	    ERR_NOT_IMPLEMENTED, "Configs");
	CONTAINER("\"Isolation\":\"hyperv\"", ERR_NOT_IMPLEMENTED, "Isolation");
	CONTAINER("\"Env\":[\"A=b\",\"C\"]", 0, NULL);
	CONTAINER("\"Env\":[\"=b\"]", ERR_INVALID, "environment");
	CONTAINER("\"StopSignal\":\"SIGUSR1\",\"StopGracePeriod\":0", 0, NULL);
	CONTAINER("\"StopSignal\":\"quit\"", 0, NULL);
	CONTAINER("\"StopSignal\":\"15\"", 0, NULL);
	CONTAINER("\"StopSignal\":\"SIGNOPE\"", ERR_INVALID, "StopSignal");
	CONTAINER("\"StopGracePeriod\":-1", ERR_INVALID, "StopGracePeriod");
	CONTAINER("\"OomScoreAdj\":1001", ERR_INVALID, "OomScoreAdj");
	CONTAINER("\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":10,\"Hard\":5}]", ERR_INVALID, "ulimit");
	CONTAINER(
	    "\"Healthcheck\":{\"Test\":[\"CMD\",\"true\"],\"Interval\":1000000,\"Retries\":3}", 0, NULL);
	CONTAINER("\"Healthcheck\":{\"Test\":[\"NONE\"]}", 0, NULL);
	CONTAINER("\"Healthcheck\":{\"Test\":[\"true\"]}", ERR_INVALID, "NONE, CMD or CMD-SHELL");
	CONTAINER("\"Healthcheck\":{\"Test\":[\"CMD\"]}", ERR_INVALID, "without a command");
	CONTAINER("\"Healthcheck\":{\"Interval\":999999}", ERR_INVALID,
	    "Interval in HealthConfig cannot be less than 1ms");
	CONTAINER("\"Healthcheck\":{\"StartPeriod\":5}", ERR_INVALID, "StartPeriod");
	CONTAINER("\"Healthcheck\":{\"Retries\":-1}", ERR_INVALID, "Retries");
	CONTAINER("\"Privileges\":{\"CredentialSpec\":null,\"SELinuxContext\":null}", 0, NULL);
	CONTAINER(
	    "\"Privileges\":{\"CredentialSpec\":{\"File\":\"f\"}}", ERR_NOT_IMPLEMENTED, "CredentialSpec");
	CONTAINER(
	    "\"Privileges\":{\"SELinuxContext\":{\"Disable\":true}}", ERR_NOT_IMPLEMENTED, "SELinuxContext");
	CONTAINER("\"Privileges\":{\"AppArmor\":{\"Mode\":\"disabled\"}}", ERR_NOT_IMPLEMENTED, "AppArmor");
	CONTAINER("\"Privileges\":{\"AppArmor\":{\"Mode\":\"default\"},\"NoNewPrivileges\":true}", 0, NULL);
	CONTAINER("\"Privileges\":{\"Seccomp\":{\"Mode\":\"unconfined\"}}", 0, NULL);
	CONTAINER("\"Privileges\":{\"Seccomp\":{\"Mode\":\"custom\",\"Profile\":\"e30=\"}}", 0, NULL);
	CONTAINER("\"Privileges\":{\"Seccomp\":{\"Mode\":\"custom\"}}", ERR_INVALID, "Seccomp.Profile");
	CONTAINER("\"Privileges\":{\"Seccomp\":{\"Mode\":\"loose\"}}", ERR_INVALID, "Seccomp.Mode");
}

static void test_mounts(void **state)
{
	(void)state;
	CONTAINER("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/"
		  "b\",\"BindOptions\":{\"Propagation\":"
		  "\"rslave\"}},{\"Type\":\"tmpfs\",\"Target\":\"/"
		  "t\",\"TmpfsOptions\":{\"SizeBytes\":100,\"Mode\":1023}}]",
	    0, NULL);
	CONTAINER("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/"
		  "b\"},{\"Type\":\"tmpfs\",\"Target\":\"/b\"}]",
	    ERR_INVALID, "duplicate mount point: /b");
	CONTAINER("\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"v\",\"Target\":\"/b\"}]",
	    ERR_NOT_IMPLEMENTED, "type \"volume\"");
	CONTAINER("\"Mounts\":[{\"Type\":\"npipe\",\"Source\":\"v\",\"Target\":\"/b\"}]", ERR_NOT_IMPLEMENTED,
	    "npipe");
	CONTAINER("\"Mounts\":[{\"Type\":\"cluster\",\"Source\":\"v\",\"Target\":\"/b\"}]",
	    ERR_NOT_IMPLEMENTED, "cluster");
	CONTAINER("\"Mounts\":[{\"Type\":\"image\",\"Source\":\"v\",\"Target\":\"/b\"}]", ERR_NOT_IMPLEMENTED,
	    "image");
	CONTAINER("\"Mounts\":[{\"Type\":\"magic\",\"Target\":\"/b\"}]", ERR_INVALID, "mount type");
	CONTAINER("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"a\",\"Target\":\"/b\"}]", ERR_INVALID,
	    "absolute path: a");
	CONTAINER(
	    "\"Mounts\":[{\"Type\":\"bind\",\"Target\":\"/b\"}]", ERR_INVALID, "Source must not be empty");
	CONTAINER("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"b\"}]", ERR_INVALID,
	    "mount target");
	CONTAINER("\"Mounts\":[{\"Type\":\"tmpfs\",\"Source\":\"/a\",\"Target\":\"/b\"}]", ERR_INVALID,
	    "source must not");
	CONTAINER("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/"
		  "b\",\"BindOptions\":{\"Propagation\":\"x\"}}]",
	    ERR_INVALID, "propagation");
	CONTAINER("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/b\",\"VolumeOptions\":{}}]",
	    ERR_INVALID, "VolumeOptions");
	CONTAINER("\"Mounts\":[{\"Type\":\"tmpfs\",\"Target\":\"/"
		  "b\",\"TmpfsOptions\":{\"Options\":[[\"noexec\"]]}}]",
	    ERR_NOT_IMPLEMENTED, "TmpfsOptions.Options");
	CONTAINER(
	    "\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/b\",\"Consistency\":\"cached\"}]",
	    ERR_NOT_IMPLEMENTED, "Consistency");
}

static void test_modes(void **state)
{
	(void)state;
	SPEC("\"Mode\":{\"Replicated\":{\"Replicas\":0}}", 0, NULL);
	SPEC("\"Mode\":{\"Global\":{}}", 0, NULL);
	SPEC("\"Mode\":{\"Replicated\":{},\"Global\":{}}", ERR_INVALID, "only one service mode");
	SPEC("\"Mode\":{\"ReplicatedJob\":{}},\"UpdateConfig\":{\"Parallelism\":1}", ERR_INVALID, "jobs");
	SPEC("\"UpdateConfig\":{\"Parallelism\":0,\"FailureAction\":\"rollback\",\"MaxFailureRatio\":0.5,"
	     "\"Order\":\"start-first\"}",
	    0, NULL);
	SPEC("\"UpdateConfig\":{\"Delay\":-1}", ERR_INVALID, "update-delay");
	SPEC("\"UpdateConfig\":{\"Monitor\":-1}", ERR_INVALID, "update-monitor");
	SPEC("\"UpdateConfig\":{\"MaxFailureRatio\":1.5}", ERR_INVALID, "update-maxfailureratio");
	SPEC("\"RollbackConfig\":{\"FailureAction\":\"rollback\"}", ERR_INVALID, "RollbackConfig");
}

static void test_ports(void **state)
{
	(void)state;
	SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":8080},{\"TargetPort\":80,"
	     "\"PublishedPort\":8080,"
	     "\"Protocol\":\"udp\"},{\"TargetPort\":81},{\"TargetPort\":82}]}",
	    0, NULL);
	SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":8080},{\"TargetPort\":81,"
	     "\"PublishedPort\":8080}]}",
	    ERR_INVALID, "duplicate published ports");
	SPEC("\"EndpointSpec\":{\"Ports\":[{\"PublishedPort\":8080}]}", ERR_INVALID, "target port");
	SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":65536}]}", ERR_INVALID, "target port");
	SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":1,\"PublishedPort\":65536}]}", ERR_INVALID,
	    "published port");
	SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"Protocol\":\"sctp\"}]}", ERR_NOT_IMPLEMENTED,
	    "sctp");
	SPEC("\"EndpointSpec\":{\"Mode\":\"dnsrr\",\"Ports\":[{\"TargetPort\":80}]}", ERR_INVALID, "dnsrr");
	SPEC("\"EndpointSpec\":{\"Mode\":\"dnsrr\",\"Ports\":[{\"TargetPort\":80,\"PublishMode\":\"host\"}]}",
	    0, NULL);
}

static void same(const char *a, const char *b, bool want)
{
	Pb__ServiceSpec *x = parse(a), *y = parse(b);

	if (service_spec_same_tasks(x, y) != want)
		fail_msg("%s and %s: %s", a, b, want ? "should be the same" : "should differ");
	pb_free(x);
	pb_free(y);
}

static void test_same_tasks(void **state)
{
#define T(rest) "{\"Name\":\"a\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"i\"" rest
	(void)state;
	same(T("}}}"), T("}},\"Labels\":{\"x\":\"y\"},\"Mode\":{\"Replicated\":{\"Replicas\":9}}}"), true);
	same(T("}}}"),
	    T(",\"TTY\":false,\"Env\":[],\"DNSConfig\":{},\"Labels\":{}},\"Placement\":{},\"Resources\":{"
	      "\"Limits\":{},"
	      "\"Reservations\":{\"NanoCPUs\":0}},\"ForceUpdate\":0}}"),
	    true);
	same(T("}}}"), T("}},\"UpdateConfig\":{\"Parallelism\":2}}"), true);
	same(T("}}}"), T("}},\"EndpointSpec\":{\"Mode\":\"vip\"}}"), true);
	same(T("}}}"), T("},\"ForceUpdate\":1}}"), false);
	same(T("}}}"), T(",\"Env\":[\"A=b\"]}}}"), false);
	same(T("}}}"), T("}},\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80}]}}"), false);
	same(T("},\"RestartPolicy\":{\"Delay\":0}}}"), T("},\"RestartPolicy\":{}}}"), false);
	same(T(",\"StopGracePeriod\":0}}}"), T("}}}"), false);
	same(T("},\"Resources\":{\"Limits\":{\"MemoryBytes\":9000000}}}}"), T("}}}"), false);
#undef T
}

static void test_defaults(void **state)
{
	Pb__ServiceSpec *s = make("", ",\"RestartPolicy\":{\"Condition\":\"none\",\"Delay\":0}", "");
	(void)state;

	service_spec_insert_defaults(s);
	/* What was said explicitly stays. */
	assert_int_equal(s->task_template->restart_policy->condition, PB__RESTART_CONDITION__E__NONE);
	assert_int_equal(s->task_template->restart_policy->delay, 0);
	assert_int_equal(s->update_config->parallelism, 1);
	assert_int_equal(s->rollback_config->monitor, 5 * NS_PER_SEC);
	assert_false(s->update_config->has_delay);
	assert_int_equal(s->task_template->container_spec->stop_grace_period, 10 * NS_PER_SEC);
	pb_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_tasks),
	    cmocka_unit_test(test_resources),
	    cmocka_unit_test(test_containers),
	    cmocka_unit_test(test_mounts),
	    cmocka_unit_test(test_modes),
	    cmocka_unit_test(test_ports),
	    cmocka_unit_test(test_same_tasks),
	    cmocka_unit_test(test_defaults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
