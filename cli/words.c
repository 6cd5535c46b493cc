/* Splitting what users write in one argument: command lines and comma-separated fields. */
#include <ctype.h>
#include <string.h>

#include "base/buf.h"
#include "cli/spec.h"

int words_split(const char *s, json_t **ret, struct err *e)
{
	json_t *l = json_array();
	CLEANUP_BUF struct buf word = BUF_INIT;
	bool in_word = false;
	char quote = 0;
	for (; *s || in_word; s++) {
		if (!*s || (!quote && isspace((unsigned char)*s))) {
			if (quote)
				break;
			if (in_word)
				json_array_append_new(l, json_stringn(word.data ? word.data : "", word.len));
			buf_reset(&word);
			in_word = false;
			if (!*s)
				break;
			continue;
		}
		in_word = true;
		if (quote ? *s == quote : *s == '"' || *s == '\'') {
			quote = quote ? 0 : *s;
			continue;
		}
		if (*s == '\\' && quote != '\'' && s[1] && (!quote || strchr("\"\\$`", s[1])))
			s++;
		buf_putc(&word, *s);
	}
	if (quote) {
		json_decref(l);
		return err_set(e, ERR_INVALID, "a quote (%c) without its end", quote);
	}
	*ret = l;
	return 0;
}

int words_csv(const char *s, struct strlist *ret, struct err *e)
{
	CLEANUP_BUF struct buf field = BUF_INIT;
	bool quoted = false;
	for (;; s++) {
		if (*s == '"') {
			if (quoted && s[1] == '"')
				buf_putc(&field, *++s);
			else
				quoted = !quoted;
			continue;
		}
		if (!*s || (*s == ',' && !quoted)) {
			if (!*s && quoted)
				return err_set(e, ERR_INVALID, "a quote without its end");
			strlist_add(ret, field.data ? field.data : "");
			buf_reset(&field);
			if (!*s)
				return 0;
			continue;
		}
		buf_putc(&field, *s);
	}
}
