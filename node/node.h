/* A node: everything that runs in shoald. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include <uv.h>

#include "base/err.h"
#include "node/config.h"

struct node;
/* Takes the data root's lock (a second daemon on it is refused), opens images, network and containers, goes
 * on with the swarm that the node is in, and serves. cfg must outlive the node. */
int node_start(uv_loop_t *loop, const struct config *cfg, struct node **ret, struct err *e);
/* Ends; containers stay. closed(data) comes once. */
void node_close(struct node *n, void (*closed)(void *data), void *data);

#endif
