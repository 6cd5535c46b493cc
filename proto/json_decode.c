/* Engine API JSON to messages, as leniently as Go's decoder: keys match in any case, unknown keys are
 * ignored, null is absent. What has the wrong type is an error that names the field by its path.
 *
 * json_to_msg builds the message with malloc'ed parts, so that protobuf-c's own free routine releases it; on
 * an error it releases what was built. Recursion is bounded by the schema, which has no message inside
 * itself. */
#include "proto/json.h"

#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/json_schema.h"
#include "proto/objects.pb-c.h"

/* Where we are, innermost first; printed only when something is wrong. */
struct path {
	const struct path *up;
	const char *name;
	ssize_t index; /* -1: no array element */
};

static void path_print(const struct path *p, struct buf *out)
{
	if (!p)
		return;
	path_print(p->up, out);
	if (p->index >= 0) {
		buf_printf(out, "[%zd]", p->index);
		return;
	}
	if (out->len > 0)
		buf_putc(out, '.');
	buf_puts(out, p->name);
}

static int wrong(const struct path *p, struct err *e, const char *what)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	path_print(p, &text);
	if (text.len == 0)
		buf_puts(&text, "body");
	return err_set(e, ERR_INVALID, "invalid JSON: %s: %s", text.data, what);
}

static const char *type_name(const json_t *j)
{
	switch (json_typeof(j)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something else";
}

static int expected(const struct path *p, const json_t *got, const char *want, struct err *e)
{
	char text[96];

	snprintf(text, sizeof(text), "expected %s, got %s", want, type_name(got));
	return wrong(p, e, text);
}

int json_enum_parse(const ProtobufCEnumDescriptor *d, const char *word, int *ret_value, struct err *e)
{
	for (unsigned i = 0; i < d->n_values; i++) {
		const char *a = d->values[i].name, *b = word;
		/* Words come with dashes; those with underscores are read as well. */
		for (; *a != '\0' && *b != '\0'; a++, b++) {
			char c = *b == '-' ? '_' : *b;
			if (c >= 'a' && c <= 'z')
				c = (char)(c - 'a' + 'A');
			if (c != *a)
				break;
		}
		if (*a == '\0' && *b == '\0') {
			*ret_value = d->values[i].value;
			return 0;
		}
	}
	struct buf known CLEANUP_BUF = BUF_INIT;
	char text[64];
	for (unsigned i = 0; i < d->n_values; i++)
		buf_printf(
		    &known, "%s%s", i ? ", " : "", json_enum_word(d, d->values[i].value, text, sizeof(text)));
	return err_set(e, ERR_INVALID, "\"%.64s\" is none of %s", word, known.data);
}

static int decode_into(const json_t *j, const ProtobufCMessageDescriptor *d, ProtobufCMessage *m,
    const struct path *path, struct err *e);

static int decode_msg(const json_t *j, const ProtobufCMessageDescriptor *d, const struct path *path,
    ProtobufCMessage **ret, struct err *e)
{
	ProtobufCMessage *m = xcalloc(1, d->sizeof_message);

	d->message_init(m);
	int r = decode_into(j, d, m, path, e);
	if (r < 0) {
		protobuf_c_message_free_unpacked(m, NULL);
		return r;
	}
	*ret = m;
	return 0;
}

static int decode_int(
    const json_t *j, int64_t min, int64_t max, const struct path *path, int64_t *ret, struct err *e)
{
	char text[96];

	if (!json_is_integer(j))
		return expected(path, j, "a whole number", e);
	json_int_t v = json_integer_value(j);
	if (v < min || v > max) {
		snprintf(text, sizeof(text), "%lld is out of range (%lld to %lld)", (long long)v,
		    (long long)min, (long long)max);
		return wrong(path, e, text);
	}
	*ret = v;
	return 0;
}

static int decode_bytes(const json_t *j, const struct path *path, ProtobufCBinaryData *ret, struct err *e)
{
	if (!json_is_string(j))
		return expected(path, j, "a base64 string", e);
	if (str_unbase64(json_string_value(j), json_string_length(j), &ret->data, &ret->len, NULL) < 0)
		return wrong(path, e, "not valid base64");
	return 0;
}

/* One element; `p` points at the member, which is zero. *ret_absent: the value means "not given". */
static int decode_value(const json_t *j, const ProtobufCFieldDescriptor *f, const struct path *path, void *p,
    bool *ret_absent, struct err *e)
{
	struct err sub = ERR_INIT;
	int64_t v = 0;
	int r;

	*ret_absent = false;
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		r = decode_int(j, INT32_MIN, INT32_MAX, path, &v, e);
		*(int32_t *)p = (int32_t)v;
		return r;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
		return decode_int(j, INT64_MIN, INT64_MAX, path, p, e);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		r = decode_int(j, 0, UINT32_MAX, path, &v, e);
		*(uint32_t *)p = (uint32_t)v;
		return r;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		if (json_is_version(f)) {
			if (!json_is_object(j))
				return expected(path, j, "an object with an Index", e);
			j = json_get(j, "Index");
			if (!j)
				return 0;
		}
		r = decode_int(j, 0, INT64_MAX, path, &v, e);
		*(uint64_t *)p = (uint64_t)v;
		return r;
	case PROTOBUF_C_TYPE_SFIXED64:
		if (!json_is_string(j))
			return expected(path, j, "a time", e);
		if (str_parse_time(json_string_value(j), p, NULL) < 0)
			return wrong(path, e, "not an RFC 3339 time");
		return 0;
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		if (!json_is_number(j))
			return expected(path, j, "a number", e);
		if (f->type == PROTOBUF_C_TYPE_DOUBLE) {
			*(double *)p = json_number_value(j);
			return 0;
		}
		*(float *)p = (float)json_number_value(j);
		return isfinite(*(float *)p) ? 0 : wrong(path, e, "out of range");
	case PROTOBUF_C_TYPE_BOOL:
		if (!json_is_boolean(j))
			return expected(path, j, "a boolean", e);
		*(protobuf_c_boolean *)p = json_is_true(j);
		return 0;
	case PROTOBUF_C_TYPE_ENUM:
		if (!json_is_string(j))
			return expected(path, j, "a string", e);
		/* Clients send "" for "your default". */
		if (json_string_length(j) == 0) {
			*ret_absent = true;
			return 0;
		}
		if (json_enum_parse(f->descriptor, json_string_value(j), p, &sub) < 0)
			return wrong(path, e, sub.text);
		return 0;
	case PROTOBUF_C_TYPE_STRING:
		if (!json_is_string(j))
			return expected(path, j, "a string", e);
		*(char **)p = xstrdup(json_string_value(j));
		return 0;
	case PROTOBUF_C_TYPE_BYTES:
		return decode_bytes(j, path, p, e);
	case PROTOBUF_C_TYPE_MESSAGE:
		return decode_msg(j, f->descriptor, path, p, e);
	}
	return wrong(path, e, "unsupported type");
}

/* An object of strings. A null value is an empty string, as in Go. */
static int decode_kv(const json_t *j, size_t *n, void *member, const struct path *path, struct err *e)
{
	const char *key;
	json_t *value;

	if (!json_is_object(j))
		return expected(path, j, "an object of strings", e);
	if (json_object_size(j) == 0)
		return 0;
	Pb__KV **v = xcalloc(json_object_size(j), sizeof(*v));
	*(Pb__KV ***)member = v;
	json_object_foreach((json_t *)j, key, value)
	{
		struct path here = {path, key, -1};
		if (!json_is_string(value) && !json_is_null(value))
			return expected(&here, value, "a string", e);
		Pb__KV *kv = xmalloc(sizeof(*kv));
		pb__kv__init(kv);
		kv->key = xstrdup(key);
		kv->value = xstrdup(json_is_null(value) ? "" : json_string_value(value));
		v[(*n)++] = kv;
	}
	return 0;
}

static int decode_repeated(const json_t *j, const ProtobufCFieldDescriptor *f, ProtobufCMessage *m,
    const struct path *path, struct err *e)
{
	size_t *n = (size_t *)(void *)((char *)m + f->quantifier_offset);
	void *member = (char *)m + f->offset;

	if (json_is_kv(f))
		return decode_kv(j, n, member, path, e);
	if (!json_is_array(j))
		return expected(path, j, "an array", e);
	if (json_array_size(j) == 0)
		return 0;
	char *v = xcalloc(json_array_size(j), json_element_size(f));
	*(char **)member = v;
	for (size_t i = 0; i < json_array_size(j); i++) {
		struct path here = {path, NULL, (ssize_t)i};
		const json_t *el = json_array_get(j, i);
		void *p = v + i * json_element_size(f);
		bool absent;
		int r;
		if (json_is_null(el) && f->type == PROTOBUF_C_TYPE_STRING) {
			*(char **)p = xstrdup("");
		} else if (json_is_null(el) && f->type == PROTOBUF_C_TYPE_MESSAGE &&
			   !json_is_string_list(f->descriptor)) {
			json_t *empty = json_object();
			r = decode_msg(empty, f->descriptor, &here, p, e);
			json_decref(empty);
			if (r < 0)
				return r;
		} else {
			r = decode_value(el, f, &here, p, &absent, e);
			if (r < 0)
				return r;
		}
		(*n)++;
	}
	return 0;
}

static int decode_field(const json_t *j, const ProtobufCFieldDescriptor *f, ProtobufCMessage *m,
    const struct path *path, struct err *e)
{
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return decode_repeated(j, f, m, path, e);
	bool absent = false;
	int r = decode_value(j, f, path, (char *)m + f->offset, &absent, e);
	if (r == 0 && !absent && f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING &&
	    f->type != PROTOBUF_C_TYPE_MESSAGE)
		*(protobuf_c_boolean *)((char *)m + f->quantifier_offset) = 1;
	return r;
}

/* Required parts that the JSON did not have: a message without them could not be packed. */
static int fill_required(
    const ProtobufCFieldDescriptor *f, ProtobufCMessage *m, const struct path *path, struct err *e)
{
	void *p = (char *)m + f->offset;

	if (f->label != PROTOBUF_C_LABEL_REQUIRED)
		return 0;
	if (f->type == PROTOBUF_C_TYPE_STRING && !*(char **)p)
		*(char **)p = xstrdup("");
	if (f->type == PROTOBUF_C_TYPE_MESSAGE && !*(void **)p) {
		json_t *empty = json_object();
		int r = decode_msg(empty, f->descriptor, path, p, e);
		json_decref(empty);
		return r;
	}
	return 0;
}

static int decode_into(const json_t *j, const ProtobufCMessageDescriptor *d, ProtobufCMessage *m,
    const struct path *path, struct err *e)
{
	if (json_is_string_list(d))
		return decode_repeated(j, &d->fields[0], m, path, e);
	if (!json_is_object(j))
		return expected(path, j, "an object", e);
	size_t left = json_object_size(j);
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		char name[JSON_NAME_MAX];
		int r;
		if (left > 0 && f->id < JSON_FIELD_INTERNAL) {
			json_field_name(f->name, name);
			json_t *v = json_object_get(j, name);
			if (v)
				left--;
			else
				v = json_get(j, name);
			if (v && !json_is_null(v)) {
				struct path here = {path, name, -1};
				r = decode_field(v, f, m, &here, e);
				if (r < 0)
					return r;
			}
		}
		r = fill_required(f, m, path, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int json_to_msg(const json_t *j, const ProtobufCMessageDescriptor *d, void *ret_msg, struct err *e)
{
	return decode_msg(j, d, NULL, ret_msg, e);
}
