/* SPDX-License-Identifier: Apache-2.0 */
/* The overlays of a session: bytes that take the place of the image's, for this session
 * alone.  A sealed memfd that the supervisor makes and keeps and that every worker of the
 * session maps: a page with the table, then the bytes of each overlay, each on a page of
 * its own.  Nothing in it can change any more; still, the reader trusts nothing. */
#ifndef COMMON_OVERLAY_H
#define COMMON_OVERLAY_H

#include <stddef.h>
#include <stdint.h>

#define OVERLAY_MAGIC	     UINT64_C(0x706167656f766c79)
#define OVERLAY_LAYOUT	     1U
#define OVERLAY_HEADER_BYTES 4096U
#define OVERLAY_MAX	     64U		 /* of one session */
#define OVERLAY_MAX_BYTES    (UINT64_C(4) << 20) /* all of them together */

struct overlay_row {
	uint64_t offset;  /* of the first byte in the image: a multiple of 4096 */
	uint64_t bytes;	  /* not 0; what is left of the last page is the image's */
	uint64_t data_at; /* where they are in the memfd: follows from the rows before */
};

struct overlay_header {
	uint64_t magic;
	uint32_t layout;
	uint32_t nr;
	struct overlay_row rows[OVERLAY_MAX]; /* sorted by offset, not overlapping */
};

_Static_assert(sizeof(struct overlay_header) <= OVERLAY_HEADER_BYTES, "header");

/* One that is mapped.  Read-only from then on: any thread may look. */
struct overlay_table {
	const unsigned char *base; /* NULL: not mapped */
	size_t mapped_bytes;
	uint32_t nr;
	struct overlay_row rows[OVERLAY_MAX]; /* as checked */
};

/* Makes the memfd; the bytes of rows[i] are the first of fds[i], copied by the kernel.  The
 * rows are sorted; data_at is set here.  0 and a descriptor that the caller owns; -EINVAL
 * for rows that cannot be, -EBUSY when a file is shorter than its row says, or another
 * negative errno. */
int overlay_create(
    struct overlay_row *rows, const int *fds, uint32_t nr, uint64_t image_bytes, int *ret_fd);

/* Maps one and checks seals, size and table: -EPROTO when they are wrong or do not fit into
 * an image of image_bytes.  fd stays the caller's and is not needed afterwards. */
int overlay_map(struct overlay_table *table, int fd, uint64_t image_bytes);
void overlay_unmap(struct overlay_table *table);

#endif
