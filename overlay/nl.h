/* Netlink sockets and batches: many messages in one send, their errors told apart by what each was for.
 *
 * The kernel handles what is sent on these sockets before send returns, so a batch is one system call and one
 * non-blocking read for errors. A socket belongs to the network namespace in which it was opened, for ever.
 * Not thread-safe: one user at a time. */
#ifndef OVERLAY_NL_H
#define OVERLAY_NL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <libmnl/libmnl.h>

#include "base/buf.h"
#include "base/err.h"

struct nl {
	struct mnl_socket *s; /* NULL when closed */
	uint32_t seq;
	size_t sndbuf;
};
/* bus: NETLINK_ROUTE, NETLINK_NETFILTER. */
int nl_open(struct nl *s, int bus, struct err *e);
void nl_close(struct nl *s);
int nl_fd(const struct nl *s);

/* What a message of a batch is for, and which errno counts as success. */
struct nl_note {
	char what[96];
	int ignore[2];
};
struct nl_batch {
	struct buf b;
	struct nl_note *notes;
	size_t n, cap;
	uint32_t first_seq;
	size_t open_at; /* offset of the message under construction */
	bool is_open;
};
#define NL_BATCH_INIT                                                                                        \
	{                                                                                                    \
		BUF_INIT, 0, 0, 0, 0, 0, 0                                                                   \
	}
#define CLEANUP_NL_BATCH __attribute__((cleanup(nl_batch_done)))
void nl_batch_done(struct nl_batch *b);
void nl_batch_reset(struct nl_batch *b);
/* The largest message that may be built between begin and end. */
#define NL_MESSAGE_MAX (80u * 1024)
/* Starts a message; the pointer is valid until the next begin. `what` names it in an error ("link shx0"). */
struct nlmsghdr *nl_begin(struct nl_batch *b, uint16_t type, uint16_t flags, const char *what, ...)
    __attribute__((format(printf, 4, 5)));
/* An errno of the current message that is as good as success (at most two). */
void nl_ignore(struct nl_batch *b, int errnum);
void nl_end(struct nl_batch *b);

/* Sends all. The first error that is not ignored comes back as "what: the kernel's words"; for rtnetlink the
 * other messages were carried out all the same, an nfnetlink batch is all or nothing. The batch is reset
 * either way. *ret_errno (may be NULL) is the errno of that error. */
int nl_send(struct nl *s, struct nl_batch *b, int *ret_errno, struct err *e);

/* One request, many answers: cb for each message until the end; it returns false to stop listening to the
 * rest. EINTR (the dump was inconsistent) is retried by the caller: *ret_errno. */
typedef bool (*nl_dump_cb)(const struct nlmsghdr *nlh, void *data);
int nl_dump(struct nl *s, struct nlmsghdr *request, nl_dump_cb cb, void *data, const char *what,
    int *ret_errno, struct err *e);

/* libmnl's loops over attributes, without its implicit conversions. */
#define NL_FOR_ATTR(a, nlh, off)                                                                             \
	for ((a) = mnl_nlmsg_get_payload_offset((nlh), (off));                                               \
	     mnl_attr_ok((a), (int)((const char *)mnl_nlmsg_get_payload_tail(nlh) - (const char *)(a)));     \
	     (a) = mnl_attr_next(a))
#define NL_FOR_NESTED(a, nest)                                                                               \
	for ((a) = mnl_attr_get_payload(nest);                                                               \
	     mnl_attr_ok((a), (int)((const char *)mnl_attr_get_payload(nest) +                               \
				    mnl_attr_get_payload_len(nest) - (const char *)(a)));                    \
	     (a) = mnl_attr_next(a))

#endif
