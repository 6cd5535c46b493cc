/* Nodes: list, inspect, update, remove. */
#include <string.h>

#include "base/mem.h"
#include "node/api/resources.h"
#include "proto/pb.h"

static json_t *node_json(const Pb__Node *n)
{
	return json_from_msg(n);
}

static Pb__NodeRole__E role_of(const Pb__Node *n)
{
	return n->has_role ? n->role : n->spec->has_role ? n->spec->role : PB__NODE_ROLE__E__WORKER;
}

static bool matches(const struct api_filters *f, const Pb__Node *n)
{
	const Pb__EngineDescription *en = n->description ? n->description->engine : NULL;
	return api_filters_match_prefix(f, "id", n->id) &&
	       api_filters_match_prefix(
		   f, "name", n->description ? str_or(n->description->hostname, "") : "") &&
	       api_filters_match_labels(f, "label", en ? en->labels : NULL, en ? en->n_labels : 0) &&
	       api_filters_match_labels(f, "node.label", n->spec->labels, n->spec->n_labels) &&
	       api_filters_match(f, "role", role_of(n) == PB__NODE_ROLE__E__MANAGER ? "manager" : "worker") &&
	       api_filters_match(f, "membership", "accepted");
}

static int check_words(
    const struct api_filters *f, const char *key, const char *a, const char *b, struct err *e)
{
	const struct strlist *l = api_filters_get(f, key);
	for (size_t i = 0; l && i < l->n; i++)
		if (strcmp(l->v[i], a) != 0 && strcmp(l->v[i], b) != 0)
			return err_set(e, ERR_INTERNAL, "invalid filter '%s=%s': %s or %s is wanted", key,
			    l->v[i], a, b);
	return 0;
}

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {
	    "id", "name", "label", "node.label", "role", "membership", NULL};
	struct store *st = api_store_or_reply(data, r);
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	if (!st)
		return;
	if (api_filters_parse(r, allowed, &f, &e) != 0 ||
	    check_words(&f, "role", "worker", "manager", &e) != 0 ||
	    check_words(&f, "membership", "accepted", "pending", &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	json_t *out = json_array();
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, st, OBJ(NODE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)))
		if (matches(&f, o->node))
			json_array_append_new(out, node_json(o->node));
	http_reply_json(r, 200, out);
}

static const Pb__Node *find_or_reply(struct store *st, struct http_req *r)
{
	const struct object *o;
	struct err e = ERR_INIT;
	if (store_find(st, OBJ(NODE), api_param(r, "id"), &o, &e) == 0)
		return o->node;
	api_reply_err(r, &e);
	return NULL;
}

static void inspect(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	const Pb__Node *n = st ? find_or_reply(st, r) : NULL;
	if (n)
		http_reply_json(r, 200, node_json(n));
}

static unsigned count_managers(const struct store *st)
{
	struct store_iter it;
	const struct object *o;
	unsigned n = 0;
	store_iter_init(&it, st, OBJ(NODE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)))
		n += o->node->manager_status != NULL;
	return n;
}

static int check_update(
    const struct store *st, const Pb__Node *n, uint64_t version, const Pb__NodeSpec *spec, struct err *e)
{
	if (n->version != version)
		return err_set(e, ERR_STALE, "rpc error: code = Unknown desc = update out of sequence");
	if (!spec->has_role)
		return err_set(e, ERR_INVALID, "invalid Role: \"\": worker or manager is wanted");
	if (!spec->has_availability)
		return err_set(
		    e, ERR_INVALID, "invalid Availability: \"\": active, pause or drain is wanted");
	if (spec->role == role_of(n))
		return 0;
	if (spec->role == PB__NODE_ROLE__E__WORKER && count_managers(st) <= 1)
		return err_set(e, ERR_PRECONDITION,
		    "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of "
		    "the swarm");
	return err_set(e, ERR_NOT_IMPLEMENTED, "changing a node's role is not supported by this version");
}

static void update(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	struct err e = ERR_INIT;
	uint64_t version;
	CLEANUP_PB Pb__NodeSpec *spec = NULL;
	if (!st)
		return;
	if (api_version_param(r, &version, &e) != 0 ||
	    api_body_msg(r, &pb__node_spec__descriptor, &spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const Pb__Node *n = find_or_reply(st, r);
	if (!n)
		return;
	if (check_update(st, n, version, spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	Pb__Node *m = pb_clone(n);
	pb_free(m->spec);
	m->spec = TAKE_PTR(spec);
	struct txn *t = txn_new();
	txn_update(t, OBJ(NODE), m);
	api_commit(data, r, t, 200, NULL);
}

static void delete (void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	struct err e = ERR_INIT;
	if (!st)
		return;
	const Pb__Node *n = find_or_reply(st, r);
	if (!n)
		return;
	if (n->manager_status)
		err_set(&e, ERR_PRECONDITION,
		    "rpc error: code = FailedPrecondition desc = node %s is a cluster manager and is a "
		    "member of the raft cluster. It must be "
		    "demoted to worker before removal",
		    n->id);
	else if (n->status && n->status->state == PB__NODE_STATE__E__READY && !api_bool_loose(r, "force"))
		err_set(&e, ERR_PRECONDITION,
		    "rpc error: code = FailedPrecondition desc = node %s is not down and can't be removed",
		    n->id);
	if (e.code) {
		api_reply_err(r, &e);
		return;
	}
	struct txn *t = txn_new();
	txn_delete(t, OBJ(NODE), n->id, 0);
	api_commit(data, r, t, 200, NULL);
}

void api_nodes_register(struct api *a)
{
	api_route(a, "GET", "/nodes", list, a);
	api_route(a, "GET", "/nodes/{id}", inspect, a);
	api_route(a, "POST", "/nodes/{id}/update", update, a);
	api_route(a, "DELETE", "/nodes/{id}", delete, a);
}
