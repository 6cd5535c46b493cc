/* shoal version. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"
#include "cli/out.h"

static json_t *client_version(void)
{
	struct utsname u;
	uname(&u);
	return json_pack("{s:s, s:s, s:s}", "Version", SHOAL_VERSION, "Os", "linux", "Arch", u.machine);
}

static int run_version(struct cli *c, struct err *e)
{
	json_t *all = json_pack("{s:o, s:n}", "Client", client_version(), "Server"), *server;
	const char *format = cli_str(c, "format");
	int r = api_get(c, &server, e, "/version");
	if (r == 0)
		json_object_set_new(all, "Server", server);
	if (format) {
		r = r < 0 ? r : out_template(format, all, e);
		json_decref(all);
		return r;
	}
	printf("Client:\n Version:      %s\n OS/Arch:      %s/%s\n", jstr(all, "Client.Version"),
	    jstr(all, "Client.Os"), jstr(all, "Client.Arch"));
	if (r == 0)
		printf("\nServer: %s\n Version:      %s\n API version:  %s (minimum version %s)\n Kernel:    "
		       "   %s\n OS/Arch:      %s/%s\n",
		    jstr(server, "Platform.Name"), jstr(server, "Version"), jstr(server, "ApiVersion"),
		    jstr(server, "MinAPIVersion"), jstr(server, "KernelVersion"), jstr(server, "Os"),
		    jstr(server, "Arch"));
	json_decref(all);
	return r;
}

static const struct cli_flag format_flags[] = {OUT_FORMAT_FLAG, {0}};

const struct cli_cmd cmd_version = {
    .name = "version",
    .brief = "Show the versions of this program and of the daemon",
    .examples = "shoal version\n"
		"shoal version -f '{{.Server.Version}}'",
    .flags = format_flags,
    .run = run_version,
};
