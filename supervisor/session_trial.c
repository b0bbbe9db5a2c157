/* SPDX-License-Identifier: Apache-2.0 */
/* Which session kills workers.
 *
 * One that is there each time a worker crashes is suspect.  Suspects are adopted by workers that
 * are started for them (fleet_trial.c), all at once: nobody waits for the end of a trial.  The one
 * that such a worker crashes with when it is alone there is held: frozen, its descriptors kept,
 * until an operator decides. */
#include "common/clock.h"
#include "supervisor/child.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

/* What ends a worker and is neither its own doing nor surely another's weighs less than a crash:
 * the kernel was short of memory, or nobody knows. */
#define BLAME_CRASH   7U
#define BLAME_UNKNOWN 1U
#define BLAME_SUSPECT 21U
#define BLAME_MAX     42U

/* Between looks whether a worker has been heard since the end of a trial. */
#define HEARD_PAUSE_MS 500U

static uint64_t
trial_ns(const struct session *session)
{
	return session->sup->options.trial_time_ms * NS_PER_MS;
}

bool
session_is_suspect(const struct session *session)
{
	return session->blame >= BLAME_SUSPECT;
}

bool
session_is_guilty(const struct session *session)
{
	return session->blame >= BLAME_MAX;
}

void
session_suspect(struct session *session)
{
	session->blame = BLAME_SUSPECT;
	session->tried_ns = 0;
}

/* --- A trial --------------------------------------------------------------------- */

static void
arm(struct session *session, uint64_t ns)
{
	struct ev_loop *loop = session->sup->loop;

	ev_timer_stop(loop, &session->trial);
	ev_timer_set(&session->trial, (double)ns / (double)NS_PER_S, 0.0);
	ev_timer_start(loop, &session->trial);
}

/* A worker that hangs has survived nothing, which is noticed later only. */
static bool
was_heard(const struct session *session)
{
	const struct child *child = session->child;

	return session->sup->options.heartbeat_interval_ms == 0 ||
	    (child != NULL && child->heard_ns >= session->tried_ns + trial_ns(session));
}

static void
on_survived(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct session *session = timer->data;

	(void)loop;
	(void)revents;
	if (!was_heard(session)) {
		arm(session, HEARD_PAUSE_MS * NS_PER_MS);
		return;
	}
	session_log(session, LOG_LEVEL_NOTICE, "its worker survived it: not suspect any more");
	session->blame = 0;
	session->is_on_trial = false;
}

void
session_trial_init(struct session *session)
{
	ev_timer_init(&session->trial, on_survived, 0.0, 0.0);
	session->trial.data = session;
}

/* Time that it was served before a death which is nobody's fault counts. */
void
session_trial_served(struct session *session)
{
	uint64_t now = clock_now_ns(), end;

	if (session->tried_ns == 0)
		session->tried_ns = now;
	if (!session->is_on_trial)
		return;
	end = session->tried_ns + trial_ns(session);
	arm(session, end > now ? end - now : 0);
}

void
sessions_trials_changed(struct sessions *sessions)
{
	struct list *pos;

	list_for_each(pos, &sessions->all) {
		struct session *session = list_entry(pos, struct session, link);

		if (ev_is_active(&session->trial))
			session_trial_served(session);
	}
}

void
session_trial_end(struct session *session)
{
	session->is_on_trial = false;
	ev_timer_stop(session->sup->loop, &session->trial);
}

/* --- The verdict ----------------------------------------------------------------- */

/* Its worker served it, or was about to. */
static bool
is_witness(const struct session *session)
{
	return session->sent && session->state != SESSION_CREATED && !session_is_over(session);
}

/* A worker that dies while it adopts has served nothing yet, whenever the adoption before that
 * was. */
static bool
was_served_since(const struct session *session, const struct child *child, uint64_t since_ns)
{
	uint64_t wrong_ns = child->hung_ns != 0 ? child->hung_ns : clock_now_ns();

	return session->state != SESSION_ADOPTING && wrong_ns > since_ns + trial_ns(session);
}

/* For as long as a trial takes, without a death that it can be blamed for. */
static bool
is_cleared(const struct session *session, const struct child *child)
{
	return session->tried_ns != 0 && was_served_since(session, child, session->tried_ns);
}

/* As long as a trial takes, by this worker. */
static bool
is_known_good(const struct session *session, const struct child *child)
{
	if (session->adopted_ns == 0) /* served since its handshake, or not at all */
		return session->state != SESSION_ADOPTING;
	return was_served_since(session, child, session->adopted_ns);
}

/* Nobody else can have a part in it. */
static bool
is_alone(const struct session *session, const struct child *child)
{
	const struct list *pos;

	list_for_each(pos, &child->sessions) {
		const struct session *other = list_entry(pos, const struct session, on_child);

		if (other != session && is_witness(other) && !is_known_good(other, child))
			return false;
	}
	return true;
}

/* Only one on trial can be found guilty, by a crash that nobody else can have caused or by death
 * after death; others are at most suspect. */
static void
judge(struct session *session, const struct child *child)
{
	bool is_clear = is_cleared(session, child);
	bool is_caught = session->is_on_trial && !is_clear && child->crashed;

	if (is_clear)
		session->blame = 0;
	session->blame += child->crashed ? BLAME_CRASH : BLAME_UNKNOWN;
	if (is_caught && is_alone(session, child))
		session->blame = BLAME_MAX;
	else if (session->blame >= BLAME_MAX && (child->crashed || !session->is_on_trial))
		session->blame = BLAME_MAX - 1;
	session->tried_ns = 0;
}

void
session_trial_judge(const struct child *child)
{
	const struct list *pos;

	if (child->was_killed)
		return; /* no session can do that */
	list_for_each(pos, &child->sessions) {
		struct session *session = list_entry(pos, struct session, on_child);

		if (is_witness(session))
			judge(session, child);
	}
}
