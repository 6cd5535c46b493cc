/* The template engine: what Go's text/template would print, errors that name what is wrong, and the bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "proto/gotmpl.h"

static const char data[] =
    "{\"Name\":\"web\",\"N\":3,\"Neg\":-2,\"Pi\":3.25,\"Big\":1e21,\"T\":true,\"F\":false,\"Nil\":null,"
    "\"Empty\":\"\","
    "\"L\":[\"a\",\"b\",\"c\"],\"None\":[],\"M\":{\"k\":\"v\",\"a\":\"b\"},\"Deep\":{\"A\":{\"B\":\"leaf\"}},"
    "\"Objs\":[{\"X\":1},{\"X\":2}],\"com.example/key\":\"dots\",\"Uml\":\"\xc3\xa4\xc3\xb6\xc3\xbc\"}";

static int expand(const char *text, const struct gotmpl_opts *o, char **ret, struct err *e)
{
	struct buf b = BUF_INIT;
	json_t *v = json_loads(data, 0, NULL);
	int r = gotmpl_expand(text, o, v, &b, e);
	json_decref(v);
	*ret = buf_take(&b, NULL);
	return r;
}

static void check(const char *text, const char *want)
{
	struct err e = ERR_INIT;
	char *got;
	if (expand(text, NULL, &got, &e) < 0)
		fail_msg("%s: %s", text, e.text);
	if (strcmp(got, want) != 0)
		fail_msg("%s: \"%s\", not \"%s\"", text, got, want);
	free(got);
}

static void check_error(const char *text, const char *part)
{
	struct err e = ERR_INIT;
	char *got;
	if (expand(text, NULL, &got, &e) == 0)
		fail_msg("%s: no error, but \"%s\"", text, got);
	if (!strstr(e.text, part))
		fail_msg("%s: \"%s\" has no \"%s\"", text, e.text, part);
	assert_string_equal(got, ""); /* nothing half done */
	free(got);
}

static void test_values(void **state)
{
	(void)state;
	check("plain", "plain");
	check("", "");
	check("{{.Name}}", "web");
	check("a{{ .Name }}b", "awebb");
	check("{{.N}} {{.Neg}} {{.Pi}} {{.Big}}", "3 -2 3.25 1e+21");
	check("{{.T}} {{.F}}", "true false");
	check("{{.Nil}}|{{.Missing}}|{{.Missing.More}}", "<no value>|<no value>|<no value>");
	check("{{.L}} {{.M}} {{.Objs}}", "[a b c] map[a:b k:v] [map[X:1] map[X:2]]");
	check("{{.Deep.A.B}}", "leaf");
	check("{{(index .M \"k\")}} {{index . \"com.example/key\"}}", "v dots");
	check("{{(index .Objs 1).X}}", "2");
	check("{{.M.k}} {{$.Name}}", "v web");
	check("{{\"q\\\"\\n\\u00e4\"}} {{`raw\\n`}} {{'a'}} {{12}} {{0x10}} {{1.5}} {{true}} {{nil}}",
	    "q\"\n\xc3\xa4 raw\\n 97 12 16 1.5 true <no value>");
}

static void test_trim_and_comments(void **state)
{
	(void)state;
	check("a  {{- .Name -}}  b", "awebb");
	check("a {{/* nothing */}} b", "a  b");
	check("a {{- /* nothing */ -}} b", "ab");
	check("{{/* a {{ in it */}}x", "x");
	check("\n{{- if .T -}}\n x \n{{- end -}}\n", "x");
	check("{{-3}}", "-3");
}

static void test_branches(void **state)
{
	(void)state;
	check("{{if .T}}y{{else}}n{{end}}{{if .F}}y{{else}}n{{end}}", "yn");
	check("{{if .Empty}}a{{else if .None}}b{{else if .N}}c{{else}}d{{end}}", "c");
	check("{{if .Missing}}y{{end}}{{if not .Missing}}n{{end}}", "n");
	check(
	    "{{with .Deep.A}}{{.B}} {{$.Name}}{{end}}{{with .Missing}}x{{else}}none{{end}}", "leaf webnone");
	check("{{with .Missing}}x{{else with .M}}{{.k}}{{end}}", "v");
	check("{{with $x := .Name}}{{$x}}{{.}}{{end}}", "webweb");
}

static void test_range(void **state)
{
	(void)state;
	check("{{range .L}}{{.}},{{end}}", "a,b,c,");
	check("{{range $i, $x := .L}}{{$i}}={{$x}} {{end}}", "0=a 1=b 2=c ");
	check("{{range $x := .L}}{{$x}}{{end}}", "abc");
	check("{{range $k, $v := .M}}{{$k}}{{$v}};{{end}}", "ab;kv;");
	check("{{range .None}}x{{else}}empty{{end}}{{range .Missing}}x{{else}}empty{{end}}", "emptyempty");
	check("{{range 3}}{{.}}{{end}}", "012");
	check("{{range .L}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}", "ac");
	check("{{range .L}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a");
	check("{{range .Objs}}{{range $.L}}{{.}}{{break}}{{end}}{{.X}}{{end}}", "a1a2");
	check("{{$n := 0}}{{range .Objs}}{{$n = .X}}{{end}}{{$n}}", "2");
}

static void test_functions(void **state)
{
	(void)state;
	check("{{.Name | upper | printf \"%s!\"}}", "WEB!");
	check("{{len .L}} {{len .Name}} {{len .M}}", "3 3 2");
	check("{{index .L 1}} {{slice .L 1}} {{slice .Name 1 2}}", "b [b c] e");
	check("{{eq .Name \"web\"}} {{eq .N 1 2 3}} {{ne .N 3}} {{lt .Neg .N}} {{le 3 3}} {{gt 2.5 2}} {{ge "
	      "\"b\" \"a\"}}",
	    "true true false true true true true");
	check("{{and .T .Name}} {{and .F .Name}} {{or .F .Name}} {{or .F .Empty}} {{not .F}}",
	    "web false web  true");
	check("{{and .F (index .L 99)}}", "false"); /* not evaluated */
	check("{{join .L \"-\"}} {{.L | join \"+\"}} {{split \"a,b\" \",\"}} {{(split .Name \"e\")}}",
	    "a-b-c a+b+c [a b] [w b]");
	check("{{upper .Name}} {{lower \"AB\"}} {{title \"ab cd\"}} [{{pad .Name 1 2}}] {{truncate .Uml 2}}",
	    "WEB ab Ab Cd [ web  ] \xc3\xa4\xc3\xb6");
	check("{{json .M}} {{json .L}} {{json .Missing}} {{json .Name}}",
	    "{\"k\":\"v\",\"a\":\"b\"} [\"a\",\"b\",\"c\"] null \"web\"");
	check("{{print .N .Pi \"x\"}} {{println .N \"x\"}}", "3 3.25x 3 x\n");
	check("{{.M \"k\"}}", "v"); /* a method with an argument */
}

static void test_printf(void **state)
{
	(void)state;
	check("{{printf \"%d|%5d|%-5d|%05d|%x|%#x|%b\" .N .N .N .Neg 255 255 5}}",
	    "3|    3|3    |-0002|ff|0xff|101");
	check("{{printf \"%s|%5s|%-5s|%.2s|%q|%x\" .Name .Name .Name .Name \"a\\\"b\" \"hi\"}}",
	    "web|  web|web  |we|\"a\\\"b\"|6869");
	check("{{printf \"%v %v %v %v\" .L .M .T .Nil}}", "[a b c] map[a:b k:v] true <nil>");
	check("{{printf \"%.2f %g %e %t %%\" .Pi .Pi .Pi .T}}", "3.25 3.25 3.250000e+00 true %");
	check("{{printf \"%d %s\" .Name}}", "%!d(string=web) %!s(MISSING)");
	check("{{printf \"%3c|\" 65}}{{printf \"%\"}}", "  A|%!(NOVERB)");
	check("{{printf \"%5s|\" .Uml}}", "  \xc3\xa4\xc3\xb6\xc3\xbc|");
}

static void test_templates(void **state)
{
	(void)state;
	check("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .Name}}{{template \"t\" 1}}", "<web><1>");
	check("{{template \"t\" .}}{{define \"t\"}}{{$.Name}}{{end}}", "web");
	check("{{block \"b\" .L}}{{len .}}{{end}}", "3");
}

static void test_errors(void **state)
{
	(void)state;
	check_error("{{", "line 1: unclosed action");
	check_error("a\n{{.X", "line 2: unclosed action");
	check_error("{{if .T}}x", "missing {{end}}");
	check_error("x{{end}}", "end without its beginning");
	check_error("{{else}}", "else without its beginning");
	check_error("{{nope .X}}", "function \"nope\" is not defined");
	check_error("{{.Name.X}}", "no field .X in a string");
	check_error("{{\"open}}", "a string without its end");
	check_error("{{.L | .Name | 3}}", "no function");
	check_error("{{1 2}}", "no function");
	check_error("{{$x}}", "undefined variable \"$x\"");
	check_error("{{index .L 9}}", "out of range");
	check_error("{{eq .Name 3}}", "incompatible types");
	check_error("{{lt .T .F}}", "incompatible types");
	check_error("{{break}}", "break outside of a range");
	check_error("{{if .T}}{{define \"x\"}}{{end}}{{end}}", "define inside");
	check_error("{{template \"gone\"}}", "not defined");
	check_error("{{(.Name}}", "missing )");
	check_error("{{.Name)}}", "unexpected");
	check_error("{{/* x}}", "comment without its end");
	check_error("{{99999999999999999999x}}", "not a number");
	check_error("{{'ab'}}", "not one character");
	check_error("{{range .Name}}{{end}}", "range over");
}

static void test_missing(void **state)
{
	(void)state;
	struct gotmpl_opts strict = {.missing_is_error = true}, any_case = {.ignore_case = true};
	struct err e = ERR_INIT;
	char *got;
	assert_int_equal(expand("{{.Deep.X}}", &strict, &got, &e), ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "there is no field .X; there are: A"));
	free(got);
	assert_int_equal(expand("{{.Nil.X}}", &strict, &got, &e), ERR_NOT_FOUND);
	free(got);
	assert_int_equal(expand("{{.name}} {{.deep.a.b}}", &any_case, &got, &e), 0);
	assert_string_equal(got, "web leaf");
	free(got);
}

static int call_twice(void *user, json_t *const *args, size_t n, json_t **ret, struct err *e)
{
	assert_string_equal(user, "me");
	if (n != 1 || !json_is_string(args[0]))
		return err_set(e, ERR_INVALID, "wants one string");
	*ret = json_sprintf("%s%s", json_string_value(args[0]), json_string_value(args[0]));
	return 0;
}

static void test_custom_functions(void **state)
{
	(void)state;
	static const struct gotmpl_func funcs[] = {{"twice", call_twice}, {0}};
	static char me[] = "me";
	struct gotmpl_opts o = {.funcs = funcs, .data = me};
	struct err e = ERR_INIT;
	char *got;
	assert_int_equal(expand("{{twice .Name | upper}}", &o, &got, &e), 0);
	assert_string_equal(got, "WEBWEB");
	free(got);
	assert_int_equal(expand("{{twice 3}}", &o, &got, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, "twice: wants one string"));
	free(got);
}

static void test_bounds(void **state)
{
	(void)state;
	struct gotmpl_opts small = {.max_output = 10};
	struct err e = ERR_INIT;
	char *got;
	assert_int_equal(expand("{{range 1000}}xx{{end}}", &small, &got, &e), ERR_TOO_LARGE);
	free(got);
	assert_int_equal(
	    expand("{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}", NULL, &got, &e),
	    ERR_TOO_LARGE);
	assert_non_null(strstr(e.text, "does too much"));
	free(got);
	assert_int_equal(
	    expand("{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}", NULL, &got, &e),
	    ERR_TOO_LARGE);
	free(got);
	struct buf deep = BUF_INIT;
	for (int i = 0; i < 5000; i++)
		buf_puts(&deep, "{{if .T}}");
	assert_int_equal(expand(deep.data, NULL, &got, &e), ERR_INVALID);
	free(got);
	buf_reset(&deep);
	buf_puts(&deep, "{{");
	for (int i = 0; i < 5000; i++)
		buf_putc(&deep, '(');
	assert_int_equal(expand(deep.data, NULL, &got, &e), ERR_INVALID);
	free(got);
	buf_reset(&deep);
	buf_puts(&deep, "{{.A");
	for (int i = 0; i < 5000; i++)
		buf_puts(&deep, ".A");
	buf_puts(&deep, "}}");
	assert_int_equal(expand(deep.data, NULL, &got, &e), ERR_INVALID);
	free(got);
	buf_done(&deep);
	/* Text that doubles with each step. */
	assert_int_equal(
	    expand("{{$x := \"aaaaaaaaaaaaaaaa\"}}{{range 40}}{{$x = print $x $x}}{{end}}", NULL, &got, &e),
	    ERR_TOO_LARGE);
	free(got);
	assert_int_equal(expand("{{printf \"%999999999d\" 1}}", NULL, &got, &e), 0);
	assert_int_equal(strlen(got), 1024);
	free(got);
}

/* Every beginning of a template either parses or is an error, and nothing leaks (ASan). */
static void test_truncation(void **state)
{
	(void)state;
	static const char text[] =
	    "{{- range $i, $x := .L -}}{{if and (eq $i 1) .T}}{{$x | printf \"%s\" | upper}}{{else if .F}}"
	    "{{template \"t\" index .M \"k\"}}{{else}}{{break}}{{end}}{{end}}{{define \"t\"}}{{/* c "
	    "*/}}{{end}}";
	for (size_t n = 0; n <= strlen(text); n++) {
		struct gotmpl *t;
		char *cut = xmemdup(text, n ? n : 1); /* exactly n bytes, without a zero behind */
		if (gotmpl_parse(cut, n, NULL, &t, NULL) == 0)
			gotmpl_free(t);
		free(cut);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_values),
	    cmocka_unit_test(test_trim_and_comments),
	    cmocka_unit_test(test_branches),
	    cmocka_unit_test(test_range),
	    cmocka_unit_test(test_functions),
	    cmocka_unit_test(test_printf),
	    cmocka_unit_test(test_templates),
	    cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_missing),
	    cmocka_unit_test(test_custom_functions),
	    cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_truncation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
