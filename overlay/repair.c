/* Comparing the kernel with the records.
 *
 * Happy path: links of ours that no record explains are removed, or, on start, adopted by their alias when
 * their namespace is still bound; routes are put back; hostnet_reconcile drops containers that the caller
 * does not know.
 *
 * Failure: logged; the next reconcile tries again. */
#include "overlay/hostnet_priv.h"

#include <dirent.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

struct adopt {
	struct hostnet *n;
	struct strlist strays; /* links of ours that no record explains */
	bool adopt;
};

static void on_own_link(void *data, const struct rtnl_link *l)
{
	struct adopt *a = data;
	struct hostnet *n = a->n;
	uint32_t addr = endpoint_address(n, l->name);
	if (!addr)
		return;
	const struct net_container *c = strmap_get(&n->containers, l->alias);
	if (c && c->addr == addr)
		return;
	char path[256];
	endpoint_netns(n, l->alias, path);
	/* The records were lost, but the link says whose it is. */
	if (a->adopt && !c && fs_exists(path) && state_check_id("container", l->alias, NULL) == 0 &&
	    ipam_take(&n->ipam, addr, NULL) == 0) {
		struct net_container *x = NEW(struct net_container);
		x->id = xstrdup(l->alias);
		x->addr = addr;
		strmap_put(&n->containers, x->id, x);
		state_save_container(n, x, NULL);
		return;
	}
	strlist_add(&a->strays, l->name);
}

void repair_links(struct hostnet *n, bool adopt)
{
	struct adopt a = {.n = n, .adopt = adopt};
	struct err e = ERR_INIT;
	if (rtnl_link_each(&n->rt, on_own_link, &a, &e) < 0)
		log_warn("network: %s", e.text);
	for (size_t i = 0; i < a.strays.n; i++) {
		log_info("network: removed link %s of no container", a.strays.v[i]);
		endpoint_delete_link(n, a.strays.v[i]);
	}
	strlist_done(&a.strays);
}

static void sweep_namespaces(struct hostnet *n)
{
	DIR *d = opendir(n->netns_dir);
	if (!d)
		return;
	for (struct dirent *x; (x = readdir(d));) {
		if (x->d_name[0] == '.' || strmap_has(&n->containers, x->d_name))
			continue;
		char *path CLEANUP_FREE = fs_path(n->netns_dir, x->d_name);
		netns_remove(path);
	}
	closedir(d);
}

/* The host's side of what is attached: routes go, for example, when somebody takes the gateway's address
 * away. */
int repair_routes(struct hostnet *n, struct err *e)
{
	struct nl_batch b CLEANUP_NL_BATCH = NL_BATCH_INIT;
	void *v;
	int r = 0;
	for (size_t it = 0; r == 0 && strmap_next(&n->containers, &it, NULL, &v);) {
		const struct net_container *c = v;
		char link[16];
		endpoint_link(n, c->addr, link);
		int index = rtnl_link_index(&n->rt, link);
		if (!index)
			continue; /* its namespace is gone; reconcile or detach will say so */
		endpoint_put_host_end(n, &b, c, link, index);
		if (b.n > 256)
			r = nl_send(&n->rt, &b, NULL, e);
	}
	return r < 0 ? r : nl_send(&n->rt, &b, NULL, e);
}

void hostnet_reconcile(struct hostnet *n, const char *const *container_ids, size_t count)
{
	struct strmap keep = STRMAP_INIT;
	for (size_t i = 0; i < count; i++)
		strmap_put(&keep, container_ids[i], n);
	pthread_mutex_lock(&n->lock);
	struct strlist gone = STRLIST_INIT;
	const char *id;
	void *v;
	for (size_t it = 0; strmap_next(&n->containers, &it, &id, &v);)
		if (!strmap_has(&keep, id) && !((struct net_container *)v)->building)
			strlist_add(&gone, id);
	for (size_t i = 0; i < gone.n; i++) {
		v = strmap_get(&n->containers, gone.v[i]);
		hostnet_detach_locked(n, v);
	}
	strlist_done(&gone);
	ingress_drop_stale(n);
	repair_links(n, false);
	sweep_namespaces(n);
	struct err e = ERR_INIT;
	if (gateway_ensure(n, &e) < 0 || repair_routes(n, &e) < 0 ||
	    (!fw_is_intact(n) && fw_rebuild(n, &e) < 0) || forward_ensure(n, &e) < 0)
		log_warn("network: repair: %s", e.text);
	pthread_mutex_unlock(&n->lock);
	strmap_done(&keep);
}
