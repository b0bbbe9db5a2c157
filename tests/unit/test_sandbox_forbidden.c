/* SPDX-License-Identifier: Apache-2.0 */
/* What a confined worker must not do: each call, tried in a child, kills it by SIGSYS
 * or fails without having been made. */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "common/fd.h"
#include "tests/unit/confined.h"
#include "tests/unit/tap.h"
#include "worker/sandbox.h"

/* Made before the sandbox, used after it. */
static int memfd = -1;
static int pair[2] = {-1, -1};
static pid_t parent;

/* Each returns the result of the forbidden call, with errno. */
static long
do_open(void)
{
	return open("/etc/hostname", O_RDONLY | O_CLOEXEC);
}

static long
do_openat2(void)
{
	uint64_t how[3] = {O_RDONLY, 0, 0};

	return syscall(SYS_openat2, AT_FDCWD, "/etc/hostname", how, sizeof(how));
}

static long
do_opendir(void)
{
	DIR *dir = opendir("/");

	return dir == NULL ? -1 : closedir(dir);
}

static long
do_stat(void)
{
	struct stat st;

	return stat("/etc/hostname", &st);
}

static long
do_stat_disguised(void)
{
	struct stat st;

	return syscall(SYS_newfstatat, AT_FDCWD, "/etc/hostname", &st, AT_EMPTY_PATH);
}

static long
do_statx(void)
{
	struct statx st;

	return statx(memfd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st);
}

static long
do_access(void)
{
	return access("/etc/hostname", R_OK);
}

static long
do_unlink(void)
{
	return unlink("/tmp/sandbox-test-none");
}

static long
do_mkdir(void)
{
	return mkdir("/tmp/sandbox-test-none", 0700);
}

static long
do_exec(void)
{
	char arg[] = "true";
	char *argv[] = {arg, NULL};

	return execve("/bin/true", argv, NULL);
}

static long
do_execveat(void)
{
	char arg[] = "true";
	char *argv[] = {arg, NULL};

	return syscall(SYS_execveat, memfd, "", argv, NULL, AT_EMPTY_PATH);
}

static long
do_fork(void)
{
	return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static long
do_fork_libc(void)
{
	return fork();
}

static long
do_clone_newuser(void)
{
	return syscall(SYS_clone,
	    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWUSER, NULL,
	    NULL, NULL, NULL);
}

static long
do_unshare(void)
{
	return unshare(CLONE_NEWUSER);
}

static long
do_socket_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static long
do_socket_inet(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0);
}

static long
do_socketpair(void)
{
	int fds[2];

	return socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

static long
do_connect(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/run/none"};

	return connect(pair[0], (struct sockaddr *)&to, sizeof(to));
}

static long
do_bind(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/tmp/none"};

	return bind(pair[0], (struct sockaddr *)&to, sizeof(to));
}

static long
do_sendto_address(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/run/none"};

	return sendto(pair[0], "x", 1, 0, (struct sockaddr *)&to, sizeof(to));
}

static long
do_ptrace(void)
{
	return ptrace(PTRACE_ATTACH, parent, NULL, NULL);
}

static long
do_process_vm_readv(void)
{
	char byte;
	struct iovec to = {&byte, 1};
	struct iovec from = {&byte, 1};

	return process_vm_readv(parent, &to, 1, &from, 1, 0);
}

static long
do_kill_other(void)
{
	return kill(parent, 0);
}

static long
do_tgkill_other(void)
{
	return syscall(SYS_tgkill, parent, parent, 0);
}

static long
do_mmap_exec(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
		MAP_FAILED
	    ? -1
	    : 0;
}

static long
do_mprotect_exec(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? 0 : mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static long
do_ioctl_other(void)
{
	int on = 1;

	return ioctl(pair[0], FIONBIO, &on);
}

static long
do_fcntl_other(void)
{
	return fcntl(pair[0], F_SETOWN, (int)getpid());
}

static long
do_prctl_other(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long
do_userfaultfd(void)
{
	return syscall(SYS_userfaultfd, O_CLOEXEC | 1);
}

static long
do_memfd_create(void)
{
	return memfd_create("none", MFD_CLOEXEC);
}

static long
do_setuid(void)
{
	return setuid(0);
}

static long
do_io_uring(void)
{
	return syscall(425 /* io_uring_setup */, 1, NULL);
}

static long
do_bpf(void)
{
	return syscall(SYS_bpf, 0, NULL, 0);
}

static long
do_other_abi(void)
{
#if defined(__x86_64__)
	return syscall(0x40000000L + SYS_getpid);
#else
	return syscall(100000);
#endif
}

static const struct {
	const char *name;
	long (*call)(void);
	int error; /* 0: dies with SIGSYS */
} forbidden[] = {
    {"open", do_open, EACCES},
    {"openat2", do_openat2, EACCES},
    {"opendir", do_opendir, EACCES},
    {"stat of a path", do_stat, 0},
    {"stat of a path with AT_EMPTY_PATH", do_stat_disguised, 0},
    {"statx", do_statx, 0},
    {"access", do_access, 0},
    {"unlink", do_unlink, 0},
    {"mkdir", do_mkdir, 0},
    {"execve", do_exec, 0},
    {"execveat", do_execveat, 0},
    {"clone without CLONE_THREAD", do_fork, 0},
    {"fork", do_fork_libc, 0},
    {"clone of a namespace", do_clone_newuser, 0},
    {"unshare", do_unshare, 0},
    {"socket AF_UNIX", do_socket_unix, 0},
    {"socket AF_INET", do_socket_inet, 0},
    {"socketpair", do_socketpair, 0},
    {"connect", do_connect, 0},
    {"bind", do_bind, 0},
    {"sendto an address", do_sendto_address, 0},
    {"ptrace", do_ptrace, 0},
    {"process_vm_readv", do_process_vm_readv, 0},
    {"kill of another process", do_kill_other, 0},
    {"tgkill of another process", do_tgkill_other, 0},
    {"mmap PROT_EXEC", do_mmap_exec, 0},
    {"mprotect PROT_EXEC", do_mprotect_exec, 0},
    {"ioctl that is not a userfaultfd's", do_ioctl_other, 0},
    {"fcntl F_SETOWN", do_fcntl_other, 0},
    {"prctl PR_SET_DUMPABLE", do_prctl_other, 0},
    {"userfaultfd", do_userfaultfd, 0},
    {"memfd_create", do_memfd_create, 0},
    {"setuid", do_setuid, 0},
    {"io_uring_setup", do_io_uring, 0},
    {"bpf", do_bpf, 0},
    {"a call of another ABI", do_other_abi, 0},
};

static void
run_forbidden(size_t i)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		drop_user();
		sandbox_enter();
		errno = 0;
		if (forbidden[i].call() >= 0)
			_exit(PASSED);
		_exit(errno == forbidden[i].error ? WORKED : FAILED);
	}
	status = status_of(pid);
	if (forbidden[i].error != 0)
		ok(WIFEXITED(status) && WEXITSTATUS(status) == WORKED, "%s fails: %s (status 0x%x)",
		    forbidden[i].name, strerror(forbidden[i].error), (unsigned int)status);
	else
		ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
		    "%s kills by SIGSYS (status 0x%x)", forbidden[i].name, (unsigned int)status);
}

int
main(void)
{
	unsetenv("PAGER_SANDBOX");
	parent = getpid();
	memfd = memfd_create("fixture", MFD_CLOEXEC);
	if (!ok(memfd >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0,
		"fixtures"))
		return done();
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		run_forbidden(i);
	fd_closep(&memfd);
	fd_closep(&pair[0]);
	fd_closep(&pair[1]);
	return done();
}
