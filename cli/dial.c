/* Connecting. unix:///path is a socket of our own. tcp://host:port goes through libcurl in its connect-only
 * mode, which brings name resolution and TLS with client certificates; it is loaded with dlopen, because
 * linking it would triple the time that every command takes to start. Files default to $DOCKER_CERT_PATH,
 * else ~/.docker: ca.pem, cert.pem, key.pem. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <fcntl.h>
#include <curl/curl.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/dial.h"

#define DEFAULT_HOST "unix:///run/shoal.sock"

/* --- libcurl, by name ---------------------------------------------------------------------------- */

struct curl_calls {
	CURL *(*init)(void);
	void (*cleanup)(CURL *);
	CURLcode (*setopt)(CURL *, CURLoption, ...);
	CURLcode (*perform)(CURL *);
	CURLcode (*getinfo)(CURL *, CURLINFO, ...);
	CURLcode (*send)(CURL *, const void *, size_t, size_t *);
	CURLcode (*recv)(CURL *, void *, size_t, size_t *);
	const char *(*error)(CURLcode);
};

/* The macros of curl.h check types at compile time, and only calls by the functions' own names. */
#undef curl_easy_setopt
#undef curl_easy_getinfo

static int load_curl(struct curl_calls *c, struct err *e)
{
	static const char *const names[] = {"curl_easy_init", "curl_easy_cleanup", "curl_easy_setopt",
	    "curl_easy_perform", "curl_easy_getinfo", "curl_easy_send", "curl_easy_recv",
	    "curl_easy_strerror"};
	void *lib = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL); /* stays to the end of the program */
	if (!lib)
		return err_set(
		    e, ERR_NOT_FOUND, "tcp:// hosts need libcurl (Debian's libcurl4): %s", dlerror());
	void *fn[ARRAY_LEN(names)];
	_Static_assert(sizeof(fn) == sizeof(*c), "a name for each call");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!(fn[i] = dlsym(lib, names[i])))
			return err_set(e, ERR_NOT_FOUND, "libcurl lacks %s", names[i]);
	memcpy(c, fn, sizeof(*c));
	return 0;
}

struct curl_conn {
	struct curl_calls call;
	CURL *h;
	char error[CURL_ERROR_SIZE];
};

static char *cert_file(const char *given, const char *name)
{
	if (given)
		return xstrdup(given);
	const char *dir = getenv("DOCKER_CERT_PATH"), *home = getenv("HOME");
	if (!str_empty(dir))
		return fs_path(dir, name);
	return xasprintf("%s/.docker/%s", str_or(home, "/root"), name);
}

static void set_tls(const struct cli *c, struct curl_conn *k)
{
	CLEANUP_FREE char *ca = cert_file(c->tls_ca, "ca.pem");
	CLEANUP_FREE char *cert = cert_file(c->tls_cert, "cert.pem");
	CLEANUP_FREE char *key = cert_file(c->tls_key, "key.pem");
	k->call.setopt(k->h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	k->call.setopt(k->h, CURLOPT_SSL_VERIFYPEER, c->tls_verify ? 1L : 0L);
	k->call.setopt(k->h, CURLOPT_SSL_VERIFYHOST, c->tls_verify ? 2L : 0L);
	if (c->tls_verify)
		k->call.setopt(k->h, CURLOPT_CAINFO, ca);
	if (c->tls_cert || c->tls_key || (fs_exists(cert) && fs_exists(key))) {
		k->call.setopt(k->h, CURLOPT_SSLCERT, cert);
		k->call.setopt(k->h, CURLOPT_SSLKEY, key);
	}
}

static int dial_tcp(const struct cli *c, const char *address, struct transport *ret, struct err *e)
{
	struct curl_conn *k = NEW(struct curl_conn);
	int r = load_curl(&k->call, e);
	if (r < 0) {
		free(k);
		return r;
	}
	bool tls = c->tls || c->tls_verify;
	CLEANUP_FREE char *url = xasprintf("%s://%s", tls ? "https" : "http", address);
	k->h = k->call.init();
	k->call.setopt(k->h, CURLOPT_URL, url);
	k->call.setopt(k->h, CURLOPT_CONNECT_ONLY, 1L);
	k->call.setopt(k->h, CURLOPT_NOSIGNAL, 1L);
	k->call.setopt(k->h, CURLOPT_NOPROXY, "*");
	k->call.setopt(k->h, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
	k->call.setopt(k->h, CURLOPT_ERRORBUFFER, k->error);
	/* TLS settles on HTTP/2 otherwise, and we speak 1.1 on the connection. */
	k->call.setopt(k->h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	if (tls)
		set_tls(c, k);
	CURLcode code = k->call.perform(k->h);
	curl_socket_t fd = CURL_SOCKET_BAD;
	if (code == CURLE_OK)
		code = k->call.getinfo(k->h, CURLINFO_ACTIVESOCKET, &fd);
	if (code != CURLE_OK || fd == CURL_SOCKET_BAD) {
		r = err_set(e, ERR_UNAVAILABLE, "Cannot connect to the Shoal daemon at %s: %s", c->host,
		    str_or(k->error, k->call.error(code)));
		k->call.cleanup(k->h);
		free(k);
		return r;
	}
	*ret = (struct transport){.fd = fd, .curl = k};
	return 0;
}

/* --- unix sockets -------------------------------------------------------------------------------- */

static int dial_unix(const char *path, struct transport *ret, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, ERR_INVALID, "the socket path %s is longer than the system's limit of %zu",
		    path, sizeof(sa.sun_path) - 1);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int err = errno;
		close(fd);
		if (err == EACCES)
			return err_set(e, ERR_FORBIDDEN,
			    "no permission to use the Shoal daemon's socket %s: run this as root or as a "
			    "member of its group",
			    path);
		return err_set(e, ERR_UNAVAILABLE,
		    "Cannot connect to the Shoal daemon at unix://%s: %s. Is shoald running?", path,
		    strerror(err));
	}
	*ret = (struct transport){.fd = fd};
	return 0;
}

int transport_dial(struct cli *c, struct transport *ret, struct err *e)
{
	if (!c->host)
		c->host = xstrdup(str_or(getenv("SHOAL_HOST"), str_or(getenv("DOCKER_HOST"), DEFAULT_HOST)));
	if (!str_empty(getenv("DOCKER_TLS_VERIFY")))
		c->tls_verify = true;
	if (str_has_prefix(c->host, "unix://"))
		return dial_unix(c->host + 7, ret, e);
	if (c->host[0] == '/')
		return dial_unix(c->host, ret, e);
	if (str_has_prefix(c->host, "tcp://"))
		return dial_tcp(c, c->host + 6, ret, e);
	return err_set(
	    e, ERR_INVALID, "host \"%s\" is not understood: it is unix:///path or tcp://name:port", c->host);
}

void transport_close(struct transport *t)
{
	if (t->curl) {
		struct curl_conn *k = t->curl;
		k->call.cleanup(k->h);
		free(k);
	} else if (t->fd >= 0) {
		close(t->fd);
	}
	t->fd = -1;
	t->curl = NULL;
}

ssize_t transport_read(struct transport *t, void *p, size_t n)
{
	if (t->curl) {
		struct curl_conn *k = t->curl;
		size_t got = 0;
		CURLcode code = k->call.recv(k->h, p, n, &got);
		return code == CURLE_OK ? (ssize_t)got : code == CURLE_AGAIN ? -EAGAIN : -EIO;
	}
	ssize_t r = recv(t->fd, p, n, MSG_DONTWAIT);
	return r < 0 ? -errno : r;
}

ssize_t transport_write(struct transport *t, const void *p, size_t n)
{
	if (t->curl) {
		struct curl_conn *k = t->curl;
		size_t sent = 0;
		CURLcode code = k->call.send(k->h, p, n, &sent);
		return code == CURLE_OK ? (ssize_t)sent : code == CURLE_AGAIN ? -EAGAIN : -EPIPE;
	}
	ssize_t r = send(t->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return r < 0 ? -errno : r;
}

void transport_shutdown(struct transport *t)
{
	/* Under TLS a half-closed socket would look like a truncation; the process then sees its end with the
	 * connection. */
	struct curl_conn *k = t->curl;
	if (!k)
		shutdown(t->fd, SHUT_WR);
}
