/* Templates from users: any text parses or is refused, and what parses runs within its bounds. The input is a
 * template, then optionally a zero byte and JSON to run it on. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/gotmpl.h"

#define MAX_OUTPUT 65536

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const char standard[] =
    "{\"Service\":{\"Name\":\"web\",\"Labels\":{\"a\":\"b\"}},\"Node\":{\"Hostname\":\"n1\"},"
    "\"Task\":{\"Slot\":2},\"L\":[1,2.5,\"x\",null,true,{\"k\":[]}]}";

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const uint8_t *zero = memchr(p, 0, n);
	size_t len = zero ? (size_t)(zero - p) : n;
	char *text = xmemdup(p, len ? len : 1);
	struct gotmpl_opts opts = {
	    .missing_is_error = n % 2, .ignore_case = n % 3 == 0, .max_output = MAX_OUTPUT};
	struct gotmpl *t;
	struct err e = ERR_INIT;
	if (gotmpl_parse(text, len, &opts, &t, &e) == 0) {
		json_t *v =
		    zero ? json_loadb((const char *)zero + 1, n - len - 1, JSON_DECODE_ANY, NULL) : NULL;
		if (!v)
			v = json_loads(standard, 0, NULL);
		struct buf out = BUF_INIT;
		int r = gotmpl_exec(t, &opts, v, &out, &e);
		ASSERT(r == 0 ? out.len <= MAX_OUTPUT : out.len == 0);
		buf_done(&out);
		json_decref(v);
		gotmpl_free(t);
	} else {
		ASSERT(e.code < 0 && *e.text);
	}
	free(text);
	return 0;
}
