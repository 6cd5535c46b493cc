/* What the pki_*.c files share. */
#ifndef PROTO_PKI_PRIVATE_H
#define PROTO_PKI_PRIVATE_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "proto/pki.h"

/* "<what>: <OpenSSL's reason>"; empties the queue; returns code. */
int pki_err(struct err *e, int code, const char *what);
/* For PEM readers: OpenSSL's own would ask on the terminal. */
int pki_no_passphrase(char *out, int n, int rw, void *data);
/* NULL and e (ERR_INVALID) when it is not one. */
EVP_PKEY *pki_load_key_pem(const char *pem, struct err *e);
EVP_PKEY *pki_load_key_der(const uint8_t *der, size_t n, struct err *e);
X509 *pki_load_cert(const char *pem, struct err *e);
/* The contents of a memory BIO, NUL-terminated, on the heap. */
char *pki_bio_text(BIO *b);

#endif
