/* SPDX-License-Identifier: Apache-2.0 */
/* Hot lists that were read lately, ready to become plans.  Forks of a template come in crowds and
 * have one list: to check and sort a long one takes tens of milliseconds, in which nobody else is
 * answered; to see that its bytes are the same, a millisecond. */
#ifndef SUPERVISOR_HOTCACHE_H
#define SUPERVISOR_HOTCACHE_H

#include "common/hotlist.h"

struct hotcache; /* opaque */

/* Lists, and what all of them take but for the one that was asked for last. */
#define HOTCACHE_LISTS 8U
#define HOTCACHE_BYTES (UINT32_C(24) << 20)

/* The list in an open file, with neighbours brought together up to most pages; borrowed until the
 * next call.  0; -ENOMEM; what reading said; -EINVAL and in *ret_why, in words, what is wrong with
 * it.  *cache is made at the first call. */
int hotcache_get(struct hotcache **cache, int fd, uint32_t most, const struct hotlist **ret,
    const char **ret_why);
void hotcache_free(struct hotcache *cache);

/* How many lists were not known. */
unsigned hotcache_misses(const struct hotcache *cache);

#endif
