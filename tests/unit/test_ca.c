/* Joining and renewing over loopback TLS, as a joiner does it: root by digest, then a certificate by token.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>

#include "base/str.h"
#include "manager/ca/ca.h"
#include "proto/control.pb-c.h"
#include "test_cluster.h"
#include "test_loop.h"

struct fixture {
	uv_loop_t loop;
	struct test_cluster c;
	struct tls_listener *l;
	struct rpc_server *server;
	struct ca *ca;
	bool closed[2];
};

static int propose(void *data, const struct txn *t, void (*cb)(void *d, int status, const struct err *e),
    void *cb_data, struct err *e)
{
	return test_propose(data, t, cb, cb_data, e);
}

static int on_accept(void *data, struct tls_conn *c, const struct tls_peer *peer)
{
	rpc_server_serve(((struct fixture *)data)->server, c, peer);
	return 0;
}

static void set_flag(void *data)
{
	*(bool *)data = true;
}

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_OFF);
	uv_loop_init(&f->loop);
	f->c.loop = &f->loop;
	f->c.store = store_new();
	struct err e = ERR_INIT;
	Pb__Cluster *cl = PB_NEW(Pb__Cluster, pb__cluster);
	cl->id = xstrdup("cluster1");
	cl->spec = PB_NEW(Pb__ClusterSpec, pb__cluster_spec);
	cl->spec->name = xstrdup("default");
	assert_int_equal(ca_cluster_init(cl, clock_unix_ns(clock_system()), rng_system(), &e), 0);
	f->c.ca.cert = xstrdup(cl->root_ca_cert);
	f->c.ca.key_len = cl->root_ca_key.len;
	f->c.ca.key = xmemdup(cl->root_ca_key.data, cl->root_ca_key.len);
	test_create(&f->c, OBJ(CLUSTER), cl);
	f->ca = ca_new(&(struct ca_opts){.store = f->c.store,
	    .clock = clock_system(),
	    .rng = rng_system(),
	    .propose = propose,
	    .data = &f->c});
	f->server = rpc_server_new(&f->loop);
	size_t n;
	const struct rpc_method *m = ca_methods(f->ca, &n);
	rpc_server_add(f->server, m, n);
	struct tls_ctx *ctx = test_ctx_node(&f->c.ca, "manager1", PKI_ROLE_MANAGER, true);
	assert_int_equal(tls_listen(&f->loop, ctx, "127.0.0.1", 0, on_accept, f, &f->l, &e), 0);
	tls_ctx_unref(ctx);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	tls_listener_close(f->l, set_flag, &f->closed[0]);
	rpc_server_close(f->server, set_flag, &f->closed[1]);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &f->closed[1], 5000));
	ca_free(f->ca);
	assert_true(test_loop_end(&f->loop));
	test_cluster_done(&f->c);
	free(f);
	return 0;
}

/* --- calls */

struct issued {
	bool done;
	struct err e;
	char node_id[64];
	Pb__NodeRole__E role;
	char *cert, *root;
};

static void on_root(void *data, const ProtobufCMessage *m, const struct err *e)
{
	struct issued *r = data;
	r->done = true;
	r->e = *e;
	if (m)
		r->root = xstrdup(((const Pb__GetRootCAResponse *)m)->certificate);
}

static void on_issued(void *data, const ProtobufCMessage *msg, const struct err *e)
{
	struct issued *r = data;
	const Pb__IssueCertificateResponse *m = (const Pb__IssueCertificateResponse *)msg;
	r->done = true;
	r->e = *e;
	if (!m)
		return;
	snprintf(r->node_id, sizeof(r->node_id), "%s", m->node_id);
	r->role = m->role;
	r->cert = xstrdup(m->certificate);
	r->root = xstrdup(m->root_ca);
}

static void issued_done(struct issued *r)
{
	free(r->cert);
	free(r->root);
	memset(r, 0, sizeof(*r));
}

static struct rpc_client *client(struct fixture *f, struct tls_ctx *ctx)
{
	struct rpc_client *c = rpc_client_new(&f->loop, ctx, "127.0.0.1", tls_listener_port(f->l));
	tls_ctx_unref(ctx);
	return c;
}

static void client_done(struct fixture *f, struct rpc_client *c)
{
	bool closed = false;
	rpc_client_close(c, set_flag, &closed);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &closed, 5000));
}

/* Asks with a key of its own, and waits. */
static void ask(struct fixture *f, struct tls_ctx *ctx, const char *token, char **ret_key, struct issued *ret)
{
	struct rpc_client *c = client(f, ctx);
	Pb__IssueCertificateRequest q = PB__ISSUE_CERTIFICATE_REQUEST__INIT;
	CLEANUP_FREE char *key = NULL;
	struct err e = ERR_INIT;
	issued_done(ret);
	assert_int_equal(pki_key_new(&key, &e), 0);
	assert_int_equal(pki_csr_new(key, &q.csr.data, &q.csr.len, &e), 0);
	q.token = (char *)(uintptr_t)token;
	assert_int_equal(rpc_unary(c, "/shoal.CA/IssueCertificate", &q,
			     &pb__issue_certificate_response__descriptor, 5000, on_issued, ret, &e),
	    0);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &ret->done, 6000));
	free(q.csr.data);
	if (ret_key)
		*ret_key = TAKE_PTR(key);
	client_done(f, c);
}

static const Pb__JoinTokens *tokens(struct fixture *f)
{
	return store_cluster(f->c.store)->join_tokens;
}

/* --- tests */

static void test_join(void **state)
{
	struct fixture *f = *state;
	struct issued r = {.done = false};
	/* as the joiner: it trusts nobody yet, so it asks for the root and compares with the token */
	struct rpc_client *c = client(f, test_ctx_new(NULL, NULL, false, false));
	Pb__GetRootCARequest q = PB__GET_ROOT_CAREQUEST__INIT;
	struct err e = ERR_INIT;
	assert_int_equal(rpc_unary(c, "/shoal.CA/GetRootCA", &q, &pb__get_root_caresponse__descriptor, 5000,
			     on_root, &r, &e),
	    0);
	assert_true(test_loop_until(&f->loop, test_loop_flag, &r.done, 6000));
	client_done(f, c);
	struct pki_token t;
	assert_int_equal(pki_token_parse(tokens(f)->worker, &t, &e), 0);
	assert_true(pki_token_is_for(&t, r.root));
	assert_false(pki_secret_equal(tokens(f)->worker, tokens(f)->manager));

	CLEANUP_FREE char *key = NULL;
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), tokens(f)->worker, &key, &r);
	assert_int_equal(r.e.code, 0);
	assert_int_equal(r.role, PB__NODE_ROLE__E__WORKER);
	const struct object *o = store_get(f->c.store, OBJ(NODE), r.node_id);
	assert_non_null(o);
	assert_int_equal(o->node->spec->role, PB__NODE_ROLE__E__WORKER);
	struct pki_cert_info info;
	int64_t now = clock_unix_ns(clock_system());
	assert_int_equal(pki_cert_info(r.cert, &info, &e), 0);
	assert_string_equal(info.node_id, r.node_id);
	assert_string_equal(info.role, PKI_ROLE_WORKER);
	assert_string_equal(info.cluster_id, "cluster1");
	assert_int_equal(
	    (info.not_after_ns - now) / (86400 * NS_PER_SEC), 89); /* 90 days less some seconds */
	assert_int_equal(pki_verify(r.cert, f->c.ca.cert, now, &e), 0);
	assert_int_equal(pki_key_matches(r.cert, key, &e), 0);
	assert_string_equal(r.root, f->c.ca.cert);

	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), tokens(f)->manager, NULL, &r);
	assert_int_equal(r.e.code, 0);
	assert_int_equal(r.role, PB__NODE_ROLE__E__MANAGER);
	assert_int_equal(store_count(f->c.store, OBJ(NODE)), 2);
	issued_done(&r);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct issued r = {.done = false};
	char wrong[PKI_TOKEN_LEN + 1];
	pki_token_new(rng_system(), f->c.ca.cert, wrong); /* of this root, another secret */
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), wrong, NULL, &r);
	assert_int_equal(r.e.code, ERR_UNAUTHORIZED);
	snprintf(wrong, sizeof(wrong), "%s", tokens(f)->worker);
	wrong[12] = wrong[12] == 'a' ? 'b' : 'a'; /* another root, the right secret */
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), wrong, NULL, &r);
	assert_int_equal(r.e.code, ERR_UNAUTHORIZED);
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), "rubbish", NULL, &r);
	assert_int_equal(r.e.code, ERR_INVALID);
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), NULL, NULL, &r);
	assert_int_equal(r.e.code, ERR_UNAUTHORIZED);
	assert_int_equal(store_count(f->c.store, OBJ(NODE)), 0);
	/* a good token without a leader: no node, no certificate */
	f->c.refuse = true;
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), tokens(f)->worker, NULL, &r);
	assert_int_equal(r.e.code, ERR_UNAVAILABLE);
	f->c.refuse = false;
	f->c.fail_with = ERR_UNAVAILABLE;
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), tokens(f)->worker, NULL, &r);
	assert_int_equal(r.e.code, ERR_UNAVAILABLE);
	assert_null(r.cert);
}

static void test_renew(void **state)
{
	struct fixture *f = *state;
	struct issued r = {.done = false};
	struct err e = ERR_INIT;
	test_add_node(&f->c, "node7");
	ask(f, test_ctx_node(&f->c.ca, "node7", PKI_ROLE_WORKER, false), NULL, NULL, &r);
	assert_int_equal(r.e.code, 0);
	assert_string_equal(r.node_id, "node7");
	/* promoted meanwhile: the role is what the store says, whatever the old certificate was */
	Pb__Node *n = pb_clone(store_get(f->c.store, OBJ(NODE), "node7")->node);
	n->spec->role = PB__NODE_ROLE__E__MANAGER;
	test_update(&f->c, OBJ(NODE), n);
	ask(f, test_ctx_node(&f->c.ca, "node7", PKI_ROLE_WORKER, false), NULL, NULL, &r);
	struct pki_cert_info info;
	assert_int_equal(pki_cert_info(r.cert, &info, &e), 0);
	assert_string_equal(info.role, PKI_ROLE_MANAGER);
	/* a removed node is not renewed */
	test_delete(&f->c, OBJ(NODE), "node7");
	ask(f, test_ctx_node(&f->c.ca, "node7", PKI_ROLE_WORKER, false), NULL, NULL, &r);
	assert_int_equal(r.e.code, ERR_FORBIDDEN);
	/* nor somebody with a certificate of another root */
	struct test_ca other = test_ca_new();
	test_add_node(&f->c, "node8");
	ask(f, test_ctx_node(&other, "node8", PKI_ROLE_WORKER, false), NULL, NULL, &r);
	assert_int_equal(r.e.code, ERR_UNAUTHORIZED);
	test_ca_done(&other);
	issued_done(&r);
}

static void test_expiry(void **state)
{
	struct fixture *f = *state;
	struct issued r = {.done = false};
	struct err e = ERR_INIT;
	struct pki_cert_info info;
	int64_t now = clock_unix_ns(clock_system());
	Pb__Cluster *c = pb_clone(store_cluster(f->c.store));
	c->spec->ca_config = PB_NEW(Pb__CAConfig, pb__caconfig);
	c->spec->ca_config->has_node_cert_expiry = true;
	c->spec->ca_config->node_cert_expiry = 2 * 3600 * NS_PER_SEC;
	test_update(&f->c, OBJ(CLUSTER), c);
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), tokens(f)->worker, NULL, &r);
	assert_int_equal(pki_cert_info(r.cert, &info, &e), 0);
	assert_in_range(info.not_after_ns - now, 7100 * NS_PER_SEC, 7300 * NS_PER_SEC);
	assert_in_range(now - info.not_before_ns, 3500 * NS_PER_SEC, 3700 * NS_PER_SEC);
	c = pb_clone(store_cluster(f->c.store));
	c->spec->ca_config->node_cert_expiry = 5 * NS_PER_SEC; /* less than an hour is an hour */
	test_update(&f->c, OBJ(CLUSTER), c);
	ask(f, test_ctx_new(&f->c.ca, NULL, false, false), tokens(f)->worker, NULL, &r);
	assert_int_equal(pki_cert_info(r.cert, &info, &e), 0);
	assert_in_range(info.not_after_ns - now, 3500 * NS_PER_SEC, 3700 * NS_PER_SEC);
	issued_done(&r);
}

/* The joiner goes away while its node is being committed. */
static void test_gone(void **state)
{
	struct fixture *f = *state;
	struct issued r = {.done = false};
	struct rpc_client *c = client(f, test_ctx_new(&f->c.ca, NULL, false, false));
	Pb__IssueCertificateRequest q = PB__ISSUE_CERTIFICATE_REQUEST__INIT;
	struct err e = ERR_INIT;
	char *key;
	assert_int_equal(pki_key_new(&key, &e), 0);
	assert_int_equal(pki_csr_new(key, &q.csr.data, &q.csr.len, &e), 0);
	q.token = tokens(f)->worker;
	assert_int_equal(rpc_unary(c, "/shoal.CA/IssueCertificate", &q,
			     &pb__issue_certificate_response__descriptor, 5000, on_issued, &r, &e),
	    0);
	while (f->c.proposals == 0)
		uv_run(&f->loop, UV_RUN_ONCE);
	client_done(f, c);
	assert_int_equal(r.e.code, ERR_CANCELLED);
	free(q.csr.data);
	free(key);
	issued_done(&r);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_join), T(test_refused), T(test_renew), T(test_expiry), T(test_gone)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
