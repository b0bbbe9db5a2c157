/* SPDX-License-Identifier: Apache-2.0 */
/* Where overlays take the place of the image.  The table does not change once it is mapped,
 * so any thread may look.  A page that an overlay has only a part of is put together by a
 * thread that may wait for the image, each time that it is needed: in a session's life
 * that is once or twice. */
#ifndef WORKER_OVERLAY_H
#define WORKER_OVERLAY_H

#include <stdint.h>

#include "common/overlay.h"
#include "worker/region.h"

struct image;

enum overlay_kind {
	OVERLAY_NONE, /* the image has all of the run */
	OVERLAY_HERE, /* an overlay has all of it */
	OVERLAY_PART, /* of its one page an overlay has a part: overlay_read() */
};

/* Maps the memfd in *fd for a session.  0 and a table that the caller owns, or a negative
 * errno. */
int overlay_open(int fd, uint64_t image_bytes, struct overlay_table **ret);
void overlay_close(struct overlay_table *table);

/* Shortens run, which is not empty, to pages of one kind, at least one.  *ret_src points at
 * the bytes when they are HERE. */
enum overlay_kind overlay_clip(
    const struct overlay_table *table, struct run *run, const void **ret_src);

/* As image_read(), with the overlays in their places. */
int overlay_read(const struct overlay_table *table, const struct image *image, uint64_t offset,
    uint64_t bytes, void *buf);

#endif
