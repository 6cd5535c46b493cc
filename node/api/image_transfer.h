/* The routes that move images: pull, load, registries' answers, and what is refused. Registered by
 * api_images.c. */
#ifndef NODE_API_IMAGE_TRANSFER_H
#define NODE_API_IMAGE_TRANSFER_H

#include "node/api/local.h"

void api_image_transfer_register(struct api_local *l);

#endif
