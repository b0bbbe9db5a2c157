/* SPDX-License-Identifier: Apache-2.0 */
#include "common/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/pagemap.h"
#include "common/scope.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

static uint64_t
round_up(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

/* Where each row's bytes are follows from the rows before it.  Returns the size of the
 * file, or 0 for rows that cannot be. */
static uint64_t
lay_out(struct overlay_row *rows, uint32_t nr, uint64_t image_bytes)
{
	uint64_t at = OVERLAY_HEADER_BYTES, left = OVERLAY_MAX_BYTES, end = 0;

	if (nr == 0 || nr > OVERLAY_MAX)
		return 0;
	for (uint32_t i = 0; i < nr; i++) {
		struct overlay_row *row = &rows[i];

		if (row->bytes == 0 || row->bytes > left || row->offset % PAGE_BYTES != 0 ||
		    row->offset < end || row->offset >= image_bytes ||
		    row->bytes > image_bytes - row->offset)
			return 0;
		left -= row->bytes;
		end = row->offset + row->bytes;
		row->data_at = at;
		at += round_up(row->bytes);
	}
	return at;
}

static int
copy(int to, const struct overlay_row *row, int from)
{
	off_t at = 0;

	if (lseek(to, (off_t)row->data_at, SEEK_SET) < 0)
		return -errno;
	while ((uint64_t)at < row->bytes) {
		ssize_t n = sendfile(to, from, &at, (size_t)(row->bytes - (uint64_t)at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBUSY;
	}
	return 0;
}

static int
write_table(int fd, const struct overlay_row *rows, uint32_t nr)
{
	struct overlay_header header = {
	    .magic = OVERLAY_MAGIC,
	    .layout = OVERLAY_LAYOUT,
	    .nr = nr,
	};

	memcpy(header.rows, rows, nr * sizeof(rows[0]));
	ssize_t n = pwrite(fd, &header, sizeof(header), 0);
	if (n == (ssize_t)sizeof(header))
		return 0;
	return n < 0 ? -errno : -EIO;
}

int
overlay_create(
    struct overlay_row *rows, const int *fds, uint32_t nr, uint64_t image_bytes, int *ret_fd)
{
	uint64_t bytes = lay_out(rows, nr, image_bytes);
	int r;

	if (bytes == 0)
		return -EINVAL;
	scoped_fd int fd = fd_memfd("overlays");
	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	r = write_table(fd, rows, nr);
	for (uint32_t i = 0; i < nr && r == 0; i++)
		r = copy(fd, &rows[i], fds[i]);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	*ret_fd = fd_take(&fd);
	return 0;
}

/* The size of a file that may be one, or 0. */
static uint64_t
bytes_of_file(int fd)
{
	const uint64_t max = OVERLAY_HEADER_BYTES + OVERLAY_MAX_BYTES + OVERLAY_MAX * PAGE_BYTES;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0)
		return 0;
	uint64_t bytes = (uint64_t)st.st_size;
	return bytes > OVERLAY_HEADER_BYTES && bytes <= max ? bytes : 0;
}

/* The rows and where their bytes are must be what overlay_create() would have made. */
static int
read_table(struct overlay_table *table, const struct overlay_header *header, uint64_t file_bytes,
    uint64_t image_bytes)
{
	if (header->magic != OVERLAY_MAGIC || header->layout != OVERLAY_LAYOUT ||
	    header->nr > OVERLAY_MAX)
		return -EPROTO;
	table->nr = header->nr;
	memcpy(table->rows, header->rows, sizeof(table->rows));
	if (lay_out(table->rows, table->nr, image_bytes) != file_bytes ||
	    memcmp(table->rows, header->rows, table->nr * sizeof(table->rows[0])) != 0)
		return -EPROTO;
	return 0;
}

int
overlay_map(struct overlay_table *table, int fd, uint64_t image_bytes)
{
	uint64_t bytes = bytes_of_file(fd);
	int r;

	*table = (struct overlay_table){0};
	if (bytes == 0)
		return -EPROTO;
	/* Before Linux 6.7 a file that is sealed against writing could not be mapped shared. */
	void *p = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	r = read_table(table, p, bytes, image_bytes);
	if (r < 0) {
		munmap(p, (size_t)bytes);
		*table = (struct overlay_table){0};
		return r;
	}
	table->base = p;
	table->mapped_bytes = (size_t)bytes;
	return 0;
}

void
overlay_unmap(struct overlay_table *table)
{
	if (table->base)
		munmap((void *)(uintptr_t)table->base, table->mapped_bytes);
	*table = (struct overlay_table){0};
}
