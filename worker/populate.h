/* SPDX-License-Identifier: Apache-2.0 */
/* Filling every absent page in the background, chunk by chunk, while faults are
 * served. */
#ifndef WORKER_POPULATE_H
#define WORKER_POPULATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;

#define POPULATE_CHUNK_BYTES (UINT64_C(256) * 1024)

/* Fills all that is absent now.  rate_bytes a second at most, 0 for no limit.  Ends
 * early with -ECANCELED when the completion's abort flag or the session's stop flag is
 * set.  0; -ESRCH when the VMM is gone; or another negative errno and why. */
int populate(struct session *s, uint64_t rate_bytes, char *why, size_t why_bytes);

/* The copy lock is held: is there a page that is neither filled nor removed? */
bool populate_is_needed(const struct session *s);

#endif
