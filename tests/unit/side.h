/* SPDX-License-Identifier: Apache-2.0 */
/* For the endpoint tests: a supervisor's end and a worker's end in one loop, or one end
 * against a bare socket that breaks the rules. */
#ifndef TESTS_UNIT_SIDE_H
#define TESTS_UNIT_SIDE_H

#include "ipc/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/unit/tap.h"

/* An endpoint and what happened to it. */
struct side {
	struct endpoint ep;
	unsigned messages;
	uint32_t last_seq;
	bool in_order; /* each seq was one more than the last */
	enum ipc_type last_type;
	ino_t inodes[64]; /* of the descriptors received, in order */
	unsigned nr_inodes;
	bool cloexec; /* all of them were close-on-exec */
	unsigned downs;
	int error;
	enum ipc_error fault;
	bool busy;	      /* a test is inside a call on the endpoint */
	bool reentered;	      /* on_down while it was */
	unsigned close_after; /* close the endpoint in this message's handler; 0: never */
	int reply;	      /* what a send in the handler returned */
	bool reply_from_handler;
	struct endpoint *freed; /* free this in on_down */
};

static struct ev_loop *loop;

static inline void
on_message(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
{
	struct side *side = ep->owner;
	struct stat st;

	side->in_order = side->messages == 0 || (side->in_order && msg->seq == side->last_seq + 1);
	side->messages++;
	side->last_seq = msg->seq;
	side->last_type = msg->type;
	for (size_t i = 0; i < ipc_type_fds(msg->type); i++) {
		side->cloexec &= (fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0;
		if (fstat(fds[i], &st) == 0 && side->nr_inodes < 64)
			side->inodes[side->nr_inodes++] = st.st_ino;
	}
	if (side->reply_from_handler) {
		struct ipc_msg pong = {.type = IPC_PONG, .pong = {.seq = msg->seq}};

		side->busy = true;
		side->reply = endpoint_send(ep, &pong, NULL, 0);
		side->busy = false;
	}
	if (side->close_after && side->messages == side->close_after)
		endpoint_close(ep);
}

static inline void
on_down(struct endpoint *ep, int error, enum ipc_error fault)
{
	struct side *side = ep->owner;

	side->downs++;
	side->error = error;
	side->fault = fault;
	side->reentered |= side->busy;
	free(side->freed);
}

static const struct endpoint_ops ops = {on_message, on_down};

static inline void
side_init(struct side *side, int fd, enum ipc_role peer)
{
	*side = (struct side){.cloexec = true};
	endpoint_init(&side->ep, loop, fd, peer, &ops, side);
}

static inline void
make_pair(int fds[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		abort();
}

/* Both ends as endpoints. */
static inline void
make_sides(struct side *supervisor, struct side *worker)
{
	int fds[2];

	make_pair(fds);
	side_init(supervisor, fds[0], IPC_WORKER);
	side_init(worker, fds[1], IPC_SUPERVISOR);
}

/* A supervisor's end, and the worker's end as a bare socket. */
static inline int
make_bare(struct side *supervisor)
{
	int fds[2];

	make_pair(fds);
	side_init(supervisor, fds[0], IPC_WORKER);
	return fds[1];
}

/* AF_UNIX sockets are ready at once, so a few turns show all that will happen. */
static inline void
turn(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

static inline int
send_ping(struct side *side, uint32_t seq)
{
	struct ipc_msg msg = {.type = IPC_PING, .ping = {.seq = seq}};

	side->busy = true;
	int r = endpoint_send(&side->ep, &msg, NULL, 0);
	side->busy = false;
	return r;
}

static inline int
send_open(struct side *side, uint32_t seq, const int fds[3])
{
	struct ipc_msg msg = {.type = IPC_SESSION_OPEN, .session_open = {.seq = seq, .session = 1}};

	return endpoint_send(&side->ep, &msg, fds, 3);
}

/* A datagram as a hostile peer makes it. */
static inline void
send_raw(int fd, const void *data, size_t bytes, const int *fds, size_t nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nr_fds) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	if (sendmsg(fd, &mh, MSG_DONTWAIT) != (ssize_t)bytes)
		abort();
}

static inline void
send_pong(int fd, uint32_t seq)
{
	struct ipc_msg msg = {.type = IPC_PONG, .pong = {.seq = seq}};
	unsigned char frame[64];

	send_raw(fd, frame, (size_t)ipc_encode(&msg, frame, sizeof(frame)), NULL, 0);
}

/* Three descriptors that can be told apart. */
static inline void
make_three(int fds[3], ino_t inodes[3])
{
	struct stat st;

	for (int i = 0; i < 3; i++) {
		fds[i] = memfd_create("three", MFD_CLOEXEC);
		if (fds[i] < 0 || fstat(fds[i], &st) < 0)
			abort();
		inodes[i] = st.st_ino;
	}
}

/* Runs each test; all must leave as many descriptors as they found. */
static inline void
run_tests(void (*const tests[])(void), size_t n)
{
	alarm(150); /* a loop that never turns is a failure */
	loop = ev_loop_new(EVFLAG_AUTO);
	if (!loop)
		abort();
	turn(1);
	for (size_t i = 0; i < n; i++) {
		int before = fd_count();

		tests[i]();
		turn(2);
		is_int(fd_count(), before, "test %zu leaks no descriptor", i);
	}
	ev_loop_destroy(loop);
}

#endif
