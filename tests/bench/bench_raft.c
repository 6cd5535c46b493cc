/* Commits a second through consensus and store (config creates, one transaction each) with 1, 16 and 64 in
 * flight on one voter, beside what this disk does with one synchronous 4 KiB write at a time.
 *
 * Usage: bench_raft [seconds for each [directory]] */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "tests/lib/raftnode.h"

struct bench {
	struct raftnode r;
	unsigned long next, acked;
	unsigned in_flight, window;
	bool stopping, drained;
	uint64_t *latency_ns;
	size_t cap;
};
struct write_req {
	struct bench *b;
	uint64_t started;
};

static const char data[] =
    "a config of about a hundred bytes, which is what configs and most changes to tasks are like.";

static void fill(struct bench *b);
static void on_done(void *p, int status, const struct err *e)
{
	struct write_req *w = p;
	struct bench *b = w->b;

	if (status != 0) {
		fprintf(stderr, "%s\n", e->text);
		exit(1);
	}
	if (b->acked < b->cap)
		b->latency_ns[b->acked] = uv_hrtime() - w->started;
	b->acked++;
	b->in_flight--;
	free(w);
	if (!b->stopping)
		fill(b);
	else if (b->in_flight == 0)
		b->drained = true;
}

static void fill(struct bench *b)
{
	struct err e = ERR_INIT;

	while (b->in_flight < b->window) {
		struct write_req *w = NEW(struct write_req);
		char id[32];

		snprintf(id, sizeof(id), "c%022lu", b->next++);
		w->b = b;
		w->started = uv_hrtime();
		b->in_flight++;
		if (raftnode_propose_config(&b->r, id, data, on_done, w, &e) != 0) {
			fprintf(stderr, "%s\n", e.text);
			exit(1);
		}
	}
}

static int by_value(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

	return a < b ? -1 : a > b;
}

/* In microseconds, of sorted latencies. */
static double percentile(const struct bench *b, unsigned p)
{
	size_t n = b->acked < b->cap ? b->acked : b->cap;
	size_t at = n * p / 100;

	return n > 0 ? (double)b->latency_ns[at] / 1e3 : 0;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void run(const char *parent, unsigned window, double seconds)
{
	static struct bench b;
	CLEANUP_FREE char *dir = xasprintf("%s/%u", parent, window);
	struct err e = ERR_INIT;
	uint64_t start, end;
	double took, cpu;
	size_t n;

	memset(&b, 0, sizeof(b));
	b.window = window;
	b.cap = 1u << 22;
	b.latency_ns = xcalloc(b.cap, sizeof(uint64_t));
	if (raftnode_start(&b.r, dir, true, 0, NULL, &e) != 0 || !raftnode_until(&b.r, &b.r.leader)) {
		fprintf(stderr, "%s\n", e.text);
		exit(1);
	}
	cpu = cpu_seconds();
	start = uv_hrtime();
	end = start + (uint64_t)(seconds * 1e9);
	fill(&b);
	while (uv_hrtime() < end)
		uv_run(&b.r.loop, UV_RUN_ONCE);
	b.stopping = true;
	took = (double)(uv_hrtime() - start) / 1e9;
	n = b.acked;
	cpu = cpu_seconds() - cpu;
	raftnode_until(&b.r, &b.drained);
	qsort(b.latency_ns, n < b.cap ? n : b.cap, sizeof(uint64_t), by_value);
	printf("%3u in flight: %8.0f commits/s   p50 %6.0f us   p99 %6.0f us   %4.1f us CPU each   %u "
	       "snapshots\n",
	    window, (double)n / took, percentile(&b, 50), percentile(&b, 99), cpu / (double)n * 1e6,
	    b.r.freezes);
	fflush(stdout);
	raftnode_stop(&b.r);
	free(b.latency_ns);
}

/* What one synchronous direct write costs here. */
static void raw(const char *dir, double seconds)
{
	CLEANUP_FREE char *path = fs_path(dir, "raw");
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_DSYNC | O_CLOEXEC, 0600);
	void *block = NULL;
	uint64_t start = uv_hrtime();
	unsigned long n = 0;

	if (fd < 0 || posix_memalign(&block, 4096, 4096) != 0 || posix_fallocate(fd, 0, 8 << 20) != 0) {
		perror(path);
		return;
	}
	memset(block, 7, 4096);
	while ((double)(uv_hrtime() - start) < seconds * 1e9) {
		if (pwrite(fd, block, 4096, (off_t)(n++ / 16 % 2048 * 4096)) != 4096)
			perror(path);
	}
	printf("one 4 KiB O_DIRECT|O_DSYNC write after the other: %.0f/s\n",
	    (double)n / ((double)(uv_hrtime() - start) / 1e9));
	free(block);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? strtod(argv[1], NULL) : 3;
	char *dir = argc > 2 ? xstrdup(argv[2]) : raftnode_tmpdir();

	raw(dir, seconds / 3);
	run(dir, 1, seconds);
	run(dir, 16, seconds);
	run(dir, 64, seconds);
	run(dir, 256, seconds);
	raw(dir, seconds / 3);
	if (argc <= 2)
		fs_remove_tree(dir, NULL);
	free(dir);
	return 0;
}
