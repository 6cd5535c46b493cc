/* The table of tasks that `service ps` and `node ps` share. */
#ifndef CLI_TASKS_H
#define CLI_TASKS_H

#include <jansson.h>

#include "cli/cli.h"

#define TASKS_FLAGS                                                                                          \
	OUT_LIST_FLAGS, OUT_FILTER_FLAG, OUT_TRUNC_FLAG,                                                     \
	{                                                                                                    \
		"no-resolve", 0, CLI_BOOL, NULL, "Print ids of nodes and services instead of names", NULL    \
	}

/* Lists the tasks that --filter and `fixed` (a filter object, borrowed) let through. */
int tasks_print(struct cli *c, json_t *fixed, struct err *e);

#endif
