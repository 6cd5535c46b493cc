/* Finding the command in the table and taking its flags, in GNU style: --flag VALUE, --flag=VALUE, -f VALUE,
 * -fVALUE, clusters of one-letter switches, "--" as the end of flags. Values are checked against their type
 * here, so that commands never see a bad number. A mistake is said on stderr with the nearest right name, and
 * is CLI_EXIT_USAGE. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/args.h"

#define MAX_DISTANCE 64 /* names longer than this get no suggestion */

void cli_warn(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fflush(stdout);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

int cli_error(const struct err *e)
{
	cli_warn("%s%s", str_has_prefix(e->text, "Error") ? "" : "Error: ", e->text);
	return 1;
}

bool cli_confirm(const char *what)
{
	char line[16];
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return true;
	fprintf(stderr, "%s\nGo on? [y/N] ", what);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

int cli_usage(const struct cli *c, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fflush(stdout);
	fputs("shoal: ", stderr);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\nSee '%s --help'.\n", str_or(c->path, "shoal"));
	va_end(ap);
	return CLI_EXIT_USAGE;
}

static bool alias_has(const char *aliases, const char *name, size_t len)
{
	for (const char *p = aliases; p && *p;) {
		size_t n = strcspn(p, ",");
		if (n == len && strncmp(p, name, n) == 0)
			return true;
		p += n + (p[n] == ',');
	}
	return false;
}

const struct cli_cmd *cli_find_cmd(const struct cli_cmd *const *subs, const char *name, size_t len)
{
	for (; subs && *subs; subs++)
		if ((strlen((*subs)->name) == len && strncmp((*subs)->name, name, len) == 0) ||
		    alias_has((*subs)->alias, name, len))
			return *subs;
	return NULL;
}

/* Levenshtein; names are short. */
static size_t distance(const char *a, const char *b)
{
	size_t row[MAX_DISTANCE + 1], n = strlen(b);
	if (n > MAX_DISTANCE || strlen(a) > MAX_DISTANCE)
		return MAX_DISTANCE;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[n];
}

/* Keeps in *best the candidate nearest to `name`, if near enough. */
static void nearest(const char *name, const char *candidate, const char **best, size_t *best_distance)
{
	size_t d = distance(name, candidate);
	if (d < *best_distance && d <= 1 + strlen(name) / 4) {
		*best = candidate;
		*best_distance = d;
	}
}

static int unknown_command(struct cli *c, const struct cli_cmd *parent, const char *name)
{
	const char *best = NULL;
	size_t d = MAX_DISTANCE;
	for (const struct cli_cmd *const *s = parent->subs; *s; s++)
		if (!(*s)->hidden)
			nearest(name, (*s)->name, &best, &d);
	if (best)
		return cli_usage(
		    c, "\"%s\" is not a command of \"%s\"; did you mean \"%s\"?", name, c->path, best);
	return cli_usage(c, "\"%s\" is not a command of \"%s\"", name, c->path);
}

/* --- flags --------------------------------------------------------------------------------------- */

static int unknown_flag(const struct cli *c, const char *name)
{
	const char *best = NULL;
	size_t d = MAX_DISTANCE;
	for (const struct cli_flag *f = c->cmd->flags; f && f->name; f++)
		nearest(name, f->name, &best, &d);
	for (const struct cli_flag *f = c->cmd->common; f && f->name; f++)
		nearest(name, f->name, &best, &d);
	if (best)
		return cli_usage(c, "unknown flag --%s; did you mean --%s?", name, best);
	return cli_usage(c, "unknown flag --%s", name);
}

static int set_flag(const struct cli *c, const struct cli_found *f, const char *value)
{
	struct err e = ERR_INIT;
	int64_t n;
	double d;
	if (cli_parse_value(f->flag, value, &n, &d, &e) < 0)
		return cli_usage(c, "--%s: %s", f->flag->name, e.text);
	strlist_add(&f->value->given, value);
	return 0;
}

static int parse_long(struct cli *c, const char *arg, char **argv, int argc, int *i, bool *help)
{
	size_t len = strcspn(arg, "=");
	struct cli_found f;
	if (!cli_find_flag(c, arg, len, 0, &f)) {
		if (len == 4 && strncmp(arg, "help", 4) == 0) {
			*help = true;
			return 0;
		}
		char *name = xstrndup(arg, len);
		int r = unknown_flag(c, name);
		free(name);
		return r;
	}
	if (arg[len] == '=')
		return set_flag(c, &f, arg + len + 1);
	if (f.flag->type == CLI_BOOL)
		return set_flag(c, &f, "true");
	if (*i + 1 >= argc)
		return cli_usage(c, "--%s needs a value", f.flag->name);
	return set_flag(c, &f, argv[++*i]);
}

static int parse_letters(struct cli *c, const char *arg, char **argv, int argc, int *i, bool *help)
{
	for (const char *p = arg; *p; p++) {
		struct cli_found f;
		if (!cli_find_flag(c, "", 0, *p, &f)) {
			if (*p == 'h') {
				*help = true;
				continue;
			}
			return cli_usage(
			    c, "unknown flag -%c%s%s", *p, arg[1] ? " in -" : "", arg[1] ? arg : "");
		}
		int r;
		if (f.flag->type == CLI_BOOL && p[1] != '=') {
			if ((r = set_flag(c, &f, "true")))
				return r;
			continue;
		}
		if (p[1])
			return set_flag(c, &f, p[1] == '=' ? p + 2 : p + 1);
		if (*i + 1 >= argc)
			return cli_usage(c, "-%c needs a value", *p);
		return set_flag(c, &f, argv[++*i]);
	}
	return 0;
}

static void free_values(const struct cli_flag *flags, struct cli_value *values)
{
	for (size_t i = 0; values && flags[i].name; i++)
		strlist_done(&values[i].given);
	free(values);
}

static struct cli_value *new_values(const struct cli_flag *flags)
{
	size_t n = 0;
	while (flags && flags[n].name)
		n++;
	return n ? xcalloc(n, sizeof(struct cli_value)) : NULL;
}

static void use_command(struct cli *c, const struct cli_cmd *cmd)
{
	if (c->cmd) {
		free_values(c->cmd->flags, c->flags);
		free_values(c->cmd->common, c->common);
	}
	char *path = c->path ? xasprintf("%s %s", c->path, cmd->name) : xstrdup(cmd->name);
	free(c->path);
	c->path = path;
	c->cmd = cmd;
	c->flags = new_values(cmd->flags);
	c->common = new_values(cmd->common);
}

static void take_globals(struct cli *c)
{
	const char *s;
	if ((s = cli_str(c, "host")) && !c->host)
		c->host = xstrdup(s);
	c->tls |= cli_bool(c, "tls");
	c->tls_verify |= cli_bool(c, "tlsverify");
	if ((s = cli_str(c, "tlscacert")))
		c->tls_ca = xstrdup(s);
	if ((s = cli_str(c, "tlscert")))
		c->tls_cert = xstrdup(s);
	if ((s = cli_str(c, "tlskey")))
		c->tls_key = xstrdup(s);
}

static int check_count(const struct cli *c)
{
	const struct cli_cmd *k = c->cmd;
	if (c->argc < k->min_args)
		return cli_usage(c, "\"%s\" needs %s%d argument%s: %s", c->path,
		    k->max_args == k->min_args ? "" : "at least ", k->min_args, k->min_args == 1 ? "" : "s",
		    str_or(k->args, ""));
	if (k->max_args >= 0 && c->argc > k->max_args) {
		if (k->max_args == 0)
			return cli_usage(c, "\"%s\" takes no arguments, but got \"%s\"", c->path, c->argv[0]);
		return cli_usage(c, "\"%s\" takes at most %d argument%s, but got \"%s\" as well", c->path,
		    k->max_args, k->max_args == 1 ? "" : "s", c->argv[k->max_args]);
	}
	return 0;
}

int cli_parse(struct cli *c, const struct cli_cmd *root, int argc, char **argv, bool *ret_help)
{
	use_command(c, root);
	c->argv = xcalloc((size_t)argc + 1, sizeof(char *));
	bool only_args = false;
	for (int i = 1; i < argc; i++) {
		char *a = argv[i];
		int r = 0;
		if (!only_args && str_eq(a, "--")) {
			only_args = true;
		} else if (!only_args && a[0] == '-' && a[1] == '-') {
			r = parse_long(c, a + 2, argv, argc, &i, ret_help);
		} else if (!only_args && a[0] == '-' && a[1]) {
			r = parse_letters(c, a + 1, argv, argc, &i, ret_help);
		} else if (c->cmd->subs) {
			const struct cli_cmd *s = cli_find_cmd(c->cmd->subs, a, strlen(a));
			if (!s)
				return unknown_command(c, c->cmd, a);
			if (c->cmd == root)
				take_globals(c);
			use_command(c, s);
			only_args = s->raw;
		} else {
			c->argv[c->argc++] = a;
			only_args |= c->cmd->stop_at_arg;
		}
		if (r)
			return r;
	}
	if (c->cmd == root)
		take_globals(c);
	return *ret_help || c->cmd->subs ? 0 : check_count(c);
}

void cli_done(struct cli *c)
{
	if (c->cmd) {
		free_values(c->cmd->flags, c->flags);
		free_values(c->cmd->common, c->common);
	}
	free(c->path);
	free(c->argv);
	free(c->host);
	free(c->tls_ca);
	free(c->tls_cert);
	free(c->tls_key);
}
