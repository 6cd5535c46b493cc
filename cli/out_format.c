/* --format and --quiet for lists, and what `inspect` prints. A list's rows are objects whose keys are the
 * names that templates use; "table TEMPLATE" prints titles by expanding the same template over an object of
 * titles, as docker does. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/out.h"
#include "proto/gotmpl.h"

#define MAX_OUTPUT (64u << 20)

/* "\t" and "\n" written as two characters, as they arrive from a shell's quotes, mean the one. */
static char *unescape(const char *s)
{
	char *out = xstrdup(s), *w = out;
	for (; *s; s++) {
		if (s[0] == '\\' && (s[1] == 't' || s[1] == 'n'))
			*w++ = *++s == 't' ? '\t' : '\n';
		else
			*w++ = *s;
	}
	*w = 0;
	return out;
}

static int write_out(struct buf *b)
{
	if (b->len)
		fwrite(b->data, 1, b->len, stdout);
	return 0;
}

static char *cell_text(const json_t *v)
{
	if (json_is_string(v))
		return xstrdup(json_string_value(v));
	return v && !json_is_null(v) ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : xstrdup("");
}

static void print_default(const struct out_column *columns, json_t *rows, struct buf *b)
{
	CLEANUP_STRLIST struct strlist cells = STRLIST_INIT;
	size_t n = 0;
	for (const struct out_column *k = columns; k->key; k++)
		if (!k->hidden) {
			strlist_add(&cells, k->title);
			n++;
		}
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row) for (const struct out_column *k = columns; k->key;
					      k++) if (!k->hidden)
	    strlist_take(&cells, cell_text(json_object_get(row, k->key)));
	out_table(b, (const char *const *)cells.v, n, json_array_size(rows) + 1);
}

/* Rows of tab-separated text as a table. */
static void align(const struct buf *text, struct buf *b)
{
	CLEANUP_STRLIST struct strlist lines = STRLIST_INIT;
	if (!text->len)
		return;
	strlist_split(&lines, text->data, '\n');
	size_t n = 1, rows = lines.n && !*lines.v[lines.n - 1] ? lines.n - 1 : lines.n;
	for (size_t i = 0; i < rows; i++) {
		size_t tabs = 1;
		for (const char *p = lines.v[i]; *p; p++)
			tabs += *p == '\t';
		n = tabs > n ? tabs : n;
	}
	CLEANUP_STRLIST struct strlist cells = STRLIST_INIT;
	for (size_t i = 0; i < rows; i++) {
		strlist_split(&cells, lines.v[i], '\t');
		while (cells.n < (i + 1) * n)
			strlist_add(&cells, "");
	}
	out_table(b, (const char *const *)cells.v, n, rows);
}

static int print_template(
    const struct out_column *columns, json_t *rows, const char *format, struct buf *b, struct err *e)
{
	bool table =
	    str_has_prefix(format, "table") && (format[5] == ' ' || format[5] == '\\' || format[5] == '\t');
	CLEANUP_FREE char *text = unescape(table ? format + 5 + strspn(format + 5, " ") : format);
	struct gotmpl_opts opts = {.missing_is_error = true, .max_output = MAX_OUTPUT};
	struct gotmpl *t;
	int r = gotmpl_parse(text, strlen(text), &opts, &t, e);
	if (r < 0)
		return err_wrap(e, "--format");
	CLEANUP_BUF struct buf all = BUF_INIT;
	if (table) {
		json_t *titles = json_object();
		for (const struct out_column *k = columns; k->key; k++)
			json_object_set_new(titles, k->key, json_string(k->title));
		/* What fits a row need not fit titles (range over a list): then there are none. */
		struct gotmpl_opts lenient = {.max_output = MAX_OUTPUT};
		if (gotmpl_exec(t, &lenient, titles, &all, NULL) == 0)
			buf_putc(&all, '\n');
		json_decref(titles);
	}
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		if ((r = gotmpl_exec(t, &opts, row, &all, e)) < 0)
			break;
		buf_putc(&all, '\n');
	}
	gotmpl_free(t);
	if (r < 0)
		return err_wrap(e, "--format");
	if (table)
		align(&all, b);
	else
		buf_append(b, all.data, all.len);
	return 0;
}

static void print_json(json_t *rows, struct buf *b)
{
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		json_object_del(row, "Label"); /* there for {{.Label "key"}}; .Labels says the same */
		CLEANUP_FREE char *text = json_dumps(row, JSON_COMPACT);
		buf_puts(b, text);
		buf_putc(b, '\n');
	}
}

int out_rows(
    struct cli *c, const struct out_column *columns, json_t *rows, const char *quiet_key, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	const char *format = cli_str(c, "format");
	size_t i;
	json_t *row;
	int r = 0;
	if (quiet_key && cli_bool(c, "quiet") && (!format || str_eq(format, "table")))
		json_array_foreach(rows, i, row) buf_printf(&b, "%s\n", jstr(row, quiet_key));
	else if (!format || str_eq(format, "table"))
		print_default(columns, rows, &b);
	else if (str_eq(format, "json"))
		print_json(rows, &b);
	else
		r = print_template(columns, rows, format, &b, e);
	return r < 0 ? r : write_out(&b);
}

int out_template(const char *format, json_t *value, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	CLEANUP_FREE char *text = unescape(str_eq(format, "json") ? "{{json .}}" : format);
	struct gotmpl_opts opts = {.ignore_case = true, .max_output = MAX_OUTPUT};
	int r = gotmpl_expand(text, &opts, value, &b, e);
	if (r < 0)
		return err_wrap(e, "--format");
	buf_putc(&b, '\n');
	return write_out(&b);
}

int out_inspect(struct cli *c, json_t *objects, struct err *e)
{
	const char *format = cli_str(c, "format");
	size_t i;
	json_t *o;
	int r = 0;
	if (!format) {
		CLEANUP_FREE char *text = json_dumps(objects, JSON_INDENT(4) | JSON_REAL_PRECISION(12));
		puts(text);
		return 0;
	}
	json_array_foreach(objects, i, o) if ((r = out_template(format, o, e)) < 0) break;
	return r;
}
