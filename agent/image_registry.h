/* Asking registries about images and credentials, through skopeo. Callbacks come once, on the loop, never
 * before the call that returned 0 did so. */
#ifndef AGENT_IMAGE_REGISTRY_H
#define AGENT_IMAGE_REGISTRY_H

#include <jansson.h>

#include "agent/image.h"

/* `result` is borrowed and NULL on error; `e` is never NULL. */
typedef void (*image_registry_cb)(void *data, const json_t *result, const struct err *e);

/* What GET /distribution/{ref}/json answers:
 * {"Descriptor":{mediaType,digest,size},"Platforms":[{architecture,os,variant?}]}. An image that was only
 * ever loaded on this node is not looked for (ERR_NOT_FOUND at once). auth as for images_pull. */
int images_distribution(
    struct images *im, const char *ref, const char *auth, image_registry_cb cb, void *data, struct err *e);
/* Tries to log in: result {"Status":"Login Succeeded","IdentityToken":""}; ERR_UNAUTHORIZED. server "" is
 * docker.io. The password is passed by a file that only root can read, for as long as it takes. */
int images_login(struct images *im, const char *server, const char *user, const char *password,
    image_registry_cb cb, void *data, struct err *e);

#endif
