/* Templates in a service's spec ("{{.Node.Hostname}}"), expanded for each task: values of env, the hostname,
 * sources and targets of mounts. Fields: .Service.ID .Service.Name .Service.Labels, .Node.ID .Node.Hostname
 * .Node.Platform.OS .Node.Platform.Architecture, .Task.ID .Task.Name .Task.Slot. A field that is not there is
 * an error. Pure. */
#ifndef AGENT_TASK_TEMPLATE_H
#define AGENT_TASK_TEMPLATE_H

#include <jansson.h>

#include "base/err.h"
#include "proto/objects.pb-c.h"

struct task_template_values {
	const char *service_id, *service_name;
	Pb__KV *const *service_labels;
	size_t n_service_labels;
	const char *node_id, *hostname, *os, *arch;
	const char *task_id, *task_name, *slot;
};
/* The values as templates see them; new reference. */
json_t *task_template_context(const struct task_template_values *v);
/* *ret is on the heap. Text without "{{" is copied as it is. ERR_INVALID names what does not expand. */
int task_template_expand(const char *what, const char *text, json_t *context, char **ret, struct err *e);
/* Whether everything of a spec that is expanded expands, with made-up values: for create and update. */
int task_template_check(const Pb__ContainerSpec *s, struct err *e);

#endif
