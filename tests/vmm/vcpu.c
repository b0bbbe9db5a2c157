/* SPDX-License-Identifier: Apache-2.0 */
/* One thread for each vCPU, whichever engine runs it. */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"

/* The shortest time between two clock readings that gives a usable rate. */
#define RATE_NS (UINT64_C(20) * NS_PER_MS)

/* A thread that is put aside between two clocks would spoil the rate for good. */
#define CLOCK_TRIES 5U

void
vmm_signal_done(const struct vmm *vmm)
{
	uint64_t one = 1;

	if (write(vmm->done_fd, &one, sizeof(one)) != sizeof(one))
		perror("vmm: eventfd");
}

/* The guest's counter may have an offset of its own, so a run's begin is read on both
 * clocks.  Stalls of a run that has just ended. */
static void
collect_stalls(struct vcpu *vcpu, uint64_t run_ns, uint64_t *seen)
{
	const struct guest_params *p = vcpu->params;
	double per_us = vmm_cycles_per_us(vcpu->vmm);

	if (p->nr_stalls - *seen > GUEST_MAX_STALLS)
		*seen = p->nr_stalls - GUEST_MAX_STALLS;
	pthread_mutex_lock(&vcpu->vmm->lock);
	for (; *seen < p->nr_stalls; (*seen)++) {
		const struct guest_stall *g = &p->stalls[*seen % GUEST_MAX_STALLS];
		struct vcpu_stall *s = &vcpu->stalls[vcpu->nr_stalls++ % VMM_MAX_STALLS];

		s->end_ns = run_ns + (uint64_t)((double)(g->end - p->epoch) / per_us * 1000.0);
		s->ns = (uint64_t)((double)g->cycles / per_us * 1000.0);
	}
	pthread_mutex_unlock(&vcpu->vmm->lock);
}

bool
vcpu_take_stall(struct vcpu *vcpu, struct vcpu_stall *ret, uint64_t *ret_lost)
{
	bool has_one;

	pthread_mutex_lock(&vcpu->vmm->lock);
	if (vcpu->nr_stalls - vcpu->nr_stalls_told > VMM_MAX_STALLS) {
		*ret_lost += vcpu->nr_stalls - vcpu->nr_stalls_told - VMM_MAX_STALLS;
		vcpu->nr_stalls_told = vcpu->nr_stalls - VMM_MAX_STALLS;
	}
	has_one = vcpu->nr_stalls_told < vcpu->nr_stalls;
	if (has_one)
		*ret = vcpu->stalls[vcpu->nr_stalls_told++ % VMM_MAX_STALLS];
	pthread_mutex_unlock(&vcpu->vmm->lock);
	return has_one;
}

static void
set_period(const struct vcpu *vcpu, uint64_t us)
{
	struct timespec period = {
	    .tv_sec = (time_t)(us / 1000000),
	    .tv_nsec = (long)(us % 1000000 * 1000),
	};
	struct itimerspec timer = {.it_interval = period, .it_value = period};

	if (timerfd_settime(vcpu->timer_fd, 0, &timer, NULL) < 0)
		perror("vmm: timerfd");
}

/* Until the next period.  False when there is none. */
static bool
rest(const struct vcpu *vcpu)
{
	uint64_t expirations;

	if (vcpu->period_us == 0 || vcpu->error < 0 ||
	    __atomic_load_n(&vcpu->params->stop, __ATOMIC_ACQUIRE) != 0)
		return false;
	return read(vcpu->timer_fd, &expirations, sizeof(expirations)) == sizeof(expirations);
}

static void
run_job(struct vcpu *vcpu)
{
	uint64_t run_ns = clock_now_ns();
	uint64_t stalls = 0;

	vcpu->start_ns = run_ns;
	if (vcpu->period_us > 0)
		set_period(vcpu, vcpu->period_us);
	for (;;) {
		vcpu->error = vcpu->vmm->is_kvm ? kvm_vcpu_run(vcpu) : threads_vcpu_run(vcpu);
		if (vcpu->params->nr_stalls > stalls)
			collect_stalls(vcpu, run_ns, &stalls);
		if (!rest(vcpu))
			break;
		run_ns = clock_now_ns();
	}
	vcpu->end_ns = clock_now_ns();
}

static void *
vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vmm *vmm = vcpu->vmm;

	atomic_store(&vcpu->tid, (pid_t)syscall(SYS_gettid));
	for (;;) {
		bool is_last;

		pthread_mutex_lock(&vmm->lock);
		while (!vcpu->has_job)
			pthread_cond_wait(&vmm->job_posted, &vmm->lock);
		pthread_mutex_unlock(&vmm->lock);

		run_job(vcpu);

		pthread_mutex_lock(&vmm->lock);
		vcpu->has_job = false;
		is_last = --vmm->running == 0;
		pthread_mutex_unlock(&vmm->lock);
		if (is_last)
			vmm_signal_done(vmm);
	}
	return NULL;
}

int
vcpus_start(struct vmm *vmm)
{
	uint32_t i;

	for (i = 0; i < vmm->options.nr_vcpus; i++) {
		int err;

		vmm->vcpus[i].timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
		if (vmm->vcpus[i].timer_fd < 0)
			return -errno;
		err = pthread_create(&vmm->vcpus[i].thread, NULL, vcpu_main, &vmm->vcpus[i]);
		if (err != 0)
			return -err;
	}
	return 0;
}

void
vcpus_post(struct vmm *vmm, uint32_t first, uint32_t n)
{
	uint32_t i;

	pthread_mutex_lock(&vmm->lock);
	for (i = first; i < first + n; i++)
		vmm->vcpus[i].has_job = true;
	vmm->running += n;
	pthread_cond_broadcast(&vmm->job_posted);
	pthread_mutex_unlock(&vmm->lock);
}

uint32_t
vcpus_running(struct vmm *vmm)
{
	uint32_t n;

	pthread_mutex_lock(&vmm->lock);
	n = vmm->running;
	pthread_mutex_unlock(&vmm->lock);
	return n;
}

static bool
is_in_fault(const struct vcpu *vcpu)
{
	char text[64] = "";
	scoped_fd int fd = -1;

	snprintf(text, sizeof(text), "/proc/self/task/%d/wchan", (int)atomic_load(&vcpu->tid));
	fd = open(text, O_RDONLY | O_CLOEXEC);
	memset(text, 0, sizeof(text));
	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strstr(text, "userfault") != NULL;
}

uint32_t
vcpus_blocked(struct vmm *vmm)
{
	uint32_t blocked = 0;
	uint32_t i;

	for (i = 0; i < vmm->options.nr_vcpus; i++) {
		bool has_job;

		pthread_mutex_lock(&vmm->lock);
		has_job = vmm->vcpus[i].has_job;
		pthread_mutex_unlock(&vmm->lock);
		if (has_job && is_in_fault(&vmm->vcpus[i]))
			blocked++;
	}
	return blocked;
}

uint64_t
vmm_cycles(void)
{
	uint32_t lo;
	uint32_t hi;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

void
vmm_read_clocks(uint64_t *ret_cycles, uint64_t *ret_ns)
{
	uint64_t least_ns = UINT64_MAX;

	for (unsigned i = 0; i < CLOCK_TRIES; i++) {
		uint64_t before_ns = clock_now_ns();
		uint64_t cycles = vmm_cycles();
		uint64_t took_ns = clock_now_ns() - before_ns;

		if (took_ns >= least_ns)
			continue;
		least_ns = took_ns;
		*ret_cycles = cycles;
		*ret_ns = before_ns + took_ns / 2;
	}
}

/* The time since the VMM started is the ruler; right after the start it is too short
 * and the clock is watched until it is not. */
double
vmm_cycles_per_us(const struct vmm *vmm)
{
	uint64_t cycles = 0, ns = 0;

	do
		vmm_read_clocks(&cycles, &ns);
	while (ns - vmm->clock_ns < RATE_NS);
	return (double)(cycles - vmm->clock_cycles) / ((double)(ns - vmm->clock_ns) / 1000.0);
}
