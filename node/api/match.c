/* See match.h. {name} takes one part, {name...} as many as the rest of the pattern allows, the longest first.
 */
#include "node/api/match.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "node/api/api.h"

enum match_version_result match_version(const char **path, unsigned *ret_minor)
{
	const char *p = *path;
	unsigned long major, minor;
	char *end;
	*ret_minor = API_MINOR_MAX;
	if (p[0] != '/' || p[1] != 'v' || !isdigit((unsigned char)p[2]))
		return MATCH_OK;
	major = strtoul(p + 2, &end, 10);
	if (*end != '.' || !isdigit((unsigned char)end[1]))
		return MATCH_OK;
	minor = strtoul(end + 1, &end, 10);
	if (*end != '/')
		return MATCH_OK;
	*ret_minor = minor > 9999 ? 9999 : (unsigned)minor;
	if (major < 1 || (major == 1 && minor < API_MINOR_MIN))
		return MATCH_OLD;
	if (major > 1 || minor > API_MINOR_MAX)
		return MATCH_NEW;
	*path = end;
	return MATCH_OK;
}

static bool take(struct match *m, const char *name, size_t name_len, const char *value, size_t n)
{
	if (m->n_params == MATCH_PARAMS || n == 0 || m->text_len + n + 1 > MATCH_TEXT)
		return false;
	m->params[m->n_params].name = name;
	m->params[m->n_params].name_len = (uint16_t)name_len;
	m->params[m->n_params++].value = m->text_len;
	memcpy(m->text + m->text_len, value, n);
	m->text[m->text_len + n] = 0;
	m->text_len = (uint16_t)(m->text_len + n + 1);
	return true;
}

static bool match_rest(const char *pattern, const char *path, struct match *m)
{
	while (*pattern && *pattern != '{') {
		if (*pattern++ != *path++)
			return false;
	}
	if (!*pattern)
		return !*path;
	const char *close = strchr(pattern, '}'), *name = pattern + 1;
	size_t name_len = (size_t)(close - name);
	bool greedy = name_len > 3 && strncmp(close - 3, "...", 3) == 0;
	if (greedy)
		name_len -= 3;
	size_t n = greedy ? strlen(path) : strcspn(path, "/");
	struct match saved = *m;
	for (;; n--) {
		if (take(m, name, name_len, path, n) && match_rest(close + 1, path + n, m))
			return true;
		*m = saved;
		if (!greedy || n <= 1)
			return false;
	}
}

bool match_pattern(const char *pattern, const char *path, struct match *m)
{
	return match_rest(pattern, path, m);
}
