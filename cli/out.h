/* What commands print: tables with --format, --quiet and --no-trunc, JSON, and quantities in words. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include <jansson.h>

#include "base/buf.h"
#include "cli/cli.h"

struct out_column {
	const char *key; /* of the row objects, and in --format templates; NULL ends an array */
	const char *title;
	bool hidden; /* only for templates */
};

/* Flags that every list has. */
#define OUT_LIST_FLAGS                                                                                       \
	{"format", 0, CLI_STR, "TEMPLATE", "Print by a Go template, \"table TEMPLATE\", or \"json\"", NULL}, \
	{                                                                                                    \
		"quiet", 'q', CLI_BOOL, NULL, "Print only ids", NULL                                         \
	}
#define OUT_FILTER_FLAG                                                                                      \
	{                                                                                                    \
		"filter", 'f', CLI_LIST, "KEY=VALUE", "Show only what fits", NULL                            \
	}
#define OUT_TRUNC_FLAG                                                                                       \
	{                                                                                                    \
		"no-trunc", 0, CLI_BOOL, NULL, "Print ids and texts in full", NULL                           \
	}
#define OUT_FORMAT_FLAG                                                                                      \
	{                                                                                                    \
		"format", 'f', CLI_STR, "TEMPLATE", "Print by a Go template, or \"json\"", NULL              \
	}

/* Prints an array of row objects (strings and other JSON) as the running command's flags want it: by
 * --format, or with --quiet the value at quiet_key (NULL: no such flag), else as a table. */
int out_rows(
    struct cli *c, const struct out_column *columns, json_t *rows, const char *quiet_key, struct err *e);
/* Prints one object or an array of them as `inspect` does: indented JSON, or each by --format. `objects` is
 * an array. */
int out_inspect(struct cli *c, json_t *objects, struct err *e);
/* One value by a template ("json": compact JSON), with a newline. */
int out_template(const char *format, json_t *value, struct err *e);

/* The table alone. `cells` has rows * n_columns strings, row by row, the titles first; three spaces apart. */
void out_table(struct buf *b, const char *const *cells, size_t n_columns, size_t n_rows);

/* "2 minutes", "About an hour" as docker says it. */
void out_duration(int64_t ns, char out[32]);
/* The same, since a moment given as RFC 3339, with " ago"; "" when it is not one. */
void out_ago(const char *when, char out[40]);
int64_t out_now(void);                                         /* ns */
void out_size_decimal(double bytes, int digits, char out[32]); /* 1.23MB */
void out_size_binary(double bytes, char out[32]);              /* 4.5MiB */
/* First letter upper case. */
void out_capital(const char *s, char *out, size_t cap);
/* 12 characters of an id, without "sha256:", unless `full`. Heap. */
char *out_id(const char *id, bool full);
/* "a=1,b=2" of an object of strings, sorted; heap. */
char *out_labels(const json_t *labels);
/* Cut to `columns` characters with an ellipsis; heap. */
char *out_cut(const char *s, size_t columns);
size_t out_width(const char *s); /* in columns */

#endif
