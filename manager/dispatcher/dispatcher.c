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
	statuses_free(d->statuses);
	strlist_done(&d->departed);
	strmap_done(&d->services);
	strmap_done(&d->members);
	free(d);
	closed(closed_data);
}

/* --- members */

static void session_free(struct session *s)
{
	struct dispatcher *d = s->d;
	if (s->prev)
		s->prev->next = s->next;
	else
		d->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (s->member) {
		s->member->session = NULL;
		if (d->o.session)
			d->o.session(d->o.data, s->member->node_id, 0);
	}
	assign_session_done(s);
	status_session_done(s);
	free(s);
}

void dispatcher_end_session(struct session *s, int code, const char *text)
{
	struct err e = ERR_INIT;
	err_set(&e, code, "%s", text);
	rpc_stream_finish(s->stream, &e);
	session_free(s);
}

static void member_down(void *data)
{
	struct member *m = data;
	struct dispatcher *d = m->d;
	const struct object *o = store_get(d->o.store, OBJ(NODE), m->node_id);
	if (m->session)
		dispatcher_end_session(m->session, ERR_TIMEOUT, "heartbeat failure");
	if (o && o->node->status && o->node->status->state == PB__NODE_STATE__E__DOWN)
		return;
	log_warn("node %s is not heard any more: it is down", m->node_id);
	node_write(d, m->node_id, PB__NODE_STATE__E__DOWN, "heartbeat failure", NULL, NULL);
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
	timer_free(m->grace);
	free(m->node_id);
	free(m);
}

/* --- sessions */

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

/* What the node says, else where it comes from, without the port. */
static char *address_of(const Pb__AgentHello *h, const struct tls_peer *peer)
{
	if (!str_empty(h->advertise_addr) && strlen(h->advertise_addr) < 256)
		return xstrdup(h->advertise_addr);
	const char *colon = strrchr(peer->addr, ':');
	size_t n = colon ? (size_t)(colon - peer->addr) : 0;
	bool brackets = n >= 2 && peer->addr[0] == '[';
	return n ? xstrndup(peer->addr + brackets, n - 2 * brackets) : NULL;
}

static void on_hello(struct session *s, const Pb__AgentHello *h)
{
	struct dispatcher *d = s->d;
	const struct object *o = store_get(d->o.store, OBJ(NODE), s->peer.node_id);
	const Pb__Cluster *c = store_cluster(d->o.store);
	if (!o || !c || strcmp(s->peer.org, c->id) != 0) {
		dispatcher_end_session(s, ERR_FORBIDDEN, "this node is not part of the cluster any more");
		return;
	}
	if (protobuf_c_message_get_packed_size(&h->description->base) > DESCRIPTION_MAX) {
		dispatcher_end_session(s, ERR_TOO_LARGE, "the node's description is too long");
		return;
	}
	struct member *m = member_of(d, s->peer.node_id);
	if (m->session)
		dispatcher_end_session(m->session, ERR_CONFLICT, "the node opened another session");
	m->session = s;
	s->member = m;
	id_new(d->o.rng, s->id);
	arm_grace(m, 1);
	send_start(s, o->node);
	s->full = true;
	assign_mark(s);
	CLEANUP_FREE char *addr = address_of(h, &s->peer);
	node_write(d, m->node_id, PB__NODE_STATE__E__READY, NULL, addr, h->description);
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
			dispatcher_end_session(s, ERR_INVALID, "a session begins with a hello");
		return;
	}
	arm_grace(s->member, 1);
	if (m->status)
		status_take(s, m->status);
	else if (m->logs && s->d->o.logs)
		s->d->o.logs(s->d->o.data, s->member->node_id, m->logs);
	else if (m->description &&
		 protobuf_c_message_get_packed_size(&m->description->base) <= DESCRIPTION_MAX)
		node_write(s->d, s->member->node_id, PB__NODE_STATE__E__READY, NULL, NULL, m->description);
}

static void on_closed(void *data, const struct err *why)
{
	struct session *s = data;
	if (s->member)
		log_info("the session of node %s ended: %s", s->member->node_id,
		    why->code ? why->text : "closed by the node");
	session_free(s);
}

/* The agent has no more to say, so neither have we. */
static void on_half_closed(void *data)
{
	struct session *s = data;
	rpc_stream_finish(s->stream, NULL);
	session_free(s);
}

static void on_drained(void *data)
{
	struct session *s = data;
	if (!s->blocked)
		return;
	s->blocked = false;
	if (s->full || s->node_changed || strmap_len(&s->dirty))
		assign_mark(s);
}

static void begin(void *data, struct rpc_stream *stream, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {
	    .message = on_message, .half_closed = on_half_closed, .closed = on_closed, .drained = on_drained};
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
	s->next = d->sessions;
	if (s->next)
		s->next->prev = s;
	d->sessions = s;
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

/* Its object is gone: it is told, and can come back only by joining anew. */
static void depart(struct dispatcher *d, const char *node_id)
{
	struct member *m = strmap_get(&d->members, node_id);
	if (!m || store_get(d->o.store, OBJ(NODE), node_id))
		return;
	if (m->session) {
		Pb__ManagerMessage msg = PB__MANAGER_MESSAGE__INIT;
		msg.has_leave = msg.leave = true;
		rpc_stream_send(m->session->stream, &msg);
		dispatcher_end_session(m->session, ERR_FORBIDDEN, "this node was removed from the cluster");
	}
	strmap_remove(&d->members, node_id);
	member_free(m);
}

static void flush(void *data)
{
	struct dispatcher *d = data;
	d->flush_queued = false;
	struct strlist departed = d->departed;
	d->departed = (struct strlist)STRLIST_INIT;
	for (size_t i = 0; i < departed.n && d->running; i++)
		depart(d, departed.v[i]);
	strlist_done(&departed);
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
			assign_mark(m->session);
		}
	} else if (ev->kind == OBJ(NODE)) {
		strlist_add(&d->departed, ev->old->head->id);
		dispatcher_flush_soon(d);
	}
	assign_event(d, ev);
}

/* --- life */

struct dispatcher *dispatcher_new(const struct dispatcher_opts *o)
{
	struct dispatcher *d = NEW(struct dispatcher);
	d->o = *o;
	d->statuses = statuses_new();
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
	for (struct session *s = d->sessions, *next; s; s = next) {
		next = s->next;
		dispatcher_end_session(s, ERR_UNAVAILABLE, "this manager does not lead the cluster any more");
	}
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
