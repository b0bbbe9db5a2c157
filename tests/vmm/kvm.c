/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM engine: 64-bit vCPUs without an operating system, on identity-mapped guest
 * memory.  They start at CPL 3: software-paging KVM (pvm) runs that natively, but
 * emulates every instruction of a guest kernel that does not speak its interface.
 * VMX and SVM do not care.  No interrupt controller and no port I/O: the only exits
 * are page faults, which the host serves, and the doorbell. */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "common/scope.h"

#define MAX_CPUID     256
#define TABLE_ENTRIES UINT64_C(512)
#define LARGE_PAGE    VMM_HUGEPAGE_BYTES
#define TABLE_SPAN    (TABLE_ENTRIES * LARGE_PAGE)
#define ENTRY_TABLE   UINT64_C(0x07) /* present, writable, user */
#define ENTRY_LEAF    UINT64_C(0xe7) /* that, accessed, dirty, 2 MiB */
#define CR0_BITS      UINT64_C(0x80050033)
#define CR4_BITS      UINT64_C(0x620) /* PAE, OSFXSR, OSXMMEXCPT */
#define EFER_BITS     UINT64_C(0xd01) /* NXE, LMA, LME, SCE */
#define SELECTOR_CODE 0x33
#define SELECTOR_DATA 0x2b

/* PML4, then the PDPT, then one page directory for each GiB. */
static int
build_page_tables(const struct vmm *vmm, uint64_t top)
{
	uint64_t *tables = (uint64_t *)(void *)vmm->scratch.base;
	uint64_t *pdpt = tables + TABLE_ENTRIES;
	uint64_t *pd = pdpt + TABLE_ENTRIES;
	uint64_t nr_tables = (top + TABLE_SPAN - 1) / TABLE_SPAN;
	uint64_t i;

	if (nr_tables > TABLE_ENTRIES)
		return -EFBIG;
	tables[0] = (KVM_SCRATCH_GPA + VMM_PAGE_BYTES) | ENTRY_TABLE;
	for (i = 0; i < nr_tables; i++)
		pdpt[i] = (KVM_SCRATCH_GPA + (2 + i) * VMM_PAGE_BYTES) | ENTRY_TABLE;
	for (i = 0; i < nr_tables * TABLE_ENTRIES; i++)
		pd[i] = i * LARGE_PAGE | ENTRY_LEAF;
	return 0;
}

static int
add_slot(const struct vmm *vmm, uint32_t slot, uint64_t gpa, const uint8_t *host, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
	    .slot = slot,
	    .guest_phys_addr = gpa,
	    .memory_size = bytes,
	    .userspace_addr = (uintptr_t)host,
	};

	return ioctl(vmm->kvm_vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static int
add_slots(const struct vmm *vmm)
{
	const struct vmm_memory *m = &vmm->memory;
	uint64_t top = KVM_GAP_END_GPA;
	uint32_t r;
	int err = add_slot(vmm, 0, KVM_SCRATCH_GPA, vmm->scratch.base, vmm->scratch.bytes);

	for (r = 0; r < m->nr_regions && err == 0; r++) {
		uint64_t end = m->regions[r].gpa + m->regions[r].bytes;

		err = add_slot(
		    vmm, r + 1, m->regions[r].gpa, m->regions[r].host, m->regions[r].bytes);
		if (end > top)
			top = end;
	}
	return err < 0 ? err : build_page_tables(vmm, top);
}

int
kvm_init(struct vmm *vmm)
{
	scoped_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	size_t code_bytes = (size_t)(__stop_guest_text - __start_guest_text);
	int run_bytes;

	if (kvm < 0)
		return -errno;
	if (code_bytes > SCRATCH_CODE_BYTES)
		return -EFBIG;
	memcpy(vmm->scratch.base + vmm->scratch.code, __start_guest_text, code_bytes);
	run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_bytes < 0)
		return -errno;
	vmm->kvm_run_bytes = (uint64_t)run_bytes;
	vmm->kvm_vm_fd = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vmm->kvm_vm_fd < 0)
		return -errno;
	return add_slots(vmm);
}

static int
set_cpuid(const struct vcpu *vcpu)
{
	size_t bytes = sizeof(struct kvm_cpuid2) + MAX_CPUID * sizeof(struct kvm_cpuid_entry2);
	scoped_free struct kvm_cpuid2 *cpuid = calloc(1, bytes);
	scoped_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (cpuid == NULL || kvm < 0)
		return cpuid == NULL ? -ENOMEM : -errno;
	cpuid->nent = MAX_CPUID;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 ||
	    ioctl(vcpu->kvm_fd, KVM_SET_CPUID2, cpuid) < 0)
		return -errno;
	return 0;
}

static void
fill_segments(struct kvm_sregs *s)
{
	const struct kvm_segment data = {
	    .limit = 0xffffffff,
	    .selector = SELECTOR_DATA,
	    .type = 3,
	    .present = 1,
	    .dpl = 3,
	    .db = 1,
	    .s = 1,
	    .g = 1,
	};
	struct kvm_segment code = data;

	code.selector = SELECTOR_CODE;
	code.type = 11;
	code.db = 0;
	code.l = 1;
	s->cs = code;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	memset(&s->ldt, 0, sizeof(s->ldt));
	s->ldt.unusable = 1;
	memset(&s->tr, 0, sizeof(s->tr));
	s->tr.type = 11;
	s->tr.present = 1;
	s->tr.limit = 0x67;
}

static int
set_registers(const struct vcpu *vcpu)
{
	const struct vmm *vmm = vcpu->vmm;
	uint64_t params =
	    scratch_guest_addr(vmm, (uint64_t)((uint8_t *)vcpu->params - vmm->scratch.base));
	uint64_t entry = (uint64_t)((uintptr_t)&guest_start - (uintptr_t)__start_guest_text);
	struct kvm_sregs sregs;
	/* The stack ends at the parameters; 8 bytes off, as after a call. */
	struct kvm_regs regs = {
	    .rip = scratch_guest_addr(vmm, vmm->scratch.code + entry),
	    .rsp = params - 8,
	    .rdi = params,
	    .rflags = 2,
	};

	if (ioctl(vcpu->kvm_fd, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	fill_segments(&sregs);
	sregs.cr0 = CR0_BITS;
	sregs.cr3 = KVM_SCRATCH_GPA;
	sregs.cr4 = CR4_BITS;
	sregs.efer = EFER_BITS;
	if (ioctl(vcpu->kvm_fd, KVM_SET_SREGS, &sregs) < 0 ||
	    ioctl(vcpu->kvm_fd, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

int
kvm_vcpu_init(struct vcpu *vcpu)
{
	int err;

	vcpu->kvm_fd = ioctl(vcpu->vmm->kvm_vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (vcpu->kvm_fd < 0)
		return -errno;
	vcpu->kvm_run = mmap(
	    NULL, vcpu->vmm->kvm_run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->kvm_fd, 0);
	if (vcpu->kvm_run == MAP_FAILED)
		return -errno;
	err = set_cpuid(vcpu);
	return err < 0 ? err : set_registers(vcpu);
}

/* Runs until the guest rings the doorbell. */
int
kvm_vcpu_run(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->kvm_run;

	while (ioctl(vcpu->kvm_fd, KVM_RUN, 0) < 0) {
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
	if (run->exit_reason == KVM_EXIT_MMIO && run->mmio.phys_addr == GUEST_DOORBELL_ADDR)
		return 0;
	if (run->exit_reason == KVM_EXIT_MMIO)
		fprintf(stderr, "vmm: vcpu %u used address %#llx, where no memory is\n",
		    vcpu->index, run->mmio.phys_addr);
	else
		fprintf(stderr, "vmm: vcpu %u stopped, exit reason %u\n", vcpu->index,
		    run->exit_reason);
	return -EFAULT;
}
