/* SPDX-License-Identifier: Apache-2.0 */
/* States and events of a session, expanded from session_fsm.def. */
#ifndef SUPERVISOR_SESSION_FSM_H
#define SUPERVISOR_SESSION_FSM_H

#include <stdbool.h>
#include <stdio.h>

struct session;

enum session_state {
#define STATE(NAME, live, word, doc) SESSION_##NAME,
#define EVENT(NAME, doc)
#define T(state, event, next, action, level, text)
#include "supervisor/session_fsm.def"
#undef STATE
#undef EVENT
#undef T
	SESSION_STATE_COUNT
};

enum session_event {
#define STATE(NAME, live, word, doc)
#define EVENT(NAME, doc) SESSION_EV_##NAME,
#define T(state, event, next, action, level, text)
#include "supervisor/session_fsm.def"
#undef STATE
#undef EVENT
#undef T
	SESSION_EVENT_COUNT
};

/* The only writer of session->state: looks the row up, logs it, sets the state, acts.
 * The state is set first because an action may step again.  0, or -EPROTO when the
 * event has no row in this state: nothing changed, the caller decides. */
int session_step(struct session *session, enum session_event event);

/* Whether session_step() would find a row; next (may be NULL) gets its state. */
bool session_fsm_has_row(
    enum session_state state, enum session_event event, enum session_state *next);

/* Not a tombstone. */
bool session_state_is_live(enum session_state state);

/* "CREATED", for the log. */
const char *session_state_name(enum session_state state);
const char *session_event_name(enum session_event event);

/* "created", the API's word.  A session that the worker is letting go of is "closed". */
const char *session_state_word(enum session_state state);

/* The picture of the table, for the documents. */
void session_fsm_write_dot(FILE *out);
/* The same as a page of Markdown, with the tables. */
void session_fsm_write_docs(FILE *out);

#endif
