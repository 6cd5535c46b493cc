/* See addr.h. */
#include "node/addr.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"

int addr_split(const char *s, char host[256], uint16_t *ret_port, struct err *e)
{
	const char *colon = strrchr(s, ':');
	size_t n = strlen(s);
	uint64_t port = SWARM_PORT;
	bool v6_bare = colon && strchr(s, ':') != colon && s[0] != '[';
	if (s[0] == '[') {
		const char *end = strchr(s, ']');
		if (!end || (end[1] && end[1] != ':'))
			return err_set(
			    e, ERR_INVALID, "invalid address \"%s\": missing ']' or something after it", s);
		n = (size_t)(end - s) - 1;
		colon = end[1] ? end + 1 : NULL;
		s++;
	} else if (v6_bare) {
		colon = NULL;
	} else if (colon) {
		n = (size_t)(colon - s);
	}
	if (colon && (str_parse_u64(colon + 1, &port, NULL) != 0 || port == 0 || port > 65535))
		return err_set(
		    e, ERR_INVALID, "invalid address \"%s\": the port must be a number from 1 to 65535", s);
	if (n == 0 || n > 255)
		return err_set(e, ERR_INVALID, "invalid address \"%s\": no host", s);
	memcpy(host, s, n);
	host[n] = 0;
	*ret_port = (uint16_t)port;
	return 0;
}

char *addr_join(const char *host, uint16_t port)
{
	return strchr(host, ':') ? xasprintf("[%s]:%u", host, port) : xasprintf("%s:%u", host, port);
}

static bool is_ip(const char *s)
{
	uint8_t b[16];
	return inet_pton(AF_INET, s, b) == 1 || inet_pton(AF_INET6, s, b) == 1;
}

struct found {
	char addr[2][INET6_ADDRSTRLEN];
	char ifname[2][IF_NAMESIZE];
	unsigned n;
};

/* Bridges are containers' networks: never how others reach this machine. Asked by ioctl, as /sys may show
 * another network namespace. */
static bool is_bridge(const char *ifname)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq q = {.ifr_data = (char *)&info};
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", ifname);
	return fd >= 0 && ioctl(fd, SIOCETHTOOL, &q) == 0 && strcmp(info.driver, "bridge") == 0;
}

/* Addresses of one family: of an interface, or of all but loopback and bridges. */
static int collect(const char *ifname, int family, struct found *f, struct err *e)
{
	struct ifaddrs *list;
	if (getifaddrs(&list) != 0)
		return err_set(e, ERR_IO, "the system's addresses cannot be listed");
	for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != family || !(i->ifa_flags & IFF_UP))
			continue;
		if (ifname ? strcmp(ifname, i->ifa_name) != 0
			   : (i->ifa_flags & IFF_LOOPBACK) || is_bridge(i->ifa_name))
			continue;
		const void *a = &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr;
		if (family == AF_INET6) {
			const struct in6_addr *a6 =
			    &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr;
			if (IN6_IS_ADDR_LINKLOCAL(a6))
				continue;
			a = a6;
		}
		if (f->n < 2) {
			inet_ntop(family, a, f->addr[f->n], sizeof(f->addr[0]));
			snprintf(f->ifname[f->n], sizeof(f->ifname[0]), "%s", i->ifa_name);
		}
		f->n++;
	}
	freeifaddrs(list);
	return 0;
}

static int of_interface(const char *ifname, char host[256], struct err *e)
{
	struct found f = {.n = 0};
	if (if_nametoindex(ifname) == 0)
		return err_set(e, ERR_INVALID,
		    "\"%s\" is neither an IP address nor a network interface of this machine", ifname);
	int rc = collect(ifname, AF_INET, &f, e);
	if (rc == 0 && f.n == 0)
		rc = collect(ifname, AF_INET6, &f, e);
	if (rc != 0)
		return rc;
	if (f.n == 0)
		return err_set(e, ERR_INVALID, "interface %s has no address", ifname);
	if (f.n > 1)
		return err_set(e, ERR_INVALID,
		    "interface %s has more than one address (%s and %s): give the address instead", ifname,
		    f.addr[0], f.addr[1]);
	snprintf(host, 256, "%s", f.addr[0]);
	return 0;
}

int addr_resolve_listen(const char *s, char host[256], uint16_t *ret_port, struct err *e)
{
	int rc = addr_split(s, host, ret_port, e);
	if (rc == 0 && !is_ip(host)) {
		char ifname[256];
		memcpy(ifname, host, sizeof(ifname));
		rc = of_interface(ifname, host, e);
	}
	return rc == 0 ? 0 : err_wrap(e, "listen address");
}

int addr_resolve_advertise(const char *s, const char *listen_host, uint16_t listen_port, char host[256],
    uint16_t *ret_port, struct err *e)
{
	if (!str_empty(s)) {
		int rc = addr_split(s, host, ret_port, e);
		if (rc == 0 && !strchr(s, ':'))
			*ret_port = listen_port;
		if (rc == 0 && !is_ip(host)) {
			char ifname[256];
			memcpy(ifname, host, sizeof(ifname));
			rc = of_interface(ifname, host, e);
		}
		if (rc == 0 && (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0))
			rc = err_set(e, ERR_INVALID,
			    "advertise address must be a non-zero IP address or network interface (with "
			    "optional port number)");
		return rc;
	}
	*ret_port = listen_port;
	if (strcmp(listen_host, "0.0.0.0") != 0 && strcmp(listen_host, "::") != 0) {
		snprintf(host, 256, "%s", listen_host);
		return 0;
	}
	struct found f = {.n = 0};
	int rc = collect(NULL, AF_INET, &f, e);
	if (rc == 0 && f.n == 0)
		rc = collect(NULL, AF_INET6, &f, e);
	if (rc != 0)
		return rc;
	if (f.n == 0)
		return err_set(e, ERR_INVALID,
		    "could not find the system's IP address - specify one with --advertise-addr");
	if (f.n > 1 && strcmp(f.ifname[0], f.ifname[1]) == 0)
		return err_set(e, ERR_INVALID,
		    "could not choose an IP address to advertise since this system has multiple addresses on "
		    "interface %s (%s and %s)",
		    f.ifname[0], f.addr[0], f.addr[1]);
	if (f.n > 1)
		return err_set(e, ERR_INVALID,
		    "could not choose an IP address to advertise since this system has multiple addresses on "
		    "different interfaces (%s on %s and %s on %s)",
		    f.addr[0], f.ifname[0], f.addr[1], f.ifname[1]);
	snprintf(host, 256, "%s", f.addr[0]);
	return 0;
}
