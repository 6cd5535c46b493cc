/* The event hub: what happened on this node and, on managers, in the swarm, for GET /events.
 *
 * Publishers hand over messages in the Engine API's form; the hub keeps the last EVENTS_KEPT of them, for
 * `since`, and tells each subscriber of each new one. */
#ifndef NODE_EVENTS_H
#define NODE_EVENTS_H

#include <jansson.h>
#include <stdint.h>

#define EVENTS_KEPT 1024

struct events;
struct events *events_new(void);
void events_free(struct events *ev); /* NULL is fine; no subscriber may be left */

/* Publishes {"Type","Action","Actor":{"ID","Attributes"},"scope","time","timeNano"}. `attributes` is an
 * object of strings whose reference is taken; NULL means {}. Container events also get "status", "id" and
 * "from" (the attribute "image"). scope is "local" or "swarm". */
void events_publish(struct events *ev, const char *type, const char *action, const char *actor_id,
    json_t *attributes, const char *scope, int64_t unix_ns);

/* Subscribers get each message after it was kept; `msg` is borrowed. They must not publish from the callback;
 * they may unsubscribe. */
struct events_sub;
typedef void (*events_cb)(void *data, const json_t *msg);
struct events_sub *events_subscribe(struct events *ev, events_cb cb, void *data);
void events_unsubscribe(struct events_sub *s);
/* Calls cb for kept messages with since_ns <= time <= until_ns, oldest first. */
void events_each(const struct events *ev, int64_t since_ns, int64_t until_ns, events_cb cb, void *data);

#endif
