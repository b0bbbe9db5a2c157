/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker needs works in the sandbox, what it must not be is refused at the door,
 * and the kernel confirms the confinement.  Each case runs in a child. */
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/scope.h"
#include "ipc/message.h"
#include "tests/unit/confined.h"
#include "tests/unit/tap.h"
#include "worker/sandbox.h"
#include "worker/sandbox_filter.h"
#include "worker/selftest.h"

/* Made before the sandbox, used after it. */
static int memfd = -1;
static int null = -1;
static struct ev_loop *loop;
static int pair[2] = {-1, -1};
static int listener = -1;
static struct selftest selftest;

/* --- What must work ------------------------------------------------------------ */

static void *
thread_main(void *arg)
{
	struct sched_param param = {0};
	char *memory = malloc(1 << 20);

	if (memory == NULL)
		return NULL;
	memset(memory, 1, 1 << 20);
	free(memory);
	if (sched_setscheduler(0, SCHED_IDLE, &param) < 0)
		return NULL;
	prctl(PR_SET_NAME, "worker-thread", 0, 0, 0);
	sched_yield();
	return arg;
}

static bool
can_thread(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_t threads[8];
	void *ret;

	for (size_t i = 0; i < 8; i++)
		if (pthread_create(&threads[i], NULL, thread_main, &lock) != 0)
			return false;
	pthread_setname_np(threads[0], "named"); /* may be gone: only its calls matter */
	for (size_t i = 0; i < 8; i++)
		if (pthread_join(threads[i], &ret) != 0 || ret != &lock)
			return false;
	return true;
}

static bool
can_poll(void)
{
	scoped_fd int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	scoped_fd int epoll = epoll_create1(EPOLL_CLOEXEC);
	scoped_fd int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct pollfd p = {.fd = wake, .events = POLLIN};
	struct epoll_event ev = {.events = EPOLLIN};
	struct itimerspec at = {.it_value = {.tv_nsec = 1}};
	struct timespec none = {0};
	uint64_t one = 1;

	return wake >= 0 && epoll >= 0 && timer >= 0 && poll(&p, 1, 0) == 0 &&
	    write(wake, &one, sizeof(one)) == 8 && poll(&p, 1, -1) == 1 &&
	    ppoll(&p, 1, &none, NULL) == 1 && epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &ev) == 0 &&
	    epoll_wait(epoll, &ev, 1, -1) == 1 && read(wake, &one, sizeof(one)) == 8 &&
	    timerfd_settime(timer, 0, &at, NULL) == 0 && read(timer, &one, sizeof(one)) == 8;
}

static bool
can_read_files(void)
{
	char bytes[16];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct statfs sfs;

	return pread(memfd, bytes, sizeof(bytes), 0) == 16 && preadv(memfd, &iov, 1, 0) == 16 &&
	    preadv2(memfd, &iov, 1, 0, RWF_NOWAIT) != 0 && lseek(memfd, 0, SEEK_END) == 8192 &&
	    lseek(memfd, 0, SEEK_DATA) == 0 && fstatfs(memfd, &sfs) == 0;
}

static bool
can_fstat(void)
{
	struct stat st;

	errno = 77;
	if (fstat(memfd, &st) < 0 || st.st_size != 8192 || !S_ISREG(st.st_mode) || errno != 77)
		return false;
	/* As a libc may call it, and its errors too. */
	return syscall(SYS_newfstatat, memfd, "", &st, AT_EMPTY_PATH) == 0 && fstat(-1, &st) < 0 &&
	    errno == EBADF && syscall(SYS_newfstatat, 999, "", &st, AT_EMPTY_PATH) < 0 &&
	    errno == EBADF;
}

static bool
can_map_memfd(void)
{
	unsigned char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	bool right;

	if (p == MAP_FAILED)
		return false;
	p[4096] = 7;
	right = madvise(p, 8192, MADV_SEQUENTIAL) == 0 && mprotect(p, 4096, PROT_READ) == 0 &&
	    p[4096] == 7;
	return munmap(p, 8192) == 0 && right;
}

static bool
can_use_memory(void)
{
	char *small[64];
	char *big = malloc(64 << 20);

	if (big == NULL)
		return false;
	big[0] = 1;
	big = realloc(big, 128 << 20); /* mremap */
	for (size_t i = 0; i < 64; i++)
		small[i] = calloc(1, 1000 * (i + 1));
	for (size_t i = 0; i < 64; i++)
		free(small[i]);
	free(big);
	return big != NULL;
}

/* A connection that the listener was given, and a descriptor over it. */
static bool
can_pass_fds(void)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int fd;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &memfd, sizeof(int));
	if (sendmsg(pair[0], &msg, MSG_NOSIGNAL) != 1 ||
	    recvmsg(pair[1], &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return false;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	close(fd);
	fd = fcntl(memfd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	if (fd < 0 || fcntl(memfd, F_GET_SEALS) < 0 || fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
		return false;
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return fd < 0 && errno == EAGAIN &&
	    getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	    send(pair[0], "y", 1, MSG_NOSIGNAL) == 1 && recv(pair[1], &byte, 1, MSG_PEEK) == 1;
}

static bool
can_serve_fault(void)
{
	char why[128] = "";
	int rc = selftest_run(&selftest, why, sizeof(why));

	if (rc < 0)
		printf("# self-test: %s\n", why);
	return rc == 0 && selftest.uffd == -1 && selftest.memory == NULL;
}

static void
on_woken(struct ev_loop *l, ev_async *w, int events)
{
	(void)w;
	(void)events;
	ev_break(l, EVBREAK_ONE);
}

static void
on_time(struct ev_loop *l, ev_timer *w, int events)
{
	ev_async *woken = w->data;

	(void)events;
	ev_async_send(l, woken);
}

/* libev makes some of its descriptors when they are first needed. */
static bool
can_run_loop(void)
{
	ev_async woken;
	ev_timer timer;

	ev_async_init(&woken, on_woken);
	ev_async_start(loop, &woken);
	ev_timer_init(&timer, on_time, 1e-6, 0.);
	timer.data = &woken;
	ev_timer_start(loop, &timer);
	return ev_run(loop, 0) != 0;
}

static void
on_signal(int sig)
{
	(void)sig;
}

static bool
can_signal_itself(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	return sigaction(SIGUSR1, &action, NULL) == 0 && raise(SIGUSR1) == 0 &&
	    kill(getpid(), SIGUSR1) == 0;
}

static bool
can_log(void)
{
	time_t now = time(NULL);
	struct timespec ts;

	return dprintf(STDERR_FILENO, "%s", "") >= 0 && dprintf(null, "%s", "text") == 4 &&
	    now > 0 && clock_gettime(CLOCK_MONOTONIC, &ts) == 0 && strerror(EACCES) != NULL;
}

static const struct {
	const char *name;
	bool (*call)(void);
} needed[] = {
    {"threads, their scheduling and names", can_thread},
    {"poll, epoll, eventfd, timerfd", can_poll},
    {"reading files", can_read_files},
    {"fstat of a descriptor", can_fstat},
    {"mapping a memfd", can_map_memfd},
    {"allocation", can_use_memory},
    {"descriptors over connections", can_pass_fds},
    {"a page fault served by copy and by zeros", can_serve_fault},
    {"an event loop", can_run_loop},
    {"signals to itself", can_signal_itself},
    {"logging", can_log},
};

/* --- Running them -------------------------------------------------------------- */

static void
run_needed(size_t i)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		drop_user();
		loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
		if (loop == NULL || selftest_open(&selftest) < 0)
			_exit(FAILED);
		sandbox_enter();
		_exit(needed[i].call() ? WORKED : FAILED);
	}
	status = status_of(pid);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == WORKED, "%s (status 0x%x)", needed[i].name,
	    (unsigned int)status);
}

/* Forks a child that prepares itself and enters: its exit status. */
static int
enter_after(void (*prepare)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		prepare();
		sandbox_enter();
		_exit(PASSED);
	}
	return status_of(pid);
}

static void
stay_root(void)
{
}

static void
keep_caps(void)
{
	prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
	drop_user();
}

static void
keep_saved_uid(void)
{
	if (setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) < 0 ||
	    setresuid(UNPRIVILEGED, UNPRIVILEGED, 0) < 0)
		_exit(FAILED);
}

static void *
wait_for_ever(void *arg)
{
	pause();
	return arg;
}

static void
start_thread(void)
{
	pthread_t thread;

	drop_user();
	if (pthread_create(&thread, NULL, wait_for_ever, NULL) != 0)
		_exit(FAILED);
}

static void
bad_mode(void)
{
	drop_user();
	setenv("PAGER_SANDBOX", "of", 1);
}

static void
test_refusals(void)
{
	const int want = EXITCODE_SANDBOX;

	if (geteuid() == 0) {
		is_int(WEXITSTATUS(enter_after(stay_root)), want, "root is refused");
		is_int(WEXITSTATUS(enter_after(keep_caps)), want, "capabilities are refused");
		is_int(WEXITSTATUS(enter_after(keep_saved_uid)), want,
		    "a way back to root is refused");
	} else
		skip(3, "not root");
	is_int(WEXITSTATUS(enter_after(bad_mode)), want, "an unknown mode is refused");
	if (UNDER_TSAN)
		skip(1, "TSan has a thread of its own");
	else
		is_int(WEXITSTATUS(enter_after(start_thread)), want, "a second thread is refused");
}

/* What the kernel says about a confined process, seen from outside. */
static void
test_status(void)
{
	static const char *const lines[] = {"NoNewPrivs:\t1", "Seccomp:\t2",
	    "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000"};
	uint32_t want = IPC_SANDBOX_NO_NEW_PRIVS | IPC_SANDBOX_NO_CAPS | IPC_SANDBOX_SECCOMP |
	    IPC_SANDBOX_OWN_UID;
	char path[64];
	char text[4096] = "";
	uint32_t bits = 0;
	int link[2] = {-1, -1};
	ssize_t n = 0;
	pid_t pid;

	if (!ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) == 0, "a link"))
		return;
	pid = fork();
	if (pid == 0) {
		drop_user();
		bits = sandbox_enter();
		send(link[1], &bits, sizeof(bits), MSG_NOSIGNAL);
		_exit(recv(link[1], &bits, sizeof(bits), 0) == sizeof(bits) ? WORKED : FAILED);
	}
	fd_closep(&link[1]);
	ok(recv(link[0], &bits, sizeof(bits), 0) == sizeof(bits), "the child says its bits");
	is_int(bits & ~(uint32_t)IPC_SANDBOX_LANDLOCK, want, "all but Landlock are in force");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, text, sizeof(text) - 1);
	ok(n > 0, "the child is still there");
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		ok(strstr(text, lines[i]) != NULL, "status says %s", lines[i]);
	if (geteuid() == 0) {
		struct stat st = {.st_uid = 1};

		snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
		ok(stat(path, &st) == 0 && st.st_uid == 0, "it is not dumpable");
	} else
		skip(1, "not root");
	send(link[0], &bits, sizeof(bits), MSG_NOSIGNAL);
	is_int(status_of(pid), 0, "it ends well");
	fd_closep(&link[0]);
}

/* Landlock by itself: with PAGER_SANDBOX=log the filter lets mkdir() pass. */
static void
test_landlock(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		uint32_t bits;

		drop_user();
		setenv("PAGER_SANDBOX", "log", 1);
		bits = sandbox_enter();
		if (bits & IPC_SANDBOX_SECCOMP)
			_exit(PASSED);
		if ((bits & IPC_SANDBOX_LANDLOCK) == 0)
			_exit(EXITCODE_NOT_FOUND);
		_exit(
		    mkdir("/tmp/sandbox-test-none", 0700) < 0 && errno == EACCES ? WORKED : FAILED);
	}
	status = status_of(pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXITCODE_NOT_FOUND)
		skip(1, "the kernel has no Landlock");
	else
		is_int(status, 0, "Landlock refuses what the filter only logs");
}

static bool
open_fixtures(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX}; /* autobind */

	selftest = (struct selftest){.uffd = -1};
	memfd = memfd_create("fixture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return memfd >= 0 && null >= 0 && ftruncate(memfd, 8192) == 0 &&
	    pwrite(memfd, "x", 1, 0) == 1 &&
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 &&
	    bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0 &&
	    listen(listener, 1) == 0;
}

int
main(void)
{
	unsetenv("PAGER_SANDBOX");
	if (!ok(open_fixtures(), "fixtures"))
		return done();
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		run_needed(i);
	test_refusals();
	test_status();
	test_landlock();
	fd_closep(&listener);
	fd_closep(&memfd);
	fd_closep(&null);
	fd_closep(&pair[0]);
	fd_closep(&pair[1]);
	return done();
}
