/* See identity.h. */
#include "node/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "node/addr.h"
#include "proto/log.pb-c.h"
#include "proto/pb.h"
#include "proto/pki.h"

#define FILE_MAX    (1024u * 1024)
#define CERT_MARK   "-----BEGIN CERTIFICATE-----"
#define SEALED_MARK "-----BEGIN SHOAL SEALED KEY-----"

void identity_free(struct identity *id)
{
	if (!id)
		return;
	if (id->key_pem)
		mem_wipe(id->key_pem, strlen(id->key_pem));
	mem_wipe(id->data_key, sizeof(id->data_key));
	free(id->node_id);
	free(id->cluster_id);
	free(id->listen_host);
	free(id->advertise_host);
	free(id->ca_pem);
	free(id->cert_pem);
	free(id->key_pem);
	strlist_done(&id->managers);
	free(id);
}

static char *swarm_path(const char *data_root, const char *dir, const char *name)
{
	return name ? xasprintf("%s/%s/%s", data_root, dir, name) : xasprintf("%s/%s", data_root, dir);
}

char *identity_raft_dir(const char *data_root)
{
	return swarm_path(data_root, "swarm", "raft");
}

/* The key that the data key is sealed under follows from the private key. */
static void derive_kek(const char *key_pem, uint8_t out[32])
{
	static const char label[] = "shoal raft data key";
	unsigned n = 32;
	HMAC(EVP_sha256(), key_pem, (int)strlen(key_pem), (const uint8_t *)label, sizeof(label) - 1, out, &n);
}

static int write_in(const char *data_root, const char *dir, const char *name, const void *p, size_t n,
    mode_t mode, struct err *e)
{
	CLEANUP_FREE char *path = swarm_path(data_root, dir, name);
	return fs_write_atomic(path, p, n, mode, e);
}

static int save_config(const char *data_root, const char *dir, const struct identity *id, struct err *e)
{
	json_t *managers = json_array();
	for (size_t i = 0; i < id->managers.n; i++)
		json_array_append_new(managers, json_string(id->managers.v[i]));
	json_t *j = json_pack("{s:i, s:s, s:s, s:b, s:I, s:s, s:i, s:s, s:i, s:o}", "format", 1, "node_id",
	    id->node_id, "cluster_id", id->cluster_id, "manager", id->manager, "raft_id",
	    (json_int_t)id->raft_id, "listen_host", id->listen_host, "listen_port", (int)id->listen_port,
	    "advertise_host", id->advertise_host, "advertise_port", (int)id->advertise_port, "managers",
	    managers);
	char *text = json_dumps(j, JSON_INDENT(2));
	json_decref(j);
	int rc = write_in(data_root, dir, "node.json", text, strlen(text), 0600, e);
	free(text);
	return rc;
}

static int save_keys(const char *data_root, const char *dir, const struct identity *id, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	uint8_t kek[32];
	buf_puts(&b, id->key_pem);
	buf_puts(&b, id->cert_pem);
	if (id->manager) {
		derive_kek(id->key_pem, kek);
		pki_seal(kek, id->data_key, sizeof(id->data_key), &b);
		mem_wipe(kek, sizeof(kek));
	}
	int rc = write_in(data_root, dir, "ca.crt", id->ca_pem, strlen(id->ca_pem), 0644, e);
	/* The key first: a certificate that does not belong to the key is noticed at the next start, and the
	 * old key would be lost for good. */
	if (rc == 0)
		rc = write_in(data_root, dir, "node.key", b.data, b.len, 0600, e);
	if (rc == 0)
		rc = write_in(data_root, dir, "node.crt", id->cert_pem, strlen(id->cert_pem), 0644, e);
	mem_wipe(b.data, b.len);
	return rc;
}

int identity_save_keys(const char *data_root, const struct identity *id, struct err *e)
{
	return save_keys(data_root, "swarm", id, e);
}

char *identity_dial(const struct identity *id, const char *manager)
{
	CLEANUP_FREE char *own = addr_join(id->advertise_host, id->advertise_port);
	if (!id->manager || strcmp(own, manager) != 0)
		return xstrdup(manager);
	const char *host = id->listen_host;
	if (strcmp(host, "0.0.0.0") == 0)
		host = "127.0.0.1";
	else if (strcmp(host, "::") == 0)
		host = "::1";
	return addr_join(host, id->listen_port);
}

int identity_save_config(const char *data_root, const struct identity *id, struct err *e)
{
	return save_config(data_root, "swarm", id, e);
}

static int save_initial(
    const char *data_root, const Pb__Cluster *cluster, const Pb__Node *node, struct err *e)
{
	Pb__Txn txn = PB__TXN__INIT;
	Pb__Action actions[2], *ptrs[2] = {&actions[0], &actions[1]};
	const ProtobufCMessage *msgs[2] = {&cluster->base, &node->base};
	for (size_t i = 0; i < 2; i++) {
		pb__action__init(&actions[i]);
		actions[i].type = PB__ACTION_TYPE__E__CREATE;
		actions[i].kind = i == 0 ? PB__OBJECT_KIND__E__CLUSTER : PB__OBJECT_KIND__E__NODE;
		actions[i].has_object = true;
		actions[i].object.len = protobuf_c_message_get_packed_size(msgs[i]);
		actions[i].object.data = xmalloc(actions[i].object.len);
		protobuf_c_message_pack(msgs[i], actions[i].object.data);
	}
	txn.actions = ptrs;
	txn.n_actions = 2;
	size_t n = pb__txn__get_packed_size(&txn);
	uint8_t *p = xmalloc(n);
	pb__txn__pack(&txn, p);
	int rc = write_in(data_root, "swarm.new", "init.pb", p, n, 0600, e);
	mem_wipe(p, n);
	free(p);
	for (size_t i = 0; i < 2; i++) {
		mem_wipe(actions[i].object.data, actions[i].object.len);
		free(actions[i].object.data);
	}
	return rc;
}

int identity_create(const char *data_root, const struct identity *id, const Pb__Cluster *cluster,
    const Pb__Node *node, struct err *e)
{
	CLEANUP_FREE char *fresh = swarm_path(data_root, "swarm.new", NULL);
	CLEANUP_FREE char *final = swarm_path(data_root, "swarm", NULL);
	int rc = fs_remove_tree(fresh, e);
	if (rc == 0)
		rc = fs_mkdir_p(fresh, 0700, e);
	if (rc == 0)
		rc = save_config(data_root, "swarm.new", id, e);
	if (rc == 0)
		rc = save_keys(data_root, "swarm.new", id, e);
	if (rc == 0 && cluster)
		rc = save_initial(data_root, cluster, node, e);
	if (rc == 0 && rename(fresh, final) != 0)
		rc = err_errno(e, errno, "renaming %s to %s", fresh, final);
	if (rc != 0)
		fs_remove_tree(fresh, NULL);
	return rc;
}

int identity_initial(const char *data_root, Pb__Cluster **ret_cluster, Pb__Node **ret_node, struct err *e)
{
	CLEANUP_FREE char *path = swarm_path(data_root, "swarm", "init.pb");
	CLEANUP_BUF struct buf b = BUF_INIT;
	*ret_cluster = NULL;
	*ret_node = NULL;
	struct err re = ERR_INIT;
	if (fs_read(path, FILE_MAX, &b, &re) != 0)
		return re.code == ERR_NOT_FOUND ? 0 : err_copy(e, &re);
	CLEANUP_PB Pb__Txn *txn = NULL;
	int rc = pb_unpack(&pb__txn__descriptor, b.data, b.len, &txn, e);
	if (rc == 0 && txn->n_actions != 2)
		rc = err_set(e, ERR_CORRUPT, "it does not hold two objects");
	if (rc == 0)
		rc = pb_unpack(&pb__cluster__descriptor, txn->actions[0]->object.data,
		    txn->actions[0]->object.len, ret_cluster, e);
	if (rc == 0)
		rc = pb_unpack(&pb__node__descriptor, txn->actions[1]->object.data,
		    txn->actions[1]->object.len, ret_node, e);
	mem_wipe(b.data, b.len);
	if (rc != 0) {
		pb_free(TAKE_PTR(*ret_cluster));
		return err_wrap(e, "%s", path);
	}
	return 0;
}

int identity_initial_done(const char *data_root, struct err *e)
{
	CLEANUP_FREE char *path = swarm_path(data_root, "swarm", "init.pb");
	CLEANUP_FREE char *dir = swarm_path(data_root, "swarm", NULL);
	if (unlink(path) != 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "removing %s", path);
	CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		return err_errno(e, errno, "syncing %s", dir);
	return 0;
}

/* --- loading */

static int read_in(const char *data_root, const char *name, struct buf *out, struct err *e)
{
	CLEANUP_FREE char *path = swarm_path(data_root, "swarm", name);
	return fs_read(path, FILE_MAX, out, e);
}

static int load_keys(const char *data_root, struct identity *id, struct err *e)
{
	CLEANUP_BUF struct buf ca = BUF_INIT, key = BUF_INIT;
	int rc = read_in(data_root, "ca.crt", &ca, e);
	if (rc == 0)
		rc = read_in(data_root, "node.key", &key, e);
	if (rc != 0)
		return rc;
	id->ca_pem = xstrdup(ca.data);
	const char *cert = strstr(key.data, CERT_MARK), *mark = strstr(key.data, SEALED_MARK);
	if (!cert || (mark && mark < cert))
		return err_set(e, ERR_CORRUPT, "%s/swarm/node.key holds no certificate", data_root);
	id->key_pem = xstrndup(key.data, (size_t)(cert - key.data));
	id->cert_pem = mark ? xstrndup(cert, (size_t)(mark - cert)) : xstrdup(cert);
	if (id->manager) {
		uint8_t kek[32];
		CLEANUP_BUF struct buf opened = BUF_INIT;
		if (!mark)
			return err_set(e, ERR_CORRUPT, "%s/swarm/node.key holds no data key", data_root);
		derive_kek(id->key_pem, kek);
		rc = pki_open(kek, mark, &opened, e);
		mem_wipe(kek, sizeof(kek));
		if (rc != 0)
			return err_wrap(e, "%s/swarm/node.key", data_root);
		if (opened.len != sizeof(id->data_key))
			return err_set(e, ERR_CORRUPT, "%s/swarm/node.key holds a data key of %zu bytes",
			    data_root, opened.len);
		memcpy(id->data_key, opened.data, opened.len);
		mem_wipe(opened.data, opened.len);
	}
	mem_wipe(key.data, key.len);
	return pki_key_matches(id->cert_pem, id->key_pem, e);
}

static int load_config(const char *data_root, struct identity *id, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	int rc = read_in(data_root, "node.json", &b, e);
	if (rc != 0)
		return rc;
	json_error_t je;
	json_t *j = json_loadb(b.data, b.len, 0, &je);
	const char *node_id = NULL, *cluster_id = NULL, *listen = NULL, *advertise = NULL;
	int manager = 0, listen_port = 0, advertise_port = 0, format = 0;
	json_int_t raft_id = 0;
	json_t *managers = NULL;
	if (!j ||
	    json_unpack_ex(j, &je, 0, "{s:i, s:s, s:s, s:b, s:I, s:s, s:i, s:s, s:i, s:o}", "format", &format,
		"node_id", &node_id, "cluster_id", &cluster_id, "manager", &manager, "raft_id", &raft_id,
		"listen_host", &listen, "listen_port", &listen_port, "advertise_host", &advertise,
		"advertise_port", &advertise_port, "managers", &managers) != 0 ||
	    format != 1) {
		json_decref(j);
		return err_set(e, ERR_CORRUPT, "%s/swarm/node.json: %s", data_root,
		    format > 1 ? "made by a newer version" : je.text);
	}
	id->node_id = xstrdup(node_id);
	id->cluster_id = xstrdup(cluster_id);
	id->manager = manager != 0;
	id->raft_id = (uint64_t)raft_id;
	id->listen_host = xstrdup(listen);
	id->listen_port = (uint16_t)listen_port;
	id->advertise_host = xstrdup(advertise);
	id->advertise_port = (uint16_t)advertise_port;
	size_t i;
	json_t *m;
	json_array_foreach(managers, i, m) if (json_is_string(m))
	    strlist_add(&id->managers, json_string_value(m));
	json_decref(j);
	return 0;
}

int identity_load(const char *data_root, struct identity **ret, struct err *e)
{
	CLEANUP_FREE char *dir = swarm_path(data_root, "swarm", NULL);
	if (!fs_exists(dir))
		return err_set(e, ERR_NOT_FOUND, "this node is not part of a swarm");
	struct identity *id = NEW(struct identity);
	int rc = load_config(data_root, id, e);
	if (rc == 0)
		rc = load_keys(data_root, id, e);
	if (rc != 0) {
		identity_free(id);
		/* A missing file is damage here, not "no swarm". */
		if (rc == ERR_NOT_FOUND && e)
			rc = e->code = ERR_CORRUPT;
		return rc == ERR_NOT_FOUND ? ERR_CORRUPT : rc;
	}
	*ret = id;
	return 0;
}

int identity_remove(const char *data_root, struct err *e)
{
	CLEANUP_FREE char *dir = swarm_path(data_root, "swarm", NULL);
	CLEANUP_FREE char *gone = swarm_path(data_root, "swarm.left", NULL);
	fs_remove_tree(gone, NULL);
	if (rename(dir, gone) != 0 && errno != ENOENT)
		return err_errno(e, errno, "renaming %s to %s", dir, gone);
	return fs_remove_tree(gone, e);
}

void identity_clean(const char *data_root)
{
	const char *const leftovers[] = {"swarm.new", "swarm.left"};
	for (size_t i = 0; i < ARRAY_LEN(leftovers); i++) {
		CLEANUP_FREE char *dir = swarm_path(data_root, leftovers[i], NULL);
		fs_remove_tree(dir, NULL);
	}
}
