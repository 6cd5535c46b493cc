/* The root of the command table, and the program's beginning and end. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"

static const struct cli_flag global_flags[] = {
    {"host", 'H', CLI_STR, "HOST",
	"The daemon: unix:///path or tcp://name:port (else $SHOAL_HOST, else $DOCKER_HOST)", NULL},
    {"tls", 0, CLI_BOOL, NULL, "Use TLS with a tcp:// host without verifying it", NULL},
    {"tlsverify", 0, CLI_BOOL, NULL, "Use TLS with a tcp:// host and verify it", NULL},
    {"tlscacert", 0, CLI_STR, "FILE",
	"Certificates to verify the host by (else ca.pem in $DOCKER_CERT_PATH or ~/.docker)", "file"},
    {"tlscert", 0, CLI_STR, "FILE", "Our certificate (else cert.pem there)", "file"},
    {"tlskey", 0, CLI_STR, "FILE", "Our key (else key.pem there)", "file"},
    {"version", 'v', CLI_BOOL, NULL, "Print this program's version", NULL}, {0}};

static const struct cli_cmd *const commands[] = {&cmd_swarm, &cmd_node, &cmd_service, &cmd_config,
    &cmd_secret, &cmd_network, &cmd_volume, &cmd_image, &cmd_container, &cmd_system,
    /* this node's containers and images */
    &cmd_ps, &cmd_logs, &cmd_exec, &cmd_top, &cmd_stats, &cmd_kill, &cmd_stop, &cmd_start, &cmd_restart,
    &cmd_rm, &cmd_wait, &cmd_load, &cmd_pull, &cmd_images, &cmd_rmi, &cmd_tag,
    /* anything */
    &cmd_inspect, &cmd_events, &cmd_info, &cmd_version, &cmd_completion, &cmd_help, &cmd_complete, NULL};

static int run_root(struct cli *c, struct err *e)
{
	(void)e;
	if (cli_bool(c, "version")) {
		puts("shoal " SHOAL_VERSION);
		return 0;
	}
	cli_help(c->cmd, c->path);
	return 0;
}

const struct cli_cmd cli_root = {
    .name = "shoal",
    .brief = "Runs services of containers on a cluster of machines.",
    .examples = "shoal swarm init                                             # this machine becomes a "
		"cluster of one\n"
		"shoal service create --name web --replicas 3 -p 80:8000 whoami:latest\n"
		"shoal service ps web                                         # where its tasks run, and how "
		"they are\n"
		"shoal service logs -f web\n"
		"shoal service scale web=10\n"
		"shoal ps                                                     # the containers of this node",
    .flags = global_flags,
    .subs = commands,
    .run = run_root,
};

int cli_main(int argc, char **argv)
{
	struct cli c = {.out_tty = isatty(STDOUT_FILENO), .err_tty = isatty(STDERR_FILENO)};
	struct err e = ERR_INIT;
	bool help = false;
	/* A reader that goes away (| head) ends us like any filter; a daemon that does is an error of send().
	 */
	int r = cli_parse(&c, &cli_root, argc, argv, &help);
	if (r == 0 && help)
		cli_help(c.cmd, c.path);
	else if (r == 0 && c.cmd->run)
		r = c.cmd->run(&c, &e);
	else if (r == 0)
		cli_help(c.cmd, c.path);
	if (r < 0) {
		cli_warn("%s%s",
		    str_has_prefix(e.text, "Error") ? "" : "Error: ", str_or(e.text, "unknown error"));
		r = 1;
	}
	api_close(&c);
	cli_done(&c);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		perror("shoal: cannot write the output");
		return r ? r : 1;
	}
	return r;
}
