/* Service specs from flags: what `service create` and `service update` share. */
#ifndef CLI_SPEC_H
#define CLI_SPEC_H

#include <jansson.h>

#include "cli/cli.h"

extern const struct cli_flag spec_flags[];        /* of both */
extern const struct cli_flag spec_create_flags[]; /* lists and what only create has */
extern const struct cli_flag spec_update_flags[];

/* Sets in `spec` what the flags of both commands say. ERR_INVALID names the flag. */
int spec_set_scalars(struct cli *c, json_t *spec, struct err *e);
/* The lists of create (--env), and of update (--env-add, --env-rm). */
int spec_create_lists(struct cli *c, json_t *spec, struct err *e);
int spec_update_lists(struct cli *c, json_t *spec, struct err *e);
/* Mode, replicas, concurrency; create: true makes the mode from --mode, else the spec has it. */
int spec_set_mode(struct cli *c, json_t *spec, bool create, struct err *e);
/* Sets the replicas of a replicated service; ERR_INVALID for another mode. */
int spec_set_replicas(json_t *spec, uint64_t n, struct err *e);

/* Rewrites the image to a digest as the registry has it, and sets the platforms, when the registry answers
 * soon; else says on stderr that it did not (unless quiet). auth: X-Registry-Auth or NULL. */
void spec_resolve_image(struct cli *c, json_t *spec, const char *auth, bool quiet);

/* One mount: "type=bind,source=/a,target=/b,readonly". */
int mount_parse(const char *s, json_t **ret, struct err *e);

/* A shell-like split of a command line: quotes and backslashes, no expansion. */
int words_split(const char *s, json_t **ret, struct err *e);
/* Fields of a line of comma-separated values, where "..." may hold commas. */
int words_csv(const char *s, struct strlist *ret, struct err *e);

#endif
