/* SPDX-License-Identifier: Apache-2.0 */
/* What is this descriptor?  Asked of what a VMM sent; there is no /proc to look in. */
#ifndef WORKER_UFFD_PROBE_H
#define WORKER_UFFD_PROBE_H

#include <stddef.h>
#include <stdint.h>

#include "common/pagemap.h"

/* 0 when fd is a userfaultfd that can be served: its API is negotiated and it is
 * non-blocking.  Else -EINVAL with a reason that says what to change.  Never changes
 * the descriptor: one whose API was not negotiated stays so. */
int uffd_probe(int fd, char *reason, size_t bytes);

/* 0 unless the memory of a region has pages of another size than is said of it, or one of its ends
 * is not registered: then -EINVAL with a reason that names the region by its number.  What cannot be
 * found out (of a VMM that exits, or discards memory right now) is no error.  Fills nothing. */
int uffd_probe_pages(int fd, const struct region *regions, uint32_t nr, char *reason, size_t bytes);

/* 0 when fd is memory that can be sealed (a memfd), else -EINVAL with a reason. */
int memfd_probe(int fd, char *reason, size_t bytes);

#endif
