/* SPDX-License-Identifier: Apache-2.0 */
/* Cleanup bound to a scope.  A scoped variable releases what it holds on every
 * way out; fd_take() and ptr_take() move the ownership out before that. */
#ifndef COMMON_SCOPE_H
#define COMMON_SCOPE_H

#include <stdlib.h>

#include "common/fd.h"

static inline void
scope_freep(void *p)
{
	free(*(void **)p);
}

#define scoped_fd   __attribute__((cleanup(fd_closep)))
#define scoped_free __attribute__((cleanup(scope_freep)))

#endif
