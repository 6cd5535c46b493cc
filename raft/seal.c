/* Sealing: see seal.h for the construction. Sealing cannot fail but by a broken libcrypto, which is our bug;
 * opening fails on any byte that is not as it was sealed. */
#include "raft/seal.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/wire.h"

#define SALT_LEN  16
#define NONCE_LEN (SALT_LEN + 8)
#define IV_LEN    12

/* A key derived from the data key and a salt, ready in a cipher context. */
struct session {
	EVP_CIPHER_CTX *ctx;
	uint8_t salt[SALT_LEN];
};
struct sealer {
	uint8_t key[SEAL_KEY_LEN];
	uint32_t key_id;
	struct session out;
	uint64_t counter;  /* of the next message that is sealed */
	struct session in; /* the last one opened: messages of one writer come in runs */
	bool in_valid;
};

static void derive(
    const uint8_t key[SEAL_KEY_LEN], const char *label, const uint8_t *salt, size_t salt_len, uint8_t out[32])
{
	uint8_t msg[64];
	size_t n = strlen(label);
	unsigned out_len = 32;

	ASSERT(n + salt_len <= sizeof(msg));
	memcpy(msg, label, n);
	if (salt_len > 0)
		memcpy(msg + n, salt, salt_len);
	ASSERT(
	    HMAC(EVP_sha256(), key, SEAL_KEY_LEN, msg, n + salt_len, out, &out_len) != NULL && out_len == 32);
}

static void session_set(
    struct session *s, const uint8_t key[SEAL_KEY_LEN], const uint8_t salt[SALT_LEN], int enc)
{
	uint8_t sub[32];

	memcpy(s->salt, salt, SALT_LEN);
	derive(key, "shoal seal v1", salt, SALT_LEN, sub);
	ASSERT(EVP_CipherInit_ex(s->ctx, EVP_aes_256_gcm(), NULL, sub, NULL, enc) == 1);
	mem_wipe(sub, sizeof(sub));
}

struct sealer *sealer_new(const uint8_t key[SEAL_KEY_LEN])
{
	struct sealer *s = NEW(struct sealer);
	uint8_t salt[SALT_LEN], id[32];

	memcpy(s->key, key, SEAL_KEY_LEN);
	derive(key, "shoal key id", NULL, 0, id);
	s->key_id = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];
	s->out.ctx = EVP_CIPHER_CTX_new();
	s->in.ctx = EVP_CIPHER_CTX_new();
	ASSERT(s->out.ctx != NULL && s->in.ctx != NULL);
	ASSERT(RAND_bytes(salt, sizeof(salt)) == 1);
	session_set(&s->out, s->key, salt, 1);
	return s;
}

void sealer_free(struct sealer *s)
{
	if (s == NULL)
		return;
	EVP_CIPHER_CTX_free(s->out.ctx);
	EVP_CIPHER_CTX_free(s->in.ctx);
	mem_wipe(s, sizeof(*s));
	free(s);
}

size_t seal_head_len(const struct sealer *s, size_t n)
{
	/* key_id: tag and varint; nonce: tag, length, bytes; data: tag and length. */
	return 1 + wire_varint_size(s->key_id) + 2 + NONCE_LEN + 1 + wire_varint_size(n + SEAL_TAG_LEN);
}

static void put_u64be(uint8_t *p, uint64_t v)
{
	for (unsigned i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (56 - 8 * i));
}

void seal(struct sealer *s, const void *aad, size_t aad_len, const uint8_t *src, size_t n, uint8_t *dst,
    struct seal_frame *f)
{
	CLEANUP_BUF struct buf head = BUF_INIT;
	uint8_t nonce[NONCE_LEN], iv[IV_LEN] = {0};
	int len;

	ASSERT(n <= INT_MAX && aad_len <= INT_MAX);
	put_u64be(iv + IV_LEN - 8, s->counter);
	memcpy(nonce, s->out.salt, SALT_LEN);
	put_u64be(nonce + SALT_LEN, s->counter);
	s->counter++;

	wire_put_uint(&head, 1, s->key_id);
	wire_put_bytes(&head, 2, nonce, sizeof(nonce));
	wire_put_bytes_head(&head, 3, n + SEAL_TAG_LEN);
	ASSERT(head.len == seal_head_len(s, n) && head.len <= sizeof(f->head));
	memcpy(f->head, head.data, head.len);
	f->head_len = head.len;

	ERR_clear_error();
	ASSERT(EVP_EncryptInit_ex(s->out.ctx, NULL, NULL, NULL, iv) == 1);
	ASSERT(EVP_EncryptUpdate(s->out.ctx, NULL, &len, aad, (int)aad_len) == 1);
	ASSERT(EVP_EncryptUpdate(s->out.ctx, dst, &len, src, (int)n) == 1 && (size_t)len == n);
	ASSERT(EVP_EncryptFinal_ex(s->out.ctx, f->tag, &len) == 1 && len == 0);
	ASSERT(EVP_CIPHER_CTX_ctrl(s->out.ctx, EVP_CTRL_GCM_GET_TAG, SEAL_TAG_LEN, f->tag) == 1);
}

struct envelope {
	uint64_t key_id;
	const uint8_t *nonce, *data;
	size_t data_len;
};

static int parse(const uint8_t *p, size_t n, struct envelope *ret_v)
{
	struct wire_reader r = {p, n};
	struct envelope v = {0};
	struct wire_field f;
	int more;

	while ((more = wire_next(&r, &f)) > 0) {
		if (f.field == 1 && f.type == WIRE_VARINT) {
			v.key_id = f.v;
		} else if (f.field == 2 && f.type == WIRE_BYTES && f.n == NONCE_LEN) {
			v.nonce = f.p;
		} else if (f.field == 3 && f.type == WIRE_BYTES && f.n >= SEAL_TAG_LEN && f.n <= INT_MAX) {
			v.data = f.p;
			v.data_len = f.n;
		}
	}
	if (more < 0 || v.nonce == NULL || v.data == NULL)
		return -1;
	*ret_v = v;
	return 0;
}

int unseal(struct sealer *s, const void *aad, size_t aad_len, const uint8_t *p, size_t n, struct buf *out,
    struct err *e)
{
	uint8_t iv[IV_LEN] = {0}, tag[SEAL_TAG_LEN];
	struct envelope v;
	uint8_t *dst;
	size_t plain;
	int len, ok;

	if (parse(p, n, &v) < 0)
		return err_set(e, ERR_CORRUPT, "not a sealed envelope");
	if (v.key_id != s->key_id)
		return err_set(e, ERR_CORRUPT, "sealed with another key");
	if (!s->in_valid || memcmp(s->in.salt, v.nonce, SALT_LEN) != 0) {
		session_set(&s->in, s->key, v.nonce, 0);
		s->in_valid = true;
	}
	memcpy(iv + IV_LEN - 8, v.nonce + SALT_LEN, 8);
	plain = v.data_len - SEAL_TAG_LEN;
	memcpy(tag, v.data + plain, SEAL_TAG_LEN);
	buf_reserve(out, plain + 1);
	dst = (uint8_t *)out->data + out->len;

	ERR_clear_error();
	ok = EVP_DecryptInit_ex(s->in.ctx, NULL, NULL, NULL, iv) == 1 &&
	     EVP_DecryptUpdate(s->in.ctx, NULL, &len, aad, (int)aad_len) == 1 &&
	     EVP_DecryptUpdate(s->in.ctx, dst, &len, v.data, (int)plain) == 1 &&
	     EVP_CIPHER_CTX_ctrl(s->in.ctx, EVP_CTRL_GCM_SET_TAG, SEAL_TAG_LEN, tag) == 1 &&
	     EVP_DecryptFinal_ex(s->in.ctx, dst + plain, &len) == 1;
	if (!ok) {
		ERR_clear_error();
		mem_wipe(dst, plain);
		*dst = 0; /* buf's own terminator */
		return err_set(e, ERR_CORRUPT, "what was sealed has been altered or damaged");
	}
	out->len += plain;
	out->data[out->len] = '\0';
	return 0;
}
