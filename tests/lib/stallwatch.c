/* LD_PRELOAD: says where the event loop of a program stalls.
 *
 * The loop's thread is the one that first waits in epoll. The time between the return of one wait and the
 * next is one turn; a turn longer than STALL_MS (default 20) is reported to the file STALL_LOG with its
 * length, the processor time in it, how long the thread waited for a processor, and where it was when it was
 * over the limit (a signal interrupts it for that: addresses as "file(+offset)", for addr2line). */
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 24

static _Atomic int64_t turn_began; /* 0: it waits */
static _Atomic int64_t sampled;    /* the turn that a trace was taken of */
static int64_t cpu_began, queue_began, limit_ns;
static pthread_t loop_thread;
static _Atomic int have_loop;
static void *frames[DEPTH];
static _Atomic int n_frames;
static int log_fd = -1, sched_fd = -1;

static int64_t now(clockid_t c)
{
	struct timespec t;
	clock_gettime(c, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* Nanoseconds that this thread was ready to run and did not. */
static int64_t queued(void)
{
	char text[96];
	long long on = 0, wait = 0;
	ssize_t n = pread(sched_fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	return sscanf(text, "%lld %lld", &on, &wait) == 2 ? wait : 0;
}

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&n_frames, backtrace(frames, DEPTH));
}

static void *watch(void *arg)
{
	(void)arg;
	for (;;) {
		nanosleep(&(struct timespec){0, 2000000}, NULL);
		int64_t began = atomic_load(&turn_began);
		if (began && began != atomic_load(&sampled) && now(CLOCK_MONOTONIC) - began > limit_ns) {
			atomic_store(&sampled, began);
			pthread_kill(loop_thread, SIGRTMIN + 5);
		}
	}
	return NULL;
}

static void first(void)
{
	const char *file = getenv("STALL_LOG"), *ms = getenv("STALL_MS");
	char path[64];
	pthread_t t;
	limit_ns = (ms ? atoll(ms) : 20) * 1000000;
	log_fd = open(file ? file : "/dev/stderr", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat", (long)syscall(SYS_gettid));
	sched_fd = open(path, O_RDONLY | O_CLOEXEC);
	loop_thread = pthread_self();
	backtrace(frames, DEPTH); /* loads what it needs */
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigaction(SIGRTMIN + 5, &sa, NULL);
	pthread_create(&t, NULL, watch, NULL);
}

static void turn_ends(void)
{
	int64_t began = atomic_exchange(&turn_began, 0), t = now(CLOCK_MONOTONIC);
	if (!began || t - began < limit_ns)
		return;
	dprintf(log_fd, "STALL %.1f ms, processor %.1f ms, waited for one %.1f ms\n",
	    (double)(t - began) / 1e6, (double)(now(CLOCK_THREAD_CPUTIME_ID) - cpu_began) / 1e6,
	    (double)(queued() - queue_began) / 1e6);
	int n = atomic_exchange(&n_frames, 0);
	if (atomic_load(&sampled) == began && n > 2)
		backtrace_symbols_fd(frames + 2, n - 2, log_fd);
}

/* libuv calls epoll_wait, or epoll_pwait; both are the same here. */
static int wait_for_events(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
	int none = 0;
	if (atomic_compare_exchange_strong(&have_loop, &none, 1))
		first();
	if (!pthread_equal(pthread_self(), loop_thread))
		return (int)syscall(SYS_epoll_pwait, fd, events, max, timeout, mask, 8);
	turn_ends();
	int r = (int)syscall(SYS_epoll_pwait, fd, events, max, timeout, mask, 8);
	cpu_began = now(CLOCK_THREAD_CPUTIME_ID);
	queue_began = queued();
	atomic_store(&turn_began, now(CLOCK_MONOTONIC));
	return r;
}

int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
	return wait_for_events(fd, events, max, timeout, mask);
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
	return wait_for_events(fd, events, max, timeout, NULL);
}
