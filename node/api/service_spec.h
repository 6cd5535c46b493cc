/* A service's spec on its way into the store: what Swarm fills in, what it refuses, when two specs make the
 * same tasks. Pure. */
#ifndef NODE_API_SERVICE_SPEC_H
#define NODE_API_SERVICE_SPEC_H

#include <stdbool.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/store/store.h"

/* Fills what is stored by default: name, mode and counts, runtime, isolation, ports' protocol and mode, the
 * restart policy's condition. */
void service_spec_fill(Pb__ServiceSpec *s, struct rng r);
/* Everything that can be wrong. service_id NULL: a new service. ERR_INVALID with Swarm's words,
 * ERR_NOT_IMPLEMENTED naming a field whose effect does not exist, ERR_INTERNAL for a constraint that does not
 * parse (as Swarm answers). */
int service_spec_check(
    const struct store *st, const char *service_id, const Pb__ServiceSpec *s, struct err *e);
/* Whether tasks of one are as good as tasks of the other: absent, empty and zero are the same where they mean
 * the same. */
bool service_spec_same_tasks(const Pb__ServiceSpec *a, const Pb__ServiceSpec *b);
/* What ?insertDefaults=true adds to a reply. */
void service_spec_insert_defaults(Pb__ServiceSpec *s);
bool service_spec_is_job(const Pb__ServiceSpec *s);

#endif
