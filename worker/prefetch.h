/* SPDX-License-Identifier: Apache-2.0 */
/* Filling what the guest is expected to touch, in that order, behind its faults: a thread of
 * idle priority replays a plan (common/trace.h) that the supervisor made of a hot list, from
 * the handshake on.  It says in the plan how far it is.  An adopter begins at its start
 * again and passes over what is there.
 *
 * Before the storage has to be waited for, the kernel is asked to read ahead: further ahead
 * than the copies are.  The beginning of a plan whose first page is not in memory is asked for
 * at once by a thread of normal priority, which then ends: on a busy machine an idle one would
 * be late, and the guest's faults would wait for storage instead. */
#ifndef WORKER_PREFETCH_H
#define WORKER_PREFETCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/trace.h"

struct ipc_session_trace;
struct session;

/* Bytes that are copied at a time: the fault thread waits no longer than for these. */
#define PREFETCH_CHUNK_BYTES (UINT64_C(32) * 1024)

struct prefetch {
	struct trace plan;
	int fd; /* owned; for a supervisor that asks */
	uint64_t rate_bytes;
	uint32_t sample;    /* one page in so many is left out; 0: none */
	bool is_begun;	    /* its thread was started, once */
	bool has_head;	    /* threads; fixed before: another thread reads its beginning ahead */
	_Atomic bool abort; /* threads: stop at the next chunk */
	char why[256];	    /* threads: of a failure, in words */
};

/* Control thread: gives the session the plan in *fd, which is taken over when it succeeds.  0;
 * -EEXIST it has one; or another negative errno.  It is replayed as soon as, and as long as,
 * the session is served. */
int prefetch_set(struct session *s, const struct ipc_session_trace *msg, int *fd);
/* Starts the thread if there is a plan that was not begun.  The session is served. */
void prefetch_begin(struct session *s);
void prefetch_abort(struct session *s);
/* Logs how it ended, once its thread has posted that. */
void prefetch_report(const struct session *s);
void prefetch_free(struct session *s);

#endif
