/* See events.h: a ring of messages and a list of subscribers. Kept messages are text: a tenth of the memory
 * of parsed ones, and rarely asked for. A subscriber that leaves from inside a callback is only marked; the
 * publisher takes it off the list when it has told everybody. */
#include "node/events.h"

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

struct events_sub {
	struct events *ev;
	events_cb cb;
	void *data;
	bool dead;
	struct events_sub *next;
};
struct events {
	char *ring[EVENTS_KEPT];
	int64_t times[EVENTS_KEPT];
	size_t next, n;
	struct events_sub *subs;
	unsigned publishing;
};

struct events *events_new(void)
{
	return NEW(struct events);
}

void events_free(struct events *ev)
{
	if (!ev)
		return;
	for (size_t i = 0; i < EVENTS_KEPT; i++)
		free(ev->ring[i]);
	free(ev);
}

static void sweep(struct events *ev)
{
	for (struct events_sub **p = &ev->subs; *p;) {
		struct events_sub *s = *p;
		if (s->dead) {
			*p = s->next;
			free(s);
		} else {
			p = &s->next;
		}
	}
}

void events_publish(struct events *ev, const char *type, const char *action, const char *actor_id,
    json_t *attributes, const char *scope, int64_t unix_ns)
{
	if (!attributes)
		attributes = json_object();
	json_t *m = json_object();
	if (strcmp(type, "container") == 0) {
		json_t *image = json_object_get(attributes, "image");
		json_object_set_new(m, "status", json_string(action));
		json_object_set_new(m, "id", json_string(actor_id));
		json_object_set_new(m, "from", image ? json_incref(image) : json_string(""));
	}
	json_object_set_new(m, "Type", json_string(type));
	json_object_set_new(m, "Action", json_string(action));
	json_object_set_new(m, "Actor", json_pack("{s:s, s:o}", "ID", actor_id, "Attributes", attributes));
	json_object_set_new(m, "scope", json_string(scope));
	json_object_set_new(m, "time", json_integer(unix_ns / NS_PER_SEC));
	json_object_set_new(m, "timeNano", json_integer(unix_ns));
	free(ev->ring[ev->next]);
	ev->ring[ev->next] = json_dumps(m, JSON_COMPACT);
	ev->times[ev->next] = unix_ns;
	ev->next = (ev->next + 1) % EVENTS_KEPT;
	if (ev->n < EVENTS_KEPT)
		ev->n++;
	ev->publishing++;
	for (struct events_sub *s = ev->subs; s; s = s->next)
		if (!s->dead)
			s->cb(s->data, m);
	if (--ev->publishing == 0)
		sweep(ev);
	json_decref(m);
}

struct events_sub *events_subscribe(struct events *ev, events_cb cb, void *data)
{
	struct events_sub *s = NEW(struct events_sub);
	s->ev = ev;
	s->cb = cb;
	s->data = data;
	s->next = ev->subs;
	ev->subs = s;
	return s;
}

void events_unsubscribe(struct events_sub *s)
{
	s->dead = true;
	if (!s->ev->publishing)
		sweep(s->ev);
}

void events_each(const struct events *ev, int64_t since_ns, int64_t until_ns, events_cb cb, void *data)
{
	size_t first = (ev->next + EVENTS_KEPT - ev->n) % EVENTS_KEPT;
	for (size_t i = 0; i < ev->n; i++) {
		size_t k = (first + i) % EVENTS_KEPT;
		if (ev->times[k] < since_ns || ev->times[k] > until_ns)
			continue;
		/* Text that does not parse was never written: attributes that are no UTF-8 give no text. */
		json_t *m = ev->ring[k] ? json_loads(ev->ring[k], 0, NULL) : NULL;
		if (m)
			cb(data, m);
		json_decref(m);
	}
}
