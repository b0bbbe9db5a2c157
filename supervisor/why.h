/* SPDX-License-Identifier: Apache-2.0 */
/* Sentences for clients: what is wrong, with its name, and what to do about it. */
#ifndef SUPERVISOR_WHY_H
#define SUPERVISOR_WHY_H

#include <stddef.h>

/* Writes the sentence (cut to fit) and returns error, for `return why_set(…)`. */
int why_set(char *why, size_t why_bytes, int error, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Copies a text that an untrusted process wrote: what is not printable ASCII becomes
 * '?', what does not fit is cut. */
void why_copy_untrusted(char *dst, size_t dst_bytes, const char *src);

#endif
