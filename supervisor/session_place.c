/* SPDX-License-Identifier: Apache-2.0 */
/* Which worker has a session.  A session that waits for its handshake belongs to no
 * worker in particular: the supervisor owns the listening socket, so when its worker
 * dies another one is given the session and the VMM notices nothing. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/child.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

/* A session that takes one worker after another with it is not handed to a fourth. */
#define MAX_WORKERS_LOST 3

/* How often a place is looked for at least, while somebody waits for one. */
#define PLACE_PAUSE_MS 250

/* Frames on their way to a worker at a time, far below what an endpoint queues: each has a
 * duplicate of every descriptor in it. */
#define SEND_AHEAD 64U

/* The session waits on the child's list, as while the child starts. */
static int
send_or_wait(struct session *session)
{
	struct child *child = session->child;

	if (!child_listens(child))
		return 0;
	if (child->ep.queued >= SEND_AHEAD)
		child->is_behind = true;
	return child->is_behind ? 0 : session_send(session);
}

bool
session_lacks_resources(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM ||
	    error == -EPROTONOSUPPORT;
}

int
session_place(struct session *session, char *why, size_t why_bytes)
{
	struct fleet *fleet = &session->sup->fleet;
	const char *version = session->wanted[0] ? session->wanted : NULL;
	struct child *child;
	int r;

	if (session->state != SESSION_ADOPTING)
		r = fleet_child_for_new(fleet, version, &child, why, why_bytes);
	else if (!session_is_suspect(session))
		r = fleet_child_to_adopt(fleet, session->version, &child, why, why_bytes);
	else
		r = fleet_child_for_trial(fleet, session->version, &child, why, why_bytes);
	if (r < 0)
		return r;
	session_unplace(session);
	list_add(&child->sessions, &session->on_child);
	session->child = child;
	session->sent = false;
	session->opened = false;
	session_set_version(session, child->version);
	session->is_on_trial = session->state == SESSION_ADOPTING && session_is_suspect(session);
	if (session->is_on_trial)
		session_log(session, LOG_LEVEL_NOTICE,
		    "suspected of killing workers: on trial with child %" PRIu32, child->number);
	r = send_or_wait(session);
	/* After it: a worker that is told to drain and has no session exits. */
	if (session->state == SESSION_ADOPTING)
		fleet_drain_outdated(fleet, child);
	if (session_lacks_resources(r)) {
		session_unplace(session);
		snprintf(why, why_bytes, "cannot hand the session to worker v%s: %s",
		    child->version, strerror(-r));
		return r;
	}
	/* With any other error the link is going down and WORKER_LOST follows. */
	return 0;
}

void
session_unplace(struct session *session)
{
	struct child *child = session->child;

	list_remove(&session->on_child);
	session->child = NULL;
	session->sent = false;
	session->open_seq = 0;
	session->close_seq = 0;
	session->complete_seq = 0;
	session_accept_watch(session);
	if (child)
		child_check_empty(child);
}

static void
give_up(struct session *session, const char *why)
{
	session_decide(session, SESSION_OUTCOME_FAILED, why);
	session_step(session, SESSION_EV_NO_WORKER);
}

/* Until the next one of those that wait may get a worker: nobody else tells of that. */
static void
arm_place_timer(struct sessions *sessions)
{
	struct supervisor *sup = sessions->sup;
	double pause_s = (double)fleet_pause_ms(&sup->fleet, PLACE_PAUSE_MS) / 1000.0;

	if (ev_is_active(&sessions->place_timer) &&
	    ev_timer_remaining(sup->loop, &sessions->place_timer) <= pause_s)
		return;
	ev_timer_stop(sup->loop, &sessions->place_timer);
	ev_now_update(sup->loop);
	ev_timer_set(&sessions->place_timer, pause_s, 0.0);
	ev_timer_start(sup->loop, &sessions->place_timer);
}

void
session_wait_for_place(struct session *session)
{
	struct sessions *sessions = &session->sup->sessions;

	list_remove(&session->on_child);
	list_add(&sessions->homeless, &session->on_child);
	arm_place_timer(sessions);
}

/* -EAGAIN is the fleet's back-off: worth to wait for, as long as its deadline lets it. */
static void
place_or_wait(struct session *session)
{
	char why[256];
	int r = session_place(session, why, sizeof(why));

	/* Its VMM has not come yet: another version serves it as well, and it must be served. */
	if (session->wanted[0] && (r == -ESHUTDOWN || r == -ENOENT)) {
		session_log(session, LOG_LEVEL_NOTICE, "%s; the current version takes it", why);
		session->wanted[0] = '\0';
		r = session_place(session, why, sizeof(why));
	}
	if (r == -EAGAIN)
		session_wait_for_place(session);
	else if (r < 0)
		give_up(session, why);
}

void
session_place_again(struct session *session)
{
	session_unplace(session);
	session->opened = false;
	if (session->sup->stopping)
		give_up(session, "pagerd is stopping");
	else if (session->workers_lost > MAX_WORKERS_LOST)
		give_up(session, "one worker after another died while it waited for its VMM");
	else
		place_or_wait(session);
}

/* On a list of its own first: a session may come back to the list it was taken from. */
static void
move_all(struct list *to, struct list *from)
{
	list_init(to);
	while (!list_is_empty(from)) {
		struct list *link = from->next;

		list_remove(link);
		list_add(to, link);
	}
}

static bool
is_due(const struct session *session, bool is_new)
{
	return is_new || session->not_before_ns <= clock_now_ns();
}

void
sessions_place_homeless(struct sessions *sessions, bool is_new)
{
	struct list waiting;

	ev_timer_stop(sessions->sup->loop, &sessions->place_timer);
	move_all(&waiting, &sessions->homeless);
	while (!list_is_empty(&waiting)) {
		struct session *session = list_entry(waiting.next, struct session, on_child);

		list_remove(&session->on_child);
		if (!is_due(session, is_new))
			session_wait_for_place(session);
		else if (session->state == SESSION_ADOPTING)
			session_adopt(session);
		else
			place_or_wait(session);
	}
}

static void
send_waiting(struct child *child)
{
	struct list *pos, *tmp;

	child->is_behind = false;
	list_for_each_safe(pos, tmp, &child->sessions) {
		struct session *session = list_entry(pos, struct session, on_child);

		if (session->sent || session_is_over(session))
			continue;
		int r = send_or_wait(session);
		if (child->is_behind)
			return;
		if (!session_lacks_resources(r))
			continue;
		session_unplace(session);
		if (session->state == SESSION_ADOPTING)
			session_wait_for_place(session);
		else
			give_up(session, "the supervisor has no descriptor left for it");
	}
}

void
sessions_on_child_ready(struct sessions *sessions, struct child *child)
{
	send_waiting(child);
	/* One for trials is no news to who waits, and may have been started for just that. */
	if (!child->is_trial)
		sessions_place_homeless(sessions, true);
}

void
sessions_on_child_room(struct child *child)
{
	if (child->is_behind && child->ep.queued < SEND_AHEAD / 2)
		send_waiting(child);
}

void
sessions_on_child_gone(struct sessions *sessions, struct child *child, const char *reason)
{
	struct list lost;

	(void)sessions;
	session_trial_judge(child);
	move_all(&lost, &child->sessions);
	while (!list_is_empty(&lost)) {
		struct session *session = list_entry(lost.next, struct session, on_child);

		list_remove(&session->on_child);
		session->child = NULL;
		session_lost_worker(session, reason);
	}
}

/* Its worker cannot be told anything any more, but may live and serve on for a moment.
 * What waits for a handshake goes elsewhere at once; what was never sent waits for the
 * obituary, which knows whether its version may be started again. */
void
sessions_on_child_unlinked(struct sessions *sessions, struct child *child)
{
	struct list *pos, *tmp;

	(void)sessions;
	list_for_each_safe(pos, tmp, &child->sessions) {
		struct session *session = list_entry(pos, struct session, on_child);

		if (session->state == SESSION_CREATED && session->sent)
			session_lost_worker(session, "its link is lost");
	}
}
