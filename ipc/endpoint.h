/* SPDX-License-Identifier: Apache-2.0 */
/* One end of an IPC link on a libev loop: a SOCK_SEQPACKET socket, a bounded queue
 * of frames that the socket would not take at once, descriptors tied to their
 * frame.  No call blocks. */
#ifndef IPC_ENDPOINT_H
#define IPC_ENDPOINT_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "ipc/message.h"

/* Frames; beyond it endpoint_send() says -ENOBUFS.  Room for a word about each of many sessions:
 * whoever sends descriptors looks at queued and waits before that. */
#define IPC_QUEUE_MAX 16384U

struct endpoint;

struct endpoint_ops {
	/* One valid message.  fds holds exactly the number that its type asks for; the
	 * callee moves out what it keeps (fd_take) and the endpoint closes the rest.
	 * It may call endpoint_close(), never free the endpoint. */
	void (*on_message)(struct endpoint *ep, const struct ipc_msg *msg, int *fds);
	/* The link is dead and closed: error is 0 for end of file, a negative errno,
	 * or fault says which rule the peer broke.  What the peer had sent before was
	 * delivered.  Called once, from the loop, never from inside another call on the
	 * endpoint, which may be freed here. */
	void (*on_down)(struct endpoint *ep, int error, enum ipc_error fault);
};

struct endpoint {
	struct ev_loop *loop;
	const struct endpoint_ops *ops;
	void *owner;
	enum ipc_role peer; /* who is at the other end */
	int fd;		    /* owned; -1: closed */
	bool is_down;	    /* on_down is due: nothing is sent any more */
	uint32_t next_seq;
	size_t queued;	   /* frames waiting */
	struct list queue; /* of struct endpoint_frame */
	ev_io reader;
	ev_io writer;
	ev_timer again; /* instead of writer, when the kernel lacks more than room in the socket */
	ev_timer down;	/* zero delay: reports on_down from the loop */
	int down_error;
	enum ipc_error down_fault;
};

/* Takes fd (a connected SOCK_SEQPACKET socket, made non-blocking) and starts to
 * read.  owner is the caller's and is only handed back. */
void endpoint_init(struct endpoint *ep, struct ev_loop *loop, int fd, enum ipc_role peer,
    const struct endpoint_ops *ops, void *owner);

/* Closes without on_down.  Safe on a zeroed or closed endpoint. */
void endpoint_close(struct endpoint *ep);
bool endpoint_is_open(const struct endpoint *ep);

/* A sequence number for a request: never 0. */
uint32_t endpoint_next_seq(struct endpoint *ep);

/* Sends or queues msg with duplicates of fds (the caller keeps its own).  0, or a
 * negative errno: -ENOTCONN when closed or going down, -EINVAL for a message that this
 * side does not send or with the wrong number of fds, -ENOBUFS when the queue is full,
 * -EMFILE, -ENOMEM; after these nothing has changed.  After any other the link is going
 * down and on_down follows. */
int endpoint_send(struct endpoint *ep, const struct ipc_msg *msg, const int *fds, size_t nr_fds);

/* Gives the link up for a reason of the caller's: on_down follows with this error. */
void endpoint_fail(struct endpoint *ep, int error);

/* Reads and delivers what is there now: for the last words of a peer that exited. */
void endpoint_drain(struct endpoint *ep);

#endif
