/* Private keys and signing requests. Everything fails with OpenSSL's reason in the text; an allocation that
 * OpenSSL cannot make counts as out of memory and aborts, as everywhere. */
#include "proto/pki_private.h"

#include <string.h>

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/log.h"
#include "base/mem.h"

#define PEM_MAX (1024 * 1024)

int pki_err(struct err *e, int code, const char *what)
{
	unsigned long n = ERR_peek_last_error();
	const char *reason = n ? ERR_reason_error_string(n) : NULL;
	err_set(e, code, "%s: %s", what, reason ? reason : "not valid");
	ERR_clear_error();
	return code;
}

int pki_no_passphrase(char *out, int n, int rw, void *data)
{
	(void)out;
	(void)n;
	(void)rw;
	(void)data;
	return -1;
}

static BIO *read_pem(const char *pem)
{
	size_t n = pem ? strlen(pem) : 0;
	BIO *b = n > 0 && n <= PEM_MAX ? BIO_new_mem_buf(pem, (int)n) : NULL;
	ERR_clear_error();
	return b;
}

EVP_PKEY *pki_load_key_pem(const char *pem, struct err *e)
{
	BIO *b = read_pem(pem);
	EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, pki_no_passphrase, NULL) : NULL;
	BIO_free(b);
	if (!k)
		pki_err(e, ERR_INVALID, "the private key");
	return k;
}

EVP_PKEY *pki_load_key_der(const uint8_t *der, size_t n, struct err *e)
{
	ERR_clear_error();
	const unsigned char *p = der;
	EVP_PKEY *k = n <= PEM_MAX ? d2i_AutoPrivateKey(NULL, &p, (long)n) : NULL;
	if (!k)
		pki_err(e, ERR_INVALID, "the private key");
	return k;
}

X509 *pki_load_cert(const char *pem, struct err *e)
{
	BIO *b = read_pem(pem);
	X509 *x = b ? PEM_read_bio_X509(b, NULL, pki_no_passphrase, NULL) : NULL;
	BIO_free(b);
	if (!x)
		pki_err(e, ERR_INVALID, "the certificate");
	return x;
}

char *pki_bio_text(BIO *b)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);
	return xstrndup(p, (size_t)n);
}

static char *key_text(EVP_PKEY *k)
{
	BIO *b = BIO_new(BIO_s_secmem());
	ASSERT(b && PEM_write_bio_PKCS8PrivateKey(b, k, NULL, NULL, 0, NULL, NULL) == 1);
	char *s = pki_bio_text(b);
	BIO_free(b);
	return s;
}

int pki_key_new(char **ret_pem, struct err *e)
{
	ERR_clear_error();
	EVP_PKEY *k = EVP_EC_gen("P-256");
	if (!k)
		return pki_err(e, ERR_INTERNAL, "making a key");
	*ret_pem = key_text(k);
	EVP_PKEY_free(k);
	return 0;
}

int pki_key_to_der(const char *pem, uint8_t **ret_der, size_t *ret_len, struct err *e)
{
	EVP_PKEY *k = pki_load_key_pem(pem, e);
	if (!k)
		return ERR_INVALID;
	PKCS8_PRIV_KEY_INFO *p8 = EVP_PKEY2PKCS8(k);
	unsigned char *der = NULL;
	int n = p8 ? i2d_PKCS8_PRIV_KEY_INFO(p8, &der) : -1;
	PKCS8_PRIV_KEY_INFO_free(p8);
	EVP_PKEY_free(k);
	if (n <= 0)
		return pki_err(e, ERR_INVALID, "encoding the key");
	*ret_der = xmemdup(der, (size_t)n);
	*ret_len = (size_t)n;
	OPENSSL_clear_free(der, (size_t)n);
	return 0;
}

int pki_key_to_pem(const uint8_t *der, size_t n, char **ret_pem, struct err *e)
{
	EVP_PKEY *k = pki_load_key_der(der, n, e);
	if (!k)
		return ERR_INVALID;
	*ret_pem = key_text(k);
	EVP_PKEY_free(k);
	return 0;
}

int pki_csr_new(const char *key_pem, uint8_t **ret_der, size_t *ret_len, struct err *e)
{
	EVP_PKEY *k = pki_load_key_pem(key_pem, e);
	if (!k)
		return ERR_INVALID;
	X509_REQ *q = X509_REQ_new();
	X509_NAME *name = X509_NAME_new();
	ASSERT(q && name);
	unsigned char *der = NULL;
	int n = -1;
	if (X509_NAME_add_entry_by_txt(
		name, "CN", MBSTRING_UTF8, (const unsigned char *)"swarm-node", -1, -1, 0) &&
	    X509_REQ_set_version(q, 0) && X509_REQ_set_subject_name(q, name) && X509_REQ_set_pubkey(q, k) &&
	    X509_REQ_sign(q, k, EVP_sha256()) > 0)
		n = i2d_X509_REQ(q, &der);
	X509_NAME_free(name);
	X509_REQ_free(q);
	EVP_PKEY_free(k);
	if (n <= 0)
		return pki_err(e, ERR_INVALID, "making a signing request");
	*ret_der = xmemdup(der, (size_t)n);
	*ret_len = (size_t)n;
	OPENSSL_free(der);
	return 0;
}
