/* A container as JSON: a line of the list, and the whole for inspection. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "node/api/containers.h"
#include "node/api/resources.h"
#include "proto/pb.h"

#define TIME_NEVER "0001-01-01T00:00:00Z"

/* --- small parts */

static void set_str(json_t *o, const char *key, const char *value)
{
	json_t *s = json_string(str_or(value, ""));
	json_object_set_new(o, key, s ? s : json_string("?")); /* not UTF-8 */
}

static void set_int(json_t *o, const char *key, int64_t v)
{
	json_object_set_new(o, key, json_integer(v));
}

static void set_bool(json_t *o, const char *key, bool v)
{
	json_object_set_new(o, key, json_boolean(v));
}

static void set_time(json_t *o, const char *key, bool has, int64_t ns)
{
	char t[40];
	if (has)
		str_format_time(ns, t);
	set_str(o, key, has ? t : TIME_NEVER);
}

static json_t *strings(char *const *v, size_t n)
{
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++) {
		json_t *s = json_string(v[i]);
		json_array_append_new(a, s ? s : json_string("?"));
	}
	return a;
}

/* null when empty, as Go prints a slice that was never made. */
static json_t *strings_or_null(char *const *v, size_t n)
{
	return n ? strings(v, n) : json_null();
}

static json_t *kvs(Pb__KV *const *v, size_t n)
{
	json_t *o = json_object();
	for (size_t i = 0; i < n; i++)
		set_str(o, v[i]->key, v[i]->value);
	return o;
}

static const char *protocol_word(int p)
{
	return p == PB__PORT_PROTOCOL__E__UDP ? "udp" : p == PB__PORT_PROTOCOL__E__SCTP ? "sctp" : "tcp";
}

/* The nth word of entrypoint and cmd together; NULL behind the last. */
static const char *word_at(const Pb__ContainerConfig *g, size_t i)
{
	if (i < g->n_entrypoint)
		return g->entrypoint[i];
	i -= g->n_entrypoint;
	return i < g->n_cmd ? g->cmd[i] : NULL;
}

static char *command_line(const Pb__ContainerConfig *g)
{
	struct buf b = BUF_INIT;
	const char *w;
	for (size_t i = 0; (w = word_at(g, i)); i++)
		buf_printf(&b, i && strchr(w, ' ') ? "%s'%s'" : "%s%s", i ? " " : "", w);
	return buf_take(&b, NULL);
}

/* --- network */

/* With the host ports that were bound. */
static json_t *port_list(const Pb__Container *c, const json_t *exposed)
{
	const Pb__ContainerNetworkState *n = c->network;
	json_t *a = json_array();
	for (size_t i = 0; n && i < n->n_ports; i++) {
		const Pb__ContainerPort *p = n->ports[i];
		json_t *o = json_object();
		if (p->has_host_port && p->host_port)
			set_str(o, "IP", str_or(p->host_ip, "0.0.0.0"));
		set_int(o, "PrivatePort", p->container_port);
		if (p->has_host_port && p->host_port)
			set_int(o, "PublicPort", p->host_port);
		set_str(o, "Type", protocol_word((int)p->protocol));
		json_array_append_new(a, o);
	}
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)exposed, key, v)
	{
		unsigned port;
		char type[8] = "tcp";
		bool bound = false;
		if (sscanf(key, "%5u/%7s", &port, type) < 1)
			continue;
		for (size_t i = 0; n && i < n->n_ports; i++)
			bound |= n->ports[i]->container_port == port &&
				 str_eq(protocol_word((int)n->ports[i]->protocol), type);
		if (!bound)
			json_array_append_new(
			    a, json_pack("{s:i, s:s}", "PrivatePort", (int)port, "Type", type));
	}
	return a;
}

/* {"80/tcp": [{"HostIp","HostPort"}] or null} */
static json_t *port_map(Pb__ContainerPort *const *ports, size_t n, const json_t *exposed)
{
	json_t *o = json_object();
	for (size_t i = 0; i < n; i++) {
		const Pb__ContainerPort *p = ports[i];
		char key[24], host[12];
		snprintf(key, sizeof(key), "%u/%s", p->container_port, protocol_word((int)p->protocol));
		snprintf(host, sizeof(host), "%u", p->host_port);
		json_t *list = json_object_get(o, key);
		if (!list) {
			list = json_array();
			json_object_set_new(o, key, list);
		}
		json_array_append_new(list, json_pack("{s:s, s:s}", "HostIp", str_or(p->host_ip, "0.0.0.0"),
						"HostPort", p->host_port ? host : ""));
	}
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)exposed, key, v) if (!json_object_get(o, key))
	    json_object_set_new(o, key, json_null());
	return o;
}

static void split_address(const Pb__Container *c, char ip[64], int *ret_prefix)
{
	const char *a = c->network ? str_or(c->network->address, "") : "";
	const char *slash = strchr(a, '/');
	size_t n = slash ? (size_t)(slash - a) : strlen(a);
	snprintf(ip, 64, "%.*s", (int)n, a);
	*ret_prefix = slash ? atoi(slash + 1) : 0;
}

/* {"bridge": {...}} */
static json_t *networks(const Pb__Container *c)
{
	char ip[64];
	int prefix;
	const Pb__ContainerNetworkState *n = c->network;
	split_address(c, ip, &prefix);
	json_t *o = json_object(), *all = json_object();
	json_object_set_new(o, "IPAMConfig", json_null());
	json_object_set_new(o, "Links", json_null());
	json_object_set_new(o, "Aliases", json_null());
	set_str(o, "MacAddress", n ? n->mac : "");
	json_object_set_new(o, "DriverOpts", json_null());
	set_str(o, "NetworkID", api_network_id(container_network_mode(c)));
	/* A container has one endpoint, so its id names that too. */
	set_str(o, "EndpointID", n ? c->id : "");
	set_str(o, "Gateway", n ? n->gateway : "");
	set_str(o, "IPAddress", ip);
	set_int(o, "IPPrefixLen", prefix);
	set_str(o, "IPv6Gateway", "");
	set_str(o, "GlobalIPv6Address", "");
	set_int(o, "GlobalIPv6PrefixLen", 0);
	json_object_set_new(o, "DNSNames", json_null());
	json_object_set_new(all, container_network_mode(c), o);
	return all;
}

static json_t *network_settings(const Pb__Container *c, const json_t *exposed)
{
	char ip[64];
	int prefix;
	const Pb__ContainerNetworkState *n = c->network;
	split_address(c, ip, &prefix);
	json_t *o = json_object();
	set_str(o, "Bridge", "");
	set_str(o, "SandboxID", n ? c->id : "");
	set_str(o, "SandboxKey", n ? n->netns : "");
	json_object_set_new(
	    o, "Ports", n ? port_map(n->ports, n->n_ports, exposed) : port_map(NULL, 0, NULL));
	set_bool(o, "HairpinMode", false);
	set_str(o, "LinkLocalIPv6Address", "");
	set_int(o, "LinkLocalIPv6PrefixLen", 0);
	json_object_set_new(o, "SecondaryIPAddresses", json_null());
	json_object_set_new(o, "SecondaryIPv6Addresses", json_null());
	set_str(o, "EndpointID", n ? c->id : "");
	set_str(o, "Gateway", n ? n->gateway : "");
	set_str(o, "GlobalIPv6Address", "");
	set_int(o, "GlobalIPv6PrefixLen", 0);
	set_str(o, "IPAddress", ip);
	set_int(o, "IPPrefixLen", prefix);
	set_str(o, "IPv6Gateway", "");
	set_str(o, "MacAddress", n ? n->mac : "");
	json_object_set_new(o, "Networks", networks(c));
	return o;
}

/* --- mounts */

static json_t *mount_points(const Pb__ContainerConfig *g)
{
	json_t *a = json_array();
	for (size_t i = 0; i < g->n_mounts; i++) {
		const Pb__ContainerMount *m = g->mounts[i];
		json_t *o = json_object();
		set_str(o, "Type", m->type);
		if (m->volume_name) {
			set_str(o, "Name", m->volume_name);
			set_str(o, "Driver", "local");
		}
		set_str(o, "Source", m->source);
		set_str(o, "Destination", m->target);
		set_str(o, "Mode", "");
		set_bool(o, "RW", !m->read_only);
		set_str(o, "Propagation", str_eq(m->type, "bind") ? str_or(m->propagation, "rprivate") : "");
		json_array_append_new(a, o);
	}
	return a;
}

/* As HostConfig.Mounts has them: what was asked for. */
static json_t *mount_specs(const Pb__ContainerConfig *g)
{
	json_t *a = json_array();
	for (size_t i = 0; i < g->n_mounts; i++) {
		const Pb__ContainerMount *m = g->mounts[i];
		json_t *o = json_object(), *opt = json_object();
		set_str(o, "Type", m->type);
		if (m->volume_name || m->source)
			set_str(o, "Source", m->volume_name ? m->volume_name : m->source);
		set_str(o, "Target", m->target);
		if (m->read_only)
			set_bool(o, "ReadOnly", true);
		if (m->propagation)
			set_str(opt, "Propagation", m->propagation);
		if (m->non_recursive)
			set_bool(opt, "NonRecursive", true);
		if (m->has_tmpfs_size)
			set_int(opt, "SizeBytes", m->tmpfs_size);
		if (m->has_tmpfs_mode)
			set_int(opt, "Mode", m->tmpfs_mode);
		if (json_object_size(opt))
			json_object_set(o, str_eq(m->type, "tmpfs") ? "TmpfsOptions" : "BindOptions", opt);
		json_decref(opt);
		json_array_append_new(a, o);
	}
	return a;
}

/* --- the list */

/* Ports that the image says it listens on; borrowed from *ret_image. */
static const json_t *exposed_ports(struct api_local *l, const Pb__Container *c, struct image **ret_image)
{
	if (!l->images || images_find(l->images, c->config->image_id, ret_image, NULL) != 0)
		return NULL;
	return json_get(json_get((*ret_image)->config, "config"), "ExposedPorts");
}

json_t *container_list_json(struct api_local *l, const Pb__Container *c, int64_t now_ns)
{
	const Pb__ContainerConfig *g = c->config;
	struct image *image = NULL;
	char status[96];
	json_t *o = json_object(), *names = json_array();
	CLEANUP_FREE char *name = xasprintf("/%s", g->name);
	CLEANUP_FREE char *command = command_line(g);
	set_str(o, "Id", c->id);
	json_array_append_new(names, json_string(name));
	json_object_set_new(o, "Names", names);
	set_str(o, "Image", g->image);
	set_str(o, "ImageID", g->image_id);
	set_str(o, "Command", command);
	set_int(o, "Created", c->created_at / NS_PER_SEC);
	json_object_set_new(
	    o, "Ports", container_is_running(c) ? port_list(c, exposed_ports(l, c, &image)) : json_array());
	json_object_set_new(o, "Labels", kvs(g->labels, g->n_labels));
	set_str(o, "State", container_state_word(c));
	container_status_words(c, now_ns, status, sizeof(status));
	set_str(o, "Status", status);
	json_object_set_new(o, "HostConfig", json_pack("{s:s}", "NetworkMode", container_network_mode(c)));
	json_object_set_new(o, "NetworkSettings", json_pack("{s:o}", "Networks", networks(c)));
	json_object_set_new(o, "Mounts", mount_points(g));
	if (image)
		image_unref(image);
	return o;
}

/* --- inspection */

static json_t *health_json(struct api_local *l, const Pb__Container *c)
{
	struct health_info h;
	json_t *o = json_object(), *log = json_array();
	set_str(o, "Status", c->health);
	set_int(o, "FailingStreak", 0);
	if (l->engine && engine_health(l->engine, c->id, &h)) {
		set_str(o, "Status", h.status);
		set_int(o, "FailingStreak", h.failing_streak);
		for (size_t i = 0; i < h.n_log; i++) {
			json_t *r = json_object();
			set_time(r, "Start", true, h.log[i]->start);
			set_time(r, "End", true, h.log[i]->end);
			set_int(r, "ExitCode", h.log[i]->exit_code);
			set_str(r, "Output", h.log[i]->output);
			json_array_append_new(log, r);
		}
	}
	json_object_set_new(o, "Log", log);
	return o;
}

static json_t *state_json(struct api_local *l, const Pb__Container *c)
{
	json_t *o = json_object();
	set_str(o, "Status", container_state_word(c));
	set_bool(o, "Running", container_is_running(c));
	set_bool(o, "Paused", c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED);
	set_bool(o, "Restarting", false);
	set_bool(o, "OOMKilled", c->oom_killed);
	set_bool(o, "Dead", c->status == PB__CONTAINER_STATUS_KIND__E__DEAD);
	set_int(o, "Pid", container_is_running(c) ? c->pid : 0);
	set_int(o, "ExitCode", c->has_exit_code ? c->exit_code : c->exit_unknown ? -1 : 0);
	set_str(o, "Error",
	    c->exit_unknown && str_empty(c->error) ? "its monitor was killed: the exit code is unknown"
						   : c->error);
	set_time(o, "StartedAt", c->has_started_at, c->started_at);
	set_time(o, "FinishedAt", c->has_finished_at, c->finished_at);
	if (c->health)
		json_object_set_new(o, "Health", health_json(l, c));
	return o;
}

static json_t *extra_hosts(const Pb__ContainerConfig *g)
{
	json_t *a = json_array();
	for (size_t i = 0; i < g->n_hosts; i++) {
		/* "IP name name" -> "name:IP" each */
		CLEANUP_STRLIST struct strlist w = STRLIST_INIT;
		strlist_split(&w, g->hosts[i], ' ');
		for (size_t k = 1; k < w.n; k++) {
			CLEANUP_FREE char *s = xasprintf("%s:%s", w.v[k], w.v[0]);
			if (*w.v[k])
				json_array_append_new(a, json_string(s));
		}
	}
	return a;
}

static json_t *ulimits(const Pb__ContainerConfig *g)
{
	json_t *a = json_array();
	for (size_t i = 0; i < g->n_ulimits; i++) {
		const Pb__Ulimit *u = g->ulimits[i];
		json_array_append_new(a, json_pack("{s:s, s:I, s:I}", "Name", str_or(u->name, ""), "Hard",
					     (json_int_t)u->hard, "Soft", (json_int_t)u->soft));
	}
	return a;
}

static json_t *security_options(const Pb__ContainerConfig *g)
{
	json_t *a = json_array();
	if (g->no_new_privileges)
		json_array_append_new(a, json_string("no-new-privileges"));
	if (!str_empty(g->seccomp_mode) && !str_eq(g->seccomp_mode, "default")) {
		CLEANUP_FREE char *s = xasprintf("seccomp=%s", g->seccomp_mode);
		json_array_append_new(a, json_string(s));
	}
	if (json_array_size(a))
		return a;
	json_decref(a);
	return json_null();
}

/* What this version never sets has the value that docker shows for its absence. */
static void host_config_constants(json_t *o)
{
	static const char *const nulls[] = {"Binds", "VolumesFrom", "Links", "Devices", "DeviceCgroupRules",
	    "DeviceRequests", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps",
	    "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"};
	static const char *const empty[] = {"ContainerIDFile", "VolumeDriver", "Cgroup", "PidMode", "UTSMode",
	    "UsernsMode", "Isolation", "CgroupParent", "CpusetCpus", "CpusetMems"};
	static const char *const zero[] = {"CpuShares", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod",
	    "CpuRealtimeRuntime", "BlkioWeight", "MemoryReservation", "MemorySwap", "CpuCount", "CpuPercent",
	    "IOMaximumIOps", "IOMaximumBandwidth"};
	static const char *const no[] = {"AutoRemove", "Privileged", "PublishAllPorts"};
	for (size_t i = 0; i < ARRAY_LEN(nulls); i++)
		json_object_set_new(o, nulls[i], json_null());
	for (size_t i = 0; i < ARRAY_LEN(empty); i++)
		set_str(o, empty[i], "");
	for (size_t i = 0; i < ARRAY_LEN(zero); i++)
		set_int(o, zero[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		set_bool(o, no[i], false);
	json_object_set_new(
	    o, "RestartPolicy", json_pack("{s:s, s:i}", "Name", "no", "MaximumRetryCount", 0));
	json_object_set_new(o, "MemorySwappiness", json_null());
	json_object_set_new(o, "OomKillDisable", json_false());
	json_object_set_new(o, "ConsoleSize", json_pack("[i, i]", 0, 0));
	set_str(o, "IpcMode", "private");
	set_int(o, "ShmSize", 64 * 1024 * 1024);
}

/* Of the one that made it, which a restart may have replaced by another. */
static const char *runtime_name(const struct api_local *l, const Pb__Container *c)
{
	const char *slash = c->runtime ? strrchr(c->runtime, '/') : NULL;
	if (c->runtime)
		return slash ? slash + 1 : c->runtime;
	return l->engine ? engine_runtime(l->engine) : "";
}

static json_t *host_config(struct api_local *l, const Pb__Container *c, const Pb__ContainerConfig *g)
{
	json_t *o = json_object();
	const Pb__DNSConfig *d = g->dns_config;
	host_config_constants(o);
	json_object_set_new(o, "LogConfig",
	    json_pack("{s:s, s:o}", "Type", str_or(g->log_driver, "json-file"), "Config",
		kvs(g->log_options, g->n_log_options)));
	set_str(o, "NetworkMode", str_or(g->network_mode, "bridge"));
	json_object_set_new(o, "PortBindings", port_map(g->ports, g->n_ports, NULL));
	json_object_set_new(o, "CapAdd", strings_or_null(g->capability_add, g->n_capability_add));
	json_object_set_new(o, "CapDrop", strings_or_null(g->capability_drop, g->n_capability_drop));
	set_str(
	    o, "CgroupnsMode", l->engine && str_eq(engine_cgroup_mode(l->engine), "v2") ? "private" : "host");
	json_object_set_new(o, "Dns", d ? strings(d->nameservers, d->n_nameservers) : json_array());
	json_object_set_new(o, "DnsOptions", d ? strings(d->options, d->n_options) : json_array());
	json_object_set_new(o, "DnsSearch", d ? strings(d->search, d->n_search) : json_array());
	json_object_set_new(o, "ExtraHosts", extra_hosts(g));
	json_object_set_new(o, "GroupAdd", strings_or_null(g->groups, g->n_groups));
	set_int(o, "OomScoreAdj", g->oom_score_adj);
	set_bool(o, "ReadonlyRootfs", g->read_only);
	json_object_set_new(o, "SecurityOpt", security_options(g));
	if (g->n_sysctls)
		json_object_set_new(o, "Sysctls", kvs(g->sysctls, g->n_sysctls));
	set_str(o, "Runtime", runtime_name(l, c));
	set_int(o, "Memory", g->memory_bytes);
	set_int(o, "NanoCpus", g->nano_cpus);
	json_object_set_new(o, "PidsLimit", g->has_pids_limit ? json_integer(g->pids_limit) : json_null());
	json_object_set_new(o, "Ulimits", ulimits(g));
	json_object_set_new(o, "Mounts", mount_specs(g));
	if (g->has_init)
		set_bool(o, "Init", g->init);
	return o;
}

static json_t *config_json(const Pb__Container *c, const json_t *exposed)
{
	const Pb__ContainerConfig *g = c->config;
	json_t *o = json_object();
	char hostname[13];
	snprintf(hostname, sizeof(hostname), "%.12s", c->id);
	set_str(o, "Hostname", str_or(g->hostname, hostname));
	set_str(o, "Domainname", "");
	set_str(o, "User", g->user);
	set_bool(o, "AttachStdin", false);
	set_bool(o, "AttachStdout", false);
	set_bool(o, "AttachStderr", false);
	if (exposed)
		json_object_set(o, "ExposedPorts", (json_t *)(uintptr_t)exposed);
	set_bool(o, "Tty", g->tty);
	set_bool(o, "OpenStdin", g->open_stdin);
	set_bool(o, "StdinOnce", false);
	json_object_set_new(o, "Env", strings(g->env, g->n_env));
	json_object_set_new(o, "Cmd", strings_or_null(g->cmd, g->n_cmd));
	if (g->healthcheck)
		json_object_set_new(o, "Healthcheck", json_from_msg(g->healthcheck));
	set_str(o, "Image", g->image);
	json_object_set_new(o, "Volumes", json_null());
	set_str(o, "WorkingDir", g->working_dir);
	json_object_set_new(o, "Entrypoint", strings_or_null(g->entrypoint, g->n_entrypoint));
	json_object_set_new(o, "OnBuild", json_null());
	json_object_set_new(o, "Labels", kvs(g->labels, g->n_labels));
	if (!str_empty(g->stop_signal))
		set_str(o, "StopSignal", g->stop_signal);
	if (g->has_stop_grace_period)
		set_int(o, "StopTimeout", g->stop_grace_period / NS_PER_SEC);
	return o;
}

json_t *container_inspect_json(struct api_local *l, const Pb__Container *c)
{
	const Pb__ContainerConfig *g = c->config;
	struct image *image = NULL;
	const json_t *exposed = exposed_ports(l, c, &image);
	json_t *o = json_object(), *args = json_array();
	CLEANUP_FREE char *name = xasprintf("/%s", g->name);
	CLEANUP_FREE char *log = l->engine ? engine_log_path(l->engine, c->id) : NULL;
	const char *w;
	set_str(o, "Id", c->id);
	set_time(o, "Created", true, c->created_at);
	set_str(o, "Path", word_at(g, 0));
	for (size_t i = 1; (w = word_at(g, i)); i++)
		json_array_append_new(args, json_string(w));
	json_object_set_new(o, "Args", args);
	json_object_set_new(o, "State", state_json(l, c));
	set_str(o, "Image", g->image_id);
	set_str(o, "LogPath", str_eq(g->log_driver, "none") ? "" : log);
	set_str(o, "Name", name);
	set_int(o, "RestartCount", 0);
	set_str(o, "Driver", "overlay2");
	set_str(o, "Platform", "linux");
	set_str(o, "MountLabel", "");
	set_str(o, "ProcessLabel", "");
	set_str(o, "AppArmorProfile", "");
	json_object_set_new(o, "ExecIDs", json_null());
	json_object_set_new(o, "HostConfig", host_config(l, c, g));
	json_object_set_new(o, "GraphDriver", json_pack("{s:s, s:n}", "Name", "overlay2", "Data"));
	json_object_set_new(o, "Mounts", mount_points(g));
	json_object_set_new(o, "Config", config_json(c, exposed));
	json_object_set_new(o, "NetworkSettings", network_settings(c, exposed));
	if (image)
		image_unref(image);
	return o;
}
