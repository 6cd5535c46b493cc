/* The store alone: memory a task at a million tasks (one network attachment each, as RUNNING tasks have), and
 * how fast transactions, walks and snapshots are.
 *
 * Usage: bench_store [tasks [nodes]] */
#include <malloc.h>
#include <stdlib.h>
#include <time.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/mem.h"
#include "manager/store/store.h"

static double now(void)
{
	return (double)clock_mono_ns(clock_system()) / 1e9;
}

static double resident_mib(void)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	unsigned long size = 0, resident = 0;

	if (fs_read("/proc/self/statm", 4096, &b, NULL) == 0)
		sscanf(b.data, "%lu %lu", &size, &resident);
	return (double)resident * (double)sysconf(_SC_PAGESIZE) / (1024 * 1024);
}

struct bench {
	struct store *s;
	struct rng rng;
	struct rng_seeded mem;
	unsigned long tasks, nodes, services;
	char (*ids)[ID_LEN + 1], (*node_ids)[ID_LEN + 1], (*service_ids)[ID_LEN + 1];
};

static Pb__Task *new_task(struct bench *b, unsigned long i)
{
	Pb__Task *t = xmalloc(sizeof(*t));
	Pb__NetworkAttachment *a = xmalloc(sizeof(*a));

	pb__task__init(t);
	t->id = xstrdup(b->ids[i]);
	t->service_id = xstrdup(b->service_ids[i % b->services]);
	t->template_id = xasprintf("%s.17", t->service_id);
	t->service_name = xasprintf("service-%lu", i % b->services);
	t->has_slot = 1;
	t->slot = i / b->services + 1;
	t->desired_state = PB__TASK_STATE__E__RUNNING;
	t->has_desired_at = 1;
	t->status = xmalloc(sizeof(*t->status));
	pb__task_status__init(t->status);
	t->status->state = PB__TASK_STATE__E__NEW;
	t->status->message = xstrdup("created");
	pb__network_attachment__init(a);
	a->network_id = xstrdup(b->node_ids[0]);
	a->n_addresses = 1;
	a->addresses = xcalloc(1, sizeof(char *));
	a->addresses[0] = xasprintf("10.%lu.%lu.%lu/8", i >> 16 & 255, i >> 8 & 255, i & 255);
	a->n_aliases = 1;
	a->aliases = xcalloc(1, sizeof(char *));
	a->aliases[0] = xstrdup(t->service_name);
	t->n_networks_attachments = 1;
	t->networks_attachments = xcalloc(1, sizeof(a));
	t->networks_attachments[0] = a;
	return t;
}

static void set(char **s, const char *v)
{
	free(*s);
	*s = xstrdup(v);
}

static void make_running(struct bench *b, Pb__Task *t)
{
	Pb__ContainerStatus *c = xmalloc(sizeof(*c));
	char id[ID_HEX_LEN + 1];

	set(&t->node_id, b->node_ids[rng_below(b->rng, b->nodes)]);
	t->status->state = PB__TASK_STATE__E__RUNNING;
	set(&t->status->message, "started");
	set(&t->status->applied_by, t->node_id);
	pb__container_status__init(c);
	id_new_hex(b->rng, id);
	c->container_id = xstrdup(id);
	c->has_pid = 1;
	c->pid = 4711;
	t->status->container_status = c;
	t->has_running_at = 1;
}

static void apply(struct bench *b, struct txn *t)
{
	CLEANUP_BUF struct buf out = BUF_INIT;
	struct err e = ERR_INIT;

	txn_pack(t, 1700000000000000000, &out);
	txn_free(t);
	if (store_apply(b->s, (const uint8_t *)out.data, out.len, &e) != 0) {
		fprintf(stderr, "%s\n", e.text);
		exit(1);
	}
}

/* Packs n updates of random tasks as transactions of `per` each, then times applying alone. */
static void time_updates(struct bench *b, unsigned long n, unsigned long per)
{
	unsigned long count = n / per;
	struct buf *packed = xcalloc(count, sizeof(*packed));
	struct err e = ERR_INIT;
	double t = now(), pack, took;

	for (unsigned long i = 0; i < count; i++) {
		struct txn *x = txn_new();

		for (unsigned long j = 0; j < per; j++) {
			const struct object *o =
			    store_get(b->s, OBJ(TASK), b->ids[rng_below(b->rng, b->tasks)]);
			Pb__Task *task = msg_clone(o->msg);

			task->version = 0; /* whatever is there: the same one may come twice */
			set(&task->status->message, i % 2 ? "started" : "still here");
			txn_update(x, OBJ(TASK), task);
		}
		txn_pack(x, 1700000000000000000, &packed[i]);
		txn_free(x);
	}
	pack = now() - t;
	t = now();
	for (unsigned long i = 0; i < count; i++) {
		if (store_apply(b->s, (const uint8_t *)packed[i].data, packed[i].len, &e) != 0) {
			fprintf(stderr, "%s\n", e.text);
			exit(1);
		}
	}
	took = now() - t;
	printf("updates, %4lu a transaction: made %8.0f/s, applied %8.0f/s\n", per, (double)n / pack,
	    (double)n / took);
	for (unsigned long i = 0; i < count; i++)
		buf_done(&packed[i]);
	free(packed);
}

int main(int argc, char **argv)
{
	struct bench b = {.tasks = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000,
	    .nodes = argc > 2 ? strtoul(argv[2], NULL, 10) : 5000};
	struct buf snap = BUF_INIT;
	struct store_frozen *f;
	struct store_iter it;
	struct err e = ERR_INIT;
	double t, base;
	size_t n = 0;

	b.rng = rng_from_seed(&b.mem, 1);
	b.services = b.tasks / 1000 + 1;
	b.s = store_new();
	b.ids = xcalloc(b.tasks, sizeof(*b.ids));
	b.node_ids = xcalloc(b.nodes, sizeof(*b.node_ids));
	b.service_ids = xcalloc(b.services, sizeof(*b.service_ids));
	for (unsigned long i = 0; i < b.tasks; i++)
		id_new(b.rng, b.ids[i]);
	for (unsigned long i = 0; i < b.nodes; i++)
		id_new(b.rng, b.node_ids[i]);
	for (unsigned long i = 0; i < b.services; i++)
		id_new(b.rng, b.service_ids[i]);
	base = resident_mib();

	t = now();
	for (unsigned long i = 0; i < b.tasks; i += 100) {
		struct txn *x = txn_new();

		for (unsigned long j = i; j < i + 100 && j < b.tasks; j++)
			txn_create(x, OBJ(TASK), new_task(&b, j));
		apply(&b, x);
	}
	printf("%lu tasks created, made and applied: %.0f/s\n", b.tasks, (double)b.tasks / (now() - t));
	t = now();
	for (unsigned long i = 0; i < b.tasks; i += 100) {
		struct txn *x = txn_new();

		for (unsigned long j = i; j < i + 100 && j < b.tasks; j++) {
			Pb__Task *task = msg_clone(store_get(b.s, OBJ(TASK), b.ids[j])->msg);

			make_running(&b, task);
			txn_update(x, OBJ(TASK), task);
		}
		apply(&b, x);
	}
	printf("all assigned and running, made and applied: %.0f/s\n", (double)b.tasks / (now() - t));
	malloc_trim(0);
	printf("resident a task: %.0f bytes\n", (resident_mib() - base) * 1024 * 1024 / (double)b.tasks);

	time_updates(&b, b.tasks / 5, 1);
	time_updates(&b, b.tasks / 5, 100);

	t = now();
	for (unsigned long i = 0; i < b.nodes; i++) {
		store_iter_init(&it, b.s, OBJ(TASK), STORE_TASK_BY_NODE, b.node_ids[i]);
		while (store_iter_next(&it) != NULL)
			n++;
	}
	printf("walking all tasks by node: %.0f million/s\n", (double)n / (now() - t) / 1e6);

	t = now();
	f = store_freeze(b.s);
	printf("snapshot: frozen in %.0f ms", (now() - t) * 1e3);
	t = now();
	store_frozen_pack(f, &snap);
	printf(", packed in %.2f s (%.0f MiB)", now() - t, (double)snap.len / (1024 * 1024));
	t = now();
	store_frozen_free(f);
	printf(", released in %.0f ms\n", (now() - t) * 1e3);
	t = now();
	if (store_restore(b.s, (const uint8_t *)snap.data, snap.len, &e) != 0)
		fprintf(stderr, "%s\n", e.text);
	printf("restored in %.2f s\n", now() - t);
	buf_done(&snap);
	store_free(b.s);
	free(b.ids);
	free(b.node_ids);
	free(b.service_ids);
	return 0;
}
