/* SPDX-License-Identifier: Apache-2.0 */
/* An image that was opened, and for whom.  See supervisor/opener.h. */
#ifndef SUPERVISOR_IMAGE_H
#define SUPERVISOR_IMAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PEER_MAX_GROUPS 64

/* Who is at the other end of an admin connection, as the kernel says. */
struct peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	size_t nr_groups;
	gid_t groups[PEER_MAX_GROUPS];
};

struct image {
	int fd;		   /* owned by whoever holds the struct; read-only */
	uint64_t bytes;	   /* size when it was opened */
	uint64_t dev, ino; /* identity */
	int64_t mtime_ns, ctime_ns;
};

#endif
