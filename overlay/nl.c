/* Netlink batches on libmnl.
 *
 * Happy path: messages are appended to one buffer, nl_send puts the whole into one datagram, the kernel works
 * it off within the send, and a non-blocking read finds nothing, because only errors are answered (no message
 * asks for an acknowledgement).
 *
 * Failure: the kernel answers each failing message with its sequence number, which leads back to the note
 * that says what it was for. An answer that did not fit into the receive buffer (ENOBUFS) counts as a failure
 * of the batch. */
#include "overlay/nl.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/netlink.h>

#include "base/mem.h"
#include "base/log.h"

/* libmnl's MNL_ALIGN is signed. */
#define NL_ALIGN(len) (((size_t)(len) + 3) & ~(size_t)3)

int nl_open(struct nl *s, int bus, struct err *e)
{
	struct mnl_socket *m = mnl_socket_open2(bus, SOCK_CLOEXEC);
	if (!m)
		return err_errno(e, errno, "netlink socket");
	if (mnl_socket_bind(m, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = err_errno(e, errno, "netlink bind");
		mnl_socket_close(m);
		return r;
	}
	int on = 1;
	/* Both are niceties: the kernel's own words, and errors without a copy of the request. */
	mnl_socket_setsockopt(m, NETLINK_EXT_ACK, &on, sizeof(on));
	mnl_socket_setsockopt(m, NETLINK_CAP_ACK, &on, sizeof(on));
	int rcv = 1024 * 1024;
	setsockopt(mnl_socket_get_fd(m), SOL_SOCKET, SO_RCVBUFFORCE, &rcv, sizeof(rcv));
	*s = (struct nl){.s = m, .seq = 1};
	return 0;
}

void nl_close(struct nl *s)
{
	if (s->s)
		mnl_socket_close(s->s);
	s->s = NULL;
}

int nl_fd(const struct nl *s)
{
	return mnl_socket_get_fd(s->s);
}

void nl_batch_done(struct nl_batch *b)
{
	buf_done(&b->b);
	free(b->notes);
	b->notes = NULL;
	b->n = b->cap = 0;
}

void nl_batch_reset(struct nl_batch *b)
{
	buf_reset(&b->b);
	b->n = 0;
	b->is_open = false;
}

struct nlmsghdr *nl_begin(struct nl_batch *b, uint16_t type, uint16_t flags, const char *what, ...)
{
	ASSERT(!b->is_open);
	if (b->n == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 16;
		b->notes = xreallocarray(b->notes, b->cap, sizeof(*b->notes));
	}
	struct nl_note *note = &b->notes[b->n++];
	memset(note, 0, sizeof(*note));
	va_list ap;
	va_start(ap, what);
	vsnprintf(note->what, sizeof(note->what), what, ap);
	va_end(ap);
	buf_reserve(&b->b, NL_MESSAGE_MAX);
	b->open_at = b->b.len;
	b->is_open = true;
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(b->b.data + b->open_at);
	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	nlh->nlmsg_seq = (uint32_t)(b->n - 1); /* made absolute in nl_send */
	return nlh;
}

void nl_ignore(struct nl_batch *b, int errnum)
{
	struct nl_note *note = &b->notes[b->n - 1];
	note->ignore[note->ignore[0] ? 1 : 0] = errnum;
}

void nl_end(struct nl_batch *b)
{
	ASSERT(b->is_open);
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)(b->b.data + b->open_at);
	size_t len = NL_ALIGN(nlh->nlmsg_len);
	ASSERT(len <= NL_MESSAGE_MAX);
	b->b.len += len;
	b->is_open = false;
}

struct drain {
	const struct nl_batch *b;
	uint32_t first;
	int errnum;
	struct err *e;
};

static const char *ext_ack_text(const struct nlmsghdr *nlh)
{
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	size_t off = sizeof(struct nlmsgerr);
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED)) {
		const struct nlmsgerr *ne = mnl_nlmsg_get_payload(nlh);
		off += ne->msg.nlmsg_len - NL_ALIGN(sizeof(struct nlmsghdr));
	}
	const struct nlattr *a;
	NL_FOR_ATTR (a, nlh, (unsigned)off) {
		if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG &&
		    mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
			return mnl_attr_get_str(a);
	}
	return NULL;
}

static void drain_one(struct drain *d, const struct nlmsghdr *nlh)
{
	if (nlh->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nlmsgerr))
		return;
	const struct nlmsgerr *ne = mnl_nlmsg_get_payload(nlh);
	int errnum = -ne->error;
	if (errnum == 0)
		return;
	size_t i = (size_t)(nlh->nlmsg_seq - d->first);
	const struct nl_note *note = i < d->b->n ? &d->b->notes[i] : NULL;
	if (note && (note->ignore[0] == errnum || note->ignore[1] == errnum))
		return;
	if (d->errnum)
		return;
	d->errnum = errnum;
	const char *words = ext_ack_text(nlh);
	if (words)
		err_set(d->e, errnum == EEXIST ? ERR_CONFLICT : ERR_IO, "%s: %s (%s)",
		    note ? note->what : "netlink", strerror(errnum), words);
	else
		err_errno(d->e, errnum, "%s", note ? note->what : "netlink");
}

int nl_send(struct nl *s, struct nl_batch *b, int *ret_errno, struct err *e)
{
	ASSERT(!b->is_open);
	if (b->n == 0)
		return 0;
	struct err dummy = ERR_INIT;
	struct drain d = {.b = b, .first = s->seq, .e = e ? e : &dummy};
	s->seq += (uint32_t)b->n;
	uint32_t portid = mnl_socket_get_portid(s->s);
	for (size_t off = 0; off < b->b.len;) {
		struct nlmsghdr *nlh = (struct nlmsghdr *)(void *)(b->b.data + off);
		nlh->nlmsg_seq += d.first;
		nlh->nlmsg_pid = portid;
		off += NL_ALIGN(nlh->nlmsg_len);
	}
	if (b->b.len + 64 > s->sndbuf) {
		int want = (int)(b->b.len * 2 < 256 * 1024 ? 256 * 1024 : b->b.len * 2);
		setsockopt(nl_fd(s), SOL_SOCKET, SO_SNDBUFFORCE, &want, sizeof(want));
		s->sndbuf = (size_t)want;
	}
	int r = 0;
	if (mnl_socket_sendto(s->s, b->b.data, b->b.len) < 0) {
		if (ret_errno)
			*ret_errno = errno;
		r = err_errno(e, errno, "%s: netlink send of %zu messages", b->notes[0].what, b->n);
		nl_batch_reset(b);
		return r;
	}
	char answer[16384];
	for (;;) {
		ssize_t n = recv(nl_fd(s), answer, sizeof(answer), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			if (!d.errnum) {
				d.errnum = errno;
				err_errno(d.e, errno, "%s: netlink answer", b->notes[0].what);
			}
			if (d.errnum != ENOBUFS)
				break;
			continue;
		}
		int left = (int)n;
		for (const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)answer;
		     mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			drain_one(&d, nlh);
	}
	if (d.errnum) {
		if (ret_errno)
			*ret_errno = d.errnum;
		r = d.e->code ? d.e->code : ERR_IO;
	}
	nl_batch_reset(b);
	return r;
}

int nl_dump(struct nl *s, struct nlmsghdr *request, nl_dump_cb cb, void *data, const char *what,
    int *ret_errno, struct err *e)
{
	request->nlmsg_seq = s->seq++;
	request->nlmsg_flags = (uint16_t)(request->nlmsg_flags | NLM_F_REQUEST);
	bool dump = (request->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	if (!dump)
		request->nlmsg_flags |= NLM_F_ACK;
	int errnum = 0;
	if (mnl_socket_sendto(s->s, request, request->nlmsg_len) < 0) {
		errnum = errno;
		goto fail;
	}
	char answer[32768];
	bool listening = true;
	for (;;) {
		ssize_t n = recv(nl_fd(s), answer, sizeof(answer), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			errnum = errno;
			goto fail;
		}
		int left = (int)n;
		for (const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)answer;
		     mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_seq != request->nlmsg_seq)
				continue;
			if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
				errnum = EINTR;
			if (nlh->nlmsg_type == NLMSG_DONE)
				goto end;
			if (nlh->nlmsg_type == NLMSG_ERROR) {
				if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(struct nlmsgerr)) {
					const struct nlmsgerr *ne = mnl_nlmsg_get_payload(nlh);
					if (ne->error)
						errnum = -ne->error;
				}
				goto end;
			}
			if (listening)
				listening = cb(nlh, data);
		}
	}
end:
	if (!errnum)
		return 0;
fail:
	if (ret_errno)
		*ret_errno = errnum;
	return err_errno(e, errnum, "%s", what);
}
