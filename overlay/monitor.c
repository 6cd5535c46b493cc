/* Repairing what others do to nftables: a flushed ruleset, a firewall that starts and drops forwarded
 * packets.
 *
 * Happy path: the kernel announces each transaction with the process that made it. One that is not ours arms
 * a short timer (others work in bursts); then our table and the forward chains are compared with what should
 * be, and put right.
 *
 * Failure: announcements that were lost (the socket overflowed) count as a foreign change. A repair that
 * fails is logged and tried again at the next change. */
#include "overlay/hostnet_priv.h"

#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <linux/netfilter/nfnetlink.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

#define SETTLE_MS 100

struct hostnet_monitor {
	struct hostnet *n;
	struct nl nl;
	uv_poll_t poll;
	struct timer *settle;
	char last_error[sizeof(((struct err *)0)->text)];
};

static void on_settled(void *data)
{
	struct hostnet_monitor *m = data;
	struct hostnet *n = m->n;
	struct err e = ERR_INIT;
	pthread_mutex_lock(&n->lock);
	int r = 0;
	if (!fw_is_intact(n)) {
		log_warn(
		    "network: nftables table %s was removed by somebody else; building it anew", n->table);
		r = fw_rebuild(n, &e);
	}
	if (r == 0)
		r = forward_ensure(n, &e);
	pthread_mutex_unlock(&n->lock);
	if (r < 0 && strcmp(m->last_error, e.text) != 0)
		log_warn("network: %s", e.text);
	snprintf(m->last_error, sizeof(m->last_error), "%s", r < 0 ? e.text : "");
}

static bool is_foreign(const struct nlmsghdr *nlh)
{
	if (nlh->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN))
		return false;
	const struct nlattr *a;
	NL_FOR_ATTR (a, nlh, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(a) == NFTA_GEN_PROC_PID && mnl_attr_get_payload_len(a) == 4)
			return ntohl(mnl_attr_get_u32(a)) != (uint32_t)getpid();
	return true;
}

static void on_readable(uv_poll_t *p, int status, int events)
{
	(void)events;
	struct hostnet_monitor *m = p->data;
	char raw[32768];
	bool foreign = status < 0;
	for (int i = 0; i < 64; i++) {
		ssize_t got = recv(nl_fd(&m->nl), raw, sizeof(raw), MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			foreign = foreign || errno != EAGAIN;
			break;
		}
		int left = (int)got;
		for (const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)raw;
		     mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			foreign = foreign || is_foreign(nlh);
	}
	if (foreign && !timer_armed(m->settle))
		timer_start(m->settle, SETTLE_MS);
}

int monitor_start(struct hostnet *n, struct err *e)
{
	struct hostnet_monitor *m = NEW(struct hostnet_monitor);
	m->n = n;
	int r = nl_open(&m->nl, NETLINK_NETFILTER, e);
	if (r < 0) {
		free(m);
		return r;
	}
	int group = NFNLGRP_NFTABLES;
	if (mnl_socket_setsockopt(m->nl.s, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		r = err_errno(e, errno, "watch nftables");
	else {
		int uv = uv_poll_init(n->loop, &m->poll, nl_fd(&m->nl));
		if (uv < 0)
			r = err_uv(e, uv, "watch nftables");
	}
	if (r < 0) {
		nl_close(&m->nl);
		free(m);
		return r;
	}
	m->poll.data = m;
	m->settle = timer_new(n->loop, on_settled, m);
	uv_poll_start(&m->poll, UV_READABLE, on_readable);
	uv_unref((uv_handle_t *)&m->poll);
	n->monitor = m;
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct hostnet_monitor *m = h->data;
	nl_close(&m->nl);
	free(m);
}

void monitor_stop(struct hostnet *n)
{
	struct hostnet_monitor *m = n->monitor;
	if (!m)
		return;
	n->monitor = NULL;
	timer_free(m->settle);
	uv_poll_stop(&m->poll);
	uv_close((uv_handle_t *)&m->poll, on_closed);
}
