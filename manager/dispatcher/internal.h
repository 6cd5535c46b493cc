/* What the dispatcher's files share: dispatcher.c (sessions and liveness), node_write.c (what becomes of a
 * node's object), assign.c (what goes to agents), status.c (what comes back). */
#ifndef MANAGER_DISPATCHER_INTERNAL_H
#define MANAGER_DISPATCHER_INTERNAL_H

#include "base/map.h"
#include "base/str.h"
#include "base/timer.h"
#include "manager/dispatcher/dispatcher.h"

#define HEARTBEATS_MISSED 3
#define STATUS_CHUNK_MAX  256
#define SESSION_OUT_HIGH                                                                                     \
	(1024u * 1024) /* bytes that wait for an agent, beyond which its changes gather here */
#define DESCRIPTION_MAX (256u * 1024)
#define STATUS_MAX      16384 /* bytes of one task's reported status */

/* A node as the dispatcher sees it: its session, when there is one, and the timer that declares it down. */
struct member {
	struct dispatcher *d;
	char *node_id;
	struct session *session;
	struct timer *grace;
};

/* What a session was sent and still needs: a template by its tasks, a secret or config by its templates. */
struct used {
	size_t users;
	struct strlist secrets, configs; /* templates: what they name */
	char id[];
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
	bool doomed;         /* to be ended: its reports could not be stored */
	bool blocked;        /* the agent does not keep up: wait until the stream has drained */
	struct strmap dirty; /* task ids to look at */
	/* Sent: task id -> the template's struct used; the others id -> struct used. */
	struct strmap tasks, templates, secrets, configs;
	struct session *prev, *next; /* of the dispatcher */
	struct session *prev_dirty, *next_dirty;
	bool on_dirty;
	struct status_batch *batches; /* not acknowledged yet, oldest first */
};

struct dispatcher {
	struct dispatcher_opts o;
	struct rpc_method method;
	struct store_watch *watch;
	bool running, closing;
	struct strmap members; /* node id -> struct member */
	struct session *sessions;
	struct session *dirty;   /* those with something to send */
	struct strmap services;  /* published tables to send: service ids */
	struct strlist departed; /* nodes whose objects were deleted */
	bool flush_queued;
	struct statuses *statuses;
	unsigned in_flight; /* commits and deferred calls that refer to the dispatcher */
	void (*closed)(void *data);
	void *closed_data;
};

/* dispatcher.c */
void dispatcher_flush_soon(struct dispatcher *d);
void dispatcher_release(struct dispatcher *d); /* one of in_flight less */
/* Ends it with a status for the agent; s is gone afterwards. */
void dispatcher_end_session(struct session *s, int code, const char *text);
/* node_write.c: tries until it is stored, or the node is gone; what is NULL stays as it is. */
void node_write(struct dispatcher *d, const char *node_id, Pb__NodeState__E state, const char *message,
    const char *addr, const Pb__NodeDescription *description);
/* assign.c */
void assign_event(struct dispatcher *d, const struct store_event *ev);
void assign_mark(struct session *s); /* it has something to send */
void assign_flush(struct dispatcher *d);
void assign_session_done(struct session *s);
/* status.c */
struct statuses *statuses_new(void);
void statuses_free(struct statuses *ss);
void status_take(struct session *s, const Pb__TaskStatusBatch *b);
void status_session_done(struct session *s);
void status_reset(struct dispatcher *d);

#endif
