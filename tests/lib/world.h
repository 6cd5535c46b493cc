/* A cluster without processes: a real store and the real decisions (manager/brain.h), a virtual clock,
 * proposals that take a moment to commit, and agents that walk their tasks through the states. What a
 * container does follows from its image: "ok" runs, "crash:MS" fails MS after it began to run, "done:MS"
 * completes, "reject" never starts, "never" stays in PREPARING.
 *
 * After every commit the world checks what must always hold: states and desired states only move forward,
 * tasks keep their slot, node and service, and a slot never has two running tasks (unless w->overlap says
 * that the test wants that). */
#ifndef TESTS_LIB_WORLD_H
#define TESTS_LIB_WORLD_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "manager/brain.h"
#include "manager/store/store.h"

#define W_UNUSED  __attribute__((unused))
#define W_MS      NS_PER_MSEC
#define W_SEC     NS_PER_SEC
#define ST(state) PB__TASK_STATE__E__##state

struct w_proposal {
	struct buf bytes;
	int64_t due;
	brain_done_cb cb; /* NULL: the world's own */
	void *data;
	struct w_proposal *next;
};
struct w_task {             /* what the agent knows of a task */
	int64_t due;        /* next move; 0: not thought about yet */
	int state, desired; /* when that was */
	int64_t ran_since;  /* 0: not running */
};
struct world {
	struct store *store;
	struct brain *brain;
	struct store_watch *watch;
	struct rng_seeded seed;
	struct rng rng;
	int64_t now, brain_next;
	bool woken;
	struct w_proposal *first, *last;
	struct strmap tasks;  /* id -> struct w_task */
	struct strmap silent; /* node ids: its agent does not answer */
	struct strmap
	    back;         /* node ids: was silent once, so it may find out late what it should have stopped */
	bool agents_look; /* something changed */
	int64_t agents_next;
	int64_t commit_max; /* a commit takes up to this long */
	int64_t agent_max;  /* a move of an agent too */
	bool overlap;
	bool no_agents;
	uint64_t commits, serial;
	struct { /* what happened, for tests */
		size_t created, max_running;
	} seen;
	bool verbose;
};

static W_UNUSED int64_t w_random(struct world *w, int64_t max)
{
	return max <= 0 ? 0 : (int64_t)rng_below(w->rng, (uint64_t)max) + 1;
}

/* --- invariants */

static void w_check(struct world *w, const struct store_event *ev)
{
	const Pb__Task *a, *b;

	w->agents_look = true;
	if (w->verbose && ev->kind == OBJ(SERVICE) && ev->cur != NULL) {
		const Pb__UpdateStatus *u = ev->cur->service->update_status;

		fprintf(stderr, "%8.3f service %s tmpl %s update %d %s\n", (double)w->now / 1e9,
		    ev->cur->head->id, ev->cur->service->template_id, u != NULL ? (int)u->state : -1,
		    u != NULL ? str_or(u->message, "") : "");
	}
	if (ev->kind != OBJ(TASK))
		return;
	if (ev->old == NULL)
		w->seen.created++;
	if (w->verbose) {
		const Pb__Task *t = ev->cur != NULL ? ev->cur->task : ev->old->task;

		fprintf(stderr, "%8.3f %s %.5s slot %" PRIu64 " node %s tmpl %s %d/%d %s\n",
		    (double)w->now / 1e9,
		    ev->cur == NULL   ? "del"
		    : ev->old == NULL ? "new"
				      : "upd",
		    t->id, t->slot, str_or(t->node_id, "-"), t->template_id, (int)t->status->state,
		    (int)t->desired_state, str_or(t->status->err, ""));
	}
	if (ev->old == NULL || ev->cur == NULL)
		return;
	a = ev->old->task;
	b = ev->cur->task;
	assert_true(b->status->state >= a->status->state);
	assert_true(b->desired_state >= a->desired_state);
	assert_true(a->slot == b->slot && str_eq(a->service_id, b->service_id));
	assert_true(str_empty(a->node_id) || str_eq(a->node_id, b->node_id));
	/* Nothing is started that is not wanted. */
	if (a->status->state < ST(STARTING) && b->status->state >= ST(STARTING) &&
	    b->status->state <= ST(RUNNING))
		assert_true(b->desired_state >= ST(RUNNING));
}

static void w_event(void *data, const struct store_event *ev)
{
	w_check(data, ev);
}

/* No slot has two tasks that run; but what a silent node says does not count. */
static void w_check_slots(struct world *w)
{
	struct strmap seen = STRMAP_INIT;
	const struct object *o;
	struct store_iter it;

	if (w->overlap)
		return;
	store_iter_init(&it, w->store, OBJ(TASK), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL) {
		const Pb__Task *t = o->task;
		CLEANUP_FREE char *key = NULL;

		if (t->status->state < ST(STARTING) || t->status->state > ST(RUNNING) ||
		    strmap_has(&w->silent, t->node_id) ||
		    (t->desired_state > ST(RUNNING) && strmap_has(&w->back, t->node_id)))
			continue;
		key = xasprintf("%s/%" PRIu64 "/%s", t->service_id, t->slot, t->slot == 0 ? t->node_id : "");
		if (strmap_has(&seen, key))
			fail_msg("two tasks run in %s at %.3f s", key, (double)w->now / 1e9);
		strmap_put(&seen, key, (void *)(uintptr_t)1);
	}
	strmap_done(&seen);
}

/* --- commits */

static void w_enqueue(struct world *w, const struct txn *t, brain_done_cb cb, void *data)
{
	struct w_proposal *p = NEW(struct w_proposal);

	txn_pack(t, w->now, &p->bytes);
	p->due = w->now + w_random(w, w->commit_max);
	/* In the order of proposals, as Raft does. */
	if (w->last != NULL && p->due < w->last->due)
		p->due = w->last->due;
	p->cb = cb;
	p->data = data;
	if (w->last != NULL)
		w->last->next = p;
	else
		w->first = p;
	w->last = p;
}

static int w_propose(void *data, const struct txn *t, brain_done_cb cb, void *cb_data, struct err *e)
{
	(void)e;
	w_enqueue(data, t, cb, cb_data);
	return 0;
}

static void w_wake(void *data)
{
	((struct world *)data)->woken = true;
}

static int w_commit_one(struct world *w)
{
	struct w_proposal *p = w->first;
	struct err e = ERR_INIT;
	int rc;

	w->first = p->next;
	if (w->first == NULL)
		w->last = NULL;
	rc = store_apply(w->store, (uint8_t *)p->bytes.data, p->bytes.len, &e);
	w->commits++;
	if (rc == 0)
		w_check_slots(w);
	else if (w->verbose)
		fprintf(stderr, "%8.3f refused: %s\n", (double)w->now / 1e9, e.text);
	if (p->cb != NULL)
		p->cb(p->data, rc, &e);
	buf_done(&p->bytes);
	free(p);
	return rc;
}

/* The user's writes: at once. */
static W_UNUSED int w_apply(struct world *w, struct txn *t)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	int rc;

	txn_pack(t, w->now, &b);
	txn_free(t);
	rc = store_apply(w->store, (uint8_t *)b.data, b.len, &e);
	if (rc < 0 && w->verbose)
		fprintf(stderr, "apply: %s\n", e.text);
	return rc;
}

/* --- agents */

static int64_t w_image_ms(const char *image)
{
	const char *colon = strchr(image, ':');

	return colon != NULL ? (int64_t)strtol(colon + 1, NULL, 10) * W_MS : 0;
}

/* Where the task goes next, and when; its own state: nowhere. */
static Pb__TaskState__E w_next_state(struct world *w, const Pb__Task *t, struct w_task *k, int64_t *ret_after)
{
	const Pb__Template *tmpl = store_template(w->store, t->template_id);
	const char *image = tmpl != NULL ? tmpl->spec->container_spec->image : "ok";
	Pb__TaskState__E st = t->status->state;

	*ret_after = w_random(w, w->agent_max);
	if (t->desired_state >= ST(SHUTDOWN))
		return ST(SHUTDOWN);
	switch (st) {
	case ST(ASSIGNED):
		return ST(PREPARING);
	case ST(PREPARING):
		if (str_eq(image, "reject"))
			return ST(REJECTED);
		return str_eq(image, "never") ? st : ST(READY);
	case ST(READY):
		return t->desired_state >= ST(RUNNING) ? ST(STARTING) : st;
	case ST(STARTING):
		return ST(RUNNING);
	case ST(RUNNING):
		*ret_after = k->ran_since + w_image_ms(image) - w->now;
		if (str_has_prefix(image, "crash:"))
			return ST(FAILED);
		return str_has_prefix(image, "done:") ? ST(COMPLETE) : st;
	default:
		return st;
	}
}

static void w_report(struct world *w, const Pb__Task *t, Pb__TaskState__E to)
{
	Pb__Task *n = msg_clone(t);
	struct txn *x = txn_new();

	n->status->state = to;
	n->status->timestamp = w->now;
	n->status->has_applied_at = true;
	n->status->applied_at = w->now;
	if (to == ST(RUNNING)) {
		n->has_running_at = true;
		n->running_at = w->now;
	}
	if (to == ST(FAILED) || to == ST(REJECTED)) {
		free(n->status->err);
		n->status->err = xstrdup("task: non-zero exit (1)");
	}
	txn_update(x, OBJ(TASK), n);
	w_enqueue(w, x, NULL, NULL);
	txn_free(x);
}

/* Does what is due; returns when the next thing will be. */
static int64_t w_agents(struct world *w)
{
	int64_t next = INT64_MAX;
	const struct object *o;
	struct store_iter it;

	if (w->no_agents)
		return INT64_MAX;
	if (!w->agents_look && w->now < w->agents_next)
		return w->agents_next;
	w->agents_look = false;
	store_iter_init(&it, w->store, OBJ(TASK), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL) {
		const Pb__Task *t = o->task;
		struct w_task *k;
		Pb__TaskState__E to;
		int64_t after;

		if (t->status->state < ST(ASSIGNED) || t->status->state > ST(RUNNING) ||
		    strmap_has(&w->silent, t->node_id))
			continue;
		k = strmap_get(&w->tasks, t->id);
		if (k == NULL) {
			k = NEW(struct w_task);
			strmap_put(&w->tasks, t->id, k);
		}
		if (t->status->state == ST(RUNNING) && k->ran_since == 0)
			k->ran_since = w->now;
		to = w_next_state(w, t, k, &after);
		if (to == t->status->state) {
			k->due = 0;
			continue;
		}
		if (k->due == 0 || k->state != (int)t->status->state || k->desired != (int)t->desired_state)
			k->due = w->now + after;
		k->state = (int)t->status->state;
		k->desired = (int)t->desired_state;
		if (k->due <= w->now) {
			w_report(w, t, to);
			/* Looked at again when that is committed, or was not. */
			k->due = w->now + w->commit_max + 1;
		}
		if (k->due < next)
			next = k->due;
	}
	w->agents_next = next;
	return next;
}

/* --- the loop */

static W_UNUSED struct world *w_new(uint64_t seed)
{
	struct world *w = NEW(struct world);
	struct brain_opts o = {.propose = w_propose, .wake = w_wake};

	w->rng = rng_from_seed(&w->seed, seed);
	w->now = INT64_C(1700000000) * W_SEC;
	w->brain_next = INT64_MAX;
	w->commit_max = 2 * W_MS;
	w->agent_max = 20 * W_MS;
	w->store = store_new();
	w->watch = store_watch_new(w->store, w_event, w);
	o.store = w->store;
	o.rng = w->rng;
	o.data = w;
	w->brain = brain_new(&o);
	w->verbose = getenv("WORLD_VERBOSE") != NULL;
	return w;
}

static W_UNUSED void w_free(struct world *w)
{
	brain_free(w->brain);
	while (w->first != NULL) {
		struct w_proposal *p = w->first;

		w->first = p->next;
		if (p->cb != NULL)
			p->cb(p->data, ERR_UNAVAILABLE, NULL);
		buf_done(&p->bytes);
		free(p);
	}
	store_watch_free(w->watch);
	store_free(w->store);
	strmap_done_free(&w->tasks, free);
	strmap_done(&w->silent);
	strmap_done(&w->back);
	free(w);
}

/* Everything up to the next moment at which something happens, but not beyond `until`. */
static void w_step(struct world *w, int64_t until)
{
	int64_t next = w_agents(w);

	if (w->woken || w->brain_next <= w->now) {
		w->woken = false;
		w->brain_next = brain_tick(w->brain, w->now);
		assert_true(w->brain_next > w->now);
		return;
	}
	if (w->first != NULL && w->first->due <= w->now) {
		w_commit_one(w);
		return;
	}
	if (w->first != NULL && w->first->due < next)
		next = w->first->due;
	if (w->brain_next < next)
		next = w->brain_next;
	w->now = next < until ? next : until;
}

static W_UNUSED void w_run(struct world *w, int64_t ns)
{
	int64_t until = w->now + ns;
	uint64_t steps = 0;

	while (w->now < until) {
		w_step(w, until);
		/* A brain that finds ever more to do would never let the clock go on. */
		if (++steps > 3000000)
			fail_msg("no end in sight at %.3f s", (double)w->now / 1e9);
	}
}

static W_UNUSED bool w_until(
    struct world *w, bool (*cond)(struct world *w, void *data), void *data, int64_t ns)
{
	int64_t until = w->now + ns;

	while (w->now < until) {
		if (cond(w, data))
			return true;
		w_step(w, until);
	}
	return cond(w, data);
}

/* --- things in it */

static W_UNUSED Pb__KV *w_kv(const char *key, const char *value)
{
	Pb__KV *kv = xmalloc(sizeof(*kv));

	pb__kv__init(kv);
	kv->key = xstrdup(key);
	kv->value = xstrdup(value);
	return kv;
}

static W_UNUSED Pb__Node *w_node_msg(const char *id)
{
	Pb__Node *n = xmalloc(sizeof(*n));

	pb__node__init(n);
	n->id = xstrdup(id);
	n->spec = xmalloc(sizeof(*n->spec));
	pb__node_spec__init(n->spec);
	n->status = xmalloc(sizeof(*n->status));
	pb__node_status__init(n->status);
	n->status->has_state = true;
	n->status->state = PB__NODE_STATE__E__READY;
	n->status->addr = xstrdup("10.1.2.3");
	n->description = xmalloc(sizeof(*n->description));
	pb__node_description__init(n->description);
	n->description->hostname = xasprintf("host-%s", id);
	n->description->platform = xmalloc(sizeof(Pb__Platform));
	pb__platform__init(n->description->platform);
	n->description->platform->architecture = xstrdup("x86_64");
	n->description->platform->os = xstrdup("linux");
	n->description->resources = xmalloc(sizeof(Pb__Resources));
	pb__resources__init(n->description->resources);
	n->description->resources->has_nano_cpus = true;
	n->description->resources->nano_cpus = INT64_C(4000000000);
	n->description->resources->has_memory_bytes = true;
	n->description->resources->memory_bytes = INT64_C(8) << 30;
	return n;
}

static W_UNUSED void w_node(struct world *w, const char *id)
{
	struct txn *t = txn_new();

	txn_create(t, OBJ(NODE), w_node_msg(id));
	assert_int_equal(w_apply(w, t), 0);
}

static W_UNUSED Pb__Node *w_node_edit(struct world *w, const char *id)
{
	return msg_clone(store_get(w->store, OBJ(NODE), id)->node);
}

static W_UNUSED void w_node_save(struct world *w, Pb__Node *n)
{
	struct txn *t = txn_new();

	txn_update(t, OBJ(NODE), n);
	assert_int_equal(w_apply(w, t), 0);
}

static W_UNUSED void w_node_label(struct world *w, const char *id, const char *key, const char *value)
{
	Pb__Node *n = w_node_edit(w, id);

	for (size_t i = 0; i < n->spec->n_labels; i++) {
		if (str_eq(n->spec->labels[i]->key, key)) {
			free(n->spec->labels[i]->value);
			n->spec->labels[i]->value = xstrdup(value);
			w_node_save(w, n);
			return;
		}
	}
	n->spec->labels = xreallocarray(n->spec->labels, n->spec->n_labels + 1, sizeof(Pb__KV *));
	n->spec->labels[n->spec->n_labels++] = w_kv(key, value);
	w_node_save(w, n);
}

static W_UNUSED void w_node_availability(struct world *w, const char *id, Pb__NodeAvailability__E a)
{
	Pb__Node *n = w_node_edit(w, id);

	n->spec->has_availability = true;
	n->spec->availability = a;
	w_node_save(w, n);
}

/* The machine dies (its agent is silent and the dispatcher has noticed) or is back. */
static W_UNUSED void w_node_up(struct world *w, const char *id, bool up)
{
	Pb__Node *n = w_node_edit(w, id);

	n->status->state = up ? PB__NODE_STATE__E__READY : PB__NODE_STATE__E__DOWN;
	n->has_down_since = !up;
	n->down_since = w->now;
	if (up)
		strmap_remove(&w->silent, id);
	else
		strmap_put(&w->back, id, (void *)(uintptr_t)1);
	if (!up)
		strmap_put(&w->silent, id, (void *)(uintptr_t)1);
	w_node_save(w, n);
}

static W_UNUSED Pb__Template *w_template(const Pb__Service *s)
{
	Pb__Template *t = xmalloc(sizeof(*t));

	pb__template__init(t);
	t->id = xstrdup(s->template_id);
	t->service_id = xstrdup(s->id);
	t->service_name = xstrdup(s->spec->name);
	t->spec = msg_clone(s->spec->task_template);
	if (s->spec->endpoint_spec != NULL)
		t->endpoint = msg_clone(s->spec->endpoint_spec);
	return t;
}

/* A service that is not stored yet; w_create takes it. */
static W_UNUSED Pb__Service *w_service(struct world *w, const char *id, const char *image, int replicas)
{
	Pb__Service *s = xmalloc(sizeof(*s));
	Pb__TaskSpec *ts = xmalloc(sizeof(*ts));

	pb__service__init(s);
	s->id = xstrdup(id);
	s->template_id = xasprintf("%s.%" PRIu64, id, ++w->serial);
	s->spec = xmalloc(sizeof(*s->spec));
	pb__service_spec__init(s->spec);
	s->spec->name = xstrdup(id);
	s->spec->mode = xmalloc(sizeof(*s->spec->mode));
	pb__service_mode__init(s->spec->mode);
	if (replicas < 0) {
		s->spec->mode->global = xmalloc(sizeof(Pb__GlobalService));
		pb__global_service__init(s->spec->mode->global);
	} else {
		s->spec->mode->replicated = xmalloc(sizeof(Pb__ReplicatedService));
		pb__replicated_service__init(s->spec->mode->replicated);
		s->spec->mode->replicated->has_replicas = true;
		s->spec->mode->replicated->replicas = (uint64_t)replicas;
	}
	pb__task_spec__init(ts);
	ts->container_spec = xmalloc(sizeof(*ts->container_spec));
	pb__container_spec__init(ts->container_spec);
	ts->container_spec->image = xstrdup(image);
	s->spec->task_template = ts;
	return s;
}

static W_UNUSED Pb__RestartPolicy *w_restart(Pb__Service *s)
{
	Pb__TaskSpec *ts = s->spec->task_template;

	if (ts->restart_policy == NULL) {
		ts->restart_policy = xmalloc(sizeof(*ts->restart_policy));
		pb__restart_policy__init(ts->restart_policy);
	}
	return ts->restart_policy;
}

static W_UNUSED void w_restart_delay(Pb__Service *s, int64_t ns)
{
	w_restart(s)->has_delay = true;
	w_restart(s)->delay = ns;
}

static W_UNUSED Pb__UpdateConfig *w_update_config(Pb__Service *s)
{
	if (s->spec->update_config == NULL) {
		s->spec->update_config = xmalloc(sizeof(Pb__UpdateConfig));
		pb__update_config__init(s->spec->update_config);
		s->spec->update_config->has_parallelism = true;
		s->spec->update_config->parallelism = 1;
	}
	return s->spec->update_config;
}

static W_UNUSED Pb__Placement *w_placement(Pb__Service *s)
{
	Pb__TaskSpec *ts = s->spec->task_template;

	if (ts->placement == NULL) {
		ts->placement = xmalloc(sizeof(*ts->placement));
		pb__placement__init(ts->placement);
	}
	return ts->placement;
}

static W_UNUSED void w_constraint(Pb__Service *s, const char *expr)
{
	Pb__Placement *p = w_placement(s);

	for (size_t i = 0; i < p->n_constraints; i++)
		free(p->constraints[i]);
	p->constraints = xreallocarray(p->constraints, 1, sizeof(char *));
	p->constraints[0] = xstrdup(expr);
	p->n_constraints = 1;
}

static W_UNUSED void w_port(Pb__Service *s, uint32_t target, uint32_t published, bool host)
{
	Pb__EndpointSpec *ep = s->spec->endpoint_spec;
	Pb__PortConfig *p = xmalloc(sizeof(*p));

	if (ep == NULL) {
		ep = s->spec->endpoint_spec = xmalloc(sizeof(*ep));
		pb__endpoint_spec__init(ep);
	}
	pb__port_config__init(p);
	p->has_target_port = p->has_published_port = p->has_publish_mode = true;
	p->target_port = target;
	p->published_port = published;
	p->publish_mode = host ? PB__PUBLISH_MODE__E__HOST : PB__PUBLISH_MODE__E__INGRESS;
	ep->ports = xreallocarray(ep->ports, ep->n_ports + 1, sizeof(*ep->ports));
	ep->ports[ep->n_ports++] = p;
}

static W_UNUSED void w_create(struct world *w, Pb__Service *s)
{
	struct txn *t = txn_new();

	txn_create(t, OBJ(TEMPLATE), w_template(s));
	txn_create(t, OBJ(SERVICE), s);
	assert_int_equal(w_apply(w, t), 0);
}

static W_UNUSED const Pb__Service *w_get(struct world *w, const char *id)
{
	const struct object *o = store_get(w->store, OBJ(SERVICE), id);

	return o != NULL ? o->service : NULL;
}

/* Begins an update, as the API does: edit the spec of what this returns, then w_save. */
static W_UNUSED Pb__Service *w_edit(struct world *w, const char *id)
{
	Pb__Service *s = msg_clone(w_get(w, id));

	if (s->previous_spec != NULL)
		protobuf_c_message_free_unpacked(&s->previous_spec->base, NULL);
	s->previous_spec = msg_clone(s->spec);
	free(s->previous_template_id);
	s->previous_template_id = xstrdup(s->template_id);
	if (s->update_status != NULL)
		protobuf_c_message_free_unpacked(&s->update_status->base, NULL);
	s->update_status = NULL;
	return s;
}

static W_UNUSED void w_save(struct world *w, Pb__Service *s)
{
	struct txn *t = txn_new();

	free(s->template_id);
	s->template_id = xasprintf("%s.%" PRIu64, s->id, ++w->serial);
	txn_create(t, OBJ(TEMPLATE), w_template(s));
	txn_update(t, OBJ(SERVICE), s);
	assert_int_equal(w_apply(w, t), 0);
}

static W_UNUSED void w_image(struct world *w, const char *id, const char *image)
{
	Pb__Service *s = w_edit(w, id);

	free(s->spec->task_template->container_spec->image);
	s->spec->task_template->container_spec->image = xstrdup(image);
	w_save(w, s);
}

static W_UNUSED void w_scale(struct world *w, const char *id, int replicas)
{
	Pb__Service *s = w_edit(w, id);

	s->spec->mode->replicated->replicas = (uint64_t)replicas;
	w_save(w, s);
}

static W_UNUSED void w_remove(struct world *w, obj_kind kind, const char *id)
{
	struct txn *t = txn_new();

	txn_delete(t, kind, id, 0);
	assert_int_equal(w_apply(w, t), 0);
}

/* --- looking at it */

/* Tasks of the service in that observed state, wanted or not as `wanted` says; service NULL: of all. */
static W_UNUSED size_t w_count(struct world *w, const char *service, Pb__TaskState__E state)
{
	const struct object *o;
	struct store_iter it;
	size_t n = 0;

	store_iter_init(&it, w->store, OBJ(TASK), STORE_ALL, NULL);
	while ((o = store_iter_next(&it)) != NULL)
		n += (service == NULL || str_eq(o->task->service_id, service)) &&
		     o->task->status->state == state;
	return n;
}

/* The newest task of a slot, or NULL. */
static W_UNUSED const Pb__Task *w_task(struct world *w, const char *service, uint64_t slot)
{
	const Pb__Task *best = NULL;
	const struct object *o;
	struct store_iter it;

	store_iter_init(&it, w->store, OBJ(TASK), STORE_TASK_BY_SERVICE, service);
	while ((o = store_iter_next(&it)) != NULL) {
		if (o->task->slot == slot && (best == NULL || best->created_at < o->task->created_at))
			best = o->task;
	}
	return best;
}

static W_UNUSED size_t w_slot_tasks(struct world *w, const char *service, uint64_t slot)
{
	const struct object *o;
	struct store_iter it;
	size_t n = 0;

	store_iter_init(&it, w->store, OBJ(TASK), STORE_TASK_BY_SERVICE, service);
	while ((o = store_iter_next(&it)) != NULL)
		n += o->task->slot == slot;
	return n;
}

/* Running, wanted, and made from what the service asks for now. */
static W_UNUSED size_t w_good(struct world *w, const char *service)
{
	const Pb__Service *s = w_get(w, service);
	const struct object *o;
	struct store_iter it;
	size_t n = 0;

	store_iter_init(&it, w->store, OBJ(TASK), STORE_TASK_BY_SERVICE, service);
	while ((o = store_iter_next(&it)) != NULL)
		n += o->task->status->state == ST(RUNNING) && o->task->desired_state == ST(RUNNING) &&
		     !strmap_has(&w->silent, o->task->node_id) &&
		     str_eq(o->task->template_id, s->template_id);
	return n;
}

static W_UNUSED size_t w_on_node(struct world *w, const char *node)
{
	const struct object *o;
	struct store_iter it;
	size_t n = 0;

	store_iter_init(&it, w->store, OBJ(TASK), STORE_TASK_BY_NODE, node);
	while ((o = store_iter_next(&it)) != NULL)
		n += o->task->status->state == ST(RUNNING) && o->task->desired_state == ST(RUNNING);
	return n;
}

static W_UNUSED Pb__UpdateState__E w_update_state(struct world *w, const char *id)
{
	const Pb__Service *s = w_get(w, id);

	return s->update_status != NULL ? s->update_status->state : PB__UPDATE_STATE__E__UNKNOWN;
}

#endif
