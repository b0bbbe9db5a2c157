/* SPDX-License-Identifier: Apache-2.0 */
/* The lane of faults whose page is not in memory: a bounded queue and a few threads
 * of the session's own that may wait for its storage.  A page waits once however
 * often it faults.  When the queue is full, faults are forgotten on purpose, also those
 * that wait only because their read failed, and every waiter is woken later, so that the
 * kernel raises them again: no page that cannot be read keeps others waiting. */
#ifndef WORKER_IOLANE_H
#define WORKER_IOLANE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/region.h"

#define IOLANE_SLOTS 256U
/* A read that is stuck must not hold up the session's others: a guest waits for one page with
 * each of its processors.  Of large pages, each of which takes a buffer, it has fewer. */
#define IOLANE_THREADS	    16U
#define IOLANE_THREADS_HUGE 4U

struct session;

struct iolane_slot {
	struct run page; /* one page; nr is 0 in a free slot */
	uint64_t due_ns; /* not before: back-off after a failed read */
	uint32_t tries;
	_Atomic uint32_t failed; /* reads of the image that failed, so far without poison */
	bool is_poisoned;	 /* and is tried again so that it heals */
	bool busy;		 /* a thread has it, which alone writes the three above */
	bool again;		 /* and it faulted meanwhile */
};

struct iolane {
	pthread_mutex_t mutex; /* everything below */
	pthread_cond_t work;
	unsigned threads;
	unsigned used;
	bool overflow; /* a fault was forgotten: wake everybody when there is room */
	bool stop;
	struct iolane_slot slots[IOLANE_SLOTS];
};

void iolane_init(struct iolane *lane);
void iolane_fini(struct iolane *lane);

/* From the fault thread: takes over the fault on page (a run of one page).  False when no
 * thread can be had for it: the fault stays the caller's. */
bool iolane_add(struct session *s, const struct run *page);

/* Ends the threads; one that waits for storage ends when the storage answers. */
void iolane_stop(struct iolane *lane);

#endif
