/* Named tables in one LMDB environment.
 *
 * The environment is opened without sync: commits cost microseconds and survive the death of the process, but
 * a power cut may leave pages in any order. So a copy is made with LMDB's own consistent backup, synced, and
 * renamed over the one before; `agent.db.boot` names the boot that the live file belongs to. On open with
 * another boot id the copy replaces the live file. A lock on `agent.db.owner` keeps a second daemon out.
 *
 * Failing: a full map is grown once and the write repeated; anything else that LMDB says is returned as
 * ERR_IO with its words. A copy that cannot be written is logged and tried again after the next change. */
#include "agent/kv.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"

#define MAP_SIZE     (64u * 1024 * 1024) /* address space, not memory; grown when full */
#define MAP_MAX      (4ull * 1024 * 1024 * 1024)
#define MAX_TABLES   16
#define LOCK_WAIT_MS 2000

struct table {
	char name[32];
	MDB_dbi dbi;
};

struct kv {
	uv_loop_t *loop;
	MDB_env *env;
	size_t map_size;
	struct table tables[MAX_TABLES];
	unsigned n_tables;
	int lock_fd;
	char *path, *saved_path, *boot_path;
	struct timer *save_timer;
	bool saving, dirty, closing;
	uv_mutex_t env_lock; /* held by the worker while it copies */
	int save_status;
};

static int lmdb_err(struct err *e, int rc, const char *what)
{
	if (rc == MDB_NOTFOUND)
		return err_set(e, ERR_NOT_FOUND, "%s: no such entry", what);
	return err_set(e, rc == MDB_CORRUPTED || rc == MDB_INVALID ? ERR_CORRUPT : ERR_IO,
	    "agent database: %s: %s", what, mdb_strerror(rc));
}

/* --- the copy */

/* LMDB itself would make a file that everybody can read, and records hold the environment of containers. */
static int write_copy(struct kv *kv)
{
	CLEANUP_FREE char *tmp = xasprintf("%s.new", kv->saved_path);
	unlink(tmp);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	int rc = mdb_env_copyfd2(kv->env, fd, MDB_CP_COMPACT);
	if (rc == 0 && fsync(fd) < 0)
		rc = errno;
	close(fd);
	if (rc == 0 && rename(tmp, kv->saved_path) < 0)
		rc = errno;
	if (rc != 0)
		unlink(tmp);
	return rc;
}

static void save_work(void *data)
{
	struct kv *kv = data;
	uv_mutex_lock(&kv->env_lock);
	kv->save_status = kv->env ? write_copy(kv) : 0;
	uv_mutex_unlock(&kv->env_lock);
}

static void close_files(struct kv *kv)
{
	if (kv->env)
		mdb_env_close(kv->env);
	kv->env = NULL;
	if (kv->lock_fd >= 0)
		close(kv->lock_fd);
	kv->lock_fd = -1;
}

static void kv_free(struct kv *kv)
{
	timer_free(kv->save_timer);
	close_files(kv);
	uv_mutex_destroy(&kv->env_lock);
	free(kv->path);
	free(kv->saved_path);
	free(kv->boot_path);
	free(kv);
}

static void save_done(void *data)
{
	struct kv *kv = data;
	kv->saving = false;
	if (kv->save_status != 0)
		log_warn("the copy of the agent database could not be written path=%s error=\"%s\"",
		    kv->saved_path, mdb_strerror(kv->save_status));
	if (kv->closing) {
		kv_free(kv);
		return;
	}
	if (kv->dirty && !timer_armed(kv->save_timer))
		timer_start(kv->save_timer, KV_SAVE_DELAY_MS);
}

static void on_save_timer(void *data)
{
	struct kv *kv = data;
	kv->dirty = false;
	kv->saving = true;
	loop_work(kv->loop, save_work, save_done, kv);
}

static void changed(struct kv *kv)
{
	kv->dirty = true;
	if (!kv->saving && !timer_armed(kv->save_timer))
		timer_start(kv->save_timer, KV_SAVE_DELAY_MS);
}

/* After a reboot the live file may hold pages of different ages; the copy does not. */
static int settle_boot(struct kv *kv, struct err *e)
{
	CLEANUP_BUF struct buf now = BUF_INIT, then = BUF_INIT;
	if (fs_read("/proc/sys/kernel/random/boot_id", 128, &now, e) < 0)
		return e ? e->code : ERR_IO;
	if (fs_exists(kv->path) &&
	    (fs_read(kv->boot_path, 128, &then, NULL) < 0 || !str_eq(now.data, then.data))) {
		CLEANUP_FREE char *lock = xasprintf("%s-lock", kv->path);
		unlink(lock);
		if (fs_exists(kv->saved_path)) {
			CLEANUP_BUF struct buf b = BUF_INIT;
			int r = fs_read(kv->saved_path, 1024u * 1024 * 1024, &b, e);
			if (r == 0)
				r = fs_write_atomic(kv->path, b.data, b.len, 0600, e);
			if (r < 0)
				return err_wrap(e, "restoring the agent database after a reboot");
		} else if (unlink(kv->path) < 0 && errno != ENOENT) {
			return err_errno(e, errno, "%s", kv->path);
		}
	}
	if (str_eq(now.data, then.data))
		return 0;
	return fs_write_atomic(kv->boot_path, now.data, now.len, 0600, e);
}

/* --- open, close */

int kv_open(uv_loop_t *loop, const char *data_root, struct kv **ret, struct err *e)
{
	struct kv *kv = NEW(struct kv);
	kv->loop = loop;
	kv->lock_fd = -1;
	if (uv_mutex_init(&kv->env_lock) != 0)
		abort();
	kv->path = fs_path(data_root, "agent.db");
	kv->saved_path = fs_path(data_root, "agent.db.saved");
	kv->boot_path = fs_path(data_root, "agent.db.boot");
	kv->save_timer = timer_new(loop, on_save_timer, kv);
	kv->map_size = MAP_SIZE;
	CLEANUP_FREE char *owner = fs_path(data_root, "agent.db.owner");
	struct stat st;
	int r;

	kv->lock_fd = open(owner, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (kv->lock_fd < 0) {
		r = err_errno(e, errno, "%s", owner);
		goto fail;
	}
	/* A child of a daemon that was just killed may hold a copy of the descriptor until it has run its
	 * program. */
	bool locked = false;
	for (int i = 0; !locked && i < LOCK_WAIT_MS / 10; i++) {
		locked = flock(kv->lock_fd, LOCK_EX | LOCK_NB) == 0;
		if (!locked)
			nanosleep(&(struct timespec){0, 10 * 1000000}, NULL);
	}
	if (!locked) {
		r = err_set(e, ERR_CONFLICT, "%s is in use by another daemon", data_root);
		goto fail;
	}
	r = settle_boot(kv, e);
	if (r < 0)
		goto fail;
	int rc = mdb_env_create(&kv->env);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(kv->env, MAX_TABLES);
	if (rc == 0 && stat(kv->path, &st) == 0 && (uint64_t)st.st_size * 2 > kv->map_size)
		kv->map_size = (size_t)st.st_size * 2;
	if (rc == 0)
		rc = mdb_env_set_mapsize(kv->env, kv->map_size);
	if (rc == 0)
		rc = mdb_env_open(
		    kv->env, kv->path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NORDAHEAD | MDB_NOTLS, 0600);
	if (rc != 0) {
		r = lmdb_err(e, rc, kv->path);
		goto fail;
	}
	*ret = kv;
	return 0;
fail:
	kv_free(kv);
	return r;
}

void kv_close(struct kv *kv)
{
	if (!kv)
		return;
	timer_stop(kv->save_timer);
	uv_mutex_lock(&kv->env_lock); /* waits for a copy that is being written */
	if (kv->dirty)
		write_copy(kv);
	close_files(kv);
	uv_mutex_unlock(&kv->env_lock);
	if (kv->saving)
		kv->closing = true; /* save_done frees it */
	else
		kv_free(kv);
}

/* --- tables */

/* Opens a table within a transaction; with `make` it is created. The handle is kept once the transaction was
 * committed. */
static int table_find(struct kv *kv, MDB_txn *txn, const char *name, bool make, MDB_dbi *ret)
{
	for (unsigned i = 0; i < kv->n_tables; i++)
		if (strcmp(kv->tables[i].name, name) == 0) {
			*ret = kv->tables[i].dbi;
			return 0;
		}
	ASSERT(strlen(name) < sizeof(kv->tables[0].name));
	return mdb_dbi_open(txn, name, make ? MDB_CREATE : 0, ret);
}

static void table_keep(struct kv *kv, const char *name, MDB_dbi dbi)
{
	for (unsigned i = 0; i < kv->n_tables; i++)
		if (strcmp(kv->tables[i].name, name) == 0)
			return;
	ASSERT(kv->n_tables < MAX_TABLES);
	struct table *t = &kv->tables[kv->n_tables++];
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->dbi = dbi;
}

static int write_once(struct kv *kv, const char *table, const char *key, const void *p, size_t n)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc = mdb_txn_begin(kv->env, NULL, 0, &txn);
	if (rc != 0)
		return rc;
	rc = table_find(kv, txn, table, true, &dbi);
	if (rc == 0) {
		MDB_val k = {strlen(key), (void *)(uintptr_t)key};
		if (p) {
			MDB_val v = {n, (void *)(uintptr_t)p};
			rc = mdb_put(txn, dbi, &k, &v, 0);
		} else {
			rc = mdb_del(txn, dbi, &k, NULL);
			if (rc == MDB_NOTFOUND)
				rc = 0;
		}
	}
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	rc = mdb_txn_commit(txn);
	if (rc == 0)
		table_keep(kv, table, dbi);
	return rc;
}

static int write_entry(
    struct kv *kv, const char *table, const char *key, const void *p, size_t n, struct err *e)
{
	size_t len = strlen(key);
	if (len == 0 || len > KV_KEY_MAX)
		return err_set(e, ERR_INVALID, "agent database: key of %zu bytes", len);
	if (n > KV_VALUE_MAX)
		return err_set(e, ERR_TOO_LARGE, "agent database: value of %zu bytes for %s", n, key);
	int rc = write_once(kv, table, key, p, n);
	/* The map cannot be moved while the copy reads it; the worker's read is short. */
	while (rc == MDB_MAP_FULL && kv->map_size < MAP_MAX && !kv->saving) {
		kv->map_size *= 2;
		rc = mdb_env_set_mapsize(kv->env, kv->map_size);
		if (rc == 0)
			rc = write_once(kv, table, key, p, n);
	}
	if (rc != 0)
		return lmdb_err(e, rc, table);
	changed(kv);
	return 0;
}

int kv_put(struct kv *kv, const char *table, const char *key, const void *p, size_t n, struct err *e)
{
	return write_entry(kv, table, key, p ? p : "", n, e);
}

int kv_del(struct kv *kv, const char *table, const char *key, struct err *e)
{
	return write_entry(kv, table, key, NULL, 0, e);
}

int kv_get(struct kv *kv, const char *table, const char *key, void **ret_p, size_t *ret_n, struct err *e)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn);
	if (rc != 0)
		return lmdb_err(e, rc, table);
	rc = table_find(kv, txn, table, false, &dbi);
	if (rc == 0) {
		MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v;
		rc = mdb_get(txn, dbi, &k, &v);
		if (rc == 0) {
			*ret_p = xmemdup(v.mv_data, v.mv_size);
			*ret_n = v.mv_size;
		}
	}
	mdb_txn_abort(txn);
	return rc == 0 ? 0 : lmdb_err(e, rc, key);
}

int kv_each(struct kv *kv, const char *table,
    void (*fn)(void *data, const char *key, const void *p, size_t n), void *data, struct err *e)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *c;
	int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &txn);
	if (rc != 0)
		return lmdb_err(e, rc, table);
	rc = table_find(kv, txn, table, false, &dbi);
	if (rc == 0)
		rc = mdb_cursor_open(txn, dbi, &c);
	if (rc == 0) {
		MDB_val k, v;
		while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
			CLEANUP_FREE char *key = xstrndup(k.mv_data, k.mv_size);
			fn(data, key, v.mv_data, v.mv_size);
		}
		mdb_cursor_close(c);
	}
	mdb_txn_abort(txn);
	return rc == 0 || rc == MDB_NOTFOUND ? 0 : lmdb_err(e, rc, table);
}
