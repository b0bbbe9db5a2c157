/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's handshake: one JSON array of regions and one userfaultfd, sent over a
 * Unix stream socket.  Hostile input: whatever arrives, the result is DONE or
 * REFUSED with a reason that the client can read, and no descriptor is lost.
 *
 * A stream may cut the message anywhere.  The end of the JSON value is found while
 * the bytes arrive, each looked at once; the JSON parser runs once, at the end. */
#ifndef WORKER_HANDSHAKE_H
#define WORKER_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pagemap.h"

#define HANDSHAKE_MAX_BYTES    (1024U * 1024U)
#define HANDSHAKE_MAX_DEPTH    32U
#define HANDSHAKE_MAX_VALUES   65536U /* bounds what the parser allocates, at some 250 bytes each */
#define HANDSHAKE_MAX_FDS      2U
#define HANDSHAKE_REASON_BYTES 256U /* with the terminator; printable ASCII */

enum handshake_status {
	HANDSHAKE_NEED_MORE, /* nothing decided yet */
	HANDSHAKE_DONE,	     /* regions and fds are valid and the caller's to take */
	HANDSHAKE_REFUSED,   /* reason says why; every descriptor not taken is closed */
};

struct handshake {
	enum handshake_status status;
	bool wants_memfd;     /* the session was created for a VMM that sends its memfd too */
	uint64_t image_bytes; /* regions must lie in it */

	/* Valid when DONE.  fds[0] is the userfaultfd, fds[1] the memfd or -1: owned,
	 * moved out by fd_take(). */
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint32_t nr_regions;
	int fds[HANDSHAKE_MAX_FDS];
	size_t nr_fds;

	char reason[HANDSHAKE_REASON_BYTES]; /* valid when REFUSED */

	/* The bytes so far, and the scanner that looks for the end of the value. */
	char *bytes;
	size_t nr_bytes;
	size_t room;
	size_t value_bytes; /* to the end of the value; 0: not seen yet */
	uint32_t depth;
	uint32_t nr_values;
	bool in_string;
	bool in_escape;
};

void handshake_init(struct handshake *h, uint64_t image_bytes, bool wants_memfd);

/* Frees the bytes and closes every descriptor that was not taken.  Safe to repeat. */
void handshake_fini(struct handshake *h);

/* Adds what one read gave.  Takes over every descriptor in fds (-1 is left there),
 * whatever the result.  Whitespace after the value is fine, anything else is not.
 * Does no I/O: descriptors are counted here and looked at by handshake_check(). */
enum handshake_status handshake_feed(
    struct handshake *h, const void *bytes, size_t n, int *fds, size_t nr_fds);

/* The VMM sends no more: refuses what is not complete. */
enum handshake_status handshake_eof(struct handshake *h);

/* Makes a DONE handshake REFUSED when a descriptor is not what it must be. */
enum handshake_status handshake_check(struct handshake *h);

/* Reads what the connection fd has now, without blocking: feed, eof and check in
 * one.  A descriptor refused by the kernel's limits is a refusal too. */
enum handshake_status handshake_read(struct handshake *h, int fd);

/* As handshake_read(), but leaves everything in the socket: each look sees what has come since
 * the one before, from handshake_look_from_start() on.  False: this one is too long for it, and
 * has to be read after handshake_begin_again(). */
bool handshake_look(struct handshake *h, int fd);
int handshake_look_from_start(int fd);
/* Forgets what was seen. */
void handshake_begin_again(struct handshake *h);

/* The complete JSON value to regions in the order of the message; at most
 * PAGEMAP_MAX_REGIONS fit in r.  0, or a negative errno and a reason. */
int handshake_parse(const char *json, size_t n, struct region *r, uint32_t *ret_nr, char *reason);

/* Checks regions against each other and the image, in O(n log n).  0, or -EINVAL
 * with a reason of at most HANDSHAKE_REASON_BYTES that names region and values. */
int handshake_validate(const struct region *r, size_t n, uint64_t image_bytes, char *reason);

#endif
