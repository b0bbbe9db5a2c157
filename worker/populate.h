/* SPDX-License-Identifier: Apache-2.0 */
/* Filling every absent page in the background, chunk by chunk, while faults are
 * served. */
#ifndef WORKER_POPULATE_H
#define WORKER_POPULATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run;
struct session;

#define POPULATE_CHUNK_BYTES (UINT64_C(256) * 1024)

/* Under way, by one thread. */
struct sweep {
	struct session *s;
	const _Atomic bool *abort; /* besides session.stop */
	uint64_t rate_bytes;	   /* a second at most; 0: no limit */
	uint64_t begin_ns;
	uint64_t bytes;	   /* filled so far */
	unsigned failures; /* reads that failed in a row */
	bool is_last;	   /* nothing is registered after it: holes need no page */
	bool has_memory;   /* a huge page could be had lately */
	void *buf;	   /* owned, until populate_end(); NULL before it is needed */
	char *why;	   /* of a failure */
	size_t why_bytes;
};

/* Fills of run what is of one kind of source, from its first page on, and may wait for the
 * image.  Every page of it was found fillable.  0 and how many pages are there now, perhaps
 * none; -ESRCH when the VMM is gone; or another negative errno and why. */
int populate_run(struct sweep *sweep, struct run run, uint64_t *ret_done);
/* Waits as long as the rate asks for. */
void populate_keep_pace(const struct sweep *sweep);
/* It was told to stop. */
bool populate_is_over(const struct sweep *sweep);
void populate_end(struct sweep *sweep);

/* Fills all that is absent now.  rate_bytes a second at most, 0 for no limit.  Ends
 * early with -ECANCELED when the completion's abort flag or the session's stop flag is
 * set.  0; -ESRCH when the VMM is gone; or another negative errno and why. */
int populate(struct session *s, uint64_t rate_bytes, char *why, size_t why_bytes);

/* The copy lock is held: is there a page that is neither filled nor removed? */
bool populate_is_needed(const struct session *s);

#endif
