/* SPDX-License-Identifier: Apache-2.0 */
/* The guest: a few hundred bytes of machine code that touches, checks and writes
 * guest memory.  One C function serves both engines: under KVM it is copied into
 * the scratch slot and run by a vCPU, otherwise a thread calls it.
 *
 * A job travels in a parameter page that the host fills before a run and reads
 * after it.  Every address in it is the guest's own: guest-physical under KVM, a
 * plain pointer for a thread. */
#ifndef TESTS_VMM_GUEST_H
#define TESTS_VMM_GUEST_H

#include <stdint.h>

#include "tests/vmm/order.h"
#include "tests/vmm/pattern.h"

#define GUEST_MAX_REGIONS 2
#define GUEST_MAX_REPORTS 16
#define GUEST_MAX_STALLS  64

/* Histogram of touch times in cycles: powers of two, 32 steps in each. */
#define GUEST_HIST_STEPS   UINT64_C(32)
#define GUEST_HIST_BUCKETS (UINT64_C(60) * GUEST_HIST_STEPS)

/* A latency slot of a page that was left out. */
#define GUEST_NO_LATENCY UINT64_MAX

/* The model has one such word for each page: what the page must hold now. */
#define MODEL_VERSION_MASK UINT32_C(0x3fffffff)
#define MODEL_ZERO	   UINT32_C(0x3fffffff) /* instead of a version: discarded */
#define MODEL_WRITING	   UINT32_C(0x40000000) /* a vCPU is writing it: anything goes */
#define MODEL_DISCARDING   UINT32_C(0x80000000) /* each word is old or zero */
#define MODEL_BUSY	   (MODEL_WRITING | MODEL_DISCARDING)

enum guest_command {
	GUEST_NOP,
	GUEST_WARM,  /* touch the arrays of the scratch memory only */
	GUEST_TOUCH, /* read, timed; then check every word */
	GUEST_WRITE, /* write one word, timed; check the rest; then write every word */
};

enum guest_flag {
	GUEST_F_FIRST_ONLY = 1, /* check the touched word only */
	GUEST_F_ALL_TOUCH = 2,	/* the vCPUs do not share the pages out: each touches every one */
	GUEST_F_ENDLESS = 4,	/* until stop is set */
	GUEST_F_WRITE_SOME = 8, /* endless: rewrite every fourth page that this vCPU owns */
};

struct guest_region {
	uint64_t addr;
	uint64_t first_page; /* of the whole memory, in pages of 4 KiB */
	uint64_t nr_pages;
};

struct guest_report {
	uint64_t page;
	uint64_t word;
	uint64_t expected;
	uint64_t found;
	uint64_t wrong_words; /* in the page, this one included */
};

/* A touch that took long. */
struct guest_stall {
	uint64_t end; /* reading of the guest's own cycle counter */
	uint64_t cycles;
};

struct guest_params {
	/* The job: the host writes, the guest reads. */
	uint64_t command; /* enum guest_command */
	uint64_t flags;	  /* enum guest_flag */
	struct pattern pattern;
	struct order order;
	uint64_t count; /* pages to visit, of all vCPUs together unless GUEST_F_ALL_TOUCH */
	uint64_t rank;	/* of this vCPU among those that run the job */
	uint64_t nr_ranks;
	uint64_t version; /* of what is written; endless: plus the number of the pass */
	uint64_t nr_regions;
	struct guest_region regions[GUEST_MAX_REGIONS];
	uint64_t model;	       /* uint32_t for each page */
	uint64_t latencies;    /* uint64_t for each visit, in cycles; 0: use the histogram */
	uint64_t burst;	       /* endless: so many visits a run, then the doorbell; 0: until stop */
	uint64_t stall_cycles; /* touches of at least this many cycles are stalls */
	uint64_t warm_start;   /* GUEST_WARM: this range of the scratch memory */
	uint64_t warm_bytes;
	uint64_t stop; /* the host sets it while the guest runs */

	/* The outcome: the guest writes; progress may be read at any time. */
	uint64_t epoch;	   /* the cycle counter when the run began */
	uint64_t cursor;   /* endless: where in the order the next run goes on */
	uint64_t progress; /* pages visited */
	uint64_t passes;
	uint64_t wrong;	  /* words */
	uint64_t raced;	  /* pages left unchecked: they changed under every try */
	uint64_t skipped; /* pages left unwritten: they were being discarded */
	uint64_t written;
	uint64_t max_cycles;
	uint64_t nr_stalls; /* of the job; the last GUEST_MAX_STALLS are kept */
	uint64_t nr_reports;
	struct guest_stall stalls[GUEST_MAX_STALLS];
	struct guest_report reports[GUEST_MAX_REPORTS];
	uint64_t hist[GUEST_HIST_BUCKETS];
};

pattern_inline uint64_t
guest_hist_bucket(uint64_t cycles)
{
	uint64_t shift;

	if (cycles < GUEST_HIST_STEPS)
		return cycles;
	shift = 63 - (uint64_t)__builtin_clzll(cycles) - 5;
	if (shift > 57)
		shift = 57;
	return (shift + 1) * GUEST_HIST_STEPS + ((cycles >> shift) & (GUEST_HIST_STEPS - 1));
}

/* The largest count of cycles that falls into a bucket. */
pattern_inline uint64_t
guest_hist_upper(uint64_t bucket)
{
	uint64_t shift;

	if (bucket < GUEST_HIST_STEPS)
		return bucket;
	shift = bucket / GUEST_HIST_STEPS - 1;
	return ((GUEST_HIST_STEPS + bucket % GUEST_HIST_STEPS + 1) << shift) - 1;
}

/* Content that a page must have while its model word is m (busy bits ignored). */
pattern_inline struct pattern_words
guest_expected(const struct pattern *p, uint64_t page, uint32_t m)
{
	struct pattern_words zero = {0, 0};
	uint32_t version = m & MODEL_VERSION_MASK;

	if (version == MODEL_ZERO)
		return zero;
	return version == 0 ? pattern_image(p, page) : pattern_data(p, page, version);
}

/* Runs the job in params to its end.  All that it needs is in params. */
void guest_execute(struct guest_params *params);

/* Where a vCPU starts, with the parameter page in RDI: runs one job after another
 * and rings the doorbell (a store to an address without memory) after each. */
void guest_start(struct guest_params *params);

#define GUEST_DOORBELL_ADDR UINT64_C(0xd0000000)

/* The section that holds both, position independent. */
extern const char __start_guest_text[];
extern const char __stop_guest_text[];

#endif
