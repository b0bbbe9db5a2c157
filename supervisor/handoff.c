/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/handoff.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

/* Between their workers at one time, of one hand-over. */
#define MAX_BETWEEN 2U
/* A worker that dies before it has taken everything over is started again so often. */
#define MAX_STARTS 3U

/* One hand-over: of a session, or of all that a version has. */
struct handoff {
	struct list link; /* supervisor.handoffs */
	struct supervisor *sup;
	char from[VERSION_BYTES]; /* empty: every other version */
	char to[VERSION_BYTES];
	bool is_ready;		   /* there was a worker when we looked last */
	bool is_collected;	   /* moves has what it is about */
	const struct child *child; /* that is awaited; borrowed: the fleet keeps it until
				      handoffs_step() has seen its end.  NULL: none */
	unsigned starts;
	struct list moves; /* of struct move.link: what is not decided yet */
	unsigned between;  /* of these: sessions between their workers */
	struct handoff_result result;
	handoff_done_fn done; /* NULL: nobody waits any more */
	void *arg;
};

/* One session on its way; exists until that is decided. */
struct move {
	struct list link; /* handoff.moves */
	struct session_wait wait;
	struct handoff *handoff;
	bool begun;
};

static bool on_check(struct session_wait *wait);

/* --- Life ------------------------------------------------------------------------ */

static struct move *
move_new(struct handoff *handoff, struct session *session)
{
	struct move *move = xcalloc(1, sizeof(*move));

	move->handoff = handoff;
	move->wait.check = on_check;
	list_init(&move->wait.link);
	list_add(&handoff->moves, &move->link);
	session_wait_add(session, &move->wait);
	return move;
}

static void
move_free(struct move *move)
{
	if (move->begun)
		move->handoff->between--;
	session_wait_remove(&move->wait);
	list_remove(&move->link);
	free(move);
}

static struct handoff *
handoff_new(struct supervisor *sup, const char *from, const char *to)
{
	struct handoff *handoff = xcalloc(1, sizeof(*handoff));

	handoff->sup = sup;
	snprintf(handoff->from, sizeof(handoff->from), "%s", from != NULL ? from : "");
	snprintf(handoff->to, sizeof(handoff->to), "%s", to);
	list_init(&handoff->moves);
	list_add(&sup->handoffs, &handoff->link);
	return handoff;
}

static void
handoff_free(struct handoff *handoff)
{
	while (!list_is_empty(&handoff->moves))
		move_free(list_entry(handoff->moves.next, struct move, link));
	list_remove(&handoff->link);
	free(handoff);
}

/* What was started for this and has got nothing, or too little to stay. */
static void
drain_target(struct handoff *handoff)
{
	struct child *child = fleet_find(&handoff->sup->fleet, handoff->to);

	if (child != NULL)
		fleet_drain_outdated(&handoff->sup->fleet, child);
}

static void
finish(struct handoff *handoff)
{
	const struct handoff_result *r = &handoff->result;

	log_at(r->failed > 0 || r->error < 0 ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE,
	    "handoff to v%s: over, moved=%" PRIu64 " failed=%" PRIu64 " left=%" PRIu64 "%s%s",
	    handoff->to, r->moved, r->failed, r->left, r->why[0] != '\0' ? ": " : "", r->why);
	drain_target(handoff);
	if (handoff->done != NULL)
		handoff->done(handoff->arg, r);
	handoff_free(handoff);
}

/* --- The sessions ---------------------------------------------------------------- */

static void
fail(struct move *move, const char *why)
{
	struct handoff_result *result = &move->handoff->result;

	result->failed++;
	snprintf(result->why, sizeof(result->why), "%s", why);
	move_free(move);
}

static void
fail_all(struct handoff *handoff, int error, const char *why)
{
	handoff->result.error = error;
	snprintf(handoff->result.why, sizeof(handoff->result.why), "%s", why);
	while (!list_is_empty(&handoff->moves))
		fail(list_entry(handoff->moves.next, struct move, link), why);
}

/* Of one that is still to be moved: whether it can be, one day. */
static bool
is_worth_waiting(const struct session *session)
{
	return session->state == SESSION_SERVING || session->state == SESSION_MOVING ||
	    session->state == SESSION_ADOPTING;
}

/* Its turn.  False: there is no worker of the version any more. */
static bool
begin(struct move *move)
{
	struct handoff *handoff = move->handoff;
	char why[256];
	int r = session_move(move->wait.session, handoff->to, why, sizeof(why));

	if (r == -EAGAIN)
		return false;
	if (r == 0) {
		move->begun = true;
		handoff->between++;
	} else if (r == -EALREADY) { /* somebody else was faster */
		handoff->result.moved++;
		move_free(move);
	} else {
		fail(move, why);
	}
	return true;
}

/* As many as may be between their workers at one time. */
static void
begin_some(struct handoff *handoff)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &handoff->moves) {
		struct move *move = list_entry(pos, struct move, link);

		if (handoff->between >= MAX_BETWEEN)
			return;
		if (move->begun || move->wait.session->state != SESSION_SERVING)
			continue;
		handoff->is_ready = begin(move);
		if (!handoff->is_ready)
			return;
	}
}

/* Where it has come to, when it is between no workers any more. */
static void
conclude(struct move *move)
{
	const struct session *session = move->wait.session;
	char why[512];

	if (session->state == SESSION_HELD) {
		snprintf(why, sizeof(why), "session %s is held: %s", session->id, session->reason);
		fail(move, why);
	} else if (strcmp(session->version, move->handoff->to) != 0) {
		snprintf(why, sizeof(why),
		    "session %s is served by version %s: no worker of version %s adopted it",
		    session->id, session->version, move->handoff->to);
		fail(move, why);
	} else {
		move->handoff->result.moved++;
		move_free(move);
	}
}

/* Called by the session after each change.  What follows from it for others is left to
 * handoffs_step(), later in this turn. */
static bool
on_check(struct session_wait *wait)
{
	struct move *move = list_entry(wait, struct move, wait);
	const struct session *session = wait->session;

	if (session_is_over(session)) { /* nothing is left to be moved */
		move_free(move);
	} else if (move->begun) {
		if (session->state == SESSION_MOVING || session->state == SESSION_ADOPTING)
			return false;
		conclude(move);
	} else {
		if (is_worth_waiting(session))
			return false;
		move->handoff->result.left++;
		move_free(move);
	}
	return true;
}

/* Every session that it is about; those that cannot be moved are counted. */
static void
collect(struct handoff *handoff)
{
	struct list *pos;

	list_for_each(pos, &handoff->sup->sessions.all) {
		struct session *session = list_entry(pos, struct session, link);

		if (session_is_over(session) || strcmp(session->version, handoff->to) == 0 ||
		    (handoff->from[0] != '\0' && strcmp(session->version, handoff->from) != 0))
			continue;
		if (is_worth_waiting(session))
			move_new(handoff, session);
		else
			handoff->result.left++;
	}
	handoff->is_collected = true;
}

/* --- The worker ------------------------------------------------------------------ */

static bool
is_usable(const struct child *child)
{
	return !child->is_trial && (child_is_ready(child) || child->state == CHILD_DRAINING);
}

/* 0 when there is one or one is awaited, or a negative errno and a sentence. */
static int
find_worker(struct handoff *handoff, char *why, size_t why_bytes)
{
	struct child *child = fleet_find(&handoff->sup->fleet, handoff->to);
	int r;

	handoff->is_ready = child != NULL && is_usable(child);
	if (handoff->is_ready) {
		handoff->child = NULL;
		return 0;
	}
	if (handoff->child != NULL && handoff->child->state == CHILD_GONE)
		return why_set(why, why_bytes, -ECHILD, "version %s did not start: %s", handoff->to,
		    handoff->child->obituary);
	if (handoff->child != NULL)
		return 0;
	if (child == NULL || child->state != CHILD_STARTING) {
		if (handoff->starts++ >= MAX_STARTS)
			return why_set(why, why_bytes, -ECHILD, "workers of version %s keep dying",
			    handoff->to);
		r = fleet_start(&handoff->sup->fleet, handoff->to, &child, why, why_bytes);
		if (r < 0)
			return r;
	}
	handoff->child = child;
	return 0;
}

/* As far as it goes now; true when sessions have changed. */
static bool
step(struct handoff *handoff)
{
	unsigned before = handoff->between;
	char why[512] = "";
	bool changed;
	int r = 0;

	if (!handoff->is_ready)
		r = find_worker(handoff, why, sizeof(why));
	if (r < 0)
		fail_all(handoff, r, why);
	if (handoff->is_ready && !handoff->is_collected)
		collect(handoff);
	if (handoff->is_ready)
		begin_some(handoff);
	changed = handoff->between != before;
	if (r < 0 || (handoff->is_collected && list_is_empty(&handoff->moves)))
		finish(handoff);
	/* The worker has gone since: another is looked for at once, nobody will tell us. */
	else if (!handoff->is_ready && handoff->child == NULL)
		changed |= step(handoff);
	return changed;
}

bool
handoffs_step(struct supervisor *sup)
{
	struct list *pos, *tmp;
	bool changed = false;

	list_for_each_safe(pos, tmp, &sup->handoffs)
		changed |= step(list_entry(pos, struct handoff, link));
	return changed;
}

/* --- Beginning and end ----------------------------------------------------------- */

static int
check_target(struct supervisor *sup, const char *version, char *why, size_t why_bytes)
{
	const struct child *child = fleet_find(&sup->fleet, version);

	if (sup->stopping)
		return why_set(why, why_bytes, -ESHUTDOWN, "pagerd is stopping");
	if (child != NULL && is_usable(child))
		return 0;
	return fleet_check_installed(&sup->fleet, version, why, why_bytes);
}

int
handoff_session(struct session *session, const char *version, handoff_done_fn done, void *arg,
    char *why, size_t why_bytes)
{
	struct handoff *handoff;
	int r;

	if (session->state != SESSION_SERVING)
		return why_set(why, why_bytes, -EINVAL,
		    "session %s is %s; only one that is serving can be moved", session->id,
		    session_state_word(session->state));
	if (strcmp(session->version, version) == 0)
		return why_set(why, why_bytes, -EALREADY, "session %s is on version %s already",
		    session->id, version);
	r = check_target(session->sup, version, why, why_bytes);
	if (r < 0)
		return r;
	handoff = handoff_new(session->sup, NULL, version);
	handoff->is_collected = true;
	handoff->done = done;
	handoff->arg = arg;
	move_new(handoff, session);
	return 0;
}

int
handoff_version(struct supervisor *sup, const char *from, const char *to, handoff_done_fn done,
    void *arg, char *why, size_t why_bytes)
{
	struct handoff *handoff;
	int r = check_target(sup, to, why, why_bytes);

	if (r < 0)
		return r;
	handoff = handoff_new(sup, from, to);
	handoff->done = done;
	handoff->arg = arg;
	log_notice("handoff to v%s: begins, from=%s", to, from != NULL ? from : "every other");
	return 0;
}

void
handoff_forget(struct supervisor *sup, void *arg)
{
	struct list *pos;

	list_for_each(pos, &sup->handoffs) {
		struct handoff *handoff = list_entry(pos, struct handoff, link);

		if (handoff->arg == arg)
			handoff->done = NULL;
	}
}

void
handoffs_init(struct supervisor *sup)
{
	list_init(&sup->handoffs);
}

void
handoffs_fini(struct supervisor *sup)
{
	while (sup->handoffs.next != NULL && !list_is_empty(&sup->handoffs))
		handoff_free(list_entry(sup->handoffs.next, struct handoff, link));
}
