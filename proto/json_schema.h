/* How the schema's fields look in the Engine API's JSON: names, and when they print. For json*.c only. */
#ifndef PROTO_JSON_SCHEMA_H
#define PROTO_JSON_SCHEMA_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#define JSON_NAME_MAX       80
#define JSON_FIELD_INTERNAL 100 /* fields from this number on never appear */

/* When a field prints. */
enum json_show {
	JSON_SHOW_NONZERO, /* Go's omitempty on a value: present and not zero, "" or empty */
	JSON_SHOW_SET,     /* Go's omitempty on a pointer: present, zero or not */
	JSON_SHOW_ALWAYS,  /* no omitempty: the zero value when absent */
	JSON_SHOW_NULL,    /* a pointer without omitempty: null when absent */
};

struct json_rule;
/* The rules of a message; NULL when it has none of its own. */
const struct json_rule *json_rule_find(const ProtobufCMessageDescriptor *d);
enum json_show json_rule_show(const struct json_rule *r, const ProtobufCFieldDescriptor *f);
/* "nano_cpus" -> "NanoCPUs". Cut at JSON_NAME_MAX, which no field of ours reaches. */
void json_field_name(const char *snake, char out[JSON_NAME_MAX]);

bool json_is_kv(const ProtobufCFieldDescriptor *f);            /* repeated KV: an object of strings */
bool json_is_string_list(const ProtobufCMessageDescriptor *d); /* an array of strings */
bool json_is_version(const ProtobufCFieldDescriptor *f);       /* a stored object's version: {"Index": n} */
size_t json_element_size(const ProtobufCFieldDescriptor *f);   /* in a repeated field */

#endif
