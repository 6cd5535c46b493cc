/* What the network remembers over a restart of the daemon, as small text files:
 *
 *   <state_dir>/pool     boot id, subnet; written once a start
 *   <run_dir>/next       where the next address search starts
 *   <run_dir>/c/ID       a container: its address, its host-mode ports
 *   <run_dir>/s/ID       a service: its published ports and its backends
 *
 * Happy path: a record is written (to a new file that is renamed over the old one) before the kernel is
 * changed, and removed after. run_dir is in memory: a disk's file system makes a rename over a file wait for
 * the disk, and the event loop with it; and after a crash of the machine no container is left that the files
 * could be about. Records of another boot are dropped, only the subnet is kept.
 *
 * Failure: a damaged file costs its own record only, and is logged. */
#include "overlay/hostnet_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

#define RECORD_MAX (1024u * 1024)

int state_check_id(const char *what, const char *id, struct err *e)
{
	size_t n = id ? strlen(id) : 0;
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
	if (n == 0 || n > 128 || id[0] == '.' || strspn(id, allowed) != n)
		return err_set(e, ERR_INVALID, "\"%.40s\" is not a valid %s id", id ? id : "", what);
	return 0;
}

static int save(struct hostnet *n, const char *sub, const char *name, const struct buf *b, struct err *e)
{
	const char *dir = sub ? n->run_dir : n->state_dir;
	char *tmp CLEANUP_FREE = xasprintf("%s/%s.new", dir, name);
	char *path CLEANUP_FREE = sub ? xasprintf("%s/%s/%s", dir, sub, name) : xasprintf("%s/%s", dir, name);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "write %s", tmp);
	ssize_t w = write(fd, b->data, b->len);
	int errnum = w < 0 ? errno : ENOSPC;
	close(fd);
	if (w != (ssize_t)b->len || rename(tmp, path) < 0) {
		if (w == (ssize_t)b->len)
			errnum = errno;
		unlink(tmp);
		return err_errno(e, errnum, "write %s", path);
	}
	return 0;
}

static void drop(struct hostnet *n, const char *sub, const char *name)
{
	char *path CLEANUP_FREE = xasprintf("%s/%s/%s", n->run_dir, sub, name);
	unlink(path);
}

static void boot_id(char out[64])
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	out[0] = 0;
	if (fs_read("/proc/sys/kernel/random/boot_id", 128, &b, NULL) == 0)
		snprintf(out, 64, "%.*s", (int)strcspn(b.data, "\n"), b.data);
}

int state_save_pool(struct hostnet *n, struct err *e)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	char boot[64], net[16];
	boot_id(boot);
	ipam_format(n->ipam.net, net);
	buf_printf(&b, "boot %s\npool %s/%d\n", boot, net, n->ipam.prefix);
	return save(n, NULL, "pool", &b, e);
}

int state_save_cursor(struct hostnet *n, struct err *e)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	/* It runs ahead of what was given out, so that this file is not written for every container. */
	uint32_t ahead = n->ipam.next + 64;
	buf_printf(&b, "%u\n", ahead);
	int r = save(n, ".", "next", &b, e);
	if (r == 0)
		n->cursor_saved = ahead;
	return r;
}

int state_save_container(struct hostnet *n, const struct net_container *c, struct err *e)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	char addr[16];
	ipam_format(c->addr, addr);
	buf_printf(&b, "address %s\n", addr);
	for (size_t i = 0; i < c->n_ports; i++)
		buf_printf(&b, "port %s %u %u %s\n", c->ports[i].udp ? "udp" : "tcp", c->ports[i].host_port,
		    c->ports[i].container_port, str_or(c->ports[i].host_ip, "0.0.0.0"));
	if (n->ipam.next >= n->cursor_saved || n->cursor_saved - n->ipam.next > 64) {
		int r = state_save_cursor(n, e);
		if (r < 0)
			return r;
	}
	return save(n, "c", c->id, &b, e);
}

int state_save_service(struct hostnet *n, const struct net_service *s, struct err *e)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	for (size_t i = 0; i < s->n_ports; i++)
		buf_printf(&b, "port %s %u %u\n", s->ports[i].udp ? "udp" : "tcp", s->ports[i].published,
		    s->ports[i].target);
	for (size_t i = 0; i < s->backends.n; i++)
		buf_printf(&b, "backend %s\n", s->backends.v[i]);
	return save(n, "s", s->id, &b, e);
}

void state_drop_container(struct hostnet *n, const char *id)
{
	drop(n, "c", id);
}

void state_drop_service(struct hostnet *n, const char *id)
{
	drop(n, "s", id);
}

/* --- reading ---------------------------------------------------------------------------------------- */

static bool parse_port(const char *s, uint16_t *ret)
{
	uint64_t v;
	if (str_parse_u64(s, &v, NULL) < 0 || v == 0 || v > 65535)
		return false;
	*ret = (uint16_t)v;
	return true;
}

static bool parse_proto(const char *s, bool *ret_udp)
{
	*ret_udp = str_eq(s, "udp");
	return *ret_udp || str_eq(s, "tcp");
}

static bool parse_ip(const char *s, uint32_t *ret)
{
	struct in_addr in;
	if (inet_pton(AF_INET, s, &in) != 1)
		return false;
	*ret = ntohl(in.s_addr);
	return true;
}

static bool container_line(struct net_container *c, const struct strlist *w)
{
	if (w->n == 2 && str_eq(w->v[0], "address"))
		return parse_ip(w->v[1], &c->addr);
	if (w->n != 5 || !str_eq(w->v[0], "port"))
		return false;
	struct hostnet_port p = {0};
	uint32_t ip;
	if (!parse_proto(w->v[1], &p.udp) || !parse_port(w->v[2], &p.host_port) ||
	    !parse_port(w->v[3], &p.container_port) || !parse_ip(w->v[4], &ip))
		return false;
	p.host_ip = ip ? xstrdup(w->v[4]) : NULL;
	c->ports = xreallocarray(c->ports, c->n_ports + 1, sizeof(*c->ports));
	c->ports[c->n_ports++] = p;
	return true;
}

static bool service_line(struct net_service *s, const struct strlist *w)
{
	if (w->n == 2 && str_eq(w->v[0], "backend")) {
		strlist_add(&s->backends, w->v[1]);
		return true;
	}
	struct hostnet_ingress_port p = {0};
	if (w->n != 4 || !str_eq(w->v[0], "port") || !parse_proto(w->v[1], &p.udp) ||
	    !parse_port(w->v[2], &p.published) || !parse_port(w->v[3], &p.target))
		return false;
	s->ports = xreallocarray(s->ports, s->n_ports + 1, sizeof(*s->ports));
	s->ports[s->n_ports++] = p;
	return true;
}

static bool read_record(const char *path, bool (*line)(void *data, const struct strlist *words), void *data)
{
	struct buf b CLEANUP_BUF = BUF_INIT;
	if (fs_read(path, RECORD_MAX, &b, NULL) < 0)
		return false;
	struct strlist lines CLEANUP_STRLIST = STRLIST_INIT;
	strlist_split(&lines, b.data ? b.data : "", '\n');
	/* A whole record ends with a newline: the part behind it is empty. */
	if (lines.n == 0 || lines.v[lines.n - 1][0] != 0)
		return false;
	for (size_t i = 0; i + 1 < lines.n; i++) {
		struct strlist words CLEANUP_STRLIST = STRLIST_INIT;
		strlist_split(&words, lines.v[i], ' ');
		if (!line(data, &words))
			return false;
	}
	return true;
}

static bool on_container_line(void *data, const struct strlist *w)
{
	return container_line(data, w);
}

static bool on_service_line(void *data, const struct strlist *w)
{
	return service_line(data, w);
}

static void load_container(struct hostnet *n, const char *id, const char *path)
{
	struct net_container *c = NEW(struct net_container);
	c->id = xstrdup(id);
	struct err e = ERR_INIT;
	if (!read_record(path, on_container_line, c) || !c->addr)
		err_set(&e, ERR_CORRUPT, "record does not parse");
	else
		ipam_take(&n->ipam, c->addr, &e);
	if (e.code) {
		log_warn("network: dropped %s: %s", path, e.text);
		unlink(path);
		net_container_free(c);
		return;
	}
	strmap_put(&n->containers, c->id, c);
}

static void load_service(struct hostnet *n, const char *id, const char *path)
{
	struct net_service *s = NEW(struct net_service);
	s->id = xstrdup(id);
	if (!read_record(path, on_service_line, s)) {
		log_warn("network: dropped %s: record does not parse", path);
		unlink(path);
		net_service_free(s);
		return;
	}
	strmap_put(&n->services, s->id, s);
}

static int load_dir(struct hostnet *n, const char *sub, bool keep,
    void (*load)(struct hostnet *n, const char *id, const char *path), struct err *e)
{
	char *dir CLEANUP_FREE = fs_path(n->run_dir, sub);
	DIR *d = opendir(dir);
	if (!d)
		return err_errno(e, errno, "read %s", dir);
	for (struct dirent *x; (x = readdir(d));) {
		if (state_check_id("record", x->d_name, NULL) < 0)
			continue;
		char *path CLEANUP_FREE = fs_path(dir, x->d_name);
		if (keep)
			load(n, x->d_name, path);
		else
			unlink(path);
	}
	closedir(d);
	return 0;
}

struct pool_record {
	char boot[64];
	uint32_t net;
	int prefix;
};

static bool on_pool_line(void *data, const struct strlist *w)
{
	struct pool_record *p = data;
	if (w->n != 2)
		return false;
	if (str_eq(w->v[0], "boot"))
		snprintf(p->boot, sizeof(p->boot), "%s", w->v[1]);
	else if (str_eq(w->v[0], "pool"))
		return ipam_parse(w->v[1], &p->net, &p->prefix, NULL) == 0;
	else
		return false;
	return true;
}

static bool on_cursor_line(void *data, const struct strlist *w)
{
	uint64_t v;
	if (w->n != 1 || str_parse_u64(w->v[0], &v, NULL) < 0 || v > UINT32_MAX)
		return false;
	*(uint32_t *)data = (uint32_t)v;
	return true;
}

/* Two passes, because addresses can be taken only after the pool is known: the caller sets up n->ipam when it
 * sees *ret_prefix and calls again with ret_net NULL. */
int state_load(struct hostnet *n, uint32_t *ret_net, int *ret_prefix, uint32_t *ret_next, struct err *e)
{
	static const char *const subs[] = {"c", "s"};
	int d = fs_mkdir_p(n->state_dir, 0700, e);
	if (d < 0)
		return d;
	for (size_t i = 0; i < 2; i++) {
		char *dir CLEANUP_FREE = fs_path(n->run_dir, subs[i]);
		int r = fs_mkdir_p(dir, 0700, e);
		if (r < 0)
			return r;
	}
	char *path CLEANUP_FREE = fs_path(n->state_dir, "pool");
	struct pool_record p = {.net = 0};
	char boot[64];
	boot_id(boot);
	if (!read_record(path, on_pool_line, &p))
		p = (struct pool_record){.net = 0};
	if (ret_net) {
		*ret_net = p.net;
		*ret_prefix = p.prefix;
		char *next CLEANUP_FREE = fs_path(n->run_dir, "next");
		if (!read_record(next, on_cursor_line, ret_next))
			*ret_next = 0;
		return 0;
	}
	bool same_boot = str_eq(boot, p.boot) && p.net == n->ipam.net && p.prefix == n->ipam.prefix;
	int r = load_dir(n, "c", same_boot, load_container, e);
	return r < 0 ? r : load_dir(n, "s", same_boot, load_service, e);
}
