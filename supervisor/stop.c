/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/api.h"
#include "supervisor/child.h"
#include "supervisor/control_sock.h"
#include "supervisor/drain.h"
#include "supervisor/handoff.h"
#include "supervisor/http.h"
#include "supervisor/notify.h"
#include "supervisor/opener.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"

/* How long idle workers may take to exit when we stop: more than a worker that is told
 * to stop gets (child_fsm.c), less than a service manager waits. */
#define STOP_PATIENCE_S 15.

/* A worker with a session outlives us; the others are seen off. */
static bool
is_child_awaited(const struct supervisor *sup, const struct child *child)
{
	if (child->state == CHILD_GONE || child->state == CHILD_FOUND)
		return false;
	return sup->stopping == STOP_FOR_GOOD || child_nr_sessions(child) == 0;
}

/* What only we hold, or what is in between, would not be found by the next supervisor. */
static bool
is_session_awaited(const struct supervisor *sup, const struct session *session)
{
	if (sup->stopping == STOP_FOR_GOOD)
		return session_is_live(session) && session->state != SESSION_RECOVERING;
	switch (session->state) {
	case SESSION_CLOSING:
	case SESSION_MOVING:
	case SESSION_ADOPTING:
		return true;
	case SESSION_CREATED:
		return !session->opened;
	default:
		return false;
	}
}

static bool
is_done(const struct supervisor *sup)
{
	const struct list *link;

	list_for_each(link, &sup->fleet.children)
		if (is_child_awaited(sup, list_entry(link, const struct child, link)))
			return false;
	list_for_each(link, &sup->sessions.all)
		if (is_session_awaited(sup, list_entry(link, const struct session, link)))
			return false;
	if (opener_writes(sup))
		return false;
	return sup->stopping != STOP_FOR_GOOD || sup->admin == NULL ||
	    http_server_clients(sup->admin) == 0;
}

void
stop_check(struct supervisor *sup)
{
	if (sup->stopping == STOP_NOT)
		return;
	if (is_done(sup))
		ev_break(sup->loop, EVBREAK_ALL);
}

static void
on_patience(struct ev_loop *loop, ev_timer *w, int events)
{
	(void)w;
	(void)events;
	log_warning(
	    "supervisor: not everything is done within %d s; stopping nevertheless; what only "
	    "pagerd holds is lost",
	    (int)STOP_PATIENCE_S);
	ev_break(loop, EVBREAK_ALL);
}

static void
begin(struct supervisor *sup, enum stopping how)
{
	sup->stopping = how;
	notify_stopping();
	ev_timer_init(&sup->patience, on_patience, STOP_PATIENCE_S, 0.);
	ev_timer_start(sup->loop, &sup->patience);
}

static void
close_sessions(struct supervisor *sup, bool only_placeless, const char *reason)
{
	struct list *link, *next;

	list_for_each_safe(link, next, &sup->sessions.all) {
		struct session *session = list_entry(link, struct session, link);
		bool placeless = session->state == SESSION_CREATED && session->child == NULL;

		if (session_is_live(session) && (placeless || !only_placeless))
			session_close(session, SESSION_OUTCOME_CLOSED, reason);
	}
}

/* Its descriptors go with us, whatever we do. */
static void
complain_about_held(const struct supervisor *sup)
{
	const struct list *link;

	list_for_each(link, &sup->sessions.all) {
		const struct session *session = list_entry(link, const struct session, link);

		if (session->state == SESSION_HELD && session->nr_stored == 0)
			session_log(session, LOG_LEVEL_ERR,
			    "is held by pagerd alone, which stops: pages that VMM pid=%d has not "
			    "touched will read as zeros; stop it",
			    (int)session->vmm_pid);
	}
}

void
stop_begin(struct supervisor *sup, const char *why)
{
	struct list *link, *next;

	if (sup->stopping != STOP_NOT) {
		log_notice("supervisor: %s; not waiting any longer", why);
		ev_break(sup->loop, EVBREAK_ALL);
		return;
	}
	log_notice("supervisor: %s; stopping", why);
	begin(sup, STOP_FOR_NOW);
	controls_free(sup);
	api_free(sup);
	upgrade_fini(sup);
	handoffs_fini(sup);
	close_sessions(sup, true, "pagerd stops and no worker has it");
	complain_about_held(sup);
	list_for_each_safe(link, next, &sup->fleet.children) {
		struct child *child = list_entry(link, struct child, link);

		if (child_nr_sessions(child) == 0)
			drain_child(child, "pagerd stops");
	}
}

/* The ids, as many as there is room for. */
static uint64_t
list_live(const struct supervisor *sup, char *ids, size_t bytes)
{
	const struct list *link;
	uint64_t n = 0;
	size_t used = 0;

	ids[0] = '\0';
	list_for_each(link, &sup->sessions.all) {
		const struct session *session = list_entry(link, const struct session, link);

		if (session_is_over(session))
			continue;
		if (used + strlen(session->id) + 8 < bytes)
			used += (size_t)snprintf(
			    ids + used, bytes - used, "%s%s", n > 0 ? ", " : "", session->id);
		else if (used + 6 < bytes && ids[used - 1] != '.')
			used += (size_t)snprintf(ids + used, bytes - used, ", ...");
		n++;
	}
	return n;
}

int
stop_for_good(
    struct supervisor *sup, int force, uint64_t *ret_sessions, char *ids, size_t ids_bytes)
{
	*ret_sessions = list_live(sup, ids, ids_bytes);
	if (*ret_sessions > 0 && !force)
		return -EBUSY;
	if (sup->stopping == STOP_NOT) {
		log_notice("supervisor: told to shut down%s, sessions=%" PRIu64,
		    force ? " by force" : "", *ret_sessions);
		begin(sup, STOP_FOR_GOOD);
	}
	close_sessions(sup, false, "pagerd was shut down");
	drain_others(sup, NULL, "pagerd shuts down");
	/* The answer is on its way out of it. */
	if (sup->admin != NULL)
		http_server_retire(sup->admin);
	return 0;
}

void
stop_fini(struct supervisor *sup)
{
	ev_timer_stop(sup->loop, &sup->patience);
}
