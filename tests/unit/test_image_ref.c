/* References: docker's rules, with what is and what is not one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/image.h"
#include "agent/image_source.h"
#include "base/mem.h"

#define HEX "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
static const char md5[] = "a@md5:" HEX, too_long[] = "a@sha256:" HEX "0", bare[] = HEX;

static void test_forms(void **state)
{
	(void)state;
	static const char *const table[][3] = {
	    /* given, full, familiar */
	    {"redis", "docker.io/library/redis:latest", "redis:latest"},
	    {"redis:7", "docker.io/library/redis:7", "redis:7"},
	    {"library/redis", "docker.io/library/redis:latest", "redis:latest"},
	    {"docker.io/redis", "docker.io/library/redis:latest", "redis:latest"},
	    {"index.docker.io/redis", "docker.io/library/redis:latest", "redis:latest"},
	    {"me/app", "docker.io/me/app:latest", "me/app:latest"},
	    {"localhost/app", "localhost/app:latest", "localhost/app:latest"},
	    {"localhost:5000/a/b:v1.2-x_y", "localhost:5000/a/b:v1.2-x_y", "localhost:5000/a/b:v1.2-x_y"},
	    {"ghcr.io/a/b-c__d.e:1", "ghcr.io/a/b-c__d.e:1", "ghcr.io/a/b-c__d.e:1"},
	    {"REG.example/a", "REG.example/a:latest", "REG.example/a:latest"},
	    {"[fd00::1]:5000/a", "[fd00::1]:5000/a:latest", "[fd00::1]:5000/a:latest"},
	    {"redis@sha256:" HEX, "docker.io/library/redis@sha256:" HEX, "redis@sha256:" HEX},
	    {"redis:7@sha256:" HEX, "docker.io/library/redis:7@sha256:" HEX, "redis:7@sha256:" HEX},
	    {"a/b/c/d", "docker.io/a/b/c/d:latest", "a/b/c/d:latest"},
	    {"docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
	    {"a---b", "docker.io/library/a---b:latest", "a---b:latest"},
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct image_ref r;
		struct err e = ERR_INIT;
		assert_int_equal(image_ref_parse(table[i][0], &r, &e), 0);
		CLEANUP_FREE char *full = image_ref_full(&r);
		CLEANUP_FREE char *familiar = image_ref_familiar(&r);
		assert_string_equal(full, table[i][1]);
		assert_string_equal(familiar, table[i][2]);
		image_ref_done(&r);
	}
}

static void test_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {"", ":", "a:", "a:-x", "a:.x", "a b", "a/", "/a", "a//b", "Redis",
	    "a/B", "-a", "a-", "a_", "_a", "a..b", "a___b", "a._b", "a@", "a@sha256:12", md5, too_long, bare,
	    "a:b c", "exa mple.com/a", "example..com/a", "example.com:x/a", "example.com:/a", "ex-.com/a",
	    "[::1/a", "a@b@c", "a\n", "../a", "a/../b", "http://a/b", "a?b", "a:tag:tag"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct image_ref r = {NULL, NULL, NULL, NULL};
		struct err e = ERR_INIT;
		if (image_ref_parse(bad[i], &r, &e) != ERR_INVALID)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_null(r.path);
	}
	char *name = xmalloc(400);
	memset(name, 'a', 399);
	name[256] = 0;
	struct image_ref r;
	assert_int_equal(image_ref_parse(name, &r, NULL), ERR_INVALID);
	name[230] = 0;
	assert_int_equal(image_ref_parse(name, &r, NULL), 0);
	image_ref_done(&r);
	free(name);
	CLEANUP_FREE char *tag = xasprintf("a:%0129d", 1);
	assert_int_equal(image_ref_parse(tag, &r, NULL), ERR_INVALID);
	tag[strlen(tag) - 1] = 0;
	assert_int_equal(image_ref_parse(tag, &r, NULL), 0);
	image_ref_done(&r);
}

static void test_digests(void **state)
{
	(void)state;
	assert_true(image_digest_valid("sha256:" HEX));
	assert_false(image_digest_valid(HEX));
	assert_false(image_digest_valid("sha256:" HEX "a"));
	assert_false(
	    image_digest_valid("sha256:E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
	assert_false(
	    image_digest_valid("sha256:../../../../../../../../../../../../../../../../../../../../etc"));
	assert_false(image_digest_valid(NULL));
	char d[IMAGE_DIGEST_LEN + 1];
	image_digest("", 0, d);
	assert_string_equal(d, "sha256:" HEX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_forms),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_digests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
