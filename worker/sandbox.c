/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/log.h"
#include "ipc/message.h"
#include "worker/sandbox_filter.h"

/* Landlock since Linux 6.1, in headers that know it and in those that do not. */
#define FS_ABI_1	((UINT64_C(1) << 13) - 1)
#define FS_REFER	(UINT64_C(1) << 13) /* ABI 2 */
#define FS_TRUNCATE	(UINT64_C(1) << 14) /* ABI 3 */
#define FS_IOCTL_DEV	(UINT64_C(1) << 15) /* ABI 5 */
#define NET_BIND_TCP	(UINT64_C(1) << 0)  /* ABI 4 */
#define NET_CONNECT_TCP (UINT64_C(1) << 1)
#define SCOPE_ABSTRACT	(UINT64_C(1) << 0) /* ABI 6: abstract Unix sockets */
#define SCOPE_SIGNAL	(UINT64_C(1) << 1) /* signals to processes outside */

/* struct landlock_ruleset_attr of ABI 6; an older kernel is given a prefix of it. */
struct ruleset {
	uint64_t handled_access_fs;
	uint64_t handled_access_net;
	uint64_t scoped;
};

#if UNDER_ASAN
/* The leak checker stops the process by ptrace at its exit, which is not allowed. */
static int sandboxed;
int __lsan_is_turned_off(void);

int
__lsan_is_turned_off(void)
{
	return sandboxed;
}
#endif

static _Noreturn void
give_up(const char *what, int error)
{
	if (error != 0)
		log_err("sandbox: %s: %s; not serving", what, strerror(error));
	else
		log_err("sandbox: %s; not serving", what);
	_exit(EXITCODE_SANDBOX);
}

/* Landlock and the check below concern one thread.  The kernel accepts to unshare
 * what threads share only where there is nobody to share it with. */
static void
check_single_threaded(void)
{
	if (!UNDER_TSAN && unshare(CLONE_THREAD) < 0) /* TSan has a thread of its own */
		give_up("a thread was started before the sandbox", 0);
}

static void
check_own_uid(void)
{
	uid_t uid[3];
	gid_t gid[3];

	if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0)
		give_up("cannot read user and group", errno);
	for (size_t i = 0; i < 3; i++) {
		if (uid[i] == 0 || gid[i] == 0)
			give_up("running as root; start it through pagerd", 0);
		if (uid[i] != uid[0] || gid[i] != gid[0])
			give_up("real, effective and saved user or group differ", 0);
	}
}

static void
check_no_caps(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data) < 0)
		give_up("cannot read capabilities", errno);
	for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		if (data[i].effective != 0 || data[i].permitted != 0 || data[i].inheritable != 0)
			give_up("capabilities are left; start it through pagerd", 0);
}

static void
set_limit(__rlimit_resource_t which, const char *name, rlim_t max)
{
	struct rlimit limit = {.rlim_cur = max, .rlim_max = max};

	if (setrlimit(which, &limit) < 0)
		give_up(name, errno);
}

/* Only what would be a way out.  Descriptors and memory are the supervisor's to set. */
static void
set_limits(void)
{
	struct stat st;
	bool logs_to_file = fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode);

	set_limit(RLIMIT_CORE, "RLIMIT_CORE", 0);	    /* a core would hold guest memory */
	if (!logs_to_file)				    /* under a supervisor it is a pipe */
		set_limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", 0); /* no file grows, no memfd of a VMM */
	set_limit(RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 0);   /* kernel memory of this user */
}

/* A domain without a single rule: every right it handles is refused everywhere.
 * False where the kernel has no Landlock. */
static bool
enter_landlock(void)
{
	struct ruleset rules = {.handled_access_fs = FS_ABI_1};
	size_t bytes = offsetof(struct ruleset, handled_access_net);
	long abi =
	    syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);
	int fd;

	if (abi < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
		return false;
	if (abi < 1)
		give_up("Landlock", errno);
	if (abi >= 2)
		rules.handled_access_fs |= FS_REFER;
	if (abi >= 3)
		rules.handled_access_fs |= FS_TRUNCATE;
	if (abi >= 5)
		rules.handled_access_fs |= FS_IOCTL_DEV;
	if (abi >= 4) {
		rules.handled_access_net = NET_BIND_TCP | NET_CONNECT_TCP;
		bytes = offsetof(struct ruleset, scoped);
	}
	if (abi >= 6) {
		rules.scoped = SCOPE_ABSTRACT | SCOPE_SIGNAL;
		bytes = sizeof(rules);
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, bytes, 0U);
	if (fd < 0)
		give_up("landlock_create_ruleset", errno);
	if (syscall(SYS_landlock_restrict_self, fd, 0U) < 0)
		give_up("landlock_restrict_self", errno);
	close(fd);
	return true;
}

static uint32_t
default_action(void)
{
	const char *mode = getenv("PAGER_SANDBOX");

	if (mode == NULL)
		return SCMP_ACT_KILL_PROCESS;
	if (strcmp(mode, "log") == 0)
		return SCMP_ACT_LOG;
	if (strcmp(mode, "errno") == 0)
		return SCMP_ACT_ERRNO(EPERM);
	give_up("PAGER_SANDBOX is neither log nor errno", 0);
}

uint32_t
sandbox_enter(void)
{
	uint32_t bits = IPC_SANDBOX_NO_NEW_PRIVS | IPC_SANDBOX_NO_CAPS | IPC_SANDBOX_OWN_UID;
	uint32_t action = default_action();
	const char *step = NULL;
	int rc;

	check_single_threaded();
	check_own_uid();
	check_no_caps();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up("PR_SET_NO_NEW_PRIVS", errno);
	/* No ptrace and no /proc/PID/mem for another process of our user. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		give_up("PR_SET_DUMPABLE", errno);
	set_limits();
	if (enter_landlock())
		bits |= IPC_SANDBOX_LANDLOCK;
#if UNDER_ASAN
	sandboxed = 1;
#endif
	rc = sandbox_filter_load(action, &step);
	if (rc < 0)
		give_up(step, -rc);
	if (action == SCMP_ACT_KILL_PROCESS)
		bits |= IPC_SANDBOX_SECCOMP;
	else
		log_warning("sandbox: PAGER_SANDBOX is set: system calls are not confined");
	return bits;
}
