/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <sys/mman.h>

/* Longer jobs use the histogram. */
#define MAX_LATENCIES (UINT64_C(4) << 20)
#define MIN_LATENCIES (UINT64_C(64) << 10)

static uint64_t
page_up(uint64_t bytes)
{
	return (bytes + VMM_PAGE_BYTES - 1) & ~(VMM_PAGE_BYTES - 1);
}

/* From the bottom: page tables (KVM), code, vCPU blocks, model, latencies. */
static void
lay_out(struct vmm_scratch *s, const struct vmm *vmm)
{
	uint64_t nr_pages = vmm->memory.nr_pages;

	s->max_latencies = nr_pages;
	if (s->max_latencies > MAX_LATENCIES)
		s->max_latencies = MAX_LATENCIES;
	if (s->max_latencies < MIN_LATENCIES)
		s->max_latencies = MIN_LATENCIES;
	s->code = SCRATCH_TABLE_BYTES;
	s->vcpus = s->code + SCRATCH_CODE_BYTES;
	s->model = s->vcpus + vmm->options.nr_vcpus * SCRATCH_VCPU_BYTES;
	s->latencies = s->model + page_up(nr_pages * sizeof(uint32_t));
	s->bytes = s->latencies + page_up(s->max_latencies * sizeof(uint64_t));
}

static void
init_params(struct vmm *vmm, struct guest_params *p)
{
	const struct vmm_memory *m = &vmm->memory;
	uint32_t r;

	p->pattern = vmm->options.pattern;
	p->nr_regions = m->nr_regions;
	for (r = 0; r < m->nr_regions; r++) {
		p->regions[r].addr =
		    vmm->is_kvm ? m->regions[r].gpa : (uintptr_t)m->regions[r].host;
		p->regions[r].first_page = m->regions[r].offset / VMM_PAGE_BYTES;
		p->regions[r].nr_pages = m->regions[r].bytes / VMM_PAGE_BYTES;
	}
	p->model = scratch_guest_addr(vmm, vmm->scratch.model);
	p->command = GUEST_WARM;
	p->warm_start = p->model;
	p->warm_bytes = vmm->scratch.bytes - vmm->scratch.model;
	p->nr_ranks = 1;
}

int
scratch_init(struct vmm *vmm)
{
	struct vmm_scratch *s = &vmm->scratch;
	uint32_t i;

	lay_out(s, vmm);
	if (s->bytes > GUEST_DOORBELL_ADDR - KVM_SCRATCH_GPA)
		return -EFBIG;
	if (s->base == NULL) {
		void *p = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		if (p == MAP_FAILED)
			return -errno;
		s->base = p;
	}
	for (i = 0; i < vmm->options.nr_vcpus; i++) {
		vmm->vcpus[i].params = (struct guest_params *)(void *)(s->base + s->vcpus +
		    i * SCRATCH_VCPU_BYTES + SCRATCH_STACK_BYTES);
		init_params(vmm, vmm->vcpus[i].params);
	}
	if (vmm->options.backing == BACKING_ANON) {
		uint64_t page;

		for (page = 0; page < vmm->memory.nr_pages; page++)
			model_words(vmm)[page] = MODEL_ZERO;
	}
	return 0;
}

uint64_t
scratch_guest_addr(const struct vmm *vmm, uint64_t offset)
{
	return vmm->is_kvm ? KVM_SCRATCH_GPA + offset : (uintptr_t)vmm->scratch.base + offset;
}

uint32_t *
model_words(const struct vmm *vmm)
{
	return (uint32_t *)(void *)(vmm->scratch.base + vmm->scratch.model);
}
