/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vmm/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/scope.h"

#define BUFFER_PAGES UINT64_C(256)

static int
write_all(int fd, const uint8_t *bytes, uint64_t n, uint64_t offset)
{
	while (n > 0) {
		ssize_t done = pwrite(fd, bytes, n, (off_t)offset);

		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			bytes += done;
			offset += (uint64_t)done;
			n -= (uint64_t)done;
		}
	}
	return 0;
}

/* Fills the buffer with pages from first on, up to the next hole.  How many. */
static uint64_t
fill_run(const struct pattern *pattern, uint8_t *buffer, uint64_t first, uint64_t end)
{
	uint64_t n = 0;

	while (n < BUFFER_PAGES && first + n < end &&
	    pattern_kind(pattern, first + n) != PATTERN_HOLE) {
		pattern_fill(pattern_image(pattern, first + n),
		    (uint64_t *)(void *)(buffer + n * PATTERN_PAGE_BYTES));
		n++;
	}
	return n;
}

int
image_write(int fd, const struct pattern *pattern, uint64_t size_bytes)
{
	scoped_free uint8_t *buffer = malloc(BUFFER_PAGES * PATTERN_PAGE_BYTES);
	uint64_t end = size_bytes / PATTERN_PAGE_BYTES;
	uint64_t page = 0;

	if (buffer == NULL)
		return -ENOMEM;
	if (ftruncate(fd, (off_t)size_bytes) < 0)
		return -errno;
	while (page < end) {
		uint64_t n = fill_run(pattern, buffer, page, end);
		int err = write_all(fd, buffer, n * PATTERN_PAGE_BYTES, page * PATTERN_PAGE_BYTES);

		if (err < 0)
			return err;
		/* What ended a short run is a hole. */
		page += n < BUFFER_PAGES ? n + 1 : n;
	}
	return 0;
}
