/* SPDX-License-Identifier: Apache-2.0 */
/* What pagerctl top shows, apart from how: rows of sessions with rates between two answers. */
#ifndef SUPERVISOR_CTL_TOP_H
#define SUPERVISOR_CTL_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOP_ID_BYTES 128

enum top_sort {
	TOP_BY_FAULTS,
	TOP_BY_LATENCY,
	TOP_BY_MEMORY,
	TOP_BY_PRESENT,
	TOP_BY_ID,
	TOP_SORTS
};

struct top_row {
	char id[TOP_ID_BYTES], version[64], state[32];
	uint64_t guest_bytes, pages, present; /* present or removed: not to be fetched any more */
	uint64_t faults, fault_nanos;	      /* since it began */
	double faults_s;		      /* a second, since the last look */
	uint64_t mean_ns;		      /* of those faults; 0: there were none */
};

struct top {
	struct top_row *rows; /* owned */
	size_t nr;
	uint64_t taken_ns; /* CLOCK_MONOTONIC */
	double faults_s;   /* of all */
	uint64_t mean_ns;
	uint64_t guest_bytes, present_bytes;
};

/* Of the answer to GET /sessions, with rates since before, which may be all zero.  Live sessions
 * only.  False when it is no such answer; the result needs top_fini() in either case. */
bool top_read(struct top *ret, const struct top *before, const json_t *json, uint64_t now_ns);
void top_fini(struct top *top);
void top_sort(struct top *top, enum top_sort by);

#endif
