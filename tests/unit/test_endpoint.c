/* SPDX-License-Identifier: Apache-2.0 */
/* An endpoint between peers that keep the rules. */
#include "ipc/endpoint.h"

#include "tests/unit/side.h"
#include "tests/unit/tap.h"

static void
test_exchange(void)
{
	struct side supervisor, worker;

	make_sides(&supervisor, &worker);
	worker.reply_from_handler = true;
	is_int(send_ping(&supervisor, endpoint_next_seq(&supervisor.ep)), 0, "a ping is sent");
	is_int(send_ping(&supervisor, endpoint_next_seq(&supervisor.ep)), 0, "another");
	turn(5);
	is_int(worker.messages, 2, "both arrive");
	is_int(supervisor.messages, 2, "both are answered from the handler");
	is_int(supervisor.last_type, IPC_PONG, "by pongs");
	is_int(supervisor.last_seq, 2, "with the seq of the request");
	supervisor.ep.next_seq = UINT32_MAX;
	is_int(endpoint_next_seq(&supervisor.ep), 1, "a seq is never 0");

	struct ipc_msg msg = {.type = IPC_PONG};
	is_int(endpoint_send(&supervisor.ep, &msg, NULL, 0), -EINVAL, "not ours to send");
	msg.type = IPC_SESSION_OPEN;
	is_int(endpoint_send(&supervisor.ep, &msg, (int[]){0, 0}, 2), -EINVAL, "two of three fds");
	msg.type = (enum ipc_type)99;
	is_int(endpoint_send(&worker.ep, &msg, NULL, 0), -EINVAL, "no such message");
	ok(endpoint_is_open(&supervisor.ep) && endpoint_is_open(&worker.ep),
	    "the link is unharmed");

	endpoint_close(&supervisor.ep);
	ok(!endpoint_is_open(&supervisor.ep), "closed");
	is_int(send_ping(&supervisor, 3), -ENOTCONN, "nothing is sent on a closed one");
	endpoint_close(&supervisor.ep);
	turn(5);
	is_int(supervisor.downs, 0, "who closes is not told");
	is_int(worker.downs, 1, "the other end is told");
	is_int(worker.error, 0, "by an end of file");
	is_int(worker.fault, IPC_OK, "that broke no rule");
	ok(!endpoint_is_open(&worker.ep), "and is closed");

	struct endpoint zeroed = {0};
	endpoint_close(&zeroed);
	endpoint_drain(&zeroed);
	ok(!endpoint_is_open(&zeroed), "a zeroed endpoint is closed");
}

static void
test_descriptors(void)
{
	struct side supervisor, worker;
	int a[3], b[3];
	ino_t inodes[6];

	make_sides(&supervisor, &worker);
	make_three(a, inodes);
	make_three(b, inodes + 3);
	is_int(send_open(&supervisor, 1, a), 0, "a message with descriptors");
	is_int(send_ping(&supervisor, 2), 0, "one without");
	is_int(send_open(&supervisor, 3, b), 0, "one with others");
	fd_close_all(a, 3); /* the frames hold their own */
	fd_close_all(b, 3);
	turn(5);
	is_int(worker.messages, 3, "all arrive");
	ok(worker.in_order, "in order");
	is_int(worker.nr_inodes, 6, "six descriptors");
	ok(memcmp(inodes, worker.inodes, sizeof(inodes)) == 0, "each with its own frame");
	ok(worker.cloexec, "all of them close on exec");
	endpoint_close(&supervisor.ep);
	endpoint_close(&worker.ep);
}

static void
test_backpressure(void)
{
	struct side supervisor, worker;
	int fds[3], r = 0;
	ino_t inodes[3];
	uint32_t seq = 0;

	make_sides(&supervisor, &worker);
	ev_io_stop(loop, &worker.ep.reader); /* a peer that does not read */
	while (supervisor.ep.queued == 0 && seq < 100000 && r == 0)
		r = send_ping(&supervisor, ++seq);
	ok(r == 0 && seq > 1, "the socket is full after %u frames, the next is queued", seq - 1);
	make_three(fds, inodes);
	is_int(send_open(&supervisor, ++seq, fds), 0, "descriptors are queued too");
	fd_close_all(fds, 3);
	turn(5);
	is_int(supervisor.ep.queued, 2, "and stay there");
	endpoint_drain(&worker.ep);
	is_int(
	    send_ping(&supervisor, ++seq), 0, "there is room again, and the loop has not turned");
	is_int(supervisor.ep.queued, 3, "so a new frame waits behind the queue");
	while (r == 0 && seq < 100000)
		if ((r = send_ping(&supervisor, seq + 1)) == 0)
			seq++;
	is_int(r, -ENOBUFS, "the queue has an end");
	is_int(supervisor.ep.queued, IPC_QUEUE_MAX, "at its limit");
	ok(endpoint_is_open(&supervisor.ep), "which does not end the link");

	ev_io_start(loop, &worker.ep.reader);
	turn(1000);
	is_int(worker.messages, seq, "every accepted frame arrives");
	ok(worker.in_order, "in order");
	is_int(worker.nr_inodes, 3, "with the queued descriptors");
	ok(memcmp(inodes, worker.inodes, sizeof(inodes)) == 0, "of the right frame");
	is_int(supervisor.ep.queued, 0, "the queue is empty");
	ok(!ev_is_active(&supervisor.ep.writer), "and nobody waits for the socket");
	endpoint_close(&supervisor.ep);
	endpoint_close(&worker.ep);
}

static void
test_close_with_queue(void)
{
	struct side supervisor, worker;
	int fds[3], r = 0;
	ino_t inodes[3];

	make_sides(&supervisor, &worker);
	ev_io_stop(loop, &worker.ep.reader);
	make_three(fds, inodes);
	for (uint32_t seq = 1; r == 0 && supervisor.ep.queued < 10; seq++)
		r = send_open(&supervisor, seq, fds);
	is_int(r, 0, "ten frames with descriptors are queued");
	fd_close_all(fds, 3);
	endpoint_close(&supervisor.ep);
	is_int(supervisor.ep.queued, 0, "a close lets go of them");
	endpoint_close(&worker.ep);
}

static void
test_flood(void)
{
	struct side supervisor;
	int bare = make_bare(&supervisor);

	for (uint32_t seq = 1; seq <= 200; seq++)
		send_pong(bare, seq);
	turn(1);
	ok(supervisor.messages > 0 && supervisor.messages < 200,
	    "one turn takes %u of 200 frames: others get theirs", supervisor.messages);
	turn(50);
	is_int(supervisor.messages, 200, "the rest comes with the next turns");
	endpoint_close(&supervisor.ep);
	close(bare);
}

static void
test_close_in_handler(void)
{
	struct side supervisor;
	int bare = make_bare(&supervisor);

	supervisor.close_after = 2;
	for (uint32_t seq = 1; seq <= 5; seq++)
		send_pong(bare, seq);
	turn(5);
	is_int(supervisor.messages, 2, "nothing is delivered after a close in the handler");
	is_int(supervisor.downs, 0, "and on_down is not called");

	/* The same among the last words. */
	int other = make_bare(&supervisor);
	supervisor.close_after = 2;
	for (uint32_t seq = 1; seq <= 5; seq++)
		send_pong(other, seq);
	endpoint_fail(&supervisor.ep, -ETIMEDOUT);
	turn(5);
	is_int(supervisor.messages, 2, "nor after one among the last words");
	is_int(supervisor.downs, 0, "nor then");
	close(bare);
	close(other);
}

static void
test_fail_and_drain(void)
{
	struct side supervisor;
	int bare = make_bare(&supervisor);

	supervisor.busy = true;
	endpoint_fail(&supervisor.ep, -ETIMEDOUT);
	endpoint_fail(&supervisor.ep, -EIO);
	supervisor.busy = false;
	ok(!endpoint_is_open(&supervisor.ep), "given up");
	turn(5);
	is_int(supervisor.downs, 1, "on_down once");
	is_int(supervisor.error, -ETIMEDOUT, "with the first reason");
	ok(!supervisor.reentered, "from the loop");
	close(bare);

	bare = make_bare(&supervisor);
	for (uint32_t seq = 1; seq <= 100; seq++)
		send_pong(bare, seq);
	close(bare);
	supervisor.busy = true;
	endpoint_drain(&supervisor.ep);
	supervisor.busy = false;
	is_int(supervisor.messages, 100, "a drain delivers at once");
	is_int(supervisor.downs, 0, "but never on_down");
	endpoint_close(&supervisor.ep);
	turn(5);
	is_int(supervisor.downs, 0, "nor after a close");
}

static void
test_free_in_on_down(void)
{
	struct side side = {.cloexec = true};
	struct endpoint *ep = malloc(sizeof(*ep));
	int fds[2];

	make_pair(fds);
	endpoint_init(ep, loop, fds[0], IPC_WORKER, &ops, &side);
	side.freed = ep;
	close(fds[1]);
	turn(5);
	is_int(side.downs, 1, "an endpoint may be freed in on_down");
}

int
main(void)
{
	static void (*const tests[])(void) = {
	    test_exchange,
	    test_descriptors,
	    test_backpressure,
	    test_close_with_queue,
	    test_flood,
	    test_close_in_handler,
	    test_fail_and_drain,
	    test_free_in_on_down,
	};

	run_tests(tests, sizeof(tests) / sizeof(*tests));
	return done();
}
