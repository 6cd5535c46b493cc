/* Control groups in all three layouts: v1 (one tree a controller), hybrid (v1 beside a v2 tree) and v2.
 *
 * Containers live in <base>/<id> of every tree; the OCI runtime makes and fills them (cgroupfs driver), what
 * is here reads, freezes and removes. base is "/<parent>", also where systemd delegated the daemon's own
 * group to it: containers outlive the daemon, and systemd cannot start a service again in a group whose
 * groups below have controllers (v2 allows no processes there). */
#ifndef AGENT_CGROUP_H
#define AGENT_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/buf.h"
#include "base/str.h"

enum cgroup_mode { CGROUP_V1, CGROUP_HYBRID, CGROUP_V2 };

struct cgroups;

/* ERR_UNAVAILABLE when no cgroup file system is mounted at /sys/fs/cgroup. */
int cgroups_open(const char *parent, struct cgroups **ret, struct err *e);
void cgroups_free(struct cgroups *g);
enum cgroup_mode cgroups_mode(const struct cgroups *g);
const char *cgroups_mode_name(const struct cgroups *g); /* "v1" "hybrid" "v2" */
bool cgroups_swap_limit(const struct cgroups *g);       /* memory+swap can be limited */

/* Whether "memory", "cpu", "pids" can be limited, or "freezer" is there to pause. */
bool cgroups_has(const struct cgroups *g, const char *controller);

/* For the OCI spec: "/shoal/<id>". Heap. */
char *cgroup_oci_path(const struct cgroups *g, const char *id);
/* Directory of a container's group for a v1 controller ("memory"); in v2 the controller does not matter. NULL
 * when the controller is not mounted. Heap. */
char *cgroup_dir(const struct cgroups *g, const char *id, const char *controller);
/* Reads a file of the group as text without the trailing newline, at most 64 KiB. */
int cgroup_read(const struct cgroups *g, const char *id, const char *controller, const char *file,
    struct buf *ret, struct err *e);
/* "key value" lines: the value of a key. */
int cgroup_read_key(const struct cgroups *g, const char *id, const char *controller, const char *file,
    const char *key, uint64_t *ret, struct err *e);

/* Processes of a container, those in groups below included. Heap array. */
int cgroup_pids(const struct cgroups *g, const char *id, pid_t **ret, size_t *ret_n, struct err *e);
/* Waits (blocking, at most 5 s) until the kernel says frozen or thawed. */
int cgroup_freeze(const struct cgroups *g, const char *id, bool freeze, struct err *e);
/* How often the kernel's OOM killer struck in the group; 0 when it cannot be told. */
uint64_t cgroup_oom_kills(const struct cgroups *g, const char *id);
/* Kills what is left in the group and removes it from every tree. Blocking, at most 2 s; absent is fine. */
int cgroup_remove(const struct cgroups *g, const char *id, struct err *e);
/* Removes base itself where it is empty (tests, leaving). */
void cgroups_remove_base(const struct cgroups *g);

#endif
