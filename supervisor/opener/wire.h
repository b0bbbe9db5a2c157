/* SPDX-License-Identifier: Apache-2.0 */
/* What pagerd and its opener say to each other.  The opener is a fork of the same program, so
 * structures have one layout; still, what comes back is checked. */
#ifndef SUPERVISOR_OPENER_WIRE_H
#define SUPERVISOR_OPENER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/overlay.h"
#include "supervisor/image.h"

#define OPENER_WHY_BYTES 512
#define OPENER_MAX_FDS	 4U

/* In the order in which they are done; one that fails is the last, but for the hot list. */
enum opener_part {
	OPENER_IMAGE,	 /* opened */
	OPENER_OVERLAYS, /* opened and copied into a memfd: see common/overlay.h */
	OPENER_RECORD,	 /* a hot list put there, or only whether one could be */
	OPENER_HOT_LIST, /* opened and copied into a memfd */
	OPENER_PARTS
};

/* One piece of work, in a memfd.  A place is that of a text, from the order's begin on; texts
 * of which there are many follow each other. */
struct opener_order {
	uint32_t bytes; /* with all texts */
	uint32_t nr_roots, roots_at;
	uint32_t nr_overlays;
	uint32_t paths_at[OPENER_PARTS]; /* 0: not wanted */
	struct peer peer;
	bool writes; /* the bytes of the second descriptor to the path of OPENER_RECORD */
	bool looks;  /* at the image, whose descriptor nobody wants */
	bool closes; /* what is in the second descriptor, a socket, and nothing else */
	uint64_t overlay_offsets[OVERLAY_MAX];
	char texts[];
};

static inline const char *
opener_text(const struct opener_order *order, uint32_t at)
{
	return (const char *)order + at;
}

/* To the opener, with the order and, perhaps, bytes. */
struct opener_call {
	uint64_t number;
};

enum opener_kind {
	OPENER_BEGUN,  /* with a pidfd of the process that does it */
	OPENER_AT,     /* this path is next */
	OPENER_SO_FAR, /* as OPENER_DONE; only the hot list is to come */
	OPENER_DONE,
	OPENER_FAILED, /* no process could be made for it */
};

/* What became of a part; with a descriptor when has_fd. */
struct opener_outcome {
	int32_t error; /* 0 or a negative errno */
	bool has_fd;
	char why[OPENER_WHY_BYTES];
};

struct opener_word {
	uint64_t number;
	uint32_t kind; /* enum opener_kind */
	uint32_t part; /* OPENER_AT: enum opener_part */
	uint32_t nth;  /* OPENER_AT: which overlay */
	int32_t error; /* OPENER_FAILED */
	/* OPENER_DONE */
	struct image image; /* but for its descriptor */
	struct opener_outcome outcomes[OPENER_PARTS];
};

#define OPENER_SHORT_BYTES offsetof(struct opener_word, image)

/* One datagram with its descriptors, of which the receiver owns all.  Bytes, or a negative
 * errno; 0: nobody is at the other end.  *nr_fds is at first the room for them, at most
 * OPENER_MAX_FDS, and then their number: 0 where we could not take all of them. */
int opener_send(int link, const void *data, size_t bytes, const int *fds, size_t nr_fds, int flags);
int opener_receive(int link, void *data, size_t bytes, int *fds, size_t *nr_fds, int flags);

#endif
