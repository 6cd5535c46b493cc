/* See task_template.h. The template language is proto/gotmpl.h. */
#include "agent/task_template.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/gotmpl.h"

#define EXPANDED_MAX (64u * 1024)

json_t *task_template_context(const struct task_template_values *v)
{
	json_t *labels = json_object();
	for (size_t i = 0; i < v->n_service_labels; i++)
		json_object_set_new(
		    labels, v->service_labels[i]->key, json_string(v->service_labels[i]->value));
	return json_pack("{s:{s:s, s:s, s:o}, s:{s:s, s:s, s:{s:s, s:s}}, s:{s:s, s:s, s:s}}", "Service",
	    "ID", str_or(v->service_id, ""), "Name", str_or(v->service_name, ""), "Labels", labels, "Node",
	    "ID", str_or(v->node_id, ""), "Hostname", str_or(v->hostname, ""), "Platform", "OS",
	    str_or(v->os, ""), "Architecture", str_or(v->arch, ""), "Task", "ID", str_or(v->task_id, ""),
	    "Name", str_or(v->task_name, ""), "Slot", str_or(v->slot, ""));
}

/* Swarm's join takes the separator first; that of --format takes it last. */
static int call_join(void *data, json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	(void)data;
	CLEANUP_BUF struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		/* A label that is not there is null, and empty text. */
		if (!json_is_string(args[i]) && !json_is_null(args[i]))
			return err_set(e, ERR_INVALID, "join: argument %zu is no string", i + 1);
		if (b.len > EXPANDED_MAX)
			return err_set(e, ERR_TOO_LARGE, "join: the text is too long");
		if (i > 1)
			buf_puts(&b, str_or(json_string_value(args[0]), ""));
		if (i > 0)
			buf_puts(&b, str_or(json_string_value(args[i]), ""));
	}
	*ret = json_stringn(b.data ? b.data : "", b.len);
	return *ret ? 0 : err_set(e, ERR_INVALID, "join: the text is not UTF-8");
}

int task_template_expand(const char *what, const char *text, json_t *context, char **ret, struct err *e)
{
	if (!strstr(text, "{{")) {
		*ret = xstrdup(text);
		return 0;
	}
	static const struct gotmpl_func funcs[] = {{"join", call_join}, {NULL, NULL}};
	static const struct gotmpl_opts o = {
	    .missing_is_error = true, .max_output = EXPANDED_MAX, .funcs = funcs};
	CLEANUP_BUF struct buf out = BUF_INIT;
	int rc = gotmpl_expand(text, &o, context, &out, e);
	if (rc != 0) {
		err_wrap(e, "expanding %s \"%.200s\"", what, text);
		if (e)
			e->code = ERR_INVALID;
		return ERR_INVALID;
	}
	*ret = buf_take(&out, NULL);
	return 0;
}

static int try_expand(const char *what, const char *text, json_t *context, struct err *e)
{
	CLEANUP_FREE char *out = NULL;
	return text ? task_template_expand(what, text, context, &out, e) : 0;
}

int task_template_check(const Pb__ContainerSpec *s, struct err *e)
{
	/* Labels are looked up with index, which finds nothing to complain about in an empty map. */
	const struct task_template_values v = {.service_id = "id",
	    .service_name = "name",
	    .node_id = "id",
	    .hostname = "host",
	    .os = "linux",
	    .arch = "x86_64",
	    .task_id = "id",
	    .task_name = "name",
	    .slot = "1"};
	json_t *context = task_template_context(&v);
	int rc = try_expand("Hostname", s->hostname, context, e);
	for (size_t i = 0; rc == 0 && i < s->n_env; i++)
		rc = try_expand("Env", s->env[i], context, e);
	for (size_t i = 0; rc == 0 && i < s->n_mounts; i++) {
		rc = try_expand("Mounts.Source", s->mounts[i]->source, context, e);
		if (rc == 0)
			rc = try_expand("Mounts.Target", s->mounts[i]->target, context, e);
	}
	json_decref(context);
	return rc;
}
