/* Attaching to a running container: conmon's attach socket, with what the user needs around it. */
#include "agent/attach.h"
#include "agent/engine.h"

#include "base/mem.h"

struct engine_attach {
	struct engine *g;
	char *id;
	bool input;
	struct attach_conn *conn;
	struct exec_stdio io;
	bool ended;
	struct engine_attach *next;
};

static void on_output(void *data, int stream, const uint8_t *p, size_t n)
{
	struct engine_attach *a = data;
	a->io.output(a->io.data, stream, p, n);
}

static void on_ended(void *data)
{
	struct engine_attach *a = data;
	struct err none = ERR_INIT;
	a->ended = true;
	a->io.ended(a->io.data, &none);
}

static void on_drained(void *data)
{
	struct engine_attach *a = data;
	if (a->io.drained)
		a->io.drained(a->io.data);
}

int engine_attach(struct engine *g, const char *id, const struct exec_stdio *stdio,
    struct engine_attach **ret, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	if (!ctr_is_running(c))
		return err_set(e, ERR_CONFLICT, "Container %s is not running", c->rec->id);
	CLEANUP_FREE char *bundle = ctr_bundle(g, c->rec->id);
	int fd, r = attach_connect(bundle, &fd, e);
	if (r < 0)
		return r;
	struct engine_attach *a = NEW(struct engine_attach);
	const struct attach_handlers h = {on_output, on_ended, on_drained, a};
	a->g = g;
	a->id = xstrdup(c->rec->id);
	a->input = c->rec->config->open_stdin;
	a->io = *stdio;
	a->conn = attach_new(g->loop, fd, &h);
	a->next = c->attached;
	c->attached = a;
	*ret = a;
	return 0;
}

int engine_attach_input(struct engine_attach *a, const void *p, size_t n, struct err *e)
{
	/* Without a pipe to it, conmon would keep the bytes for ever. */
	if (!a->input)
		return 0;
	return attach_input(a->conn, p, n, e);
}

size_t engine_attach_waiting(const struct engine_attach *a)
{
	return attach_input_waiting(a->conn);
}

void engine_attach_pause(struct engine_attach *a, bool paused)
{
	attach_pause(a->conn, paused);
}

void engine_attach_close(struct engine_attach *a)
{
	if (!a)
		return;
	struct ctr *c = strmap_get(&a->g->by_id, a->id);
	for (struct engine_attach **at = c ? &c->attached : NULL; at && *at; at = &(*at)->next)
		if (*at == a) {
			*at = a->next;
			break;
		}
	attach_free(a->conn);
	free(a->id);
	free(a);
}

void attach_engine_closing(struct ctr *c)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_CANCELLED, "the engine is closing");
	for (struct engine_attach *a = c->attached; a;) {
		struct engine_attach *next = a->next;
		if (!a->ended) {
			a->ended = true;
			attach_pause(a->conn, true);
			a->io.ended(a->io.data, &e);
			next = c->attached; /* the callback may have closed any of them */
		}
		a = next;
	}
}

int engine_resize(struct engine *g, const char *id, unsigned rows, unsigned cols, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	if (!ctr_is_running(c))
		return err_set(e, ERR_CONFLICT, "Container %s is not running", c->rec->id);
	CLEANUP_FREE char *bundle = ctr_bundle(g, c->rec->id);
	return attach_resize(bundle, rows, cols, e);
}
