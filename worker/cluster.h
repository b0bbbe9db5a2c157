/* SPDX-License-Identifier: Apache-2.0 */
/* How many pages one fault fills.  Pure; one instance for each session, used by its
 * fault thread alone.
 *
 * A fault is "near" when its 64 KiB block, or the page before it, holds a page that an
 * earlier fault asked for.  The share of near faults (a moving average) is the evidence
 * of locality: a guest that touches 8 % of its pages at random has 72 % near faults,
 * and copying neighbours there would multiply its memory for nothing; beyond that the
 * neighbours are going to be used, and a cluster saves a round trip for each.  Far
 * faults bring the size down again.
 *
 * A fault that continues where an earlier fill ended is a stream and doubles on its
 * own, up to the bound, whatever the average says. */
#ifndef WORKER_CLUSTER_H
#define WORKER_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/pagemap.h"
#include "worker/region.h"

#define CLUSTER_STREAMS	   4U
#define CLUSTER_NEAR_PAGES 16U

struct cluster_stream {
	uint64_t next;	/* page map index that would continue it */
	uint32_t pages; /* of its last fill */
};

struct cluster {
	uint32_t min_pages; /* of 4 KiB; powers of two */
	uint32_t max_pages;
	uint32_t near_q16; /* share of near faults, 65536 is all */
	uint32_t oldest;   /* the stream that is replaced next */
	struct cluster_stream streams[CLUSTER_STREAMS];
};

void cluster_init(struct cluster *c, uint32_t min_pages, uint32_t max_pages);

/* The window around a faulting page: an aligned block of 2^n pages, clipped to the
 * region.  The pages in it that are absent are to be filled, the faulting one first.
 * at is a run of one page.  A stream: the guest reads on from there. */
struct run cluster_window(
    struct cluster *c, const struct pagemap *map, const struct run *at, bool *ret_is_stream);

#endif
