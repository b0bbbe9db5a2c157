/* SPDX-License-Identifier: Apache-2.0 */
/* Version strings: up to three dotted numbers, then an optional -suffix. */
#ifndef COMMON_VERSION_H
#define COMMON_VERSION_H

#include <stdbool.h>

#define VERSION_BYTES 32 /* with the terminator */

/* [0-9A-Za-z.+~-]+ that starts with a digit: safe as a file name and in a log. */
bool version_is_valid(const char *s);

/* Like strcmp, by Debian's usual order: numbers as numbers. */
int version_compare(const char *a, const char *b);

#endif
