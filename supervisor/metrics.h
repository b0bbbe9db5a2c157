/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for monitoring, in the text format of Prometheus.
 *
 * Workers count in the page maps, one session at a time.  Here that becomes one account for each
 * version that only grows: what a session has counted since it was looked at last is added to the
 * version that serves it, before it changes its version and before its page map goes.  So a
 * worker's death takes nothing away, and neither does the end of a session. */
#ifndef SUPERVISOR_METRICS_H
#define SUPERVISOR_METRICS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/list.h"
#include "common/pagemap.h"
#include "common/version.h"
#include "supervisor/child_fsm.h"
#include "supervisor/session_fsm.h"

struct session;
struct supervisor;

#define METRICS_OUTCOMES 8 /* at least as many as there are in enum session_outcome */

/* Buckets as those of a struct pagemap_time. */
struct metrics_time {
	uint64_t nanos;
	uint64_t buckets[PAGEMAP_BUCKETS];
};

/* What was counted, of a session or for a version. */
struct metrics_counts {
	uint64_t counters[COUNTER_COUNT];
	struct metrics_time times[PAGEMAP_TIMES];
};

struct metrics_version {
	struct list link; /* metrics.versions */
	char version[VERSION_BYTES];
	uint64_t deaths;
	struct metrics_counts counts;
};

struct metrics {
	struct list versions; /* of struct metrics_version.link; freed by metrics_fini() */
	uint64_t session_events[SESSION_EVENT_COUNT];
	uint64_t worker_events[CHILD_EV_COUNT];
	uint64_t outcomes[METRICS_OUTCOMES];
	struct metrics_time adoption, handover;
	uint64_t counted; /* number of the session whose pages were counted last */
};

/* All zero is as good. */
void metrics_init(struct metrics *metrics);
void metrics_fini(struct metrics *metrics);

/* The version has an account from now on. */
void metrics_know(struct metrics *metrics, const char *version);
/* Adds what the session has counted since the last call to its version's account. */
void metrics_collect(struct session *session);
/* What it has counted so far is another supervisor's. */
void metrics_begin(struct session *session);
/* What session_step() applies. */
void metrics_session_event(struct session *session, enum session_event event);
/* It is served again; nobody did for so long. */
void metrics_resumed(struct session *session, uint64_t nanos);
void metrics_worker_died(struct supervisor *sup, const char *version);

/* Allocated; the caller frees it.  NULL: no memory. */
char *metrics_text(struct supervisor *sup, size_t *ret_bytes);

/* A page about every metric. */
void metrics_write_docs(FILE *out);

#endif
