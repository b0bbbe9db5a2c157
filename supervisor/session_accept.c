/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's connection.  It is accepted here and passed on: a worker that accepted it and died
 * before it could hand us a duplicate would take it along, and the VMM would not come again.
 *
 * A worker that cannot be given a connection at any time (ipc_ability) accepts by itself, once
 * it knows of the session, and says SESSION_CONNECTED. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "supervisor/child.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

/* When we are short of descriptors or memory: the connection waits in its socket. */
#define AGAIN_S 0.2

static bool
is_ours_to_accept(const struct session *session)
{
	return session->state == SESSION_CREATED && session->listener >= 0 &&
	    session->connection < 0 &&
	    (!session->sent || session->child == NULL ||
		(session->child->sandbox & IPC_CAN_BE_CONNECTED) != 0);
}

/* What waits in the socket keeps it readable: to go on polling it would be to spin.  So does a
 * worker that has shut it down, and then there is never anything in it. */
static void
try_again_later(struct session *session, int error)
{
	if (!session->accept_failed && error != EAGAIN)
		session_log(session, LOG_LEVEL_WARNING,
		    "its VMM cannot be passed on now: %s; tried again until it can",
		    strerror(error));
	session->accept_failed |= error != EAGAIN;
	ev_io_stop(session->sup->loop, &session->accepting);
	ev_timer_stop(session->sup->loop, &session->accept_again);
	ev_timer_set(&session->accept_again, AGAIN_S, 0.);
	ev_timer_start(session->sup->loop, &session->accept_again);
}

static void
pass_on(struct session *session)
{
	int r = session->sent ? session_send_connect(session) : 0;

	if (session_lacks_resources(r))
		try_again_later(session, -r);
	else
		session->accept_failed = false;
}

static void
on_knock(struct ev_loop *loop, ev_io *w, int revents)
{
	struct session *session = w->data;
	int fd = accept4(session->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int met;

	(void)loop;
	(void)revents;
	if (fd < 0) {
		if (errno != EINTR)
			try_again_later(session, errno);
		return;
	}
	session->connection = fd;
	session_accept_watch(session);
	met = session_meet_vmm(session, fd);
	if (met == -EPERM)
		return; /* closed */
	/* Before anything else: until then it is lost if we are killed. */
	pass_on(session);
	session_log(session, LOG_LEVEL_DEBUG, "VMM pid=%d has connected", (int)session->vmm_pid);
	session_watch_vmm(session, met);
}

static void
on_again(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct session *session = w->data;

	(void)loop;
	(void)revents;
	if (session->state == SESSION_CREATED && session->connection >= 0)
		pass_on(session);
	else
		session_accept_watch(session);
}

void
session_accept_init(struct session *session)
{
	ev_init(&session->accepting, on_knock);
	session->accepting.data = session;
	ev_timer_init(&session->accept_again, on_again, 0., 0.);
	session->accept_again.data = session;
}

void
session_accept_watch(struct session *session)
{
	struct ev_loop *loop = session->sup->loop;

	if (!is_ours_to_accept(session)) {
		ev_io_stop(loop, &session->accepting);
		return;
	}
	if (ev_is_active(&session->accepting) || ev_is_active(&session->accept_again))
		return;
	ev_io_set(&session->accepting, session->listener, EV_READ);
	ev_io_start(loop, &session->accepting);
}

void
session_accept_stop(struct session *session)
{
	ev_io_stop(session->sup->loop, &session->accepting);
	ev_timer_stop(session->sup->loop, &session->accept_again);
}
