/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that tell a client why something was refused. */
#ifndef WORKER_REASON_H
#define WORKER_REASON_H

#include <stddef.h>

/* Formats into reason and cuts it to fit.  Whatever is not printable ASCII becomes
 * '?': the text may quote a hostile peer and goes into logs and JSON.  Returns
 * -EINVAL, the usual result of its callers. */
int reason_set(char *reason, size_t bytes, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
