/* See ca.h. Joining: the token's secret decides the role; the Node object is committed first, so that a
 * certificate never exists for a node that the cluster does not know. Renewing: the peer's own certificate
 * says who asks. Everything else is refused, with the same words for a wrong secret and a wrong digest. */
#include "manager/ca/ca.h"

#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/control.pb-c.h"
#include "proto/pb.h"
#include "proto/pki.h"

#define EXPIRY_DEFAULT_NS (INT64_C(90) * 24 * 3600 * NS_PER_SEC)
#define EXPIRY_MIN_NS     (INT64_C(3600) * NS_PER_SEC)

struct ca {
	struct ca_opts o;
	struct rpc_method methods[2];
	struct issue *issues; /* calls that wait for a commit */
};

int ca_cluster_init(Pb__Cluster *c, int64_t now_ns, struct rng r, struct err *e)
{
	uint8_t *key;
	size_t n;
	char token[PKI_TOKEN_LEN + 1];
	CLEANUP_BUF struct buf subject = BUF_INIT, pub = BUF_INIT;
	int rc = pki_root_new(now_ns, &c->root_ca_cert, &key, &n, e);
	if (rc != 0)
		return err_wrap(e, "making the root certificate");
	c->has_root_ca_key = true;
	c->root_ca_key.data = key;
	c->root_ca_key.len = n;
	rc = pki_root_info(c->root_ca_cert, &subject, &pub, e);
	if (rc != 0)
		return rc;
	c->tls_info = PB_NEW(Pb__TLSInfo, pb__tlsinfo);
	c->tls_info->trust_root = xstrdup(c->root_ca_cert);
	c->tls_info->has_cert_issuer_subject = c->tls_info->has_cert_issuer_public_key = true;
	c->tls_info->cert_issuer_subject.data = xmemdup(subject.data, subject.len);
	c->tls_info->cert_issuer_subject.len = subject.len;
	c->tls_info->cert_issuer_public_key.data = xmemdup(pub.data, pub.len);
	c->tls_info->cert_issuer_public_key.len = pub.len;
	c->join_tokens = PB_NEW(Pb__JoinTokens, pb__join_tokens);
	pki_token_new(r, c->root_ca_cert, token);
	c->join_tokens->worker = xstrdup(token);
	pki_token_new(r, c->root_ca_cert, token);
	c->join_tokens->manager = xstrdup(token);
	mem_wipe(token, sizeof(token));
	return 0;
}

int ca_issue(const Pb__Cluster *c, const void *csr, size_t n, const char *node_id, Pb__NodeRole__E role,
    int64_t now_ns, char **ret_cert_pem, struct err *e)
{
	if (n > PKI_CSR_MAX)
		return err_set(e, ERR_TOO_LARGE, "the signing request is over %d bytes", PKI_CSR_MAX);
	if (!c->has_root_ca_key)
		return err_set(e, ERR_UNAVAILABLE, "this cluster has no root key to sign with");
	int64_t life = c->spec->ca_config && c->spec->ca_config->has_node_cert_expiry
			   ? c->spec->ca_config->node_cert_expiry
			   : 0;
	life = life <= 0 ? EXPIRY_DEFAULT_NS : life < EXPIRY_MIN_NS ? EXPIRY_MIN_NS : life;
	const struct pki_issue q = {
	    .root_pem = c->root_ca_cert,
	    .root_key = c->root_ca_key.data,
	    .root_key_len = c->root_ca_key.len,
	    .csr = csr,
	    .csr_len = n,
	    .node_id = node_id,
	    .role = role == PB__NODE_ROLE__E__MANAGER ? PKI_ROLE_MANAGER : PKI_ROLE_WORKER,
	    .cluster_id = c->id,
	    .not_before_ns = now_ns - PKI_BACKDATE_NS,
	    .not_after_ns = now_ns + life,
	};
	return pki_issue(&q, ret_cert_pem, e);
}

/* --- calls */

struct issue {
	struct ca *ca;
	struct issue *next;
	struct rpc_stream *stream; /* NULL once the caller has gone */
	struct tls_peer peer;
	char node_id[64];
	Pb__NodeRole__E role;
	uint8_t csr[PKI_CSR_MAX];
	size_t csr_len;
	bool waiting; /* for a commit */
};

static void issue_free(struct issue *i)
{
	struct issue **p = i->ca ? &i->ca->issues : NULL;
	while (p && *p && *p != i)
		p = &(*p)->next;
	if (p && *p)
		*p = i->next;
	free(i);
}

static void fail(struct issue *i, const struct err *e)
{
	if (i->stream)
		rpc_stream_finish(i->stream, e);
	issue_free(i);
}

static void issue_now(struct issue *i)
{
	struct err e = ERR_INIT;
	const Pb__Cluster *c = store_cluster(i->ca->o.store);
	char *cert = NULL;
	if (!c)
		err_set(&e, ERR_UNAVAILABLE, "this manager has no cluster");
	else
		ca_issue(
		    c, i->csr, i->csr_len, i->node_id, i->role, clock_unix_ns(i->ca->o.clock), &cert, &e);
	if (!c || e.code) {
		fail(i, &e);
		return;
	}
	Pb__IssueCertificateResponse r = PB__ISSUE_CERTIFICATE_RESPONSE__INIT;
	r.node_id = i->node_id;
	r.role = i->role;
	r.certificate = cert;
	r.root_ca = c->root_ca_cert;
	if (i->stream) {
		rpc_stream_send(i->stream, &r);
		rpc_stream_finish(i->stream, NULL);
	}
	free(cert);
	log_info("issued a certificate to node %s", i->node_id);
	issue_free(i);
}

static void on_committed(void *data, int status, const struct err *e)
{
	struct issue *i = data;
	i->waiting = false;
	if (!i->ca || !i->stream)
		issue_free(i);
	else if (status != 0)
		fail(i, e);
	else
		issue_now(i);
}

static int by_token(struct issue *i, const Pb__IssueCertificateRequest *q, struct err *e)
{
	const Pb__Cluster *c = store_cluster(i->ca->o.store);
	struct pki_token given, worker, manager;
	if (!c || !c->join_tokens)
		return err_set(e, ERR_UNAVAILABLE, "this manager has no cluster");
	if (pki_token_parse(q->token, &given, e) != 0 ||
	    pki_token_parse(c->join_tokens->worker, &worker, e) != 0 ||
	    pki_token_parse(c->join_tokens->manager, &manager, e) != 0)
		return ERR_INVALID;
	bool is_worker = pki_secret_equal(given.secret, worker.secret);
	bool is_manager = pki_secret_equal(given.secret, manager.secret);
	if ((!is_worker && !is_manager) || !pki_secret_equal(given.digest, worker.digest))
		return err_set(e, ERR_UNAUTHORIZED, "a valid join token is necessary to join this cluster");
	i->role = is_manager ? PB__NODE_ROLE__E__MANAGER : PB__NODE_ROLE__E__WORKER;
	char id[ID_LEN + 1];
	id_new(i->ca->o.rng, id);
	snprintf(i->node_id, sizeof(i->node_id), "%s", id);
	Pb__Node *n = PB_NEW(Pb__Node, pb__node);
	n->id = xstrdup(id);
	n->spec = PB_NEW(Pb__NodeSpec, pb__node_spec);
	n->spec->has_role = n->spec->has_availability = n->has_role = true;
	n->spec->role = n->role = i->role;
	n->spec->availability = q->availability;
	n->status = PB_NEW(Pb__NodeStatus, pb__node_status);
	n->status->has_state = true;
	n->status->state = PB__NODE_STATE__E__UNKNOWN;
	struct txn *t = txn_new();
	txn_create(t, OBJ(NODE), n);
	int rc = i->ca->o.propose(i->ca->o.data, t, on_committed, i, e);
	txn_free(t);
	i->waiting = rc == 0;
	return rc;
}

static int by_certificate(struct issue *i, struct err *e)
{
	const Pb__Cluster *c = store_cluster(i->ca->o.store);
	const struct object *o = store_get(i->ca->o.store, OBJ(NODE), i->peer.node_id);
	if (!c)
		return err_set(e, ERR_UNAVAILABLE, "this manager has no cluster");
	if (!o || strcmp(i->peer.org, c->id) != 0)
		return err_set(
		    e, ERR_FORBIDDEN, "node %s is not part of this cluster any more", i->peer.node_id);
	snprintf(i->node_id, sizeof(i->node_id), "%s", o->node->id);
	i->role = o->node->spec->has_role ? o->node->spec->role : PB__NODE_ROLE__E__WORKER;
	return 0;
}

static void on_issue_message(void *data, const ProtobufCMessage *m)
{
	struct issue *i = data;
	const Pb__IssueCertificateRequest *q = (const Pb__IssueCertificateRequest *)m;
	struct err e = ERR_INIT;
	if (q->csr.len == 0 || q->csr.len > sizeof(i->csr)) {
		err_set(&e, ERR_INVALID, "the signing request must have 1 to %zu bytes", sizeof(i->csr));
		fail(i, &e);
		return;
	}
	if (!protobuf_c_enum_descriptor_get_value(
		&pb__node_availability__e__descriptor, (int)q->availability)) {
		err_set(&e, ERR_INVALID, "the availability must be active, pause or drain");
		fail(i, &e);
		return;
	}
	memcpy(i->csr, q->csr.data, q->csr.len);
	i->csr_len = q->csr.len;
	int rc;
	if (!str_empty(q->token))
		rc = by_token(i, q, &e);
	else if (i->peer.verified)
		rc = by_certificate(i, &e);
	else
		rc = err_set(&e, ERR_UNAUTHORIZED, "a valid join token is necessary to join this cluster");
	if (rc != 0)
		fail(i, &e);
	else if (!i->waiting)
		issue_now(i);
}

static void on_issue_closed(void *data, const struct err *why)
{
	struct issue *i = data;
	(void)why;
	i->stream = NULL;
	if (!i->waiting)
		issue_free(i);
}

static void issue_begin(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = on_issue_message, .closed = on_issue_closed};
	struct ca *ca = data;
	struct issue *i = NEW(struct issue);
	i->ca = ca;
	i->stream = s;
	i->peer = *peer;
	i->next = ca->issues;
	ca->issues = i;
	rpc_stream_set_ops(s, &ops, i);
}

static void on_root_message(void *data, const ProtobufCMessage *m)
{
	struct issue *i = data;
	struct err e = ERR_INIT;
	(void)m;
	const Pb__Cluster *c = store_cluster(i->ca->o.store);
	if (!c) {
		err_set(&e, ERR_UNAVAILABLE, "this manager has no cluster");
		fail(i, &e);
		return;
	}
	Pb__GetRootCAResponse r = PB__GET_ROOT_CARESPONSE__INIT;
	r.certificate = c->root_ca_cert;
	rpc_stream_send(i->stream, &r);
	rpc_stream_finish(i->stream, NULL);
	issue_free(i);
}

static void root_begin(void *data, struct rpc_stream *s, const struct tls_peer *peer)
{
	static const struct rpc_stream_ops ops = {.message = on_root_message, .closed = on_issue_closed};
	struct ca *ca = data;
	struct issue *i = NEW(struct issue);
	(void)peer;
	i->ca = ca;
	i->stream = s;
	i->next = ca->issues;
	ca->issues = i;
	rpc_stream_set_ops(s, &ops, i);
}

struct ca *ca_new(const struct ca_opts *o)
{
	struct ca *ca = NEW(struct ca);
	ca->o = *o;
	ca->methods[0] = (struct rpc_method){
	    .path = "/shoal.CA/GetRootCA",
	    .request = &pb__get_root_carequest__descriptor,
	    .response = &pb__get_root_caresponse__descriptor,
	    .unary = true,
	    .begin = root_begin,
	    .data = ca,
	};
	ca->methods[1] = (struct rpc_method){
	    .path = "/shoal.CA/IssueCertificate",
	    .request = &pb__issue_certificate_request__descriptor,
	    .response = &pb__issue_certificate_response__descriptor,
	    .unary = true,
	    .begin = issue_begin,
	    .data = ca,
	};
	return ca;
}

void ca_free(struct ca *ca)
{
	if (!ca)
		return;
	/* Calls whose commit is still to come outlive this and end by themselves. */
	for (struct issue *i = ca->issues, *next; i; i = next) {
		next = i->next;
		i->ca = NULL;
		if (i->stream)
			rpc_stream_cancel(TAKE_PTR(i->stream));
		if (!i->waiting)
			free(i);
	}
	free(ca);
}

const struct rpc_method *ca_methods(struct ca *ca, size_t *ret_n)
{
	*ret_n = ARRAY_LEN(ca->methods);
	return ca->methods;
}
