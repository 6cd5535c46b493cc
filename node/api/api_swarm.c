/* The swarm: init, inspect, update, leave; what belongs to clusters of several nodes is refused by name. */
#include <string.h>

#include "base/mem.h"
#include "node/api/resources.h"
#include "proto/pb.h"

#define DAY_NS (INT64_C(24) * 3600 * NS_PER_SEC)

/* --- the cluster's spec: what is zero or absent gets its default, as the daemon does */

#define DEFAULT(m, f, v)                                                                                     \
	if (!(m)->has_##f || !(m)->f) {                                                                      \
		(m)->has_##f = true;                                                                         \
		(m)->f = (v);                                                                                \
	}

static void fill_spec(Pb__ClusterSpec *s)
{
	pb_set_str(&s->name, str_or(s->name, "default"));
	if (!s->orchestration)
		s->orchestration = PB_NEW(Pb__OrchestrationConfig, pb__orchestration_config);
	if (!s->orchestration->has_task_history_retention_limit) {
		s->orchestration->has_task_history_retention_limit = true;
		s->orchestration->task_history_retention_limit = 5;
	}
	if (!s->raft)
		s->raft = PB_NEW(Pb__RaftConfig, pb__raft_config);
	DEFAULT(s->raft, snapshot_interval, 10000)
	DEFAULT(s->raft, log_entries_for_slow_followers, 500)
	DEFAULT(s->raft, election_tick, 10)
	DEFAULT(s->raft, heartbeat_tick, 1)
	if (!s->raft->has_keep_old_snapshots)
		s->raft->has_keep_old_snapshots = true;
	if (!s->dispatcher)
		s->dispatcher = PB_NEW(Pb__DispatcherConfig, pb__dispatcher_config);
	DEFAULT(s->dispatcher, heartbeat_period, 5 * NS_PER_SEC)
	if (!s->ca_config)
		s->ca_config = PB_NEW(Pb__CAConfig, pb__caconfig);
	DEFAULT(s->ca_config, node_cert_expiry, 90 * DAY_NS)
	if (!s->encryption_config)
		s->encryption_config = PB_NEW(Pb__EncryptionConfig, pb__encryption_config);
	if (!s->encryption_config->has_auto_lock_managers)
		s->encryption_config->has_auto_lock_managers = true;
	if (!s->task_defaults)
		s->task_defaults = PB_NEW(Pb__TaskDefaults, pb__task_defaults);
}

static int check_spec(const Pb__ClusterSpec *s, struct err *e)
{
	if (!str_eq(s->name, "default"))
		return err_set(e, ERR_INVALID, "invalid Name \"%s\": expected \"default\"", s->name);
	if (s->ca_config->node_cert_expiry < INT64_C(3600) * NS_PER_SEC)
		return err_set(e, ERR_INVALID, "minimum certificate expiry time must be 1h0m0s");
	if (s->dispatcher->heartbeat_period < 100 * NS_PER_MSEC)
		return err_set(e, ERR_INVALID, "the heartbeat period must be at least 100ms");
	if (s->ca_config->n_external_cas)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "CAConfig.ExternalCAs: external certificate authorities are not supported by this "
		    "version");
	if (!str_empty(s->ca_config->signing_ca_cert) || !str_empty(s->ca_config->signing_ca_key))
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "CAConfig.SigningCACert and SigningCAKey are not supported by this version");
	if (s->encryption_config->auto_lock_managers)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "EncryptionConfig.AutoLockManagers is not supported by this version");
	if (s->task_defaults->log_driver && !str_empty(s->task_defaults->log_driver->name))
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "TaskDefaults.LogDriver is not supported by this version: set it on the services");
	if (s->raft->snapshot_interval != 10000 || s->raft->keep_old_snapshots != 0 ||
	    s->raft->log_entries_for_slow_followers != 500 || s->raft->election_tick != 10 ||
	    s->raft->heartbeat_tick != 1)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "Raft settings other than the defaults are not supported by this version");
	return 0;
}

/* --- init */

struct waiting {
	struct api *api;
	struct http_req *r; /* NULL once the client has gone */
	bool init;
};

static void wait_gone(void *data)
{
	((struct waiting *)data)->r = NULL;
}

static void wait_done(void *data, int status, const struct err *e)
{
	struct waiting *w = data;
	if (w->r && status != 0) {
		api_reply_err(w->r, e);
	} else if (w->r && w->init) {
		struct api_node_state st;
		const struct manager_if *m = &api_deps(w->api)->manager;
		m->state(m->data, &st);
		http_reply_json(w->r, 200, json_string(st.node_id));
	} else if (w->r) {
		http_reply_empty(w->r, 200);
	}
	free(w);
}

static const char *text(const json_t *o, const char *key)
{
	return str_or(json_string_value(json_get(o, key)), "");
}

static int parse_init(const json_t *j, struct api_swarm_init *q, Pb__ClusterSpec **ret_spec,
    struct strlist *pool, struct err *e)
{
	q->listen_addr = text(j, "ListenAddr");
	q->advertise_addr = text(j, "AdvertiseAddr");
	q->data_path_addr = text(j, "DataPathAddr");
	q->data_path_port = (uint32_t)json_integer_value(json_get(j, "DataPathPort"));
	q->subnet_size = (uint32_t)json_integer_value(json_get(j, "SubnetSize"));
	q->force_new_cluster = json_is_true(json_get(j, "ForceNewCluster"));
	if (str_empty(q->listen_addr))
		return err_set(e, ERR_INVALID,
		    "invalid ListenAddr: an address to listen on is needed, like 0.0.0.0:2377");
	const char *availability = text(j, "Availability");
	int v = PB__NODE_AVAILABILITY__E__ACTIVE;
	if (!str_empty(availability) &&
	    json_enum_parse(&pb__node_availability__e__descriptor, availability, &v, NULL) != 0)
		return err_set(e, ERR_INVALID,
		    "invalid Availability: \"%s\": active, pause or drain is wanted", availability);
	q->availability = (Pb__NodeAvailability__E)v;
	size_t i;
	json_t *item, *spec = json_get(j, "Spec");
	json_array_foreach(json_get(j, "DefaultAddrPool"), i, item) if (json_is_string(item))
	    strlist_add(pool, json_string_value(item));
	q->default_addr_pool = (const char *const *)pool->v;
	q->n_default_addr_pool = pool->n;
	json_t *empty = json_object();
	int rc = json_to_msg(spec ? spec : empty, &pb__cluster_spec__descriptor, ret_spec, e);
	json_decref(empty);
	if (rc != 0)
		return err_wrap(e, "Spec");
	if (json_is_true(json_get(j, "AutoLockManagers"))) {
		if (!(*ret_spec)->encryption_config)
			(*ret_spec)->encryption_config = PB_NEW(Pb__EncryptionConfig, pb__encryption_config);
		(*ret_spec)->encryption_config->has_auto_lock_managers =
		    (*ret_spec)->encryption_config->auto_lock_managers = true;
	}
	fill_spec(*ret_spec);
	q->spec = *ret_spec;
	return check_spec(*ret_spec, e);
}

static void init(void *data, struct http_req *r)
{
	struct api *a = data;
	const struct manager_if *m = &api_deps(a)->manager;
	struct err e = ERR_INIT;
	struct api_swarm_init q = {.n_default_addr_pool = 0};
	CLEANUP_PB Pb__ClusterSpec *spec = NULL;
	CLEANUP_STRLIST struct strlist pool = STRLIST_INIT;
	json_t *j = NULL;
	struct waiting *w = NULL;
	int rc = api_body_json(r, &j, &e);
	if (rc == 0)
		rc = parse_init(j, &q, &spec, &pool, &e);
	if (rc == 0) {
		w = NEW(struct waiting);
		w->api = a;
		w->r = r;
		w->init = true;
		rc = m->swarm_init(m->data, &q, wait_done, w, &e);
	}
	if (rc == 0) {
		http_on_closed(r, wait_gone, w);
	} else {
		free(w);
		api_reply_err(r, &e);
	}
	json_decref(j);
}

static void leave(void *data, struct http_req *r)
{
	struct api *a = data;
	const struct manager_if *m = &api_deps(a)->manager;
	struct err e = ERR_INIT;
	struct waiting *w = NEW(struct waiting);
	w->api = a;
	w->r = r;
	if (m->swarm_leave(m->data, api_bool_loose(r, "force"), wait_done, w, &e) == 0) {
		http_on_closed(r, wait_gone, w);
	} else {
		free(w);
		api_reply_err(r, &e);
	}
}

/* --- inspect, update */

static const Pb__Cluster *cluster_or_reply(struct store *st, struct http_req *r)
{
	const Pb__Cluster *c = store_cluster(st);
	if (!c)
		api_reply_errf(r, ERR_UNAVAILABLE,
		    "This node is not a swarm manager. The cluster is not ready yet: try again in a moment.");
	return c;
}

static void inspect(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	const Pb__Cluster *c = st ? cluster_or_reply(st, r) : NULL;
	if (!c)
		return;
	json_t *j = json_from_msg(c);
	json_object_set_new(j, "JoinTokens",
	    json_pack("{s:s, s:s}", "Worker", c->join_tokens ? str_or(c->join_tokens->worker, "") : "",
		"Manager", c->join_tokens ? str_or(c->join_tokens->manager, "") : ""));
	http_reply_json(r, 200, j);
}

static void rotate(struct api *a, Pb__Cluster *c, char **token)
{
	const struct manager_if *m = &api_deps(a)->manager;
	CLEANUP_FREE char *fresh = m->join_token_new(m->data, c);
	pb_set_str(token, fresh);
}

static void update(void *data, struct http_req *r)
{
	struct api *a = data;
	struct store *st = api_store_or_reply(a, r);
	struct err e = ERR_INIT;
	uint64_t version;
	bool worker, manager, unlock;
	CLEANUP_PB Pb__ClusterSpec *spec = NULL;
	const Pb__Cluster *c = st ? cluster_or_reply(st, r) : NULL;
	if (!c)
		return;
	if (api_version_param(r, &version, &e) != 0 ||
	    api_bool_strict(r, "rotateWorkerToken", &worker, &e) != 0 ||
	    api_bool_strict(r, "rotateManagerToken", &manager, &e) != 0 ||
	    api_bool_strict(r, "rotateManagerUnlockKey", &unlock, &e) != 0 ||
	    api_body_msg(r, &pb__cluster_spec__descriptor, &spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	fill_spec(spec);
	uint64_t was_rotated = c->spec->ca_config ? c->spec->ca_config->force_rotate : 0;
	if (c->version != version)
		err_set(&e, ERR_STALE, "rpc error: code = Unknown desc = update out of sequence");
	else if (check_spec(spec, &e) == 0 && unlock)
		err_set(&e, ERR_NOT_IMPLEMENTED,
		    "autolock is not supported by this version: there is no unlock key to rotate");
	else if (!e.code && spec->ca_config->force_rotate != was_rotated)
		err_set(&e, ERR_NOT_IMPLEMENTED,
		    "rotating the root certificate is not supported by this version");
	if (e.code) {
		api_reply_err(r, &e);
		return;
	}
	Pb__Cluster *n = pb_clone(c);
	pb_free(n->spec);
	n->spec = TAKE_PTR(spec);
	if (worker)
		rotate(a, n, &n->join_tokens->worker);
	if (manager)
		rotate(a, n, &n->join_tokens->manager);
	struct txn *t = txn_new();
	txn_update(t, OBJ(CLUSTER), n);
	api_commit(a, r, t, 200, NULL);
}

static void unlock_key(void *data, struct http_req *r)
{
	if (api_store_or_reply(data, r))
		http_reply_json(r, 200, json_pack("{s:s}", "UnlockKey", ""));
}

static void unlock(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_CONFLICT, "swarm is not locked");
}

static void join(void *data, struct http_req *r)
{
	const struct manager_if *m = &api_deps(data)->manager;
	struct api_node_state st;
	m->state(m->data, &st);
	if (strcmp(st.state, "inactive") != 0)
		api_reply_errf(r, ERR_UNAVAILABLE,
		    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm "
		    "and join another one.");
	else
		api_reply_errf(r, ERR_NOT_IMPLEMENTED,
		    "joining a swarm is not supported by this version: a swarm has one node");
}

void api_swarm_register(struct api *a)
{
	api_route(a, "GET", "/swarm", inspect, a);
	api_route(a, "POST", "/swarm/init", init, a);
	api_route(a, "POST", "/swarm/join", join, a);
	api_route(a, "POST", "/swarm/leave", leave, a);
	api_route(a, "POST", "/swarm/update", update, a);
	api_route(a, "GET", "/swarm/unlockkey", unlock_key, a);
	api_route(a, "POST", "/swarm/unlock", unlock, a);
}
