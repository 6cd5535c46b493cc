/* What container a task becomes: the service's template, over the image's defaults, with Swarm's labels and
 * names.
 *
 * Follows Docker: Command replaces the image's entrypoint and drops its Cmd; Args replace Cmd; Env is the
 * image's, overridden key by key. */
#include "agent/agent_private.h"
#include "agent/task_template.h"

#include <string.h>

#include "base/mem.h"
#include "proto/json.h"
#include "proto/pb.h"

char *task_container_name(const Pb__AssignedTask *t, const char *node_id)
{
	const char *service = str_empty(t->service_name) ? t->service_id : t->service_name;
	if (t->has_slot && t->slot)
		return xasprintf("%s.%llu.%s", service, (unsigned long long)t->slot, t->id);
	return xasprintf("%s.%s.%s", service, node_id, t->id);
}

static void add_kv(Pb__KV ***v, size_t *n, const char *key, const char *value)
{
	for (size_t i = 0; i < *n; i++) {
		if (strcmp((*v)[i]->key, key) == 0) {
			pb_set_str(&(*v)[i]->value, value);
			return;
		}
	}
	Pb__KV *kv = PB_NEW(Pb__KV, pb__kv);
	kv->key = xstrdup(key);
	kv->value = xstrdup(value);
	pb_add_msg(v, n, kv);
}

static void add_json_strings(char ***v, size_t *n, const json_t *arr)
{
	size_t i;
	json_t *s;
	json_array_foreach(arr, i, s) if (json_is_string(s)) pb_add_str(v, n, json_string_value(s));
}

static size_t env_key_len(const char *s)
{
	const char *eq = strchr(s, '=');
	return eq ? (size_t)(eq - s) : strlen(s);
}

/* "K=V" sets or replaces; "K" alone takes K away, as docker does. */
static void set_env(Pb__ContainerConfig *c, const char *entry)
{
	size_t k = env_key_len(entry);
	for (size_t i = 0; i < c->n_env; i++) {
		if (env_key_len(c->env[i]) != k || strncmp(c->env[i], entry, k) != 0)
			continue;
		free(c->env[i]);
		if (entry[k] == '=') {
			c->env[i] = xstrdup(entry);
		} else {
			memmove(&c->env[i], &c->env[i + 1], (c->n_env - i - 1) * sizeof(char *));
			c->n_env--;
		}
		return;
	}
	if (entry[k] == '=')
		pb_add_str(&c->env, &c->n_env, entry);
}

/* Templates stand in values, not in names. */
static int set_env_expanded(Pb__ContainerConfig *c, const char *entry, json_t *context, struct err *e)
{
	const char *eq = strchr(entry, '=');
	if (!eq || !strstr(eq, "{{")) {
		set_env(c, entry);
		return 0;
	}
	CLEANUP_FREE char *value = NULL, *whole = NULL;
	int rc = task_template_expand("Env", eq + 1, context, &value, e);
	if (rc != 0)
		return rc;
	whole = xasprintf("%.*s=%s", (int)(eq - entry), entry, value);
	set_env(c, whole);
	return 0;
}

static int make_env(Pb__ContainerConfig *c, const struct task_config_in *in, const json_t *image,
    json_t *context, struct err *e)
{
	const Pb__ContainerSpec *s = in->tmpl->spec->container_spec;
	set_env(c, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	CLEANUP_FREE char *host = xasprintf("HOSTNAME=%s", c->hostname ? c->hostname : "");
	if (c->hostname)
		set_env(c, host);
	if (c->tty)
		set_env(c, "TERM=xterm");
	size_t i;
	json_t *v;
	json_array_foreach(json_get(image, "Env"), i, v) if (json_is_string(v))
	    set_env(c, json_string_value(v));
	for (i = 0; i < s->n_env; i++) {
		int rc = set_env_expanded(c, s->env[i], context, e);
		if (rc != 0)
			return rc;
	}
	for (i = 0; i < in->task->n_generic_resources; i++) {
		const Pb__GenericResource *g = in->task->generic_resources[i];
		CLEANUP_FREE char *r = NULL;
		if (g->named_resource_spec)
			r = xasprintf("DOCKER_RESOURCE_%s=%s", g->named_resource_spec->kind,
			    g->named_resource_spec->value);
		else if (g->discrete_resource_spec)
			r = xasprintf("DOCKER_RESOURCE_%s=%lld", g->discrete_resource_spec->kind,
			    (long long)g->discrete_resource_spec->value);
		if (r)
			set_env(c, r);
	}
	return 0;
}

static void make_command(Pb__ContainerConfig *c, const Pb__ContainerSpec *s, const json_t *image)
{
	for (size_t i = 0; i < s->n_command; i++)
		pb_add_str(&c->entrypoint, &c->n_entrypoint, s->command[i]);
	for (size_t i = 0; i < s->n_args; i++)
		pb_add_str(&c->cmd, &c->n_cmd, s->args[i]);
	if (s->n_command)
		return;
	add_json_strings(&c->entrypoint, &c->n_entrypoint, json_get(image, "Entrypoint"));
	if (!s->n_args)
		add_json_strings(&c->cmd, &c->n_cmd, json_get(image, "Cmd"));
}

static void make_labels(Pb__ContainerConfig *c, const struct task_config_in *in, const json_t *image)
{
	const Pb__ContainerSpec *s = in->tmpl->spec->container_spec;
	const char *key;
	json_t *v;
	json_object_foreach(json_get(image, "Labels"), key, v) if (json_is_string(v))
	    add_kv(&c->labels, &c->n_labels, key, json_string_value(v));
	for (size_t i = 0; i < s->n_labels; i++)
		add_kv(&c->labels, &c->n_labels, s->labels[i]->key, s->labels[i]->value);
	const char *const system[][2] = {
	    {"com.docker.swarm.task", ""},
	    {"com.docker.swarm.task.id", in->task->id},
	    {"com.docker.swarm.task.name", c->name},
	    {"com.docker.swarm.node.id", in->node_id},
	    {"com.docker.swarm.service.id", str_or(in->task->service_id, "")},
	    {"com.docker.swarm.service.name", str_or(in->task->service_name, "")},
	};
	for (size_t i = 0; i < ARRAY_LEN(system); i++)
		add_kv(&c->labels, &c->n_labels, system[i][0], system[i][1]);
}

static int make_mounts(Pb__ContainerConfig *c, const Pb__ContainerSpec *s, json_t *context, struct err *e)
{
	for (size_t i = 0; i < s->n_mounts; i++) {
		const Pb__Mount *m = s->mounts[i];
		if (!str_eq(m->type, "bind") && !str_eq(m->type, "tmpfs"))
			return err_set(e, ERR_INVALID, "mount of type \"%s\" at %s is not supported",
			    str_or(m->type, ""), str_or(m->target, ""));
		Pb__ContainerMount *o = PB_NEW(Pb__ContainerMount, pb__container_mount);
		pb_add_msg(&c->mounts, &c->n_mounts, o);
		o->type = xstrdup(m->type);
		int rc =
		    m->source ? task_template_expand("Mounts.Source", m->source, context, &o->source, e) : 0;
		if (rc == 0)
			rc = task_template_expand(
			    "Mounts.Target", str_or(m->target, ""), context, &o->target, e);
		if (rc != 0)
			return rc;
		o->has_read_only = true;
		o->read_only = m->has_read_only && m->read_only;
		if (m->bind_options) {
			o->propagation = xstrdup(m->bind_options->propagation);
			o->has_non_recursive = m->bind_options->has_non_recursive;
			o->non_recursive = m->bind_options->non_recursive;
		}
		if (m->tmpfs_options) {
			o->has_tmpfs_size = m->tmpfs_options->has_size_bytes;
			o->tmpfs_size = m->tmpfs_options->size_bytes;
			o->has_tmpfs_mode = m->tmpfs_options->has_mode;
			o->tmpfs_mode = m->tmpfs_options->mode;
		}
	}
	return 0;
}

/* The image's health check, overridden field by field; NONE turns it off. */
static Pb__HealthConfig *make_health(const Pb__HealthConfig *spec, const json_t *image)
{
	json_t *ij = json_get(image, "Healthcheck");
	Pb__HealthConfig *h = NULL;
	if (ij && json_to_msg(ij, &pb__health_config__descriptor, &h, NULL) != 0)
		h = NULL; /* an image with a check that makes no sense has none */
	if (!spec)
		return h;
	if (!spec->n_test && !h)
		return NULL;
	Pb__HealthConfig *out = pb_clone(spec);
	if (h) {
		if (!out->n_test)
			for (size_t i = 0; i < h->n_test; i++)
				pb_add_str(&out->test, &out->n_test, h->test[i]);
#define INHERIT(f)                                                                                           \
	if (!out->has_##f || out->f == 0) {                                                                  \
		out->has_##f = h->has_##f;                                                                   \
		out->f = h->f;                                                                               \
	}
		INHERIT(interval)
		INHERIT(timeout)
		INHERIT(start_period)
		INHERIT(start_interval)
		INHERIT(retries)
#undef INHERIT
		pb_free(h);
	}
	return out;
}

static void copy_strings(char ***v, size_t *n, char *const *from, size_t n_from)
{
	for (size_t i = 0; i < n_from; i++)
		pb_add_str(v, n, from[i]);
}

static void copy_kvs(Pb__KV ***v, size_t *n, Pb__KV *const *from, size_t n_from)
{
	for (size_t i = 0; i < n_from; i++)
		add_kv(v, n, from[i]->key, from[i]->value);
}

static void make_rest(Pb__ContainerConfig *c, const struct task_config_in *in)
{
	const Pb__TaskSpec *ts = in->tmpl->spec;
	const Pb__ContainerSpec *s = ts->container_spec;
#define FLAG(to, from)                                                                                       \
	c->has_##to = s->has_##from;                                                                         \
	c->to = s->from;
	FLAG(open_stdin, open_stdin)
	FLAG(read_only, read_only)
	FLAG(init, init)
	FLAG(stop_grace_period, stop_grace_period)
	FLAG(oom_score_adj, oom_score_adj)
#undef FLAG
	copy_strings(&c->groups, &c->n_groups, s->groups, s->n_groups);
	copy_strings(&c->hosts, &c->n_hosts, s->hosts, s->n_hosts);
	copy_strings(&c->capability_add, &c->n_capability_add, s->capability_add, s->n_capability_add);
	copy_strings(&c->capability_drop, &c->n_capability_drop, s->capability_drop, s->n_capability_drop);
	copy_kvs(&c->sysctls, &c->n_sysctls, s->sysctls, s->n_sysctls);
	for (size_t i = 0; i < s->n_ulimits; i++)
		pb_add_msg(&c->ulimits, &c->n_ulimits, pb_clone(s->ulimits[i]));
	c->dns_config = pb_clone(s->dns_config);
	if (s->privileges) {
		c->has_no_new_privileges = s->privileges->has_no_new_privileges;
		c->no_new_privileges = s->privileges->no_new_privileges;
		if (s->privileges->seccomp) {
			c->seccomp_mode = xstrdup(s->privileges->seccomp->mode);
			const ProtobufCBinaryData *p = &s->privileges->seccomp->profile;
			if (s->privileges->seccomp->has_profile && p->len) {
				c->has_seccomp_profile = true;
				c->seccomp_profile.data = xmemdup(p->data, p->len);
				c->seccomp_profile.len = p->len;
			}
		}
	}
	if (ts->resources && ts->resources->limits) {
		const Pb__Limit *l = ts->resources->limits;
		c->has_nano_cpus = l->has_nano_cpus;
		c->nano_cpus = l->nano_cpus;
		c->has_memory_bytes = l->has_memory_bytes;
		c->memory_bytes = l->memory_bytes;
		c->has_pids_limit = l->has_pids;
		c->pids_limit = l->pids;
	}
	if (ts->log_driver) {
		c->log_driver = xstrdup(ts->log_driver->name);
		copy_kvs(
		    &c->log_options, &c->n_log_options, ts->log_driver->options, ts->log_driver->n_options);
	}
	for (size_t i = 0; i < in->task->n_host_ports; i++) {
		const Pb__PortConfig *p = in->task->host_ports[i];
		Pb__ContainerPort *o = PB_NEW(Pb__ContainerPort, pb__container_port);
		o->container_port = p->target_port;
		o->has_host_port = true;
		o->host_port = p->published_port;
		o->protocol = p->protocol;
		pb_add_msg(&c->ports, &c->n_ports, o);
	}
}

static json_t *make_context(const struct task_config_in *in, const char *name)
{
	char slot[24];
	const Pb__Platform *p = in->node ? in->node->platform : NULL;
	snprintf(slot, sizeof(slot), "%llu", (unsigned long long)in->task->slot);
	const struct task_template_values v = {
	    .service_id = in->task->service_id,
	    .service_name = in->task->service_name,
	    .service_labels = in->tmpl->service_labels,
	    .n_service_labels = in->tmpl->n_service_labels,
	    .node_id = in->node_id,
	    .hostname = in->node ? in->node->hostname : NULL,
	    .os = p ? p->os : NULL,
	    .arch = p ? p->architecture : NULL,
	    .task_id = in->task->id,
	    .task_name = name,
	    .slot = in->task->slot ? slot : in->node_id,
	};
	return task_template_context(&v);
}

static int fill(Pb__ContainerConfig *c, const struct task_config_in *in, const json_t *image, json_t *context,
    struct err *e)
{
	const Pb__ContainerSpec *s = in->tmpl->spec->container_spec;
	int rc = str_empty(s->hostname)
		     ? 0
		     : task_template_expand("Hostname", s->hostname, context, &c->hostname, e);
	if (rc == 0)
		rc = make_env(c, in, image, context, e);
	if (rc == 0)
		rc = make_mounts(c, s, context, e);
	return rc;
}

int task_config_make(const struct task_config_in *in, Pb__ContainerConfig **ret, struct err *e)
{
	const Pb__ContainerSpec *s = in->tmpl->spec->container_spec;
	const json_t *image = json_get(in->image->config, "config");
	CLEANUP_PB Pb__ContainerConfig *c = PB_NEW(Pb__ContainerConfig, pb__container_config);
	c->name = task_container_name(in->task, in->node_id);
	c->image = xstrdup(s->image);
	c->image_id = xstrdup(in->image->id);
	c->has_tty = s->has_tty;
	c->tty = s->tty;
	const json_t *v = json_get(image, "User");
	c->user = xstrdup(str_empty(s->user) ? json_string_value(v) : s->user);
	v = json_get(image, "WorkingDir");
	c->working_dir = xstrdup(str_empty(s->dir) ? str_or(json_string_value(v), "/") : s->dir);
	v = json_get(image, "StopSignal");
	c->stop_signal = xstrdup(str_empty(s->stop_signal) ? json_string_value(v) : s->stop_signal);
	json_t *context = make_context(in, c->name);
	int rc = fill(c, in, image, context, e);
	json_decref(context);
	if (rc != 0)
		return rc;
	make_command(c, s, image);
	if (c->n_entrypoint + c->n_cmd == 0)
		return err_set(e, ERR_INVALID,
		    "No command specified: neither the service nor image %s names one", s->image);
	make_labels(c, in, image);
	c->healthcheck = make_health(s->healthcheck, image);
	make_rest(c, in);
	*ret = TAKE_PTR(c);
	return 0;
}
