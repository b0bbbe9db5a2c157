/* SPDX-License-Identifier: Apache-2.0 */
/* When a recording has what it is for.  Pure.
 *
 * A guest that was restored touches many new pages at first, then fewer and fewer.  A recording
 * has settled once a whole window went by in which it grew by less than 1/64: so one of a guest
 * that goes on at one rate ends after 64 windows, and one of a burst a window after it. */
#ifndef SUPERVISOR_SETTLE_H
#define SUPERVISOR_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

/* Fewer are what a VMM touches by itself when it loads a snapshot: the guest has not begun. */
#define SETTLE_MIN_PAGES 64U
#define SETTLE_SHARE	 64U

struct settle {
	uint64_t since_ns;    /* when it had grown enough last */
	uint64_t since_pages; /* and what it had then */
};

/* Tells it how many pages are recorded now; true when that has settled. */
bool settle_step(struct settle *settle, uint64_t now_ns, uint64_t pages, uint64_t window_ns);

#endif
