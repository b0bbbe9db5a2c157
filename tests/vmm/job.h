/* SPDX-License-Identifier: Apache-2.0 */
/* A job of the vCPUs, from a parsed command to the numbers of its answer. */
#ifndef TESTS_VMM_JOB_H
#define TESTS_VMM_JOB_H

#include "tests/vmm/vmm.h"

struct job {
	enum guest_command command;
	uint64_t flags; /* enum guest_flag */
	struct order order;
	uint64_t count;
	uint32_t first_vcpu;
	uint32_t nr_vcpus;
	uint32_t version;
	uint64_t period_us; /* endless: a burst each period; 0: without rest */
	uint64_t burst;	    /* pages */
	uint64_t stall_us;  /* longer touches are kept as stalls; 0: none */
};

struct job_times {
	uint64_t samples;
	double mean_us;
	double p50_us;
	double p90_us;
	double p99_us;
	double p999_us;
	double max_us;
	uint64_t over_1ms;
	uint64_t over_5ms;
	uint64_t decades[32]; /* touches of at most 2^i us, and more than half of it */
};

struct job_outcome {
	uint64_t visited;
	uint64_t passes; /* the most of any vCPU */
	uint64_t wrong;
	uint64_t raced;
	uint64_t skipped;
	uint64_t written;
	double wall_us;
	struct job_times times;
	int error; /* negative errno of a vCPU */
	uint32_t error_vcpu;
};

void job_start(struct vmm *vmm, const struct job *job);
void job_stop(struct vmm *vmm, const struct job *job);
/* Pages visited and wrong words so far, while it runs. */
void job_progress(
    const struct vmm *vmm, const struct job *job, uint64_t *ret_visited, uint64_t *ret_wrong);
/* Whether each vCPU has visited two pages more than when since[] was taken: then it has
 * begun and ended a visit in between. */
void job_pulse(const struct vmm *vmm, const struct job *job, uint64_t since[VMM_MAX_VCPUS]);
bool job_has_pulse(
    const struct vmm *vmm, const struct job *job, const uint64_t since[VMM_MAX_VCPUS]);
/* The touches since the last lap, or since the start, while it runs; the times are the
 * histogram's. */
void job_lap(struct vmm *vmm, const struct job *job, struct job_times *ret);
/* After the last vCPU has ended. */
void job_collect(struct vmm *vmm, const struct job *job, struct job_outcome *ret);
/* Wrong words to stderr; lines beyond a bound for the life of the process are left out. */
void job_print_reports(const struct vmm *vmm, const struct job *job);

#endif
