/* SPDX-License-Identifier: Apache-2.0 */
/* ● The only file that opens a path that a client named.
 *
 * The path must be absolute and below a configured image root, is resolved with
 * openat2 (beneath the root, no symlink, no magic link), must be a regular file, and
 * is opened with the file-system identity of the client: what the client could not
 * read, it cannot have served.  Opening never waits for a FIFO or touches a device; for
 * the storage it waits as long as that takes. */
#ifndef SUPERVISOR_OPENER_IMAGE_H
#define SUPERVISOR_OPENER_IMAGE_H

#include <stddef.h>

#include "supervisor/image.h"

struct options_list;

/* 0, or a negative errno (-EACCES, -ENOENT, -ELOOP, -EISDIR, -EINVAL for a path that is
 * not absolute or has "..", for what is not a regular file or is empty, -EXDEV outside
 * every root, -EPERM a client whose identity we cannot take, -EFBIG, -EBUSY leased);
 * why gets a sentence for the client that names the path and the remedy. */
int image_open(const struct options_list *roots, const struct peer *peer, const char *path,
    struct image *ret, char *why, size_t why_bytes);

/* How a file begins that image_replace() puts another in place of. */
#define IMAGE_REPLACED "pagerhot"

struct image_bytes {
	const void *bytes;
	size_t nr;
};

/* Puts a file of these bytes at path, below a root as above, with the client's identity and in
 * one piece.  What is there already and is no such file stays.  With bytes NULL it only finds
 * out whether that is possible.  0 or a negative errno (-EEXIST what is there stays) and why. */
int image_replace(const struct options_list *roots, const struct peer *peer, const char *path,
    const struct image_bytes *bytes, char *why, size_t why_bytes);

#endif
