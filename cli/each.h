/* Commands that do the same to each of their arguments. */
#ifndef CLI_EACH_H
#define CLI_EACH_H

#include <jansson.h>

#include "cli/cli.h"

/* GETs "<before><id><after>" for each argument into an array and prints it as `inspect` does; what is missing
 * is said on stderr, and the exit status is 1 then. */
int each_inspect(struct cli *c, const char *before, const char *after, struct err *e);
/* The same without printing. Returns 0 or 1. */
int each_get(struct cli *c, const char *before, const char *after, json_t *list);
/* DELETEs "<before><id><after>" for each argument and prints its name. */
int each_delete(struct cli *c, const char *before, const char *after);

#endif
