/* shoal events: what happens, as it happens. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/jsonstream.h"
#include "cli/logs.h"
#include "cli/out.h"

static void print_event(json_t *o)
{
	char when[40];
	str_format_time_fixed(jint(o, "timeNano") ? jint(o, "timeNano") : jint(o, "time") * 1000000000, when);
	CLEANUP_FREE char *attributes = out_labels(jpath(o, "Actor.Attributes"));
	printf("%s %s %s %s", when, jstr(o, "Type"), jstr(o, "Action"), jstr(o, "Actor.ID"));
	if (*attributes) {
		CLEANUP_STRLIST struct strlist parts = STRLIST_INIT;
		strlist_split(&parts, attributes, ',');
		CLEANUP_FREE char *spaced = strlist_join(&parts, ", ");
		printf(" (%s)", spaced);
	}
	putchar('\n');
}

static int on_event(void *data, json_t *o, struct err *e)
{
	struct cli *c = data;
	const char *format = cli_str(c, "format");
	int r = 0;
	if (format)
		r = out_template(format, o, e);
	else
		print_event(o);
	fflush(stdout);
	return r;
}

static int add_time(struct cli *c, const char *flag, struct buf *path, struct err *e)
{
	CLEANUP_FREE char *when = NULL;
	if (!cli_given(c, flag))
		return 0;
	if (logs_time(cli_str(c, flag), &when, e) < 0)
		return err_wrap(e, "--%s", flag);
	buf_printf(path, "&%s=%s", flag, when);
	return 0;
}

static int run_events(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *filters = NULL;
	CLEANUP_BUF struct buf path = BUF_INIT;
	int r = api_filters(cli_list(c, "filter"), NULL, &filters, e);
	if (r < 0)
		return r;
	buf_printf(&path, "/events?x=1%s", filters);
	if ((r = add_time(c, "since", &path, e)) < 0 || (r = add_time(c, "until", &path, e)) < 0)
		return r;
	struct jsonstream s = {.object = on_event, .data = c};
	r = api_call(
	    c, "GET", path.data, &(struct api_opts){.on_data = jsonstream_feed, .data = &s}, NULL, NULL, e);
	jsonstream_done(&s);
	return r;
}

static const struct cli_flag flags[] = {OUT_FILTER_FLAG,
    {"since", 0, CLI_STR, "TIME", "Also what came after: 2026-01-02T03:04:05Z, 1700000000, or 10m (ago)",
	NULL},
    {"until", 0, CLI_STR, "TIME", "End at this time", NULL},
    {"format", 0, CLI_STR, "TEMPLATE", "Print by a Go template, or \"json\"", NULL}, {0}};

const struct cli_cmd cmd_events = {
    .name = "events",
    .brief = "Show what happens on this node and, on a manager, in the cluster",
    .about = "Filters: type, event, container, image, service, node, secret, config, network, volume, label, "
	     "scope.",
    .examples = "shoal events\n"
		"shoal events --since 10m --filter type=service\n"
		"shoal events --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'",
    .flags = flags,
    .run = run_events,
};
