/* What libraft's disk and network layer asks of us to reach other managers: streams.
 *
 * A cluster of one has no peers, so that connecting fails, on a later turn of the loop, with
 * RAFT_NOCONNECTION, and libraft tries again later by itself. Connections will be uv streams over a
 * socketpair, whose other end belongs to a mutual TLS connection. */
#ifndef RAFT_TRANSPORT_H
#define RAFT_TRANSPORT_H

#include <raft.h>
#include <raft/uv.h>

struct transport_connect;
struct transport {
	struct raft_uv_transport uv;
	uv_loop_t *loop;
	struct transport_connect *connects; /* under way */
	raft_uv_accept_cb accept;
	raft_uv_transport_close_cb closed;
};
void transport_init(struct transport *t, uv_loop_t *loop);

#endif
