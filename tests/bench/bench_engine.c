/* The container engine alone: how long it takes to create and start containers, all at once and one by one,
 * and what each costs.
 *
 *   bench_engine [containers] [net|nonet] [rounds]
 *
 * Prints seconds, milliseconds a container, the engine's memory and conmon's. Needs root. */
#include "test_engine.h"

static struct te env;
#define T (&env)

static double now(void)
{
	return (double)uv_hrtime() / 1e9;
}

static long pss_kib(int64_t pid)
{
	char path[64];
	CLEANUP_BUF struct buf b = BUF_INIT;
	snprintf(path, sizeof(path), "/proc/%lld/smaps_rollup", (long long)pid);
	const char *p = fs_read(path, 65536, &b, NULL) == 0 ? strstr(b.data, "\nPss:") : NULL;
	return p ? strtol(p + 5, NULL, 10) : 0;
}

struct one {
	struct te_done created, started;
	char id[65];
	double begun, ended;
};

static unsigned n_left;

static void on_started(void *data, const struct err *e)
{
	struct one *o = data;
	te_cb(&o->started, e);
	o->ended = now();
	n_left--;
}

static void on_created(void *data, const struct err *e)
{
	struct one *o = data;
	struct err se = ERR_INIT;
	te_cb(&o->created, e);
	if (e->code || engine_start(T->g, o->id, on_started, o, &se) < 0)
		te_die("create", e->code ? e : &se);
}

static bool all_done(void *data)
{
	(void)data;
	return n_left == 0;
}

static void begin(struct one *o)
{
	struct err e = ERR_INIT;
	o->begun = now();
	n_left++;
	if (engine_create(T->g, TE_CONFIG(T, "sleep", "600"), "task", on_created, o, o->id, &e) < 0)
		te_die("create", &e);
}

static void check(const struct one *o)
{
	if (o->started.err.code)
		te_die("start", &o->started.err);
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 50;
	int rounds = argc > 3 ? atoi(argv[3]) : 3;
	bool net = argc < 3 || strcmp(argv[2], "nonet") != 0;
	te_init(T, net);
	log_set_level(LOG_LEVEL_WARN);
	printf("runtime %s, cgroups %s, network %s\n", engine_runtime(T->g), engine_cgroup_mode(T->g),
	    net ? "bridge" : "none");

	double best = 1e9, sum = 0;
	for (int i = 0; i < 10; i++) {
		struct one o = {0};
		begin(&o);
		if (!test_loop_until(&T->loop, all_done, NULL, TE_WAIT_MS))
			te_die("no answer", NULL);
		check(&o);
		sum += o.ended - o.begun;
		best = o.ended - o.begun < best ? o.ended - o.begun : best;
	}
	printf("one at a time: %.1f ms each (best %.1f)\n", sum * 100, best * 1000);
	te_remove_all(T);

	for (int round = 0; round < rounds; round++) {
		struct one *all = xcalloc(n, sizeof(*all));
		double t0 = now();
		for (unsigned i = 0; i < n; i++)
			begin(&all[i]);
		if (!test_loop_until(&T->loop, all_done, NULL, 120000))
			te_die("no answer", NULL);
		double t = now() - t0;
		long conmon = 0;
		for (unsigned i = 0; i < n; i++) {
			check(&all[i]);
			conmon += pss_kib(te_find(T, all[i].id)->conmon_pid);
		}
		printf("%u at once: %.3f s, %.1f ms each; conmon %ld KiB each (PSS), engine %ld KiB\n", n, t,
		    t * 1000 / n, conmon / n, pss_kib(getpid()));
		t0 = now();
		te_remove_all(T);
		printf("%u removed in %.3f s\n", n, now() - t0);
		free(all);
	}
	CLEANUP_FREE char *db = fs_path(T->data_root, "agent.db");
	struct stat st;
	printf("database %lld KiB\n", stat(db, &st) == 0 ? (long long)st.st_size / 1024 : -1);
	te_done(T);
	return 0;
}
