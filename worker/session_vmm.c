/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/session_vmm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "worker/fault.h"
#include "worker/handshake.h"
#include "worker/pager.h"
#include "worker/prefetch.h"
#include "worker/session.h"
#include "worker/track.h"
#include "worker/uffd.h"
#include "worker/uffd_probe.h"

/* How long a handshake may stand still before it is read: it may wait for room. */
#define PATIENCE_S 2.

static void
forget_handshake(struct session *s)
{
	if (s->handshake == NULL)
		return;
	handshake_fini(s->handshake);
	free(s->handshake);
	s->handshake = NULL;
}

/* Not from inside a watcher of the session: it is freed by session_attend(). */
static void
refuse(struct session *s, const char *reason)
{
	s->refused = true;
	ipc_text_copy(s->reason, sizeof(s->reason), reason);
	session_log(s, LOG_LEVEL_NOTICE, "handshake refused: %s", s->reason);
	pager_wake(s->pager);
}

static void
publish_regions(struct session *s)
{
	struct pagemap_header *header = s->map.header;

	for (uint32_t i = 0; i < s->regions.nr; i++)
		header->regions[i] = s->regions.rows[i];
	atomic_store_explicit(&header->nr_regions, s->regions.nr, memory_order_release);
}

static void
tell_serving(struct session *s)
{
	struct ipc_msg msg = {.type = IPC_SESSION_SERVING};
	int fds[2] = {s->uffd, s->connection};

	msg.session_serving.session = s->number;
	msg.session_serving.regions = s->regions.nr;
	for (uint32_t i = 0; i < s->regions.nr; i++)
		msg.session_serving.bytes += s->regions.rows[i].size_bytes;
	pager_send(s->pager, &msg, fds, 2);
}

static void
recover(struct session *s)
{
	size_t removals = fault_recover_removals(s);

	if (removals > 0)
		session_log(s, LOG_LEVEL_INFO, "removals_recovered=%zu", removals);
	track_resume(s);
}

/* A worker that dies between its first look at the events and its word to the supervisor leaves
 * the handshake to the next one, and in the page map all that it did until then: that one adopts
 * what nobody knows to be served. */
static void
accept_handshake(struct session *s)
{
	bool was_served = atomic_load(&s->map.header->nr_regions) != 0;
	struct handshake *h = s->handshake;
	int r;

	region_table_init(&s->regions, h->regions, h->nr_regions);
	if (region_find(&s->regions, UFFD_ASKED_ADDR) != NULL) {
		ev_io_stop(s->pager->loop, &s->reading);
		refuse(s, "guest memory at 0x10000, the one page that cannot be served");
		return;
	}
	s->uffd = fd_take(&h->fds[0]);
	if (was_served)
		recover(s);
	else
		track_begin(s);
	publish_regions(s);
	forget_handshake(s);
	r = session_thread_start(s, fault_main);
	if (r < 0) {
		refuse(s, "the worker cannot start another thread");
		return;
	}
	if (was_served)
		fault_wake_all(s);
	session_step(s, SESSION_EV_ACCEPT);
	(void)fault_named(FAULT_ACCEPT_TELL, s->name);
	/* Before anything else begins: until then it is nobody's but ours. */
	tell_serving(s);
	prefetch_begin(s);
}

/* After the handshake the VMM sends nothing more.  Its end of file is a hint: older
 * Firecrackers close at once, newer ones when they exit. */
static void
on_silence_broken(struct session *s)
{
	char scrap[256];
	ssize_t n = recv(s->connection, scrap, sizeof(scrap), MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	ev_io_stop(s->pager->loop, &s->reading);
	if (!uffd_is_alive(s->uffd))
		session_post(s, SESSION_POST_GONE);
}

static void
on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct session *s = w->data;

	(void)revents;
	if (s->handshake == NULL) {
		on_silence_broken(s);
		return;
	}
	switch (handshake_read(s->handshake, s->connection)) {
	case HANDSHAKE_NEED_MORE:
		return;
	case HANDSHAKE_DONE:
		accept_handshake(s);
		return;
	case HANDSHAKE_REFUSED:
		ev_io_stop(loop, w);
		refuse(s, s->handshake->reason);
		return;
	}
}

static void
watch_connection(struct session *s)
{
	ev_io_init(&s->reading, on_readable, s->connection, EV_READ);
	s->reading.data = s;
	ev_io_start(s->pager->loop, &s->reading);
}

/* --- Looking ---------------------------------------------------------------------
 * A handshake stays in the socket until it is complete: this worker can die, and the next
 * one finds it there.  The socket is readable all the time then, so what counts is when
 * something arrives, which only an edge tells.  A VMM that says very much, or whose every
 * byte takes the room of many, waits until some of it is read. */

static void
stop_looking(struct session *s)
{
	if (s->arrivals < 0)
		return;
	ev_io_stop(s->pager->loop, &s->reading);
	ev_timer_stop(s->pager->loop, &s->patience);
	fd_closep(&s->arrivals);
}

static void
read_instead(struct session *s)
{
	stop_looking(s);
	handshake_begin_again(s->handshake);
	watch_connection(s);
}

static void
on_arrival(struct ev_loop *loop, ev_io *w, int revents)
{
	struct session *s = w->data;
	struct epoll_event event;

	(void)revents;
	if (epoll_wait(s->arrivals, &event, 1, 0) <= 0)
		return;
	if (!handshake_look(s->handshake, s->connection)) {
		read_instead(s);
		return;
	}
	switch (s->handshake->status) {
	case HANDSHAKE_NEED_MORE:
		ev_timer_again(loop, &s->patience);
		return;
	case HANDSHAKE_DONE:
		stop_looking(s);
		watch_connection(s);
		accept_handshake(s);
		return;
	case HANDSHAKE_REFUSED:
		stop_looking(s);
		refuse(s, s->handshake->reason);
		return;
	}
}

static void
on_impatient(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	read_instead(w->data);
}

static int
look_at_connection(struct session *s)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
	scoped_fd int fd = epoll_create1(EPOLL_CLOEXEC);
	int r = fd < 0 ? -errno : handshake_look_from_start(s->connection);

	if (r < 0)
		return r;
	if (epoll_ctl(fd, EPOLL_CTL_ADD, s->connection, &event) < 0)
		return -errno;
	s->arrivals = fd_take(&fd);
	ev_timer_init(&s->patience, on_impatient, 0., PATIENCE_S);
	s->patience.data = s;
	ev_io_init(&s->reading, on_arrival, s->arrivals, EV_READ);
	s->reading.data = s;
	ev_io_start(s->pager->loop, &s->reading);
	return 0;
}

void
session_vmm_begin(struct session *s, int fd)
{
	s->connection = fd;
	s->handshake = xcalloc(1, sizeof(*s->handshake));
	handshake_init(s->handshake, s->image_bytes, (s->flags & IPC_SESSION_MEMFD) != 0);
	session_step(s, SESSION_EV_CONNECT);
	if (look_at_connection(s) < 0)
		watch_connection(s);
}

static int
recover_regions(struct session *s)
{
	struct region regions[PAGEMAP_MAX_REGIONS];
	char reason[HANDSHAKE_REASON_BYTES];
	uint32_t n = pagemap_regions(&s->map, regions);

	if (n == 0 || n != atomic_load(&s->map.header->nr_regions))
		return -EPROTO;
	if (handshake_validate(regions, n, s->image_bytes, reason) < 0)
		return -EPROTO;
	region_table_init(&s->regions, regions, n);
	return 0;
}

int
session_vmm_resume(struct session *s, int *uffd, int *connection)
{
	char reason[HANDSHAKE_REASON_BYTES];
	int r = recover_regions(s);

	if (r < 0)
		return r;
	if (uffd_probe(*uffd, reason, sizeof(reason)) < 0)
		return -EBADF;
	recover(s);
	s->uffd = fd_take(uffd);
	s->connection = fd_take(connection);
	return 0;
}

int
session_vmm_serve(struct session *s)
{
	int r = session_thread_start(s, fault_main);

	if (r == 0)
		watch_connection(s);
	return r;
}

void
session_vmm_wake(struct session *s)
{
	(void)fault_named(FAULT_ADOPT_WAKE, s->name);
	fault_wake_all(s);
}

void
session_vmm_stop(struct session *s)
{
	acceptor_stop(&s->accepting, s->pager->loop);
	ev_io_stop(s->pager->loop, &s->reading);
	stop_looking(s);
	forget_handshake(s);
}

void
session_vmm_pause(struct session *s)
{
	acceptor_stop(&s->accepting, s->pager->loop);
	if (s->state != SESSION_HANDSHAKE)
		return;
	ev_io_stop(s->pager->loop, &s->reading);
	if (s->arrivals >= 0)
		ev_timer_stop(s->pager->loop, &s->patience);
}

/* Its VMM, unless that is brought to us; and whoever comes after it, to be refused. */
void
session_vmm_accept(struct session *s)
{
	bool waits = s->state == SESSION_LISTENING && (s->flags & IPC_SESSION_CONNECTS) == 0;

	if (s->listener >= 0 && (waits || s->state == SESSION_HANDSHAKE))
		acceptor_start(&s->accepting, s->pager->loop);
}

void
session_vmm_go_on(struct session *s)
{
	session_vmm_accept(s);
	if (s->state != SESSION_HANDSHAKE || s->refused)
		return;
	ev_io_start(s->pager->loop, &s->reading);
	if (s->arrivals >= 0)
		ev_timer_again(s->pager->loop, &s->patience);
}

static void
tell_connected(struct session *s)
{
	struct ipc_msg msg = {.type = IPC_SESSION_CONNECTED};

	msg.session_connected.session = s->number;
	pager_send(s->pager, &msg, &s->connection, 1);
}

static void
on_connection(struct ev_loop *loop, ev_io *w, int revents)
{
	struct session *s = w->data;
	int fd = acceptor_take(&s->accepting, loop);

	(void)revents;
	if (fd < 0) {
		if (fd != -EAGAIN)
			session_log(s, LOG_LEVEL_WARNING,
			    "its VMM cannot be let in now: %s; tried again until it can",
			    strerror(-fd));
		return;
	}
	if (s->state != SESSION_LISTENING) {
		log_limited(&s->second_limit, LOG_LEVEL_WARNING,
		    "session %llu %s: second connection refused", (unsigned long long)s->number,
		    s->name);
		close(fd);
		return;
	}
	session_vmm_begin(s, fd);
	tell_connected(s);
}

void
session_vmm_listen(struct session *s)
{
	fd_set_nonblock(s->listener, true);
	acceptor_init(&s->accepting, s->listener, on_connection, s);
	session_vmm_accept(s);
}
