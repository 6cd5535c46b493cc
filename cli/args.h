/* Between parsing a command line and reading its flags. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include "cli/cli.h"

struct cli_found {
	const struct cli_flag *flag;
	struct cli_value *value;
};

/* A flag of the running command by name, or by letter when that is not 0. */
bool cli_find_flag(const struct cli *c, const char *name, size_t len, char letter, struct cli_found *ret);
/* Checks a value against the flag's type: the number goes to *ret or *ret_ratio. ERR_INVALID. */
int cli_parse_value(const struct cli_flag *f, const char *s, int64_t *ret, double *ret_ratio, struct err *e);

#endif
