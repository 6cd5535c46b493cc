/* Published ports: which service holds which, and which are handed out to services that ask for any.
 *
 * The table follows the store (allocator_event); what was handed out but is not committed yet is held too, so
 * that two services of one pass never get the same port. Pure: no clock, no I/O. */
#ifndef MANAGER_ALLOCATOR_ALLOCATOR_H
#define MANAGER_ALLOCATOR_ALLOCATOR_H

#include <stdbool.h>

#include "base/err.h"
#include "manager/store/store.h"

#define ALLOCATOR_PORT_FIRST 30000
#define ALLOCATOR_PORT_LAST  32767

struct allocator;
/* Knows what the store holds now; then feed it every event of a service. */
struct allocator *allocator_new(const struct store *s);
void allocator_free(struct allocator *a);                                /* NULL is fine */
void allocator_event(struct allocator *a, const struct store_event *ev); /* other kinds are ignored */

/* Service.endpoint is not what Service.spec.endpoint_spec asks for. */
bool allocator_needs(const Pb__Service *s);
/* Makes the endpoint for the service's spec: explicit ports as they are, ingress ports without a number keep
 * the one that they had, or get the next free one of 30000-32767. *ret_endpoint is on the heap, or NULL when
 * the service publishes nothing. Holds the ports until an event of the service or allocator_forget.
 * ERR_PRECONDITION: a port is taken (by a service that was created at the same time), or none is left. */
int allocator_assign(struct allocator *a, const Pb__Service *s, Pb__Endpoint **ret_endpoint, struct err *e);
/* The endpoint made for this service was not committed: back to what the store says (cur NULL: nothing). */
void allocator_forget(struct allocator *a, const char *service_id, const Pb__Service *cur);

/* For the API at create (service_id NULL) and update: ERR_INVALID with Swarm's words when a port of `spec` is
 * published by another service. Two services may publish the same host-mode port; the scheduler keeps them
 * apart. */
int allocator_check_ports(
    const struct store *s, const char *service_id, const Pb__EndpointSpec *spec, struct err *e);

#endif
