/* SPDX-License-Identifier: Apache-2.0 */
/* A listening socket on the loop.  When descriptors or memory are short, who connects waits in
 * the socket, which therefore stays readable: it is left alone for a moment each time. */
#ifndef WORKER_ACCEPTOR_H
#define WORKER_ACCEPTOR_H

#include <ev.h>
#include <stdbool.h>

/* All zero is one that was never started, and can be stopped. */
struct acceptor {
	ev_io io;
	ev_timer again; /* instead of io: looks again */
	bool has_failed;
};

/* fd stays the caller's. */
void acceptor_init(
    struct acceptor *a, int fd, void (*on_readable)(struct ev_loop *, ev_io *, int), void *data);
void acceptor_start(struct acceptor *a, struct ev_loop *loop);
void acceptor_stop(struct acceptor *a, struct ev_loop *loop);

/* For on_readable: a connection, the caller's, non-blocking and close-on-exec.  -EAGAIN: there is
 * none, or there is none still.  Another negative errno, once until one is accepted again: tried
 * again by itself. */
int acceptor_take(struct acceptor *a, struct ev_loop *loop);

#endif
