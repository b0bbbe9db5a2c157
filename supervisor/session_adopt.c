/* SPDX-License-Identifier: Apache-2.0 */
/* Another worker for a session in the middle of its life: after its worker died, and when it is
 * moved, which is the same path with both alive.  The supervisor holds all that is needed; the
 * adopter wakes every thread of the VMM that waits, and those fault again.
 *
 * A session can be what kills workers.  One that is there each time a worker dies is suspect; the
 * suspects are adopted one at a time, and the one that a worker dies with on its trial is held:
 * frozen, its descriptors kept, until an operator decides.  The others move on. */
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

/* How long a worker must survive a suspect. */
#define TRIAL_NS (500 * NS_PER_MS)

/* A death later than this after an adoption has nothing to do with it: a crash, or a kill from
 * outside, before which the worker had stood the session for as long as a trial takes. */
#define BLAME_CRASH_WINDOW_NS (10 * NS_PER_S)
#define BLAME_KILL_WINDOW_NS  TRIAL_NS

/* A crash weighs more than a SIGKILL, which comes from outside unless memory is short. */
#define BLAME_CRASH   7U
#define BLAME_KILL    1U
#define BLAME_SUSPECT 21U
#define BLAME_MAX     42U

static bool
is_suspect(const struct session *session)
{
	return session->blame >= BLAME_SUSPECT;
}

static void
end_trial(struct session *session)
{
	struct sessions *sessions = &session->sup->sessions;

	session->is_on_trial = false;
	if (sessions->trial == session) {
		sessions->trial = NULL;
		ev_timer_stop(session->sup->loop, &sessions->trial_timer);
	}
}

static void
on_survived(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct sessions *sessions = timer->data;
	struct session *session = sessions->trial;

	(void)loop;
	(void)revents;
	if (session == NULL)
		return;
	session_log(session, LOG_LEVEL_NOTICE, "its worker survived it: not suspect any more");
	session->blame = 0;
	end_trial(session);
	sessions_place_homeless(sessions, false);
}

void
sessions_init_trials(struct sessions *sessions)
{
	ev_timer_init(
	    &sessions->trial_timer, on_survived, 0.0, (double)TRIAL_NS / (double)NS_PER_S);
	sessions->trial_timer.data = sessions;
}

void
session_adopt_forget(struct session *session)
{
	if (session->is_on_trial)
		end_trial(session);
}

/* Its worker served it, or was about to. */
static bool
is_witness(const struct session *session)
{
	return session->sent && session->state != SESSION_CREATED && !session_is_over(session);
}

/* It was served this long before the worker went wrong.  A worker that dies while it adopts
 * has served nothing yet, whenever the adoption before that was. */
static bool
was_served_for(const struct session *session, const struct child *child, uint64_t ns)
{
	uint64_t wrong_ns = child->hung_ns != 0 ? child->hung_ns : clock_now_ns();

	if (session->state == SESSION_ADOPTING)
		return false;
	return session->adopted_ns == 0 || wrong_ns > session->adopted_ns + ns;
}

/* Nobody else can have a part in it: every other one had been served as long as a trial. */
static bool
is_alone(const struct session *session, const struct child *child)
{
	const struct list *pos;

	list_for_each(pos, &child->sessions) {
		const struct session *other = list_entry(pos, const struct session, on_child);

		if (other != session && is_witness(other) &&
		    !was_served_for(other, child, TRIAL_NS))
			return false;
	}
	return true;
}

/* Only the one on trial can be found guilty, by a crash that nobody else can have caused or by
 * death after death; others are at most suspect. */
static void
judge(struct session *session, const struct child *child)
{
	uint64_t window_ns = child->crashed ? BLAME_CRASH_WINDOW_NS : BLAME_KILL_WINDOW_NS;
	bool is_guilty = session->is_on_trial && child->crashed && is_alone(session, child);

	if (was_served_for(session, child, window_ns))
		session->blame = 0;
	session->blame += child->crashed ? BLAME_CRASH : BLAME_KILL;
	if (is_guilty)
		session->blame = BLAME_MAX;
	else if (session->blame >= BLAME_MAX && (child->crashed || !session->is_on_trial))
		session->blame = BLAME_MAX - 1;
}

void
session_adopt_judge(const struct child *child)
{
	const struct list *pos;

	list_for_each(pos, &child->sessions) {
		struct session *session = list_entry(pos, struct session, on_child);

		if (is_witness(session))
			judge(session, child);
	}
}

static bool
begin_trial(struct session *session)
{
	struct sessions *sessions = &session->sup->sessions;

	if (sessions->trial != NULL && sessions->trial != session)
		return false;
	sessions->trial = session;
	session->is_on_trial = true;
	return true;
}

void
session_adopt(struct session *session)
{
	char why[256];

	session_unplace(session);
	session->opened = false;
	if (session->blame >= BLAME_MAX) {
		end_trial(session);
		snprintf(session->reason, sizeof(session->reason),
		    "worker after worker died with it, the last one while it was alone on trial");
		session_step(session, SESSION_EV_POISONED);
		return;
	}
	if ((is_suspect(session) && !begin_trial(session)) ||
	    session_place(session, why, sizeof(why)) < 0)
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
	/* Others may be tried meanwhile. */
	session_adopt_forget(session);
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
	if (session->is_on_trial)
		ev_timer_again(session->sup->loop, &session->sup->sessions.trial_timer);
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
	if (version != NULL)
		session_set_version(session, version);
	session->blame = BLAME_SUSPECT; /* alone, and once is enough */
	return session_step(session, SESSION_EV_RETRY);
}
