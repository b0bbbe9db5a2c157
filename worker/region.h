/* SPDX-License-Identifier: Apache-2.0 */
/* The registered ranges of one session, by address.  Pure: no system call. */
#ifndef WORKER_REGION_H
#define WORKER_REGION_H

#include <stdint.h>

#include "common/pagemap.h"

struct region_table {
	uint32_t nr;
	struct region rows[PAGEMAP_MAX_REGIONS]; /* sorted by host_addr, not overlapping */
};

/* A run of pages inside one region. */
struct run {
	const struct region *region;
	uint64_t first; /* page number inside the region */
	uint64_t nr;	/* pages */
};

void region_table_init(struct region_table *table, const struct region *rows, uint32_t nr);

/* The region that holds addr, or NULL. */
const struct region *region_find(const struct region_table *table, uint64_t addr);

static inline uint64_t
run_host(const struct run *run)
{
	return run->region->host_addr + run->first * run->region->page_bytes;
}

static inline uint64_t
run_offset(const struct run *run)
{
	return run->region->offset + run->first * run->region->page_bytes;
}

static inline uint64_t
run_bytes(const struct run *run)
{
	return run->nr * run->region->page_bytes;
}

/* Index of its first page in the page map. */
static inline uint64_t
run_map(const struct run *run)
{
	return region_map_first(run->region) + run->first;
}

#endif
