/* A thread that deletes links in groups.
 *
 * Happy path: names gather for a moment (meanwhile the death of a container's namespace takes most of them
 * away for free); then all are put into one link group and the group is deleted by one message.
 *
 * Failure: a link that does not exist any more is skipped. Errors are logged; hostnet_reconcile finds what is
 * left. */
#include "overlay/reap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <linux/netlink.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "overlay/nl.h"
#include "overlay/rtnl.h"

#define GATHER_MS 100

struct reaper {
	pthread_t thread;
	pthread_mutex_t lock; /* protects names, doing, stop */
	pthread_cond_t wake, done;
	struct strlist names, doing;
	bool stop;
	struct nl nl;
	uint32_t group;
};

static void reap(struct reaper *r, const struct strlist *names)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	struct err e = ERR_INIT;
	for (size_t i = 0; i < names->n; i++)
		rtnl_put_group(&b, names->v[i], r->group);
	rtnl_put_group_del(&b, r->group);
	if (nl_send(&r->nl, &b, NULL, &e) < 0)
		log_warn("network: %s", e.text);
}

static void *reaper_main(void *data)
{
	struct reaper *r = data;
	pthread_setname_np(pthread_self(), "net-reaper");
	pthread_mutex_lock(&r->lock);
	for (;;) {
		while (!r->stop && r->names.n == 0)
			pthread_cond_wait(&r->wake, &r->lock);
		if (!r->stop) {
			struct timespec until;
			clock_gettime(CLOCK_MONOTONIC, &until);
			until.tv_nsec += GATHER_MS * 1000000L;
			until.tv_sec += until.tv_nsec / 1000000000L;
			until.tv_nsec %= 1000000000L;
			while (!r->stop && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0)
				;
		}
		r->doing = r->names;
		r->names = (struct strlist)STRLIST_INIT;
		bool last = r->stop;
		pthread_mutex_unlock(&r->lock);
		if (r->doing.n) /* only this thread changes it */
			reap(r, &r->doing);
		pthread_mutex_lock(&r->lock);
		strlist_done(&r->doing);
		pthread_cond_broadcast(&r->done);
		if (last)
			break;
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

int reaper_start(struct reaper **ret, struct err *e)
{
	struct reaper *r = NEW(struct reaper);
	int res = nl_open(&r->nl, NETLINK_ROUTE, e);
	if (res < 0) {
		free(r);
		return res;
	}
	/* A number nobody else uses: "SH" and the process. */
	r->group = 0x53480000u | ((uint32_t)getpid() & 0xffff);
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attr);
	pthread_cond_init(&r->done, NULL);
	pthread_condattr_destroy(&attr);
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int errnum = pthread_create(&r->thread, NULL, reaper_main, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (errnum) {
		nl_close(&r->nl);
		free(r);
		return err_errno(e, errnum, "thread for deleting links");
	}
	*ret = r;
	return 0;
}

void reaper_add(struct reaper *r, const char *link)
{
	pthread_mutex_lock(&r->lock);
	if (r->names.n == 0)
		pthread_cond_signal(&r->wake);
	strlist_add(&r->names, link);
	pthread_mutex_unlock(&r->lock);
}

void reaper_wait(struct reaper *r, const char *link)
{
	pthread_mutex_lock(&r->lock);
	while (strlist_has(&r->names, link) || strlist_has(&r->doing, link))
		pthread_cond_wait(&r->done, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

void reaper_stop(struct reaper *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->wake);
	pthread_cond_destroy(&r->done);
	strlist_done(&r->names);
	nl_close(&r->nl);
	free(r);
}
