/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/child.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/xalloc.h"
#include "supervisor/heartbeat.h"
#include "supervisor/supervisor.h"

/* Lines a second that a worker may put into our log. */
#define SAID_BURST 100

struct child *
child_new(struct supervisor *sup, const char *version, uint32_t number)
{
	struct child *child = xcalloc(1, sizeof(*child));

	list_init(&child->link);
	list_init(&child->sessions);
	child->sup = sup;
	child->number = number;
	snprintf(child->version, sizeof(child->version), "%s", version);
	child->state = CHILD_STARTING;
	child->pid = -1;
	child->pidfd = -1;
	child->rendezvous = -1;
	child->words_fd = -1;
	child->words_end = -1;
	child->overlays_fd = -1;
	child->report_fd = -1;
	child->ep.fd = -1;
	child->said.burst = SAID_BURST;
	return child;
}

void
child_free(struct child *child)
{
	if (child == NULL)
		return;
	child_reap_stop(child);
	heartbeat_stop(child);
	ev_timer_stop(child->sup->loop, &child->deadline);
	endpoint_close(&child->ep);
	fd_closep(&child->pidfd);
	fd_closep(&child->rendezvous);
	fd_closep(&child->words_fd);
	fd_closep(&child->words_end);
	fd_closep(&child->overlays_fd);
	fd_closep(&child->report_fd);
	free(child);
}

void
child_log(const struct child *child, enum log_level level, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_at(level, "child %" PRIu32 " v%s pid=%d: %s", child->number, child->version,
	    (int)child->pid, text);
}

bool
child_is_ready(const struct child *child)
{
	return child->state == CHILD_READY;
}

bool
child_listens(const struct child *child)
{
	return child->ready_ns != 0 && endpoint_is_open(&child->ep);
}

bool
child_is_draining(const struct child *child)
{
	return child->state == CHILD_DRAINING || child->state == CHILD_UNWANTED;
}

bool
child_takes_sessions(const struct child *child)
{
	return !child->is_trial && (child->state == CHILD_READY || child->state == CHILD_STARTING);
}

uint64_t
child_nr_sessions(const struct child *child)
{
	const struct list *link;
	uint64_t n = 0;

	list_for_each(link, &child->sessions)
		n++;
	return n;
}

uint64_t
child_nr_serving(const struct child *child)
{
	const struct list *link;
	uint64_t n = 0;

	list_for_each(link, &child->sessions)
		n += list_entry(link, const struct session, on_child)->uffd >= 0;
	return n;
}

bool
child_has_unserved(const struct child *child)
{
	const struct list *link;

	list_for_each(link, &child->sessions) {
		const struct session *session = list_entry(link, const struct session, on_child);

		if (session->unserved_ns != 0 && session->sent)
			return true;
	}
	return false;
}

int
child_send(struct child *child, const struct ipc_msg *msg, const int *fds, size_t nr_fds)
{
	int r = endpoint_send(&child->ep, msg, fds, nr_fds);

	if (r == 0 || r == -EMFILE || r == -ENFILE || r == -ENOMEM)
		return r;
	child_log(
	    child, LOG_LEVEL_DEBUG, "%s not sent: %s", ipc_type_name(msg->type), strerror(-r));
	/* A worker that leaves a full queue unread cannot be told anything any more. */
	endpoint_fail(&child->ep, r);
	return r;
}

void
child_check_empty(struct child *child)
{
	/* Without a link it is of no use to a session that still waits for its VMM. */
	bool empty = child->state == CHILD_UNLINKED ? child_nr_serving(child) == 0
						    : list_is_empty(&child->sessions);

	if (!empty || !child_fsm_has(child->state, CHILD_EV_EMPTY))
		return;
	/* It is killed next, and somebody may be told why. */
	if (child->state == CHILD_UNWANTED && child->cause[0] == '\0')
		snprintf(child->cause, sizeof(child->cause), "told to drain before it was ready");
	child_step(child, CHILD_EV_EMPTY, NULL);
}

void
child_on_ready(struct child *child)
{
	child->ready_ns = clock_now_ns();
	fd_closep(&child->report_fd);
	heartbeat_start(child);
	sessions_on_child_ready(&child->sup->sessions, child);
}

void
child_on_unlinked(struct child *child)
{
	uint64_t n = child_nr_serving(child);

	heartbeat_stop(child);
	endpoint_close(&child->ep);
	if (n > 0)
		child_log(child, LOG_LEVEL_WARNING,
		    "lost its link, serving=%" PRIu64
		    "; another worker takes over when it has ended, or is killed",
		    n);
	sessions_on_child_unlinked(&child->sup->sessions, child);
}

/* What becomes of its version, for the last line of its life. */
static void
describe_future(struct child *child, char *text, size_t bytes)
{
	uint64_t retry_ms = fleet_on_death(&child->sup->fleet, child);

	if (child->failed)
		metrics_worker_died(child->sup, child->version);
	if (!child->failed)
		snprintf(text, bytes, "as it was told");
	else if (retry_ms > 0)
		snprintf(text, bytes, "the next start waits %" PRIu64 " ms", retry_ms);
	else
		snprintf(text, bytes, "started again on demand");
}

void
child_on_gone(struct child *child)
{
	uint64_t lost = child_nr_serving(child);
	uint64_t waiting = child_nr_sessions(child) - lost;
	char future[64];

	child_reap_stop(child);
	heartbeat_stop(child);
	endpoint_close(&child->ep);
	fd_closep(&child->rendezvous);
	fd_closep(&child->report_fd);
	if (child->rendezvous_path[0] != '\0')
		unlink(child->rendezvous_path);
	describe_future(child, future, sizeof(future));
	child_log(child, lost > 0 || child->failed ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE,
	    "%s, sessions_serving=%" PRIu64 ", sessions_waiting=%" PRIu64 "; %s", child->obituary,
	    lost, waiting, future);
	sessions_on_child_gone(&child->sup->sessions, child, child->obituary);
}
