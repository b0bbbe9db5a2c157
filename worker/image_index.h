/* SPDX-License-Identifier: Apache-2.0 */
/* The holes of an image, found once in the background.  Read-only when published. */
#ifndef WORKER_IMAGE_INDEX_H
#define WORKER_IMAGE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

struct image_index;

/* A thread: finds the holes of the struct image in arg, publishes the index, warms the
 * page tables of an image that is in memory anyway, then lets go of the image. */
void *image_index_main(void *arg);

bool image_index_is_hole(
    const struct image_index *index, uint64_t offset, uint64_t max, uint64_t *ret_bytes);
void image_index_free(struct image_index *index);

#endif
