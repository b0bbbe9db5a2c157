/* SPDX-License-Identifier: Apache-2.0 */
/* Which mounted file system a path is on, without touching it. */
#ifndef SUPERVISOR_OPENER_STORAGE_H
#define SUPERVISOR_OPENER_STORAGE_H

#include <stdint.h>

/* By the table of mounts and the words of the path: 0 where that does not tell. */
uint64_t opener_storage_of(const char *path);

/* The same by that text of a table; pure. */
uint64_t opener_storage_find(const char *table, const char *path);

#endif
