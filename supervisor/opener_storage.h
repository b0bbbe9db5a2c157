/* SPDX-License-Identifier: Apache-2.0 */
/* What the table of mounts says of storage, without touching it. */
#ifndef SUPERVISOR_OPENER_STORAGE_H
#define SUPERVISOR_OPENER_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

/* By the table of mounts and the words of the path: 0 where that does not tell. */
uint64_t opener_storage_of(const char *path);

/* Whether a file system in user space is told of each close of a file on that device, and waited
 * for; true also of one that is mounted nowhere. */
bool opener_storage_is_told(uint64_t dev);

/* The same by that text of a table; pure. */
uint64_t opener_storage_find(const char *table, const char *path);
bool opener_storage_find_told(const char *table, uint64_t dev);

#endif
