/* The node's certificate is renewed at a random point past half its life: new key, signing request over
 * mutual TLS to a manager, new files, new TLS contexts. Connections that are open go on. A renewal that fails
 * is tried again after a while; the certificate in use stays good meanwhile. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "node/addr.h"
#include "node/node_private.h"
#include "proto/control.pb-c.h"
#include "proto/pki.h"

#define RETRY_MS     (60u * 1000)
#define TIMER_MAX_MS INT64_C(86400000)

static void client_gone(void *data)
{
	(void)data;
}

static void drop(struct swarm *s)
{
	if (s->renew_client)
		rpc_client_close(TAKE_PTR(s->renew_client), client_gone, NULL);
	if (s->renew_key) {
		mem_wipe(s->renew_key, strlen(s->renew_key));
		free(TAKE_PTR(s->renew_key));
	}
}

static int take(struct swarm *s, const Pb__IssueCertificateResponse *r, struct err *e)
{
	struct identity *id = s->identity;
	int rc = pki_key_matches(r->certificate, s->renew_key, e);
	if (rc == 0)
		rc = pki_verify(r->certificate, r->root_ca, clock_unix_ns(s->node->clock), e);
	if (rc != 0)
		return rc;
	char *old_ca = id->ca_pem, *old_cert = id->cert_pem, *old_key = id->key_pem;
	id->ca_pem = xstrdup(r->root_ca);
	id->cert_pem = xstrdup(r->certificate);
	id->key_pem = TAKE_PTR(s->renew_key);
	rc = identity_save_keys(s->node->cfg->data_root, id, e);
	if (rc == 0)
		rc = swarm_make_tls(s, e);
	free(old_ca);
	free(old_cert);
	mem_wipe(old_key, strlen(old_key));
	free(old_key);
	return rc;
}

static void on_response(void *data, const ProtobufCMessage *m, const struct err *e)
{
	struct swarm *s = data;
	struct err te = ERR_INIT;
	if (!s->renew_client) /* stopped meanwhile */
		return;
	if (m && !e->code)
		take(s, (const Pb__IssueCertificateResponse *)m, &te);
	else
		err_copy(&te, e);
	drop(s);
	if (te.code) {
		log_warn(
		    "the node's certificate could not be renewed, trying again in a minute: %s", te.text);
		timer_start(s->renew, RETRY_MS);
		return;
	}
	log_info("the node's certificate was renewed");
	renew_schedule(s);
}

static void renew(void *data)
{
	struct swarm *s = data;
	const struct identity *id = s->identity;
	struct pki_cert_info info;
	struct err e = ERR_INIT;
	if (pki_cert_info(id->cert_pem, &info, NULL) == 0 &&
	    clock_unix_ns(s->node->clock) <
		info.not_before_ns + (info.not_after_ns - info.not_before_ns) / 2) {
		renew_schedule(s); /* a timer reaches a day at most */
		return;
	}
	uint8_t *csr = NULL;
	size_t csr_len;
	char host[256];
	uint16_t port;
	const char *addr = id->managers.v[rng_below(s->node->rng, id->managers.n)];
	CLEANUP_FREE char *at = identity_dial(id, addr);
	int rc = addr_split(at, host, &port, &e);
	if (rc == 0)
		rc = pki_key_new(&s->renew_key, &e);
	if (rc == 0)
		rc = pki_csr_new(s->renew_key, &csr, &csr_len, &e);
	if (rc == 0) {
		Pb__IssueCertificateRequest q = PB__ISSUE_CERTIFICATE_REQUEST__INIT;
		q.csr.data = csr;
		q.csr.len = csr_len;
		s->renew_client = rpc_client_new(s->node->loop, s->client_tls, host, port);
		rc = rpc_unary(s->renew_client, "/shoal.CA/IssueCertificate", &q,
		    &pb__issue_certificate_response__descriptor, 20000, on_response, s, &e);
	}
	free(csr);
	if (rc != 0) {
		drop(s);
		log_warn("the node's certificate could not be renewed, trying again in a minute: %s", e.text);
		timer_start(s->renew, RETRY_MS);
	}
}

void renew_schedule(struct swarm *s)
{
	struct pki_cert_info info;
	if (!s->renew)
		s->renew = timer_new(s->node->loop, renew, s);
	if (pki_cert_info(s->identity->cert_pem, &info, NULL) != 0)
		return;
	int64_t now = clock_unix_ns(s->node->clock);
	int64_t ms = (pki_renew_at(info.not_before_ns, info.not_after_ns, s->node->rng) - now) / NS_PER_MSEC;
	timer_start(s->renew, (uint64_t)(ms < 1000 ? 1000 : ms > TIMER_MAX_MS ? TIMER_MAX_MS : ms));
}

void renew_stop(struct swarm *s)
{
	drop(s);
	timer_free(TAKE_PTR(s->renew));
}
