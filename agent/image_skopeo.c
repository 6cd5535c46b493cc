/* Running skopeo.
 *
 * Each use has a directory of its own, mode 0700: auth.json (0600) with the credentials for the one registry,
 * which are thus in no argument list and in no environment; registries.conf when mirrors are configured; and
 * it is HOME, so that nothing of the user who runs the daemon is read. The host's signature policy
 * (/etc/containers/policy.json) is honoured where there is one.
 *
 * Failing: skopeo logs its last error as level=fatal msg="..."; that text is taken out and, for the cases
 * that users meet, put into docker's words. */
#include "agent/image_skopeo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

#define POLICY   "/etc/containers/policy.json"
#define AUTH_MAX (64u * 1024)

struct skopeo {
	struct images *im;
	char *dir, *authfile;
	bool insecure;
	struct proc *proc;
	bool killed;
	void (*done)(void *data, int rc, const struct buf *out, const struct err *e);
	proc_line_cb on_line;
	void *data;
};

/* --- insecure registries */

static bool in_cidr(const char *ip, const char *cidr)
{
	const char *slash = strchr(cidr, '/');
	if (!slash)
		return false;
	CLEANUP_FREE char *net = xstrndup(cidr, (size_t)(slash - cidr));
	uint64_t bits;
	unsigned char a[16], b[16];
	int family = strchr(net, ':') ? AF_INET6 : AF_INET;
	size_t len = family == AF_INET ? 4 : 16;
	if (str_parse_u64(slash + 1, &bits, NULL) < 0 || bits > len * 8 || inet_pton(family, net, a) != 1 ||
	    inet_pton(family, ip, b) != 1)
		return false;
	for (size_t i = 0; i < bits; i++)
		if (((a[i / 8] ^ b[i / 8]) >> (7 - i % 8)) & 1)
			return false;
	return true;
}

/* The host of "host", "host:port", "[v6]:port". */
static char *host_of(const char *domain)
{
	if (domain[0] == '[')
		return xstrndup(domain + 1, strcspn(domain + 1, "]"));
	return xstrndup(domain, strcspn(domain, ":"));
}

static bool is_insecure(const struct images *im, const char *domain)
{
	CLEANUP_FREE char *host = host_of(domain);
	/* The loopback always is, for docker too. */
	if (str_eq(host, "localhost") || in_cidr(host, "127.0.0.0/8") || in_cidr(host, "::1/128"))
		return true;
	for (size_t k = 0; k < im->insecure.n; k++) {
		const char *entry = im->insecure.v[k];
		if (str_eq(entry, domain) || str_eq(entry, host) || in_cidr(host, entry))
			return true;
	}
	return false;
}

/* --- the directory */

/* What of the header's JSON a registry wants: base64 of "user:password", or an identity token. */
static json_t *credentials(const char *header)
{
	uint8_t *raw = NULL;
	size_t n = 0;
	if (str_empty(header) || strlen(header) > AUTH_MAX ||
	    str_unbase64_url(header, strlen(header), &raw, &n, NULL) < 0)
		return NULL;
	json_t *j = json_loadb((const char *)raw, n, 0, NULL);
	mem_wipe(raw, n);
	free(raw);
	const char *user = json_string_value(json_object_get(j, "username"));
	const char *pass = json_string_value(json_object_get(j, "password"));
	const char *auth = json_string_value(json_object_get(j, "auth"));
	const char *token = json_string_value(json_object_get(j, "identitytoken"));
	json_t *out = NULL;
	if (!str_empty(user) || !str_empty(token)) {
		char *both = xasprintf("%s:%s", str_or(user, ""), str_or(pass, ""));
		char *text = str_base64(both, strlen(both));
		out = json_pack("{s:s}", "auth", text);
		if (!str_empty(token))
			json_object_set_new(out, "identitytoken", json_string(token));
		mem_wipe(both, strlen(both));
		mem_wipe(text, strlen(text));
		free(both);
		free(text);
	} else if (!str_empty(auth)) {
		out = json_pack("{s:s}", "auth", auth);
	}
	json_decref(j);
	return out;
}

static int write_private(const char *path, const char *text, struct err *e)
{
	return fs_write_atomic(path, text, strlen(text), 0600, e);
}

static int write_auth(struct skopeo *s, const char *domain, const char *header, struct err *e)
{
	json_t *auths = json_object(), *cred = credentials(header);
	if (cred)
		json_object_set_new(auths, domain, cred);
	json_t *j = json_pack("{s:o}", "auths", auths);
	char *text = json_dumps(j, JSON_COMPACT);
	ASSERT(text);
	json_decref(j);
	int rc = write_private(s->authfile, text, e);
	mem_wipe(text, strlen(text));
	free(text);
	return rc;
}

/* Mirrors are of docker.io, as docker's own option has it. */
static int write_mirrors(struct skopeo *s, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	buf_puts(&b, "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n");
	for (size_t k = 0; k < s->im->mirrors.n; k++) {
		const char *m = s->im->mirrors.v[k];
		bool plain = str_has_prefix(m, "http://");
		if (plain || str_has_prefix(m, "https://"))
			m += plain ? 7 : 8;
		CLEANUP_FREE char *place = xstrdup(m);
		size_t n = strlen(place);
		if (n && place[n - 1] == '/')
			place[n - 1] = 0;
		if (strpbrk(place, "\"\\\n"))
			return err_set(
			    e, ERR_INVALID, "registry mirror \"%s\" is not an address", s->im->mirrors.v[k]);
		CLEANUP_FREE char *host = xstrndup(place, strcspn(place, "/"));
		buf_printf(&b, "[[registry.mirror]]\nlocation = \"%s\"\ninsecure = %s\n", place,
		    plain || is_insecure(s->im, host) ? "true" : "false");
	}
	/* Where a user has it; the directory is HOME. The host's own file is not looked at then. */
	CLEANUP_FREE char *folder = fs_path(s->dir, ".config/containers");
	CLEANUP_FREE char *path = fs_path(folder, "registries.conf");
	int rc = fs_mkdir_p(folder, 0700, e);
	return rc < 0 ? rc : write_private(path, b.data, e);
}

int skopeo_open(struct images *im, const char *domain, const char *auth, struct skopeo **ret, struct err *e)
{
	struct skopeo *s = NEW(struct skopeo);
	s->im = im;
	images_hold(im);
	s->insecure = is_insecure(im, domain);
	s->dir = xasprintf("%s/skopeo-%016llx", im->tmp_dir, (unsigned long long)rng_u64(rng_system()));
	s->authfile = fs_path(s->dir, "auth.json");
	int rc = mkdir(s->dir, 0700) < 0 ? err_errno(e, errno, "cannot create %s", s->dir) : 0;
	if (rc == 0)
		rc = write_auth(s, domain, auth, e);
	if (rc == 0 && im->mirrors.n && str_eq(domain, "docker.io"))
		rc = write_mirrors(s, e);
	if (rc < 0) {
		skopeo_close(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void skopeo_close(struct skopeo *s)
{
	if (!s)
		return;
	ASSERT(!s->proc);
	struct images *im = s->im;
	unlink(s->authfile);
	layers_trash(im->layers, s->dir);
	images_sweep(im);
	free(s->dir);
	free(s->authfile);
	free(s);
	images_release(im);
}

const char *skopeo_dir(const struct skopeo *s)
{
	return s->dir;
}

/* --- running */

/* The text of the last level=fatal msg="..." of what it printed, or its last line. */
static char *fatal_text(const struct buf *b)
{
	const char *text = b->data ? b->data : "", *at = NULL;
	for (const char *p = text; (p = strstr(p, "level=fatal msg=\"")); p++)
		at = p;
	struct buf out = BUF_INIT;
	if (!at) {
		const char *end = text + strlen(text);
		while (end > text && (end[-1] == '\n' || end[-1] == ' '))
			end--;
		const char *start = end;
		while (start > text && start[-1] != '\n')
			start--;
		buf_append(&out, start, (size_t)(end - start));
		return buf_take(&out, NULL);
	}
	for (const char *p = at + strlen("level=fatal msg=\""); *p && *p != '"'; p++) {
		if (*p == '\\' && p[1])
			p++;
		buf_putc(&out, *p);
	}
	return buf_take(&out, NULL);
}

static void on_ended(void *data, const struct proc_result *r)
{
	struct skopeo *s = data;
	struct err e = ERR_INIT;
	s->proc = NULL;
	if (s->killed)
		err_set(&e, ERR_CANCELLED, "cancelled");
	else if (r->timed_out)
		err_set(&e, ERR_TIMEOUT, "the registry did not answer in time");
	else if (r->exit_code == 127)
		err_set(&e, ERR_UNAVAILABLE, "registries need skopeo: install the package skopeo");
	else if (r->exit_code != 0) {
		CLEANUP_FREE char *text = fatal_text(&r->err);
		err_set(&e, ERR_INTERNAL, "%s", *text ? text : "skopeo failed without a word");
	}
	/* The owner may close s in its callback. */
	s->done(s->data, e.code, &r->out, &e);
}

static void forward_line(void *data, bool is_stderr, const char *line, size_t len)
{
	struct skopeo *s = data;
	s->on_line(s->data, is_stderr, line, len);
}

static void add_env(struct strlist *env, const char *name)
{
	const char *v = getenv(name);
	if (v)
		strlist_addf(env, "%s=%s", name, v);
}

int skopeo_run(struct skopeo *s, const struct skopeo_opts *o, struct err *e)
{
	ASSERT(!s->proc);
	CLEANUP_STRLIST struct strlist argv = STRLIST_INIT, env = STRLIST_INIT;
	/* It must not outlive this process: the next one empties the directory that it writes into. */
	strlist_add(&argv, "setpriv");
	strlist_add(&argv, "--pdeathsig=KILL");
	strlist_add(&argv, "skopeo");
	strlist_addf(&argv, "--tmpdir=%s", s->dir);
	if (!fs_exists(POLICY))
		strlist_add(&argv, "--insecure-policy");
	strlist_add(&argv, o->command);
	strlist_addf(&argv, "--authfile=%s", s->authfile);
	if (s->insecure)
		strlist_addf(&argv, "%s=false", o->tls_option);
	for (size_t k = 0; o->args && k < o->args->n; k++)
		strlist_add(&argv, o->args->v[k]);
	static const char *const kept[] = {"PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
	    "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"};
	for (size_t k = 0; k < ARRAY_LEN(kept); k++)
		add_env(&env, kept[k]);
	strlist_addf(&env, "HOME=%s", s->dir);
	strlist_addf(&env, "XDG_RUNTIME_DIR=%s", s->dir);
	CLEANUP_FREE char **av = strlist_argv(&argv);
	CLEANUP_FREE char **ev = strlist_argv(&env);
	struct proc_opts po = {
	    .argv = av,
	    .env = ev,
	    .cwd = s->dir,
	    .stdin_data = o->stdin_data,
	    .stdin_len = o->stdin_data ? strlen(o->stdin_data) : 0,
	    .max_output = o->max_output,
	    .timeout_ms = o->timeout_ms,
	    .own_session = true,
	    .on_line = o->on_line ? forward_line : NULL,
	    .on_exit = on_ended,
	    .data = s,
	};
	s->done = o->done;
	s->data = o->data;
	s->killed = false;
	s->on_line = o->on_line;
	if (proc_run(s->im->loop, &po, &s->proc, e) < 0)
		return err_wrap(e, "cannot start skopeo");
	return 0;
}

void skopeo_kill(struct skopeo *s)
{
	if (!s->proc)
		return;
	s->killed = true;
	proc_kill(s->proc, SIGKILL);
}

/* --- words */

static bool has(const struct err *e, const char *text)
{
	return strstr(e->text, text) != NULL;
}

/* Cuts skopeo's own framing off the front. */
static void strip(struct err *e, const char *upto)
{
	char *at = strstr(e->text, upto);
	if (at)
		memmove(e->text, at + strlen(upto), strlen(at + strlen(upto)) + 1);
}

void skopeo_explain(const char *familiar, const char *repository, struct err *e)
{
	if (e->code != ERR_INTERNAL)
		return;
	if (has(e, "manifest unknown") || has(e, "name unknown") || has(e, "repository name not known")) {
		err_set(e, ERR_NOT_FOUND, "manifest for %s not found: manifest unknown: manifest unknown",
		    familiar);
		return;
	}
	if (has(e, "unauthorized") || has(e, "authentication required") || has(e, "denied") ||
	    has(e, "invalid username/password")) {
		err_set(e, ERR_NOT_FOUND,
		    "pull access denied for %s, repository does not exist or may require 'docker login': "
		    "denied: "
		    "requested access to the resource is denied",
		    repository);
		return;
	}
	strip(e, "pinging container registry ");
	strip(e, ": Get ");
	if (str_has_prefix(e->text, "\"http")) {
		CLEANUP_FREE char *url = xstrdup(e->text);
		err_set(e, ERR_INTERNAL, "Get %s", url);
	}
	if (has(e, "server gave HTTP response to HTTPS client"))
		err_set(e, ERR_INTERNAL,
		    "the registry of %s speaks HTTP without TLS: start the daemon with --insecure-registry "
		    "for it",
		    familiar);
	else if (has(e, "no space left on device"))
		e->code = ERR_IO;
}
