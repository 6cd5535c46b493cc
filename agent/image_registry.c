/* Questions to registries: what a reference stands for, and whether credentials are good. Each runs skopeo
 * once or twice and leaves nothing behind. */
#include "agent/image_registry.h"

#include <stdio.h>
#include <string.h>

#include "agent/image_skopeo.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

/* Every `service create` waits for this. */
#define LOOKUP_MS (10 * 1000)
#define LOGIN_MS  (20 * 1000)

struct query {
	struct images *im;
	struct skopeo *sk;
	struct image_ref ref;
	char *familiar;
	char *server;
	json_t *result;
	image_registry_cb cb;
	void *data;
};

static struct query *query_new(struct images *im, image_registry_cb cb, void *data)
{
	struct query *q = NEW(struct query);
	q->im = im;
	images_hold(im);
	q->cb = cb;
	q->data = data;
	return q;
}

static void query_free(struct query *q)
{
	struct images *im = q->im;
	skopeo_close(q->sk);
	image_ref_done(&q->ref);
	free(q->familiar);
	free(q->server);
	json_decref(q->result);
	free(q);
	images_release(im);
}

static void query_end(struct query *q, const struct err *e)
{
	struct err why = ERR_INIT;
	if (e)
		err_copy(&why, e);
	q->cb(q->data, why.code ? NULL : q->result, &why);
	query_free(q);
}

/* --- distribution */

static int inspect(struct query *q, bool config, const char *digest,
    void (*done)(void *data, int rc, const struct buf *out, const struct err *e), struct err *e)
{
	CLEANUP_STRLIST struct strlist args = STRLIST_INIT;
	strlist_add(&args, "--raw");
	if (config)
		strlist_add(&args, "--config");
	if (digest)
		strlist_addf(&args, "docker://%s/%s@%s", q->ref.domain, q->ref.path, digest);
	else
		strlist_addf(&args, "docker://%s/%s:%s", q->ref.domain, q->ref.path, q->ref.tag);
	struct skopeo_opts o = {
	    .command = "inspect",
	    .args = &args,
	    .tls_option = "--tls-verify",
	    .max_output = LIMIT_IMAGE_CONFIG + 1,
	    .timeout_ms = LOOKUP_MS,
	    .done = done,
	    .data = q,
	};
	return skopeo_run(q->sk, &o, e);
}

static json_t *platform_of(const json_t *from)
{
	json_t *p = json_pack("{s:s,s:s}", "architecture",
	    str_or(json_string_value(json_object_get(from, "architecture")), ""), "os",
	    str_or(json_string_value(json_object_get(from, "os")), ""));
	ASSERT(p);
	const char *variant = json_string_value(json_object_get(from, "variant"));
	if (!str_empty(variant))
		json_object_set_new(p, "variant", json_string(variant));
	return p;
}

static void on_config(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct query *q = data;
	json_t *j = NULL;
	/* The digest alone is worth having. */
	if (rc == 0 && out->len <= LIMIT_IMAGE_CONFIG && image_json_parse(out, "the config", &j, NULL) == 0 &&
	    json_is_string(json_object_get(j, "architecture")))
		json_array_append_new(json_object_get(q->result, "Platforms"), platform_of(j));
	json_decref(j);
	(void)why;
	query_end(q, NULL);
}

static void add_platforms(json_t *platforms, const json_t *index)
{
	const json_t *list = json_object_get(index, "manifests");
	for (size_t k = 0; k < json_array_size(list); k++) {
		const json_t *p = json_object_get(json_array_get(list, k), "platform");
		/* Attestations are listed with an unknown platform. */
		if (json_is_object(p) && !str_eq(json_string_value(json_object_get(p, "os")), "unknown"))
			json_array_append_new(platforms, platform_of(p));
	}
}

static const char *media_type(const json_t *j)
{
	const char *type = json_string_value(json_object_get(j, "mediaType"));
	if (type)
		return type;
	return image_is_index(j) ? "application/vnd.oci.image.index.v1+json"
				 : "application/vnd.oci.image.manifest.v1+json";
}

static void on_manifest(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct query *q = data;
	struct err e = ERR_INIT;
	if (rc < 0) {
		err_copy(&e, why);
		skopeo_explain(q->familiar, q->ref.path, &e);
		query_end(q, &e);
		return;
	}
	json_t *j = NULL;
	char digest[IMAGE_DIGEST_LEN + 1];
	if (out->len > LIMIT_IMAGE_MANIFEST)
		rc = err_set(&e, ERR_TOO_LARGE, "the manifest of %s is too large", q->familiar);
	else
		rc = image_json_parse(out, q->familiar, &j, &e);
	if (rc < 0) {
		query_end(q, &e);
		return;
	}
	image_digest(out->data, out->len, digest);
	json_t *platforms = json_array();
	bool index = image_is_index(j);
	if (index)
		add_platforms(platforms, j);
	q->result = json_pack("{s:{s:s,s:s,s:I},s:o}", "Descriptor", "mediaType", media_type(j), "digest",
	    digest, "size", (json_int_t)out->len, "Platforms", platforms);
	ASSERT(q->result);
	json_decref(j);
	if (index || inspect(q, true, digest, on_config, &e) < 0)
		query_end(q, NULL);
}

/* Loaded from an archive and never seen at a registry: asking would only cost the time that a look-up takes
 * to fail. */
static bool only_local(struct images *im, const char *ref)
{
	struct image *i;
	return images_lookup(im, ref, &i, NULL, NULL) == 0 && i->repo_digests.n == 0;
}

int images_distribution(
    struct images *im, const char *ref, const char *auth, image_registry_cb cb, void *data, struct err *e)
{
	struct query *q = query_new(im, cb, data);
	int rc = image_ref_parse(ref, &q->ref, e);
	if (rc == 0 && only_local(im, ref))
		rc = err_set(e, ERR_NOT_FOUND, "image %s was loaded on this node and is of no registry", ref);
	if (rc == 0) {
		q->familiar = image_ref_familiar(&q->ref);
		rc = skopeo_open(im, q->ref.domain, auth, &q->sk, e);
	}
	if (rc == 0)
		rc = inspect(q, false, q->ref.digest, on_manifest, e);
	if (rc < 0)
		query_free(q);
	return rc;
}

/* --- login */

static void on_login(void *data, int rc, const struct buf *out, const struct err *why)
{
	struct query *q = data;
	(void)out;
	if (rc == 0) {
		q->result = json_pack("{s:s,s:s}", "Status", "Login Succeeded", "IdentityToken", "");
		query_end(q, NULL);
		return;
	}
	struct err e = ERR_INIT;
	err_copy(&e, why);
	if (strstr(e.text, "invalid username/password") || strstr(e.text, "unauthorized") ||
	    strstr(e.text, "authentication required"))
		err_set(&e, ERR_UNAUTHORIZED,
		    "login attempt to %s failed: unauthorized: incorrect username or password", q->server);
	else
		skopeo_explain(q->server, q->server, &e);
	query_end(q, &e);
}

/* "https://index.docker.io/v1/" and "registry:5000/" as the host that skopeo wants. */
static char *server_host(const char *server)
{
	if (str_has_prefix(server, "https://") || str_has_prefix(server, "http://"))
		server = strstr(server, "//") + 2;
	char *host = xstrndup(server, strcspn(server, "/"));
	if (!*host || str_eq(host, "index.docker.io") || str_eq(host, "registry-1.docker.io")) {
		free(host);
		host = xstrdup("docker.io");
	}
	return host;
}

int images_login(struct images *im, const char *server, const char *user, const char *password,
    image_registry_cb cb, void *data, struct err *e)
{
	if (str_empty(user) || str_empty(password))
		return err_set(
		    e, ERR_INVALID, "username and password are required; identity tokens are not supported");
	if (user[0] == '-' || strpbrk(password, "\r\n"))
		return err_set(e, ERR_INVALID, "the username or the password cannot be passed on");
	struct query *q = query_new(im, cb, data);
	q->server = server_host(server);
	/* The host is used as an argument: let the grammar of references vouch for it. */
	CLEANUP_FREE char *probe = xasprintf("%s/login", q->server);
	CLEANUP_STRLIST struct strlist args = STRLIST_INIT;
	int rc = image_ref_parse(probe, &q->ref, e);
	if (rc == 0)
		rc = skopeo_open(im, q->server, NULL, &q->sk, e);
	strlist_add(&args, "--password-stdin");
	strlist_addf(&args, "--username=%s", user);
	strlist_add(&args, q->server);
	struct skopeo_opts o = {
	    .command = "login",
	    .args = &args,
	    .tls_option = "--tls-verify",
	    .stdin_data = password,
	    .timeout_ms = LOGIN_MS,
	    .done = on_login,
	    .data = q,
	};
	if (rc == 0)
		rc = skopeo_run(q->sk, &o, e);
	if (rc < 0)
		query_free(q);
	return rc;
}
