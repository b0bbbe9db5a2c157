/* SPDX-License-Identifier: Apache-2.0 */
/* A picture of a session's pages, asked of its worker: see common/picture.h. */
#ifndef SUPERVISOR_PICTURE_H
#define SUPERVISOR_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pagemap.h"

struct child;
struct ipc_session_pictured;
struct session;

/* Of all pictures at one time: the memory of 1 TiB of guests, at a byte for a page of 4 KiB. */
#define PICTURE_MAX_BYTES (UINT64_C(1) << 28)

struct picture_wish {
	bool is_new;	/* the next one can start from it */
	bool has_since; /* the client has that of the number since; 0: the image */
	uint64_t since;
};

struct picture {
	struct session *session;   /* while it is awaited; NULL: it is not */
	const struct child *child; /* who was asked; not to be looked into */
	uint32_t seq;
	int fd; /* owned; a memfd that the worker can write to for as long as it likes; -1 */
	uint64_t bytes;
	uint64_t *budget; /* that bytes were taken from */
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint32_t nr_regions;
	bool knows_writes;   /* the kernel tells the worker of each, and of each removal */
	bool knows_removals; /* what is removed is zeros */
	/* The answer. */
	bool is_answered;
	int error; /* positive errno */
	enum pagemap_tracking tracking;
	uint64_t base, number;
};

/* Asks for one; *ret, which need not be initialized, must stay where it is until picture_drop().
 * 0, or a negative errno and a sentence, with nothing held: -ENOTCONN nobody serves it now,
 * -EINVAL nothing is known of its pages, -EPROTONOSUPPORT its worker is too old, -EOPNOTSUPP
 * its writes are not tracked, -EBUSY, -ENOSPC too many pictures, -E2BIG too large, or the
 * errno of making or sending. */
int picture_ask(struct picture *ret, struct session *session, const struct picture_wish *wish,
    char *why, size_t why_bytes);

/* Its answer has come, or will not come any more. */
bool picture_is_over(const struct picture *picture);

/* Lets go of everything; what the worker says of it later is too late. */
void picture_drop(struct picture *picture);

#endif
