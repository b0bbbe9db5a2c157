/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker of an earlier supervisor says that it holds, held against the records and
 * against what the kernel says of the descriptors. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/list.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/record.h"
#include "supervisor/recording.h"
#include "supervisor/recover.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/vmm.h"
#include "supervisor/why.h"

/* A completion that was told to stop does so at its next chunk. */
#define LATE_END_NS (60 * NS_PER_S)

#define lied(child, ...) (child_log((child), LOG_LEVEL_WARNING, __VA_ARGS__), -EPROTO)

/* Further above every number that was ever given than sessions without a record can be.  Numbers
 * are not to end because a worker names the last one. */
#define MAX_AHEAD (UINT64_C(1) << 32)

/* Numbers go on above every one that was ever seen.  False: it cannot have been given. */
static bool
note_number(struct sessions *sessions, uint64_t number)
{
	if (number == 0 || number >= INT64_MAX || number > sessions->next_number + MAX_AHEAD)
		return false;
	if (sessions->next_number <= number)
		sessions->next_number = number + 1;
	return true;
}

static int
check_part(struct child *child, uint32_t seq, uint64_t number)
{
	if (child->state != CHILD_FOUND || seq != child->inventory_seq)
		return lied(child, "tells of an inventory that it was not asked for");
	if (!note_number(&child->sup->sessions, number))
		return lied(child, "names session %" PRIu64 ", which cannot be", number);
	return 0;
}

static int
count_part(struct child *child, uint32_t seq, uint64_t number)
{
	int r = check_part(child, seq, number);

	child->nr_held += r == 0;
	return r;
}

/* Kept until its session is named, by the next message. */
int
recover_on_overlays(struct child *child, uint32_t seq, uint64_t number, int *fds)
{
	int r = check_part(child, seq, number);

	if (r < 0)
		return r;
	fd_closep(&child->overlays_fd);
	child->overlays_fd = fd_take(&fds[0]);
	child->overlays_of = number;
	return 0;
}

static bool
has_told_overlays(const struct child *child, uint64_t number)
{
	return child->overlays_fd >= 0 && child->overlays_of == number;
}

/* Without its overlays a later worker would fill in what the image has in their place. */
static int
take_overlays(struct child *child, struct session *session)
{
	bool has = (session->flags & IPC_SESSION_HAS_OVERLAYS) != 0;

	if (has != has_told_overlays(child, session->number))
		return lied(child, "hands over %s for session %" PRIu64,
		    has ? "no overlays" : "overlays that it never had", session->number);
	if (has && overlays_take(session, &child->overlays_fd) < 0)
		return lied(child, "hands over other overlays of session %" PRIu64 " than it has",
		    session->number);
	return 0;
}

static void
bind_to(struct session *session, struct child *child)
{
	list_remove(&session->on_child);
	list_add(&child->sessions, &session->on_child);
	session->child = child;
	session->sent = true;
	session->opened = true;
	session_set_version(session, child->version);
	child->sup->recovery.sessions++;
}

/* What nobody wants any more, and no VM depends on. */
static void
dismiss(struct child *child, uint64_t number)
{
	struct ipc_msg msg = {.type = IPC_SESSION_CLOSE};
	int r;

	msg.session_close.seq = endpoint_next_seq(&child->ep);
	msg.session_close.session = number;
	r = child_send(child, &msg, NULL, 0);
	if (r < 0)
		child_log(child, LOG_LEVEL_WARNING, "session %" PRIu64 " cannot be closed: %s",
		    number, strerror(-r));
}

/* What becomes of a part of the inventory. */
enum part {
	PART_RECORDED,	 /* *ret is RECOVERING */
	PART_UNRECORDED, /* nobody knows it */
	PART_DONE,	 /* nothing is to be done */
};

/* A part, -EPROTO, and the session. */
static int
place_part(struct child *child, uint64_t number, struct session **ret)
{
	*ret = session_by_number(&child->sup->sessions, number);
	if (*ret == NULL)
		return PART_UNRECORDED;
	if ((*ret)->state == SESSION_RECOVERING)
		return PART_RECORDED;
	if (!session_is_live(*ret)) {
		dismiss(child, number);
		return PART_DONE;
	}
	if ((*ret)->child == child)
		return PART_DONE; /* asked twice */
	return lied(child, "claims session %" PRIu64 ", which is elsewhere", number);
}

static void
warn_if_changed(const struct session *session)
{
	if (session_image_differs(session))
		session_log(session, LOG_LEVEL_WARNING,
		    "its image %s was changed since it was opened; pages not read yet differ",
		    session->image_path);
}

static int
take_image_and_map(struct child *child, struct session *session, int *image, int *map)
{
	/* What is left of an account that made no sense to us at its end. */
	pagemap_unmap(&session->map);
	fd_closep(&session->map_fd);
	fd_closep(&session->image.fd);
	if (!session_is_image(session, *image))
		return lied(child, "hands over another image than %s for session %" PRIu64,
		    session->image_path, session->number);
	if (session_take_map(session, map) < 0)
		return lied(child, "hands over no page map of session %" PRIu64, session->number);
	session->image.fd = fd_take(image);
	session->image_is_shared = true;
	warn_if_changed(session);
	return take_overlays(child, session);
}

/* Its end was decided before the restart, and goes on. */
static void
resume_end(struct session *session)
{
	if (session->outcome != SESSION_OUTCOME_NONE && !session_is_over(session))
		session_step(session, SESSION_EV_CLOSE);
}

/* The supervisor died between the request for a session and its record: nobody was told of the
 * socket, and nobody else removes it.  A worker that lies may name one that is in use. */
static void
remove_socket(const struct supervisor *sup, int fd)
{
	struct sockaddr_un addr = {0};
	socklen_t bytes = sizeof(addr) - 1;
	const struct list *pos;
	char prefix[sizeof(addr.sun_path)];
	int n = snprintf(prefix, sizeof(prefix), "%s/sessions/", sup->options.run_dir);

	if (getsockname(fd, (struct sockaddr *)&addr, &bytes) < 0 || (size_t)n >= sizeof(prefix) ||
	    strncmp(addr.sun_path, prefix, (size_t)n) != 0 ||
	    strchr(addr.sun_path + n, '/') != NULL)
		return;
	list_for_each(pos, &sup->sessions.all) {
		const struct session *session = list_entry(pos, const struct session, link);

		if (strcmp(session->socket_path, addr.sun_path) == 0)
			return;
	}
	(void)unlink(addr.sun_path);
}

static int
take_waiting(struct child *child, uint64_t number, int *fds, int connection)
{
	struct session *session;
	int part = place_part(child, number, &session);

	if (part < 0 || part == PART_DONE)
		return part < 0 ? part : 0;
	if (part == PART_UNRECORDED) {
		child_log(child, LOG_LEVEL_ERR,
		    "holds session %" PRIu64
		    ", of which there is no record: closed, no VM was served yet",
		    number);
		remove_socket(child->sup, fds[0]);
		dismiss(child, number);
		return 0;
	}
	if (!session_is_listener(session, fds[0]))
		return lied(child, "hands over what is not the socket of session %" PRIu64, number);
	if (connection >= 0 && !session_is_connection(session, connection))
		return lied(child, "hands over what is no connection of session %" PRIu64, number);
	int r = take_image_and_map(child, session, &fds[1], &fds[2]);
	if (r < 0)
		return r;
	session->listener = fd_take(&fds[0]);
	session->socket_bound = true;
	bind_to(session, child);
	session_step(session, SESSION_EV_FOUND_WAITING);
	session_accept_watch(session);
	resume_end(session);
	return 0;
}

int
recover_on_waiting(struct child *child, uint32_t seq, uint64_t number, int *fds)
{
	int r = count_part(child, seq, number);

	return r < 0 ? r : take_waiting(child, number, fds, -1);
}

int
recover_on_connected(struct child *child, uint32_t seq, uint64_t number, int *fds)
{
	struct session *session;
	int r = count_part(child, seq, number);

	if (r == 0)
		r = take_waiting(child, number, fds, fds[3]);
	session = session_by_number(&child->sup->sessions, number);
	if (r < 0 || session == NULL || session->state != SESSION_CREATED ||
	    session->connection >= 0)
		return r;
	/* One that was told of before was not looked at again. */
	if (session->child != child || !session_is_connection(session, fds[3]))
		return lied(child, "hands over what is no connection of session %" PRIu64, number);
	int met = session_meet_vmm(session, fds[3]);
	if (met == -EPERM)
		return 0;
	session->connection = fd_take(&fds[3]);
	session_accept_watch(session); /* whoever comes second is not its VMM */
	session_watch_vmm(session, met);
	return 0;
}

/* --- Served sessions ------------------------------------------------------------- */

/* A VM depends on it: it gets a name and is kept.  What only its record knew is lost. */
static struct session *
make_unrecorded(struct child *child, uint64_t number, const int *fds)
{
	struct sessions *sessions = &child->sup->sessions;
	uint64_t max_held = child->sup->max_held;
	struct session *session =
	    max_held == 0 || sessions->live < max_held ? session_new(sessions) : NULL;
	struct vmm_peer peer = {0};
	struct sockaddr_un addr = {0};
	socklen_t bytes = sizeof(addr);

	if (session == NULL)
		return NULL;
	session_learn_image(session, fds[0]);
	if (session->image_path == NULL || vmm_peer(fds[3], &peer) < 0 ||
	    getsockname(fds[3], (struct sockaddr *)&addr, &bytes) < 0) {
		session_free(session);
		return NULL;
	}
	sessions->next_number--; /* it has a number already */
	session->state = SESSION_RECOVERING;
	session->is_unrecorded = true;
	session->number = number;
	snprintf(session->id, sizeof(session->id), "unrecorded-%" PRIu64, number);
	snprintf(session->cache_key, sizeof(session->cache_key), "%s", session->id);
	snprintf(session->socket_path, sizeof(session->socket_path), "%.*s",
	    (int)sizeof(addr.sun_path) - 1, addr.sun_path);
	session->vmm_uid = peer.uid;
	session->cluster_min_bytes = child->sup->options.cluster_min_bytes;
	session->cluster_max_bytes = child->sup->options.cluster_max_bytes;
	session->handshake_timeout_ms = child->sup->options.handshake_timeout_ms;
	session->flags = has_told_overlays(child, number) ? IPC_SESSION_HAS_OVERLAYS : 0;
	sessions_insert(sessions, session);
	session_log(session, LOG_LEVEL_ERR,
	    "is served by worker v%s pid=%d and has no record; kept under this name, VMM pid=%d "
	    "uid=%u image=%s",
	    child->version, (int)child->pid, (int)peer.pid, (unsigned)peer.uid,
	    session->image_path);
	return session;
}

/* fds: image, page map, userfaultfd, connection. */
static int
take_serving(struct child *child, struct session *session, int *fds)
{
	int r;

	if (!session_is_userfaultfd(fds[2]))
		return lied(child, "hands over what is no userfaultfd for session %" PRIu64,
		    session->number);
	if (!session_is_connection(session, fds[3]))
		return lied(
		    child, "hands over what is no connection of session %" PRIu64, session->number);
	r = take_image_and_map(child, session, &fds[0], &fds[1]);
	if (r < 0)
		return r;
	session_measure(session);
	metrics_begin(session);
	if (session->nr_regions == 0)
		return lied(child, "serves session %" PRIu64 " without a region", session->number);
	return 0;
}

int
recover_on_serving(struct child *child, uint32_t seq, uint64_t number, int *fds)
{
	struct session *session;
	int r = count_part(child, seq, number);

	if (r == 0)
		r = place_part(child, number, &session);
	if (r < 0 || r == PART_DONE)
		return r < 0 ? r : 0;
	if (r == PART_UNRECORDED) {
		session = make_unrecorded(child, number, fds);
		if (session == NULL)
			return lied(child, "hands over what is no session %" PRIu64, number);
	}
	r = take_serving(child, session, fds);
	if (r < 0)
		return r;
	bind_to(session, child);
	int met = session_meet_vmm(session, fds[3]);
	if (met == -EPERM)
		return 0;
	session->uffd = fd_take(&fds[2]);
	session->connection = fd_take(&fds[3]);
	session_step(session, SESSION_EV_FOUND_SERVING);
	session_watch_vmm(session, met);
	resume_end(session);
	return 0;
}

/* What is recorded of a session, or to be filled in it; the part before has named it. */
int
recover_on_trace(struct child *child, const struct ipc_session_held_trace *msg, int *fds)
{
	struct session *session = session_by_number(&child->sup->sessions, msg->session);
	int r = check_part(child, msg->seq, msg->session);

	if (r < 0 || session == NULL || session->child != child)
		return r;
	if (msg->kind == TRACE_RECORDING)
		r = recording_take(session, &fds[0]);
	else if (msg->kind == TRACE_PLAN)
		r = prefetch_take(session, &fds[0]);
	else
		r = -EPROTO;
	return r < 0 ? lied(child, "hands over no trace of session %" PRIu64, session->number) : 0;
}

/* --- The rest -------------------------------------------------------------------- */

/* The completion of an earlier supervisor was faster than its end. */
static int
end_late(struct child *child, struct session *session, enum ipc_ended outcome)
{
	uint64_t age_ns = clock_now_ns() - child->sup->recovery.begun_ns;

	if (session->child != child || outcome != IPC_ENDED_GRADUATED || age_ns > LATE_END_NS)
		return lied(child, "ends session %" PRIu64 " unasked", session->number);
	if (session->state == SESSION_SERVING)
		session_step(session, SESSION_EV_COMPLETE);
	session->complete_seq = 0;
	return session_step(session, SESSION_EV_DETACHED) < 0
	    ? lied(child, "ends session %" PRIu64 " in state %s", session->number,
		  session_state_name(session->state))
	    : 0;
}

/* Only remembered: another worker may hold the session now. */
int
recover_on_ended(struct child *child, const struct ipc_session_ended *msg)
{
	struct session *session = session_by_number(&child->sup->sessions, msg->session);

	if (msg->outcome > IPC_ENDED_CLOSED || child->inventory_seq == 0)
		return lied(child, "says SESSION_ENDED with outcome %" PRIu32, msg->outcome);
	(void)note_number(&child->sup->sessions, msg->session);
	if (session == NULL || !session_is_live(session))
		return 0;
	if (msg->seq == 0)
		return end_late(child, session, (enum ipc_ended)msg->outcome);
	if (session->state != SESSION_RECOVERING)
		return 0;
	/* One worker let go of it and another took it over, where it ended otherwise. */
	if (session->has_ended && msg->outcome == IPC_ENDED_CLOSED)
		return 0;
	session->has_ended = true;
	session->ended_as = (enum ipc_ended)msg->outcome;
	why_copy_untrusted(
	    session->completion_reason, sizeof(session->completion_reason), msg->reason);
	return 0;
}

int
recover_on_end(struct child *child, const struct ipc_inventory_end *msg)
{
	const struct list *pos;
	char text[48];

	if (child->state != CHILD_FOUND || msg->seq != child->inventory_seq ||
	    msg->sessions != child->nr_held)
		return lied(child, "ends an inventory of %" PRIu32 " after %" PRIu32 " sessions",
		    msg->sessions, child->nr_held);
	snprintf(text, sizeof(text), "sessions=%" PRIu32, child->nr_held);
	fd_closep(&child->overlays_fd);
	child->is_late = false;
	list_for_each(pos, &child->sessions)
		recording_settle(list_entry(pos, struct session, on_child));
	child_step(child, CHILD_EV_COUNTED, text);
	fleet_drain_outdated(&child->sup->fleet, child);
	fleet_drain_surplus(&child->sup->fleet, child->version);
	return 0;
}
