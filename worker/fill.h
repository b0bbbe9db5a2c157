/* SPDX-License-Identifier: Apache-2.0 */
/* Putting pages into a guest.  The order that keeps a crash from becoming zeros
 * where the image belongs is in fill_run() and nowhere else. */
#ifndef WORKER_FILL_H
#define WORKER_FILL_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/region.h"

struct session;

enum fill_result {
	FILL_DONE,	/* nothing of the run is absent any more */
	FILL_AGAIN,	/* a removal is pending: read events first */
	FILL_STALE,	/* its first page may not be filled from the image (any more) */
	FILL_GONE,	/* the VMM has exited */
	FILL_NO_RANGE,	/* the kernel knows no such registered range */
	FILL_NO_MEMORY, /* try again later */
	/* Of a huge page the kernel says that it is there, which it also says when it has no
	 * huge page left (mm/hugetlb.c, hugetlb_mfill_atomic_pte).  Who waited was woken, and
	 * faults again if it is not. */
	FILL_MAYBE,
	FILL_BAD_SOURCE, /* the image could not be read */
	FILL_FAILED,	 /* see error */
};

/* The copy lock is held for all but the first two. */
enum fill_why {
	FILL_FOR_FAULT, /* by the fault thread */
	FILL_FOR_WRITE, /* the same, for a guest that is about to write to the run's one page */
	FILL_FOR_READ,	/* for a fault, by a thread that waited for its page */
	FILL_FOR_BACKGROUND, /* for nobody */
};

struct fill {
	uint64_t nr_done; /* pages from the start of the run that are there now */
	int error;	  /* positive errno behind a result that is not done; 0: none */
};

/* Fills the pages of run with the bytes at src (NULL: zeros, for a hole of the image)
 * and wakes who waits.  Only pages that the map calls absent or filling: the run ends
 * early, with FILL_STALE, before one that is not. */
enum fill_result fill_run(
    struct session *s, const struct run *run, const void *src, enum fill_why why, struct fill *ret);

/* Settles the pages of run, which are a hole of the image, without asking the kernel: what faults
 * on a present page gets, and what the kernel gives once nothing is registered, is zeros. */
void fill_hole(struct session *s, const struct run *run);

/* Answers a missing fault on a page that was populated or removed before: zeros. */
enum fill_result fill_again(struct session *s, const struct run *page, struct fill *ret);

/* Answers a fault on a page that is not missing but not mapped: the VMM's memory file has it, and
 * the VMM wants to be told of that, too.  It is present from now on, whoever has put it there. */
enum fill_result fill_map(struct session *s, const struct run *page, struct fill *ret);

/* Answers a write fault on a page that is protected: it is dirty from now on. */
enum fill_result fill_allow_write(struct session *s, const struct run *page, struct fill *ret);

/* Makes a page of which the image gave no bytes poison, so that the VMM stops at it instead of
 * waiting.  The copy lock is held.  The map does not change: the page stays absent, and a fill
 * heals it.  FILL_STALE: it was filled or removed meanwhile, and who waits was woken; FILL_FAILED
 * with EINVAL: this kernel cannot. */
enum fill_result fill_poison(struct session *s, const struct run *page, struct fill *ret);

/* After FILL_MAYBE, by a background thread under the copy lock, when there should be memory: asks
 * the kernel in a way that needs none.  FILL_DONE: the page is there, and the map says so now;
 * FILL_NO_MEMORY: it is not. */
enum fill_result fill_verify(struct session *s, const struct run *page, struct fill *ret);

#endif
