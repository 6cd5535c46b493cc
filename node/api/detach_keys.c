/* Detach keys: parsing, and matching over pieces of input. Pure. */
#include "node/api/detach_keys.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static int parse_key(const char *s, uint8_t *ret)
{
	static const char marks[] = "@[\\]^_";
	if (s[0] && !s[1]) {
		*ret = (uint8_t)s[0];
		return 0;
	}
	if (!str_has_prefix(s, "ctrl-") || !s[5] || s[6])
		return ERR_INVALID;
	char k = s[5];
	if (k >= 'a' && k <= 'z') {
		*ret = (uint8_t)(k - 'a' + 1);
		return 0;
	}
	const char *at = strchr(marks, k);
	if (!at)
		return ERR_INVALID;
	*ret = k == '@' ? 0 : (uint8_t)(26 + (at - marks));
	return 0;
}

int detach_keys_parse(const char *s, struct detach_keys *ret, struct err *e)
{
	CLEANUP_STRLIST struct strlist words = STRLIST_INIT;
	struct detach_keys d = {.n = 0};
	strlist_split(&words, str_or(s, "ctrl-p,ctrl-q"), ',');
	if (words.n > DETACH_KEYS_MAX)
		return err_set(e, ERR_INVALID, "detach keys \"%s\": more than %d", s, DETACH_KEYS_MAX);
	for (size_t i = 0; i < words.n; i++)
		if (parse_key(words.v[i], &d.keys[d.n++]) != 0)
			return err_set(e, ERR_INVALID,
			    "Invalid detach keys (%s): \"%s\" is neither one character nor ctrl- and a "
			    "letter or one of @[\\]^_",
			    str_or(s, ""), words.v[i]);
	*ret = d;
	return 0;
}

bool detach_keys_feed(struct detach_keys *d, const uint8_t *p, size_t n, struct buf *out)
{
	for (size_t i = 0; i < n; i++) {
		/* What is held back and this key: as much of its end as the sequence begins with stays held.
		 */
		uint8_t held[DETACH_KEYS_MAX + 1];
		size_t len = d->matched + 1, pass = 0;
		memcpy(held, d->keys, d->matched);
		held[d->matched] = p[i];
		while (pass < len && memcmp(held + pass, d->keys, len - pass) != 0)
			pass++;
		buf_append(out, held, pass);
		d->matched = len - pass;
		if (d->matched == d->n) {
			d->matched = 0;
			return true;
		}
	}
	return false;
}
