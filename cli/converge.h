/* Waiting until a service is as its spec says, with progress. */
#ifndef CLI_CONVERGE_H
#define CLI_CONVERGE_H

#include "cli/cli.h"

/* Polls until the service has converged and stayed so for its monitor period (jobs: until they are complete).
 * Shows bars on a terminal and lines elsewhere; nothing when quiet. Returns 0; 1 when an update was paused or
 * rolled back (after saying so); 130 on Ctrl-C, after which the cluster goes on by itself; or an error. */
int converge_wait(struct cli *c, const char *service, bool quiet, struct err *e);

#endif
