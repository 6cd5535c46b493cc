/* Next-fit allocation over a bitmap.
 *
 * Happy path: ipam_alloc walks from `next`, takes the first free bit and leaves `next` behind it, wrapping at
 * the end. Failure: a full subnet is ERR_UNAVAILABLE; releasing what is not taken does nothing. */
#include "overlay/ipam.h"

#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

int ipam_parse(const char *cidr, uint32_t *ret_net, int *ret_prefix, struct err *e)
{
	char addr[16];
	const char *slash = strchr(cidr, '/');
	uint64_t prefix;
	struct in_addr in;
	if (!slash || (size_t)(slash - cidr) >= sizeof(addr))
		return err_set(
		    e, ERR_INVALID, "subnet \"%.64s\": expected ADDRESS/PREFIX, such as 172.18.0.0/16", cidr);
	memcpy(addr, cidr, (size_t)(slash - cidr));
	addr[slash - cidr] = 0;
	if (inet_pton(AF_INET, addr, &in) != 1 || str_parse_u64(slash + 1, &prefix, NULL) < 0)
		return err_set(
		    e, ERR_INVALID, "subnet \"%.64s\": expected ADDRESS/PREFIX, such as 172.18.0.0/16", cidr);
	if (prefix < 8 || prefix > 29)
		return err_set(e, ERR_INVALID, "subnet \"%.64s\": the prefix must be between 8 and 29", cidr);
	uint32_t net = ntohl(in.s_addr);
	if (net & (UINT32_MAX >> prefix))
		return err_set(e, ERR_INVALID, "subnet \"%.64s\" has host bits set", cidr);
	*ret_net = net;
	*ret_prefix = (int)prefix;
	return 0;
}

void ipam_init(struct ipam *p, uint32_t net, int prefix)
{
	ASSERT(prefix >= 8 && prefix <= 29);
	uint32_t size = prefix < 16 ? 65536 : (uint32_t)1 << (32 - prefix);
	*p = (struct ipam){.net = net, .prefix = prefix, .size = size, .next = 2};
	p->bits = xcalloc((size + 63) / 64, sizeof(uint64_t));
}

void ipam_done(struct ipam *p)
{
	free(p->bits);
	p->bits = NULL;
}

uint32_t ipam_gateway(const struct ipam *p)
{
	return p->net + 1;
}

bool ipam_contains(const struct ipam *p, uint32_t addr)
{
	return addr - p->net < p->size;
}

/* Network address, gateway and the last address (broadcast) are not for containers. */
static bool usable(const struct ipam *p, uint32_t off)
{
	return off >= 2 && off < p->size - 1;
}

static bool is_taken(const struct ipam *p, uint32_t off)
{
	return p->bits[off / 64] >> (off % 64) & 1;
}

static void mark(struct ipam *p, uint32_t off)
{
	p->bits[off / 64] |= UINT64_C(1) << (off % 64);
	p->taken++;
}

int ipam_take(struct ipam *p, uint32_t addr, struct err *e)
{
	char text[16];
	uint32_t off = addr - p->net;
	ipam_format(addr, text);
	if (off >= p->size || !usable(p, off))
		return err_set(e, ERR_INVALID, "address %s is not one of the subnet's host addresses", text);
	if (is_taken(p, off))
		return err_set(e, ERR_CONFLICT, "address %s is in use", text);
	mark(p, off);
	return 0;
}

int ipam_alloc(struct ipam *p, uint32_t *ret_addr, struct err *e)
{
	uint32_t off = usable(p, p->next) ? p->next : 2;
	for (uint32_t tried = 0; tried < p->size - 3; tried++) {
		if (!is_taken(p, off)) {
			mark(p, off);
			p->next = usable(p, off + 1) ? off + 1 : 2;
			*ret_addr = p->net + off;
			return 0;
		}
		off = usable(p, off + 1) ? off + 1 : 2;
	}
	char text[16];
	ipam_format(p->net, text);
	return err_set(
	    e, ERR_UNAVAILABLE, "all %u addresses of %s/%d are in use", p->size - 3, text, p->prefix);
}

void ipam_release(struct ipam *p, uint32_t addr)
{
	uint32_t off = addr - p->net;
	if (off >= p->size || !is_taken(p, off))
		return;
	p->bits[off / 64] &= ~(UINT64_C(1) << (off % 64));
	p->taken--;
}

void ipam_format(uint32_t addr, char out[16])
{
	snprintf(out, 16, "%u.%u.%u.%u", addr >> 24, addr >> 16 & 255, addr >> 8 & 255, addr & 255);
}

bool ipam_overlap(uint32_t a, int a_prefix, uint32_t b, int b_prefix)
{
	int p = a_prefix < b_prefix ? a_prefix : b_prefix;
	return p == 0 || ((a ^ b) >> (32 - p)) == 0;
}
