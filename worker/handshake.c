/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/handshake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/fault.h"
#include "common/fd.h"
#include "worker/reason.h"
#include "worker/uffd_probe.h"

#define FIRST_ROOM     4096U
#define READ_BYTES     16384U
#define LOOK_BYTES     65536U
#define READS_PER_CALL 64U /* the whole of HANDSHAKE_MAX_BYTES; then the loop's other work */

/* One more than is ever right, so that the count in the reason is mostly exact. */
#define CONTROL_BYTES CMSG_SPACE((HANDSHAKE_MAX_FDS + 1) * sizeof(int))

static void
release(struct handshake *h)
{
	fd_close_all(h->fds, HANDSHAKE_MAX_FDS);
	h->nr_fds = 0;
	free(h->bytes);
	h->bytes = NULL;
	h->room = 0;
}

/* The reason was written by the callee already. */
static enum handshake_status
refused(struct handshake *h)
{
	release(h);
	h->nr_regions = 0;
	h->status = HANDSHAKE_REFUSED;
	return h->status;
}

#define refuse(h, ...) (reason_set((h)->reason, sizeof((h)->reason), __VA_ARGS__), refused(h))

void
handshake_init(struct handshake *h, uint64_t image_bytes, bool wants_memfd)
{
	memset(h, 0, sizeof(*h));
	h->status = HANDSHAKE_NEED_MORE;
	h->image_bytes = image_bytes;
	h->wants_memfd = wants_memfd;
	for (size_t i = 0; i < HANDSHAKE_MAX_FDS; i++)
		h->fds[i] = -1;
}

void
handshake_fini(struct handshake *h)
{
	release(h);
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t
skip_space(const char *bytes, size_t n)
{
	size_t i = 0;

	while (i < n && is_space(bytes[i]))
		i++;
	return i;
}

/* The escape only matters for \" and \\, of which neither is longer than a byte. */
static void
scan_in_string(struct handshake *h, char c)
{
	if (h->in_escape)
		h->in_escape = false;
	else if (c == '\\')
		h->in_escape = true;
	else if (c == '"')
		h->in_string = false;
}

/* Looks at the bytes from at on, once, for the end of the value.  Which bracket
 * closes which is the parser's business: only the depth is counted here. */
static enum handshake_status
scan(struct handshake *h, size_t at)
{
	for (; at < h->nr_bytes; at++) {
		char c = h->bytes[at];

		if (h->in_string) {
			scan_in_string(h, c);
			continue;
		}
		if (h->depth == 0) {
			if (is_space(c))
				continue;
			if (c != '[' && c != '{')
				return refuse(h,
				    "not a handshake: byte %zu is 0x%02x, not the [ or { of a JSON "
				    "array or object",
				    at, (unsigned char)c);
		}
		if (c == '"')
			h->in_string = true;
		else if (c == '[' || c == '{')
			h->depth++;
		if (c == '[' || c == '{' || c == ',')
			h->nr_values++;
		if (h->depth > HANDSHAKE_MAX_DEPTH)
			return refuse(
			    h, "nested deeper than %u levels at byte %zu", HANDSHAKE_MAX_DEPTH, at);
		if (h->nr_values > HANDSHAKE_MAX_VALUES)
			return refuse(
			    h, "more than %u values at byte %zu", HANDSHAKE_MAX_VALUES, at);
		if ((c == ']' || c == '}') && --h->depth == 0) {
			h->value_bytes = at + 1;
			return HANDSHAKE_DONE;
		}
	}
	return HANDSHAKE_NEED_MORE;
}

static enum handshake_status
add_bytes(struct handshake *h, const void *bytes, size_t n)
{
	size_t room = h->room != 0 ? h->room : FIRST_ROOM;
	char *grown;

	if (n > HANDSHAKE_MAX_BYTES - h->nr_bytes)
		return refuse(h, "longer than %u bytes", HANDSHAKE_MAX_BYTES);
	while (room < h->nr_bytes + n)
		room *= 2;
	if (room > HANDSHAKE_MAX_BYTES)
		room = HANDSHAKE_MAX_BYTES;
	if (room != h->room) {
		grown = realloc(h->bytes, room);
		if (grown == NULL)
			return refuse(h, "the worker has no memory for %zu bytes", room);
		h->bytes = grown;
		h->room = room;
	}
	if (n > 0)
		memcpy(h->bytes + h->nr_bytes, bytes, n);
	h->nr_bytes += n;
	return HANDSHAKE_NEED_MORE;
}

static enum handshake_status
add_fds(struct handshake *h, int *fds, size_t nr_fds)
{
	size_t wanted = h->wants_memfd ? 2 : 1;
	size_t total = h->nr_fds + nr_fds;

	if (total > wanted) {
		fd_close_all(fds, nr_fds);
		return refuse(h,
		    h->wants_memfd ? "%zu descriptors; exactly 2 are wanted, the userfaultfd and "
				     "the memfd"
				   : "%zu descriptors; exactly 1 is wanted, the userfaultfd (a VMM "
				     "that sends its memfd needs a session with \"memfd\": true)",
		    total);
	}
	for (size_t i = 0; i < nr_fds; i++)
		h->fds[h->nr_fds++] = fd_take(&fds[i]);
	return HANDSHAKE_NEED_MORE;
}

/* The value is complete: everything but the nature of the descriptors. */
static enum handshake_status
conclude(struct handshake *h)
{
	size_t end = h->value_bytes;
	size_t wanted = h->wants_memfd ? 2 : 1;

	end += skip_space(h->bytes + end, h->nr_bytes - end);
	if (end < h->nr_bytes)
		return refuse(h, "data after the JSON value: byte %zu is 0x%02x", end,
		    (unsigned char)h->bytes[end]);
	if (h->nr_fds == 0)
		return refuse(h,
		    "no descriptor came with the regions: send the userfaultfd by "
		    "SCM_RIGHTS in the same sendmsg()");
	if (h->nr_fds < wanted)
		return refuse(h,
		    "1 descriptor; exactly 2 are wanted, the userfaultfd and the "
		    "memfd, because the session was created with \"memfd\": true");
	if (handshake_parse(h->bytes, h->value_bytes, h->regions, &h->nr_regions, h->reason) < 0)
		return refused(h);
	if (handshake_validate(h->regions, h->nr_regions, h->image_bytes, h->reason) < 0)
		return refused(h);
	free(h->bytes);
	h->bytes = NULL;
	h->room = 0;
	h->status = HANDSHAKE_DONE;
	return h->status;
}

enum handshake_status
handshake_feed(struct handshake *h, const void *bytes, size_t n, int *fds, size_t nr_fds)
{
	size_t at = h->nr_bytes;
	enum handshake_status status;

	if (h->status == HANDSHAKE_REFUSED) {
		fd_close_all(fds, nr_fds);
		return h->status;
	}
	if (h->status == HANDSHAKE_DONE) {
		size_t spaces = skip_space(bytes, n);

		if (spaces == n && nr_fds == 0)
			return h->status;
		fd_close_all(fds, nr_fds);
		return refuse(h, "more data or descriptors after a complete handshake");
	}
	if (nr_fds > 0 && add_fds(h, fds, nr_fds) == HANDSHAKE_REFUSED)
		return h->status;
	if (add_bytes(h, bytes, n) == HANDSHAKE_REFUSED)
		return h->status;
	status = scan(h, at);
	return status == HANDSHAKE_DONE ? conclude(h) : status;
}

enum handshake_status
handshake_eof(struct handshake *h)
{
	if (h->status != HANDSHAKE_NEED_MORE)
		return h->status;
	return refuse(h,
	    "the VMM closed the connection after %zu bytes, before the JSON value "
	    "was complete",
	    h->nr_bytes);
}

enum handshake_status
handshake_check(struct handshake *h)
{
	if (h->status != HANDSHAKE_DONE || h->fds[0] < 0) /* taken already */
		return h->status;
	if (uffd_probe(h->fds[0], h->reason, sizeof(h->reason)) < 0)
		return refused(h);
	if (h->wants_memfd && memfd_probe(h->fds[1], h->reason, sizeof(h->reason)) < 0)
		return refused(h);
	if (uffd_probe_pages(h->fds[0], h->regions, h->nr_regions, h->reason, sizeof(h->reason)) <
	    0)
		return refused(h);
	return h->status;
}

/* Moves every descriptor of the message into fds, which has room for all that fit
 * into the control buffer. */
static size_t
take_fds(struct msghdr *msg, int *fds)
{
	size_t nr_fds = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(&fds[nr_fds], CMSG_DATA(c), n * sizeof(int));
		nr_fds += n;
	}
	return nr_fds;
}

/* Room for as many descriptors as a message may bring. */
union control {
	struct cmsghdr align;
	char bytes[CONTROL_BYTES];
};

static ssize_t
receive(int fd, struct iovec *iov, int flags, int *fds, size_t *ret_nr_fds, int *ret_flags)
{
	union control control;
	struct msghdr msg = {
	    .msg_iov = iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes),
	};
	ssize_t n;

	*ret_nr_fds = 0;
	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret_nr_fds = take_fds(&msg, fds);
	*ret_flags = msg.msg_flags;
	return n;
}

/* One recvmsg() with flags, into iov.  False when nothing more is there for now. */
static bool
read_once(struct handshake *h, int fd, struct iovec *iov, int flags)
{
	int fds[CONTROL_BYTES / sizeof(int)], got = 0;
	size_t nr_fds;
	ssize_t n;

	if (fault(FAULT_HANDSHAKE_READ)) {
		refuse(h, "reading the connection failed: %s", strerror(EIO));
		return false;
	}
	n = receive(fd, iov, flags, fds, &nr_fds, &got);
	if (n < 0) {
		/* After a complete handshake the connection has no more to say. */
		if (n != -EAGAIN && h->status != HANDSHAKE_DONE)
			refuse(h, "reading the connection failed: %s", strerror((int)-n));
		return false;
	}
	if (got & (MSG_CTRUNC | MSG_TRUNC)) {
		fd_close_all(fds, nr_fds);
		refuse(h, "more than %u descriptors in one message, or the worker has none free",
		    HANDSHAKE_MAX_FDS + 1);
		return false;
	}
	if (n == 0) {
		fd_close_all(fds, nr_fds);
		handshake_eof(h);
		return false;
	}
	return handshake_feed(h, iov->iov_base, (size_t)n, fds, nr_fds) != HANDSHAKE_REFUSED;
}

enum handshake_status
handshake_read(struct handshake *h, int fd)
{
	char bytes[READ_BYTES];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};

	for (unsigned int i = 0; i < READS_PER_CALL && h->status != HANDSHAKE_REFUSED; i++)
		if (!read_once(h, fd, &iov, 0))
			break;
	return handshake_check(h);
}

int
handshake_look_from_start(int fd)
{
	int offset = 0;

	return setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0 ? -errno : 0;
}

/* A message that does not fit would be seen in parts, and its descriptors with each part. */
bool
handshake_look(struct handshake *h, int fd)
{
	struct iovec iov = {.iov_base = malloc(LOOK_BYTES), .iov_len = LOOK_BYTES};

	if (iov.iov_base == NULL)
		return false;
	while (h->nr_bytes < LOOK_BYTES && h->status != HANDSHAKE_REFUSED)
		if (!read_once(h, fd, &iov, MSG_PEEK))
			break;
	free(iov.iov_base);
	handshake_check(h);
	return h->nr_bytes < LOOK_BYTES;
}

void
handshake_begin_again(struct handshake *h)
{
	uint64_t image_bytes = h->image_bytes;
	bool wants_memfd = h->wants_memfd;

	handshake_fini(h);
	handshake_init(h, image_bytes, wants_memfd);
}
