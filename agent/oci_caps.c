/* Capability sets: the default one, adding and dropping by name. */
#include "agent/oci_spec.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "base/mem.h"

/* In the order of their numbers (linux/capability.h). */
static const char *const names[] = {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL",
    "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN",
    "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"};

static const char *const defaults[] = {"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW",
    "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"};

static int find(const char *name)
{
	if (str_has_iprefix(name, "CAP_"))
		name += 4;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_ieq(name, names[i]))
			return (int)i;
	return -1;
}

uint64_t oci_caps_default(void)
{
	uint64_t set = 0;
	for (size_t i = 0; i < ARRAY_LEN(defaults); i++)
		set |= UINT64_C(1) << find(defaults[i]);
	return set;
}

uint64_t oci_caps_all(void)
{
	uint64_t set = 0;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			set |= UINT64_C(1) << i;
	return set;
}

bool oci_caps_has(uint64_t caps, const char *name)
{
	int i = find(name);
	ASSERT(i >= 0);
	return caps >> i & 1;
}

/* The bits of a list; *ret_all when ALL is in it. */
static int parse_list(char *const *v, size_t n, uint64_t all, uint64_t *ret, bool *ret_all, struct err *e)
{
	uint64_t set = 0;
	bool whole = false;
	for (size_t i = 0; i < n; i++) {
		if (str_ieq(v[i], "ALL") || str_ieq(v[i], "CAP_ALL")) {
			whole = true;
			continue;
		}
		int c = find(v[i]);
		if (c < 0)
			return err_set(e, ERR_INVALID, "unknown capability \"%s\"", v[i]);
		if (!(all >> c & 1))
			return err_set(e, ERR_INVALID,
			    "capability \"%s\" is not there to give: this kernel does not know it, or the "
			    "daemon does not have it",
			    v[i]);
		set |= UINT64_C(1) << c;
	}
	*ret = set;
	*ret_all = whole;
	return 0;
}

int oci_caps_apply(uint64_t base, char *const *add, size_t n_add, char *const *drop, size_t n_drop,
    uint64_t *ret, struct err *e)
{
	uint64_t all = oci_caps_all(), added = 0, dropped = 0;
	bool add_all = false, drop_all = false;
	int r = parse_list(add, n_add, all, &added, &add_all, e);
	if (r == 0)
		r = parse_list(drop, n_drop, all, &dropped, &drop_all, e);
	if (r < 0)
		return r;
	uint64_t set = base & all;
	if (add_all)
		set = all & ~dropped;
	else if (drop_all)
		set = added;
	else
		set = (set & ~dropped) | added;
	*ret = set;
	return 0;
}

json_t *oci_caps_json(uint64_t caps)
{
	json_t *a = json_array();
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (caps >> i & 1) {
			char full[48];
			snprintf(full, sizeof(full), "CAP_%s", names[i]);
			json_array_append_new(a, json_string(full));
		}
	return a;
}
