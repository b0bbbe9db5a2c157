/* SPDX-License-Identifier: Apache-2.0 */
/* One thread for each vCPU, whichever engine runs it. */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"

/* The shortest time between two clock readings that gives a usable rate. */
#define RATE_NS (UINT64_C(20) * NS_PER_MS)

void
vmm_signal_done(const struct vmm *vmm)
{
	uint64_t one = 1;

	if (write(vmm->done_fd, &one, sizeof(one)) != sizeof(one))
		perror("vmm: eventfd");
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

		vcpu->start_ns = clock_now_ns();
		vcpu->error = vmm->is_kvm ? kvm_vcpu_run(vcpu) : threads_vcpu_run(vcpu);
		vcpu->end_ns = clock_now_ns();

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
		int err = pthread_create(&vmm->vcpus[i].thread, NULL, vcpu_main, &vmm->vcpus[i]);

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

/* The time since the VMM started is the ruler; right after the start it is too short
 * and the clock is watched until it is not. */
double
vmm_cycles_per_us(struct vmm *vmm)
{
	uint64_t ns = clock_now_ns() - vmm->clock_ns;

	while (ns < RATE_NS)
		ns = clock_now_ns() - vmm->clock_ns;
	return (double)(vmm_cycles() - vmm->clock_cycles) / ((double)ns / 1000.0);
}
