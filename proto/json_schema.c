/* The Engine API's naming and its exceptions.
 *
 * A field's name is its schema name with each word capitalised; the words of one table keep their own
 * spelling (ID, CPUs). Whether a zero value prints follows Go's tags in the Engine API's published types:
 * most fields have omitempty on a plain value, the rest are listed here by message. */
#include "proto/json_schema.h"

#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/objects.pb-c.h"

static const struct {
	const char *snake, *name;
} words[] = {
    {"app", "App"},
    {"ca", "CA"},
    {"cas", "CAs"},
    {"cpus", "CPUs"},
    {"csi", "CSI"},
    {"dns", "DNS"},
    {"gid", "GID"},
    {"id", "ID"},
    {"ids", "IDs"},
    {"ip", "IP"},
    {"ipam", "IPAM"},
    {"ips", "IPs"},
    {"ipv4", "IPv4"},
    {"ipv6", "IPv6"},
    {"os", "OS"},
    {"pid", "PID"},
    {"selinux", "SELinux"},
    {"tls", "TLS"},
    {"tty", "TTY"},
    {"uid", "UID"},
    {"url", "URL"},
    {"vni", "VNI"},
};

void json_field_name(const char *snake, char out[JSON_NAME_MAX])
{
	size_t n = 0;

	while (*snake != '\0') {
		const char *end = strchr(snake, '_');
		size_t len = end ? (size_t)(end - snake) : strlen(snake);
		const char *word = NULL;
		/* All words of the table are short: longer ones need not be looked up. */
		if (len <= 7) {
			for (size_t i = 0; i < ARRAY_LEN(words); i++) {
				if (words[i].snake[0] == snake[0] &&
				    strncmp(words[i].snake, snake, len) == 0 && words[i].snake[len] == '\0')
					word = words[i].name;
			}
		}
		for (size_t i = 0; i < len && n < JSON_NAME_MAX - 1; i++) {
			char c = word ? word[i] : snake[i];
			out[n++] = i == 0 ? (char)toupper((unsigned char)c) : c;
		}
		snake += len + (end ? 1 : 0);
	}
	out[n] = '\0';
}

#define LIST_MAX 10
struct json_rule {
	const ProtobufCMessageDescriptor *d;
	const char *always[LIST_MAX]; /* no omitempty */
	const char *set[LIST_MAX];    /* omitempty on a pointer */
	const char *null[LIST_MAX];   /* a pointer without omitempty */
};

static const struct json_rule rules[] = {
    {&pb__object_head__descriptor, {"id", "version", "created_at", "updated_at"}, {0}, {0}},
    {&pb__version__descriptor, {0}, {0}, {0}},
    /* tasks */
    {&pb__container_status__descriptor, {"container_id", "pid", "exit_code"}, {0}, {0}},
    {&pb__task_status__descriptor, {"timestamp", "state", "port_status"}, {0}, {0}},
    {&pb__task__descriptor, {"id", "version", "created_at", "updated_at", "status", "desired_state"}, {0},
	{0}},
    {&pb__template__descriptor, {"id", "version", "created_at", "updated_at", "spec"}, {0}, {0}},
    {&pb__task_spec__descriptor, {"force_update"}, {0}, {0}},
    {&pb__container_spec__descriptor, {0}, {"init", "stop_grace_period"}, {0}},
    {&pb__privileges__descriptor, {"no_new_privileges"}, {0}, {"credential_spec", "selinux_context"}},
    {&pb__credential_spec__descriptor, {"config", "file", "registry"}, {0}, {0}},
    {&pb__selinux_context__descriptor, {"disable", "user", "role", "type", "level"}, {0}, {0}},
    {&pb__file_target__descriptor, {"name", "uid", "gid", "mode"}, {0}, {0}},
    {&pb__secret_reference__descriptor, {"secret_id", "secret_name"}, {0}, {"file"}},
    {&pb__config_reference__descriptor, {"config_id", "config_name"}, {0}, {0}},
    {&pb__ulimit__descriptor, {"name", "hard", "soft"}, {0}, {0}},
    {&pb__restart_policy__descriptor, {0}, {"condition", "delay", "max_attempts", "window"}, {0}},
    {&pb__spread_over__descriptor, {"spread_descriptor"}, {0}, {0}},
    /* services */
    {&pb__service_spec__descriptor, {"labels", "task_template", "mode"}, {0}, {0}},
    {&pb__replicated_service__descriptor, {0}, {"replicas"}, {0}},
    {&pb__replicated_job__descriptor, {0}, {"max_concurrent", "total_completions"}, {0}},
    {&pb__update_config__descriptor, {"parallelism", "failure_action", "max_failure_ratio", "order"}, {0},
	{0}},
    {&pb__endpoint_spec__descriptor, {0}, {"mode"}, {0}},
    {&pb__port_config__descriptor, {0}, {"protocol", "publish_mode"}, {0}},
    {&pb__endpoint__descriptor, {"spec"}, {0}, {0}},
    {&pb__update_status__descriptor, {"message"}, {"state", "started_at", "completed_at"}, {0}},
    {&pb__job_status__descriptor, {"job_iteration"}, {"last_execution"}, {0}},
    {&pb__service__descriptor, {"id", "version", "created_at", "updated_at", "spec", "endpoint"}, {0}, {0}},
    /* nodes */
    {&pb__node_spec__descriptor, {"labels"}, {"role", "availability"}, {0}},
    {&pb__node_description__descriptor, {"platform", "resources", "engine", "tls_info"}, {0}, {0}},
    {&pb__node_status__descriptor, {0}, {"state"}, {0}},
    {&pb__manager_status__descriptor, {0}, {"reachability"}, {0}},
    {&pb__node__descriptor, {"id", "version", "created_at", "updated_at", "spec", "description", "status"},
	{0}, {0}},
    /* cluster */
    {&pb__orchestration_config__descriptor, {0}, {"task_history_retention_limit"}, {0}},
    {&pb__raft_config__descriptor, {"election_tick", "heartbeat_tick"}, {"keep_old_snapshots"}, {0}},
    {&pb__external_ca__descriptor, {"protocol", "url", "ca_cert"}, {0}, {0}},
    {&pb__encryption_config__descriptor, {"auto_lock_managers"}, {0}, {0}},
    {&pb__cluster_spec__descriptor,
	{"labels", "orchestration", "raft", "dispatcher", "ca_config", "encryption_config", "task_defaults"},
	{0}, {0}},
    {&pb__cluster__descriptor,
	{"id", "version", "created_at", "updated_at", "spec", "tls_info", "root_rotation_in_progress",
	    "default_addr_pool", "subnet_size", "data_path_port"},
	{0}, {0}},
    /* the rest */
    {&pb__secret_spec__descriptor, {"labels"}, {0}, {0}},
    {&pb__secret__descriptor, {"id", "version", "created_at", "updated_at", "spec"}, {0}, {0}},
    {&pb__config_spec__descriptor, {"labels"}, {0}, {0}},
    {&pb__config__descriptor, {"id", "version", "created_at", "updated_at", "spec"}, {0}, {0}},
    {&pb__network_spec__descriptor, {"labels"}, {"enable_ipv4", "enable_ipv6"}, {0}},
    {&pb__network__descriptor, {"id", "version", "created_at", "updated_at", "spec"}, {0}, {0}},
    {&pb__volume_spec__descriptor, {"labels"}, {0}, {0}},
    {&pb__volume__descriptor, {"id", "version", "created_at", "updated_at", "spec"}, {0}, {0}},
};

const struct json_rule *json_rule_find(const ProtobufCMessageDescriptor *d)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		if (rules[i].d == d)
			return &rules[i];
	}
	return NULL;
}

static bool listed(const char *const list[LIST_MAX], const char *name)
{
	for (size_t i = 0; i < LIST_MAX && list[i]; i++) {
		if (strcmp(list[i], name) == 0)
			return true;
	}
	return false;
}

enum json_show json_rule_show(const struct json_rule *r, const ProtobufCFieldDescriptor *f)
{
	if (!r)
		return JSON_SHOW_NONZERO;
	if (listed(r->always, f->name))
		return JSON_SHOW_ALWAYS;
	if (listed(r->set, f->name))
		return JSON_SHOW_SET;
	if (listed(r->null, f->name))
		return JSON_SHOW_NULL;
	return JSON_SHOW_NONZERO;
}

bool json_is_kv(const ProtobufCFieldDescriptor *f)
{
	return f->type == PROTOBUF_C_TYPE_MESSAGE && f->label == PROTOBUF_C_LABEL_REPEATED &&
	       f->descriptor == &pb__kv__descriptor;
}

bool json_is_string_list(const ProtobufCMessageDescriptor *d)
{
	return d == &pb__string_list__descriptor;
}

bool json_is_version(const ProtobufCFieldDescriptor *f)
{
	return f->type == PROTOBUF_C_TYPE_UINT64 && f->id == 2 && strcmp(f->name, "version") == 0;
}

size_t json_element_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_ENUM:
		return 4;
	default:
		return 8;
	}
}
