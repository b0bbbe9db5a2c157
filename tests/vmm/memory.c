/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory, mapped and registered in the same way as Firecracker does it. */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/scope.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Linux 6.7 and 6.4 */
#define FEATURE_WP_ASYNC       (UINT64_C(1) << 15)
#define FEATURE_WP_UNPOPULATED (UINT64_C(1) << 13)

#define ALIGNMENT	VMM_HUGEPAGE_BYTES
#define MAP_HUGE_2M	(21 << 26)
#define GAP_START_BYTES (UINT64_C(3) << 30)

/* An aligned range of fresh addresses, by over-allocation and trimming. */
static int
map_aligned(uint64_t bytes, int flags, uint8_t **ret)
{
	uint64_t want = bytes + ALIGNMENT;
	uint8_t *p = mmap(NULL, want, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
	uint64_t head;

	if (p == MAP_FAILED)
		return -errno;
	head = (ALIGNMENT - (uintptr_t)p % ALIGNMENT) % ALIGNMENT;
	if (head > 0)
		munmap(p, head);
	munmap(p + head + bytes, ALIGNMENT - head);
	*ret = p + head;
	return 0;
}

static int
map_file(struct vmm_region *r, int fd)
{
	void *p = mmap(r->host, r->bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, (off_t)r->offset);

	return p == MAP_FAILED ? -errno : 0;
}

static int
map_memfd(struct vmm_memory *m, const struct vmm_region *r)
{
	void *p = mmap(r->host, r->bytes, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_NORESERVE | MAP_FIXED, m->memfd, (off_t)r->offset);

	return p == MAP_FAILED ? -errno : 0;
}

static int
open_memfd(struct vmm_memory *m, const struct vmm_options *o)
{
	m->memfd = memfd_create("guest", MFD_CLOEXEC);
	if (m->memfd < 0 || ftruncate(m->memfd, (off_t)o->size_bytes) < 0)
		return -errno;
	return 0;
}

/* An image that ends early would be a SIGBUS later on. */
static int
open_image(const struct vmm_options *o, int *ret_fd)
{
	scoped_fd int fd = open(o->path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < o->size_bytes)
		return -EFBIG;
	*ret_fd = fd_take(&fd);
	return 0;
}

/* One region below the gap or above it; two around it, as a PC has them. */
static void
split_regions(struct vmm_memory *m, const struct vmm_options *o)
{
	uint64_t unit = m->page_bytes;
	uint64_t low = o->size_bytes;

	m->nr_regions = (uint32_t)o->nr_regions;
	m->regions[0].gpa = low > GAP_START_BYTES ? KVM_GAP_END_GPA : 0;
	if (m->nr_regions == 2) {
		low = o->size_bytes > GAP_START_BYTES ? GAP_START_BYTES
						      : o->size_bytes / 2 / unit * unit;
		m->regions[0].gpa = 0;
		m->regions[1].gpa = KVM_GAP_END_GPA;
		m->regions[1].offset = low;
		m->regions[1].bytes = o->size_bytes - low;
	}
	m->regions[0].bytes = low;
}

int
memory_map(struct vmm_memory *m, const struct vmm_options *o)
{
	int flags = o->hugepages ? MAP_HUGETLB | MAP_HUGE_2M : 0;
	scoped_fd int fd = -1;
	uint32_t r;
	int err = 0;

	m->page_bytes = o->hugepages ? VMM_HUGEPAGE_BYTES : VMM_PAGE_BYTES;
	m->nr_pages = o->size_bytes / VMM_PAGE_BYTES;
	split_regions(m, o);
	if (o->backing == BACKING_FILE)
		err = open_image(o, &fd);
	if (o->is_memfd)
		err = open_memfd(m, o);
	for (r = 0; r < m->nr_regions && err == 0; r++) {
		err = map_aligned(m->regions[r].bytes, flags, &m->regions[r].host);
		if (err == 0 && o->backing == BACKING_FILE)
			err = map_file(&m->regions[r], fd);
		if (err == 0 && o->is_memfd)
			err = map_memfd(m, &m->regions[r]);
	}
	return err;
}

/* /dev/userfaultfd first; the system call only where the node does not exist. */
static int
uffd_open(uint32_t flags, int *ret_fd)
{
	int mode = O_CLOEXEC | (flags & UFFD_F_BLOCKING ? 0 : O_NONBLOCK) |
	    (flags & UFFD_F_USER_MODE ? UFFD_USER_MODE_ONLY : 0);
	scoped_fd int dev = -1;
	int fd;

	if ((flags & UFFD_F_SYSCALL) == 0) {
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev < 0 && errno != ENOENT)
			return -errno;
	}
	fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, mode) : (int)syscall(SYS_userfaultfd, mode);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int
memory_register(struct vmm_memory *m, const struct vmm_options *o)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint32_t r;
	int err = uffd_open(o->uffd_flags, &m->uffd);

	if (err < 0)
		return err;
	if ((o->uffd_flags & UFFD_F_NO_REMOVE) == 0)
		api.features = UFFD_FEATURE_EVENT_REMOVE;
	if ((o->uffd_flags & UFFD_F_WP_ASYNC) != 0)
		api.features |= FEATURE_WP_ASYNC;
	if ((o->uffd_flags & UFFD_F_WP_UNPOPULATED) != 0)
		api.features |= FEATURE_WP_UNPOPULATED;
	if (ioctl(m->uffd, UFFDIO_API, &api) < 0)
		return -errno;
	for (r = 0; r < m->nr_regions; r++) {
		struct uffdio_register reg = {
		    .range = {(uintptr_t)m->regions[r].host, m->regions[r].bytes},
		    .mode = UFFDIO_REGISTER_MODE_MISSING |
			(o->is_tracked ? UFFDIO_REGISTER_MODE_WP : 0),
		};

		if (ioctl(m->uffd, UFFDIO_REGISTER, &reg) < 0)
			return -errno;
	}
	return 0;
}

const struct vmm_region *
memory_region(const struct vmm_memory *m, uint64_t page)
{
	if (m->nr_regions > 1 && page * VMM_PAGE_BYTES >= m->regions[1].offset)
		return &m->regions[1];
	return &m->regions[0];
}

int
memory_discard(
    const struct vmm_memory *m, const struct vmm_options *o, uint64_t page, uint64_t count)
{
	const struct vmm_region *r = memory_region(m, page);
	uint8_t *at = r->host + (page * VMM_PAGE_BYTES - r->offset);

	/* MADV_DONTNEED would bring the file's bytes back. */
	if (o->backing == BACKING_FILE) {
		void *p = mmap(at, count * VMM_PAGE_BYTES, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

		return p == MAP_FAILED ? -errno : 0;
	}
	/* MADV_DONTNEED would leave the bytes in the memfd. */
	return madvise(at, count * VMM_PAGE_BYTES, o->is_memfd ? MADV_REMOVE : MADV_DONTNEED) < 0
	    ? -errno
	    : 0;
}

int
memory_resident(const struct vmm_memory *m, uint64_t *ret_pages)
{
	static unsigned char vec[65536];
	uint64_t pages = 0;
	uint32_t r;

	for (r = 0; r < m->nr_regions; r++) {
		uint64_t left = m->regions[r].bytes / VMM_PAGE_BYTES;
		uint8_t *at = m->regions[r].host;

		while (left > 0) {
			uint64_t n = left < sizeof(vec) ? left : sizeof(vec);
			uint64_t i;

			if (mincore(at, n * VMM_PAGE_BYTES, vec) < 0)
				return -errno;
			for (i = 0; i < n; i++)
				pages += vec[i] & 1;
			at += n * VMM_PAGE_BYTES;
			left -= n;
		}
	}
	*ret_pages = pages;
	return 0;
}
