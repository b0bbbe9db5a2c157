/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/uffd.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fault.h"

#define ASKED_LEN UINT64_C(4096)

/* Headers before Linux 6.6 have neither. */
struct poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define POISON		_IOWR(UFFDIO, 0x08, struct poison)
#define POISON_DONTWAKE 1U

static enum uffd_result
classify(int error)
{
	switch (error) {
	case EAGAIN:
		return UFFD_AGAIN;
	case EEXIST:
		return UFFD_EXISTS;
	case ESRCH:
		return UFFD_GONE;
	case ENOENT:
		return UFFD_NO_RANGE;
	case ENOMEM:
		return UFFD_NO_MEMORY;
	case EFAULT:
		return UFFD_BAD_SOURCE;
	default:
		return UFFD_FAILED;
	}
}

struct uffd_copy {
	int fd;
	uint64_t dst;
	const void *src; /* NULL: zeros */
	uint64_t bytes;
	uint64_t mode;
};

static int
copy_once(const struct uffd_copy *c, uint64_t at, int64_t *ret_done)
{
	struct uffdio_copy op = {
	    .dst = c->dst + at,
	    .src = (uint64_t)(uintptr_t)c->src + at,
	    .len = c->bytes - at,
	    .mode = c->mode,
	    /* Older kernels leave it unwritten on an early exit. */
	    .copy = 0,
	};
	int error = ioctl(c->fd, UFFDIO_COPY, &op) < 0 ? errno : 0;

	*ret_done = op.copy;
	return error;
}

static int
zero_once(int fd, uint64_t dst, uint64_t bytes, int64_t *ret_done)
{
	struct uffdio_zeropage op = {
	    .range = {.start = dst, .len = bytes},
	    .zeropage = 0,
	};
	int error = ioctl(fd, UFFDIO_ZEROPAGE, &op) < 0 ? errno : 0;

	*ret_done = op.zeropage;
	return error;
}

static enum uffd_result
fill(const struct uffd_copy *c, struct uffd_fill *ret)
{
	int64_t done = 0;
	int error;

	ret->done_bytes = 0;
	if (fault(FAULT_FILL_MEMORY)) {
		ret->error = ENOMEM;
		return UFFD_NO_MEMORY;
	}
	do {
		uint64_t at = ret->done_bytes;

		if (c->src != NULL)
			error = copy_once(c, at, &done);
		else
			error = zero_once(c->fd, c->dst + at, c->bytes - at, &done);
		if (done > 0)
			ret->done_bytes += (uint64_t)done;
		/* A partial fill says EAGAIN whatever stopped it: ask again for the reason. */
	} while (error == EAGAIN && done > 0 && ret->done_bytes < c->bytes);
	ret->error = error;
	if (error == 0 || ret->done_bytes >= c->bytes)
		return UFFD_DONE;
	return classify(error);
}

enum uffd_result
uffd_poison(int fd, uint64_t start, uint64_t bytes, bool wakes, struct uffd_fill *ret)
{
	struct poison op = {
	    .range = {.start = start, .len = bytes},
	    .mode = wakes ? 0 : POISON_DONTWAKE,
	};
	int error = ioctl(fd, POISON, &op) < 0 ? errno : 0;

	*ret = (struct uffd_fill){.done_bytes = error == 0 ? bytes : 0, .error = error};
	return error == 0 ? UFFD_DONE : classify(error);
}

enum uffd_result
uffd_fill(int fd, uint64_t dst, const void *src, uint64_t bytes, struct uffd_fill *ret)
{
	const struct uffd_copy c = {fd, dst, src, bytes, 0};

	return fill(&c, ret);
}

enum uffd_result
uffd_fill_protected(int fd, uint64_t dst, const void *src, uint64_t bytes, struct uffd_fill *ret)
{
	const struct uffd_copy c = {fd, dst, src, bytes, UFFDIO_COPY_MODE_WP};

	return fill(&c, ret);
}

static int
protect_once(int fd, uint64_t start, uint64_t bytes, uint64_t mode)
{
	struct uffdio_writeprotect op = {.range = {start, bytes}, .mode = mode};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &op) < 0 ? errno : 0;
}

enum uffd_result
uffd_protect(int fd, uint64_t start, uint64_t bytes, bool protect, int *ret_error)
{
	uint64_t mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;

	*ret_error = protect_once(fd, start, bytes, mode);
	return *ret_error == 0 ? UFFD_DONE : classify(*ret_error);
}

enum uffd_result
uffd_map(int fd, uint64_t page, uint64_t bytes, int *ret_error)
{
	struct uffdio_continue op = {.range = {page, bytes}, .mapped = 0};

	*ret_error = ioctl(fd, UFFDIO_CONTINUE, &op) < 0 ? errno : 0;
	return *ret_error == 0 ? UFFD_DONE : classify(*ret_error);
}

/* ENOENT where it is not.  A removal under way hides the answer: then no. */
bool
uffd_is_protectable(int fd, uint64_t start, uint64_t bytes)
{
	return protect_once(fd, start, bytes, UFFDIO_WRITEPROTECT_MODE_DONTWAKE) == 0;
}

int
uffd_register_protection(int fd, uint64_t start, uint64_t bytes)
{
	struct uffdio_register op = {
	    .range = {start, bytes},
	    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(fd, UFFDIO_REGISTER, &op) < 0 ? -errno : 0;
}

void
uffd_wake(int fd, uint64_t start, uint64_t bytes)
{
	struct uffdio_range range = {.start = start, .len = bytes};

	(void)ioctl(fd, UFFDIO_WAKE, &range);
}

int
uffd_unregister(int fd, uint64_t start, uint64_t bytes)
{
	struct uffdio_range range = {.start = start, .len = bytes};

	return ioctl(fd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
}

int
uffd_read(int fd, struct uffd_msg *msgs, size_t max)
{
	struct iovec iov = {.iov_base = msgs, .iov_len = max * sizeof(*msgs)};
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	if (n < 0 && errno == EOPNOTSUPP)
		n = read(fd, msgs, max * sizeof(*msgs)); /* before Linux 6.10 */
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return (int)((size_t)n / sizeof(*msgs));
}

bool
uffd_is_quiet(int fd)
{
	int64_t done;

	return zero_once(fd, UFFD_ASKED_ADDR, ASKED_LEN, &done) != EAGAIN;
}

bool
uffd_is_alive(int fd)
{
	int64_t done;

	return zero_once(fd, UFFD_ASKED_ADDR, ASKED_LEN, &done) != ESRCH;
}
