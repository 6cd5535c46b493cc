/* This node's part in a swarm: init, going on after a restart, leave.
 *
 * init: addresses are resolved, root CA, tokens and this node's certificate made, the listener opened, the
 * identity written (whole or not at all), the manager started; once it leads and has committed the cluster's
 * objects, the agent dials it like any other node's agent, and when the node is seen READY the request is
 * answered. Whatever fails on the way undoes all of it.
 *
 * Restart: the same from the identity on. An identity that cannot be used (damaged files, another daemon on
 * the port) leaves the node in the error state, where it can be looked at and left by force; containers run
 * on.
 *
 * leave: the manager stops first, so that nothing is replaced; then the agent stops and removes its tasks;
 * then the identity goes. Teardown for a daemon's end is the same without the last two. */
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "manager/ca/ca.h"
#include "node/addr.h"
#include "node/description.h"
#include "node/node_private.h"
#include "proto/pb.h"
#include "proto/pki.h"

#define NOT_MANAGER                                                                                          \
	"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect "   \
	"this "                                                                                              \
	"node to swarm and try again."
#define INIT_WAIT_MS 5000

static void teardown(struct swarm *s);

void swarm_setup(struct swarm *s, struct node *n)
{
	s->node = n;
	s->state = SWARM_INACTIVE;
}

void swarm_done(struct swarm *s)
{
	free(s->error);
	identity_free(s->identity);
	tls_ctx_unref(s->server_tls);
	tls_ctx_unref(s->client_tls);
	timer_free(s->init_wait);
}

static void answer(struct swarm *s, const struct err *e)
{
	manager_cb done = s->done;
	s->done = NULL;
	if (done)
		done(s->done_data, e->code, e);
}

static const struct err no_err = ERR_INIT;

int swarm_make_tls(struct swarm *s, struct err *e)
{
	static const char *const alpn[] = {"h2", NULL};
	const struct identity *id = s->identity;
	struct tls_ctx *server, *client;
	struct tls_ctx_opts o = {.cert_pem = id->cert_pem,
	    .key_pem = id->key_pem,
	    .ca_pem = id->ca_pem,
	    .server = true,
	    .alpn = alpn};
	int rc = tls_ctx_new(&o, &server, e);
	if (rc != 0)
		return err_wrap(e, "this node's certificate");
	o.server = false;
	rc = tls_ctx_new(&o, &client, e);
	if (rc != 0) {
		tls_ctx_unref(server);
		return err_wrap(e, "this node's certificate");
	}
	tls_ctx_unref(s->server_tls);
	tls_ctx_unref(s->client_tls);
	s->server_tls = server;
	s->client_tls = client;
	if (s->listener)
		tls_listener_set_ctx(s->listener, server);
	if (s->agent)
		agent_set_tls(s->agent, client);
	return 0;
}

/* --- the agent */

static void managers_changed(void *data, char *const *addrs, size_t n)
{
	struct swarm *s = data;
	struct strlist *l = &s->identity->managers;
	bool same = l->n == n;
	for (size_t i = 0; same && i < n; i++)
		same = str_eq(l->v[i], addrs[i]);
	if (same)
		return;
	strlist_done(l);
	*l = (struct strlist)STRLIST_INIT;
	for (size_t i = 0; i < n; i++)
		strlist_add(l, addrs[i]);
	struct err e = ERR_INIT;
	if (identity_save_config(s->node->cfg->data_root, s->identity, &e) != 0)
		log_warn("the list of managers could not be kept: %s", e.text);
}

static char *manager_at(void *data, const char *addr)
{
	const struct swarm *s = data;
	return identity_dial(s->identity, addr);
}

static void start_agent(struct swarm *s)
{
	struct node *n = s->node;
	CLEANUP_PB Pb__NodeDescription *d = description_make(n->cfg, s->identity->ca_pem);
	const struct agent_opts o = {
	    .loop = n->loop,
	    .clock = n->clock,
	    .rng = n->rng,
	    .images = n->images,
	    .engine = n->engine,
	    .net = n->net,
	    .node_id = s->identity->node_id,
	    .description = d,
	    .advertise_addr = s->identity->advertise_host,
	    .tls = s->client_tls,
	    .managers = &s->identity->managers,
	    .manager_at = manager_at,
	    .managers_changed = managers_changed,
	    .data = s,
	};
	s->agent = agent_start(&o);
}

/* --- the manager's news */

static void init_waited(void *data)
{
	struct swarm *s = data;
	if (s->done && s->state == SWARM_ACTIVE)
		answer(s, &no_err);
}

static void on_failed(void *data, const struct err *e)
{
	struct swarm *s = data;
	if (s->closing)
		return;
	log_error("the manager failed: %s", e->text);
	free(s->error);
	s->error = xstrdup(e->text);
	s->state = SWARM_ERROR;
	if (s->done) { /* an init: undo it */
		s->init_err = *e;
		teardown(s);
	}
}

static void on_ready(void *data)
{
	struct swarm *s = data;
	if (s->closing)
		return;
	struct err e = ERR_INIT;
	if (identity_initial_done(s->node->cfg->data_root, &e) != 0) {
		on_failed(s, &e);
		return;
	}
	s->state = SWARM_ACTIVE;
	s->fresh = false;
	if (!s->agent)
		start_agent(s);
	if (s->done) {
		s->init_wait = timer_new(s->node->loop, init_waited, s);
		timer_start(s->init_wait, INIT_WAIT_MS);
	}
}

static void on_lost(void *data)
{
	(void)data;
	log_warn("this manager does not lead any more");
}

/* Swarm's events for /events: attributes tell what an update changed. */
static void publish_event(struct swarm *s, const struct store_event *ev)
{
	const struct object *o = ev->cur ? ev->cur : ev->old;
	ASSERT(o);
	const char *action = !ev->old   ? "create"
			     : !ev->cur ? "remove"
					: "update",
		   *type = object_kind_name(o->kind);
	json_t *a = json_object();
#define ATTR(key, value) json_object_set_new(a, key, json_string(str_or(value, "")))
	switch (o->kind) {
	case PB__OBJECT_KIND__E__SERVICE:
		ATTR("name", o->service->spec->name);
		if (ev->old && ev->cur) {
			const Pb__ServiceSpec *was = ev->old->service->spec, *is = ev->cur->service->spec;
			if (was->task_template && is->task_template && was->task_template->container_spec &&
			    is->task_template->container_spec &&
			    !str_eq(was->task_template->container_spec->image,
				is->task_template->container_spec->image)) {
				ATTR("image.old", was->task_template->container_spec->image);
				ATTR("image.new", is->task_template->container_spec->image);
			}
			if (was->mode && is->mode && was->mode->replicated && is->mode->replicated &&
			    was->mode->replicated->replicas != is->mode->replicated->replicas) {
				char num[32];
				snprintf(num, sizeof(num), "%llu",
				    (unsigned long long)was->mode->replicated->replicas);
				ATTR("replicas.old", num);
				snprintf(num, sizeof(num), "%llu",
				    (unsigned long long)is->mode->replicated->replicas);
				ATTR("replicas.new", num);
			}
			const Pb__UpdateStatus *us0 = ev->old->service->update_status,
					       *us1 = ev->cur->service->update_status;
			if (us1 && (!us0 || us0->state != us1->state)) {
				char w[32];
				if (us0)
					ATTR("updatestate.old",
					    json_enum_word(&pb__update_state__e__descriptor, (int)us0->state,
						w, sizeof(w)));
				ATTR("updatestate.new", json_enum_word(&pb__update_state__e__descriptor,
							    (int)us1->state, w, sizeof(w)));
			}
		}
		break;
	case PB__OBJECT_KIND__E__NODE:
		ATTR("name", o->node->description ? o->node->description->hostname : "");
		if (ev->old && ev->cur) {
			const Pb__Node *was = ev->old->node, *is = ev->cur->node;
			char w[32];
			if (was->status && is->status && was->status->state != is->status->state) {
				ATTR("state.old", json_enum_word(&pb__node_state__e__descriptor,
						      (int)was->status->state, w, sizeof(w)));
				ATTR("state.new", json_enum_word(&pb__node_state__e__descriptor,
						      (int)is->status->state, w, sizeof(w)));
			}
			if (was->spec->availability != is->spec->availability) {
				ATTR("availability.old", json_enum_word(&pb__node_availability__e__descriptor,
							     (int)was->spec->availability, w, sizeof(w)));
				ATTR("availability.new", json_enum_word(&pb__node_availability__e__descriptor,
							     (int)is->spec->availability, w, sizeof(w)));
			}
		}
		break;
	case PB__OBJECT_KIND__E__SECRET:
		ATTR("name", o->secret->spec->name);
		break;
	case PB__OBJECT_KIND__E__CONFIG:
		ATTR("name", o->config->spec->name);
		break;
	case PB__OBJECT_KIND__E__NETWORK:
		ATTR("name", o->network->spec->name);
		break;
	default: /* tasks have no events */
		json_decref(a);
		return;
	}
#undef ATTR
	events_publish(s->node->events, type, action, o->head->id, a, "swarm", clock_unix_ns(s->node->clock));
}

static void on_event(void *data, const struct store_event *ev)
{
	struct swarm *s = data;
	/* Answers of init wait until the node is READY. */
	if (s->done && s->state == SWARM_ACTIVE && ev->kind == OBJ(NODE) && ev->cur &&
	    ev->cur->node->status && ev->cur->node->status->state == PB__NODE_STATE__E__READY)
		timer_start(s->init_wait, 0);
	if (manager_ready(s->manager))
		publish_event(s, ev);
}

/* --- starting */

static int on_accept(void *data, struct tls_conn *c, const struct tls_peer *peer)
{
	struct swarm *s = data;
	if (s->closing || !s->rpc || strcmp(peer->alpn, "h2") != 0)
		return ERR_FORBIDDEN;
	rpc_server_serve(s->rpc, c, peer);
	return 0;
}

static int listen_swarm(struct swarm *s, struct err *e)
{
	const struct identity *id = s->identity;
	int rc = swarm_make_tls(s, e);
	if (rc != 0)
		return rc;
	s->rpc = rpc_server_new(s->node->loop);
	rc = tls_listen(
	    s->node->loop, s->server_tls, id->listen_host, id->listen_port, on_accept, s, &s->listener, e);
	return rc;
}

static int start_manager(struct swarm *s, const Pb__Cluster *cluster, const Pb__Node *node, struct err *e)
{
	struct node *n = s->node;
	const struct identity *id = s->identity;
	CLEANUP_FREE char *dir = identity_raft_dir(n->cfg->data_root);
	CLEANUP_FREE char *address = addr_join(id->advertise_host, id->advertise_port);
	const struct manager_opts o = {
	    .loop = n->loop,
	    .clock = n->clock,
	    .rng = n->rng,
	    .dir = dir,
	    .raft_id = id->raft_id,
	    .address = address,
	    .data_key = id->data_key,
	    .bootstrap = cluster != NULL,
	    .initial_cluster = cluster,
	    .initial_node = node,
	    .ready = on_ready,
	    .lost = on_lost,
	    .failed = on_failed,
	    .event = on_event,
	    .data = s,
	};
	int rc = manager_start(&o, &s->manager, e);
	if (rc == 0) {
		manager_serve(s->manager, s->rpc);
		renew_schedule(s);
	}
	return rc;
}

void swarm_resume(struct swarm *s)
{
	struct err e = ERR_INIT;
	const char *root = s->node->cfg->data_root;
	CLEANUP_PB Pb__Cluster *cluster = NULL;
	CLEANUP_PB Pb__Node *node = NULL;
	identity_clean(root);
	int rc = identity_load(root, &s->identity, &e);
	if (rc == ERR_NOT_FOUND)
		return;
	s->state = SWARM_STARTING;
	if (rc == 0)
		rc = identity_initial(root, &cluster, &node, &e);
	if (rc == 0 && cluster) { /* died before init was answered: nothing in the log counts */
		CLEANUP_FREE char *raft = identity_raft_dir(root);
		rc = fs_remove_tree(raft, &e);
	}
	if (rc == 0)
		rc = listen_swarm(s, &e);
	if (rc == 0)
		rc = start_manager(s, cluster, node, &e);
	if (rc != 0) {
		log_error("this node cannot take its place in the swarm: %s", e.text);
		s->state = SWARM_ERROR;
		s->error = xstrdup(e.text);
	}
}

/* --- init */

static int refuse_unbuilt(const struct api_swarm_init *q, struct err *e)
{
	if (q->force_new_cluster)
		return err_set(
		    e, ERR_NOT_IMPLEMENTED, "--force-new-cluster is not supported by this version");
	if (q->spec->encryption_config && q->spec->encryption_config->auto_lock_managers)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "autolock is not supported by this version: leave AutoLockManagers off");
	if (!str_empty(q->data_path_addr) || (q->data_path_port && q->data_path_port != 4789))
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "a data path address or port has no use before overlay networks are supported: leave "
		    "DataPathAddr and DataPathPort out");
	if (q->n_default_addr_pool)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "default address pools have no use before overlay networks are supported: leave "
		    "DefaultAddrPool out");
	return 0;
}

static Pb__Cluster *new_cluster(struct swarm *s, const struct api_swarm_init *q, struct err *e)
{
	char id[ID_LEN + 1];
	Pb__Cluster *c = PB_NEW(Pb__Cluster, pb__cluster);
	id_new(s->node->rng, id);
	c->id = xstrdup(id);
	c->spec = pb_clone(q->spec);
	pb_add_str(&c->default_addr_pool, &c->n_default_addr_pool, "10.0.0.0/8");
	c->has_subnet_size = c->has_data_path_port = true;
	c->subnet_size = q->subnet_size ? q->subnet_size : 24;
	c->data_path_port = 4789;
	if (ca_cluster_init(c, clock_unix_ns(s->node->clock), s->node->rng, e) != 0) {
		pb_free(c);
		return NULL;
	}
	return c;
}

static Pb__Node *new_node(struct swarm *s, const struct api_swarm_init *q)
{
	const struct identity *id = s->identity;
	Pb__Node *n = PB_NEW(Pb__Node, pb__node);
	n->id = xstrdup(id->node_id);
	n->spec = PB_NEW(Pb__NodeSpec, pb__node_spec);
	n->spec->has_role = n->spec->has_availability = true;
	n->spec->role = PB__NODE_ROLE__E__MANAGER;
	n->spec->availability = q->availability;
	n->has_role = true;
	n->role = PB__NODE_ROLE__E__MANAGER;
	n->description = description_make(s->node->cfg, id->ca_pem);
	n->status = PB_NEW(Pb__NodeStatus, pb__node_status);
	n->status->has_state = true;
	n->status->state = PB__NODE_STATE__E__UNKNOWN;
	n->status->addr = xstrdup(id->advertise_host);
	n->manager_status = PB_NEW(Pb__ManagerStatus, pb__manager_status);
	n->manager_status->has_leader = n->manager_status->has_reachability = n->manager_status->has_raft_id =
	    true;
	n->manager_status->leader = true;
	n->manager_status->reachability = PB__REACHABILITY__E__REACHABLE;
	n->manager_status->raft_id = id->raft_id;
	n->manager_status->addr = addr_join(id->advertise_host, id->advertise_port);
	return n;
}

static int new_identity(
    struct swarm *s, const struct api_swarm_init *q, Pb__Cluster **ret_cluster, struct err *e)
{
	char host[256], node_id[ID_LEN + 1];
	uint8_t *csr = NULL;
	size_t csr_len = 0;
	struct identity *id = s->identity = NEW(struct identity);
	int rc = addr_resolve_listen(q->listen_addr, host, &id->listen_port, e);
	if (rc != 0)
		return rc;
	id->listen_host = xstrdup(host);
	rc = addr_resolve_advertise(
	    q->advertise_addr, id->listen_host, id->listen_port, host, &id->advertise_port, e);
	if (rc != 0)
		return rc;
	id->advertise_host = xstrdup(host);
	strlist_take(&id->managers, addr_join(id->advertise_host, id->advertise_port));
	id_new(s->node->rng, node_id);
	id->node_id = xstrdup(node_id);
	id->manager = true;
	id->raft_id = 1;
	s->node->rng.fill(s->node->rng.data, id->data_key, sizeof(id->data_key));
	Pb__Cluster *c = new_cluster(s, q, e);
	if (!c)
		return e ? e->code : ERR_INTERNAL;
	id->cluster_id = xstrdup(c->id);
	id->ca_pem = xstrdup(c->root_ca_cert);
	rc = pki_key_new(&id->key_pem, e);
	if (rc == 0)
		rc = pki_csr_new(id->key_pem, &csr, &csr_len, e);
	if (rc == 0)
		rc = ca_issue(c, csr, csr_len, node_id, PB__NODE_ROLE__E__MANAGER,
		    clock_unix_ns(s->node->clock), &id->cert_pem, e);
	free(csr);
	if (rc == 0)
		*ret_cluster = c;
	else
		pb_free(c);
	return rc;
}

static int swarm_init(void *data, const struct api_swarm_init *q, manager_cb cb, void *cb_data, struct err *e)
{
	struct swarm *s = data;
	if (s->state != SWARM_INACTIVE || s->closing)
		return err_set(e, ERR_UNAVAILABLE,
		    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm "
		    "and join another one.");
	int rc = refuse_unbuilt(q, e);
	if (rc != 0)
		return rc;
	CLEANUP_PB Pb__Cluster *cluster = NULL;
	CLEANUP_PB Pb__Node *node = NULL;
	s->state = SWARM_STARTING;
	s->fresh = true;
	rc = new_identity(s, q, &cluster, e);
	if (rc == 0)
		rc = listen_swarm(s, e);
	if (rc == 0) {
		node = new_node(s, q);
		rc = identity_create(s->node->cfg->data_root, s->identity, cluster, node, e);
	}
	if (rc == 0)
		rc = start_manager(s, cluster, node, e);
	if (rc != 0) {
		s->closed = NULL;
		teardown(s);
		return rc;
	}
	s->done = cb;
	s->done_data = cb_data;
	return 0;
}

/* --- ending: what listens (its calls use the manager), then the manager, then the agent */

static void ended(void *data)
{
	struct swarm *s = data;
	s->closing = false;
	struct err e = s->init_err;
	s->init_err = no_err;
	if (s->fresh || s->leaving) {
		struct err re = ERR_INIT;
		if (identity_remove(s->node->cfg->data_root, &re) != 0) {
			log_error("the swarm's files could not be removed: %s", re.text);
			if (!e.code)
				e = re;
		}
		identity_free(TAKE_PTR(s->identity));
		free(TAKE_PTR(s->error));
		s->state = SWARM_INACTIVE;
	}
	s->fresh = s->leaving = false;
	tls_ctx_unref(TAKE_PTR(s->server_tls));
	tls_ctx_unref(TAKE_PTR(s->client_tls));
	timer_free(TAKE_PTR(s->init_wait));
	answer(s, &e);
	if (s->closed)
		s->closed(s->closed_data);
}

static void agent_ended(void *data)
{
	struct swarm *s = data;
	s->agent = NULL;
	ended(s);
}

static void manager_ended(void *data)
{
	struct swarm *s = data;
	s->manager = NULL;
	if (s->agent && s->leaving)
		agent_leave(s->agent, agent_ended, s);
	else if (s->agent)
		agent_close(s->agent, agent_ended, s);
	else
		ended(s);
}

static void doors_closed(void *data)
{
	struct swarm *s = data;
	if (--s->closing_doors)
		return;
	if (s->manager)
		manager_close(s->manager, manager_ended, s);
	else
		manager_ended(s);
}

static void teardown(struct swarm *s)
{
	s->closing = true;
	s->closing_doors = 1;
	renew_stop(s);
	if (s->listener) {
		s->closing_doors++;
		tls_listener_close(TAKE_PTR(s->listener), doors_closed, s);
	}
	if (s->rpc) {
		s->closing_doors++;
		rpc_server_close(TAKE_PTR(s->rpc), doors_closed, s);
	}
	loop_defer(s->node->loop, doors_closed, s);
}

static int swarm_leave(void *data, bool force, manager_cb cb, void *cb_data, struct err *e)
{
	struct swarm *s = data;
	if (s->state == SWARM_INACTIVE)
		return err_set(e, ERR_UNAVAILABLE, "This node is not part of a swarm");
	if (s->closing || s->done)
		return err_set(e, ERR_UNAVAILABLE,
		    "this node is just joining or leaving a swarm: try again in a moment");
	if (s->identity && s->identity->manager && !force)
		return err_set(e, ERR_UNAVAILABLE,
		    "You are attempting to leave the swarm on a node that is participating as a manager. "
		    "Removing the last manager "
		    "erases all current state of the swarm. Use `--force` to ignore this message.");
	s->done = cb;
	s->done_data = cb_data;
	s->leaving = true;
	s->state = SWARM_LEAVING;
	teardown(s);
	return 0;
}

void swarm_close(struct swarm *s, void (*closed)(void *data), void *data)
{
	s->closed = closed;
	s->closed_data = data;
	if (s->closing)
		return; /* a leave is under way: its end calls */
	s->init_err = (struct err){.code = ERR_UNAVAILABLE, .text = "the daemon is shutting down"};
	teardown(s);
}

/* --- for the API */

static void state(void *data, struct api_node_state *ret)
{
	const struct swarm *s = data;
	static const char *const words[] = {
	    [SWARM_INACTIVE] = "inactive",
	    [SWARM_STARTING] = "pending",
	    [SWARM_ACTIVE] = "active",
	    [SWARM_LEAVING] = "active",
	    [SWARM_ERROR] = "error",
	};
	*ret = (struct api_node_state){
	    .node_id = s->identity ? s->identity->node_id : "",
	    .node_addr = s->identity ? str_or(s->identity->advertise_host, "") : "",
	    .state = words[s->state],
	    .error = str_or(s->error, ""),
	    .control_available = s->state == SWARM_ACTIVE && manager_ready(s->manager),
	};
	if (!ret->node_id)
		ret->node_id = "";
}

static struct store *store_of(void *data, struct err *e)
{
	struct swarm *s = data;
	if (s->state == SWARM_ACTIVE && manager_ready(s->manager))
		return manager_store(s->manager);
	if (s->state == SWARM_INACTIVE || s->state == SWARM_LEAVING)
		err_set(e, ERR_UNAVAILABLE, NOT_MANAGER);
	else if (s->state == SWARM_ERROR)
		err_set(e, ERR_UNAVAILABLE,
		    "This node is not a swarm manager. It could not take its place in the swarm: %s",
		    str_or(s->error, "unknown error"));
	else
		err_set(e, ERR_UNAVAILABLE,
		    "This node is not a swarm manager. The swarm does not have a leader yet: try again in a "
		    "moment.");
	return NULL;
}

static int propose(void *data, const struct txn *t, manager_cb cb, void *cb_data, struct err *e)
{
	struct swarm *s = data;
	if (!store_of(s, e))
		return ERR_UNAVAILABLE;
	return manager_propose(s->manager, t, cb, cb_data, e);
}

static char *join_token_new(void *data, const Pb__Cluster *c)
{
	struct swarm *s = data;
	char token[PKI_TOKEN_LEN + 1];
	pki_token_new(s->node->rng, c->root_ca_cert, token);
	return xstrdup(token);
}

static int log_open(void *data, const struct api_log_query *q, struct api_log **ret, struct err *e)
{
	return log_stream_open(data, q, ret, e);
}

static void log_pause(void *data, struct api_log *l, bool paused)
{
	(void)data;
	log_stream_pause(l, paused);
}

static void log_close(void *data, struct api_log *l)
{
	(void)data;
	log_stream_close(l);
}

void swarm_fill_api(struct swarm *s, struct manager_if *m)
{
	*m = (struct manager_if){
	    .data = s,
	    .state = state,
	    .store = store_of,
	    .propose = propose,
	    .swarm_init = swarm_init,
	    .swarm_leave = swarm_leave,
	    .join_token_new = join_token_new,
	    .log_open = log_open,
	    .log_pause = log_pause,
	    .log_close = log_close,
	};
}
