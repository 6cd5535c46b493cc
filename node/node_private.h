/* What the files of node/ share. */
#ifndef NODE_NODE_PRIVATE_H
#define NODE_NODE_PRIVATE_H

#include "agent/agent.h"
#include "base/rng.h"
#include "base/timer.h"
#include "manager/manager.h"
#include "node/api/api.h"
#include "node/config.h"
#include "node/events.h"
#include "node/identity.h"
#include "node/node.h"
#include "proto/http.h"
#include "proto/rpc.h"
#include "proto/tls.h"

/* Where this node stands with its swarm. */
enum swarm_state {
	SWARM_INACTIVE,
	SWARM_STARTING, /* init, or a start that is under way */
	SWARM_ACTIVE,
	SWARM_LEAVING,
	SWARM_ERROR, /* there is an identity, but it cannot be used; `error` says why */
};

struct swarm {
	struct node *node;
	enum swarm_state state;
	char *error;
	struct identity *identity;
	struct tls_ctx *server_tls, *client_tls;
	struct tls_listener *listener;
	struct rpc_server *rpc;
	struct manager *manager;
	struct agent *agent;
	struct timer *renew, *init_wait;
	struct rpc_client *renew_client;
	char *renew_key;
	/* An init or leave under way. */
	manager_cb done;
	void *done_data;
	struct err init_err;
	bool fresh;   /* this start is an init: undone when it fails */
	bool leaving; /* teardown is for leaving: containers go too, and the identity */
	bool closing;
	unsigned closing_doors;
	void (*closed)(void *data); /* teardown's end */
	void *closed_data;
};

struct node {
	uv_loop_t *loop;
	const struct config *cfg;
	struct clock clock;
	struct rng rng;
	int lock_fd;
	struct images *images;
	struct hostnet *net;
	struct engine *engine;
	struct events *events;
	struct api *api;
	struct http_server *http;
	struct swarm swarm;
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
};

/* --- swarm.c: init, start, leave */
void swarm_setup(struct swarm *s, struct node *n);
/* Goes on with the swarm that the data root says, if any. Trouble with it is kept as the error state. */
void swarm_resume(struct swarm *s);
void swarm_close(struct swarm *s, void (*closed)(void *data), void *data);
void swarm_done(struct swarm *s);
/* Fills the functions that the API needs of managers. */
void swarm_fill_api(struct swarm *s, struct manager_if *m);
/* TLS contexts from the identity; replaces those in use. */
int swarm_make_tls(struct swarm *s, struct err *e);

/* --- renew.c: the node's certificate */
void renew_schedule(struct swarm *s);
void renew_stop(struct swarm *s);

/* --- log_stream.c: task logs for the API */
int log_stream_open(struct swarm *s, const struct api_log_query *q, struct api_log **ret, struct err *e);
void log_stream_pause(struct api_log *l, bool paused);
void log_stream_close(struct api_log *l);

/* --- engine_info.c: /info */
void engine_info_fill_api(struct node *n, struct engine_if *e);

#endif
