/* Consensus of one voter: start, propose, restart, snapshots, sealing, damage, a disk that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <cmocka.h>

#ifdef SHOAL_SANITIZE
#include <sanitizer/lsan_interface.h>
#endif

#include "raftnode.h"

static char *dir;

static int setup(void **state)
{
	(void)state;
	dir = raftnode_tmpdir();
	return 0;
}
static int teardown(void **state)
{
	(void)state;
	fs_remove_tree(dir, NULL);
	free(dir);
	return 0;
}

static void start(struct raftnode *r, bool bootstrap, unsigned threshold)
{
	struct err e = ERR_INIT;

	if (raftnode_start(r, dir, bootstrap, threshold, NULL, &e) != 0)
		fail_msg("start: %s", e.text);
	assert_true(raftnode_until(r, &r->leader));
}
static void stop(struct raftnode *r)
{
	assert_true(raftnode_stop(r));
}

/* Proposes configs FROM..FROM+N-1, up to WINDOW at a time, and waits for all. */
struct load {
	struct raftnode *r;
	unsigned next, end, acked, failed, last_acked;
	bool done, in_order;
	int status;
	struct err err;
	const char *data;
};
static void propose_next(struct load *l);
static void on_done(void *data, int status, const struct err *e)
{
	struct load *l = data;

	if (status == 0) {
		l->acked++;
	} else {
		l->failed++;
		l->status = status;
		err_copy(&l->err, e);
	}
	if (l->next < l->end)
		propose_next(l); /* from inside a callback */
	l->done = l->acked + l->failed == l->end;
}
static void propose_next(struct load *l)
{
	char id[32];
	struct err e = ERR_INIT;
	int r;

	snprintf(id, sizeof(id), "c%u", l->next++);
	r = raftnode_propose_config(l->r, id, l->data, on_done, l, &e);
	if (r != 0) {
		/* And so would be the rest. */
		l->failed += 1 + l->end - l->next;
		l->next = l->end;
		l->status = r;
		err_copy(&l->err, &e);
	}
}
static void run_load(struct raftnode *r, struct load *l, unsigned from, unsigned n, unsigned window)
{
	memset(l, 0, sizeof(*l));
	l->r = r;
	l->data = "plain text of a config";
	l->next = from;
	l->end = from + n;
	l->acked = from; /* counts as if those before were this one's */
	for (unsigned i = 0; i < window && l->next < l->end; i++)
		propose_next(l);
	l->done = l->acked + l->failed == l->end;
	assert_true(raftnode_until(r, &l->done));
}

static void test_bootstrap_and_restart(void **state)
{
	struct raftnode r;
	struct load l;
	struct stat st;
	uint64_t t = uv_hrtime(), applied, version;

	(void)state;
	start(&r, true, 0);
	print_message("leader after %.1f ms\n", (double)(uv_hrtime() - t) / 1e6);
	assert_true(consensus_is_leader(r.consensus));
	run_load(&r, &l, 0, 500, 50);
	assert_int_equal(l.failed, 0);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), 500);
	applied = consensus_applied(r.consensus);
	version = store_version(r.store);
	stop(&r);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);

	for (int i = 0; i < 3; i++) {
		start(&r, false, 0);
		assert_true(consensus_applied(r.consensus) >= applied);
		assert_int_equal(store_version(r.store), version);
		assert_int_equal(store_count(r.store, OBJ(CONFIG)), 500);
		assert_int_equal(r.changes, 1);
		stop(&r);
	}
}

static void test_outcomes(void **state)
{
	struct raftnode r;
	struct load a, b;
	struct err e = ERR_INIT;
	char *big;

	(void)state;
	start(&r, true, 0);
	run_load(&r, &a, 0, 10, 10);
	/* Names that exist: each proposer gets its own conflict, the others their success. */
	run_load(&r, &b, 5, 10, 10);
	assert_int_equal(b.failed, 5);
	assert_int_equal(b.status, ERR_CONFLICT);
	assert_non_null(strstr(b.err.text, "already exists"));
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), 15);

	big = xcalloc(1, CONSENSUS_PAYLOAD_MAX + 1);
	assert_int_equal(
	    consensus_propose(r.consensus, big, CONSENSUS_PAYLOAD_MAX + 1, on_done, &a, &e), ERR_TOO_LARGE);
	free(big);
	stop(&r);
}

static void test_large_payloads(void **state)
{
	struct raftnode r;
	struct load l = {0};
	char *data = xmalloc(900000 + 1);

	(void)state;
	memset(data, 'x', 900000);
	data[900000] = '\0';
	start(&r, true, 0);
	l.r = &r;
	l.end = 40;
	l.data = data;
	for (int i = 0; i < 40; i++)
		propose_next(&l);
	assert_true(raftnode_until(&r, &l.done));
	assert_int_equal(l.failed, 0);
	stop(&r);
	start(&r, false, 0);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), 40);
	stop(&r);
	free(data);
}

/* Any file of the directory that contains the text. */
static bool dir_contains(const char *text)
{
	DIR *d = opendir(dir);
	bool found = false;

	assert_non_null(d);
	for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
		CLEANUP_FREE char *path = fs_path(dir, ent->d_name);
		struct buf b = BUF_INIT;

		if (ent->d_type == DT_REG && fs_read(path, 1u << 30, &b, NULL) == 0)
			found = found || memmem(b.data, b.len, text, strlen(text)) != NULL;
		buf_done(&b);
	}
	closedir(d);
	return found;
}

static unsigned count_files(const char *prefix, const char *suffix)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *ent; (ent = readdir(d)) != NULL;)
		n += str_has_prefix(ent->d_name, prefix) && str_has_suffix(ent->d_name, suffix);
	closedir(d);
	return n;
}

static void test_snapshot_and_restart(void **state)
{
	struct raftnode r;
	struct load l;
	bool taken = false;
	uint64_t version, end = uv_hrtime() + UINT64_C(20000000000);
	unsigned n = 0;

	(void)state;
	start(&r, true, 50);
	while (!taken && uv_hrtime() < end) {
		run_load(&r, &l, n, 200, 1);
		n += 200;
		assert_int_equal(l.failed, 0);
		taken = r.freezes >= 2 && count_files("snapshot-", ".meta") > 0;
	}
	assert_true(taken);
	version = store_version(r.store);
	stop(&r);
	assert_false(dir_contains("plain text of a config"));
	assert_false(dir_contains("config-c1"));

	start(&r, false, 50);
	assert_int_equal(r.restores, 1);
	assert_true(r.applies < n);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), n);
	assert_int_equal(store_version(r.store), version);
	run_load(&r, &l, n, 100, 10);
	assert_int_equal(l.failed, 0);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), n + 100);
	stop(&r);
}

static void test_wrong_key(void **state)
{
	static const uint8_t wrong[32] = "not the key that it was sealed..";
	struct raftnode r;
	struct load l;
	struct err e = ERR_INIT;

	(void)state;
	start(&r, true, 0);
	run_load(&r, &l, 0, 20, 5);
	stop(&r);
	assert_int_equal(raftnode_start(&r, dir, false, 0, wrong, &e), ERR_CORRUPT);
	assert_non_null(strstr(e.text, "sealed with another key"));
	assert_non_null(strstr(e.text, dir));
	assert_null(r.consensus);
	assert_true(raftnode_stop(&r));
	/* And nothing was hurt by the attempt. */
	start(&r, false, 0);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), 20);
	stop(&r);
}

static void test_wrong_key_snapshot(void **state)
{
	static const uint8_t wrong[32] = "not the key that it was sealed..";
	struct raftnode r;
	struct load l;
	struct err e = ERR_INIT;

	(void)state;
	start(&r, true, 50);
	run_load(&r, &l, 0, 200, 1);
	stop(&r);
	assert_true(count_files("snapshot-", ".meta") > 0);
	assert_int_equal(raftnode_start(&r, dir, false, 0, wrong, &e), ERR_CORRUPT);
	assert_non_null(strstr(e.text, "snapshot"));
	assert_true(raftnode_stop(&r));
}

/* The largest file whose name ends so. */
static char *find_file(const char *prefix, bool digits)
{
	DIR *d = opendir(dir);
	char *best = NULL;
	off_t size = -1;

	assert_non_null(d);
	for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
		char *path = fs_path(dir, ent->d_name);
		struct stat st;

		if (str_has_prefix(ent->d_name, prefix) && !str_has_suffix(ent->d_name, ".meta") &&
		    (!digits || (ent->d_name[0] >= '0' && ent->d_name[0] <= '9')) && stat(path, &st) == 0 &&
		    st.st_size > size) {
			size = st.st_size;
			free(best);
			best = TAKE_PTR(path);
		}
		free(path);
	}
	closedir(d);
	assert_non_null(best);
	return best;
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char b;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b = (char)(b ^ 1);
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	close(fd);
}

/* Damage is said, not worked around by forgetting acknowledged writes. */
static void test_damage(void **state)
{
	struct raftnode r;
	struct load l;
	struct err e = ERR_INIT;
	char *segment, *snapshot;

	(void)state;
	start(&r, true, 50);
	run_load(&r, &l, 0, 200, 1);
	stop(&r);
	segment = find_file("", true);
	flip(segment, 1000);
#ifdef SHOAL_SANITIZE
	__lsan_disable(); /* libraft leaks the entries before the damage */
#endif
	assert_int_equal(raftnode_start(&r, dir, false, 50, NULL, &e), ERR_CORRUPT);
#ifdef SHOAL_SANITIZE
	__lsan_enable();
#endif
	assert_non_null(strstr(e.text, strrchr(segment, '/') + 1));
	assert_true(raftnode_stop(&r));
	flip(segment, 1000);

	snapshot = find_file("snapshot-", false);
	flip(snapshot, 500);
	assert_int_equal(raftnode_start(&r, dir, false, 50, NULL, &e), ERR_CORRUPT);
	assert_non_null(strstr(e.text, "altered or damaged"));
	assert_true(raftnode_stop(&r));
	flip(snapshot, 500);
	start(&r, false, 50);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), 200);
	stop(&r);
	free(segment);
	free(snapshot);
}

static void test_refusals(void **state)
{
	struct raftnode r;
	struct err e = ERR_INIT;
	struct load l;
	CLEANUP_FREE char *file = fs_path(dir, "a-file");

	(void)state;
	start(&r, true, 0);
	stop(&r);
	assert_int_equal(raftnode_start(&r, dir, true, 0, NULL, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "not empty"));
	assert_true(raftnode_stop(&r));

	assert_int_equal(fs_write_atomic(file, "x", 1, 0600, &e), 0);
	free(dir);
	dir = xstrdup(file);
	assert_true(raftnode_start(&r, dir, false, 0, NULL, &e) < 0);
	assert_true(raftnode_stop(&r));
	*strrchr(dir, '/') = '\0';

	/* A directory without a log is that of a manager that was not asked to join yet. */
	assert_int_equal(fs_remove_tree(dir, &e), 0);
	assert_int_equal(raftnode_start(&r, dir, false, 0, NULL, &e), 0);
	memset(&l, 0, sizeof(l));
	assert_int_equal(consensus_propose(r.consensus, "x", 1, on_done, &l, &e), ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "not the leader"));
	assert_true(raftnode_stop(&r));
	assert_int_equal(l.failed, 0);
}

struct closer {
	struct raftnode *r;
	struct load *l;
	bool done;
};
static void close_inside(void *data, int status, const struct err *e)
{
	struct closer *c = data;
	struct err e2 = ERR_INIT;

	(void)e;
	assert_int_equal(status, 0);
	consensus_close(c->r->consensus, raftnode_on_closed, c->r);
	consensus_close(c->r->consensus, NULL, NULL); /* nothing */
	assert_int_equal(raftnode_propose_config(c->r, "late", "x", on_done, c->l, &e2), ERR_UNAVAILABLE);
	assert_false(c->r->closed);
	c->done = true;
}

/* Closing with much in flight, from inside a callback: all that was taken is answered before closed. */
static void test_close_in_flight(void **state)
{
	struct raftnode r;
	struct load l = {0};
	struct closer c = {&r, &l, false};
	struct err e = ERR_INIT;

	(void)state;
	start(&r, true, 0);
	l.r = &r;
	l.end = 300;
	l.data = "x";
	for (int i = 0; i < 100; i++)
		propose_next(&l);
	l.next = l.end; /* no more from callbacks */
	assert_int_equal(raftnode_propose_config(&r, "closer", "x", close_inside, &c, &e), 0);
	l.next = 100;
	for (int i = 0; i < 200; i++)
		propose_next(&l);
	assert_true(raftnode_until(&r, &r.closed));
	assert_true(c.done);
	assert_int_equal(l.acked, 300);
	assert_int_equal(l.failed, 0);
	r.consensus = NULL;
	assert_true(raftnode_stop(&r));
	start(&r, false, 0);
	assert_int_equal(store_count(r.store, OBJ(CONFIG)), 301);
	stop(&r);
}

/* Closed before the first turn, and before leadership. */
static void test_close_at_once(void **state)
{
	struct raftnode r;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(raftnode_start(&r, dir, true, 0, NULL, &e), 0);
	assert_true(raftnode_stop(&r));
	assert_int_equal(raftnode_start(&r, dir, false, 0, NULL, &e), 0);
	uv_run(&r.loop, UV_RUN_NOWAIT);
	assert_true(raftnode_stop(&r));
}

static void limit_files(rlim_t max)
{
	struct rlimit lim;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &lim), 0);
	lim.rlim_cur = max < lim.rlim_max ? max : lim.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
}

/* Files may not grow, as on a full disk: writes are refused cleanly, what was acknowledged stays, and when
 * there is room again the node goes on by itself, its state untouched. */
static void test_disk_fails_and_recovers(void **state)
{
	struct raftnode r;
	struct load l;
	unsigned acked, changes;
	char *data = xmalloc(200000 + 1);
	uint64_t end;

	(void)state;
	memset(data, 'y', 200000);
	data[200000] = '\0';
	signal(SIGXFSZ, SIG_IGN);
	start(&r, true, 0);
	run_load(&r, &l, 0, 10, 10);
	assert_int_equal(l.failed, 0);

	/* Segments that were prepared are still good for 8 MiB each; then none can be made. */
	limit_files(1u << 20);
	memset(&l, 0, sizeof(l));
	l.r = &r;
	l.data = data;
	l.next = 10;
	l.end = l.acked = 10;
	end = uv_hrtime() + UINT64_C(10000000000);
	while (l.failed == 0 && uv_hrtime() < end) {
		l.end++;
		l.done = false;
		propose_next(&l);
		l.done = l.acked + l.failed == l.end;
		assert_true(raftnode_until(&r, &l.done));
	}
	assert_true(l.failed > 0);
	assert_true(l.status == ERR_IO || l.status == ERR_UNAVAILABLE);
	print_message("after %u writes: %s\n", l.acked, l.err.text);
	assert_non_null(strstr(l.err.text, dir));
	assert_false(r.leader);
	acked = l.acked;
	changes = r.changes;
	assert_int_equal(changes, 2);
	assert_int_equal(r.restores, 0);
	/* For a while: refused, alive. */
	for (int i = 0; i < 50; i++) {
		struct err e = ERR_INIT;

		assert_int_equal(raftnode_propose_config(&r, "no", "x", on_done, &l, &e), ERR_UNAVAILABLE);
		assert_non_null(strstr(e.text, dir));
		uv_run(&r.loop, UV_RUN_NOWAIT);
	}

	limit_files(RLIM_INFINITY);
	assert_true(raftnode_until(&r, &r.leader));
	assert_true(store_count(r.store, OBJ(CONFIG)) >= acked);
	run_load(&r, &l, 1000, 10, 10);
	assert_int_equal(l.failed, 0);
	assert_int_equal(r.restores, 0);
	stop(&r);

	start(&r, false, 0);
	for (unsigned i = 0; i < acked; i++) {
		char id[32];

		snprintf(id, sizeof(id), "c%u", i);
		assert_non_null(store_get(r.store, OBJ(CONFIG), id));
	}
	assert_non_null(store_get(r.store, OBJ(CONFIG), "c1009"));
	stop(&r);
	free(data);
}

/* Closing while the disk is away. */
static void test_close_while_broken(void **state)
{
	struct raftnode r;
	struct load l;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	start(&r, true, 0);
	limit_files(4096);
	run_load(&r, &l, 0, 400, 20);
	while (r.leader) {
		run_load(&r, &l, l.end, 2000, 200);
	}
	assert_true(raftnode_stop(&r));
	limit_files(RLIM_INFINITY);
	start(&r, false, 0);
	stop(&r);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_bootstrap_and_restart),
	    T(test_outcomes),
	    T(test_large_payloads),
	    T(test_snapshot_and_restart),
	    T(test_wrong_key),
	    T(test_wrong_key_snapshot),
	    T(test_damage),
	    T(test_refusals),
	    T(test_close_in_flight),
	    T(test_close_at_once),
	    T(test_disk_fails_and_recovers),
	    T(test_close_while_broken),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
