/* The shoal client: one declarative command table drives parsing, help and completion; one file a noun. It
 * speaks the Engine API and nothing else (cli/api.h).
 *
 * A command's `run` returns its exit status (0 and up), or a negative ERR_* with text in `e`, which cli_main
 * prints and turns into exit status 1. Wrong usage is exit status 125, as with docker. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define CLI_EXIT_USAGE 125

struct cli;
struct conn;

enum cli_flag_type {
	CLI_BOOL, /* --x, --x=false */
	CLI_STR,
	CLI_LIST, /* may be given again and again */
	CLI_INT,
	CLI_UINT,
	CLI_DURATION, /* Go's: 1m30s */
	CLI_SIZE,     /* 64m */
	CLI_CPUS,     /* 1.5 */
	CLI_RATIO,    /* 0.0 to 1.0 and beyond */
};

struct cli_flag {
	const char *name; /* without the dashes; NULL ends an array */
	char letter;      /* or 0 */
	enum cli_flag_type type;
	const char *value; /* placeholder in help ("NAME"); NULL: from the type */
	const char *help;
	/* What completes its value: a kind as in cli_cmd, or words "a|b|c" (then nothing else is taken). */
	const char *words;
};

struct cli_cmd {
	const char *name;
	const char *alias; /* other names, comma-separated; not in help's lists */
	const char *args;  /* "SERVICE [SERVICE...]" */
	const char *brief; /* one line */
	const char *about; /* more lines, or NULL */
	const char *examples;
	const struct cli_flag *flags;  /* or NULL */
	const struct cli_flag *common; /* further flags, shared with other commands; or NULL */
	int min_args, max_args;        /* max_args -1: any number */
	bool stop_at_arg;              /* flags end where the arguments begin (exec, service create) */
	bool raw;                      /* all words behind its name are arguments, flags too */
	bool hidden;
	const char *kind; /* what its arguments are, for completion: service node container image network
			     volume secret config task file */
	const struct cli_cmd *const *subs; /* ends with NULL; or NULL */
	int (*run)(struct cli *c, struct err *e);
};

struct cli_value {
	struct strlist given; /* in the order given; empty: not given */
};

struct cli {
	const struct cli_cmd *cmd;
	char *path; /* "shoal service create" */
	struct cli_value *flags, *common;
	char **argv; /* the arguments that are not flags; borrowed */
	int argc;
	/* connection */
	char *host; /* unix:///..., tcp://... */
	bool tls, tls_verify;
	char *tls_ca, *tls_cert, *tls_key;
	struct conn *conn; /* kept between calls; cli/api.c's */
	bool out_tty, err_tty;
};

/* The whole program; returns its exit status. */
int cli_main(int argc, char **argv);
extern const struct cli_cmd cli_root;

/* --- flags of the running command; asking for one that its table lacks is our bug ---------------- */
bool cli_given(const struct cli *c, const char *flag);
bool cli_bool(const struct cli *c, const char *flag); /* false when not given */
/* The last value given, or NULL. */
const char *cli_str(const struct cli *c, const char *flag);
/* The number in the flag's unit (nanoseconds, bytes, nano CPUs), or `fallback` when not given. */
int64_t cli_int(const struct cli *c, const char *flag, int64_t fallback);
double cli_ratio(const struct cli *c, const char *flag, double fallback);
/* All values; an empty list when not given. */
const struct strlist *cli_list(const struct cli *c, const char *flag);

/* --- parsing (args.c) ---------------------------------------------------------------------------- */
/* Walks the table from `root` to the command that argv names and fills c. Returns 0, or CLI_EXIT_USAGE after
 * saying what is wrong on stderr; *ret_help is set when --help was asked for (c->cmd then names for what). */
int cli_parse(struct cli *c, const struct cli_cmd *root, int argc, char **argv, bool *ret_help);
void cli_done(struct cli *c);
const struct cli_cmd *cli_find_cmd(const struct cli_cmd *const *subs, const char *name, size_t len);
/* Says on stderr what is wrong with the way a command was called; returns CLI_EXIT_USAGE. */
int cli_usage(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- help and completion ------------------------------------------------------------------------- */
void cli_help(const struct cli_cmd *cmd, const char *path);

/* "Error: ..." on stderr; for commands that go on with their next argument. Returns 1. */
int cli_error(const struct err *e);
/* Asks on the terminal whether to go on; true without a terminal, as nobody could answer there. */
bool cli_confirm(const char *what);
/* A line on stderr. */
void cli_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
