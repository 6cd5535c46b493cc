/* Starting conmon and runtimes: a child made with vfork semantics (nothing of the daemon's memory is copied),
 * optionally in a mount namespace of its own, with mounts made there before the program runs. Callable from
 * any thread. */
#ifndef AGENT_SPAWN_H
#define AGENT_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* mount(2) and umount2(2) in the child, in order. target NULL ends a list. */
struct spawn_mount {
	const char *source, *target, *type, *data;
	unsigned long flags;
	bool unmount; /* umount2(target, MNT_DETACH); an absent mount is fine */
};

struct spawn_opts {
	const char *path; /* absolute */
	char *const *argv;
	char *const *env;
	const char *cwd;                    /* NULL: as the daemon */
	int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null */
	const int *pass_fds;                /* become 3, 4, ... ; the caller's stay open */
	size_t n_pass_fds;                  /* at most 8 */
	int join_mountns;                   /* fd of a mount namespace to enter first, or -1 */
	bool new_mountns;
	const struct spawn_mount *mounts; /* with new_mountns */
	size_t n_mounts;
};

/* ret_pidfd becomes readable when the child has ended; reap with spawn_reap. Errors name the step that
 * failed. */
int spawn_child(const struct spawn_opts *o, pid_t *ret_pid, int *ret_pidfd, struct err *e);
/* Takes the exit status if the child has ended: true and *ret_code (128 + signal when killed; -1 when it was
 * no child of ours). */
bool spawn_reap(int pidfd, int *ret_code);
/* Runs to the end, at most timeout_ms (then SIGKILL, ERR_TIMEOUT), blocking: for worker threads and start-up.
 * What it wrote to stderr and stdout, at most 16 KiB, comes back as heap text (ret_output may be NULL). */
int spawn_run(struct spawn_opts *o, unsigned timeout_ms, int *ret_code, char **ret_output, struct err *e);

/* Field 22 of /proc/PID/stat, which tells a reused pid apart; 0 when there is no such process. */
unsigned long long spawn_start_time(pid_t pid);
/* A pidfd of a process that is still the one with this start time, or -1. */
int spawn_pidfd(pid_t pid, unsigned long long start_time);
int spawn_signal(int pidfd, int sig); /* 0 or -errno */

#endif
