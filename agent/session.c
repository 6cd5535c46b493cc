/* The agent's stream to a manager: hello, heartbeats, statuses and logs one way; session, assignments,
 * acknowledgements and log requests the other. One attempt after another, with a pause that grows to some
 * seconds, jittered, over the managers that are known.
 *
 * A status batch counts as delivered when the manager acknowledges its sequence number; with the session
 * gone, what was not acknowledged is reported again (a full assignment makes every task report). */
#include "agent/agent_private.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"
#include "proto/rpc.h"

#define RETRY_MIN_MS      50
#define RETRY_MAX_MS      5000
#define BATCHES_IN_FLIGHT 4

struct session {
	struct agent *agent;
	struct rpc_client *client;
	struct rpc_stream *stream; /* NULL between attempts */
	struct timer *retry, *heartbeat;
	struct task_logs *logs;
	char *session_id;
	uint64_t period_ms;
	uint64_t sent, acked; /* status batches */
	unsigned failures;
	size_t next_manager;
	bool started; /* the manager has answered the hello */
	bool closing, client_closing;
	void (*closed)(void *data);
	void *closed_data;
};

static void attempt(void *data);

bool session_ready(const struct session *s)
{
	return s && s->stream && s->started && !s->closing && s->sent - s->acked < BATCHES_IN_FLIGHT;
}

size_t session_send(struct session *s, const Pb__AgentMessage *m)
{
	return s->stream ? rpc_stream_send(s->stream, m) : 0;
}

bool session_send_status(struct session *s, const Pb__TaskStatusBatch *b)
{
	if (!session_ready(s))
		return false;
	Pb__TaskStatusBatch batch = *b;
	batch.sequence = ++s->sent;
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	m.status = &batch;
	rpc_stream_send(s->stream, &m);
	return true;
}

static void on_heartbeat(void *data)
{
	struct session *s = data;
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	Pb__AgentHeartbeat hb = PB__AGENT_HEARTBEAT__INIT;
	m.heartbeat = &hb;
	session_send(s, &m);
	/* Up to a tenth earlier, so that many agents do not beat in step. */
	timer_start(s->heartbeat, s->period_ms - rng_below(s->agent->rng, s->period_ms / 10 + 1));
}

static void take_managers(struct session *s, const Pb__SessionStart *st)
{
	struct agent *a = s->agent;
	if (!st->n_managers)
		return;
	strlist_done(&a->managers);
	a->managers = (struct strlist)STRLIST_INIT;
	for (size_t i = 0; i < st->n_managers; i++)
		strlist_add(&a->managers, st->managers[i]);
	s->next_manager = 0;
	if (a->managers_changed)
		a->managers_changed(a->data, a->managers.v, a->managers.n);
}

static void on_start(struct session *s, const Pb__SessionStart *st)
{
	free(s->session_id);
	s->session_id = xstrdup(st->session_id);
	int64_t ms = st->heartbeat_period / NS_PER_MSEC;
	s->period_ms = ms < 100 ? 100 : ms > 600000 ? 600000 : (uint64_t)ms;
	s->started = true;
	s->failures = 0;
	timer_start(s->heartbeat, s->period_ms);
	take_managers(s, st);
	if (st->node)
		agent_set_node(s->agent, st->node);
	log_info("session %s with a manager is up", st->session_id);
}

static void on_message(void *data, const ProtobufCMessage *msg)
{
	struct session *s = data;
	const Pb__ManagerMessage *m = (const Pb__ManagerMessage *)msg;
	struct agent *a = s->agent;
	if (m->start) {
		on_start(s, m->start);
	} else if (m->ack) {
		if (m->ack->sequence > s->acked && m->ack->sequence <= s->sent)
			s->acked = m->ack->sequence;
		agent_flush(a);
	} else if (m->assignments) {
		agent_assign(a, m->assignments);
	} else if (m->logs) {
		task_logs_request(s->logs, m->logs);
	} else if (m->node) {
		agent_set_node(a, m->node);
	} else if (m->has_leave && m->leave) {
		if (a->removed)
			a->removed(a->data);
	}
}

static void on_drained(void *data)
{
	struct session *s = data;
	task_logs_drained(s->logs);
}

static void finish(void *data)
{
	struct session *s = data;
	void (*closed)(void *) = s->closed;
	void *closed_data = s->closed_data;
	timer_free(s->retry);
	timer_free(s->heartbeat);
	task_logs_free(s->logs);
	free(s->session_id);
	free(s);
	closed(closed_data);
}

static void client_closed(void *data)
{
	struct session *s = data;
	s->client = NULL;
	s->client_closing = false;
	if (s->closing) {
		finish(s);
		return;
	}
	uint64_t ms = (uint64_t)RETRY_MIN_MS << (s->failures < 7 ? s->failures : 7);
	ms = ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
	s->failures++;
	timer_start(s->retry, ms / 2 + rng_below(s->agent->rng, ms / 2 + 1));
}

static void drop_client(struct session *s)
{
	if (s->client && !s->client_closing) {
		s->client_closing = true;
		rpc_client_close(s->client, client_closed, s);
	}
}

static void on_closed(void *data, const struct err *why)
{
	struct session *s = data;
	s->stream = NULL;
	s->started = false;
	s->sent = s->acked = 0;
	timer_stop(s->heartbeat);
	task_logs_reset(s->logs);
	if (!s->closing)
		log_warn("the session with the manager ended: %s",
		    why->code ? why->text : "the manager closed it");
	drop_client(s);
}

static int split_addr(const char *addr, char *host, size_t cap, uint16_t *ret_port)
{
	const char *colon = strrchr(addr, ':');
	uint64_t port;
	if (!colon || str_parse_u64(colon + 1, &port, NULL) != 0 || port == 0 || port > 65535)
		return ERR_INVALID;
	size_t n = (size_t)(colon - addr);
	if (n >= 2 && addr[0] == '[' && addr[n - 1] == ']') {
		addr++;
		n -= 2;
	}
	if (n == 0 || n >= cap)
		return ERR_INVALID;
	memcpy(host, addr, n);
	host[n] = 0;
	*ret_port = (uint16_t)port;
	return 0;
}

static void attempt(void *data)
{
	struct session *s = data;
	struct agent *a = s->agent;
	static const struct rpc_stream_ops ops = {
	    .message = on_message, .closed = on_closed, .drained = on_drained};
	const char *addr = a->managers.v[s->next_manager++ % a->managers.n];
	char host[256];
	uint16_t port;
	struct err e = ERR_INIT;
	CLEANUP_FREE char *at = a->manager_at ? a->manager_at(a->data, addr) : xstrdup(addr);
	if (split_addr(at, host, sizeof(host), &port) != 0) {
		log_error("manager address \"%s\" is not host:port", addr);
		timer_start(s->retry, RETRY_MAX_MS);
		return;
	}
	s->client = rpc_client_new(a->loop, a->tls, host, port);
	if (rpc_call(s->client, "/shoal.Dispatcher/Session", &pb__manager_message__descriptor, 0, &ops, s,
		&s->stream, &e) != 0) {
		log_warn("no session with manager %s: %s", addr, e.text);
		s->stream = NULL;
		drop_client(s);
		return;
	}
	Pb__AgentMessage m = PB__AGENT_MESSAGE__INIT;
	Pb__AgentHello hello = PB__AGENT_HELLO__INIT;
	hello.description = a->description;
	hello.session_id = s->session_id;
	hello.advertise_addr = a->advertise_addr;
	m.hello = &hello;
	rpc_stream_send(s->stream, &m);
}

struct session *session_start(struct agent *a)
{
	struct session *s = NEW(struct session);
	s->agent = a;
	s->retry = timer_new(a->loop, attempt, s);
	s->heartbeat = timer_new(a->loop, on_heartbeat, s);
	s->logs = task_logs_new(a);
	s->period_ms = 5000;
	timer_start(s->retry, 0);
	return s;
}

void session_close(struct session *s, void (*closed)(void *data), void *data)
{
	s->closing = true;
	s->closed = closed;
	s->closed_data = data;
	timer_stop(s->retry);
	timer_stop(s->heartbeat);
	task_logs_reset(s->logs);
	if (s->stream) {
		rpc_stream_cancel(s->stream);
		s->stream = NULL;
	}
	if (s->client)
		drop_client(s);
	else
		loop_defer(s->agent->loop, finish, s);
}
