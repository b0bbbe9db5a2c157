/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/session_vmm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/fd.h"
#include "common/xalloc.h"
#include "worker/fault.h"
#include "worker/handshake.h"
#include "worker/pager.h"
#include "worker/session.h"
#include "worker/uffd.h"
#include "worker/uffd_probe.h"

static void
forget_handshake(struct session *s)
{
	if (s->handshake == NULL)
		return;
	handshake_fini(s->handshake);
	free(s->handshake);
	s->handshake = NULL;
}

void
session_vmm_stop(struct session *s)
{
	ev_io_stop(s->pager->loop, &s->accepting);
	ev_io_stop(s->pager->loop, &s->reading);
	forget_handshake(s);
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
publish_regions(struct session *s, const struct handshake *h)
{
	struct pagemap_header *header = s->map.header;

	region_table_init(&s->regions, h->regions, h->nr_regions);
	for (uint32_t i = 0; i < h->nr_regions; i++)
		header->regions[i] = s->regions.rows[i];
	atomic_store_explicit(&header->nr_regions, h->nr_regions, memory_order_release);
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
accept_handshake(struct session *s)
{
	struct handshake *h = s->handshake;
	int r;

	publish_regions(s, h);
	s->uffd = fd_take(&h->fds[0]);
	forget_handshake(s);
	r = session_thread_start(s, fault_main);
	if (r < 0) {
		refuse(s, "the worker cannot start another thread");
		return;
	}
	session_step(s, SESSION_EV_ACCEPT);
	tell_serving(s);
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

static enum handshake_status
continue_handshake(struct session *s)
{
	enum handshake_status status = HANDSHAKE_NEED_MORE;

	/* A peek first: while the message is still in the socket, this worker can die and the
	 * next one finds it there.  Only a message that comes in pieces has to be read. */
	if (!s->peeked)
		status = handshake_peek(s->handshake, s->connection);
	s->peeked = true;
	if (status == HANDSHAKE_NEED_MORE)
		status = handshake_read(s->handshake, s->connection);
	return status;
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
	switch (continue_handshake(s)) {
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

void
session_vmm_begin(struct session *s, int fd)
{
	s->connection = fd;
	s->handshake = xcalloc(1, sizeof(*s->handshake));
	handshake_init(s->handshake, s->image_bytes, (s->flags & IPC_SESSION_MEMFD) != 0);
	session_step(s, SESSION_EV_CONNECT);
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
	size_t removals;

	if (r < 0)
		return r;
	if (uffd_probe(*uffd, reason, sizeof(reason)) < 0)
		return -EBADF;
	removals = fault_recover_removals(s);
	if (removals > 0)
		session_log(s, LOG_LEVEL_INFO, "removals_recovered=%zu", removals);
	s->uffd = *uffd;
	r = session_thread_start(s, fault_main);
	if (r < 0) {
		s->uffd = -1; /* still the caller's */
		return r;
	}
	*uffd = -1;
	s->connection = fd_take(connection);
	watch_connection(s);
	(void)fault_named(FAULT_ADOPT_WAKE, s->name);
	fault_wake_all(s);
	return 0;
}

void
session_vmm_pause(struct session *s)
{
	ev_io_stop(s->pager->loop, &s->accepting);
	if (s->state == SESSION_HANDSHAKE)
		ev_io_stop(s->pager->loop, &s->reading);
}

void
session_vmm_go_on(struct session *s)
{
	if (s->listener >= 0 && (s->state == SESSION_LISTENING || s->state == SESSION_HANDSHAKE))
		ev_io_start(s->pager->loop, &s->accepting);
	if (s->state == SESSION_HANDSHAKE && !s->refused)
		ev_io_start(s->pager->loop, &s->reading);
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
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)loop;
	(void)revents;
	if (fd < 0)
		return;
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
	ev_io_init(&s->accepting, on_connection, s->listener, EV_READ);
	s->accepting.data = s;
	ev_io_start(s->pager->loop, &s->accepting);
}
