/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of a child, expanded from child_fsm.def. */
#ifndef SUPERVISOR_CHILD_FSM_H
#define SUPERVISOR_CHILD_FSM_H

#include <stdbool.h>
#include <stdio.h>

struct child;

enum child_state {
#define STATE(NAME, word, deadline, doc) CHILD_##NAME,
#define EVENT(NAME, doc)
#define T(state, event, next, action)
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
	CHILD_STATE_COUNT
};

enum child_event {
#define STATE(NAME, word, deadline, doc)
#define EVENT(NAME, doc) CHILD_EV_##NAME,
#define T(state, event, next, action)
#include "supervisor/child_fsm.def"
#undef STATE
#undef EVENT
#undef T
	CHILD_EV_COUNT
};

/* The only writer of child->state: looks the row up, logs, sets the state, arms the
 * state's deadline, then acts.  consequence is a few words for the log that say why or
 * what follows; NULL for none.  An event without a row counts as LIED. */
void child_step(struct child *child, enum child_event event, const char *consequence);

/* There is a row. */
bool child_fsm_has(enum child_state state, enum child_event event);
/* The next state; state itself when there is no row. */
enum child_state child_fsm_next(enum child_state state, enum child_event event);

/* "STARTING", for the log. */
const char *child_state_name(enum child_state state);
/* "starting", for clients. */
const char *child_state_word(enum child_state state);
const char *child_event_name(enum child_event event);

/* The picture, in graphviz' language. */
void child_fsm_write_dot(FILE *out);

#endif
