/* Shell completion. The scripts for bash and zsh call "shoal __complete WORD... CURRENT", which walks the
 * command table as parsing does and prints what may stand there: one candidate a line, in zsh's case with a
 * description behind a tab. Names of services, nodes and so on are asked of the daemon, which gets a moment.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/cmds.h"

#define PATIENCE_MS 700

static const char bash_script[] =
    "# bash completion of shoal\n"
    "_shoal() {\n"
    "\tlocal cur=${COMP_WORDS[COMP_CWORD]} line=${COMP_LINE:0:COMP_POINT} words=() i\n"
    "\tread -ra words <<<\"$line\"\n"
    "\t[[ $line == *[[:space:]] ]] && words+=(\"\")\n"
    "\tcur=${words[-1]}\n"
    "\tlocal IFS=$'\\n' out\n"
    "\tout=$(\"${words[0]}\" __complete \"${words[@]:1}\" 2>/dev/null | cut -f1)\n"
    "\tif [[ $out == :file ]]; then\n"
    "\t\tcompopt -o filenames 2>/dev/null\n"
    "\t\tCOMPREPLY=($(compgen -f -- \"${cur#*=}\"))\n"
    "\t\treturn\n"
    "\tfi\n"
    "\tCOMPREPLY=($(compgen -W \"$out\" -- \"$cur\"))\n"
    "\t# Readline takes only what is behind the last = or : for the word.\n"
    "\tlocal last=${COMP_WORDS[COMP_CWORD]}\n"
    "\tfor i in \"${!COMPREPLY[@]}\"; do\n"
    "\t\tif [[ $cur != \"$last\" && $cur == *[=:]* ]]; then "
    "COMPREPLY[i]=${COMPREPLY[i]#\"${cur%\"${cur##*[=:]}\"}\"}; fi\n"
    "\tdone\n"
    "\tif [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi\n"
    "}\n"
    "complete -F _shoal shoal\n";

static const char zsh_script[] =
    "#compdef shoal\n"
    "# zsh completion of shoal\n"
    "_shoal() {\n"
    "\tlocal -a lines items\n"
    "\tlines=(\"${(@f)$(\"${words[1]}\" __complete \"${(@Q)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
    "\tif [[ ${lines[1]} == ':file' ]]; then _files; return; fi\n"
    "\tlocal l\n"
    "\tfor l in $lines; do\n"
    "\t\titems+=(\"${${l%%$'\\t'*}//:/\\\\:}:${l#*$'\\t'}\")\n"
    "\tdone\n"
    "\t_describe 'shoal' items\n"
    "}\n"
    "if [[ $funcstack[1] == _shoal ]]; then _shoal \"$@\"; else compdef _shoal shoal; fi\n";

static int run_completion(struct cli *c, struct err *e)
{
	if (str_eq(c->argv[0], "bash"))
		fputs(bash_script, stdout);
	else if (str_eq(c->argv[0], "zsh"))
		fputs(zsh_script, stdout);
	else
		return err_set(
		    e, ERR_INVALID, "there is completion for bash and zsh, not for \"%s\"", c->argv[0]);
	return 0;
}

const struct cli_cmd cmd_completion = {
    .name = "completion",
    .args = "bash|zsh",
    .brief = "Print a script that completes commands, flags and names in a shell",
    .examples = "source <(shoal completion bash)                     # for this shell\n"
		"shoal completion bash >/etc/bash_completion.d/shoal\n"
		"shoal completion zsh >\"${fpath[1]}/_shoal\"",
    .min_args = 1,
    .max_args = 1,
    .kind = "bash|zsh",
    .run = run_completion,
};

/* --- candidates ---------------------------------------------------------------------------------- */

static void offer(const char *current, const char *text, const char *description)
{
	if (str_has_prefix(text, current))
		printf("%s\t%s\n", text, str_or(description, ""));
}

static void offer_commands(const struct cli_cmd *cmd, const char *current)
{
	for (const struct cli_cmd *const *s = cmd->subs; *s; s++)
		if (!(*s)->hidden)
			offer(current, (*s)->name, (*s)->brief);
}

static void offer_flags(const struct cli_flag *flags, const char *current)
{
	for (const struct cli_flag *f = flags; f && f->name; f++) {
		CLEANUP_FREE char *text = xasprintf("--%s", f->name);
		offer(current, text, f->help);
	}
}

static void offer_words(const char *words, const char *current, const char *prefix)
{
	CLEANUP_STRLIST struct strlist l = STRLIST_INIT;
	strlist_split(&l, words, '|');
	for (size_t i = 0; i < l.n; i++) {
		CLEANUP_FREE char *text = xasprintf("%s%s", prefix, l.v[i]);
		offer(current, text, "");
	}
}

static const struct source {
	const char *kind, *path, *list; /* list: key of the array in the reply, or NULL */
	const char *name, *description; /* paths in an element */
} sources[] = {{"service", "/services", NULL, "Spec.Name", "Spec.TaskTemplate.ContainerSpec.Image"},
    {"node", "/nodes", NULL, "Description.Hostname", "Status.State"},
    {"container", "/containers/json?all=1", NULL, "Id", "Image"},
    {"image", "/images/json", NULL, "RepoTags", ""}, {"network", "/networks", NULL, "Name", "Driver"},
    {"volume", "/volumes", "Volumes", "Name", "Driver"}, {"secret", "/secrets", NULL, "Spec.Name", ""},
    {"config", "/configs", NULL, "Spec.Name", ""}};

static void offer_element(const struct source *s, const json_t *o, const char *current)
{
	size_t i;
	json_t *v;
	if (str_eq(s->kind, "image")) {
		json_array_foreach(jpath(o, s->name), i, v)
		    offer(current, str_or(json_string_value(v), ""), "");
		return;
	}
	CLEANUP_FREE char *name = xstrdup(jstr(o, s->name));
	if (str_eq(s->kind, "container") && strlen(name) > 12)
		name[12] = 0;
	offer(current, name, *s->description ? jstr(o, s->description) : "");
	/* The name of a container is long; it completes once it was begun. */
	if (str_eq(s->kind, "container") && *current) {
		const char *full =
		    str_or(json_string_value(json_array_get(json_object_get(o, "Names"), 0)), "/");
		offer(current, full + 1, jstr(o, "Image"));
	}
}

static void offer_kind(struct cli *c, const char *kind, const char *current, const char *prefix)
{
	if (!kind)
		return;
	if (strchr(kind, '|')) {
		offer_words(kind, current, prefix);
		return;
	}
	if (str_eq(kind, "file")) {
		puts(":file");
		return;
	}
	bool any = str_eq(kind, "any");
	for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
		json_t *reply, *o;
		size_t k;
		if (!any && !str_eq(kind, sources[i].kind))
			continue;
		if (api_call(c, "GET", sources[i].path, &(struct api_opts){.patience_ms = PATIENCE_MS},
			&reply, NULL, NULL) < 0)
			continue;
		json_array_foreach(sources[i].list ? json_object_get(reply, sources[i].list) : reply, k, o)
		    offer_element(&sources[i], o, current);
		json_decref(reply);
	}
}

/* --- where in the table the cursor is ------------------------------------------------------------ */

static const struct cli_flag *find_flag(const struct cli_cmd *cmd, const char *name, size_t len, char letter)
{
	const struct cli_flag *const arrays[] = {cmd->flags, cmd->common};
	for (size_t i = 0; i < 2; i++)
		for (const struct cli_flag *f = arrays[i]; f && f->name; f++)
			if (letter ? f->letter == letter
				   : name && strlen(f->name) == len && strncmp(f->name, name, len) == 0)
				return f;
	return NULL;
}

/* The flag of a word that takes the next word as its value, or NULL. */
static const struct cli_flag *wants_value(const struct cli_cmd *cmd, const char *word)
{
	const struct cli_flag *f = NULL;
	if (word[0] == '-' && word[1] == '-' && !strchr(word, '='))
		f = find_flag(cmd, word + 2, strlen(word + 2), 0);
	else if (word[0] == '-' && word[1] && word[1] != '-')
		f = find_flag(cmd, "", 0, word[strlen(word) - 1]);
	return f && f->type != CLI_BOOL ? f : NULL;
}

static int run_complete(struct cli *c, struct err *e)
{
	(void)e;
	static char empty[] = "";
	const struct cli_cmd *cmd = &cli_root;
	const struct cli_flag *value_of = NULL;
	bool only_args = false;
	char *current = c->argc ? c->argv[c->argc - 1] : empty;
	for (int i = 0; i + 1 < c->argc; i++) {
		const char *w = c->argv[i];
		if (value_of) {
			if (str_eq(value_of->name, "host") && !c->host)
				c->host = xstrdup(w);
			value_of = NULL;
		} else if (!only_args && str_eq(w, "--")) {
			only_args = true;
		} else if (!only_args && *w == '-') {
			value_of = wants_value(cmd, w);
		} else if (cmd->subs) {
			cmd = cli_find_cmd(cmd->subs, w, strlen(w));
			if (!cmd)
				return 0;
		} else {
			only_args |= cmd->stop_at_arg;
		}
	}
	char *eq = strchr(current, '=');
	if (value_of) {
		offer_kind(c, value_of->words, current, "");
	} else if (!only_args && str_has_prefix(current, "--") && eq) {
		const struct cli_flag *f = find_flag(cmd, current + 2, (size_t)(eq - current) - 2, 0);
		CLEANUP_FREE char *prefix = xstrndup(current, (size_t)(eq - current) + 1);
		if (f)
			offer_kind(c, f->words, current, prefix);
	} else if (!only_args && *current == '-') {
		offer_flags(cmd->flags, current);
		offer_flags(cmd->common, current);
		offer(current, "--help", "Show help");
	} else if (cmd->subs) {
		offer_commands(cmd, current);
	} else {
		offer_kind(c, cmd->kind, current, "");
	}
	return 0;
}

const struct cli_cmd cmd_complete = {
    .name = "__complete",
    .brief = "What may stand where the cursor is",
    .examples = "shoal __complete service ''",
    .max_args = -1,
    .stop_at_arg = true,
    .raw = true,
    .hidden = true,
    .run = run_complete,
};

/* --- help as a command --------------------------------------------------------------------------- */

static int run_help(struct cli *c, struct err *e)
{
	const struct cli_cmd *cmd = &cli_root;
	CLEANUP_FREE char *path = xstrdup(cmd->name);
	for (int i = 0; i < c->argc; i++) {
		cmd = cli_find_cmd(cmd->subs, c->argv[i], strlen(c->argv[i]));
		if (!cmd)
			return err_set(
			    e, ERR_NOT_FOUND, "\"%s\" is not a command of \"%s\"", c->argv[i], path);
		char *longer = xasprintf("%s %s", path, cmd->name);
		free(path);
		path = longer;
	}
	cli_help(cmd, path);
	return 0;
}

const struct cli_cmd cmd_help = {
    .name = "help",
    .args = "[COMMAND...]",
    .brief = "Show help for a command",
    .examples = "shoal help service create",
    .max_args = -1,
    .run = run_help,
};
