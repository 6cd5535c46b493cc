/* Moving images: pull, load, what registries say, login.
 *
 * Pull and load answer with a stream of JSON lines. The stream begins with the first line; what fails before
 * that is an ordinary error with its status, what fails later is a line with errorDetail. A client that goes
 * away ends its part of a pull, and a load whose archive was not complete. */
#include <string.h>
#include <sys/utsname.h>

#include "agent/image_registry.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/api/image_transfer.h"

/* A request that is answered with lines. */
struct stream {
	struct http_req *r; /* NULL once the client has gone */
	bool started, quiet;
	struct image_op *pull;
	struct image_load *load;
};

static void send_line(struct stream *s, const json_t *line)
{
	if (!s->r)
		return;
	if (!s->started)
		http_start(s->r, 200, "application/json");
	s->started = true;
	char *text = json_dumps(line, JSON_COMPACT);
	ASSERT(text);
	CLEANUP_FREE char *with_end = xasprintf("%s\r\n", text);
	free(text);
	http_write(s->r, with_end, strlen(with_end));
}

static void on_progress(void *data, const json_t *line)
{
	struct stream *s = data;
	if (!s->quiet || json_object_get(line, "stream"))
		send_line(s, line);
}

static void on_done(void *data, const char *id, const struct err *e)
{
	struct stream *s = data;
	(void)id;
	if (s->r && e->code && !s->started) {
		api_reply_err(s->r, e);
	} else if (s->r) {
		if (e->code) {
			json_t *line =
			    json_pack("{s:{s:s},s:s}", "errorDetail", "message", e->text, "error", e->text);
			ASSERT(line);
			send_line(s, line);
			json_decref(line);
		} else if (!s->started) {
			http_start(s->r, 200, "application/json");
		}
		http_finish(s->r);
	}
	free(s);
}

/* --- pull --------------------------------------------------------------------------------------------- */

static void pull_client_gone(void *data)
{
	struct stream *s = data;
	s->r = NULL;
	image_op_cancel(s->pull); /* on_done still comes and frees */
}

/* "linux/amd64": only this machine's own is there to be chosen. */
static int check_platform(const char *platform, struct err *e)
{
	struct utsname u;
	if (str_empty(platform) || uname(&u) < 0)
		return 0;
	const char *arch = strcmp(u.machine, "x86_64") == 0    ? "amd64"
			   : strcmp(u.machine, "aarch64") == 0 ? "arm64"
							       : u.machine;
	CLEANUP_FREE char *mine = xasprintf("linux/%s", arch);
	if (str_eq(platform, "linux") || str_eq(platform, mine))
		return 0;
	return err_set(e, ERR_INVALID,
	    "image platform %s is not supported: this node pulls for its own platform, %s", platform, mine);
}

static int pull_reference(const struct http_req *r, char **ret, struct err *e)
{
	const char *image = http_query(r, "fromImage"), *tag = str_or(http_query(r, "tag"), "");
	if (!str_empty(http_query(r, "fromSrc")))
		return err_set(e, ERR_NOT_IMPLEMENTED,
		    "importing a root file system is not supported: make an image archive of it and load "
		    "that");
	if (str_empty(image))
		return err_set(e, ERR_INVALID, "fromImage names the image to pull");
	int rc = check_platform(http_query(r, "platform"), e);
	if (rc < 0)
		return rc;
	const char *slash = strrchr(image, '/');
	if (!*tag && !strpbrk(slash ? slash : image, ":@"))
		return err_set(e, ERR_INVALID,
		    "pulling all tags of %s is not supported: name the tag that is wanted", image);
	/* The tag may be a digest. */
	*ret = xasprintf("%s%s%s", image, !*tag ? "" : strchr(tag, ':') ? "@" : ":", tag);
	return 0;
}

static void create(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	CLEANUP_FREE char *ref = NULL;
	struct stream *s = NEW(struct stream);
	s->r = r;
	int rc = pull_reference(r, &ref, &e);
	if (rc == 0)
		rc = images_pull(
		    l->images, ref, http_header(r, "X-Registry-Auth"), on_progress, on_done, s, &s->pull, &e);
	if (rc < 0) {
		free(s);
		api_reply_err(r, &e);
		return;
	}
	http_on_closed(r, pull_client_gone, s);
}

/* --- load --------------------------------------------------------------------------------------------- */

static void load_client_gone(void *data)
{
	/* The archive is complete, so the load goes on; nobody listens. */
	((struct stream *)data)->r = NULL;
}

static void on_body(void *data, const uint8_t *p, size_t n, bool aborted)
{
	struct stream *s = data;
	struct err e = ERR_INIT;
	if (n > 0) {
		if (images_load_write(s->load, p, n, &e) == 0)
			return;
		images_load_abort(s->load);
		api_reply_err(s->r, &e);
		free(s);
	} else if (aborted) {
		images_load_abort(s->load);
		http_on_closed(s->r, NULL, NULL);
		free(s);
	} else {
		http_on_closed(s->r, load_client_gone, s);
		images_load_finish(s->load);
	}
}

static void load(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	struct stream *s = NEW(struct stream);
	s->r = r;
	s->quiet = api_bool_loose(r, "quiet");
	if (images_load_start(l->images, on_progress, on_done, s, &s->load, &e) < 0) {
		free(s);
		api_reply_err(r, &e);
		return;
	}
	http_stream_body(r, on_body, s);
}

/* --- registries --------------------------------------------------------------------------------------- */

static void question_client_gone(void *data)
{
	((struct stream *)data)->r = NULL;
}

static void on_answer(void *data, const json_t *result, const struct err *e)
{
	struct stream *s = data;
	if (s->r && e->code)
		api_reply_err(s->r, e);
	else if (s->r)
		http_reply_json(s->r, 200, json_incref((json_t *)result));
	free(s);
}

static void distribution(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	struct stream *s = NEW(struct stream);
	s->r = r;
	if (images_distribution(
		l->images, api_param(r, "ref"), http_header(r, "X-Registry-Auth"), on_answer, s, &e) < 0) {
		free(s);
		api_reply_err(r, &e);
		return;
	}
	http_on_closed(r, question_client_gone, s);
}

static const char *field(const json_t *o, const char *key)
{
	return str_or(json_string_value(json_get(o, key)), "");
}

static void login(void *data, struct http_req *r)
{
	struct api_local *l = data;
	struct err e = ERR_INIT;
	json_t *j = NULL;
	struct stream *s = NEW(struct stream);
	s->r = r;
	int rc = api_body_json(r, &j, &e);
	if (rc == 0)
		rc = images_login(l->images, field(j, "serveraddress"), field(j, "username"),
		    field(j, "password"), on_answer, s, &e);
	json_decref(j);
	if (rc != 0) {
		free(s);
		api_reply_err(r, &e);
		return;
	}
	http_on_closed(r, question_client_gone, s);
}

/* --- what this engine does not do --------------------------------------------------------------------- */

static void refuse_push(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "pushing images is not supported: layers are kept unpacked only; push from where %s was built",
	    api_param(r, "ref"));
}

static void refuse_save(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "saving images is not supported: layers are kept unpacked only; keep the archive that was "
	    "loaded");
}

static void refuse_search(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(
	    r, ERR_NOT_IMPLEMENTED, "searching registries is not supported: use the registry's own search");
}

static void refuse_build(void *data, struct http_req *r)
{
	(void)data;
	api_reply_errf(r, ERR_NOT_IMPLEMENTED,
	    "building images is not supported: build an archive with another tool and load it (docker load, "
	    "shoal "
	    "image load)");
}

void api_image_transfer_register(struct api_local *l)
{
	api_route(l->api, "POST", "/images/create", create, l);
	api_route_stream(l->api, "POST", "/images/load", load, l);
	api_route(l->api, "POST", "/images/{ref...}/push", refuse_push, l);
	api_route(l->api, "GET", "/images/get", refuse_save, l);
	api_route(l->api, "GET", "/images/{ref...}/get", refuse_save, l);
	api_route(l->api, "GET", "/images/search", refuse_search, l);
	api_route_stream(l->api, "POST", "/build", refuse_build, l);
	api_route(l->api, "POST", "/commit", refuse_build, l);
	api_route(l->api, "GET", "/distribution/{ref...}/json", distribution, l);
	api_route(l->api, "POST", "/auth", login, l);
}
