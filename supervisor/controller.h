/* SPDX-License-Identifier: Apache-2.0 */
/* The graduation controller: completes sessions without being asked, so that outdated
 * versions drain.  What it does with whom is decided by controller_plan(); here that is
 * done, watched and counted. */
#ifndef SUPERVISOR_CONTROLLER_H
#define SUPERVISOR_CONTROLLER_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"

struct supervisor;

enum controller_count {
#define COUNT(NAME, ident, KIND, doc) CONTROLLER_COUNT_##NAME,
#include "supervisor/controller.def"
#undef COUNT
	CONTROLLER_COUNTS
};

struct controller {
	struct supervisor *sup;
	struct list attempts; /* of struct controller_attempt.link: what it has under way */
	ev_timer timer;	      /* the next look */
	bool due;	      /* something changed: look at the end of this loop turn */
	bool was_enabled;
	bool is_paused;			    /* by memory pressure */
	bool is_blind;			    /* the pressure cannot be read, which was said */
	uint64_t totals[CONTROLLER_COUNTS]; /* of the kind TOTAL */
};

void controller_init(struct controller *controller, struct supervisor *sup);
/* Before the sessions go.  What is under way goes on in the workers. */
void controller_fini(struct controller *controller);

/* Something that it decides by has changed: a version drains, an option is another. */
static inline void
controller_kick(struct controller *controller)
{
	controller->due = true;
}

/* At the end of a loop turn, after the waits were told.  True: sessions have changed, so
 * that waits have to be told again. */
bool controller_step(struct controller *controller);

/* Every count, at this moment. */
void controller_counts(const struct controller *controller, uint64_t ret[CONTROLLER_COUNTS]);
const char *controller_count_name(enum controller_count count);

#endif
