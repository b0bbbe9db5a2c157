/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-over: sessions go to another version while they are served, each by the way that a
 * crash takes (session_move()) with both workers alive.  A few at a time: while a session is
 * between its workers its VM's new faults wait, and those of one worker are let go of and
 * taken over one after the other.
 *
 * A worker of the version is started when none runs.  One that is not current drains again
 * as soon as it has its sessions. */
#ifndef SUPERVISOR_HANDOFF_H
#define SUPERVISOR_HANDOFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;
struct supervisor;

struct handoff_result {
	uint64_t moved;	 /* are served by the version now */
	uint64_t failed; /* are not; served by another version, held, or not moved at all */
	uint64_t left;	 /* could not be moved: waiting for a VMM, being completed, or held */
	int error;	 /* 0, or a negative errno: no worker of the version came up */
	char why[512];	 /* of the last failure, in words; empty when there was none */
};

/* Called once, from the loop. */
typedef void (*handoff_done_fn)(void *arg, const struct handoff_result *result);

/* Moves one session.  0: done will be called, later.  Otherwise a negative errno and a sentence: -EALREADY it is there, -EINVAL it is in
 * a state that does not allow it, -ENOENT the version is neither running nor installed,
 * -ESHUTDOWN pagerd is stopping. */
int handoff_session(struct session *session, const char *version, handoff_done_fn done, void *arg,
    char *why, size_t why_bytes);

/* Moves every session of the version from, or of all others when that is NULL, that is
 * served when a worker of the version to is ready.  Errors as above. */
int handoff_version(struct supervisor *sup, const char *from, const char *to, handoff_done_fn done,
    void *arg, char *why, size_t why_bytes);

/* The caller went away: what was begun goes on, done is not called. */
void handoff_forget(struct supervisor *sup, void *arg);

void handoffs_init(struct supervisor *sup);
/* Forgets all, without calling done.  Before the sessions go. */
void handoffs_fini(struct supervisor *sup);
/* At the end of a loop turn, after the waits were told and before the fleet frees the dead.
 * True: sessions have changed, so that waits have to be told again. */
bool handoffs_step(struct supervisor *sup);

#endif
