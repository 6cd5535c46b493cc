/* System call filters: the default profile, and profiles of the user in dockerd's form.
 *
 * The default lets through what programs need, and refuses with EPERM what reaches beyond a container:
 * mounting, modules, clocks, keyrings, tracing of others, raw I/O, new user namespaces. Some calls are let
 * through for containers that were given the capability that guards them. Names are resolved through
 * libseccomp, so that one that this machine's library does not know is left out instead of breaking every
 * container. */
#include "agent/oci_spec.h"

#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/json.h"

/* Space-separated, by topic. */
static const char *const always[] = {
    /* files */
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat "
    "faccessat2 fadvise64 "
    "fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 "
    "fdatasync fgetxattr "
    "flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate "
    "ftruncate64 "
    "futimesat getcwd getdents getdents64 getxattr getxattrat lchown lchown32 lgetxattr link linkat "
    "listxattr listxattrat "
    "llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat "
    "name_to_handle_at "
    "newfstatat _newselect open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read "
    "readahead readlink "
    "readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr "
    "setxattrat "
    "splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 "
    "arm_sync_file_range "
    "syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice "
    "write writev "
    "cachestat",
    /* watching */
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old "
    "eventfd "
    "eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch pause poll ppoll "
    "ppoll_time64 "
    "pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 "
    "timerfd_settime "
    "timerfd_settime64",
    /* memory */
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap "
    "mmap2 mprotect "
    "mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease "
    "remap_file_pages",
    /* processes and threads */
    "arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 "
    "futex_wait futex_waitv "
    "futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 "
    "getgroups "
    "getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 "
    "getrlimit "
    "getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule "
    "landlock_create_ruleset "
    "landlock_restrict_self modify_ldt pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq "
    "rt_sigaction "
    "rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
    "rt_sigtimedwait_time64 "
    "rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr "
    "sched_getparam "
    "sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr "
    "sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address "
    "setfsgid "
    "setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid "
    "setregid32 "
    "setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 "
    "sigaltstack "
    "sigprocmask sigreturn tgkill tkill ugetrlimit vfork wait4 waitid waitpid",
    /* sockets (`socket` has a condition of its own) */
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg "
    "recvmmsg_time64 recvmsg "
    "send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    /* time */
    "alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
    "clock_nanosleep "
    "clock_nanosleep_time64 getitimer gettimeofday adjtimex nanosleep setitimer time timer_create "
    "timer_delete "
    "timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times",
    /* System V and POSIX IPC, asynchronous I/O */
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ipc "
    "mq_getsetattr mq_notify "
    "mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget "
    "msgrcv msgsnd "
    "semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    /* the rest */
    "getrandom ioctl pipe pipe2 sysinfo uname uretprobe riscv_hwprobe arm_fadvise64_64 breakpoint cacheflush",
    "set_tls",
    /* tracing: safe with the kernels since 4.8, where it cannot be used to slip out of a filter */
    "process_vm_readv process_vm_writev ptrace",
};

struct guarded {
	const char *cap;
	const char *calls;
};
static const struct guarded by_cap[] = {
    {"DAC_READ_SEARCH", "open_by_handle_at"},
    {"SYS_ADMIN",
	"bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
	"lsm_list_modules lsm_set_self_attr listmount statmount mount mount_setattr move_mount open_tree "
	"perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"},
    {"SYS_BOOT", "reboot"},
    {"SYS_CHROOT", "chroot"},
    {"SYS_MODULE", "delete_module init_module finit_module"},
    {"SYS_PACCT", "acct"},
    {"SYS_PTRACE", "kcmp pidfd_getfd process_madvise"},
    {"SYS_RAWIO", "iopl ioperm"},
    {"SYS_TIME", "settimeofday stime clock_settime clock_settime64"},
    {"SYS_TTY_CONFIG", "vhangup"},
    {"SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"},
    {"SYSLOG", "syslog"},
    {"BPF", "bpf"},
    {"PERFMON", "perf_event_open"},
};

/* CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: without CAP_SYS_ADMIN a process may not
 * make namespaces. */
#define CLONE_NAMESPACES 0x7E020000u
#define AF_VSOCK_        40

static bool known(const char *name)
{
	return seccomp_syscall_resolve_name(name) != __NR_SCMP_ERROR;
}

static void add_names(json_t *to, const char *names)
{
	struct strlist l = STRLIST_INIT;
	strlist_split(&l, names, ' ');
	for (size_t i = 0; i < l.n; i++)
		if (known(l.v[i]))
			json_array_append_new(to, json_string(l.v[i]));
	strlist_done(&l);
}

static void add_rule(json_t *syscalls, json_t *names, const char *action, json_t *args)
{
	if (json_array_size(names) == 0) {
		json_decref(names);
		json_decref(args);
		return;
	}
	json_t *rule = json_pack("{s:o,s:s}", "names", names, "action", action);
	if (args)
		json_object_set_new(rule, "args", args);
	json_array_append_new(syscalls, rule);
}

static void add_one(json_t *syscalls, const char *name, json_t *args)
{
	json_t *names = json_array();
	add_names(names, name);
	add_rule(syscalls, names, "SCMP_ACT_ALLOW", args);
}

static json_t *arg(unsigned index, json_int_t value, json_int_t value_two, const char *op)
{
	json_t *a = json_pack("{s:i,s:I,s:s}", "index", (int)index, "value", value, "op", op);
	if (value_two)
		json_object_set_new(a, "valueTwo", json_integer(value_two));
	return json_pack("[o]", a);
}

/* This machine's ABI and those of its 32-bit programs. */
static json_t *architectures(void)
{
	json_t *a = json_array();
	switch (seccomp_arch_native()) {
	case SCMP_ARCH_X86_64:
		json_array_append_new(a, json_string("SCMP_ARCH_X86_64"));
		json_array_append_new(a, json_string("SCMP_ARCH_X86"));
		json_array_append_new(a, json_string("SCMP_ARCH_X32"));
		break;
	case SCMP_ARCH_AARCH64:
		json_array_append_new(a, json_string("SCMP_ARCH_AARCH64"));
		json_array_append_new(a, json_string("SCMP_ARCH_ARM"));
		break;
	default: /* the runtime adds the native one */
		break;
	}
	return a;
}

json_t *oci_seccomp_default(uint64_t caps)
{
	json_t *syscalls = json_array(), *names = json_array();
	for (size_t i = 0; i < ARRAY_LEN(always); i++)
		add_names(names, always[i]);
	for (size_t i = 0; i < ARRAY_LEN(by_cap); i++)
		if (oci_caps_has(caps, by_cap[i].cap))
			add_names(names, by_cap[i].calls);
	add_rule(syscalls, names, "SCMP_ACT_ALLOW", NULL);

	static const json_int_t personalities[] = {0x0, 0x0008, 0x20000, 0x20008, 0xffffffff};
	for (size_t i = 0; i < ARRAY_LEN(personalities); i++)
		add_one(syscalls, "personality", arg(0, personalities[i], 0, "SCMP_CMP_EQ"));
	add_one(syscalls, "socket", arg(0, AF_VSOCK_, 0, "SCMP_CMP_NE"));
	if (!oci_caps_has(caps, "SYS_ADMIN")) {
		add_one(syscalls, "clone", arg(0, CLONE_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ"));
		/* Its flags are in memory, where a filter cannot look: ENOSYS makes libc fall back to clone.
		 */
		if (known("clone3"))
			json_array_append_new(syscalls, json_pack("{s:[s],s:s,s:i}", "names", "clone3",
							    "action", "SCMP_ACT_ERRNO", "errnoRet", ENOSYS));
	}
	return json_pack("{s:s,s:i,s:o,s:o}", "defaultAction", "SCMP_ACT_ERRNO", "defaultErrnoRet", EPERM,
	    "architectures", architectures(), "syscalls", syscalls);
}

/* --- profiles of the user */

static const char *const actions[] = {"SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"};

static int check_action(const json_t *o, const char *key, struct err *e)
{
	const char *s = json_string_value(json_object_get(o, key));
	for (size_t i = 0; s && i < ARRAY_LEN(actions); i++)
		if (strcmp(s, actions[i]) == 0)
			return 0;
	return err_set(
	    e, ERR_INVALID, "invalid seccomp profile: %s \"%s\" is not a known action", key, str_or(s, ""));
}

static bool has_string(const json_t *a, const char *s)
{
	size_t i;
	json_t *v;
	json_array_foreach(a, i, v) if (str_eq(json_string_value(v), s)) return true;
	return false;
}

static const char *go_arch(void)
{
	switch (seccomp_arch_native()) {
	case SCMP_ARCH_X86_64:
		return "amd64";
	case SCMP_ARCH_AARCH64:
		return "arm64";
	case SCMP_ARCH_ARM:
		return "arm";
	case SCMP_ARCH_X86:
		return "386";
	case SCMP_ARCH_PPC64LE:
		return "ppc64le";
	case SCMP_ARCH_S390X:
		return "s390x";
	case SCMP_ARCH_RISCV64:
		return "riscv64";
	default:
		return "";
	}
}

static bool kernel_at_least(const char *want)
{
	struct utsname u;
	unsigned a = 0, b = 0, wa = 0, wb = 0;
	if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &a, &b) != 2 || sscanf(want, "%u.%u", &wa, &wb) != 2)
		return false;
	return a > wa || (a == wa && b >= wb);
}

static bool caps_match(const json_t *list, uint64_t caps, bool all)
{
	uint64_t known_caps;
	size_t i;
	json_t *v;
	json_array_foreach(list, i, v)
	{
		char *one[1] = {(char *)(uintptr_t)str_or(json_string_value(v), "")};
		bool have = oci_caps_apply(0, one, 1, NULL, 0, &known_caps, NULL) == 0 &&
			    (caps & known_caps) == known_caps;
		if (have != all)
			return have;
	}
	return all;
}

/* Whether a rule is in force here: every kind of include must hold, no kind of exclude may. */
static bool rule_applies(const json_t *rule, uint64_t caps)
{
	const json_t *in = json_object_get(rule, "includes"), *ex = json_object_get(rule, "excludes"), *v;
	v = json_object_get(in, "arches");
	if (json_array_size(v) && !has_string(v, go_arch()))
		return false;
	v = json_object_get(in, "caps");
	if (json_array_size(v) && !caps_match(v, caps, true))
		return false;
	v = json_object_get(in, "minKernel");
	if (json_is_string(v) && !kernel_at_least(json_string_value(v)))
		return false;
	v = json_object_get(ex, "arches");
	if (json_array_size(v) && has_string(v, go_arch()))
		return false;
	v = json_object_get(ex, "caps");
	if (json_array_size(v) && caps_match(v, caps, false))
		return false;
	v = json_object_get(ex, "minKernel");
	return !(json_is_string(v) && kernel_at_least(json_string_value(v)));
}

static int convert_rule(const json_t *rule, json_t *to, struct err *e)
{
	json_t *names = json_array(), *list = json_object_get(rule, "names"), *v;
	size_t i;
	if (json_is_string(json_object_get(rule, "name")))
		add_names(names, json_string_value(json_object_get(rule, "name")));
	json_array_foreach(list, i, v) if (json_is_string(v) && !strchr(json_string_value(v), ' '))
	    add_names(names, json_string_value(v));
	int r = check_action(rule, "action", e);
	if (r < 0 || json_array_size(names) == 0) {
		json_decref(names);
		return r;
	}
	json_t *out = json_pack("{s:o,s:O}", "names", names, "action", json_object_get(rule, "action"));
	if (json_array_size(json_object_get(rule, "args")))
		json_object_set(out, "args", json_object_get(rule, "args"));
	if (json_is_integer(json_object_get(rule, "errnoRet")))
		json_object_set(out, "errnoRet", json_object_get(rule, "errnoRet"));
	json_array_append_new(to, out);
	return 0;
}

static json_t *custom_architectures(const json_t *p)
{
	json_t *out = json_array(), *map = json_object_get(p, "archMap"), *entry, *sub;
	size_t i, k;
	if (json_array_size(json_object_get(p, "architectures"))) {
		json_decref(out);
		return json_incref(json_object_get(p, "architectures"));
	}
	uint32_t native = seccomp_arch_native();
	json_array_foreach(map, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "architecture"));
		if (!name || !str_has_prefix(name, "SCMP_ARCH_"))
			continue;
		char low[32] = {0};
		for (k = 0; name[10 + k] && k < sizeof(low) - 1; k++)
			low[k] = (char)(name[10 + k] >= 'A' && name[10 + k] <= 'Z' ? name[10 + k] + 32
										   : name[10 + k]);
		if (seccomp_arch_resolve_name(low) != native)
			continue;
		json_array_append(out, json_object_get(entry, "architecture"));
		json_array_foreach(json_object_get(entry, "subArchitectures"), k, sub)
		    json_array_append(out, sub);
	}
	return out;
}

int oci_seccomp_custom(const char *text, size_t n, uint64_t caps, json_t **ret, struct err *e)
{
	json_t *p = NULL, *rule;
	size_t i;
	int r = json_parse(text, n, &p, e);
	if (r < 0)
		return err_wrap(e, "invalid seccomp profile");
	r = check_action(p, "defaultAction", e);
	json_t *syscalls = json_array();
	if (r == 0 && json_object_get(p, "syscalls") && !json_is_array(json_object_get(p, "syscalls")))
		r = err_set(e, ERR_INVALID, "invalid seccomp profile: syscalls is not a list");
	json_array_foreach(json_object_get(p, "syscalls"), i, rule) if (r == 0 && rule_applies(rule, caps))
	    r = convert_rule(rule, syscalls, e);
	if (r == 0) {
		*ret = json_pack("{s:O,s:o,s:O}", "defaultAction", json_object_get(p, "defaultAction"),
		    "architectures", custom_architectures(p), "syscalls", syscalls);
		if (json_is_integer(json_object_get(p, "defaultErrnoRet")))
			json_object_set(*ret, "defaultErrnoRet", json_object_get(p, "defaultErrnoRet"));
		if (json_array_size(json_object_get(p, "flags")))
			json_object_set(*ret, "flags", json_object_get(p, "flags"));
	}
	json_decref(syscalls);
	json_decref(p);
	return r;
}

/* --- compiling */

static int action_number(const json_t *rule, const char *key, const char *errno_key, uint32_t *ret)
{
	const char *s = json_string_value(json_object_get(rule, key));
	const json_t *n = json_object_get(rule, errno_key);
	uint32_t err_no = json_is_integer(n) ? (uint32_t)json_integer_value(n) & 0xffff : EPERM;
	if (str_eq(s, "SCMP_ACT_ALLOW"))
		*ret = SCMP_ACT_ALLOW;
	else if (str_eq(s, "SCMP_ACT_ERRNO"))
		*ret = SCMP_ACT_ERRNO(err_no);
	else
		return -1;
	return 0;
}

static int compile_arg(const json_t *a, struct scmp_arg_cmp *ret)
{
	const char *op = json_string_value(json_object_get(a, "op"));
	uint64_t v = (uint64_t)json_integer_value(json_object_get(a, "value"));
	uint64_t v2 = (uint64_t)json_integer_value(json_object_get(a, "valueTwo"));
	unsigned index = (unsigned)json_integer_value(json_object_get(a, "index"));
	if (index > 5)
		return -1;
	if (str_eq(op, "SCMP_CMP_EQ"))
		*ret = SCMP_CMP64(index, SCMP_CMP_EQ, v, 0);
	else if (str_eq(op, "SCMP_CMP_NE"))
		*ret = SCMP_CMP64(index, SCMP_CMP_NE, v, 0);
	else if (str_eq(op, "SCMP_CMP_MASKED_EQ"))
		*ret = SCMP_CMP64(index, SCMP_CMP_MASKED_EQ, v, v2);
	else
		return -1;
	return 0;
}

static int compile_rule(scmp_filter_ctx ctx, uint32_t default_action, const json_t *rule)
{
	uint32_t action;
	struct scmp_arg_cmp cmp[6];
	unsigned n = 0;
	size_t i;
	json_t *v;
	if (action_number(rule, "action", "errnoRet", &action) < 0)
		return -1;
	if (action == default_action)
		return 0;
	json_array_foreach(
	    json_object_get(rule, "args"), i, v) if (n >= 6 || compile_arg(v, &cmp[n++]) < 0) return -1;
	json_array_foreach(json_object_get(rule, "names"), i, v)
	{
		int nr = seccomp_syscall_resolve_name(json_string_value(v));
		if (nr == __NR_SCMP_ERROR)
			continue;
		if (seccomp_rule_add_array(ctx, action, nr, n, cmp) < 0)
			return -1;
	}
	return 0;
}

static int add_architectures(scmp_filter_ctx ctx, const json_t *list)
{
	size_t i;
	json_t *v;
	json_array_foreach(list, i, v)
	{
		const char *name = json_string_value(v);
		uint32_t arch = str_eq(name, "SCMP_ARCH_X86_64")    ? SCMP_ARCH_X86_64
				: str_eq(name, "SCMP_ARCH_X86")     ? SCMP_ARCH_X86
				: str_eq(name, "SCMP_ARCH_X32")     ? SCMP_ARCH_X32
				: str_eq(name, "SCMP_ARCH_AARCH64") ? SCMP_ARCH_AARCH64
				: str_eq(name, "SCMP_ARCH_ARM")     ? SCMP_ARCH_ARM
								    : 0;
		if (!arch)
			return -1;
		int r = seccomp_arch_add(ctx, arch);
		if (r < 0 && r != -EEXIST)
			return -1;
	}
	return 0;
}

static char *export_filter(scmp_filter_ctx ctx)
{
	CLEANUP_CLOSE int fd = memfd_create("seccomp", MFD_CLOEXEC);
	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0)
		return NULL;
	off_t n = lseek(fd, 0, SEEK_END);
	if (n <= 0 || n > 1024 * 1024)
		return NULL;
	CLEANUP_FREE uint8_t *p = xmalloc((size_t)n);
	if (pread(fd, p, (size_t)n, 0) != n)
		return NULL;
	return str_base64(p, (size_t)n);
}

char *oci_seccomp_compile(const json_t *seccomp)
{
	uint32_t default_action;
	if (json_object_get(seccomp, "flags") ||
	    action_number(seccomp, "defaultAction", "defaultErrnoRet", &default_action) < 0)
		return NULL;
	scmp_filter_ctx ctx = seccomp_init(default_action);
	if (!ctx)
		return NULL;
	char *out = NULL;
	size_t i;
	json_t *rule;
	/* A binary tree of comparisons: fewer steps a system call than the list. */
	bool ok = add_architectures(ctx, json_object_get(seccomp, "architectures")) == 0 &&
		  seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 &&
		  seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0) == 0;
	json_array_foreach(json_object_get(seccomp, "syscalls"), i, rule) ok =
	    ok && compile_rule(ctx, default_action, rule) == 0;
	if (ok)
		out = export_filter(ctx);
	seccomp_release(ctx);
	return out;
}
