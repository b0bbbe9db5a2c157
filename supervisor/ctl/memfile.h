/* SPDX-License-Identifier: Apache-2.0 */
/* The memory file of a snapshot that is put together: a copy of the image with what the VM gave
 * back made empty, for Firecracker to write the rest over. */
#ifndef SUPERVISOR_CTL_MEMFILE_H
#define SUPERVISOR_CTL_MEMFILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Opens the file, which must be of that size; or makes it as a copy of the image, holes as
 * holes, for that user.  *ret_made tells.  The descriptor, or a negative errno: -EFBIG when the
 * file is of another size, -ETIMEDOUT, -EINTR.  What was made and failed is gone again. */
int memfile_open(const char *path, const char *image, uint64_t bytes, const uid_t owner[2],
    uint64_t deadline_ns, bool *ret_made);

/* Empties every page that a picture (GET /sessions/{id}/pages) says is removed.  0 and how many
 * bytes; -EPROTO when it is no such picture or reaches beyond the file, before anything is
 * changed; or a negative errno. */
int memfile_empty(int fd, uint64_t bytes, const json_t *picture, uint64_t *ret_bytes);

#endif
