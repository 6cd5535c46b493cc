/* Services: list, inspect, create, update, rollback, delete.
 *
 * A service's object names the Template that its tasks are made from. An update that changes what tasks are
 * (in normalised comparison) writes a new Template in the same transaction; one that does not (labels,
 * replicas) leaves the old one, and so disturbs no task. PreviousSpec is kept for one rollback, UpdateStatus
 * is cleared by every update. */
#include <string.h>

#include "base/mem.h"
#include "node/api/resources.h"
#include "node/api/service_spec.h"
#include "proto/pb.h"

/* --- reading */

static void add_kv_object(json_t *o, const char *key)
{
	if (!json_object_get(o, key))
		json_object_set_new(o, key, json_object());
}

static json_t *service_json(const Pb__Service *s, bool insert_defaults)
{
	json_t *j;
	if (insert_defaults) {
		CLEANUP_PB Pb__Service *c = pb_clone(s);
		service_spec_insert_defaults(c->spec);
		j = json_from_msg(c);
	} else {
		j = json_from_msg(s);
	}
	json_t *ep = json_object_get(j, "Endpoint");
	if (!ep) {
		ep = json_object();
		json_object_set_new(j, "Endpoint", ep);
	}
	add_kv_object(ep, "Spec");
	return j;
}

struct status {
	uint64_t running, desired, completed;
};

static struct status status_of(const struct store *st, const Pb__Service *s)
{
	struct status r = {0, 0, 0};
	struct store_iter it;
	const struct object *o;
	const Pb__ServiceMode *m = s->spec->mode;
	uint64_t iteration =
	    s->job_status && s->job_status->job_iteration ? s->job_status->job_iteration->index : 0;
	store_iter_init(&it, st, OBJ(TASK), STORE_TASK_BY_SERVICE, s->id);
	while ((o = store_iter_next(&it))) {
		const Pb__Task *t = o->task;
		if (service_spec_is_job(s->spec) &&
		    (t->job_iteration ? t->job_iteration->index : 0) != iteration)
			continue;
		if (t->status->state == PB__TASK_STATE__E__RUNNING)
			r.running++;
		if (t->status->state == PB__TASK_STATE__E__COMPLETE)
			r.completed++;
		if (m->global && t->desired_state == PB__TASK_STATE__E__RUNNING)
			r.desired++;
		if (m->global_job && t->desired_state == PB__TASK_STATE__E__COMPLETE &&
		    t->status->state != PB__TASK_STATE__E__COMPLETE)
			r.desired++;
	}
	if (m->replicated)
		r.desired = m->replicated->replicas;
	if (m->replicated_job)
		r.desired = m->replicated_job->max_concurrent;
	return r;
}

static const char *mode_word(const Pb__ServiceMode *m)
{
	return m->global           ? "global"
	       : m->replicated_job ? "replicated-job"
	       : m->global_job     ? "global-job"
				   : "replicated";
}

static bool matches(const struct api_filters *f, const Pb__Service *s)
{
	const char *runtime = str_or(s->spec->task_template->runtime, "container");
	return api_filters_match_prefix(f, "id", s->id) &&
	       api_filters_match_prefix(f, "name", s->spec->name) &&
	       api_filters_match_labels(f, "label", s->spec->labels, s->spec->n_labels) &&
	       api_filters_match(f, "mode", mode_word(s->spec->mode)) &&
	       api_filters_match(f, "runtime", runtime);
}

static void list(void *data, struct http_req *r)
{
	static const char *const allowed[] = {"id", "name", "label", "mode", "runtime", NULL};
	struct store *st = api_store_or_reply(data, r);
	struct err e = ERR_INIT;
	CLEANUP_API_FILTERS struct api_filters f = API_FILTERS_INIT;
	bool with_status;
	if (!st)
		return;
	if (api_filters_parse(r, allowed, &f, &e) != 0 ||
	    api_bool_strict(r, "status", &with_status, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	json_t *out = json_array();
	struct store_iter it;
	const struct object *o;
	store_iter_init(&it, st, OBJ(SERVICE), STORE_ALL, NULL);
	while ((o = store_iter_next(&it))) {
		if (!matches(&f, o->service))
			continue;
		json_t *j = service_json(o->service, false);
		if (with_status) {
			struct status s = status_of(st, o->service);
			json_object_set_new(j, "ServiceStatus",
			    json_pack("{s:I, s:I, s:I}", "RunningTasks", (json_int_t)s.running,
				"DesiredTasks", (json_int_t)s.desired, "CompletedTasks",
				(json_int_t)s.completed));
		}
		json_array_append_new(out, j);
	}
	http_reply_json(r, 200, out);
}

static const Pb__Service *find_or_reply(struct store *st, struct http_req *r)
{
	const struct object *o;
	struct err e = ERR_INIT;
	if (store_find(st, OBJ(SERVICE), api_param(r, "id"), &o, &e) == 0)
		return o->service;
	api_reply_err(r, &e);
	return NULL;
}

static void inspect(void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	struct err e = ERR_INIT;
	bool defaults;
	if (!st)
		return;
	if (api_bool_strict(r, "insertDefaults", &defaults, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	const Pb__Service *s = find_or_reply(st, r);
	if (s)
		http_reply_json(r, 200, service_json(s, defaults));
}

/* --- writing */

/* The header that pulls will use; kept with the spec, never shown. */
static void set_auth(Pb__ServiceSpec *s, const char *auth)
{
	if (s->task_template && s->task_template->container_spec && !str_empty(auth) &&
	    strcmp(auth, "e30=") != 0)
		pb_set_str(&s->task_template->container_spec->registry_auth, auth);
}

static Pb__Template *make_template(const char *service_id, const Pb__ServiceSpec *s, uint64_t number)
{
	Pb__Template *t = PB_NEW(Pb__Template, pb__template);
	t->id = xasprintf("%s.%llu", service_id, (unsigned long long)number);
	t->service_id = xstrdup(service_id);
	t->spec = pb_clone(s->task_template);
	t->endpoint = pb_clone(s->endpoint_spec);
	t->service_name = xstrdup(s->name);
	for (size_t i = 0; i < s->n_labels; i++)
		pb_add_msg(&t->service_labels, &t->n_service_labels, pb_clone(s->labels[i]));
	return t;
}

/* A template with a number that no other of the service has (the store's version moves with every write); the
 * service is made to name it. */
static Pb__Template *next_template(struct store *st, Pb__Service *s)
{
	uint64_t n = store_version(st) + 1;
	Pb__Template *tmpl = make_template(s->id, s->spec, n);
	while (store_template(st, tmpl->id)) {
		free(tmpl->id);
		tmpl->id = xasprintf("%s.%llu", s->id, (unsigned long long)++n);
	}
	pb_set_str(&s->template_id, tmpl->id);
	return tmpl;
}

/* The service goes first: of two updates that were based on one version, the second then fails as stale, not
 * because their templates have one name. */
static void add_update(struct txn *t, Pb__Service *s, Pb__Template *tmpl)
{
	txn_update(t, OBJ(SERVICE), s);
	if (tmpl)
		txn_create(t, OBJ(TEMPLATE), tmpl);
}

static void start_job(Pb__Service *s, int64_t now)
{
	if (!service_spec_is_job(s->spec))
		return;
	if (!s->job_status) {
		s->job_status = PB_NEW(Pb__JobStatus, pb__job_status);
		s->job_status->job_iteration = PB_NEW(Pb__Version, pb__version);
		s->job_status->job_iteration->has_index = true;
	} else {
		s->job_status->job_iteration->index++;
	}
	s->job_status->has_last_execution = true;
	s->job_status->last_execution = now;
}

static void create(void *data, struct http_req *r)
{
	struct api *a = data;
	struct store *st = api_store_or_reply(a, r);
	const struct api_deps *d = api_deps(a);
	struct err e = ERR_INIT;
	CLEANUP_PB Pb__ServiceSpec *spec = NULL;
	if (!st)
		return;
	if (api_body_msg(r, &pb__service_spec__descriptor, &spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	service_spec_fill(spec, d->rng);
	if (service_spec_check(st, NULL, spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	if (store_get_by_name(st, OBJ(SERVICE), spec->name)) {
		api_reply_errf(r, ERR_CONFLICT,
		    "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service "
		    "%s already exists",
		    spec->name);
		return;
	}
	set_auth(spec, http_header(r, "X-Registry-Auth"));
	char id[ID_LEN + 1];
	id_new(d->rng, id);
	Pb__Service *s = PB_NEW(Pb__Service, pb__service);
	s->id = xstrdup(id);
	s->spec = TAKE_PTR(spec);
	start_job(s, clock_unix_ns(d->clock));
	struct txn *t = txn_new();
	txn_create(t, OBJ(TEMPLATE), next_template(st, s));
	txn_create(t, OBJ(SERVICE), s);
	json_t *body = json_pack("{s:s}", "ID", id);
	if (api_minor(r) >= 44)
		json_object_set_new(body, "Warnings", json_null());
	api_commit(a, r, t, 201, body);
}

static int refuse_change(const Pb__ServiceSpec *was, const Pb__ServiceSpec *is, struct err *e)
{
	if (!str_eq(was->name, is->name))
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "rpc error: code = Unimplemented desc = renaming services is not supported");
	if (strcmp(mode_word(was->mode), mode_word(is->mode)) != 0)
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "rpc error: code = Unimplemented desc = service mode change is not allowed");
	return 0;
}

static const char *auth_of(const Pb__ServiceSpec *s)
{
	return s && s->task_template && s->task_template->container_spec
		   ? s->task_template->container_spec->registry_auth
		   : NULL;
}

/* The service as an update makes it: new spec in, old one kept, template if tasks change. Takes spec. */
static void apply_spec(
    struct api *a, struct store *st, struct txn *t, const Pb__Service *old, Pb__ServiceSpec *spec)
{
	Pb__Service *s = pb_clone(old);
	pb_free(s->previous_spec);
	s->previous_spec = s->spec;
	s->spec = spec;
	pb_set_str(&s->previous_template_id, old->template_id);
	pb_free(s->update_status);
	s->update_status = NULL;
	s->has_spec_version = true;
	s->spec_version = store_version(st) + 1;
	Pb__Template *tmpl = NULL;
	if (!service_spec_same_tasks(old->spec, spec) || service_spec_is_job(spec))
		tmpl = next_template(st, s);
	start_job(s, clock_unix_ns(api_deps(a)->clock));
	add_update(t, s, tmpl);
}

/* Spec and PreviousSpec change places. */
static void apply_rollback(struct api *a, struct store *st, struct txn *t, const Pb__Service *old)
{
	Pb__Service *s = pb_clone(old);
	int64_t now = clock_unix_ns(api_deps(a)->clock);
	Pb__ServiceSpec *spec = s->spec;
	s->spec = s->previous_spec;
	s->previous_spec = spec;
	char *previous = s->previous_template_id;
	s->previous_template_id = s->template_id;
	s->template_id = previous;
	pb_free(s->update_status);
	s->update_status = PB_NEW(Pb__UpdateStatus, pb__update_status);
	s->update_status->has_state = s->update_status->has_started_at = true;
	s->update_status->state = PB__UPDATE_STATE__E__ROLLBACK_STARTED;
	s->update_status->started_at = now;
	s->update_status->message = xstrdup("manually requested rollback");
	s->has_spec_version = true;
	s->spec_version = store_version(st) + 1;
	Pb__Template *tmpl = NULL;
	if (service_spec_same_tasks(s->spec, s->previous_spec))
		pb_set_str(&s->template_id, s->previous_template_id);
	else if (str_empty(s->template_id) || !store_template(st, s->template_id) ||
		 str_eq(s->template_id, s->previous_template_id))
		tmpl = next_template(st, s);
	start_job(s, now);
	add_update(t, s, tmpl);
}

static void update(void *data, struct http_req *r)
{
	struct api *a = data;
	struct store *st = api_store_or_reply(a, r);
	struct err e = ERR_INIT;
	uint64_t version;
	CLEANUP_PB Pb__ServiceSpec *spec = NULL;
	const char *rollback = str_or(http_query(r, "rollback"), "none"),
		   *from = str_or(http_query(r, "registryAuthFrom"), "spec");
	if (!st)
		return;
	if (api_version_param(r, &version, &e) != 0 ||
	    api_body_msg(r, &pb__service_spec__descriptor, &spec, &e) != 0) {
		api_reply_err(r, &e);
		return;
	}
	if (strcmp(rollback, "none") != 0 && strcmp(rollback, "previous") != 0) {
		api_reply_errf(r, ERR_INTERNAL, "unrecognized rollback option %s", rollback);
		return;
	}
	if (strcmp(from, "spec") != 0 && strcmp(from, "previous-spec") != 0) {
		api_reply_errf(r, ERR_INVALID, "unsupported registryAuthFrom value: %s", from);
		return;
	}
	const Pb__Service *s = find_or_reply(st, r);
	if (!s)
		return;
	if (str_empty(spec->name)) /* docker's SDKs may leave it out when they mean the same one */
		pb_set_str(&spec->name, s->spec->name);
	service_spec_fill(spec, api_deps(a)->rng);
	if (s->version != version)
		err_set(&e, ERR_STALE, "rpc error: code = Unknown desc = update out of sequence");
	else if (refuse_change(s->spec, spec, &e) == 0)
		service_spec_check(st, s->id, spec, &e);
	if (!e.code && strcmp(rollback, "previous") == 0 && !s->previous_spec)
		err_set(&e, ERR_PRECONDITION,
		    "rpc error: code = FailedPrecondition desc = service %s does not have a previous spec",
		    s->spec->name);
	if (e.code) {
		api_reply_err(r, &e);
		return;
	}
	struct txn *t = txn_new();
	if (strcmp(rollback, "previous") == 0) {
		apply_rollback(a, st, t, s);
	} else {
		const char *auth = http_header(r, "X-Registry-Auth");
		if (str_empty(auth))
			auth = auth_of(strcmp(from, "spec") == 0 ? s->spec : s->previous_spec);
		set_auth(spec, auth);
		apply_spec(a, st, t, s, TAKE_PTR(spec));
	}
	json_t *body = json_object();
	json_object_set_new(body, "Warnings", json_null());
	api_commit(a, r, t, 200, body);
}

static void delete (void *data, struct http_req *r)
{
	struct store *st = api_store_or_reply(data, r);
	if (!st)
		return;
	const Pb__Service *s = find_or_reply(st, r);
	if (!s)
		return;
	struct txn *t = txn_new();
	txn_delete(t, OBJ(SERVICE), s->id, 0);
	api_commit(data, r, t, 200, NULL);
}

void api_services_register(struct api *a)
{
	api_route(a, "GET", "/services", list, a);
	api_route(a, "POST", "/services/create", create, a);
	api_route(a, "GET", "/services/{id}", inspect, a);
	api_route(a, "POST", "/services/{id}/update", update, a);
	api_route(a, "DELETE", "/services/{id}", delete, a);
}
