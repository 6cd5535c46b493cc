/* Sealing of what goes to disk: AES-256-GCM in the Pb__Sealed envelope.
 *
 * A data key lives for years and on several managers, too long for random 12-byte nonces (NIST SP 800-38D
 * allows 2^32 of them a key, days under load). So a sealer draws 16 random bytes when it is made and derives
 * its own session key from them, HMAC-SHA-256(data key, "shoal seal v1" || salt), under which the nonce is a
 * counter. The envelope carries salt and counter, so anyone with the data key can open it.
 *
 * A sealer is used by one thread at a time. */
#ifndef RAFT_SEAL_H
#define RAFT_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define SEAL_KEY_LEN  32
#define SEAL_TAG_LEN  16
#define SEAL_HEAD_MAX 48

struct sealer;
struct sealer *sealer_new(const uint8_t key[SEAL_KEY_LEN]); /* copies the key */
void sealer_free(struct sealer *s);                         /* wipes; NULL is fine */

/* What goes before and after the cipher text, so that it may be encrypted in place or straight to where it is
 * wanted: head, n bytes of cipher text, tag. */
struct seal_frame {
	uint8_t head[SEAL_HEAD_MAX];
	size_t head_len;
	uint8_t tag[SEAL_TAG_LEN];
};
/* The length of the head for n bytes. */
size_t seal_head_len(const struct sealer *s, size_t n);
/* Encrypts n <= INT_MAX bytes from src to dst, which may be the same. aad says what it is ("entry") and is
 * needed to open it. */
void seal(struct sealer *s, const void *aad, size_t aad_len, const uint8_t *src, size_t n, uint8_t *dst,
    struct seal_frame *ret_f);
/* Appends the plain text. ERR_CORRUPT: not an envelope, "sealed with another key", or altered. */
int unseal(struct sealer *s, const void *aad, size_t aad_len, const uint8_t *p, size_t n, struct buf *out,
    struct err *e);

#endif
