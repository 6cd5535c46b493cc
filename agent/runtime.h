/* The OCI runtime of this host: which one works, how it is called, and what of it is done without calling it.
 *
 * Runtimes are slow to call compared with what they do at the end of a start, a kill or a delete; those are
 * done here by the same means (the start fifo, a signal, removing the state directory and control groups).
 * Runtimes other than crun and runc are always called. */
#ifndef AGENT_RUNTIME_H
#define AGENT_RUNTIME_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent/cgroup.h"
#include "agent/spawn.h"
#include "base/err.h"

enum runtime_kind { RUNTIME_CRUN, RUNTIME_RUNC, RUNTIME_OTHER };

struct runtime {
	char *name;
	char *path;
	enum runtime_kind kind;
	/* Hybrid hosts: crun only works where it does not see the v2 tree. */
	bool hide_unified;
	char *seccomp_bpf; /* crun: the default profile, compiled; else NULL */
	char *root;        /* --root: state of containers, <exec_root>/runtime */
	char *exec_mount;  /* mount point that exec_root is on */
	double probe_ms;   /* processor time of a creation */
};

/* Tries the candidates (wanted: only that one, a name or a path) with a container that is created and not
 * started, and takes the fastest that works. Blocking, below a second. ERR_UNAVAILABLE lists what each one
 * said. */
int runtime_probe(
    const char *wanted, const char *exec_root, const struct cgroups *cg, struct runtime *ret, struct err *e);
void runtime_done(struct runtime *rt);
/* What a choice depends on: this boot, the programs, the layout of control groups. A choice that was made
 * under the same text still holds. Heap. */
char *runtime_fingerprint(const char *wanted, const struct cgroups *cg);
/* Takes up a choice without probing. */
int runtime_adopt(
    const char *name, bool hide_unified, const char *exec_root, struct runtime *ret, struct err *e);
/* rt, or the runtime at `path` when that is another: the one that made a container, before a restart chose
 * rt. Borrows from both; nothing to be done with it. path NULL: rt. */
struct runtime runtime_that_made(const struct runtime *rt, const char *path, bool hide_unified);

/* Mounts for a mount namespace in which the runtime works; mounts made there do not reach the host's. At
 * most 4. */
size_t runtime_mounts(const struct runtime *rt, struct spawn_mount *out);
/* Environment for conmon and runtimes: PATH alone. */
char *const *runtime_env(void);

enum runtime_go { RUNTIME_GO_DONE, RUNTIME_GO_WAIT, RUNTIME_GO_CALL };
/* Lets a created container run. DONE: it does; WAIT: *ret_fd becomes readable when it does, then call
 * runtime_went; CALL: only `runtime start` can do it (runtime_start). */
int runtime_go(const struct runtime *rt, const char *id, enum runtime_go *ret, int *ret_fd, struct err *e);
int runtime_went(const struct runtime *rt, const char *id, int fd, struct err *e); /* closes fd */
/* Whether a created container still waits to be let run. */
bool runtime_waits(const struct runtime *rt, const char *id);
/* `runtime start`, blocking. mountns: of its conmon, or -1. */
int runtime_start(const struct runtime *rt, const char *id, int mountns, struct err *e);
/* Removes the runtime's state of an ended container. Blocking. */
void runtime_delete(const struct runtime *rt, const char *id);

/* What a runtime wrote on failure, in the words that docker's users know. Heap. */
char *runtime_error_words(const char *text);

#endif
