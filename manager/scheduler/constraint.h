/* Placement constraints: "node.labels.rack == r1". All of a list must hold.
 *
 * <key> (==|!=) <value>, blanks around both ignored. Values are compared whole and without regard to case;
 * nothing globs. A label that a node does not have equals nothing. A key that is not known matches no node.
 */
#ifndef MANAGER_SCHEDULER_CONSTRAINT_H
#define MANAGER_SCHEDULER_CONSTRAINT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "proto/objects.pb-c.h"

struct constraint;
struct constraints {
	struct constraint *v;
	size_t n;
};
#define CONSTRAINTS_INIT                                                                                     \
	{                                                                                                    \
		0, 0                                                                                         \
	}

/* ERR_INTERNAL (as Swarm answers: 500) with what is wrong with which expression. */
int constraints_parse(char *const *exprs, size_t n, struct constraints *ret, struct err *e);
void constraints_done(struct constraints *c);
bool constraints_match(const struct constraints *c, const Pb__Node *node);

/* Of a template's or service's placement: one that does not parse (the API lets none in) matches nothing.
 * NULL matches everything. */
bool placement_matches_node(const Pb__Placement *p, const Pb__Node *node);
/* Placement.Platforms: one of them fits, or there are none. x86_64 is amd64, aarch64 is arm64. */
bool placement_platform_fits(const Pb__Placement *p, const Pb__Node *node);

#endif
