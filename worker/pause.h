/* SPDX-License-Identifier: Apache-2.0 */
/* Short waits of background threads, for what the kernel gives no event: a removal that is
 * nearly over, memory that is short.  Never in the control or a fault thread. */
#ifndef WORKER_PAUSE_H
#define WORKER_PAUSE_H

#include <stdint.h>
#include <time.h>

#include "common/clock.h"

static inline void
pause_ns(uint64_t ns)
{
	struct timespec ts = {
	    .tv_sec = (time_t)(ns / NS_PER_S),
	    .tv_nsec = (long)(ns % NS_PER_S),
	};

	clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

#endif
