/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/child_fsm.h"

#include <inttypes.h>

#include "supervisor/child.h"
#include "supervisor/drain.h"
#include "supervisor/events.h"
#include "supervisor/recover.h"
#include "supervisor/supervisor.h"

/* Time for a worker to exit by itself once nothing keeps it. */
#define STOP_MS	    5000
#define UNLINKED_MS 2000
/* A process that was killed loses its link some time before it has ended.  To kill it then
 * would make its death ours, and its sessions suspect of it. */
#define UNLINKED_UNSERVED_MS 200
/* A worker that could not be knocked at is knocked at again, so that nobody waits long for its
 * inventory, until it counts as late. */
#define KNOCK_MS 250
/* A process that survives SIGKILL this long is stuck in the kernel. */
#define KILL_MS 10000

typedef void (*action_fn)(struct child *child);

struct row {
	action_fn action; /* NULL: there is no such row */
	enum child_state next;
};

/* --- Actions --------------------------------------------------------------------- */

static void
act_nothing(struct child *child)
{
	(void)child;
}

static void
act_welcome(struct child *child)
{
	child_on_ready(child);
}

static void
act_welcome_and_drain(struct child *child)
{
	child_on_ready(child);
	drain_tell(child);
	child_check_empty(child);
}

static void
act_ask(struct child *child)
{
	recover_ask(child);
}

static void
act_ask_again(struct child *child)
{
	recover_ask_again(child);
}

static void
act_disown(struct child *child)
{
	recover_disown(child);
}

static void
act_drain(struct child *child)
{
	drain_tell(child);
	child_check_empty(child);
}

static void
act_check_empty(struct child *child)
{
	child_check_empty(child);
}

static void
act_unlink(struct child *child)
{
	child_on_unlinked(child);
}

static void
act_kill(struct child *child)
{
	child_kill(child);
}

static void
act_complain(struct child *child)
{
	child_log(child, LOG_LEVEL_ERR, "survives SIGKILL: stuck in the kernel; still waiting");
}

static void
act_bury(struct child *child)
{
	child_on_gone(child);
}

/* --- Tables ---------------------------------------------------------------------- */

/* clang-format off */
static const struct row rows[CHILD_STATE_COUNT][CHILD_EV_COUNT] = {
#define STATE(NAME, word, deadline, doc)
#define EVENT(NAME, doc)
#define T(state, event, next, action) \
	[CHILD_##state][CHILD_EV_##event] = { act_##action, CHILD_##next },
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
};

static const char *const state_names[CHILD_STATE_COUNT] = {
#define STATE(NAME, word, deadline, doc) [CHILD_##NAME] = #NAME,
#define EVENT(NAME, doc)
#define T(state, event, next, action)
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
};

static const char *const state_words[CHILD_STATE_COUNT] = {
#define STATE(NAME, word, deadline, doc) [CHILD_##NAME] = word,
#define EVENT(NAME, doc)
#define T(state, event, next, action)
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
};

static const char *const event_names[CHILD_EV_COUNT] = {
#define STATE(NAME, word, deadline, doc)
#define EVENT(NAME, doc) [CHILD_EV_##NAME] = #NAME,
#define T(state, event, next, action)
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
};

static uint64_t deadline_none(const struct child *child) { (void)child; return 0; }
static uint64_t deadline_stop(const struct child *child) { (void)child; return STOP_MS; }
static uint64_t deadline_kill(const struct child *child) { (void)child; return KILL_MS; }
/* clang-format on */

static uint64_t
deadline_unlinked(const struct child *child)
{
	return child_has_unserved(child) ? UNLINKED_UNSERVED_MS : UNLINKED_MS;
}

static uint64_t
deadline_hello(const struct child *child)
{
	if (child->state == CHILD_FOUND && !child->is_late && !endpoint_is_open(&child->ep))
		return KNOCK_MS;
	return child->sup->options.hello_timeout_ms;
}

static uint64_t
deadline_ms(const struct child *child)
{
	switch (child->state) {
/* clang-format off */
#define STATE(NAME, word, deadline, doc) case CHILD_##NAME: return deadline_##deadline(child);
#define EVENT(NAME, doc)
#define T(state, event, next, action)
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
	/* clang-format on */
	case CHILD_STATE_COUNT:
		break;
	}
	return 0;
}

/* --- The mutator ----------------------------------------------------------------- */

static const char *
what_was_late(enum child_state state)
{
	switch (state) {
	case CHILD_FOUND:
		return "it did not tell in time what it holds";
	case CHILD_STARTING:
	case CHILD_UNWANTED:
		return "it did not say HELLO in time";
	case CHILD_UNLINKED:
		return "it let go of its link and did not exit";
	default:
		return "it did not exit in time";
	}
}

static void
on_deadline(struct ev_loop *loop, ev_timer *w, int events)
{
	struct child *child = w->data;

	(void)loop;
	(void)events;
	child_step(child, CHILD_EV_DEADLINE, what_was_late(child->state));
}

static uint64_t
arm_deadline(struct child *child)
{
	struct ev_loop *loop = child->sup->loop;
	uint64_t ms = deadline_ms(child);

	ev_timer_stop(loop, &child->deadline);
	if (ms == 0)
		return 0;
	/* The loop's time can be older than the event that brought us here. */
	ev_now_update(loop);
	ev_timer_init(&child->deadline, on_deadline, (double)ms / 1000., 0.);
	child->deadline.data = child;
	ev_timer_start(loop, &child->deadline);
	return ms;
}

static enum log_level
level_of(enum child_event event, enum child_state next)
{
	switch (event) {
	case CHILD_EV_LIED:
	case CHILD_EV_HUNG:
	case CHILD_EV_DEADLINE:
		return LOG_LEVEL_WARNING;
	case CHILD_EV_LINK_LOST:
		return next == CHILD_UNLINKED ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG;
	default:
		return LOG_LEVEL_NOTICE;
	}
}

static void
log_step(const struct child *child, enum child_state from, enum child_event event,
    const char *consequence, uint64_t ms)
{
	char deadline[48] = "";

	if (ms > 0)
		snprintf(deadline, sizeof(deadline), ", deadline_ms=%" PRIu64, ms);
	child_log(child, level_of(event, child->state), "%s -> %s on %s%s%s%s", state_names[from],
	    state_names[child->state], event_names[event], consequence != NULL ? "; " : "",
	    consequence != NULL ? consequence : "", deadline);
}

static void
note_event(struct child *child, enum child_state from, enum child_event what, const char *reason)
{
	struct event event = {.is_worker = true,
	    .from = state_names[from],
	    .to = state_names[child->state],
	    .what = event_names[what]};

	snprintf(event.version, sizeof(event.version), "%s", child->version);
	snprintf(event.reason, sizeof(event.reason), "%.*s", EVENT_REASON_BYTES - 1,
	    reason != NULL ? reason : "");
	events_note(&child->sup->events, &event);
}

/* The first reason is the one that counts. */
static void
lose_patience(struct child *child, enum child_event event, const char *consequence)
{
	child->failed = true;
	child->crashed |= event != CHILD_EV_DEADLINE; /* as bad as if it had ended by itself */
	if (child->cause[0] != '\0')
		return;
	if (consequence != NULL)
		snprintf(child->cause, sizeof(child->cause), "%s", consequence);
	else
		snprintf(child->cause, sizeof(child->cause), "%s in state %s", event_names[event],
		    state_names[child->state]);
}

void
child_step(struct child *child, enum child_event event, const char *consequence)
{
	enum child_state from = child->state;
	const struct row *row = &rows[from][event];
	uint64_t ms;

	if (row->action == NULL) {
		child_log(child, LOG_LEVEL_ERR, "%s in state %s; %s", event_names[event],
		    state_names[from],
		    rows[from][CHILD_EV_LIED].action != NULL ? "the worker is not to be trusted"
							     : "ignored");
		row = &rows[from][CHILD_EV_LIED];
		event = CHILD_EV_LIED;
		if (row->action == NULL)
			return;
	}
	if (event == CHILD_EV_LIED || event == CHILD_EV_HUNG ||
	    (event == CHILD_EV_DEADLINE && from != CHILD_FOUND))
		lose_patience(child, event, consequence);
	child->sup->metrics.worker_events[event]++;
	/* Set before the action runs: an action may step again. */
	child->state = row->next;
	if (row->next == from && event != CHILD_EV_DEADLINE) {
		row->action(child);
		return;
	}
	ms = arm_deadline(child);
	log_step(child, from, event, consequence, ms);
	note_event(child, from, event, consequence);
	row->action(child);
}

void
child_fsm_start(struct child *child)
{
	uint64_t ms = arm_deadline(child);

	child_log(
	    child, LOG_LEVEL_NOTICE, "%s, deadline_ms=%" PRIu64, state_names[child->state], ms);
}

bool
child_fsm_has(enum child_state state, enum child_event event)
{
	return rows[state][event].action != NULL;
}

enum child_state
child_fsm_next(enum child_state state, enum child_event event)
{
	return child_fsm_has(state, event) ? rows[state][event].next : state;
}

const char *
child_state_name(enum child_state state)
{
	return state_names[state];
}

const char *
child_state_word(enum child_state state)
{
	return state_words[state];
}

const char *
child_event_name(enum child_event event)
{
	return event_names[event];
}

void
child_fsm_write_dot(FILE *out)
{
	fputs("digraph child {\n\trankdir=LR;\n\tnode [shape=box];\n", out);
	/* clang-format off */
#define STATE(NAME, word, deadline, doc) fprintf(out, "\t%s [tooltip=\"%s\"];\n", #NAME, doc);
#define EVENT(NAME, doc)
#define T(state, event, next, action) \
	fprintf(out, "\t%s -> %s [label=\"%s\"];\n", #state, #next, #event);
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
	/* clang-format on */
	fputs("}\n", out);
}
