/* The JSON codec: every message of the schema survives the way out and back; lenient reading; exact
 * spellings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "proto/json.h"
#include "proto/json_schema.h"
#include "proto/objects.pb-c.h"

#define MSG(x) &pb__##x##__descriptor
static const ProtobufCMessageDescriptor *const all[] = {MSG(container_status), MSG(port_status),
    MSG(task_status), MSG(task), MSG(version), MSG(template), MSG(task_spec), MSG(driver),
    MSG(container_spec), MSG(privileges), MSG(credential_spec), MSG(selinux_context), MSG(seccomp_opts),
    MSG(app_armor_opts), MSG(mount), MSG(bind_options), MSG(volume_options), MSG(tmpfs_options),
    MSG(string_list), MSG(cluster_options), MSG(health_config), MSG(dnsconfig), MSG(file_target),
    MSG(runtime_target), MSG(secret_reference), MSG(config_reference), MSG(ulimit),
    MSG(resource_requirements), MSG(limit), MSG(resources), MSG(generic_resource), MSG(restart_policy),
    MSG(placement), MSG(network_attachment_config), MSG(service_spec), MSG(service_mode), MSG(update_config),
    MSG(endpoint_spec), MSG(port_config), MSG(endpoint), MSG(update_status), MSG(job_status), MSG(service),
    MSG(node_spec), MSG(tlsinfo), MSG(node_description), MSG(node_status), MSG(manager_status), MSG(node),
    MSG(cluster_spec), MSG(cluster), MSG(secret_spec), MSG(secret), MSG(config_spec), MSG(config),
    MSG(ipamconfig), MSG(ipam), MSG(network_spec), MSG(network), MSG(volume_spec), MSG(volume),
    MSG(join_tokens), MSG(network_attachment)};

static char *random_word(struct rng r)
{
	static const char *const words[] = {
	    "a", "web", "caf\xc3\xa9", "quote\"d", "back\\slash", "\n\t", "x y z"};
	return xasprintf(
	    "%s%llu", words[rng_below(r, ARRAY_LEN(words))], (unsigned long long)rng_below(r, 100000));
}

static ProtobufCMessage *random_msg(const ProtobufCMessageDescriptor *d, struct rng r, bool every);

static void random_value(const ProtobufCFieldDescriptor *f, void *p, struct rng r, bool every)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)p = every ? 1 : (protobuf_c_boolean)rng_below(r, 2);
		break;
	case PROTOBUF_C_TYPE_STRING:
		*(char **)p = random_word(r);
		break;
	case PROTOBUF_C_TYPE_BYTES: {
		ProtobufCBinaryData *b = p;
		b->len = 1 + rng_below(r, 40);
		b->data = xmalloc(b->len);
		r.fill(r.data, b->data, b->len);
		break;
	}
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)p = random_msg(f->descriptor, r, every);
		break;
	case PROTOBUF_C_TYPE_ENUM: {
		const ProtobufCEnumDescriptor *ed = f->descriptor;
		unsigned first = every && ed->n_values > 1 && ed->values[0].value == 0 ? 1 : 0;
		*(int *)p = ed->values[first + rng_below(r, ed->n_values - first)].value;
		break;
	}
	case PROTOBUF_C_TYPE_FLOAT:
		*(float *)p = (float)(1 + rng_below(r, 1000)) / 1000.0f;
		break;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_UINT32:
		*(uint32_t *)p = (uint32_t)(1 + rng_below(r, 0x7ffffffe));
		break;
	case PROTOBUF_C_TYPE_INT64:
		*(int64_t *)p = (int64_t)rng_below(r, INT64_MAX) - (every ? 0 : INT64_MAX / 2) + 1;
		break;
	case PROTOBUF_C_TYPE_SFIXED64:
		*(int64_t *)p = (int64_t)rng_below(r, 4000000000ull * 1000000000ull) + 1;
		break;
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)p = 1 + rng_below(r, INT64_MAX);
		break;
	default:
		fail_msg("field %s has a type that the test does not make", f->name);
	}
}

/* every: all fields of the API set and not zero; otherwise any subset and any value, internal fields
 * included. */
static ProtobufCMessage *random_msg(const ProtobufCMessageDescriptor *d, struct rng r, bool every)
{
	ProtobufCMessage *m = xcalloc(1, d->sizeof_message);

	d->message_init(m);
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		void *p = (char *)m + f->offset;
		if (f->label == PROTOBUF_C_LABEL_REQUIRED) {
			if (every && f->id >= JSON_FIELD_INTERNAL && f->type == PROTOBUF_C_TYPE_STRING)
				*(char **)p = xstrdup("");
			else
				random_value(f, p, r, every);
			continue;
		}
		if (every ? f->id >= JSON_FIELD_INTERNAL : rng_below(r, 2) == 0)
			continue;
		if (f->label == PROTOBUF_C_LABEL_OPTIONAL) {
			random_value(f, p, r, every);
			if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
				*(protobuf_c_boolean *)((char *)m + f->quantifier_offset) = 1;
			continue;
		}
		size_t n = 1 + rng_below(r, 3);
		/* The test's repeated fields are strings and messages; anything else would need its size
		 * here. */
		assert_true(f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE);
		void **v = xcalloc(n, sizeof(void *));
		for (size_t k = 0; k < n; k++)
			random_value(f, &v[k], r, every);
		if (json_is_kv(f)) {
			/* Keys of an object are unique. */
			for (size_t k = 0; k < n; k++) {
				Pb__KV *kv = v[k];
				free(kv->key);
				kv->key = xasprintf("key%zu", k);
			}
		}
		*(void ***)p = v;
		*(size_t *)(void *)((char *)m + f->quantifier_offset) = n;
	}
	return m;
}

static void test_round_trip_full(void **state)
{
	struct rng_seeded s;
	struct rng r = rng_from_seed(&s, 7);
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		for (int round = 0; round < 20; round++) {
			ProtobufCMessage *m = random_msg(all[i], r, true);
			json_t *j = json_from_msg(m);
			char *text = json_dumps(j, JSON_DUMP_FLAGS);
			json_t *parsed = NULL;
			ProtobufCMessage *back = NULL;
			struct err e = ERR_INIT;

			assert_non_null(text);
			assert_int_equal(json_parse(text, strlen(text), &parsed, &e), 0);
			if (json_to_msg(parsed, all[i], &back, &e) != 0)
				fail_msg("%s: %s in %s", all[i]->name, e.text, text);
			size_t n = protobuf_c_message_get_packed_size(m);
			size_t nb = protobuf_c_message_get_packed_size(back);
			uint8_t *a = xmalloc(n + 1), *b = xmalloc(nb + 1);
			protobuf_c_message_pack(m, a);
			protobuf_c_message_pack(back, b);
			if (n != nb || memcmp(a, b, n) != 0)
				fail_msg("%s changed on the way: %s", all[i]->name, text);
			free(a);
			free(b);
			free(text);
			json_decref(j);
			json_decref(parsed);
			protobuf_c_message_free_unpacked(m, NULL);
			protobuf_c_message_free_unpacked(back, NULL);
		}
	}
}

/* With any subset of fields: what is printed reads back to something that prints the same. */
static void test_round_trip_partial(void **state)
{
	struct rng_seeded s;
	struct rng r = rng_from_seed(&s, 11);
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		for (int round = 0; round < 50; round++) {
			ProtobufCMessage *m = random_msg(all[i], r, false), *back = NULL;
			json_t *j = json_from_msg(m);
			struct err e = ERR_INIT;
			if (json_to_msg(j, all[i], &back, &e) != 0)
				fail_msg("%s: %s", all[i]->name, e.text);
			json_t *again = json_from_msg(back);
			if (!json_equal(j, again)) {
				fail_msg("%s: %s became %s", all[i]->name, json_dumps(j, JSON_ENCODE_ANY),
				    json_dumps(again, JSON_ENCODE_ANY));
			}
			json_decref(j);
			json_decref(again);
			protobuf_c_message_free_unpacked(m, NULL);
			protobuf_c_message_free_unpacked(back, NULL);
		}
	}
}

static void test_names(void **state)
{
	static const char *const pairs[][2] = {{"id", "ID"}, {"nano_cpus", "NanoCPUs"}, {"tty", "TTY"},
	    {"dns_config", "DNSConfig"}, {"uid", "UID"}, {"gid", "GID"}, {"os", "OS"},
	    {"tls_info", "TLSInfo"}, {"ca_config", "CAConfig"}, {"external_cas", "ExternalCAs"},
	    {"url", "URL"}, {"ca_cert", "CACert"}, {"ipam", "IPAM"}, {"ip_range", "IPRange"},
	    {"virtual_ips", "VirtualIPs"}, {"pid", "PID"}, {"selinux_context", "SELinuxContext"},
	    {"app_armor", "AppArmor"}, {"enable_ipv4", "EnableIPv4"}, {"enable_ipv6", "EnableIPv6"},
	    {"secret_id", "SecretID"}, {"config_name", "ConfigName"}, {"signing_ca_cert", "SigningCACert"},
	    {"networks_attachments", "NetworksAttachments"}, {"oom_score_adj", "OomScoreAdj"},
	    {"network_id", "NetworkID"}, {"container_id", "ContainerID"},
	    {"named_resource_spec", "NamedResourceSpec"}, {"open_stdin", "OpenStdin"}, {"ulimits", "Ulimits"},
	    {"stop_grace_period", "StopGracePeriod"}, {"cert_issuer_public_key", "CertIssuerPublicKey"},
	    {"root_rotation_in_progress", "RootRotationInProgress"},
	    {"auxiliary_addresses", "AuxiliaryAddresses"}, {"isolation", "Isolation"},
	    {"identity", "Identity"}};
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		char name[JSON_NAME_MAX];
		json_field_name(pairs[i][0], name);
		assert_string_equal(name, pairs[i][1]);
	}
}

static char *reprint(const char *text, const ProtobufCMessageDescriptor *d)
{
	json_t *j = NULL;
	ProtobufCMessage *m = NULL;
	struct err e = ERR_INIT;

	if (json_parse(text, strlen(text), &j, &e) != 0 || json_to_msg(j, d, &m, &e) != 0)
		fail_msg("%s: %s", text, e.text);
	json_decref(j);
	j = json_from_msg(m);
	char *out = json_dumps(j, JSON_DUMP_FLAGS);
	json_decref(j);
	protobuf_c_message_free_unpacked(m, NULL);
	return out;
}

static void expect_print(const char *in, const ProtobufCMessageDescriptor *d, const char *want)
{
	char *got = reprint(in, d);
	assert_string_equal(got, want);
	free(got);
}

static void test_shapes(void **state)
{
	(void)state;
	expect_print(
	    "{}", MSG(service_spec), "{\"Labels\":{},\"TaskTemplate\":{\"ForceUpdate\":0},\"Mode\":{}}");
	expect_print("{\"mode\":{\"replicated\":{\"replicas\":0}},\"bogus\":[1,{}],\"name\":null}",
	    MSG(service_spec),
	    "{\"Labels\":{},\"TaskTemplate\":{\"ForceUpdate\":0},\"Mode\":{\"Replicated\":{\"Replicas\":0}}"
	    "}");
	expect_print("{\"Mode\":{\"Global\":{}}}", MSG(service_spec),
	    "{\"Labels\":{},\"TaskTemplate\":{\"ForceUpdate\":0},\"Mode\":{\"Global\":{}}}");
	expect_print("{\"Init\":false,\"TTY\":false,\"stopgraceperiod\":0,\"Env\":[]}", MSG(container_spec),
	    "{\"Init\":false,\"StopGracePeriod\":0}");
	expect_print("{\"SizeBytes\":5,\"Mode\":1023,\"Options\":[[\"noexec\"],[\"k\",\"v\"]]}",
	    MSG(tmpfs_options), "{\"SizeBytes\":5,\"Mode\":1023,\"Options\":[[\"noexec\"],[\"k\",\"v\"]]}");
	expect_print("{}", MSG(privileges),
	    "{\"CredentialSpec\":null,\"SELinuxContext\":null,\"NoNewPrivileges\":false}");
	expect_print("{\"Labels\":{\"a\":null,\"b\":\"2\"},\"Data\":\"aGk=\"}", MSG(config_spec),
	    "{\"Labels\":{\"a\":\"\",\"b\":\"2\"},\"Data\":\"aGk=\"}");
	expect_print("{\"Condition\":\"on-failure\",\"Delay\":0,\"MaxAttempts\":0,\"Window\":0}",
	    MSG(restart_policy), "{\"Condition\":\"on-failure\",\"Delay\":0,\"MaxAttempts\":0,\"Window\":0}");
	expect_print("{\"Parallelism\":0,\"FailureAction\":\"\",\"MaxFailureRatio\":0.1}", MSG(update_config),
	    "{\"Parallelism\":0,\"FailureAction\":\"pause\",\"MaxFailureRatio\":0.1,\"Order\":\"stop-"
	    "first\"}");
	expect_print("{\"State\":\"rollback_completed\"}", MSG(update_status),
	    "{\"State\":\"rollback_completed\",\"Message\":\"\"}");
	expect_print("{\"Timestamp\":\"2026-01-02T03:04:05.6+01:00\",\"State\":\"running\"}",
	    MSG(task_status),
	    "{\"Timestamp\":\"2026-01-02T02:04:05.6Z\",\"State\":\"running\",\"PortStatus\":{}}");
	expect_print("{\"Version\":{\"index\":12},\"ID\":\"x\",\"CreatedAt\":\"1970-01-01T00:00:00Z\"}",
	    MSG(secret),
	    "{\"ID\":\"x\",\"Version\":{\"Index\":12},\"CreatedAt\":\"1970-01-01T00:00:00Z\","
	    "\"UpdatedAt\":\"1970-01-01T00:00:00Z\",\"Spec\":{\"Labels\":{}}}");
	expect_print("", MSG(endpoint), "{\"Spec\":{}}");
}

static void expect_error(const char *in, const ProtobufCMessageDescriptor *d, const char *needle)
{
	json_t *j = NULL;
	ProtobufCMessage *m = NULL;
	struct err e = ERR_INIT;

	int r = json_parse(in, strlen(in), &j, &e);
	if (r == 0)
		r = json_to_msg(j, d, &m, &e);
	json_decref(j);
	assert_int_equal(r, ERR_INVALID);
	assert_null(m);
	if (!strstr(e.text, needle))
		fail_msg("\"%s\" does not say \"%s\"", e.text, needle);
}

static void test_errors(void **state)
{
	(void)state;
	expect_error("{\"TaskTemplate\":{\"ContainerSpec\":{\"TTY\":\"yes\"}}}", MSG(service_spec),
	    "TaskTemplate.ContainerSpec.TTY: expected a boolean, got a string");
	expect_error("{\"Mounts\":[{},{\"Target\":3}]}", MSG(container_spec), "Mounts[1].Target");
	expect_error("{\"Labels\":{\"a\":1}}", MSG(service_spec), "Labels.a");
	expect_error("{\"Labels\":[]}", MSG(service_spec), "Labels: expected an object of strings");
	expect_error("{\"Order\":\"sideways\"}", MSG(update_config), "stop-first, start-first");
	expect_error("{\"TargetPort\":-1}", MSG(port_config), "out of range");
	expect_error("{\"TargetPort\":1.5}", MSG(port_config), "whole number");
	expect_error("{\"TargetPort\":99999999999}", MSG(port_config), "out of range");
	expect_error("{\"Data\":\"!\"}", MSG(secret_spec), "base64");
	expect_error("{\"Env\":[1]}", MSG(container_spec), "Env[0]");
	expect_error("{\"Env\":\"A=b\"}", MSG(container_spec), "an array");
	expect_error("[]", MSG(service_spec), "expected an object");
	expect_error("{} x", MSG(service_spec), "invalid JSON");
	expect_error("{", MSG(service_spec), "invalid JSON");
	expect_error("{\"a\":\"\\u0000\"}", MSG(service_spec), "invalid JSON");
}

static void test_get(void **state)
{
	json_t *j = json_pack("{s:i,s:i,s:n}", "abc", 1, "ABC", 2, "Null");
	(void)state;
	assert_int_equal(json_integer_value(json_get(j, "ABC")), 2);
	assert_int_equal(json_integer_value(json_get(j, "Abc")), 1);
	assert_null(json_get(j, "Null"));
	assert_null(json_get(j, "none"));
	assert_null(json_get(NULL, "none"));
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip_full),
	    cmocka_unit_test(test_round_trip_partial),
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_shapes),
	    cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_get),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
