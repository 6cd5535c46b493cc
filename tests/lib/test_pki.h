/* A cluster's root and certificates for tests. */
#ifndef TEST_PKI_H
#define TEST_PKI_H

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pki.h"
#include "proto/tls.h"

struct test_ca {
	char *cert;
	uint8_t *key;
	size_t key_len;
};

struct test_id {
	char *cert, *key;
};

static inline struct test_ca test_ca_new(void)
{
	struct test_ca ca = {0};
	int r = pki_root_new(clock_unix_ns(clock_system()), &ca.cert, &ca.key, &ca.key_len, NULL);
	ASSERT(r == 0);
	return ca;
}

static inline void test_ca_done(struct test_ca *ca)
{
	free(ca->cert);
	free(ca->key);
}

/* A certificate that began an hour ago and ends in life_s seconds (negative: it is over). */
static inline struct test_id test_id_new(
    const struct test_ca *ca, const char *node_id, const char *role, int64_t life_s)
{
	struct test_id id = {0};
	uint8_t *csr;
	size_t n;
	int64_t now = clock_unix_ns(clock_system());
	int r = pki_key_new(&id.key, NULL);
	ASSERT(r == 0);
	r = pki_csr_new(id.key, &csr, &n, NULL);
	ASSERT(r == 0);
	struct pki_issue o = {.root_pem = ca->cert,
	    .root_key = ca->key,
	    .root_key_len = ca->key_len,
	    .csr = csr,
	    .csr_len = n,
	    .node_id = node_id,
	    .role = role,
	    .cluster_id = "cluster1",
	    .not_before_ns = now - 3600 * NS_PER_SEC,
	    .not_after_ns = now + life_s * NS_PER_SEC};
	r = pki_issue(&o, &id.cert, NULL);
	ASSERT(r == 0);
	free(csr);
	return id;
}

static inline void test_id_done(struct test_id *id)
{
	free(id->cert);
	free(id->key);
}

/* id NULL: anonymous; ca NULL: no verification. */
static inline struct tls_ctx *test_ctx_new(
    const struct test_ca *ca, const struct test_id *id, bool server, bool require)
{
	static const char *const alpn[] = {"h2", NULL};
	struct tls_ctx_opts o = {.cert_pem = id ? id->cert : NULL,
	    .key_pem = id ? id->key : NULL,
	    .ca_pem = ca ? ca->cert : NULL,
	    .server = server,
	    .require_peer_cert = require,
	    .alpn = alpn};
	struct tls_ctx *c;
	struct err e = ERR_INIT;
	int r = tls_ctx_new(&o, &c, &e);
	if (r)
		log_error("%s", e.text);
	ASSERT(r == 0);
	return c;
}

static inline struct tls_ctx *test_ctx_node(
    const struct test_ca *ca, const char *node_id, const char *role, bool server)
{
	struct test_id id = test_id_new(ca, node_id, role, 3600);
	struct tls_ctx *c = test_ctx_new(ca, &id, server, false);
	test_id_done(&id);
	return c;
}

#endif
