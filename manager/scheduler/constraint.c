/* Parsing and matching of placement constraints; see constraint.h.
 *
 * An expression is parsed once per task template and then matched against many nodes. Parsing refuses what
 * has no operator, or a key or value outside the grammar; matching never fails. */
#include "manager/scheduler/constraint.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/str.h"

enum key {
	KEY_UNKNOWN,
	KEY_ID,
	KEY_HOSTNAME,
	KEY_IP,
	KEY_ROLE,
	KEY_OS,
	KEY_ARCH,
	KEY_NODE_LABEL,
	KEY_ENGINE_LABEL,
};

struct constraint {
	enum key key;
	bool negate;
	char *label; /* of the two label keys */
	char *value;
	/* KEY_IP */
	int family; /* 0: the value is no address */
	unsigned prefix;
	unsigned char addr[16];
};

static const struct {
	const char *name;
	enum key key;
} keys[] = {
    {"node.id", KEY_ID},
    {"node.hostname", KEY_HOSTNAME},
    {"node.ip", KEY_IP},
    {"node.role", KEY_ROLE},
    {"node.platform.os", KEY_OS},
    {"node.platform.arch", KEY_ARCH},
};

static bool is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool key_valid(const char *s)
{
	if (!is_alpha(s[0]) && s[0] != '_')
		return false;
	if (s[1] == '\0')
		return false;
	for (s++; *s != '\0'; s++) {
		if (!is_alpha(*s) && !is_digit(*s) && strchr("-_.", *s) == NULL)
			return false;
	}
	return true;
}

static bool value_valid(const char *s)
{
	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++) {
		if (!is_alpha(*s) && !is_digit(*s) && strchr(":-_ \t.*()?+[]\\^$|/", *s) == NULL)
			return false;
	}
	return true;
}

static char *trimmed(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	return xstrndup(p, (size_t)(end - p));
}

/* "10.0.0.1" or "10.0.0.0/8", either family. */
static void parse_ip(struct constraint *c)
{
	CLEANUP_FREE char *host = xstrdup(c->value);
	char *slash = strchr(host, '/');
	uint64_t prefix;

	if (slash != NULL)
		*slash = '\0';
	if (inet_pton(AF_INET, host, c->addr) == 1)
		c->family = AF_INET;
	else if (inet_pton(AF_INET6, host, c->addr) == 1)
		c->family = AF_INET6;
	else
		return;
	prefix = c->family == AF_INET ? 32 : 128;
	if (slash != NULL &&
	    (str_parse_u64(slash + 1, &prefix, NULL) < 0 || prefix > (c->family == AF_INET ? 32u : 128u)))
		c->family = 0;
	c->prefix = (unsigned)prefix;
}

static int parse_one(const char *expr, struct constraint *c, struct err *e)
{
	const char *op = strstr(expr, "==");
	CLEANUP_FREE char *key = NULL;
	CLEANUP_FREE char *value = NULL;

	if (op == NULL) {
		op = strstr(expr, "!=");
		c->negate = true;
	}
	if (op == NULL)
		return err_set(
		    e, ERR_INTERNAL, "constraint expected one operator from ==, != in '%.200s'", expr);
	key = trimmed(expr, op);
	value = trimmed(op + 2, op + 2 + strlen(op + 2));
	if (!key_valid(key))
		return err_set(e, ERR_INTERNAL, "key '%.200s' is invalid in constraint '%.200s'", key, expr);
	if (!value_valid(value))
		return err_set(
		    e, ERR_INTERNAL, "value '%.200s' is invalid in constraint '%.200s'", value, expr);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (str_ieq(key, keys[i].name))
			c->key = keys[i].key;
	}
	if (str_has_iprefix(key, "node.labels.") && key[12] != '\0') {
		c->key = KEY_NODE_LABEL;
		c->label = xstrdup(key + 12);
	} else if (str_has_iprefix(key, "engine.labels.") && key[14] != '\0') {
		c->key = KEY_ENGINE_LABEL;
		c->label = xstrdup(key + 14);
	}
	c->value = TAKE_PTR(value);
	if (c->key == KEY_IP)
		parse_ip(c);
	return 0;
}

int constraints_parse(char *const *exprs, size_t n, struct constraints *ret, struct err *e)
{
	struct constraints cs = {n == 0 ? NULL : xcalloc(n, sizeof(*cs.v)), n};

	for (size_t i = 0; i < n; i++) {
		int rc = parse_one(exprs[i], &cs.v[i], e);

		if (rc < 0) {
			constraints_done(&cs);
			return rc;
		}
	}
	*ret = cs;
	return 0;
}

void constraints_done(struct constraints *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->v[i].label);
		free(c->v[i].value);
	}
	free(c->v);
	*c = (struct constraints)CONSTRAINTS_INIT;
}

static const char *label_of(Pb__KV *const *labels, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(labels[i]->key, key) == 0)
			return labels[i]->value;
	}
	return NULL;
}

/* -1: cannot be compared, so neither operator matches. */
static int ip_equal(const struct constraint *c, const char *addr)
{
	unsigned char a[16];
	unsigned whole = c->prefix / 8, rest = c->prefix % 8;

	if (c->family == 0 || addr == NULL)
		return -1;
	if (inet_pton(c->family, addr, a) != 1)
		return strchr(addr, ':') != NULL || strchr(addr, '.') != NULL ? 0 : -1;
	if (memcmp(a, c->addr, whole) != 0)
		return 0;
	return rest == 0 || ((a[whole] ^ c->addr[whole]) >> (8 - rest)) == 0;
}

static bool match_one(const struct constraint *c, const Pb__Node *n)
{
	const Pb__NodeDescription *d = n->description;
	const Pb__Platform *pf = d != NULL ? d->platform : NULL;
	const Pb__EngineDescription *en = d != NULL ? d->engine : NULL;
	const char *have = NULL;
	int ip;

	switch (c->key) {
	case KEY_UNKNOWN:
		return false;
	case KEY_ID:
		have = n->id;
		break;
	case KEY_HOSTNAME:
		have = d != NULL ? d->hostname : NULL;
		break;
	case KEY_IP:
		ip = ip_equal(c, n->status != NULL ? n->status->addr : NULL);
		return ip >= 0 && (ip == 1) != c->negate;
	case KEY_ROLE:
		have = (n->has_role ? n->role : n->spec->role) == PB__NODE_ROLE__E__MANAGER ? "manager"
											    : "worker";
		break;
	case KEY_OS:
		have = pf != NULL ? pf->os : NULL;
		break;
	case KEY_ARCH:
		have = pf != NULL ? pf->architecture : NULL;
		break;
	case KEY_NODE_LABEL:
		have = label_of(n->spec->labels, n->spec->n_labels, c->label);
		break;
	case KEY_ENGINE_LABEL:
		have = en != NULL ? label_of(en->labels, en->n_labels, c->label) : NULL;
		break;
	}
	return (have != NULL && strcasecmp(have, c->value) == 0) != c->negate;
}

bool constraints_match(const struct constraints *c, const Pb__Node *node)
{
	for (size_t i = 0; i < c->n; i++) {
		if (!match_one(&c->v[i], node))
			return false;
	}
	return true;
}

bool placement_matches_node(const Pb__Placement *p, const Pb__Node *node)
{
	struct constraints c = CONSTRAINTS_INIT;
	bool ok;

	if (p == NULL || p->n_constraints == 0)
		return true;
	if (constraints_parse(p->constraints, p->n_constraints, &c, NULL) < 0)
		return false;
	ok = constraints_match(&c, node);
	constraints_done(&c);
	return ok;
}

static const char *arch_name(const char *a)
{
	if (str_ieq(a, "x86_64"))
		return "amd64";
	if (str_ieq(a, "aarch64"))
		return "arm64";
	return a;
}

bool placement_platform_fits(const Pb__Placement *p, const Pb__Node *node)
{
	const Pb__Platform *have = node->description != NULL ? node->description->platform : NULL;

	if (p == NULL || p->n_platforms == 0)
		return true;
	if (have == NULL)
		return false;
	for (size_t i = 0; i < p->n_platforms; i++) {
		const Pb__Platform *want = p->platforms[i];

		if ((str_empty(want->architecture) ||
			str_ieq(arch_name(want->architecture), arch_name(have->architecture))) &&
		    (str_empty(want->os) || str_ieq(want->os, have->os)))
			return true;
	}
	return false;
}
