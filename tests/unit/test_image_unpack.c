/* Unpacking a layer: what comes out, what is refused, and that nothing leaves the directory. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/image_unpack.h"
#include "base/fs.h"
#include "base/str.h"
#include "test_tar.h"

/* dir/layer is unpacked into; dir/victim must stay as it is. */
struct fix {
	char dir[64];
	char *layer, *victim;
	struct err e;
	struct unpack_result result;
};

static int setup(void **state)
{
	struct fix *f = NEW(struct fix);
	strcpy(f->dir, "/tmp/shoal-unpack-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->layer = fs_path(f->dir, "layer");
	f->victim = fs_path(f->dir, "victim");
	if (mkdir(f->layer, 0755) < 0 || fs_write_atomic(f->victim, "untouched", 9, 0600, NULL) < 0)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;
	fs_remove_tree(f->dir, NULL);
	free(f->layer);
	free(f->victim);
	free(f);
	return 0;
}

static int unpack_bytes(struct fix *f, const char *p, size_t n, const char *diff_id)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(image_write_all(fd, p, n, "memory", NULL), 0);
	struct image_blob b = {.fd = fd, .size = (int64_t)n};
	struct unpack_opts o = {.dir = f->layer, .blob = &b, .what = "layer 1 of 1", .diff_id = diff_id};
	f->e = (struct err)ERR_INIT;
	int rc = image_unpack(&o, &f->result, &f->e);
	close(fd);
	return rc;
}

static int unpack(struct fix *f, struct buf *tar)
{
	tar_end(tar);
	int rc = unpack_bytes(f, tar->data, tar->len, NULL);
	buf_done(tar);
	return rc;
}

/* Empties the directory between cases. */
static void again(struct fix *f)
{
	assert_int_equal(fs_remove_tree(f->layer, NULL), 0);
	assert_int_equal(mkdir(f->layer, 0755), 0);
}

static struct stat look(struct fix *f, const char *name)
{
	struct stat st;
	CLEANUP_FREE char *path = fs_path(f->layer, name);
	if (lstat(path, &st) < 0)
		fail_msg("%s is not there", name);
	return st;
}

static bool there(struct fix *f, const char *name)
{
	CLEANUP_FREE char *path = fs_path(f->layer, name);
	return fs_exists(path);
}

static void assert_content(struct fix *f, const char *name, const char *text)
{
	CLEANUP_FREE char *path = fs_path(f->layer, name);
	CLEANUP_BUF struct buf b = BUF_INIT;
	assert_int_equal(fs_read(path, 1 << 20, &b, NULL), 0);
	assert_string_equal(b.data ? b.data : "", text);
}

static bool opaque(struct fix *f, const char *name)
{
	char v[4] = "";
	CLEANUP_FREE char *path = fs_path(f->layer, name);
	return lgetxattr(path, "trusted.overlay.opaque", v, sizeof(v)) == 1 && v[0] == 'y';
}

static bool whiteout(struct fix *f, const char *name)
{
	struct stat st = look(f, name);
	return S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
}

static void assert_safe(struct fix *f)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	assert_int_equal(fs_read(f->victim, 100, &b, NULL), 0);
	assert_string_equal(b.data, "untouched");
	struct stat st;
	assert_int_equal(stat(f->victim, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_nlink, 1);
	CLEANUP_FREE char *new = fs_path(f->dir, "new");
	assert_false(fs_exists(new));
}

/* --- what comes out ----------------------------------------------------------------------------------- */

static void test_attributes(void **state)
{
	struct fix *f = *state;
	struct buf t = BUF_INIT;
	tar_add(&t, (struct tar_entry){.name = "./", .type = '5', .mode = 0751, .mtime = 77});
	tar_add(&t,
	    (struct tar_entry){.name = "d/", .type = '5', .mode = 01777, .uid = 5, .gid = 6, .mtime = 1000});
	tar_add(&t, (struct tar_entry){.name = "d/su",
			.type = '0',
			.mode = 04755,
			.uid = 7,
			.gid = 8,
			.mtime = 1234567890,
			.data = "x"});
	tar_add(&t, (struct tar_entry){.name = "d/hard", .type = '1', .link = "d/su"});
	tar_add(&t, (struct tar_entry){
			.name = "abs", .type = '2', .link = "/etc/passwd", .uid = 9, .gid = 9, .mtime = 5});
	tar_add(&t, (struct tar_entry){.name = "fifo", .type = '6', .mode = 0620});
	tar_add(&t, (struct tar_entry){.name = "null", .type = '3', .mode = 0666, .major = 1, .minor = 3});
	tar_add(&t, (struct tar_entry){.name = "x",
			.type = '0',
			.mode = 0755,
			.data = "x",
			.pax = "SCHILY.xattr.user.note=kept\nmtime=1500000000.25"});
	tar_file(&t, "deep/er/est", "made its parents\n");
	tar_file(&t, "n\xc3\xa9", "utf-8\n");
	tar_file(&t, "raw\xff", "not utf-8\n");
	CLEANUP_FREE char *long_name = xasprintf("%0180d", 7);
	tar_file(&t, long_name, "long\n");
	tar_file(&t, "empty", "");
	mode_t old = umask(077);
	int rc = unpack(f, &t);
	umask(old);
	if (rc)
		fail_msg("%s", f->e.text);
	struct stat st = look(f, ".");
	assert_int_equal(st.st_mode & 07777, 0751);
	assert_int_equal(st.st_mtim.tv_sec, 77);
	st = look(f, "d");
	assert_int_equal(st.st_mode & 07777, 01777);
	assert_int_equal(st.st_uid, 5);
	assert_int_equal(st.st_mtim.tv_sec, 1000);
	st = look(f, "d/su");
	assert_int_equal(st.st_mode & 07777, 04755);
	assert_int_equal(st.st_gid, 8);
	assert_int_equal(st.st_mtim.tv_sec, 1234567890);
	assert_int_equal(st.st_nlink, 2);
	assert_true(st.st_ino == look(f, "d/hard").st_ino);
	st = look(f, "abs");
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(st.st_uid, 9);
	assert_int_equal(st.st_mtim.tv_sec, 5);
	assert_true(S_ISFIFO(look(f, "fifo").st_mode));
	assert_int_equal(look(f, "fifo").st_mode & 07777, 0620);
	assert_true(look(f, "null").st_rdev == makedev(1, 3));
	char v[8] = "";
	CLEANUP_FREE char *x = fs_path(f->layer, "x");
	assert_int_equal(lgetxattr(x, "user.note", v, sizeof(v)), 4);
	assert_memory_equal(v, "kept", 4);
	assert_int_equal(look(f, "x").st_mtim.tv_nsec, 250000000);
	assert_content(f, "deep/er/est", "made its parents\n");
	assert_int_equal(look(f, "deep").st_mode & 07777, 0755);
	assert_content(f, "n\xc3\xa9", "utf-8\n");
	assert_content(f, "raw\xff", "not utf-8\n");
	assert_content(f, long_name, "long\n");
	assert_int_equal(look(f, "empty").st_size, 0);
	assert_int_equal(f->result.entries, 13);
}

static void test_capability(void **state)
{
	struct fix *f = *state;
	/* cap_net_bind_service=ep, with the NUL bytes that such a value has. */
	static const char cap[20] = {1, 0, 0, 2, 0, 4};
	struct buf t = BUF_INIT, pax = BUF_INIT;
	buf_puts(&pax, "50 SCHILY.xattr.security.capability=");
	buf_append(&pax, cap, sizeof(cap));
	buf_putc(&pax, '\n');
	char len[8];
	snprintf(len, sizeof(len), "%zu", pax.len);
	memcpy(pax.data, len, 2);
	struct tar_entry x = {.name = "cap", .type = '0', .mode = 0755, .uid = 3};
	tar_header(&t, &x, "pax", 'x', pax.len);
	tar_data(&t, pax.data, pax.len);
	tar_header(&t, &x, "cap", '0', 0);
	buf_done(&pax);
	if (unpack(f, &t))
		fail_msg("%s", f->e.text);
	char v[32];
	CLEANUP_FREE char *path = fs_path(f->layer, "cap");
	assert_int_equal(lgetxattr(path, "security.capability", v, sizeof(v)), sizeof(cap));
	assert_memory_equal(v, cap, sizeof(cap));
}

static void test_replacing(void **state)
{
	struct fix *f = *state;
	struct buf t = BUF_INIT;
	tar_file(&t, "a", "one, and longer\n");
	tar_file(&t, "a", "two\n");
	tar_file(&t, "dir/in", "x");
	tar_file(&t, "dir", "now a file\n");
	tar_file(&t, "file", "x");
	tar_dir(&t, "file", 0755);
	tar_file(&t, "file/in", "now a directory\n");
	tar_add(&t, (struct tar_entry){.name = "l", .type = '2', .link = "a"});
	tar_file(&t, "l", "no longer a link\n");
	tar_add(&t, (struct tar_entry){.name = "h", .type = '1', .link = "a"});
	tar_file(&t, "h", "no longer the same\n");
	tar_add(&t, (struct tar_entry){.name = "a", .type = '1', .link = "./a"});
	/* Links inside the layer lead where they say, within the layer. */
	tar_dir(&t, "usr/lib", 0755);
	tar_add(&t, (struct tar_entry){.name = "lib", .type = '2', .link = "/usr/lib"});
	tar_file(&t, "lib/x.so", "lib\n");
	if (unpack(f, &t))
		fail_msg("%s", f->e.text);
	assert_content(f, "a", "two\n");
	assert_content(f, "dir", "now a file\n");
	assert_content(f, "file/in", "now a directory\n");
	assert_content(f, "l", "no longer a link\n");
	assert_content(f, "h", "no longer the same\n");
	assert_content(f, "usr/lib/x.so", "lib\n");
	assert_true(S_ISLNK(look(f, "lib").st_mode));
}

static void test_whiteouts(void **state)
{
	struct fix *f = *state;
	struct buf t = BUF_INIT;
	tar_file(&t, "d/.wh.gone", "");
	tar_file(&t, ".wh.top", "");
	tar_file(&t, "o/.wh..wh..opq", "");
	tar_file(&t, "o/new", "x");
	/* The same name hidden and made anew, in both orders; and hidden, then a parent. */
	tar_file(&t, ".wh.before", "");
	tar_dir(&t, "before", 0700);
	tar_dir(&t, "after", 0700);
	tar_file(&t, ".wh.after", "");
	tar_file(&t, ".wh.file", "");
	tar_file(&t, "file", "new\n");
	tar_file(&t, "file2", "new\n");
	tar_file(&t, ".wh.file2", "");
	tar_file(&t, ".wh.parent", "");
	tar_file(&t, "parent/child/x", "new\n");
	/* Notes of aufs. */
	tar_dir(&t, ".wh..wh.plnk", 0700);
	tar_file(&t, ".wh..wh.plnk/12.34", "x");
	tar_file(&t, ".wh..wh.aufs", "x");
	if (unpack(f, &t))
		fail_msg("%s", f->e.text);
	assert_true(whiteout(f, "d/gone"));
	assert_true(whiteout(f, "top"));
	assert_true(opaque(f, "o"));
	assert_false(opaque(f, "d"));
	assert_true(opaque(f, "before"));
	assert_int_equal(look(f, "before").st_mode & 07777, 0700);
	assert_true(opaque(f, "after"));
	assert_content(f, "file", "new\n");
	assert_content(f, "file2", "new\n");
	assert_true(opaque(f, "parent"));
	assert_false(opaque(f, "parent/child"));
	assert_content(f, "parent/child/x", "new\n");
	assert_false(there(f, ".wh..wh.plnk"));
	assert_false(there(f, ".wh..wh.aufs"));
	assert_false(there(f, "o/.wh..wh..opq"));
}

/* --- what is refused ---------------------------------------------------------------------------------- */

struct attack {
	const char *what;
	struct tar_entry x[4];
	int code;           /* 0: must be harmless instead */
	const char *absent; /* must not exist in the layer after */
};

static void test_attacks(void **state)
{
	struct fix *f = *state;
	CLEANUP_FREE char *abs = xasprintf("%s/victim", f->dir);
	CLEANUP_FREE char *abs_new = xasprintf("%s/new", f->dir);
	static const char sparse[513] = "1\n0\n1\n"; /* a map of one byte, and the byte */
	const struct attack table[] = {
	    {"dots up", {{.name = "../victim", .type = '0', .data = "evil"}}, ERR_INVALID, NULL},
	    {"dots in the middle", {{.name = "a/../../victim", .type = '0', .data = "evil"}}, ERR_INVALID,
		NULL},
	    {"dots at the end", {{.name = "a/..", .type = '5', .mode = 0777}}, ERR_INVALID, NULL},
	    {"absolute name", {{.name = abs_new, .type = '0', .data = "inside"}}, 0, NULL},
	    {"link up, then through it",
		{{.name = "l", .type = '2', .link = ".."}, {.name = "l/new", .type = '0', .data = "evil"}}, 0,
		NULL},
	    {"absolute link, then through it",
		{{.name = "l", .type = '2', .link = f->dir}, {.name = "l/new", .type = '0', .data = "evil"}},
		ERR_INVALID, NULL},
	    {"link to the victim, then written",
		{{.name = "l", .type = '2', .link = "../victim"}, {.name = "l", .type = '0', .data = "evil"}},
		0, NULL},
	    {"link to proc",
		{{.name = "l", .type = '2', .link = "/proc/self/root"},
		    {.name = "l/new", .type = '0', .data = "evil"}},
		ERR_INVALID, NULL},
	    {"links in a circle",
		{{.name = "a", .type = '2', .link = "b"}, {.name = "b", .type = '2', .link = "a"},
		    {.name = "a/x", .type = '0', .data = "x"}},
		ERR_IO, NULL},
	    {"hard link up", {{.name = "h", .type = '1', .link = "../victim"}}, ERR_INVALID, "h"},
	    {"hard link to an absolute name", {{.name = "h", .type = '1', .link = abs}}, ERR_INVALID, "h"},
	    {"hard link through a link",
		{{.name = "l", .type = '2', .link = ".."}, {.name = "h", .type = '1', .link = "l/victim"},
		    {.name = "h", .type = '0', .data = "evil"}},
		ERR_INVALID, "h"},
	    {"hard link to a link, then written",
		{{.name = "l", .type = '2', .link = "../victim"}, {.name = "h", .type = '1', .link = "l"},
		    {.name = "h", .type = '0', .data = "evil"}},
		0, NULL},
	    {"hard link to a directory",
		{{.name = "d", .type = '5', .mode = 0755}, {.name = "h", .type = '1', .link = "d"}},
		ERR_INVALID, "h"},
	    {"hard link to nothing", {{.name = "h", .type = '1', .link = "none"}}, ERR_INVALID, "h"},
	    {"hard link to the root", {{.name = "h", .type = '1', .link = "/"}}, ERR_INVALID, "h"},
	    {"the mode of a link's target", {{.name = "l", .type = '2', .mode = 0777, .link = "../victim"}},
		0, NULL},
	    {"a forged whiteout", {{.name = "w", .type = '3', .mode = 0600, .major = 0, .minor = 0}},
		ERR_INVALID, "w"},
	    {"a hard link to a whiteout",
		{{.name = ".wh.w", .type = '0'}, {.name = "h", .type = '1', .link = "w"}}, ERR_INVALID, "h"},
	    {"whiteout of the parent", {{.name = "d/.wh...", .type = '0'}}, ERR_INVALID, NULL},
	    {"whiteout of itself", {{.name = "d/.wh..", .type = '0'}}, ERR_INVALID, NULL},
	    {"whiteout of nothing", {{.name = ".wh.", .type = '0'}}, ERR_INVALID, NULL},
	    {"something below a whiteout", {{.name = ".wh.d/x", .type = '0', .data = "x"}}, ERR_INVALID,
		".wh.d"},
	    {"overlay's own attributes",
		{{.name = "x",
		    .type = '5',
		    .mode = 0755,
		    .pax = "SCHILY.xattr.trusted.overlay.redirect=/etc"}},
		ERR_INVALID, NULL},
	    {"overlay's own attributes for users",
		{{.name = "x", .type = '5', .mode = 0755, .pax = "SCHILY.xattr.user.overlay.opaque=y"}},
		ERR_INVALID, NULL},
	    {"attributes of the system",
		{{.name = "x", .type = '0', .mode = 0755, .pax = "SCHILY.xattr.system.evil=y"}}, ERR_INVALID,
		NULL},
	    {"the root as a file", {{.name = "./", .type = '0', .mode = 0755, .data = "x"}}, ERR_INVALID,
		NULL},
	    {"the root as a link", {{.name = "/", .type = '2', .link = "/etc"}}, ERR_INVALID, NULL},
	    {"an owner beyond 32 bits", {{.name = "x", .type = '0', .mode = 0644, .pax = "uid=4294967295"}},
		ERR_INVALID, NULL},
	    {"a negative owner", {{.name = "x", .type = '0', .mode = 0644, .pax = "uid=-1"}}, ERR_INVALID,
		NULL},
	    {"a file of a billion gigabytes",
		{{.name = "x",
		    .type = '0',
		    .mode = 0644,
		    .pax = "GNU.sparse.major=1\nGNU.sparse.minor=0\nGNU.sparse.realsize=1152921504606846976",
		    .data = sparse,
		    .size = sizeof(sparse)}},
		ERR_INVALID, NULL},
	    {"a file as parent",
		{{.name = "x", .type = '0', .data = "x"}, {.name = "x/y", .type = '0', .data = "x"}},
		ERR_INVALID, NULL},
	    {"a link without target", {{.name = "x", .type = '2'}}, ERR_INVALID, NULL},
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct buf t = BUF_INIT;
		for (size_t k = 0; k < 4 && table[i].x[k].name; k++)
			tar_add(&t, table[i].x[k]);
		int rc = unpack(f, &t);
		if (rc != table[i].code)
			fail_msg("%s: %d %s", table[i].what, rc, f->e.text);
		if (rc && !strstr(f->e.text, "layer 1 of 1"))
			fail_msg("%s: \"%s\" does not name the part", table[i].what, f->e.text);
		if (table[i].absent && there(f, table[i].absent))
			fail_msg("%s: %s is there", table[i].what, table[i].absent);
		assert_safe(f);
		again(f);
	}
}

static void test_links_stay_inside(void **state)
{
	struct fix *f = *state;
	struct buf t = BUF_INIT;
	tar_add(&t, (struct tar_entry){.name = "l", .type = '2', .link = "../../../.."});
	tar_file(&t, "l/etc/shoal-test-evil", "evil");
	assert_int_equal(unpack(f, &t), 0);
	assert_true(there(f, "etc/shoal-test-evil"));
	assert_false(fs_exists("/etc/shoal-test-evil"));
}

/* --- damage ------------------------------------------------------------------------------------------- */

static struct buf sample(void)
{
	struct buf t = BUF_INIT;
	char data[3000];
	memset(data, 'q', sizeof(data));
	tar_dir(&t, "d", 0755);
	tar_add(&t,
	    (struct tar_entry){.name = "d/f", .type = '0', .mode = 0644, .data = data, .size = sizeof(data)});
	tar_add(&t, (struct tar_entry){
			.name = "x", .type = '0', .mode = 0644, .data = "x", .pax = "SCHILY.xattr.user.a=b"});
	tar_end(&t);
	return t;
}

static void test_truncated(void **state)
{
	struct fix *f = *state;
	CLEANUP_BUF struct buf t = sample();
	char id[IMAGE_DIGEST_LEN + 1];
	image_digest(t.data, t.len, id);
	assert_int_equal(unpack_bytes(f, t.data, t.len, id), 0);
	for (size_t n = 0; n < t.len; n += 100) {
		again(f);
		int rc = unpack_bytes(f, t.data, n, id);
		if (rc != ERR_CORRUPT)
			fail_msg("cut at %zu: %d %s", n, rc, f->e.text);
	}
}

static void test_flipped(void **state)
{
	struct fix *f = *state;
	CLEANUP_BUF struct buf t = sample();
	char id[IMAGE_DIGEST_LEN + 1];
	image_digest(t.data, t.len, id);
	for (size_t i = 0; i < t.len; i += 37) {
		t.data[i] ^= 0x41;
		assert_true(unpack_bytes(f, t.data, t.len, id) < 0);
		assert_safe(f);
		t.data[i] ^= 0x41;
		again(f);
	}
}

static void test_tail(void **state)
{
	struct fix *f = *state;
	struct buf t = sample();
	char *zeros = xcalloc(1, 17 << 20);
	buf_append(&t, zeros, 17 << 20);
	free(zeros);
	assert_int_equal(unpack_bytes(f, t.data, t.len, NULL), ERR_CORRUPT);
	buf_done(&t);
	again(f);
	static const char junk[] = "this is no tar at all, and it is long enough to be looked at";
	assert_int_equal(unpack_bytes(f, junk, sizeof(junk), NULL), ERR_CORRUPT);
	assert_int_equal(unpack_bytes(f, "", 0, NULL), ERR_CORRUPT);
	/* An empty layer is a tar's end and nothing else. */
	char end[1024] = {0};
	assert_int_equal(unpack_bytes(f, end, sizeof(end), NULL), 0);
}

static void test_full_disk(void **state)
{
	struct fix *f = *state;
	if (mount("shoal-test", f->layer, "tmpfs", 0, "size=1m") < 0)
		skip(); /* not allowed to mount */
	struct buf t = BUF_INIT;
	char *data = xmalloc(2 << 20);
	memset(data, 'x', 2 << 20);
	tar_add(
	    &t, (struct tar_entry){.name = "big", .type = '0', .mode = 0644, .data = data, .size = 2 << 20});
	free(data);
	int rc = unpack(f, &t);
	umount2(f->layer, MNT_DETACH);
	assert_int_equal(rc, ERR_IO);
	assert_non_null(strstr(f->e.text, "No space left on device"));
	assert_non_null(strstr(f->e.text, "layer 1 of 1"));
}

static void test_cancelled(void **state)
{
	struct fix *f = *state;
	CLEANUP_BUF struct buf t = sample();
	int fd = memfd_create("layer", MFD_CLOEXEC);
	assert_int_equal(image_write_all(fd, t.data, t.len, "memory", NULL), 0);
	struct image_blob b = {.fd = fd, .size = (int64_t)t.len};
	atomic_bool yes = true;
	struct unpack_opts o = {.dir = f->layer, .blob = &b, .what = "layer", .cancelled = &yes};
	assert_int_equal(image_unpack(&o, &f->result, &f->e), ERR_CANCELLED);
	close(fd);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_attributes),
	    T(test_capability),
	    T(test_replacing),
	    T(test_whiteouts),
	    T(test_attacks),
	    T(test_links_stay_inside),
	    T(test_truncated),
	    T(test_flipped),
	    T(test_tail),
	    T(test_full_disk),
	    T(test_cancelled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
