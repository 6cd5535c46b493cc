/* The resources of the Engine API, one file each; api_new registers them all. */
#ifndef NODE_API_RESOURCES_H
#define NODE_API_RESOURCES_H

#include "node/api/api.h"

void api_system_register(struct api *a);
void api_events_register(struct api *a);
void api_swarm_register(struct api *a);
void api_nodes_register(struct api *a);
void api_networks_register(struct api *a);
void api_volumes_register(struct api *a);
void api_services_register(struct api *a);
void api_tasks_register(struct api *a);
void api_secrets_register(struct api *a);
void api_configs_register(struct api *a);
void api_logs_register(struct api *a);

/* The id of a built-in network, "" when there is none of that name. */
const char *api_network_id(const char *name);

#endif
