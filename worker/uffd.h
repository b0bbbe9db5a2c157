/* SPDX-License-Identifier: Apache-2.0 */
/* ● The only userfaultfd ioctls and reads.  Every errno is classified here, once.
 * No function takes ownership of a descriptor.  Lengths are bytes and whole pages.
 * Source: ioctl_userfaultfd(2), and the kernel's mm/userfaultfd.c where that is silent. */
#ifndef WORKER_UFFD_H
#define WORKER_UFFD_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The page that uffd_is_quiet() and uffd_is_alive() ask the kernel to fill: above mmap_min_addr on
 * every configuration we know and below every mapping of a VMM.  Where it is registered, it gets
 * zeros. */
#define UFFD_ASKED_ADDR UINT64_C(0x10000)

enum uffd_result {
	UFFD_DONE,	 /* all of it */
	UFFD_EXISTS,	 /* the page after what was done is there; nobody was woken for it */
	UFFD_AGAIN,	 /* a removal is pending: read events, then go on after what was done */
	UFFD_GONE,	 /* the VMM has exited */
	UFFD_NO_RANGE,	 /* not one registered mapping: split by the VMM, or not registered */
	UFFD_NO_MEMORY,	 /* the VMM's memory cgroup, or the machine, is full */
	UFFD_BAD_SOURCE, /* the source could not be read: the image is truncated or broken */
	UFFD_FAILED,	 /* anything else: ret_errno says what */
};

struct uffd_fill {
	uint64_t done_bytes; /* filled and woken, also when the result is not UFFD_DONE */
	int error;	     /* positive errno behind the result, for a person */
};

/* Puts bytes of src at dst and wakes who waits there.  src is NULL for zeros. */
enum uffd_result uffd_fill(
    int fd, uint64_t dst, const void *src, uint64_t bytes, struct uffd_fill *ret);

/* The same, and the first write to each page is told: one step, or a write in between would not
 * be.  src is not NULL: the kernel has no zero page for that. */
enum uffd_result uffd_fill_protected(
    int fd, uint64_t dst, const void *src, uint64_t bytes, struct uffd_fill *ret);

/* Makes the first write to each present page of the range tell, or lets it pass and wakes who
 * waits for that.  *ret_error is the positive errno behind a result that is not done. */
enum uffd_result uffd_protect(int fd, uint64_t start, uint64_t bytes, bool protect, int *ret_error);

/* Maps a page that the VMM's memory file holds and wakes who waits for that.  UFFD_BAD_SOURCE: the
 * file holds none.  *ret_error as above. */
enum uffd_result uffd_map(int fd, uint64_t page, uint64_t bytes, int *ret_error);

/* Whether the VMM has registered all of the range for write protection, too.  Its protection is
 * lifted.  Before Linux 6.4 the answer is no, too, where the range is more than one mapping. */
bool uffd_is_protectable(int fd, uint64_t start, uint64_t bytes);

/* Makes the range poison: who touches it gets SIGBUS, and with wakes who waits there does.  A
 * later fill heals it.  UFFD_FAILED with EINVAL where the kernel (before Linux 6.6) cannot. */
enum uffd_result uffd_poison(
    int fd, uint64_t start, uint64_t bytes, bool wakes, struct uffd_fill *ret);

/* Registers a range, which is registered for missing pages, for write protection too.  0 or a
 * negative errno. */
int uffd_register_protection(int fd, uint64_t start, uint64_t bytes);

/* Makes every thread that waits in the range fault again.  Works while removals are pending. */
void uffd_wake(int fd, uint64_t start, uint64_t bytes);

/* 0 or a negative errno. */
int uffd_unregister(int fd, uint64_t start, uint64_t bytes);

/* Reads up to max events without blocking, also when the VMM, which shares the descriptor's
 * flags, has made it blocking (from Linux 6.10 on).  Returns how many, 0 when there is
 * none, or a negative errno. */
int uffd_read(int fd, struct uffd_msg *msgs, size_t max);

/* False when a removal is on its way: begun by the VMM, event not yet read or its thread not yet
 * gone on.  Asks the kernel with a fill of a page that is registered nowhere. */
bool uffd_is_quiet(int fd);

/* False when the VMM's address space is gone. */
bool uffd_is_alive(int fd);

#endif
