/* SPDX-License-Identifier: Apache-2.0 */
/* The set of sessions: finding them, waiting for them, forgetting them. */
#include <string.h>

#include "common/clock.h"
#include "supervisor/record.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

/* How many outcomes are remembered, whatever tombstone-life says. */
#define MAX_TOMBSTONES 4096U

static void
on_place(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	sessions_place_homeless(timer->data, false);
}

void
sessions_init(struct sessions *sessions, struct supervisor *sup)
{
	*sessions = (struct sessions){.sup = sup, .next_number = 1};
	list_init(&sessions->all);
	list_init(&sessions->changed);
	list_init(&sessions->graves);
	list_init(&sessions->homeless);
	ev_timer_init(&sessions->place_timer, on_place, 0.0, 0.0);
	list_init(&sessions->creations);
	sessions->place_timer.data = sessions;
}

/* What a worker has is found by the next supervisor. */
static void
session_leave(struct session *session)
{
	if (session->sent || session->state == SESSION_RECOVERING)
		session->socket_bound = false; /* a VMM may still come */
	else if (session->state == SESSION_CREATED)
		record_remove(session);
}

/* The workers are not told: they keep what they serve. */
void
sessions_fini(struct sessions *sessions)
{
	if (!sessions->sup)
		return;
	ev_timer_stop(sessions->sup->loop, &sessions->place_timer);
	sessions_cancel_creations(sessions);
	while (!list_is_empty(&sessions->all)) {
		struct session *session = list_entry(sessions->all.next, struct session, link);

		while (!list_is_empty(&session->waits))
			list_remove(session->waits.next);
		session_leave(session);
		session_free(session);
	}
	*sessions = (struct sessions){0};
}

struct session *
session_find(struct sessions *sessions, const char *id)
{
	struct session *dead = NULL;
	struct list *pos;

	for (pos = sessions->all.prev; pos != &sessions->all; pos = pos->prev) {
		struct session *session = list_entry(pos, struct session, link);

		if (strcmp(session->id, id) != 0)
			continue;
		if (session_is_live(session))
			return session;
		if (!dead)
			dead = session;
	}
	return dead;
}

struct session *
session_by_number(struct sessions *sessions, uint64_t number)
{
	struct list *pos;

	list_for_each(pos, &sessions->all) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->number == number)
			return session;
	}
	return NULL;
}

void
sessions_insert(struct sessions *sessions, struct session *session)
{
	struct list *pos = sessions->all.prev;

	while (pos != &sessions->all &&
	    list_entry(pos, struct session, link)->number > session->number)
		pos = pos->prev;
	list_add(pos->next, &session->link);
	sessions->live++;
	if (sessions->next_number <= session->number)
		sessions->next_number = session->number + 1;
}

void
session_wait_add(struct session *session, struct session_wait *wait)
{
	wait->session = session;
	list_add(&session->waits, &wait->link);
}

void
session_wait_remove(struct session_wait *wait)
{
	if (wait->link.next)
		list_remove(&wait->link);
}

void
session_mark_changed(struct session *session)
{
	list_remove(&session->changed);
	list_add(&session->sup->sessions.changed, &session->changed);
}

/* On a list of their own while they are asked, one at a time taken from its head: a
 * check may remove any wait, and add one. */
static void
tell_waits(struct session *session)
{
	struct list asked;

	list_init(&asked);
	while (!list_is_empty(&session->waits)) {
		struct list *link = session->waits.next;

		list_remove(link);
		list_add(&asked, link);
	}
	while (!list_is_empty(&asked)) {
		struct session_wait *wait = list_entry(asked.next, struct session_wait, link);

		list_remove(&wait->link);
		list_add(&session->waits, &wait->link);
		wait->check(wait);
	}
}

void
session_settle(struct session *session)
{
	if (list_is_empty(&session->changed))
		return;
	list_remove(&session->changed);
	tell_waits(session);
}

static void
forget_one(struct sessions *sessions, struct session *session)
{
	session_retire(sessions, session);
	sessions->dead--;
	session_free(session);
}

static void
forget_old(struct sessions *sessions)
{
	uint64_t life_ns = sessions->sup->options.tombstone_life_ms * NS_PER_MS;
	struct list *pos, *tmp;

	if (list_is_empty(&sessions->graves))
		return;
	uint64_t now = clock_now_ns();
	list_for_each_safe(pos, tmp, &sessions->graves) {
		struct session *session = list_entry(pos, struct session, grave);

		if (sessions->dead <= MAX_TOMBSTONES && now - session->ended_ns < life_ns)
			break;
		if (list_is_empty(&session->waits) && list_is_empty(&session->changed))
			forget_one(sessions, session);
	}
}

void
sessions_sweep(struct sessions *sessions)
{
	while (!list_is_empty(&sessions->changed)) {
		struct session *session =
		    list_entry(sessions->changed.next, struct session, changed);

		list_remove(&session->changed);
		tell_waits(session);
	}
	forget_old(sessions);
}
