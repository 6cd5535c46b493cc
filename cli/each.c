/* The same call for each argument; one that fails is said, and the others go on. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/each.h"
#include "cli/out.h"

int each_get(struct cli *c, const char *before, const char *after, json_t *list)
{
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		json_t *o;
		CLEANUP_FREE char *id = api_escape(c->argv[i]);
		if (api_get(c, &o, &one, "%s%s%s", before, id, after) < 0)
			status = cli_error(&one);
		else
			json_array_append_new(list, o);
	}
	return status;
}

int each_inspect(struct cli *c, const char *before, const char *after, struct err *e)
{
	json_t *found = json_array();
	int status = each_get(c, before, after, found);
	int r = out_inspect(c, found, e);
	json_decref(found);
	return r ? r : status;
}

int each_delete(struct cli *c, const char *before, const char *after)
{
	int status = 0;
	for (int i = 0; i < c->argc; i++) {
		struct err one = ERR_INIT;
		CLEANUP_FREE char *id = api_escape(c->argv[i]);
		if (api_delete(c, NULL, &one, "%s%s%s", before, id, after) < 0)
			status = cli_error(&one);
		else
			puts(c->argv[i]);
		fflush(stdout);
	}
	return status;
}
