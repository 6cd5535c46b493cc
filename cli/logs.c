/* shoal logs: what a container wrote. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/frames.h"
#include "cli/logs.h"
#include "cli/out.h"

int logs_time(const char *s, char **ret, struct err *e)
{
	int64_t ns;
	uint64_t seconds;
	if (str_parse_u64(s, &seconds, NULL) == 0) {
		*ret = xstrdup(s);
		return 0;
	}
	if (str_parse_time(s, &ns, NULL) == 0)
		;
	else if (str_parse_duration(s, &ns, NULL) == 0)
		ns = out_now() - ns;
	else
		return err_set(e, ERR_INVALID,
		    "\"%s\" is not a time: write 2026-01-02T03:04:05Z, Unix seconds, or 10m for ten minutes "
		    "ago",
		    s);
	if (ns < 0)
		ns = 0;
	*ret = xasprintf("%lld.%09lld", (long long)(ns / 1000000000), (long long)(ns % 1000000000));
	return 0;
}

int logs_query(struct cli *c, bool details, char **ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	uint64_t n;
	const char *tail = str_or(cli_str(c, "tail"), "all"), *since = cli_str(c, "since");
	if (!str_eq(tail, "all") && str_parse_u64(tail, &n, NULL) < 0)
		return err_set(e, ERR_INVALID, "--tail: \"%s\" is neither a number nor \"all\"", tail);
	buf_printf(&b, "stdout=1&stderr=1&follow=%d&timestamps=%d&details=%d&tail=%s", cli_bool(c, "follow"),
	    cli_bool(c, "timestamps"), details, tail);
	if (since) {
		CLEANUP_FREE char *when = NULL;
		int r = logs_time(since, &when, e);
		if (r < 0)
			return err_wrap(e, "--since");
		buf_printf(&b, "&since=%s", when);
	}
	*ret = buf_take(&b, NULL);
	return 0;
}

static int run_logs(struct cli *c, struct err *e)
{
	CLEANUP_FREE char *query = NULL, *until = NULL, *id = api_escape(c->argv[0]);
	json_t *container;
	int r = logs_query(c, cli_bool(c, "details"), &query, e);
	if (r == 0 && cli_given(c, "until") && (r = logs_time(cli_str(c, "until"), &until, e)) < 0)
		err_wrap(e, "--until");
	if (r < 0 || (r = api_get(c, &container, e, "/containers/%s/json", id)) < 0)
		return r;
	struct frames f = {.raw = jbool(container, "Config.Tty")};
	json_decref(container);
	CLEANUP_FREE char *path =
	    xasprintf("/containers/%s/logs?%s%s%s", id, query, until ? "&until=" : "", str_or(until, ""));
	r = api_call(c, "GET", path, &(struct api_opts){.on_data = frames_feed, .data = &f}, NULL, NULL, e);
	frames_done(&f);
	return r;
}

static const struct cli_flag flags[] = {
    LOGS_FLAGS, {"until", 0, CLI_STR, "TIME", "Only what came before", NULL}, {0}};

const struct cli_cmd cmd_logs = {
    .name = "logs",
    .args = "CONTAINER",
    .brief = "Show what a container of this node wrote (see also: service logs)",
    .examples = "shoal logs web.1\n"
		"shoal logs -f --tail 20 3f1c2b7a90de\n"
		"shoal logs --since 10m -t 3f1c2b7a90de",
    .flags = flags,
    .min_args = 1,
    .max_args = 1,
    .kind = "container",
    .run = run_logs,
};
