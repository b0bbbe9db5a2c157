/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/sandbox_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Headers before Linux 6.6 do not have it. */
#ifndef UFFDIO_POISON
#define UFFDIO_POISON _IOC(_IOC_READ | _IOC_WRITE, UFFDIO, 0x08, 32)
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#define CODE_SECCOMP 1 /* SYS_SECCOMP, which glibc does not name */

#define NR(call)     SCMP_SYS(call)
#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

/* A call that is allowed where (argument & mask) == value. */
struct rule {
	int call;
	unsigned int argument;
	uint64_t mask;
	uint64_t value;
};

#define ANY	UINT64_MAX
#define ANY_U32 UINT64_C(0xffffffff) /* the kernel looks at no more of an int */
#define THREAD	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define NAMESPACE                                                                      \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | \
	    CLONE_NEWPID | CLONE_NEWNET)

/* clang-format off */

/* The calls that need no look at their arguments.  None takes a path, makes a
 * socket, or reaches another process but by its scheduling. */
static const int plain[] = {
	/* events */
	NR(poll), NR(ppoll), NR(epoll_create1), NR(epoll_ctl), NR(epoll_wait), NR(epoll_pwait),
	NR(epoll_pwait2), NR(eventfd2), NR(pipe2), NR(timerfd_create), NR(timerfd_settime),
	NR(timerfd_gettime),
	/* descriptors that we were given */
	NR(read), NR(readv), NR(pread64), NR(preadv), NR(preadv2), NR(write), NR(writev),
	NR(lseek), NR(close), NR(dup), NR(fstat), NR(fstatfs), NR(fadvise64), NR(readahead),
	/* connections that we were given */
	NR(recvmsg), NR(sendmsg), NR(accept4), NR(getsockopt), NR(shutdown),
	/* memory: mmap and mprotect are below */
	NR(munmap), NR(mremap), NR(madvise), NR(brk),
	/* threads: clone is below */
	NR(futex), NR(rseq), NR(set_robust_list), NR(exit), NR(exit_group), NR(gettid),
	NR(sched_setscheduler), NR(sched_getscheduler), NR(sched_setattr), NR(sched_getattr),
	NR(sched_setparam), NR(sched_getparam), NR(sched_yield), NR(sched_getaffinity),
	NR(sched_get_priority_min), NR(sched_get_priority_max),
	/* signals: tgkill and kill are below */
	NR(rt_sigaction), NR(rt_sigprocmask), NR(rt_sigreturn), NR(rt_sigpending),
	NR(rt_sigsuspend), NR(rt_sigtimedwait), NR(sigaltstack), NR(restart_syscall),
	/* time, and the rest */
	NR(clock_gettime), NR(clock_getres), NR(clock_nanosleep), NR(nanosleep),
	NR(gettimeofday), NR(getcpu), NR(getpid), NR(getrandom),
#if UNDER_ASAN || UNDER_TSAN
	/* The runtimes look at the stack's limits and at what they use. */
	NR(prlimit64), NR(getrlimit), NR(getrusage),
#endif
};

/* What libraries may try and can do without: refused, not fatal. */
static const struct {
	int call;
	uint16_t error;
} refused[] = {
	{ NR(open), EACCES },
	{ NR(openat), EACCES },
	{ NR(openat2), EACCES },
	{ NR(clone3), ENOSYS }, /* its flags are behind a pointer; glibc then uses clone */
#if UNDER_ASAN || UNDER_TSAN
	{ NR(readlink), EACCES },
	{ NR(readlinkat), EACCES },
#endif
};

static const struct rule ruled[] = {
	{ NR(ioctl), 1, ANY_U32, UFFDIO_COPY },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_ZEROPAGE },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_WAKE },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_API },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_REGISTER },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_UNREGISTER },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_WRITEPROTECT },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_CONTINUE },
	{ NR(ioctl), 1, ANY_U32, UFFDIO_POISON },
	{ NR(fcntl), 1, ANY_U32, F_GETFL },
	{ NR(fcntl), 1, ANY_U32, F_SETFL },
	{ NR(fcntl), 1, ANY_U32, F_GETFD },
	{ NR(fcntl), 1, ANY_U32, F_SETFD },
	{ NR(fcntl), 1, ANY_U32, F_DUPFD_CLOEXEC },
	{ NR(fcntl), 1, ANY_U32, F_GET_SEALS },
	{ NR(mmap), 2, PROT_EXEC, 0 },
	{ NR(mprotect), 2, PROT_EXEC, 0 },
	{ NR(sendto), 4, ANY, 0 },   /* send(): to no address */
	{ NR(recvfrom), 4, ANY, 0 }, /* recv() */
	{ NR(setsockopt), 2, ANY_U32, SO_PEEK_OFF },
	{ NR(clone), 0, THREAD | NAMESPACE, THREAD },
	{ NR(setpriority), 0, ANY_U32, PRIO_PROCESS },
	{ NR(getpriority), 0, ANY_U32, PRIO_PROCESS },
	{ NR(prctl), 0, ANY_U32, PR_SET_NAME },
	{ NR(prctl), 0, ANY_U32, PR_SET_VMA }, /* malloc names its arenas */
};

/* clang-format on */

/* The result of a system call as it is returned to user space, and its arguments. */
#if defined(__x86_64__)
#define REG_RESULT(uc)	   (uc)->uc_mcontext.gregs[REG_RAX]
#define REG_ARGUMENT_0(uc) (uc)->uc_mcontext.gregs[REG_RDI]
#define REG_ARGUMENT_1(uc) (uc)->uc_mcontext.gregs[REG_RSI]
#define REG_ARGUMENT_2(uc) (uc)->uc_mcontext.gregs[REG_RDX]
#define REG_ARGUMENT_3(uc) (uc)->uc_mcontext.gregs[REG_R10]
#elif defined(__aarch64__)
#define REG_RESULT(uc)	   (uc)->uc_mcontext.regs[0]
#define REG_ARGUMENT_0(uc) (uc)->uc_mcontext.regs[0]
#define REG_ARGUMENT_1(uc) (uc)->uc_mcontext.regs[1]
#define REG_ARGUMENT_2(uc) (uc)->uc_mcontext.regs[2]
#define REG_ARGUMENT_3(uc) (uc)->uc_mcontext.regs[3]
#else
#error "say where this machine keeps the arguments of a system call"
#endif

/* glibc 2.33 to 2.38 make fstat(fd, st) a newfstatat(fd, "", st, AT_EMPTY_PATH).  The
 * filter cannot see that the path is empty, and a path is what must not be: the call
 * comes here instead of the kernel's, and only its harmless form is answered. */
static void
on_sigsys(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	const char *path = (const char *)REG_ARGUMENT_1(uc);
	int saved = errno;

	if (info->si_code == CODE_SECCOMP && info->si_syscall == SYS_newfstatat &&
	    (REG_ARGUMENT_3(uc) & AT_EMPTY_PATH) != 0 && (path == NULL || *path == '\0')) {
		long rc = syscall(SYS_fstat, REG_ARGUMENT_0(uc), REG_ARGUMENT_2(uc));

		REG_RESULT(uc) = rc < 0 ? -errno : rc;
		errno = saved;
		return;
	}
	/* Dies by the signal it was given, once this handler returns and unblocks it. */
	sigaction(SIGSYS, &dfl, NULL);
	raise(signal);
}

static int
handle_sigsys(void)
{
	struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

	sigemptyset(&action.sa_mask);
	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

/* A call that this machine does not have (open on aarch64) needs no rule. */
static bool
is_missing_call(int call)
{
	return call < 0;
}

static int
add_lists(scmp_filter_ctx ctx)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < LENGTH(plain); i++)
		if (!is_missing_call(plain[i]))
			rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain[i], 0);
	for (size_t i = 0; rc == 0 && i < LENGTH(refused); i++)
		if (!is_missing_call(refused[i].call))
			rc = seccomp_rule_add(
			    ctx, SCMP_ACT_ERRNO(refused[i].error), refused[i].call, 0);
	for (size_t i = 0; rc == 0 && i < LENGTH(ruled); i++) {
		const struct rule *r = &ruled[i];

		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->call, 1,
		    SCMP_CMP64(r->argument, SCMP_CMP_MASKED_EQ, r->mask, r->value));
	}
	return rc;
}

/* raise(), abort() and the fault points: a signal to this process only. */
static int
add_own_signals(scmp_filter_ctx ctx)
{
	scmp_datum_t pid = (scmp_datum_t)getpid();
	int rc = seccomp_rule_add(
	    ctx, SCMP_ACT_ALLOW, NR(tgkill), 1, SCMP_A0_64(SCMP_CMP_MASKED_EQ, ANY_U32, pid));

	if (rc < 0)
		return rc;
	return seccomp_rule_add(
	    ctx, SCMP_ACT_ALLOW, NR(kill), 1, SCMP_A0_64(SCMP_CMP_MASKED_EQ, ANY_U32, pid));
}

static int
fill(scmp_filter_ctx ctx, const char **ret_step)
{
	int rc;

	*ret_step = "seccomp attributes";
	/* Another instruction set has other numbers for the same calls. */
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* The order of the instructions: the kernel remembers the verdict on calls whose
	 * arguments do not matter, so the one of the fault path that remains goes first. */
	if (rc == 0)
		rc = seccomp_syscall_priority(ctx, NR(ioctl), UINT8_MAX);
	if (rc < 0)
		return rc;
	*ret_step = "seccomp rules";
	rc = add_lists(ctx);
	if (rc == 0)
		rc = add_own_signals(ctx);
	if (rc == 0)
		rc = seccomp_rule_add(ctx, SCMP_ACT_TRAP, NR(newfstatat), 0);
	/* stdio asks of a character device whether it is a terminal: it is not. */
	if (rc == 0)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOTTY), NR(ioctl), 1,
		    SCMP_A1_64(SCMP_CMP_MASKED_EQ, ANY_U32, TCGETS));
	if (rc < 0)
		return rc;
	*ret_step = "loading the seccomp filter";
	return seccomp_load(ctx);
}

int
sandbox_filter_load(uint32_t default_action, const char **ret_step)
{
	scmp_filter_ctx ctx;
	int rc;

	*ret_step = "SIGSYS handler";
	rc = handle_sigsys();
	if (rc < 0)
		return rc;
	*ret_step = "seccomp_init";
	ctx = seccomp_init(default_action);
	if (ctx == NULL)
		return -ENOMEM;
	rc = fill(ctx, ret_step);
	seccomp_release(ctx);
	return rc;
}
