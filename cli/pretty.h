/* Objects for reading: `inspect --pretty`. */
#ifndef CLI_PRETTY_H
#define CLI_PRETTY_H

#include <jansson.h>

#include "cli/cli.h"

void pretty_node(const json_t *node);
void pretty_service(const json_t *service);
/* A config or secret; `data` (base64) is decoded and printed below, or NULL. */
void pretty_object(const json_t *object, const char *data);
/* " Labels:" and " - k=v" below it; nothing for none. */
void pretty_labels(const char *title, const json_t *labels);

#endif
