/* The agent of a node: keeps a session to a manager, takes assignments, drives a controller for each task,
 * reports what became of them.
 *
 * Nothing of a task is stored here beside its container's record: after a restart the manager's full
 * assignment and the containers that were found again say everything. Tasks that the manager no longer names
 * are stopped and removed; while no manager can be reached, containers and published ports stay as they are.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include <uv.h>

#include "agent/container.h"
#include "agent/image.h"
#include "base/rng.h"
#include "base/str.h"
#include "overlay/hostnet.h"
#include "proto/control.pb-c.h"
#include "proto/tls.h"

struct agent;

struct agent_opts {
	uv_loop_t *loop;
	struct clock clock;
	struct rng rng;
	struct images *images;
	struct engine *engine;
	struct hostnet *net;
	const char *node_id;
	const Pb__NodeDescription *description; /* copied */
	const char *advertise_addr;             /* what the manager shows as this node's address */
	struct tls_ctx *tls;                    /* client side, referenced */
	const struct strlist *managers;         /* "host:port", at least one */
	/* Where to connect to for a manager's address: heap. NULL: there. */
	char *(*manager_at)(void *data, const char *addr);
	/* The managers that are known now ("host:port"), to be kept for the next start. May be NULL. */
	void (*managers_changed)(void *data, char *const *addrs, size_t n);
	/* This node's object, whenever it changed. May be NULL. */
	void (*node_changed)(void *data, const Pb__Node *node);
	/* The cluster removed this node. May be NULL. */
	void (*removed)(void *data);
	void *data;
};
struct agent *agent_start(const struct agent_opts *o);
/* New identity after a renewal; takes effect with the next connection. */
void agent_set_tls(struct agent *a, struct tls_ctx *tls);
/* For the engine's `changed`. */
void agent_container_changed(struct agent *a, const Pb__Container *c);
/* Ends the session; containers stay. closed(data) comes once. */
void agent_close(struct agent *a, void (*closed)(void *data), void *data);
/* Stops and removes the containers of all tasks, unpublishes ports, then ends: leaving the swarm. */
void agent_leave(struct agent *a, void (*closed)(void *data), void *data);

#endif
