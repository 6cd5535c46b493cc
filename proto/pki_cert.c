/* Certificates: the cluster's root, what it issues to nodes, and reading them back.
 *
 * A node's certificate says who it is (CN), as what (OU) and of which cluster (O); it serves both ends of a
 * connection. The issuer takes only the public key from a signing request, after checking that the requester
 * has the private one. */
#include "proto/pki_private.h"

#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#define ROOT_CN      "swarm-ca"
#define ROOT_LIFE_NS (INT64_C(20) * 365 * 86400 * NS_PER_SEC)
#define CHAIN_MAX    8

static int add_extension(X509 *x, X509V3_CTX *ctx, int nid, const char *value)
{
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
	int ok = ext && X509_add_ext(x, ext, -1);
	X509_EXTENSION_free(ext);
	return ok;
}

static int set_serial(X509 *x)
{
	unsigned char raw[20];
	if (RAND_bytes(raw, sizeof(raw)) != 1)
		return 0;
	raw[0] = (unsigned char)((raw[0] & 0x7f) | 0x40); /* positive, and always of one length */
	BIGNUM *n = BN_bin2bn(raw, sizeof(raw), NULL);
	int ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
	BN_free(n);
	return ok;
}

static int set_times(X509 *x, int64_t not_before_ns, int64_t not_after_ns)
{
	return ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(not_before_ns / NS_PER_SEC)) &&
	       ASN1_TIME_set(X509_getm_notAfter(x), (time_t)(not_after_ns / NS_PER_SEC));
}

static int add_name(X509_NAME *n, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(n, field, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0);
}

static char *cert_text(X509 *x)
{
	BIO *b = BIO_new(BIO_s_mem());
	ASSERT(b && PEM_write_bio_X509(b, x) == 1);
	char *s = pki_bio_text(b);
	BIO_free(b);
	return s;
}

int pki_root_new(
    int64_t now_ns, char **ret_cert_pem, uint8_t **ret_key_der, size_t *ret_key_len, struct err *e)
{
	CLEANUP_FREE char *key_pem = NULL;
	int r = pki_key_new(&key_pem, e);
	if (r)
		return r;
	EVP_PKEY *k = pki_load_key_pem(key_pem, e);
	X509 *x = X509_new();
	ASSERT(k && x);
	X509V3_CTX ctx;
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	int ok = X509_set_version(x, 2) && set_serial(x) &&
		 set_times(x, now_ns - PKI_BACKDATE_NS, now_ns + ROOT_LIFE_NS) &&
		 add_name(X509_get_subject_name(x), "CN", ROOT_CN) &&
		 X509_set_issuer_name(x, X509_get_subject_name(x)) && X509_set_pubkey(x, k) &&
		 add_extension(x, &ctx, NID_basic_constraints, "critical,CA:TRUE") &&
		 add_extension(x, &ctx, NID_key_usage, "critical,keyCertSign,cRLSign") &&
		 add_extension(x, &ctx, NID_subject_key_identifier, "hash") &&
		 X509_sign(x, k, EVP_sha256()) > 0;
	EVP_PKEY_free(k);
	if (ok)
		r = pki_key_to_der(key_pem, ret_key_der, ret_key_len, e);
	else
		r = pki_err(e, ERR_INTERNAL, "making the root certificate");
	if (r == 0)
		*ret_cert_pem = cert_text(x);
	X509_free(x);
	mem_wipe(key_pem, strlen(key_pem));
	return r;
}

/* --- issuing */

static EVP_PKEY *csr_key(const uint8_t *der, size_t n, struct err *e)
{
	if (n > PKI_CSR_MAX) {
		err_set(e, ERR_TOO_LARGE, "the signing request is larger than %d bytes", PKI_CSR_MAX);
		return NULL;
	}
	ERR_clear_error();
	const unsigned char *p = der;
	X509_REQ *q = d2i_X509_REQ(NULL, &p, (long)n);
	EVP_PKEY *k = q && p == der + n ? X509_REQ_get_pubkey(q) : NULL;
	char group[32] = "";
	if (k && EVP_PKEY_is_a(k, "EC"))
		EVP_PKEY_get_group_name(k, group, sizeof(group), NULL);
	if (k && !str_eq(group, "prime256v1") && !str_eq(group, "P-256")) {
		err_set(e, ERR_INVALID, "the signing request's key is not EC P-256");
		EVP_PKEY_free(TAKE_PTR(k));
	} else if (!k || X509_REQ_verify(q, k) != 1) {
		pki_err(e, ERR_INVALID, "the signing request");
		EVP_PKEY_free(TAKE_PTR(k));
	}
	X509_REQ_free(q);
	ERR_clear_error();
	return k;
}

/* Ids and roles are ours, but what goes into an extension's text form must not be able to extend it. */
static bool is_plain(const char *s)
{
	size_t n = s ? strlen(s) : 0;
	if (n == 0 || n > 60)
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
			*s == '-'))
			return false;
	return true;
}

int pki_issue(const struct pki_issue *o, char **ret_cert_pem, struct err *e)
{
	if (!is_plain(o->node_id) || !is_plain(o->role) || !is_plain(o->cluster_id))
		return err_set(e, ERR_INVALID, "a certificate needs a node id, a role and a cluster id");
	if (o->not_after_ns <= o->not_before_ns)
		return err_set(e, ERR_INVALID, "a certificate must end after it begins");
	EVP_PKEY *key = csr_key(o->csr, o->csr_len, e);
	if (!key)
		return e && e->code ? e->code : ERR_INVALID;
	X509 *root = pki_load_cert(o->root_pem, e);
	EVP_PKEY *root_key = root ? pki_load_key_der(o->root_key, o->root_key_len, e) : NULL;
	int r = root_key ? 0 : ERR_INVALID;
	if (r == 0 && X509_check_private_key(root, root_key) != 1)
		r = pki_err(e, ERR_INVALID, "the root's key and certificate");
	X509 *x = X509_new();
	ASSERT(x);
	if (r == 0) {
		char san[256];
		snprintf(san, sizeof(san), "DNS:%s,DNS:%s%s", o->role, o->node_id,
		    str_eq(o->role, PKI_ROLE_MANAGER) ? ",DNS:" ROOT_CN : "");
		X509_NAME *name = X509_get_subject_name(x);
		X509V3_CTX ctx;
		X509V3_set_ctx(&ctx, root, x, NULL, NULL, 0);
		int ok = X509_set_version(x, 2) && set_serial(x) &&
			 set_times(x, o->not_before_ns, o->not_after_ns) &&
			 add_name(name, "O", o->cluster_id) && add_name(name, "OU", o->role) &&
			 add_name(name, "CN", o->node_id) &&
			 X509_set_issuer_name(x, X509_get_subject_name(root)) && X509_set_pubkey(x, key) &&
			 add_extension(x, &ctx, NID_basic_constraints, "critical,CA:FALSE") &&
			 add_extension(x, &ctx, NID_key_usage, "critical,digitalSignature") &&
			 add_extension(x, &ctx, NID_ext_key_usage, "serverAuth,clientAuth") &&
			 add_extension(x, &ctx, NID_subject_key_identifier, "hash") &&
			 add_extension(x, &ctx, NID_authority_key_identifier, "keyid") &&
			 add_extension(x, &ctx, NID_subject_alt_name, san) &&
			 X509_sign(x, root_key, EVP_sha256()) > 0;
		if (ok)
			*ret_cert_pem = cert_text(x);
		else
			r = pki_err(e, ERR_INTERNAL, "issuing a certificate");
	}
	X509_free(x);
	X509_free(root);
	EVP_PKEY_free(root_key);
	EVP_PKEY_free(key);
	return r;
}

/* --- reading */

/* The certificates of a PEM text, up to CHAIN_MAX. */
static STACK_OF(X509) * load_chain(const char *pem)
{
	STACK_OF(X509) *list = sk_X509_new_null();
	BIO *b = BIO_new_mem_buf(pem, -1);
	ASSERT(list && b);
	X509 *x;
	while (sk_X509_num(list) < CHAIN_MAX && (x = PEM_read_bio_X509(b, NULL, pki_no_passphrase, NULL)))
		sk_X509_push(list, x);
	BIO_free(b);
	ERR_clear_error();
	return list;
}

int pki_verify(const char *chain_pem, const char *roots_pem, int64_t now_ns, struct err *e)
{
	STACK_OF(X509) *chain = load_chain(chain_pem), *roots = load_chain(roots_pem);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	ASSERT(store && ctx);
	int r = 0;
	if (sk_X509_num(chain) == 0 || sk_X509_num(roots) == 0)
		r = err_set(
		    e, ERR_INVALID, "%s holds no certificate", sk_X509_num(chain) ? "the CA" : "the chain");
	for (int i = 0; i < sk_X509_num(roots); i++)
		X509_STORE_add_cert(store, sk_X509_value(roots, i));
	if (r == 0) {
		int ok = X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain);
		ASSERT(ok == 1);
		X509_STORE_CTX_set_time(ctx, 0, (time_t)(now_ns / NS_PER_SEC));
		if (X509_verify_cert(ctx) != 1)
			r = err_set(e, ERR_UNAUTHORIZED,
			    "the certificate is not good under this cluster's root: %s",
			    X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
	}
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	sk_X509_pop_free(chain, X509_free);
	sk_X509_pop_free(roots, X509_free);
	ERR_clear_error();
	return r;
}

int pki_key_matches(const char *chain_pem, const char *key_pem, struct err *e)
{
	X509 *x = pki_load_cert(chain_pem, e);
	EVP_PKEY *k = x ? pki_load_key_pem(key_pem, e) : NULL;
	int r = k ? 0 : ERR_INVALID;
	if (r == 0 && X509_check_private_key(x, k) != 1)
		r = pki_err(e, ERR_INVALID, "the certificate and the key do not belong together");
	X509_free(x);
	EVP_PKEY_free(k);
	return r;
}

static void subject_field(const X509_NAME *name, int nid, char *out, size_t cap)
{
	if (X509_NAME_get_text_by_NID((X509_NAME *)name, nid, out, (int)cap) < 0)
		out[0] = 0;
}

static int read_time(const ASN1_TIME *t, int64_t *ret_ns)
{
	struct tm tm;
	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return -1;
	*ret_ns = (int64_t)timegm(&tm) * NS_PER_SEC;
	return 0;
}

int pki_cert_info(const char *chain_pem, struct pki_cert_info *ret, struct err *e)
{
	X509 *x = pki_load_cert(chain_pem, e);
	if (!x)
		return ERR_INVALID;
	struct pki_cert_info info;
	const X509_NAME *name = X509_get_subject_name(x);
	subject_field(name, NID_commonName, info.node_id, sizeof(info.node_id));
	subject_field(name, NID_organizationalUnitName, info.role, sizeof(info.role));
	subject_field(name, NID_organizationName, info.cluster_id, sizeof(info.cluster_id));
	int r = read_time(X509_get0_notBefore(x), &info.not_before_ns);
	if (r == 0)
		r = read_time(X509_get0_notAfter(x), &info.not_after_ns);
	X509_free(x);
	if (r)
		return err_set(e, ERR_INVALID, "the certificate's dates are not readable");
	*ret = info;
	return 0;
}

int pki_root_info(const char *root_pem, struct buf *ret_subject, struct buf *ret_public_key, struct err *e)
{
	X509 *x = pki_load_cert(root_pem, e);
	if (!x)
		return ERR_INVALID;
	unsigned char *name = NULL, *key = NULL;
	int n = i2d_X509_NAME(X509_get_subject_name(x), &name);
	int k = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &key);
	ASSERT(n > 0 && k > 0);
	buf_append(ret_subject, name, (size_t)n);
	buf_append(ret_public_key, key, (size_t)k);
	OPENSSL_free(name);
	OPENSSL_free(key);
	X509_free(x);
	return 0;
}

int64_t pki_renew_at(int64_t not_before_ns, int64_t not_after_ns, struct rng r)
{
	int64_t life = not_after_ns - not_before_ns;
	if (life < 10)
		return not_before_ns;
	return not_before_ns + life / 2 + (int64_t)rng_below(r, (uint64_t)(life / 10 * 3));
}
