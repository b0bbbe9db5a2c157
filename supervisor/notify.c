/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol is one datagram.  libsystemd's sd_notify() sends it from a blocking
 * socket, which a supervisor cannot afford, and brings five libraries along. */
#include "supervisor/notify.h"

#include <errno.h>
#include <ev.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"

#define MAX_FDS 5

static int
send_to(const struct sockaddr_un *addr, socklen_t addr_bytes, const char *text, const int *fds,
    size_t nr_fds)
{
	scoped_fd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
	struct msghdr mh = {.msg_name = (void *)(uintptr_t)addr,
	    .msg_namelen = addr_bytes,
	    .msg_iov = &iov,
	    .msg_iovlen = 1};

	if (fd < 0)
		return -errno;
	if (nr_fds > MAX_FDS)
		return -EINVAL;
	if (nr_fds > 0) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, nr_fds * sizeof(int));
	}
	return sendmsg(fd, &mh, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int
notify_with_fds(const char *text, const int *fds, size_t nr_fds)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t length;

	if (path == NULL || path[0] == '\0')
		return 0;
	length = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || length >= sizeof(addr.sun_path))
		return -EINVAL;
	memcpy(addr.sun_path, path, length);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	return send_to(
	    &addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length), text, fds, nr_fds);
}

/* --- What the manager had no room for ---------------------------------------------
 * Its socket takes so many datagrams until it reads; those of thousands of sessions go the same
 * way, and a READY that is lost among them would be a start that failed. */

#define MAX_WAITING 8U
#define AGAIN_S	    0.02

static struct {
	struct ev_loop *loop; /* NULL: nothing waits */
	ev_timer again;
	char *texts[MAX_WAITING]; /* owned, oldest first */
	size_t nr;
} outbox;

static void
drop_first(void)
{
	free(outbox.texts[0]);
	outbox.nr--;
	memmove(&outbox.texts[0], &outbox.texts[1], outbox.nr * sizeof(outbox.texts[0]));
}

static void
complain(int error)
{
	log_warning(
	    "notify: NOTIFY_SOCKET: %s; the service manager was not told", strerror(-error));
}

static bool
is_busy(int error)
{
	return error == -EAGAIN || error == -ENOBUFS || error == -ENOMEM || error == -EMFILE ||
	    error == -ENFILE;
}

static void
on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)revents;
	while (outbox.nr > 0) {
		int r = notify_with_fds(outbox.texts[0], NULL, 0);

		if (is_busy(r))
			return;
		if (r < 0)
			complain(r);
		drop_first();
	}
	ev_timer_stop(loop, timer);
}

void
notify_open(struct ev_loop *loop)
{
	outbox.loop = loop;
	ev_timer_init(&outbox.again, on_again, 0., AGAIN_S);
}

void
notify_close(void)
{
	if (outbox.loop == NULL)
		return;
	ev_timer_stop(outbox.loop, &outbox.again);
	while (outbox.nr > 0)
		drop_first();
	outbox.loop = NULL;
}

/* In the order in which it is said. */
static void
notify(const char *text)
{
	int r = outbox.nr > 0 ? -EAGAIN : notify_with_fds(text, NULL, 0);

	if (!is_busy(r) || outbox.loop == NULL || outbox.nr == MAX_WAITING) {
		if (r < 0)
			complain(r);
		return;
	}
	if (outbox.nr > 0 && strcmp(outbox.texts[outbox.nr - 1], text) == 0)
		return; /* once is enough */
	outbox.texts[outbox.nr++] = xstrdup(text);
	ev_timer_again(outbox.loop, &outbox.again);
}

void
notify_ready(int ready_fd)
{
	notify("READY=1");
	if (ready_fd < 0)
		return;
	if (write(ready_fd, "\n", 1) != 1)
		log_warning("notify: --ready-fd %d: %s; whoever waits for it was not told",
		    ready_fd, strerror(errno));
	fd_closep(&ready_fd);
}

void
notify_reloading(void)
{
	char text[64];

	snprintf(
	    text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_ns() / NS_PER_US);
	notify(text);
}

void
notify_reloaded(void)
{
	notify("READY=1");
}

void
notify_stopping(void)
{
	notify("STOPPING=1");
}

void
notify_status(const char *fmt, ...)
{
	char text[256] = "STATUS=";
	size_t used = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + used, sizeof(text) - used, fmt, ap);
	va_end(ap);
	notify(text);
}

void
notify_watchdog(void)
{
	notify("WATCHDOG=1");
}

uint64_t
notify_watchdog_interval_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	uint64_t n;

	if (usec == NULL || num_parse_u64(usec, 2000, UINT64_MAX, &n) < 0)
		return 0;
	if (pid != NULL) {
		uint64_t watched;

		if (num_parse_u64(pid, 1, INT32_MAX, &watched) < 0 || watched != (uint64_t)getpid())
			return 0;
	}
	return n / 2000;
}
