/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/statefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "common/xalloc.h"

#define DIR_MODE 0700

int
statefile_open_dir(int at, const char *path, int *ret)
{
	scoped_fd int dir = -1;
	struct stat st;

	if (mkdirat(at, path, DIR_MODE) < 0 && errno != EEXIST)
		return -errno;
	dir = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid())
		return -EPERM;
	if ((st.st_mode & 07777) != DIR_MODE && fchmod(dir, DIR_MODE) < 0)
		return -errno;
	*ret = fd_take(&dir);
	return 0;
}

static int
write_all(int fd, const char *text, size_t bytes)
{
	while (bytes > 0) {
		ssize_t n = write(fd, text, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		text += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int
statefile_replace(int dir, const char *name, const char *text)
{
	int r;

	scoped_fd int fd =
	    openat(dir, STATEFILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, strlen(text));
	/* Only begun: what follows does not wait for it. */
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	if (r == 0 && renameat(dir, STATEFILE_NEW, dir, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir, STATEFILE_NEW, 0);
	return r;
}

int
statefile_read(int dir, const char *name, size_t max_bytes, char **ret, size_t *ret_bytes)
{
	scoped_fd int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	scoped_free char *text = NULL;
	struct stat st;
	size_t used = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return -EPERM;
	text = xcalloc(1, max_bytes + 1);
	while (used < max_bytes && (n = read(fd, text + used, max_bytes - used)) != 0) {
		if (n < 0)
			return -errno;
		used += (size_t)n;
	}
	if (used == max_bytes)
		return -EFBIG;
	*ret = text;
	*ret_bytes = used;
	text = NULL;
	return 0;
}
