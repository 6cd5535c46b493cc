/* Pulling from a real registry (Debian's docker-registry on the loopback), seeded by skopeo. */
#include "test_images.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agent/image_registry.h"

struct registry {
	pid_t pid;
	unsigned port;
	char dir[64];
};

static unsigned free_port(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 &&
		    getsockname(fd, (struct sockaddr *)&a, &n) == 0);
	close(fd);
	return ntohs(a.sin_port);
}

static bool answers(unsigned port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET,
	    .sin_port = htons((uint16_t)port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
	close(fd);
	return ok;
}

/* `user` NULL: for everybody. `bcrypt` is the password's hash. */
static void registry_start(struct registry *r, const char *user, const char *bcrypt)
{
	strcpy(r->dir, "/tmp/shoal-registry-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	r->port = free_port();
	CLEANUP_FREE char *config = xasprintf("%s/config.yml", r->dir);
	CLEANUP_FREE char *users = xasprintf("%s/htpasswd", r->dir);
	CLEANUP_BUF struct buf b = BUF_INIT;
	buf_printf(&b,
	    "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
	    "storage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: \"127.0.0.1:%u\"}\n",
	    r->dir, r->port);
	if (user) {
		CLEANUP_FREE char *line = xasprintf("%s:%s\n", user, bcrypt);
		assert_int_equal(fs_write_atomic(users, line, strlen(line), 0600, NULL), 0);
		buf_printf(&b, "auth: {htpasswd: {realm: test, path: %s}}\n", users);
	}
	assert_int_equal(fs_write_atomic(config, b.data, b.len, 0600, NULL), 0);
	r->pid = fork();
	if (r->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		dup2(null, 2);
		execlp("docker-registry", "docker-registry", "serve", config, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 1000 && !answers(r->port); i++)
		usleep(10000);
	assert_true(answers(r->port));
}

static void registry_stop(struct registry *r)
{
	kill(r->pid, SIGKILL);
	waitpid(r->pid, NULL, 0);
	fs_remove_tree(r->dir, NULL);
}

static void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *fmt, ...)
{
	char *cmd;
	va_list ap;
	va_start(ap, fmt);
	assert_true(vasprintf(&cmd, fmt, ap) > 0);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("%s", cmd);
	free(cmd);
}

/* Pushes an image of two layers, the upper one by `salt`. `creds` may be "". */
static void seed(const struct registry *r, const char *name, const char *salt, const char *creds)
{
	struct buf layers[2] = {BUF_INIT, BUF_INIT}, b = BUF_INIT;
	tar_file(&layers[0], "base", "the same for all\n");
	tar_end(&layers[0]);
	tar_file(&layers[1], "top", salt);
	tar_end(&layers[1]);
	docker_archive(&b, layers, 2, NULL, salt);
	CLEANUP_FREE char *path = xasprintf("%s/seed.tar", r->dir);
	assert_int_equal(fs_write_atomic(path, b.data, b.len, 0600, NULL), 0);
	shell("skopeo copy -q --insecure-policy --dest-tls-verify=false %s docker-archive:%s "
	      "docker://127.0.0.1:%u/%s",
	    creds, path, r->port, name);
	buf_done(&layers[0]);
	buf_done(&layers[1]);
	buf_done(&b);
}

static struct image_op *pull_start(
    struct store_fix *f, const char *ref, const char *auth, struct store_op *op)
{
	struct image_op *o = NULL;
	struct err e = ERR_INIT;
	store_op_done(op);
	if (images_pull(f->im, ref, auth, store_progress, store_done, op, &o, &e) < 0)
		fail_msg("%s", e.text);
	assert_false(op->done);
	return o;
}

static int pull(struct store_fix *f, const char *ref, const char *auth, struct store_op *op)
{
	pull_start(f, ref, auth, op);
	return store_wait(f, op);
}

static void pull_ok(struct store_fix *f, const char *ref, struct store_op *op)
{
	if (pull(f, ref, NULL, op))
		fail_msg("%s: %s", ref, op->e.text);
}

static void test_pull(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op op = {.done = false};
	registry_start(&r, NULL, NULL);
	seed(&r, "app:1", "one", "");
	seed(&r, "app:2", "two", "");
	CLEANUP_FREE char *ref = xasprintf("127.0.0.1:%u/app:1", r.port);
	CLEANUP_FREE char *ref2 = xasprintf("127.0.0.1:%u/app:2", r.port);
	pull_ok(f, ref, &op);
	assert_true(store_said(&op, "{\"status\":\"Pulling from app\",\"id\":\"1\"}"));
	assert_true(store_said(&op, "Pulling fs layer") && store_said(&op, "Download complete") &&
		    store_said(&op, "Extracting") && store_said(&op, "Pull complete"));
	assert_true(store_said(&op, "Status: Downloaded newer image for 127.0.0.1"));
	struct image *i = store_find(f, ref);
	assert_int_equal(i->repo_digests.n, 1);
	CLEANUP_FREE char *digest = xstrdup(i->repo_digests.v[0]);
	CLEANUP_BUF struct buf manifest = BUF_INIT;
	char is[IMAGE_DIGEST_LEN + 1];
	assert_int_equal(images_read_manifest(f->im, i->id, &manifest, NULL), 0);
	image_digest(manifest.data, manifest.len, is);
	assert_non_null(strstr(digest, is));
	image_unref(i);
	pull_ok(f, ref, &op);
	assert_true(store_said(&op, "Image is up to date for"));
	assert_false(store_said(&op, "Pulling fs layer"));
	/* Only what is missing is fetched. */
	pull_ok(f, ref2, &op);
	assert_true(store_said(&op, "Already exists") && store_said(&op, "Pull complete"));
	size_t extracted = 0;
	for (size_t k = 0; k < op.lines.n; k++)
		extracted += strstr(op.lines.v[k], "Pull complete") != NULL;
	assert_int_equal(extracted, 1);
	assert_int_equal(store_count(f, "layers"), 3);
	/* By digest it is here: no registry is asked. */
	registry_stop(&r);
	pull_ok(f, digest, &op);
	assert_true(store_said(&op, "Image is up to date"));
	CLEANUP_FREE char *both = xasprintf("%s%s", ref, strchr(digest, '@'));
	pull_ok(f, both, &op);
	assert_int_equal(pull(f, ref, NULL, &op), ERR_INTERNAL);
	assert_non_null(strstr(op.e.text, "connection refused"));
	store_op_done(&op);
	/* Nothing of it is left. */
	json_t *gone;
	int64_t bytes;
	assert_int_equal(images_prune(f->im, false, NULL, NULL, &gone, &bytes, NULL), 0);
	json_decref(gone);
	store_assert_empty(f);
	assert_int_equal(store_count(f, "images/manifests"), 0);
}

static void test_shared(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op ops[8];
	memset(ops, 0, sizeof(ops));
	registry_start(&r, NULL, NULL);
	seed(&r, "app:1", "one", "");
	CLEANUP_FREE char *ref = xasprintf("127.0.0.1:%u/app:1", r.port);
	struct image_op *handles[8];
	for (size_t k = 0; k < 8; k++)
		handles[k] = pull_start(f, ref, NULL, &ops[k]);
	image_op_cancel(handles[3]);
	for (size_t k = 0; k < 8; k++) {
		int rc = store_wait(f, &ops[k]);
		assert_int_equal(rc, k == 3 ? ERR_CANCELLED : 0);
	}
	size_t pulls = 0;
	for (size_t k = 0; k < f->events.n; k++)
		pulls += str_has_prefix(f->events.v[k], "pull ");
	assert_int_equal(pulls, 1);
	/* All of them cancelled, at different moments: nothing stays. */
	json_t *gone;
	assert_int_equal(images_remove(f->im, ref, false, &gone, NULL), 0);
	json_decref(gone);
	for (unsigned ms = 0; ms < 400; ms += 20) {
		bool never = false;
		struct image_op *a = pull_start(f, ref, NULL, &ops[0]),
				*b = pull_start(f, ref, NULL, &ops[1]);
		test_loop_until(&f->loop, test_loop_flag, &never, ms + 1);
		bool late = ops[0].done;
		if (!late) {
			image_op_cancel(a);
			image_op_cancel(b);
		}
		store_wait(f, &ops[0]);
		store_wait(f, &ops[1]);
		assert_int_equal(ops[0].e.code, late ? 0 : ERR_CANCELLED);
		if (late) {
			assert_int_equal(images_remove(f->im, ref, false, &gone, NULL), 0);
			json_decref(gone);
		}
		store_assert_empty(f);
	}
	/* And once more to the end. */
	pull_ok(f, ref, &ops[0]);
	for (size_t k = 0; k < 8; k++)
		store_op_done(&ops[k]);
	registry_stop(&r);
}

static void test_errors(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op op = {.done = false};
	registry_start(&r, NULL, NULL);
	seed(&r, "app:1", "one", "");
	CLEANUP_FREE char *tag = xasprintf("127.0.0.1:%u/app:9", r.port);
	assert_int_equal(pull(f, tag, NULL, &op), ERR_NOT_FOUND);
	CLEANUP_FREE char *text =
	    xasprintf("manifest for %s not found: manifest unknown: manifest unknown", tag);
	assert_string_equal(op.e.text, text);
	assert_int_equal(op.lines.n, 0); /* so that the API can still answer with a status */
	CLEANUP_FREE char *name = xasprintf("127.0.0.1:%u/none", r.port);
	assert_int_equal(pull(f, name, NULL, &op), ERR_NOT_FOUND);
	struct err e = ERR_INIT;
	assert_int_equal(images_pull(f->im, "No Name", NULL, NULL, store_done, &op, NULL, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, "invalid reference format"));
	/* An image whose layer is not what its config says. */
	shell("cd %s && skopeo copy -q --insecure-policy --src-tls-verify=false docker://127.0.0.1:%u/app:1 "
	      "dir:bad && "
	      "python3 - <<'END'\n"
	      "import json,hashlib\n"
	      "m=json.load(open('bad/manifest.json'))\n"
	      "m['layers'].reverse()\n"
	      "json.dump(m,open('bad/manifest.json','w'))\n"
	      "END\n"
	      "skopeo copy -q --insecure-policy --dest-tls-verify=false dir:bad docker://127.0.0.1:%u/bad:1",
	    r.dir, r.port, r.port);
	CLEANUP_FREE char *bad = xasprintf("127.0.0.1:%u/bad:1", r.port);
	assert_int_equal(pull(f, bad, NULL, &op), ERR_CORRUPT);
	assert_non_null(strstr(op.e.text, "layer 1 of 2"));
	store_assert_empty(f);
	store_op_done(&op);
	registry_stop(&r);
}

/* A list with an entry for another machine: the image is known by the list's digest. */
static void test_list(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op op = {.done = false};
	registry_start(&r, NULL, NULL);
	seed(&r, "app:mine", "one", "");
	shell("cd %s && python3 - <<'END'\n"
	      "import json,hashlib,urllib.request,platform\n"
	      "u='http://127.0.0.1:%u/v2/app/manifests/'\n"
	      "t='application/vnd.docker.distribution.manifest.v2+json'\n"
	      "raw=urllib.request.urlopen(urllib.request.Request(u+'mine',headers={'Accept':t})).read()\n"
	      "d={'mediaType':t,'size':len(raw),'digest':'sha256:'+hashlib.sha256(raw).hexdigest()}\n"
	      "arch={'x86_64':'amd64','aarch64':'arm64'}[platform.machine()]\n"
	      "l={'schemaVersion':2,'mediaType':'application/"
	      "vnd.docker.distribution.manifest.list.v2+json','manifests':["
	      "dict(d,platform={'os':'linux','architecture':'s390x'}),dict(d,platform={'os':'linux','"
	      "architecture':arch})]}\n"
	      "q=urllib.request.Request(u+'list',data=json.dumps(l).encode(),method='PUT',headers={'Content-"
	      "Type':l['mediaType']})\n"
	      "print(urllib.request.urlopen(q).headers['Docker-Content-Digest'],end='',file=open('digest','w'"
	      "))\n"
	      "l['manifests']=l['manifests'][:1]\n"
	      "q=urllib.request.Request(u+'other',data=json.dumps(l).encode(),method='PUT',headers={'Content-"
	      "Type':l['mediaType']})\n"
	      "urllib.request.urlopen(q)\n"
	      "END\n",
	    r.dir, r.port);
	CLEANUP_FREE char *ref = xasprintf("127.0.0.1:%u/app:list", r.port);
	pull_ok(f, ref, &op);
	CLEANUP_FREE char *path = xasprintf("%s/digest", r.dir);
	CLEANUP_BUF struct buf digest = BUF_INIT;
	assert_int_equal(fs_read(path, 100, &digest, NULL), 0);
	struct image *i = store_find(f, ref);
	assert_int_equal(i->repo_digests.n, 1);
	assert_non_null(strstr(i->repo_digests.v[0], digest.data));
	image_unref(i);
	CLEANUP_FREE char *other = xasprintf("127.0.0.1:%u/app:other", r.port);
	assert_int_equal(pull(f, other, NULL, &op), ERR_NOT_FOUND);
	assert_non_null(strstr(op.e.text, "no matching manifest for linux/"));
	store_op_done(&op);
	registry_stop(&r);
}

struct answer {
	bool done;
	json_t *result;
	struct err e;
};

static void on_answer(void *data, const json_t *result, const struct err *e)
{
	struct answer *a = data;
	assert_false(a->done);
	a->done = true;
	json_decref(a->result);
	a->result = json_deep_copy(result);
	a->e = *e;
}

static int wait_answer(struct store_fix *f, struct answer *a)
{
	assert_true(test_loop_until(&f->loop, test_loop_flag, &a->done, 60000));
	a->done = false;
	return a->e.code;
}

static char *auth_header(const char *user, const char *password)
{
	CLEANUP_FREE char *json = xasprintf("{\"username\":\"%s\",\"password\":\"%s\"}", user, password);
	char *text = str_base64(json, strlen(json));
	for (char *p = text; *p; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	return text;
}

static void test_auth(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op op = {.done = false};
	struct answer a = {.done = false};
	struct err e = ERR_INIT;
	registry_start(&r, "me", "$2b$05$abcdefghijklmnopqrstuuIsJngZPTEZqiX0KTw2Y8UT8xFScIpru");
	seed(&r, "app:1", "one", "--dest-creds 'me:s3cret>?~'");
	CLEANUP_FREE char *ref = xasprintf("127.0.0.1:%u/app:1", r.port);
	CLEANUP_FREE char *host = xasprintf("127.0.0.1:%u", r.port);
	CLEANUP_FREE char *good = auth_header("me", "s3cret>?~");
	CLEANUP_FREE char *wrong = auth_header("me", "wrong");
	assert_int_equal(pull(f, ref, NULL, &op), ERR_NOT_FOUND);
	assert_non_null(strstr(op.e.text,
	    "pull access denied for app, repository does not exist or may require 'docker login'"));
	assert_int_equal(pull(f, ref, wrong, &op), ERR_NOT_FOUND);
	assert_null(strstr(op.e.text, "wrong"));
	assert_int_equal(pull(f, ref, "e30=", &op), ERR_NOT_FOUND);
	assert_int_equal(pull(f, ref, "%%% no base64", &op), ERR_NOT_FOUND);
	assert_int_equal(images_distribution(f->im, ref, good, on_answer, &a, &e), 0);
	assert_int_equal(wait_answer(f, &a), 0);
	assert_true(image_digest_valid(
	    json_string_value(json_object_get(json_object_get(a.result, "Descriptor"), "digest"))));
	assert_int_equal(json_array_size(json_object_get(a.result, "Platforms")), 1);
	assert_int_equal(images_distribution(f->im, ref, wrong, on_answer, &a, &e), 0);
	assert_int_equal(wait_answer(f, &a), ERR_NOT_FOUND);
	if (pull(f, ref, good, &op))
		fail_msg("%s", op.e.text);
	/* The credentials are on no disk any more. */
	for (int k = 0; k < 500 && store_count(f, "images/tmp"); k++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(10000);
	}
	assert_int_equal(store_count(f, "images/tmp"), 0);
	CLEANUP_FREE char *url = xasprintf("http://%s/v1/", host);
	assert_int_equal(images_login(f->im, url, "me", "s3cret>?~", on_answer, &a, &e), 0);
	assert_int_equal(wait_answer(f, &a), 0);
	assert_string_equal(json_string_value(json_object_get(a.result, "Status")), "Login Succeeded");
	assert_int_equal(images_login(f->im, host, "me", "wrong", on_answer, &a, &e), 0);
	assert_int_equal(wait_answer(f, &a), ERR_UNAUTHORIZED);
	assert_int_equal(images_login(f->im, host, "", "x", on_answer, &a, &e), ERR_INVALID);
	assert_int_equal(images_login(f->im, "-evil --x", "me", "x", on_answer, &a, &e), ERR_INVALID);
	store_op_done(&op);
	json_decref(a.result);
	registry_stop(&r);
}

static void test_mirror(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op op = {.done = false};
	registry_start(&r, NULL, NULL);
	seed(&r, "library/app:1", "one", "");
	store_close(f);
	strlist_addf(&f->mirrors, "http://127.0.0.1:%u/", r.port);
	store_open(f);
	pull_ok(f, "app:1", &op);
	assert_true(store_said(&op, "Status: Downloaded newer image for app:1"));
	assert_true(store_has(f, "app:1"));
	store_op_done(&op);
	registry_stop(&r);
}

static void test_close_while_pulling(void **state)
{
	struct store_fix *f = *state;
	struct registry r;
	struct store_op op = {.done = false};
	registry_start(&r, NULL, NULL);
	seed(&r, "app:1", "one", "");
	CLEANUP_FREE char *ref = xasprintf("127.0.0.1:%u/app:1", r.port);
	for (unsigned ms = 0; ms < 300; ms += 30) {
		bool never = false;
		pull_start(f, ref, NULL, &op);
		test_loop_until(&f->loop, test_loop_flag, &never, ms + 1);
		store_close(f);
		assert_true(op.done);
		store_open(f);
		if (store_has(f, ref)) {
			json_t *gone;
			assert_int_equal(images_remove(f->im, ref, false, &gone, NULL), 0);
			json_decref(gone);
		}
		store_assert_empty(f);
	}
	store_op_done(&op);
	registry_stop(&r);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, store_setup, store_teardown)
	const struct CMUnitTest tests[] = {
	    T(test_pull),
	    T(test_shared),
	    T(test_errors),
	    T(test_list),
	    T(test_auth),
	    T(test_mirror),
	    T(test_close_while_pulling),
	};
	if (system("command -v docker-registry skopeo python3 >/dev/null") != 0) {
		fputs("SKIP: docker-registry, skopeo or python3 is missing (scripts/deps installs them)\n",
		    stderr);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
