/* See service_spec.h: filling, comparing, defaults of replies. The checks are in service_check.c. */
#include "node/api/service_spec.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/pb.h"

static char *random_name(struct rng r)
{
	static const char *const left[] = {"agile", "ample", "azure", "brave", "brisk", "calm", "candid",
	    "clever", "cosmic", "crisp", "deft", "eager", "early", "fair", "fleet", "fond", "frank", "gentle",
	    "glad", "grand", "happy", "hardy", "ideal", "jolly", "keen", "kind", "lively", "loyal", "lucid",
	    "mellow", "merry", "nimble", "noble", "patient", "placid", "quick", "quiet", "ready", "sharp",
	    "silver", "sturdy", "sunny", "swift", "tidal", "vivid", "warm", "wise", "witty"};
	static const char *const right[] = {"agnesi", "ampere", "babbage", "banach", "bernoulli", "bohr",
	    "boole", "carson", "cauchy", "church", "curie", "darwin", "dijkstra", "dirac", "erdos", "euler",
	    "faraday", "fermat", "fermi", "galois", "gauss", "germain", "godel", "hamming", "hertz",
	    "hilbert", "hopper", "hypatia", "joule", "kepler", "kovalevskaya", "lamarr", "lamport", "leavitt",
	    "lovelace", "maxwell", "meitner", "mendel", "newton", "noether", "pascal", "planck", "ritchie",
	    "shannon", "tesla", "turing", "volta", "wirth"};
	return xasprintf("%s_%s", left[rng_below(r, ARRAY_LEN(left))], right[rng_below(r, ARRAY_LEN(right))]);
}

bool service_spec_is_job(const Pb__ServiceSpec *s)
{
	return s->mode && (s->mode->replicated_job || s->mode->global_job);
}

static void fill_mode(Pb__ServiceSpec *s)
{
	if (!s->mode)
		s->mode = PB_NEW(Pb__ServiceMode, pb__service_mode);
	Pb__ServiceMode *m = s->mode;
	if (!m->replicated && !m->global && !m->replicated_job && !m->global_job)
		m->replicated = PB_NEW(Pb__ReplicatedService, pb__replicated_service);
	if (m->replicated && !m->replicated->has_replicas) {
		m->replicated->has_replicas = true;
		m->replicated->replicas = 1;
	}
	if (m->replicated_job) {
		Pb__ReplicatedJob *j = m->replicated_job;
		if (!j->has_max_concurrent) {
			j->has_max_concurrent = true;
			j->max_concurrent = 1;
		}
		if (!j->has_total_completions) {
			j->has_total_completions = true;
			j->total_completions = j->max_concurrent;
		}
	}
}

void service_spec_fill(Pb__ServiceSpec *s, struct rng r)
{
	if (str_empty(s->name)) {
		CLEANUP_FREE char *name = random_name(r);
		pb_set_str(&s->name, name);
	}
	fill_mode(s);
	if (s->endpoint_spec) {
		for (size_t i = 0; i < s->endpoint_spec->n_ports; i++) {
			Pb__PortConfig *p = s->endpoint_spec->ports[i];
			if (!p->has_protocol) {
				p->has_protocol = true;
				p->protocol = PB__PORT_PROTOCOL__E__TCP;
			}
			if (!p->has_publish_mode) {
				p->has_publish_mode = true;
				p->publish_mode = PB__PUBLISH_MODE__E__INGRESS;
			}
		}
	}
	Pb__TaskSpec *t = s->task_template;
	if (!t)
		return;
	if (str_empty(t->runtime))
		pb_set_str(&t->runtime, "container");
	if (t->container_spec && str_empty(t->container_spec->isolation))
		pb_set_str(&t->container_spec->isolation, "default");
	if (t->restart_policy) {
		if (!t->restart_policy->has_condition) {
			t->restart_policy->has_condition = true;
			t->restart_policy->condition = PB__RESTART_CONDITION__E__ANY;
		}
		if (!t->restart_policy->has_max_attempts) {
			t->restart_policy->has_max_attempts = true;
			t->restart_policy->max_attempts = 0;
		}
	}
}

/* --- comparing */

/* Zero differs from absent here: absent means a default that is not zero. */
static bool zero_counts(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f)
{
	if (d == &pb__restart_policy__descriptor)
		return strcmp(f->name, "delay") == 0;
	return d == &pb__container_spec__descriptor && strcmp(f->name, "stop_grace_period") == 0;
}

static bool is_zero(const ProtobufCFieldDescriptor *f, const char *member)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		return str_empty(*(char *const *)(const void *)member);
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)(const void *)member)->len == 0;
	case PROTOBUF_C_TYPE_BOOL:
		return !*(const protobuf_c_boolean *)(const void *)member;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return *(const uint64_t *)(const void *)member == 0;
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_ENUM:
		return *(const uint32_t *)(const void *)member == 0;
	default:
		return false;
	}
}

/* Takes away what says nothing; returns whether anything is left. */
static bool normalise(ProtobufCMessage *m)
{
	bool any = false;
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		char *member = (char *)m + f->offset;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(size_t *)(void *)((char *)m + f->quantifier_offset);
			any |= n > 0;
			if (f->type == PROTOBUF_C_TYPE_MESSAGE)
				for (size_t k = 0; k < n; k++)
					normalise((*(ProtobufCMessage ***)(void *)member)[k]);
		} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
			ProtobufCMessage **sub = (ProtobufCMessage **)(void *)member;
			if (*sub && !normalise(*sub)) {
				pb_free(*sub);
				*sub = NULL;
			}
			any |= *sub != NULL;
		} else if (f->type == PROTOBUF_C_TYPE_STRING) {
			if (is_zero(f, member))
				pb_set_str((char **)(void *)member, NULL);
			else
				any = true;
		} else {
			protobuf_c_boolean *has =
			    (protobuf_c_boolean *)(void *)((char *)m + f->quantifier_offset);
			if (f->label == PROTOBUF_C_LABEL_OPTIONAL && *has && is_zero(f, member) &&
			    !zero_counts(m->descriptor, f))
				*has = false;
			any |= f->label == PROTOBUF_C_LABEL_REQUIRED || *has;
		}
	}
	return any;
}

static bool same(const void *a, const void *b)
{
	void *ca = pb_clone(a), *cb = pb_clone(b);
	if (ca && !normalise(ca)) {
		pb_free(ca);
		ca = NULL;
	}
	if (cb && !normalise(cb)) {
		pb_free(cb);
		cb = NULL;
	}
	bool eq = msg_equal(ca, cb);
	pb_free(ca);
	pb_free(cb);
	return eq;
}

/* --- defaults of replies */

#define DEFAULT(m, f, v)                                                                                     \
	if (!(m)->has_##f) {                                                                                 \
		(m)->has_##f = true;                                                                         \
		(m)->f = (v);                                                                                \
	}

static void default_update(Pb__UpdateConfig **u)
{
	if (*u) {
		DEFAULT(*u, monitor, 5 * NS_PER_SEC)
		return;
	}
	*u = PB_NEW(Pb__UpdateConfig, pb__update_config);
	DEFAULT(*u, parallelism, 1)
	DEFAULT(*u, failure_action, PB__UPDATE_FAILURE_ACTION__E__PAUSE)
	DEFAULT(*u, monitor, 5 * NS_PER_SEC)
	DEFAULT(*u, max_failure_ratio, 0)
	DEFAULT(*u, order, PB__UPDATE_ORDER__E__STOP_FIRST)
}

void service_spec_insert_defaults(Pb__ServiceSpec *s)
{
	Pb__TaskSpec *t = s->task_template;
	if (t && t->container_spec) {
		DEFAULT(t->container_spec, stop_grace_period, 10 * NS_PER_SEC)
		if (!t->container_spec->dns_config)
			t->container_spec->dns_config = PB_NEW(Pb__DNSConfig, pb__dnsconfig);
	}
	if (t) {
		if (!t->resources)
			t->resources = PB_NEW(Pb__ResourceRequirements, pb__resource_requirements);
		if (!t->restart_policy)
			t->restart_policy = PB_NEW(Pb__RestartPolicy, pb__restart_policy);
		DEFAULT(t->restart_policy, condition, PB__RESTART_CONDITION__E__ANY)
		DEFAULT(t->restart_policy, delay, 5 * NS_PER_SEC)
		DEFAULT(t->restart_policy, max_attempts, 0)
		if (!t->placement)
			t->placement = PB_NEW(Pb__Placement, pb__placement);
	}
	if (!service_spec_is_job(s)) {
		default_update(&s->update_config);
		default_update(&s->rollback_config);
	}
}

/* A client that read with insertDefaults and writes that back (docker-py's scale) has changed nothing. */
bool service_spec_same_tasks(const Pb__ServiceSpec *a, const Pb__ServiceSpec *b)
{
	CLEANUP_PB Pb__ServiceSpec *ca = pb_clone(a);
	CLEANUP_PB Pb__ServiceSpec *cb = pb_clone(b);
	service_spec_insert_defaults(ca);
	service_spec_insert_defaults(cb);
	return same(ca->task_template, cb->task_template) && same(ca->endpoint_spec, cb->endpoint_spec);
}
