/* What the dispatcher's files share: dispatcher.c (sessions and liveness), assign.c (what goes to agents),
 * status.c (what comes back). */
#ifndef MANAGER_DISPATCHER_INTERNAL_H
#define MANAGER_DISPATCHER_INTERNAL_H

#include "base/map.h"
#include "base/timer.h"
#include "manager/dispatcher/dispatcher.h"

#define HEARTBEATS_MISSED 3
#define STATUS_CHUNK_MAX  256

/* A node as the dispatcher sees it: its session, when there is one, and the timer that declares it down. */
struct member {
	struct dispatcher *d;
	char *node_id;
	struct session *session;
	struct timer *grace;
};

struct session {
	struct dispatcher *d;
	struct member *member; /* NULL until the hello */
	struct rpc_stream *stream;
	struct tls_peer peer;
	char id[ID_LEN + 1];
	uint64_t sequence;
	bool full; /* everything is to be sent */
	bool node_changed;
	struct strmap dirty;     /* task ids to look at */
	struct strmap tasks;     /* sent: task id -> char *template id */
	struct strmap templates; /* sent: template id -> number of tasks, as a pointer */
	unsigned batches;        /* status batches that are not acknowledged */
};

/* One status batch of a session, until all of it is committed. */
struct status_batch {
	char *node_id;
	char session_id[ID_LEN + 1];
	uint64_t sequence;
	size_t left;
};
struct pending_status {
	Pb__TaskStatus *status;
	struct status_batch *batch;
	bool in_flight;
	struct pending_status *newer; /* came while this one was in flight */
};

struct dispatcher {
	struct dispatcher_opts o;
	struct rpc_method method;
	struct store_watch *watch;
	bool running, closing;
	struct strmap members;  /* node id -> struct member */
	struct strmap services; /* published tables to send: service ids */
	bool flush_queued;
	struct strmap statuses; /* task id -> struct pending_status */
	bool commit_queued;
	size_t chunk;       /* tasks a transaction */
	unsigned in_flight; /* commits and deferred calls that refer to the dispatcher */
	void (*closed)(void *data);
	void *closed_data;
};

/* dispatcher.c */
void dispatcher_flush_soon(struct dispatcher *d);
void dispatcher_release(struct dispatcher *d); /* one of in_flight less */
/* assign.c */
void assign_event(struct dispatcher *d, const struct store_event *ev);
void assign_flush(struct dispatcher *d);
void assign_session_done(struct session *s);
/* status.c */
void status_take(struct session *s, const Pb__TaskStatusBatch *b);
void status_reset(struct dispatcher *d);

#endif
