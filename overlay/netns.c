/* Namespaces, through a helper thread.
 *
 * unshare(2) and setns(2) change the calling thread only. One thread does all of that and goes back to the
 * host's namespace after each job (otherwise it would keep the last container's namespace alive). Callers
 * hand over a job and wait for it.
 *
 * Failure: if the thread cannot go back it ends its life as a helper: every later job fails with
 * ERR_INTERNAL, rather than run in a wrong namespace. */
#include "overlay/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <linux/magic.h>
#include <linux/netlink.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

struct job {
	void (*fn)(struct job *j);
	const char *path;
	int (*user_fn)(void *data, struct err *e);
	void *user_data;
	int fd;
	struct nl rtnl;
	int result;
	struct err err;
	bool done;
};

struct netns_worker {
	pthread_t thread;
	pthread_mutex_t lock; /* protects job, stop, lost */
	pthread_cond_t wake, done;
	struct job *job;
	bool stop;
	bool lost; /* could not return to the host's namespace */
	int home;
};

static void *worker_main(void *data)
{
	struct netns_worker *w = data;
	pthread_setname_np(pthread_self(), "netns");
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->stop && !(w->job && !w->job->done))
			pthread_cond_wait(&w->wake, &w->lock);
		if (w->stop)
			break;
		struct job *j = w->job;
		bool lost = w->lost;
		pthread_mutex_unlock(&w->lock);
		if (lost)
			j->result =
			    err_set(&j->err, ERR_INTERNAL, "the namespace helper lost its own namespace");
		else {
			j->fn(j);
			lost = setns(w->home, CLONE_NEWNET) < 0;
		}
		pthread_mutex_lock(&w->lock);
		w->lost = lost;
		j->done = true;
		pthread_cond_broadcast(&w->done);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int netns_worker_start(struct netns_worker **ret, struct err *e)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return err_errno(e, errno, "this thread's network namespace");
	struct netns_worker *w = NEW(struct netns_worker);
	w->home = home;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	pthread_cond_init(&w->done, NULL);
	/* Signals stay with the main thread. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0) {
		close(home);
		free(w);
		return err_errno(e, r, "thread for network namespaces");
	}
	*ret = w;
	return 0;
}

void netns_worker_stop(struct netns_worker *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	pthread_cond_destroy(&w->done);
	close(w->home);
	free(w);
}

static int submit(struct netns_worker *w, struct job *j, struct err *e)
{
	pthread_mutex_lock(&w->lock);
	while (w->job)
		pthread_cond_wait(&w->done, &w->lock);
	w->job = j;
	pthread_cond_signal(&w->wake);
	while (!j->done)
		pthread_cond_wait(&w->done, &w->lock);
	w->job = NULL;
	pthread_cond_broadcast(&w->done);
	pthread_mutex_unlock(&w->lock);
	if (j->result < 0)
		err_copy(e, &j->err);
	return j->result;
}

static bool is_bound(const char *path)
{
	struct statfs s;
	return statfs(path, &s) == 0 && s.f_type == NSFS_MAGIC;
}

static int open_inside(struct job *j)
{
	j->fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (j->fd < 0)
		return err_errno(&j->err, errno, "network namespace of %s", j->path);
	int r = nl_open(&j->rtnl, NETLINK_ROUTE, &j->err);
	if (r < 0) {
		close(j->fd);
		j->fd = -1;
	}
	return r;
}

static void do_create(struct job *j)
{
	if (is_bound(j->path)) {
		j->result = err_set(&j->err, ERR_CONFLICT, "network namespace %s exists already", j->path);
		return;
	}
	int f = open(j->path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
	if (f < 0) {
		j->result = err_errno(&j->err, errno, "network namespace %s", j->path);
		return;
	}
	close(f);
	if (unshare(CLONE_NEWNET) < 0)
		j->result = err_errno(&j->err, errno, "new network namespace");
	else if (mount("/proc/thread-self/ns/net", j->path, NULL, MS_BIND, NULL) < 0)
		j->result = err_errno(&j->err, errno, "bind network namespace to %s", j->path);
	else
		j->result = open_inside(j);
	if (j->result < 0)
		netns_remove(j->path);
}

static int enter(struct job *j)
{
	if (!is_bound(j->path))
		return err_set(&j->err, ERR_NOT_FOUND, "network namespace %s does not exist", j->path);
	int f = open(j->path, O_RDONLY | O_CLOEXEC);
	if (f < 0)
		return err_errno(&j->err, errno, "network namespace %s", j->path);
	int r = setns(f, CLONE_NEWNET);
	int errnum = errno;
	close(f);
	return r < 0 ? err_errno(&j->err, errnum, "enter network namespace %s", j->path) : 0;
}

static void do_open(struct job *j)
{
	j->result = enter(j);
	if (j->result == 0)
		j->result = open_inside(j);
}

static void do_run(struct job *j)
{
	j->result = enter(j);
	if (j->result == 0)
		j->result = j->user_fn(j->user_data, &j->err);
}

static int submit_open(struct netns_worker *w, void (*fn)(struct job *), const char *path, int *ret_fd,
    struct nl *ret_rtnl, struct err *e)
{
	struct job j = {.fn = fn, .path = path, .fd = -1};
	int r = submit(w, &j, e);
	if (r < 0)
		return r;
	*ret_fd = j.fd;
	*ret_rtnl = j.rtnl;
	return 0;
}

int netns_create(struct netns_worker *w, const char *path, int *ret_fd, struct nl *ret_rtnl, struct err *e)
{
	return submit_open(w, do_create, path, ret_fd, ret_rtnl, e);
}

int netns_open(struct netns_worker *w, const char *path, int *ret_fd, struct nl *ret_rtnl, struct err *e)
{
	return submit_open(w, do_open, path, ret_fd, ret_rtnl, e);
}

int netns_run(
    struct netns_worker *w, const char *path, int (*fn)(void *data, struct err *e), void *data, struct err *e)
{
	struct job j = {.fn = do_run, .path = path, .fd = -1, .user_fn = fn, .user_data = data};
	return submit(w, &j, e);
}

void netns_remove(const char *path)
{
	/* More than one layer when a crash came between two binds of the same file. */
	for (int i = 0; i < 8 && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0; i++)
		;
	unlink(path);
}

int netns_prepare_dir(const char *dir, struct err *e)
{
	int r = fs_mkdir_p(dir, 0711, e);
	if (r < 0)
		return r;
	/* EINVAL: not a mount point yet. */
	if (mount(NULL, dir, NULL, MS_PRIVATE, NULL) == 0)
		return 0;
	if (mount(dir, dir, NULL, MS_BIND, NULL) < 0 || mount(NULL, dir, NULL, MS_PRIVATE, NULL) < 0)
		return err_errno(e, errno, "private mount of %s", dir);
	return 0;
}

void netns_release_dir(const char *dir)
{
	umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW);
	rmdir(dir);
}
