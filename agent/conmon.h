/* conmon, one per container: holds its output, writes the log and the exit file, and outlives the daemon. */
#ifndef AGENT_CONMON_H
#define AGENT_CONMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/runtime.h"
#include "base/err.h"

struct conmon_opts {
	const char *path; /* of conmon */
	const struct runtime *runtime;
	const char *id, *name;
	const char *bundle;   /* config.json; pidfile, attach socket, ctl and winsz fifos and the mark `oom`
				 appear here */
	const char *exit_dir; /* NULL with exec */
	const char *log_path; /* NULL: no log */
	int64_t log_size_max; /* bytes; 0: no bound */
	bool tty, open_stdin;
	/* exec */
	const char *process_file; /* NULL: a container is created */
	bool attach;              /* exec waits for the attach socket to be used: see conmon_attached */
	int join_mountns;         /* of the container's conmon, or -1 */
	/* create */
	const struct spawn_mount *mounts;
	size_t n_mounts;
};

struct conmon_proc {
	pid_t pid;
	int pidfd;               /* readable when conmon has ended; reap with spawn_reap */
	int sync_fd;             /* conmon's reports; see conmon_parse */
	int attach_fd, start_fd; /* exec with attach; else -1 */
	int stderr_fd;           /* what it said before it had a report channel */
};

char *conmon_find(void); /* heap path, NULL when not installed */
/* Starts conmon; the reports follow on sync_fd. Callable from worker threads. */
int conmon_start(const struct conmon_opts *o, struct conmon_proc *ret, struct err *e);
void conmon_proc_done(struct conmon_proc *p); /* closes the descriptors that are open */

/* One report, a line of JSON: data is a pid or an exit code, negative on failure; message (heap) may be NULL.
 */
struct conmon_report {
	int64_t data;
	char *message;
};
int conmon_parse(const char *line, size_t n, struct conmon_report *ret, struct err *e);
/* The text on stderr_fd, for when conmon ended without a report. Heap. */
char *conmon_stderr(const struct conmon_proc *p);

#endif
