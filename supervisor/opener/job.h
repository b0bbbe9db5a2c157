/* SPDX-License-Identifier: Apache-2.0 */
/* In the opener: one piece of work, in a process of its own, which may be killed at any time
 * and may wait for storage for ever. */
#ifndef SUPERVISOR_OPENER_JOB_H
#define SUPERVISOR_OPENER_JOB_H

#include "supervisor/opener/wire.h"
#include "supervisor/options.h"

struct opener_job {
	int link; /* borrowed */
	const struct opener_order *order;
	struct options_list roots;
	struct opener_word word; /* the answer, as far as it is known */
	int fds[OPENER_PARTS];	 /* owned; -1: none */
};

/* Does what is ordered and answers on link.  bytes_fd is -1 or what is to be written. */
void opener_do(int link, uint64_t number, int order_fd, int bytes_fd);

/* Says that this path is next, so that it can be named when its storage is silent. */
void opener_tell_at(struct opener_job *job, enum opener_part part, uint32_t nth);

/* overlays.c: opens the overlays and copies them into job->fds.  0, or a negative errno and a
 * sentence: image_open()'s, -EINVAL where they cannot be, -EFBIG too much, -EBUSY a file
 * changed meanwhile. */
int opener_copy_overlays(struct opener_job *job, char *why, size_t why_bytes);

/* loop.c: the opener's life, which ends with pagerd's.  link is its end. */
void opener_loop(int link) __attribute__((noreturn));

#endif
