/* Choosing the OCI runtime, and doing by hand what needs no call of it.
 *
 * Probing: each candidate creates a container from a spec with everything that a real one has (namespaces,
 * control groups, seccomp, mounts) in a directory with one dummy file, which is never run. crun 1.8 refuses
 * hosts whose v2 tree beside v1 has controllers of its own; in a mount namespace where that tree is unmounted
 * it works, so on hybrid hosts it is tried there too. What fails says why in the log, and when nothing works
 * in the error.
 *
 * Starting: a created container waits at `exec.fifo` in the runtime's state directory. crun's reads a byte
 * from it, runc's writes one into it. */
#include "agent/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/oci_spec.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

#define PROBE_MS     30000
#define PROBE_PREFIX "probe-"
#define CALL_MS      30000
#define CGROUPS      "/sys/fs/cgroup"

char *const *runtime_env(void)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char tz[] = "TZ=UTC"; /* conmon's time stamps */
	static char *const env[] = {path, tz, NULL};
	return env;
}

static char *find_program(const char *name)
{
	static const char *const dirs[] = {
	    "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	if (name[0] == '/')
		return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		char *p = fs_path(dirs[i], name);
		if (access(p, X_OK) == 0)
			return p;
		free(p);
	}
	return NULL;
}

static char *mount_point_of(const char *path)
{
	CLEANUP_FREE char *real = realpath(path, NULL);
	char *p = xstrdup(str_or(real, "/"));
	for (;;) {
		struct statx st;
		if (statx(AT_FDCWD, p, AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &st) == 0 &&
		    (st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
			return p;
		char *slash = strrchr(p, '/');
		if (!slash || slash == p) {
			free(p);
			return xstrdup("/");
		}
		*slash = '\0';
	}
}

size_t runtime_mounts(const struct runtime *rt, struct spawn_mount *out)
{
	size_t n = 0;
	/* A slave still sees what the host mounts later, and tells it nothing. */
	out[n++] = (struct spawn_mount){"none", rt->exec_mount, NULL, NULL, MS_SLAVE, false};
	if (rt->hide_unified) {
		out[n++] = (struct spawn_mount){"none", CGROUPS, NULL, NULL, MS_SLAVE, false};
		out[n++] = (struct spawn_mount){NULL, CGROUPS "/unified", NULL, NULL, 0, true};
	}
	return n;
}

/* --- probing */

static int write_probe(
    const struct runtime *rt, const char *dir, const char *id, const struct cgroups *cg, struct err *e)
{
	CLEANUP_FREE char *rootfs = fs_path(dir, "rootfs"), *prog = fs_path(rootfs, "probe"),
			  *config = fs_path(dir, "config.json"), *path = cgroup_oci_path(cg, id);
	char *cmd[] = {(char *)(uintptr_t) "/probe", NULL};
	Pb__ContainerConfig c = PB__CONTAINER_CONFIG__INIT;
	struct oci_user u = {.home = (char *)(uintptr_t) "/"};
	struct oci_host h = {.id = id,
	    .rootfs = rootfs,
	    .cgroups_path = path,
	    .cgroup2 = cgroups_mode(cg) == CGROUP_V2,
	    .swap_limit = cgroups_swap_limit(cg),
	    .default_bpf = rt->seccomp_bpf};
	json_t *spec = NULL;
	c.name = c.image = c.image_id = cmd[0];
	c.cmd = cmd;
	c.n_cmd = 1;
	c.memory_bytes = cgroups_has(cg, "memory") ? 64 * 1024 * 1024 : 0;
	c.nano_cpus = cgroups_has(cg, "cpu") ? 1000000000 : 0;
	c.pids_limit = cgroups_has(cg, "pids") ? 100 : 0;
	int r = fs_mkdir_p(rootfs, 0755, e);
	if (r == 0)
		r = fs_write_atomic(prog, "#!\n", 3, 0755, e);
	if (r == 0)
		r = oci_spec_build(&c, &u, &h, &spec, e);
	if (r < 0)
		return r;
	CLEANUP_FREE char *text = oci_spec_text(spec);
	json_decref(spec);
	return fs_write_atomic(config, text, strlen(text), 0600, e);
}

static pid_t read_pid(const char *path)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	int64_t pid;
	if (fs_read(path, 64, &b, NULL) < 0 || str_parse_i64(str_or(b.data, ""), &pid, NULL) < 0)
		return -1;
	return (pid_t)pid;
}

static double children_ms(void)
{
	struct rusage u;
	getrusage(RUSAGE_CHILDREN, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

/* Creates and destroys one container; rt->probe_ms is the processor time that the creation took. */
static int probe_one(
    struct runtime *rt, const char *dir, const char *id, const struct cgroups *cg, struct err *e)
{
	CLEANUP_FREE char *pid_file = fs_path(dir, "pid");
	char *argv[] = {rt->path, (char *)(uintptr_t) "--root", rt->root, (char *)(uintptr_t) "create",
	    (char *)(uintptr_t) "--bundle", (char *)(uintptr_t)dir, (char *)(uintptr_t) "--pid-file",
	    pid_file, (char *)(uintptr_t)id, NULL};
	struct spawn_mount mounts[4];
	CLEANUP_FREE char *output = NULL;
	struct spawn_opts o = {.path = rt->path,
	    .argv = argv,
	    .env = runtime_env(),
	    .stdin_fd = -1,
	    .stdout_fd = -1,
	    .stderr_fd = -1,
	    .join_mountns = -1,
	    .new_mountns = true,
	    .mounts = mounts,
	    .n_mounts = runtime_mounts(rt, mounts)};
	int code = -1;
	unlink(pid_file);
	/* Processor time, not the clock's: the machine may be busy with something else. */
	double before = children_ms();
	int r = spawn_run(&o, PROBE_MS, &code, &output, e);
	rt->probe_ms = children_ms() - before;
	if (r == 0 && code != 0) {
		CLEANUP_FREE char *words = runtime_error_words(str_or(output, ""));
		r = err_set(e, ERR_UNAVAILABLE, "%s", *words ? words : "it failed without a word");
	}
	pid_t pid = read_pid(pid_file);
	if (pid > 1)
		kill(pid, SIGKILL);
	struct err cleanup = ERR_INIT;
	if (cgroup_remove(cg, id, &cleanup) < 0)
		log_warn("a probe's control group is left behind error=\"%s\"", cleanup.text);
	CLEANUP_FREE char *state = fs_path(rt->root, id);
	fs_remove_tree(state, NULL);
	return r;
}

/* Twice: the first creation may pay for caches. */
static int probe(struct runtime *rt, const char *exec_root, const struct cgroups *cg, struct err *e)
{
	char hex[ID_HEX_LEN + 1];
	id_new_hex(rng_system(), hex);
	CLEANUP_FREE char *id = xasprintf(PROBE_PREFIX "%.12s", hex), *dir = fs_path(exec_root, id);
	int r = write_probe(rt, dir, id, cg, e);
	double first = 0;
	if (r == 0)
		r = probe_one(rt, dir, id, cg, e);
	if (r == 0) {
		first = rt->probe_ms;
		r = probe_one(rt, dir, id, cg, e);
	}
	if (r == 0 && first < rt->probe_ms)
		rt->probe_ms = first;
	fs_remove_tree(dir, NULL);
	return r;
}

/* What a daemon left that was killed while it probed: a container that waits for ever. */
static void remove_strays(const char *exec_root, const struct cgroups *cg)
{
	DIR *d = opendir(exec_root);
	struct dirent *ent;
	while (d && (ent = readdir(d))) {
		if (!str_has_prefix(ent->d_name, PROBE_PREFIX))
			continue;
		CLEANUP_FREE char *dir = fs_path(exec_root, ent->d_name),
				  *runtime = fs_path(exec_root, "runtime"),
				  *state = fs_path(runtime, ent->d_name);
		struct err e = ERR_INIT;
		if (cgroup_remove(cg, ent->d_name, &e) < 0)
			log_warn("a probe's control group is left behind error=\"%s\"", e.text);
		fs_remove_tree(state, NULL);
		fs_remove_tree(dir, NULL);
	}
	if (d)
		closedir(d);
}

static enum runtime_kind kind_of(const char *name)
{
	const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	return str_eq(base, "crun") ? RUNTIME_CRUN : str_eq(base, "runc") ? RUNTIME_RUNC : RUNTIME_OTHER;
}

int runtime_adopt(
    const char *name, bool hide_unified, const char *exec_root, struct runtime *ret, struct err *e)
{
	struct runtime rt = {.kind = kind_of(name), .hide_unified = hide_unified};
	rt.path = find_program(name);
	if (!rt.path)
		return err_set(e, ERR_NOT_FOUND, "not installed");
	rt.name = xstrdup(strrchr(rt.path, '/') + 1);
	rt.root = fs_path(exec_root, "runtime");
	rt.exec_mount = mount_point_of(exec_root);
	if (rt.kind == RUNTIME_CRUN) {
		json_t *s = oci_seccomp_default(oci_caps_default());
		rt.seccomp_bpf = oci_seccomp_compile(s);
		json_decref(s);
	}
	int r = fs_mkdir_p(rt.root, 0700, e);
	if (r < 0)
		runtime_done(&rt);
	else
		*ret = rt;
	return r;
}

static int try_candidate(const char *name, bool hide_unified, const char *exec_root, const struct cgroups *cg,
    struct runtime *ret, struct err *e)
{
	struct runtime rt = {0};
	int r = runtime_adopt(name, hide_unified, exec_root, &rt, e);
	if (r == 0)
		r = probe(&rt, exec_root, cg, e);
	if (r < 0)
		runtime_done(&rt);
	else
		*ret = rt;
	return r;
}

static void add_program(struct buf *b, const char *name)
{
	struct stat st;
	CLEANUP_FREE char *path = find_program(name);
	if (path && stat(path, &st) == 0)
		buf_printf(b, " %s %lld.%ld %lld", path, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		    (long long)st.st_size);
}

char *runtime_fingerprint(const char *wanted, const struct cgroups *cg)
{
	struct buf b = BUF_INIT;
	if (fs_read("/proc/sys/kernel/random/boot_id", 128, &b, NULL) == 0 && b.len)
		b.data[--b.len] = '\0';
	buf_printf(&b, " %s %s", cgroups_mode_name(cg), str_or(wanted, "any"));
	add_program(&b, str_or(wanted, "crun"));
	add_program(&b, "runc");
	add_program(&b, "conmon");
	return buf_take(&b, NULL);
}

int runtime_probe(
    const char *wanted, const char *exec_root, const struct cgroups *cg, struct runtime *ret, struct err *e)
{
	bool hybrid = cgroups_mode(cg) == CGROUP_HYBRID;
	const char *names[2] = {str_or(wanted, "crun"), wanted && *wanted ? NULL : "runc"};
	struct runtime best = {0};
	bool found = false;
	CLEANUP_BUF struct buf why = BUF_INIT;
	remove_strays(exec_root, cg);
	for (size_t i = 0; i < 2 && names[i]; i++) {
		struct runtime rt = {0};
		struct err ce = ERR_INIT;
		int r = try_candidate(names[i], false, exec_root, cg, &rt, &ce);
		if (r < 0 && hybrid && ce.code != ERR_NOT_FOUND) {
			log_info("runtime does not work as it is name=%s error=\"%s\"", names[i], ce.text);
			r = try_candidate(names[i], true, exec_root, cg, &rt, &ce);
		}
		if (r < 0) {
			log_info("runtime does not work name=%s error=\"%s\"", names[i], ce.text);
			buf_printf(&why, "%s%s: %s", why.len ? "; " : "", names[i], ce.text);
			continue;
		}
		log_info("runtime works name=%s path=%s create_cpu_ms=%.1f v2_tree_hidden=%s", rt.name,
		    rt.path, rt.probe_ms, rt.hide_unified ? "yes" : "no");
		/* The measure is coarse: a later candidate has to be clearly better. */
		if (found && best.probe_ms * 0.7 <= rt.probe_ms) {
			runtime_done(&rt);
			continue;
		}
		runtime_done(&best);
		best = rt;
		found = true;
	}
	if (!found)
		return err_set(e, ERR_UNAVAILABLE, "no OCI runtime works on this host (%s)", why.data);
	log_info("runtime chosen name=%s cgroups=%s reason=\"%s\"", best.name, cgroups_mode_name(cg),
	    wanted && *wanted ? "it was asked for" : "the fastest that works");
	*ret = best;
	return 0;
}

struct runtime runtime_that_made(const struct runtime *rt, const char *path, bool hide_unified)
{
	struct runtime made = *rt;
	if (!path || strcmp(path, rt->path) == 0)
		return made;
	const char *base = strrchr(path, '/');
	made.path = (char *)(uintptr_t)path;
	made.name = base ? (char *)(uintptr_t)base + 1 : made.path;
	made.kind = kind_of(made.name);
	made.hide_unified = hide_unified;
	return made;
}

void runtime_done(struct runtime *rt)
{
	free(rt->name);
	free(rt->path);
	free(rt->seccomp_bpf);
	free(rt->root);
	free(rt->exec_mount);
	*rt = (struct runtime){0};
}

/* --- starting, deleting */

static char *fifo_path(const struct runtime *rt, const char *id)
{
	return xasprintf("%s/%s/exec.fifo", rt->root, id);
}

bool runtime_waits(const struct runtime *rt, const char *id)
{
	CLEANUP_FREE char *path = fifo_path(rt, id);
	return fs_exists(path);
}

int runtime_go(const struct runtime *rt, const char *id, enum runtime_go *ret, int *ret_fd, struct err *e)
{
	CLEANUP_FREE char *path = fifo_path(rt, id);
	*ret = RUNTIME_GO_CALL;
	if (rt->kind == RUNTIME_CRUN) {
		CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			return 0; /* another version's way: call it */
		if (unlink(path) < 0 || write(fd, "", 1) != 1)
			return err_errno(e, errno, "%s", path);
		*ret = RUNTIME_GO_DONE;
	} else if (rt->kind == RUNTIME_RUNC) {
		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			return 0;
		*ret_fd = fd;
		*ret = RUNTIME_GO_WAIT;
	}
	return 0;
}

int runtime_went(const struct runtime *rt, const char *id, int fd, struct err *e)
{
	CLEANUP_FREE char *path = fifo_path(rt, id);
	char c;
	ssize_t n = read(fd, &c, 1);
	int r = n == 1 ? 0 : err_set(e, ERR_IO, "the container did not answer at its start");
	close(fd);
	/* runc takes the fifo's presence for "created". */
	unlink(path);
	return r;
}

static int call(
    const struct runtime *rt, const char *const *words, const char *id, int mountns, struct err *e)
{
	char *argv[8] = {rt->path, (char *)(uintptr_t) "--root", rt->root};
	size_t n = 3;
	for (; *words; words++)
		argv[n++] = (char *)(uintptr_t)*words;
	argv[n] = (char *)(uintptr_t)id;
	struct spawn_mount mounts[4];
	CLEANUP_FREE char *output = NULL;
	struct spawn_opts o = {.path = rt->path,
	    .argv = argv,
	    .env = runtime_env(),
	    .stdin_fd = -1,
	    .stdout_fd = -1,
	    .stderr_fd = -1,
	    .join_mountns = mountns,
	    .new_mountns = mountns < 0,
	    .mounts = mounts,
	    .n_mounts = runtime_mounts(rt, mounts)};
	int code = -1, r = spawn_run(&o, CALL_MS, &code, &output, e);
	if (r == 0 && code != 0) {
		CLEANUP_FREE char *said = runtime_error_words(str_or(output, ""));
		r = err_set(e, ERR_INTERNAL, "%s", *said ? said : "the runtime failed without a word");
	}
	return r;
}

int runtime_start(const struct runtime *rt, const char *id, int mountns, struct err *e)
{
	static const char *const words[] = {"start", NULL};
	return call(rt, words, id, mountns, e);
}

void runtime_delete(const struct runtime *rt, const char *id)
{
	static const char *const words[] = {"delete", "--force", NULL};
	CLEANUP_FREE char *dir = fs_path(rt->root, id);
	if (rt->kind == RUNTIME_OTHER && fs_exists(dir))
		call(rt, words, id, -1, NULL);
	fs_remove_tree(dir, NULL);
}

/* --- what it said */

/* The value of msg="..." (logrus text) with its escapes undone, or NULL. */
static char *logrus_message(const char *line)
{
	const char *p = strstr(line, " msg=\"");
	if (!p)
		return NULL;
	struct buf b = BUF_INIT;
	for (p += 6; *p && *p != '"'; p++) {
		if (*p == '\\' && p[1]) {
			p++;
			buf_putc(&b, *p == 'n' ? ' ' : *p == 't' ? ' ' : *p);
		} else {
			buf_putc(&b, *p);
		}
	}
	return buf_take(&b, NULL);
}

/* crun: executable file `X` not found in $PATH: ... */
static char *crun_missing(const char *line)
{
	const char *p = strstr(line, "executable file `");
	if (!p)
		return NULL;
	p += strlen("executable file `");
	const char *end = strchr(p, '`');
	if (!end || !str_has_prefix(end, "` not found in $PATH"))
		return NULL;
	return xasprintf("exec: \"%.*s\": executable file not found in $PATH", (int)(end - p), p);
}

char *runtime_error_words(const char *text)
{
	/* The last line that says something; warnings come before it. */
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	strlist_split(&lines, text, '\n');
	for (size_t i = lines.n; i-- > 0;) {
		const char *line = lines.v[i];
		if (!*line)
			continue;
		char *s = logrus_message(line);
		if (!s)
			s = crun_missing(line);
		if (s)
			return s;
		/* crun may put a time stamp before its words: "2026-01-01T00:00:00.000000Z: words". */
		const char *colon = strstr(line, "Z: ");
		if (colon && colon - line < 32 && strchr(line, 'T') && strchr(line, 'T') < colon)
			line = colon + 3;
		if (str_has_prefix(line, "[conmon:"))
			continue;
		return xstrdup(line);
	}
	return xstrdup("");
}
