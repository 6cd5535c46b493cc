/* What shoald was told to do: flags, then the JSON file that --config-file names (same keys). A setting in
 * both is an error, as in dockerd, and so is a key that nobody knows. */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "base/str.h"

struct config {
	struct strlist hosts; /* "unix:///path" */
	char *data_root, *exec_root, *pidfile, *runtime;
	enum log_level log_level;
	struct strlist labels;            /* "k=v" */
	struct strlist generic_resources; /* "KIND=n" or "KIND=name" */
	struct strlist insecure_registries, registry_mirrors;
};
#define CONFIG_HELP    1
#define CONFIG_VERSION 2
/* 0, CONFIG_HELP or CONFIG_VERSION when the program should print that and end, or an error. */
int config_parse(int argc, char **argv, struct config *ret, struct err *e);
void config_done(struct config *c);
const char *config_usage(void);

#endif
