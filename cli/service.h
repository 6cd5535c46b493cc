/* Between the files of `shoal service`. */
#ifndef CLI_SERVICE_H
#define CLI_SERVICE_H

#include "cli/cli.h"

extern const struct cli_cmd service_create_cmd, service_update_cmd, service_rollback_cmd, service_scale_cmd,
    service_ls_cmd, service_ps_cmd, service_rm_cmd, service_inspect_cmd, service_logs_cmd;

/* Waits for a service unless --detach was given; `prefix` for messages. */
int service_wait(struct cli *c, const char *service, struct err *e);
/* Prints "Warnings" of a reply on stderr. */
void service_warnings(const void *reply);

#endif
