/* TLS identities: what certificate to show, whom to trust, and what a verified peer's subject says.
 *
 * TLS 1.3 only, no session tickets (every connection verifies afresh, so that a removed node cannot resume),
 * buffers released when idle. The BIO reads from a span of memory and writes into a buf, so an idle
 * connection holds no buffers at all. Fails with ERR_INVALID and OpenSSL's reason when a certificate,
 * key or CA does not parse or does not belong together. */
#include "proto/tls_private.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/pki_private.h"

#define PEM_MAX (1024 * 1024) /* chains and CA bundles */

/* --- the BIO */

static int mem_read(BIO *b, char *out, size_t n, size_t *ret_n)
{
	struct tls_mem *m = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	*ret_n = 0;
	if (m->in_len == 0) {
		if (!m->eof)
			BIO_set_retry_read(b);
		return 0;
	}
	if (n > m->in_len)
		n = m->in_len;
	memcpy(out, m->in, n);
	m->in += n;
	m->in_len -= n;
	*ret_n = n;
	return 1;
}

static int mem_write(BIO *b, const char *p, size_t n, size_t *ret_n)
{
	struct tls_mem *m = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	buf_append(m->out, p, n);
	*ret_n = n;
	return 1;
}

static long mem_ctrl(BIO *b, int cmd, long arg, void *p)
{
	(void)arg;
	(void)p;
	const struct tls_mem *m = BIO_get_data(b);
	switch (cmd) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_EOF:
		return m->eof && m->in_len == 0;
	default:
		return 0;
	}
}

BIO *tls_mem_bio(const struct tls_ctx *ctx, struct tls_mem *m)
{
	BIO *b = BIO_new(ctx->bio);
	ASSERT(b);
	BIO_set_data(b, m);
	BIO_set_init(b, 1);
	return b;
}

/* --- loading */

static BIO *pem_bio(const char *pem, const char *what, struct err *e)
{
	size_t n = strlen(pem);
	if (n > PEM_MAX) {
		err_set(e, ERR_TOO_LARGE, "%s is larger than %d bytes", what, PEM_MAX);
		return NULL;
	}
	BIO *b = BIO_new_mem_buf(pem, (int)n);
	ASSERT(b);
	return b;
}

static int use_identity(SSL_CTX *ssl, const char *cert_pem, const char *key_pem, struct err *e)
{
	int r = 0;
	BIO *b = pem_bio(cert_pem, "the certificate", e);
	if (!b)
		return ERR_TOO_LARGE;
	X509 *x = PEM_read_bio_X509(b, NULL, pki_no_passphrase, NULL);
	if (!x || SSL_CTX_use_certificate(ssl, x) != 1)
		r = pki_err(e, ERR_INVALID, "the certificate");
	X509_free(x);
	while (r == 0 && (x = PEM_read_bio_X509(b, NULL, pki_no_passphrase, NULL)))
		SSL_CTX_add0_chain_cert(ssl, x);
	BIO_free(b);
	ERR_clear_error(); /* the end of the chain is "no start line" */
	if (r)
		return r;
	EVP_PKEY *k = pki_load_key_pem(key_pem, e);
	if (!k)
		return ERR_INVALID;
	if (SSL_CTX_use_PrivateKey(ssl, k) != 1 || SSL_CTX_check_private_key(ssl) != 1)
		r = pki_err(e, ERR_INVALID, "the private key");
	EVP_PKEY_free(k);
	return r;
}

static int use_roots(SSL_CTX *ssl, const char *ca_pem, struct err *e)
{
	BIO *b = pem_bio(ca_pem, "the CA certificate", e);
	if (!b)
		return ERR_TOO_LARGE;
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	int n = 0;
	X509 *x;
	while ((x = PEM_read_bio_X509(b, NULL, pki_no_passphrase, NULL))) {
		X509_STORE_add_cert(store, x);
		X509_free(x);
		n++;
	}
	BIO_free(b);
	if (n == 0)
		return pki_err(e, ERR_INVALID, "the CA certificate");
	ERR_clear_error();
	return 0;
}

static int set_alpn(struct tls_ctx *c, const char *const *names, struct err *e)
{
	for (; names && *names; names++) {
		size_t n = strlen(*names);
		if (n == 0 || n >= sizeof(((struct tls_peer *)0)->alpn) ||
		    c->alpn_len + n + 1 > sizeof(c->alpn))
			return err_set(e, ERR_INVALID, "ALPN name \"%s\" is too long", *names);
		c->alpn[c->alpn_len++] = (uint8_t)n;
		memcpy(c->alpn + c->alpn_len, *names, n);
		c->alpn_len += (unsigned)n;
	}
	return 0;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
    unsigned in_len, void *arg)
{
	(void)ssl;
	const struct tls_ctx *c = arg;
	unsigned char *chosen;
	if (SSL_select_next_proto(&chosen, out_len, c->alpn, c->alpn_len, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

int tls_ctx_new(const struct tls_ctx_opts *o, struct tls_ctx **ret, struct err *e)
{
	ERR_clear_error();
	if (!o->cert_pem != !o->key_pem)
		return err_set(
		    e, ERR_INVALID, "a certificate needs its private key, and a key its certificate");
	if (o->server && !o->cert_pem)
		return err_set(e, ERR_INVALID, "a TLS server needs a certificate");
	if (o->require_peer_cert && !o->ca_pem)
		return err_set(e, ERR_INVALID, "verifying peers needs a CA certificate");

	struct tls_ctx *c = NEW(struct tls_ctx);
	c->refs = 1;
	c->verify = o->ca_pem != NULL;
	c->bio = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "memory");
	ASSERT(c->bio);
	BIO_meth_set_read_ex(c->bio, mem_read);
	BIO_meth_set_write_ex(c->bio, mem_write);
	BIO_meth_set_ctrl(c->bio, mem_ctrl);
	c->ssl = SSL_CTX_new(o->server ? TLS_server_method() : TLS_client_method());
	ASSERT(c->ssl);
	SSL_CTX_set_min_proto_version(c->ssl, TLS1_3_VERSION);
	/* AES-128 first: half the key schedule and no weaker for what a P-256 certificate protects. */
	SSL_CTX_set_ciphersuites(
	    c->ssl, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
	SSL_CTX_set1_groups_list(c->ssl, "X25519:P-256");
	SSL_CTX_set_mode(c->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_options(c->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(c->ssl, 0);
	SSL_CTX_set_verify_depth(c->ssl, 4);
	int mode = c->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
	if (o->require_peer_cert)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(c->ssl, mode, NULL);

	int r = 0;
	if (o->cert_pem)
		r = use_identity(c->ssl, o->cert_pem, o->key_pem, e);
	if (r == 0 && o->ca_pem)
		r = use_roots(c->ssl, o->ca_pem, e);
	if (r == 0)
		r = set_alpn(c, o->alpn, e);
	if (r) {
		tls_ctx_unref(c);
		return r;
	}
	if (c->alpn_len && o->server)
		SSL_CTX_set_alpn_select_cb(c->ssl, select_alpn, c);
	else if (c->alpn_len)
		SSL_CTX_set_alpn_protos(c->ssl, c->alpn, c->alpn_len);
	*ret = c;
	return 0;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *c)
{
	c->refs++;
	return c;
}

void tls_ctx_unref(struct tls_ctx *c)
{
	if (!c || --c->refs > 0)
		return;
	SSL_CTX_free(c->ssl);
	BIO_meth_free(c->bio);
	free(c->scratch);
	free(c);
}

/* --- who the peer is */

/* The one value of a subject field. Empty when absent; an error when there are several, when it does not fit
 * or has a NUL in it: what is compared later must be what the CA signed. */
static int subject_field(const X509_NAME *name, int nid, char *out, size_t cap, struct err *e)
{
	int i = X509_NAME_get_index_by_NID(name, nid, -1);
	if (i < 0)
		return 0;
	if (X509_NAME_get_index_by_NID(name, nid, i) >= 0)
		return err_set(
		    e, ERR_UNAUTHORIZED, "the certificate's subject has several %s", OBJ_nid2sn(nid));
	unsigned char *utf8 = NULL;
	int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
	if (n < 0 || (size_t)n >= cap || memchr(utf8, 0, (size_t)n)) {
		OPENSSL_free(utf8);
		return err_set(e, ERR_UNAUTHORIZED, "the certificate's %s is not usable", OBJ_nid2sn(nid));
	}
	memcpy(out, utf8, (size_t)n);
	out[n] = 0;
	OPENSSL_free(utf8);
	return 0;
}

int tls_peer_fill(const struct tls_ctx *ctx, SSL *ssl, struct tls_peer *ret, struct err *e)
{
	const unsigned char *alpn;
	unsigned alpn_len;
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
	if (ctx->alpn_len && alpn_len == 0)
		return err_set(e, ERR_INVALID, "the peer does not speak a protocol of ours (no ALPN)");
	if (alpn_len > 0 && alpn_len < sizeof(ret->alpn)) {
		memcpy(ret->alpn, alpn, alpn_len);
		ret->alpn[alpn_len] = 0;
	}
	X509 *x = SSL_get0_peer_certificate(ssl);
	if (!x || !ctx->verify)
		return 0;
	if (SSL_get_verify_result(ssl) != X509_V_OK)
		return err_set(e, ERR_UNAUTHORIZED, "the peer's certificate was not verified");
	const X509_NAME *name = X509_get_subject_name(x);
	int r = subject_field(name, NID_commonName, ret->node_id, sizeof(ret->node_id), e);
	if (r == 0)
		r = subject_field(name, NID_organizationalUnitName, ret->role, sizeof(ret->role), e);
	if (r == 0)
		r = subject_field(name, NID_organizationName, ret->org, sizeof(ret->org), e);
	if (r)
		return r;
	if (ret->node_id[0] == 0)
		return err_set(e, ERR_UNAUTHORIZED, "the peer's certificate names no node");
	ret->verified = true;
	return 0;
}

bool tls_peer_is_manager(const struct tls_peer *p)
{
	return p->verified && str_eq(p->role, "swarm-manager");
}
