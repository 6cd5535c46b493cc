/* Network namespaces bound to files, made and entered by one helper thread, so that no other thread's
 * namespace ever changes. */
#ifndef OVERLAY_NETNS_H
#define OVERLAY_NETNS_H

#include "base/err.h"
#include "overlay/nl.h"

struct netns_worker;
int netns_worker_start(struct netns_worker **ret, struct err *e);
void netns_worker_stop(struct netns_worker *w); /* NULL is fine */

/* Makes the directory a private mount point, so that namespaces bound below it do not spread into other mount
 * namespaces. */
int netns_prepare_dir(const char *dir, struct err *e);
void netns_release_dir(const char *dir);

/* A new namespace bound at path (the file is made). ret_fd keeps it open, ret_rtnl is a route socket inside;
 * the caller closes both. ERR_CONFLICT when path is bound already. Blocks under 1 ms as a rule; from any
 * thread. */
int netns_create(struct netns_worker *w, const char *path, int *ret_fd, struct nl *ret_rtnl, struct err *e);
/* The same for one that exists; ERR_NOT_FOUND when nothing is bound there. */
int netns_open(struct netns_worker *w, const char *path, int *ret_fd, struct nl *ret_rtnl, struct err *e);
/* Runs fn inside the namespace at path (on the helper thread, the caller waits); its result is returned. fn
 * may open sockets, which stay in that namespace. */
int netns_run(struct netns_worker *w, const char *path, int (*fn)(void *data, struct err *e), void *data,
    struct err *e);
/* Unbinds and removes the file; what is absent is fine. The namespace goes when its last process and socket
 * are gone. */
void netns_remove(const char *path);

#endif
