/* SPDX-License-Identifier: Apache-2.0 */
/* A hot list: the pages of an image that a restore touches first, in that order, and which
 * image they are of.  Recorded once, replayed at later restores.
 *
 * The file, all numbers little-endian:
 *
 *	 0  8  "pagerhot"
 *	 8  4  version: 1
 *	12  4  offset of the runs: 56 and the bytes of the key
 *	16  8  size of the image in bytes
 *	24  8  its modification time, nanoseconds since 1970, signed
 *	32  8  pages of 4096 bytes in all runs
 *	40  8  runs
 *	48  4  bytes of the key, at most 127
 *	52  4  zero
 *	56     cache key of the image, printable; may be empty
 *	       the runs in order: two LEB128 numbers each, in their shortest form: the distance
 *	       from the end of the run before (zigzag; the first from 0), the pages less one
 *	 -8  8  FNV-1a, 64 bits, of all bytes before
 *
 * Runs that could be one are one.  Together they have at most as many pages as the image. */
#ifndef COMMON_HOTLIST_H
#define COMMON_HOTLIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOTLIST_PAGE_BYTES UINT64_C(4096)
#define HOTLIST_KEY_BYTES  128 /* with the terminator */
#define HOTLIST_MAX_RUNS   (UINT32_C(1) << 20)
#define HOTLIST_MAX_BYTES  (UINT64_C(12) << 20) /* of a file: what that many runs can take */
#define HOTLIST_MAX_PAGES  (UINT64_C(1) << 32)	/* of an image */
#define HOTLIST_MAX_MERGED 64U			/* lists in one merge */

/* Which image.  A list is stale when the size differs; or the key, where both have one; or
 * else the modification time. */
struct hotlist_image {
	uint64_t bytes;
	int64_t mtime_ns;
	char key[HOTLIST_KEY_BYTES]; /* empty: none was given */
};

struct hotlist_run {
	uint32_t first; /* page of the image */
	uint32_t nr;	/* pages, not 0 */
};

struct hotlist {
	struct hotlist_image image;
	struct hotlist_run *runs; /* owned */
	size_t nr_runs, room;
	uint64_t nr_pages; /* of all runs */
};

/* An empty list of no image.  hotlist_fini() frees what is in it, not the struct. */
void hotlist_init(struct hotlist *list);
void hotlist_fini(struct hotlist *list);

/* Appends pages of the image; continues the last run where it can.  0; -EINVAL beyond the
 * image, or more pages than it has; -E2BIG too many runs; -ENOMEM.  Then nothing changed. */
int hotlist_add(struct hotlist *list, uint64_t first, uint64_t nr);

/* Appends nr single pages, each the first time that it is named; those beyond the image are
 * left out, too.  0 or a negative errno, with some appended. */
int hotlist_add_pages(struct hotlist *list, const uint32_t *pages, size_t nr);

/* Why a list of the image of is not one for the image want, in words; NULL: it is. */
const char *hotlist_stale(const struct hotlist_image *of, const struct hotlist_image *want);

/* The file's bytes, which the caller frees.  0 or -ENOMEM. */
int hotlist_encode(const struct hotlist *list, unsigned char **ret, size_t *ret_bytes);

/* Reads the file's bytes into a list that is the caller's, to be freed after success only.
 * 0; -ENOMEM; -EINVAL and in *ret_why, in words, what is wrong with them. */
int hotlist_decode(
    struct hotlist *ret, const unsigned char *bytes, size_t nr_bytes, const char **ret_why);

/* The bytes of an open file, which the caller frees.  0; -ENOMEM; what reading said; -EINVAL and why
 * it is no list. */
int hotlist_read(int fd, unsigned char **ret, size_t *ret_bytes, const char **ret_why);

/* The pages that are in at least least of the nr lists, by their mean place in those.  The
 * image is that of the first; all must be lists for it.  0; -ENOMEM, -E2BIG; -EINVAL and why. */
int hotlist_merge(struct hotlist *ret, const struct hotlist *lists, size_t nr, size_t least,
    const char **ret_why);

/* Brings neighbours together: a run comes with those around it, up to most pages of them,
 * when the first of them is due, so no page comes later than before.  Of a long list those that
 * are due much later stay where they are.  Runs that touch may stay apart: such a list is for a
 * plan, not for a file.  0 or -ENOMEM. */
int hotlist_coalesce(struct hotlist *list, uint32_t most);

/* What the last eight bytes of a file are to be. */
uint64_t hotlist_checksum(const unsigned char *bytes, size_t nr_bytes);

static inline uint64_t
hotlist_image_pages(const struct hotlist_image *image)
{
	return image->bytes / HOTLIST_PAGE_BYTES + (image->bytes % HOTLIST_PAGE_BYTES != 0);
}

#endif
