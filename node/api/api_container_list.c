/* GET /containers/json: which containers, newest first.
 *
 * All filters are read and checked before the first container is looked at, so an unknown key or a value that
 * makes no sense is a 400 whatever runs here. name and id are regular expressions as in docker, in the part
 * of the language whose matching takes no more than linear time. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/timer.h"
#include "node/api/containers.h"
#include "node/api/resources.h"

#define PATTERN_MAX  256
#define PATTERNS_MAX 64

/* --- reading the filters */

/* Repetition counts and references back can take exponential time: they are left out. */
static int compile(const char *key, const char *s, regex_t *ret, struct err *e)
{
	bool back = false;
	for (const char *p = strchr(s, '\\'); p && p[1]; p = strchr(p + 2, '\\'))
		back |= p[1] >= '1' && p[1] <= '9';
	if (strlen(s) > PATTERN_MAX || strchr(s, '{') || back)
		return err_set(e, ERR_INVALID,
		    "invalid filter '%s=%s': a pattern has up to %d characters, no {} and no references back",
		    key, s, PATTERN_MAX);
	if (regcomp(ret, s, REG_EXTENDED | REG_NOSUB) != 0)
		return err_set(e, ERR_INVALID, "invalid filter '%s=%s': no regular expression", key, s);
	return 0;
}

static int compile_all(
    const struct api_filters *f, const char *key, regex_t **ret, size_t *ret_n, struct err *e)
{
	const struct strlist *v = api_filters_get(f, key);
	if (!v || !v->n)
		return 0;
	if (v->n > PATTERNS_MAX)
		return err_set(e, ERR_INVALID, "filter '%s' has more than %d values", key, PATTERNS_MAX);
	*ret = xcalloc(v->n, sizeof(regex_t));
	for (size_t i = 0; i < v->n; i++) {
		int r = compile(key, v->v[i], &(*ret)[i], e);
		if (r != 0)
			return r;
		(*ret_n)++;
	}
	return 0;
}

static int check_words(const struct api_filters *f, const char *key, const char *const *words, struct err *e)
{
	const struct strlist *v = api_filters_get(f, key);
	for (size_t i = 0; v && i < v->n; i++) {
		const char *const *w = words;
		while (*w && !str_eq(*w, v->v[i]))
			w++;
		if (!*w)
			return err_set(e, ERR_INVALID, "invalid filter '%s=%s'", key, v->v[i]);
	}
	return 0;
}

/* "80", "80/udp", "8000-8010/tcp" */
static bool parse_port(const char *s, unsigned *ret_low, unsigned *ret_high, const char **ret_type)
{
	CLEANUP_FREE char *t = xstrdup(s);
	char *slash = strchr(t, '/'), *dash;
	uint64_t low, high;
	*ret_type = "tcp";
	if (slash) {
		static const char *const types[] = {"tcp", "udp", "sctp"};
		*slash = '\0';
		*ret_type = NULL;
		for (size_t i = 0; i < ARRAY_LEN(types); i++)
			if (str_ieq(slash + 1, types[i]))
				*ret_type = types[i];
	}
	dash = strchr(t, '-');
	if (dash)
		*dash = '\0';
	if (!*ret_type || str_parse_u64(t, &low, NULL) != 0 ||
	    str_parse_u64(dash ? dash + 1 : t, &high, NULL) != 0 || low > high || high > 65535)
		return false;
	*ret_low = (unsigned)low;
	*ret_high = (unsigned)high;
	return true;
}

static int check_ports(const struct api_filters *f, const char *key, struct err *e)
{
	const struct strlist *v = api_filters_get(f, key);
	unsigned low, high;
	const char *type;
	for (size_t i = 0; v && i < v->n; i++)
		if (!parse_port(v->v[i], &low, &high, &type))
			return err_set(e, ERR_INVALID, "invalid filter '%s=%s': not a port", key, v->v[i]);
	return 0;
}

static int check_exited(const struct api_filters *f, struct err *e)
{
	const struct strlist *v = api_filters_get(f, "exited");
	int64_t code;
	for (size_t i = 0; v && i < v->n; i++)
		if (str_parse_i64(v->v[i], &code, NULL) != 0)
			return err_set(e, ERR_INVALID, "invalid filter 'exited=%s': not a number", v->v[i]);
	return 0;
}

/* The container that before or since names. */
static int find_one(struct api_local *l, const struct api_filters *f, const char *key, bool *ret_has,
    int64_t *ret_at, struct err *e)
{
	const struct strlist *v = api_filters_get(f, key);
	const Pb__Container *c;
	for (size_t i = 0; v && i < v->n; i++) {
		int r = engine_find(l->engine, v->v[i], &c, e);
		if (r != 0)
			return r;
		*ret_at = c->created_at;
		*ret_has = true;
	}
	return 0;
}

/* An image that is not here has no containers: no error, as in docker. */
static void find_ancestors(struct api_local *l, struct container_query *q)
{
	const struct strlist *v = api_filters_get(&q->f, "ancestor");
	for (size_t i = 0; v && i < v->n; i++) {
		struct image *image;
		if (images_find(l->images, v->v[i], &image, NULL) != 0)
			continue;
		strlist_add(&q->ancestors, image->id);
		image_unref(image);
	}
}

int container_query_prepare(struct api_local *l, struct container_query *q, struct err *e)
{
	static const char *const states[] = {
	    "created", "restarting", "running", "removing", "paused", "exited", "dead", NULL};
	static const char *const healths[] = {"starting", "healthy", "unhealthy", "none", NULL};
	int r = check_words(&q->f, "status", states, e);
	if (r == 0)
		r = check_words(&q->f, "health", healths, e);
	if (r == 0)
		r = check_exited(&q->f, e);
	if (r == 0)
		r = check_ports(&q->f, "publish", e);
	if (r == 0)
		r = check_ports(&q->f, "expose", e);
	if (r == 0)
		r = compile_all(&q->f, "name", &q->names, &q->n_names, e);
	if (r == 0)
		r = compile_all(&q->f, "id", &q->ids, &q->n_ids, e);
	if (r == 0) {
		q->is_task = api_filters_bool(&q->f, "is-task", e);
		r = q->is_task < -1 ? q->is_task : 0;
	}
	if (r == 0)
		r = find_one(l, &q->f, "before", &q->has_before, &q->before, e);
	if (r == 0)
		r = find_one(l, &q->f, "since", &q->has_since, &q->since, e);
	if (r != 0)
		return r;
	find_ancestors(l, q);
	/* Who asks for a status or a number of containers means all of them. */
	if (api_filters_has(&q->f, "status") || q->limit > 0)
		q->all = true;
	return 0;
}

void container_query_done(struct container_query *q)
{
	for (size_t i = 0; i < q->n_names; i++)
		regfree(&q->names[i]);
	for (size_t i = 0; i < q->n_ids; i++)
		regfree(&q->ids[i]);
	free(q->names);
	free(q->ids);
	strlist_done(&q->ancestors);
	api_filters_done(&q->f);
}

/* --- matching */

static bool any_regex(const regex_t *v, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (regexec(&v[i], s, 0, NULL, 0) == 0)
			return true;
	return n == 0;
}

static bool match_name(const struct container_query *q, const Pb__Container *c)
{
	CLEANUP_FREE char *slashed = xasprintf("/%s", c->config->name);
	return any_regex(q->names, q->n_names, slashed) || any_regex(q->names, q->n_names, c->config->name);
}

static bool match_ports(const struct container_query *q, const char *key, const Pb__Container *c, bool host)
{
	const struct strlist *v = api_filters_get(&q->f, key);
	static const char *const types[] = {"tcp", "udp", "sctp"};
	if (!v || !v->n)
		return true;
	for (size_t i = 0; i < v->n; i++) {
		unsigned low, high;
		const char *type;
		if (!parse_port(v->v[i], &low, &high, &type))
			continue;
		for (size_t k = 0; c->network && k < c->network->n_ports; k++) {
			const Pb__ContainerPort *p = c->network->ports[k];
			unsigned port = host ? p->host_port : p->container_port;
			if (port >= low && port <= high && str_eq(types[p->protocol % 3], type))
				return true;
		}
	}
	return false;
}

static bool match_exited(const struct container_query *q, const Pb__Container *c)
{
	char code[24];
	if (!api_filters_has(&q->f, "exited"))
		return true;
	if (container_is_running(c) || !c->has_exit_code)
		return false;
	snprintf(code, sizeof(code), "%lld", (long long)c->exit_code);
	return api_filters_match(&q->f, "exited", code);
}

static bool match_volume(const struct container_query *q, const Pb__Container *c)
{
	if (!api_filters_has(&q->f, "volume"))
		return true;
	for (size_t i = 0; i < c->config->n_mounts; i++) {
		const Pb__ContainerMount *m = c->config->mounts[i];
		if (api_filters_match(&q->f, "volume", m->target) ||
		    (m->volume_name && api_filters_match(&q->f, "volume", m->volume_name)) ||
		    (m->source && api_filters_match(&q->f, "volume", m->source)))
			return true;
	}
	return false;
}

static bool match_network(const struct container_query *q, const Pb__Container *c)
{
	const char *mode = container_network_mode(c);
	return api_filters_match(&q->f, "network", mode) ||
	       api_filters_match(&q->f, "network", api_network_id(mode));
}

static bool match_ancestor(const struct container_query *q, const Pb__Container *c)
{
	return !api_filters_has(&q->f, "ancestor") || strlist_has(&q->ancestors, c->config->image_id) ||
	       api_filters_match(&q->f, "ancestor", c->config->image);
}

bool container_query_matches(const struct container_query *q, const Pb__Container *c)
{
	if (!q->all && !container_is_running(c))
		return false;
	if ((q->has_before && c->created_at >= q->before) || (q->has_since && c->created_at <= q->since))
		return false;
	if (q->is_task >= 0 && (q->is_task == 1) != (c->task_id != NULL))
		return false;
	return api_filters_match(&q->f, "status", container_state_word(c)) &&
	       api_filters_match(&q->f, "health", str_or(c->health, "none")) && match_network(q, c) &&
	       api_filters_match_labels(&q->f, "label", c->config->labels, c->config->n_labels) &&
	       any_regex(q->ids, q->n_ids, c->id) && match_name(q, c) && match_ancestor(q, c) &&
	       match_exited(q, c) && match_volume(q, c) && match_ports(q, "publish", c, true) &&
	       match_ports(q, "expose", c, false);
}

/* --- sizes: counted on the pool, then the answer goes out */

struct sizes {
	struct http_req *r; /* NULL once the client has gone */
	json_t *answer;     /* an array of containers or one */
	struct strlist dirs;
	int64_t *own, *image;
};

static void sizes_gone(void *data)
{
	((struct sizes *)data)->r = NULL;
}

static void sizes_work(void *data)
{
	struct sizes *s = data;
	for (size_t i = 0; i < s->dirs.n; i++)
		if (fs_tree_size(s->dirs.v[i], &s->own[i], NULL) != 0)
			s->own[i] = 0; /* removed meanwhile */
}

static void sizes_done(void *data)
{
	struct sizes *s = data;
	for (size_t i = 0; i < s->dirs.n; i++) {
		json_t *o = json_is_array(s->answer) ? json_array_get(s->answer, i) : s->answer;
		json_object_set_new(o, "SizeRw", json_integer(s->own[i]));
		json_object_set_new(o, "SizeRootFs", json_integer(s->own[i] + s->image[i]));
	}
	if (s->r)
		http_reply_json(s->r, 200, s->answer);
	else
		json_decref(s->answer);
	strlist_done(&s->dirs);
	free(s->own);
	free(s->image);
	free(s);
}

/* Takes answer; cs are its containers in order. */
static void reply_with_sizes(
    struct api_local *l, struct http_req *r, json_t *answer, const Pb__Container *const *cs, size_t n)
{
	struct sizes *s = NEW(struct sizes);
	s->r = r;
	s->answer = answer;
	s->own = xcalloc(n ? n : 1, sizeof(*s->own));
	s->image = xcalloc(n ? n : 1, sizeof(*s->image));
	for (size_t i = 0; i < n; i++) {
		struct image *image;
		strlist_addf(&s->dirs, "%s/containers/%s/upper", api_deps(l->api)->data_root, cs[i]->id);
		if (images_find(l->images, cs[i]->config->image_id, &image, NULL) == 0) {
			s->image[i] = image->size;
			image_unref(image);
		}
	}
	http_on_closed(r, sizes_gone, s);
	loop_work(l->loop, sizes_work, sizes_done, s);
}

/* --- routes */

struct found {
	const struct container_query *q;
	const Pb__Container **v;
	size_t n, cap;
};

static void take(void *data, const Pb__Container *c)
{
	struct found *f = data;
	if (!container_query_matches(f->q, c))
		return;
	if (f->n == f->cap) {
		f->cap = f->cap ? f->cap * 2 : 64;
		f->v = xreallocarray(f->v, f->cap, sizeof(*f->v));
	}
	f->v[f->n++] = c;
}

static int newest_first(const void *a, const void *b)
{
	const Pb__Container *x = *(const Pb__Container *const *)a, *y = *(const Pb__Container *const *)b;
	if (x->created_at != y->created_at)
		return x->created_at > y->created_at ? -1 : 1;
	return strcmp(x->id, y->id);
}

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {"ancestor", "before", "exited", "expose", "health", "id",
	    "is-task", "label", "name", "network", "publish", "since", "status", "volume", NULL};
	struct api_local *l = data;
	struct container_query q = {.f = API_FILTERS_INIT};
	struct err e = ERR_INIT;
	int rc = api_filters_parse(r, allowed, &q.f, &e);
	q.all = api_bool_loose(r, "all");
	if (rc == 0)
		rc = api_int_param(r, "limit", 0, &q.limit, &e);
	if (rc == 0)
		rc = container_query_prepare(l, &q, &e);
	if (rc != 0) {
		container_query_done(&q);
		api_reply_err(r, &e);
		return;
	}
	struct found f = {.q = &q};
	engine_each(l->engine, take, &f);
	if (f.n)
		qsort(f.v, f.n, sizeof(*f.v), newest_first);
	if (q.limit > 0 && (size_t)q.limit < f.n)
		f.n = (size_t)q.limit;
	json_t *out = json_array();
	int64_t now = clock_unix_ns(api_deps(l->api)->clock);
	for (size_t i = 0; i < f.n; i++)
		json_array_append_new(out, container_list_json(l, f.v[i], now));
	if (api_bool_loose(r, "size"))
		reply_with_sizes(l, r, out, f.v, f.n);
	else
		http_reply_json(r, 200, out);
	free(f.v);
	container_query_done(&q);
}

static void inspect(void *data, struct http_req *r)
{
	struct api_local *l = data;
	const Pb__Container *c = container_or_reply(l, r);
	if (!c)
		return;
	json_t *o = container_inspect_json(l, c);
	if (api_bool_loose(r, "size"))
		reply_with_sizes(l, r, o, &c, 1);
	else
		http_reply_json(r, 200, o);
}

void api_container_list_register(struct api_local *l)
{
	api_route(l->api, "GET", "/containers/json", list, l);
	api_route(l->api, "GET", "/containers/{id}/json", inspect, l);
}
