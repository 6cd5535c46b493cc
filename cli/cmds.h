/* Every command; each is defined in its noun's file. */
#ifndef CLI_CMDS_H
#define CLI_CMDS_H

#include "cli/cli.h"

/* groups */
extern const struct cli_cmd cmd_swarm, cmd_node, cmd_service, cmd_image, cmd_container, cmd_config,
    cmd_secret, cmd_network, cmd_volume, cmd_system;
/* containers, also at the top level */
extern const struct cli_cmd cmd_ps, cmd_logs, cmd_exec, cmd_top, cmd_stats, cmd_kill, cmd_stop, cmd_start,
    cmd_restart, cmd_rm, cmd_wait;
/* images, also at the top level */
extern const struct cli_cmd cmd_images, cmd_load, cmd_pull, cmd_rmi, cmd_tag;
/* anything */
extern const struct cli_cmd cmd_inspect, cmd_events, cmd_info, cmd_version, cmd_completion, cmd_complete,
    cmd_help;

#endif
