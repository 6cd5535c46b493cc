/* Credentials: "auths" of $DOCKER_CONFIG/config.json, else ~/.docker/config.json. Helpers ("credsStore",
 * "credHelpers") run other programs; one that is configured for the registry asked for is an error that says
 * so, others do not matter. */
#include <stdio.h>
#include <string.h>
#include <jansson.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/auth.h"

#define MAX_CONFIG (1u << 20)
#define HUB        "https://index.docker.io/v1/"

char *auth_registry(const char *image)
{
	size_t n = strcspn(image, "/");
	/* A first part is a registry if it looks like a host. */
	if (image[n] && (memchr(image, '.', n) || memchr(image, ':', n) ||
			    (n == 9 && strncmp(image, "localhost", 9) == 0)))
		return xstrndup(image, n);
	return xstrdup("docker.io");
}

static int read_config(json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	const char *dir = getenv("DOCKER_CONFIG");
	CLEANUP_FREE char *path = !str_empty(dir)
				      ? fs_path(dir, "config.json")
				      : xasprintf("%s/.docker/config.json", str_or(getenv("HOME"), "/root"));
	int r = fs_read(path, MAX_CONFIG, &b, e);
	if (r == ERR_NOT_FOUND) {
		*ret = json_object();
		return 0;
	}
	if (r < 0)
		return r;
	json_error_t je;
	json_t *j = json_loadb(b.data ? b.data : "", b.len, 0, &je);
	if (b.data)
		mem_wipe(b.data, b.len);
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(e, ERR_INVALID, "%s is not JSON: %s (line %d)", path, je.text, je.line);
	}
	*ret = j;
	return 0;
}

/* The entry of "auths" or "credHelpers" for a registry, whatever way its address is written. */
static json_t *entry_for(json_t *map, const char *registry)
{
	const char *key;
	json_t *v;
	bool hub = str_eq(registry, "docker.io");
	json_object_foreach(map, key, v)
	{
		const char *host = str_has_prefix(key, "https://")  ? key + 8
				   : str_has_prefix(key, "http://") ? key + 7
								    : key;
		size_t n = strcspn(host, "/");
		if (hub ? str_eq(key, HUB) || str_eq(key, "docker.io") || str_eq(key, "index.docker.io")
			: n == strlen(registry) && strncmp(host, registry, n) == 0)
			return v;
	}
	return NULL;
}

static int decode_auth(json_t *out, const char *auth, const char *registry, struct err *e)
{
	uint8_t *p;
	size_t n;
	if (str_unbase64(auth, strlen(auth), &p, &n, NULL) < 0)
		return err_set(e, ERR_INVALID,
		    "the credentials for %s in docker's config.json are not base64", registry);
	char *text = xstrndup((char *)p, n), *colon = strchr(text, ':');
	mem_wipe(p, n);
	free(p);
	if (colon) {
		*colon = 0;
		json_object_set_new(out, "username", json_string(text));
		json_object_set_new(out, "password", json_string(colon + 1));
	}
	mem_wipe(text, n);
	free(text);
	return colon ? 0
		     : err_set(e, ERR_INVALID, "the credentials for %s in docker's config.json have no colon",
			   registry);
}

int auth_header(const char *image, char **ret, struct err *e)
{
	json_t *config;
	CLEANUP_FREE char *registry = auth_registry(image);
	int r = read_config(&config, e);
	if (r < 0)
		return r;
	json_t *out = json_object(), *entry = entry_for(json_object_get(config, "auths"), registry);
	bool has = entry && (*jstr(entry, "auth") || *jstr(entry, "identitytoken"));
	if (!has && (entry_for(json_object_get(config, "credHelpers"), registry) ||
			(entry && *jstr(config, "credsStore"))))
		r = err_set(e, ERR_NOT_IMPLEMENTED,
		    "the credentials for %s are kept by a credential helper, which shoal does not run: put "
		    "them into \"auths\" of docker's "
		    "config.json",
		    registry);
	if (r == 0 && has) {
		if (*jstr(entry, "auth"))
			r = decode_auth(out, jstr(entry, "auth"), registry, e);
		if (*jstr(entry, "identitytoken"))
			json_object_set(out, "identitytoken", json_object_get(entry, "identitytoken"));
		json_object_set_new(
		    out, "serveraddress", json_string(str_eq(registry, "docker.io") ? HUB : registry));
	}
	if (r == 0) {
		char *text = json_dumps(out, JSON_COMPACT);
		char *coded = str_base64(text, strlen(text));
		for (char *p = coded; *p; p++)
			*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
		mem_wipe(text, strlen(text));
		free(text);
		*ret = coded;
	}
	json_decref(out);
	json_decref(config);
	return r;
}
