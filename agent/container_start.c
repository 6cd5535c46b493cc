/* Starting a container.
 *
 *   worker   network attached, bundle written (config.json, hosts, hostname, resolv.conf), conmon spawned in
 * a mount namespace of its own, where the overlay is mounted: the mount ends with conmon and the container,
 * by itself loop conmon's pid stored; its report awaited, with a deadline loop     the container's pid and
 * start time stored as RUNNING, then it is let run
 *
 * At most max_starting are under way; the others wait in order. Whatever fails ends in one place: conmon is
 * killed (the runtime dies with it), the worker removes control groups, runtime state and bundle, the network
 * is detached, the error goes into the record and to the caller. A crash in between leaves a bundle directory
 * without a running record: engine_restore cleans it up. */
#include "agent/engine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define REPORT_MS    60000
#define WENT_MS      10000
#define REPORT_MAX   (64u * 1024)
#define KILL_WAIT_MS 5000
#define OVERLAY_MAX  4000 /* mount(2) takes a page of options */

struct start_job {
	struct engine *g;
	struct ctr *c;
	struct start_job *next;
	engine_cb cb;
	void *data;
	struct err err;
	Pb__ContainerStatusKind__E status_before;
	/* For the worker; it reads the record's config, which does not change. */
	struct image *image;
	char *resolv;
	int64_t log_size;
	/* From the worker. */
	Pb__ContainerNetworkState *network; /* the record's, once the worker is done */
	struct conmon_proc proc;
	bool spawned;
	/* Waiting for the report. */
	struct fd_watch *sync;
	struct timer *deadline;
	struct buf report;
	/* Waiting for the fifo. */
	struct fd_watch *fifo;
};

static void start_failed(struct start_job *j);
static void start_succeeded(struct start_job *j);

static void job_free(struct start_job *j)
{
	image_unref(j->image);
	free(j->resolv);
	pb_free(j->network);
	fd_watch_free(j->sync);
	fd_watch_free(j->fifo);
	timer_free(j->deadline);
	buf_done(&j->report);
	if (j->spawned)
		conmon_proc_done(&j->proc);
	free(j);
}

/* --- network (worker)
 * -----------------------------------------------------------------------------------------------------------
 */

static Pb__ContainerNetworkState *network_state(
    const struct hostnet_endpoint *ep, const struct hostnet_port *ports, size_t n)
{
	Pb__ContainerNetworkState *s = PB_NEW(Pb__ContainerNetworkState, pb__container_network_state);
	pb_set_str(&s->netns, ep->netns_path);
	pb_set_str(&s->address, ep->address);
	pb_set_str(&s->gateway, ep->gateway);
	pb_set_str(&s->mac, ep->mac);
	for (size_t i = 0; i < n; i++) {
		Pb__ContainerPort *p = PB_NEW(Pb__ContainerPort, pb__container_port);
		p->container_port = ports[i].container_port;
		p->has_host_port = true;
		p->host_port = ports[i].host_port;
		p->protocol = ports[i].udp ? PB__PORT_PROTOCOL__E__UDP : PB__PORT_PROTOCOL__E__TCP;
		pb_set_str(&p->host_ip, ports[i].host_ip);
		pb_add_msg(&s->ports, &s->n_ports, p);
	}
	return s;
}

static const char *netns_of(const struct start_job *j)
{
	return j->network ? j->network->netns : NULL;
}

static int attach_network(struct start_job *j, struct err *e)
{
	const Pb__ContainerConfig *c = j->c->rec->config;
	struct hostnet_endpoint ep = {0};
	if (!str_eq(str_or(c->network_mode, "bridge"), "bridge"))
		return 0;
	if (!j->g->o.net)
		return err_set(
		    e, ERR_UNAVAILABLE, "this engine has no network: use network mode none or host");
	struct hostnet_port *ports = c->n_ports ? xcalloc(c->n_ports, sizeof(*ports)) : NULL;
	for (size_t i = 0; i < c->n_ports; i++) {
		ports[i].container_port = (uint16_t)c->ports[i]->container_port;
		ports[i].host_port = (uint16_t)c->ports[i]->host_port;
		ports[i].udp = c->ports[i]->protocol == PB__PORT_PROTOCOL__E__UDP;
		ports[i].host_ip = str_empty(c->ports[i]->host_ip) ? NULL : c->ports[i]->host_ip;
	}
	int r = hostnet_attach(j->g->o.net, j->c->rec->id, ports, c->n_ports, &ep, e);
	if (r == 0)
		j->network = network_state(&ep, ports, c->n_ports);
	free(ports);
	return r;
}

/* --- the bundle (worker) */

static int write_file(const char *dir, const char *name, mode_t mode, const char *text, struct err *e)
{
	CLEANUP_FREE char *path = fs_path(dir, name);
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	size_t n = strlen(text);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n)
		return err_errno(e, errno, "writing %s", path);
	fchmod(fd, mode); /* whatever the umask */
	return 0;
}

static char *hosts_text(const Pb__ContainerConfig *c, const char *hostname, const char *address)
{
	struct buf b = BUF_INIT;
	buf_puts(&b, "127.0.0.1\tlocalhost\n"
		     "::1\tlocalhost ip6-localhost ip6-loopback\n"
		     "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-"
		     "allrouters\n");
	for (size_t i = 0; i < c->n_hosts; i++) {
		const char *space = strchr(c->hosts[i], ' ');
		buf_printf(&b, "%.*s\t%s\n", (int)(space - c->hosts[i]), c->hosts[i], space + 1);
	}
	if (!str_empty(address))
		buf_printf(&b, "%.*s\t%s\n", (int)strcspn(address, "/"), address, hostname);
	return buf_take(&b, NULL);
}

static int write_etc(const struct start_job *j, const char *bundle, struct err *e)
{
	const Pb__ContainerConfig *c = j->c->rec->config;
	CLEANUP_FREE char *hostname = oci_hostname(c, j->c->rec->id);
	CLEANUP_FREE char *hosts = hosts_text(c, hostname, j->network ? j->network->address : NULL);
	CLEANUP_FREE char *line = xasprintf("%s\n", hostname);
	int r = write_file(bundle, "hosts", 0644, hosts, e);
	if (r == 0)
		r = write_file(bundle, "hostname", 0644, line, e);
	if (r == 0)
		r = write_file(bundle, "resolv.conf", 0644, str_or(j->resolv, ""), e);
	return r;
}

static int resolve_user(const struct start_job *j, const char *dir, struct oci_user *u, struct err *e)
{
	const Pb__ContainerConfig *c = j->c->rec->config;
	CLEANUP_STRLIST struct strlist dirs = STRLIST_INIT;
	strlist_take(&dirs, fs_path(dir, "upper"));
	for (size_t i = j->image->layers.n; i-- > 0;)
		strlist_add(&dirs, j->image->layers.v[i]);
	CLEANUP_FREE char *passwd = oci_read_image_file(dirs.v, dirs.n, "/etc/passwd");
	CLEANUP_FREE char *group = oci_read_image_file(dirs.v, dirs.n, "/etc/group");
	return oci_user_resolve(c->user, c->groups, c->n_groups, passwd, group, u, e);
}

static int write_config(const struct start_job *j, const char *dir, const char *bundle, const char *rootfs,
    const char *netns, struct err *e)
{
	const struct engine *g = j->g;
	const Pb__Container *rec = j->c->rec;
	struct oci_user u = {0};
	json_t *spec = NULL;
	CLEANUP_FREE char *cgroup = cgroup_oci_path(g->cgroups, rec->id), *hosts = fs_path(bundle, "hosts"),
			  *hostname = fs_path(bundle, "hostname"), *resolv = fs_path(bundle, "resolv.conf");
	struct oci_host h = {.id = rec->id,
	    .rootfs = rootfs,
	    .cgroups_path = cgroup,
	    .netns = netns,
	    .hosts = hosts,
	    .hostname = hostname,
	    .resolv_conf = resolv,
	    .init = g->init_path,
	    .cgroup2 = cgroups_mode(g->cgroups) == CGROUP_V2,
	    .swap_limit = cgroups_swap_limit(g->cgroups),
	    .default_bpf = g->runtime.seccomp_bpf};
	int r = oci_mounts_check(rec->config, e); /* sources may have gone since */
	if (r == 0)
		r = resolve_user(j, dir, &u, e);
	if (r == 0)
		r = oci_spec_build(rec->config, &u, &h, &spec, e);
	oci_user_done(&u);
	if (r < 0)
		return r;
	CLEANUP_FREE char *text = oci_spec_text(spec);
	json_decref(spec);
	return write_file(bundle, "config.json", 0600, text, e);
}

/* lowerdir=top:...:bottom. Over a page of options does not pass: then links with short names stand for the
 * layers, and the mount is made from the directory that has them. */
static int overlay_options(
    const struct start_job *j, const char *dir, const char *bundle, struct buf *ret, struct err *e)
{
	const struct strlist *l = &j->image->layers;
	CLEANUP_BUF struct buf lower = BUF_INIT;
	if (l->n == 0)
		return err_set(e, ERR_INVALID, "image %s has no layers", j->image->id);
	for (size_t i = l->n; i-- > 0;)
		buf_printf(&lower, "%s%s", lower.len ? ":" : "", l->v[i]);
	if (lower.len + 2 * strlen(dir) + 64 > OVERLAY_MAX) {
		CLEANUP_FREE char *links = fs_path(bundle, "l");
		buf_reset(&lower);
		int r = fs_mkdir_p(links, 0700, e);
		for (size_t i = l->n; r == 0 && i-- > 0;) {
			CLEANUP_FREE char *link_path = xasprintf("%s/%zu", links, i);
			if (symlink(l->v[i], link_path) < 0 && errno != EEXIST)
				r = err_errno(e, errno, "%s", link_path);
			buf_printf(&lower, "%s%s/l/%zu", lower.len ? ":" : "", bundle, i);
		}
		if (r < 0)
			return r;
		if (lower.len + 2 * strlen(dir) + 64 > OVERLAY_MAX)
			return err_set(
			    e, ERR_TOO_LARGE, "the image has %zu layers, more than can be mounted", l->n);
	}
	buf_printf(ret, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower.data, dir, dir);
	if (j->c->rec->task_id && j->g->overlay_volatile) {
		/* The kernel syncs the whole file system that the upper layer is on when the mount ends, and
		 * the monitor's end waits for that. A task's container never outlives the machine (a new task
		 * takes its place), so what is unwritten at a power cut is lost with it in any case. The mark
		 * of an earlier mount would refuse this one. */
		CLEANUP_FREE char *mark = xasprintf("%s/%s/%s/incompat", dir, "work", "work");
		fs_remove_tree(mark, NULL);
		buf_puts(ret, ",volatile");
	}
	return 0;
}

/* The directory that network namespaces are bound in, when it is the engine's. Heap, or NULL. */
static char *netns_dir_of(const struct start_job *j)
{
	const char *netns = netns_of(j);
	size_t n = strlen(j->g->exec_root);
	if (!netns || strncmp(netns, j->g->exec_root, n) != 0 || netns[n] != '/')
		return NULL;
	const char *slash = strrchr(netns, '/');
	return (size_t)(slash - netns) > n ? xstrndup(netns, (size_t)(slash - netns)) : NULL;
}

static void start_work(void *data)
{
	struct start_job *j = data;
	struct engine *g = j->g;
	const Pb__Container *rec = j->c->rec;
	CLEANUP_FREE char *dir = ctr_dir(g, rec->id), *bundle = ctr_bundle(g, rec->id),
			  *rootfs = fs_path(bundle, "rootfs"), *log = log_path_of(g, rec->id),
			  *exit_file = fs_path(g->exits_dir, rec->id), *netns_dir = NULL,
			  *netns = fs_path(bundle, "netns");
	CLEANUP_BUF struct buf overlay = BUF_INIT;
	struct spawn_mount mounts[8];
	size_t n = runtime_mounts(&g->runtime, mounts);
	struct err *e = &j->err;
	unlink(exit_file);
	int r = fs_mkdir_p(rootfs, 0755, e);
	if (r == 0)
		r = attach_network(j, e);
	netns_dir = netns_dir_of(j);
	if (r == 0)
		r = write_etc(j, bundle, e);
	if (r == 0 && netns_dir)
		r = write_file(bundle, "netns", 0600, "", e);
	if (r == 0)
		r = write_config(j, dir, bundle, rootfs, netns_dir ? netns : netns_of(j), e);
	if (r == 0)
		r = overlay_options(j, dir, bundle, &overlay, e);
	if (r < 0)
		return;
	mounts[n++] = (struct spawn_mount){"overlay", rootfs, "overlay", overlay.data, 0, false};
	if (netns_dir) {
		/* Its own network namespace is bound where the runtime looks; the copies of all others'
		 * binds, which would keep those namespaces alive as long as this monitor, go. They are one
		 * mount below the engine's directory, whose mount is a slave here: the host keeps them. */
		mounts[n++] = (struct spawn_mount){netns_of(j), netns, NULL, NULL, MS_BIND, false};
		mounts[n++] = (struct spawn_mount){NULL, netns_dir, NULL, NULL, 0, true};
	}
	struct conmon_opts co = {.path = g->conmon_path,
	    .runtime = &g->runtime,
	    .id = rec->id,
	    .name = rec->config->name,
	    .bundle = bundle,
	    .exit_dir = g->exits_dir,
	    .log_path = str_eq(rec->config->log_driver, "none") ? NULL : log,
	    .log_size_max = j->log_size,
	    .tty = rec->config->tty,
	    .open_stdin = rec->config->open_stdin,
	    .join_mountns = -1,
	    .mounts = mounts,
	    .n_mounts = n};
	if (conmon_start(&co, &j->proc, e) == 0)
		j->spawned = true;
}

/* --- letting it run */

static void stop_waiting(struct start_job *j)
{
	fd_watch_free(TAKE_PTR(j->sync));
	timer_stop(j->deadline);
}

static void fail(struct start_job *j, int code, const char *text)
{
	err_set(&j->err, code, "%s", text);
	start_failed(j);
}

static void on_went(void *data)
{
	struct start_job *j = data;
	int fd = dup(fd_watch_fd(j->fifo));
	fd_watch_free(TAKE_PTR(j->fifo));
	timer_stop(j->deadline);
	if (fd < 0 || runtime_went(&j->g->runtime, j->c->rec->id, fd, &j->err) < 0) {
		if (fd < 0)
			err_errno(&j->err, errno, "letting the container run");
		start_failed(j);
		return;
	}
	start_succeeded(j);
}

static void call_work(void *data)
{
	struct start_job *j = data;
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)j->proc.pid);
	CLEANUP_CLOSE int ns = open(path, O_RDONLY | O_CLOEXEC);
	runtime_start(&j->g->runtime, j->c->rec->id, ns, &j->err);
}

static void call_done(void *data)
{
	struct start_job *j = data;
	if (j->err.code)
		start_failed(j);
	else
		start_succeeded(j);
}

static void let_run(struct start_job *j)
{
	enum runtime_go go;
	int fd = -1;
	if (runtime_go(&j->g->runtime, j->c->rec->id, &go, &fd, &j->err) < 0) {
		start_failed(j);
	} else if (go == RUNTIME_GO_DONE) {
		start_succeeded(j);
	} else if (go == RUNTIME_GO_WAIT) {
		j->fifo = fd_watch_new(j->g->loop, fd, on_went, j);
		timer_start(j->deadline, WENT_MS);
	} else {
		loop_work(j->g->loop, call_work, call_done, j);
	}
}

/* --- the report */

/* crun does not name what it cannot execute (a directory, a file without the right). */
static char *name_executable(const Pb__ContainerConfig *c, char *words)
{
	static const char crun[] = "open executable: ";
	if (!str_has_prefix(words, crun))
		return words;
	const char *arg0 = c->n_entrypoint ? c->entrypoint[0] : c->n_cmd ? c->cmd[0] : "";
	char *named = xasprintf("exec: \"%s\": %s", arg0, words + strlen(crun));
	free(words);
	return named;
}

static void take_report(struct start_job *j, const struct conmon_report *rep)
{
	Pb__Container *rec = j->c->rec;
	if (rep->data <= 0) {
		CLEANUP_FREE char *words =
		    name_executable(rec->config, runtime_error_words(str_or(rep->message, "")));
		fail(j, ERR_INVALID, *words ? words : "the runtime failed without a word");
		return;
	}
	rec->has_pid = rec->has_pid_start_time = rec->has_started_at = true;
	rec->pid = rep->data;
	rec->pid_start_time = spawn_start_time((pid_t)rep->data);
	rec->started_at = clock_unix_ns(j->g->clock);
	rec->status = ST_RUNNING;
	rec->has_started_once = rec->started_once = true;
	pb_set_str(&rec->runtime, j->g->runtime.path);
	rec->has_runtime_hides_unified = true;
	rec->runtime_hides_unified = j->g->runtime.hide_unified;
	rec->has_exit_code = rec->has_exit_unknown = rec->has_oom_killed = rec->has_stop_requested = false;
	rec->exit_unknown = rec->oom_killed = rec->stop_requested = false;
	rec->exit_code = 0;
	rec->has_finished_at = false;
	pb_set_str(&rec->error, NULL);
	pb_set_str(&rec->health, NULL);
	/* Stored before it runs: from here on a daemon that comes back finds it. */
	ctr_store(j->c);
	let_run(j);
}

static void on_report(void *data)
{
	struct start_job *j = data;
	char chunk[4096];
	ssize_t n = read(fd_watch_fd(j->sync), chunk, sizeof(chunk));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		buf_append(&j->report, chunk, (size_t)n);
	const char *nl = j->report.data ? memchr(j->report.data, '\n', j->report.len) : NULL;
	if (!nl && n > 0 && j->report.len < REPORT_MAX)
		return;
	stop_waiting(j);
	if (!nl) {
		CLEANUP_FREE char *text = conmon_stderr(&j->proc);
		CLEANUP_FREE char *said =
		    xasprintf("conmon ended without a report%s%s", *text ? ": " : "", text);
		fail(j, ERR_INTERNAL, said);
		return;
	}
	struct conmon_report rep = {0};
	if (conmon_parse(j->report.data, (size_t)(nl - j->report.data), &rep, &j->err) < 0)
		start_failed(j);
	else
		take_report(j, &rep);
	free(rep.message);
}

static void on_deadline(void *data)
{
	struct start_job *j = data;
	bool reported = j->sync == NULL;
	stop_waiting(j);
	fd_watch_free(TAKE_PTR(j->fifo));
	fail(j, ERR_TIMEOUT,
	    reported ? "the container did not run within 10 s of its creation"
		     : "the runtime did not answer within 60 s");
}

static void start_worked(void *data)
{
	struct start_job *j = data;
	Pb__Container *rec = j->c->rec;
	if (!j->spawned) {
		start_failed(j);
		return;
	}
	pb_free(rec->network);
	rec->network = TAKE_PTR(j->network);
	rec->has_conmon_pid = rec->has_conmon_start_time = true;
	rec->conmon_pid = j->proc.pid;
	rec->conmon_start_time = spawn_start_time(j->proc.pid);
	ctr_store(j->c);
	int fd = j->proc.sync_fd;
	j->proc.sync_fd = -1;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	j->deadline = timer_new(j->g->loop, on_deadline, j);
	timer_start(j->deadline, REPORT_MS);
	j->sync = fd_watch_new(j->g->loop, fd, on_report, j);
}

/* --- network */

static void read_resolv(struct start_job *j)
{
	const Pb__DNSConfig *d = j->c->rec->config->dns_config;
	struct strlist none = STRLIST_INIT, servers = none, search = none, options = none;
	if (d) {
		servers = (struct strlist){d->nameservers, d->n_nameservers};
		search = (struct strlist){d->search, d->n_search};
		options = (struct strlist){d->options, d->n_options};
	}
	if (j->g->o.net && !str_eq(j->c->rec->config->network_mode, "host")) {
		j->resolv = hostnet_resolv_conf(j->g->o.net, &servers, &search, &options);
		return;
	}
	struct buf b = BUF_INIT;
	fs_read("/etc/resolv.conf", 64u * 1024, &b, NULL);
	j->resolv = buf_take(&b, NULL);
}

/* --- the end of a start */

static void finish(struct start_job *j, const struct err *e)
{
	struct engine *g = j->g;
	struct ctr *c = j->c;
	engine_cb cb = j->cb;
	void *data = j->data;
	struct err copy = *e;
	c->start = NULL;
	c->starting = false;
	g->n_starting--;
	job_free(j);
	if (cb)
		cb(data, &copy);
	engine_pump(g);
}

static void start_succeeded(struct start_job *j)
{
	struct engine *g = j->g;
	struct ctr *c = j->c;
	struct err none = ERR_INIT;
	int pidfd = j->proc.pidfd;
	j->proc.pidfd = -1;
	log_rotator_start(c);
	ctr_event(c, "start", NULL);
	health_start(c, false);
	if (g->o.changed)
		g->o.changed(g->o.data, c->rec);
	c->starting = false;
	ctr_watch(c, pidfd);
	finish(j, &none);
	ctr_stop_continue(c);
	ctr_maybe_remove(c);
	engine_pending_done(g);
}

/* conmon writes to a file with a suffix and renames it: killed in between, it leaves that. */
static void remove_exit_files(const struct engine *g, const char *id)
{
	DIR *d = opendir(g->exits_dir);
	const struct dirent *ent;
	while (d && (ent = readdir(d)))
		if (str_has_prefix(ent->d_name, id))
			unlinkat(dirfd(d), ent->d_name, 0);
	if (d)
		closedir(d);
}

int ctr_cleanup_blocking(struct engine *g, const char *id, struct err *e)
{
	CLEANUP_FREE char *bundle = ctr_bundle(g, id);
	runtime_delete(&g->runtime, id);
	int r = cgroup_remove(g->cgroups, id, e);
	if (g->o.net)
		hostnet_detach(g->o.net, id);
	int b = fs_remove_tree(bundle, r < 0 ? NULL : e);
	remove_exit_files(g, id);
	return r < 0 ? r : b;
}

static void fail_work(void *data)
{
	struct start_job *j = data;
	if (j->spawned && j->proc.pidfd >= 0) {
		struct pollfd p = {.fd = j->proc.pidfd, .events = POLLIN};
		int code;
		/* A runtime that failed has told conmon, which ends by itself within moments. */
		if (poll(&p, 1, 200) <= 0)
			spawn_signal(j->proc.pidfd, SIGKILL);
		poll(&p, 1, KILL_WAIT_MS);
		spawn_reap(j->proc.pidfd, &code);
	}
	struct err e = ERR_INIT;
	if (ctr_cleanup_blocking(j->g, j->c->rec->id, &e) < 0)
		log_warn("after a failed start something is left behind id=%.12s error=\"%s\"", j->c->rec->id,
		    e.text);
}

static void fail_done(void *data)
{
	struct start_job *j = data;
	struct engine *g = j->g;
	struct ctr *c = j->c;
	Pb__Container *rec = c->rec;
	pb_free(rec->network);
	rec->network = NULL;
	rec->status = j->status_before;
	rec->has_pid = rec->has_pid_start_time = rec->has_conmon_pid = rec->has_conmon_start_time = false;
	rec->pid = rec->conmon_pid = 0;
	rec->has_exit_code = true;
	rec->exit_code = strstr(j->err.text, "not found in $PATH") || strstr(j->err.text, "o such file") ? 127
			 : strstr(j->err.text, "ermission denied")                                       ? 126
								   : 128;
	err_wrap(&j->err, "starting container failed");
	pb_set_str(&rec->error, j->err.text);
	struct err e = j->err;
	ctr_changed(c);
	finish(j, &e);
	ctr_stop_continue(c);
	ctr_maybe_remove(c);
	engine_pending_done(g);
}

static void start_failed(struct start_job *j)
{
	loop_work(j->g->loop, fail_work, fail_done, j);
}

/* --- queue */

static void begin(struct start_job *j)
{
	struct engine *g = j->g;
	struct err *e = &j->err;
	g->n_starting++;
	j->status_before = j->c->rec->status;
	int r = g->closing ? err_set(e, ERR_UNAVAILABLE, "the engine is closing") : 0;
	unsigned files;
	if (r == 0 && j->c->removing)
		r = err_set(e, ERR_CANCELLED, "the container is being removed");
	if (r == 0)
		r = log_options_parse(j->c->rec->config, &j->log_size, &files, e);
	if (r == 0)
		r = images_find(g->o.images, j->c->rec->config->image_id, &j->image, e);
	if (r < 0) {
		start_failed(j);
		return;
	}
	read_resolv(j);
	loop_work(g->loop, start_work, start_worked, j);
}

void engine_pump(struct engine *g)
{
	struct start_job **at = &g->queue;
	while (*at && (g->n_starting < g->max_starting || g->closing)) {
		struct start_job *j = *at;
		if (j->c->cleaning) { /* what is left of its last run goes first */
			at = &j->next;
			continue;
		}
		*at = j->next;
		if (!*at)
			g->queue_tail = at;
		j->next = NULL;
		begin(j);
	}
}

int engine_start(struct engine *g, const char *id, engine_cb cb, void *data, struct err *e)
{
	struct err local = ERR_INIT;
	struct ctr *c = engine_ctr(g, id, &local);
	if (!c)
		return err_copy(e, &local);
	if (g->closing)
		return err_set(e, ERR_UNAVAILABLE, "the engine is closing");
	if (c->removing)
		return err_set(
		    e, ERR_CONFLICT, "container %s is marked for removal and cannot be started", id);
	if (c->starting)
		return err_set(e, ERR_CONFLICT, "container %s is being started already", id);
	if (ctr_is_running(c))
		return err_set(e, ERR_CONFLICT, "container %s is running already", id);
	struct start_job *j = NEW(struct start_job);
	j->g = g;
	j->c = c;
	j->cb = cb;
	j->data = data;
	j->proc = (struct conmon_proc){
	    .pidfd = -1, .sync_fd = -1, .attach_fd = -1, .start_fd = -1, .stderr_fd = -1};
	c->starting = true;
	c->start = j;
	g->pending++;
	*g->queue_tail = j;
	g->queue_tail = &j->next;
	engine_pump(g);
	return 0;
}
