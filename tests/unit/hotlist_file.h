/* SPDX-License-Identifier: Apache-2.0 */
/* Hot lists in files, for tests: whoever else has one has its bytes. */
#ifndef TESTS_UNIT_HOTLIST_FILE_H
#define TESTS_UNIT_HOTLIST_FILE_H

#include <errno.h>
#include <unistd.h>

#include "common/hotlist.h"
#include "common/scope.h"

/* At its position. */
static inline int
hotlist_to_file(const struct hotlist *list, int fd)
{
	scoped_free unsigned char *bytes = NULL;
	size_t nr = 0;
	int r = hotlist_encode(list, &bytes, &nr);

	if (r < 0)
		return r;
	return write(fd, bytes, nr) == (ssize_t)nr ? 0 : -EIO;
}

#endif
