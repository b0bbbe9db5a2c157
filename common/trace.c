/* SPDX-License-Identifier: Apache-2.0 */
#include "common/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/scope.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int
write_at(int fd, const void *bytes, size_t nr, off_t at)
{
	ssize_t n = pwrite(fd, bytes, nr, at);

	if (n == (ssize_t)nr)
		return 0;
	return n < 0 ? -errno : -EIO;
}

int
trace_create(enum trace_kind kind, uint64_t room, const uint32_t *words, uint64_t nr, int *ret_fd)
{
	const off_t bytes = (off_t)(TRACE_HEADER_BYTES + room * sizeof(uint32_t));
	const struct trace_header header = {
	    .magic = TRACE_MAGIC,
	    .layout = TRACE_LAYOUT,
	    .kind = kind,
	    .room = room,
	    .nr = nr,
	};
	int r;

	if (room == 0 || room > TRACE_MAX_WORDS || nr > room)
		return -EINVAL;
	scoped_fd int fd = fd_memfd("trace");
	if (fd < 0)
		return fd;
	/* All of it now: a fault thread that could not get a page of it would die. */
	if (ftruncate(fd, bytes) < 0 || fallocate(fd, 0, 0, bytes) < 0)
		return -errno;
	r = write_at(fd, &header, sizeof(header), 0);
	if (r == 0 && nr > 0)
		r = write_at(fd, words, nr * sizeof(*words), TRACE_HEADER_BYTES);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	*ret_fd = fd_take(&fd);
	return 0;
}

/* How many words the file has room for, or 0 when it is no trace. */
static uint64_t
room_of_file(int fd)
{
	const uint64_t most = TRACE_HEADER_BYTES + TRACE_MAX_WORDS * sizeof(uint32_t);
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0)
		return 0;
	uint64_t bytes = (uint64_t)st.st_size;
	if (bytes <= TRACE_HEADER_BYTES || bytes > most)
		return 0;
	return (bytes - TRACE_HEADER_BYTES) / sizeof(uint32_t);
}

int
trace_map(struct trace *trace, int fd, enum trace_kind kind, bool writable)
{
	uint64_t room = room_of_file(fd);
	size_t bytes = (size_t)(TRACE_HEADER_BYTES + room * sizeof(uint32_t));
	struct trace_header *header;

	if (room == 0)
		return -EPROTO;
	/* With its page tables: the fault thread is not to take a fault for each page of it. */
	void *p = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
	    MAP_SHARED | (writable ? MAP_POPULATE : 0), fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	header = p;
	if (__atomic_load_n(&header->magic, __ATOMIC_RELAXED) != TRACE_MAGIC ||
	    __atomic_load_n(&header->layout, __ATOMIC_RELAXED) != TRACE_LAYOUT ||
	    __atomic_load_n(&header->kind, __ATOMIC_RELAXED) != kind ||
	    __atomic_load_n(&header->room, __ATOMIC_RELAXED) != room) {
		munmap(p, bytes);
		return -EPROTO;
	}
	trace->header = header;
	trace->words = (_Atomic uint32_t *)(void *)((char *)p + TRACE_HEADER_BYTES);
	trace->room = room;
	trace->kind = kind;
	trace->mapped_bytes = bytes;
	return 0;
}

void
trace_unmap(struct trace *trace)
{
	if (trace->header != NULL)
		munmap(trace->header, trace->mapped_bytes);
	*trace = (struct trace){0};
}
