/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fault.h"
#include "common/fd.h"

/* Frames in one turn of the loop: a peer that floods its link gets its share only. */
#define READ_TURN  32
#define WRITE_TURN 32
/* Until a send is tried again that the kernel had no memory for. */
#define AGAIN_S 0.01
/* Frames read after the link has failed.  A socket's buffer holds fewer, so it bounds
 * only a peer that goes on sending. */
#define READ_LAST 16384

struct endpoint_frame {
	struct list link; /* endpoint.queue */
	size_t bytes;
	size_t nr_fds;
	int fds[IPC_MAX_FDS]; /* owned duplicates */
	unsigned char data[];
};

/* One received datagram. */
struct incoming {
	unsigned char data[IPC_MAX_FRAME_BYTES];
	size_t bytes;
	int fds[IPC_MAX_FDS]; /* owned; -1 beyond nr_fds */
	size_t nr_fds;
	int flags; /* msg_flags */
};

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(IPC_MAX_FDS * sizeof(int))];
};

static void
go_down(struct endpoint *ep, int error, enum ipc_error fault)
{
	if (ep->down_fault == IPC_OK)
		ep->down_fault = fault;
	if (ep->is_down)
		return;
	ep->is_down = true;
	ep->down_error = error;
	ev_io_stop(ep->loop, &ep->reader);
	ev_io_stop(ep->loop, &ep->writer);
	ev_timer_stop(ep->loop, &ep->again);
	ev_timer_start(ep->loop, &ep->down);
}

/* --- Receiving ------------------------------------------------------------------ */

static void
take_fds(struct incoming *in, struct msghdr *mh)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (in->nr_fds < IPC_MAX_FDS)
				in->fds[in->nr_fds++] = fd;
			else
				fd_closep(&fd);
		}
	}
}

/* One datagram.  1; 0 at the end of file; or a negative errno. */
static int
receive(int fd, struct incoming *in)
{
	union control control;
	struct iovec iov = {.iov_base = in->data, .iov_len = sizeof(in->data)};
	struct msghdr mh = {
	    .msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes),
	};
	ssize_t n;

	for (size_t i = 0; i < IPC_MAX_FDS; i++)
		in->fds[i] = -1;
	in->nr_fds = 0;
	/* ECONNRESET comes once, when the peer died with frames of ours unread, and before
	 * the frames that it had sent: those are still there. */
	do
		n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -errno;
	in->bytes = (size_t)n;
	in->flags = mh.msg_flags;
	take_fds(in, &mh);
	return n > 0 || in->nr_fds > 0;
}

static void
deliver(struct endpoint *ep, struct incoming *in)
{
	struct ipc_msg msg;

	if ((in->flags & MSG_CTRUNC) && in->nr_fds < IPC_MAX_FDS) {
		/* There was room for more: it is this process that has no descriptors left. */
		go_down(ep, -EMFILE, IPC_OK);
		return;
	}
	if (in->flags & (MSG_TRUNC | MSG_CTRUNC)) {
		go_down(ep, 0, IPC_E_TRUNCATED);
		return;
	}
	enum ipc_error fault = ipc_decode(&msg, in->data, in->bytes, ep->peer, in->nr_fds);
	if (fault != IPC_OK)
		go_down(ep, 0, fault);
	else
		ep->ops->on_message(ep, &msg, in->fds);
}

static void
read_frames(struct endpoint *ep, unsigned budget)
{
	struct incoming in;

	/* The handler may close the endpoint, and a frame may break a rule. */
	while (budget-- && ep->fd >= 0 && ep->down_fault == IPC_OK) {
		int r = receive(ep->fd, &in);

		if (r == -EAGAIN)
			return;
		if (r <= 0) {
			go_down(ep, r, IPC_OK);
			return;
		}
		deliver(ep, &in);
		fd_close_all(in.fds, IPC_MAX_FDS);
	}
}

/* --- Sending -------------------------------------------------------------------- */

static void
free_frame(struct endpoint_frame *frame)
{
	list_remove(&frame->link);
	fd_close_all(frame->fds, frame->nr_fds);
	free(frame);
}

static int
transmit(int fd, const void *data, size_t bytes, const int *fds, size_t nr_fds)
{
	union control control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fault(FAULT_LINK_SEND))
		return -EIO;
	if (fault(FAULT_LINK_MEMORY))
		return -ENOBUFS;
	if (nr_fds) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		struct cmsghdr *c = &control.align;
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	do
		n = sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* A send that the kernel may take later.  Short of memory is no reason to lose the
 * link, nor are descriptors of this user that wait in other sockets (ETOOMANYREFS). */
static bool
is_temporary(int error)
{
	return error == -EAGAIN || error == -ENOBUFS || error == -ENOMEM || error == -ETOOMANYREFS;
}

static int
enqueue(struct endpoint *ep, const void *data, size_t bytes, const int *fds, size_t nr_fds)
{
	if (ep->queued >= IPC_QUEUE_MAX)
		return -ENOBUFS;
	struct endpoint_frame *frame = malloc(sizeof(*frame) + bytes);
	if (!frame)
		return -ENOMEM;
	list_init(&frame->link);
	frame->bytes = bytes;
	memcpy(frame->data, data, bytes);
	for (frame->nr_fds = 0; frame->nr_fds < nr_fds; frame->nr_fds++) {
		int fd = fd_dup(fds[frame->nr_fds]);

		if (fd < 0) {
			free_frame(frame);
			return fd;
		}
		frame->fds[frame->nr_fds] = fd;
	}
	list_add(&ep->queue, &frame->link);
	ep->queued++;
	if (!ev_is_active(&ep->again))
		ev_io_start(ep->loop, &ep->writer);
	return 0;
}

int
endpoint_send(struct endpoint *ep, const struct ipc_msg *msg, const int *fds, size_t nr_fds)
{
	unsigned char data[IPC_MAX_FRAME_BYTES];

	if (!endpoint_is_open(ep))
		return -ENOTCONN;
	if (ipc_type_sender(msg->type) == ep->peer || ipc_type_fds(msg->type) != nr_fds)
		return -EINVAL;
	int bytes = ipc_encode(msg, data, sizeof(data));
	if (bytes < 0)
		return bytes;
	if (ep->queued)
		return enqueue(ep, data, (size_t)bytes, fds, nr_fds);
	int r = transmit(ep->fd, data, (size_t)bytes, fds, nr_fds);
	if (is_temporary(r))
		return enqueue(ep, data, (size_t)bytes, fds, nr_fds);
	if (r < 0)
		go_down(ep, r, IPC_OK);
	return r;
}

/* --- The loop ------------------------------------------------------------------- */

static void
reader_cb(struct ev_loop *loop, ev_io *watcher, int events)
{
	(void)loop;
	(void)events;
	read_frames(watcher->data, READ_TURN);
}

/* The socket has room, so to go on polling it would be to spin. */
static void
pause_writer(struct endpoint *ep)
{
	ev_io_stop(ep->loop, &ep->writer);
	ev_timer_stop(ep->loop, &ep->again);
	ev_timer_set(&ep->again, AGAIN_S, 0.);
	ev_timer_start(ep->loop, &ep->again);
}

static void
again_cb(struct ev_loop *loop, ev_timer *watcher, int events)
{
	struct endpoint *ep = watcher->data;

	(void)events;
	ev_io_start(loop, &ep->writer);
}

static void
writer_cb(struct ev_loop *loop, ev_io *watcher, int events)
{
	struct endpoint *ep = watcher->data;

	(void)events;
	for (int i = 0; i < WRITE_TURN && ep->queued; i++) {
		struct endpoint_frame *frame =
		    list_entry(ep->queue.next, struct endpoint_frame, link);
		int r = transmit(ep->fd, frame->data, frame->bytes, frame->fds, frame->nr_fds);

		if (is_temporary(r)) {
			if (r != -EAGAIN)
				pause_writer(ep);
			return;
		}
		if (r < 0) {
			go_down(ep, r, IPC_OK);
			return;
		}
		free_frame(frame);
		ep->queued--;
	}
	if (!ep->queued)
		ev_io_stop(loop, &ep->writer);
}

static void
down_cb(struct ev_loop *loop, ev_timer *watcher, int events)
{
	struct endpoint *ep = watcher->data;

	(void)loop;
	(void)events;
	/* A failed send says nothing about what the peer sent before it died. */
	read_frames(ep, READ_LAST);
	if (ep->fd < 0)
		return; /* closed by a handler, which therefore knows */
	int error = ep->down_error;
	enum ipc_error fault = ep->down_fault;
	endpoint_close(ep);
	ep->ops->on_down(ep, error, fault);
}

void
endpoint_init(struct endpoint *ep, struct ev_loop *loop, int fd, enum ipc_role peer,
    const struct endpoint_ops *ops, void *owner)
{
	*ep = (struct endpoint){
	    .loop = loop,
	    .ops = ops,
	    .owner = owner,
	    .peer = peer,
	    .fd = fd,
	};
	list_init(&ep->queue);
	ev_io_init(&ep->reader, reader_cb, fd, EV_READ);
	ev_io_init(&ep->writer, writer_cb, fd, EV_WRITE);
	ev_timer_init(&ep->again, again_cb, AGAIN_S, 0.);
	ev_timer_init(&ep->down, down_cb, 0., 0.);
	ep->reader.data = ep;
	ep->writer.data = ep;
	ep->again.data = ep;
	ep->down.data = ep;
	ev_io_start(loop, &ep->reader);
	int r = fd_set_nonblock(fd, true);
	if (r < 0)
		go_down(ep, r, IPC_OK);
}

void
endpoint_close(struct endpoint *ep)
{
	if (!ep->loop || ep->fd < 0)
		return;
	ev_io_stop(ep->loop, &ep->reader);
	ev_io_stop(ep->loop, &ep->writer);
	ev_timer_stop(ep->loop, &ep->again);
	ev_timer_stop(ep->loop, &ep->down);
	while (!list_is_empty(&ep->queue))
		free_frame(list_entry(ep->queue.next, struct endpoint_frame, link));
	ep->queued = 0;
	fd_closep(&ep->fd);
}

bool
endpoint_is_open(const struct endpoint *ep)
{
	return ep->loop && ep->fd >= 0 && !ep->is_down;
}

uint32_t
endpoint_next_seq(struct endpoint *ep)
{
	if (++ep->next_seq == 0)
		ep->next_seq = 1;
	return ep->next_seq;
}

void
endpoint_fail(struct endpoint *ep, int error)
{
	if (endpoint_is_open(ep))
		go_down(ep, error, IPC_OK);
}

void
endpoint_drain(struct endpoint *ep)
{
	if (ep->loop)
		read_frames(ep, READ_LAST);
}
