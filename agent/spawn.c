/* Children with vfork semantics.
 *
 * The child shares our memory until it runs the program, while the calling thread sleeps: that is what makes
 * a start cost microseconds instead of a copy of the page tables, and it lets the child say in our own stack
 * frame which step failed. In exchange the child only makes system calls: no allocation, no locks, no
 * logging. All signals are blocked around it, so that none of our handlers runs in it. */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define STACK_SIZE   (64u * 1024)
#define MAX_PASS     8
#define HIGH_FD      64
#define MAX_OUTPUT   (16u * 1024)
#define KILL_WAIT_MS 5000

struct child {
	const struct spawn_opts *o;
	/* Written by the child. */
	const char *step;
	const char *what;
	int error;
};

static int child_fail(struct child *c, const char *step, const char *what)
{
	c->error = errno;
	c->step = step;
	c->what = what;
	return 127;
}

static int child_mounts(struct child *c)
{
	const struct spawn_opts *o = c->o;
	if (o->join_mountns >= 0 && setns(o->join_mountns, CLONE_NEWNS) < 0)
		return child_fail(c, "entering the mount namespace", "");
	if (!o->new_mountns)
		return 0;
	if (unshare(CLONE_NEWNS) < 0)
		return child_fail(c, "making a mount namespace", "");
	for (size_t i = 0; i < o->n_mounts; i++) {
		const struct spawn_mount *m = &o->mounts[i];
		if (m->unmount) {
			if (umount2(m->target, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
				return child_fail(c, "unmounting ", m->target);
		} else if (mount(m->source, m->target, m->type, m->flags, m->data) < 0) {
			return child_fail(c, "mounting ", m->target);
		}
	}
	return 0;
}

static int child_fds(struct child *c)
{
	const struct spawn_opts *o = c->o;
	int std[3] = {o->stdin_fd, o->stdout_fd, o->stderr_fd}, high[3 + MAX_PASS];
	/* First out of the way, then into place: a target may be somebody's source. */
	for (int i = 0; i < 3; i++) {
		int fd = std[i] >= 0 ? std[i] : open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY);
		high[i] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
		if (high[i] < 0)
			return child_fail(c, "preparing descriptors", "");
	}
	for (size_t i = 0; i < o->n_pass_fds; i++) {
		high[3 + i] = fcntl(o->pass_fds[i], F_DUPFD_CLOEXEC, HIGH_FD);
		if (high[3 + i] < 0)
			return child_fail(c, "preparing descriptors", "");
	}
	for (int i = 0; i < 3 + (int)o->n_pass_fds; i++)
		if (dup2(high[i], i) < 0)
			return child_fail(c, "preparing descriptors", "");
	syscall(SYS_close_range, 3u + (unsigned)o->n_pass_fds, ~0u, CLOSE_RANGE_CLOEXEC);
	return 0;
}

static int child_main(void *arg)
{
	struct child *c = arg;
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;
	for (int s = 1; s < 65; s++)
		if (s != SIGKILL && s != SIGSTOP && s != 32 && s != 33)
			sigaction(s, &dfl, NULL);
	if (child_mounts(c) != 0 || child_fds(c) != 0)
		_exit(127);
	if (c->o->cwd && chdir(c->o->cwd) < 0) {
		child_fail(c, "entering ", c->o->cwd);
		_exit(127);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(c->o->path, c->o->argv, c->o->env);
	child_fail(c, "running ", c->o->path);
	_exit(127);
}

int spawn_child(const struct spawn_opts *o, pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
	ASSERT(o->n_pass_fds <= MAX_PASS);
	struct child c = {.o = o};
	sigset_t all, old;
	int pidfd = -1, status = 0;
	char *stack =
	    mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return err_errno(e, errno, "starting %s", o->path);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid_t pid =
	    clone(child_main, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &c, &pidfd);
	int clone_errno = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	munmap(stack, STACK_SIZE);

	if (pid < 0)
		return err_errno(e, clone_errno, "starting %s", o->path);
	if (c.error) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		close(pidfd);
		return err_errno(e, c.error, "starting %s: %s%s", o->path, c.step, c.what);
	}
	fcntl(pidfd, F_SETFD, FD_CLOEXEC);
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}

bool spawn_reap(int pidfd, int *ret_code)
{
	siginfo_t si = {0};
	if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &si, WEXITED | WNOHANG) < 0) {
		struct pollfd p = {.fd = pidfd, .events = POLLIN};
		if (errno != ECHILD || poll(&p, 1, 0) <= 0)
			return false;
		*ret_code = -1;
		return true;
	}
	if (si.si_pid == 0)
		return false;
	*ret_code = si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
	return true;
}

static bool wait_pidfd(int pidfd, unsigned ms)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int r;
	do
		r = poll(&p, 1, (int)ms);
	while (r < 0 && errno == EINTR);
	return r > 0;
}

int spawn_run(struct spawn_opts *o, unsigned timeout_ms, int *ret_code, char **ret_output, struct err *e)
{
	CLEANUP_CLOSE int out = memfd_create("output", MFD_CLOEXEC);
	CLEANUP_CLOSE int pidfd = -1;
	pid_t pid;
	bool timed_out = false;
	if (out < 0)
		return err_errno(e, errno, "starting %s", o->path);
	if (o->stdout_fd < 0)
		o->stdout_fd = out;
	if (o->stderr_fd < 0)
		o->stderr_fd = out;
	int r = spawn_child(o, &pid, &pidfd, e);
	if (r < 0)
		return r;
	if (!wait_pidfd(pidfd, timeout_ms)) {
		timed_out = true;
		spawn_signal(pidfd, SIGKILL);
		wait_pidfd(pidfd, KILL_WAIT_MS);
	}
	if (!spawn_reap(pidfd, ret_code))
		*ret_code = -1;
	if (timed_out)
		return err_set(e, ERR_TIMEOUT, "%s did not end within %u ms", o->path, timeout_ms);
	if (ret_output) {
		char *text = xcalloc(1, MAX_OUTPUT + 1);
		ssize_t n = pread(out, text, MAX_OUTPUT, 0);
		while (n > 0 && text[n - 1] == '\n')
			text[--n] = '\0';
		*ret_output = text;
	}
	return 0;
}

unsigned long long spawn_start_time(pid_t pid)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (pid <= 0 || fs_read(path, 4096, &b, NULL) < 0)
		return 0;
	/* The name in parentheses may hold anything; what follows its last ')' is fields 3 and on. */
	char *p = strrchr(b.data, ')');
	if (!p || !p[1])
		return 0;
	p += 2;
	if (*p == 'Z' || *p == 'X')
		return 0;
	for (int field = 3; field < 22 && p; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	return p ? strtoull(p, NULL, 10) : 0;
}

int spawn_pidfd(pid_t pid, unsigned long long start_time)
{
	if (pid <= 0)
		return -1;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -1;
	/* Read after the open: from now on the pid cannot be anybody else's. */
	if (start_time == 0 || spawn_start_time(pid) != start_time) {
		close(fd);
		return -1;
	}
	return fd;
}

int spawn_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}
