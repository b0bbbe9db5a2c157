/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vmm/job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPORT_LINES 64

/* The histogram at the last lap. */
static uint64_t lap_base[GUEST_HIST_BUCKETS];

static uint64_t
nr_visits(const struct job *job)
{
	return (job->flags & GUEST_F_ALL_TOUCH) != 0 ? job->count * job->nr_vcpus : job->count;
}

static bool
has_latencies(const struct vmm *vmm, const struct job *job)
{
	return (job->flags & GUEST_F_ENDLESS) == 0 && nr_visits(job) <= vmm->scratch.max_latencies;
}

static struct guest_params *
params_of(const struct vmm *vmm, const struct job *job, uint32_t rank)
{
	return vmm->vcpus[job->first_vcpu + rank].params;
}

void
job_start(struct vmm *vmm, const struct job *job)
{
	uint64_t stall_cycles = UINT64_MAX;
	uint32_t rank;

	if (job->stall_us > 0)
		stall_cycles = (uint64_t)((double)job->stall_us * vmm_cycles_per_us(vmm));
	for (rank = 0; rank < job->nr_vcpus; rank++) {
		struct guest_params *p = params_of(vmm, job, rank);

		p->command = job->command;
		p->flags = job->flags;
		p->order = job->order;
		if ((job->flags & GUEST_F_ENDLESS) != 0)
			p->order.seed += rank;
		p->count = job->count;
		p->rank = rank;
		p->nr_ranks = job->nr_vcpus;
		p->version = job->version;
		p->latencies =
		    has_latencies(vmm, job) ? scratch_guest_addr(vmm, vmm->scratch.latencies) : 0;
		p->burst = job->period_us > 0 ? job->burst : 0;
		p->stall_cycles = stall_cycles;
		p->stop = 0;
		p->cursor = 0;
		p->progress = 0;
		p->passes = 0;
		p->wrong = 0;
		p->raced = 0;
		p->skipped = 0;
		p->written = 0;
		p->max_cycles = 0;
		p->nr_stalls = 0;
		p->nr_reports = 0;
		memset(p->hist, 0, sizeof(p->hist));
		vmm->vcpus[job->first_vcpu + rank].period_us = job->period_us;
	}
	memset(lap_base, 0, sizeof(lap_base));
	vcpus_post(vmm, job->first_vcpu, job->nr_vcpus);
}

void
job_stop(struct vmm *vmm, const struct job *job)
{
	uint32_t rank;

	for (rank = 0; rank < job->nr_vcpus; rank++)
		__atomic_store_n(&params_of(vmm, job, rank)->stop, 1, __ATOMIC_RELEASE);
}

void
job_progress(
    const struct vmm *vmm, const struct job *job, uint64_t *ret_visited, uint64_t *ret_wrong)
{
	uint32_t rank;

	*ret_visited = 0;
	*ret_wrong = 0;
	for (rank = 0; rank < job->nr_vcpus; rank++) {
		const struct guest_params *p = params_of(vmm, job, rank);

		*ret_visited += __atomic_load_n(&p->progress, __ATOMIC_RELAXED);
		*ret_wrong += __atomic_load_n(&p->wrong, __ATOMIC_RELAXED);
	}
}

void
job_pulse(const struct vmm *vmm, const struct job *job, uint64_t since[VMM_MAX_VCPUS])
{
	uint32_t rank;

	for (rank = 0; rank < job->nr_vcpus; rank++)
		since[rank] =
		    __atomic_load_n(&params_of(vmm, job, rank)->progress, __ATOMIC_RELAXED);
}

bool
job_has_pulse(const struct vmm *vmm, const struct job *job, const uint64_t since[VMM_MAX_VCPUS])
{
	uint32_t rank;

	for (rank = 0; rank < job->nr_vcpus; rank++) {
		const struct guest_params *p = params_of(vmm, job, rank);

		if (__atomic_load_n(&p->progress, __ATOMIC_RELAXED) < since[rank] + 2)
			return false;
	}
	return true;
}

/* --- Times ---------------------------------------------------------------------- */

static int
compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void
count_time(struct job_times *t, double us, uint64_t n)
{
	double upper = 1;
	size_t i = 0;

	while (us > upper && i + 1 < sizeof(t->decades) / sizeof(t->decades[0])) {
		upper *= 2;
		i++;
	}
	t->decades[i] += n;
	if (us > 1000)
		t->over_1ms += n;
	if (us > 5000)
		t->over_5ms += n;
}

/* The sample with at least a share of permyriad/10000 at or below it. */
static uint64_t
rank_of(uint64_t samples, uint64_t permyriad)
{
	uint64_t rank = (samples * permyriad + 9999) / 10000;

	return rank == 0 ? 0 : rank - 1;
}

static void
times_from_array(struct job_times *t, uint64_t *cycles, uint64_t n, double per_us)
{
	double sum = 0;
	uint64_t i;

	qsort(cycles, n, sizeof(cycles[0]), compare_u64);
	while (n > 0 && cycles[n - 1] == GUEST_NO_LATENCY)
		n--;
	t->samples = n;
	if (n == 0)
		return;
	for (i = 0; i < n; i++) {
		sum += (double)cycles[i];
		count_time(t, (double)cycles[i] / per_us, 1);
	}
	t->mean_us = sum / (double)n / per_us;
	t->p50_us = (double)cycles[rank_of(n, 5000)] / per_us;
	t->p90_us = (double)cycles[rank_of(n, 9000)] / per_us;
	t->p99_us = (double)cycles[rank_of(n, 9900)] / per_us;
	t->p999_us = (double)cycles[rank_of(n, 9990)] / per_us;
}

static double
hist_percentile(const uint64_t *hist, uint64_t samples, uint64_t permyriad, double per_us)
{
	uint64_t rank = rank_of(samples, permyriad);
	uint64_t seen = 0;
	uint64_t b;

	for (b = 0; b < GUEST_HIST_BUCKETS; b++) {
		seen += hist[b];
		if (seen > rank)
			return (double)guest_hist_upper(b) / per_us;
	}
	return 0;
}

/* Within 3 %. */
static void
times_from_hist(struct job_times *t, const uint64_t *hist, double per_us)
{
	double sum = 0;
	uint64_t b;

	for (b = 0; b < GUEST_HIST_BUCKETS; b++) {
		double us = (double)guest_hist_upper(b) / per_us;

		if (hist[b] == 0)
			continue;
		t->samples += hist[b];
		sum += us * (double)hist[b];
		count_time(t, us, hist[b]);
	}
	if (t->samples == 0)
		return;
	t->mean_us = sum / (double)t->samples;
	t->p50_us = hist_percentile(hist, t->samples, 5000, per_us);
	t->p90_us = hist_percentile(hist, t->samples, 9000, per_us);
	t->p99_us = hist_percentile(hist, t->samples, 9900, per_us);
	t->p999_us = hist_percentile(hist, t->samples, 9990, per_us);
}

static void
collect_times(struct vmm *vmm, const struct job *job, struct job_times *t)
{
	static uint64_t hist[GUEST_HIST_BUCKETS];
	double per_us = vmm_cycles_per_us(vmm);
	uint64_t max = 0;
	uint32_t rank;
	uint64_t b;

	memset(hist, 0, sizeof(hist));
	for (rank = 0; rank < job->nr_vcpus; rank++) {
		const struct guest_params *p = params_of(vmm, job, rank);

		for (b = 0; b < GUEST_HIST_BUCKETS; b++)
			hist[b] += p->hist[b];
		if (p->max_cycles > max)
			max = p->max_cycles;
	}
	if (has_latencies(vmm, job))
		times_from_array(t,
		    (uint64_t *)(void *)(vmm->scratch.base + vmm->scratch.latencies),
		    nr_visits(job), per_us);
	else
		times_from_hist(t, hist, per_us);
	t->max_us = (double)max / per_us;
}

void
job_lap(struct vmm *vmm, const struct job *job, struct job_times *ret)
{
	static uint64_t now[GUEST_HIST_BUCKETS], since[GUEST_HIST_BUCKETS];
	double per_us = vmm_cycles_per_us(vmm);
	uint32_t rank;
	uint64_t b;

	memset(now, 0, sizeof(now));
	memset(ret, 0, sizeof(*ret));
	for (rank = 0; rank < job->nr_vcpus; rank++) {
		const struct guest_params *p = params_of(vmm, job, rank);

		for (b = 0; b < GUEST_HIST_BUCKETS; b++)
			now[b] += __atomic_load_n(&p->hist[b], __ATOMIC_RELAXED);
	}
	for (b = 0; b < GUEST_HIST_BUCKETS; b++) {
		since[b] = now[b] - lap_base[b];
		if (since[b] > 0)
			ret->max_us = (double)guest_hist_upper(b) / per_us;
	}
	memcpy(lap_base, now, sizeof(lap_base));
	times_from_hist(ret, since, per_us);
}

/* --- Outcome -------------------------------------------------------------------- */

void
job_collect(struct vmm *vmm, const struct job *job, struct job_outcome *ret)
{
	uint64_t start_ns = UINT64_MAX;
	uint64_t end_ns = 0;
	uint32_t rank;

	memset(ret, 0, sizeof(*ret));
	for (rank = 0; rank < job->nr_vcpus; rank++) {
		const struct vcpu *vcpu = &vmm->vcpus[job->first_vcpu + rank];
		const struct guest_params *p = vcpu->params;

		ret->visited += p->progress;
		ret->wrong += p->wrong;
		ret->raced += p->raced;
		ret->skipped += p->skipped;
		ret->written += p->written;
		if (p->passes > ret->passes)
			ret->passes = p->passes;
		if (vcpu->start_ns < start_ns)
			start_ns = vcpu->start_ns;
		if (vcpu->end_ns > end_ns)
			end_ns = vcpu->end_ns;
		if (vcpu->error < 0) {
			ret->error = vcpu->error;
			ret->error_vcpu = vcpu->index;
		}
	}
	ret->wall_us = (double)(end_ns - start_ns) / 1000.0;
	if (ret->error == 0)
		collect_times(vmm, job, &ret->times);
}

void
job_print_reports(const struct vmm *vmm, const struct job *job)
{
	static unsigned lines;
	uint32_t rank;

	for (rank = 0; rank < job->nr_vcpus; rank++) {
		const struct guest_params *p = params_of(vmm, job, rank);
		uint64_t i;

		for (i = 0; i < p->nr_reports && lines < MAX_REPORT_LINES; i++, lines++) {
			const struct guest_report *r = &p->reports[i];

			fprintf(stderr,
			    "vmm: wrong word: page=%" PRIu64 " word=%" PRIu64
			    " expected=0x%016" PRIx64 " found=0x%016" PRIx64 " model=0x%08" PRIx32
			    " wrong_in_page=%" PRIu64 " vcpu=%" PRIu32 "\n",
			    r->page, r->word, r->expected, r->found, model_words(vmm)[r->page],
			    r->wrong_words, job->first_vcpu + rank);
		}
	}
}
