/* From a container's configuration to the OCI runtime's config.json. Pure: what it needs of the host comes in
 * through struct oci_host, and nothing is written. */
#ifndef AGENT_OCI_SPEC_H
#define AGENT_OCI_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "proto/container.pb-c.h"

/* --- users (oci_user.c) */
struct oci_user {
	uint32_t uid, gid;
	uint32_t *groups; /* supplementary */
	size_t n_groups;
	char *home; /* from passwd; "/" when there is no entry */
};
/* "", "name", "uid", either with ":group" or ":gid", and additional groups, as dockerd reads them: names and
 * numbers are looked up in the texts of the image's passwd and group files (NULL: absent); numbers need no
 * entry. Supplementary groups come from the group file unless a group was named. Errors (ERR_INVALID):
 * "unable to find user X: no matching entries in passwd file", the same for groups. */
int oci_user_resolve(const char *user, char *const *groups, size_t n_groups, const char *passwd_text,
    const char *group_text, struct oci_user *ret, struct err *e);
void oci_user_done(struct oci_user *u);
/* Text of a file as the container will see it: the first of `dirs` (uppermost first) that has it. NULL when
 * absent, hidden by a whiteout, or larger than 1 MiB. Links are followed inside of their layer only. */
char *oci_read_image_file(char *const *dirs, size_t n_dirs, const char *path);

/* --- capabilities (oci_caps.c): a set is a bit mask by capability number */
uint64_t oci_caps_default(void);
uint64_t oci_caps_all(void); /* what the daemon has to give: what this kernel knows, or less */
/* Names with or without CAP_, any case, ALL; drops first, then adds, ALL in either first of all. ERR_INVALID
 * names an unknown one. */
int oci_caps_apply(uint64_t base, char *const *add, size_t n_add, char *const *drop, size_t n_drop,
    uint64_t *ret, struct err *e);
json_t *oci_caps_json(uint64_t caps); /* array of "CAP_..." */
bool oci_caps_has(uint64_t caps, const char *name);

/* --- seccomp (oci_seccomp.c) */
/* The default profile for a container with these capabilities, as linux.seccomp. New reference. */
json_t *oci_seccomp_default(uint64_t caps);
/* A profile in dockerd's form (defaultAction, archMap or architectures, syscalls with includes and excludes).
 */
int oci_seccomp_custom(const char *text, size_t n, uint64_t caps, json_t **ret, struct err *e);
/* The compiled filter of a linux.seccomp object, base64 (crun takes it as an annotation and need not
 * compile). Heap; NULL when it has anything but the default profile's features. */
char *oci_seccomp_compile(const json_t *seccomp);

/* --- mounts (oci_mounts.c) */
/* Checks types, absolute targets, propagation words, existing bind sources, shared sources for shared
 * propagation. */
int oci_mounts_check(const Pb__ContainerConfig *c, struct err *e);

/* --- the whole (oci_spec.c) */
struct oci_host {
	const char *id;
	const char *rootfs;       /* where the root file system will be mounted */
	const char *cgroups_path; /* "/shoal/<id>" */
	const char *netns;        /* path; NULL: the host's with network_mode "host", else a new empty one */
	const char *hosts, *hostname, *resolv_conf; /* files to bind over /etc; NULL: none */
	const char *init;                           /* static init on the host, when config->init */
	bool cgroup2;                               /* pure v2: private cgroup namespace */
	bool swap_limit;                            /* memory+swap can be limited */
	/* crun takes a compiled filter as an annotation instead of a profile: NULL, or the default profile's
	 * for the default capabilities (oci_seccomp_compile). */
	const char *default_bpf;
};
/* What can be refused before anything is made: limits, ulimits, sysctls, capabilities, seccomp profile,
 * mounts, signal, command. Texts name the field and the fix. */
int oci_spec_check(const Pb__ContainerConfig *c, struct err *e);
int oci_spec_build(const Pb__ContainerConfig *c, const struct oci_user *u, const struct oci_host *h,
    json_t **ret, struct err *e);
/* The text of a spec or process for the runtime. Heap. */
char *oci_spec_text(const json_t *spec);
/* The container's environment in full: PATH, HOSTNAME, HOME, TERM where not given. */
void oci_env(
    const Pb__ContainerConfig *c, const struct oci_user *u, const char *hostname, struct strlist *ret);
/* The hostname in force: the config's or the id's first twelve characters. Heap. */
char *oci_hostname(const Pb__ContainerConfig *c, const char *id);
/* process of `exec`: the container's with another command, user, environment. */
struct oci_exec {
	char *const *cmd; /* NULL-terminated */
	char *const *env; /* additions; may be NULL */
	const char *cwd;  /* NULL: the container's */
	const struct oci_user *user;
	bool tty, privileged;
	unsigned rows, cols;
};
int oci_exec_process(
    const Pb__ContainerConfig *c, const char *id, const struct oci_exec *x, json_t **ret, struct err *e);
/* "SIGTERM", "TERM", "15" -> number; ERR_INVALID "Invalid signal: X". */
int oci_signal_parse(const char *s, int *ret, struct err *e);

#endif
