/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/exchange.h"
#include "supervisor/ctl/interrupt.h"

#define CHUNK_BYTES (UINT64_C(16) << 20)
#define ZERO_BYTES  65536U

/* --- The copy ---------------------------------------------------------------------- */

static int
copy_some(int from, int to, off_t *offset, uint64_t bytes)
{
	off_t at = *offset;
	ssize_t n = copy_file_range(from, offset, to, &at, bytes, 0);
	char buf[ZERO_BYTES];

	if (n > 0)
		return 0;
	if (n < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	n = pread(from, buf, bytes < sizeof(buf) ? bytes : sizeof(buf), *offset);
	if (n <= 0)
		return n < 0 ? -errno : -EIO; /* shorter than it was */
	for (ssize_t done = 0; done < n;) {
		ssize_t w = pwrite(to, buf + done, (size_t)(n - done), *offset + done);

		if (w < 0)
			return -errno;
		done += w;
	}
	*offset += n;
	return 0;
}

/* One run of data, which ends at end. */
static int
copy_run(int from, int to, off_t offset, off_t end, uint64_t deadline_ns)
{
	while (offset < end) {
		uint64_t left = (uint64_t)(end - offset);
		int r;

		if (interrupt_caught())
			return -EINTR;
		if (exchange_left_ms(deadline_ns) == 0)
			return -ETIMEDOUT;
		r = copy_some(from, to, &offset, left < CHUNK_BYTES ? left : CHUNK_BYTES);
		if (r < 0)
			return r;
	}
	return 0;
}

static int
copy(int from, int to, uint64_t bytes, uint64_t deadline_ns)
{
	off_t size = (off_t)bytes, offset = 0, end;

	/* A file system that shares blocks does it at once. */
	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (ftruncate(to, size) < 0)
		return -errno;
	while (offset < size) {
		int r;

		offset = lseek(from, offset, SEEK_DATA);
		if (offset < 0)
			return errno == ENXIO ? 0 : -errno; /* a hole up to the end */
		end = lseek(from, offset, SEEK_HOLE);
		if (end < 0)
			return -errno;
		if (end > size)
			end = size;
		r = copy_run(from, to, offset, end, deadline_ns);
		if (r < 0)
			return r;
		offset = end;
	}
	return 0;
}

static int
fill(int fd, const char *image, uint64_t bytes, const uid_t owner[2], uint64_t deadline_ns)
{
	scoped_fd int from = open(image, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (from < 0 || fstat(from, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes)
		return -EFBIG;
	if (geteuid() == 0 && fchown(fd, owner[0], owner[1]) < 0)
		return -errno;
	return copy(from, fd, bytes, deadline_ns);
}

int
memfile_open(const char *path, const char *image, uint64_t bytes, const uid_t owner[2],
    uint64_t deadline_ns, bool *ret_made)
{
	scoped_fd int fd = open(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
	struct stat st;
	int r;

	*ret_made = fd >= 0;
	if (fd >= 0) {
		r = fill(fd, image, bytes, owner, deadline_ns);
		if (r < 0)
			unlink(path);
		return r < 0 ? r : fd_take(&fd);
	}
	if (errno != EEXIST)
		return -errno;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes)
		return -EFBIG;
	return fd_take(&fd);
}

/* --- What was given back ----------------------------------------------------------- */

static int
empty_range(int fd, uint64_t offset, uint64_t bytes)
{
	static const char zeros[ZERO_BYTES];

	if (fallocate(
		fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	while (bytes > 0) {
		ssize_t n =
		    pwrite(fd, zeros, bytes < sizeof(zeros) ? bytes : sizeof(zeros), (off_t)offset);

		if (n < 0)
			return -errno;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

/* Of one region: fd -1 only checks. */
static int
empty_region(int fd, uint64_t limit, const json_t *region, uint64_t *bytes)
{
	uint64_t page = ctl_u64(region, "page_size"), at = ctl_u64(region, "offset");
	uint64_t size = ctl_u64(region, "size");
	const json_t *run;
	size_t i;

	if (page == 0 || page > limit || at > limit || size > limit - at)
		return -EPROTO;
	limit = at + size;
	json_array_foreach(json_object_get(region, "runs"), i, run)
	{
		const char *state = json_string_value(json_array_get(run, 0));
		json_int_t count = json_integer_value(json_array_get(run, 1));

		if (!state || count <= 0 || (uint64_t)count > (limit - at) / page)
			return -EPROTO;
		if (strcmp(state, "removed") == 0) {
			int r = fd < 0 ? 0 : empty_range(fd, at, (uint64_t)count * page);

			if (r < 0)
				return r;
			*bytes += (uint64_t)count * page;
		}
		at += (uint64_t)count * page;
	}
	/* A picture that leaves out pages says nothing of them. */
	return at == limit ? 0 : -EPROTO;
}

int
memfile_empty(int fd, uint64_t bytes, const json_t *picture, uint64_t *ret_bytes)
{
	const json_t *regions = json_object_get(picture, "regions"), *region;
	size_t i;

	if (json_array_size(regions) == 0)
		return -EPROTO;
	for (int pass = 0; pass < 2; pass++) {
		*ret_bytes = 0;
		json_array_foreach(regions, i, region)
		{
			int r = empty_region(pass ? fd : -1, bytes, region, ret_bytes);

			if (r < 0)
				return r;
		}
	}
	return 0;
}
