/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/acceptor.h"

#include <errno.h>
#include <sys/socket.h>

#define AGAIN_S 0.1

static void
on_again(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct acceptor *a = w->data;

	(void)revents;
	ev_io_start(loop, &a->io);
}

void
acceptor_init(
    struct acceptor *a, int fd, void (*on_readable)(struct ev_loop *, ev_io *, int), void *data)
{
	*a = (struct acceptor){0};
	ev_io_init(&a->io, on_readable, fd, EV_READ);
	a->io.data = data;
	ev_timer_init(&a->again, on_again, AGAIN_S, 0.);
	a->again.data = a;
}

void
acceptor_start(struct acceptor *a, struct ev_loop *loop)
{
	if (!ev_is_active(&a->again))
		ev_io_start(loop, &a->io);
}

void
acceptor_stop(struct acceptor *a, struct ev_loop *loop)
{
	ev_io_stop(loop, &a->io);
	ev_timer_stop(loop, &a->again);
}

int
acceptor_take(struct acceptor *a, struct ev_loop *loop)
{
	bool is_news = !a->has_failed;
	int fd = accept4(a->io.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int error = errno;

	if (fd >= 0) {
		a->has_failed = false;
		return fd;
	}
	if (error == EINTR)
		return -EAGAIN;
	/* Another worker has had it, and can have shut it down: then it is readable for ever. */
	a->has_failed |= error != EAGAIN;
	ev_io_stop(loop, &a->io);
	ev_timer_stop(loop, &a->again);
	ev_timer_set(&a->again, AGAIN_S, 0.);
	ev_timer_start(loop, &a->again);
	return a->has_failed && is_news ? -error : -EAGAIN;
}
