/* Service specs from flags: every syntax that service create and update take, and what is refused. Also the
 * daemon's streams that the client takes apart, and registry credentials. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/auth.h"
#include "cli/frames.h"
#include "cli/jsonstream.h"
#include "cli/logs.h"
#include "cli/ports.h"
#include "cli/spec.h"

/* --- flags to specs ------------------------------------------------------------------------------ */

/* Parses "shoal service ..." (words by '|', as values have spaces) and applies it to spec, which begins as
 * `before`. */
static int apply(const char *words, const char *before, json_t **ret, struct err *e)
{
	struct cli c = {0};
	struct strlist l = STRLIST_INIT;
	bool help = false;
	strlist_split(&l, words, '|');
	char **argv = strlist_argv(&l);
	assert_int_equal(cli_parse(&c, &cli_root, (int)l.n, argv, &help), 0);
	json_t *spec = json_loads(before, 0, NULL);
	assert_non_null(spec);
	bool create = str_eq(c.cmd->name, "create");
	int r = spec_set_mode(&c, spec, create, e);
	if (r == 0)
		r = spec_set_scalars(&c, spec, e);
	if (r == 0)
		r = create ? spec_create_lists(&c, spec, e) : spec_update_lists(&c, spec, e);
	cli_done(&c);
	free(argv);
	strlist_done(&l);
	if (r < 0)
		json_decref(spec);
	else
		*ret = spec;
	return r;
}

static void check(const char *words, const char *before, const char *want)
{
	struct err e = ERR_INIT;
	json_t *got, *expected = json_loads(want, 0, NULL);
	assert_non_null(expected);
	if (apply(words, before, &got, &e) < 0)
		fail_msg("%s: %s", words, e.text);
	if (!json_equal(got, expected))
		fail_msg("%s:\n%s\nnot\n%s", words, json_dumps(got, JSON_SORT_KEYS),
		    json_dumps(expected, JSON_SORT_KEYS));
	json_decref(got);
	json_decref(expected);
}

static void refused(const char *words, const char *part)
{
	struct err e = ERR_INIT;
	json_t *got;
	if (apply(words, "{}", &got, &e) == 0)
		fail_msg("%s: not refused", words);
	if (!strstr(e.text, part))
		fail_msg("%s: \"%s\" has no \"%s\"", words, e.text, part);
}

#define CREATE "shoal|service|create|"
#define UPDATE "shoal|service|update|"
#define ONE    "\"Mode\":{\"Replicated\":{\"Replicas\":1}}"

static void test_modes(void **state)
{
	(void)state;
	check(CREATE "x", "{}", "{" ONE "}");
	check(CREATE "--replicas|0|x", "{}", "{\"Mode\":{\"Replicated\":{\"Replicas\":0}}}");
	check(CREATE "--mode|global|x", "{}", "{\"Mode\":{\"Global\":{}}}");
	check(CREATE "--mode|global-job|x", "{}", "{\"Mode\":{\"GlobalJob\":{}}}");
	check(CREATE "--mode|replicated-job|x", "{}",
	    "{\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":1,\"TotalCompletions\":1}}}");
	check(CREATE "--mode|replicated-job|--replicas|5|x", "{}",
	    "{\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":5,\"TotalCompletions\":5}}}");
	check(CREATE "--mode|replicated-job|--replicas|5|--max-concurrent|2|x", "{}",
	    "{\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":2,\"TotalCompletions\":5}}}");
	check(UPDATE "--replicas|4|x", "{" ONE "}", "{\"Mode\":{\"Replicated\":{\"Replicas\":4}}}");
	refused(CREATE "--mode|global|--replicas|2|x", "--replicas: a global service has one task a node");
	refused(CREATE "--max-concurrent|2|x", "--max-concurrent is for");
}

static void test_scalars(void **state)
{
	(void)state;
	check(CREATE "--user|1:2|--workdir|/"
		     "w|--hostname|h|--tty|--init|--read-only|--stop-signal|INT|--stop-grace-period|3s|"
		     "--oom-score-adj|-5|x",
	    "{}",
	    "{" ONE ",\"TaskTemplate\":{\"ContainerSpec\":{\"User\":\"1:2\",\"Dir\":\"/"
	    "w\",\"Hostname\":\"h\",\"TTY\":true,\"Init\":true,"
	    "\"ReadOnly\":true,\"StopSignal\":\"INT\",\"StopGracePeriod\":3000000000,\"OomScoreAdj\":-5}}}");
	check(CREATE "--limit-cpu|1.5|--limit-memory|1g|--limit-pids|9|--reserve-cpu|.25|--reserve-memory|8m|"
		     "--replicas-max-per-node|2|--endpoint-mode|dnsrr|x",
	    "{}",
	    "{" ONE ",\"TaskTemplate\":{\"Resources\":{\"Limits\":{\"NanoCPUs\":1500000000,\"MemoryBytes\":"
	    "1073741824,\"Pids\":9},"
	    "\"Reservations\":{\"NanoCPUs\":250000000,\"MemoryBytes\":8388608}},\"Placement\":{"
	    "\"MaxReplicas\":2}},"
	    "\"EndpointSpec\":{\"Mode\":\"dnsrr\"}}");
	/* One field of these brings the defaults of the others. */
	check(CREATE "--restart-condition|none|x", "{}",
	    "{" ONE ",\"TaskTemplate\":{\"RestartPolicy\":{\"Condition\":\"none\",\"Delay\":5000000000,"
	    "\"MaxAttempts\":0}}}");
	check(CREATE "--update-delay|1s|x", "{}",
	    "{" ONE ",\"UpdateConfig\":{\"Parallelism\":1,\"Delay\":1000000000,\"FailureAction\":\"pause\","
	    "\"Monitor\":5000000000,"
	    "\"MaxFailureRatio\":0.0,\"Order\":\"stop-first\"}}");
	check(UPDATE "--rollback-parallelism|0|x",
	    "{\"RollbackConfig\":{\"Parallelism\":3,\"Order\":\"start-first\"}}",
	    "{\"RollbackConfig\":{\"Parallelism\":0,\"Order\":\"start-first\"}}");
	check(CREATE "--entrypoint|sh -c 'a b' \"c d\" e\\ f|x", "{}",
	    "{" ONE
	    ",\"TaskTemplate\":{\"ContainerSpec\":{\"Command\":[\"sh\",\"-c\",\"a b\",\"c d\",\"e f\"]}}}");
	refused(CREATE "--entrypoint|sh 'x|x", "--entrypoint: a quote (') without its end");
	check(CREATE "--log-driver|json-file|--log-opt|max-size=1m|--log-opt|max-file=2|x", "{}",
	    "{" ONE ",\"TaskTemplate\":{\"LogDriver\":{\"Name\":\"json-file\",\"Options\":{\"max-size\":"
	    "\"1m\",\"max-file\":\"2\"}}}}");
	refused(CREATE "--log-opt|max|x", "--log-opt: \"max\" is not of the form");
}

static void test_health(void **state)
{
	(void)state;
	check(CREATE "--health-cmd|true && x|--health-interval|1s|--health-retries|2|x", "{}",
	    "{" ONE ",\"TaskTemplate\":{\"ContainerSpec\":{\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"true "
	    "&& x\"],\"Interval\":1000000000,"
	    "\"Retries\":2}}}}");
	check(CREATE "--no-healthcheck|x", "{}",
	    "{" ONE ",\"TaskTemplate\":{\"ContainerSpec\":{\"Healthcheck\":{\"Test\":[\"NONE\"]}}}}");
	check(UPDATE "--no-healthcheck=false|x",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Healthcheck\":{\"Test\":[\"NONE\"]}}}}",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{}}}");
	refused(CREATE "--no-healthcheck|--health-cmd|x|x", "conflicts");
}

#define C_(text) "{" ONE ",\"TaskTemplate\":{\"ContainerSpec\":{" text "}}}"

static void test_lists(void **state)
{
	(void)state;
	setenv("SHOAL_TEST_OWN", "mine", 1);
	check(CREATE "-e|A=1|-e|B=2|-e|A=3|-e|SHOAL_TEST_OWN|-e|SHOAL_TEST_UNSET|x", "{}",
	    C_("\"Env\":[\"B=2\",\"A=3\",\"SHOAL_TEST_OWN=mine\",\"SHOAL_TEST_UNSET\"]"));
	check(CREATE "--label|a=b|-l|c|--container-label|d=e=f|x", "{}",
	    "{" ONE ",\"Labels\":{\"a\":\"b\",\"c\":\"\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Labels\":{"
	    "\"d\":\"e=f\"}}}}");
	check(CREATE "--host|db:10.0.0.1|--host|db6:fe80::1|--dns|1.1.1.1|--dns-search|a.b|--dns-option|"
		     "ndots:2|--group|g|x",
	    "{}",
	    C_("\"Hosts\":[\"10.0.0.1 db\",\"fe80::1 "
	       "db6\"],\"DNSConfig\":{\"Nameservers\":[\"1.1.1.1\"],\"Search\":[\"a.b\"],"
	       "\"Options\":[\"ndots:2\"]},\"Groups\":[\"g\"]"));
	check(CREATE
	    "--sysctl|net.a=1|--ulimit|nofile=10:20|--ulimit|core=0|--cap-add|net_admin|--cap-drop|ALL|x",
	    "{}",
	    C_("\"Sysctls\":{\"net.a\":\"1\"},\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":10,\"Hard\":20},{"
	       "\"Name\":\"core\",\"Soft\":0,"
	       "\"Hard\":0}],\"CapabilityAdd\":[\"CAP_NET_ADMIN\"],\"CapabilityDrop\":[\"ALL\"]"));
	check(CREATE "--constraint|node.role==manager|--placement-pref|spread=node.labels.z|--generic-"
		     "resource|gpu=2|x",
	    "{}",
	    "{" ONE ",\"TaskTemplate\":{\"Placement\":{\"Constraints\":[\"node.role==manager\"],"
	    "\"Preferences\":[{\"Spread\":"
	    "{\"SpreadDescriptor\":\"node.labels.z\"}}]},\"Resources\":{\"Reservations\":{"
	    "\"GenericResources\":[{\"DiscreteResourceSpec\":"
	    "{\"Kind\":\"gpu\",\"Value\":2}}]}}}}");
	refused(CREATE "-e|=x|x", "--env: \"=x\" has no name");
	refused(CREATE "--host|db|x", "NAME:IP");
	refused(CREATE "--ulimit|nofile=x|x", "NAME=SOFT");
	refused(CREATE "--ulimit|nofile=3:2|x", "above the hard one");
	refused(CREATE "--sysctl|a|x", "key=value");
	refused(CREATE "--placement-pref|binpack=x|x", "spread=");
	refused(CREATE "--generic-resource|gpu|x", "KIND=N");
}

static void test_update_lists(void **state)
{
	(void)state;
	check(UPDATE "--env-rm|A|--env-add|B=9|--env-add|D=4|x",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Env\":[\"A=1\",\"B=2\",\"AA=3\"]}}}",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Env\":[\"AA=3\",\"B=9\",\"D=4\"]}}}");
	check(UPDATE "--label-rm|a|--label-add|b=2|x", "{\"Labels\":{\"a\":\"1\",\"b\":\"1\"}}",
	    "{\"Labels\":{\"b\":\"2\"}}");
	check(UPDATE "--publish-rm|80|--publish-add|81:80|x",
	    "{\"EndpointSpec\":{\"Ports\":[{\"Protocol\":\"tcp\",\"TargetPort\":80,\"PublishedPort\":8080,"
	    "\"PublishMode\":\"ingress\"}]}}",
	    "{\"EndpointSpec\":{\"Ports\":[{\"Protocol\":\"tcp\",\"TargetPort\":80,\"PublishedPort\":81,"
	    "\"PublishMode\":\"ingress\"}]}}");
	check(UPDATE "--mount-rm|/a|--mount-add|type=tmpfs,target=/b|x",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/"
	    "s\",\"Target\":\"/a\"}]}}}",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Mounts\":[{\"Type\":\"tmpfs\",\"Target\":\"/b\"}]}}}");
	check(UPDATE "--host-rm|db|x",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Hosts\":[\"1.1.1.1 db\",\"2.2.2.2 x\"]}}}",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"Hosts\":[\"2.2.2.2 x\"]}}}");
	check(UPDATE "--cap-drop|NET_ADMIN|x",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"CapabilityAdd\":[\"CAP_NET_ADMIN\"]}}}",
	    "{\"TaskTemplate\":{\"ContainerSpec\":{\"CapabilityAdd\":[],\"CapabilityDrop\":[\"CAP_NET_"
	    "ADMIN\"]}}}");
	check(UPDATE "--constraint-rm|a==b|--placement-pref-rm|spread=x|x",
	    "{\"TaskTemplate\":{\"Placement\":{\"Constraints\":[\"a==b\"],\"Preferences\":[{\"Spread\":{"
	    "\"SpreadDescriptor\":\"x\"}}]}}}",
	    "{\"TaskTemplate\":{\"Placement\":{\"Constraints\":[],\"Preferences\":[]}}}");
	refused(UPDATE "--publish-rm|80|x", "no published port fits \"80\"");
}

/* --- ports and mounts ---------------------------------------------------------------------------- */

static void port(const char *s, const char *want)
{
	struct err e = ERR_INIT;
	json_t *got = json_array(), *expected = json_loads(want, 0, NULL);
	if (ports_parse(s, got, &e) < 0)
		fail_msg("%s: %s", s, e.text);
	if (!json_equal(got, expected))
		fail_msg("%s: %s", s, json_dumps(got, JSON_SORT_KEYS));
	json_decref(got);
	json_decref(expected);
}

static void port_refused(const char *s, const char *part)
{
	struct err e = ERR_INIT;
	json_t *got = json_array();
	assert_int_equal(ports_parse(s, got, &e), ERR_INVALID);
	if (!strstr(e.text, part))
		fail_msg("%s: \"%s\" has no \"%s\"", s, e.text, part);
	json_decref(got);
}

#define PORT(proto, pub, tgt, mode)                                                                          \
	"{\"Protocol\":\"" proto "\",\"PublishedPort\":" #pub ",\"TargetPort\":" #tgt                        \
	",\"PublishMode\":\"" mode "\"}"

static void test_ports(void **state)
{
	(void)state;
	port("80:8000", "[" PORT("tcp", 80, 8000, "ingress") "]");
	port("53:53/udp", "[" PORT("udp", 53, 53, "ingress") "]");
	port("8000", "[{\"Protocol\":\"tcp\",\"TargetPort\":8000,\"PublishMode\":\"ingress\"}]");
	port("80-81:90-91", "[" PORT("tcp", 80, 90, "ingress") "," PORT("tcp", 81, 91, "ingress") "]");
	port("published=80,target=8000,protocol=udp,mode=host", "[" PORT("udp", 80, 8000, "host") "]");
	port("target=8000", "[{\"Protocol\":\"tcp\",\"TargetPort\":8000,\"PublishMode\":\"ingress\"}]");
	port_refused("127.0.0.1:80:80", "without an address");
	port_refused("0", "not a port");
	port_refused("70000:80", "not a port");
	port_refused("80-82:90-91", "differ in length");
	port_refused("82-80:1-3", "ends before it begins");
	port_refused("80/icmp", "not a protocol");
	port_refused("", "not a port");
	port_refused("published=80", "target=PORT is missing");
	port_refused("target=80,mode=magic", "ingress or host");
	port_refused("target=80,ip=1", "none of target");
	json_t *list = json_loads(
	    "[" PORT("tcp", 8101, 91, "ingress") "," PORT("tcp", 8100, 90, "ingress") "," PORT("tcp", 8101,
		91, "ingress") "," PORT("udp", 53, 53, "ingress") "," PORT("tcp", 1, 1, "host") "]",
	    0, NULL);
	CLEANUP_FREE char *text = ports_list(list, "ingress"), *host = ports_list(list, "host");
	assert_string_equal(text, "*:8100-8101->90-91/tcp, *:53->53/udp");
	assert_string_equal(host, "*:1->1/tcp");
	json_decref(list);
}

static void mount(const char *s, const char *want)
{
	struct err e = ERR_INIT;
	json_t *got, *expected = want ? json_loads(want, 0, NULL) : NULL;
	int r = mount_parse(s, &got, &e);
	if (!want) {
		assert_true(r < 0 && *e.text);
		return;
	}
	if (r < 0)
		fail_msg("%s: %s", s, e.text);
	assert_true(json_equal(got, expected));
	json_decref(got);
	json_decref(expected);
}

static void test_mounts(void **state)
{
	(void)state;
	mount("type=bind,source=/a,target=/b,readonly",
	    "{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/b\",\"ReadOnly\":true}");
	mount("type=bind,src=/a,dst=/b,ro=false,bind-propagation=rslave,bind-nonrecursive",
	    "{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/"
	    "b\",\"ReadOnly\":false,\"BindOptions\":{\"Propagation\":\"rslave\","
	    "\"NonRecursive\":true}}");
	mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1777",
	    "{\"Type\":\"tmpfs\",\"Target\":\"/t\",\"TmpfsOptions\":{\"SizeBytes\":1048576,\"Mode\":1023}}");
	mount("type=bind,\"source=/a,b\",target=/c",
	    "{\"Type\":\"bind\",\"Source\":\"/a,b\",\"Target\":\"/c\"}");
	mount("target=/x", NULL); /* a volume */
	mount("type=bind,source=/a", NULL);
	mount("type=bind,target=/a", NULL);
	mount("type=tmpfs,source=/a,target=/b", NULL);
	mount("type=bind,source=/a,target=/b,what=1", NULL);
	mount("type=bind,source=/a,target=/b,ro=maybe", NULL);
	mount("type=tmpfs,target=/b,tmpfs-mode=999", NULL);
	mount("type=tmpfs,target=/b,tmpfs-size=-1", NULL);
	mount("\"type=tmpfs", NULL);
}

/* --- streams ------------------------------------------------------------------------------------- */

struct seen {
	struct buf text;
};

static int on_frame(void *data, enum frame_stream stream, const char *p, size_t n, struct err *e)
{
	(void)e;
	struct seen *s = data;
	buf_printf(&s->text, "%d:%.*s;", (int)stream, (int)n, p);
	return 0;
}

static void test_frames(void **state)
{
	(void)state;
	static const char wire[] = "\1\0\0\0\0\0\0\3abc\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\2de";
	for (size_t step = 1; step < sizeof(wire); step++) {
		struct seen s = {BUF_INIT};
		struct frames f = {.frame = on_frame, .data = &s};
		for (size_t i = 0; i < sizeof(wire) - 1; i += step)
			assert_int_equal(frames_feed(&f, wire + i,
					     i + step < sizeof(wire) - 1 ? step : sizeof(wire) - 1 - i, NULL),
			    0);
		assert_string_equal(s.text.data, "1:abc;2:;2:de;");
		buf_done(&s.text);
		frames_done(&f);
	}
	struct err e = ERR_INIT;
	struct frames f = {.frame = on_frame};
	assert_true(frames_feed(&f, "\3\0\0\0\0\0\0\4oops", 12, &e) < 0);
	assert_non_null(strstr(e.text, "oops"));
	frames_done(&f);
	f = (struct frames){.frame = on_frame};
	assert_int_equal(frames_feed(&f, "HTTP/1.1", 8, &e), ERR_CORRUPT);
	frames_done(&f);
	f = (struct frames){.frame = on_frame};
	assert_int_equal(frames_feed(&f, "\1\0\0\0\x7f\0\0\0", 8, &e), ERR_CORRUPT);
	frames_done(&f);
}

static int on_object(void *data, json_t *o, struct err *e)
{
	(void)e;
	struct seen *s = data;
	buf_printf(&s->text, "%s;", jstr(o, "status"));
	return 0;
}

static void test_jsonstream(void **state)
{
	(void)state;
	static const char wire[] = "{\"status\":\"a\"}\r\n\n{\"status\":\"b\"}\n{\"sta";
	struct seen s = {BUF_INIT};
	struct jsonstream j = {.object = on_object, .data = &s};
	struct err e = ERR_INIT;
	for (size_t i = 0; i < sizeof(wire) - 1; i++)
		assert_int_equal(jsonstream_feed(&j, wire + i, 1, &e), 0);
	assert_string_equal(s.text.data, "a;b;");
	static const char rest[] = "tus\":\"c\"}\n{\"error\":\"boom\"}\n";
	assert_true(jsonstream_feed(&j, rest, strlen(rest), &e) < 0);
	assert_string_equal(e.text, "boom");
	assert_string_equal(s.text.data, "a;b;c;");
	jsonstream_done(&j);
	j = (struct jsonstream){.object = on_object, .data = &s};
	assert_int_equal(jsonstream_feed(&j, "nonsense\n", 9, &e), ERR_IO);
	jsonstream_done(&j);
	buf_done(&s.text);
}

/* --- the rest ------------------------------------------------------------------------------------ */

static void test_times(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	char *s;
	assert_int_equal(logs_time("1700000000", &s, &e), 0);
	assert_string_equal(s, "1700000000");
	free(s);
	assert_int_equal(logs_time("2023-11-14T22:13:20.5Z", &s, &e), 0);
	assert_string_equal(s, "1700000000.500000000");
	free(s);
	assert_int_equal(logs_time("10m", &s, &e), 0);
	free(s);
	assert_int_equal(logs_time("yesterday", &s, &e), ERR_INVALID);
}

static void test_filters(void **state)
{
	(void)state;
	struct strlist l = STRLIST_INIT;
	struct err e = ERR_INIT;
	char *s;
	assert_int_equal(api_filters(&l, NULL, &s, &e), 0);
	assert_string_equal(s, "");
	free(s);
	strlist_add(&l, "label=a=b");
	assert_int_equal(api_filters(&l, NULL, &s, &e), 0);
	assert_string_equal(s, "&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D");
	free(s);
	strlist_add(&l, "oops");
	assert_int_equal(api_filters(&l, NULL, &s, &e), ERR_INVALID);
	strlist_done(&l);
}

static void test_auth(void **state)
{
	(void)state;
	char dir[] = "/tmp/shoal-cli-XXXXXX";
	assert_non_null(mkdtemp(dir));
	setenv("DOCKER_CONFIG", dir, 1);
	char *header, *path = fs_path(dir, "config.json");
	struct err e = ERR_INIT;
	assert_int_equal(auth_header("r.example:5000/a/b:1", &header, &e), 0); /* no file */
	assert_string_equal(header, "e30=");
	free(header);
	static const char config[] = "{\"auths\":{\"r.example:5000\":{\"auth\":\"YW5uOmh1bnRlcjI=\"},\"bad."
				     "example\":{\"auth\":\"!\"}},"
				     "\"credHelpers\":{\"help.example\":\"pass\"},\"credsStore\":\"\"}";
	assert_int_equal(fs_write_atomic(path, config, strlen(config), 0600, &e), 0);
	assert_int_equal(auth_header("r.example:5000/a/b:1", &header, &e), 0);
	uint8_t *text;
	size_t n;
	assert_int_equal(str_unbase64_url(header, strlen(header), &text, &n, &e), 0);
	json_t *j = json_loadb((char *)text, n, 0, NULL);
	assert_string_equal(jstr(j, "username"), "ann");
	assert_string_equal(jstr(j, "password"), "hunter2");
	assert_string_equal(jstr(j, "serveraddress"), "r.example:5000");
	json_decref(j);
	free(text);
	free(header);
	assert_int_equal(auth_header("redis", &header, &e), 0);
	assert_string_equal(header, "e30=");
	free(header);
	assert_int_equal(auth_header("help.example/x", &header, &e), ERR_NOT_IMPLEMENTED);
	assert_non_null(strstr(e.text, "credential helper"));
	assert_int_equal(auth_header("bad.example/x", &header, &e), ERR_INVALID);
	assert_null(strstr(e.text, "hunter2"));
	CLEANUP_FREE char *hub = auth_registry("library/redis"), *local = auth_registry("localhost/x");
	assert_string_equal(hub, "docker.io");
	assert_string_equal(local, "localhost");
	free(path);
	assert_int_equal(fs_remove_tree(dir, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_modes), cmocka_unit_test(test_scalars),
	    cmocka_unit_test(test_health), cmocka_unit_test(test_lists), cmocka_unit_test(test_update_lists),
	    cmocka_unit_test(test_ports), cmocka_unit_test(test_mounts), cmocka_unit_test(test_frames),
	    cmocka_unit_test(test_jsonstream), cmocka_unit_test(test_times), cmocka_unit_test(test_filters),
	    cmocka_unit_test(test_auth)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
