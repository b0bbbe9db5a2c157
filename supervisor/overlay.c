/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/overlay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/pagemap.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/session.h"
#include "supervisor/why.h"

/* Where a sentence for the client goes. */
struct reply {
	char *why;
	size_t bytes;
};

#define refuse(reply, error, ...) why_set((reply)->why, (reply)->bytes, (error), __VA_ARGS__)

/* One of them while they are opened. */
struct opened {
	const struct overlay_request *request;
	struct image file; /* .fd -1: not yet */
};

struct opening {
	size_t nr;
	struct opened rows[OVERLAY_MAX]; /* sorted by offset */
};

static int
compare(const void *a, const void *b)
{
	uint64_t x = ((const struct opened *)a)->request->offset;
	uint64_t y = ((const struct opened *)b)->request->offset;

	return (x > y) - (x < y);
}

static void
sort_requests(struct opening *opening, const struct session_request *req)
{
	opening->nr = req->nr_overlays;
	for (size_t i = 0; i < opening->nr; i++)
		opening->rows[i] =
		    (struct opened){.request = &req->overlays[i], .file = {.fd = -1}};
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
open_one(
    const struct reply *reply, struct session *session, const struct peer *peer, struct opened *row)
{
	static const char image[] = "image ";
	const struct overlay_request *request = row->request;
	char why[sizeof(session->reason) * 2];
	const char *what = why;
	int r;

	if (request->offset % PAGE_BYTES != 0)
		return refuse(reply, -EINVAL,
		    "the overlay %s is at offset %" PRIu64 ", which is no multiple of %" PRIu64,
		    request->path, request->offset, PAGE_BYTES);
	r = image_open(session->sup, peer, request->path, &row->file, why, sizeof(why));
	if (r == 0)
		return 0;
	if (strncmp(what, image, strlen(image)) == 0)
		what += strlen(image);
	return refuse(reply, r, "the overlay at offset %" PRIu64 ": %s", request->offset, what);
}

static int
check_place(const struct reply *reply, const struct session *session, const struct opened *row,
    const struct opened *before)
{
	const char *path = row->request->path;
	uint64_t offset = row->request->offset, bytes = row->file.bytes;

	if (before && offset < before->request->offset + before->file.bytes)
		return refuse(reply, -EINVAL,
		    "the overlay %s at offset %" PRIu64 " lies over %s at offset %" PRIu64
		    " of %" PRIu64 " bytes",
		    path, offset, before->request->path, before->request->offset,
		    before->file.bytes);
	if (offset >= session->image.bytes || bytes > session->image.bytes - offset)
		return refuse(reply, -EINVAL,
		    "the overlay %s of %" PRIu64 " bytes at offset %" PRIu64
		    " goes beyond the image, which has %" PRIu64 " bytes",
		    path, bytes, offset, session->image.bytes);
	return 0;
}

static int
open_all(const struct reply *reply, struct session *session, const struct peer *peer,
    struct opening *opening)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < opening->nr; i++) {
		struct opened *row = &opening->rows[i];
		int r = open_one(reply, session, peer, row);

		if (r < 0)
			return r;
		if (row->file.bytes > OVERLAY_MAX_BYTES - bytes)
			return refuse(reply, -EFBIG,
			    "the overlays have more than %" PRIu64
			    " bytes together, which is the limit",
			    OVERLAY_MAX_BYTES);
		bytes += row->file.bytes;
		r = check_place(reply, session, row, i > 0 ? row - 1 : NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

static int
identify(struct overlays *overlays)
{
	struct stat st;

	if (fstat(overlays->fd, &st) < 0)
		return -errno;
	overlays->dev = st.st_dev;
	overlays->ino = st.st_ino;
	return 0;
}

static int
copy_all(struct overlays *overlays, const struct opening *opening, uint64_t image_bytes)
{
	struct overlay_row rows[OVERLAY_MAX];
	int fds[OVERLAY_MAX], r;

	overlays->files = xcalloc(opening->nr, sizeof(overlays->files[0]));
	for (size_t i = 0; i < opening->nr; i++) {
		const struct opened *row = &opening->rows[i];

		rows[i] = (struct overlay_row){row->request->offset, row->file.bytes, 0};
		fds[i] = row->file.fd;
		overlays->files[i] = (struct overlay_file){
		    row->request->offset, row->file.bytes, xstrdup(row->request->path)};
	}
	overlays->nr = opening->nr;
	r = overlay_create(rows, fds, (uint32_t)opening->nr, image_bytes, &overlays->fd);
	return r < 0 ? r : identify(overlays);
}

int
overlays_open(struct session *session, const struct peer *peer, const struct session_request *req,
    char *why, size_t why_bytes)
{
	const struct reply reply = {why, why_bytes};
	__attribute__((cleanup(close_all))) struct opening opening = {0};
	int r;

	if (req->nr_overlays == 0)
		return 0;
	if (req->nr_overlays > OVERLAY_MAX)
		return refuse(&reply, -EINVAL, "%zu overlays are more than %u, which is the limit",
		    req->nr_overlays, OVERLAY_MAX);
	sort_requests(&opening, req);
	r = open_all(&reply, session, peer, &opening);
	if (r < 0)
		return r;
	r = copy_all(&session->overlays, &opening, session->image.bytes);
	if (r == -EBUSY)
		return refuse(
		    &reply, r, "an overlay became shorter while it was copied; try again");
	if (r < 0)
		return refuse(&reply, r, "the overlays cannot be copied: %s", strerror(-r));
	session->flags |= IPC_SESSION_HAS_OVERLAYS;
	return 0;
}

/* --- What a worker hands over ---------------------------------------------------- */

static bool
is_same(const struct overlays *overlays, const struct overlay_table *table, const struct stat *st)
{
	if (st->st_dev != overlays->dev || st->st_ino != overlays->ino || table->nr != overlays->nr)
		return false;
	for (size_t i = 0; i < overlays->nr; i++)
		if (overlays->files[i].offset != table->rows[i].offset ||
		    overlays->files[i].bytes != table->rows[i].bytes)
			return false;
	return true;
}

static void
learn(struct overlays *overlays, const struct overlay_table *table)
{
	overlays->nr = table->nr;
	overlays->files = xcalloc(table->nr, sizeof(overlays->files[0]));
	for (size_t i = 0; i < overlays->nr; i++)
		overlays->files[i] =
		    (struct overlay_file){table->rows[i].offset, table->rows[i].bytes, xstrdup("")};
}

int
overlays_take(struct session *session, int *fd)
{
	struct overlays *overlays = &session->overlays;
	struct overlay_table table;
	struct stat st;

	if (overlay_map(&table, *fd, session->image.bytes) < 0)
		return -EPROTO;
	bool is_known = overlays->nr > 0;
	bool is_ours = !is_known || (fstat(*fd, &st) == 0 && is_same(overlays, &table, &st));
	if (is_ours && !is_known)
		learn(overlays, &table);
	overlay_unmap(&table);
	if (!is_ours)
		return -EPROTO;
	overlays->fd = fd_take(fd);
	return identify(overlays);
}

void
overlays_free(struct overlays *overlays)
{
	fd_closep(&overlays->fd);
	for (size_t i = 0; i < overlays->nr; i++)
		free(overlays->files[i].path);
	free(overlays->files);
	overlays->files = NULL;
	overlays->nr = 0;
}
