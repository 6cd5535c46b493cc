/* The daemon's log: one line an event on stderr, "time level message key=value ...".
 * Only code that ends an error's way logs it. Never pass secrets, tokens or keys. Thread-safe. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR, LOG_LEVEL_OFF };

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "debug" | "info" | "warn" | "error" | "fatal"; ERR_INVALID names what is allowed. */
int log_level_parse(const char *s, enum log_level *ret_level, struct err *e);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...)                                                                                       \
	do {                                                                                                 \
		if (log_get_level() <= LOG_LEVEL_DEBUG)                                                      \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                             \
	} while (0)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

/* An assertion for our own bugs, kept in release builds. */
#define ASSERT(cond)                                                                                         \
	do {                                                                                                 \
		if (__builtin_expect(!(cond), 0))                                                            \
			assert_failed(#cond, __FILE__, __LINE__);                                            \
	} while (0)
_Noreturn void assert_failed(const char *cond, const char *file, int line);

#endif
