/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/pagemap.h"
#include "supervisor/opener/image.h"
#include "supervisor/opener/job.h"
#include "supervisor/why.h"

/* Where a sentence for the client goes. */
struct reply {
	char *why;
	size_t bytes;
};

#define refuse(reply, error, ...) why_set((reply)->why, (reply)->bytes, (error), __VA_ARGS__)

/* One of them while they are opened. */
struct opened {
	uint64_t offset;
	const char *path;
	uint32_t nth;	   /* of those in the order */
	struct image file; /* .fd -1: not yet */
};

struct opening {
	size_t nr;
	struct opened rows[OVERLAY_MAX]; /* sorted by offset */
};

static int
compare(const void *a, const void *b)
{
	uint64_t x = ((const struct opened *)a)->offset, y = ((const struct opened *)b)->offset;

	return (x > y) - (x < y);
}

static void
sort_requests(struct opening *opening, const struct opener_order *order)
{
	const char *path = opener_text(order, order->paths_at[OPENER_OVERLAYS]);

	opening->nr = order->nr_overlays;
	for (uint32_t i = 0; i < opening->nr; i++) {
		opening->rows[i] = (struct opened){.offset = order->overlay_offsets[i],
		    .path = path,
		    .nth = i,
		    .file = {.fd = -1}};
		path += strlen(path) + 1;
	}
	qsort(opening->rows, opening->nr, sizeof(opening->rows[0]), compare);
}

static void
close_all(struct opening *opening)
{
	for (size_t i = 0; i < opening->nr; i++)
		fd_closep(&opening->rows[i].file.fd);
}

/* An image and an overlay are opened alike, but a client that named both is told which. */
static int
open_one(const struct reply *reply, struct opener_job *job, struct opened *row)
{
	static const char image[] = "image ";
	char why[OPENER_WHY_BYTES];
	const char *what = why;
	int r;

	if (row->offset % PAGE_BYTES != 0)
		return refuse(reply, -EINVAL,
		    "the overlay %s is at offset %" PRIu64 ", which is no multiple of %" PRIu64,
		    row->path, row->offset, PAGE_BYTES);
	opener_tell_at(job, OPENER_OVERLAYS, row->nth);
	r = image_open(&job->roots, &job->order->peer, row->path, &row->file, why, sizeof(why));
	if (r == 0)
		return 0;
	if (strncmp(what, image, strlen(image)) == 0)
		what += strlen(image);
	return refuse(reply, r, "the overlay at offset %" PRIu64 ": %s", row->offset, what);
}

static int
check_place(const struct reply *reply, uint64_t image_bytes, const struct opened *row,
    const struct opened *before)
{
	uint64_t offset = row->offset, bytes = row->file.bytes;

	if (before && offset < before->offset + before->file.bytes)
		return refuse(reply, -EINVAL,
		    "the overlay %s at offset %" PRIu64 " lies over %s at offset %" PRIu64
		    " of %" PRIu64 " bytes",
		    row->path, offset, before->path, before->offset, before->file.bytes);
	if (offset >= image_bytes || bytes > image_bytes - offset)
		return refuse(reply, -EINVAL,
		    "the overlay %s of %" PRIu64 " bytes at offset %" PRIu64
		    " goes beyond the image, which has %" PRIu64 " bytes",
		    row->path, bytes, offset, image_bytes);
	return 0;
}

static int
open_all(const struct reply *reply, struct opener_job *job, struct opening *opening)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < opening->nr; i++) {
		struct opened *row = &opening->rows[i];
		int r = open_one(reply, job, row);

		if (r < 0)
			return r;
		if (row->file.bytes > OVERLAY_MAX_BYTES - bytes)
			return refuse(reply, -EFBIG,
			    "the overlays have more than %" PRIu64
			    " bytes together, which is the limit",
			    OVERLAY_MAX_BYTES);
		bytes += row->file.bytes;
		r = check_place(reply, job->word.image.bytes, row, i > 0 ? row - 1 : NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

static int
copy_all(struct opener_job *job, const struct opening *opening)
{
	struct overlay_row rows[OVERLAY_MAX];
	int fds[OVERLAY_MAX];

	for (size_t i = 0; i < opening->nr; i++) {
		rows[i] =
		    (struct overlay_row){opening->rows[i].offset, opening->rows[i].file.bytes, 0};
		fds[i] = opening->rows[i].file.fd;
	}
	return overlay_create(
	    rows, fds, (uint32_t)opening->nr, job->word.image.bytes, &job->fds[OPENER_OVERLAYS]);
}

int
opener_copy_overlays(struct opener_job *job, char *why, size_t why_bytes)
{
	const struct reply reply = {why, why_bytes};
	__attribute__((cleanup(close_all))) struct opening opening = {0};
	int r;

	sort_requests(&opening, job->order);
	r = open_all(&reply, job, &opening);
	if (r < 0)
		return r;
	r = copy_all(job, &opening);
	if (r == -EBUSY)
		return refuse(
		    &reply, r, "an overlay became shorter while it was copied; try again");
	if (r < 0)
		return refuse(&reply, r, "the overlays cannot be copied: %s", strerror(-r));
	return 0;
}
