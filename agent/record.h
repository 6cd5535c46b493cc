/* Container records in the agent's database. */
#ifndef AGENT_RECORD_H
#define AGENT_RECORD_H

#include "agent/kv.h"
#include "proto/container.pb-c.h"

#define RECORD_TABLE "containers"

int record_put(struct kv *kv, const Pb__Container *c, struct err *e);
int record_del(struct kv *kv, const char *id, struct err *e);
/* Calls fn for each record; it takes the message (free with pb__container__free_unpacked). One that does not
 * decode is skipped and logged: its directory is then a leftover. */
int record_each(struct kv *kv, void (*fn)(void *data, Pb__Container *c), void *data, struct err *e);

#endif
