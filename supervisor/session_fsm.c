/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/session_fsm.h"

#include <errno.h>

#include "common/clock.h"
#include "common/probe.h"
#include "supervisor/events.h"
#include "supervisor/fdstore.h"
#include "supervisor/metrics.h"
#include "supervisor/record.h"
#include "supervisor/session.h"
#include "supervisor/supervisor.h"
#include "supervisor/session_impl.h"
#include "supervisor/session_socket.h"

static void
act_none(struct session *session)
{
	(void)session;
}

/* From now on its VMM may connect, so its time begins. */
static void
act_opened(struct session *session)
{
	session->opened = true;
	session_arm_deadline(session);
}

/* Its time begins anew: nobody could hear its VMM for a while. */
static void
act_find_waiting(struct session *session)
{
	session->opened = true;
}

static void
act_find_serving(struct session *session)
{
	session->opened = true;
	if (session->serving_ns == 0)
		session->serving_ns = clock_now_ns();
	session_reset_counts(session);
	session_socket_close(session);
	record_save(session);
	fdstore_save(session);
}

static void
act_place(struct session *session)
{
	session->workers_lost++;
	session_place_again(session);
}

/* A second VMM must not find a socket that nobody accepts from. */
static void
act_serve(struct session *session)
{
	session->serving_ns = clock_now_ns();
	session_reset_counts(session);
	session_socket_close(session);
	record_save(session);
	fdstore_save(session);
}

/* The worker had shaken hands when it was told to let go of it.  To go on with that would close
 * the userfaultfd of a VM that lives. */
static void
act_revive(struct session *session)
{
	session->outcome = SESSION_OUTCOME_NONE;
	session->reason[0] = '\0';
	session->unserved_ns = clock_now_ns();
	act_serve(session);
}

static void
act_complete(struct session *session)
{
	struct pagemap_counts counts;

	session_counts(session, &counts);
	session->completing_ns = clock_now_ns();
	session->completing_absent = counts.absent;
	session->completion_error = 0;
	session->completion_reason[0] = '\0';
}

static void
act_stay(struct session *session)
{
	session->stayed_ns = clock_now_ns();
}

/* The descriptors stay: the kernel would fill a VM's absent pages with zeros if the
 * last holder of its userfaultfd let go. */
static void
act_hold(struct session *session)
{
	session_unplace(session);
}

static void
act_let_go(struct session *session)
{
	if (!session_send_close(session))
		session_step(session, SESSION_EV_RELEASED);
}

static void
act_insist(struct session *session)
{
	session_adopt_insist(session);
}

static void
act_adopt(struct session *session)
{
	session_adopt(session);
}

static void
act_adopt_later(struct session *session)
{
	session_adopt_later(session);
}

static void
act_resume(struct session *session)
{
	session_adopt_done(session);
}

static void
act_release(struct session *session)
{
	record_save(session);
	session_socket_close(session);
	if (!session_send_close(session))
		session_step(session, SESSION_EV_RELEASED);
}

static void
act_end(struct session *session)
{
	session_bury(session);
}

struct row {
	void (*act)(struct session *session); /* NULL: no such row */
	enum session_state next;
	enum log_level level;
	const char *text;
};

/* clang-format off */
static const struct row rows[SESSION_STATE_COUNT][SESSION_EVENT_COUNT] = {
#define STATE(NAME, live, word, doc)
#define EVENT(NAME, doc)
#define T(state, event, next, action, level, text) \
	[SESSION_##state][SESSION_EV_##event] = \
	    { act_##action, SESSION_##next, LOG_LEVEL_##level, text },
#include "supervisor/session_fsm.def"
#undef STATE
#undef EVENT
#undef T
};

static const struct {
	const char *name, *word, *doc;
	bool live;
} states[SESSION_STATE_COUNT] = {
#define STATE(NAME, live, word, doc) [SESSION_##NAME] = { #NAME, word, doc, live },
#define EVENT(NAME, doc)
#define T(state, event, next, action, level, text)
#include "supervisor/session_fsm.def"
#undef STATE
#undef EVENT
#undef T
};

static const char *const events[SESSION_EVENT_COUNT] = {
#define STATE(NAME, live, word, doc)
#define EVENT(NAME, doc) [SESSION_EV_##NAME] = #NAME,
#define T(state, event, next, action, level, text)
#include "supervisor/session_fsm.def"
#undef STATE
#undef EVENT
#undef T
};
/* clang-format on */

static void
note_event(struct session *session, enum session_state was, enum session_event what)
{
	struct event event = {
	    .from = states[was].name, .to = states[session->state].name, .what = events[what]};

	snprintf(event.object, sizeof(event.object), "%s", session->id);
	snprintf(event.version, sizeof(event.version), "%s", session->version);
	snprintf(
	    event.reason, sizeof(event.reason), "%.*s", EVENT_REASON_BYTES - 1, session->reason);
	events_note(&session->sup->events, &event);
}

int
session_step(struct session *session, enum session_event event)
{
	enum session_state was = session->state;
	const struct row *row = &rows[was][event];

	if (!row->act)
		return -EPROTO;
	session_log(session, row->level, "%s -> %s on %s%s%s; %s", states[was].name,
	    states[row->next].name, events[event], session->reason[0] ? ": " : "", session->reason,
	    row->text);
	session->state = row->next;
	metrics_session_event(session, event);
	note_event(session, was, event);
	PROBE4(session_step, session->number, session->id, states[was].name,
	    states[session->state].name);
	if (was != row->next)
		session_arm_deadline(session);
	session_mark_changed(session);
	row->act(session);
	return 0;
}

bool
session_fsm_has_row(enum session_state state, enum session_event event, enum session_state *next)
{
	const struct row *row = &rows[state][event];

	if (row->act && next)
		*next = row->next;
	return row->act != NULL;
}

bool
session_state_is_live(enum session_state state)
{
	return states[state].live;
}

const char *
session_state_name(enum session_state state)
{
	return states[state].name;
}

const char *
session_event_name(enum session_event event)
{
	return events[event];
}

const char *
session_state_word(enum session_state state)
{
	return states[state].word;
}

static void
write_diagram(FILE *out)
{
	fputs("```mermaid\nstateDiagram-v2\n\t[*] --> CREATED\n", out);
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
		for (unsigned int e = 0; e < SESSION_EVENT_COUNT; e++)
			if (rows[s][e].act && rows[s][e].next != (enum session_state)s)
				fprintf(out, "\t%s --> %s: %s\n", states[s].name,
				    states[rows[s][e].next].name, events[e]);
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
		if (!states[s].live)
			fprintf(out, "\t%s --> [*]\n", states[s].name);
	fputs("```\n\n", out);
}

void
session_fsm_write_docs(FILE *out)
{
	fputs("# The life of a session\n\n"
	      "This page is generated from `supervisor/session_fsm.def`: `make docs`.\n\n",
	    out);
	write_diagram(out);
	fputs("| state | in the API | what its VM experiences |\n|---|---|---|\n", out);
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
		fprintf(out, "| %s | `%s` | %s |\n", states[s].name, states[s].word, states[s].doc);
	fputs("\n| in state | on | to | and then |\n|---|---|---|---|\n", out);
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
		for (unsigned int e = 0; e < SESSION_EVENT_COUNT; e++)
			if (rows[s][e].act)
				fprintf(out, "| %s | %s | %s | %s |\n", states[s].name, events[e],
				    states[rows[s][e].next].name, rows[s][e].text);
}

void
session_fsm_write_dot(FILE *out)
{
	fputs("digraph session {\n\trankdir=LR;\n\tnode [shape=box];\n", out);
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
		fprintf(out, "\t%s [tooltip=\"%s\"%s];\n", states[s].name, states[s].doc,
		    states[s].live ? "" : ", peripheries=2");
	for (unsigned int s = 0; s < SESSION_STATE_COUNT; s++)
		for (unsigned int e = 0; e < SESSION_EVENT_COUNT; e++)
			if (rows[s][e].act)
				fprintf(out, "\t%s -> %s [label=\"%s\"];\n", states[s].name,
				    states[rows[s][e].next].name, events[e]);
	fputs("}\n", out);
}
