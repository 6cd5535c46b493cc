/* Help from the command table: usage, what it does, examples, flags or subcommands. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cli/cli.h"

static const char *placeholder(const struct cli_flag *f)
{
	if (f->value)
		return f->value;
	if (f->words && strchr(f->words, '|'))
		return f->words;
	switch (f->type) {
	case CLI_BOOL:
		return "";
	case CLI_STR:
		return "TEXT";
	case CLI_LIST:
		return "TEXT";
	case CLI_INT:
	case CLI_UINT:
		return "N";
	case CLI_DURATION:
		return "DURATION";
	case CLI_SIZE:
		return "BYTES";
	case CLI_CPUS:
		return "CPUS";
	case CLI_RATIO:
		return "RATIO";
	}
	return "";
}

struct line {
	char *left;
	const char *right;
};

static int by_left(const void *a, const void *b)
{
	/* Past the letter column, so that -q and --quiet sort by "quiet". */
	return strcmp(((const struct line *)a)->left + 6, ((const struct line *)b)->left + 6);
}

static size_t add_flags(struct line *lines, const struct cli_flag *flags)
{
	size_t n = 0;
	for (const struct cli_flag *f = flags; f && f->name; f++) {
		const char *p = placeholder(f);
		char letter[8] = "    ";
		if (f->letter)
			snprintf(letter, sizeof(letter), "-%c, ", f->letter);
		lines[n].left = xasprintf("  %s--%s%s%s", letter, f->name, *p ? " " : "", p);
		lines[n++].right = f->help;
	}
	return n;
}

static size_t count(const struct cli_flag *flags)
{
	size_t n = 0;
	while (flags && flags[n].name)
		n++;
	return n;
}

static void print_lines(struct line *lines, size_t n)
{
	size_t width = 0;
	for (size_t i = 0; i < n; i++) {
		size_t w = strlen(lines[i].left);
		if (w > width && w <= 36)
			width = w;
	}
	for (size_t i = 0; i < n; i++) {
		if (strlen(lines[i].left) > width)
			printf("%s\n%*s  %s\n", lines[i].left, (int)width, "", lines[i].right);
		else
			printf("%-*s  %s\n", (int)width, lines[i].left, lines[i].right);
		free(lines[i].left);
	}
}

static void print_flags(const struct cli_cmd *cmd)
{
	size_t n = count(cmd->flags) + count(cmd->common);
	CLEANUP_FREE struct line *lines = xcalloc(n + 1, sizeof(*lines));
	size_t k = add_flags(lines, cmd->flags);
	k += add_flags(lines + k, cmd->common);
	qsort(lines, k, sizeof(*lines), by_left);
	lines[k++] = (struct line){xstrdup("      --help"), "Show this help"};
	printf("\nFlags:\n");
	print_lines(lines, k);
}

static void print_subs(const struct cli_cmd *cmd, bool groups, const char *title)
{
	size_t n = 0;
	while (cmd->subs[n])
		n++;
	CLEANUP_FREE struct line *lines = xcalloc(n + 1, sizeof(*lines));
	size_t k = 0;
	for (const struct cli_cmd *const *s = cmd->subs; *s; s++)
		if (!(*s)->hidden && ((*s)->subs != NULL) == groups)
			lines[k++] = (struct line){xasprintf("  %s", (*s)->name), (*s)->brief};
	if (!k)
		return;
	printf("\n%s:\n", title);
	print_lines(lines, k);
}

static void print_examples(const char *text)
{
	printf("\nExamples:\n");
	while (*text) {
		size_t n = strcspn(text, "\n");
		printf("  %.*s\n", (int)n, text);
		text += n + (text[n] == '\n');
	}
}

void cli_help(const struct cli_cmd *cmd, const char *path)
{
	if (cmd->subs)
		printf("Usage: %s COMMAND\n", path);
	else
		printf("Usage: %s%s%s%s\n", path, cmd->flags || cmd->common ? " [FLAGS]" : "",
		    cmd->args ? " " : "", str_or(cmd->args, ""));
	printf("\n%s\n", cmd->brief);
	if (cmd->about)
		printf("\n%s\n", cmd->about);
	if (cmd->alias)
		printf("\nAlso called: %s\n", cmd->alias);
	if (cmd->examples)
		print_examples(cmd->examples);
	if (cmd->subs) {
		print_subs(cmd, true, "Command groups");
		print_subs(cmd, false, "Commands");
	}
	print_flags(cmd);
	if (cmd->subs)
		printf("\nSee '%s COMMAND --help' for a command's flags and examples.\n", path);
}
