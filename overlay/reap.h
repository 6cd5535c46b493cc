/* Deleting links in the background, many at once.
 *
 * Deleting a veth pair costs the kernel tens of milliseconds of waiting for grace periods, however little
 * there is to do; a group of links costs as much as one. */
#ifndef OVERLAY_REAP_H
#define OVERLAY_REAP_H

#include "base/err.h"

struct reaper;
/* Works in the network namespace of the calling thread. */
int reaper_start(struct reaper **ret, struct err *e);
/* The link goes within a fraction of a second; one that is gone already is fine. From any thread. */
void reaper_add(struct reaper *r, const char *link);
/* Returns when no deletion of that name is pending, because it is to be used again. Waits only when there was
 * one. */
void reaper_wait(struct reaper *r, const char *link);
/* Deletes what is listed, then ends. NULL is fine. */
void reaper_stop(struct reaper *r);

#endif
