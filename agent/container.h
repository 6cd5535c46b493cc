/* The container engine of a node: OCI bundles, overlayfs roots, conmon with crun or runc, exit codes, restore
 * after a restart of the daemon. It knows nothing of services: a task is one client, standalone containers
 * will be another.
 *
 * A container's record (Pb__Container) lives in LMDB and is written before each step that the kernel would
 * otherwise know more of than we do; on start the engine reads the records, matches living containers by pid
 * and start time, takes exit files, and goes on. conmon and the container do not end with the daemon. */
#ifndef AGENT_CONTAINER_H
#define AGENT_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/image.h"
#include "base/err.h"
#include "proto/container.pb-c.h"

struct engine;
struct hostnet;
struct kv;

struct engine_opts {
	const char *data_root; /* <data_root>/containers/<id>/ : record, bundle, upper and work dirs, log */
	const char *exec_root; /* sockets, pid files, runtime state; tmpfs */
	const char *runtime;   /* "crun" | "runc" | path | NULL: probe which works here */
	const char *cgroup_parent; /* NULL: "shoal" */
	struct images *images;
	struct hostnet *net; /* NULL: only network modes none and host */
	/* Events of containers for /events: create start die kill stop destroy oom health_status exec_*.
	 * attrs NULL-terminated key, value pairs beyond image, name and labels. */
	void (*event)(void *data, const char *action, const Pb__Container *c, const char *const *attrs);
	/* Any change of a record's status, health, exit: after it was stored. */
	void (*changed)(void *data, const Pb__Container *c);
	void *data;
};
/* Probes runtimes, cgroup mode, restores containers. */
int engine_open(uv_loop_t *loop, const struct engine_opts *o, struct engine **ret, struct err *e);
/* Leaves containers alone; waits for work in flight. */
void engine_close(struct engine *g, void (*closed)(void *data), void *data);
const char *engine_runtime(const struct engine *g);     /* name of the runtime in use */
const char *engine_cgroup_mode(const struct engine *g); /* "v1" "hybrid" "v2" */
struct kv *engine_kv(const struct engine *g); /* the agent's database, for tables of others (agent/kv.h) */

typedef void (*engine_cb)(void *data, const struct err *e); /* exactly once; code 0 is success */

/* Makes record, root file system (overlay mount happens at start), bundle; not started. Takes cfg (heap
 * message). cfg->image_id must be present. Errors name the cause: name in use (ERR_CONFLICT), unknown user,
 * missing bind source
 * ("invalid mount config for type \"bind\": bind source path does not exist: P"). ret_id at once. */
int engine_create(struct engine *g, Pb__ContainerConfig *cfg, const char *task_id, engine_cb cb, void *data,
    char ret_id[65], struct err *e);
/* Network, mounts, conmon + runtime; calls back once the process runs or failed ("starting container failed:
 * ..."). Starts run in parallel, bounded by cores. */
int engine_start(struct engine *g, const char *id, engine_cb cb, void *data, struct err *e);
/* Stop signal (NULL: the container's), grace_ns (-1: the container's, default 10 s), then SIGKILL; calls back
 * when it has ended. */
int engine_stop(struct engine *g, const char *id, const char *signal, int64_t grace_ns, engine_cb cb,
    void *data, struct err *e);
int engine_kill(struct engine *g, const char *id, const char *signal, struct err *e);
int engine_pause(struct engine *g, const char *id, bool pause, engine_cb cb, void *data, struct err *e);
/* Running containers only with force. Removes everything of it. */
int engine_remove(struct engine *g, const char *id, bool force, engine_cb cb, void *data, struct err *e);

/* Borrowed until the next turn of the loop. By full id, name (with or without slash) or unique prefix; "No
 * such container: X". */
int engine_find(struct engine *g, const char *ref, const Pb__Container **ret, struct err *e);
void engine_each(struct engine *g, void (*fn)(void *data, const Pb__Container *c), void *data);
/* Calls back when the container is not running any more (at once, next turn, if it is not). condition:
 * "not-running" "next-exit" "removed". exit_code -1 with e set when unknown. */
struct engine_wait;
typedef void (*engine_wait_cb)(void *data, int64_t exit_code, const struct err *e);
int engine_wait(struct engine *g, const char *id, const char *condition, engine_wait_cb cb, void *data,
    struct engine_wait **ret, struct err *e);
void engine_wait_cancel(struct engine_wait *w);
/* Directory and names other parts need. */
char *engine_log_path(const struct engine *g, const char *id); /* heap */
char *engine_cgroup_path(
    const struct engine *g, const char *id, const char *controller); /* heap; controller NULL on v2 */

/* --- exec (agent/exec.c) */
struct exec_config {
	char *const *cmd;       /* NULL-terminated */
	char *const *env;       /* additions, may be NULL */
	const char *user, *cwd; /* NULL: the container's */
	bool tty, privileged, attach_stdin, attach_stdout, attach_stderr;
	const char *detach_keys;
};
struct exec_info {
	const char *id, *container_id;
	const struct exec_config *config;
	bool running, started;
	int64_t pid;
	int64_t exit_code; /* valid once started and not running; -1 unknown */
};
/* Where the process' output goes: 1 stdout, 2 stderr (all 1 with a tty). ended comes once, last. */
struct exec_stdio {
	void (*output)(void *data, int stream, const uint8_t *p, size_t n);
	void (*ended)(void *data, const struct err *e);
	void *data;
	/* All input that waited was taken (see exec_input_waiting); may be NULL. */
	void (*drained)(void *data);
};
int exec_create(
    struct engine *g, const char *container, const struct exec_config *cfg, char ret_id[65], struct err *e);
/* stdio NULL: detached. */
int exec_start(struct engine *g, const char *exec_id, const struct exec_stdio *stdio, unsigned rows,
    unsigned cols, engine_cb started, void *data, struct err *e);
int exec_input(
    struct engine *g, const char *exec_id, const void *p, size_t n, struct err *e); /* n 0: close stdin */
size_t exec_input_waiting(
    struct engine *g, const char *exec_id); /* bytes the process has not taken; at most 1 MiB */
/* Ends the process with a signal number. */
int exec_kill(struct engine *g, const char *exec_id, int sig, struct err *e);
void exec_pause_output(struct engine *g, const char *exec_id, bool paused);
void exec_detach(struct engine *g, const char *exec_id); /* no more stdio callbacks; the process goes on */
int exec_resize(struct engine *g, const char *exec_id, unsigned rows, unsigned cols, struct err *e);
int exec_inspect(struct engine *g, const char *exec_id, struct exec_info *ret, struct err *e);

/* --- attaching to a container's own output and input (agent/container_attach.c) */
struct engine_attach;
/* Output from now on. Input only when the container was made with open_stdin. Ends with the container. */
int engine_attach(struct engine *g, const char *id, const struct exec_stdio *stdio,
    struct engine_attach **ret, struct err *e);
int engine_attach_input(struct engine_attach *a, const void *p, size_t n, struct err *e);
size_t engine_attach_waiting(const struct engine_attach *a);
void engine_attach_pause(struct engine_attach *a, bool paused);
void engine_attach_close(struct engine_attach *a); /* no callback after */
int engine_resize(struct engine *g, const char *id, unsigned rows, unsigned cols, struct err *e);

/* --- health (agent/health.c) */
struct health_info {
	const char *status; /* starting healthy unhealthy */
	unsigned failing_streak;
	const Pb__HealthResult *const *log; /* oldest first, at most 5 */
	size_t n_log;
};
/* false: the container has no health check, or does not run. Borrowed until the next turn of the loop. */
bool engine_health(struct engine *g, const char *id, struct health_info *ret);

/* --- logs (agent/logs.c): reads a container's log with rotation, follows it. */
struct log_reader_opts {
	bool follow, want_stdout, want_stderr;
	int64_t tail;               /* lines; -1 all */
	int64_t since_ns, until_ns; /* 0: none */
};
struct log_reader;
/* line without newline; longer lines than LIMIT_LOG_LINE come in pieces. */
typedef void (*log_line_cb)(void *data, int64_t time_ns, int stream, const uint8_t *p, size_t n);
typedef void (*log_end_cb)(void *data, const struct err *e);
int log_reader_start(struct engine *g, const char *container_id, const struct log_reader_opts *o,
    log_line_cb line, log_end_cb end, void *data, struct log_reader **ret, struct err *e);
void log_reader_pause(struct log_reader *r, bool paused);
void log_reader_close(struct log_reader *r); /* no callback after */

/* --- stats and processes (agent/stats.c) */
struct container_stats {
	int64_t read_ns;
	uint64_t cpu_total_ns, cpu_user_ns, cpu_system_ns, system_cpu_ns;
	uint64_t throttled_periods, throttled_count, throttled_ns;
	unsigned online_cpus;
	uint64_t mem_usage, mem_limit, mem_cache, mem_rss, mem_inactive_file;
	uint64_t pids, pids_limit;
	uint64_t rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped;
	uint64_t blk_read, blk_write;
};
int engine_stats(struct engine *g, const char *id, struct container_stats *ret, struct err *e);
/* {"Titles":[..],"Processes":[[..]]}; ps_args NULL: "-ef". */
typedef void (*engine_top_cb)(void *data, json_t *result, const struct err *e);
int engine_top(
    struct engine *g, const char *id, const char *ps_args, engine_top_cb cb, void *data, struct err *e);

#endif
