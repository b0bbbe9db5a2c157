/* SPDX-License-Identifier: Apache-2.0 */
/* What is said to a worker about a session, and what it answers.
 *
 * A worker parses what VMMs send, so it may lie: every value is held against what we
 * know of the session before anything changes.  An answer whose request is no longer in
 * flight, or about a session that has ended, is late and harmless. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/child.h"
#include "supervisor/picture.h"
#include "supervisor/recording.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/vmm.h"
#include "supervisor/why.h"

#define MAX_ERRNO  4095U
#define HUGE_BYTES (UINT64_C(2) << 20)

#define lied(child, ...) (child_log((child), LOG_LEVEL_WARNING, __VA_ARGS__), -EPROTO)

int
session_send_connect(struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_CONNECT};

	msg.session_connect.seq = endpoint_next_seq(&session->child->ep);
	msg.session_connect.session = session->number;
	return child_send(session->child, &msg, &session->connection, 1);
}

static int
send_open(struct session *session)
{
	struct child *child = session->child;
	const int fds[3] = {session->listener, session->image.fd, session->map_fd};
	struct ipc_msg msg = {.type = IPC_SESSION_OPEN};
	struct ipc_session_open *open = &msg.session_open;

	open->seq = endpoint_next_seq(&child->ep);
	open->session = session->number;
	ipc_text(open->name, session->id);
	open->image_bytes = session->image.bytes;
	open->flags = session->flags |
	    ((child->sandbox & IPC_CAN_BE_CONNECTED) != 0 ? IPC_SESSION_CONNECTS : 0);
	open->cluster_min_bytes = (uint32_t)session->cluster_min_bytes;
	open->cluster_max_bytes = (uint32_t)session->cluster_max_bytes;
	open->spin_us = (uint32_t)session->sup->options.fault_spin_us;
	int r = child_send(child, &msg, fds, 3);
	if (r < 0)
		return r;
	session->sent = true;
	session->open_seq = open->seq;
	session_accept_watch(session);
	r = session->connection >= 0 ? session_send_connect(session) : 0;
	if (!session_lacks_resources(r))
		return r;
	/* The worker has it by now: it must be taken back from this one before all else. */
	session_decide(session, SESSION_OUTCOME_FAILED,
	    "the supervisor has no descriptor left for the connection of its VMM");
	return session_step(session, SESSION_EV_CLOSE);
}

static int
send_adopt(struct session *session)
{
	struct child *child = session->child;
	const int fds[4] = {session->image.fd, session->map_fd, session->uffd, session->connection};
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPT};
	struct ipc_session_adopt *adopt = &msg.session_adopt;

	adopt->seq = endpoint_next_seq(&child->ep);
	adopt->session = session->number;
	ipc_text(adopt->name, session->id);
	adopt->image_bytes = session->image.bytes;
	adopt->flags = session->flags;
	adopt->cluster_min_bytes = (uint32_t)session->cluster_min_bytes;
	adopt->cluster_max_bytes = (uint32_t)session->cluster_max_bytes;
	adopt->spin_us = (uint32_t)session->sup->options.fault_spin_us;
	int r = child_send(child, &msg, fds, 4);
	if (r == 0) {
		session->sent = true;
		session->open_seq = adopt->seq;
	}
	return r;
}

static int
send_overlays(struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_OVERLAYS};

	msg.session_overlays.seq = endpoint_next_seq(&session->child->ep);
	msg.session_overlays.session = session->number;
	return child_send(session->child, &msg, &session->overlays.fd, 1);
}

bool
session_suits(const struct session *session, const struct child *child)
{
	if (session->map.header == NULL ||
	    atomic_load(&pagemap_track(&session->map)->tracking) == PAGEMAP_UNTRACKED)
		return true;
	/* An older worker would answer a write fault with bytes, for ever. */
	return (child->sandbox & IPC_CAN_PICTURE) != 0;
}

/* So that nothing has to be asked of storage that may not answer. */
static int
send_image_name(struct session *session)
{
	const struct image *image = &session->image;
	struct ipc_msg msg = {.type = IPC_SESSION_IMAGE_NAME};

	if ((session->child->sandbox & IPC_CAN_NAME) == 0)
		return 0;
	msg.session_image_name.seq = endpoint_next_seq(&session->child->ep);
	msg.session_image_name.session = session->number;
	msg.session_image_name.dev = image->dev;
	msg.session_image_name.ino = image->ino;
	msg.session_image_name.mtime_ns = image->mtime_ns < 0 ? 0 : (uint64_t)image->mtime_ns;
	msg.session_image_name.is_new = session->uffd < 0 && session->workers_lost == 0;
	return child_send(session->child, &msg, NULL, 0);
}

int
session_send(struct session *session)
{
	if (!session_suits(session, session->child))
		return -EPROTONOSUPPORT;
	/* If only this one can be sent, the next session's takes its place. */
	int r = session->overlays.fd >= 0 ? send_overlays(session) : 0;

	if (r == 0)
		r = send_image_name(session);
	if (r < 0)
		return r;
	r = session->uffd >= 0 ? send_adopt(session) : send_open(session);
	if (r == 0) {
		recording_send(session);
		prefetch_send(session);
	}
	return r;
}

int
session_send_complete(struct session *session, uint64_t rate_bytes)
{
	struct ipc_msg msg = {.type = IPC_SESSION_COMPLETE};

	msg.session_complete.seq = endpoint_next_seq(&session->child->ep);
	msg.session_complete.session = session->number;
	msg.session_complete.rate_bytes = rate_bytes;
	int r = child_send(session->child, &msg, NULL, 0);
	if (r == 0)
		session->complete_seq = msg.seq;
	return r;
}

/* Carries the number of the completion that it stops, as its answer does. */
void
session_abort(struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ABORT};

	if (session->state != SESSION_COMPLETING)
		return;
	msg.session_abort.seq = session->complete_seq;
	msg.session_abort.session = session->number;
	int r = child_send(session->child, &msg, NULL, 0);
	if (r < 0)
		session_log(session, LOG_LEVEL_DEBUG, "cannot abort: %s; the completion goes on",
		    strerror(-r));
}

bool
session_send_close(struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_CLOSE};

	if (!session->child || !session->sent)
		return false;
	msg.session_close.seq = endpoint_next_seq(&session->child->ep);
	msg.session_close.session = session->number;
	session->close_seq = msg.seq;
	/* If it cannot be sent, WORKER_LOST or the deadline of CLOSING ends the session. */
	int r = child_send(session->child, &msg, NULL, 0);
	if (r < 0)
		session_log(session, LOG_LEVEL_DEBUG, "cannot send a close: %s", strerror(-r));
	return true;
}

/* To a request that is in flight: each is answered once, and no request has the number 0. */
static bool
is_answer(uint32_t seq, uint32_t awaited)
{
	return awaited != 0 && seq == awaited;
}

int
session_find_told(struct child *child, uint64_t number, struct session **ret)
{
	struct sessions *sessions = &child->sup->sessions;
	struct list *pos;

	if (number == 0 || number >= sessions->next_number)
		return lied(child, "names session %" PRIu64 ", which never was", number);
	list_for_each(pos, &child->sessions) {
		*ret = list_entry(pos, struct session, on_child);
		if ((*ret)->number == number && (*ret)->sent)
			return 0;
	}
	list_for_each(pos, &sessions->all) {
		*ret = list_entry(pos, struct session, link);
		if ((*ret)->number == number && session_is_live(*ret))
			return lied(
			    child, "names session %" PRIu64 ", which it does not have", number);
	}
	child_log(child, LOG_LEVEL_DEBUG, "is late: session %" PRIu64 " has ended", number);
	return -ESTALE;
}

/* What a handler returns when session_find_told() found nothing. */
static int
not_found(int error)
{
	return error == -ESTALE ? 0 : error;
}

static int
late(const struct session *session, const char *what)
{
	session_log(session, LOG_LEVEL_DEBUG, "%s is late; dropped", what);
	return 0;
}

/* Steps on the word of the worker: what has no row is a lie. */
static int
step(struct session *session, enum session_event event)
{
	if (session_step(session, event) == 0)
		return 0;
	session_log(session, LOG_LEVEL_WARNING, "worker says %s, which cannot be in state %s",
	    session_event_name(event), session_state_name(session->state));
	return -EPROTO;
}

static bool
can_step(const struct session *session, enum session_event event)
{
	return session_fsm_has_row(session->state, event, NULL);
}

int
session_on_opened(struct child *child, const struct ipc_session_opened *msg)
{
	struct session *session;
	char reason[sizeof(session->reason)];
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (msg->error > MAX_ERRNO)
		return lied(child, "says SESSION_OPENED with error %" PRIu32, msg->error);
	if (!is_answer(msg->seq, session->open_seq))
		return late(session, "SESSION_OPENED");
	session->open_seq = 0;
	if (msg->error == 0)
		return step(session, SESSION_EV_OPENED);
	snprintf(reason, sizeof(reason), "worker v%s would not take it: %s", child->version,
	    strerror((int)msg->error));
	session_decide(session, SESSION_OUTCOME_FAILED, reason);
	return step(session, SESSION_EV_DENIED);
}

int
session_on_adopted(struct child *child, const struct ipc_session_adopted *msg)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (msg->error > MAX_ERRNO)
		return lied(child, "says SESSION_ADOPTED with error %" PRIu32, msg->error);
	if (!is_answer(msg->seq, session->open_seq))
		return late(session, "SESSION_ADOPTED");
	session->open_seq = 0;
	if (msg->error == 0)
		return step(session, SESSION_EV_ADOPTED);
	snprintf(session->reason, sizeof(session->reason), "worker v%s would not adopt it: %s",
	    child->version, strerror((int)msg->error));
	return step(session, SESSION_EV_DENIED);
}

/* The page map must say the same.  Later on a worker can write anything there: what is
 * read of it then is clipped, not believed. */
static bool
is_layout_of(const struct session *session, const struct ipc_session_serving *msg)
{
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint32_t n = pagemap_regions(&session->map, regions);
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += regions[i].size_bytes;
	return n == msg->regions && n > 0 && bytes == msg->bytes;
}

static int
check_serving(const struct child *child, const struct session *session,
    const struct ipc_session_serving *msg, const int fds[2])
{
	if (msg->seq != 0 || !session->opened)
		return lied(child, "says SESSION_SERVING of session %" PRIu64 " out of order",
		    session->number);
	if (!session_is_userfaultfd(fds[0]))
		return lied(child, "hands over what is no userfaultfd for session %" PRIu64,
		    session->number);
	if (!session_is_connection(session, fds[1]))
		return lied(child,
		    "hands over what is no connection of the socket of session %" PRIu64,
		    session->number);
	if (!is_layout_of(session, msg))
		return lied(child,
		    "says regions=%" PRIu32 " bytes=%" PRIu64 " of session %" PRIu64
		    ", its page map says otherwise",
		    msg->regions, msg->bytes, session->number);
	return 0;
}

/* From here on its handshake outlives the worker: the connection is ours too. */
int
session_on_connected(struct child *child, const struct ipc_session_connected *msg, int *fds)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (session->state == SESSION_CLOSING)
		return 0;
	if (msg->seq != 0 || session->state != SESSION_CREATED || session->connection >= 0 ||
	    !session_is_connection(session, fds[0]))
		return lied(child, "says SESSION_CONNECTED of session %" PRIu64 " out of order",
		    session->number);
	int met = session_meet_vmm(session, fds[0]);
	if (met == -EPERM)
		return 0;
	session->connection = fd_take(&fds[0]);
	session_accept_watch(session);
	session_watch_vmm(session, met);
	return 0;
}

/* Its deadline passed while the worker shook hands: nobody but the clock wants its end. */
static bool
can_be_revived(const struct session *session)
{
	return session->state == SESSION_CLOSING && !session->unwanted && session->uffd < 0 &&
	    session->outcome == SESSION_OUTCOME_TIMED_OUT;
}

int
session_on_serving(struct child *child, const struct ipc_session_serving *msg, int *fds)
{
	struct session *session;
	int met = 0, r = session_find_told(child, msg->session, &session);
	enum session_event event = SESSION_EV_SHAKEN;
	bool is_new;

	if (r < 0)
		return not_found(r);
	if (can_be_revived(session))
		event = SESSION_EV_REVIVED;
	else if (session->state != SESSION_CREATED)
		return step(session, SESSION_EV_SHAKEN);
	r = check_serving(child, session, msg, fds);
	if (r < 0)
		return r;
	is_new = session->connection < 0;
	if (is_new)
		met = session_meet_vmm(session, fds[1]);
	if (met == -EPERM)
		return 0;
	session->uffd = fd_take(&fds[0]);
	if (is_new)
		session->connection = fd_take(&fds[1]);
	session->nr_regions = msg->regions;
	session->guest_bytes = msg->bytes;
	r = step(session, event);
	if (is_new)
		session_watch_vmm(session, met);
	return r;
}

int
session_on_refused(struct child *child, const struct ipc_session_refused *msg)
{
	struct session *session;
	char reason[sizeof(session->reason)];
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (!can_step(session, SESSION_EV_REFUSED) || !(session->opened || session->close_seq))
		return lied(child, "refuses the handshake of session %" PRIu64 " in state %s",
		    session->number, session_state_name(session->state));
	why_copy_untrusted(reason, sizeof(reason), msg->reason);
	session_decide(session, SESSION_OUTCOME_REFUSED, reason);
	return step(session, SESSION_EV_REFUSED);
}

int
session_on_closed(struct child *child, const struct ipc_session_closed *msg)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (msg->seq != session->close_seq)
		return late(session, "SESSION_CLOSED");
	return step(session, SESSION_EV_RELEASED);
}

static const char *
completion_text(enum ipc_completion outcome)
{
	switch (outcome) {
	case IPC_COMPLETION_ABORTED:
		return "aborted";
	case IPC_COMPLETION_REFUSED:
		return "the worker refused it";
	case IPC_COMPLETION_GONE:
		return "the VMM exited meanwhile";
	default:
		return "failed";
	}
}

int
session_on_completed(struct child *child, const struct ipc_session_completed *msg)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (msg->outcome > IPC_COMPLETION_GONE || msg->error > MAX_ERRNO)
		return lied(child, "says SESSION_COMPLETED with outcome %" PRIu32 " error %" PRIu32,
		    msg->outcome, msg->error);
	if (!is_answer(msg->seq, session->complete_seq))
		return late(session, "SESSION_COMPLETED");
	session->complete_seq = 0;
	session->completion = (enum ipc_completion)msg->outcome;
	session->completion_error = (int)msg->error;
	if (msg->outcome == IPC_COMPLETION_DETACHED)
		return step(session, SESSION_EV_DETACHED);
	why_copy_untrusted(session->completion_reason, sizeof(session->completion_reason),
	    msg->reason[0] ? msg->reason : completion_text(session->completion));
	r = step(session, SESSION_EV_STAYED);
	if (msg->outcome == IPC_COMPLETION_GONE && session->vmm_pidfd < 0)
		session_vmm_exited(session);
	return r;
}

/* Not taken at its word: a worker that lies could make us let go of a living VM's
 * memory.  The pidfd fires when the process is gone, which is moments after its memory. */
int
session_on_gone(struct child *child, const struct ipc_session_gone *msg)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (!can_step(session, SESSION_EV_VMM_EXITED) || msg->seq != 0 || !session->opened)
		return lied(child, "says SESSION_GONE of session %" PRIu64 " in state %s",
		    session->number, session_state_name(session->state));
	if (session->vmm_pidfd < 0 || vmm_has_exited(session->vmm_pidfd))
		session_vmm_exited(session);
	else
		session_log(session, LOG_LEVEL_INFO,
		    "worker says that the VMM pid=%d has exited; waiting for its pidfd",
		    (int)session->vmm_pid);
	return 0;
}

int
session_on_pictured(struct child *child, const struct ipc_session_pictured *msg)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return not_found(r);
	if (msg->error > MAX_ERRNO || msg->tracking > PAGEMAP_LOST)
		return lied(child, "says SESSION_PICTURED with error %" PRIu32 " tracking %" PRIu32,
		    msg->error, msg->tracking);
	if (session->picture == NULL || !is_answer(msg->seq, session->picture->seq))
		return late(session, "SESSION_PICTURED");
	session_pictured(session, msg);
	return 0;
}
