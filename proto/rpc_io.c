/* A connection's bytes over TLS. */
#include "proto/rpc_private.h"

static size_t io_write(void *io, const void *p, size_t n)
{
	return tls_write(io, p, n);
}

static size_t io_waiting(void *io)
{
	return tls_waiting(io);
}

static void io_close(void *io)
{
	tls_close(io);
}

static void io_abort(void *io, const struct err *why)
{
	tls_abort(io, why);
}

const struct rpc_io rpc_io_tls = {io_write, io_waiting, io_close, io_abort};

static void on_read(void *data, const uint8_t *p, size_t n)
{
	rpc_conn_input(data, p, n);
}

static void on_closed(void *data, const struct err *why)
{
	rpc_conn_lost(data, why);
}

static void on_drained(void *data)
{
	rpc_conn_drained(data);
}

const struct tls_conn_ops rpc_tls_ops = {.read = on_read, .closed = on_closed, .drained = on_drained};
