/* What keeps a task from a node. Each node counts for the first filter that refuses it. */
#include "manager/scheduler/internal.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

uint32_t service_on_node(const struct service_info *s, uint32_t node_index)
{
	return (uint32_t)(uintptr_t)u64map_get(&s->on_node, node_index);
}

uint64_t port_key(const Pb__PortConfig *p)
{
	return ((uint64_t)p->protocol << 32) | p->published_port;
}

static bool ready(const Pb__Node *n)
{
	return n->status != NULL && n->status->state == PB__NODE_STATE__E__READY &&
	       n->spec->availability == PB__NODE_AVAILABILITY__E__ACTIVE;
}

static bool resources_fit(const struct group *g, const struct node_info *n)
{
	const Pb__NodeDescription *d = n->obj->node->description;
	const Pb__Resources *have = d != NULL ? d->resources : NULL;

	if (g->cpu > 0 && (have == NULL || have->nano_cpus - n->cpu_used < g->cpu))
		return false;
	if (g->mem > 0 && (have == NULL || have->memory_bytes - n->mem_used < g->mem))
		return false;
	return generic_fits(g, n);
}

static bool has_plugin(const Pb__EngineDescription *e, const char *type, const char *name)
{
	for (size_t i = 0; i < e->n_plugins; i++) {
		if (str_eq(e->plugins[i]->type, type) && str_eq(e->plugins[i]->name, name))
			return true;
	}
	return false;
}

/* Volume and log drivers that are not built in must be listed by the node. */
static bool plugins_there(const struct group *g, const Pb__Node *n)
{
	const Pb__EngineDescription *e = n->description != NULL ? n->description->engine : NULL;
	const Pb__TaskSpec *spec = g->tmpl->tmpl->spec;
	const Pb__ContainerSpec *c = spec->container_spec;

	if (e == NULL)
		return true;
	if (spec->log_driver != NULL && !str_empty(spec->log_driver->name) &&
	    !str_eq(spec->log_driver->name, "none") && !has_plugin(e, "Log", spec->log_driver->name))
		return false;
	for (size_t i = 0; c != NULL && i < c->n_mounts; i++) {
		const Pb__VolumeOptions *o = c->mounts[i]->volume_options;
		const char *driver = o != NULL && o->driver_config != NULL ? o->driver_config->name : NULL;

		if (!str_empty(driver) && !str_eq(driver, "local") && !has_plugin(e, "Volume", driver))
			return false;
	}
	return true;
}

static bool ports_free(const struct group *g, const struct node_info *n)
{
	for (size_t i = 0; i < g->n_host_ports; i++) {
		if (g->host_ports[i]->published_port != 0 &&
		    u64map_get(&n->ports, port_key(g->host_ports[i])) != NULL)
			return false;
	}
	return true;
}

static bool below_max(const struct group *g, const struct node_info *n)
{
	return g->max_replicas == 0 || service_on_node(g->service, n->index) < g->max_replicas;
}

enum filter filter_node(const struct group *g, const struct node_info *n)
{
	const Pb__Node *node = n->obj != NULL ? n->obj->node : NULL;

	if (node == NULL || !ready(node))
		return FILTER_READY;
	if (!resources_fit(g, n))
		return FILTER_RESOURCES;
	if (!plugins_there(g, node))
		return FILTER_PLUGIN;
	if (!g->constraints_ok || !constraints_match(&g->constraints, node))
		return FILTER_CONSTRAINTS;
	if (!placement_platform_fits(g->tmpl->tmpl->spec->placement, node))
		return FILTER_PLATFORM;
	if (!ports_free(g, n))
		return FILTER_HOST_PORT;
	if (!below_max(g, n))
		return FILTER_MAX_REPLICAS;
	return FILTER_NONE;
}

enum filter filter_node_again(const struct group *g, const struct node_info *n)
{
	if (!resources_fit(g, n))
		return FILTER_RESOURCES;
	if (!ports_free(g, n))
		return FILTER_HOST_PORT;
	if (!below_max(g, n))
		return FILTER_MAX_REPLICAS;
	return FILTER_NONE;
}

static void explain_one(enum filter f, size_t n, char *out, size_t cap)
{
	const char *s = n == 1 ? "" : "s";

	switch (f) {
	case FILTER_READY:
		snprintf(out, cap, "%zu node%s not available for new tasks", n, s);
		break;
	case FILTER_RESOURCES:
		snprintf(out, cap, "insufficient resources on %zu node%s", n, s);
		break;
	case FILTER_PLUGIN:
		snprintf(out, cap, "missing plugin on %zu node%s", n, s);
		break;
	case FILTER_CONSTRAINTS:
		snprintf(out, cap, "scheduling constraints not satisfied on %zu node%s", n, s);
		break;
	case FILTER_PLATFORM:
		snprintf(out, cap, "unsupported platform on %zu node%s", n, s);
		break;
	case FILTER_HOST_PORT:
		snprintf(out, cap, "host-mode port already in use on %zu node%s", n, s);
		break;
	case FILTER_MAX_REPLICAS:
		snprintf(out, cap, "max replicas per node limit exceed");
		break;
	case FILTER_NONE:
		break;
	}
}

void filter_explain(const size_t refused[FILTERS], char *out, size_t cap)
{
	bool done[FILTERS] = {false};
	const char *sep = " (";

	snprintf(out, cap, "no suitable node");
	for (;;) {
		int best = -1;
		char one[96];
		size_t len = strlen(out);

		for (int f = 0; f < (int)FILTERS; f++) {
			if (!done[f] && refused[f] > 0 && (best < 0 || refused[f] > refused[best]))
				best = f;
		}
		if (best < 0)
			break;
		done[best] = true;
		explain_one((enum filter)best, refused[best], one, sizeof(one));
		snprintf(out + len, cap - len, "%s%s", sep, one);
		sep = "; ";
	}
	if (sep[0] == ';')
		snprintf(out + strlen(out), cap - strlen(out), ")");
}
