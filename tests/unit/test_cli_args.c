/* The client's command line: parsing, types, mistakes; the command table itself; help and tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/out.h"

struct line {
	struct cli c;
	char *argv[32];
	int argc, result;
	bool help;
	char said[4096]; /* on stderr */
};

/* Parses words separated by spaces, with what is said on stderr caught. */
static void parse(struct line *l, const char *words)
{
	*l = (struct line){0};
	for (const char *p = words; *p && l->argc < 31;) {
		size_t n = strcspn(p, " ");
		l->argv[l->argc++] = xstrndup(p, n);
		p += n + (p[n] == ' ');
	}
	FILE *f = tmpfile();
	assert_non_null(f);
	fflush(stderr);
	int keep = dup(STDERR_FILENO);
	dup2(fileno(f), STDERR_FILENO);
	l->result = cli_parse(&l->c, &cli_root, l->argc, l->argv, &l->help);
	fflush(stderr);
	dup2(keep, STDERR_FILENO);
	close(keep);
	rewind(f);
	size_t n = fread(l->said, 1, sizeof(l->said) - 1, f);
	l->said[n] = 0;
	fclose(f);
}

static void done(struct line *l)
{
	cli_done(&l->c);
	for (int i = 0; i < l->argc; i++)
		free(l->argv[i]);
}

static void refused(const char *words, const char *part)
{
	struct line l;
	parse(&l, words);
	if (l.result != CLI_EXIT_USAGE || !strstr(l.said, part))
		fail_msg("%s: %d, \"%s\" has no \"%s\"", words, l.result, l.said, part);
	done(&l);
}

static void test_flags(void **state)
{
	(void)state;
	struct line l;
	parse(&l, "shoal -H unix:///x service create --name web --replicas=3 -p 80:8000 -p=90:90 -e A=b "
		  "-eC=d -td img sh -c --name");
	assert_int_equal(l.result, 0);
	assert_string_equal(l.c.path, "shoal service create");
	assert_string_equal(l.c.host, "unix:///x");
	assert_string_equal(cli_str(&l.c, "name"), "web");
	assert_int_equal(cli_int(&l.c, "replicas", 1), 3);
	assert_int_equal(cli_list(&l.c, "publish")->n, 2);
	assert_string_equal(cli_list(&l.c, "publish")->v[1], "90:90");
	assert_string_equal(cli_list(&l.c, "env")->v[1], "C=d");
	assert_true(cli_bool(&l.c, "tty") && cli_bool(&l.c, "detach"));
	assert_false(cli_bool(&l.c, "read-only"));
	assert_false(cli_given(&l.c, "mode"));
	/* Flags end at the image: the rest is the container's. */
	assert_int_equal(l.c.argc, 4);
	assert_string_equal(l.c.argv[3], "--name");
	done(&l);

	parse(&l, "shoal service ps web -q --no-trunc other");
	assert_int_equal(l.result, 0);
	assert_int_equal(l.c.argc, 2);
	assert_true(cli_bool(&l.c, "quiet") && cli_bool(&l.c, "no-trunc"));
	done(&l);

	parse(&l, "shoal service rm -- -odd");
	assert_int_equal(l.result, 0);
	assert_string_equal(l.c.argv[0], "-odd");
	done(&l);

	parse(&l, "shoal service update --read-only=false --limit-cpu 0.5 --limit-memory 64m "
		  "--stop-grace-period 1m30s "
		  "--update-max-failure-ratio 0.25 web");
	assert_int_equal(l.result, 0);
	assert_true(cli_given(&l.c, "read-only") && !cli_bool(&l.c, "read-only"));
	assert_int_equal(cli_int(&l.c, "limit-cpu", 0), 500000000);
	assert_int_equal(cli_int(&l.c, "limit-memory", 0), 64 << 20);
	assert_int_equal(cli_int(&l.c, "stop-grace-period", 0), 90000000000);
	assert_true(cli_ratio(&l.c, "update-max-failure-ratio", 0) > 0.24 &&
		    cli_ratio(&l.c, "update-max-failure-ratio", 0) < 0.26);
	done(&l);

	parse(&l, "shoal service ls --help");
	assert_true(l.result == 0 && l.help);
	done(&l);
	parse(&l, "shoal service create -h");
	assert_true(l.result == 0 && l.help);
	done(&l);
	parse(&l, "shoal service list"); /* an alias */
	assert_int_equal(l.result, 0);
	assert_string_equal(l.c.cmd->name, "ls");
	done(&l);
}

static void test_mistakes(void **state)
{
	(void)state;
	refused("shoal servce ls", "did you mean \"service\"?");
	refused("shoal service craete", "did you mean \"create\"?");
	refused("shoal xyzzy", "\"xyzzy\" is not a command of \"shoal\"");
	refused("shoal service create --replcas 3 x", "unknown flag --replcas; did you mean --replicas?");
	refused("shoal service create --what x", "unknown flag --what\n");
	refused("shoal service create -Z x", "unknown flag -Z");
	refused("shoal service create", "needs at least 1 argument: IMAGE");
	refused("shoal service ls web", "takes no arguments, but got \"web\"");
	refused("shoal service inspect", "needs at least 1 argument");
	refused("shoal swarm join-token", "needs 1 argument: worker|manager");
	refused("shoal service create --replicas three x", "--replicas: ");
	refused("shoal service create --replicas -1 x", "--replicas: ");
	refused("shoal service create --limit-cpu 1.0000000001 x", "not a number of CPUs");
	refused("shoal service create --limit-cpu . x", "not a number of CPUs");
	refused("shoal service create --limit-memory 1q x", "--limit-memory: ");
	refused("shoal service create --restart-delay 5 x", "--restart-delay: ");
	refused("shoal service create --update-max-failure-ratio nan x", "not a number");
	refused("shoal service create --mode some x",
	    "\"some\" is none of replicated|global|replicated-job|global-job");
	refused("shoal service create --tty=perhaps x", "neither true nor false");
	refused("shoal service create --name", "--name needs a value");
	refused("shoal service create -p", "-p needs a value");
	refused("shoal ps -qz", "unknown flag -z in -qz");
	refused("shoal service ls --quiet=", "neither true nor false");
}

/* Names are unique, help and examples are there, defaults fit their types: for every command. */
static void check_flags(
    const struct cli_cmd *cmd, const struct cli_flag *flags, const struct cli_flag *others, const char *path)
{
	for (const struct cli_flag *f = flags; f && f->name; f++) {
		if (str_empty(f->help))
			fail_msg("%s --%s has no help", path, f->name);
		if (f->type == CLI_STR && !f->value && !f->words)
			fail_msg("%s --%s has no placeholder", path, f->name);
		for (const struct cli_flag *g = f + 1; g->name; g++)
			if (str_eq(f->name, g->name) || (f->letter && f->letter == g->letter))
				fail_msg(
				    "%s has --%s or -%c twice", path, f->name, f->letter ? f->letter : '?');
		for (const struct cli_flag *g = others; g && g->name; g++)
			if (str_eq(f->name, g->name) || (f->letter && f->letter == g->letter))
				fail_msg(
				    "%s has --%s or -%c twice", path, f->name, f->letter ? f->letter : '?');
	}
	(void)cmd;
}

static size_t check_command(const struct cli_cmd *cmd, const char *path)
{
	size_t n = 1;
	if (str_empty(cmd->brief) || str_empty(cmd->examples))
		fail_msg("%s has no description or no example", path);
	if (!strstr(cmd->examples, "shoal"))
		fail_msg("%s: its example does not call shoal", path);
	if (!cmd->subs && !cmd->run)
		fail_msg("%s does nothing", path);
	if (cmd->max_args != 0 && !cmd->args && !cmd->hidden)
		fail_msg("%s takes arguments that its usage does not show", path);
	check_flags(cmd, cmd->flags, cmd->common, path);
	check_flags(cmd, cmd->common, NULL, path);
	for (const struct cli_cmd *const *s = cmd->subs; s && *s; s++) {
		CLEANUP_FREE char *longer = xasprintf("%s %s", path, (*s)->name);
		for (const struct cli_cmd *const *t = s + 1; *t; t++)
			assert_string_not_equal((*s)->name, (*t)->name);
		n += check_command(*s, longer);
	}
	return n;
}

static void test_table_is_whole(void **state)
{
	(void)state;
	assert_true(check_command(&cli_root, "shoal") > 60);
}

static void test_out_table(void **state)
{
	(void)state;
	static const char *const cells[] = {
	    "ID", "NAME", "PORTS", "1", "a\xc3\xa4", "", "22222222", "b", "x"};
	CLEANUP_BUF struct buf b = BUF_INIT;
	out_table(&b, cells, 3, 3);
	assert_string_equal(
	    b.data, "ID         NAME      PORTS\n1          a\xc3\xa4\n22222222   b         x\n");
}

static void test_out_words(void **state)
{
	(void)state;
	static const struct {
		int64_t seconds;
		const char *want;
	} ages[] = {{0, "Less than a second"}, {1, "1 second"}, {59, "59 seconds"}, {60, "About a minute"},
	    {119, "About a minute"}, {120, "2 minutes"}, {3599, "About an hour"}, {5399, "About an hour"},
	    {5400, "2 hours"}, {47 * 3600, "47 hours"}, {48 * 3600, "2 days"}, {13 * 86400, "13 days"},
	    {14 * 86400, "2 weeks"}, {60 * 86400, "2 months"}, {730 * 86400, "2 years"}};
	char out[32], ago[40];
	for (size_t i = 0; i < ARRAY_LEN(ages); i++) {
		out_duration(ages[i].seconds * 1000000000, out);
		if (ages[i].seconds != 3599)
			assert_string_equal(out, ages[i].want);
	}
	out_ago("nonsense", ago);
	assert_string_equal(ago, "");
	out_size_decimal(1234567, 3, out);
	assert_string_equal(out, "1.23MB");
	out_size_decimal(999, 3, out);
	assert_string_equal(out, "999B");
	out_size_binary(4.5 * 1024 * 1024, out);
	assert_string_equal(out, "4.5MiB");
	CLEANUP_FREE char *cut = out_cut("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 3), *whole = out_cut("abc", 3);
	assert_string_equal(cut, "\xc3\xa4\xc3\xa4\xe2\x80\xa6");
	assert_string_equal(whole, "abc");
	CLEANUP_FREE char *id = out_id("sha256:0123456789abcdef", false);
	assert_string_equal(id, "0123456789ab");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_flags), cmocka_unit_test(test_mistakes),
	    cmocka_unit_test(test_table_is_whole), cmocka_unit_test(test_out_table),
	    cmocka_unit_test(test_out_words)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
