/* shoald: the daemon of a node. Flags are read, the node started, signals waited for; everything else is
 * node/. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "base/log.h"
#include "base/mem.h"
#include "node/config.h"
#include "node/node.h"

struct daemon {
	uv_signal_t term, intr;
	struct node *node;
};

static void on_closed(void *data)
{
	struct daemon *d = data;
	uv_close((uv_handle_t *)&d->term, NULL);
	uv_close((uv_handle_t *)&d->intr, NULL);
}

static void on_signal(uv_signal_t *h, int signum)
{
	struct daemon *d = h->data;
	if (!d->node)
		return; /* closing already */
	log_info("signal %d: shutting down; containers stay", signum);
	node_close(TAKE_PTR(d->node), on_closed, d);
}

int main(int argc, char **argv)
{
	struct config cfg;
	struct err e = ERR_INIT;
	int rc = config_parse(argc, argv, &cfg, &e);
	if (rc == CONFIG_HELP) {
		fputs(config_usage(), stdout);
		return 0;
	}
	if (rc == CONFIG_VERSION) {
		puts("shoald version " SHOAL_VERSION);
		return 0;
	}
	if (rc != 0) {
		fprintf(stderr, "shoald: %s\n", e.text);
		return 2;
	}
	log_set_level(cfg.log_level);
	signal(SIGPIPE, SIG_IGN);

	/* Snapshots, unpacking of images and some of Raft's writes block threads of the pool: one must not
	 * wait for the other. */
	setenv("UV_THREADPOOL_SIZE", "16", 0);
	mallopt(M_ARENA_MAX, 2); /* that pool would otherwise spread a small heap over 16 */
	uv_loop_t loop;
	struct daemon d = {.node = NULL};
	uv_loop_init(&loop);
	rc = node_start(&loop, &cfg, &d.node, &e);
	if (rc != 0) {
		fprintf(stderr, "shoald: %s\n", e.text);
	} else {
		uv_signal_init(&loop, &d.term);
		uv_signal_init(&loop, &d.intr);
		d.term.data = d.intr.data = &d;
		uv_signal_start(&d.term, on_signal, SIGTERM);
		uv_signal_start(&d.intr, on_signal, SIGINT);
		log_info("shoald " SHOAL_VERSION " is ready");
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&loop) != 0)
		log_debug("the loop closed with handles left");
	config_done(&cfg);
	return rc == 0 ? 0 : 1;
}
