/* kill -9 under write load, again and again on the same log: every acknowledged write is there, and what is
 * there is a prefix of what was proposed, in order.
 *
 * This program is the parent and, started again with arguments, the child: it recovers, checks what it finds,
 * and then writes numbered configs with many in flight, telling each acknowledged number through a pipe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <cmocka.h>

#include "base/rng.h"
#include "raftnode.h"

#define ROUNDS    40
#define THRESHOLD 150 /* entries between snapshots */
#define READY     UINT32_MAX
#define PIPE_FD   3

/* --- the child ----------------------------------------------------------------------------------------- */

enum { EXIT_BAD_START = 40, EXIT_LOST, EXIT_NOT_PREFIX, EXIT_REFUSED, EXIT_CONTENT };

struct child {
	struct raftnode r;
	struct rng rng;
	uint32_t next;
	unsigned window, in_flight;
};
struct write_req {
	struct child *c;
	uint32_t number;
};

static void tell(uint32_t number)
{
	if (write(PIPE_FD, &number, sizeof(number)) != sizeof(number))
		_exit(0); /* the parent is gone */
}

/* Some are small, some fill blocks, some make segments roll. */
static size_t size_of(uint32_t number)
{
	return number % 400 == 0 ? 60000 : number % 50 == 0 ? 5000 : number % 100;
}

static void fill(struct child *c);
static void acked(void *data, int status, const struct err *e)
{
	struct write_req *w = data;
	struct child *c = w->c;

	if (status != 0) {
		fprintf(stderr, "write %u: %s\n", w->number, e->text);
		_exit(EXIT_REFUSED);
	}
	tell(w->number);
	free(w);
	c->in_flight--;
	fill(c);
}

static void fill(struct child *c)
{
	struct err e = ERR_INIT;

	while (c->in_flight < c->window) {
		struct write_req *w = NEW(struct write_req);
		char id[32];
		char *data;

		w->c = c;
		w->number = c->next++;
		snprintf(id, sizeof(id), "k%u", w->number);
		data = xcalloc(1, size_of(w->number) + 1);
		memset(data, 'a' + (int)(w->number % 26), size_of(w->number));
		c->in_flight++;
		if (raftnode_propose_config(&c->r, id, data, acked, w, &e) != 0) {
			fprintf(stderr, "propose %u: %s\n", w->number, e.text);
			_exit(EXIT_REFUSED);
		}
		free(data);
	}
}

/* 0 when the store holds k0..k(n-1) whole; n is told. */
static int check_prefix(struct store *s, uint32_t *ret_n)
{
	uint32_t n = (uint32_t)store_count(s, OBJ(CONFIG));

	for (uint32_t i = 0; i < n; i++) {
		const struct object *o;
		char id[32];

		snprintf(id, sizeof(id), "k%u", i);
		o = store_get(s, OBJ(CONFIG), id);
		if (o == NULL)
			return EXIT_NOT_PREFIX;
		if (o->config->spec->data.len != size_of(i) ||
		    (size_of(i) > 0 && o->config->spec->data.data[size_of(i) - 1] != 'a' + i % 26))
			return EXIT_CONTENT;
	}
	if (store_version(s) != n)
		return EXIT_NOT_PREFIX;
	*ret_n = n;
	return 0;
}

static int child_main(const char *dir, bool bootstrap, uint32_t at_least, uint64_t seed)
{
	static struct child c;
	struct rng_seeded mem;
	struct err e = ERR_INIT;
	int r;

	c.rng = rng_from_seed(&mem, seed);
	c.window = (unsigned)(1 + rng_below(c.rng, 64));
	if (raftnode_start(&c.r, dir, bootstrap, THRESHOLD, NULL, &e) != 0) {
		fprintf(stderr, "start: %s\n", e.text);
		return EXIT_BAD_START;
	}
	if (!raftnode_until(&c.r, &c.r.leader))
		return EXIT_BAD_START;
	r = check_prefix(c.r.store, &c.next);
	if (r != 0)
		return r;
	if (c.next < at_least) {
		fprintf(stderr, "%u were acknowledged, %u are there\n", at_least, c.next);
		return EXIT_LOST;
	}
	tell(READY);
	tell(c.next);
	fill(&c);
	for (;;)
		uv_run(&c.r.loop, UV_RUN_ONCE);
}

/* --- the parent ---------------------------------------------------------------------------------------- */

static pid_t spawn(const char *dir, bool bootstrap, uint32_t at_least, uint64_t seed, int *ret_fd)
{
	char least[16], seed_text[32];
	int fds[2];
	pid_t pid;

	snprintf(least, sizeof(least), "%u", at_least);
	snprintf(seed_text, sizeof(seed_text), "%llu", (unsigned long long)seed);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char *argv[] = {(char *)(uintptr_t) "test_raft_crash", (char *)(uintptr_t) "--child",
		    (char *)(uintptr_t)dir, (char *)(uintptr_t)(bootstrap ? "1" : "0"), least, seed_text,
		    NULL};

		if (fds[1] == PIPE_FD)
			fcntl(PIPE_FD, F_SETFD, 0);
		else
			dup2(fds[1], PIPE_FD);
		execv("/proc/self/exe", argv);
		_exit(127);
	}
	close(fds[1]);
	*ret_fd = fds[0];
	return pid;
}

/* Reads what the child tells until `ms` have passed (or for good when it has ended). */
struct heard {
	bool ready, numbered;  /* READY came; and the number that the child starts with */
	uint32_t acknowledged; /* all below were, or were found by a child */
};
static void listen_for(int fd, int64_t ms, struct heard *h)
{
	struct clock clk = clock_system();
	int64_t end = clock_mono_ns(clk) + ms * NS_PER_MSEC;
	uint32_t buf[4096];

	for (;;) {
		struct pollfd p = {fd, POLLIN, 0};
		int64_t left = (end - clock_mono_ns(clk)) / NS_PER_MSEC;
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			return;
		n = read(fd, buf, sizeof(buf));
		if (n <= 0)
			return;
		for (size_t i = 0; i < (size_t)n / sizeof(buf[0]); i++) {
			if (buf[i] == READY) {
				h->ready = true;
			} else if (!h->numbered) {
				/* What was in flight at the kill may be there, acknowledged or not. */
				assert_true(buf[i] >= h->acknowledged);
				h->acknowledged = buf[i];
				h->numbered = true;
			} else {
				assert_int_equal(buf[i], h->acknowledged); /* in order, none left out */
				h->acknowledged++;
			}
		}
	}
}

static void test_killed_under_load(void **state)
{
	struct rng_seeded mem;
	uint64_t seed = rng_u64(rng_system());
	struct rng rng = rng_from_seed(&mem, seed);
	char *dir = raftnode_tmpdir();
	struct heard h = {.acknowledged = 0};
	struct raftnode r;
	struct err e = ERR_INIT;
	uint32_t found = 0;
	unsigned loaded = 0;

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (unsigned round = 0; round < ROUNDS; round++) {
		int fd, status;
		pid_t pid = spawn(dir, round == 0, h.acknowledged, rng_u64(rng), &fd);

		h.ready = h.numbered = false;
		/* Some rounds are killed while they recover. */
		if (round % 5 == 4) {
			listen_for(fd, (int64_t)rng_below(rng, 60), &h);
		} else {
			for (int i = 0; i < 1000 && !h.ready; i++)
				listen_for(fd, 10, &h);
			listen_for(fd, (int64_t)(20 + rng_below(rng, 130)), &h);
			loaded++;
		}
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		listen_for(fd, 5000, &h); /* what it had told before it died */
		close(fd);
		if (!WIFSIGNALED(status))
			fail_msg("round %u: the child ended with %d", round, WEXITSTATUS(status));
		if (round % 5 != 4 && !h.ready)
			fail_msg("round %u: the child never led", round);
	}

	if (raftnode_start(&r, dir, false, THRESHOLD, NULL, &e) != 0)
		fail_msg("start: %s", e.text);
	assert_true(raftnode_until(&r, &r.leader));
	assert_int_equal(check_prefix(r.store, &found), 0);
	assert_true(found >= h.acknowledged);
	assert_true(loaded >= 30);
	print_message("%u rounds under load, %u writes acknowledged, %u found, %u of them from the log\n",
	    loaded, h.acknowledged, found, r.applies);
	assert_true(raftnode_stop(&r));
	fs_remove_tree(dir, NULL);
	free(dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_killed_under_load),
	};

	log_set_level(LOG_LEVEL_ERROR);
	if (argc == 6 && strcmp(argv[1], "--child") == 0)
		return child_main(argv[2], argv[3][0] == '1', (uint32_t)strtoul(argv[4], NULL, 10),
		    strtoull(argv[5], NULL, 10));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
