/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "supervisor/child.h"
#include "supervisor/fdstore.h"
#include "supervisor/opener.h"
#include "supervisor/record.h"
#include "supervisor/recording.h"
#include "supervisor/session_impl.h"
#include "supervisor/session_socket.h"
#include "supervisor/supervisor.h"
#include "supervisor/vmm.h"
#include "supervisor/why.h"

/* A worker lets go of a session at once; a completion is left at the next chunk. */
#define CLOSING_MS 10000U

void
session_log(const struct session *session, enum log_level level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_at(level, "session %" PRIu64 " id=%s: %s", session->number, session->id, text);
}

const char *
session_outcome_name(enum session_outcome outcome)
{
	static const char *const names[] = {
	    [SESSION_OUTCOME_NONE] = NULL,
	    [SESSION_OUTCOME_GRADUATED] = "graduated",
	    [SESSION_OUTCOME_CLOSED] = "closed",
	    [SESSION_OUTCOME_VMM_EXITED] = "vmm-exited",
	    [SESSION_OUTCOME_REFUSED] = "refused",
	    [SESSION_OUTCOME_TIMED_OUT] = "timed-out",
	    [SESSION_OUTCOME_FAILED] = "failed",
	};

	return names[outcome];
}

bool
session_is_live(const struct session *session)
{
	return session_state_is_live(session->state);
}

bool
session_is_over(const struct session *session)
{
	return session->state == SESSION_CLOSING || !session_is_live(session);
}

bool
session_is_opened(const struct session *session)
{
	return session->opened;
}

void
session_decide(struct session *session, enum session_outcome outcome, const char *reason)
{
	if (session->outcome != SESSION_OUTCOME_NONE)
		return;
	session->outcome = outcome;
	snprintf(session->reason, sizeof(session->reason), "%s", reason);
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct session *session = timer->data;
	char reason[sizeof(session->reason)];

	(void)loop;
	(void)revents;
	if (session->state == SESSION_MOVING) {
		session_step(session, SESSION_EV_TIMEOUT);
		return;
	}
	if (!session->opened)
		snprintf(reason, sizeof(reason), "no worker took it within %" PRIu64 " ms",
		    session->handshake_timeout_ms);
	else
		snprintf(reason, sizeof(reason),
		    "no VMM shook hands on its socket within %" PRIu64 " ms%s",
		    session->handshake_timeout_ms,
		    session->workers_lost
			? "; a worker died meanwhile, which may have had its connection"
			: "");
	session_decide(session, SESSION_OUTCOME_TIMED_OUT, reason);
	session_step(session, SESSION_EV_TIMEOUT);
}

void
session_arm_deadline(struct session *session)
{
	uint64_t ms;

	ev_timer_stop(session->sup->loop, &session->deadline);
	switch (session->state) {
	case SESSION_CREATED:
		ms = session->handshake_timeout_ms;
		break;
	case SESSION_CLOSING:
	case SESSION_MOVING:
		ms = CLOSING_MS;
		break;
	default:
		return;
	}
	ev_timer_set(&session->deadline, (double)ms / 1000.0, 0.0);
	ev_timer_start(session->sup->loop, &session->deadline);
}

struct session *
session_new(struct sessions *sessions)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	list_init(&session->link);
	list_init(&session->on_child);
	list_init(&session->changed);
	list_init(&session->grave);
	list_init(&session->waits);
	list_init(&session->unstored);
	session->sup = sessions->sup;
	session->number = sessions->next_number++;
	session->created_ns = clock_now_ns();
	session->vmm_pid = -1;
	session->image.fd = session->listener = session->uffd = session->connection = -1;
	session->vmm_pidfd = session->map_fd = session->overlays.fd = -1;
	ev_timer_init(&session->deadline, on_deadline, 0.0, 0.0);
	session->deadline.data = session;
	session_trial_init(session);
	session_accept_init(session);
	return session;
}

/* Lets go of everything that the kernel holds for it. */
static void
release_all(struct session *session)
{
	session_socket_close(session);
	vmm_watch_stop(session);
	ev_timer_stop(session->sup->loop, &session->deadline);
	session_trial_end(session);
	pagemap_unmap(&session->map);
	fd_closep(&session->uffd);
	fd_closep(&session->connection);
	fd_closep(&session->vmm_pidfd);
	fd_closep(&session->map_fd);
	fd_closep(&session->overlays.fd);
	opener_close(session->sup, &session->image.fd, session->image.dev, session->image_path);
}

void
session_free(struct session *session)
{
	if (!session)
		return;
	release_all(session);
	recording_free(session);
	prefetch_free(session);
	list_remove(&session->link);
	list_remove(&session->on_child);
	list_remove(&session->changed);
	list_remove(&session->grave);
	list_remove(&session->unstored);
	overlays_free(&session->overlays);
	free(session->image_path);
	free(session);
}

/* What was counted until now is the last version's. */
void
session_set_version(struct session *session, const char *version)
{
	metrics_collect(session);
	snprintf(session->version, sizeof(session->version), "%s", version);
}

/* The numbers are copied while the page map is there; from then on the copy is used. */
void
session_bury(struct session *session)
{
	struct sessions *sessions = &session->sup->sessions;

	if (session->state == SESSION_GRADUATED) {
		session->outcome = SESSION_OUTCOME_GRADUATED;
		session->reason[0] = '\0';
	}
	session_keep_numbers(session);
	metrics_collect(session);
	session->sup->metrics.outcomes[session->outcome]++;
	recording_stop(session, "the session has ended");
	prefetch_end(session);
	release_all(session);
	record_remove(session);
	fdstore_remove(session);
	session->ended_ns = clock_now_ns();
	list_add(&sessions->graves, &session->grave);
	sessions->live--;
	sessions->dead++;
	session_unplace(session);
}

void
session_close(struct session *session, enum session_outcome outcome, const char *reason)
{
	session->unwanted = true;
	if (session_is_over(session))
		return;
	session_decide(session, outcome, reason);
	session_step(session, SESSION_EV_CLOSE);
}

int
session_complete(struct session *session, char *why, size_t why_bytes)
{
	return session_complete_paced(session, 0, why, why_bytes);
}

int
session_complete_paced(struct session *session, uint64_t rate_bytes, char *why, size_t why_bytes)
{
	/* Who waits for the one before must not take this one's outcome for its own. */
	session_settle(session);
	switch (session->state) {
	case SESSION_GRADUATED:
		return why_set(why, why_bytes, -EALREADY, "session %s has graduated", session->id);
	case SESSION_COMPLETING:
		return why_set(why, why_bytes, -EBUSY,
		    "session %s is being completed already; wait for it", session->id);
	case SESSION_ADOPTING:
	case SESSION_MOVING:
	case SESSION_HELD:
	case SESSION_RECOVERING:
		return why_set(why, why_bytes, -EINVAL,
		    "session %s has no worker now; wait until it is serving", session->id);
	case SESSION_CREATED:
		return why_set(why, why_bytes, -EINVAL,
		    "session %s waits for its VMM; wait until it is serving", session->id);
	case SESSION_SERVING:
		break;
	default:
		return why_set(why, why_bytes, -EINVAL, "session %s has ended: %s", session->id,
		    session->reason);
	}
	int r = session_send_complete(session, rate_bytes);
	if (r < 0) {
		session->stayed_ns = clock_now_ns();
		return why_set(why, why_bytes, r, "cannot reach the worker v%s of session %s: %s",
		    session->version, session->id, strerror(-r));
	}
	return session_step(session, SESSION_EV_COMPLETE);
}

static void
fail_completion(struct session *session, const char *reason)
{
	session->complete_seq = 0;
	session->completion = IPC_COMPLETION_FAILED;
	session->completion_error = 0;
	snprintf(session->completion_reason, sizeof(session->completion_reason), "%s", reason);
}

void
session_lost_worker(struct session *session, const char *reason)
{
	enum session_state was = session->state;

	if (was != SESSION_CREATED && !session_is_over(session) && session->unserved_ns == 0)
		session->unserved_ns = clock_now_ns();
	if (was == SESSION_SERVING || was == SESSION_COMPLETING)
		snprintf(session->reason, sizeof(session->reason), "worker v%s died: %s",
		    session->version, reason);
	if (was == SESSION_COMPLETING)
		fail_completion(session, "its worker died; its memory is still held");
	session_step(session, SESSION_EV_WORKER_LOST);
}

void
session_vmm_exited(struct session *session)
{
	char reason[sizeof(session->reason)];

	if (session->killed[0] != '\0')
		snprintf(reason, sizeof(reason), "the VMM pid=%d was killed: %s",
		    (int)session->vmm_pid, session->killed);
	else
		snprintf(reason, sizeof(reason), "the VMM pid=%d exited", (int)session->vmm_pid);
	session_decide(session, SESSION_OUTCOME_VMM_EXITED, reason);
	session_step(session, SESSION_EV_VMM_EXITED);
}
