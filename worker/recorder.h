/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which a guest touches its pages first: the fault thread appends the page of
 * each fault that the image answers to a trace, which the supervisor reads.  While a session
 * is recorded, a fault fills its own page alone: a neighbour that was filled along with it
 * would be touched without a sign. */
#ifndef WORKER_RECORDER_H
#define WORKER_RECORDER_H

#include <stddef.h>

#include "common/trace.h"

struct session;
struct uffd_msg;

struct recorder {
	struct trace trace;
	int fd; /* owned; for a supervisor that asks */
};

/* Control thread: records into the trace in *fd, which is taken over when it succeeds, in
 * place of any before.  0 or a negative errno.  Waits for the copy lock. */
int recorder_start(struct session *s, int *fd);
void recorder_stop(struct session *s);

/* Fault thread, the copy lock is held: the removals among the events are applied. */
void recorder_note(struct session *s, const struct uffd_msg *msgs, size_t nr);

#endif
