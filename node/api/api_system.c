/* The engine itself: ping, version, info, disk usage. */
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "node/api/resources.h"

static void ping(void *data, struct http_req *r)
{
	const struct manager_if *m = &api_deps(data)->manager;
	struct api_node_state st;
	m->state(m->data, &st);
	http_set_header(r, "Cache-Control", "no-cache, no-store, must-revalidate");
	http_set_header(r, "Pragma", "no-cache");
	/* Clients hide what this node could not do. */
	if (strcmp(st.state, "active") != 0)
		http_set_header(r, "Swarm", st.state);
	else
		http_set_header(r, "Swarm", st.control_available ? "active/manager" : "active/worker");
	http_reply(r, 200, "text/plain; charset=utf-8", "OK", strcmp(http_method(r), "HEAD") == 0 ? 0 : 2);
}

static const char *go_arch(const char *machine)
{
	return strcmp(machine, "x86_64") == 0 ? "amd64" : strcmp(machine, "aarch64") == 0 ? "arm64" : machine;
}

static void version(void *data, struct http_req *r)
{
	struct utsname u = {.machine = "unknown"};
	(void)data;
	uname(&u);
	json_t *details =
	    json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "ApiVersion", API_VERSION_MAX, "Arch",
		go_arch(u.machine), "BuildTime", "", "Experimental", "false", "GitCommit", "", "GoVersion",
		"", "KernelVersion", u.release, "MinAPIVersion", API_VERSION_MIN, "Os", "linux");
	json_t *engine =
	    json_pack("{s:s, s:s, s:o}", "Name", "Engine", "Version", API_ENGINE_VERSION, "Details", details);
	http_reply_json(r, 200,
	    json_pack("{s:{s:s}, s:[o], s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "Platform", "Name",
		"Shoal", "Components", engine, "Version", API_ENGINE_VERSION, "ApiVersion", API_VERSION_MAX,
		"MinAPIVersion", API_VERSION_MIN, "GitCommit", "", "GoVersion", "", "Os", "linux", "Arch",
		go_arch(u.machine), "KernelVersion", u.release, "BuildTime", ""));
}

/* PRETTY_NAME of os-release. */
static char *os_name(void)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	if (fs_read("/etc/os-release", 64 * 1024, &b, NULL) != 0 &&
	    fs_read("/usr/lib/os-release", 64 * 1024, &b, NULL) != 0)
		return xstrdup("Linux");
	const char *p = b.data ? strstr(b.data, "PRETTY_NAME=\"") : NULL;
	if (!p)
		return xstrdup("Linux");
	p += strlen("PRETTY_NAME=\"");
	return xstrndup(p, strcspn(p, "\"\n"));
}

static void set_str(json_t *o, const char *key, const char *value)
{
	json_object_set_new(o, key, json_string(value));
}

static json_t *swarm_info(const struct api_deps *d)
{
	struct api_node_state st;
	json_t *o = json_object();
	d->manager.state(d->manager.data, &st);
	set_str(o, "NodeID", st.node_id);
	set_str(o, "NodeAddr", st.node_addr);
	set_str(o, "LocalNodeState", st.state);
	json_object_set_new(o, "ControlAvailable", json_boolean(st.control_available));
	set_str(o, "Error", st.error);
	json_object_set_new(o, "RemoteManagers", json_null());
	const struct store *s = st.control_available ? d->manager.store(d->manager.data, NULL) : NULL;
	if (!s)
		return o;
	json_t *managers = json_array();
	struct store_iter it;
	const struct object *n;
	json_int_t nodes = 0;
	store_iter_init(&it, s, OBJ(NODE), STORE_ALL, NULL);
	while ((n = store_iter_next(&it))) {
		nodes++;
		if (n->node->manager_status)
			json_array_append_new(managers, json_pack("{s:s, s:s}", "NodeID", n->node->id, "Addr",
							    str_or(n->node->manager_status->addr, "")));
	}
	json_object_set_new(o, "Nodes", json_integer(nodes));
	json_object_set_new(o, "Managers", json_integer((json_int_t)json_array_size(managers)));
	json_object_set_new(o, "RemoteManagers", managers);
	const Pb__Cluster *c = store_cluster(s);
	if (c)
		json_object_set_new(o, "Cluster", json_from_msg(c));
	return o;
}

static void info(void *data, struct http_req *r)
{
	const struct api_deps *d = api_deps(data);
	struct utsname u = {.machine = "unknown"};
	struct sysinfo si = {.mem_unit = 1};
	char host[256] = "localhost", now[40];
	CLEANUP_FREE char *os = os_name();
	uname(&u);
	sysinfo(&si);
	gethostname(host, sizeof(host) - 1);
	str_format_time(clock_unix_ns(d->clock), now);
	struct api_node_state st;
	d->manager.state(d->manager.data, &st);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:i, s:[], s:[], s:[], s:{}}", "Containers", 0,
	    "ContainersRunning", 0, "ContainersPaused", 0, "ContainersStopped", 0, "Images", 0, "Labels",
	    "DriverStatus", "SecurityOptions", "Runtimes");
	set_str(o, "ID", st.node_id[0] ? st.node_id : host);
	set_str(o, "Name", d->hostname ? d->hostname : host);
	set_str(o, "ServerVersion", API_ENGINE_VERSION);
	set_str(o, "OSType", "linux");
	set_str(o, "OperatingSystem", os);
	set_str(o, "OSVersion", "");
	set_str(o, "Architecture", u.machine);
	set_str(o, "KernelVersion", u.release);
	set_str(o, "SystemTime", now);
	set_str(o, "Driver", "");
	set_str(o, "LoggingDriver", "json-file");
	set_str(o, "CgroupDriver", "");
	set_str(o, "DockerRootDir", str_or(d->data_root, ""));
	set_str(o, "IndexServerAddress", "https://index.docker.io/v1/");
	set_str(o, "DefaultRuntime", "");
	set_str(o, "Isolation", "");
	set_str(o, "InitBinary", "tini");
	json_object_set_new(o, "NCPU", json_integer(cpus > 0 ? cpus : 1));
	json_object_set_new(o, "MemTotal", json_integer((json_int_t)si.totalram * si.mem_unit));
	static const char *const on[] = {"MemoryLimit", "CpuCfsPeriod", "CpuCfsQuota", "PidsLimit",
	    "IPv4Forwarding", "OomKillDisable", "LiveRestoreEnabled", "CPUShares", "CPUSet", "SwapLimit"};
	for (size_t i = 0; i < ARRAY_LEN(on); i++)
		json_object_set_new(o, on[i], json_true());
	json_object_set_new(o, "Debug", json_false());
	json_object_set_new(o, "ExperimentalBuild", json_false());
	json_object_set_new(o, "BridgeNfIptables", json_true());
	json_object_set_new(o, "BridgeNfIp6tables", json_true());
	json_object_set_new(o, "Warnings", json_null());
	json_object_set_new(o, "Plugins",
	    json_pack("{s:[], s:[s,s,s], s:n, s:[s,s]}", "Volume", "Network", "bridge", "host", "null",
		"Authorization", "Log", "json-file", "none"));
	json_object_set_new(o, "Swarm", swarm_info(d));
	if (d->engine.info)
		d->engine.info(d->engine.data, o);
	http_reply_json(r, 200, o);
}

/* --- what docker lists or prunes with the rest, and there is none of */

static void no_plugins(void *data, struct http_req *r)
{
	(void)data;
	http_reply_json(r, 200, json_array());
}

static void no_build_cache(void *data, struct http_req *r)
{
	(void)data;
	http_reply_json(r, 200, json_pack("{s:n, s:i}", "CachesDeleted", "SpaceReclaimed", 0));
}

void api_system_register(struct api *a)
{
	api_route(a, "GET", "/_ping", ping, a);
	api_route(a, "GET", "/version", version, a);
	api_route(a, "GET", "/info", info, a);
	api_route(a, "GET", "/plugins", no_plugins, a);
	api_route(a, "POST", "/build/prune", no_build_cache, a);
}
