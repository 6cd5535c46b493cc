/* What the files of the container and exec routes share: words and JSON of a container, the list's query,
 * frames of multiplexed streams. */
#ifndef NODE_API_CONTAINERS_H
#define NODE_API_CONTAINERS_H

#include <regex.h>

#include "node/api/local.h"

/* --- words (container_words.c), as docker prints them */
/* "Less than a second", "4 minutes", "About an hour", "3 weeks". */
void container_duration_words(int64_t ns, char *out, size_t cap);
/* "Up 4 minutes (healthy)", "Exited (3) 2 seconds ago", "Created". */
void container_status_words(const Pb__Container *c, int64_t now_ns, char *out, size_t cap);
/* created running exited removing paused dead */
const char *container_state_word(const Pb__Container *c);
bool container_is_running(const Pb__Container *c);          /* paused ones too */
const char *container_network_mode(const Pb__Container *c); /* bridge none host */

/* --- JSON (api_container_json.c); new references */
json_t *container_list_json(struct api_local *l, const Pb__Container *c, int64_t now_ns);
json_t *container_inspect_json(struct api_local *l, const Pb__Container *c);
/* One sample; before NULL: the first, its precpu_stats are zero. now NULL: a container that does not run. */
json_t *container_stats_json(const Pb__Container *c, const struct container_stats *now,
    const struct container_stats *before, bool cgroup_v2);

/* --- the list's filters (api_container_list.c) */
struct container_query {
	struct api_filters f;
	bool all;
	int64_t limit;              /* 0: none */
	bool has_before, has_since; /* filters of these names */
	int64_t before, since;      /* created_at of the containers they name */
	struct strlist ancestors;   /* image ids */
	regex_t *names, *ids;
	size_t n_names, n_ids;
	int is_task; /* 1 0; -1: not asked for */
};
/* Reads what q->f holds, checks all values. q is zeroed apart from f, all and limit. */
int container_query_prepare(struct api_local *l, struct container_query *q, struct err *e);
bool container_query_matches(const struct container_query *q, const Pb__Container *c);
void container_query_done(struct container_query *q);

/* --- frames: 8 bytes before each piece of output, unless raw (a tty) */
#define FRAME_HEAD 8
void frame_append(struct buf *out, bool raw, int stream, const void *p, size_t n);
/* For the client's API version: multiplexed or raw. */
const char *frame_content_type(const struct http_req *r, bool raw);

/* --- registration of parts */
void api_container_list_register(struct api_local *l);
void api_container_streams_register(struct api_local *l);
void api_container_stats_register(struct api_local *l);
void api_container_attach_register(struct api_local *l);

/* The container of the path, or NULL after a 404 was sent. */
const Pb__Container *container_or_reply(struct api_local *l, struct http_req *r);

#endif
