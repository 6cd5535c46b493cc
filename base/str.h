/* Strings: comparing, splitting, parsing. All parse functions are strict: the whole string must fit. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

bool str_eq(const char *a, const char *b);  /* NULL equals NULL only */
bool str_ieq(const char *a, const char *b); /* ASCII case-insensitive */
bool str_empty(const char *s);              /* NULL or "" */
bool str_has_prefix(const char *s, const char *prefix);
bool str_has_suffix(const char *s, const char *suffix);
bool str_has_iprefix(const char *s, const char *prefix);
const char *str_or(const char *s, const char *fallback); /* fallback when NULL or "" */

/* Whole-string numbers; ERR_INVALID with the text in the message. */
int str_parse_u64(const char *s, uint64_t *ret_v, struct err *e);
int str_parse_i64(const char *s, int64_t *ret_v, struct err *e);
/* "64m", "1g", "512k", "100", "1GiB" -> bytes, binary units (docker's RAMInBytes). */
int str_parse_size(const char *s, int64_t *ret_bytes, struct err *e);
/* Go durations: "1h2m3.5s", "100ms", "-5s", "0" -> nanoseconds. */
int str_parse_duration(const char *s, int64_t *ret_ns, struct err *e);
/* Prints a duration as Go does ("1h0m0s", "10s", "1.5s", "100ms"). Static length bound: 40. */
void str_format_duration(int64_t ns, char *out, size_t cap);

/* RFC 3339 with up to nine fractional digits, UTC. parse takes offsets too. */
void str_format_time(
    int64_t unix_ns, char out[40]); /* "2026-01-02T03:04:05.678901234Z" trailing zeros cut as Go does */
void str_format_time_fixed(int64_t unix_ns, char out[40]); /* always nine digits */
int str_parse_time(const char *s, int64_t *ret_unix_ns, struct err *e);

/* Hex and base64 (strict decode; URL-safe alphabet accepted by the _url form, padding optional there). */
void str_hex(const void *p, size_t n, char *out); /* 2n characters and NUL */
int str_unhex(const char *s, void *out, size_t cap, size_t *ret_len, struct err *e);
char *str_base64(const void *p, size_t n); /* heap */
int str_unbase64(const char *s, size_t n, uint8_t **ret_p, size_t *ret_len, struct err *e);
int str_unbase64_url(const char *s, size_t n, uint8_t **ret_p, size_t *ret_len, struct err *e);

/* Percent-decoding into heap; '+' becomes a space when `form`. ERR_INVALID on a bad escape or %00. */
int str_url_decode(const char *s, size_t n, bool form, char **ret_s, struct err *e);
char *str_url_encode(const char *s); /* heap; everything but unreserved is escaped */

/* A list of owned strings. */
struct strlist {
	char **v;
	size_t n;
};
#define STRLIST_INIT                                                                                         \
	{                                                                                                    \
		0, 0                                                                                         \
	}
#define CLEANUP_STRLIST __attribute__((cleanup(strlist_done)))
void strlist_add(struct strlist *l, const char *s); /* copies */
void strlist_take(struct strlist *l, char *s);      /* takes */
void strlist_addf(struct strlist *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool strlist_has(const struct strlist *l, const char *s);
void strlist_sort(struct strlist *l);
void strlist_done(struct strlist *l);
/* Appends the parts of s between sep; empty parts included. */
void strlist_split(struct strlist *l, const char *s, char sep);
char *strlist_join(const struct strlist *l, const char *sep); /* heap */
/* A NULL-terminated argv that borrows from the list; free() the array only. */
char **strlist_argv(const struct strlist *l);
/* Natural order: "web.2" before "web.10". For qsort-like use. */
int str_natural_cmp(const char *a, const char *b);

#endif
