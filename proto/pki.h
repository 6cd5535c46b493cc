/* Keys, certificates and join tokens: what both managers and nodes that join need. Synchronous and pure
 * apart from OpenSSL's own randomness for keys and serial numbers. Times are unix nanoseconds.
 *
 * Keys are EC P-256. A key travels as PKCS#8: PEM in files, DER in the cluster object. */
#ifndef PROTO_PKI_H
#define PROTO_PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"

#define PKI_ROLE_MANAGER "swarm-manager"
#define PKI_ROLE_WORKER  "swarm-worker"
#define PKI_CSR_MAX      8192                         /* bytes of a signing request that we look at */
#define PKI_BACKDATE_NS  (INT64_C(3600) * NS_PER_SEC) /* clocks of nodes differ */

/* --- keys. The caller wipes (mem_wipe) and frees what it gets. */
int pki_key_new(char **ret_pem, struct err *e);
int pki_key_to_der(const char *pem, uint8_t **ret_der, size_t *ret_len, struct err *e);
int pki_key_to_pem(const uint8_t *der, size_t n, char **ret_pem, struct err *e);
/* A signing request (DER) for a key; its subject says nothing, the CA decides. */
int pki_csr_new(const char *key_pem, uint8_t **ret_der, size_t *ret_len, struct err *e);

/* --- certificates */
/* A self-signed root, CN swarm-ca, good for 20 years. */
int pki_root_new(
    int64_t now_ns, char **ret_cert_pem, uint8_t **ret_key_der, size_t *ret_key_len, struct err *e);
struct pki_issue {
	const char *root_pem; /* the issuer: its first certificate signs */
	const uint8_t *root_key;
	size_t root_key_len;
	const uint8_t *csr; /* DER */
	size_t csr_len;
	const char *node_id, *role, *cluster_id; /* CN, OU, O */
	int64_t not_before_ns, not_after_ns;
};
/* Checks the request's own signature and that its key is P-256; ERR_INVALID names what is wrong. */
int pki_issue(const struct pki_issue *o, char **ret_cert_pem, struct err *e);
/* Whether the chain's leaf is good under the roots at now_ns; ERR_UNAUTHORIZED with the reason. */
int pki_verify(const char *chain_pem, const char *roots_pem, int64_t now_ns, struct err *e);
/* 0 when the key belongs to the chain's leaf. */
int pki_key_matches(const char *chain_pem, const char *key_pem, struct err *e);
struct pki_cert_info {
	char node_id[64], role[32], cluster_id[64];
	int64_t not_before_ns, not_after_ns;
};
/* Of the first certificate. */
int pki_cert_info(const char *chain_pem, struct pki_cert_info *ret, struct err *e);
/* A root's subject and public key (SubjectPublicKeyInfo) as DER, which TLSInfo shows. */
int pki_root_info(const char *root_pem, struct buf *ret_subject, struct buf *ret_public_key, struct err *e);
/* When to renew: a random point between 50 % and 80 % of the life, so that nodes made together do not
 * all come back together. */
int64_t pki_renew_at(int64_t not_before_ns, int64_t not_after_ns, struct rng r);

/* --- join tokens: SWMTKN-1-<digest of the root certificate's PEM>-<secret> */
#define PKI_DIGEST_LEN 50
#define PKI_SECRET_LEN 25
#define PKI_TOKEN_LEN  (9 + PKI_DIGEST_LEN + 1 + PKI_SECRET_LEN)
struct pki_token {
	char digest[PKI_DIGEST_LEN + 1];
	char secret[PKI_SECRET_LEN + 1];
};
void pki_token_new(struct rng r, const char *root_pem, char out[PKI_TOKEN_LEN + 1]);
int pki_token_parse(const char *s, struct pki_token *ret, struct err *e);
/* Whether the root is the one that the token was made for. A joiner checks this before it sends the token. */
bool pki_token_is_for(const struct pki_token *t, const char *root_pem);
/* Compares without telling by its duration where they differ. NULL equals nothing. */
bool pki_secret_equal(const char *a, const char *b);

/* --- unlock keys (autolock): SWMKEY-1-<base64 of 32 bytes, no padding> */
#define PKI_UNLOCK_LEN 32
void pki_unlock_key_format(const uint8_t key[PKI_UNLOCK_LEN], char out[64]);
int pki_unlock_key_parse(const char *s, uint8_t ret_key[PKI_UNLOCK_LEN], struct err *e);
/* Seals bytes (a private key's PEM, the Raft data key) under a 32-byte key with AES-256-GCM, as a PEM block
 * "SHOAL SEALED KEY". open: ERR_FORBIDDEN when the key is another, ERR_CORRUPT when it is no such block. */
void pki_seal(const uint8_t key[PKI_UNLOCK_LEN], const void *p, size_t n, struct buf *ret_pem);
int pki_open(const uint8_t key[PKI_UNLOCK_LEN], const char *pem, struct buf *ret, struct err *e);
bool pki_is_sealed(const char *pem);

#endif
