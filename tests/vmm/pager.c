/* SPDX-License-Identifier: Apache-2.0 */
/* The barest pager that can be written: it polls, reads and copies one page for each fault out
 * of a mapped and populated image.  Benchmarks compare with it, in a process for each VMM (here)
 * or in one for all (bare_pager.c); tests of this VMM need no other pager. */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/clock.h"

#define BATCH 16

int
pager_open(struct pager *p, const char *path, uint64_t bytes, uint64_t page_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	void *image;

	if (size < 0)
		return -errno;
	if ((uint64_t)size < bytes)
		return -EFBIG;
	image = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	close(fd);
	p->image = image;
	p->zeros =
	    mmap(NULL, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	p->removed = calloc(bytes / page_bytes, 1);
	if (image == MAP_FAILED || p->zeros == MAP_FAILED || p->removed == NULL)
		return -ENOMEM;
	return 0;
}

/* Offset in the image of an address of guest memory. */
static uint64_t
image_offset(const struct pager *p, uint64_t addr)
{
	const struct vmm_memory *m = p->memory;
	uint32_t r = m->nr_regions - 1;

	while (r > 0 && addr - (uintptr_t)m->regions[r].host >= m->regions[r].bytes)
		r--;
	return addr - (uintptr_t)m->regions[r].host + m->regions[r].offset;
}

/* False when the VMM is gone.  A removal that is pending makes the copy fail until its event has
 * been read.  The wake makes the guest fault again, behind that event. */
static bool
serve_fault(const struct pager *p, uint64_t addr)
{
	uint64_t page_bytes = p->memory->page_bytes;
	uint64_t dst = addr & ~(page_bytes - 1);
	uint64_t offset = image_offset(p, dst);
	const uint8_t *src = p->removed[offset / page_bytes] ? p->zeros : p->image + offset;
	struct uffdio_copy copy = {.dst = dst, .src = (uintptr_t)src, .len = page_bytes};

	if (ioctl(p->memory->uffd, UFFDIO_COPY, &copy) == 0)
		return true;
	if (errno == EAGAIN || errno == EEXIST) {
		struct uffdio_range range = {.start = dst, .len = page_bytes};

		if (ioctl(p->memory->uffd, UFFDIO_WAKE, &range) == 0)
			return true;
	}
	if (errno == ESRCH)
		return false;
	fprintf(stderr, "bare pager: copy: %s; giving up\n", strerror(errno));
	_exit(1);
}

static void
note_removal(const struct pager *p, uint64_t start, uint64_t end)
{
	uint64_t page_bytes = p->memory->page_bytes;
	uint64_t first = image_offset(p, start) / page_bytes;

	memset(p->removed + first, 1, (end - start) / page_bytes);
}

void
pager_serve(const struct pager *p)
{
	struct pollfd pfd = {.fd = p->memory->uffd, .events = POLLIN};
	struct uffd_msg msgs[BATCH];

	for (;;) {
		ssize_t n;
		size_t i;

		if (poll(&pfd, 1, -1) < 0)
			continue;
		n = read(p->memory->uffd, msgs, sizeof(msgs));
		if (n <= 0)
			continue;
		for (i = 0; i < (size_t)n / sizeof(msgs[0]); i++) {
			if (msgs[i].event == UFFD_EVENT_REMOVE)
				note_removal(p, msgs[i].arg.remove.start, msgs[i].arg.remove.end);
		}
		for (i = 0; i < (size_t)n / sizeof(msgs[0]); i++) {
			if (msgs[i].event == UFFD_EVENT_PAGEFAULT &&
			    !serve_fault(p, msgs[i].arg.pagefault.address))
				return;
		}
	}
}

/* The bare large-chunk loop: the floor for population. */
static int
pager_populate(const struct pager *p, uint64_t chunk)
{
	uint32_t r;

	for (r = 0; r < p->memory->nr_regions; r++) {
		const struct vmm_region *region = &p->memory->regions[r];
		uint64_t done = 0;

		while (done < region->bytes) {
			uint64_t left = region->bytes - done;
			struct uffdio_copy copy = {
			    .dst = (uintptr_t)region->host + done,
			    .src = (uintptr_t)p->image + region->offset + done,
			    .len = left < chunk ? left : chunk,
			};

			if (ioctl(p->memory->uffd, UFFDIO_COPY, &copy) < 0 && copy.copy <= 0)
				return -errno;
			done += (uint64_t)copy.copy;
		}
	}
	return 0;
}

/* Tells the parent how it went: nanoseconds of the population, or a negative errno. */
static void
pager_main(const struct vmm_memory *m, const struct vmm_options *o, int report_fd)
{
	struct pager p = {.memory = m};
	int64_t result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	result = pager_open(&p, o->path, o->size_bytes, m->page_bytes);
	if (result == 0 && o->populate_bytes > 0) {
		uint64_t start = clock_now_ns();

		result = pager_populate(&p, o->populate_bytes);
		if (result == 0)
			result = (int64_t)(clock_now_ns() - start);
	}
	if (write(report_fd, &result, sizeof(result)) != sizeof(result) || result < 0)
		_exit(1);
	close(report_fd);
	pager_serve(&p);
	_exit(0);
}

int
pager_start(struct vmm_memory *m, const struct vmm_options *o)
{
	int64_t result = -EPIPE;
	int pipe_fds[2];
	pid_t pid;

	if (pipe(pipe_fds) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(pipe_fds[0]);
		pager_main(m, o, pipe_fds[1]);
	}
	close(pipe_fds[1]);
	if (read(pipe_fds[0], &result, sizeof(result)) != sizeof(result))
		result = -EPIPE;
	close(pipe_fds[0]);
	if (result < 0)
		return (int)result;
	m->pager = pid;
	m->populate_ns = (uint64_t)result;
	return 0;
}
