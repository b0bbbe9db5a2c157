/* SPDX-License-Identifier: Apache-2.0 */
/* A tiny virtual machine monitor for tests: it restores a "guest" whose memory comes
 * from a pager, does to it what a guest does, and knows at any time what every byte
 * of it must be.
 *
 * The main thread reads commands and never touches guest memory, so it answers
 * whatever the pager does.  Guest memory is touched by the vCPU threads and
 * discarded by the balloon thread. */
#ifndef TESTS_VMM_VMM_H
#define TESTS_VMM_VMM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/vmm/guest.h"

#define VMM_MAX_VCPUS	   64U
#define VMM_MAX_LINE	   4096U
#define VMM_PAGE_BYTES	   PATTERN_PAGE_BYTES
#define VMM_HUGEPAGE_BYTES UINT64_C(2097152)

enum vmm_backing {
	BACKING_SOCKET,	       /* a pager behind a Unix socket */
	BACKING_PRIVATE_PAGER, /* a bare loop in a process of our own: the raw floor */
	BACKING_FILE,	       /* the image mapped MAP_PRIVATE: no pager at all */
	BACKING_ANON,	       /* plain zero memory: what the engine itself costs */
};

enum vmm_engine { ENGINE_AUTO, ENGINE_KVM, ENGINE_THREADS };

enum vmm_handshake {
	HANDSHAKE_NEW,	   /* Firecracker 1.12 and later */
	HANDSHAKE_OLD4,	   /* 1.7 to 1.11: without page_size */
	HANDSHAKE_OLD3,	   /* up to 1.6: without any page size */
	HANDSHAKE_WRAPPED, /* {"mappings": [...]}, as some forks send it */
	HANDSHAKE_SPLIT1,  /* in single bytes, the descriptor with the first */
};

enum vmm_uffd_flag {
	UFFD_F_NO_REMOVE = 1,	    /* without UFFD_FEATURE_EVENT_REMOVE */
	UFFD_F_BLOCKING = 2,	    /* without O_NONBLOCK */
	UFFD_F_USER_MODE = 4,	    /* user-mode faults only: KVM's own fail */
	UFFD_F_SYSCALL = 8,	    /* userfaultfd(2) even where /dev/userfaultfd exists */
	UFFD_F_WP_ASYNC = 16,	    /* the kernel lets writes to protected pages pass by itself */
	UFFD_F_WP_UNPOPULATED = 32, /* it remembers protection where there is no page */
};

struct vmm_options {
	enum vmm_backing backing;
	const char *path; /* of the socket or of the image */
	struct pattern pattern;
	uint64_t size_bytes;
	uint64_t nr_regions;
	uint64_t nr_vcpus;
	enum vmm_engine engine;
	enum vmm_handshake handshake;
	uint32_t uffd_flags; /* enum vmm_uffd_flag */
	bool hugepages;
	bool is_tracked; /* registers for write protection, too */
	bool is_memfd;	 /* memory is a shared memfd, which the handshake brings */
	uint64_t
	    populate_bytes; /* private pager: fill everything first, in such chunks; 0: do not */
};

struct vmm_region {
	uint8_t *host;
	uint64_t bytes;
	uint64_t offset; /* in the image */
	uint64_t gpa;
};

struct vmm_memory {
	struct vmm_region regions[GUEST_MAX_REGIONS];
	uint32_t nr_regions;
	uint64_t nr_pages;   /* of 4 KiB */
	uint64_t page_bytes; /* of the mapping */
	int memfd;	     /* -1: none */
	int uffd;	     /* ours, kept for life as Firecracker does; -1: none */
	int socket;	     /* leaked for life; -1: none */
	pid_t pager;	     /* the private pager; 0: none */
	uint64_t populate_ns;
};

/* A bare fault loop.  What it points to is the caller's; what pager_open() maps stays. */
struct pager {
	const struct vmm_memory *memory;
	const uint8_t *image;
	const uint8_t *zeros; /* one page of the mapping's size */
	uint8_t *removed;     /* one for each page of the mapping's size */
};

/* Memory that the guest uses for itself and that no pager serves. */
struct vmm_scratch {
	uint8_t *base;
	uint64_t bytes;
	uint64_t model; /* offsets from base */
	uint64_t latencies;
	uint64_t max_latencies;
	uint64_t vcpus; /* a parameter block and a stack for each */
	uint64_t code;
};

/* A stack of 16 KiB below each next block. */
#define SCRATCH_STACK_BYTES  UINT64_C(16384)
#define SCRATCH_PARAMS_BYTES UINT64_C(20480)
#define SCRATCH_VCPU_BYTES   (SCRATCH_STACK_BYTES + SCRATCH_PARAMS_BYTES)
#define SCRATCH_CODE_BYTES   UINT64_C(65536)
#define SCRATCH_TABLE_BYTES  ((UINT64_C(512) + 2) * VMM_PAGE_BYTES)

_Static_assert(sizeof(struct guest_params) <= SCRATCH_PARAMS_BYTES, "parameter block");

struct vmm;

/* The longest touches lately, on the host's clock. */
#define VMM_MAX_STALLS 256U
struct vcpu_stall {
	uint64_t end_ns;
	uint64_t ns;
};

struct vcpu {
	struct vmm *vmm;
	struct guest_params *params; /* in the scratch memory */
	uint32_t index;
	pthread_t thread;
	_Atomic pid_t tid;
	bool has_job; /* under vmm->lock, as the rest */
	uint64_t start_ns;
	uint64_t end_ns;
	int error;	    /* negative errno of the last run */
	uint64_t period_us; /* 0: one run is the job; else a run each period until it is stopped */
	int timer_fd;
	struct vcpu_stall stalls[VMM_MAX_STALLS];
	uint64_t nr_stalls;
	uint64_t nr_stalls_told;
	int kvm_fd;
	void *kvm_run;
};

struct vmm {
	struct vmm_options options;
	struct vmm_memory memory;
	struct vmm_scratch scratch;
	bool is_kvm;
	int kvm_vm_fd;
	uint64_t kvm_run_bytes;
	struct vcpu vcpus[VMM_MAX_VCPUS];
	pthread_mutex_t lock;
	pthread_cond_t job_posted;
	uint32_t running;      /* vCPUs with a job; under lock */
	int done_fd;	       /* eventfd: a job has ended, of the vCPUs or of the balloon */
	uint64_t clock_cycles; /* two readings of the same moment, long ago */
	uint64_t clock_ns;
};

/* memory.c */
int memory_map(struct vmm_memory *m, const struct vmm_options *o);
int memory_register(struct vmm_memory *m, const struct vmm_options *o);
int memory_resident(const struct vmm_memory *m, uint64_t *ret_pages);
/* Drops pages: they must read as zeros from now on.  Sleeps until the pager has read
 * the event.  The range lies in one region. */
int memory_discard(
    const struct vmm_memory *m, const struct vmm_options *o, uint64_t page, uint64_t count);
/* The region that holds a page, never NULL for a page of the memory. */
const struct vmm_region *memory_region(const struct vmm_memory *m, uint64_t page);

/* handshake.c: connects and sends; the socket stays open in m. */
int handshake_send(struct vmm_memory *m, const struct vmm_options *o);

/* pager.c: forks the bare loop, which has filled everything first if it was told to. */
int pager_start(struct vmm_memory *m, const struct vmm_options *o);

/* Maps and populates the image for pages of page_bytes; a negative errno. */
int pager_open(struct pager *p, const char *path, uint64_t bytes, uint64_t page_bytes);

/* Serves until the VMM is gone. */
void pager_serve(const struct pager *p);

/* scratch.c: the model, and the blocks of the vCPUs. */
int scratch_init(struct vmm *vmm);
/* An address in the scratch memory as the guest sees it. */
uint64_t scratch_guest_addr(const struct vmm *vmm, uint64_t offset);
uint32_t *model_words(const struct vmm *vmm);

/* kvm.c, threads.c: the two engines. */
int kvm_init(struct vmm *vmm);
int kvm_vcpu_init(struct vcpu *vcpu);
int kvm_vcpu_run(struct vcpu *vcpu);
int threads_vcpu_run(struct vcpu *vcpu);

/* Guest-physical address of the scratch memory: in the gap below 4 GiB. */
#define KVM_SCRATCH_GPA UINT64_C(0xc0000000)
#define KVM_GAP_END_GPA UINT64_C(0x100000000)

/* vcpu.c */
int vcpus_start(struct vmm *vmm);
/* Starts vCPUs first .. first + n - 1 on the job that their parameter blocks hold. */
void vcpus_post(struct vmm *vmm, uint32_t first, uint32_t n);
uint32_t vcpus_running(struct vmm *vmm);
/* How many threads sleep in the kernel although they have a job. */
uint32_t vcpus_blocked(struct vmm *vmm);
/* The oldest stall not told yet, which is told now.  False when there is none. */
bool vcpu_take_stall(struct vcpu *vcpu, struct vcpu_stall *ret, uint64_t *ret_lost);
double vmm_cycles_per_us(const struct vmm *vmm);
uint64_t vmm_cycles(void);
/* Both clocks at one moment. */
void vmm_read_clocks(uint64_t *ret_cycles, uint64_t *ret_ns);
void vmm_signal_done(const struct vmm *vmm);

/* balloon.c */
struct balloon_order {
	bool is_random;
	uint64_t start;	 /* page; random: the seed */
	uint64_t count;	 /* pages */
	bool is_touched; /* read a byte of each range afterwards, as a balloon that deflates */
};
struct balloon_outcome {
	uint64_t discarded;
	uint64_t skipped; /* were being written */
	uint64_t calls;
	uint64_t wall_ns;
	uint64_t max_ns;
	uint64_t touch_max_ns;
	int error;
};
int balloon_start(struct vmm *vmm);
void balloon_post(const struct balloon_order *order);
/* True once for each order that has ended. */
bool balloon_take(struct balloon_outcome *ret);

/* command.c: one line in, one line out, now or when the job has ended.  False: the line
 * must be offered again after the next command_done(). */
bool command_line(struct vmm *vmm, const char *line);
void command_done(struct vmm *vmm);
/* Milliseconds until command_done() is due without an event; -1: never. */
int command_timeout(void);

#endif
