/* Secrets and configs: two kinds of one thing. Their values never change; labels do. A secret's value is
 * never shown.
 *
 * The two specs differ in where they keep templating and in a secret's driver; struct kind says how each is
 * read, so that the routes are written once. */
#include <ctype.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "node/api/resources.h"
#include "proto/pb.h"

/* What both have in common, seen through pointers into the message. */
struct view {
	const char *name;
	Pb__KV *const *labels;
	size_t n_labels;
	const ProtobufCBinaryData *data;
};
struct kind {
	struct api *api;
	obj_kind obj;
	const char *word; /* "secret" */
	size_t max;       /* exclusive */
	enum store_index used_by;
	const ProtobufCMessageDescriptor *spec;
};

static struct view view_spec(const struct kind *k, const void *spec)
{
	static const ProtobufCBinaryData none = {0, NULL};
	if (k->obj == OBJ(SECRET)) {
		const Pb__SecretSpec *s = spec;
		return (struct view){s->name, s->labels, s->n_labels, s->has_data ? &s->data : &none};
	}
	const Pb__ConfigSpec *c = spec;
	return (struct view){c->name, c->labels, c->n_labels, c->has_data ? &c->data : &none};
}

static const void *spec_of(const struct object *o)
{
	return o->kind == OBJ(SECRET) ? (const void *)o->secret->spec : (const void *)o->config->spec;
}

static json_t *object_json(const struct object *o)
{
	json_t *j = json_from_msg(o->msg);
	if (o->kind == OBJ(SECRET))
		json_object_del(json_object_get(j, "Spec"), "Data");
	return j;
}

static int check(const struct kind *k, const void *spec, struct err *e)
{
	struct view v = view_spec(k, spec);
	const char *name = str_or(v.name, "");
	size_t n = strlen(name);
	bool ok = n > 0 && n <= 64 && isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[n - 1]);
	for (size_t i = 0; ok && i < n; i++)
		ok = isalnum((unsigned char)name[i]) || strchr("-_.", name[i]);
	if (!ok)
		return err_set(e, ERR_INVALID,
		    "rpc error: code = InvalidArgument desc = invalid name \"%.80s\", only 64 [a-zA-Z0-9-_.] "
		    "characters allowed, and the start and "
		    "end character must be [a-zA-Z0-9]",
		    name);
	if (k->obj == OBJ(SECRET)) {
		const Pb__SecretSpec *s = spec;
		if (s->driver && !str_empty(s->driver->name))
			return err_set(e, ERR_NOT_IMPLEMENTED,
			    "secret drivers (Driver \"%s\") are not supported by this version",
			    s->driver->name);
		if (s->templating && !str_empty(s->templating->name))
			return err_set(
			    e, ERR_NOT_IMPLEMENTED, "Templating of secrets is not supported by this version");
		if (v.data->len == 0)
			return err_set(e, ERR_INVALID,
			    "rpc error: code = InvalidArgument desc = secret data must be larger than 0 and "
			    "less than %d bytes",
			    LIMIT_SECRET);
	} else {
		const Pb__ConfigSpec *c = spec;
		if (c->templating && !str_empty(c->templating->name))
			return err_set(
			    e, ERR_NOT_IMPLEMENTED, "Templating of configs is not supported by this version");
		if (v.data->len == 0)
			return err_set(e, ERR_INVALID,
			    "rpc error: code = InvalidArgument desc = config data must be larger than 0 and "
			    "less than %d bytes",
			    LIMIT_CONFIG);
	}
	if (v.data->len >= k->max)
		return err_set(e, ERR_INVALID,
		    "rpc error: code = InvalidArgument desc = %s data must be larger than 0 and less than "
		    "%zu bytes",
		    k->word, k->max);
	return 0;
}

/* id and name are or-ed together, as Swarm does. */
static bool matches(const struct api_filters *f, const struct object *o, const struct view *v)
{
	bool by_id = api_filters_has(f, "id"), by_name = api_filters_has(f, "name"),
	     by_names = api_filters_has(f, "names");
	bool any = !by_id && !by_name && !by_names;
	any |= by_id && api_filters_match_prefix(f, "id", o->head->id);
	any |= by_name && api_filters_match_prefix(f, "name", v->name);
	any |= by_names && api_filters_match(f, "names", v->name);
	return any && api_filters_match_labels(f, "label", v->labels, v->n_labels);
}

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {"id", "name", "names", "label", NULL};
	const struct kind *k = data;
	struct store *st = api_store_or_reply(k->api, r);
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	if (!st)
		return;
	if (api_filters_parse(r, allowed, &f, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	json_t *out = json_array();
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, st, k->obj, STORE_ALL, NULL);
	while ((o = store_iter_next(&it))) {
		struct view v = view_spec(k, spec_of(o));
		if (matches(&f, o, &v))
			json_array_append_new(out, object_json(o));
	}
	http_reply_json(r, 200, out);
}

static const struct object *find_or_reply(const struct kind *k, struct store *st, struct http_req *r)
{
	const struct object *o;
	struct err e = ERR_INIT;
	if (store_find(st, k->obj, api_param(r, "id"), &o, &e) == 0)
		return o;
	api_reply_err(r, &e);
	return NULL;
}

static void inspect(void *data, struct http_req *r)
{
	const struct kind *k = data;
	struct store *st = api_store_or_reply(k->api, r);
	const struct object *o = st ? find_or_reply(k, st, r) : NULL;
	if (o)
		http_reply_json(r, 200, object_json(o));
}

/* Takes spec. */
static void *new_object(const struct kind *k, const char *id, void *spec)
{
	if (k->obj == OBJ(SECRET)) {
		Pb__Secret *s = PB_NEW(Pb__Secret, pb__secret);
		s->id = xstrdup(id);
		s->spec = spec;
		return s;
	}
	Pb__Config *c = PB_NEW(Pb__Config, pb__config);
	c->id = xstrdup(id);
	c->spec = spec;
	return c;
}

static void create(void *data, struct http_req *r)
{
	const struct kind *k = data;
	struct store *st = api_store_or_reply(k->api, r);
	struct err e = ERR_INIT;
	CLEANUP_PB void *spec = NULL;
	if (!st)
		return;
	if (api_body_msg(r, k->spec, &spec, &e) != 0 || check(k, spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const char *name = view_spec(k, spec).name;
	if (store_get_by_name(st, k->obj, name)) {
		api_reply_errf(r, ERR_CONFLICT, "rpc error: code = AlreadyExists desc = %s %s already exists",
		    k->word, name);
		return;
	}
	char id[ID_LEN + 1];
	id_new(api_deps(k->api)->rng, id);
	struct txn *t = txn_new();
	txn_create(t, k->obj, new_object(k, id, TAKE_PTR(spec)));
	api_commit(k->api, r, t, 201, json_pack("{s:s}", "ID", id));
}

static bool same_value(const struct view *was, const struct view *is)
{
	if (!str_empty(is->name) && !str_eq(was->name, is->name))
		return false;
	return is->data->len == 0 || (is->data->len == was->data->len &&
					 memcmp(is->data->data, was->data->data, was->data->len) == 0);
}

static void set_labels(Pb__KV ***labels, size_t *n, const struct view *v)
{
	for (size_t i = 0; i < *n; i++)
		pb_free((*labels)[i]);
	free(*labels);
	*labels = NULL;
	*n = 0;
	for (size_t i = 0; i < v->n_labels; i++)
		pb_add_msg(labels, n, pb_clone(v->labels[i]));
}

static void update(void *data, struct http_req *r)
{
	const struct kind *k = data;
	struct store *st = api_store_or_reply(k->api, r);
	struct err e = ERR_INIT;
	uint64_t version;
	CLEANUP_PB void *spec = NULL;
	if (!st)
		return;
	if (api_version_param(r, &version, &e) != 0 || api_body_msg(r, k->spec, &spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const struct object *o = find_or_reply(k, st, r);
	if (!o)
		return;
	struct view was = view_spec(k, spec_of(o)), is = view_spec(k, spec);
	if (o->head->version != version)
		err_set(&e, ERR_STALE, "rpc error: code = Unknown desc = update out of sequence");
	else if (!same_value(&was, &is))
		err_set(&e, ERR_INVALID,
		    "rpc error: code = InvalidArgument desc = only updates to Labels are allowed");
	if (e.code) {
		api_reply_err(r, &e);
		return;
	}
	void *m = pb_clone(o->msg);
	if (k->obj == OBJ(SECRET))
		set_labels(&((Pb__Secret *)m)->spec->labels, &((Pb__Secret *)m)->spec->n_labels, &is);
	else
		set_labels(&((Pb__Config *)m)->spec->labels, &((Pb__Config *)m)->spec->n_labels, &is);
	struct txn *t = txn_new();
	txn_update(t, k->obj, m);
	api_commit(k->api, r, t, 200, NULL);
}

static void delete (void *data, struct http_req *r)
{
	const struct kind *k = data;
	struct store *st = api_store_or_reply(k->api, r);
	const struct object *o = st ? find_or_reply(k, st, r) : NULL;
	if (!o)
		return;
	struct strlist users = STRLIST_INIT;
	struct store_iter it;
	const struct object *s;
	store_iter_init(&it, st, OBJ(SERVICE), k->used_by, o->head->id);
	while ((s = store_iter_next(&it)))
		strlist_add(&users, s->service->spec->name);
	if (users.n) {
		strlist_sort(&users);
		CLEANUP_FREE char *names = strlist_join(&users, ", ");
		api_reply_errf(r, ERR_PRECONDITION,
		    "rpc error: code = InvalidArgument desc = %s '%s' is in use by the following service%s: "
		    "%s",
		    k->word, view_spec(k, spec_of(o)).name, users.n == 1 ? "" : "s", names);
		strlist_done(&users);
		return;
	}
	struct txn *t = txn_new();
	txn_delete(t, k->obj, o->head->id, o->head->version);
	api_commit(k->api, r, t, 204, NULL);
}

static void register_kind(struct api *a, const struct kind *model, const char *const paths[4])
{
	struct kind *k = xmemdup(model, sizeof(*model));
	k->api = a;
	api_own(a, k);
	api_route(a, "GET", paths[0], list, k);
	api_route(a, "POST", paths[1], create, k);
	api_route(a, "GET", paths[2], inspect, k);
	api_route(a, "DELETE", paths[2], delete, k);
	api_route(a, "POST", paths[3], update, k);
}

void api_secrets_register(struct api *a)
{
	static const char *const paths[] = {
	    "/secrets", "/secrets/create", "/secrets/{id}", "/secrets/{id}/update"};
	const struct kind k = {.obj = OBJ(SECRET),
	    .word = "secret",
	    .max = LIMIT_SECRET,
	    .used_by = STORE_SERVICE_BY_SECRET,
	    .spec = &pb__secret_spec__descriptor};
	register_kind(a, &k, paths);
}

void api_configs_register(struct api *a)
{
	static const char *const paths[] = {
	    "/configs", "/configs/create", "/configs/{id}", "/configs/{id}/update"};
	const struct kind k = {.obj = OBJ(CONFIG),
	    .word = "config",
	    .max = LIMIT_CONFIG,
	    .used_by = STORE_SERVICE_BY_CONFIG,
	    .spec = &pb__config_spec__descriptor};
	register_kind(a, &k, paths);
}
