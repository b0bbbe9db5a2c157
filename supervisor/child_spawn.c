/* SPDX-License-Identifier: Apache-2.0 */
/* ● The only exec.
 *
 * What the worker finds: 0 and 1 /dev/null, 2 a pipe to us, 3 the link, 4 the
 * rendezvous socket, nothing else; its own session; no signal blocked or ignored; the
 * worker user without groups; no capability and none to be had.  It has no parent
 * death signal: workers outlive the supervisor.
 *
 * A step that fails in the child is reported through a close-on-exec pipe, which is
 * read when the child has exited, so that nobody waits for it. */
#include "supervisor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/fault.h"
#include "common/scope.h"
#include "supervisor/privs.h"
#include "supervisor/process.h"
#include "supervisor/supervisor.h"

#define NR_PLANNED     5  /* descriptors of the worker: 0 to 4 */
#define FIRST_FREE     10 /* above the plan, so that moving one cannot overwrite another */
#define RENDEZVOUS_MAX 1000

/* Everything that the two processes share, while there is one of each. */
struct spawn {
	int worker;    /* borrowed: the executable */
	int null;      /* owned, like the rest */
	int link[2];   /* [0] ours, [1] the worker's */
	int words[2];  /* [0] ours: read; [1] the worker's stderr */
	int report[2]; /* [0] ours: read; [1] until exec */
	int rendezvous;
	int spare; /* keeps a place for the pidfd */
	uid_t uid;
	gid_t gid;
	char level_arg[32];
	char fault_env[256];
};

/* What went wrong between fork and exec. */
struct report {
	char step[24];
	int error;
};

/* --- In the child ---------------------------------------------------------------- */

static void __attribute__((noreturn)) give_up(int report_fd, const char *step, int error)
{
	struct report report = {.error = error};

	snprintf(report.step, sizeof(report.step), "%s", step);
	/* Nobody is left to tell if this fails; the exit code says the rest. */
	if (write(report_fd, &report, sizeof(report)) < 0)
		_exit(EXITCODE_EXEC);
	_exit(EXITCODE_EXEC);
}

/* Moves *fd out of the way of the plan. */
static int
move_up(int *fd)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_FREE);

	if (moved < 0)
		return -errno;
	*fd = moved;
	return 0;
}

static int
plan_fds(struct spawn *spawn)
{
	int *const sources[NR_PLANNED] = {
	    &spawn->null, &spawn->null, &spawn->words[1], &spawn->link[1], &spawn->rendezvous};

	for (int fd = 0; fd < NR_PLANNED; fd++) {
		int r = move_up(sources[fd]);

		if (r < 0)
			return r;
	}
	for (int fd = 0; fd < NR_PLANNED; fd++) {
		if (dup2(*sources[fd], fd) < 0)
			return -errno;
	}
	/* Our own are close-on-exec; what we inherited from whoever started us may not be. */
	if (syscall(SYS_close_range, NR_PLANNED, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */) < 0)
		return -errno;
	return 0;
}

static int
limit(int resource, rlim_t max)
{
	struct rlimit limits = {.rlim_cur = max, .rlim_max = max};

	return setrlimit((__rlimit_resource_t)resource, &limits) < 0 ? -errno : 0;
}

static int
set_limits(void)
{
	struct rlimit files;
	int r;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	r = limit(RLIMIT_NOFILE, files.rlim_max);
	if (r == 0)
		r = limit(RLIMIT_CORE, 0);
	if (r < 0)
		return r;
	/* Allows nice 0 (20 - 20) to be regained after a background thread has lowered
	 * itself.  Without the privilege to raise it, such a thread stays low. */
	r = limit(RLIMIT_NICE, 20);
	return r == -EPERM ? 0 : r;
}

/* Becomes the worker user.  Without the privilege to do so pagerd has set uid and gid
 * to its own. */
static int
change_user(uid_t uid, gid_t gid)
{
	if (uid == getuid() && gid == getgid() && !priv_is_available(PRIV_SPAWN))
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	return 0;
}

static void __attribute__((noreturn)) become_worker(struct spawn *spawn)
{
	char *argv[] = {(char[]){"pager-worker"}, spawn->level_arg, NULL};
	char *envp[] = {spawn->fault_env[0] != '\0' ? spawn->fault_env : NULL, NULL};
	int r;

	/* First of all, since the plan can overwrite them. */
	if (move_up(&spawn->report[1]) < 0 || move_up(&spawn->worker) < 0)
		give_up(spawn->report[1], "move descriptors", errno);
	r = plan_fds(spawn);
	if (r < 0)
		give_up(spawn->report[1], "lay out descriptors", -r);
	/* Out of reach of a terminal's ^C and ^Z.  Not a session of its own: the kernel shares out
	 * the CPU by session, and a worker that is not in its VMs' loses a fifth of its faults. */
	if (setpgid(0, 0) < 0 || chdir("/") < 0)
		give_up(spawn->report[1], "leave the session", errno);
	umask(077);
	r = set_limits();
	if (r < 0)
		give_up(spawn->report[1], "set limits", -r);
	r = privs_drop_bounding();
	if (r < 0 && priv_is_available(PRIV_CONFINE))
		give_up(spawn->report[1], "empty the bounding set", -r);
	r = change_user(spawn->uid, spawn->gid);
	if (r < 0)
		give_up(spawn->report[1], "change the user", -r);
	r = privs_drop_all();
	if (r < 0)
		give_up(spawn->report[1], "drop capabilities", -r);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up(spawn->report[1], "set no_new_privs", errno);
	r = process_reset_signals();
	if (r < 0)
		give_up(spawn->report[1], "reset signals", -r);
	syscall(SYS_execveat, spawn->worker, "", argv, envp, AT_EMPTY_PATH);
	give_up(spawn->report[1], "execute it", errno);
}

/* --- In the supervisor ----------------------------------------------------------- */

static int
make_pipe(int fds[2])
{
	return pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
}

/* A worker of an earlier supervisor may still hold the name: then the next number. */
static int
bind_rendezvous(struct child *child, int fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	for (int i = 0; i < RENDEZVOUS_MAX; i++) {
		int n =
		    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/workers/%s.%" PRIu32 ".sock",
			child->sup->options.run_dir, child->version, child->number);

		if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
			return -ENAMETOOLONG;
		if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
			snprintf(child->rendezvous_path, sizeof(child->rendezvous_path), "%s",
			    addr.sun_path);
			return 0;
		}
		if (errno != EADDRINUSE)
			return -errno;
		child->number = ++child->sup->fleet.next_number;
	}
	return -EADDRINUSE;
}

static int
open_rendezvous(struct child *child, int *ret)
{
	scoped_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = bind_rendezvous(child, fd);
	if (r < 0)
		return r;
	/* Its directory lets others pass; only a supervisor may knock here. */
	if (chmod(child->rendezvous_path, 0600) < 0 || listen(fd, 4) < 0)
		return -errno;
	*ret = fd_take(&fd);
	return 0;
}

/* For tests: PAGER_WORKER_FAULT is the PAGER_FAULT of every worker.  Where it has a ';' it
 * is a list: the first word is for the first worker that this process starts, and so on;
 * beyond the last, and where a word is empty, a worker has none. */
static void
set_fault_env(struct spawn *spawn)
{
	static unsigned nr_started;
	const char *word = getenv("PAGER_WORKER_FAULT");

	if (word != NULL && strchr(word, ';') != NULL) {
		for (unsigned i = 0; i < nr_started && word != NULL; i++) {
			word = strchr(word, ';');
			word = word == NULL ? NULL : word + 1;
		}
		nr_started++;
	}
	if (word != NULL && strcspn(word, ";") > 0)
		snprintf(spawn->fault_env, sizeof(spawn->fault_env), "PAGER_FAULT=%.*s",
		    (int)strcspn(word, ";"), word);
}

static int
prepare(struct child *child, struct spawn *spawn)
{
	static const char *const levels[] = {
	    [LOG_LEVEL_ERR] = "err",
	    [LOG_LEVEL_WARNING] = "warning",
	    [LOG_LEVEL_NOTICE] = "notice",
	    [LOG_LEVEL_INFO] = "info",
	    [LOG_LEVEL_DEBUG] = "debug",
	};
	int r;

	spawn->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	spawn->spare = spawn->null < 0 ? -1 : fd_dup(spawn->null);
	if (spawn->null < 0 || spawn->spare < 0)
		return spawn->null < 0 ? -errno : spawn->spare;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, spawn->link) < 0)
		return -errno;
	r = make_pipe(spawn->words);
	if (r == 0)
		r = make_pipe(spawn->report);
	if (r == 0)
		r = open_rendezvous(child, &spawn->rendezvous);
	spawn->uid = child->sup->worker_uid;
	spawn->gid = child->sup->worker_gid;
	snprintf(spawn->level_arg, sizeof(spawn->level_arg), "--log-level=%s",
	    levels[child->sup->options.log_level]);
	set_fault_env(spawn);
	return r;
}

static void
spawn_fini(struct spawn *spawn)
{
	fd_closep(&spawn->null);
	fd_closep(&spawn->spare);
	fd_closep(&spawn->rendezvous);
	fd_close_all(spawn->link, 2);
	fd_close_all(spawn->words, 2);
	fd_close_all(spawn->report, 2);
}

/* The process is our child and not reaped: its id is still its own. */
static int
open_pidfd(pid_t pid)
{
	int fd;

	if (fault(FAULT_SPAWN_PIDFD))
		return -ENFILE;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? -errno : fd;
}

/* It may be another user's by now. */
static void
kill_child(pid_t pid)
{
	scoped_priv enum priv held = priv_raise(PRIV_KILL);

	(void)held;
	kill(pid, SIGKILL);
}

/* Starts the process.  When that fails *ret_pid may be one that was killed and is to be reaped. */
static int
start(struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd)
{
	scoped_priv enum priv user = priv_raise(PRIV_SPAWN);
	scoped_priv enum priv confine = priv_raise(PRIV_CONFINE);
	(void)user;
	(void)confine;
	if (fault(FAULT_SPAWN_FORK))
		return -EAGAIN;
	int r = process_fork(ret_pid);
	if (r == 1)
		become_worker(spawn);
	if (r < 0)
		return r;
	fd_closep(&spawn->spare);
	*ret_pidfd = open_pidfd(*ret_pid);
	if (*ret_pidfd < 0)
		kill_child(*ret_pid);
	return *ret_pidfd < 0 ? *ret_pidfd : 0;
}

int
child_spawn(struct child *child, int worker, char *why, size_t why_bytes)
{
	struct spawn spawn = {.worker = worker,
	    .null = -1,
	    .link = {-1, -1},
	    .words = {-1, -1},
	    .report = {-1, -1},
	    .rendezvous = -1,
	    .spare = -1};
	pid_t pid = -1;
	int pidfd = -1;
	int r = prepare(child, &spawn);

	if (r == 0)
		r = start(&spawn, &pid, &pidfd);
	if (r < 0) {
		if (pid > 0)
			child_reap_unwatched(&child->sup->fleet, pid);
		snprintf(why, why_bytes, "cannot start a worker of version %s: %s", child->version,
		    strerror(-r));
		if (child->rendezvous_path[0] != '\0')
			unlink(child->rendezvous_path);
		child->rendezvous_path[0] = '\0';
		spawn_fini(&spawn);
		return r;
	}
	child->pid = pid;
	child->pidfd = pidfd;
	child->started_ns = clock_now_ns();
	child->rendezvous = fd_take(&spawn.rendezvous);
	child->words_fd = fd_take(&spawn.words[0]);
	child->report_fd = fd_take(&spawn.report[0]);
	child_link_open(child, fd_take(&spawn.link[0]));
	spawn_fini(&spawn);
	child_reap_start(child);
	return 0;
}

bool
child_spawn_report(struct child *child, char *why, size_t why_bytes)
{
	struct report report;

	if (child->report_fd < 0 ||
	    read(child->report_fd, &report, sizeof(report)) != sizeof(report))
		return false;
	report.step[sizeof(report.step) - 1] = '\0';
	snprintf(why, why_bytes, "cannot %s: %s", report.step, strerror(report.error));
	return true;
}
