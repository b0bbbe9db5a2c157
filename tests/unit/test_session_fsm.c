/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a session's life: nothing unreachable, nothing without a way out. */
#include "supervisor/session_fsm.h"

#include "tests/unit/fake_fleet.h"
#include "tests/unit/tap.h"

static bool
is_reachable(enum session_state from, enum session_state to, bool seen[SESSION_STATE_COUNT])
{
	if (from == to)
		return true;
	if (seen[from])
		return false;
	seen[from] = true;
	for (unsigned int e = 0; e < SESSION_EVENT_COUNT; e++) {
		enum session_state next;

		if (session_fsm_has_row(from, (enum session_event)e, &next) &&
		    is_reachable(next, to, seen))
			return true;
	}
	return false;
}

static bool
can_reach(enum session_state from, enum session_state to)
{
	bool seen[SESSION_STATE_COUNT] = {false};

	return is_reachable(from, to, seen);
}

static void
test_ways(void)
{
	static const enum session_event always[] = {
	    SESSION_EV_VMM_EXITED, SESSION_EV_CLOSE, SESSION_EV_WORKER_LOST};

	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++) {
		enum session_state state = (enum session_state)s;
		const char *name = session_state_name(state);

		ok(can_reach(SESSION_CREATED, state) || can_reach(SESSION_RECOVERING, state),
		    "%s is reachable", name);
		if (!session_state_is_live(state))
			continue;
		ok(can_reach(state, SESSION_CLOSED), "%s can end", name);
		for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
			ok(session_fsm_has_row(state, always[i], NULL), "%s knows %s", name,
			    session_event_name(always[i]));
	}
}

static void
test_ends(void)
{
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++) {
		unsigned int rows = 0;

		if (session_state_is_live((enum session_state)s))
			continue;
		for (unsigned int e = 0; e < SESSION_EVENT_COUNT; e++)
			rows +=
			    session_fsm_has_row((enum session_state)s, (enum session_event)e, NULL);
		is_int(rows, 0, "%s is final", session_state_name((enum session_state)s));
	}
	for (unsigned int e = 0; e < SESSION_EVENT_COUNT; e++) {
		bool used = false;

		for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
			used |=
			    session_fsm_has_row((enum session_state)s, (enum session_event)e, NULL);
		ok(used, "%s has a row", session_event_name((enum session_event)e));
	}
}

/* The descriptors of a living VM: a dead worker leads to where they are held. */
static void
test_rule(void)
{
	enum session_state next = SESSION_CLOSED;

	session_fsm_has_row(SESSION_SERVING, SESSION_EV_WORKER_LOST, &next);
	is_int(next, SESSION_ADOPTING, "a worker that dies while serving loses no memory");
	next = SESSION_CLOSED;
	session_fsm_has_row(SESSION_COMPLETING, SESSION_EV_WORKER_LOST, &next);
	is_int(next, SESSION_ADOPTING, "nor while completing");
	ok(!session_fsm_has_row(SESSION_SERVING, SESSION_EV_TIMEOUT, NULL),
	    "no deadline ends a session that is served");
	ok(!session_fsm_has_row(SESSION_SERVING, SESSION_EV_REFUSED, NULL),
	    "no word of a worker ends a session that is served");
	ok(!session_fsm_has_row(SESSION_SERVING, SESSION_EV_RELEASED, NULL), "nor this one");
	ok(!session_fsm_has_row(SESSION_SERVING, SESSION_EV_DETACHED, NULL),
	    "nobody graduates without having been asked to");
	ok(!session_fsm_has_row(SESSION_RECOVERING, SESSION_EV_TIMEOUT, NULL),
	    "no deadline ends a session that a worker may still serve");
	ok(!session_fsm_has_row(SESSION_ADOPTING, SESSION_EV_TIMEOUT, NULL),
	    "no deadline ends a session that is held");
}

static void
test_words(void)
{
	is_str(session_state_word(SESSION_CREATED), "created", "word of CREATED");
	is_str(session_state_word(SESSION_CLOSING), "closed", "word of CLOSING");
	is_str(session_state_word(SESSION_ADOPTING), "adopting", "word of ADOPTING");
	is_str(session_state_word(SESSION_GRADUATED), "graduated", "word of GRADUATED");
}

static void
test_dot(void)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	session_fsm_write_dot(out);
	fclose(out);
	ok(strncmp(text, "digraph session {", 17) == 0, "dot: begins");
	ok(strstr(text, "SERVING -> ADOPTING [label=\"WORKER_LOST\"];") != NULL, "dot: an edge");
	is_str(text + bytes - 2, "}\n", "dot: ends");
	free(text);
}

int
main(void)
{
	test_ways();
	test_ends();
	test_rule();
	test_words();
	test_dot();
	return done();
}
