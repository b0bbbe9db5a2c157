/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that the image gives no bytes for: truncated, replaced, or on storage that failed.
 * The fault waits and is tried again for as long as the session lives.  After some tries the
 * session's policy comes to it: poison makes the page one that stops the VMM when it is
 * touched, kill has the supervisor end the VMM.  A page is never filled with anything but
 * the image's bytes, and one whose read succeeds at last is filled with them, poisoned or
 * not. */
#ifndef WORKER_UNREADABLE_H
#define WORKER_UNREADABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/region.h"

struct iolane_slot;
struct session;

/* With the back-off of the I/O lane (50 ms, doubled each time) the policy comes to a page
 * after 1.5 s: transient errors of a network file system are over by then or last for long. */
#define UNREADABLE_TRIES 6U

/* A session's; written by its I/O threads, read by the control thread. */
struct unreadable {
	_Atomic bool is_failing;   /* since the last read that succeeded with none waiting */
	_Atomic bool is_helpless;  /* the kernel poisons nothing */
	_Atomic uint32_t poisoned; /* pages */
	_Atomic uint64_t offset;   /* of the last read that failed, in the image */
	_Atomic int error;	   /* its errno */
};

/* An I/O thread that has slot to itself: the read of its page has failed again, with errno
 * error.  False when the page needs no other try: it was filled or removed meanwhile. */
bool unreadable_page(
    struct session *s, struct iolane_slot *slot, const struct run *page, int error);

/* The I/O thread has filled or dropped its page, and no other in the lane waits for the
 * image. */
void unreadable_over(struct session *s);

/* The control thread: tells the supervisor what was posted. */
void unreadable_tell(struct session *s, unsigned posted);

#endif
