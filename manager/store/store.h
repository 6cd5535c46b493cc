/* The desired and observed state of the cluster, in memory: tables of immutable, reference-counted
 * objects with secondary indexes, a version, and watches.
 *
 * Nothing is changed in place. A change is a transaction (struct txn): creates, updates and deletes,
 * each update and delete with the version that it was based on. It is proposed through Raft as bytes, and
 * store_apply applies it, the same way on every manager: whole, or, when one of the versions has moved
 * on, not at all (ERR_STALE). Each applied transaction moves the store's version by one.
 *
 * Not thread-safe: everything happens on the loop's thread. Pure: no clock, no random, no I/O. */
#ifndef MANAGER_STORE_STORE_H
#define MANAGER_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/log.pb-c.h"
#include "proto/objects.pb-c.h"

typedef Pb__ObjectKind__E obj_kind;
#define OBJ_KINDS 9
#define OBJ(kind) PB__OBJECT_KIND__E__##kind

/* Every object message begins with the fields of Pb__ObjectHead. */
struct object {
	int refs;
	obj_kind kind;
	union {
		Pb__ObjectHead *head;
		ProtobufCMessage *msg;
		Pb__Cluster *cluster;
		Pb__Node *node;
		Pb__Service *service;
		Pb__Task *task;
		Pb__Template *tmpl;
		Pb__Network *network;
		Pb__Secret *secret;
		Pb__Config *config;
		Pb__Volume *volume;
	};
};
struct object *object_ref(const struct object *o);
void object_unref(struct object *o); /* NULL is fine */
const ProtobufCMessageDescriptor *object_descriptor(obj_kind kind);
const char *object_kind_name(obj_kind kind); /* "service" */
/* A deep copy of a message (pack and unpack); free with protobuf_c_message_free_unpacked(m, NULL). */
void *msg_clone(const void *msg);
bool msg_equal(const void *a, const void *b); /* same type, same packed bytes; NULLs allowed */

struct store;
struct store *store_new(void);
void store_free(struct store *s);
uint64_t store_version(const struct store *s); /* of the last applied transaction */

/* --- reading. What is returned is borrowed: valid until the next store_apply unless object_ref'd. */
const struct object *store_get(const struct store *s, obj_kind kind, const char *id);
/* Services, secrets, configs, networks by exact name, case-insensitive; nodes by hostname (NULL when
 * several have it); volumes by name. */
const struct object *store_get_by_name(const struct store *s, obj_kind kind, const char *name);
/* Full id, then name, then unique id prefix, as the Engine API's {id} does. ERR_NOT_FOUND with
 * "service X not found", ERR_INVALID with "service X is ambiguous (N matches found)". */
int store_find(
    const struct store *s, obj_kind kind, const char *ref, const struct object **ret, struct err *e);
size_t store_count(const struct store *s, obj_kind kind);
const Pb__Cluster *store_cluster(const struct store *s); /* the one cluster object, or NULL */
const Pb__Template *store_template(const struct store *s, const char *template_id);

enum store_index {
	STORE_ALL,              /* key ignored */
	STORE_TASK_BY_SERVICE,  /* key: service id */
	STORE_TASK_BY_NODE,     /* key: node id; "" for tasks without a node */
	STORE_TASK_BY_TEMPLATE, /* key: template id */
	STORE_TEMPLATE_BY_SERVICE,
	STORE_SERVICE_BY_SECRET, /* key: secret id: services whose spec names it */
	STORE_SERVICE_BY_CONFIG,
	STORE_SERVICE_BY_NETWORK,
	STORE_INDEXES,
};
struct store_iter {
	const void *table_, *node_; /* STORE_ALL: hash table and next node; else the bucket */
	size_t i_;
};
/* Objects of an index in unspecified order. The store must not change meanwhile. */
void store_iter_init(
    struct store_iter *it, const struct store *s, obj_kind kind, enum store_index index, const char *key);
const struct object *store_iter_next(struct store_iter *it);
/* How many an iteration would give; not for STORE_ALL (store_count). */
size_t store_index_count(const struct store *s, enum store_index index, const char *key);

/* --- watching. Callbacks come from inside store_apply, after the whole transaction is in; old is NULL for
 * a create, new for a delete. They must not apply; they note what is to be done. */
struct store_event {
	obj_kind kind;
	const struct object *old, *cur;
};
struct store_watch;
typedef void (*store_watch_cb)(void *data, const struct store_event *ev);
struct store_watch *store_watch_new(struct store *s, store_watch_cb cb, void *data);
void store_watch_free(struct store_watch *w);

/* --- changing */
struct txn;
struct txn *txn_new(void);
void txn_free(struct txn *t);
/* Take `msg` (heap, from pb__x__init'ed xmalloc memory or msg_clone; freed by
 * protobuf_c_message_free_unpacked), whose version and times are filled in by apply. id must be set. */
void txn_create(struct txn *t, obj_kind kind, void *msg);
/* Based on the version in msg's head. */
void txn_update(struct txn *t, obj_kind kind, void *msg);
/* Within one transaction actions apply in order; an object that an earlier action of it has written may be
 * written again whatever version the later action names. */
/* based_on 0: whatever version is there. */
void txn_delete(struct txn *t, obj_kind kind, const char *id, uint64_t based_on);
size_t txn_count(const struct txn *t);
/* Packs as a Pb__Txn; now_ns becomes the objects' times. */
void txn_pack(const struct txn *t, int64_t now_ns, struct buf *out);

/* Applies one packed Pb__Txn. 0, ERR_STALE ("update out of sequence"), ERR_CONFLICT (create of an id or a
 * name that exists), ERR_NOT_FOUND (update/delete of what is gone), ERR_CORRUPT. Deterministic. */
int store_apply(struct store *s, const uint8_t *p, size_t n, struct err *e);

/* --- snapshots: the whole state as a stream of records (proto/log.proto). */
void store_snapshot(const struct store *s, struct buf *out);
/* The same in two steps, for a snapshot off the loop: freezing only takes references; packing reads nothing
 * that the loop's thread may change, so any one thread may do it; freeing is the loop's again. The
 * store may be changed, not freed, meanwhile. */
struct store_frozen;
struct store_frozen *store_freeze(const struct store *s);
void store_frozen_pack(const struct store_frozen *f, struct buf *out);
void store_frozen_free(struct store_frozen *f);
/* Replaces everything; watches see deletes and creates. On error the store is unchanged. */
int store_restore(struct store *s, const uint8_t *p, size_t n, struct err *e);

#endif
