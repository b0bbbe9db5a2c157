/* SPDX-License-Identifier: Apache-2.0 */
/* A worker without a supervisor, and with the next one: sessions that wait for their VMM,
 * on a real rendezvous socket. */
#include "worker/rejoin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/session_vmm.h"

#define MANY	    600U
#define IMAGE_BYTES 65536U

static struct pager pager;
static char dir[64], rendezvous_path[96];
static int image_fd, words[2];

/* The supervisor's end, and what it has heard. */
static struct {
	struct endpoint ep;
	unsigned nr[32]; /* messages, by code */
	uint32_t hello_sessions, end_sessions, ended_as;
	uint64_t last;
	int fds[IPC_MAX_FDS]; /* owned; of the last SESSION_HELD_… */
	char reason[256];
	bool is_down;
} far;

static void
on_far(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
{
	(void)ep;
	far.nr[msg->type]++;
	switch (msg->type) {
	case IPC_HELLO:
		far.hello_sessions = msg->hello.sessions;
		break;
	case IPC_INVENTORY_END:
		far.end_sessions = msg->inventory_end.sessions;
		break;
	case IPC_SESSION_ENDED:
		far.last = msg->session_ended.session;
		far.ended_as = msg->session_ended.outcome;
		snprintf(far.reason, sizeof(far.reason), "%s", msg->session_ended.reason);
		break;
	case IPC_SESSION_HELD_WAITING:
	case IPC_SESSION_HELD_CONNECTED:
		far.last = msg->session_held_waiting.session;
		fd_close_all(far.fds, IPC_MAX_FDS);
		for (size_t i = 0; i < ipc_type_fds(msg->type); i++)
			far.fds[i] = fd_take(&fds[i]);
		break;
	default:
		break;
	}
}

static void
on_far_down(struct endpoint *ep, int error, enum ipc_error fault)
{
	(void)ep;
	(void)error;
	(void)fault;
	far.is_down = true;
}

static const struct endpoint_ops far_ops = {on_far, on_far_down};

#define wait_for(cond) rig_until((ev_run(pager.loop, EVRUN_NOWAIT), (cond)))

static void
turns(unsigned n)
{
	while (n-- > 0)
		ev_run(pager.loop, EVRUN_NOWAIT);
}

static void
far_begin(int fd)
{
	memset(&far, 0, sizeof(far));
	for (size_t i = 0; i < IPC_MAX_FDS; i++)
		far.fds[i] = -1;
	endpoint_init(&far.ep, pager.loop, fd, IPC_WORKER, &far_ops, NULL);
}

static void
far_leave(void)
{
	endpoint_close(&far.ep);
	fd_close_all(far.fds, IPC_MAX_FDS);
	wait_for(pager.rejoin.lost_ns != 0);
}

static int
socket_at(const char *path, int type, bool listens)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 ||
	    (listens ? bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 16) < 0
		     : connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0))
		abort();
	return fd;
}

/* The next supervisor, with or without waiting until it is heard. */
static void
far_knock(void)
{
	far_begin(socket_at(rendezvous_path, SOCK_SEQPACKET, false));
	wait_for(far.nr[IPC_HELLO] == 1);
}

static void
far_ask(uint32_t seq)
{
	struct ipc_msg msg = {.type = IPC_INVENTORY};

	msg.inventory.seq = seq;
	if (endpoint_send(&far.ep, &msg, &words[1], 1) < 0)
		abort();
	wait_for(far.nr[IPC_INVENTORY_END] == 1);
}

static void
session_path(char path[96], uint64_t number)
{
	snprintf(path, 96, "%s/%u", dir, (unsigned)number);
}

static void
open_waiting(uint64_t number)
{
	struct ipc_session_open msg = {.session = number,
	    .name = "s",
	    .image_bytes = IMAGE_BYTES,
	    .cluster_min_bytes = 4096,
	    .cluster_max_bytes = 4096};
	char path[96];
	int fds[3] = {-1, fd_dup(image_fd), -1};

	session_path(path, number);
	fds[0] = socket_at(path, SOCK_STREAM, true);
	if (pagemap_create(IMAGE_BYTES, &fds[2]) < 0 || session_open(&pager, &msg, fds) < 0)
		abort();
	fd_close_all(fds, 3);
}

static void
close_all(void)
{
	char path[96];

	while (!list_is_empty(&pager.sessions)) {
		struct session *s = list_entry(pager.sessions.next, struct session, link);
		uint64_t number = s->number; /* it is freed while we wait */

		session_path(path, number);
		unlink(path);
		session_close(s, 0);
		wait_for(session_find(&pager, number) == NULL);
	}
}

static void
begin(void)
{
	int pair[2];

	snprintf(dir, sizeof(dir), "/tmp/test_rejoin.XXXXXX");
	if (mkdtemp(dir) == NULL || pipe2(words, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	snprintf(rendezvous_path, sizeof(rendezvous_path), "%s/r", dir);
	image_fd = rig_file(NULL, IMAGE_BYTES / RIG_PAGE);
	pager_init(&pager);
	pager.rendezvous = socket_at(rendezvous_path, SOCK_SEQPACKET, true);
	endpoint_init(&pager.link, pager.loop, pair[0], IPC_SUPERVISOR, &pager_link_ops, &pager);
	ev_prepare_start(pager.loop, &pager.sweep);
	rejoin_start(&pager, pair[0]);
	far_begin(pair[1]);
}

static void
end(void)
{
	close_all();
	endpoint_close(&far.ep);
	fd_close_all(far.fds, IPC_MAX_FDS);
	pager_fini(&pager);
	fd_close_all(words, 2);
	fd_closep(&image_fd);
	unlink(rendezvous_path);
	ok(rmdir(dir) == 0, "nothing is left behind");
}

/* A VMM that comes while nobody is there waits, and is heard afterwards. */
static void
test_waiting(void)
{
	char path[96];

	open_waiting(7);
	far_leave();
	session_path(path, 7);
	int vmm = socket_at(path, SOCK_STREAM, false);
	turns(20);
	struct session *s = session_find(&pager, 7);
	is_int(s->state, SESSION_LISTENING, "without a supervisor nobody is let in");
	is_int(pager.exit_code, 0, "the worker stays");
	far_knock();
	is_int(far.hello_sessions, 1, "HELLO says how many sessions there are");
	turns(20);
	is_int(s->state, SESSION_LISTENING, "nor before it has asked");
	far_ask(41);
	is_int(far.nr[IPC_SESSION_HELD_WAITING], 1, "it is told of");
	ok(far.last == 7 && far.end_sessions == 1, "by number, and counted");
	ok(fcntl(far.fds[0], F_GETFD) >= 0 && fcntl(far.fds[2], F_GET_SEALS) > 0,
	    "with its descriptors");
	wait_for(far.nr[IPC_SESSION_CONNECTED] == 1);
	is_int(s->state, SESSION_HANDSHAKE, "then its VMM is let in");
	far_leave();
	far_knock();
	far_ask(42);
	is_int(far.nr[IPC_SESSION_HELD_CONNECTED], 1, "the next is told of a connection");
	is_int(send(vmm, "{}", 2, MSG_NOSIGNAL), 2, "which goes on");
	wait_for(far.nr[IPC_SESSION_REFUSED] == 1);
	wait_for(session_find(&pager, 7) == NULL);
	unlink(path);
	fd_closep(&vmm);
}

/* What ends without a supervisor is told to the next, and again until one could read it. */
static void
test_ended(void)
{
	char path[96];

	open_waiting(1);
	open_waiting(8);
	session_path(path, 8);
	int vmm = socket_at(path, SOCK_STREAM, false);
	wait_for(far.nr[IPC_SESSION_CONNECTED] == 1);
	is_int(send(vmm, "{}", 2, MSG_NOSIGNAL), 2, "a VMM says nonsense");
	wait_for(session_find(&pager, 8)->refused);
	endpoint_close(&far.ep);
	wait_for(session_find(&pager, 8) == NULL);
	wait_for(pager.rejoin.lost_ns != 0);
	for (uint32_t i = 0; i < 2; i++) {
		far_knock();
		is_int(far.hello_sessions, 1, "one session is left");
		far_ask(50 + i);
		is_int(far.nr[IPC_SESSION_ENDED], 1, "how the other ended is told");
		ok(far.last == 8 && far.ended_as == IPC_ENDED_REFUSED && far.reason[0] != '\0',
		    "and why: %s", far.reason);
		is_int(far.nr[IPC_SESSION_REFUSED], 0, "instead of the event");
		far_leave();
	}
	is_int(pager.rejoin.nr_untold, 0, "nothing is untold");
	ok(!rejoin_may_exit(&pager), "but perhaps unread");
	pager.rejoin.lost_ns -= 6 * NS_PER_S;
	ok(rejoin_may_exit(&pager), "then nothing keeps a worker");
	unlink(path);
	fd_closep(&vmm);
	far_knock();
	far_ask(52);
	open_waiting(8);
	far_leave();
	far_knock();
	far_ask(53);
	is_int(far.nr[IPC_SESSION_ENDED], 0, "what came back has not ended");
	is_int(far.end_sessions, 2, "it is held");
}

static void
test_untold(void)
{
	open_waiting(1);
	open_waiting(3);
	far_leave();
	session_give_up(session_find(&pager, 3));
	wait_for(session_find(&pager, 3) == NULL);
	ok(!rejoin_may_exit(&pager), "what nobody was told keeps the worker");
	pager.rejoin.lost_ns -= 61 * NS_PER_S;
	ok(rejoin_may_exit(&pager), "for a minute");
	far_knock();
	far_ask(60);
	is_int(far.ended_as, IPC_ENDED_GONE, "a VMM that exited");
	char path[96];
	session_path(path, 3);
	unlink(path);
}

/* More than fits into the link at a time; and a supervisor that takes over from one that
 * is there. */
static void
test_many(void)
{
	for (uint64_t i = 1; i <= MANY; i++)
		open_waiting(i);
	struct endpoint first = far.ep;
	ok(endpoint_is_open(&first), "there is a supervisor");
	int fd = socket_at(rendezvous_path, SOCK_SEQPACKET, false);
	endpoint_close(&far.ep);
	far_begin(fd);
	wait_for(far.nr[IPC_HELLO] == 1);
	is_int(far.hello_sessions, MANY, "another takes its place");
	far_ask(70);
	is_int(far.nr[IPC_SESSION_HELD_WAITING], MANY, "each session is told once");
	is_int(far.end_sessions, MANY, "and counted");
	close_all();
	ok(pager.rejoin.nr_endings <= 256, "of many that ended the last are remembered: %u",
	    pager.rejoin.nr_endings);
}

static void
test_draining(void)
{
	open_waiting(2);
	pager.draining = true;
	far_leave();
	far_knock();
	ok(!pager.draining, "the next supervisor says whom it wants to drain");
	far_ask(80);
}

/* Every descriptor below the limit is taken.  Returns the limit that was. */
static struct rlimit
take_fds(void)
{
	struct rlimit old, low;
	int next = fd_dup(STDIN_FILENO);

	if (next < 0 || getrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	low = old;
	low.rlim_cur = (rlim_t)next;
	fd_closep(&next);
	if (setrlimit(RLIMIT_NOFILE, &low) < 0)
		abort();
	return old;
}

/* Who connects stays in the backlog, so the socket is readable all the time. */
static void
test_no_descriptors(void)
{
	char path[96];
	struct rlimit old;
	int vmm, knock;

	open_waiting(5);
	session_path(path, 5);
	struct session *s = session_find(&pager, 5);
	vmm = socket_at(path, SOCK_STREAM, false);
	old = take_fds();
	turns(20);
	is_int(s->state, SESSION_LISTENING, "a worker without descriptors lets no VMM in");
	ok(!ev_is_active(&s->accepting.io) && ev_is_active(&s->accepting.again),
	    "and does not spin on it");
	session_vmm_accept(s);
	ok(!ev_is_active(&s->accepting.io), "whatever happens meanwhile");
	setrlimit(RLIMIT_NOFILE, &old);
	wait_for(far.nr[IPC_SESSION_CONNECTED] == 1);
	ok(ev_is_active(&s->accepting.io), "then it listens again");

	far_leave();
	knock = socket_at(rendezvous_path, SOCK_SEQPACKET, false);
	old = take_fds();
	turns(20);
	ok(!ev_is_active(&pager.rejoin.knocking.io) && !endpoint_is_open(&pager.link),
	    "nor does it spin on a supervisor that it cannot let in");
	setrlimit(RLIMIT_NOFILE, &old);
	far_begin(knock);
	wait_for(far.nr[IPC_HELLO] == 1);
	far_ask(90);
	is_int(far.nr[IPC_SESSION_HELD_CONNECTED], 1, "which it lets in later");
	fd_closep(&vmm);
	unlink(path);
}

int
main(void)
{
	static void (*const tests[])(void) = {
	    test_waiting, test_ended, test_untold, test_many, test_draining, test_no_descriptors};
	int old = fd_dup(STDERR_FILENO);

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		begin();
		tests[i]();
		end();
		dup2(old, STDERR_FILENO); /* the worker has put a pipe in its place */
	}
	return done();
}
