/* The OCI runtime's config.json of a container.
 *
 * oci_spec_check refuses everything that a user can get wrong before anything is made; oci_spec_build then
 * only translates. The defaults are those of dockerd: capabilities, seccomp, masked paths, mounts of /proc
 * /dev /sys, unprivileged low ports and ping. */
#include "agent/oci_spec.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define INIT_TARGET   "/sbin/docker-init"
#define DEFAULT_PATH  "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MEMORY_MIN    (6 * 1024 * 1024)
#define CPU_PERIOD_US 100000
#define NANO_CPUS_MIN 10000000
#define ENV_MAX       (2u * 1024 * 1024)

/* --- limits and names */

static const struct {
	const char *name;
	int number;
} signals[] = {{"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"ILL", SIGILL}, {"TRAP", SIGTRAP},
    {"ABRT", SIGABRT}, {"IOT", SIGABRT}, {"BUS", SIGBUS}, {"FPE", SIGFPE}, {"KILL", SIGKILL},
    {"USR1", SIGUSR1}, {"SEGV", SIGSEGV}, {"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},
    {"TERM", SIGTERM}, {"CHLD", SIGCHLD}, {"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"TSTP", SIGTSTP},
    {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU}, {"URG", SIGURG}, {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
    {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH}, {"IO", SIGIO}, {"POLL", SIGIO},
    {"PWR", SIGPWR}, {"SYS", SIGSYS}};

int oci_signal_parse(const char *s, int *ret, struct err *e)
{
	const char *name = s;
	uint64_t n;
	if (str_parse_u64(s, &n, NULL) == 0 && n >= 1 && n <= 64) {
		*ret = (int)n;
		return 0;
	}
	if (str_has_iprefix(name, "SIG"))
		name += 3;
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		if (str_ieq(name, signals[i].name)) {
			*ret = signals[i].number;
			return 0;
		}
	/* RTMIN is 34 for every libc's programs. */
	if (str_has_iprefix(name, "RTMIN")) {
		name += 5;
		if (!*name) {
			*ret = 34;
			return 0;
		}
		if (*name == '+' && str_parse_u64(name + 1, &n, NULL) == 0 && n <= 30) {
			*ret = 34 + (int)n;
			return 0;
		}
	} else if (str_has_iprefix(name, "RTMAX")) {
		name += 5;
		if (!*name) {
			*ret = 64;
			return 0;
		}
		if (*name == '-' && str_parse_u64(name + 1, &n, NULL) == 0 && n <= 30) {
			*ret = 64 - (int)n;
			return 0;
		}
	}
	return err_set(e, ERR_INVALID, "Invalid signal: %s", s);
}

static const char *const ulimit_names[] = {"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue",
    "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"};

static int check_ulimits(const Pb__ContainerConfig *c, struct err *e)
{
	for (size_t i = 0; i < c->n_ulimits; i++) {
		const Pb__Ulimit *u = c->ulimits[i];
		bool ok = false;
		for (size_t k = 0; k < ARRAY_LEN(ulimit_names); k++)
			ok = ok || str_eq(u->name, ulimit_names[k]);
		if (!ok)
			return err_set(e, ERR_INVALID, "invalid ulimit type: %s", str_or(u->name, ""));
		if (u->soft < -1 || u->hard < -1)
			return err_set(
			    e, ERR_INVALID, "ulimit %s: a limit is -1 (unlimited) or not negative", u->name);
		if (u->hard != -1 && (u->soft > u->hard || u->soft == -1))
			return err_set(e, ERR_INVALID,
			    "ulimit soft limit must be less than or equal to hard limit: %s=%lld:%lld",
			    u->name, (long long)u->soft, (long long)u->hard);
	}
	return 0;
}

static int check_sysctls(const Pb__ContainerConfig *c, struct err *e)
{
	static const char *const ipc[] = {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	    "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.domainname"};
	for (size_t i = 0; i < c->n_sysctls; i++) {
		const char *k = str_or(c->sysctls[i]->key, "");
		bool ok = str_has_prefix(k, "fs.mqueue.");
		for (size_t n = 0; n < ARRAY_LEN(ipc); n++)
			ok = ok || str_eq(k, ipc[n]);
		if (str_has_prefix(k, "net.")) {
			if (str_eq(c->network_mode, "host"))
				return err_set(e, ERR_INVALID,
				    "sysctl \"%s\" is not allowed with the host's network: it would change "
				    "the host",
				    k);
			ok = true;
		}
		if (!ok || strchr(k, '/') || strstr(k, ".."))
			return err_set(e, ERR_INVALID,
			    "sysctl \"%s\" is not in a separate kernel namespace: only net.*, fs.mqueue.*, "
			    "kernel.msg*, kernel.sem, "
			    "kernel.shm* and kernel.domainname can be set for a container",
			    k);
	}
	return 0;
}

static int check_resources(const Pb__ContainerConfig *c, struct err *e)
{
	if (c->memory_bytes < 0 || (c->memory_bytes > 0 && c->memory_bytes < MEMORY_MIN))
		return err_set(e, ERR_INVALID, "Minimum memory limit allowed is 6MB");
	if (c->nano_cpus < 0 || (c->nano_cpus > 0 && c->nano_cpus < NANO_CPUS_MIN))
		return err_set(e, ERR_INVALID, "the CPU limit must be at least 0.01");
	if (c->pids_limit < -1)
		return err_set(e, ERR_INVALID, "the pids limit must be positive, or 0 or -1 for none");
	if (c->has_oom_score_adj && (c->oom_score_adj < -1000 || c->oom_score_adj > 1000))
		return err_set(e, ERR_INVALID, "Invalid value %lld, range for oom score adj is [-1000, 1000]",
		    (long long)c->oom_score_adj);
	if (c->stop_grace_period < 0)
		return err_set(e, ERR_INVALID, "the stop grace period is negative");
	return 0;
}

static int check_env(const Pb__ContainerConfig *c, struct err *e)
{
	size_t total = 0;
	for (size_t i = 0; i < c->n_env; i++) {
		const char *eq = strchr(c->env[i], '=');
		if (eq == c->env[i] || !c->env[i][0])
			return err_set(e, ERR_INVALID, "invalid environment variable: \"%s\"", c->env[i]);
		total += strlen(c->env[i]) + 1;
	}
	if (total > ENV_MAX)
		return err_set(
		    e, ERR_TOO_LARGE, "the environment of %zu bytes is over the bound of %u", total, ENV_MAX);
	return 0;
}

static int container_caps(const Pb__ContainerConfig *c, uint64_t *ret, struct err *e)
{
	return oci_caps_apply(oci_caps_default(), c->capability_add, c->n_capability_add, c->capability_drop,
	    c->n_capability_drop, ret, e);
}

static int seccomp_of(const Pb__ContainerConfig *c, uint64_t caps, json_t **ret, struct err *e)
{
	const char *mode = str_or(c->seccomp_mode, "default");
	*ret = NULL;
	if (str_eq(mode, "unconfined"))
		return 0;
	if (str_eq(mode, "custom")) {
		if (!c->has_seccomp_profile || !c->seccomp_profile.len)
			return err_set(e, ERR_INVALID, "seccomp mode \"custom\" needs a profile");
		return oci_seccomp_custom(
		    (const char *)c->seccomp_profile.data, c->seccomp_profile.len, caps, ret, e);
	}
	if (!str_eq(mode, "default"))
		return err_set(
		    e, ERR_INVALID, "unknown seccomp mode \"%s\": use default, unconfined or custom", mode);
	*ret = oci_seccomp_default(caps);
	return 0;
}

static int check_names(const Pb__ContainerConfig *c, struct err *e)
{
	const char *net = str_or(c->network_mode, "bridge");
	int sig;
	if (!str_eq(net, "bridge") && !str_eq(net, "none") && !str_eq(net, "host"))
		return err_set(
		    e, ERR_INVALID, "network mode \"%s\" is not supported: use bridge, host or none", net);
	if (c->n_ports && !str_eq(net, "bridge"))
		return err_set(e, ERR_INVALID, "ports cannot be published with network mode \"%s\"", net);
	if (!str_empty(c->stop_signal) && oci_signal_parse(c->stop_signal, &sig, e) < 0)
		return ERR_INVALID;
	if (!str_empty(c->working_dir) && c->working_dir[0] != '/')
		return err_set(e, ERR_INVALID,
		    "the working directory '%s' is invalid, it needs to be an absolute path", c->working_dir);
	if (c->hostname && strlen(c->hostname) > 63)
		return err_set(
		    e, ERR_INVALID, "invalid hostname: %s is longer than 63 characters", c->hostname);
	if (!str_empty(c->log_driver) && !str_eq(c->log_driver, "json-file") &&
	    !str_eq(c->log_driver, "none"))
		return err_set(e, ERR_INVALID, "log driver \"%s\" is not supported: use json-file or none",
		    c->log_driver);
	for (size_t i = 0; i < c->n_hosts; i++)
		if (!strchr(c->hosts[i], ' ') || strchr(c->hosts[i], '\n'))
			return err_set(
			    e, ERR_INVALID, "invalid extra host \"%s\": expected \"IP name\"", c->hosts[i]);
	return 0;
}

int oci_spec_check(const Pb__ContainerConfig *c, struct err *e)
{
	uint64_t caps;
	json_t *seccomp = NULL;
	if (!c->n_entrypoint && !c->n_cmd)
		return err_set(e, ERR_INVALID, "No command specified");
	const char *first = c->n_entrypoint ? c->entrypoint[0] : c->cmd[0];
	if (!*first)
		return err_set(e, ERR_INVALID, "the command is an empty string");
	int r = check_resources(c, e);
	if (r == 0)
		r = check_ulimits(c, e);
	if (r == 0)
		r = check_sysctls(c, e);
	if (r == 0)
		r = check_env(c, e);
	if (r == 0)
		r = check_names(c, e);
	if (r == 0)
		r = container_caps(c, &caps, e);
	if (r == 0 && str_eq(c->seccomp_mode, "default") == false && !str_empty(c->seccomp_mode)) {
		r = seccomp_of(c, caps, &seccomp, e);
		json_decref(seccomp);
	}
	if (r == 0)
		r = oci_mounts_check(c, e);
	return r;
}

/* --- process */

static bool env_has(const struct strlist *l, const char *key)
{
	size_t n = strlen(key);
	for (size_t i = 0; i < l->n; i++)
		if (strncmp(l->v[i], key, n) == 0 && l->v[i][n] == '=')
			return true;
	return false;
}

static void env_set(struct strlist *l, const char *assignment)
{
	const char *eq = strchr(assignment, '=');
	if (!eq)
		return; /* a name alone unsets nothing here: it was resolved by the client */
	size_t n = (size_t)(eq - assignment) + 1;
	for (size_t i = 0; i < l->n; i++)
		if (strncmp(l->v[i], assignment, n) == 0) {
			free(l->v[i]);
			l->v[i] = xstrdup(assignment);
			return;
		}
	strlist_add(l, assignment);
}

void oci_env(
    const Pb__ContainerConfig *c, const struct oci_user *u, const char *hostname, struct strlist *ret)
{
	strlist_add(ret, "PATH=" DEFAULT_PATH);
	strlist_addf(ret, "HOSTNAME=%s", hostname);
	if (c->tty)
		strlist_add(ret, "TERM=xterm");
	for (size_t i = 0; i < c->n_env; i++)
		env_set(ret, c->env[i]);
	if (!env_has(ret, "HOME"))
		strlist_addf(ret, "HOME=%s", str_or(u->home, "/"));
}

char *oci_hostname(const Pb__ContainerConfig *c, const char *id)
{
	return str_empty(c->hostname) ? xstrndup(id, 12) : xstrdup(c->hostname);
}

static json_t *strings(const struct strlist *l)
{
	json_t *a = json_array();
	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(a, json_stringn_nocheck(l->v[i], strlen(l->v[i])));
	return a;
}

static json_t *user_json(const struct oci_user *u)
{
	json_t *o = json_pack("{s:I,s:I}", "uid", (json_int_t)u->uid, "gid", (json_int_t)u->gid);
	/* As dockerd: the primary group is among the supplementary ones, so that a program that drops groups
	 * keeps it. */
	json_t *groups = json_array();
	bool has_primary = false;
	for (size_t i = 0; i < u->n_groups; i++) {
		json_array_append_new(groups, json_integer(u->groups[i]));
		has_primary = has_primary || u->groups[i] == u->gid;
	}
	if (!has_primary)
		json_array_insert_new(groups, 0, json_integer(u->gid));
	json_object_set_new(o, "additionalGids", groups);
	return o;
}

static json_t *capabilities_json(uint64_t caps)
{
	json_t *list = oci_caps_json(caps);
	return json_pack("{s:O,s:O,s:o}", "bounding", list, "effective", list, "permitted", list);
}

/* RLIM_INFINITY does not fit jansson's integers: oci_spec_text puts the number in. */
static json_t *limit_json(int64_t v)
{
	return v < 0 ? json_string("unlimited") : json_integer(v);
}

static json_t *rlimits_json(const Pb__ContainerConfig *c)
{
	json_t *a = json_array();
	for (size_t i = 0; i < c->n_ulimits; i++) {
		const Pb__Ulimit *u = c->ulimits[i];
		char type[40];
		snprintf(type, sizeof(type), "RLIMIT_%s", u->name);
		for (char *p = type; *p; p++)
			if (*p >= 'a' && *p <= 'z')
				*p = (char)(*p - 'a' + 'A');
		json_array_append_new(a, json_pack("{s:s,s:o,s:o}", "type", type, "hard", limit_json(u->hard),
					     "soft", limit_json(u->soft)));
	}
	return a;
}

static json_t *process_json(const Pb__ContainerConfig *c, const struct oci_user *u, json_t *args,
    uint64_t caps, const struct strlist *env, bool tty, const char *cwd)
{
	json_t *p = json_pack("{s:b,s:o,s:o,s:o,s:s,s:o,s:b}", "terminal", tty, "user", user_json(u), "args",
	    args, "env", strings(env), "cwd", str_or(cwd, "/"), "capabilities", capabilities_json(caps),
	    "noNewPrivileges", (int)c->no_new_privileges);
	if (c->n_ulimits)
		json_object_set_new(p, "rlimits", rlimits_json(c));
	/* Always: without it a container has the daemon's, which its unit lowers. */
	json_object_set_new(p, "oomScoreAdj", json_integer(c->has_oom_score_adj ? c->oom_score_adj : 0));
	return p;
}

static json_t *args_json(const Pb__ContainerConfig *c)
{
	struct strlist l = STRLIST_INIT;
	if (c->init) {
		strlist_add(&l, INIT_TARGET);
		strlist_add(&l, "--");
	}
	for (size_t i = 0; i < c->n_entrypoint; i++)
		strlist_add(&l, c->entrypoint[i]);
	for (size_t i = 0; i < c->n_cmd; i++)
		strlist_add(&l, c->cmd[i]);
	json_t *a = strings(&l);
	strlist_done(&l);
	return a;
}

/* --- mounts */

static json_t *mount_json(const char *target, const char *type, const char *source, const char *options)
{
	struct strlist l = STRLIST_INIT;
	strlist_split(&l, options, ',');
	json_t *m = json_pack("{s:s,s:s,s:s,s:o}", "destination", target, "type", type, "source", source,
	    "options", strings(&l));
	strlist_done(&l);
	return m;
}

static bool user_mounts(const Pb__ContainerConfig *c, const char *target)
{
	for (size_t i = 0; i < c->n_mounts; i++)
		if (str_eq(c->mounts[i]->target, target))
			return true;
	return false;
}

static void add_default(const Pb__ContainerConfig *c, json_t *to, const char *target, const char *type,
    const char *source, const char *options)
{
	if (!user_mounts(c, target))
		json_array_append_new(to, mount_json(target, type, source, options));
}

static void add_file(const Pb__ContainerConfig *c, json_t *to, const char *target, const char *source)
{
	if (source)
		add_default(
		    c, to, target, "bind", source, c->read_only ? "rbind,rprivate,ro" : "rbind,rprivate");
}

static void add_user_mount(json_t *to, const Pb__ContainerMount *m)
{
	CLEANUP_BUF struct buf o = BUF_INIT;
	if (str_eq(m->type, "tmpfs")) {
		buf_puts(&o, "noexec,nosuid,nodev");
		buf_puts(&o, m->read_only ? ",ro" : ",rw");
		if (m->tmpfs_size > 0)
			buf_printf(&o, ",size=%lld", (long long)m->tmpfs_size);
		buf_printf(&o, ",mode=%o", m->has_tmpfs_mode ? m->tmpfs_mode & 07777u : 01777u);
		json_array_append_new(to, mount_json(m->target, "tmpfs", "tmpfs", o.data));
		return;
	}
	buf_puts(&o, m->non_recursive ? "bind" : "rbind");
	buf_puts(&o, m->read_only ? ",ro" : ",rw");
	buf_printf(&o, ",%s", str_or(m->propagation, "rprivate"));
	json_array_append_new(to, mount_json(m->target, "bind", m->source, o.data));
}

static size_t depth(const char *path)
{
	size_t n = 0;
	for (; *path; path++)
		n += *path == '/';
	return n;
}

/* Parents before children, so that none hides another. */
static void add_user_mounts(const Pb__ContainerConfig *c, json_t *to)
{
	size_t left = c->n_mounts;
	for (size_t d = 0; left; d++)
		for (size_t i = 0; i < c->n_mounts; i++)
			if (depth(c->mounts[i]->target) == d) {
				add_user_mount(to, c->mounts[i]);
				left--;
			}
}

static json_t *mounts_json(const Pb__ContainerConfig *c, const struct oci_host *h)
{
	json_t *a = json_array();
	add_default(c, a, "/proc", "proc", "proc", "nosuid,noexec,nodev");
	add_default(c, a, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
	add_default(
	    c, a, "/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
	add_default(c, a, "/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro");
	add_default(c, a, "/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev,relatime");
	add_default(c, a, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
	add_default(c, a, "/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k");
	add_file(c, a, "/etc/resolv.conf", h->resolv_conf);
	add_file(c, a, "/etc/hostname", h->hostname);
	add_file(c, a, "/etc/hosts", h->hosts);
	if (c->init && h->init)
		json_array_append_new(a, mount_json(INIT_TARGET, "bind", h->init, "bind,ro"));
	add_user_mounts(c, a);
	return a;
}

/* A runtime makes the container's root private unless told; propagation from the host needs a slave, back to
 * it a shared one. */
static const char *root_propagation(const Pb__ContainerConfig *c)
{
	const char *p = NULL;
	for (size_t i = 0; i < c->n_mounts; i++) {
		const char *w = c->mounts[i]->propagation;
		if (str_eq(w, "shared") || str_eq(w, "rshared"))
			return "shared";
		if (str_eq(w, "slave") || str_eq(w, "rslave"))
			p = "rslave";
	}
	return p;
}

/* --- linux */

static json_t *resources_json(const Pb__ContainerConfig *c, const struct oci_host *h)
{
	json_t *r = json_pack("{s:[{s:b,s:s}]}", "devices", "allow", 0, "access", "rwm");
	if (c->memory_bytes > 0) {
		json_t *m = json_pack("{s:I}", "limit", (json_int_t)c->memory_bytes);
		if (h->swap_limit)
			json_object_set_new(m, "swap", json_integer(c->memory_bytes));
		json_object_set_new(r, "memory", m);
	}
	if (c->nano_cpus > 0)
		json_object_set_new(r, "cpu",
		    json_pack("{s:I,s:I}", "quota", (json_int_t)(c->nano_cpus / (1000000000 / CPU_PERIOD_US)),
			"period", (json_int_t)CPU_PERIOD_US));
	if (c->pids_limit > 0)
		json_object_set_new(r, "pids", json_pack("{s:I}", "limit", (json_int_t)c->pids_limit));
	return r;
}

static json_t *sysctls_json(const Pb__ContainerConfig *c)
{
	json_t *o = json_object();
	if (!str_eq(c->network_mode, "host")) {
		json_object_set_new(o, "net.ipv4.ip_unprivileged_port_start", json_string("0"));
		json_object_set_new(o, "net.ipv4.ping_group_range", json_string("0 2147483647"));
	}
	for (size_t i = 0; i < c->n_sysctls; i++)
		json_object_set_new(o, c->sysctls[i]->key, json_string(str_or(c->sysctls[i]->value, "")));
	return o;
}

static json_t *namespaces_json(const Pb__ContainerConfig *c, const struct oci_host *h)
{
	json_t *a = json_pack(
	    "[{s:s},{s:s},{s:s},{s:s}]", "type", "mount", "type", "uts", "type", "ipc", "type", "pid");
	if (h->cgroup2)
		json_array_append_new(a, json_pack("{s:s}", "type", "cgroup"));
	if (h->netns)
		json_array_append_new(a, json_pack("{s:s,s:s}", "type", "network", "path", h->netns));
	else if (!str_eq(c->network_mode, "host"))
		json_array_append_new(a, json_pack("{s:s}", "type", "network"));
	return a;
}

static json_t *linux_json(const Pb__ContainerConfig *c, const struct oci_host *h, json_t *seccomp)
{
	json_t *l = json_pack("{s:o,s:o,s:o,s:s}", "resources", resources_json(c, h), "namespaces",
	    namespaces_json(c, h), "sysctl", sysctls_json(c), "cgroupsPath", h->cgroups_path);
	json_object_set_new(l, "maskedPaths",
	    json_pack("[s,s,s,s,s,s,s,s,s,s,s]", "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"));
	json_object_set_new(l, "readonlyPaths",
	    json_pack(
		"[s,s,s,s,s]", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"));
	if (root_propagation(c))
		json_object_set_new(l, "rootfsPropagation", json_string(root_propagation(c)));
	if (seccomp)
		json_object_set(l, "seccomp", seccomp);
	return l;
}

/* linux.seccomp, or for crun its compiled form in *ret_bpf: making the profile and compiling it anew costs
 * more than all the rest of a start. */
static int seccomp_for(const Pb__ContainerConfig *c, uint64_t caps, const struct oci_host *h, json_t **ret,
    char **ret_bpf, struct err *e)
{
	*ret = NULL;
	*ret_bpf = NULL;
	if (h->default_bpf && str_eq(str_or(c->seccomp_mode, "default"), "default") &&
	    caps == oci_caps_default()) {
		*ret_bpf = xstrdup(h->default_bpf);
		return 0;
	}
	int r = seccomp_of(c, caps, ret, e);
	if (r == 0 && *ret && h->default_bpf && (*ret_bpf = oci_seccomp_compile(*ret))) {
		json_decref(*ret);
		*ret = NULL;
	}
	return r;
}

int oci_spec_build(const Pb__ContainerConfig *c, const struct oci_user *u, const struct oci_host *h,
    json_t **ret, struct err *e)
{
	uint64_t caps;
	json_t *seccomp = NULL;
	CLEANUP_FREE char *bpf = NULL;
	if (c->init && !h->init)
		return err_set(e, ERR_PRECONDITION,
		    "the service wants an init process, but this node has none: install the package "
		    "\"tini\"");
	int r = container_caps(c, &caps, e);
	if (r == 0)
		r = seccomp_for(c, caps, h, &seccomp, &bpf, e);
	if (r < 0)
		return r;

	CLEANUP_FREE char *hostname = oci_hostname(c, h->id);
	CLEANUP_STRLIST struct strlist env = STRLIST_INIT;
	oci_env(c, u, hostname, &env);
	json_t *spec = json_pack("{s:s,s:o,s:{s:s,s:b},s:s,s:o,s:o}", "ociVersion", "1.0.2", "process",
	    process_json(c, u, args_json(c), caps, &env, c->tty, c->working_dir), "root", "path", h->rootfs,
	    "readonly", (int)c->read_only, "hostname", hostname, "mounts", mounts_json(c, h), "linux",
	    linux_json(c, h, seccomp));
	json_decref(seccomp);
	if (!spec)
		return err_set(e, ERR_INVALID, "container %.12s: a name or path is not valid UTF-8", h->id);
	if (bpf)
		json_object_set_new(spec, "annotations", json_pack("{s:s}", "run.oci.seccomp_bpf_data", bpf));
	*ret = spec;
	return 0;
}

int oci_exec_process(
    const Pb__ContainerConfig *c, const char *id, const struct oci_exec *x, json_t **ret, struct err *e)
{
	uint64_t caps;
	int r = container_caps(c, &caps, e);
	if (r < 0)
		return r;
	if (x->privileged)
		caps = oci_caps_all();
	CLEANUP_FREE char *hostname = oci_hostname(c, id);
	CLEANUP_STRLIST struct strlist env = STRLIST_INIT;
	oci_env(c, x->user, hostname, &env);
	if (x->tty)
		env_set(&env, "TERM=xterm");
	for (size_t i = 0; x->env && x->env[i]; i++)
		env_set(&env, x->env[i]);
	struct strlist args = STRLIST_INIT;
	for (size_t i = 0; x->cmd[i]; i++)
		strlist_add(&args, x->cmd[i]);
	json_t *a = strings(&args);
	strlist_done(&args);
	json_t *p = process_json(c, x->user, a, caps, &env, x->tty, str_or(x->cwd, c->working_dir));
	if (!p)
		return err_set(e, ERR_INVALID, "exec in container %.12s: a path is not valid UTF-8", id);
	if (x->tty && x->rows && x->cols)
		json_object_set_new(
		    p, "consoleSize", json_pack("{s:i,s:i}", "height", (int)x->rows, "width", (int)x->cols));
	*ret = p;
	return 0;
}

/* A user's string cannot hold these sequences: its quotes are escaped. */
static void replace_unlimited(struct buf *to, const char *text)
{
	static const char *const from[] = {"\"hard\":\"unlimited\"", "\"soft\":\"unlimited\""};
	for (;;) {
		const char *a = strstr(text, from[0]), *b = strstr(text, from[1]);
		const char *at = !a || (b && b < a) ? b : a;
		if (!at)
			break;
		buf_append(to, text, (size_t)(at - text));
		buf_printf(to, "%.7s%llu", at, (unsigned long long)UINT64_MAX);
		text = at + strlen(from[0]);
	}
	buf_puts(to, text);
}

char *oci_spec_text(const json_t *spec)
{
	CLEANUP_FREE char *text = json_dumps(spec, JSON_COMPACT);
	ASSERT(text);
	if (!strstr(text, ":\"unlimited\""))
		return TAKE_PTR(text);
	struct buf b = BUF_INIT;
	replace_unlimited(&b, text);
	return buf_take(&b, NULL);
}
