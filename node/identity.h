/* Who this node is in its cluster, on disk: <data_root>/swarm/.
 *
 *   node.json   what is no secret: ids, role, addresses
 *   ca.crt      the roots
 *   node.crt    this node's chain
 *   node.key    0600: its private key and, on managers, the Raft data key sealed under it (one file, so that
 * a renewal replaces both at once) init.pb     0600, only until the first start has committed it: the new
 * cluster's objects raft/       the log
 *
 * The directory is made as swarm.new and renamed when it is whole, so a crash leaves a node in or out of a
 * swarm, never between. */
#ifndef NODE_IDENTITY_H
#define NODE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "proto/objects.pb-c.h"

struct identity {
	char *node_id, *cluster_id;
	bool manager;
	uint64_t raft_id;
	char *listen_host;    /* "0.0.0.0" */
	uint16_t listen_port; /* 2377 */
	char *advertise_host; /* an IP address */
	uint16_t advertise_port;
	struct strlist managers; /* "host:port" of the managers that were last known */
	char *ca_pem, *cert_pem, *key_pem;
	uint8_t data_key[32]; /* managers: seals the Raft log */
};
void identity_free(struct identity *id); /* wipes keys; NULL is fine */

/* ERR_NOT_FOUND when this node is in no swarm; ERR_CORRUPT names the file. */
int identity_load(const char *data_root, struct identity **ret, struct err *e);
/* Makes the directory with everything in it; cluster and node NULL unless a new cluster is begun. */
int identity_create(const char *data_root, const struct identity *id, const Pb__Cluster *cluster,
    const Pb__Node *node, struct err *e);
/* The objects of a cluster that is begun; both NULL (and 0) when it was committed. */
int identity_initial(const char *data_root, Pb__Cluster **ret_cluster, Pb__Node **ret_node, struct err *e);
/* The objects are committed: forgets them for good (synced, since what comes back would make the next start
 * begin anew). */
int identity_initial_done(const char *data_root, struct err *e);
/* New certificate and key (renewal). */
int identity_save_keys(const char *data_root, const struct identity *id, struct err *e);
int identity_save_config(const char *data_root, const struct identity *id, struct err *e);
/* Where to connect to for a manager's "host:port": as it is, or, when that is this node's own manager, where
 * it listens; the address that others use may lead here only from elsewhere. Heap. */
char *identity_dial(const struct identity *id, const char *manager);
/* Leaves: the directory is gone (renamed first, so that a crash does not leave half of it). */
int identity_remove(const char *data_root, struct err *e);
/* Clears what a crash left. */
void identity_clean(const char *data_root);
char *identity_raft_dir(const char *data_root); /* heap */

#endif
