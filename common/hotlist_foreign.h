/* SPDX-License-Identifier: Apache-2.0 */
/* Hot lists of other programs.  Neither of them says which image it is of: the caller sets
 * list->image before it reads one.
 *
 * HPL1: "HPL1", then unsigned LEB128 numbers: how many, then for each page the index of its
 * region and its offset there in bytes, sorted and without repeats.
 *
 * access.log: one decimal offset in the image on each line, in the order of first access.
 * Lines that are blank or begin with # mean nothing. */
#ifndef COMMON_HOTLIST_FOREIGN_H
#define COMMON_HOTLIST_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

#include "common/hotlist.h"

/* Where a region of the guest is in the image; all multiples of the page size. */
struct hotlist_region {
	uint64_t offset, bytes;
};

/* Appends to list.  0, -ENOMEM, -E2BIG, or -EINVAL and why, with some appended. */
int hotlist_read_hpl1(struct hotlist *list, const unsigned char *bytes, size_t nr_bytes,
    const struct hotlist_region *regions, size_t nr_regions, const char **ret_why);

/* The bytes, which the caller frees.  0, -ENOMEM, or -EINVAL and why: a page is in no region. */
int hotlist_write_hpl1(const struct hotlist *list, const struct hotlist_region *regions,
    size_t nr_regions, unsigned char **ret, size_t *ret_bytes, const char **ret_why);

/* As above; *ret_dropped says how many lines were misaligned, repeated or beyond the image, and
 * *ret_line which one is wrong, counted from 1; 0: none. */
int hotlist_read_log(struct hotlist *list, const char *text, size_t bytes, uint64_t *ret_dropped,
    uint64_t *ret_line, const char **ret_why);
int hotlist_write_log(const struct hotlist *list, char **ret, size_t *ret_bytes);

#endif
