/* What a request's path says: API version, route, parameters. For api.c; lives in the request's scratch
 * memory. */
#ifndef NODE_API_MATCH_H
#define NODE_API_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MATCH_PARAMS 3
#define MATCH_TEXT   400

enum match_version_result { MATCH_OK, MATCH_OLD, MATCH_NEW };

struct api;
struct route;
struct match {
	bool done;
	enum match_version_result version;
	unsigned minor;
	struct api *api;
	const struct route *route;
	struct {
		const char *name;         /* in the pattern */
		uint16_t name_len, value; /* value: offset in text */
	} params[MATCH_PARAMS];
	unsigned n_params;
	uint16_t text_len;
	char text[MATCH_TEXT];
};

/* Moves *path past "/v1.41" when it begins so, and says which minor version that is (the newest without). */
enum match_version_result match_version(const char **path, unsigned *ret_minor);
/* Whether the whole path fits the pattern; parameters go to m. */
bool match_pattern(const char *pattern, const char *path, struct match *m);

#endif
