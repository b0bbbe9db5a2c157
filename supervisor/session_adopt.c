/* SPDX-License-Identifier: Apache-2.0 */
/* Another worker for a session in the middle of its life: after its worker died, and when it is
 * moved, which is the same path with both alive.  The supervisor holds all that is needed; the
 * adopter wakes every thread of the VMM that waits, and those fault again. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/child.h"
#include "supervisor/record.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

/* Between refusals of workers, doubled by each. */
#define FIRST_PAUSE_MS UINT64_C(250)
#define MAX_DOUBLINGS  20U

void
session_adopt(struct session *session)
{
	char why[256];

	session_trial_end(session);
	session_unplace(session);
	session->opened = false;
	if (session_is_guilty(session)) {
		snprintf(session->reason, sizeof(session->reason),
		    "worker after worker died with it, the last one while it was alone on trial");
		session_step(session, SESSION_EV_POISONED);
		return;
	}
	if (session_place(session, why, sizeof(why)) < 0)
		session_wait_for_place(session);
}

uint64_t
session_adopt_pause_ms(const struct session *session)
{
	uint64_t max_ms = session->sup->options.spawn_backoff_max_ms;
	uint32_t doublings = session->denials < MAX_DOUBLINGS ? session->denials : MAX_DOUBLINGS;
	uint64_t ms = FIRST_PAUSE_MS << doublings;

	return ms < max_ms ? ms : max_ms;
}

void
session_adopt_later(struct session *session)
{
	session->not_before_ns = clock_now_ns() + session_adopt_pause_ms(session) * NS_PER_MS;
	session->denials++;
	session_trial_end(session);
	session_unplace(session);
	session_wait_for_place(session);
}

void
session_adopt_done(struct session *session)
{
	uint64_t now = clock_now_ns();

	session->opened = true;
	session->adopted_ns = now;
	session->adoptions++;
	session->denials = 0;
	session->not_before_ns = 0;
	session_image_forget(session);
	session->reason[0] = '\0';
	session_log(session, LOG_LEVEL_NOTICE, "adopted by worker v%s, unserved_ms=%.1f",
	    session->version, (double)(now - session->unserved_ns) / (double)NS_PER_MS);
	metrics_resumed(session, now - session->unserved_ns);
	session->unserved_ns = 0;
	record_save(session);
	session_trial_served(session);
}

void
session_adopt_insist(struct session *session)
{
	if (session->child != NULL && child_fsm_has(session->child->state, CHILD_EV_HUNG))
		child_step(session->child, CHILD_EV_HUNG, "it does not let go of a session");
}

int
session_move(struct session *session, const char *version, char *why, size_t why_bytes)
{
	const struct child *child = fleet_find(&session->sup->fleet, version);

	if (session->state != SESSION_SERVING)
		return why_set(why, why_bytes, -EINVAL,
		    "session %s is %s; only one that is serving "
		    "can be moved",
		    session->id, session_state_word(session->state));
	if (strcmp(session->version, version) == 0)
		return why_set(why, why_bytes, -EALREADY, "session %s is on version %s already",
		    session->id, version);
	if (child == NULL || !(child_is_ready(child) || child->state == CHILD_DRAINING))
		return why_set(why, why_bytes, -EAGAIN,
		    "no worker of version %s is ready; make it current with an upgrade first",
		    version);
	if (!session_suits(session, child))
		return why_set(why, why_bytes, -EINVAL,
		    "the writes of session %s are tracked, which version %s cannot", session->id,
		    version);
	session_set_version(session, version);
	session->unserved_ns = clock_now_ns();
	return session_step(session, SESSION_EV_MOVE);
}

int
session_retry(struct session *session, const char *version, char *why, size_t why_bytes)
{
	if (session->state != SESSION_HELD)
		return why_set(why, why_bytes, -EINVAL, "session %s is %s, not held", session->id,
		    session_state_word(session->state));
	if (!session_is_whole(session))
		return why_set(why, why_bytes, -EINVAL,
		    "session %s cannot be served any more: %s; stop its VM, then close it",
		    session->id, session->reason);
	if (version != NULL)
		session_set_version(session, version);
	session_suspect(session); /* alone, and once is enough */
	return session_step(session, SESSION_EV_RETRY);
}
