/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that cannot fail, for start-up and for small control structures
 * whose number a limit bounds.  Never for a size that a peer chooses. */
#ifndef COMMON_XALLOC_H
#define COMMON_XALLOC_H

#include <stddef.h>

/* Zeroed; the caller frees.  fatal() when memory is gone. */
void *xcalloc(size_t n, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
