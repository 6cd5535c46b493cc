/* A block of progress lines: redrawn in place on a terminal; elsewhere each line is printed when it has
 * changed. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

struct progress {
	bool on, tty;
	size_t drawn;               /* lines on the terminal that the next draw replaces */
	struct strlist now, before; /* lines of this round and of the last */
	char *verify;               /* the last line, or NULL */
};

void progress_init(struct progress *p, bool on, bool tty);
void progress_done(struct progress *p);
/* First of a round: "overall progress: 2 out of 3 tasks". */
void progress_total(struct progress *p, size_t done, size_t want, bool job);
/* "1/3: running  [====>   ]": step of steps; step 0 has no bar. Called before or after progress_total. */
void progress_item(struct progress *p, const char *label, const char *text, unsigned step, unsigned steps);
/* Sets the last line. */
void progress_verify(struct progress *p, const char *text);
/* Prints what the round brought. */
void progress_draw(struct progress *p);
/* A line that stays, above. */
void progress_note(struct progress *p, const char *text);
/* What is drawn stays as it is. */
void progress_end(struct progress *p);

#endif
