/* References to images, by docker's rules: "redis" is docker.io/library/redis:latest.
 *
 * [domain/]path[:tag][@digest]. The first part is a domain when it has a dot, a colon or an upper-case
 * letter, or is "localhost"; otherwise the domain is docker.io, and there a path of one part lies below
 * library/. Whatever does not fit the grammar is ERR_INVALID with the texts that docker's users know. */
#include <string.h>

#include "agent/image.h"
#include "agent/image_source.h"
#include "base/mem.h"

#define MAX_NAME   255
#define MAX_TAG    128
#define HUB        "docker.io"
#define HUB_OLD    "index.docker.io"
#define HUB_PREFIX "library/"

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* One part of a path: lower-case letters and digits, separated by ".", "_", "__" or any number of "-". */
static bool path_part_valid(const char *s, size_t n)
{
	size_t i = 0;
	while (i < n) {
		size_t start = i;
		while (i < n && is_lower_alnum(s[i]))
			i++;
		if (i == start)
			return false;
		if (i == n)
			return true;
		if (s[i] == '-') {
			while (i < n && s[i] == '-')
				i++;
		} else if (s[i] == '_') {
			i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
		} else if (s[i] == '.') {
			i++;
		} else {
			return false;
		}
	}
	return false;
}

static bool path_valid(const char *path)
{
	for (const char *p = path;;) {
		size_t n = strcspn(p, "/");
		if (!path_part_valid(p, n))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

static bool port_valid(const char *p)
{
	size_t n = strspn(p, "0123456789");
	return n > 0 && !p[n];
}

static bool domain_valid(const char *d)
{
	if (d[0] == '[') {
		size_t n = strspn(d + 1, "0123456789abcdefABCDEF:");
		return n > 0 && d[1 + n] == ']' && (!d[2 + n] || (d[2 + n] == ':' && port_valid(d + 3 + n)));
	}
	for (const char *p = d;;) {
		size_t n = 0;
		while (is_alnum(p[n]) || p[n] == '-')
			n++;
		if (n == 0 || p[0] == '-' || p[n - 1] == '-')
			return false;
		if (p[n] == ':')
			return port_valid(p + n + 1);
		if (!p[n])
			return true;
		if (p[n] != '.')
			return false;
		p += n + 1;
	}
}

static bool tag_valid(const char *t)
{
	size_t n = strlen(t);
	if (n == 0 || n > MAX_TAG || t[0] == '.' || t[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(t[i]) && t[i] != '_' && t[i] != '.' && t[i] != '-')
			return false;
	return true;
}

static int invalid(struct err *e)
{
	return err_set(e, ERR_INVALID, "invalid reference format");
}

/* Cuts the name (without tag and digest) into domain and path. */
static int split_name(const char *name, struct image_ref *r, struct err *e)
{
	const char *slash = strchr(name, '/');
	bool has_domain = false;
	if (slash) {
		for (const char *p = name; p < slash; p++)
			has_domain |= *p == '.' || *p == ':' || (*p >= 'A' && *p <= 'Z');
		has_domain |= slash - name == 9 && memcmp(name, "localhost", 9) == 0;
	}
	const char *path = has_domain ? slash + 1 : name;
	r->domain = has_domain ? xstrndup(name, (size_t)(slash - name)) : xstrdup(HUB);
	if (str_eq(r->domain, HUB_OLD)) {
		free(r->domain);
		r->domain = xstrdup(HUB);
	}
	if (!domain_valid(r->domain))
		return invalid(e);
	for (const char *p = path; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			return err_set(
			    e, ERR_INVALID, "invalid reference format: repository name must be lowercase");
	if (!path_valid(path))
		return invalid(e);
	bool official = str_eq(r->domain, HUB) && !strchr(path, '/');
	r->path = xasprintf("%s%s", official ? HUB_PREFIX : "", path);
	if (strlen(r->domain) + 1 + strlen(r->path) > MAX_NAME)
		return err_set(
		    e, ERR_INVALID, "repository name must not be more than %d characters", MAX_NAME);
	return 0;
}

static int parse(const char *s, struct image_ref *r, struct err *e)
{
	CLEANUP_FREE char *name = xstrdup(s);
	if (strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64)
		return err_set(e, ERR_INVALID,
		    "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s);
	char *at = strchr(name, '@');
	if (at) {
		*at = 0;
		if (!image_digest_valid(at + 1)) {
			if (strchr(at + 1, ':') && !str_has_prefix(at + 1, "sha256:"))
				return err_set(e, ERR_INVALID, "unsupported digest algorithm");
			return err_set(e, ERR_INVALID, "invalid reference format: invalid checksum digest");
		}
		r->digest = xstrdup(at + 1);
	}
	char *colon = strrchr(name, ':');
	if (colon && !strchr(colon, '/')) {
		*colon = 0;
		if (!tag_valid(colon + 1))
			return invalid(e);
		r->tag = xstrdup(colon + 1);
	}
	int rc = split_name(name, r, e);
	if (rc == 0 && !r->tag && !r->digest)
		r->tag = xstrdup("latest");
	return rc;
}

int image_ref_parse(const char *s, struct image_ref *ret, struct err *e)
{
	struct image_ref r = {NULL, NULL, NULL, NULL};
	if (strlen(s) > 1024)
		return invalid(e);
	int rc = parse(s, &r, e);
	if (rc < 0) {
		image_ref_done(&r);
		return rc;
	}
	*ret = r;
	return 0;
}

void image_ref_done(struct image_ref *r)
{
	free(r->domain);
	free(r->path);
	free(r->tag);
	free(r->digest);
	*r = (struct image_ref){NULL, NULL, NULL, NULL};
}

static char *join(const struct image_ref *r, const char *domain, const char *path)
{
	return xasprintf("%s%s%s%s%s%s%s", domain, *domain ? "/" : "", path, r->tag ? ":" : "",
	    r->tag ? r->tag : "", r->digest ? "@" : "", r->digest ? r->digest : "");
}

char *image_ref_familiar(const struct image_ref *r)
{
	if (!str_eq(r->domain, HUB))
		return join(r, r->domain, r->path);
	bool official = str_has_prefix(r->path, HUB_PREFIX) && !strchr(r->path + strlen(HUB_PREFIX), '/');
	return join(r, "", official ? r->path + strlen(HUB_PREFIX) : r->path);
}

char *image_ref_full(const struct image_ref *r)
{
	return join(r, r->domain, r->path);
}
