/* The values of flags: checked by their type when they are given, and read by commands. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"

/* --- values -------------------------------------------------------------------------------------- */

static int parse_cpus(const char *s, int64_t *ret_nano, struct err *e)
{
	/* Digits, and at most nine after the point: exact, unlike a double. */
	uint64_t whole = 0;
	const char *dot = strchr(s, '.');
	char *head = dot ? xstrndup(s, (size_t)(dot - s)) : xstrdup(s);
	int r = str_empty(head) && dot && dot[1] ? 0 : str_parse_u64(head, &whole, NULL);
	free(head);
	int64_t nano = 0, unit = 100000000;
	for (const char *p = dot ? dot + 1 : ""; *p && r == 0; p++, unit /= 10) {
		if (!isdigit((unsigned char)*p) || unit == 0)
			r = ERR_INVALID;
		else
			nano += (*p - '0') * unit;
	}
	if (r < 0 || whole > 1000000)
		return err_set(e, ERR_INVALID, "\"%s\" is not a number of CPUs (as in 0.5)", s);
	*ret_nano = (int64_t)whole * 1000000000 + nano;
	return 0;
}

static int parse_ratio(const char *s, double *ret, struct err *e)
{
	char *end;
	double v = strtod(s, &end);
	if (!*s || *end || !isfinite(v) || isspace((unsigned char)*s))
		return err_set(e, ERR_INVALID, "\"%s\" is not a number", s);
	*ret = v;
	return 0;
}

static int parse_bool(const char *s, bool *ret, struct err *e)
{
	if (str_ieq(s, "true") || str_eq(s, "1") || str_ieq(s, "t"))
		*ret = true;
	else if (str_ieq(s, "false") || str_eq(s, "0") || str_ieq(s, "f"))
		*ret = false;
	else
		return err_set(e, ERR_INVALID, "\"%s\" is neither true nor false", s);
	return 0;
}

int cli_parse_value(const struct cli_flag *f, const char *s, int64_t *ret, double *ret_ratio, struct err *e)
{
	uint64_t u;
	bool b = false;
	switch (f->type) {
	case CLI_BOOL:
		if (parse_bool(s, &b, e) < 0)
			return ERR_INVALID;
		*ret = b;
		return 0;
	case CLI_INT:
		return str_parse_i64(s, ret, e);
	case CLI_UINT:
		if (str_parse_u64(s, &u, e) < 0)
			return ERR_INVALID;
		if (u > INT64_MAX)
			return err_set(e, ERR_INVALID, "\"%s\" is too large", s);
		*ret = (int64_t)u;
		return 0;
	case CLI_DURATION:
		return str_parse_duration(s, ret, e);
	case CLI_SIZE:
		return str_parse_size(s, ret, e);
	case CLI_CPUS:
		return parse_cpus(s, ret, e);
	case CLI_RATIO:
		return parse_ratio(s, ret_ratio, e);
	case CLI_STR:
	case CLI_LIST:
		if (f->words && strchr(f->words, '|')) {
			for (const char *p = f->words; *p;) {
				size_t n = strcspn(p, "|");
				if (n == strlen(s) && strncmp(p, s, n) == 0)
					return 0;
				p += n + (p[n] == '|');
			}
			return err_set(e, ERR_INVALID, "\"%s\" is none of %s", s, f->words);
		}
		return 0;
	}
	return 0;
}

static bool find_in(const struct cli_flag *flags, struct cli_value *values, const char *name, size_t len,
    char letter, struct cli_found *ret)
{
	for (size_t i = 0; flags && flags[i].name; i++)
		if (letter ? flags[i].letter == letter
			   : strlen(flags[i].name) == len && strncmp(flags[i].name, name, len) == 0) {
			*ret = (struct cli_found){&flags[i], values ? &values[i] : NULL};
			return true;
		}
	return false;
}

bool cli_find_flag(const struct cli *c, const char *name, size_t len, char letter, struct cli_found *ret)
{
	return find_in(c->cmd->flags, c->flags, name, len, letter, ret) ||
	       find_in(c->cmd->common, c->common, name, len, letter, ret);
}

/* --- access -------------------------------------------------------------------------------------- */

static struct cli_found must_find(const struct cli *c, const char *name)
{
	struct cli_found f = {NULL, NULL};
	ASSERT(cli_find_flag(c, name, strlen(name), 0, &f) && f.value != NULL && f.flag != NULL);
	return f;
}

bool cli_given(const struct cli *c, const char *flag)
{
	return must_find(c, flag).value->given.n > 0;
}

const char *cli_str(const struct cli *c, const char *flag)
{
	const struct strlist *l = &must_find(c, flag).value->given;
	return l->n ? l->v[l->n - 1] : NULL;
}

const struct strlist *cli_list(const struct cli *c, const char *flag)
{
	return &must_find(c, flag).value->given;
}

int64_t cli_int(const struct cli *c, const char *flag, int64_t fallback)
{
	struct cli_found f = must_find(c, flag);
	int64_t n = fallback;
	double d;
	if (f.value->given.n)
		ASSERT(cli_parse_value(f.flag, f.value->given.v[f.value->given.n - 1], &n, &d, NULL) == 0);
	return n;
}

bool cli_bool(const struct cli *c, const char *flag)
{
	return cli_int(c, flag, 0) != 0;
}

double cli_ratio(const struct cli *c, const char *flag, double fallback)
{
	struct cli_found f = must_find(c, flag);
	int64_t n;
	double d = fallback;
	if (f.value->given.n)
		ASSERT(cli_parse_value(f.flag, f.value->given.v[f.value->given.n - 1], &n, &d, NULL) == 0);
	return d;
}
