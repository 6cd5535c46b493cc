/* Join tokens, unlock keys, and sealing a key under an unlock key. */
#include "proto/pki_private.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#define TOKEN_PREFIX  "SWMTKN-1-"
#define UNLOCK_PREFIX "SWMKEY-1-"

/* --- join tokens */

/* A big-endian number as `len` base-36 digits, zeros in front. Consumes `n` (at most 32 bytes). */
static void base36(uint8_t *num, size_t n, char *out, size_t len)
{
	for (size_t i = len; i-- > 0;) {
		unsigned rest = 0;
		for (size_t j = 0; j < n; j++) {
			unsigned v = rest << 8 | num[j];
			num[j] = (uint8_t)(v / 36);
			rest = v % 36;
		}
		out[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[rest];
	}
	out[len] = 0;
}

static void root_digest(const char *root_pem, char out[PKI_DIGEST_LEN + 1])
{
	uint8_t md[32];
	unsigned n = 0;
	int ok = EVP_Digest(root_pem, strlen(root_pem), md, &n, EVP_sha256(), NULL);
	ASSERT(ok == 1 && n == 32);
	base36(md, 32, out, PKI_DIGEST_LEN);
}

void pki_token_new(struct rng r, const char *root_pem, char out[PKI_TOKEN_LEN + 1])
{
	char digest[PKI_DIGEST_LEN + 1], secret[PKI_SECRET_LEN + 1];
	uint8_t raw[16];
	root_digest(root_pem, digest);
	r.fill(r.data, raw, sizeof(raw));
	base36(raw, sizeof(raw), secret, PKI_SECRET_LEN);
	snprintf(out, PKI_TOKEN_LEN + 1, TOKEN_PREFIX "%s-%s", digest, secret);
	mem_wipe(secret, sizeof(secret));
}

static bool is_base36(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'z')))
			return false;
	return true;
}

int pki_token_parse(const char *s, struct pki_token *ret, struct err *e)
{
	size_t prefix = sizeof(TOKEN_PREFIX) - 1;
	if (str_has_prefix(s, "SWMTKN-2-"))
		return err_set(
		    e, ERR_INVALID, "invalid join token: FIPS clusters (SWMTKN-2) are not supported");
	if (strlen(s) != PKI_TOKEN_LEN || !str_has_prefix(s, TOKEN_PREFIX) ||
	    s[prefix + PKI_DIGEST_LEN] != '-' || !is_base36(s + prefix, PKI_DIGEST_LEN) ||
	    !is_base36(s + prefix + PKI_DIGEST_LEN + 1, PKI_SECRET_LEN))
		return err_set(e, ERR_INVALID, "invalid join token");
	memcpy(ret->digest, s + prefix, PKI_DIGEST_LEN);
	ret->digest[PKI_DIGEST_LEN] = 0;
	memcpy(ret->secret, s + prefix + PKI_DIGEST_LEN + 1, PKI_SECRET_LEN + 1);
	return 0;
}

bool pki_token_is_for(const struct pki_token *t, const char *root_pem)
{
	char digest[PKI_DIGEST_LEN + 1];
	root_digest(root_pem, digest);
	return CRYPTO_memcmp(digest, t->digest, PKI_DIGEST_LEN) == 0;
}

bool pki_secret_equal(const char *a, const char *b)
{
	size_t n = a ? strlen(a) : 0;
	return a && b && n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}

/* --- unlock keys */

void pki_unlock_key_format(const uint8_t key[PKI_UNLOCK_LEN], char out[64])
{
	char *b64 = str_base64(key, PKI_UNLOCK_LEN);
	size_t n = strlen(b64);
	while (n > 0 && b64[n - 1] == '=')
		n--;
	snprintf(out, 64, UNLOCK_PREFIX "%.*s", (int)n, b64);
	mem_wipe(b64, strlen(b64));
	free(b64);
}

int pki_unlock_key_parse(const char *s, uint8_t ret_key[PKI_UNLOCK_LEN], struct err *e)
{
	size_t prefix = sizeof(UNLOCK_PREFIX) - 1;
	char padded[48];
	uint8_t *raw = NULL;
	size_t n = 0;
	if (strlen(s) != prefix + 43 || !str_has_prefix(s, UNLOCK_PREFIX))
		return err_set(e, ERR_INVALID, "invalid unlock key: it looks like SWMKEY-1-...");
	snprintf(padded, sizeof(padded), "%s=", s + prefix);
	int r = str_unbase64(padded, strlen(padded), &raw, &n, NULL);
	mem_wipe(padded, sizeof(padded));
	if (r || n != PKI_UNLOCK_LEN)
		r = err_set(e, ERR_INVALID, "invalid unlock key: it looks like SWMKEY-1-...");
	else
		memcpy(ret_key, raw, PKI_UNLOCK_LEN);
	if (raw)
		mem_wipe(raw, n);
	free(raw);
	return r;
}

/* --- sealing: base64 of version, nonce, cipher text, tag between PEM lines */

#define SEAL_BEGIN   "-----BEGIN SHOAL SEALED KEY-----\n"
#define SEAL_END     "-----END SHOAL SEALED KEY-----\n"
#define SEAL_VERSION 1
#define NONCE        12
#define TAG          16
#define SEAL_MAX     65536

void pki_seal(const uint8_t key[PKI_UNLOCK_LEN], const void *p, size_t n, struct buf *ret_pem)
{
	ASSERT(n <= SEAL_MAX);
	size_t total = 1 + NONCE + n + TAG;
	uint8_t *raw = xmalloc(total);
	raw[0] = SEAL_VERSION;
	int ok = RAND_bytes(raw + 1, NONCE);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int len = 0, tail = 0;
	ASSERT(ok == 1 && c);
	ok = EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, raw + 1) == 1 &&
	     EVP_EncryptUpdate(c, raw + 1 + NONCE, &len, p, (int)n) == 1 &&
	     EVP_EncryptFinal_ex(c, raw + 1 + NONCE + len, &tail) == 1 &&
	     EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, raw + 1 + NONCE + n) == 1;
	ASSERT(ok);
	EVP_CIPHER_CTX_free(c);
	char *b64 = str_base64(raw, total);
	buf_puts(ret_pem, SEAL_BEGIN);
	for (size_t i = 0, len64 = strlen(b64); i < len64; i += 64) {
		buf_append(ret_pem, b64 + i, len64 - i < 64 ? len64 - i : 64);
		buf_putc(ret_pem, '\n');
	}
	buf_puts(ret_pem, SEAL_END);
	free(b64);
	free(raw);
}

bool pki_is_sealed(const char *pem)
{
	return str_has_prefix(pem, SEAL_BEGIN);
}

static int unwrap(const char *pem, uint8_t **ret, size_t *ret_n, struct err *e)
{
	const char *end = pki_is_sealed(pem) ? strstr(pem, SEAL_END) : NULL;
	if (!end || strlen(pem) > 2 * SEAL_MAX)
		return err_set(e, ERR_CORRUPT, "this is not a sealed key");
	struct buf b64 = BUF_INIT;
	for (const char *p = pem + sizeof(SEAL_BEGIN) - 1; p < end; p++)
		if (*p != '\n')
			buf_putc(&b64, *p);
	int r = str_unbase64(b64.data ? b64.data : "", b64.len, ret, ret_n, NULL);
	buf_done(&b64);
	if (r)
		return err_set(e, ERR_CORRUPT, "the sealed key is damaged");
	if (*ret_n < 1 + NONCE + TAG || (*ret)[0] != SEAL_VERSION) {
		free(*ret);
		return err_set(e, ERR_CORRUPT, "the sealed key is damaged or of a later version");
	}
	return 0;
}

int pki_open(const uint8_t key[PKI_UNLOCK_LEN], const char *pem, struct buf *ret, struct err *e)
{
	uint8_t *raw = NULL;
	size_t total = 0;
	int r = unwrap(pem, &raw, &total, e);
	if (r)
		return r;
	size_t n = total - 1 - NONCE - TAG;
	uint8_t *plain = xmalloc(n + TAG);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	ASSERT(c);
	int len = 0, tail = 0;
	int ok = EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, raw + 1) == 1 &&
		 EVP_DecryptUpdate(c, plain, &len, raw + 1 + NONCE, (int)n) == 1 &&
		 EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, raw + 1 + NONCE + n) == 1 &&
		 EVP_DecryptFinal_ex(c, plain + len, &tail) == 1;
	EVP_CIPHER_CTX_free(c);
	if (ok)
		buf_append(ret, plain, n);
	else
		r = err_set(e, ERR_FORBIDDEN, "the unlock key is not the right one");
	mem_wipe(plain, n);
	free(plain);
	free(raw);
	return r;
}
