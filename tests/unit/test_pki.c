/* Keys, certificates, tokens, sealing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/str.h"
#include "test_pki.h"

static int64_t now(void)
{
	return clock_unix_ns(clock_system());
}

static void test_root_and_node(void **state)
{
	(void)state;
	struct test_ca ca = test_ca_new(), other = test_ca_new();
	struct test_id id = test_id_new(&ca, "abc123", PKI_ROLE_MANAGER, 7200);
	struct err e = ERR_INIT;
	assert_int_equal(pki_verify(id.cert, ca.cert, now(), &e), 0);
	assert_int_equal(pki_verify(id.cert, other.cert, now(), &e), ERR_UNAUTHORIZED);
	assert_int_equal(pki_verify(id.cert, ca.cert, now() + 7300 * NS_PER_SEC, &e), ERR_UNAUTHORIZED);
	assert_non_null(strstr(e.text, "expired"));
	assert_int_equal(pki_verify(id.cert, ca.cert, now() - 7300 * NS_PER_SEC, &e), ERR_UNAUTHORIZED);
	assert_int_equal(pki_verify("", ca.cert, now(), &e), ERR_INVALID);
	assert_int_equal(pki_verify(ca.cert, ca.cert, now() + 19 * 365 * 86400 * NS_PER_SEC, NULL), 0);

	struct pki_cert_info info;
	assert_int_equal(pki_cert_info(id.cert, &info, NULL), 0);
	assert_string_equal(info.node_id, "abc123");
	assert_string_equal(info.role, PKI_ROLE_MANAGER);
	assert_string_equal(info.cluster_id, "cluster1");
	assert_in_range(info.not_after_ns - info.not_before_ns, 10799 * NS_PER_SEC, 10801 * NS_PER_SEC);
	for (uint64_t i = 0; i < 100; i++) {
		struct rng_seeded s;
		int64_t at = pki_renew_at(info.not_before_ns, info.not_after_ns, rng_from_seed(&s, i));
		assert_in_range(
		    at, info.not_before_ns + 5400 * NS_PER_SEC, info.not_before_ns + 8640 * NS_PER_SEC);
	}
	assert_int_equal(pki_key_matches(id.cert, id.key, NULL), 0);
	struct test_id id2 = test_id_new(&ca, "def", PKI_ROLE_WORKER, 10);
	assert_int_equal(pki_key_matches(id.cert, id2.key, NULL), ERR_INVALID);

	struct buf subject = BUF_INIT, key = BUF_INIT;
	assert_int_equal(pki_root_info(ca.cert, &subject, &key, NULL), 0);
	assert_non_null(memmem(subject.data, subject.len, "swarm-ca", 8));
	assert_true(key.len > 80);
	buf_done(&subject);
	buf_done(&key);
	test_id_done(&id);
	test_id_done(&id2);
	test_ca_done(&ca);
	test_ca_done(&other);
}

static void test_bad_requests(void **state)
{
	(void)state;
	struct test_ca ca = test_ca_new();
	char *key;
	uint8_t *csr;
	size_t n;
	struct err e = ERR_INIT;
	assert_int_equal(pki_key_new(&key, NULL), 0);
	assert_int_equal(pki_csr_new(key, &csr, &n, NULL), 0);
	struct pki_issue o = {.root_pem = ca.cert,
	    .root_key = ca.key,
	    .root_key_len = ca.key_len,
	    .csr = csr,
	    .csr_len = n,
	    .node_id = "n1",
	    .role = PKI_ROLE_WORKER,
	    .cluster_id = "c1",
	    .not_before_ns = now(),
	    .not_after_ns = now() + NS_PER_SEC};
	char *cert = NULL;
	for (size_t i = 0; i < n;
	     i++) { /* every truncation, every damaged byte: refused or still fine, never worse */
		o.csr_len = i;
		assert_int_not_equal(pki_issue(&o, &cert, &e), 0);
	}
	o.csr_len = n;
	for (size_t i = 0; i < n; i++) {
		csr[i] ^= 0x41;
		cert = NULL;
		int r = pki_issue(&o, &cert, &e);
		assert_true(r == 0 || r == ERR_INVALID);
		free(cert);
		csr[i] ^= 0x41;
	}
	o.node_id = "n1,DNS:evil";
	assert_int_equal(pki_issue(&o, &cert, &e), ERR_INVALID);
	o.node_id = "n1";
	o.root_key_len--;
	assert_int_equal(pki_issue(&o, &cert, &e), ERR_INVALID);
	o.csr = xcalloc(1, PKI_CSR_MAX + 1);
	o.csr_len = PKI_CSR_MAX + 1;
	assert_int_equal(pki_issue(&o, &cert, &e), ERR_TOO_LARGE);
	free((void *)o.csr);
	free(csr);

	uint8_t *der;
	char *pem;
	assert_int_equal(pki_key_to_der(key, &der, &n, NULL), 0);
	assert_int_equal(pki_key_to_pem(der, n, &pem, NULL), 0);
	assert_string_equal(pem, key);
	free(pem);
	free(der);
	free(key);
	assert_int_equal(pki_key_to_der("rubbish", &der, &n, &e), ERR_INVALID);
	struct pki_cert_info info;
	assert_int_equal(
	    pki_cert_info("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &info, &e),
	    ERR_INVALID);
	test_ca_done(&ca);
}

static void test_tokens(void **state)
{
	(void)state;
	char t[PKI_TOKEN_LEN + 1], t2[PKI_TOKEN_LEN + 1];
	struct pki_token p;
	struct err e = ERR_INIT;
	pki_token_new(rng_system(), "root one", t);
	pki_token_new(rng_system(), "root one", t2);
	assert_int_equal(strlen(t), PKI_TOKEN_LEN);
	assert_memory_equal(t, t2, 9 + PKI_DIGEST_LEN + 1);
	assert_string_not_equal(t, t2);
	assert_int_equal(pki_token_parse(t, &p, NULL), 0);
	assert_true(pki_token_is_for(&p, "root one"));
	assert_false(pki_token_is_for(&p, "root two"));
	assert_true(pki_secret_equal(t, t));
	assert_false(pki_secret_equal(t, t2));
	assert_false(pki_secret_equal(NULL, NULL));
	/* sha256("abc") in base 36, computed elsewhere */
	pki_token_new(rng_system(), "abc", t);
	assert_memory_equal(t + 9, "4nb7oofka9ml8nasnokxxc1unhmtpr1wxsuwhpd9km3vt5as31", PKI_DIGEST_LEN);

	const char *bad[] = {"", "SWMTKN-1-", "SWMTKN-1-a-b", "SWMTKN-2-abc", "SWMKEY-1-x"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(pki_token_parse(bad[i], &p, &e), ERR_INVALID);
	memcpy(t2, t, sizeof(t));
	t2[20] = 'A';
	assert_int_equal(pki_token_parse(t2, &p, &e), ERR_INVALID);
}

static void test_unlock(void **state)
{
	(void)state;
	uint8_t key[PKI_UNLOCK_LEN], back[PKI_UNLOCK_LEN];
	char text[64];
	struct rng_seeded s;
	struct rng r = rng_from_seed(&s, 7);
	struct err e = ERR_INIT;
	r.fill(r.data, key, sizeof(key));
	pki_unlock_key_format(key, text);
	assert_int_equal(strlen(text), 9 + 43);
	assert_int_equal(pki_unlock_key_parse(text, back, NULL), 0);
	assert_memory_equal(key, back, sizeof(key));
	text[20] = '!';
	assert_int_equal(pki_unlock_key_parse(text, back, &e), ERR_INVALID);
	assert_int_equal(pki_unlock_key_parse("SWMKEY-1-abc", back, &e), ERR_INVALID);

	const char *secret =
	    "-----BEGIN PRIVATE KEY-----\nnot really, but long enough for several lines of text\n";
	struct buf sealed = BUF_INIT, plain = BUF_INIT;
	pki_seal(key, secret, strlen(secret), &sealed);
	assert_true(pki_is_sealed(sealed.data));
	assert_null(strstr(sealed.data, "PRIVATE"));
	assert_int_equal(pki_open(key, sealed.data, &plain, NULL), 0);
	assert_string_equal(plain.data, secret);
	key[0] ^= 1;
	assert_int_equal(pki_open(key, sealed.data, &plain, &e), ERR_FORBIDDEN);
	key[0] ^= 1;
	sealed.data[60] = sealed.data[60] == 'A' ? 'B' : 'A';
	assert_int_equal(pki_open(key, sealed.data, &plain, &e), ERR_FORBIDDEN);
	for (size_t i = 0; i < sealed.len; i++) {
		char *cut = xstrndup(sealed.data, i);
		assert_int_not_equal(pki_open(key, cut, &plain, &e), 0);
		free(cut);
	}
	buf_done(&sealed);
	buf_done(&plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_root_and_node),
	    cmocka_unit_test(test_bad_requests),
	    cmocka_unit_test(test_tokens),
	    cmocka_unit_test(test_unlock),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
