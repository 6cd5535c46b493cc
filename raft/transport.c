/* The transport: see transport.h. Closing fails the connects that are under way with RAFT_CANCELED before
 * it says that it is closed, as libraft wants it; nothing is called from inside a call. */
#include "raft/transport.h"

#include <string.h>

#include "base/mem.h"
#include "base/timer.h"

struct transport_connect {
	struct transport *t; /* NULL: was cancelled */
	struct transport_connect *next;
	struct raft_uv_connect *req;
	raft_uv_connect_cb cb;
};

static int on_init(struct raft_uv_transport *uv, raft_id id, const char *address)
{
	(void)uv;
	(void)id;
	(void)address;
	return 0;
}

static int on_listen(struct raft_uv_transport *uv, raft_uv_accept_cb cb)
{
	struct transport *t = uv->impl;

	t->accept = cb;
	return 0;
}

static void no_route(void *data)
{
	struct transport_connect *c = data;

	if (c->t != NULL) {
		struct transport_connect **at = &c->t->connects;

		while (*at != c)
			at = &(*at)->next;
		*at = c->next;
		c->cb(c->req, NULL, RAFT_NOCONNECTION);
	}
	free(c);
}

static int on_connect(struct raft_uv_transport *uv, struct raft_uv_connect *req, raft_id id,
    const char *address, raft_uv_connect_cb cb)
{
	struct transport *t = uv->impl;
	struct transport_connect *c = NEW(struct transport_connect);

	(void)id;
	(void)address;
	c->t = t;
	c->req = req;
	c->cb = cb;
	c->next = t->connects;
	t->connects = c;
	loop_defer(t->loop, no_route, c);
	return 0;
}

static void finish_close(void *data)
{
	struct transport *t = data;
	struct transport_connect *c;

	while ((c = t->connects) != NULL) {
		t->connects = c->next;
		c->t = NULL;
		c->cb(c->req, NULL, RAFT_CANCELED);
	}
	t->closed(&t->uv);
}

static void on_close(struct raft_uv_transport *uv, raft_uv_transport_close_cb cb)
{
	struct transport *t = uv->impl;

	t->accept = NULL;
	t->closed = cb;
	loop_defer(t->loop, finish_close, t);
}

void transport_init(struct transport *t, uv_loop_t *loop)
{
	memset(t, 0, sizeof(*t));
	t->loop = loop;
	t->uv.impl = t;
	t->uv.init = on_init;
	t->uv.listen = on_listen;
	t->uv.connect = on_connect;
	t->uv.close = on_close;
}
