/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a child's life, and the one function that walks it.  The actions that
 * reach beyond the child are recorded here instead of done. */
#include "supervisor/child_fsm.h"

#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/drain.h"
#include "supervisor/supervisor.h"
#include "tests/unit/tap.h"

static char acts[256]; /* what was asked for, in order */

static void
record(const char *act)
{
	size_t n = strlen(acts);

	snprintf(acts + n, sizeof(acts) - n, "%s%s", n > 0 ? " " : "", act);
}

void
child_log(const struct child *child, enum log_level level, const char *fmt, ...)
{
	(void)child;
	(void)level;
	(void)fmt;
}

void
child_on_ready(struct child *child)
{
	child->ready_ns = 1;
	record("ready");
}

void
child_on_unlinked(struct child *child)
{
	(void)child;
	record("unlinked");
}

void
child_on_gone(struct child *child)
{
	(void)child;
	record("gone");
}

void
child_kill(struct child *child)
{
	(void)child;
	record("kill");
}

void
recover_ask(struct child *child)
{
	(void)child;
	record("ask");
}

void
recover_ask_again(struct child *child)
{
	(void)child;
	record("ask-again");
}

void
recover_disown(struct child *child)
{
	(void)child;
	record("disown");
}

void
drain_tell(struct child *child)
{
	child->drain_sent = true;
	record("tell");
}

bool
child_has_unserved(const struct child *child)
{
	(void)child;
	return false;
}

uint64_t
child_nr_serving(const struct child *child)
{
	return list_is_empty(&child->sessions) ? 0 : 1;
}

void
child_check_empty(struct child *child)
{
	if (list_is_empty(&child->sessions) && child_fsm_has(child->state, CHILD_EV_EMPTY))
		child_step(child, CHILD_EV_EMPTY, NULL);
}

/* --- The table ------------------------------------------------------------------- */

static void
mark(bool *reached, enum child_state state)
{
	if (reached[state])
		return;
	reached[state] = true;
	for (int e = 0; e < CHILD_EV_COUNT; e++) {
		if (child_fsm_has(state, (enum child_event)e))
			mark(reached, child_fsm_next(state, (enum child_event)e));
	}
}

static void
test_every_state_is_reached(void)
{
	bool reached[CHILD_STATE_COUNT] = {false};

	mark(reached, CHILD_STARTING);
	ok(!reached[CHILD_FOUND], "FOUND is no worker of ours");
	mark(reached, CHILD_FOUND);
	for (int s = 0; s < CHILD_STATE_COUNT; s++)
		ok(reached[s], "%s is reached from STARTING or FOUND",
		    child_state_name((enum child_state)s));
}

static void
test_every_live_state_ends(void)
{
	static const enum child_event needed[] = {
	    CHILD_EV_EXITED, CHILD_EV_LINK_LOST, CHILD_EV_LIED};

	for (int s = 0; s < CHILD_STATE_COUNT; s++) {
		enum child_state state = (enum child_state)s;

		for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
			ok(child_fsm_has(state, needed[i]) == (state != CHILD_GONE),
			    "%s has %s row for %s", child_state_name(state),
			    state == CHILD_GONE ? "no" : "a", child_event_name(needed[i]));
		if (state != CHILD_GONE)
			ok(child_fsm_next(state, CHILD_EV_EXITED) == CHILD_GONE,
			    "%s: a dead process is GONE", child_state_name(state));
	}
}

/* A state that waits for the worker must not wait for ever: where it can be told to
 * die it has a row for its deadline. */
static void
test_waiting_has_a_deadline(void)
{
	static const enum child_state waiting[] = {
	    CHILD_STARTING, CHILD_UNWANTED, CHILD_STOPPING, CHILD_UNLINKED, CHILD_KILLING};

	for (size_t i = 0; i < sizeof(waiting) / sizeof(waiting[0]); i++)
		ok(child_fsm_next(waiting[i], CHILD_EV_DEADLINE) == CHILD_KILLING,
		    "%s ends by SIGKILL when it lasts too long", child_state_name(waiting[i]));
}

static void
test_dot(void)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	child_fsm_write_dot(out);
	fclose(out);
	ok(strstr(text, "READY -> DRAINING [label=\"DRAIN\"]") != NULL,
	    "the picture has the edges");
	ok(text[bytes - 2] == '}', "and an end");
	free(text);
}

/* --- The mutator ----------------------------------------------------------------- */

static struct supervisor sup;

static struct child *
new_child(void)
{
	struct child *child = xcalloc(1, sizeof(*child));

	list_init(&child->sessions);
	child->sup = &sup;
	child->state = CHILD_STARTING;
	acts[0] = '\0';
	child_fsm_start(child);
	return child;
}

static void
free_child(struct child *child)
{
	ev_timer_stop(sup.loop, &child->deadline);
	free(child);
}

/* A string of events, and what must come of it. */
static const struct {
	const char *name;
	bool has_session;
	enum child_event events[6]; /* CHILD_EV_COUNT: the end */
	enum child_state state;
	const char *acts;
	bool failed;
} walks[] = {
    {"a good life", false, {CHILD_EV_HELLO, CHILD_EV_DRAIN, CHILD_EV_EXITED, CHILD_EV_COUNT},
	CHILD_GONE, "ready tell gone", false},
    {"an empty worker stops as soon as it is drained", false,
	{CHILD_EV_HELLO, CHILD_EV_DRAIN, CHILD_EV_COUNT}, CHILD_STOPPING, "ready tell", false},
    {"one with a session drains on", true,
	{CHILD_EV_HELLO, CHILD_EV_DRAIN, CHILD_EV_DRAIN, CHILD_EV_COUNT}, CHILD_DRAINING,
	"ready tell", false},
    {"drained before HELLO with nothing to do", false, {CHILD_EV_DRAIN, CHILD_EV_COUNT},
	CHILD_KILLING, "kill", false},
    {"drained before HELLO with a session", true, {CHILD_EV_DRAIN, CHILD_EV_HELLO, CHILD_EV_COUNT},
	CHILD_DRAINING, "ready tell", false},
    {"no HELLO", false, {CHILD_EV_DEADLINE, CHILD_EV_COUNT}, CHILD_KILLING, "kill", true},
    {"HELLO twice", false, {CHILD_EV_HELLO, CHILD_EV_HELLO, CHILD_EV_COUNT}, CHILD_KILLING,
	"ready kill", true},
    {"HELLO after it was told to stop", false,
	{CHILD_EV_HELLO, CHILD_EV_DRAIN, CHILD_EV_HELLO, CHILD_EV_COUNT}, CHILD_KILLING,
	"ready tell kill", true},
    {"a lie", true, {CHILD_EV_HELLO, CHILD_EV_LIED, CHILD_EV_COUNT}, CHILD_KILLING, "ready kill",
	true},
    {"lies go on after SIGKILL", true,
	{CHILD_EV_HELLO, CHILD_EV_LIED, CHILD_EV_LIED, CHILD_EV_LINK_LOST, CHILD_EV_COUNT},
	CHILD_KILLING, "ready kill", true},
    {"the link ends, then the process", false,
	{CHILD_EV_HELLO, CHILD_EV_LINK_LOST, CHILD_EV_EXITED, CHILD_EV_COUNT}, CHILD_GONE,
	"ready unlinked gone", false},
    {"the link ends and the process does not", false,
	{CHILD_EV_HELLO, CHILD_EV_LINK_LOST, CHILD_EV_DEADLINE, CHILD_EV_COUNT}, CHILD_KILLING,
	"ready unlinked kill", true},
    {"a drained worker that stays", false,
	{CHILD_EV_HELLO, CHILD_EV_DRAIN, CHILD_EV_DEADLINE, CHILD_EV_COUNT}, CHILD_KILLING,
	"ready tell kill", true},
    {"SIGKILL does not help", false, {CHILD_EV_DEADLINE, CHILD_EV_DEADLINE, CHILD_EV_COUNT},
	CHILD_KILLING, "kill", true},
    {"hung", false, {CHILD_EV_HELLO, CHILD_EV_HUNG, CHILD_EV_COUNT}, CHILD_KILLING, "ready kill",
	true},
    {"nothing happens to the dead", false,
	{CHILD_EV_EXITED, CHILD_EV_HELLO, CHILD_EV_EXITED, CHILD_EV_COUNT}, CHILD_GONE, "gone",
	false},
};

static void
test_walks(void)
{
	for (size_t i = 0; i < sizeof(walks) / sizeof(walks[0]); i++) {
		struct child *child = new_child();
		struct list session;

		list_init(&session);
		if (walks[i].has_session)
			list_add(&child->sessions, &session);
		for (size_t e = 0; walks[i].events[e] != CHILD_EV_COUNT; e++)
			child_step(child, walks[i].events[e], NULL);
		is_str(child_state_name(child->state), child_state_name(walks[i].state), "%s",
		    walks[i].name);
		is_str(acts, walks[i].acts, "%s", walks[i].name);
		ok(child->failed == walks[i].failed, "%s: %s", walks[i].name,
		    walks[i].failed ? "its fault" : "not its fault");
		free_child(child);
	}
}

/* Its sessions' userfaultfds may be nowhere else. */
static void
test_found_is_never_killed(void)
{
	for (int e = 0; e < CHILD_EV_COUNT; e++) {
		struct child *child = new_child();

		child->state = CHILD_FOUND;
		child_step(child, (enum child_event)e, NULL);
		ok(strstr(acts, "kill") == NULL, "FOUND: %s kills nobody",
		    child_event_name((enum child_event)e));
		if (e == CHILD_EV_LIED) {
			is_str(acts, "disown", "a lie is the end of its link");
			is_int(child->state, CHILD_FOUND, "not of the worker");
			ok(child->cause[0] != '\0', "and the reason is kept");
		}
		free_child(child);
	}
}

static void
test_deadline_is_armed(void)
{
	struct child *child = new_child();
	struct list session;

	ok(ev_is_active(&child->deadline), "STARTING has a deadline");
	child_step(child, CHILD_EV_HELLO, NULL);
	ok(!ev_is_active(&child->deadline), "READY has none");
	list_init(&session);
	list_add(&child->sessions, &session);
	child_step(child, CHILD_EV_LINK_LOST, NULL);
	ok(ev_is_active(&child->deadline), "UNLINKED has one, also while it serves");
	list_remove(&session);
	child_check_empty(child);
	is_str(child_state_name(child->state), "KILLING", "and ends with its last session");
	child_step(child, CHILD_EV_EXITED, NULL);
	ok(!ev_is_active(&child->deadline), "GONE has none");
	free_child(child);
}

/* The timer itself, by the loop: no HELLO within 1 ms. */
static void
test_deadline_strikes(void)
{
	struct child *child;

	sup.options.hello_timeout_ms = 1;
	child = new_child();
	ev_run(sup.loop, EVRUN_ONCE);
	is_str(child_state_name(child->state), "KILLING", "the deadline strikes");
	is_str(child->cause, "it did not say HELLO in time", "and is the cause of death");
	free_child(child);
}

int
main(void)
{
	sup.loop = ev_loop_new(EVFLAG_AUTO);
	sup.options.hello_timeout_ms = 10000;
	test_every_state_is_reached();
	test_every_live_state_ends();
	test_waiting_has_a_deadline();
	test_dot();
	test_walks();
	test_found_is_never_killed();
	test_deadline_is_armed();
	test_deadline_strikes();
	ev_loop_destroy(sup.loop);
	return done();
}
