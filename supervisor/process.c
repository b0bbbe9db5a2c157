/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/process.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"

int
process_reset_signals(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL); /* some cannot be set, and need not */
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

int
process_fork(pid_t *ret_pid)
{
	sigset_t all, before;

	/* A handler of ours must not run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid_t pid = fork();
	int error = errno;
	if (pid == 0)
		return 1;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return -error;
	if (ret_pid != NULL)
		*ret_pid = pid;
	return 0;
}

int
process_fork_watched(int *spare, int *ret_pidfd)
{
	pid_t pid = -1;
	int r = process_fork(&pid);

	if (r != 0)
		return r;
	/* The process is our child and not reaped: its id is still its own. */
	fd_closep(spare);
	*ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*ret_pidfd >= 0)
		return 0;
	r = -errno;
	kill(pid, SIGKILL);
	return r;
}

void
process_reap(int pidfd)
{
	siginfo_t info;

	(void)waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
}

void
process_kill(int pidfd)
{
	(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}
