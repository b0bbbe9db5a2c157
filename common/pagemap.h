/* SPDX-License-Identifier: Apache-2.0 */
/* The page map of a session: a sealed memfd that supervisor and worker share and
 * that outlives a worker.  A header with the regions and the counters, then one
 * byte for each 4 KiB of the image.
 *
 * Only a worker writes.  The supervisor maps it read-only and trusts nothing in
 * it: the writer is unprivileged and parses what a VMM sends.  The seals keep the
 * file from shrinking, so a mapping cannot fault.
 *
 * A region of larger pages uses one byte for each of its pages, starting at the
 * byte of its first 4 KiB: see region_map_first(). */
#ifndef COMMON_PAGEMAP_H
#define COMMON_PAGEMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES	     UINT64_C(4096)
#define PAGEMAP_MAGIC	     UINT64_C(0x70616765726d6170)
#define PAGEMAP_LAYOUT	     2U
#define PAGEMAP_MAX_REGIONS  256U
#define PAGEMAP_HEADER_BYTES 16384U
#define PAGEMAP_EVENTS	     32U
#define PAGEMAP_EVENT_BYTES  32U		 /* of a struct uffd_msg */
#define PAGEMAP_MAX_PAGES    (UINT64_C(1) << 32) /* 16 TiB of guest memory */

enum page_state {
#define PAGE(NAME, value, doc) PAGE_##NAME = (value),
#include "common/page.def"
};

#define PAGE_STATE_MASK	  0x03U
#define PAGE_F_BACKGROUND 0x04U /* filled by a completion or a prefetch, not by a fault */
#define PAGE_F_DIRTY	  0x08U /* may have been written, or zeroed, since the last new picture */
#define PAGE_F_TAKEN	  0x10U /* so in that picture, which nobody has confirmed */
#define PAGE_F_SHARED	  0x20U /* filling: who began with it is not the only one */

enum counter {
#define COUNTER(NAME, ident, doc) COUNTER_##NAME,
#include "common/counters.def"
#undef COUNTER
	COUNTER_COUNT
};

/* Each counter is kept twice, so that the fault thread, which has its lane to itself,
 * counts without a locked instruction. */
enum counter_lane {
	COUNTER_LANE_FAULTS, /* written by the fault thread alone */
	COUNTER_LANE_OTHERS, /* by every other thread, atomically */
	COUNTER_LANES
};

/* One contiguous range of guest memory in the VMM's address space. */
struct region {
	uint64_t host_addr;  /* first byte, in the VMM; page_bytes aligned */
	uint64_t size_bytes; /* multiple of page_bytes, not 0 */
	uint64_t offset;     /* of the first byte in the image; page_bytes aligned */
	uint64_t page_bytes; /* 4096 or 2097152 */
};

/* Whether a page without PAGE_F_DIRTY is known to be as it was filled. */
enum pagemap_tracking {
	PAGEMAP_UNTRACKED = 0, /* the VMM has not registered write protection */
	PAGEMAP_TRACKED = 1,   /* each first write is told */
	PAGEMAP_LOST = 2,      /* each was, until some of the memory was unregistered */
};

/* At the end of the header, whatever the counters before it: all zero in a map that an older
 * worker writes, which leaves the flags of a page as they are. */
struct pagemap_track {
	_Atomic uint32_t tracking; /* enum pagemap_tracking */
	uint32_t reserved;
	_Atomic uint64_t picture;   /* number of the last new picture of the dirty pages */
	_Atomic uint64_t confirmed; /* the one that DIRTY and TAKEN are relative to; 0: the image */
};

#define PAGEMAP_TRACK_BYTES 64U

enum pagemap_timing {
#define TIMING(NAME, ident, doc) PAGEMAP_TIME_##NAME,
#include "common/timings.def"
#undef TIMING
	PAGEMAP_TIMES
};

/* Bucket 0 counts what took less than 1024 ns, each further one what took less than twice as
 * long as the one before, the last one all the rest: from 4.3 s on. */
#define PAGEMAP_BUCKETS	     24U
#define PAGEMAP_BUCKET_SHIFT 10U

struct pagemap_time {
	_Atomic uint64_t nanos; /* in total */
	_Atomic uint64_t buckets[PAGEMAP_BUCKETS];
};

/* Before struct pagemap_track, and as that: all zero in a map of an older worker.  FAULT is
 * written by the fault thread alone, the others by any thread, atomically. */
struct pagemap_timings {
	_Alignas(64) struct pagemap_time times[PAGEMAP_TIMES];
};

#define PAGEMAP_TIMINGS_BYTES 1024U

struct pagemap_header {
	uint64_t magic;
	uint32_t layout;
	_Atomic uint32_t nr_regions; /* 0 before the handshake; published last */
	uint64_t nr_pages;	     /* bytes in the map */
	struct region regions[PAGEMAP_MAX_REGIONS];
	_Alignas(64) _Atomic uint64_t counters[COUNTER_LANES][COUNTER_COUNT];
	/* Where the kernel puts the events that the fault thread reads.  A removal is told
	 * once; here the next worker finds it when this one dies before it has applied it. */
	_Alignas(64) unsigned char events[PAGEMAP_EVENTS][PAGEMAP_EVENT_BYTES];
};

_Static_assert(sizeof(struct pagemap_header) <=
	PAGEMAP_HEADER_BYTES - PAGEMAP_TRACK_BYTES - PAGEMAP_TIMINGS_BYTES,
    "header");
_Static_assert(sizeof(struct pagemap_timings) <= PAGEMAP_TIMINGS_BYTES, "timings");
_Static_assert(sizeof(struct pagemap_track) <= PAGEMAP_TRACK_BYTES, "track");

struct pagemap {
	struct pagemap_header *header; /* NULL: not mapped */
	_Atomic uint8_t *pages;	       /* nr_pages of them */
	uint64_t nr_pages;	       /* as validated when mapped, not as the header says now */
	size_t mapped_bytes;
};

struct pagemap_counts {
	uint64_t absent;
	uint64_t filling;
	uint64_t present;
	uint64_t removed;
};

/* Makes a sealed memfd for an image of image_bytes (rounded up to whole pages).
 * 0 and a descriptor that the caller owns, or a negative errno. */
int pagemap_create(uint64_t image_bytes, int *ret_fd);

/* Maps a page map and checks magic, layout, size and seals: -EPROTO when they are
 * wrong.  fd stays the caller's and is not needed afterwards. */
int pagemap_map(struct pagemap *map, int fd, bool writable);
void pagemap_unmap(struct pagemap *map);

/* Copies at most PAGEMAP_MAX_REGIONS regions out, each clipped to what the map
 * covers; a region that makes no sense is left out.  Returns how many. */
uint32_t pagemap_regions(const struct pagemap *map, struct region *regions);

/* Counts the pages of every region by state.  One linear pass: 0.1 ms for 4 GiB. */
void pagemap_count(const struct pagemap *map, struct pagemap_counts *ret);

/* The same in parts, of max_pages at most: *at is 0 at first and then where the next part
 * begins.  Adds to *ret.  True when nothing is left. */
bool pagemap_count_part(
    const struct pagemap *map, uint64_t *at, uint64_t max_pages, struct pagemap_counts *ret);

uint64_t pagemap_counter(const struct pagemap *map, enum counter counter);
const char *counter_name(enum counter counter);
const char *counter_doc(enum counter counter);
/* A sum makes no sense of it: the largest of the sessions counts (names with "max"). */
bool counter_is_max(enum counter counter);
const char *page_state_name(enum page_state state);

static inline struct pagemap_track *
pagemap_track(const struct pagemap *map)
{
	unsigned char *header = (unsigned char *)map->header;

	return (
	    struct pagemap_track *)(void *)(header + PAGEMAP_HEADER_BYTES - PAGEMAP_TRACK_BYTES);
}

static inline struct pagemap_timings *
pagemap_timings(const struct pagemap *map)
{
	unsigned char *header = (unsigned char *)map->header;

	return (struct pagemap_timings *)(void *)(header + PAGEMAP_HEADER_BYTES -
	    PAGEMAP_TRACK_BYTES - PAGEMAP_TIMINGS_BYTES);
}

static inline unsigned
pagemap_bucket(uint64_t nanos)
{
	uint64_t units = nanos >> PAGEMAP_BUCKET_SHIFT;
	unsigned bucket = units == 0 ? 0 : 64U - (unsigned)__builtin_clzll(units);

	return bucket < PAGEMAP_BUCKETS ? bucket : PAGEMAP_BUCKETS - 1;
}

static inline uint64_t
region_map_first(const struct region *r)
{
	return r->offset / PAGE_BYTES;
}

static inline uint64_t
region_nr_pages(const struct region *r)
{
	return r->size_bytes / r->page_bytes;
}

#endif
