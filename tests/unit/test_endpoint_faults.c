/* SPDX-License-Identifier: Apache-2.0 */
/* An endpoint whose peer breaks the rules or dies, or whose process has no descriptors. */
#include "ipc/endpoint.h"

#include <sys/resource.h>

#include "common/fault.h"
#include "tests/unit/side.h"
#include "tests/unit/tap.h"

/* One datagram that breaks a rule, behind a good one. */
static void
expect_fault(const void *data, size_t bytes, size_t nr_fds, enum ipc_error want, const char *what)
{
	struct side supervisor;
	int bare = make_bare(&supervisor);
	int fds[16];

	for (size_t i = 0; i < nr_fds; i++)
		fds[i] = bare;
	send_pong(bare, 1);
	send_raw(bare, data, bytes, fds, nr_fds);
	send_pong(bare, 2);
	turn(5);
	is_int(supervisor.messages, 1, "%s: what came before is delivered, nothing after", what);
	is_int(supervisor.downs, 1, "%s: the link is down", what);
	is_int(supervisor.error, 0, "%s: without an errno", what);
	is_int(supervisor.fault, want, "%s: for breaking the rule", what);
	ok(!endpoint_is_open(&supervisor.ep), "%s: closed", what);
	close(bare);
}

static void
test_faults(void)
{
	static const unsigned char pong[] = {0x93, IPC_PONG, 1, 0};
	static const unsigned char ping[] = {0x92, IPC_PING, 1};
	static const unsigned char short_pong[] = {0x92, IPC_PONG, 1};
	static const unsigned char unknown[] = {0x92, 99, 1};
	static const unsigned char bomb[] = {0xdd, 0x0f, 0xff, 0xff, 0xff};
	static const unsigned char field[] = {0x93, IPC_PONG, 1, 0xa0};
	static unsigned char big[IPC_MAX_FRAME_BYTES + 1] = {0x93, IPC_PONG, 1, 0};

	expect_fault(bomb, sizeof(bomb), 0, IPC_E_ENCODING, "a bomb");
	expect_fault("garbage", 7, 0, IPC_E_ENCODING, "garbage");
	expect_fault(unknown, sizeof(unknown), 0, IPC_E_CODE, "an unknown code");
	expect_fault(ping, sizeof(ping), 0, IPC_E_SENDER, "the wrong direction");
	expect_fault(pong, sizeof(pong), 1, IPC_E_FDS, "a descriptor nobody wants");
	expect_fault(pong, sizeof(pong), 4, IPC_E_FDS, "four of them");
	expect_fault(pong, sizeof(pong), 5, IPC_E_TRUNCATED, "more descriptors than fit");
	expect_fault(pong, sizeof(pong), 16, IPC_E_TRUNCATED, "many more");
	expect_fault(big, sizeof(big), 0, IPC_E_TRUNCATED, "a frame too long");
	expect_fault(big, sizeof(big), 2, IPC_E_TRUNCATED, "a frame too long with descriptors");
	expect_fault("", 0, 2, IPC_E_ENCODING, "descriptors alone");
	expect_fault(short_pong, sizeof(short_pong), 0, IPC_E_COUNT, "a field missing");
	expect_fault(field, sizeof(field), 0, IPC_E_FIELD, "a field of the wrong type");
}

static void
test_peer_death(void)
{
	struct side supervisor;
	int bare = make_bare(&supervisor);

	is_int(send_ping(&supervisor, 1), 0, "a frame that the peer will never read");
	for (uint32_t seq = 1; seq <= 3; seq++)
		send_pong(bare, seq);
	close(bare);
	turn(5);
	is_int(supervisor.messages, 3, "its last words arrive though ours were lost");
	is_int(supervisor.downs, 1, "then the link is down");
	is_int(supervisor.error, 0, "at the end of file");

	bare = make_bare(&supervisor);
	for (uint32_t seq = 1; seq <= 100; seq++)
		send_pong(bare, seq);
	close(bare);
	is_int(send_ping(&supervisor, 1), -EPIPE, "a send to a dead peer fails");
	is_int(supervisor.downs, 0, "on_down is not called from inside the send");
	is_int(send_ping(&supervisor, 2), -ENOTCONN, "the next is not even tried");
	turn(5);
	is_int(supervisor.messages, 100, "all its last words arrive");
	is_int(supervisor.downs, 1, "on_down is called once");
	is_int(supervisor.error, -EPIPE, "with the error of the send");
	ok(!supervisor.reentered, "and never from inside another call");

	bare = make_bare(&supervisor);
	supervisor.reply_from_handler = true; /* a supervisor must not send PONG */
	send_pong(bare, 1);
	close(bare);
	turn(5);
	is_int(supervisor.reply, -EINVAL, "a refused send in a handler");
	is_int(supervisor.downs, 1, "changes nothing");
}

static void
test_send_fails_in_handler(void)
{
	struct side worker;
	int fds[2];
	static const unsigned char ping[] = {0x92, IPC_PING, 1};

	make_pair(fds);
	side_init(&worker, fds[1], IPC_SUPERVISOR);
	worker.reply_from_handler = true;
	send_raw(fds[0], ping, sizeof(ping), NULL, 0);
	send_raw(fds[0], ping, sizeof(ping), NULL, 0);
	close(fds[0]);
	turn(5);
	is_int(worker.messages, 2, "both frames are delivered");
	is_int(worker.reply, -ENOTCONN, "answers fail");
	is_int(worker.downs, 1, "the link is down once");
	ok(!worker.reentered, "and not inside the send");
}

static void
test_injected_fault(void)
{
	struct side supervisor;
	int bare = make_bare(&supervisor);

	setenv("PAGER_FAULT", "LINK_SEND:2", 1);
	is_int(fault_init(), 0, "the fault point is armed");
	is_int(send_ping(&supervisor, 1), 0, "the first send works");
	is_int(send_ping(&supervisor, 2), -EIO, "the second fails");
	unsetenv("PAGER_FAULT");
	fault_init();
	turn(5);
	is_int(supervisor.downs, 1, "and the link is down");
	is_int(supervisor.error, -EIO, "for that reason");
	close(bare);
}

/* The socket has room, so nothing but the time says when to try again. */
static void
test_no_memory(void)
{
	struct side supervisor, worker;

	make_sides(&supervisor, &worker);
	setenv("PAGER_FAULT", "LINK_MEMORY:1", 1);
	fault_init();
	is_int(send_ping(&supervisor, 1), 0, "a send that the kernel has no memory for");
	is_int(supervisor.ep.queued, 1, "waits");
	setenv("PAGER_FAULT", "LINK_MEMORY:1", 1);
	fault_init();
	turn(3);
	is_int(supervisor.ep.queued, 1, "and so does it at the next try");
	ok(!ev_is_active(&supervisor.ep.writer), "the writer does not spin meanwhile");
	is_int(send_ping(&supervisor, 2), 0, "what follows waits behind it");
	ok(!ev_is_active(&supervisor.ep.writer), "without another try");
	unsetenv("PAGER_FAULT");
	fault_init();
	while (supervisor.ep.queued > 0 && endpoint_is_open(&supervisor.ep))
		ev_run(loop, EVRUN_ONCE);
	turn(5);
	is_int(worker.messages, 2, "then both arrive");
	ok(worker.in_order, "in order");
	endpoint_close(&supervisor.ep);
	endpoint_close(&worker.ep);
}

/* A process without descriptors must not blame its peer. */
static void
test_no_descriptors(void)
{
	struct side supervisor, worker;
	struct rlimit old, low;
	int fds[3];
	ino_t inodes[3];

	make_sides(&supervisor, &worker);
	make_three(fds, inodes);
	is_int(send_open(&supervisor, 1, fds), 0, "a message with descriptors is under way");
	if (getrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	low = old;
	low.rlim_cur = (rlim_t)fds[2] + 1; /* every number below is taken */
	if (setrlimit(RLIMIT_NOFILE, &low) < 0)
		abort();
	turn(5);
	if (setrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	is_int(worker.messages, 0, "it cannot be taken in");
	is_int(worker.downs, 1, "so the link is down");
	is_int(worker.error, -EMFILE, "for lack of descriptors");
	is_int(worker.fault, IPC_OK, "which is not the peer's fault");
	turn(5);
	endpoint_close(&supervisor.ep);
	fd_close_all(fds, 3);
}

static void
test_queue_without_descriptors(void)
{
	struct side supervisor, worker;
	struct rlimit old, low;
	int fds[3];
	ino_t inodes[3];

	make_sides(&supervisor, &worker);
	ev_io_stop(loop, &worker.ep.reader);
	make_three(fds, inodes);
	for (uint32_t seq = 1; supervisor.ep.queued == 0; seq++)
		if (send_ping(&supervisor, seq) < 0)
			abort();
	if (getrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	low = old;
	low.rlim_cur = (rlim_t)fds[2] + 2; /* one more, of the three that are needed */
	if (setrlimit(RLIMIT_NOFILE, &low) < 0)
		abort();
	int r = send_open(&supervisor, 9, fds);
	if (setrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	is_int(r, -EMFILE, "descriptors that cannot be queued are refused");
	is_int(supervisor.ep.queued, 1, "nothing is queued");
	ok(endpoint_is_open(&supervisor.ep), "and the link stays");
	endpoint_close(&supervisor.ep);
	endpoint_close(&worker.ep);
	fd_close_all(fds, 3);
}

int
main(void)
{
	static void (*const tests[])(void) = {
	    test_faults,
	    test_peer_death,
	    test_send_fails_in_handler,
	    test_injected_fault,
	    test_no_memory,
	    test_no_descriptors,
	    test_queue_without_descriptors,
	};

	run_tests(tests, sizeof(tests) / sizeof(*tests));
	return done();
}
