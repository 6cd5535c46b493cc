/* See node.h. Opens from the bottom up (lock, images, network, containers, swarm, API) and closes from the
 * top down. Nothing of it stops a container: conmon and what it watches do not belong to this process. */
#include "node/node_private.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/spawn.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/api/local.h"

#define HTTP_GRACE_MS 500
#define LOCK_WAIT_MS  2000

struct running {
	struct node node;
	struct api_local local;
};

static int take_lock(struct node *n, struct err *e)
{
	CLEANUP_FREE char *path = fs_path(n->cfg->data_root, "shoald.lock");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "opening %s", path);
	char pid[32] = "?";
	for (unsigned ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; ms += 5) {
		ssize_t got = pread(fd, pid, sizeof(pid) - 1, 0);
		pid[got > 0 ? got : 0] = 0;
		pid[strcspn(pid, "\n")] = 0;
		/* A daemon that was just killed may have left a child that still holds its descriptors, until
		 * it runs its program. */
		if (spawn_start_time((pid_t)strtol(pid, NULL, 10)) == 0 && ms < LOCK_WAIT_MS) {
			nanosleep(&(struct timespec){0, 5 * 1000000}, NULL);
			continue;
		}
		close(fd);
		return err_set(e, ERR_CONFLICT,
		    "another shoald (pid %s) runs on %s: stop it, or give this one a --data-root of its own",
		    pid, n->cfg->data_root);
	}
	if (ftruncate(fd, 0) != 0 || dprintf(fd, "%d\n", (int)getpid()) < 0)
		log_warn("%s could not be written", path);
	n->lock_fd = fd;
	return 0;
}

/* A short name for this daemon's links and tables: follows from the data root, so it is the same after a
 * restart. */
static void make_tag(const char *data_root, char out[8])
{
	uint8_t md[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	EVP_Digest(data_root, strlen(data_root), md, &n, EVP_sha256(), NULL);
	str_hex(md, 2, out);
}

/* --- events */

static void publish_container(
    void *data, const char *action, const Pb__Container *c, const char *const *attrs)
{
	struct node *n = data;
	json_t *a = json_object();
	for (size_t i = 0; i < c->config->n_labels; i++)
		json_object_set_new(a, c->config->labels[i]->key, json_string(c->config->labels[i]->value));
	json_object_set_new(a, "image", json_string(c->config->image));
	json_object_set_new(a, "name", json_string(c->config->name));
	for (size_t i = 0; attrs && attrs[i] && attrs[i + 1]; i += 2)
		json_object_set_new(a, attrs[i], json_string(attrs[i + 1]));
	events_publish(n->events, "container", action, c->id, a, "local", clock_unix_ns(n->clock));
}

static void publish_image(void *data, const char *action, const char *id, const char *name)
{
	struct node *n = data;
	json_t *a = json_object();
	json_object_set_new(a, "name", json_string(str_or(name, id)));
	events_publish(n->events, "image", action, str_or(name, id), a, "local", clock_unix_ns(n->clock));
}

static void container_changed(void *data, const Pb__Container *c)
{
	struct node *n = data;
	if (n->swarm.agent)
		agent_container_changed(n->swarm.agent, c);
}

struct use {
	const char *image_id, *by;
	bool running;
};

static void check_use(void *data, const Pb__Container *c)
{
	struct use *u = data;
	if (!str_eq(c->config->image_id, u->image_id))
		return;
	bool running = c->status == PB__CONTAINER_STATUS_KIND__E__RUNNING ||
		       c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED;
	if (!u->by || running)
		u->by = c->id;
	u->running |= running;
}

static const char *image_in_use(void *data, const char *image_id, bool *ret_running)
{
	struct node *n = data;
	struct use u = {.image_id = image_id};
	if (n->engine)
		engine_each(n->engine, check_use, &u);
	*ret_running = u.running;
	return u.by;
}

/* --- start */

static int open_engine(struct node *n, struct err *e)
{
	const struct config *c = n->cfg;
	CLEANUP_FREE char *net_state = fs_path(c->data_root, "net");
	CLEANUP_FREE char *net_run = fs_path(c->exec_root, "net");
	CLEANUP_FREE char *netns = fs_path(c->exec_root, "netns");
	char tag[8];
	make_tag(c->data_root, tag);
	const struct images_opts io = {
	    .data_root = c->data_root,
	    .insecure_registries = &c->insecure_registries,
	    .registry_mirrors = &c->registry_mirrors,
	    .in_use = image_in_use,
	    .event = publish_image,
	    .data = n,
	};
	int rc = images_open(n->loop, &io, &n->images, e);
	if (rc != 0)
		return err_wrap(e, "images");
	const struct hostnet_opts no = {
	    .tag = tag, .state_dir = net_state, .run_dir = net_run, .netns_dir = netns};
	rc = hostnet_open(n->loop, &no, &n->net, e);
	if (rc != 0)
		return err_wrap(e, "network");
	const struct engine_opts eo = {
	    .data_root = c->data_root,
	    .exec_root = c->exec_root,
	    .runtime = c->runtime,
	    .images = n->images,
	    .net = n->net,
	    .event = publish_container,
	    .changed = container_changed,
	    .data = n,
	};
	rc = engine_open(n->loop, &eo, &n->engine, e);
	return rc == 0 ? 0 : err_wrap(e, "containers");
}

/* The id of group "shoal", or -1. From the file: getgrnam would load the name service's libraries, which a
 * small daemon notices. */
static gid_t socket_group(void)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	if (fs_read("/etc/group", 1024 * 1024, &b, NULL) != 0 || !b.data)
		return (gid_t)-1;
	strlist_split(&lines, b.data, '\n');
	for (size_t i = 0; i < lines.n; i++) {
		CLEANUP_STRLIST struct strlist f = STRLIST_INIT;
		uint64_t gid;
		strlist_split(&f, lines.v[i], ':');
		if (f.n >= 3 && strcmp(f.v[0], "shoal") == 0 && str_parse_u64(f.v[2], &gid, NULL) == 0)
			return (gid_t)gid;
	}
	return (gid_t)-1;
}

static int serve(struct running *r, struct err *e)
{
	struct node *n = &r->node;
	struct api_deps deps = {
	    .loop = n->loop,
	    .clock = n->clock,
	    .rng = n->rng,
	    .events = n->events,
	    .data_root = n->cfg->data_root,
	};
	swarm_fill_api(&n->swarm, &deps.manager);
	engine_info_fill_api(n, &deps.engine);
	n->api = api_new(&deps);
	r->local = (struct api_local){
	    .api = n->api,
	    .engine = n->engine,
	    .images = n->images,
	    .net = n->net,
	    .loop = n->loop,
	    .insecure_registries = &n->cfg->insecure_registries,
	};
	api_containers_register(&r->local);
	api_exec_register(&r->local);
	api_images_register(&r->local);
	api_df_register(&r->local);
	struct http_server_opts ho = api_http_opts(n->api);
	n->http = http_server_new(n->loop, &ho);
	gid_t group = socket_group();
	for (size_t i = 0; i < n->cfg->hosts.n; i++) {
		const char *path = n->cfg->hosts.v[i] + strlen("unix://");
		int rc = http_server_listen_unix(n->http, path, 0660, e);
		if (rc != 0)
			return rc;
		if (group != (gid_t)-1 && chown(path, 0, group) != 0)
			log_warn("%s could not be given to group shoal: %s", path, strerror(errno));
		log_info("the Engine API is served on %s", path);
	}
	return 0;
}

static int write_pidfile(const struct config *c, struct err *e)
{
	if (!c->pidfile)
		return 0;
	char text[32];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	return fs_write_atomic(c->pidfile, text, (size_t)n, 0644, e);
}

static void closed_after_failure(void *data)
{
	(void)data;
}

int node_start(uv_loop_t *loop, const struct config *cfg, struct node **ret, struct err *e)
{
	struct running *r = NEW(struct running);
	struct node *n = &r->node;
	n->loop = loop;
	n->cfg = cfg;
	n->clock = clock_system();
	n->rng = rng_system();
	n->lock_fd = -1;
	n->events = events_new();
	swarm_setup(&n->swarm, n);
	int rc = fs_mkdir_p(cfg->data_root, 0711, e);
	if (rc == 0)
		rc = fs_mkdir_p(cfg->exec_root, 0711, e);
	if (rc == 0)
		rc = take_lock(n, e);
	if (rc == 0)
		rc = open_engine(n, e);
	if (rc == 0)
		rc = serve(r, e);
	if (rc == 0)
		rc = write_pidfile(cfg, e);
	if (rc != 0) {
		node_close(n, closed_after_failure, NULL);
		return rc;
	}
	swarm_resume(&n->swarm);
	*ret = n;
	return 0;
}

/* --- end */

static void images_closed(void *data)
{
	struct node *n = data;
	void (*closed)(void *) = n->closed;
	void *closed_data = n->closed_data;
	if (n->net)
		hostnet_close(n->net);
	api_free(n->api);
	events_free(n->events);
	swarm_done(&n->swarm);
	if (n->cfg->pidfile)
		unlink(n->cfg->pidfile);
	if (n->lock_fd >= 0)
		close(n->lock_fd);
	free(CONTAINER_OF(n, struct running, node));
	closed(closed_data);
}

static void engine_closed(void *data)
{
	struct node *n = data;
	n->engine = NULL;
	if (n->images)
		images_close(n->images, images_closed, n);
	else
		images_closed(n);
}

static void swarm_closed(void *data)
{
	struct node *n = data;
	if (n->engine)
		engine_close(n->engine, engine_closed, n);
	else
		engine_closed(n);
}

static void http_closed(void *data)
{
	struct node *n = data;
	n->http = NULL;
	swarm_close(&n->swarm, swarm_closed, n);
}

void node_close(struct node *n, void (*closed)(void *data), void *data)
{
	ASSERT(!n->closing);
	n->closing = true;
	n->closed = closed;
	n->closed_data = data;
	if (n->http)
		http_server_close(n->http, HTTP_GRACE_MS, http_closed, n);
	else
		loop_defer(n->loop, http_closed, n);
}
