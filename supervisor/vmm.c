/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/privs.h"
#include "supervisor/session.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

int
vmm_peer(int connection, struct vmm_peer *ret)
{
	struct ucred cred;
	socklen_t bytes = sizeof(cred);

	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) < 0)
		return -errno;
	ret->pid = cred.pid;
	ret->uid = cred.uid;
	return 0;
}

/* Without SO_PEERPIDFD: a process that reuses the pid since would be taken for the
 * VMM.  Its exit is then noticed late; nothing else depends on it. */
static int
pidfd_by_number(int connection, int *ret_pidfd)
{
	struct vmm_peer peer = {0};
	int r = vmm_peer(connection, &peer);

	if (r < 0)
		return r;
	if (peer.pid <= 0) /* it may live where our pids do not count */
		return -ENODATA;
	int fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	if (fd < 0)
		return -errno;
	*ret_pidfd = fd;
	return 0;
}

int
vmm_pidfd(int connection, int *ret_pidfd)
{
	int fd;
	socklen_t bytes = sizeof(fd);

	/* For a process that was reaped kernels before 6.16 say EINVAL or ESRCH. */
	if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &fd, &bytes) < 0)
		return errno == ESRCH ? -ESRCH : pidfd_by_number(connection, ret_pidfd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		int error = errno;

		fd_closep(&fd);
		return -error;
	}
	*ret_pidfd = fd;
	return 0;
}

bool
vmm_has_exited(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

int
vmm_kill(const struct session *session)
{
	scoped_priv enum priv held = priv_raise(PRIV_KILL);

	if (session->vmm_pidfd < 0)
		return -ESRCH;
	if (syscall(SYS_pidfd_send_signal, session->vmm_pidfd, SIGKILL, NULL, 0) < 0)
		return -errno;
	return 0;
}

static void
on_exited(struct ev_loop *loop, ev_io *watch, int revents)
{
	struct session *session = watch->data;

	(void)revents;
	ev_io_stop(loop, watch);
	session_vmm_exited(session);
}

void
vmm_watch_start(struct session *session)
{
	if (session->vmm_pidfd < 0)
		return;
	ev_io_init(&session->vmm_watch, on_exited, session->vmm_pidfd, EV_READ);
	session->vmm_watch.data = session;
	ev_io_start(session->sup->loop, &session->vmm_watch);
}

void
vmm_watch_stop(struct session *session)
{
	ev_io_stop(session->sup->loop, &session->vmm_watch);
}
