/* SPDX-License-Identifier: Apache-2.0 */
/* Small files of ours in a directory of ours: written in one piece or not at all, read
 * whole and believed only if nobody else can have written them. */
#ifndef SUPERVISOR_STATEFILE_H
#define SUPERVISOR_STATEFILE_H

#include <stddef.h>

/* The name that a file has while it is written. */
#define STATEFILE_NEW "new"

/* Opens a directory that is ours alone, made with mode 0700 if missing.  0 and a descriptor
 * that the caller owns; -EPERM when it is somebody else's, or another negative errno. */
int statefile_open_dir(int at, const char *path, int *ret);

/* A reader finds the old file or the new one.  0 or a negative errno.  Does not wait for
 * the storage: what was written in the last seconds before the power fails may be gone. */
int statefile_replace(int dir, const char *name, const char *text);

/* At most max_bytes - 1 of them and a NUL; the caller frees *ret.  -EPERM for what is not a
 * regular file of ours, -EFBIG, or another negative errno. */
int statefile_read(int dir, const char *name, size_t max_bytes, char **ret, size_t *ret_bytes);

#endif
