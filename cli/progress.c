/* Progress lines. On a terminal the block of the last round is overwritten: up as many lines, each cleared to
 * its end. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/out.h"
#include "cli/progress.h"

#define BAR      50
#define MAX_TEXT 75

void progress_init(struct progress *p, bool on, bool tty)
{
	*p = (struct progress){.on = on, .tty = tty};
}

void progress_done(struct progress *p)
{
	strlist_done(&p->now);
	strlist_done(&p->before);
	free(p->verify);
}

static void bar(char *out, unsigned step, unsigned steps)
{
	unsigned filled = BAR * step / steps;
	memset(out, ' ', BAR);
	memset(out, '=', filled);
	if (filled)
		out[filled - 1] = '>';
	out[BAR] = 0;
}

void progress_item(struct progress *p, const char *label, const char *text, unsigned step, unsigned steps)
{
	/* Without a terminal, tasks on their way would fill logs: only errors are told. */
	if (!p->tty && (step || !*text))
		return;
	CLEANUP_FREE char *line = xstrdup(text);
	for (char *q = line; *q; q++)
		if (*q == '\n' || *q == '\r')
			*q = ' ';
	CLEANUP_FREE char *cut = out_cut(line, MAX_TEXT);
	if (step) {
		char b[BAR + 1];
		bar(b, step, steps);
		strlist_addf(&p->now, "%s: %-9s [%s] ", label, cut, b);
	} else {
		strlist_addf(&p->now, "%s: %s", label, cut);
	}
}

void progress_total(struct progress *p, size_t done, size_t want, bool job)
{
	strlist_addf(&p->now,
	    job ? "job progress: %zu out of %zu complete" : "overall progress: %zu out of %zu tasks", done,
	    want);
	/* To the top. */
	char *last = p->now.v[p->now.n - 1];
	memmove(p->now.v + 1, p->now.v, (p->now.n - 1) * sizeof(char *));
	p->now.v[0] = last;
}

void progress_verify(struct progress *p, const char *text)
{
	free(p->verify);
	p->verify = xstrdup(text);
}

static void draw_lines(struct progress *p)
{
	for (size_t i = 0; i < p->now.n; i++)
		if (!strlist_has(&p->before, p->now.v[i]))
			puts(p->now.v[i]);
	fflush(stdout);
}

static bool unchanged(const struct progress *p)
{
	bool same = p->drawn && p->now.n == p->before.n;
	for (size_t i = 0; same && i < p->now.n; i++)
		same = str_eq(p->now.v[i], p->before.v[i]);
	return same;
}

static void draw_tty(struct progress *p)
{
	struct winsize w;
	/* A line that wraps would be two for the terminal and one for the cursor's way back. */
	size_t width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 10 ? w.ws_col : 80;
	if (unchanged(p))
		return;
	if (p->drawn)
		printf("\033[%zuA", p->drawn);
	for (size_t i = 0; i < p->now.n; i++) {
		CLEANUP_FREE char *line = out_cut(p->now.v[i], width - 1);
		printf("%s\033[K\n", line);
	}
	if (p->drawn > p->now.n)
		printf("\033[J");
	p->drawn = p->now.n;
	fflush(stdout);
}

void progress_draw(struct progress *p)
{
	if (p->verify)
		strlist_add(&p->now, p->verify);
	if (p->on && p->tty)
		draw_tty(p);
	else if (p->on)
		draw_lines(p);
	strlist_done(&p->before);
	p->before = p->now;
	p->now = (struct strlist)STRLIST_INIT;
}

void progress_note(struct progress *p, const char *text)
{
	progress_end(p);
	if (p->on)
		puts(text);
}

void progress_end(struct progress *p)
{
	p->drawn = 0;
}
