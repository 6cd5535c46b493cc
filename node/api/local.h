/* Resources of this node itself, which work in and out of a swarm: containers, exec, images. node/node.c
 * registers them. */
#ifndef NODE_API_LOCAL_H
#define NODE_API_LOCAL_H

#include "agent/container.h"
#include "agent/image.h"
#include "node/api/api.h"
#include "overlay/hostnet.h"

struct api_local {
	struct api *api;
	struct engine *engine;
	struct images *images;
	struct hostnet *net;
	uv_loop_t *loop;
	const struct strlist *insecure_registries; /* as in images_opts */
};
/* `l` is borrowed and outlives the api. */
void api_containers_register(struct api_local *l);
void api_exec_register(struct api_local *l);
void api_images_register(struct api_local *l);
void api_df_register(struct api_local *l);

/* An image as lists show it, for a client of 1.`minor`. New reference. */
json_t *image_summary_json(const struct image *i, unsigned minor);

#endif
