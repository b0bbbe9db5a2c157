/* SPDX-License-Identifier: Apache-2.0 */
/* What a command of several steps does and has done: live on a terminal, for programs as
 * JSON, with the time of each. */
#ifndef SUPERVISOR_CTL_STEPS_H
#define SUPERVISOR_CTL_STEPS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "supervisor/ctl/ctl.h"

#define STEPS_MAX 16

enum step_outcome { STEP_DONE, STEP_SKIPPED, STEP_FAILED };

struct step {
	const char *name; /* a word */
	enum step_outcome outcome;
	uint64_t nanos;
	char *detail; /* owned */
};

struct steps {
	const struct ctl *ctl;
	bool terminal; /* they are shown as they happen */
	struct step list[STEPS_MAX];
	size_t nr;
	uint64_t started_ns, step_started_ns;
};

void steps_init(struct steps *steps, const struct ctl *ctl);
void steps_fini(struct steps *steps);

/* One after the other; what it waits for is shown while it does. */
void steps_begin(struct steps *steps, const char *name, const char *waits_for);
/* The step that was begun.  The text is what came of it. */
void steps_end(struct steps *steps, enum step_outcome outcome, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The name of the one that was begun. */
const char *steps_name(const struct steps *steps);
uint64_t steps_nanos(const struct steps *steps);

/* A string of what a VMM said, which may have been cut within a character; owned. */
json_t *steps_text(const char *text);
/* [{"step", "outcome", "nanos", "detail"}], owned by the caller. */
json_t *steps_json(const struct steps *steps);

#endif
