/* See dispatcher.h. Sessions and who is alive.
 *
 * A session begins with a hello from a node whose certificate names a node of the store. The node becomes
 * READY in one commit with what it says of itself; then it gets everything, then changes. Each message that
 * arrives is a sign of life; a node that is not heard for HEARTBEATS_MISSED periods is DOWN, whether its
 * stream still stands or not. A second session of a node ends the first. A new leader gives every node twice
 * that time before it judges. */
#include "manager/dispatcher/internal.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/pb.h"

#define PERIOD_DEFAULT_NS (5 * NS_PER_SEC)

static int64_t period_ns(const struct dispatcher *d)
{
	const Pb__Cluster *c = store_cluster(d->o.store);
	int64_t p = c && c->spec->dispatcher && c->spec->dispatcher->has_heartbeat_period
			? c->spec->dispatcher->heartbeat_period
			: 0;
	return p > 0 ? p : PERIOD_DEFAULT_NS;
}

static void arm_grace(struct member *m, unsigned times)
{
	timer_start(m->grace, (uint64_t)(period_ns(m->d) / NS_PER_MSEC) * HEARTBEATS_MISSED * times);
}

void dispatcher_release(struct dispatcher *d)
{
	if (--d->in_flight || !d->closing)
		return;
	void (*closed)(void *) = d->closed;
	void *closed_data = d->closed_data;
	status_reset(d);
	strmap_done(&d->statuses);
	strmap_done(&d->services);
	strmap_done(&d->members);
	free(d);
	closed(closed_data);
}

/* --- node status */

static void node_committed(void *data, int status, const struct err *e)
{
	struct dispatcher *d = data;
	if (status != 0 && status != ERR_UNAVAILABLE)
		log_warn("a node's state could not be stored: %s", e->text);
	dispatcher_release(d);
}

struct node_write {
	struct dispatcher *d;
	char *node_id;
	Pb__NodeStatus status;
	char *message, *addr;
	Pb__NodeDescription *description;
	unsigned tries;
};

static void write_free(struct node_write *w)
{
	free(w->node_id);
	free(w->message);
	free(w->addr);
	pb_free(w->description);
	free(w);
}

static void write_try(struct node_write *w);

static void write_done(void *data, int status, const struct err *e)
{
	struct node_write *w = data;
	struct dispatcher *d = w->d;
	if (status == ERR_STALE && w->tries < 20 && d->running) {
		write_try(w);
		return;
	}
	write_free(w);
	node_committed(d, status, e);
}

/* Takes w; holds one in_flight. */
static void write_try(struct node_write *w)
{
	struct dispatcher *d = w->d;
	const struct object *o = store_get(d->o.store, OBJ(NODE), w->node_id);
	struct err e = ERR_INIT;
	w->tries++;
	if (!o) {
		write_free(w);
		dispatcher_release(d);
		return;
	}
	Pb__Node *n = pb_clone(o->node);
	pb_free(n->status);
	Pb__NodeStatus st = w->status;
	st.message = w->message;
	st.addr = w->addr ? w->addr : (o->node->status ? o->node->status->addr : NULL);
	n->status = pb_clone(&st);
	n->has_down_since = st.state == PB__NODE_STATE__E__DOWN;
	n->down_since = n->has_down_since ? clock_unix_ns(d->o.clock) : 0;
	if (w->description) {
		pb_free(n->description);
		n->description = pb_clone(w->description);
	}
	if (msg_equal(n, o->node)) { /* nothing new */
		pb_free(n);
		write_free(w);
		dispatcher_release(d);
		return;
	}
	struct txn *t = txn_new();
	txn_update(t, OBJ(NODE), n);
	if (d->o.propose(d->o.data, t, write_done, w, &e) != 0)
		write_done(w, e.code, &e);
	txn_free(t);
}

static void write_node(struct dispatcher *d, const char *node_id, Pb__NodeState__E state, const char *message,
    const char *addr, const Pb__NodeDescription *description)
{
	struct node_write *w = NEW(struct node_write);
	w->d = d;
	w->node_id = xstrdup(node_id);
	pb__node_status__init(&w->status);
	w->status.has_state = true;
	w->status.state = state;
	w->message = xstrdup(message);
	w->addr = xstrdup(addr);
	w->description = pb_clone(description);
	d->in_flight++;
	write_try(w);
}

/* --- members */

static void end_session(struct session *s, const struct err *why)
{
	struct dispatcher *d = s->d;
	if (s->member) {
		s->member->session = NULL;
		if (d->o.session)
			d->o.session(d->o.data, s->member->node_id, 0);
	}
	if (s->stream) {
		if (why)
			rpc_stream_finish(s->stream, why);
		else
			rpc_stream_cancel(s->stream);
	}
	assign_session_done(s);
	free(s);
}

static void member_down(void *data)
{
	struct member *m = data;
	struct dispatcher *d = m->d;
	const struct object *o = store_get(d->o.store, OBJ(NODE), m->node_id);
	if (m->session) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_TIMEOUT, "no heartbeat for %d periods", HEARTBEATS_MISSED);
		end_session(m->session, &e);
	}
	if (o && o->node->status && o->node->status->state == PB__NODE_STATE__E__DOWN)
		return;
	log_warn("node %s is not heard any more: it is down", m->node_id);
	write_node(d, m->node_id, PB__NODE_STATE__E__DOWN, "heartbeat failure", NULL, NULL);
}

static struct member *member_of(struct dispatcher *d, const char *node_id)
{
	struct member *m = strmap_get(&d->members, node_id);
	if (m)
		return m;
	m = NEW(struct member);
	m->d = d;
	m->node_id = xstrdup(node_id);
	m->grace = timer_new(d->o.loop, member_down, m);
	strmap_put(&d->members, node_id, m);
	return m;
}

static void member_free(struct member *m)
{
	if (m->session)
		end_session(m->session, NULL);
	timer_free(m->grace);
	free(m->node_id);
	free(m);
}

/* --- sessions */

static void refuse(struct session *s, int code, const char *text)
{
	struct err e = ERR_INIT;
	err_set(&e, code, "%s", text);
	end_session(s, &e);
}

static void send_start(struct session *s, const Pb__Node *node)
{
	struct dispatcher *d = s->d;
	Pb__ManagerMessage m = PB__MANAGER_MESSAGE__INIT;
	Pb__SessionStart st = PB__SESSION_START__INIT;
	struct strlist addrs = STRLIST_INIT;
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, d->o.store, OBJ(NODE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)))
		if (o->node->manager_status && !str_empty(o->node->manager_status->addr))
			strlist_add(&addrs, o->node->manager_status->addr);
	st.session_id = s->id;
	st.heartbeat_period = period_ns(d);
	st.node = (Pb__Node *)node;
	st.managers = addrs.v;
	st.n_managers = addrs.n;
	m.start = &st;
	rpc_stream_send(s->stream, &m);
	strlist_done(&addrs);
}

static void on_hello(struct session *s, const Pb__AgentHello *h)
{
	struct dispatcher *d = s->d;
	const struct object *o = store_get(d->o.store, OBJ(NODE), s->peer.node_id);
	const Pb__Cluster *c = store_cluster(d->o.store);
	if (!o || !c || strcmp(s->peer.org, c->id) != 0) {
		refuse(s, ERR_FORBIDDEN, "this node is not part of the cluster any more");
		return;
	}
	if (!h->description) {
		refuse(s, ERR_INVALID, "a hello without a description");
		return;
	}
	struct member *m = member_of(d, s->peer.node_id);
	if (m->session) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_CONFLICT, "the node opened another session");
		end_session(m->session, &e);
	}
	m->session = s;
	s->member = m;
	id_new(d->o.rng, s->id);
	arm_grace(m, 1);
	send_start(s, o->node);
	s->full = true;
	dispatcher_flush_soon(d);
	write_node(d, m->node_id, PB__NODE_STATE__E__READY, NULL, h->advertise_addr, h->description);
	if (d->o.session)
		d->o.session(d->o.data, m->node_id, 1);
	log_info("node %s has opened a session", m->node_id);
}

static void on_message(void *data, const ProtobufCMessage *msg)
{
	struct session *s = data;
	const Pb__AgentMessage *m = (const Pb__AgentMessage *)msg;
	if (!s->member) {
		if (m->hello)
			on_hello(s, m->hello);
		else
			refuse(s, ERR_INVALID, "a session begins with a hello");
		return;
	}
	arm_grace(s->member, 1);
	if (m->status)
		status_take(s, m->status);
	else if (m->logs && s->d->o.logs)
		s->d->o.logs(s->d->o.data, s->member->node_id, m->logs);
	else if (m->description)
		write_node(s->d, s->member->node_id, PB__NODE_STATE__E__READY, NULL, NULL, m->description);
}

static void on_closed(void *data, const struct err *why)
{
	struct session *s = data;
	s->stream = NULL;
	if (s->member)
		log_info("the session of node %s ended: %s", s->member->node_id,
		    why->code ? why->text : "closed by the node");
	end_session(s, NULL);
}

static void begin(void *data, struct rpc_stream *stream, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = on_message, .closed = on_closed};
	struct dispatcher *d = data;
	if (!d->running) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_UNAVAILABLE, "this manager does not lead the cluster");
		rpc_stream_finish(stream, &e);
		return;
	}
	struct session *s = NEW(struct session);
	s->d = d;
	s->stream = stream;
	s->peer = *peer;
	rpc_stream_set_ops(stream, &ops, s);
}

int dispatcher_send(struct dispatcher *d, const char *node_id, const Pb__ManagerMessage *m, struct err *e)
{
	const struct member *mb = strmap_get(&d->members, node_id);
	if (!mb || !mb->session)
		return err_set(e, ERR_NOT_FOUND, "node %s has no session", node_id);
	rpc_stream_send(mb->session->stream, m);
	return 0;
}

/* --- the store's news */

static void flush(void *data)
{
	struct dispatcher *d = data;
	d->flush_queued = false;
	if (d->running)
		assign_flush(d);
	dispatcher_release(d);
}

void dispatcher_flush_soon(struct dispatcher *d)
{
	if (d->flush_queued || !d->running)
		return;
	d->flush_queued = true;
	d->in_flight++;
	loop_defer(d->o.loop, flush, d);
}

static void on_event(void *data, const struct store_event *ev)
{
	struct dispatcher *d = data;
	if (!d->running)
		return;
	if (ev->kind == OBJ(NODE) && ev->cur) {
		struct member *m = strmap_get(&d->members, ev->cur->head->id);
		if (m && m->session && ev->old && ev->old->node->spec &&
		    !msg_equal(ev->old->node->spec, ev->cur->node->spec)) {
			m->session->node_changed = true;
			dispatcher_flush_soon(d);
		}
	}
	assign_event(d, ev);
}

/* --- life */

struct dispatcher *dispatcher_new(const struct dispatcher_opts *o)
{
	struct dispatcher *d = NEW(struct dispatcher);
	d->o = *o;
	d->chunk = STATUS_CHUNK_MAX;
	d->in_flight = 1; /* the owner's */
	d->method = (struct rpc_method){
	    .path = "/shoal.Dispatcher/Session",
	    .request = &pb__agent_message__descriptor,
	    .response = &pb__manager_message__descriptor,
	    .need_node = true,
	    .begin = begin,
	    .data = d,
	};
	d->watch = store_watch_new(o->store, on_event, d);
	return d;
}

const struct rpc_method *dispatcher_methods(struct dispatcher *d, size_t *ret_n)
{
	*ret_n = 1;
	return &d->method;
}

void dispatcher_start(struct dispatcher *d)
{
	struct store_iter it;
	const struct object *o;
	d->running = true;
	store_iter_init(&it, d->o.store, OBJ(NODE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)))
		if (!o->node->status || o->node->status->state != PB__NODE_STATE__E__DOWN)
			arm_grace(member_of(d, o->head->id), 2);
}

void dispatcher_stop(struct dispatcher *d)
{
	void *v;
	d->running = false;
	for (size_t it = 0; strmap_next(&d->members, &it, NULL, &v);)
		member_free(v);
	strmap_done(&d->members);
	d->members = (struct strmap)STRMAP_INIT;
	strmap_done(&d->services);
	d->services = (struct strmap)STRMAP_INIT;
	status_reset(d);
}

static void release_owner(void *data)
{
	dispatcher_release(data);
}

void dispatcher_close(struct dispatcher *d, void (*closed)(void *data), void *data)
{
	dispatcher_stop(d);
	store_watch_free(d->watch);
	d->closing = true;
	d->closed = closed;
	d->closed_data = data;
	/* Never from inside this call. */
	loop_defer(d->o.loop, release_owner, d);
}
