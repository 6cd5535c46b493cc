/* What this node tells of itself: host name, platform, resources, engine. */
#ifndef NODE_DESCRIPTION_H
#define NODE_DESCRIPTION_H

#include "node/config.h"
#include "proto/objects.pb-c.h"

/* Heap: pb_free. ca_pem NULL leaves TLSInfo out. */
Pb__NodeDescription *description_make(const struct config *c, const char *ca_pem);

#endif
