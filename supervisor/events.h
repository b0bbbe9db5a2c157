/* SPDX-License-Identifier: Apache-2.0 */
/* The last transitions of sessions and workers, for who follows them.  A ring: whoever reads too
 * slowly is told that there is a gap, and costs nothing.
 *
 * Numbers count up from the time of the start, so that they never come back, not even with the
 * next supervisor. */
#ifndef SUPERVISOR_EVENTS_H
#define SUPERVISOR_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/version.h"

#define EVENTS_KEPT	   1024U
#define EVENT_OBJECT_BYTES 128
#define EVENT_REASON_BYTES 160

struct event {
	uint64_t number;
	uint64_t time_ms;		 /* since 1970 */
	bool is_worker;			 /* a session otherwise */
	char object[EVENT_OBJECT_BYTES]; /* the session's id; empty for a worker */
	char version[VERSION_BYTES];
	const char *from, *to, *what; /* names of states and of the event; static */
	char reason[EVENT_REASON_BYTES];
};

struct events {
	struct event *ring; /* owned; NULL before the first one */
	uint64_t first;	    /* number of the oldest that is kept */
	uint64_t next;	    /* of the next one; 0: not started */
};

void events_fini(struct events *events);

/* For session_step() and child_step(): adds a copy, which gets its number and its time. */
void events_note(struct events *events, const struct event *noted);

/* The number of the newest, also before there is any. */
uint64_t events_last(struct events *events);
/* The first one after that number, or NULL.  *ret_gap: others were between. */
const struct event *events_after(struct events *events, uint64_t number, bool *ret_gap);

#endif
