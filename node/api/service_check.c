/* What is refused in a service's spec (service_spec.h), in Swarm's words where it has some. */
#include <ctype.h>
#include <signal.h>
#include <string.h>

#include "agent/image.h"
#include "agent/task_template.h"
#include "base/map.h"
#include "base/mem.h"
#include "manager/allocator/allocator.h"
#include "manager/scheduler/constraint.h"
#include "node/api/service_spec.h"

#define BAD(...)     return err_set(e, ERR_INVALID, __VA_ARGS__)
#define UNBUILT(...) return err_set(e, ERR_NOT_IMPLEMENTED, __VA_ARGS__)

static int check_name(const char *name, struct err *e)
{
	size_t n = strlen(name);
	bool ok = n > 0 && isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[n - 1]);
	for (size_t i = 0; ok && i < n; i++)
		ok = isalnum((unsigned char)name[i]) || name[i] == '-' || name[i] == '_';
	if (n > 63)
		BAD("name must be 63 characters or fewer");
	if (!ok)
		BAD("name must be valid as a DNS name component: \"%s\" may only have letters, digits, '-' "
		    "and '_', and begins and ends "
		    "with a letter or digit",
		    name);
	return 0;
}

static int check_mode(const Pb__ServiceSpec *s, struct err *e)
{
	const Pb__ServiceMode *m = s->mode;
	if (!!m->replicated + !!m->global + !!m->replicated_job + !!m->global_job > 1)
		BAD("must specify only one service mode");
	if (service_spec_is_job(s)) {
		if (s->update_config || s->rollback_config)
			BAD("update and rollback config is not supported for jobs");
		const Pb__RestartPolicy *r = s->task_template->restart_policy;
		if (r && r->has_condition && r->condition == PB__RESTART_CONDITION__E__ANY)
			return 0; /* acts like on-failure */
	}
	return 0;
}

static int check_update(const char *what, const Pb__UpdateConfig *u, bool rollback, struct err *e)
{
	if (!u)
		return 0;
	if (u->has_delay && u->delay < 0)
		BAD("TaskSpec: %s-delay cannot be negative", what);
	if (u->has_monitor && u->monitor < 0)
		BAD("TaskSpec: %s-monitor cannot be negative", what);
	if (u->has_max_failure_ratio && !(u->max_failure_ratio >= 0 && u->max_failure_ratio <= 1))
		BAD("TaskSpec: %s-maxfailureratio cannot be less than 0 or bigger than 1", what);
	if (rollback && u->has_failure_action && u->failure_action == PB__UPDATE_FAILURE_ACTION__E__ROLLBACK)
		BAD("RollbackConfig: FailureAction must be pause or continue");
	return 0;
}

static int check_resources(const Pb__ResourceRequirements *r, struct err *e)
{
	if (!r)
		return 0;
	const struct {
		bool has_cpu, has_mem;
		int64_t cpu, mem;
	} v[] = {
	    {r->limits && r->limits->has_nano_cpus, r->limits && r->limits->has_memory_bytes,
		r->limits ? r->limits->nano_cpus : 0, r->limits ? r->limits->memory_bytes : 0},
	    {r->reservations && r->reservations->has_nano_cpus,
		r->reservations && r->reservations->has_memory_bytes,
		r->reservations ? r->reservations->nano_cpus : 0,
		r->reservations ? r->reservations->memory_bytes : 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		if (v[i].has_cpu && v[i].cpu != 0 && v[i].cpu < 1000000)
			BAD("invalid cpu value %g: Must be at least 0.001", (double)v[i].cpu / 1e9);
		if (v[i].has_mem && v[i].mem != 0 && v[i].mem < 4 * 1024 * 1024)
			BAD("invalid memory value %lld: Must be at least 4MiB", (long long)v[i].mem);
	}
	if (r->limits && r->limits->has_pids && r->limits->pids < -1)
		BAD("invalid pids limit %lld: must be positive, or 0 or -1 for no limit",
		    (long long)r->limits->pids);
	for (size_t i = 0; r->reservations && i < r->reservations->n_generic_resources; i++) {
		const Pb__GenericResource *g = r->reservations->generic_resources[i];
		if (!g->discrete_resource_spec)
			BAD("invalid generic resource specified: named resources are not supported in "
			    "reservations, give a number");
		if (str_empty(g->discrete_resource_spec->kind) || g->discrete_resource_spec->value < 0)
			BAD("invalid generic resource specified: it needs a Kind and a Value that is not "
			    "negative");
	}
	return 0;
}

static int check_signal(const char *s, struct err *e)
{
	uint64_t n;
	if (str_empty(s) || (str_parse_u64(s, &n, NULL) == 0 && n > 0 && n < 65))
		return 0;
	const char *name = str_has_iprefix(s, "SIG") ? s + 3 : s;
	for (int i = 1; i < 65; i++)
		if (sigabbrev_np(i) && str_ieq(sigabbrev_np(i), name))
			return 0;
	if (str_has_iprefix(name, "RTMIN") || str_has_iprefix(name, "RTMAX"))
		return 0;
	BAD("ContainerSpec: invalid StopSignal: %s", s);
}

static int check_mount(const Pb__Mount *m, struct err *e)
{
	if (str_empty(m->target) || m->target[0] != '/')
		BAD("ContainerSpec: invalid mount target, must be an absolute path: %s",
		    str_or(m->target, ""));
	if (!str_eq(m->type, "bind") && !str_eq(m->type, "tmpfs")) {
		if (str_eq(m->type, "volume") || str_eq(m->type, "cluster") || str_eq(m->type, "npipe") ||
		    str_eq(m->type, "image"))
			UNBUILT("ContainerSpec.Mounts: mounts of type \"%s\" (%s) are not supported by this "
				"version; use bind or tmpfs",
			    m->type, m->target);
		BAD("ContainerSpec: invalid mount type \"%s\": use bind or tmpfs", str_or(m->type, ""));
	}
	bool bind = m->type[0] == 'b';
	if (bind && str_empty(m->source))
		BAD("ContainerSpec: invalid mount config for type \"bind\": field Source must not be empty");
	if (bind && m->source[0] != '/')
		BAD("ContainerSpec: invalid bind mount source, must be an absolute path: %s", m->source);
	if (!bind && !str_empty(m->source))
		BAD("ContainerSpec: invalid mount config for type \"tmpfs\": source must not be specified");
	if (m->volume_options || m->cluster_options)
		BAD("ContainerSpec: mount %s: VolumeOptions and ClusterOptions go with mounts of their own "
		    "types",
		    m->target);
	if (m->bind_options && !bind)
		BAD("ContainerSpec: mount %s: BindOptions go with type \"bind\"", m->target);
	if (m->tmpfs_options && bind)
		BAD("ContainerSpec: mount %s: TmpfsOptions go with type \"tmpfs\"", m->target);
	if (!str_empty(m->consistency) && !str_eq(m->consistency, "default") &&
	    !str_eq(m->consistency, "consistent"))
		UNBUILT("ContainerSpec.Mounts: Consistency \"%s\" (%s) has no meaning on Linux; leave it out",
		    m->consistency, m->target);
	if (m->tmpfs_options && m->tmpfs_options->n_options)
		UNBUILT("ContainerSpec.Mounts: TmpfsOptions.Options (%s) are not supported by this version",
		    m->target);
	if (m->tmpfs_options && m->tmpfs_options->has_size_bytes && m->tmpfs_options->size_bytes < 0)
		BAD("ContainerSpec: mount %s: SizeBytes must not be negative", m->target);
	const Pb__BindOptions *b = m->bind_options;
	if (b && (b->create_mountpoint || b->read_only_non_recursive || b->read_only_force_recursive))
		UNBUILT("ContainerSpec.Mounts: BindOptions CreateMountpoint, ReadOnlyNonRecursive and "
			"ReadOnlyForceRecursive (%s) are not "
			"supported by this version",
		    m->target);
	static const char *const propagations[] = {
	    "", "private", "rprivate", "shared", "rshared", "slave", "rslave"};
	bool known = !b || !b->propagation;
	for (size_t i = 0; !known && i < ARRAY_LEN(propagations); i++)
		known = strcmp(b->propagation, propagations[i]) == 0;
	if (!known)
		BAD("ContainerSpec: mount %s: invalid propagation mode: %s", m->target, b->propagation);
	return 0;
}

static int check_mounts(const Pb__ContainerSpec *c, struct err *e)
{
	struct strmap seen = STRMAP_INIT;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < c->n_mounts; i++) {
		rc = check_mount(c->mounts[i], e);
		if (rc == 0 && strmap_put(&seen, c->mounts[i]->target, (void *)(uintptr_t)1))
			rc = err_set(
			    e, ERR_INVALID, "ContainerSpec: duplicate mount point: %s", c->mounts[i]->target);
	}
	strmap_done(&seen);
	return rc;
}

static int check_health(const Pb__HealthConfig *h, struct err *e)
{
	if (!h)
		return 0;
	const struct {
		const char *name;
		bool has;
		int64_t v;
	} d[] = {
	    {"Interval", h->has_interval, h->interval},
	    {"Timeout", h->has_timeout, h->timeout},
	    {"StartPeriod", h->has_start_period, h->start_period},
	    {"StartInterval", h->has_start_interval, h->start_interval},
	};
	for (size_t i = 0; i < ARRAY_LEN(d); i++)
		if (d[i].has && d[i].v != 0 && d[i].v < NS_PER_MSEC)
			BAD("ContainerSpec: %s in HealthConfig cannot be less than 1ms", d[i].name);
	if (h->has_retries && h->retries < 0)
		BAD("ContainerSpec: Retries in HealthConfig cannot be negative");
	if (h->n_test && strcmp(h->test[0], "NONE") != 0 && strcmp(h->test[0], "CMD") != 0 &&
	    strcmp(h->test[0], "CMD-SHELL") != 0)
		BAD("ContainerSpec: Test in HealthConfig begins with \"%s\": use NONE, CMD or CMD-SHELL",
		    h->test[0]);
	if (h->n_test == 1 && strcmp(h->test[0], "NONE") != 0)
		BAD("ContainerSpec: Test in HealthConfig is %s without a command", h->test[0]);
	return 0;
}

static int check_privileges(const Pb__Privileges *p, struct err *e)
{
	if (!p)
		return 0;
	if (p->credential_spec)
		UNBUILT("ContainerSpec.Privileges.CredentialSpec is for Windows and not supported");
	if (p->selinux_context)
		UNBUILT("ContainerSpec.Privileges.SELinuxContext is not supported by this version");
	if (p->app_armor && !str_empty(p->app_armor->mode) && !str_eq(p->app_armor->mode, "default"))
		UNBUILT("ContainerSpec.Privileges.AppArmor.Mode \"%s\" is not supported by this version; "
			"leave it out",
		    p->app_armor->mode);
	if (p->seccomp) {
		const char *m = str_or(p->seccomp->mode, "default");
		bool custom = str_eq(m, "custom");
		if (!custom && !str_eq(m, "default") && !str_eq(m, "unconfined"))
			BAD("ContainerSpec: invalid Seccomp.Mode \"%s\": use default, unconfined or custom",
			    m);
		if (custom != (p->seccomp->has_profile && p->seccomp->profile.len > 0))
			BAD("ContainerSpec: Seccomp.Profile goes with Seccomp.Mode custom, and only with it");
	}
	return 0;
}

static int check_env(const Pb__ContainerSpec *c, struct err *e)
{
	for (size_t i = 0; i < c->n_env; i++)
		if (c->env[i][0] == '=' || !c->env[i][0])
			BAD("ContainerSpec: invalid environment variable: \"%s\" has no name", c->env[i]);
	return 0;
}

static int check_container(const Pb__ContainerSpec *c, struct err *e)
{
	struct image_ref ref;
	struct err re = ERR_INIT;
	if (str_empty(c->image))
		BAD("ContainerSpec: image reference must be provided");
	if (image_ref_parse(c->image, &ref, &re) != 0)
		BAD("ContainerSpec: \"%s\" is not a valid repository/tag: %s", c->image, re.text);
	image_ref_done(&ref);
	if (c->n_secrets)
		UNBUILT("ContainerSpec.Secrets: giving secrets to services is not supported by this version");
	if (c->n_configs)
		UNBUILT("ContainerSpec.Configs: giving configs to services is not supported by this version");
	if (!str_empty(c->isolation) && !str_eq(c->isolation, "default"))
		UNBUILT("ContainerSpec.Isolation \"%s\" is for Windows and not supported", c->isolation);
	if (!str_empty(c->hostname) && strlen(c->hostname) > 253)
		BAD("ContainerSpec: hostname is over 253 characters");
	if (c->has_stop_grace_period && c->stop_grace_period < 0)
		BAD("ContainerSpec: StopGracePeriod cannot be negative");
	if (c->has_oom_score_adj && (c->oom_score_adj < -1000 || c->oom_score_adj > 1000))
		BAD("ContainerSpec: invalid OomScoreAdj %lld: must be from -1000 to 1000",
		    (long long)c->oom_score_adj);
	for (size_t i = 0; i < c->n_ulimits; i++)
		if (str_empty(c->ulimits[i]->name) ||
		    (c->ulimits[i]->soft > c->ulimits[i]->hard && c->ulimits[i]->hard != -1))
			BAD("ContainerSpec: invalid ulimit \"%s\": it needs a name, and its soft limit must "
			    "not be over the hard one",
			    str_or(c->ulimits[i]->name, ""));
	int rc = check_env(c, e);
	if (rc == 0)
		rc = task_template_check(c, e);
	if (rc == 0)
		rc = check_signal(c->stop_signal, e);
	if (rc == 0)
		rc = check_mounts(c, e);
	if (rc == 0)
		rc = check_health(c->healthcheck, e);
	if (rc == 0)
		rc = check_privileges(c->privileges, e);
	return rc;
}

static int check_log_driver(const Pb__Driver *d, struct err *e)
{
	if (!d || str_empty(d->name))
		return d && d->n_options
			   ? err_set(e, ERR_INVALID, "LogDriver: options without a driver's name")
			   : 0;
	bool json = str_eq(d->name, "json-file");
	if (!json && !str_eq(d->name, "none"))
		UNBUILT("LogDriver \"%s\" is not supported by this version; use json-file or none", d->name);
	for (size_t i = 0; i < d->n_options; i++) {
		const Pb__KV *o = d->options[i];
		int64_t v;
		uint64_t u;
		if (!json || (strcmp(o->key, "max-size") != 0 && strcmp(o->key, "max-file") != 0))
			UNBUILT("LogDriver %s: option \"%s\" is not supported by this version; json-file has "
				"max-size and max-file",
			    d->name, o->key);
		if (o->key[4] == 's' ? str_parse_size(o->value, &v, NULL) != 0 || v <= 0
				     : str_parse_u64(o->value, &u, NULL) != 0 || u == 0)
			BAD("LogDriver: %s \"%s\" makes no sense", o->key, o->value);
	}
	return 0;
}

static int check_restart(const Pb__RestartPolicy *r, struct err *e)
{
	if (r && r->has_delay && r->delay < 0)
		BAD("TaskSpec: restart-delay cannot be negative");
	if (r && r->has_window && r->window < 0)
		BAD("TaskSpec: restart-window cannot be negative");
	return 0;
}

static int check_task(const Pb__TaskSpec *t, struct err *e)
{
	if (!t)
		BAD("TaskTemplate must be provided");
	if (!str_eq(t->runtime, "container"))
		UNBUILT("TaskTemplate.Runtime \"%s\" is not supported; use container", t->runtime);
	if (!t->container_spec)
		BAD("mismatched Runtime and ContainerSpec: ContainerSpec must be provided");
	if (t->n_networks)
		UNBUILT(
		    "TaskTemplate.Networks: attaching services to networks is not supported by this version");
	int rc = check_container(t->container_spec, e);
	if (rc == 0)
		rc = check_resources(t->resources, e);
	if (rc == 0)
		rc = check_restart(t->restart_policy, e);
	if (rc == 0)
		rc = check_log_driver(t->log_driver, e);
	if (rc == 0 && t->placement) {
		struct constraints cs = CONSTRAINTS_INIT;
		rc = constraints_parse(t->placement->constraints, t->placement->n_constraints, &cs, e);
		constraints_done(&cs);
		for (size_t i = 0; rc == 0 && i < t->placement->n_preferences; i++) {
			const Pb__SpreadOver *s = t->placement->preferences[i]->spread;
			if (!s || str_empty(s->spread_descriptor))
				BAD("TaskSpec: a placement preference needs Spread.SpreadDescriptor, like "
				    "node.labels.rack");
		}
	}
	return rc;
}

static int check_endpoint(
    const struct store *st, const char *service_id, const Pb__EndpointSpec *s, struct err *e)
{
	if (!s)
		return 0;
	for (size_t i = 0; i < s->n_ports; i++) {
		const Pb__PortConfig *p = s->ports[i];
		bool ingress = p->publish_mode == PB__PUBLISH_MODE__E__INGRESS;
		if (!p->has_target_port || p->target_port == 0 || p->target_port > 65535)
			BAD("EndpointSpec: invalid target port %u: must be from 1 to 65535", p->target_port);
		if (p->has_published_port && p->published_port > 65535)
			BAD("EndpointSpec: invalid published port %u: must be from 1 to 65535",
			    p->published_port);
		if (p->protocol == PB__PORT_PROTOCOL__E__SCTP)
			UNBUILT("EndpointSpec: publishing sctp ports is not supported by this version; use "
				"tcp or udp");
		if (ingress && s->has_mode && s->mode == PB__ENDPOINT_MODE__E__DNSRR)
			BAD("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
		for (size_t k = 0; k < i && p->published_port; k++)
			if (s->ports[k]->published_port == p->published_port &&
			    s->ports[k]->protocol == p->protocol)
				BAD("EndpointSpec: duplicate published ports provided: %u",
				    p->published_port);
	}
	return allocator_check_ports(st, service_id, s, e);
}

int service_spec_check(
    const struct store *st, const char *service_id, const Pb__ServiceSpec *s, struct err *e)
{
	int rc = check_name(s->name, e);
	if (rc == 0)
		rc = check_task(s->task_template, e);
	if (rc == 0 && s->n_networks)
		UNBUILT("Networks: attaching services to networks is not supported by this version");
	if (rc == 0)
		rc = check_mode(s, e);
	if (rc == 0)
		rc = check_update("update", s->update_config, false, e);
	if (rc == 0)
		rc = check_update("rollback", s->rollback_config, true, e);
	if (rc == 0)
		rc = check_endpoint(st, service_id, s->endpoint_spec, e);
	return rc;
}
