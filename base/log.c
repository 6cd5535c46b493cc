/* The daemon's log. A line is built in one buffer and leaves in one write(2), so that lines of
 * different threads do not mix; control characters are escaped, so that a message which quotes a peer
 * cannot forge a line. What cannot be written is lost: there is nobody to tell. */
#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/str.h"

#define LINE_MAX_BYTES 4096

static _Atomic int current_level = LOG_LEVEL_INFO;

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

int log_level_parse(const char *s, enum log_level *ret_level, struct err *e)
{
	for (int i = LOG_LEVEL_DEBUG; i <= LOG_LEVEL_ERROR; i++) {
		if (str_ieq(s, level_names[i])) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	/* Nothing of ours is logged at "fatal": what is fatal ends the process with its own line. */
	if (str_ieq(s, "fatal")) {
		*ret_level = LOG_LEVEL_OFF;
		return 0;
	}
	return err_set(
	    e, ERR_INVALID, "unknown log level \"%s\": use debug, info, warn, error or fatal", s ? s : "");
}

static size_t put_escaped(char *out, size_t cap, const char *s)
{
	size_t n = 0;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		bool plain = c >= 0x20 && c != 0x7f;
		size_t need = plain ? 1 : 4;
		if (n + need > cap)
			break;
		if (plain)
			out[n++] = (char)c;
		else if (c == '\n' || c == '\t') {
			out[n++] = '\\';
			out[n++] = c == '\n' ? 'n' : 't';
		} else {
			static const char hex[] = "0123456789abcdef";
			out[n++] = '\\';
			out[n++] = 'x';
			out[n++] = hex[c >> 4];
			out[n++] = hex[c & 15];
		}
	}
	return n;
}

static void write_line(const char *level, const char *text)
{
	char line[LINE_MAX_BYTES];
	char when[40];
	int64_t now = clock_unix_ns(clock_system());
	str_format_time_fixed(now - now % NS_PER_MSEC, when);
	/* Milliseconds are enough: "2026-01-02T03:04:05.678Z". */
	int n = snprintf(line, sizeof(line), "%.23sZ %-5s ", when, level);
	size_t len = (size_t)n;
	len += put_escaped(line + len, sizeof(line) - len - 1, text);
	line[len++] = '\n';
	ssize_t r = write(STDERR_FILENO, line, len);
	(void)r;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	if (level < log_get_level() || level >= LOG_LEVEL_OFF)
		return;
	char text[LINE_MAX_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	write_line(level_names[level], text);
}

void assert_failed(const char *cond, const char *file, int line)
{
	char text[512];
	snprintf(text, sizeof(text), "assertion failed: %s at=%s:%d", cond, file, line);
	write_line("fatal", text);
	abort();
}
