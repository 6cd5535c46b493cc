/* How long the scheduler takes to give 1k, 10k and 100k pending tasks a node, 1,000 nodes being there:
 * decisions alone, and with the transactions that write them. Not a timed test; run it from a release build.
 *
 * SwarmKit's own benchmark of the same shape took 0.148, 1.06 and 24.2 s on the machine this was written on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "manager/scheduler/scheduler.h"
#include "manager/store/store.h"

#define NODES 1000
#define BATCH 500

static double seconds(void)
{
	return (double)clock_mono_ns(clock_system()) / 1e9;
}

static void apply(struct store *s, struct txn *t)
{
	CLEANUP_BUF struct buf b = BUF_INIT;

	txn_pack(t, 1, &b);
	txn_free(t);
	ASSERT(store_apply(s, (uint8_t *)b.data, b.len, NULL) == 0);
}

static void add_node(struct txn *t, int i)
{
	Pb__Node *n = xmalloc(sizeof(*n));

	pb__node__init(n);
	n->id = xasprintf("node%021d", i);
	n->spec = xmalloc(sizeof(*n->spec));
	pb__node_spec__init(n->spec);
	n->status = xmalloc(sizeof(*n->status));
	pb__node_status__init(n->status);
	n->status->has_state = true;
	n->status->state = PB__NODE_STATE__E__READY;
	n->description = xmalloc(sizeof(*n->description));
	pb__node_description__init(n->description);
	n->description->hostname = xasprintf("host%d", i);
	n->description->resources = xmalloc(sizeof(Pb__Resources));
	pb__resources__init(n->description->resources);
	n->description->resources->has_nano_cpus = n->description->resources->has_memory_bytes = true;
	n->description->resources->nano_cpus = INT64_C(1000000000000);
	n->description->resources->memory_bytes = INT64_C(1) << 40;
	txn_create(t, OBJ(NODE), n);
}

static void add_template(struct txn *t)
{
	Pb__Template *x = xmalloc(sizeof(*x));

	pb__template__init(x);
	x->id = xstrdup("service.1");
	x->service_id = xstrdup("service");
	x->service_name = xstrdup("web");
	x->spec = xmalloc(sizeof(*x->spec));
	pb__task_spec__init(x->spec);
	x->spec->container_spec = xmalloc(sizeof(Pb__ContainerSpec));
	pb__container_spec__init(x->spec->container_spec);
	x->spec->resources = xmalloc(sizeof(Pb__ResourceRequirements));
	pb__resource_requirements__init(x->spec->resources);
	x->spec->resources->reservations = xmalloc(sizeof(Pb__Resources));
	pb__resources__init(x->spec->resources->reservations);
	x->spec->resources->reservations->has_memory_bytes = true;
	x->spec->resources->reservations->memory_bytes = 64 << 20;
	txn_create(t, OBJ(TEMPLATE), x);
}

static void add_task(struct txn *t, int i)
{
	Pb__Task *k = xmalloc(sizeof(*k));

	pb__task__init(k);
	k->id = xasprintf("task%021d", i);
	k->service_id = xstrdup("service");
	k->service_name = xstrdup("web");
	k->template_id = xstrdup("service.1");
	k->has_slot = true;
	k->slot = (uint64_t)i + 1;
	k->desired_state = PB__TASK_STATE__E__RUNNING;
	k->status = xmalloc(sizeof(*k->status));
	pb__task_status__init(k->status);
	k->status->state = PB__TASK_STATE__E__PENDING;
	k->status->message = xstrdup("pending task scheduling");
	txn_create(t, OBJ(TASK), k);
}

struct sink {
	struct txn *t;
	struct buf out;
	size_t txns, assigned;
	bool write;
};

static void flush(struct sink *k)
{
	if (k->t == NULL)
		return;
	buf_reset(&k->out);
	txn_pack(k->t, 1, &k->out);
	txn_free(TAKE_PTR(k->t));
	k->txns++;
}

static void on_decision(void *data, const struct sched_decision *d)
{
	struct sink *k = data;

	k->assigned += d->node_id != NULL;
	if (!k->write)
		return;
	if (k->t == NULL)
		k->t = txn_new();
	txn_update(k->t, OBJ(TASK), sched_decision_task(d, 1));
	if (txn_count(k->t) >= BATCH)
		flush(k);
}

static double run(const struct store *store, int tasks, bool write)
{
	struct sink k = {.write = write};
	int64_t next = INT64_MAX;
	double start, end;
	struct scheduler *s = scheduler_new(store);

	start = seconds();
	scheduler_run(s, 1, SIZE_MAX, on_decision, &k, &next);
	flush(&k);
	end = seconds();
	ASSERT(k.assigned == (size_t)tasks);
	scheduler_free(s);
	buf_done(&k.out);
	return end - start;
}

static void bench(int tasks)
{
	struct store *store = store_new();
	struct txn *t = txn_new();
	double load;

	for (int i = 0; i < NODES; i++)
		add_node(t, i);
	add_template(t);
	apply(store, t);
	for (int i = 0; i < tasks;) {
		t = txn_new();
		for (int j = 0; j < BATCH && i < tasks; j++, i++)
			add_task(t, i);
		apply(store, t);
	}
	load = seconds();
	scheduler_free(scheduler_new(store));
	load = seconds() - load;
	printf(
	    "%7d tasks on %d nodes: %.4f s decided, %.4f s with transactions (taking in the store: %.4f s)\n",
	    tasks, NODES, run(store, tasks, false), run(store, tasks, true), load);
	store_free(store);
}

int main(void)
{
	bench(1000);
	bench(10000);
	bench(100000);
	return 0;
}
