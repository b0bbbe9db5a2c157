/* SPDX-License-Identifier: Apache-2.0 */
/* Free page hinting before a pause: the guest gives back what it does not use, so that the
 * snapshot need not hold it.  A favour: nothing here may fail a pause. */
#ifndef SUPERVISOR_CTL_BALLOON_H
#define SUPERVISOR_CTL_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/ctl/firecracker.h"

/* How a run that was begun looks to who asks: the two members of a hinting status.
 *
 * A snapshot keeps them, so that they may hold the values of a run of long ago; and a start
 * gives host_cmd a number above 1 before it is answered.  What is read after that answer is of
 * our run or later:
 *	host_cmd = guest_cmd = N	the guest gives back pages
 *	host_cmd = 1			it is over, and was told so
 *	host_cmd = N, guest_cmd = 0	over, or not begun and 0 is of an earlier run: over only
 *					when the guest was seen at N */
struct balloon_run {
	uint32_t seen; /* the N at which the guest was seen, 0 for none */
};

enum balloon_progress { BALLOON_WAITS, BALLOON_RUNS, BALLOON_OVER };

/* guest_cmd < 0: the guest has never answered. */
enum balloon_progress balloon_look(struct balloon_run *run, int64_t host_cmd, int64_t guest_cmd);

/* A whole run.  True when it was over in time; else why not, in why: skipped, or stopped. */
bool balloon_drain(struct fc *fc, uint64_t deadline_ns, char *why, size_t why_bytes);

#endif
