/* Messages to Engine API JSON, and the small helpers around JSON values.
 *
 * json_from_msg walks the descriptor in field order. Nothing can fail: a message of ours always has a JSON
 * form (text that is no UTF-8, which jansson refuses, prints with the offending bytes replaced). */
#include "proto/json.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/json_schema.h"
#include "proto/objects.pb-c.h"

static json_t *encode_msg(const ProtobufCMessage *m);

/* jansson refuses text that is not UTF-8: what came from outside by another way than JSON (a hostname, an
 * error text) may be that. */
static json_t *encode_string(const char *s)
{
	json_t *j = json_string(s ? s : "");
	if (j)
		return j;
	char *copy = xstrdup(s);
	for (char *c = copy; *c != '\0'; c++) {
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	}
	j = json_string(copy);
	free(copy);
	return j;
}

/* The shortest decimal that reads back as the same float: 0.1, not 0.10000000149011612. */
static json_t *encode_float(float v)
{
	char text[48];

	if (!isfinite(v))
		return json_integer(0);
	if (v > -1e15f && v < 1e15f && v == (float)(int64_t)v)
		return json_integer((json_int_t)v);
	for (int digits = 1; digits <= FLT_DECIMAL_DIG; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, (double)v);
		if (strtof(text, NULL) == v)
			break;
	}
	return json_real(strtod(text, NULL));
}

static json_t *encode_u64(uint64_t v)
{
	/* JSON numbers are int64 in jansson; no count of ours comes near. */
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

const char *json_enum_word(const ProtobufCEnumDescriptor *d, int value, char *out, size_t cap)
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
	bool underscores = strcmp(d->name, "pb.UpdateState.E") == 0 || strcmp(d->name, "UpdateState.E") == 0;
	size_t n = 0;

	if (!v)
		return "unknown";
	for (const char *c = v->name; *c != '\0' && n + 1 < cap; c++)
		out[n++] = *c == '_' && !underscores ? '-' : (char)tolower((unsigned char)*c);
	if (cap > 0)
		out[n] = '\0';
	return out;
}

/* One element of a field; `p` points at the member. */
static json_t *encode_value(const ProtobufCFieldDescriptor *f, const void *p)
{
	char text[64];

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return json_integer(*(const int32_t *)p);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
		return json_integer(*(const int64_t *)p);
	case PROTOBUF_C_TYPE_SFIXED64:
		str_format_time(*(const int64_t *)p, text);
		return json_string(text);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)p);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		if (json_is_version(f))
			return json_pack("{s:o}", "Index", encode_u64(*(const uint64_t *)p));
		return encode_u64(*(const uint64_t *)p);
	case PROTOBUF_C_TYPE_FLOAT:
		return encode_float(*(const float *)p);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)p);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)p);
	case PROTOBUF_C_TYPE_ENUM:
		return json_string(json_enum_word(f->descriptor, *(const int *)p, text, sizeof(text)));
	case PROTOBUF_C_TYPE_STRING:
		return encode_string(*(char *const *)p);
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *b = p;
		char *s = str_base64(b->data, b->len);
		json_t *j = json_string_nocheck(s);
		free(s);
		return j;
	}
	case PROTOBUF_C_TYPE_MESSAGE: {
		const ProtobufCMessage *m = *(const ProtobufCMessage *const *)p;
		if (m)
			return encode_msg(m);
		/* What an absent message of this type looks like: all its always-present fields. */
		const ProtobufCMessageDescriptor *d = f->descriptor;
		ProtobufCMessage *empty = xcalloc(1, d->sizeof_message);
		d->message_init(empty);
		json_t *j = encode_msg(empty);
		free(empty);
		return j;
	}
	}
	return json_null();
}

static bool is_zero(const ProtobufCFieldDescriptor *f, const void *p)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		return str_empty(*(char *const *)p);
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)p)->len == 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(const void *const *)p == NULL;
	case PROTOBUF_C_TYPE_BOOL:
		return !*(const protobuf_c_boolean *)p;
	case PROTOBUF_C_TYPE_FLOAT:
		return *(const float *)p == 0.0f;
	case PROTOBUF_C_TYPE_DOUBLE:
		return *(const double *)p == 0.0;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_ENUM:
		return *(const uint32_t *)p == 0;
	default:
		return *(const uint64_t *)p == 0;
	}
}

static bool is_set(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m, const void *p)
{
	if (f->label == PROTOBUF_C_LABEL_REQUIRED)
		return true;
	if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(const void *const *)p != NULL;
	return *(const protobuf_c_boolean *)((const char *)m + f->quantifier_offset);
}

static json_t *encode_repeated(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m)
{
	size_t n = *(const size_t *)((const char *)m + f->quantifier_offset);
	const char *v = *(const char *const *)((const char *)m + f->offset);

	if (json_is_kv(f)) {
		json_t *o = json_object();
		for (size_t i = 0; i < n; i++) {
			const Pb__KV *kv = ((Pb__KV *const *)(const void *)v)[i];
			json_object_set_new(o, kv->key, encode_string(kv->value));
		}
		return o;
	}
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, encode_value(f, v + i * json_element_size(f)));
	return a;
}

static void encode_field(
    json_t *o, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct json_rule *rule)
{
	const void *p = (const char *)m + f->offset;
	enum json_show show = json_rule_show(rule, f);
	char name[JSON_NAME_MAX];

	if (f->label == PROTOBUF_C_LABEL_REPEATED) {
		if (*(const size_t *)((const char *)m + f->quantifier_offset) == 0 &&
		    show != JSON_SHOW_ALWAYS)
			return;
		json_field_name(f->name, name);
		json_object_set_new_nocheck(o, name, encode_repeated(f, m));
		return;
	}
	bool set = is_set(f, m, p);
	if (show == JSON_SHOW_SET && !set)
		return;
	if (show == JSON_SHOW_NONZERO && (!set || is_zero(f, p)))
		return;
	json_field_name(f->name, name);
	json_object_set_new_nocheck(
	    o, name, show == JSON_SHOW_NULL && !set ? json_null() : encode_value(f, p));
}

static json_t *encode_msg(const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	if (json_is_string_list(d))
		return encode_repeated(&d->fields[0], m);
	json_t *o = json_object();
	const struct json_rule *rule = json_rule_find(d);
	for (unsigned i = 0; i < d->n_fields; i++) {
		if (d->fields[i].id < JSON_FIELD_INTERNAL)
			encode_field(o, m, &d->fields[i], rule);
	}
	return o;
}

json_t *json_from_msg(const void *msg)
{
	ASSERT(msg);
	return encode_msg(msg);
}

int json_parse(const char *p, size_t n, json_t **ret, struct err *e)
{
	json_error_t je;

	while (n > 0 && isspace((unsigned char)*p)) {
		p++;
		n--;
	}
	if (n == 0) {
		*ret = json_object();
		return 0;
	}
	if (n > LIMIT_RPC_MESSAGE)
		return err_set(
		    e, ERR_TOO_LARGE, "JSON of %zu bytes is over the limit of %u", n, LIMIT_RPC_MESSAGE);
	/* jansson bounds the depth itself (2048). */
	json_t *j = json_loadb(p, n, JSON_DECODE_ANY, &je);
	if (!j)
		return err_set(
		    e, ERR_INVALID, "invalid JSON: line %d column %d: %s", je.line, je.column, je.text);
	*ret = j;
	return 0;
}

json_t *json_get(const json_t *o, const char *key)
{
	const char *k;
	json_t *v = json_object_get(o, key);

	if (!v && json_is_object(o)) {
		for (void *it = json_object_iter((json_t *)o); it;
		     it = json_object_iter_next((json_t *)o, it)) {
			k = json_object_iter_key(it);
			if (str_ieq(k, key)) {
				v = json_object_iter_value(it);
				break;
			}
		}
	}
	return json_is_null(v) ? NULL : v;
}
