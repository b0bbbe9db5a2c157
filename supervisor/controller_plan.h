/* SPDX-License-Identifier: Apache-2.0 */
/* What the graduation controller does with each session: a function of the time, the
 * configuration and the facts, and of nothing else. */
#ifndef SUPERVISOR_CONTROLLER_PLAN_H
#define SUPERVISOR_CONTROLLER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct controller_config {
	bool enabled;
	bool paused; /* begins nothing */
	uint64_t min_age_ns;
	uint64_t max_concurrent;
	uint64_t timeout_ns;
	uint64_t backoff_ns;
};

enum controller_verdict {
	CONTROLLER_LEAVE,	/* none of its business */
	CONTROLLER_YOUNG,	/* not served long enough */
	CONTROLLER_BACKING_OFF, /* its last completion failed lately */
	CONTROLLER_WAIT,	/* could start, but there is no place or a pause */
	CONTROLLER_START,
	CONTROLLER_RUN,	  /* ours, under way */
	CONTROLLER_ABORT, /* ours, and must stop; its place is taken until it has */
	CONTROLLER_VERDICTS
};

/* Times are CLOCK_MONOTONIC. */
struct controller_fact {
	void *subject;			 /* the caller's */
	bool is_serving;		 /* and not being completed by anybody */
	bool is_outdated;		 /* its worker's version is not current, or drains */
	bool is_stopping;		 /* ours was told to stop already */
	uint64_t number;		 /* of its creation: decides between equals */
	uint64_t serving_ns;		 /* since when */
	uint64_t stayed_ns;		 /* when its last completion failed; 0: none has */
	uint64_t started_ns;		 /* when ours began; 0: none is under way */
	enum controller_verdict verdict; /* decided by controller_plan() */
};

struct controller_plan {
	uint64_t nr[CONTROLLER_VERDICTS]; /* facts of each verdict */
	uint64_t abort_ns; /* when the next of those under way or to be begun is late; 0: none */
};

/* Sorts the facts in the order of their turn: outdated versions before the rest, then the
 * longest served.  Gives each its verdict. */
void controller_plan(const struct controller_config *config, uint64_t now_ns,
    struct controller_fact *facts, size_t nr_facts, struct controller_plan *ret);

#endif
