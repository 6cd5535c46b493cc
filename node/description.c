/* See description.h. */
#include "node/description.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "proto/pb.h"
#include "proto/pki.h"

static void add_plugin(Pb__EngineDescription *d, const char *type, const char *name)
{
	Pb__PluginDescription *p = PB_NEW(Pb__PluginDescription, pb__plugin_description);
	p->type = xstrdup(type);
	p->name = xstrdup(name);
	pb_add_msg(&d->plugins, &d->n_plugins, p);
}

static void add_generic(Pb__Resources *r, const char *s)
{
	const char *eq = strchr(s, '=');
	int64_t n;
	Pb__GenericResource *g = PB_NEW(Pb__GenericResource, pb__generic_resource);
	if (str_parse_i64(eq + 1, &n, NULL) == 0) {
		g->discrete_resource_spec =
		    PB_NEW(Pb__DiscreteGenericResource, pb__discrete_generic_resource);
		g->discrete_resource_spec->kind = xstrndup(s, (size_t)(eq - s));
		g->discrete_resource_spec->has_value = true;
		g->discrete_resource_spec->value = n;
	} else {
		g->named_resource_spec = PB_NEW(Pb__NamedGenericResource, pb__named_generic_resource);
		g->named_resource_spec->kind = xstrndup(s, (size_t)(eq - s));
		g->named_resource_spec->value = xstrdup(eq + 1);
	}
	pb_add_msg(&r->generic_resources, &r->n_generic_resources, g);
}

static Pb__TLSInfo *tls_info(const char *ca_pem)
{
	CLEANUP_BUF struct buf subject = BUF_INIT, key = BUF_INIT;
	if (pki_root_info(ca_pem, &subject, &key, NULL) != 0)
		return NULL;
	Pb__TLSInfo *t = PB_NEW(Pb__TLSInfo, pb__tlsinfo);
	t->trust_root = xstrdup(ca_pem);
	t->has_cert_issuer_subject = t->has_cert_issuer_public_key = true;
	t->cert_issuer_subject.len = subject.len;
	t->cert_issuer_subject.data = xmemdup(subject.data, subject.len);
	t->cert_issuer_public_key.len = key.len;
	t->cert_issuer_public_key.data = xmemdup(key.data, key.len);
	return t;
}

Pb__NodeDescription *description_make(const struct config *c, const char *ca_pem)
{
	struct utsname u;
	struct sysinfo si;
	char host[256] = "localhost";
	Pb__NodeDescription *d = PB_NEW(Pb__NodeDescription, pb__node_description);
	gethostname(host, sizeof(host) - 1);
	d->hostname = xstrdup(host);
	d->platform = PB_NEW(Pb__Platform, pb__platform);
	d->platform->architecture = xstrdup(uname(&u) == 0 ? u.machine : "unknown");
	d->platform->os = xstrdup("linux");
	d->resources = PB_NEW(Pb__Resources, pb__resources);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	d->resources->has_nano_cpus = true;
	d->resources->nano_cpus = (cpus > 0 ? cpus : 1) * INT64_C(1000000000);
	if (sysinfo(&si) == 0) {
		d->resources->has_memory_bytes = true;
		d->resources->memory_bytes = (int64_t)si.totalram * si.mem_unit;
	}
	for (size_t i = 0; i < c->generic_resources.n; i++)
		add_generic(d->resources, c->generic_resources.v[i]);
	d->engine = PB_NEW(Pb__EngineDescription, pb__engine_description);
	d->engine->engine_version = xstrdup(SHOAL_VERSION);
	for (size_t i = 0; i < c->labels.n; i++) {
		const char *eq = strchr(c->labels.v[i], '=');
		Pb__KV *kv = PB_NEW(Pb__KV, pb__kv);
		kv->key = xstrndup(c->labels.v[i], (size_t)(eq - c->labels.v[i]));
		kv->value = xstrdup(eq + 1);
		pb_add_msg(&d->engine->labels, &d->engine->n_labels, kv);
	}
	add_plugin(d->engine, "Log", "json-file");
	add_plugin(d->engine, "Log", "none");
	add_plugin(d->engine, "Network", "bridge");
	add_plugin(d->engine, "Network", "host");
	add_plugin(d->engine, "Network", "null");
	if (ca_pem)
		d->tls_info = tls_info(ca_pem);
	return d;
}
