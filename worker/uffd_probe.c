/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/uffd_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "worker/reason.h"

/* Any page that every kernel takes for a user address.  Nothing need be mapped there. */
#define SOME_PAGE UINT64_C(0x40000000)

/* A wake succeeds on every userfaultfd whose API is negotiated, whatever is mapped or
 * registered, even after the VMM exited; at worst a waiter faults a second time.  The
 * error would prove nothing: EINVAL is what other descriptors say too (/dev/kvm). */
static bool
is_negotiated_uffd(int fd)
{
	struct uffdio_range range = {.start = SOME_PAGE, .len = 4096};

	return ioctl(fd, UFFDIO_WAKE, &range) == 0;
}

/* A wrong API number never enables anything, but the kernel zeroes the structure. */
static bool
is_fresh_uffd(int fd)
{
	struct uffdio_api api = {.api = UFFD_API ^ 1U, .features = 1, .ioctls = 1};

	return ioctl(fd, UFFDIO_API, &api) < 0 && errno == EINVAL && api.api == 0 &&
	    api.features == 0 && api.ioctls == 0;
}

int
uffd_probe(int fd, char *reason, size_t bytes)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return reason_set(reason, bytes, "the descriptor is unusable: %s", strerror(errno));
	if (!is_negotiated_uffd(fd)) {
		if (is_fresh_uffd(fd))
			return reason_set(reason, bytes,
			    "the userfaultfd is not enabled: call UFFDIO_API and register the "
			    "regions before sending it");
		return reason_set(reason, bytes, "the descriptor is not a userfaultfd");
	}
	if ((flags & O_NONBLOCK) == 0)
		return reason_set(reason, bytes,
		    "the userfaultfd is blocking, so poll() on it only says error: create it "
		    "with O_NONBLOCK");
	return 0;
}

/* From a place that nobody can read: the kernel fills nothing and says EFAULT.  Before it looks
 * there it says ENOENT when nobody watches dst, and EINVAL when it cannot make so small a page. */
static int
copy_from_nowhere(int fd, uint64_t dst, const void *nowhere)
{
	struct uffdio_copy op = {
	    .dst = dst,
	    .src = (uint64_t)(uintptr_t)nowhere,
	    .len = PAGE_BYTES,
	    .mode = UFFDIO_COPY_MODE_DONTWAKE,
	};

	return ioctl(fd, UFFDIO_COPY, &op) < 0 ? errno : 0;
}

static int
probe_page(int fd, const struct region *r, uint32_t i, uint64_t addr, const void *nowhere,
    char *reason, size_t bytes)
{
	int error = copy_from_nowhere(fd, addr, nowhere);

	if (error == ENOENT)
		return reason_set(reason, bytes,
		    "region %" PRIu32 ": its memory at 0x%" PRIx64
		    " is not registered with the userfaultfd, so that nobody would be asked for it",
		    i, addr);
	if (r->page_bytes == PAGE_BYTES && error == EINVAL)
		return reason_set(reason, bytes,
		    "region %" PRIu32 ": its memory has larger pages than the 4096 bytes that are "
		    "said, or none of a process",
		    i);
	if (r->page_bytes != PAGE_BYTES && error == EFAULT)
		return reason_set(reason, bytes,
		    "region %" PRIu32
		    ": its memory has pages of 4096 bytes, and not of the %" PRIu64
		    " that are said",
		    i, r->page_bytes);
	return 0;
}

int
uffd_probe_pages(int fd, const struct region *regions, uint32_t nr, char *reason, size_t bytes)
{
	void *nowhere = mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r = 0;

	if (nowhere == MAP_FAILED)
		return 0;
	for (uint32_t i = 0; i < nr && r == 0; i++) {
		const struct region *region = &regions[i];
		uint64_t last = region->host_addr + region->size_bytes - region->page_bytes;

		r = probe_page(fd, region, i, region->host_addr, nowhere, reason, bytes);
		if (r == 0)
			r = probe_page(fd, region, i, last, nowhere, reason, bytes);
	}
	munmap(nowhere, PAGE_BYTES);
	return r;
}

int
memfd_probe(int fd, char *reason, size_t bytes)
{
	if (fcntl(fd, F_GET_SEALS) < 0)
		return reason_set(reason, bytes, "the second descriptor is not a memfd");
	return 0;
}
