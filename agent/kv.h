/* The agent's local database: named tables of bytes in one LMDB file, <data_root>/agent.db.
 *
 * A put is in the page cache when it returns, so that a `kill -9` of the daemon loses nothing, and it never
 * waits for the disk. What a power cut would do to such a file is avoided in another way: while the daemon
 * runs, a consistent copy is written beside it and synced (agent.db.saved, at most `KV_SAVE_DELAY_MS` after a
 * change); after a reboot, which is told by the kernel's boot id, the copy takes the file's place. What the
 * copy lacks is then at most seconds old and concerns processes that the reboot has ended. */
#ifndef AGENT_KV_H
#define AGENT_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"

#define KV_SAVE_DELAY_MS 3000
#define KV_KEY_MAX       511 /* LMDB's */
#define KV_VALUE_MAX     (4u * 1024 * 1024)

struct kv;

/* Makes the file when absent. ERR_CONFLICT when another process has the database open. */
int kv_open(uv_loop_t *loop, const char *data_root, struct kv **ret, struct err *e);
/* Writes the copy (blocking: at most milliseconds of work and one sync) and closes. Nothing is called back.
 */
void kv_close(struct kv *kv);
/* Table names are C literals; a table is made at its first put. Reading what is absent gives ERR_NOT_FOUND.
 */
int kv_put(struct kv *kv, const char *table, const char *key, const void *p, size_t n, struct err *e);
/* ret_p: heap. */
int kv_get(struct kv *kv, const char *table, const char *key, void **ret_p, size_t *ret_n, struct err *e);
int kv_del(struct kv *kv, const char *table, const char *key, struct err *e); /* absent is fine */
/* Calls fn for each entry in key order; p is borrowed during the call. fn must not use the database. A table
 * that was never written has no entries. */
int kv_each(struct kv *kv, const char *table,
    void (*fn)(void *data, const char *key, const void *p, size_t n), void *data, struct err *e);

#endif
