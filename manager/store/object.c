/* Objects: one block of memory each, immutable, counted.
 *
 * object_decode unpacks into scratch memory and then copies, guided by the message's descriptor, into a
 * block of exactly the right size: node header, structs and arrays (8-aligned), then strings and bytes.
 * Fields that repeat between objects (interned_field) point outside the block, into the pool. The only
 * failure is bytes that do not decode. */
#include <stddef.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "manager/store/internal.h"

#define HEAD_FITS(type)                                                                                      \
	_Static_assert(offsetof(type, id) == offsetof(Pb__ObjectHead, id) &&                                 \
			   offsetof(type, version) == offsetof(Pb__ObjectHead, version) &&                   \
			   offsetof(type, updated_at) == offsetof(Pb__ObjectHead, updated_at),               \
	    #type " begins with ObjectHead")
HEAD_FITS(Pb__Cluster);
HEAD_FITS(Pb__Node);
HEAD_FITS(Pb__Service);
HEAD_FITS(Pb__Task);
HEAD_FITS(Pb__Template);
HEAD_FITS(Pb__Network);
HEAD_FITS(Pb__Secret);
HEAD_FITS(Pb__Config);
HEAD_FITS(Pb__Volume);

static const struct {
	const ProtobufCMessageDescriptor *desc;
	const char *name;
} kinds[OBJ_KINDS] = {
    [OBJ(CLUSTER)] = {&pb__cluster__descriptor, "cluster"},
    [OBJ(NODE)] = {&pb__node__descriptor, "node"},
    [OBJ(SERVICE)] = {&pb__service__descriptor, "service"},
    [OBJ(TASK)] = {&pb__task__descriptor, "task"},
    [OBJ(TEMPLATE)] = {&pb__template__descriptor, "template"},
    [OBJ(NETWORK)] = {&pb__network__descriptor, "network"},
    [OBJ(SECRET)] = {&pb__secret__descriptor, "secret"},
    [OBJ(CONFIG)] = {&pb__config__descriptor, "config"},
    [OBJ(VOLUME)] = {&pb__volume__descriptor, "volume"},
};

const ProtobufCMessageDescriptor *object_descriptor(obj_kind kind)
{
	ASSERT((unsigned)kind < OBJ_KINDS);
	return kinds[kind].desc;
}

const char *object_kind_name(obj_kind kind)
{
	ASSERT((unsigned)kind < OBJ_KINDS);
	return kinds[kind].name;
}

const char *object_name(const struct object *o)
{
	const char *name = NULL;

	switch (o->kind) {
	case OBJ(SERVICE):
		name = o->service->spec->name;
		break;
	case OBJ(NETWORK):
		name = o->network->spec->name;
		break;
	case OBJ(SECRET):
		name = o->secret->spec->name;
		break;
	case OBJ(CONFIG):
		name = o->config->spec->name;
		break;
	case OBJ(VOLUME):
		name = o->volume->spec->name;
		break;
	case OBJ(NODE):
		name = o->node->description != NULL ? o->node->description->hostname : NULL;
		break;
	default:
		break;
	}
	return str_empty(name) ? NULL : name;
}

bool object_name_unique(obj_kind kind)
{
	return kind == OBJ(SERVICE) || kind == OBJ(NETWORK) || kind == OBJ(SECRET) || kind == OBJ(CONFIG);
}

/* --- copying by descriptor -------------------------------------------------------------------------- */

/* Field numbers of what tasks repeat; a task's own id, container id and "replaces" are not among them. */
static bool interned_field(const ProtobufCMessageDescriptor *d, uint32_t id)
{
	if (d == &pb__task__descriptor)
		return id == 6 || id == 8 || id == 100 || id == 105;
	if (d == &pb__task_status__descriptor)
		return id == 3 || id == 4 || id == 100;
	if (d == &pb__network_attachment__descriptor)
		return id == 100 || id == 101;
	return false;
}

struct layout {
	size_t words; /* bytes of structs and arrays */
	size_t chars; /* bytes of strings and byte fields */
};
struct cursor {
	unsigned char *words, *chars;
	struct intern *in;
};

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

static size_t element_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_ENUM:
		return 4;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 8;
	}
}

/* A pointer that is the generated code's own (a default), not this message's. */
static bool is_static(const ProtobufCFieldDescriptor *f, const void *p)
{
	return p == f->default_value || p == (const void *)protobuf_c_empty_string;
}

/* The values of a field: *ret_v is where they are, the result how many; 0 for what memcpy of the struct
 * has copied already. */
static size_t field_values(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const void **ret_v)
{
	const unsigned char *base = (const unsigned char *)m;
	const unsigned char *at = base + f->offset;

	if (f->label == PROTOBUF_C_LABEL_REPEATED) {
		*ret_v = *(void *const *)(const void *)at;
		return *(const size_t *)(const void *)(base + f->quantifier_offset);
	}
	*ret_v = at;
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: {
		const void *p = *(void *const *)(const void *)at;

		return p != NULL && !is_static(f, p) ? 1 : 0;
	}
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *b = (const void *)at;

		return b->data != NULL && b->len > 0 ? 1 : 0;
	}
	default:
		return 0;
	}
}

static void measure(const ProtobufCMessage *m, struct layout *l)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	l->words += align8(d->sizeof_message);
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const void *v;
		size_t n = field_values(m, f, &v);

		ASSERT(!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF));
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			l->words += align8(n * element_size(f->type));
		for (size_t j = 0; j < n; j++) {
			if (f->type == PROTOBUF_C_TYPE_STRING) {
				if (!interned_field(d, f->id))
					l->chars += strlen(((char *const *)v)[j]) + 1;
			} else if (f->type == PROTOBUF_C_TYPE_BYTES) {
				l->chars += ((const ProtobufCBinaryData *)v)[j].len;
			} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
				measure(((ProtobufCMessage *const *)v)[j], l);
			} else {
				break;
			}
		}
	}
	l->words += align8(m->n_unknown_fields * sizeof(ProtobufCMessageUnknownField));
	for (unsigned i = 0; i < m->n_unknown_fields; i++)
		l->chars += m->unknown_fields[i].len;
}

static void *take_words(struct cursor *c, const void *from, size_t n)
{
	void *p = c->words;

	if (n == 0)
		return NULL;
	memcpy(p, from, n);
	c->words += align8(n);
	return p;
}

static void *take_chars(struct cursor *c, const void *from, size_t n)
{
	void *p = c->chars;

	memcpy(p, from, n);
	c->chars += n;
	return p;
}

static ProtobufCMessage *copy(struct cursor *c, const ProtobufCMessage *m);

static void copy_values(struct cursor *c, const ProtobufCMessageDescriptor *d,
    const ProtobufCFieldDescriptor *f, void *v, size_t n)
{
	for (size_t j = 0; j < n; j++) {
		if (f->type == PROTOBUF_C_TYPE_STRING) {
			char **s = &((char **)v)[j];

			*s = interned_field(d, f->id) ? intern_get(c->in, *s)
						      : take_chars(c, *s, strlen(*s) + 1);
		} else if (f->type == PROTOBUF_C_TYPE_BYTES) {
			ProtobufCBinaryData *b = &((ProtobufCBinaryData *)v)[j];

			if (b->len > 0)
				b->data = take_chars(c, b->data, b->len);
		} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
			ProtobufCMessage **sub = &((ProtobufCMessage **)v)[j];

			*sub = copy(c, *sub);
		} else {
			return;
		}
	}
}

static ProtobufCMessage *copy(struct cursor *c, const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;
	ProtobufCMessage *to = take_words(c, m, d->sizeof_message);

	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		unsigned char *at = (unsigned char *)to + f->offset;
		const void *v;
		size_t n = field_values(m, f, &v);

		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			void *array = take_words(c, v, n * element_size(f->type));

			*(void **)(void *)at = array;
			copy_values(c, d, f, array, n);
		} else {
			copy_values(c, d, f, at, n);
		}
	}
	to->unknown_fields =
	    take_words(c, m->unknown_fields, m->n_unknown_fields * sizeof(ProtobufCMessageUnknownField));
	for (unsigned i = 0; i < m->n_unknown_fields; i++)
		to->unknown_fields[i].data =
		    take_chars(c, m->unknown_fields[i].data, m->unknown_fields[i].len);
	return to;
}

int object_decode(struct intern *in, struct arena *scratch, obj_kind kind, const uint8_t *p, size_t n,
    struct object_node **ret, struct err *e)
{
	ProtobufCMessage *m = protobuf_c_message_unpack(object_descriptor(kind), &scratch->alloc, n, p);
	struct layout l = {0, 0};
	struct object_node *o;
	struct cursor c;

	if (m == NULL)
		return err_set(e, ERR_CORRUPT, "a %s does not decode", object_kind_name(kind));
	if (str_empty(((Pb__ObjectHead *)m)->id))
		return err_set(e, ERR_CORRUPT, "a %s has no id", object_kind_name(kind));
	measure(m, &l);
	o = xmalloc(align8(sizeof(*o)) + l.words + l.chars);
	memset(o, 0, sizeof(*o));
	c.in = in;
	c.words = (unsigned char *)o + align8(sizeof(*o));
	c.chars = c.words + l.words;
	o->pub.refs = 1;
	o->pub.kind = kind;
	o->pub.msg = copy(&c, m);
	o->hash = hash_str(o->pub.head->id);
	*ret = o;
	return 0;
}

/* Gives back what `copy` interned. Only tasks have any. */
static void put_interned(Pb__Task *t)
{
	char *flat[] = {t->service_id, t->node_id, t->template_id, t->service_name, t->status->message,
	    t->status->err, t->status->applied_by};

	for (size_t i = 0; i < ARRAY_LEN(flat); i++) {
		if (flat[i] != NULL)
			intern_put(flat[i]);
	}
	for (size_t i = 0; i < t->n_networks_attachments; i++) {
		Pb__NetworkAttachment *a = t->networks_attachments[i];

		intern_put(a->network_id);
		for (size_t j = 0; j < a->n_aliases; j++)
			intern_put(a->aliases[j]);
	}
}

struct object *object_ref(const struct object *o)
{
	struct object *mine = (struct object *)(uintptr_t)o;

	ASSERT(mine->refs > 0);
	mine->refs++;
	return mine;
}

void object_unref(struct object *o)
{
	if (o == NULL)
		return;
	ASSERT(o->refs > 0);
	if (--o->refs > 0)
		return;
	if (o->kind == OBJ(TASK))
		put_interned(o->task);
	free(o);
}

/* --- messages on the heap ------------------------------------------------------------------------------ */

void *msg_clone(const void *msg)
{
	const ProtobufCMessage *m = msg;
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *p = xmalloc(n + 1);
	ProtobufCMessage *to;

	protobuf_c_message_pack(m, p);
	to = protobuf_c_message_unpack(m->descriptor, NULL, n, p);
	free(p);
	/* Only a message with a required field left NULL fails to come back, which is a bug here. */
	ASSERT(to != NULL);
	return to;
}

bool msg_equal(const void *a, const void *b)
{
	const ProtobufCMessage *x = a, *y = b;
	CLEANUP_FREE uint8_t *p = NULL;
	size_t n;

	if (x == y)
		return true;
	if (x == NULL || y == NULL || x->descriptor != y->descriptor)
		return false;
	n = protobuf_c_message_get_packed_size(x);
	if (n != protobuf_c_message_get_packed_size(y))
		return false;
	p = xmalloc(2 * n + 1);
	protobuf_c_message_pack(x, p);
	protobuf_c_message_pack(y, p + n);
	return memcmp(p, p + n, n) == 0;
}
