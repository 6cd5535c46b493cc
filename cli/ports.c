/* Published ports. The short form is [PUBLISHED:]TARGET[/PROTOCOL] where both may be ranges of the same
 * length; the long form is comma-separated key=value. An address in front (127.0.0.1:80:80) is refused:
 * services publish on every address. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/ports.h"

struct range {
	uint64_t from, to;
};

static int parse_port(const char *s, uint64_t *ret, struct err *e)
{
	if (str_parse_u64(s, ret, NULL) < 0 || *ret < 1 || *ret > 65535)
		return err_set(e, ERR_INVALID, "\"%s\" is not a port (1 to 65535)", s);
	return 0;
}

static int parse_range(const char *s, struct range *ret, struct err *e)
{
	CLEANUP_STRLIST struct strlist parts = STRLIST_INIT;
	strlist_split(&parts, s, '-');
	int r = parts.n > 2 ? err_set(e, ERR_INVALID, "\"%s\" is not a range of ports", s) : 0;
	if (r < 0 || (r = parse_port(parts.v[0], &ret->from, e)) < 0 ||
	    (r = parse_port(parts.v[parts.n - 1], &ret->to, e)) < 0)
		return r;
	if (ret->to < ret->from)
		return err_set(e, ERR_INVALID, "the range \"%s\" ends before it begins", s);
	return 0;
}

static int check_protocol(const char *s, struct err *e)
{
	if (str_eq(s, "tcp") || str_eq(s, "udp") || str_eq(s, "sctp"))
		return 0;
	return err_set(e, ERR_INVALID, "\"%s\" is not a protocol: tcp, udp or sctp", s);
}

static void add(json_t *list, const char *protocol, uint64_t target, uint64_t published, const char *mode)
{
	json_t *p = json_pack(
	    "{s:s, s:I, s:s}", "Protocol", protocol, "TargetPort", (json_int_t)target, "PublishMode", mode);
	if (published)
		json_object_set_new(p, "PublishedPort", json_integer((json_int_t)published));
	json_array_append_new(list, p);
}

static int parse_short(const char *s, json_t *list, struct err *e)
{
	CLEANUP_STRLIST struct strlist parts = STRLIST_INIT;
	const char *slash = strchr(s, '/');
	const char *protocol = slash ? slash + 1 : "tcp";
	CLEANUP_FREE char *ports = slash ? xstrndup(s, (size_t)(slash - s)) : xstrdup(s);
	int r = check_protocol(protocol, e);
	if (r < 0)
		return r;
	strlist_split(&parts, ports, ':');
	if (parts.n > 2)
		return err_set(e, ERR_INVALID,
		    "services publish on all addresses of a node: write PUBLISHED:TARGET without an address");
	struct range published = {0, 0}, target;
	if ((r = parse_range(parts.v[parts.n - 1], &target, e)) < 0)
		return r;
	if (parts.n == 2 && *parts.v[0]) {
		if ((r = parse_range(parts.v[0], &published, e)) < 0)
			return r;
		if (published.to - published.from != target.to - target.from)
			return err_set(e, ERR_INVALID, "the two ranges differ in length");
	}
	for (uint64_t i = 0; i <= target.to - target.from; i++)
		add(list, protocol, target.from + i, published.from ? published.from + i : 0, "ingress");
	return 0;
}

static int parse_long(const char *s, json_t *list, struct err *e)
{
	CLEANUP_STRLIST struct strlist fields = STRLIST_INIT;
	uint64_t target = 0, published = 0;
	const char *protocol = "tcp", *mode = "ingress";
	strlist_split(&fields, s, ',');
	for (size_t i = 0; i < fields.n; i++) {
		char *value = strchr(fields.v[i], '=');
		int r = 0;
		if (!value)
			return err_set(e, ERR_INVALID, "\"%s\" is not of the form key=value", fields.v[i]);
		*value++ = 0;
		if (str_eq(fields.v[i], "target"))
			r = parse_port(value, &target, e);
		else if (str_eq(fields.v[i], "published"))
			r = parse_port(value, &published, e);
		else if (str_eq(fields.v[i], "protocol"))
			r = check_protocol(protocol = value, e);
		else if (!str_eq(fields.v[i], "mode"))
			r = err_set(e, ERR_INVALID, "\"%s\" is none of target, published, protocol, mode",
			    fields.v[i]);
		else if (!str_eq(mode = value, "ingress") && !str_eq(mode, "host"))
			r = err_set(e, ERR_INVALID, "the mode is ingress or host, not \"%s\"", value);
		if (r < 0)
			return r;
	}
	if (!target)
		return err_set(e, ERR_INVALID, "target=PORT is missing");
	add(list, protocol, target, published, mode);
	return 0;
}

int ports_parse(const char *s, json_t *list, struct err *e)
{
	int r = strchr(s, '=') ? parse_long(s, list, e) : parse_short(s, list, e);
	return r < 0 ? err_wrap(e, "port \"%s\"", s) : 0;
}

int ports_remove(json_t *list, const char *s, struct err *e)
{
	json_t *wanted = json_array();
	int r = ports_parse(s, wanted, e);
	bool any = false;
	size_t i;
	json_t *w;
	json_array_foreach(wanted, i, w) for (size_t k = json_array_size(list); k-- > 0;)
	{
		const json_t *p = json_array_get(list, k);
		bool same = jint(p, "TargetPort") == jint(w, "TargetPort") &&
			    str_eq(str_or(jstr(p, "Protocol"), "tcp"), jstr(w, "Protocol"));
		if (jint(w, "PublishedPort"))
			same &= jint(p, "PublishedPort") == jint(w, "PublishedPort");
		if (same) {
			json_array_remove(list, k);
			any = true;
		}
	}
	json_decref(wanted);
	if (r == 0 && !any)
		r = err_set(e, ERR_NOT_FOUND, "no published port fits \"%s\"", s);
	return r;
}

/* --- lists --------------------------------------------------------------------------------------- */

static int by_port(const void *pa, const void *pb)
{
	const json_t *a = *(json_t *const *)pa, *b = *(json_t *const *)pb;
	int d = strcmp(str_or(jstr(a, "Protocol"), "tcp"), str_or(jstr(b, "Protocol"), "tcp"));
	if (d)
		return d;
	int64_t x = jint(a, "PublishedPort"), y = jint(b, "PublishedPort");
	return x < y ? -1 : x > y;
}

static void put_range(struct buf *b, int64_t from, int64_t to)
{
	buf_printf(b, from == to ? "%lld" : "%lld-%lld", (long long)from, (long long)to);
}

char *ports_list(const json_t *ports, const char *mode)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	size_t n = 0;
	CLEANUP_FREE json_t **v = xcalloc(json_array_size(ports) + 1, sizeof(*v));
	for (size_t i = 0; i < json_array_size(ports); i++) {
		json_t *p = json_array_get(ports, i);
		if (str_eq(str_or(jstr(p, "PublishMode"), "ingress"), mode))
			v[n++] = p;
	}
	qsort(v, n, sizeof(*v), by_port);
	for (size_t i = 0; i < n;) {
		int64_t published = jint(v[i], "PublishedPort"), target = jint(v[i], "TargetPort");
		const char *protocol = str_or(jstr(v[i], "Protocol"), "tcp");
		size_t k = 1;
		/* The same port twice is once per address family. */
		int64_t run = 1;
		for (; i + k < n && str_eq(str_or(jstr(v[i + k], "Protocol"), "tcp"), protocol); k++) {
			int64_t p = jint(v[i + k], "PublishedPort") - published,
				t = jint(v[i + k], "TargetPort") - target;
			if (p == run - 1 && t == run - 1)
				continue;
			if (p != run || t != run)
				break;
			run++;
		}
		buf_puts(&b, b.len ? ", *:" : "*:");
		put_range(&b, published, published + run - 1);
		buf_puts(&b, "->");
		put_range(&b, target, target + run - 1);
		buf_printf(&b, "/%s", protocol);
		i += k;
	}
	return buf_take(&b, NULL);
}

char *ports_of_container(const json_t *ports)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	size_t i;
	json_t *p;
	json_array_foreach(ports, i, p)
	{
		if (b.len)
			buf_puts(&b, ", ");
		if (jint(p, "PublicPort"))
			buf_printf(&b, strchr(jstr(p, "IP"), ':') ? "[%s]:%lld->" : "%s:%lld->",
			    str_or(jstr(p, "IP"), "0.0.0.0"), (long long)jint(p, "PublicPort"));
		buf_printf(&b, "%lld/%s", (long long)jint(p, "PrivatePort"), jstr(p, "Type"));
	}
	return buf_take(&b, NULL);
}
