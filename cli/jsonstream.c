/* Objects end with a newline; one may come in pieces, and several at once. Layers of an image have a line
 * each: on a terminal it is overwritten, elsewhere a line is printed when its status (not its bar) changes.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/api.h"
#include "cli/jsonstream.h"

#define MAX_OBJECT (4u << 20)
#define MAX_LINES  500

static void show_on_line(struct jsonstream *s, const char *id, const char *text, const char *bar)
{
	size_t at = 0;
	while (at < s->ids.n && !str_eq(s->ids.v[at], id))
		at++;
	if (at == s->ids.n) {
		strlist_add(&s->ids, id);
		printf("%s: %s %s\033[K\n", id, text, bar);
		return;
	}
	size_t up = s->ids.n - at;
	printf("\033[%zuA\r%s: %s %s\033[K\033[%zuB\r", up, id, text, bar, up);
}

static void show(struct jsonstream *s, json_t *o)
{
	const char *id = jstr(o, "id"), *status = jstr(o, "status"), *stream = jstr(o, "stream"),
		   *bar = jstr(o, "progress");
	if (s->quiet)
		return;
	if (*stream)
		fputs(stream, stdout);
	else if (*id && s->tty && json_object_get(o, "progressDetail") && s->ids.n < MAX_LINES)
		show_on_line(s, id, status, bar);
	else if (*id && !*bar)
		printf("%s: %s\n", id, status);
	else if (*status && !*id)
		puts(status);
	fflush(stdout);
}

static int take(struct jsonstream *s, const char *p, size_t n, struct err *e)
{
	json_error_t je;
	json_t *o = json_loadb(p, n, 0, &je);
	if (!o)
		return err_set(e, ERR_IO, "the daemon's progress is not JSON: %s", je.text);
	int r = 0;
	const char *error = str_or(jstr(o, "errorDetail.message"), jstr(o, "error"));
	if (*error)
		r = err_set(e, ERR_INTERNAL, "%s", error);
	else if (s->object)
		r = s->object(s->data, o, e);
	else
		show(s, o);
	json_decref(o);
	return r;
}

int jsonstream_feed(void *stream, const char *p, size_t n, struct err *e)
{
	struct jsonstream *s = stream;
	buf_append(&s->pending, p, n);
	size_t used = 0;
	int r = 0;
	while (r == 0) {
		const char *from = s->pending.data + used, *end = memchr(from, '\n', s->pending.len - used);
		if (!end)
			break;
		if (strspn(from, " \t\r") < (size_t)(end - from))
			r = take(s, from, (size_t)(end - from), e);
		used = (size_t)(end - s->pending.data) + 1;
	}
	buf_consume(&s->pending, used);
	if (r == 0 && s->pending.len > MAX_OBJECT)
		r = err_set(e, ERR_TOO_LARGE, "the daemon's progress has a line without end");
	return r;
}

void jsonstream_done(struct jsonstream *s)
{
	buf_done(&s->pending);
	strlist_done(&s->ids);
}
