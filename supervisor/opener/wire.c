/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(OPENER_MAX_FDS * sizeof(int))];
};

int
opener_send(int link, const void *data, size_t bytes, const int *fds, size_t nr_fds, int flags)
{
	union control control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (nr_fds > OPENER_MAX_FDS)
		return -EINVAL;
	if (nr_fds > 0) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, nr_fds * sizeof(int));
	}
	do
		n = sendmsg(link, &mh, MSG_NOSIGNAL | flags);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (int)n;
}

int
opener_receive(int link, void *data, size_t bytes, int *fds, size_t *nr_fds, int flags)
{
	union control control;
	struct iovec iov = {.iov_base = data, .iov_len = bytes};
	struct msghdr mh = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = CMSG_SPACE(*nr_fds * sizeof(int))};
	ssize_t n;

	*nr_fds = 0;
	do
		n = recvmsg(link, &mh, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c != NULL; c = CMSG_NXTHDR(&mh, c)) {
		size_t got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds + *nr_fds, CMSG_DATA(c), got * sizeof(int));
		*nr_fds += got;
	}
	/* Some had no room in our table: which are left cannot be told. */
	if (mh.msg_flags & MSG_CTRUNC) {
		fd_close_all(fds, *nr_fds);
		*nr_fds = 0;
	}
	return mh.msg_flags & MSG_TRUNC ? -EPROTO : (int)n;
}
