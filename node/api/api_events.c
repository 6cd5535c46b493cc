/* GET /events: what happened (since) and what happens, one JSON object a line, filtered. With an `until` the
 * stream ends then. A client that does not read is cut off at OUT_MAX. */
#include <string.h>

#include "base/mem.h"
#include "base/timer.h"
#include "node/api/resources.h"

#define OUT_MAX (16u * 1024 * 1024)

struct stream {
	struct api *api;
	struct http_req *r;
	struct events_sub *sub;
	struct timer *until;
	struct api_filters filters;
};

static void stream_free(struct stream *s)
{
	if (s->sub)
		events_unsubscribe(s->sub);
	timer_free(s->until);
	api_filters_done(&s->filters);
	free(s);
}

static const char *text(const json_t *o, const char *key)
{
	return str_or(json_string_value(json_object_get(o, key)), "");
}

static bool labels_match(const struct api_filters *f, const json_t *attributes)
{
	const struct strlist *l = api_filters_get(f, "label");
	for (size_t i = 0; l && i < l->n; i++) {
		size_t k = strcspn(l->v[i], "=");
		CLEANUP_FREE char *key = xstrndup(l->v[i], k);
		const char *v = json_string_value(json_object_get(attributes, key));
		if (!v || (l->v[i][k] && strcmp(v, l->v[i] + k + 1) != 0))
			return false;
	}
	return true;
}

/* Filters named after a type want an event of that type, whose id begins with the value or whose name it is.
 */
static bool objects_match(const struct api_filters *f, const json_t *m, const char *id, const char *name)
{
	static const char *const types[] = {"config", "container", "daemon", "network", "node", "plugin",
	    "secret", "service", "volume", NULL};
	bool any = false, asked = false;
	for (size_t t = 0; types[t]; t++) {
		const struct strlist *l = api_filters_get(f, types[t]);
		for (size_t i = 0; l && i < l->n; i++) {
			asked = true;
			any |= strcmp(text(m, "Type"), types[t]) == 0 &&
			       (str_has_prefix(id, l->v[i]) || str_eq(name, l->v[i]));
		}
	}
	return any || !asked;
}

/* "exec_start" finds "exec_start: sh", too. */
static bool action_matches(const struct api_filters *f, const char *action)
{
	const struct strlist *l = api_filters_get(f, "event");
	bool any = !l || l->n == 0;
	for (size_t i = 0; l && i < l->n; i++) {
		size_t n = strlen(l->v[i]);
		any |= strncmp(action, l->v[i], n) == 0 && (!action[n] || action[n] == ':');
	}
	return any;
}

static bool image_matches(
    const struct api_filters *f, const json_t *m, const char *id, const char *name, const char *image)
{
	const struct strlist *l = api_filters_get(f, "image");
	bool any = !l || l->n == 0, is_image = strcmp(text(m, "Type"), "image") == 0;
	for (size_t i = 0; l && i < l->n; i++) {
		const char *v = is_image ? name : image;
		size_t n = strlen(l->v[i]);
		any |= str_eq(v, l->v[i]) || (is_image && str_has_prefix(id, l->v[i])) ||
		       (strncmp(v, l->v[i], n) == 0 && (v[n] == ':' || v[n] == '@'));
	}
	return any;
}

static bool matches(const struct api_filters *f, const json_t *m)
{
	const json_t *actor = json_object_get(m, "Actor"), *attributes = json_object_get(actor, "Attributes");
	const char *id = text(actor, "ID"), *name = text(attributes, "name");
	return api_filters_match(f, "type", text(m, "Type")) &&
	       api_filters_match(f, "scope", text(m, "scope")) && action_matches(f, text(m, "Action")) &&
	       objects_match(f, m, id, name) && image_matches(f, m, id, name, text(attributes, "image")) &&
	       labels_match(f, attributes);
}

static void on_event(void *data, const json_t *m)
{
	struct stream *s = data;
	if (!matches(&s->filters, m))
		return;
	size_t waiting = api_write_line(s->r, m);
	if (waiting > OUT_MAX && s->sub) {
		http_finish(s->r);
		stream_free(s);
	}
}

static void on_gone(void *data)
{
	stream_free(data);
}

static void on_until(void *data)
{
	struct stream *s = data;
	http_finish(s->r);
	stream_free(s);
}

static void events(void *data, struct http_req *r)
{
	struct api *a = data;
	const struct api_deps *d = api_deps(a);
	struct err e = ERR_INIT;
	int64_t since, until, now = clock_unix_ns(d->clock);
	struct stream *s = NEW(struct stream);
	s->api = a;
	s->r = r;
	if (api_time_param(a, r, "since", &since, &e) != 0 ||
	    api_time_param(a, r, "until", &until, &e) != 0 ||
	    api_filters_parse(r, NULL, &s->filters, &e) != 0) {
		api_reply_err(r, &e);
		stream_free(s);
		return;
	}
	http_start(r, 200, "application/json");
	if (since)
		events_each(d->events, since, until ? until : now, on_event, s);
	if (until && until <= now) {
		http_finish(r);
		stream_free(s);
		return;
	}
	http_on_closed(r, on_gone, s);
	s->sub = events_subscribe(d->events, on_event, s);
	if (until) {
		s->until = timer_new(d->loop, on_until, s);
		timer_start(s->until, (uint64_t)((until - now) / NS_PER_MSEC));
	}
}

void api_events_register(struct api *a)
{
	api_route(a, "GET", "/events", events, a);
}
