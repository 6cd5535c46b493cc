/* The cluster's certificate authority: who gets a certificate, with which role. The crypto is proto/pki.h.
 *
 * GetRootCA answers anybody (the joiner checks the digest in its token). IssueCertificate wants a join token
 * of the cluster (which says the role), or, to renew, a verified certificate of a node that is still in the
 * store: the node keeps its id and gets the role that its object asks for. A joiner's Node object is
 * committed before its certificate goes out. */
#ifndef MANAGER_CA_CA_H
#define MANAGER_CA_CA_H

#include <stddef.h>

#include "base/err.h"
#include "base/rng.h"
#include "manager/store/store.h"
#include "proto/rpc.h"

struct ca;
struct ca_opts {
	struct store *store;
	struct clock clock;
	struct rng rng;
	/* As dispatcher_opts.propose. */
	int (*propose)(void *data, const struct txn *t,
	    void (*cb)(void *cb_data, int status, const struct err *e), void *cb_data, struct err *e);
	void *data;
};
struct ca *ca_new(const struct ca_opts *o);
void ca_free(struct ca *ca); /* NULL is fine */
/* /shoal.CA/GetRootCA and /shoal.CA/IssueCertificate, for rpc_server_add; live as long as ca. */
const struct rpc_method *ca_methods(struct ca *ca, size_t *ret_n);

/* A new cluster's object: root CA, join tokens, TLSInfo, on top of spec and addressing that are set in `c`
 * already. */
int ca_cluster_init(Pb__Cluster *c, int64_t now_ns, struct rng r, struct err *e);
/* A certificate by the cluster's root for a signing request (DER), good for the cluster's NodeCertExpiry.
 * PEM, heap. */
int ca_issue(const Pb__Cluster *c, const void *csr, size_t n, const char *node_id, Pb__NodeRole__E role,
    int64_t now_ns, char **ret_cert_pem, struct err *e);

#endif
