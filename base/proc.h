/* Running a program to its end on the loop, with bounded output and a deadline. */
#ifndef BASE_PROC_H
#define BASE_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"

struct proc;

struct proc_result {
	int exit_code;   /* -1 when a signal ended it */
	int term_signal; /* 0 when it exited */
	bool timed_out;  /* the deadline passed and it was killed */
	struct buf out,
	    err; /* what it printed, cut at the bounds; owned by the proc, valid during the callback */
};

/* Called exactly once, never before proc_run has returned. */
typedef void (*proc_cb)(void *data, const struct proc_result *r);
/* A complete line of stdout or stderr without its newline (optional). */
typedef void (*proc_line_cb)(void *data, bool is_stderr, const char *line, size_t len);

struct proc_opts {
	char *const *argv;      /* argv[0] is searched in PATH */
	char *const *env;       /* NULL: this process's */
	const char *cwd;        /* NULL: this process's */
	const void *stdin_data; /* written and closed; NULL with len 0: /dev/null. Copied. */
	size_t stdin_len;
	const int *pass_fds; /* become 3, 4, ... in the child; not closed here */
	size_t n_pass_fds;
	size_t max_output;   /* per stream; 0: 64 KiB. Beyond it is read and dropped. */
	uint64_t timeout_ms; /* 0: none. SIGTERM, 2 s later SIGKILL. */
	bool own_session;    /* setsid */
	proc_line_cb on_line;
	proc_cb on_exit;
	void *data;
};

/* 0 and later the callback; or an error (program missing ...) and no callback. ret_proc may be NULL. */
int proc_run(uv_loop_t *loop, const struct proc_opts *o, struct proc **ret_proc, struct err *e);
/* Sends a signal; the callback still comes. */
void proc_kill(struct proc *p, int signum);

#endif
