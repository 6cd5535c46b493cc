/* Parameters that the logs of containers and services share. */
#ifndef CLI_LOGS_H
#define CLI_LOGS_H

#include "cli/cli.h"

#define LOGS_FLAGS                                                                                           \
	{"follow", 'f', CLI_BOOL, NULL, "Go on with what comes", NULL},                                      \
	    {"timestamps", 't', CLI_BOOL, NULL, "Show when each line was written", NULL},                    \
	    {"since", 0, CLI_STR, "TIME",                                                                    \
		"Only what came after: 2026-01-02T03:04:05Z, 1700000000, or 10m (ago)", NULL},               \
	    {"tail", 'n', CLI_STR, "N", "Only the last N lines (default all)", NULL},                        \
	{                                                                                                    \
		"details", 0, CLI_BOOL, NULL, "Show attributes of each line", NULL                           \
	}

/* "stdout=1&stderr=1&follow=..." of those flags; heap. */
int logs_query(struct cli *c, bool details, char **ret, struct err *e);
/* A moment as the API takes it: Unix seconds; heap. ERR_INVALID. */
int logs_time(const char *s, char **ret, struct err *e);

#endif
