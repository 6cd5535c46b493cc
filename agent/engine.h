/* What the engine's files share. Nobody else includes this; the interface is agent/container.h.
 *
 * A container is a record (what is stored) and the state of this daemon's dealings with it:
 *
 *   creating   its directories are being made; not findable yet
 *   starting   queued, or on the way from CREATED/EXITED to RUNNING (container_start.c)
 *   running    record says RUNNING or PAUSED; conmon_pidfd is watched (container_exit.c)
 *   cleaning   it has ended and the worker removes control groups, runtime state and bundle; starting and
 * removing wait removing   a remove was asked for; it goes on as soon as none of the above is under way
 * (container_remove.c)
 */
#ifndef AGENT_ENGINE_H
#define AGENT_ENGINE_H

#include "agent/cgroup.h"
#include "agent/conmon.h"
#include "agent/container.h"
#include "agent/kv.h"
#include "agent/oci_spec.h"
#include "agent/record.h"
#include "agent/runtime.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/timer.h"
#include "overlay/hostnet.h"
#include "proto/pb.h"

#define ST_CREATED  PB__CONTAINER_STATUS_KIND__E__CREATED
#define ST_RUNNING  PB__CONTAINER_STATUS_KIND__E__RUNNING
#define ST_EXITED   PB__CONTAINER_STATUS_KIND__E__EXITED
#define ST_PAUSED   PB__CONTAINER_STATUS_KIND__E__PAUSED
#define ST_REMOVING PB__CONTAINER_STATUS_KIND__E__REMOVING
#define ST_DEAD     PB__CONTAINER_STATUS_KIND__E__DEAD

#define DEFAULT_GRACE_NS (10 * NS_PER_SEC)
#define EXIT_UNKNOWN     (-1)

/* A uv_poll_t on a descriptor that closes itself safely; the descriptor is closed after the handle. */
struct fd_watch;
typedef void (*fd_watch_cb)(void *data);
struct fd_watch *fd_watch_new(uv_loop_t *loop, int fd, fd_watch_cb readable, void *data);
int fd_watch_fd(const struct fd_watch *w);
void fd_watch_free(struct fd_watch *w); /* closes the descriptor too; NULL is fine */

struct callback {
	engine_cb cb;
	void *data;
	struct callback *next;
};

struct engine_wait {
	struct ctr *c;
	char condition; /* 'n'ot-running, next-'e'xit, 'r'emoved */
	engine_wait_cb cb;
	void *data;
	/* Set when it is to be called on the next turn. */
	bool due, cancelled;
	int64_t exit_code;
	struct err err;
	struct engine_wait *next;
};

struct start_job;
struct health;
struct log_rotator;

struct ctr {
	struct engine *g;
	Pb__Container *rec;
	bool creating, starting, cleaning, removing;
	struct fd_watch *conmon; /* while it runs */
	struct timer *kill_timer;
	bool killed;            /* a stop has sent SIGKILL */
	struct callback *stops; /* waiting for its end */
	struct callback *removes;
	bool remove_force;
	struct engine_wait *waits;
	struct start_job *start;
	struct health *health;
	struct engine_attach *attached;
	struct log_rotator *rotator;
};

struct exec_session;

struct engine {
	uv_loop_t *loop;
	struct engine_opts o; /* pointers to strings are not kept */
	char *data_root, *exec_root;
	char *containers_dir; /* <data_root>/containers */
	char *bundles_dir;    /* <exec_root>/containers */
	char *exits_dir;      /* <exec_root>/exits */
	char *execs_dir;      /* <exec_root>/execs */
	char *conmon_path, *init_path;
	struct kv *kv;
	struct cgroups *cgroups;
	struct runtime runtime;
	bool overlay_volatile; /* the kernel knows the mount option (5.10) */
	struct clock clock;
	struct strmap by_id, by_name; /* struct ctr */
	struct strmap execs;          /* struct exec_session by id */
	struct fd_watch *log_watch;   /* inotify, made when a container wants rotation */
	struct u64map log_rotators;   /* by watch descriptor */
	struct log_reader *readers;
	/* Starts under way and queued. */
	unsigned n_starting, max_starting;
	struct start_job *queue, **queue_tail;
	unsigned pending; /* asynchronous steps that refer to the engine */
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
};

/* --- container.c */
struct ctr *engine_ctr(struct engine *g, const char *ref, struct err *e); /* NULL with e */
bool ctr_is_running(const struct ctr *c);                                 /* RUNNING or PAUSED */
/* Stores the record and tells `changed`. A record that cannot be stored is logged: the container goes on. */
void ctr_changed(struct ctr *c);
void ctr_store(struct ctr *c);
void ctr_event(struct ctr *c, const char *action, const char *const *attrs);
char *ctr_bundle(const struct engine *g, const char *id); /* heap */
char *ctr_dir(const struct engine *g, const char *id);    /* heap: <data_root>/containers/<id> */
struct ctr *ctr_new(struct engine *g, Pb__Container *rec);
void ctr_free(struct ctr *c); /* takes it out of the maps */
void engine_pending_done(struct engine *g);
void callback_add(struct callback **list, engine_cb cb, void *data);
void callbacks_call(struct callback **list, const struct err *e);
/* Calls cb on the next turn with a copy of e. */
void engine_defer(struct engine *g, engine_cb cb, void *data, const struct err *e);

/* --- container_start.c */
void engine_pump(struct engine *g); /* takes queued starts that can go on */
/* Files and directories of a start that failed or of a container that ended. Blocking, for workers. */
int ctr_cleanup_blocking(struct engine *g, const char *id, struct err *e);
/* Starts the watch of a living conmon; takes pidfd. */
void ctr_watch(struct ctr *c, int pidfd);

/* --- container_exit.c */
void ctr_conmon_ended(struct ctr *c); /* watch callback: c->conmon is readable */
/* The container has ended: record, events, network, everybody who waits; then ctr_clean. code may be
 * EXIT_UNKNOWN. */
void ctr_finish_exit(struct ctr *c, int64_t code, bool oom);
void ctr_clean(struct ctr *c); /* in the worker; then starts and removals go on */
int64_t ctr_read_exit_file(const struct engine *g, const char *id);
void ctr_waits_call(struct ctr *c, char event, int64_t code, const struct err *e); /* 'e'xit or 'r'emoved */
void ctr_waits_fail(struct ctr *c);

/* --- container_stop.c */
/* After a start has ended: stops that came meanwhile go on, or are done. */
void ctr_stop_continue(struct ctr *c);
int ctr_signal(struct ctr *c, int sig, struct err *e);

/* --- container_remove.c */
void ctr_maybe_remove(struct ctr *c);

/* --- container_restore.c */
int engine_restore(struct engine *g, struct err *e);

/* --- exec.c */
void exec_container_ended(struct engine *g, const char *container_id);
void exec_close_all(struct engine *g);

/* --- container_attach.c */
void attach_engine_closing(struct ctr *c);

/* --- health.c */
void health_start(struct ctr *c, bool restored);
void health_stop(struct ctr *c);

/* --- logs.c / log_rotate.c */
char *log_path_of(const struct engine *g, const char *id);
void log_rotator_start(struct ctr *c);
void log_rotator_stop(struct ctr *c);
void logs_container_ended(struct engine *g, const char *id); /* followers read to the end */
void logs_close_all(struct engine *g);
int log_options_parse(
    const Pb__ContainerConfig *c, int64_t *ret_max_size, unsigned *ret_max_file, struct err *e);

#endif
