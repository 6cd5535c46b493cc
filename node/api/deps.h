/* What the Engine API needs from the rest of the node, as tables of functions, so that tests can put a
 * store of their own behind it. node/node.c fills the real ones. */
#ifndef NODE_API_DEPS_H
#define NODE_API_DEPS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/store/store.h"
#include "node/events.h"

/* Where this node stands. Strings are borrowed until the next turn of the loop and never NULL. */
struct api_node_state {
	const char *node_id;    /* "" when not in a swarm */
	const char *node_addr;  /* advertised IP, "" when none */
	const char *state;      /* inactive pending active error locked */
	const char *error;      /* why state is error */
	bool control_available; /* an active manager */
};

/* POST /swarm/init, read and checked. Strings and messages are borrowed for the call. */
struct api_swarm_init {
	const char *listen_addr;     /* never empty: "0.0.0.0:2377" */
	const char *advertise_addr;  /* "" or "IP", "IP:port", "interface[:port]" */
	const char *data_path_addr;  /* "" or an address or interface */
	uint32_t data_path_port;     /* 0: default */
	const Pb__ClusterSpec *spec; /* all defaults filled in */
	const char *const *default_addr_pool;
	size_t n_default_addr_pool;
	uint32_t subnet_size; /* 0: default */
	bool force_new_cluster;
	Pb__NodeAvailability__E availability;
};

/* POST /swarm/join */
struct api_swarm_join {
	const char *listen_addr, *advertise_addr, *data_path_addr, *join_token;
	const char *const *remote_addrs;
	size_t n_remote_addrs;
	Pb__NodeAvailability__E availability;
};

/* Called once. 0 or an ERR_* with e. */
typedef void (*manager_cb)(void *data, int status, const struct err *e);

/* One line of a task's log. ts is unix ns, stream 1 stdout or 2 stderr; data without its newline. */
struct api_log_line {
	const char *task_id, *service_id, *node_id;
	int64_t ts;
	int stream;
	const uint8_t *data;
	size_t len;
};
struct api_log_query {
	const char *service_id; /* one of the two */
	const char *task_id;
	bool follow, want_stdout, want_stderr;
	int64_t tail;  /* -1: all */
	int64_t since; /* unix ns; 0: from the start */
	void (*on_line)(void *data, const struct api_log_line *l);
	/* The last call: everything was sent (0), or what went wrong. Not after log_close. */
	void (*on_end)(void *data, int status, const struct err *e);
	void *data;
};
struct api_log; /* the provider's */

/* Functions that return int start something when they return 0 (the callback follows, never before the
 * function has returned); otherwise there is no callback and e says why. Those marked optional may be NULL:
 * the route answers 501. */
struct manager_if {
	void *data;
	void (*state)(void *data, struct api_node_state *ret);
	/* The store of this manager; NULL with ERR_UNAVAILABLE and Swarm's text when this is no ready
	 * manager. */
	struct store *(*store)(void *data, struct err *e);
	/* Commits a transaction; does not keep `t`. cb comes when it is applied to this node's store, or
	 * failed: ERR_STALE, ERR_CONFLICT ... from store_apply, ERR_UNAVAILABLE. */
	int (*propose)(void *data, const struct txn *t, manager_cb cb, void *cb_data, struct err *e);
	/* After success state() shows the node as active. */
	int (*swarm_init)(
	    void *data, const struct api_swarm_init *q, manager_cb cb, void *cb_data, struct err *e);
	int (*swarm_join)(void *data, const struct api_swarm_join *q, manager_cb cb, void *cb_data,
	    struct err *e); /* optional */
	int (*swarm_leave)(void *data, bool force, manager_cb cb, void *cb_data, struct err *e);
	int (*swarm_unlock)(
	    void *data, const char *key, manager_cb cb, void *cb_data, struct err *e); /* optional */
	/* A new join token for the cluster's current root ("SWMTKN-1-..."), heap. */
	char *(*join_token_new)(void *data, const Pb__Cluster *c);
	/* Turns off the node's part in a cluster before its object is removed; optional. */
	/* Opens a stream of log lines; ends by on_end or by log_close. */
	int (*log_open)(void *data, const struct api_log_query *q, struct api_log **ret, struct err *e);
	void (*log_pause)(void *data, struct api_log *l, bool paused); /* optional: the client reads slowly */
	void (*log_close)(void *data, struct api_log *l);
};

/* What the engine of this node adds to answers; each may be NULL. */
struct engine_if {
	void *data;
	/* Sets keys of GET /info: Containers, ContainersRunning, ContainersPaused, ContainersStopped, Images,
	 * Driver, DriverStatus, CgroupDriver, CgroupVersion, Runtimes, DefaultRuntime, DockerRootDir,
	 * RegistryConfig, Labels, ... */
	void (*info)(void *data, json_t *o);
};

struct api_deps {
	uv_loop_t *loop;
	struct clock clock;
	struct rng rng;
	struct events *events;
	struct manager_if manager;
	struct engine_if engine;
	const char *hostname; /* NULL: the system's */
	const char *data_root;
};

#endif
