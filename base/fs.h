/* Files: whole reads with a bound, writes that are all or nothing, directory trees. */
#ifndef BASE_FS_H
#define BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Reads a whole file of at most `max` bytes; ERR_TOO_LARGE beyond, ERR_NOT_FOUND when absent.
 * Works for /proc and /sys files too. */
int fs_read(const char *path, size_t max, struct buf *ret, struct err *e);
/* Writes beside, fsyncs, renames over `path`, fsyncs the directory. */
int fs_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct err *e);
/* Writes into an existing file in one write (cgroup, sysctl); no creation. */
int fs_write_existing(const char *path, const char *text, struct err *e);
int fs_mkdir_p(const char *path, mode_t mode, struct err *e); /* existing directories are fine */
int fs_remove_tree(
    const char *path, struct err *e); /* never follows links or crosses mounts; absent is fine */
bool fs_exists(const char *path);
char *fs_path(const char *dir, const char *name); /* heap "dir/name" */
/* Bytes of the files below a tree (lstat blocks * 512), hard links counted once; directories count nothing.
 */
int fs_tree_size(const char *path, int64_t *ret_bytes, struct err *e);

#endif
