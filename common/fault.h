/* SPDX-License-Identifier: Apache-2.0 */
/* Fault points: places where a test makes this process fail, die or pause.
 *
 * PAGER_FAULT is a comma-separated list of NAME[=TEXT][:N][!action].  The point strikes
 * at its Nth pass (default 1) and only then; N of 0 means every pass.  With a TEXT only
 * the passes count at which the code is busy with what is called so (fault_named()).
 *   !err    fault() returns true and the code takes its error path (the default)
 *   !kill   SIGKILL to this process, at that instruction
 *   !crash  SIGABRT, as a bug of its own would
 *   !pause  raise(SIGSTOP): the test looks around, then continues it by SIGCONT
 *   !hold   this thread alone waits, for a SIGUSR2 to it (tgkill); the others go on
 * Without PAGER_FAULT a point costs one load and one branch. */
#ifndef COMMON_FAULT_H
#define COMMON_FAULT_H

#include <stdbool.h>
#include <stddef.h>

enum fault_point {
#define FAULT(NAME, doc) FAULT_##NAME,
#include "common/fault.def"
#undef FAULT
	FAULT_COUNT
};

/* Parses PAGER_FAULT from the environment.  0, or -EINVAL on a word it does not
 * know.  Call it before the first thread and before the sandbox. */
int fault_init(void);

extern bool fault_armed;

/* name may be NULL. */
bool fault_strike(enum fault_point point, const char *name);

/* True when the caller must take its error path now. */
static inline bool
fault(enum fault_point point)
{
	return __builtin_expect(fault_armed, 0) && fault_strike(point, NULL);
}

/* The same, of a point that can be meant for one of many. */
static inline bool
fault_named(enum fault_point point, const char *name)
{
	return __builtin_expect(fault_armed, 0) && fault_strike(point, name);
}

#endif
