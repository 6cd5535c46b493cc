/* Control groups: finding the trees, and reading, freezing and removing containers' groups.
 *
 * The layout is what is mounted at /sys/fs/cgroup: cgroup2 itself is v2; a tmpfs with v1 trees is v1, and
 * hybrid when a cgroup2 is mounted among them. Groups vanish when a container ends, so absent files are an
 * ordinary answer here. */
#include "agent/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

#define ROOT      "/sys/fs/cgroup"
#define FILE_MAX  (64u * 1024)
#define MAX_TREES 24
#define FREEZE_MS 5000
#define REMOVE_MS 2000
#define MAX_DEPTH 16
#define MAX_PIDS  (1u << 20)

struct tree {
	char *mount;   /* where the tree is mounted */
	char *options; /* v1: ",cpu,cpuacct," ; v2: "" */
	bool v2;
};

struct cgroups {
	enum cgroup_mode mode;
	struct tree trees[MAX_TREES];
	unsigned n_trees;
	char *base; /* "/shoal" */
	bool swap_limit;
};

/* --- finding the trees */

static void add_tree(struct cgroups *g, const char *mount, const char *options, bool v2)
{
	if (g->n_trees == MAX_TREES)
		return;
	struct tree *t = &g->trees[g->n_trees++];
	t->mount = xstrdup(mount);
	t->options = xasprintf(",%s,", options);
	t->v2 = v2;
}

static int find_trees(struct cgroups *g, struct err *e)
{
	struct statfs fs;
	if (statfs(ROOT, &fs) < 0)
		return err_set(e, ERR_UNAVAILABLE, "no control groups: nothing is mounted at " ROOT);
	if (fs.f_type == CGROUP2_SUPER_MAGIC) {
		g->mode = CGROUP_V2;
		add_tree(g, ROOT, "", true);
		return 0;
	}
	FILE *f = setmntent("/proc/self/mounts", "re");
	if (!f)
		return err_errno(e, errno, "/proc/self/mounts");
	struct mntent m;
	char line[4096];
	bool unified = false;
	while (getmntent_r(f, &m, line, sizeof(line))) {
		if (!str_has_prefix(m.mnt_dir, ROOT "/"))
			continue;
		if (str_eq(m.mnt_type, "cgroup")) {
			add_tree(g, m.mnt_dir, m.mnt_opts, false);
		} else if (str_eq(m.mnt_type, "cgroup2")) {
			unified = true;
			add_tree(g, m.mnt_dir, "", true);
		}
	}
	endmntent(f);
	if (!g->n_trees)
		return err_set(e, ERR_UNAVAILABLE, "no control groups: nothing is mounted below " ROOT);
	g->mode = unified ? CGROUP_HYBRID : CGROUP_V1;
	return 0;
}

static const struct tree *tree_of(const struct cgroups *g, const char *controller)
{
	char word[64];
	snprintf(word, sizeof(word), ",%s,", str_or(controller, ""));
	for (unsigned i = 0; i < g->n_trees; i++)
		if (g->mode == CGROUP_V2 || (!g->trees[i].v2 && strstr(g->trees[i].options, word)))
			return &g->trees[i];
	return NULL;
}

/* v2 shows limits in every group but the root, where their controller is on; so the parent of the containers'
 * groups is made here, as the runtime does for the first container. */
static bool find_swap_limit(const struct cgroups *g)
{
	const struct tree *t = tree_of(g, "memory");
	if (!t)
		return false;
	if (g->mode != CGROUP_V2) {
		CLEANUP_FREE char *f = xasprintf("%s/memory.memsw.limit_in_bytes", t->mount);
		return fs_exists(f);
	}
	CLEANUP_FREE char *dir = xasprintf("%s%s", t->mount, g->base);
	CLEANUP_FREE char *f = fs_path(dir, "memory.swap.max");
	fs_write_existing(ROOT "/cgroup.subtree_control", "+memory", NULL);
	fs_mkdir_p(dir, 0755, NULL);
	return fs_exists(f);
}

int cgroups_open(const char *parent, struct cgroups **ret, struct err *e)
{
	struct cgroups *g = NEW(struct cgroups);
	int r = find_trees(g, e);
	if (r < 0) {
		cgroups_free(g);
		return r;
	}
	g->base = xasprintf("/%s", parent);
	g->swap_limit = find_swap_limit(g);
	*ret = g;
	return 0;
}

void cgroups_free(struct cgroups *g)
{
	if (!g)
		return;
	for (unsigned i = 0; i < g->n_trees; i++) {
		free(g->trees[i].mount);
		free(g->trees[i].options);
	}
	free(g->base);
	free(g);
}

enum cgroup_mode cgroups_mode(const struct cgroups *g)
{
	return g->mode;
}

const char *cgroups_mode_name(const struct cgroups *g)
{
	static const char *const names[] = {"v1", "hybrid", "v2"};
	return names[g->mode];
}

bool cgroups_has(const struct cgroups *g, const char *controller)
{
	if (g->mode != CGROUP_V2)
		return tree_of(g, controller) != NULL;
	if (str_eq(controller, "freezer"))
		return true; /* part of the core */
	CLEANUP_BUF struct buf b = BUF_INIT;
	CLEANUP_STRLIST struct strlist words = STRLIST_INIT;
	if (fs_read(ROOT "/cgroup.controllers", FILE_MAX, &b, NULL) < 0)
		return false;
	if (b.len && b.data[b.len - 1] == '\n')
		b.data[b.len - 1] = '\0';
	strlist_split(&words, str_or(b.data, ""), ' ');
	return strlist_has(&words, controller);
}

bool cgroups_swap_limit(const struct cgroups *g)
{
	return g->swap_limit;
}

/* --- reading */

char *cgroup_oci_path(const struct cgroups *g, const char *id)
{
	return xasprintf("%s/%s", g->base, id);
}

char *cgroup_dir(const struct cgroups *g, const char *id, const char *controller)
{
	const struct tree *t = tree_of(g, controller);
	return t ? xasprintf("%s%s/%s", t->mount, g->base, id) : NULL;
}

int cgroup_read(const struct cgroups *g, const char *id, const char *controller, const char *file,
    struct buf *ret, struct err *e)
{
	CLEANUP_FREE char *dir = cgroup_dir(g, id, controller);
	if (!dir)
		return err_set(
		    e, ERR_NOT_FOUND, "the control group controller %s is not mounted", controller);
	CLEANUP_FREE char *path = fs_path(dir, file);
	int r = fs_read(path, FILE_MAX, ret, e);
	if (r == 0 && ret->len && ret->data[ret->len - 1] == '\n')
		ret->data[--ret->len] = '\0';
	return r;
}

int cgroup_read_key(const struct cgroups *g, const char *id, const char *controller, const char *file,
    const char *key, uint64_t *ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	int r = cgroup_read(g, id, controller, file, &b, e);
	if (r < 0)
		return r;
	size_t n = strlen(key);
	for (char *p = b.data, *next; p && *p; p = next) {
		next = p + strcspn(p, "\n");
		if (*next)
			*next++ = '\0';
		if (strncmp(p, key, n) == 0 && p[n] == ' ')
			return str_parse_u64(p + n + 1, ret, e);
	}
	return err_set(e, ERR_NOT_FOUND, "%s has no %s", file, key);
}

uint64_t cgroup_oom_kills(const struct cgroups *g, const char *id)
{
	uint64_t n = 0;
	const char *file = g->mode == CGROUP_V2 ? "memory.events" : "memory.oom_control";
	return cgroup_read_key(g, id, "memory", file, "oom_kill", &n, NULL) == 0 ? n : 0;
}

/* --- processes */

struct pid_list {
	pid_t *v;
	size_t n;
};

static void collect_pids(const char *dir, struct pid_list *l, unsigned depth)
{
	CLEANUP_FREE char *path = fs_path(dir, "cgroup.procs");
	CLEANUP_FCLOSE FILE *f = fopen(path, "re");
	int pid;
	while (f && l->n < MAX_PIDS && fscanf(f, "%d", &pid) == 1) {
		l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
		l->v[l->n++] = pid;
	}
	DIR *d = depth < MAX_DEPTH ? opendir(dir) : NULL;
	struct dirent *ent;
	while (d && (ent = readdir(d)))
		if (ent->d_type == DT_DIR && ent->d_name[0] != '.') {
			CLEANUP_FREE char *sub = fs_path(dir, ent->d_name);
			collect_pids(sub, l, depth + 1);
		}
	if (d)
		closedir(d);
}

/* A tree that every container's processes are in. */
static const struct tree *process_tree(const struct cgroups *g)
{
	static const char *const prefer[] = {"pids", "memory", "cpu", "freezer", "name=systemd"};
	for (size_t i = 0; i < ARRAY_LEN(prefer); i++) {
		const struct tree *t = tree_of(g, prefer[i]);
		if (t)
			return t;
	}
	return &g->trees[0];
}

int cgroup_pids(const struct cgroups *g, const char *id, pid_t **ret, size_t *ret_n, struct err *e)
{
	struct pid_list l = {0};
	CLEANUP_FREE char *dir = xasprintf("%s%s/%s", process_tree(g)->mount, g->base, id);
	if (!fs_exists(dir))
		return err_set(e, ERR_NOT_FOUND, "container %.12s has no control group", id);
	collect_pids(dir, &l, 0);
	*ret = l.v;
	*ret_n = l.n;
	return 0;
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = {0, (long)ms * 1000000};
	nanosleep(&t, NULL);
}

int cgroup_freeze(const struct cgroups *g, const char *id, bool freeze, struct err *e)
{
	bool v2 = g->mode == CGROUP_V2;
	CLEANUP_FREE char *dir = cgroup_dir(g, id, "freezer");
	if (!dir)
		return err_set(e, ERR_UNAVAILABLE,
		    "this host has no freezer control group: containers cannot be paused");
	CLEANUP_FREE char *path = fs_path(dir, v2 ? "cgroup.freeze" : "freezer.state");
	const char *want = freeze ? (v2 ? "1" : "FROZEN") : (v2 ? "0" : "THAWED");
	for (unsigned ms = 0; ms < FREEZE_MS; ms += 5) {
		/* v1: writing again retries those that could not be frozen at once. */
		int r = (ms == 0 || !v2) ? fs_write_existing(path, want, e) : 0;
		if (r < 0)
			return r;
		if (v2) {
			uint64_t frozen;
			r = cgroup_read_key(g, id, NULL, "cgroup.events", "frozen", &frozen, e);
			if (r < 0)
				return r;
			if (frozen == (uint64_t)freeze)
				return 0;
		} else {
			CLEANUP_BUF struct buf b = BUF_INIT;
			r = cgroup_read(g, id, "freezer", "freezer.state", &b, e);
			if (r < 0)
				return r;
			if (str_eq(b.data, want))
				return 0;
		}
		sleep_ms(5);
	}
	if (freeze)
		fs_write_existing(path, v2 ? "0" : "THAWED", NULL);
	return err_set(e, ERR_TIMEOUT, "the kernel did not %s container %.12s within %u s",
	    freeze ? "freeze" : "thaw", id, FREEZE_MS / 1000);
}

/* --- removing */

static int remove_groups(const char *dir, unsigned depth)
{
	if (rmdir(dir) == 0 || errno == ENOENT)
		return 0;
	int status = errno;
	DIR *d = depth < MAX_DEPTH ? opendir(dir) : NULL;
	struct dirent *ent;
	while (d && (ent = readdir(d)))
		if (ent->d_type == DT_DIR && ent->d_name[0] != '.') {
			CLEANUP_FREE char *sub = fs_path(dir, ent->d_name);
			remove_groups(sub, depth + 1);
			status = 0;
		}
	if (d)
		closedir(d);
	if (status)
		return -status;
	return rmdir(dir) == 0 || errno == ENOENT ? 0 : -errno;
}

static void kill_left(const char *dir)
{
	struct pid_list l = {0};
	collect_pids(dir, &l, 0);
	for (size_t i = 0; i < l.n; i++)
		if (l.v[i] > 1)
			kill(l.v[i], SIGKILL);
	free(l.v);
}

int cgroup_remove(const struct cgroups *g, const char *id, struct err *e)
{
	if (str_empty(id) || strchr(id, '/') || id[0] == '.')
		return err_set(e, ERR_INVALID, "\"%s\" is no container id", str_or(id, ""));
	for (unsigned i = 0; i < g->n_trees; i++) {
		CLEANUP_FREE char *dir = xasprintf("%s%s/%s", g->trees[i].mount, g->base, id);
		int r = remove_groups(dir, 0);
		/* Exiting tasks leave a group a moment after their parent was told. */
		for (unsigned ms = 0; r == -EBUSY && ms < REMOVE_MS; ms += 2) {
			if (ms % 50 == 0)
				kill_left(dir);
			sleep_ms(2);
			r = remove_groups(dir, 0);
		}
		if (r < 0)
			return err_errno(e, -r, "removing the control group %s", dir);
	}
	return 0;
}

void cgroups_remove_base(const struct cgroups *g)
{
	for (unsigned i = 0; i < g->n_trees; i++) {
		CLEANUP_FREE char *dir = xasprintf("%s%s", g->trees[i].mount, g->base);
		rmdir(dir);
	}
}
