/* Any protobuf-c message to Engine API JSON and back, by descriptor. See proto/objects.proto for the
 * rules and json.c for the table of exceptions. */
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "base/err.h"

/* How to dump: compact, any value, floats without the noise of their last digits. */
#define JSON_DUMP_FLAGS (JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(12))

/* New reference. Absent optional fields are left out, apart from those that the contract wants always
 * (Labels {}, ...). Fields numbered 100 and above never appear. */
json_t *json_from_msg(const void *msg);
/* Reads leniently as Go does: keys without regard to case, unknown keys ignored, null is absent. Wrong types,
 * unknown enum words, numbers out of range: ERR_INVALID naming the field's path
 * ("TaskTemplate.ContainerSpec.TTY"). *ret is freed with protobuf_c_message_free_unpacked(m, NULL). */
int json_to_msg(const json_t *j, const ProtobufCMessageDescriptor *d, void *ret_msg, struct err *e);
/* Parses text: one value, nothing but space after it, depth and size bounded. Empty text gives {}. */
int json_parse(const char *p, size_t n, json_t **ret, struct err *e);
/* Case-insensitive lookup (first exact, then any case); NULL when absent or null. Borrowed. */
json_t *json_get(const json_t *o, const char *key);
/* The lower-case word of an enum value as the API prints it, or "unknown". */
const char *json_enum_word(const ProtobufCEnumDescriptor *d, int value, char *out, size_t cap);
/* 0 or ERR_INVALID. */
int json_enum_parse(const ProtobufCEnumDescriptor *d, const char *word, int *ret_value, struct err *e);

#endif
