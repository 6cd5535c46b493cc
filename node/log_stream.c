/* Task logs for the Engine API: a subscription at the log broker, line by line. */
#include "base/mem.h"
#include "node/node_private.h"

struct api_log {
	struct api_log_query q;
	struct log_subscription *sub;
};

static void on_line(void *data, const char *service_id, const char *node_id, const Pb__LogLine *line)
{
	struct api_log *l = data;
	const struct api_log_line out = {
	    .task_id = line->task_id,
	    .service_id = service_id,
	    .node_id = node_id,
	    .ts = line->timestamp,
	    .stream = (int)line->stream,
	    .data = line->data.data,
	    .len = line->data.len,
	};
	l->q.on_line(l->q.data, &out);
}

static void on_end(void *data, int status, const struct err *e)
{
	struct api_log *l = data;
	l->sub = NULL;
	l->q.on_end(l->q.data, status, e); /* log_close may still come and frees */
}

int log_stream_open(struct swarm *s, const struct api_log_query *q, struct api_log **ret, struct err *e)
{
	if (!manager_ready(s->manager))
		return err_set(e, ERR_UNAVAILABLE, "This node is not a swarm manager.");
	struct api_log *l = NEW(struct api_log);
	l->q = *q;
	const struct log_subscribe_opts o = {
	    .service_id = q->service_id,
	    .task_id = q->task_id,
	    .follow = q->follow,
	    .want_stdout = q->want_stdout,
	    .want_stderr = q->want_stderr,
	    .tail = q->tail,
	    .since_ns = q->since,
	    .line = on_line,
	    .end = on_end,
	    .data = l,
	};
	int rc = logbroker_subscribe(manager_logbroker(s->manager), &o, &l->sub, e);
	if (rc != 0) {
		free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

void log_stream_pause(struct api_log *l, bool paused)
{
	if (l->sub)
		logbroker_pause(l->sub, paused);
}

void log_stream_close(struct api_log *l)
{
	if (l->sub)
		logbroker_unsubscribe(l->sub);
	free(l);
}
