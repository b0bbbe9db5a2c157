/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions of a supervisor that has no descriptor left. */
#include <sys/resource.h>

#include "tests/unit/session_rig.h"

/* So many descriptors are left to this process; fill gets the others.  Returns the limit that
 * was. */
static struct rlimit
leave_fds(int fill[64], size_t nr)
{
	struct rlimit old, low;
	size_t n = 0;

	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = 64;
	setrlimit(RLIMIT_NOFILE, &low);
	while (n < 64 && (fill[n] = dup(0)) >= 0)
		n++;
	for (size_t i = n; i < 64; i++)
		fill[i] = -1;
	while (nr-- > 0)
		fd_closep(&fill[--n]);
	return old;
}

/* It goes to the next worker, which can be told of it but not be given its connection: that
 * worker has to be told that it is over, too. */
static void
test_connection_without_descriptors(void)
{
	struct life life = life_open(0, "h2");
	struct ipc_msg msg = {.type = IPC_SESSION_CONNECTED}, ping = {.type = IPC_PING};
	struct rlimit old;
	struct rig_worker *next;
	int fill[64];

	life_connect(&life, false);
	msg.session_connected.session = life.number;
	is_int(rig_say(life.worker, &msg, &life.connection), 0, "the VMM has connected");
	next = rig_worker_start(2);
	ev_io_stop(rig.sup.loop, &next->far.reader);
	while (next->child.ep.queued == 0)
		if (endpoint_send(&next->child.ep, &ping, NULL, 0) < 0)
			abort();
	fleet_next_child = &next->child;
	endpoint_close(&life.worker->far);
	endpoint_close(&life.worker->child.ep);
	old = leave_fds(fill, 3);
	sessions_on_child_gone(&rig.sup.sessions, &life.worker->child, "killed by SIGKILL");
	setrlimit(RLIMIT_NOFILE, &old);
	fd_close_all(fill, 64);
	is_int(life.session->state, SESSION_CLOSING, "it is taken back");
	ok(strstr(life.session->reason, "no descriptor left") != NULL, "and why: %s",
	    life.session->reason);
	is_int(next->child.ep.queued, 3, "the worker is told of it and then of its end");
	endpoint_close(&next->far);
	endpoint_close(&next->child.ep);
	sessions_on_child_gone(&rig.sup.sessions, &next->child, "killed by SIGKILL");
	rig_sweep();
	ok(!session_is_live(life.session) && holds_nothing(life.session), "it ends with it");
	life_drop(&life);
}

/* Its VMM waits in the socket, which is readable all the time. */
static void
test_accept_without_descriptors(void)
{
	struct life life = life_open(0, "h3");
	struct rlimit old;
	int fill[64];

	life.worker->child.sandbox |= IPC_CAN_BE_CONNECTED;
	session_accept_watch(life.session);
	life.client = connect_to(life.session->socket_path);
	ok(life.client >= 0, "a VMM connects");
	old = leave_fds(fill, 0);
	for (unsigned int i = 0; i < 20; i++)
		ev_run(rig.sup.loop, EVRUN_NOWAIT);
	ok(life.session->connection < 0, "and cannot be accepted");
	ok(!ev_is_active(&life.session->accepting) && ev_is_active(&life.session->accept_again),
	    "nobody spins on it");
	session_accept_watch(life.session);
	ok(!ev_is_active(&life.session->accepting), "whatever happens meanwhile");
	setrlimit(RLIMIT_NOFILE, &old);
	fd_close_all(fill, 64);
	wait_for(life.session->connection >= 0);
	ok(!life.session->accept_failed, "then it is");
	struct far_message m = rig_take(life.worker, IPC_SESSION_CONNECT);
	fd_close_all(m.fds, IPC_MAX_FDS);

	session_close(life.session, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(&life);
	life_drop(&life);
}

/* A worker has the socket, too. */
static void
test_socket_shut_down(void)
{
	struct life life = life_open(0, "h4");

	life.worker->child.sandbox |= IPC_CAN_BE_CONNECTED;
	session_accept_watch(life.session);
	ok(shutdown(life.listener, SHUT_RDWR) == 0, "a worker shuts the socket down");
	for (unsigned int i = 0; i < 20; i++)
		ev_run(rig.sup.loop, EVRUN_NOWAIT);
	ok(!ev_is_active(&life.session->accepting), "nobody spins on it");
	session_close(life.session, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(&life);
	life_drop(&life);
}

int
main(void)
{
	if (geteuid() != 0) {
		skip(1, "needs root: makes userfaultfds");
		return done();
	}
	log_init("test_session_nofile", LOG_LEVEL_ERR);
	rig_start();
	test_accept_without_descriptors();
	test_socket_shut_down();
	test_connection_without_descriptors();
	rig_stop();
	return done();
}
