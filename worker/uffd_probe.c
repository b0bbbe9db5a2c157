/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/uffd_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "worker/reason.h"

/* Any page that every kernel takes for a user address.  Nothing need be mapped there. */
#define SOME_PAGE UINT64_C(0x40000000)

/* A wake succeeds on every userfaultfd whose API is negotiated, whatever is mapped or
 * registered, even after the VMM exited; at worst a waiter faults a second time.  The
 * error would prove nothing: EINVAL is what other descriptors say too (/dev/kvm). */
static bool
is_negotiated_uffd(int fd)
{
	struct uffdio_range range = {.start = SOME_PAGE, .len = 4096};

	return ioctl(fd, UFFDIO_WAKE, &range) == 0;
}

/* A wrong API number never enables anything, but the kernel zeroes the structure. */
static bool
is_fresh_uffd(int fd)
{
	struct uffdio_api api = {.api = UFFD_API ^ 1U, .features = 1, .ioctls = 1};

	return ioctl(fd, UFFDIO_API, &api) < 0 && errno == EINVAL && api.api == 0 &&
	    api.features == 0 && api.ioctls == 0;
}

int
uffd_probe(int fd, char *reason, size_t bytes)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return reason_set(reason, bytes, "the descriptor is unusable: %s", strerror(errno));
	if (!is_negotiated_uffd(fd)) {
		if (is_fresh_uffd(fd))
			return reason_set(reason, bytes,
			    "the userfaultfd is not enabled: call UFFDIO_API and register the "
			    "regions before sending it");
		return reason_set(reason, bytes, "the descriptor is not a userfaultfd");
	}
	if ((flags & O_NONBLOCK) == 0)
		return reason_set(reason, bytes,
		    "the userfaultfd is blocking, so poll() on it only says error: create it "
		    "with O_NONBLOCK");
	return 0;
}

int
memfd_probe(int fd, char *reason, size_t bytes)
{
	if (fcntl(fd, F_GET_SEALS) < 0)
		return reason_set(reason, bytes, "the second descriptor is not a memfd");
	return 0;
}
